// Where the page's data comes from: blocks inside the file, or the server it came from.

const blocks = () => document.querySelectorAll("script[data-path]");

/** Whether this page is a file that holds everything. */
export const standalone = () => document.documentElement.dataset.mode === "file";

const held = new Map();
const kept = new Map();
const KEPT = 40;

async function inflate(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

/** The text of a block of this file; null where there is none of that name. */
export async function block(name) {
  if (held.size === 0) for (const script of blocks()) held.set(script.dataset.path, script);
  const script = held.get(name);
  return script ? inflate(script.textContent) : null;
}

/** The JSON behind a path such as `run/0fa7…`; throws an Error with one line for people. */
export async function load(path, { fresh = false } = {}) {
  if (!fresh && kept.has(path)) return kept.get(path);
  const found = standalone() ? await local(path) : await remote(path);
  kept.set(path, found);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return found;
}

async function local(path) {
  const text = await block(path);
  if (text === null) throw new Error("This file does not hold that.");
  return JSON.parse(text);
}

async function remote(path, options = {}) {
  let answer;
  try {
    answer = await fetch(`api/${path}`, { ...options, headers: { ...options.headers, ...authorization() } });
  } catch {
    throw new Error("The server does not answer: is it still running?");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Failure(answer.status, body.error?.message ?? `The server said ${answer.status}.`);
  return body;
}

export class Failure extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

// A key for servers that want one: it stays in this tab.
let secret = "";
export const setSecret = (value) => (secret = value);
const authorization = () => (secret ? { Authorization: `Bearer ${secret}` } : {});

export const send = (path, body) =>
  remote(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

/** Events of a search as the server sends them; resolves at its end. */
export async function watch(id, onEvents, signal) {
  const answer = await fetch(`api/ask/${id}/events`, { headers: authorization(), signal });
  if (!answer.ok) throw new Failure(answer.status, "That search is no longer there.");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ; ) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    const found = parts.filter((part) => part.startsWith("data: ")).map((part) => JSON.parse(part.slice(6)));
    if (found.length) onEvents(found);
  }
}
