// The tree of a search.
import { linkHorizontal } from "d3-shape";
import { count, score as shown, visible } from "./format.js";
import { html, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { layout } from "./layout.js";

const LABEL = 92;
const LEFT = 26;
const edge = linkHorizontal().x((p) => p.x).y((p) => p.y);

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** Colour of a score in [0, 1], as a step of the style sheet's ramp. */
export const heat = (value) => (value == null ? "none" : clamp(Math.floor(value * 10), 0, 9));

/**
 * `search` is what is drawn, `whole` gives the places (the whole tree of a replay, so that nothing moves).
 * `chosen` is the key of the node whose path is marked.
 */
export function Tree({ search, whole = search, chosen, onChoose, zoom = 1, height = 600 }) {
  const frame = useRef();
  const [width, setWidth] = useState(720);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(280, Math.floor(entry.contentRect.width))));
    observer.observe(frame.current);
    return () => observer.disconnect();
  }, []);

  const { rows, depth, place } = useMemo(() => layout(whole.roots), [whole, whole.nodes.size]);
  const gap = clamp((height - 40) / Math.max(rows, 1), 5, 40) * zoom;
  const column = clamp((width - LABEL - LEFT) / Math.max(depth, 1), 22, depth < 3 ? 620 : depth < 6 ? 260 : 180) * zoom;
  const at = (node) => {
    const { row, depth: level } = place.get(node.key);
    return { x: LEFT + level * column, y: 20 + (row + 0.5) * gap };
  };
  const marked = useMemo(() => {
    const keys = new Set();
    for (let node = search.nodes.get(chosen); node; node = node.parent) keys.add(node.key);
    return keys;
  }, [search, chosen]);

  const nodes = [...search.nodes.values()].filter((node) => place.has(node.key));
  const tall = Math.max(rows * gap + 40, 120);
  const wide = Math.max(width, LEFT + depth * column + LABEL);
  const radius = clamp(gap * 0.4, rows > 300 ? 2 : 3.2, 7);
  const named = gap >= 11;

  // What matters is drawn last, on top. Everything else keeps its turn: an element that changes places cannot glide.
  const edges = nodes.filter((node) => node.parent && place.has(node.parent.key));
  edges.sort((a, b) => weight(a, marked) - weight(b, marked));
  const growing = whole === search && !search.result;
  return html`<div class="tree ${growing ? "growing" : ""}" ref=${frame} style=${{ maxHeight: `${height}px` }}>
    <svg width=${wide} height=${tall} role="tree" aria-label="Search tree">
      <g class="edges">
        ${edges.map(
          (node) => html`<path key=${node.key} class="edge ${node.state} ${marked.has(node.key) ? "marked" : ""}"
            d=${edge({ source: at(node.parent), target: at(node) })} />`,
        )}
      </g>
      <g>
        ${nodes.map((node) => html`<${Dot} key=${node.key} node=${node} point=${at(node)} radius=${radius}
            named=${named} marked=${marked.has(node.key)} chosen=${node.key === chosen} onChoose=${onChoose} />`)}
      </g>
    </svg>
  </div>`;
}

const weight = (node, marked) => (marked.has(node.key) ? 2 : node.state === "selected" ? 1 : 0);

function Dot({ node, point, radius, named, marked, chosen, onChoose }) {
  const classes = `node ${node.state} ${marked ? "marked" : ""} ${chosen ? "chosen" : ""} heat-${heat(node.score?.value)}`;
  const where = `translate(${point.x.toFixed(1)}px, ${point.y.toFixed(1)}px)`;
  const title = node.parent
    ? `${node.score ? `score ${shown(node.score.value)}, ` : ""}${count(node.tokens)} tokens, ${node.state}`
    : "the question";
  return html`<g class=${classes} style=${{ transform: where }} onClick=${() => onChoose?.(node.key)}
      role="treeitem" aria-label=${title} aria-selected=${chosen}>
    ${shape(node, radius)}
    ${named && node.answer != null && !node.children.length &&
    html`<text class=${node.grade ? `grade-${node.grade[0]}` : ""} x=${radius + 7} dy="0.35em">${clip(node.answer)}</text>`}
    <title>${title}</title>
  </g>`;
}

/** The question is a square, forced text a diamond, what was cut off an open ring, everything else a dot. */
function shape(node, radius) {
  if (!node.parent) return html`<rect x=${-radius} y=${-radius} width=${2 * radius} height=${2 * radius} rx="2" />`;
  if (node.finish === "forced") return html`<rect class="turned" x=${-radius * 0.8} y=${-radius * 0.8} width=${radius * 1.6} height=${radius * 1.6} />`;
  return html`<circle r=${node.state === "selected" ? radius * 1.15 : node.state === "pruned" ? radius * 0.7 : radius} />`;
}

export const clip = (text, most = 12) => {
  const plain = String(text)
    .replace(/\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}/g, "$1/$2")
    .replace(/\\sqrt\{([^{}]*)\}/g, "√$1")
    .replace(/\\(?:boxed|text|mathrm|left|right|[,!; ])/g, "");
  const flat = visible(plain.replace(/\s+/g, " ").trim());
  return flat.length > most ? `${flat.slice(0, most - 1)}…` : flat;
};
