// The page: where it is (the hash), what stands there, and the keys that move around in it.
import { Failure, load, setSecret } from "./data.js";
import { visible } from "./format.js";
import { html, render, useEffect, useLayoutEffect, useState } from "./html.js";
import { Ask } from "./pages/ask.js";
import { Diff } from "./pages/diff.js";
import { Plan } from "./pages/plan.js";
import { Question } from "./pages/question.js";
import { Run } from "./pages/run.js";
import { Runs } from "./pages/runs.js";

/** `#/run/ID/KEY?node=…` as {path: ["run", ID, KEY], query}. */
function place() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decoded), query: Object.fromEntries(new URLSearchParams(query)) };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const THEMES = ["auto", "light", "dark"];
function useTheme() {
  const [theme, setTheme] = useState(() => {
    try {
      return localStorage.getItem("flyweight-theme") ?? "auto";
    } catch {
      return "auto"; // a file may be opened where nothing can be kept
    }
  });
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("flyweight-theme", theme);
    } catch {
      return;
    }
  }, [theme]);
  return [theme, () => setTheme((now) => THEMES[(THEMES.indexOf(now) + 1) % THEMES.length])];
}

const go = (hash, replace = false) => {
  if (replace) history.replaceState(null, "", hash);
  else location.hash = hash;
  if (replace) dispatchEvent(new HashChangeEvent("hashchange"));
};

function App() {
  const [at, setAt] = useState(place);
  const [index, setIndex] = useState(null);
  const [error, setError] = useState(null);
  const [locked, setLocked] = useState(false);
  const [help, setHelp] = useState(false);
  const [theme, turn] = useTheme();
  useEffect(() => {
    const moved = () => setAt(place());
    addEventListener("hashchange", moved);
    begin();
    return () => removeEventListener("hashchange", moved);
  }, []);
  const begin = () =>
    load("index").then((found) => {
      setError(null);
      setIndex(found);
      if (!location.hash && found.start) location.replace(`#${found.start}`);
    }, (failure) => {
      setLocked(failure instanceof Failure && failure.status === 401);
      setError(failure.message);
    });
  const unlock = (event) => {
    event.preventDefault();
    setSecret(new FormData(event.target).get("key"));
    begin();
  };
  const where = at.path.join("/");
  useEffect(() => {
    scrollTo(0, 0);
    document.title = `${where || "Runs"} · Flyweight`;
  }, [where]);
  useLayoutEffect(() => {
    const press = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.closest("input, textarea, select")) {
        if (event.key === "Escape") event.target.blur();
        return;
      }
      const act = {
        "?": () => setHelp((now) => !now),
        t: turn,
        j: () => step(1),
        k: () => step(-1),
        ArrowDown: () => step(1),
        ArrowUp: () => step(-1),
        "/": () => document.querySelector("input[type=search]")?.focus(),
        a: () => index?.ask && go("#/ask"),
        g: () => go("#/"),
        Escape: () => setHelp(false),
        u: () => go(`#/${at.path.length > 2 ? at.path.slice(0, 2).join("/") : ""}`),
      }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, [at, index, theme]);

  return html`<div class="shell">
    <nav class="bar" aria-label="Main">
      <a class="brand" href="#/"><svg viewBox="0 0 28 28" aria-hidden="true"><path d="M5 14 C11 14 11 6 17 6 M5 14 C11 14 11 14 17 14 M5 14 C11 14 11 22 17 22 M17 14 C20 14 20 9 24 9" /><circle cx="5" cy="14" r="2.6" /><circle cx="17" cy="6" r="2" /><circle cx="17" cy="22" r="2" /><circle class="hot" cx="24" cy="9" r="2.8" /></svg>flyweight</a>
      <a href="#/" aria-current=${!at.path.length || at.path[0] === "run" || at.path[0] === "diff" ? "page" : null}>Runs</a>
      ${index?.ask && html`<a href="#/ask" aria-current=${at.path[0] === "ask" ? "page" : null}>Ask</a>`}
      <a href="#/plan" aria-current=${at.path[0] === "plan" ? "page" : null}>Plan</a>
      <span class="push"></span>
      <button type="button" class="plain" onClick=${() => setHelp(!help)} title="Keys (?)">?</button>
      <button type="button" class="plain" onClick=${turn} title="Light, dark or as the system (t)">${{ auto: "◐", light: "○", dark: "●" }[theme]}</button>
    </nav>
    <main>${error ? html`<div class="empty"><h1>Nothing to show</h1><p>${visible(error)}</p>
      ${locked && html`<form class="asking" onSubmit=${unlock}><label class="key">API key <input name="key" type="password" autocomplete="off" /></label> <button class="button primary">Open</button></form>`}</div>` : index ? html`<${Page} at=${at} index=${index} />` : null}</main>
    ${help && html`<${Keys} close=${() => setHelp(false)} />`}
    <footer>Flyweight ${index?.version ?? ""} · intervals are 95 % · <a href="#/">runs</a></footer>
  </div>`;
}

function Page({ at: { path, query }, index }) {
  const [first, second, third] = path;
  if (!first) return html`<${Runs} index=${index} />`;
  if (first === "ask" && index.ask) return html`<${Ask} menu=${index.ask} />`;
  if (first === "plan") return html`<${Plan} given=${index.plan} />`;
  if (first === "diff" && third) return html`<${Diff} a=${second} b=${third} />`;
  if (first === "run" && third) return html`<${Question} run=${second} problem=${third} node=${query.node} go=${go} />`;
  if (first === "run" && second) return html`<${Run} key=${second} id=${second} tab=${query.tab} />`;
  return html`<div class="empty"><h1>Not found</h1><p><a href="#/">All runs</a></p></div>`;
}

const KEYS = [
  ["j / k", "next, previous in a list"],
  ["Enter", "open"],
  ["u", "up"],
  ["n / p", "next, previous question"],
  ["space", "play, pause"],
  ["← / →", "one event back, forward"],
  ["⇧ ← ↑ → ↓", "walk through the tree"],
  ["+ / −", "larger, smaller tree"],
  ["/", "find a question"],
  ["g", "all runs"],
  ["a", "ask"],
  ["t", "light, dark"],
];

const Keys = ({ close }) => html`<div class="sheet" role="dialog" aria-label="Keys" onClick=${close}>
  <dl>${KEYS.map(([key, what]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${what}</dd></div>`)}</dl></div>`;

/** Move the focus along what can be opened. */
function step(by) {
  const items = [...document.querySelectorAll("[data-item]")];
  const at = items.indexOf(document.activeElement);
  const next = items[at < 0 ? (by > 0 ? 0 : items.length - 1) : at + by];
  next?.focus();
  next?.scrollIntoView({ block: "nearest" });
}

render(html`<${App} />`, document.getElementById("app"));
