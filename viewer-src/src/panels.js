// What stands beside a tree: the path that was chosen, the votes, the scores, what it cost.
import { area, stack, stackOrderNone, curveStepAfter } from "d3-shape";
import { scaleLinear } from "d3-scale";
import { compact, count, operations, percent, score as shown, seconds } from "./format.js";
import { html, useMemo } from "./html.js";
import { Answer, Prose } from "./text.js";
import { heat } from "./tree.js";

export const MARKS = { right: "✓", wrong: "✗", undecided: "?", ungraded: "·", error: "!", correct: "✓" };
const WORDS = { correct: "right", right: "right", wrong: "wrong", undecided: "undecided", ungraded: "not graded", error: "failed" };
const CLASS = { correct: "right" };

/** Right, wrong or undecided, by sign and by colour. */
export const Mark = ({ mark, reason }) =>
  html`<span class="mark ${CLASS[mark] ?? mark}" title=${reason ?? WORDS[mark]}>${MARKS[mark] ?? ""}<span class="sr"> ${WORDS[mark]}</span></span>`;

const STATES = {
  selected: "selected",
  kept: "kept",
  pruned: "pruned",
  open: "open",
  ended: "complete",
  truncated: "cut short",
};

/** The path to a node, step by step. */
export function Path({ search, chosen }) {
  const node = search.nodes.get(chosen);
  if (!node) return html`<p class="faint">Choose a node to read the path that leads to it.</p>`;
  const steps = [];
  for (let step = node; step; step = step.parent) steps.unshift(step);
  const root = steps[0];
  return html`<ol class="path">
    ${root.messages.length > 0 && root !== search.roots[0] &&
    html`<li class="step prompt"><h4>A prompt of its own</h4><${Prose} text=${root.messages.at(-1).content} /></li>`}
    ${steps.slice(1).map(
      (step, i) => html`<li key=${step.key} class="step heat-${heat(step.score?.value)} ${step === node ? "here" : ""}">
        <header>
          <span>${steps.length > 2 ? `Step ${i + 1}` : "Solution"}</span>
          ${step.score && html`<span class="chip heat-${heat(step.score.value)}" title=${`score by ${step.score.kind}`}>${shown(step.score.value)}</span>`}
          <span class="faint">${step.tokens == null ? "put there" : `${count(step.tokens)} tokens`}</span>
          <span class="state ${step.state}">${STATES[step.state]}</span>
          ${step.grade && html`<${Mark} mark=${step.grade[0]} reason=${step.grade[1]} />`}
        </header>
        <${Prose} text=${step.text} />
      </li>`,
    )}
    ${steps.length === 1 && html`<li class="faint">The question: everything grows from here.</li>`}
  </ol>`;
}

/** Answer classes by votes. */
export function Votes({ search, onChoose, truth }) {
  const { votes } = search;
  if (!votes.length) return html`<p class="faint">No complete answer yet.</p>`;
  const most = Math.max(...votes.map((entry) => entry.nodes.length));
  const total = votes.reduce((sum, entry) => sum + entry.nodes.length, 0);
  const head = votes.slice(0, 8);
  const rest = votes.slice(8).reduce((sum, entry) => sum + entry.nodes.length, 0);
  return html`<ol class="votes">
    ${head.map(
      (entry) => html`<li key=${entry.group} class="${entry.selected ? "selected" : ""} ${tone(entry, truth)}">
        <button type="button" onClick=${() => onChoose?.(entry.nodes[0].key)} title="Show one of them">
          <span class="name"><${Answer} text=${entry.answer} />${entry.grade && html` <${Mark} mark=${entry.grade[0]} reason=${entry.grade[1]} />`}</span>
          <span class="number">${entry.nodes.length}<small>/${total}</small></span>
          <span class="bar"><i style=${{ width: `${(100 * entry.nodes.length) / most}%` }}></i></span>
        </button>
      </li>`,
    )}
    ${rest > 0 && html`<li class="faint">${count(rest)} more for ${votes.length - 8} other answers</li>`}
  </ol>`;
}

const tone = (entry) => (entry.grade ? (CLASS[entry.grade[0]] ?? entry.grade[0]) : "");

/** Shares of the answers as candidates came in: how the vote settled. */
export function Settling({ search, width = 300, height = 64 }) {
  const drawn = useMemo(() => {
    const groups = search.votes.slice(0, 6).map((entry) => String(entry.group));
    const order = search.votes.flatMap((entry) => entry.nodes.map((node) => [node.at, String(entry.group)]));
    order.sort((a, b) => a[0] - b[0]);
    const rows = [];
    const counts = Object.fromEntries([...groups, "rest"].map((group) => [group, 0]));
    order.forEach(([, group], i) => {
      counts[group in counts ? group : "rest"] += 1;
      rows.push(Object.fromEntries(Object.entries(counts).map(([key, value]) => [key, value / (i + 1)])));
    });
    if (rows.length < 3 || groups.length < 2) return null;
    rows.push(rows.at(-1)); // a step for the last one too
    const x = scaleLinear([0, rows.length - 1], [0, width]);
    const y = scaleLinear([0, 1], [height, 0]);
    const shape = area().x((_, i) => x(i)).y0((d) => y(d[0])).y1((d) => y(d[1])).curve(curveStepAfter);
    return stack().keys([...groups, "rest"]).order(stackOrderNone)(rows).map((series) => shape(series));
  }, [search, width, height]);
  if (!drawn) return null;
  return html`<figure class="settling">
    <svg viewBox="0 0 ${width} ${height}" preserveAspectRatio="none" role="img" aria-label="Share of each answer as candidates came in">
      ${drawn.map((d, i) => html`<path class="share share-${i}" d=${d} />`)}
    </svg>
    <figcaption>share of each answer, first candidate to last</figcaption>
  </figure>`;
}

/** Scores of the candidates, right ones above the line and wrong ones below. */
export function Scores({ search, chosen, onChoose, width = 300 }) {
  const scored = [...search.nodes.values()].filter((node) => node.score && node.group != null);
  if (scored.length < 2) return null;
  const x = scaleLinear([0, 1], [10, width - 10]);
  const told = scored.some((node) => node.grade);
  const taken = {};
  const dots = scored.map((node) => {
    const mark = node.grade?.[0] ?? "ungraded";
    const above = !told || mark === "correct";
    const slot = `${above}-${Math.round(node.score.value * 40)}`;
    taken[slot] = (taken[slot] ?? 0) + 1;
    const lift = Math.min(taken[slot], 6) * 6.5 - 1;
    return { node, mark, x: x(node.score.value), y: above ? 44 - lift : 44 + lift };
  });
  return html`<figure class="scores">
    <svg viewBox="0 0 ${width} 100" role="img" aria-label="Scores of right candidates above the line, of others below">
      <line x1="0" x2=${width} y1="44" y2="44" class="axis" />
      ${dots.map(
        ({ node, mark, x: cx, y: cy }) => html`<circle key=${node.key} class="dot ${CLASS[mark] ?? mark} ${node.selected ? "selected" : ""} ${node.key === chosen ? "chosen" : ""}"
          cx=${cx} cy=${cy} r=${node.selected ? 4.2 : 3} onClick=${() => onChoose?.(node.key)}><title>${shown(node.score.value)}</title></circle>`,
      )}
      ${[0, 0.5, 1].map((t) => html`<text class="tick" x=${x(t)} y="96" text-anchor=${t === 0 ? "start" : t === 1 ? "end" : "middle"}>${t}</text>`)}
    </svg>
    <figcaption>score by ${scored[0].score.kind || "the verifier"}${told ? ": right above the line, wrong below" : ""}</figcaption>
  </figure>`;
}

/** What it has cost so far: ticking while a search runs, exact when it has ended. */
export function Meters({ search, running }) {
  const usage = search.result?.usage;
  const seen = search.progress;
  const tokens = usage?.generated_tokens ?? Math.max(search.tokens, seen?.generated_tokens ?? 0);
  const cached = usage?.cached_tokens ?? seen?.cached_tokens;
  const computed = usage?.prompt_tokens ?? seen?.prompt_tokens;
  const reuse = cached != null && cached + computed > 0 ? cached / (cached + computed) : null;
  const speed = search.at > 0 ? tokens / search.at : null;
  const entries = [
    ["tokens drawn", compact(tokens), speed && running ? `${count(speed)}/s` : ""],
    ["time", seconds(usage?.seconds || search.at), ""],
    ["nodes", count(search.drawn || search.nodes.size - search.roots.length), running && seen ? `${seen.in_flight} in flight` : ""],
    ["scored", count(search.judged), usage?.verifier_tokens ? `${compact(usage.verifier_tokens)} tokens` : ""],
    ["KV reuse", reuse == null ? "–" : percent(reuse, 0), reuse == null ? "" : `${compact(cached)} of ${compact(cached + computed)}`],
    ["FLOPs", operations(usage?.flops), ""],
  ];
  return html`<dl class="meters">
    ${entries.map(
      ([name, value, more]) => html`<div key=${name}>
        <dt>${name}</dt>
        <dd>${value} ${more && html`<small>${more}</small>`}</dd>
        ${name === "KV reuse" && reuse != null && html`<span class="gauge"><i style=${{ width: `${100 * reuse}%` }}></i></span>`}
      </div>`,
    )}
  </dl>`;
}
