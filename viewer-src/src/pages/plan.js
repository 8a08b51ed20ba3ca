// The planner's frontier: what each configuration costs and what it may be expected to get right.
import { load } from "../data.js";
import { between, compact, count, operations, percent, visible } from "../format.js";
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

const AXES = { seconds: "seconds per question", flops: "FLOPs per question", memory_bytes: "bytes of memory", dollars: "dollars per question" };
const SHORT = { seconds: "seconds", flops: "FLOPs", memory_bytes: "memory", dollars: "dollars" };

/** A choice in one line: model, form of its weights, strategy. */
const named = (choice) =>
  visible([choice.model, choice.weights, choice.strategy, choice.n > 1 ? `n=${choice.n}` : "", choice.verifier ? `· ${choice.verifier}` : ""].filter(Boolean).join(" "));

const same = (a, b) => JSON.stringify([a.model, a.weights, a.strategy, a.settings, a.verifier, a.n]) === JSON.stringify([b.model, b.weights, b.strategy, b.settings, b.verifier, b.n]);

const strings = (value) => (Array.isArray(value) ? value : []).map(String);

function Frontier({ plan, choose }) {
  const choices = (Array.isArray(plan.frontier) ? plan.frontier : []).filter((c) => Number.isFinite(c?.accuracy));
  choices.sort((a, b) => b.accuracy - a.accuracy);
  const axes = Object.keys(AXES).filter((key) => choices.some((c) => c[key] > 0));
  const [axis, setAxis] = useState(axes[0]);
  const best = plan.recommendation ?? null;
  const marks = choices.map((c, i) => {
    const [low, high] = c.interval ?? [c.accuracy, c.accuracy];
    return { x: c[axis], low, value: c.accuracy, high, name: String(i + 1), tone: best && same(c, best) ? "best" : "" };
  });
  return html`<div class="plan">
    <header class="title"><h1>The frontier</h1>
      ${best && html`<p class="lead">Recommended: <strong>${named(best)}</strong>, ${percent(best.accuracy)} expected in ${compact(best.seconds)} s. ${visible(best.reason ?? "")}</p>`}</header>
    <div class="filters"><span class="choices">${axes.map((key) => html`<button key=${key} type="button" aria-pressed=${axis === key} onClick=${() => setAxis(key)}>${SHORT[key]}</button>`)}</span>${choose}</div>
    ${axis ? html`<${Curves} curves=${[]} marks=${marks} name=${AXES[axis]} describe="Expected accuracy against cost" />` : html`<p class="faint">This plan has no frontier to draw.</p>`}
    <div class="rows">${choices.map((c, i) => html`<div key=${i} class="row plan-row ${best && same(c, best) ? "won" : ""}">
      <b class="rank">${i + 1}</b>
      <span class="who"><strong>${named(c)}</strong><small>${visible(c.source ?? "")}${c.questions ? `, ${count(c.questions)} questions` : ""}</small></span>
      <span class="figure">${percent(c.accuracy)}<small>${c.interval ? between([c.interval[0], 0, c.interval[1]]) : ""}</small></span>
      ${axes.map((key) => html`<span key=${key} class="figure">${key === "flops" ? operations(c[key]) : compact(c[key])}<small>${SHORT[key]}</small></span>`)}
    </div>`)}</div>
    ${best?.command && html`<h3>To run it</h3><pre>${visible(best.command)}</pre>`}
    ${[["What would change it", strings(best?.changes)], ["Assumptions", strings(plan.assumptions)]].map(([title, lines]) => lines.length > 0 && html`<div key=${title}><h3>${title}</h3><ul class="note">${lines.map((text) => html`<li key=${text}>${visible(text)}</li>`)}</ul></div>`)}
  </div>`;
}
