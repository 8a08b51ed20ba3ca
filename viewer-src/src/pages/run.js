// A run: what came of it, its questions, curves, scores, difficulty and configuration.
import { load } from "../data.js";
import { Bars, Curves, Histogram } from "../charts.js";
import { between, compact, count, label, operations, percent, score, seconds, visible, when } from "../format.js";
import { html, useEffect, useMemo, useState } from "../html.js";
import { Mark } from "../panels.js";
import { Line } from "../text.js";
import { clip } from "../tree.js";

const TABS = { questions: "Questions", curves: "Scaling", scores: "Scores", difficulty: "Difficulty", setup: "Setup" };
const POLL_SECONDS = 3;

export function Run({ id, tab = "questions" }) {
  const [data, setData] = useState(null);
  const [error, setError] = useState(null);
  const [report, setReport] = useState(null);
  useEffect(() => {
    let timer;
    let gone = false;
    // What takes longer, the candidates' own figures, is asked for once the questions stand there.
    const rest = () => load(`run/${id}/report`).then((found) => gone || setReport(found), (failure) => gone || setReport({ report: null, why: failure.message }));
    const read = (fresh) =>
      load(`run/${id}`, { fresh }).then((found) => {
        if (gone) return;
        setData(found);
        if (!fresh) setTimeout(rest);
        if (!found.run.finished) timer = setTimeout(() => read(true), 1000 * POLL_SECONDS); // it is still being made
      }, (failure) => gone || setError(failure.message));
    read(false);
    return () => { gone = true; clearTimeout(timer); };
  }, [id]);
  if (error) return html`<div class="empty"><h1>Not found</h1><p>${error}</p><p><a href="#/">All runs</a></p></div>`;
  if (!data) return html`<div class="waiting-page" aria-busy="true"></div>`;
  const { run, questions, accuracy } = data;
  const row = report?.report?.rows?.[0];
  const none = report ? "–" : "…";
  return html`<div class="run">
    <header class="title">
      <p class="crumbs"><a href="#/">Runs</a> / ${visible(run.task ?? "run")}</p>
      <h1>${visible(label(run))}</h1>
      <p class="lead">${visible(run.model)} on ${count(questions.id.length)} questions of ${visible(run.task ?? "its own")}${run.split ? `, ${visible(run.split)}` : ""} · ${when(run.started)} ${!run.finished && html`<span class="live">running</span>`}</p>
    </header>
    <dl class="keys">
      <div class="main"><dt>accuracy</dt><dd>${accuracy ? percent(accuracy[1]) : "–"}</dd><small>${accuracy ? `95 % interval ${between(accuracy)}` : "not graded"}</small></div>
      <div><dt>coverage</dt><dd>${row?.coverage ? percent(row.coverage.value) : none}</dd><small>any candidate right</small></div>
      <div><dt>random choice</dt><dd>${row?.random ? percent(row.random.value) : none}</dd><small>a candidate blindly</small></div>
      <div><dt>tokens</dt><dd>${compact(data.tokens)}</dd><small>drawn per question</small></div>
      <div><dt>FLOPs</dt><dd>${row ? operations(row.flops) : none}</dd><small>per question</small></div>
      <div><dt>time</dt><dd>${row?.seconds ? seconds(row.seconds) : none}</dd><small>per question</small></div>
    </dl>
    <nav class="tabs" aria-label="Parts of the run">
      ${Object.entries(TABS).map(([key, name]) => html`<a key=${key} href="#/run/${id}${key === "questions" ? "" : `?tab=${key}`}" aria-current=${tab === key ? "page" : null}>${name}</a>`)}
    </nav>
    ${tab === "questions" && html`<${Questions} id=${id} columns=${questions} samples=${report?.samples} />`}
    ${tab === "curves" && html`<${Scaling} report=${report} />`}
    ${tab === "scores" && html`<${ScoresOf} report=${report} />`}
    ${tab === "difficulty" && html`<${Difficulty} report=${report} columns=${questions} />`}
    ${tab === "setup" && html`<${Setup} data=${data} report=${report} />`}
  </div>`;
}

const MARKS = ["right", "wrong", "undecided", "error", "ungraded"];
const SORTS = { id: "in order", confidence: "least confident", tokens: "most tokens", votes: "most divided" };

function Questions({ id, columns, samples }) {
  const [mark, setMark] = useState("");
  const [words, setWords] = useState("");
  const [sort, setSort] = useState("id");
  const rows = useMemo(() => {
    const wanted = words.toLowerCase();
    const found = columns.key.map((_, i) => i).filter((i) =>
      (!mark || columns.mark[i] === mark) &&
      (!wanted || `${columns.id[i]} ${columns.prompt[i]} ${columns.answer[i]}`.toLowerCase().includes(wanted)));
    const lead = (i) => (columns.votes[i][0] ?? 0) / Math.max(1, columns.candidates[i]);
    const orders = { confidence: (a, b) => (columns.confidence[a] ?? -1) - (columns.confidence[b] ?? -1), tokens: (a, b) => columns.tokens[b] - columns.tokens[a], votes: (a, b) => lead(a) - lead(b) };
    return orders[sort] ? found.sort(orders[sort]) : found;
  }, [columns, mark, words, sort]);
  const tally = Object.fromEntries(MARKS.map((each) => [each, columns.mark.filter((m) => m === each).length]));
  return html`<section>
    <div class="waffle" aria-hidden="true">
      ${columns.key.map((key, i) => html`<i key=${key} class=${columns.mark[i]} title=${`${clip(columns.id[i], 40)}: ${columns.mark[i]}`} onClick=${() => (location.hash = `#/run/${id}/${key}`)}></i>`)}
    </div>
    <div class="filters">
      <span class="choices">
        <button type="button" aria-pressed=${mark === ""} onClick=${() => setMark("")}>all ${count(columns.key.length)}</button>
        ${MARKS.filter((each) => tally[each]).map((each) => html`<button key=${each} type="button" class=${each} aria-pressed=${mark === each} onClick=${() => setMark(mark === each ? "" : each)}>${each} ${count(tally[each])}</button>`)}
      </span>
      <input type="search" placeholder="Find a question  /" value=${words} onInput=${(e) => setWords(e.target.value)} aria-label="Find a question" />
      <label>sorted <select value=${sort} onChange=${(e) => setSort(e.target.value)}>${Object.entries(SORTS).map(([key, name]) => html`<option key=${key} value=${key}>${name}</option>`)}</select></label>
    </div>
    <div class="rows questions" role="table">
      ${rows.map((i) => html`<a key=${columns.key[i]} class="row question-row" role="row" data-item href="#/run/${id}/${columns.key[i]}">
        <${Mark} mark=${columns.mark[i]} />
        <span class="ask"><${Line} text=${columns.prompt[i]} /></span>
        <span class="said"><b>${columns.answer[i] == null ? "–" : clip(columns.answer[i], 18)}</b>${columns.mark[i] !== "right" && columns.truth[i] != null && html`<small>is ${clip(columns.truth[i], 18)}</small>`}</span>
        <span class="split" title="How the candidates voted">${columns.votes[i].slice(0, 9).map((n, j) => html`<i key=${j} class="share-${Math.min(j, 6)}" style=${{ flexGrow: n }}></i>`)}</span>
        <span class="figure">${samples?.[columns.key[i]] ? `${samples[columns.key[i]][1]}/${samples[columns.key[i]][0]}` : count(columns.candidates[i])}<small>${samples ? "right" : "candidates"}</small></span>
        <span class="figure">${score(columns.confidence[i])}<small>confidence</small></span>
        <span class="figure">${compact(columns.tokens[i])}<small>tokens</small></span>
      </a>`)}
      ${rows.length === 0 && html`<p class="faint">No question is like that.</p>`}
    </div>
  </section>`;
}

const NAMES = { random: "random choice", coverage: "coverage", majority: "majority vote" };
const TONES = { random: "quiet", coverage: "quiet2", majority: "a", best: "b", vote: "c" };
const AXES = { tokens: "generated tokens per question", flops: "FLOPs per question", seconds: "seconds per question" };

function Scaling({ report }) {
  const [axis, setAxis] = useState("tokens");
  if (!report) return html`<p class="faint waiting">Computing intervals…</p>`;
  if (!report.report) return html`<p class="faint">${report.why}</p>`;
  const pool = report.report.pools[0];
  const row = report.report.rows[0];
  if (!pool) return html`<p class="faint">A curve needs a pool of samples: runs of best_of_n, weighted_best_of_n or self_consistency with n above 1 and no budget have one.</p>`;
  const axes = Object.keys(AXES).filter((key) => pool.curves[0].points.some((p) => p[key]));
  const curves = pool.curves.map((curve) => ({
    name: NAMES[curve.kind] ?? (curve.kind === "best" ? `best by ${curve.verifier}` : `vote by ${curve.verifier}`),
    tone: TONES[curve.kind],
    points: curve.points.filter((p) => p[axis]).map((p) => ({ x: p[axis], k: p.k, ...p.accuracy })),
  }));
  return html`<section>
    <div class="filters"><span class="choices">${axes.map((key) => html`<button key=${key} type="button" aria-pressed=${axis === key} onClick=${() => setAxis(key)}>${key === "flops" ? "FLOPs" : key}</button>`)}</span></div>
    <${Curves} curves=${curves} name=${AXES[axis]} describe="Accuracy against what was spent, for every way of choosing" />
    <p class="note">All of these come from one pool of ${pool.n} samples for each of ${pool.problems} questions, so they move together. This run itself selected ${percent(row.accuracy.value)}.</p>
    ${report.report.abstention.length > 0 && html`<h3>Answering only when confident</h3>
      <${Bars} bars=${report.report.abstention.map((a) => ({ name: `most confident ${percent(a.wanted, 0)}`, detail: `${a.answered} answered`, ...a.accuracy }))} />`}
  </section>`;
}

function ScoresOf({ report }) {
  if (!report) return html`<p class="faint waiting">Reading every candidate…</p>`;
  if (!report.scores) return html`<p class="faint">${report.why || "No verifier scored these candidates."}</p>`;
  const { right, wrong, auc, verifier } = report.scores;
  const sum = (values) => values.reduce((a, b) => a + b, 0);
  return html`<section>
    <p class="lead">Does <strong>${visible(verifier ?? "the verifier")}</strong> know right from wrong? A right candidate is scored above a wrong one <strong>${auc == null ? "–" : percent(auc)}</strong> of the time; 50 % is chance.</p>
    <${Histogram} right=${right} wrong=${wrong} />
    <p class="note">${count(sum(right))} right and ${count(sum(wrong))} wrong candidates, by score. Pairs across questions: easy questions help this number.</p>
  </section>`;
}

const BANDS = [["never right", 0, 0], ["hard", 0, 0.1], ["medium", 0.1, 0.5], ["easy", 0.5, 1]];

function Difficulty({ report, columns }) {
  if (!report) return html`<p class="faint waiting">Reading every candidate…</p>`;
  if (!report.report) return html`<p class="faint">${report.why}</p>`;
  const marks = Object.fromEntries(columns.key.map((key, i) => [key, columns.mark[i] === "right"]));
  const shares = Object.entries(report.samples ?? {}).filter(([, [n]]) => n > 1).map(([key, [n, right]]) => ({ share: right / n, right: marks[key] }));
  const bands = BANDS.map(([name, low, high]) => {
    const found = shares.filter(({ share }) => (high === 0 ? share === 0 : share > low && share <= high));
    const right = found.filter((each) => each.right).length;
    const detail = `${high === 0 ? "no sample right" : `${100 * low}–${100 * high} % of samples right`} · ${found.length} questions`;
    return { name, detail, total: found.length, ...wilson(right, found.length) };
  }).filter((band) => band.total);
  const strata = Object.entries(report.report.strata);
  return html`<section>
    ${bands.length > 0 && html`<h3>By how often a sample is right</h3><${Bars} bars=${bands} />
      <p class="note">Accuracy of what was selected, among questions the model alone gets right that often: where selecting helps, medium and hard stand above their band.</p>`}
    ${strata.map(([name, entries]) => html`<div key=${name}><h3>By ${name}</h3><${Bars} bars=${entries.map((e) => ({ name: visible(e.value), detail: `${e.problems} questions`, ...e.accuracy }))} /></div>`)}
    ${!bands.length && !strata.length && html`<p class="faint">One sample per question, and no level or subject is known.</p>`}
  </section>`;
}

/** Wilson's interval at 95 %, as flyweight.stats.wilson. */
export function wilson(successes, n) {
  if (!n) return { low: 0, value: 0, high: 1 };
  const z = 1.959963984540054;
  const share = successes / n;
  const middle = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = ((z / (1 + (z * z) / n)) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n)));
  return { low: Math.max(0, middle - half), value: share, high: Math.min(1, middle + half) };
}

function Setup({ data, report }) {
  return html`<section class="setup">
    <h3>Configuration</h3><pre>${visible(JSON.stringify(data.run.configuration, null, 2))}</pre>
    <h3>Models</h3><pre>${Object.entries(data.run.models).map(([name, what]) => `${visible(name)}  ${visible(what)}`).join("\n")}</pre>
    ${report?.provenance?.[0] && html`<h3>Made with</h3><pre>${visible(JSON.stringify(report.provenance[0].versions, null, 2))}</pre>`}
    <h3>Again</h3><pre>flyweight bench resume ${data.run.id}</pre>
  </section>`;
}
