"""Does anything break as the load grows? Tokens/s, memory and recomputed tokens of the embedded engine.

    python -m benchmarks.growth            # about ten minutes
    python -m benchmarks.growth --quick    # small loads, under 90 seconds; nothing is written

Tokens/s are those of whole runs, prompts included, but for the contexts, whose prompts are not timed.

Against n (samples of one problem, 32 slots), the context (16 rows behind prompts of 100 to 4,000 tokens), problems in
flight (n=4, short answers) and the memory for parked paths (beam search with more live paths than slots). Rows go to
results/engine/growth.json as they are measured: an interrupted run continues, --fresh starts over. The table goes to
docs/performance.md, the picture to docs/growth.svg (`pip install 'flyweight[plots]'`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import contenders, picture
from benchmarks.contenders import Load
from benchmarks.engine import begin, common_options, end, is_default, prepare, run
from benchmarks.rig import Child, Figures, Results, table

SLOTS = 32
"""The engine's default."""
ROWS = 16
"""Width at which contexts grow, and slots of the beam search."""


class Plan(NamedTuple):
    """How far each load grows."""

    n: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    contexts: tuple[int, ...] = (100, 200, 400, 1000, 2000, 4000)
    in_flight: tuple[int, ...] = (1, 4, 16, 50, 100, 200)
    parked_mb: tuple[int, ...] = (0, 64, 128, 256, 512)
    tokens: int = 48
    """Longest answer."""
    searches: int = 6
    """Problems in flight in the beam search."""


QUICK = Plan((1, 8), (100, 400), (1, 4), (0, 64), 8, 1)

AXES = {
    "n": "samples of one problem",
    "context": f"tokens before each of {ROWS} rows",
    "in flight": "problems in flight, n=4",
    "parked": "MB for parked paths, beam search",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small loads, written nowhere")
    parser.add_argument("--only", choices=AXES, nargs="+", default=list(AXES), help="some of the loads")
    common_options(parser)
    arguments = parser.parse_args()
    path, results = begin("growth", arguments)
    for axis, values in measurements(path, arguments.weights, QUICK if arguments.quick else Plan()).items():
        if axis in arguments.only:
            for value, measure in values.items():
                results.row(f"{axis}/{value}", measure)
    end("growth", growth_table(results), arguments)
    if is_default(arguments) and not arguments.quick:
        draw(results)


def measurements(path: Path, weights: str, plan: Plan) -> dict[str, dict[int, Callable[[], Figures]]]:
    """By axis and value, what measures it."""
    ready = prepare(path, weights, [SLOTS, ROWS], plan.contexts)
    wide, narrow = (encoding["kind"] for encoding in ready["encodings"])
    beam = {"n": ROWS, "width": 4, "max_steps": 3}

    def samples(n: int, problems: int, in_flight: int, tokens: int) -> Callable[[], Figures]:
        load = Load("self_consistency", {"n": n}, problems, in_flight=in_flight, max_tokens=tokens, slots=SLOTS)
        return partial(run, path, wide, load)

    def parking(mb: int) -> Callable[[], Figures]:
        load = Load("beam_search", beam, plan.searches, max_tokens=plan.tokens, slots=ROWS, parked_mb=mb)
        return partial(run, path, narrow, load)

    return {
        "n": {n: samples(n, 1, 1, plan.tokens) for n in plan.n},
        "context": {
            length: partial(behind, path, narrow, prompt, plan.tokens)
            for length, prompt in zip(plan.contexts, ready["prompts"], strict=True)
        },
        # A few at a time are measured over several problems, one after the other.
        "in flight": {many: samples(4, max(8, many), many, plan.tokens // 2) for many in plan.in_flight},
        "parked": {mb: parking(mb) for mb in plan.parked_mb},
    }


def behind(path: Path, kind: str, prompt: Figures, steps: int) -> Figures:
    """Generation after a prompt, which itself is not timed."""
    with Child(contenders.engine, path, kind, prompt["text"], len(prompt["ids"]), ROWS, steps, False) as child:
        child.next()
        return {"rate": child.next()["rate"], "peak_mb": child.close()}


def growth_table(results: Results) -> str:
    """Every row measured."""
    lines = []
    for axis in AXES:
        for value, row in series(results, axis).items():
            redone = f"{recomputed(row):.1f}" if "generated" in row else "-"
            lines.append([axis, str(value), f"{row['rate']:.0f}", f"{row['peak_mb']:.0f}", redone])
    return table(("load", "at", "tokens/s", "peak MB", "recomputed, % of generated"), lines)


def series(results: Results, axis: str) -> dict[int, Figures]:
    """Rows of one axis in ascending order."""
    rows = results.named(f"{axis}/")
    return {value: rows[str(value)] for value in sorted(map(int, rows))}


def recomputed(row: Mapping[str, float]) -> float:
    """Tokens computed a second time after eviction, in percent of the generated ones."""
    return 100 * row["recomputed"] / row["generated"]


def draw(results: Results) -> None:
    """One column for each load: tokens/s, memory, recomputed tokens."""
    figure, panels = picture.figure(3, len(AXES), size=(11, 6))
    labels = ("tokens/s", "peak memory, MB", "recomputed,\n% of generated")

    def show(place: int, column: int, points: Mapping[int, float], least: float) -> None:
        panel = panels[place, column]
        panel.plot(list(points), list(points.values()), "o-", ms=3, color=("tab:blue", "tab:green", "tab:red")[place])
        panel.set_ylim(0, max([least, *(1.1 * value for value in points.values())]))
        if 0 not in points:
            panel.set_xscale("log")
        panel.set_xticks(list(points), labels=[str(value) for value in points], fontsize=7)
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if column == 0:
            panel.set_ylabel(labels[place])

    for column, (axis, meaning) in enumerate(AXES.items()):
        rows = series(results, axis)
        show(0, column, {value: row["rate"] for value, row in rows.items()}, 1)
        show(1, column, {value: row["peak_mb"] for value, row in rows.items()}, 1)
        again = {value: recomputed(row) for value, row in rows.items() if "generated" in row}
        show(2, column, again, 10)
        panels[0, column].set_title(meaning, fontsize=9)
    panels[2, list(AXES).index("context")].set_axis_off()  # a single prompt: nothing to recompute
    picture.save(figure, "growth.svg")


if __name__ == "__main__":
    main()
