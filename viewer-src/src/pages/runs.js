// The front page: every run, by what it was asked.
import { load } from "../data.js";
import { between, compact, count, label, percent, visible, when } from "../format.js";
import { html, useEffect, useState } from "../html.js";

const slowly = 4;

export function Runs({ index }) {
  const [said, setSaid] = useState({});
  const [picked, setPicked] = useState([]);
  useEffect(() => {
    // One after another, so that the first are there at once however many there are.
    let gone = false;
    const queue = index.runs.map((run) => run.id);
    const work = async () => {
      for (let id; !gone && (id = queue.shift()); ) {
        const found = await load(`run/${id}`).catch((error) => ({ error: error.message }));
        if (!gone) setSaid((before) => ({ ...before, [id]: found }));
      }
    };
    for (let i = 0; i < slowly; i++) work();
    return () => (gone = true);
  }, [index]);

  if (!index.runs.length) {
    return html`<div class="empty"><h1>No runs yet</h1>
      <p>Record one, and it appears here:</p><pre>flyweight bench run gsm8k --limit 20</pre>
      ${index.ask && html`<p><a class="button" href="#/ask">Ask a question</a></p>`}</div>`;
  }
  const groups = Map.groupBy(index.runs, (run) => [run.task ?? "other", run.split].filter(Boolean).join(" · "));
  const toggle = (id) => setPicked((now) => (now.includes(id) ? now.filter((other) => other !== id) : [...now.slice(-1), id]));
  return html`<div class="runs">
    <header class="title"><h1>Runs</h1>
      <p class="lead">${count(index.runs.length)} recorded ${index.runs.length === 1 ? "run" : "runs"}. Open one to see its questions, curves and every search; tick two to compare them question by question.</p></header>
    ${[...groups].map(([name, runs]) => html`<section key=${name}>
      <h2>${visible(name)}</h2>
      <div class="rows" role="table">
        ${runs.map((run) => html`<${Row} key=${run.id} run=${run} said=${said[run.id]} picked=${picked.includes(run.id)} onPick=${() => toggle(run.id)} />`)}
      </div></section>`)}
    ${picked.length > 0 && html`<div class="tray">
      <span>${picked.length === 2 ? "Two runs chosen" : "One run chosen: tick another"}</span>
      <button type="button" onClick=${() => setPicked([])}>Clear</button>
      ${picked.length === 2 && html`<a class="button" href="#/diff/${picked[0]}/${picked[1]}">Compare</a>`}
    </div>`}
  </div>`;
}

function Row({ run, said, picked, onPick }) {
  const accuracy = said?.accuracy;
  return html`<div class="row run-row" role="row">
    <input type="checkbox" checked=${picked} onChange=${onPick} aria-label="Choose this run for a comparison" />
    <a class="item" data-item href="#/run/${run.id}">
      <span class="who"><strong>${visible(label(run))}</strong><small>${visible(run.model)} · ${when(run.started)}</small></span>
      <span class="gaugebox">${accuracy
        ? html`<span class="track"><i class="fill" style=${{ width: `${100 * accuracy[1]}%` }}></i><i class="whisker" style=${{ left: `${100 * accuracy[0]}%`, width: `${100 * (accuracy[2] - accuracy[0])}%` }}></i></span>`
        : html`<span class="track ${said ? "" : "waiting"}"></span>`}</span>
      <span class="figure">${accuracy ? percent(accuracy[1]) : said ? "–" : ""}<small>${between(accuracy)}</small></span>
      <span class="figure">${said?.questions ? count(said.questions.id.length) : ""}<small>questions</small></span>
      <span class="figure">${said?.questions ? compact(said.tokens) : ""}<small>tokens each</small></span>
      <span class="figure">${run.finished ? "" : html`<span class="live">running</span>`}</span>
    </a></div>`;
}
