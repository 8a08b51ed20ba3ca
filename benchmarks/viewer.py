"""How fast the viewer is in a real browser, and its pictures for the documentation.

python -m benchmarks.viewer                     # a run of 1,000 questions x 64 samples, a tree of 2,000 nodes
python -m benchmarks.viewer --pictures runs     # docs/viewer/ from runs (results/pools/gsm8k.jsonl.xz unpacked)
python -m benchmarks.viewer --pictures runs --ask qwen2.5-coder-0.5b    # its picture of a live search

Needs Chromium. Opening: from the address to all rows of the run, the server started anew and nothing cached; drawing:
from the search's address to the last node painted. The store is made first and kept in the folder of --keep.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.server_kit import cpu_seconds
from flyweight.bench.graded import Recorded, read
from flyweight.cli.view import Own
from flyweight.store import RunInfo, Store
from flyweight.types import Result
from flyweight.viewer import local, searches
from flyweight.viewer.animation import animated
from flyweight.viewer.asking import Asking
from flyweight.viewer.site import Site
from tests import viewer_kit
from tests.browser import Browser

QUESTIONS, SAMPLES, NODES = 1000, 64, 2000
TARGETS = {"open": 2.0, "draw": 1.0}
PAINTED = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0, true)))"
PICTURES = Path("docs") / "viewer"
SETTLED = 4.0
"""Seconds for formulas and for what moves."""
GLIDED = 0.6
"""Seconds until what is new in a growing tree is where it belongs."""


def served(path: Path, asking: Asking | None = None) -> tuple[str, Callable[[], None]]:
    """The address of a fresh server, and what shuts it down."""
    ready = threading.Event()
    found: list[tuple[str, Callable[[], None]]] = []

    def began(address: str, shut: Callable[[], None]) -> None:
        found.append((address, shut))
        ready.set()

    threading.Thread(target=local.serve, args=(Site(path, asking=asking), 0, began), daemon=True).start()
    ready.wait()
    return found[0]


def large(folder: Path) -> tuple[str, str]:
    """The ids of a run with many candidates and of one with a large tree, recorded unless they are there."""
    with Store(folder / "flyweight.db") as store:
        known = {info.configuration["strategy"]: info.id for info in store.runs()}
        if len(known) < 2:
            many = viewer_kit.record(store, [viewer_kit.problem(i) for i in range(QUESTIONS)], SAMPLES)
            run = store.run({"task": "kit", "model": "toy", "strategy": "beam_search"})
            for event in viewer_kit.grown(NODES):
                run(event)
            run.finish()
            return many, run.id
        return known["best_of_n"], known["beam_search"]


class Took(NamedTuple):
    """Seconds: by the clock, and of the processor for the page's main thread and for the server."""

    clock: float
    page: float
    server: float


def timed(browser: Browser, runs: Path, hash: str, ready: str) -> Took:
    """What it takes until the page shows what is waited for, from a `flyweight view` just started."""
    command = [sys.executable, "-m", "flyweight", "view", "--runs", str(runs), "--port", "0", "--no-browser"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = next(word for word in server.stderr.readline().split() if word.startswith("http"))
        browser.call("Performance.enable", timeDomain="threadTicks")
        cpu, began = cpu_seconds(server.pid), time.perf_counter()
        browser.open(f"{address}#{hash}")
        browser.wait(ready)
        browser.run(PAINTED)
        return Took(time.perf_counter() - began, tasks(browser), cpu_seconds(server.pid) - cpu)
    finally:
        server.terminate()
        server.wait()


def tasks(browser: Browser) -> float:
    """Processor seconds of the page since its address was opened."""
    found = browser.call("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in found if each["name"] == "TaskDuration"))


def measure(folder: Path, repeats: int) -> None:
    """Print the figures."""
    many, tree = large(folder)
    path = folder / "flyweight.db"
    key = searches.problem_key(viewer_kit.problem(NODES).id)
    print(f"store: {QUESTIONS:,} questions x {SAMPLES} samples, {path.stat().st_size / 1e6:.0f} MB")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with Browser() as browser:
        for name, what, hash, ready in (
            ("open", "the run", f"/run/{many}", f"document.querySelectorAll('.question-row').length === {QUESTIONS}"),
            ("draw", "the tree", f"/run/{tree}/{key}", f"document.querySelectorAll('.tree .node').length > {NODES}"),
        ):
            took = [timed(browser, folder, hash, ready) for _ in range(repeats)]
            best = min(took)
            print(
                f"{what}: {best.clock:.2f} s at best of {repeats} (wanted: {TARGETS[name]:g} s), of the processor "
                f"{best.page:.2f} s for the page and {best.server:.2f} s for the server"
            )


def pictures(runs: Path) -> None:
    """Write the documentation's pictures from the runs recorded in a folder."""
    path = runs / "flyweight.db"
    with Store(path, readonly=True) as store:
        many, tree = (widest(store, strategy) for strategy in ("best_of_n", "beam_search"))
        greedy = widest(store, "greedy").id
        shown = telling(store, tree)
        PICTURES.mkdir(parents=True, exist_ok=True)
        (PICTURES / "trace.svg").write_text(animated(store.events(tree.id, shown)), "utf-8")
    address, shut = served(path)
    key = searches.problem_key(shown)
    told = "document.querySelectorAll('.keys dd')[1]?.textContent.includes('%') && "
    seen = {
        "runs": ("/", "document.querySelectorAll('.run-row .fill').length > 6", 1280, 620, False),
        "run": (f"/run/{many.id}", told + "document.querySelector('.question-row')", 1280, 760, False),
        "scaling": (f"/run/{many.id}?tab=curves", told + "document.querySelector('.curve')", 1280, 900, False),
        "question": (f"/run/{tree.id}/{key}", "document.querySelector('.tree .selected')", 1280, 1180, False),
        "question-dark": (f"/run/{tree.id}/{key}", "document.querySelector('.tree .selected')", 1280, 1180, True),
        "difference": (f"/diff/{greedy}/{many.id}", "document.querySelector('.diff-row')", 1280, 640, False),
        "narrow": (f"/run/{many.id}", told + "document.querySelector('.question-row')", 390, 760, True),
    }
    with Browser() as browser:
        for name, (hash, ready, width, height, dark) in seen.items():
            browser.resize(width, height)
            browser.dark(dark)
            browser.open(f"{address}#{hash}")
            browser.wait(ready)
            time.sleep(SETTLED)
            shot(browser, name)
    shut()


def live(runs: Path, model: str) -> None:
    """Write the picture of a question asked and being searched."""
    with Store(runs / "flyweight.db", readonly=True) as store:
        tree = widest(store, "beam_search")
        question = store.search(tree.id, telling(store, tree)).result.problem.prompt
    engine = Own(model)
    address, shut = served(runs / "flyweight.db", Asking(engine, default="beam_search"))
    with Browser(height=1180) as browser:
        browser.open(f"{address}#/ask")
        browser.wait("document.querySelector('textarea')")
        browser.write("textarea", question)
        browser.wait("!document.querySelector('.primary').disabled")
        browser.click(".primary")
        grown = "document.querySelectorAll('.tree .node').length > 60 && document.querySelector('.votes button')"
        wanted = f"{grown} || document.querySelector('.verdict')"
        while not browser.run(f"!!({wanted})"):
            time.sleep(0.3)
        time.sleep(GLIDED)
        shot(browser, "live")
    shut()
    engine.close()


def widest(store: Store, strategy: str) -> RunInfo:
    """The run of a strategy on the most questions."""
    found = [info for info in store.runs() if info.configuration.get("strategy") == strategy]
    return max(found, key=lambda info: info.problems or 0)


def telling(store: Store, info: RunInfo) -> str:
    """The problem whose search is right and shows most: different answers, then a short question."""
    graded = read(store, info.id, Recorded(store, info.configuration))
    right = [found.result for found in graded if found.grade.value == "correct"]

    def shows(result: Result) -> tuple[int, int]:
        return len({c.answer_class for c in result.candidates}), -len(result.problem.prompt)

    return max(right, key=shows).problem.id


def shot(browser: Browser, name: str) -> None:
    """Write a picture with few colours, so that it stays small."""
    from PIL import Image

    path = PICTURES / f"{name}.png"
    browser.picture(path)
    Image.open(path).convert("RGB").quantize(200).save(path, optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder of the large store, made there if it is missing")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--pictures", type=Path, metavar="RUNS", help="make the pictures from these runs instead")
    parser.add_argument("--ask", metavar="MODEL", help="make the picture of a live search with this model alone")
    given = parser.parse_args(arguments)
    if given.pictures:
        live(given.pictures, given.ask) if given.ask else pictures(given.pictures)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        measure(folder, given.repeats)


if __name__ == "__main__":
    main()
