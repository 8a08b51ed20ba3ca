// KaTeX, loaded when a page first meets mathematics.
import katex from "katex";

// What stands in a formula comes from a model: it may name no link, no style sheet class and no endless macro.
const SAFE = { trust: false, maxExpand: 200, maxSize: 20, strict: "ignore", throwOnError: true };

globalThis.flyweightMaths = (element, source, display) => {
  katex.render(source, element, { ...SAFE, displayMode: display, output: "html" });
};
