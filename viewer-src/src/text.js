// Text of models and people: mathematics typeset, light Markdown, nothing obeyed. Never innerHTML.
import { block, standalone } from "./data.js";
import { visible } from "./format.js";
import { html, useEffect, useRef } from "./html.js";

const LONGEST = 2000;

let loading = null;

/** KaTeX, once: as files beside the page, or from the blocks of a file whose policy names its hash. */
function maths() {
  loading ??= standalone() ? inside() : beside();
  return loading;
}

async function inside() {
  const [code, style] = await Promise.all([block("maths.js"), block("maths.css")]);
  if (code === null) return null;
  for (const [tag, text] of [["style", style], ["script", code]]) {
    const element = document.createElement(tag);
    element.textContent = text;
    document.head.append(element);
  }
  return globalThis.flyweightMaths;
}

const beside = () =>
  new Promise((resolve) => {
    const style = Object.assign(document.createElement("link"), { rel: "stylesheet", href: "assets/maths.css" });
    const script = Object.assign(document.createElement("script"), { src: "assets/maths.js" });
    script.onload = () => resolve(globalThis.flyweightMaths);
    script.onerror = () => resolve(null);
    document.head.append(style, script);
  });

// A list of a thousand questions is typeset where it is looked at.
const near = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      target.typeset?.();
    }
  },
  { rootMargin: "300px" },
);

function Formula({ source, display = false }) {
  const element = useRef();
  useEffect(() => {
    const span = element.current;
    span.textContent = visible(source);
    if (source.length > LONGEST || visible(source) !== source) return; // KaTeX would set what must not be obeyed
    span.typeset = async () => {
      const typeset = await maths();
      if (!typeset || !span.isConnected) return;
      try {
        typeset(span, source, display);
      } catch {
        span.textContent = visible(source); // not LaTeX after all: shown as it was written
      }
    };
    near.observe(span);
    return () => near.unobserve(span);
  }, [source, display]);
  return html`<span class=${display ? "formula display" : "formula"} ref=${element}></span>`;
}

// Dollars are money unless they hug what they enclose and no digit follows, as in Pandoc.
const MATHS =
  /\$\$([^]+?)\$\$|\\\[([^]+?)\\\]|\\\(([^]+?)\\\)|\$(?!\s)((?:\\.|[^$\\\n])+?)(?<![\s\\])\$(?!\d)|(\\boxed\{)/g;

/** [text | {source, display}] of a passage. */
export function pieces(text) {
  const found = [];
  let from = 0;
  MATHS.lastIndex = 0;
  for (let match; (match = MATHS.exec(text)); ) {
    let source = match[1] ?? match[2] ?? match[3] ?? match[4];
    let end = MATHS.lastIndex;
    if (match[5]) {
      end = closing(text, end);
      if (end < 0) continue;
      source = text.slice(match.index, end);
    }
    if (match.index > from) found.push(text.slice(from, match.index));
    found.push({ source: source.trim(), display: match[1] != null || match[2] != null });
    from = MATHS.lastIndex = end;
  }
  if (from < text.length) found.push(text.slice(from));
  return found;
}

/** Index behind the brace that closes the one before `from`; -1 without one. */
function closing(text, from) {
  for (let i = from, depth = 1; i < Math.min(text.length, from + LONGEST); i++) {
    if (text[i] === "\\") i += 1;
    else if (text[i] === "{") depth += 1;
    else if (text[i] === "}" && --depth === 0) return i + 1;
  }
  return -1;
}

const words = (text) =>
  text.split(/(`[^`\n]+`)/).map((part, i) => (i % 2 ? html`<code>${visible(part.slice(1, -1))}</code>` : visible(part)));

const typeset = (text) =>
  pieces(text).map((piece, i, all) => {
    if (typeof piece !== "string") return html`<${Formula} ...${piece} />`;
    // A display formula stands on lines of its own: the blank lines around it would count twice.
    const opened = all[i - 1]?.display ? piece.replace(/^\s*\n/, "") : piece;
    return words(all[i + 1]?.display ? opened.replace(/\n\s*$/, "") : opened);
  });

const passage = (text) =>
  text.split(/^#{1,6} (.*)$|\*\*([^\n]+?)\*\*/m).map((part, i) =>
    part === undefined ? null : i % 3 ? html`<strong>${typeset(part)}</strong>` : typeset(part),
  );

/** A text for reading. */
export function Prose({ text, className = "" }) {
  const parts = String(text ?? "").split(/^```[^\n]*\n([^]*?)(?:^```[ \t]*$|$(?![^]))/m);
  return html`<div class="prose ${className}">
    ${parts.map((part, i) =>
      i % 2 ? html`<pre><code>${visible(part)}</code></pre>` : passage(part.replace(/^\n+|\s+$/g, "")),
    )}
  </div>`;
}

/** A text in a list: formulas in its line. */
export const Line = ({ text }) =>
  pieces(String(text ?? "")).map((piece) =>
    typeof piece === "string" ? visible(piece) : html`<${Formula} source=${piece.source} />`,
  );

/** An answer on one line: typeset if it looks like mathematics. */
export function Answer({ text }) {
  if (text == null) return html`<span class="faint">no answer</span>`;
  const source = String(text);
  return /\\[a-z]+|[\^_]\S|^-?\d+\/\d+$/i.test(source) && !source.includes("\n")
    ? html`<${Formula} source=${source.replace(/^\$|\$$/g, "")} display=${false} />`
    : html`<span class="answer">${visible(source)}</span>`;
}
