"""What the engine's benchmarks share: processes to measure in, results that survive an interruption, tables."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Self

__all__ = ["ROOT", "Child", "Figures", "Results", "Spread", "alternate", "machine", "publish", "spread", "table"]

ROOT = Path(__file__).parent.parent

Figures = dict[str, Any]
"""Measured numbers by name, as they go into a JSON file."""


class Child:
    """A generator function in a process of its own, so that its peak of memory is its own.

    The function first yields what it has to say when it is ready to be measured, then the figures of one round after
    the other. Between rounds it waits, using no CPU.
    """

    def __init__(self, function: Callable[..., Iterator[Figures]], *arguments: object) -> None:
        """Start it; nothing is waited for."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function, arguments))
        self._process.start()
        theirs.close()  # the end of the child is then the end of the pipe

    def next(self) -> Figures:
        """The figures of one more round; SystemExit if the child failed."""
        return self._ask("next")

    def close(self) -> float:
        """End the process: the most memory it held, or a process it started, in MB (10^6 bytes)."""
        peak = float(self._ask("close")["peak_mb"])
        self._process.join()
        return peak

    def _ask(self, command: str) -> Figures:
        try:
            self._pipe.send(command)
            answer: Figures | None = self._pipe.recv()
        except (EOFError, ConnectionError):
            answer = None
        if answer is None:
            raise SystemExit("a measuring process failed, see above")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection, function: Callable[..., Iterator[Figures]], arguments: tuple[object, ...]) -> None:
    rounds = function(*arguments)
    try:
        while (command := pipe.recv()) != "close":
            assert command == "next"
            pipe.send(next(rounds))
        rounds.close()  # type: ignore[attr-defined]
        pipe.send({"peak_mb": _peak() / 1e6})
    except EOFError:  # the parent is gone
        pass
    except (Exception, SystemExit):
        traceback.print_exc()
        pipe.send(None)


def _peak() -> int:
    """Bytes: this process's own high-water mark, or that of a child it has waited for if that is larger."""
    own = 0
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                own = int(line.split()[1]) << 10
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)


def alternate(children: Mapping[str, Child], rounds: int) -> dict[str, list[Figures]]:
    """Figures of `rounds` rounds of every child, in turns: what disturbs the machine for long disturbs all alike."""
    for child in children.values():
        child.next()
    taken: dict[str, list[Figures]] = {name: [] for name in children}
    for _ in range(rounds):
        for name, child in children.items():
            taken[name].append(child.next())
    return taken


class Spread(NamedTuple):
    """Several measurements of one thing."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Median, smallest and largest."""
    return Spread(statistics.median(values), min(values), max(values))


class Results:
    """Rows by name in a JSON file, written as they come, so that an interrupted run goes on where it stopped."""

    def __init__(self, path: Path | None, setting: Figures) -> None:
        """Rows measured in another setting (machine, model, options) are not taken over. Without a path: no file."""
        self.rows: dict[str, Figures] = {}
        self._path = path
        self._setting = setting
        if path is not None and path.is_file():
            known = json.loads(path.read_text())
            if known["setting"] == setting:
                self.rows = known["rows"]

    def row(self, name: str, measure: Callable[[], Figures]) -> Figures:
        """The row of that name, measured unless it is there."""
        if name not in self.rows:
            self.rows[name] = measure()
            self._write()
            print(name, json.dumps(self.rows[name]), file=sys.stderr, flush=True)
        return self.rows[name]

    def named(self, prefix: str) -> dict[str, Figures]:
        """Rows whose name starts with `prefix`, under the rest of their names."""
        return {name.removeprefix(prefix): row for name, row in self.rows.items() if name.startswith(prefix)}

    def _write(self) -> None:
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"setting": self._setting, "rows": self.rows}, indent=1) + "\n")
        os.replace(partial, self._path)


def machine() -> Figures:
    """What figures of speed depend on besides the program."""
    import llama_cpp

    told: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())
    return {
        "cpu": told.get("model name", platform.machine()),
        "family": told.get("cpu family"),  # generations of one name: of AMD's, 25 is Zen 3 or 4 and 26 Zen 5
        "cpus": len(os.sched_getaffinity(0)),
        "llama_cpp": llama_cpp.__version__,
    }


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def publish(path: Path, mark: str, text: str) -> bool:
    """Put `text` between `<!-- mark -->` and `<!-- /mark -->`; False if the file does not have both."""
    if not path.is_file():
        return False
    before, begin, rest = path.read_text().partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not begin or not end:
        return False
    path.write_text(before + begin + text + "\n" + end + after)
    return True
