"""Does choosing help where no answer is right? Tournaments and the medoid against random choice, on subjective prompts.

    python -m benchmarks.tournament             # what is missing of 12 prompts: half an hour; writes docs/judges.md
    python -m benchmarks.tournament --limit 1   # some of the prompts: prints, writes nothing

The small model writes `TEXTS` texts to every prompt of flyweight/tasks/data/writing.jsonl. Of these the medoid, a
tournament judged by the small model and one judged by the bigger model choose. Then the bigger model compares every
pair in both orders: a chosen text is worth the mean probability of beating the others, which is 1/2 for one chosen at
random. Preferences are kept by pair and order in results/tournament.json, so the judges' own leanings, to the first
place and to length, are read off the same comparisons.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from statistics import fmean
from typing import Any, cast

from benchmarks.judges import PAGE, Pair, pairs
from benchmarks.results import BIG, SMALL
from benchmarks.rig import ROOT, Figures, Results, machine, publish, table
from flyweight.api import find_policy
from flyweight.protocols import Models, Policy, Search
from flyweight.report.words import between, difference
from flyweight.runner import Runner
from flyweight.select import finished
from flyweight.stats import Interval, bootstrap_mean
from flyweight.strategies.medoid import medoid
from flyweight.strategies.tournament import tournament
from flyweight.testing import BoxedAnswers
from flyweight.types import Node, Problem, Sampling
from flyweight.verifiers.judge import Judge, Preference

FILE = ROOT / "results" / "tournament.json"
TEXTS, TOKENS = 5, 300
"""Texts a prompt, and the longest one in tokens: a longer one is cut and takes no part."""


class Remembering(Judge):
    """A judge that is asked once about a pair, and remembers what it said in each order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.said: dict[tuple[str, str], Preference] = {}

    async def preference(self, problem: Problem, a: Node, b: Node, models: Models) -> Preference:
        """As of the judge."""
        if (b.key, a.key) in self.said:
            known = self.said[b.key, a.key]
            return Preference(1 - known.a_second, 1 - known.a_first)
        if (a.key, b.key) not in self.said:
            self.said[a.key, b.key] = await super().preference(problem, a, b, models)
        return self.said[a.key, b.key]


class Pool:
    """A search whose samples are there already, and whose pairs one judge compares."""

    def __init__(self, search: Search, texts: Sequence[Node], judge: str) -> None:
        self._search, self._texts, self._judge = search, texts, judge

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._search, verb)

    async def complete(self, nodes: Sequence[Node], n: int = 1, **how: Any) -> list[Node]:
        """The texts, whatever is asked for."""
        return list(self._texts)

    async def compare(self, a: Node, b: Node) -> float:
        """As the judge says."""
        return await self._search.compare(a, b, verifier=self._judge)


def judged(policies: Mapping[str, Policy], pair: Pair) -> Figures:
    """What is chosen of the texts to one prompt, and what both judges say of every pair, by places."""
    small, big = policies
    judges = {small: Remembering(policy=small), big: Remembering(policy=big)}
    texts: list[Node] = []
    chosen: dict[str, int] = {}

    async def strategy(search: Search) -> None:
        drawn = await search.complete([search.root], TEXTS, temperature=0.8, policy=small)
        texts.extend(finished(drawn))
        for name, judge in (("medoid", small), (f"tournament, {small}", small), (f"tournament, {big}", big)):
            choose = medoid if name == "medoid" else tournament
            best = await choose(cast(Search, Pool(search, texts, judge)), n=TEXTS)
            if best is not None:
                chosen[name] = texts.index(best)
        for judge in judges:
            for a, b in combinations(texts, 2):
                await search.compare(a, b, verifier=judge)

    runner = Runner(policies, judges, answers=BoxedAnswers(), sampling=Sampling(max_tokens=TOKENS))
    result = runner.solve(pair.problem, strategy)
    if result.error is not None:
        raise SystemExit(f"{pair.problem.id}: {result.error}")
    places = {text.key: i for i, text in enumerate(texts)}
    said = {
        name: [[places[a], places[b], *preference] for (a, b), preference in judge.said.items()]
        for name, judge in judges.items()
    }
    return {"lengths": [len(text.solution) for text in texts], "chosen": chosen, "said": said}


def text(rows: Sequence[Figures], small: str, big: str) -> str:
    """Both tables: what was chosen, and how the judges lean. Prompts with fewer than two texts say nothing."""
    rows = [row for row in rows if len(row["lengths"]) > 1]
    head = ["chosen by", f"preferred to the others by {big}", "longer than the others by"]
    lines = [["random choice", "50.0 %", "0"]]
    for name in rows[0]["chosen"]:
        wins = bootstrap_mean([_wins(row["said"][big], row["chosen"][name]) for row in rows])
        longer = bootstrap_mean([_longer(row["lengths"], row["chosen"][name]) for row in rows])
        lines.append([name, between(wins), f"{difference(longer)} %"])
    longest = bootstrap_mean(
        [_wins(row["said"][big], row["lengths"].index(max(row["lengths"]))) for row in rows],
    )
    lines.append(["the longest text", between(longest), ""])
    leaning = [
        [
            judge,
            *(difference(lean(rows, judge)) for lean in (first_place, length)),
            between(agreement(rows, judge, big)),
        ]
        for judge in (small, big)
    ]
    biases = ["judge", "gain by being first", "gain by being the longer", f"agrees with {big}"]
    return f"{table(head, lines)}\n\n{table(biases, leaning)}"


def first_place(rows: Sequence[Figures], judge: str) -> Interval:
    """How much likelier a text is preferred for being shown first, in [-1, 1]."""
    return bootstrap_mean([fmean(first - second for _, _, first, second in _asked(row, judge)) for row in rows])


def _asked(row: Figures, judge: str) -> list[Sequence[float]]:
    """The pairs the judge was shown: where a text is vacuous, that is settled without it. Of none, a tie of nobody."""
    return [said for said in row["said"][judge] if said[2:] not in ([0.0, 0.0], [1.0, 1.0])] or [[0, 0, 0.5, 0.5]]


def length(rows: Sequence[Figures], judge: str) -> Interval:
    """How much likelier than 1/2 the longer text of a pair is preferred; equal lengths count 0."""

    def gain(row: Figures) -> float:
        values = []
        for a, b, first, second in _asked(row, judge):
            longer = (row["lengths"][a] > row["lengths"][b]) - (row["lengths"][a] < row["lengths"][b])
            values.append(longer * ((first + second) / 2 - 0.5))
        return fmean(values)

    return bootstrap_mean([gain(row) for row in rows])


def agreement(rows: Sequence[Figures], judge: str, other: str) -> Interval:
    """Share of the pairs of which two judges prefer the same text."""

    def same(row: Figures) -> float:
        sides = [
            {
                tuple(sorted((a, b))): ((first + second) / 2 > 0.5) == (a < b)
                for a, b, first, second in row["said"][name]
            }
            for name in (judge, other)
        ]
        return fmean(sides[0][pair] == sides[1][pair] for pair in sides[0])

    return bootstrap_mean([same(row) for row in rows])


def _wins(said: Sequence[Sequence[float]], place: int) -> float:
    """Mean probability with which the text of this place beats the others."""
    values = [(a, b, (first + second) / 2) for a, b, first, second in said]
    return fmean(value if a == place else 1 - value for a, b, value in values if place in (a, b))


def _longer(lengths: Sequence[int], place: int) -> float:
    """By which share of their mean length a text is longer than the others."""
    others = fmean(size for i, size in enumerate(lengths) if i != place)
    return lengths[place] / others - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, help="only the first prompts; prints, writes nothing")
    given = parser.parse_args()
    results = Results(None if given.limit else FILE, {"texts": TEXTS, "tokens": TOKENS, **machine()})
    chosen = pairs(given.limit)
    if any(pair.problem.id not in results.rows for pair in chosen):
        policies = {name: find_policy(name)() for name in (SMALL, BIG)}
        for pair in chosen:
            results.row(pair.problem.id, partial(judged, policies, pair))
        for policy in policies.values():
            policy.close()
    written = text([results.rows[pair.problem.id] for pair in chosen], SMALL, BIG)
    print(written)
    if not given.limit:
        publish(PAGE, "tournament", written)


if __name__ == "__main__":
    main()
