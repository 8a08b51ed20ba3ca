// Charts: lines with intervals over a logarithmic axis, points with intervals, bars.
import { area, curveMonotoneX, line } from "d3-shape";
import { scaleLinear, scaleLog } from "d3-scale";
import { compact, percent } from "./format.js";
import { html, useState } from "./html.js";

const WIDTH = 760;
const HEIGHT = 380;
const PAD = { left: 52, right: 150, top: 18, bottom: 46 };

function logTicks([low, high]) {
  let found = [];
  for (const digits of [[1], [1, 3], [1, 2, 5], [1, 2, 3, 4, 6, 8]]) {
    const ticks = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
      ticks.push(...digits.map((digit) => digit * 10 ** power));
    }
    const inside = ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
    if (inside.length > 8) break;
    found = inside;
  }
  return found;
}

function Axes({ x, y, ticks, name, right }) {
  return html`<g class="axes">
    ${y.ticks(5).map((tick) => html`<g key=${tick} transform="translate(0,${y(tick)})">
      <line x1=${PAD.left} x2=${WIDTH - right} class="rule" />
      <text x=${PAD.left - 10} dy="0.32em" text-anchor="end">${percent(tick, 0)}</text></g>`)}
    ${ticks.map((tick) => html`<g key=${tick} transform="translate(${x(tick)},${HEIGHT - PAD.bottom})">
      <line y2="5" class="tickline" /><text y="20" text-anchor="middle">${compact(tick)}</text></g>`)}
    <text class="name" x=${(PAD.left + WIDTH - right) / 2} y=${HEIGHT - 6} text-anchor="middle">${name}</text>
  </g>`;
}

/** Positions at least `gap` apart, in order, near the ones wanted. */
function spread(wanted, gap) {
  const order = wanted.map((y, i) => [y, i]).sort((a, b) => a[0] - b[0]);
  const placed = [];
  for (const [y, i] of order) placed[i] = Math.max(y, placed.last === undefined ? -Infinity : placed.last + gap), (placed.last = placed[i]);
  return placed;
}

/** `curves`: [{name, tone, points: [{x, low, value, high}]}], `marks`: single points of the same shape with a name. */
export function Curves({ curves, marks = [], name, describe }) {
  const [over, setOver] = useState(null);
  const right = curves.length ? PAD.right : 24;
  const all = [...curves.flatMap((curve) => curve.points), ...marks].filter((p) => p.x > 0);
  if (!all.length) return html`<p class="faint">Nothing to draw.</p>`;
  let range = [Math.min(...all.map((p) => p.x)), Math.max(...all.map((p) => p.x))];
  if (range[0] === range[1]) range = [range[0] / 2, range[1] * 2];
  const x = scaleLog(range, [PAD.left + (curves.length ? 6 : 24), WIDTH - right - (curves.length ? 0 : 24)]);
  const top = Math.min(1, Math.max(...all.map((p) => p.high)) + 0.03);
  const bottom = Math.max(0, Math.min(...all.map((p) => p.low)) - 0.03);
  const y = scaleLinear([bottom, top], [HEIGHT - PAD.bottom, PAD.top]).nice(5);
  const path = line().x((p) => x(p.x)).y((p) => y(p.value)).curve(curveMonotoneX);
  const band = area().x((p) => x(p.x)).y0((p) => y(p.low)).y1((p) => y(p.high)).curve(curveMonotoneX);
  const labels = spread(curves.map((curve) => y(curve.points.at(-1).value)), 15);
  return html`<figure class="chart">
    <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label=${describe} onMouseLeave=${() => setOver(null)}>
      <${Axes} x=${x} y=${y} ticks=${logTicks(range)} name=${name} right=${right} />
      ${curves.map((curve, i) => html`<g key=${curve.name} class="curve tone-${curve.tone} ${over !== null && over.curve !== i ? "dim" : ""}">
        ${curve.points.length > 1 && html`<path class="band" d=${band(curve.points)} />`}
        <path class="line" d=${path(curve.points)} />
        ${curve.points.map((p, j) => html`<circle key=${j} cx=${x(p.x)} cy=${y(p.value)} r=${over?.curve === i && over.point === j ? 5 : curve.points.length > 24 ? 1.6 : 2.6} />
          <circle class="target" cx=${x(p.x)} cy=${y(p.value)} r="9" onMouseEnter=${() => setOver({ curve: i, point: j })} />`)}
        <text class="end" x=${WIDTH - PAD.right + 10} y=${labels[i]} dy="0.32em">${curve.name}</text>
      </g>`)}
      ${marks.filter((p) => p.x > 0).map((p) => html`<g key=${p.name} class="single ${p.tone ?? ""}">
        <line x1=${x(p.x)} x2=${x(p.x)} y1=${y(p.low)} y2=${y(p.high)} />
        <path d="M${x(p.x)},${y(p.value) - 6} l6,6 l-6,6 l-6,-6 z"><title>${p.name}: ${percent(p.value)}</title></path>
        <text x=${x(p.x) + 9} y=${y(p.value) - 8}>${p.name}</text></g>`)}
    </svg>
    <figcaption>${over
      ? tell(curves[over.curve], curves[over.curve].points[over.point])
      : `${curves.length ? "Bands" : "Whiskers"} are 95 % intervals; the horizontal axis is logarithmic. Hover for values.`}</figcaption>
  </figure>`;
}

const tell = (curve, p) =>
  `${curve.name}${p.k ? `, k = ${p.k}` : ""}: ${percent(p.value)} (${(100 * p.low).toFixed(1)}–${(100 * p.high).toFixed(1)}) at ${compact(p.x)}`;

/** `bars`: [{name, detail, low, value, high}] */
export function Bars({ bars }) {
  return html`<table class="bars"><tbody>
    ${bars.map((bar) => html`<tr key=${bar.name}>
      <th>${bar.name}<small>${bar.detail}</small></th>
      <td><span class="track"><i class="fill" style=${{ width: `${100 * bar.value}%` }}></i>
        <i class="whisker" style=${{ left: `${100 * bar.low}%`, width: `${100 * (bar.high - bar.low)}%` }}></i></span></td>
      <td class="number">${percent(bar.value)}</td>
      <td class="faint number">${(100 * bar.low).toFixed(0)}–${(100 * bar.high).toFixed(0)}</td></tr>`)}
  </tbody></table>`;
}

/** Right and wrong candidates by score, back to back. */
export function Histogram({ right, wrong }) {
  const most = Math.max(1, ...right, ...wrong);
  const bins = right.length;
  const step = 600 / bins;
  return html`<figure class="chart histogram">
    <svg viewBox="0 0 640 260" role="img" aria-label="Scores of right candidates above, of wrong ones below">
      ${right.map((value, i) => html`<rect key=${i} class="right" x=${20 + i * step + 1} width=${step - 2} y=${120 - (105 * value) / most} height=${(105 * value) / most}><title>${value} right</title></rect>`)}
      ${wrong.map((value, i) => html`<rect key=${i} class="wrong" x=${20 + i * step + 1} width=${step - 2} y="122" height=${(105 * value) / most}><title>${value} wrong</title></rect>`)}
      <text x="24" y="16" class="right">right</text><text x="24" y="240" class="wrong">wrong</text>
      ${[0, 0.25, 0.5, 0.75, 1].map((t) => html`<text x=${20 + 600 * t} y="256" text-anchor="middle">${t}</text>`)}
    </svg>
  </figure>`;
}
