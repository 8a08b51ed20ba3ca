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

    async def strategy(pair: Pair, search: Search) -> None:
        texts = (pair.better, pair.worse, padded(pair.better), padded(pair.worse))
        nodes = await search.score([search.append(search.root, text) for text in texts])
        rows.append(tuple(node.score.value for node in nodes if node.score is not None))

    cost = _run(policy, verifier, chosen, strategy, each=4)
    return {
        "right": [_wins(better, worse) for better, worse, *_ in rows],
        "padding": [(more - better + most - worse) / 2 for better, worse, more, most in rows],
        **cost,
    }


def compared(policy: Policy, judge: Orders, chosen: Sequence[Pair]) -> Figures:
    """What a judge's comparisons prefer: per prompt."""

    async def strategy(pair: Pair, search: Search) -> None:
        better, worse = (search.append(search.root, text) for text in (pair.better, pair.worse))
        await search.compare(better, worse)
        await search.compare(search.append(search.root, padded(pair.better)), better)
        await search.compare(search.append(search.root, padded(pair.worse)), worse)

    cost = _run(policy, judge, chosen, strategy, each=3)
    texts, better, worse = judge.said[0::3], judge.said[1::3], judge.said[2::3]
    return {
        "right": [_wins(each.value, 0.5) for each in texts],
        "padding": [(a.value + b.value) / 2 - 0.5 for a, b in zip(better, worse, strict=True)],
        "first": [each.bias for each in texts],
        **cost,
    }


def _run(
    policy: Policy,
    verifier: Verifier,
    chosen: Sequence[Pair],
    strategy: Callable[[Pair, Search], Coroutine[object, object, None]],
    *,
    each: int,
) -> Figures:
    """Tokens and milliseconds of a judgement, of which every prompt has `each`; one prompt at a time."""
    runner = Runner(policy, {verifier.name: verifier}, answers=BoxedAnswers())
    tokens = 0
    began = time.perf_counter()
    for pair in chosen:
        result = runner.solve(pair.problem, partial(strategy, pair))
        if result.error is not None:
            raise SystemExit(f"{pair.problem.id}: {result.error}")
        tokens += result.usage.verifier_tokens
    seconds = time.perf_counter() - began
    return {"tokens": tokens / each / len(chosen), "ms": 1000 * seconds / each / len(chosen)}


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
    loaded: list[Policy] = []
    for kind in KINDS:

        def measured(kind: str = kind) -> Figures:
            loaded[:] = loaded or [load()]
            return measure(loaded[0], kind, chosen)

        results.row(f"{given.model} {kind}", measured)
    for policy in loaded:
        policy.close()
    written = text(results.rows, chosen)
    print(written)
    if not given.limit:
        publish(PAGE, "judges", written)


if __name__ == "__main__":
    main()
