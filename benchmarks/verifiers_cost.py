"""What a verifier costs: tokens, milliseconds and memory per candidate, beside candidates that were just drawn.

A few questions of a pool, one after the other. Free verifiers are measured on recorded samples, without a model; others
on a warm model that draws the candidates itself, so that what it reads of them is still there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.rig import Child, Figures, Results, machine
from benchmarks.verifiers_scores import FREE, KEPT, free, opened, sound
from flyweight import verifiers
from flyweight.protocols import Search
from flyweight.select import finished
from flyweight.types import Node

__all__ = ["COST", "measure"]

COST = KEPT / "cost.json"
QUESTIONS = 4


def measure(pool: str, names: Sequence[str], runs: Path) -> None:
    """Add what is not measured yet to `COST`; the free ones if none are named."""
    with opened(pool, runs, draw=False) as source:  # the store is made here, not in a process that is measured
        names = names or free(source)
    results = Results(COST, {"machine": machine(), "questions": QUESTIONS})
    for name in names:
        results.row(f"{pool} {name}", partial(cost, results, pool, name, runs))


def cost(results: Results, pool: str, name: str, runs: Path) -> Figures:
    """Tokens and milliseconds per candidate, and megabytes beyond what drawing alone takes."""
    live = name not in FREE
    base = results.row(f"{pool} {'drawn' if live else 'recorded'}", lambda: alone(pool, "", live, runs))
    figures = alone(pool, name, live, runs)
    return {**figures, "mb": max(0.0, figures["peak_mb"] - base["peak_mb"])}


def alone(pool: str, name: str, live: bool, runs: Path) -> Figures:
    """The figures of a process that does nothing else."""
    with Child(scored, pool, name, live, runs) as child:
        child.next()
        figures = child.next()
        return {**figures, "peak_mb": child.close()}


def scored(pool: str, name: str, live: bool, runs: Path) -> Iterator[Figures]:
    """A question to warm up on; then each on its own. Without a name nothing is scored."""
    with opened(pool, runs, draw=live) as source:
        judge = verifiers.load(name) if name else None
        policy = source.load() if live else source.policy
        strategy = Timed(source.about["n"], source.sampling.temperature, judge is not None)
        runner = source.runner(policy, *([judge] if judge is not None else []))
        try:
            sound(runner.solve(source.problems[0], strategy))
            yield {}
            strategy.seconds, strategy.candidates, tokens = 0.0, 0, 0
            for problem in source.problems[1 : 1 + QUESTIONS]:
                tokens += sound(runner.solve(problem, strategy)).usage.verifier_tokens
            each = max(1, strategy.candidates)
            yield {"tokens": tokens / each, "ms": 1000 * strategy.seconds / each, "candidates": strategy.candidates}
        finally:
            if live:
                runner.close()


class Timed:
    """Best of n that looks at the clock while its samples are scored."""

    def __init__(self, n: int, temperature: float, scores: bool) -> None:
        self.seconds = 0.0
        self.candidates = 0
        self._n, self._temperature, self._scores = n, temperature, scores

    async def __call__(self, search: Search) -> Node | None:
        nodes = finished(await search.complete([search.root], self._n, temperature=self._temperature))
        if self._scores:
            began = time.perf_counter()
            await search.score(nodes)
            self.seconds += time.perf_counter() - began
            self.candidates += len(nodes)
        return None
