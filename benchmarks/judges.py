"""Do judges prefer the better text, or the first, or the longer one? Measured on prompts without a right answer.

    python -m benchmarks.judges                            # the 0.5B: a few minutes; writes the table of docs/judges.md
    python -m benchmarks.judges --model qwen2.5-coder-1.5b # more models: their rows are added
    python -m benchmarks.judges --limit 1                  # some of the prompts: prints, writes nothing

Every prompt of flyweight/tasks/data/writing.jsonl has a better and a worse text, written with it. `judge` and
`critique` grade both, `pairwise` is the judge's comparison in both orders. Then each text is graded beside itself with
sentences behind it that add nothing: whoever likes that likes length. Rows are kept in results/judges.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import NamedTuple

from benchmarks.rig import ROOT, Figures, Results, machine, publish, table
from flyweight.api import DEFAULT_MODEL, find_policy
from flyweight.protocols import Models, Policy, Search, Verifier
from flyweight.report.words import between, difference
from flyweight.runner import Runner
from flyweight.stats import bootstrap_mean, wilson
from flyweight.testing import BoxedAnswers
from flyweight.types import Node, Problem
from flyweight.verifiers.judge import Critique, Judge, Preference

PAGE = ROOT / "docs" / "judges.md"
FILE = ROOT / "results" / "judges.json"
PROMPTS = ROOT / "flyweight" / "tasks" / "data" / "writing.jsonl"
PADDING = (
    "To put it another way, what has been said above is what there is to say. It has been said above, and it need not "
    "be said again here. These last sentences only come after the ones before them, as last sentences do."
)
"""What is put behind a text: it adds nothing but length, and repeats too little to be turned away as a loop."""


class Pair(NamedTuple):
    """A prompt with two texts."""

    problem: Problem
    better: str
    worse: str


def pairs(limit: int | None = None) -> list[Pair]:
    """The prompts, with their criteria."""
    rows = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()]
    return [Pair(Problem(row["id"], row["prompt"], meta=row), row["better"], row["worse"]) for row in rows[:limit]]


def padded(text: str) -> str:
    """The text with more words and nothing more said."""
    return f"{text} {PADDING}"


class Orders(Judge):
    """A judge that keeps what it said in each order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.said: list[Preference] = []

    async def preference(self, problem: Problem, a: Node, b: Node, models: Models) -> Preference:
        """As of the judge."""
        self.said.append(await super().preference(problem, a, b, models))
        return self.said[-1]


def graded(policy: Policy, verifier: Verifier, chosen: Sequence[Pair]) -> Figures:
    """What a verifier's grades prefer: per prompt."""
    rows: list[tuple[float, ...]] = []

    async def grades(search: Search, *texts: str) -> list[float]:
        nodes = await search.score([search.append(search.root, text) for text in texts])
        return [node.score.value for node in nodes if node.score is not None]

    async def pair_judged(search: Search, pair: Pair) -> None:
        rows.append(tuple(await grades(search, pair.better, pair.worse)))

    async def rest_judged(search: Search, pair: Pair) -> None:
        rows[-1] += tuple(await grades(search, padded(pair.better), padded(pair.worse)))

    cost = _run(policy, verifier, chosen, pair_judged, rest_judged)
    return {
        "right": [_wins(better, worse) for better, worse, *_ in rows],
        "padding": [(more - better + most - worse) / 2 for better, worse, more, most in rows],
        **{name: value / 2 for name, value in cost.items()},
    }


def compared(policy: Policy, judge: Orders, chosen: Sequence[Pair]) -> Figures:
    """What a judge's comparisons prefer: per prompt."""

    async def compare(search: Search, a: str, b: str) -> None:
        await search.compare(search.append(search.root, a), search.append(search.root, b))

    async def pair_judged(search: Search, pair: Pair) -> None:
        await compare(search, pair.better, pair.worse)

    async def rest_judged(search: Search, pair: Pair) -> None:
        await compare(search, padded(pair.better), pair.better)
        await compare(search, padded(pair.worse), pair.worse)

    cost = _run(policy, judge, chosen, pair_judged, rest_judged)
    texts, better, worse = judge.said[0::3], judge.said[1::3], judge.said[2::3]
    return {
        "right": [_wins(each.value, 0.5) for each in texts],
        "padding": [(a.value + b.value) / 2 - 0.5 for a, b in zip(better, worse, strict=True)],
        "first": [each.bias for each in texts],
        **cost,
    }


Judging = Callable[[Search, Pair], Coroutine[object, object, None]]


def _run(policy: Policy, verifier: Verifier, chosen: Sequence[Pair], pair_judged: Judging, rest: Judging) -> Figures:
    """Tokens and milliseconds of judging a pair, without the rest: one prompt at a time."""
    runner = Runner(policy, {verifier.name: verifier}, answers=BoxedAnswers())
    tokens, seconds = 0, 0.0

    async def strategy(pair: Pair, search: Search) -> None:
        nonlocal tokens, seconds
        began = time.perf_counter()
        await pair_judged(search, pair)
        seconds += time.perf_counter() - began
        tokens += search.usage.verifier_tokens
        await rest(search, pair)

    for pair in chosen:
        result = runner.solve(pair.problem, partial(strategy, pair))
        if result.error is not None:
            raise SystemExit(f"{pair.problem.id}: {result.error}")
    return {"tokens": tokens / len(chosen), "ms": 1000 * seconds / len(chosen)}


def _wins(a: float, b: float) -> float:
    return 0.5 if a == b else float(a > b)


def measure(policy: Policy, kind: str, chosen: Sequence[Pair]) -> Figures:
    """The figures of `judge`, `critique` or `pairwise`."""
    if kind == "pairwise":
        return compared(policy, Orders(), chosen)
    return graded(policy, Critique() if kind == "critique" else Judge(), chosen)


KINDS = ("judge", "critique", "pairwise")


def text(rows: dict[str, Figures], chosen: Sequence[Pair]) -> str:
    """The table."""
    head = ["model", "judge", "better text preferred", "gain by padding", "by being first", "tokens", "ms"]
    longer = [_wins(len(pair.better), len(pair.worse)) for pair in chosen]
    lines = [
        ["", "random choice", "50.0 %", "0", "0", "", ""],
        ["", "the longer text", _share(longer), "", "", "0", "0"],
    ]
    for name, row in rows.items():
        model, _, kind = name.rpartition(" ")
        padding, first = (difference(bootstrap_mean(row[key])) if key in row else "" for key in ("padding", "first"))
        cost = [f"{row['tokens']:,.0f}", f"{row['ms']:,.0f}"]
        lines.append([model, f"`{kind}`", _share(row["right"]), padding, first, *cost])
    return table(head, lines)


def _share(values: Sequence[float]) -> str:
    """Of 0 and 1, ties as a half each."""
    return between(wilson(round(sum(values)), len(values))._replace(value=sum(values) / len(values)))


def main() -> None:
    """Measure what is missing, print, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    chosen = pairs(given.limit)
    results = Results(None if given.limit else FILE, {"prompts": len(chosen), **machine()})
    load = find_policy(given.model)
    for kind in KINDS:

        def measured(kind: str = kind) -> Figures:
            policy = load()  # each its own: nothing of what it reads has been computed for another
            try:
                return measure(policy, kind, chosen)
            finally:
                policy.close()

        results.row(f"{given.model} {kind}", measured)
    written = text(results.rows, chosen)
    print(written)
    if not given.limit:
        publish(PAGE, "judges", written)


if __name__ == "__main__":
    main()
