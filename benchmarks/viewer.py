"""How fast the viewer is in a real browser, and its pictures for the documentation.

python -m benchmarks.viewer                     # a run of 1,000 questions x 64 samples, a tree of 2,000 nodes
python -m benchmarks.viewer --pictures runs     # docs/viewer/*.png of the latest runs recorded there

Needs Chromium. Opening: from the address to all rows of the run, the server started anew and nothing cached; drawing:
from the search's address to the last node painted. The store is made first and kept in the folder of --keep.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from flyweight.store import Store
from flyweight.viewer import local, searches
from flyweight.viewer.site import Site
from tests import viewer_kit
from tests.browser import Browser

QUESTIONS, SAMPLES, NODES = 1000, 64, 2000
TARGETS = {"open": 2.0, "draw": 1.0}
PAINTED = "new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0, true)))"
PICTURES = Path("docs") / "viewer"


def served(path: Path) -> tuple[str, Callable[[], None]]:
    """The address of a fresh server, and what shuts it down."""
    ready = threading.Event()
    found: list[tuple[str, Callable[[], None]]] = []

    def began(address: str, shut: Callable[[], None]) -> None:
        found.append((address, shut))
        ready.set()

    threading.Thread(target=local.serve, args=(Site(path), 0, began), daemon=True).start()
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


def timed(browser: Browser, path: Path, hash: str, ready: str) -> Took:
    """What it takes until the page shows what is waited for."""
    address, shut = served(path)
    browser.call("Performance.enable", timeDomain="threadTicks")
    cpu, began = time.process_time(), time.perf_counter()
    browser.open(f"{address}#{hash}")
    browser.wait(ready)
    browser.run(PAINTED)
    took = Took(time.perf_counter() - began, tasks(browser), time.process_time() - cpu)
    shut()
    return took


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
            took = [timed(browser, path, hash, ready) for _ in range(repeats)]
            best = min(took)
            print(
                f"{what}: {best.clock:.2f} s at best of {repeats} (wanted: {TARGETS[name]:g} s), of the processor "
                f"{best.page:.2f} s for the page and {best.server:.2f} s for the server and this program"
            )


def pictures(runs: Path) -> None:
    """Write the documentation's pictures from the runs recorded in a folder."""
    path = runs / "flyweight.db"
    with Store(path, readonly=True) as store:
        infos = [info for info in store.runs() if info.configuration.get("strategy") == "best_of_n"]
        run = max(infos, key=lambda info: info.problems or 0)
        greedy = next(info for info in store.runs() if info.configuration.get("strategy") == "greedy")
        key = searches.problem_key(next(s.result.problem.id for s in store.searches(run.id) if _telling(s.result)))
    address, shut = served(path)
    seen = {
        "runs": ("/", ".run-row .fill", 1280, 620, False),
        "run": (f"/run/{run.id}", ".keys .main", 1280, 760, False),
        "scaling": (f"/run/{run.id}?tab=curves", ".curve", 1280, 860, False),
        "question": (f"/run/{run.id}/{key}", ".tree .selected", 1280, 1000, False),
        "question-dark": (f"/run/{run.id}/{key}", ".tree .selected", 1280, 1000, True),
        "difference": (f"/diff/{greedy.id}/{run.id}", ".diff-row", 1280, 640, False),
        "narrow": (f"/run/{run.id}", ".question-row", 390, 760, True),
    }
    PICTURES.mkdir(parents=True, exist_ok=True)
    with Browser() as browser:
        for name, (hash, ready, width, height, dark) in seen.items():
            browser.resize(width, height)
            browser.dark(dark)
            browser.open(f"{address}#{hash}")
            browser.wait(f"document.querySelector({ready!r}) && !document.querySelector('.waiting')")
            time.sleep(4)  # formulas, and what is computed in the background
            browser.picture(PICTURES / f"{name}.png")
            _shrink(PICTURES / f"{name}.png")
    shut()


def _telling(result: object) -> bool:
    """Whether a search is worth a picture: votes that differ, of which the selected one is not the only."""
    votes = [c.answer_class for c in getattr(result, "candidates", ()) if c.answer_class is not None]
    return len(votes) > 5 and 3 <= len(set(votes)) <= 4


def _shrink(path: Path) -> None:
    from PIL import Image

    Image.open(path).convert("P", palette=Image.Palette.ADAPTIVE, colors=128).save(path, optimize=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, or make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, help="folder of the large store, made there if it is missing")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=Path, metavar="RUNS", help="make the pictures from these runs instead")
    given = parser.parse_args(arguments)
    if given.pictures:
        pictures(given.pictures)
        return
    with tempfile.TemporaryDirectory() as temporary:
        measure(given.keep or Path(temporary), given.repeats)


if __name__ == "__main__":
    main()
