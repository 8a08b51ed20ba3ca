// The planner's frontier: what each configuration costs and what it may be expected to get right.
import { load } from "../data.js";
import { between, compact, percent, visible } from "../format.js";
import { html, useEffect, useState } from "../html.js";
import { Curves } from "../charts.js";

export function Plan({ given }) {
  const [plan, setPlan] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    if (given) load("plan").then(setPlan, (failure) => setError(failure.message));
  }, [given]);
  const open = async (event) => {
    const [file] = event.target.files;
    if (!file) return;
    try {
      setPlan(JSON.parse(await file.text()));
      setError(null);
    } catch {
      setError(`${file.name} is not JSON: choose what flyweight plan --json printed.`);
    }
  };
  const choose = html`<label class="button">Open a plan<input type="file" accept=".json,application/json" class="sr" onChange=${open} /></label>`;
  if (!plan) {
    return html`<div class="empty"><h1>No plan open</h1>
      <p>The planner weighs model, encoding, verifier, strategy and n for a task on this machine:</p>
      <pre>flyweight plan --task gsm8k --json > plan.json</pre>
      ${error && html`<p class="wrong" role="alert">${visible(error)}</p>`}<p>${choose}</p></div>`;
  }
  return html`<${Frontier} plan=${plan} choose=${choose} />`;
}

const number = (...values) => values.find((value) => typeof value === "number" && Number.isFinite(value));

/** One entry of the frontier in the page's words, whatever the plan calls its fields. */
export function entry(found) {
  const accuracy = found.accuracy ?? {};
  const value = number(accuracy.value, Array.isArray(accuracy) ? accuracy[1] : undefined, found.accuracy);
  const low = number(accuracy.low, Array.isArray(accuracy) ? accuracy[0] : undefined, found.accuracy_low, value);
  const high = number(accuracy.high, Array.isArray(accuracy) ? accuracy[2] : undefined, found.accuracy_high, value);
  const name = found.name ?? found.label ?? [found.model, found.strategy, found.n ? `n=${found.n}` : "", found.verifier].filter(Boolean).join(" ");
  return { name: visible(name), value, low, high, seconds: number(found.seconds, found.latency, found.latency_seconds), flops: number(found.flops), tokens: number(found.tokens, found.generated_tokens), memory: number(found.memory, found.bytes, found.memory_bytes), source: found.source ?? found.label_source ?? "" };
}

const AXES = { seconds: "seconds per question", flops: "FLOPs per question", tokens: "generated tokens per question", memory: "bytes of memory" };

function Frontier({ plan, choose }) {
  const entries = (Array.isArray(plan.frontier) ? plan.frontier : []).map(entry).filter((e) => e.value !== undefined);
  const axes = Object.keys(AXES).filter((key) => entries.some((e) => e[key] > 0));
  const [axis, setAxis] = useState(axes[0]);
  const best = plan.recommendation ? entry(plan.recommendation.configuration ?? plan.recommendation) : null;
  const lines = (value) => (Array.isArray(value) ? value : value && typeof value === "object" ? Object.entries(value).map(([k, v]) => `${k}: ${typeof v === "object" ? JSON.stringify(v) : v}`) : value ? [value] : []);
  return html`<div class="plan">
    <header class="title"><h1>The frontier</h1>
      ${best?.name && html`<p class="lead">Recommended: <strong>${best.name}</strong>${best.value !== undefined ? `, ${percent(best.value)} expected` : ""}.</p>`}</header>
    <div class="filters"><span class="choices">${axes.map((key) => html`<button key=${key} type="button" aria-pressed=${axis === key} onClick=${() => setAxis(key)}>${key === "flops" ? "FLOPs" : key}</button>`)}</span>${choose}</div>
    ${axis ? html`<${Curves} curves=${[{ name: "frontier", tone: "a", points: entries.filter((e) => e[axis] > 0).map((e) => ({ x: e[axis], low: e.low, value: e.value, high: e.high })).sort((p, q) => p.x - q.x) }]}
      marks=${best && best[axis] > 0 && best.value !== undefined ? [{ x: best[axis], low: best.low, value: best.value, high: best.high, name: "recommended", tone: "best" }] : []} name=${AXES[axis]} describe="Expected accuracy against cost" />`
      : html`<p class="faint">This plan has no frontier to draw.</p>`}
    <div class="rows">${entries.map((e, i) => html`<div key=${i} class="row plan-row ${best && e.name === best.name ? "won" : ""}"><span class="ask">${e.name}</span><span class="figure">${percent(e.value)}<small>${between([e.low, e.value, e.high])}</small></span>${axes.map((key) => html`<span key=${key} class="figure">${compact(e[key])}<small>${key}</small></span>`)}</div>`)}</div>
    ${lines(plan.recommendation?.reason).length > 0 && html`<h3>Why</h3><ul>${lines(plan.recommendation.reason).map((text) => html`<li key=${text}>${visible(text)}</li>`)}</ul>`}
    ${lines(plan.assumptions).length > 0 && html`<h3>Assumptions</h3><ul class="note">${lines(plan.assumptions).map((text) => html`<li key=${text}>${visible(typeof text === "string" ? text : JSON.stringify(text))}</li>`)}</ul>`}
  </div>`;
}
