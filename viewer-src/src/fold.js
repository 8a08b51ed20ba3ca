// A search at one moment, folded from its events: the same for one on record and one that is running.

/**
 * Everything the drawing needs after the first `upto` events.
 * Nodes: {key, parent, depth, text, tokens, finish, score, scores, answer, group, children, at, state}.
 * States: open (may still go on), kept (went on), pruned, ended, truncated, and on the selected path `selected`.
 */
export function fold(events, upto = events.length) {
  const search = new Search();
  const end = events.findLast((event) => event.kind === "end");
  search.verdicts(end);
  for (let i = 0; i < upto; i++) search.add(events[i]);
  return search.judge();
}

class Search {
  nodes = new Map();
  roots = [];
  prompt = "";
  truth = null;
  at = 0;
  tokens = 0;
  drawn = 0;
  judged = 0;
  deepest = 0;
  progress = null;
  notes = [];
  result = null;
  answers = new Map();
  grades = {};

  /** What the end says about candidates, known from the start of a replay. */
  verdicts(end) {
    this.grades = end?.grades ?? {};
    for (const { node, answer, class: group } of end?.result?.candidates ?? []) {
      this.answers.set(node.key, { answer, group });
    }
  }

  add(event) {
    this.at = Math.max(this.at, Number(event.at) || 0);
    if (event.kind === "start") {
      this.prompt = event.facts?.prompt ?? "";
      this.truth = event.facts?.answer ?? null;
    }
    if (event.node) {
      const node = this.node(event.node, event.at);
      if (event.kind === "node") {
        this.drawn += 1;
        this.tokens += node.tokens ?? 0;
        if (event.answer !== undefined) this.answers.set(node.key, { answer: event.answer, group: event.answer });
      }
      if (event.kind === "score") this.judged += 1;
    }
    if (event.kind === "progress") this.progress = event.facts;
    if (event.kind === "note") this.notes.push({ at: event.at, ...event.facts });
    if (event.kind === "end" && event.result) {
      this.result = event.result;
      const { best, candidates } = event.result;
      for (const node of [best, ...candidates.map((c) => c.node)]) if (node) this.node(node, event.at);
    }
  }

  node(record, at) {
    for (const above of record.path ?? []) this.node(above, at);
    let node = this.nodes.get(record.key);
    if (!node) {
      const parent = this.nodes.get(record.parent) ?? null;
      node = {
        key: record.key,
        parent,
        depth: parent ? parent.depth + 1 : 0,
        text: record.text ?? "",
        tokens: record.tokens ?? null,
        logprob: record.logprob ?? null,
        finish: record.finish ?? null,
        policy: record.policy ?? "",
        messages: record.messages ?? [],
        score: null,
        children: [],
        at: Number(at) || 0,
        state: "open",
      };
      this.nodes.set(node.key, node);
      this.deepest = Math.max(this.deepest, node.depth);
      (parent ? parent.children : this.roots).push(node);
    }
    if (record.score) node.score = record.score;
    return node;
  }

  judge() {
    const selected = new Set();
    for (let node = this.nodes.get(this.result?.best?.key); node; node = node.parent) selected.add(node.key);
    for (const node of this.nodes.values()) {
      const said = this.answers.get(node.key);
      node.answer = said?.answer ?? null;
      node.group = said?.group ?? null;
      node.grade = this.grades[node.key] ?? null;
      node.selected = selected.has(node.key);
      node.state = this.state(node);
    }
    this.votes = this.count();
    return this;
  }

  state(node) {
    if (node.selected) return "selected";
    if (node.finish === "end") return "ended";
    if (node.finish === "length" || node.finish === "cut") return "truncated";
    if (node.children.length) return "kept";
    return this.result || node.depth < this.deepest ? "pruned" : "open";
  }

  /** Answer classes with their candidates, largest first. */
  count() {
    const classes = new Map();
    for (const node of this.nodes.values()) {
      if (node.group == null) continue;
      const entry = classes.get(node.group) ?? { group: node.group, answer: node.answer, nodes: [], weight: 0 };
      entry.nodes.push(node);
      entry.weight += node.score?.value ?? 0;
      classes.set(node.group, entry);
    }
    const found = [...classes.values()];
    for (const entry of found) {
      entry.selected = entry.nodes.some((node) => node.selected);
      entry.grade = entry.nodes.find((node) => node.grade)?.grade ?? null;
    }
    return found.sort((a, b) => b.nodes.length - a.nodes.length || a.nodes[0].at - b.nodes[0].at);
  }
}

/** Moments a replay stops at: the events that change the picture. */
export const moments = (events) =>
  events.flatMap((event, i) => (event.kind === "progress" || event.kind === "note" ? [] : [i + 1]));
