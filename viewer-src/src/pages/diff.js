// Two runs, question by question.
import { load, standalone } from "../data.js";
import { compact, count, label, points, pvalue, visible } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { Mark } from "../panels.js";
import { Line } from "../text.js";
import { clip } from "../tree.js";

const KINDS = {
  lost: { name: "only A right", test: (a, b) => a && !b },
  won: { name: "only B right", test: (a, b) => !a && b },
  both: { name: "both right", test: (a, b) => a && b },
  neither: { name: "neither", test: (a, b) => !a && !b },
};

/** The questions of both runs, side by side. */
function compared(a, b, keys) {
  const wanted = keys && new Set(keys);
  const other = new Map(b.questions.key.map((key, i) => [key, i]));
  const side = ({ questions: q }, i) => ({ answer: q.answer[i], mark: q.mark[i], tokens: q.tokens[i] });
  return a.questions.key.flatMap((key, i) => {
    const j = other.get(key);
    const whole = j !== undefined && a.questions.stopped[i] !== "interrupted" && b.questions.stopped[j] !== "interrupted";
    if (!whole || (wanted && !wanted.has(key))) return [];
    return [{ key, prompt: a.questions.prompt[i], truth: a.questions.truth[i], a: side(a, i), b: side(b, j) }];
  });
}

/** The numbers of B against A; a file holds each pair once, whichever way round. */
async function difference(a, b) {
  const turned = ({ interval: [low, value, high], only_in_a, only_in_b, ...rest }) => ({ ...rest, interval: [-high, -value, -low], only_in_a: only_in_b, only_in_b: only_in_a });
  return load(`diff/${a}/${b}`).catch((failure) => {
    if (!standalone()) throw failure;
    return load(`diff/${b}/${a}`).then(turned);
  });
}

async function both(a, b) {
  const [numbers, first, second] = await Promise.all([difference(a, b), load(`run/${a}`), load(`run/${b}`)]);
  return { ...numbers, a: first.run, b: second.run, questions: compared(first, second, numbers.keys) };
}

export function Diff({ a, b }) {
  const [data, setData] = useState(null);
  const [error, setError] = useState(null);
  const [kind, setKind] = useState("");
  useEffect(() => {
    setData(null);
    setError(null);
    both(a, b).then(setData, (failure) => setError(failure.message));
  }, [a, b]);
  if (error) return html`<div class="empty"><h1>These cannot be compared</h1><p>${error}</p><p><a href="#/">All runs</a></p></div>`;
  if (!data) return html`<div class="waiting-page" aria-busy="true"></div>`;
  const of = (q) => Object.keys(KINDS).find((key) => KINDS[key].test(q.a.mark === "right", q.b.mark === "right"));
  const groups = Map.groupBy(data.questions, of);
  const shown = data.questions.filter((q) => (kind ? of(q) === kind : true)).sort((x, y) => rank(of(x)) - rank(of(y)));
  const [low, value, high] = data.interval;
  const parted = low > 0 || high < 0;
  return html`<div class="diff">
    <header class="title"><p class="crumbs"><a href="#/">Runs</a> / comparison · <a href="#/diff/${b}/${a}">the other way round</a></p>
      <h1><span class="side-a">A</span> ${visible(label(data.a))} <em>and</em> <span class="side-b">B</span> ${visible(label(data.b))}</h1>
      <p class="lead">On ${count(data.questions.length)} questions that both searched, B is <strong>${points(value)} points</strong> against A (95 % interval ${points(low)} to ${points(high)}, p ${pvalue(data.p)}): ${parted ? "more than chance." : "these questions cannot tell them apart."}
        ${data.keys && " Questions that differ between the runs are left out."}</p></header>
    <div class="four">
      ${Object.entries(KINDS).map(([key, { name }]) => html`<button key=${key} type="button" class=${key} aria-pressed=${kind === key} onClick=${() => setKind(kind === key ? "" : key)}>
        <b>${count(groups.get(key)?.length ?? 0)}</b><span>${name}</span>
        <i class="level" style=${{ height: `${(100 * (groups.get(key)?.length ?? 0)) / data.questions.length}%` }}></i></button>`)}
    </div>
    <div class="rows">
      ${shown.map((q) => html`<div key=${q.key} class="row diff-row ${of(q)}">
        <span class="ask"><${Line} text=${q.prompt} /> <small>is ${clip(q.truth ?? "?", 18)}</small></span>
        ${[["a", a], ["b", b]].map(([side, run]) => html`<a key=${side} class="item" data-item href="#/run/${run}/${q.key}"><${Mark} mark=${q[side].mark} /> <b>${q[side].answer == null ? "–" : clip(q[side].answer, 16)}</b><small>${compact(q[side].tokens)} tokens</small></a>`)}
      </div>`)}
    </div>
  </div>`;
}

const rank = (kind) => ["won", "lost", "neither", "both"].indexOf(kind);
