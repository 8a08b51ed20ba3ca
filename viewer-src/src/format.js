// Numbers as people read them.
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (value) => (value == null ? "–" : value < 10 && value % 1 ? value.toFixed(1) : whole.format(value));
export const compact = (value) => (value == null ? "–" : short.format(value));
export const percent = (share, digits = 1) => (share == null ? "–" : `${(100 * share).toFixed(digits)} %`);
export const between = (interval) =>
  interval ? `${(100 * interval[0]).toFixed(1)}–${(100 * interval[2]).toFixed(1)}` : "";
export const points = (share) => `${share >= 0 ? "+" : "−"}${Math.abs(100 * share).toFixed(1)}`;
export const score = (value) => (value == null ? "–" : value.toFixed(2));
export const seconds = (value) =>
  value == null ? "–" : value < 60 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
export const pvalue = (p) => (p < 0.001 ? "< 0.001" : p.toFixed(p < 0.1 ? 3 : 2));
export const when = (stamp) =>
  new Date(1000 * stamp).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
export const operations = (value) => {
  if (!value) return "–";
  const power = Math.floor(Math.log10(value));
  return `${(value / 10 ** power).toFixed(1)}e${power}`;
};

/** A run's strategy with what tells it from others. */
export const label = (run) =>
  [
    run.strategy ?? "run",
    run.parameters?.n ? `n=${run.parameters.n}` : "",
    run.verifier && run.strategy !== "greedy" && run.strategy !== "self_consistency" ? `· ${run.verifier}` : "",
    ...Object.entries(run.budget ?? {}).map(([name, value]) => `· ${value} ${name}`),
  ]
    .filter(Boolean)
    .join(" ");

/** Control characters, lone surrogates and direction marks as visible escapes: what a page must not obey. */
export const visible = (text) =>
  String(text ?? "").replace(
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
