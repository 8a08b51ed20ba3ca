// One search: its tree with everything beside it, played back with a slider or growing live.
import { fold, moments } from "./fold.js";
import { seconds } from "./format.js";
import { html, useEffect, useLayoutEffect, useMemo, useState } from "./html.js";
import { Meters, Path, Scores, Settling, Votes } from "./panels.js";
import { Tree } from "./tree.js";

const PLAY_SECONDS = 8;

export function Player({ events, running = false, chosen, onChoose }) {
  const stops = useMemo(() => moments(events), [events]);
  const [at, setAt] = useState(null); // null: at the end, where a live search goes on
  const [playing, setPlaying] = useState(false);
  const [zoom, setZoom] = useState(1);
  const place = at === null ? stops.length - 1 : Math.min(at, stops.length - 1);
  const whole = useMemo(() => fold(events), [events]);
  const search = useMemo(() => (at === null ? whole : fold(events, stops[place])), [whole, at === null ? -1 : place]);

  const shown = chosen && search.nodes.has(chosen) ? chosen : search.result?.best?.key;

  useEffect(() => {
    if (!playing) return;
    const each = Math.min(400, Math.max(16, (1000 * PLAY_SECONDS) / stops.length));
    const step = Math.max(1, Math.round((stops.length * each) / (1000 * PLAY_SECONDS)));
    const timer = setInterval(() => {
      setAt((now) => {
        const next = (now ?? 0) + step;
        if (next < stops.length - 1) return next;
        setPlaying(false);
        return null;
      });
    }, each);
    return () => clearInterval(timer);
  }, [playing, stops.length]);

  const play = () => {
    if (!playing && at === null) setAt(0);
    setPlaying(!playing);
  };
  const move = (by) => {
    setPlaying(false);
    const next = Math.max(0, place + by);
    setAt(next >= stops.length - 1 ? null : next);
  };
  // Shift and an arrow walk through the tree: to the parent, the first child, the neighbours among the children.
  const walk = (event) => {
    const node = search.nodes.get(shown) ?? search.roots[0];
    const beside = node?.parent?.children ?? search.roots;
    const at = beside.indexOf(node);
    const to = { ArrowLeft: node?.parent, ArrowRight: node?.children[0], ArrowUp: beside[at - 1], ArrowDown: beside[at + 1] }[event.key];
    event.preventDefault();
    if (to) onChoose(to.key);
  };
  // With the picture, not after it: a key struck at once must know where the slider stands.
  useLayoutEffect(() => {
    const press = (event) => {
      if (event.shiftKey && event.key.startsWith("Arrow")) return walk(event);
      if (event.target.closest("input:not([type=range]), textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
      const act = { " ": play, ArrowLeft: () => move(-1), ArrowRight: () => move(1), "+": () => setZoom(zoom * 1.25), "-": () => setZoom(zoom / 1.25), 0: () => setZoom(1) }[event.key];
      if (!act || (event.key === " " && event.target.closest("button, a, summary"))) return;
      event.preventDefault();
      act();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });

  return html`<div class="player">
    <${Meters} search=${search} running=${running} />
    <div class="stage">
      <section class="canvas">
        <div class="legend" aria-hidden="true">
          <span class="item selected">selected</span><span class="item kept">kept</span><span class="item pruned">pruned</span>
          <span class="item truncated">cut short</span><span class="ramp">score <i></i></span>
          <span class="zoom"><button type="button" title="Smaller (-)" onClick=${() => setZoom(zoom / 1.25)}>−</button><button type="button" title="Larger (+)" onClick=${() => setZoom(zoom * 1.25)}>+</button></span>
        </div>
        <${Tree} search=${search} whole=${whole} chosen=${shown} onChoose=${onChoose} zoom=${zoom} />
        <div class="transport">
          <button type="button" class="play" onClick=${play} aria-label=${playing ? "Pause" : "Play"} disabled=${stops.length < 2}>${playing ? "❚❚" : "▶"}</button>
          <input type="range" min="0" max=${Math.max(stops.length - 1, 0)} value=${place} aria-label="Moment of the search"
            onInput=${(event) => { setPlaying(false); setAt(+event.target.value >= stops.length - 1 ? null : +event.target.value); }} />
          <output>${running && at === null ? html`<span class="live">live</span>` : seconds(search.at)}</output>
        </div>
      </section>
      <aside class="side">
        <section><h3>Votes</h3><${Votes} search=${search} onChoose=${onChoose} /><${Settling} search=${search} /></section>
        <section><h3 class="quiet">Scores</h3><${Scores} search=${search} chosen=${shown} onChoose=${onChoose} /></section>
      </aside>
      <section class="reading"><h3>The path</h3><${Path} search=${search} chosen=${shown} /></section>
    </div>
  </div>`;
}
