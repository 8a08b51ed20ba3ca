// One question of a run: what was asked, what was answered, and the search that led there.
import { load } from "../data.js";
import { label, score, visible } from "../format.js";
import { html, useEffect, useLayoutEffect, useState } from "../html.js";
import { Mark } from "../panels.js";
import { Player } from "../player.js";
import { Answer, Prose } from "../text.js";

export function Question({ run: id, problem, node, go }) {
  const [data, setData] = useState(null);
  const [error, setError] = useState(null);
  const [keys, setKeys] = useState([]);
  useEffect(() => {
    setError(null);
    setData(null); // never one question under the address of another
    let gone = false;
    // The neighbours can wait until the search stands there.
    const neighbours = () => load(`run/${id}`).then((found) => gone || setKeys(found.questions.key), () => {});
    load(`run/${id}/question/${problem}`).then((found) => {
      if (gone) return;
      setData(found);
      setTimeout(neighbours);
    }, (failure) => gone || setError(failure.message));
    return () => (gone = true);
  }, [id, problem]);
  const at = keys.indexOf(problem);
  useLayoutEffect(() => {
    const press = (event) => {
      if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey) return;
      const to = { n: keys[at + 1], p: keys[at - 1] }[event.key];
      if (to) go(`#/run/${id}/${to}`);
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [keys, at]);
  const choose = (key) => go(`#/run/${id}/${problem}?node=${encodeURIComponent(key)}`, true);
  if (error) return html`<div class="empty"><h1>Not found</h1><p>${error}</p><p><a href="#/run/${id}">The run</a></p></div>`;
  if (!data) return html`<div class="waiting-page" aria-busy="true"></div>`;
  const start = data.events.find((event) => event.kind === "start");
  const end = data.events.findLast((event) => event.kind === "end");
  const result = end?.result;
  return html`<div class="question">
    <header class="title">
      <p class="crumbs"><a href="#/">Runs</a> / <a href="#/run/${id}">${visible(label(data.run))}</a> / ${visible(start?.problem_id ?? problem)}
        <span class="turn">${at > 0 && html`<a href="#/run/${id}/${keys[at - 1]}" title="The question before (p)">←</a>`} ${at >= 0 ? `${at + 1} of ${keys.length}` : ""} ${at >= 0 && at < keys.length - 1 && html`<a href="#/run/${id}/${keys[at + 1]}" title="The next question (n)">→</a>`}</span></p>
      <${Verdict} result=${result} mark=${data.grade} />
      <${Prose} text=${start?.facts?.prompt ?? ""} className="asked" />
    </header>
    <${Player} key=${problem} events=${data.events} chosen=${node} onChoose=${choose} />
  </div>`;
}

export function Verdict({ result, mark }) {
  if (!result) return null;
  const truth = result.problem.answer;
  return html`<p class="verdict">
    ${mark && html`<${Mark} mark=${mark[0]} reason=${mark[1]} />`}
    <span><small>answer</small> <strong><${Answer} text=${result.answer} /></strong></span>
    ${truth != null && html`<span><small>truth</small> <${Answer} text=${truth} /></span>`}
    ${result.confidence != null && html`<span><small>${result.calibrated ? "right with probability" : "confidence"}</small> ${score(Number(result.confidence))}</span>`}
    ${result.stopped !== "done" && html`<span><small>stopped</small> ${result.stopped}</span>`}
    ${result.error && html`<span class="wrong">${visible(result.error)}</span>`}
  </p>`;
}
