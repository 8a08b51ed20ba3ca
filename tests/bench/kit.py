"""What the tests of benchmarks share: a file of questions, and what a store says of its runs without its clocks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from flyweight import bench
from flyweight.store import Store

__all__ = ["Arguments", "questions", "rows", "said"]

Arguments = Callable[..., list[str]]

CLOCKS = ("seconds", "peak_kv_bytes", "prompt_tokens", "cached_tokens", "flops")
"""What depends on the moment, and on what was in the cache when a run went on."""


def said(path: Path) -> str:
    """Everything graded runs say, without what clocks and caches said."""
    lines: list[object] = []
    with Store(path) as store:
        for info in sorted(store.runs(), key=lambda info: info.id):
            (job,) = bench.check([bench.plan_of(info.configuration)])
            grader = store.grader(job.task.grade, bench.identity(info.configuration))
            for search in bench.read(store, info.id, grader):
                result = search.result
                usage = {name: value for name, value in asdict(result.usage).items() if name not in CLOCKS}
                samples = [(s.sample.node.key, s.sample.node.text, s.sample.answer, s.grade) for s in search.samples]
                lines.append((info.configuration, info.problems, result.problem.id, result.answer, result.stopped))
                lines.append((usage, search.grade, samples))
    return json.dumps(lines, default=str)


def questions(folder: Path, rows: int = 6, **more: object) -> str:
    file = folder / "mine.jsonl"
    row = [{"prompt": f"Add {number} and 4.", "answer": number + 4, **more} for number in range(rows)]
    file.write_text("".join(json.dumps(each) + "\n" for each in row), "utf-8")
    return str(file)


def rows(out: str) -> list[list[str]]:
    """The words of a table's rows."""
    return [line.split() for line in out.splitlines()[1:]]
