// A question asked here, and its search watched while it runs.
import { Failure, send, setSecret, watch } from "../data.js";
import { visible } from "../format.js";
import { html, useEffect, useRef, useState } from "../html.js";
import { Player } from "../player.js";
import { Verdict } from "./question.js";

const EXAMPLES = [
  "A train covers 180 km in 2.5 hours. How far does it go in 4 hours at the same speed?",
  "How many positive divisors does 360 have?",
  "What is the sum of all primes below 30?",
];
const FRAME = 80;

export function Ask({ menu }) {
  const [question, setQuestion] = useState("");
  const [strategy, setStrategy] = useState(menu.default ?? menu.strategies[0].name);
  const [values, setValues] = useState({});
  const [tokens, setTokens] = useState("");
  const [events, setEvents] = useState([]);
  const [state, setState] = useState("idle"); // idle, running, ended
  const [error, setError] = useState(null);
  const [locked, setLocked] = useState(false);
  const [chosen, choose] = useState(null);
  const current = useRef(null);
  const known = menu.strategies.find((each) => each.name === strategy) ?? menu.strategies[0];

  useEffect(() => () => current.current?.abort.abort(), []);

  const ask = async (submitted) => {
    submitted?.preventDefault();
    if (!question.trim()) return;
    setError(null);
    setEvents([]);
    choose(null);
    const parameters = Object.fromEntries(Object.entries(values[strategy] ?? {}).filter(([, value]) => value !== "").map(([name, value]) => [name, Number(value)]));
    const abort = new AbortController();
    try {
      const { id } = await send("ask", { question, strategy, parameters, budget: tokens ? { tokens: Number(tokens) } : {} });
      current.current = { id, abort };
      setState("running");
      // Many events arrive in one moment: the picture follows a dozen times a second.
      let waiting = [];
      let timer = null;
      const flush = () => {
        timer = null;
        const more = waiting;
        waiting = [];
        setEvents((before) => [...before, ...more]);
      };
      await watch(id, (found) => {
        const failed = found.find((event) => event.kind === "failed");
        if (failed) setError(failed.message);
        waiting.push(...found.filter((event) => event.kind !== "failed"));
        timer ??= setTimeout(flush, FRAME);
      }, abort.signal);
      clearTimeout(timer);
      flush();
      setState("ended");
    } catch (failure) {
      setState("idle");
      if (failure.name === "AbortError") return;
      setLocked(failure instanceof Failure && failure.status === 401);
      setError(failure.message);
    }
  };
  const stop = () => send(`ask/${current.current.id}/stop`, {}).catch((failure) => setError(failure.message));
  const { result, left_out: missing = 0 } = events.findLast((event) => event.kind === "end") ?? {};
  const set = (name, value) => setValues((before) => ({ ...before, [strategy]: { ...before[strategy], [name]: value } }));
  return html`<div class="askpage">
    <header class="title"><h1>Ask, and watch the search</h1>
      <p class="lead">${visible(menu.model)} answers; the strategy decides how it spends its tokens.</p></header>
    <form class="asking" onSubmit=${ask}>
      <textarea rows="3" value=${question} placeholder="A question with an answer that can be checked…" aria-label="Question"
        onInput=${(e) => setQuestion(e.target.value)} onKeyDown=${(e) => e.key === "Enter" && (e.metaKey || e.ctrlKey) && ask(e)}></textarea>
      ${!question && html`<p class="examples">${EXAMPLES.map((text) => html`<button key=${text} type="button" onClick=${() => setQuestion(text)}>${text}</button>`)}</p>`}
      <div class="dials">
        <label>strategy <select value=${strategy} onChange=${(e) => setStrategy(e.target.value)}>${menu.strategies.map((each) => html`<option key=${each.name} value=${each.name}>${each.name}</option>`)}</select></label>
        ${known.parameters.filter((p) => p.kind === "int" || p.kind === "float").slice(0, 4).map((p) => html`<label key=${p.name}>${p.name}
          <input type="number" step=${p.kind === "int" ? 1 : "any"} value=${values[strategy]?.[p.name] ?? ""} placeholder=${p.default} onInput=${(e) => set(p.name, e.target.value)} /></label>`)}
        <label>token budget <input type="number" min="1" step="1" value=${tokens} placeholder="none" onInput=${(e) => setTokens(e.target.value)} /></label>
        ${state === "running"
          ? html`<button type="button" class="button" onClick=${stop}>Stop</button>`
          : html`<button class="button primary" disabled=${!question.trim()}>Search <kbd>⌘↵</kbd></button>`}
      </div>
      <p class="note">${visible(known.summary)}</p>
      ${locked && html`<label class="key">API key <input type="password" autocomplete="off" onInput=${(e) => setSecret(e.target.value)} /></label>`}
      ${error && html`<p class="wrong" role="alert">${visible(error)}</p>`}
    </form>
    ${events.length > 0 && html`<div>
      ${result && html`<${Verdict} result=${result} />`}
      ${missing > 0 && html`<p class="note">A long search: ${missing.toLocaleString("en")} of its events are not drawn; every candidate is.</p>`}
      <${Player} events=${events} running=${state === "running"} chosen=${chosen} onChoose=${choose} />
    </div>`}
  </div>`;
}
