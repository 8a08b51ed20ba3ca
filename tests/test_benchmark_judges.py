"""The judges' benchmark on judges whose taste is known: the right one, the first place, length."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest

from benchmarks import judges as benchmark
from flyweight.protocols import Search
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, Draft, ToyPolicy
from flyweight.verifiers.judge import Judge

PAIRS = benchmark.pairs()
Taste = Callable[[str], float]
"""How much a text is liked, in [0, 1]."""


def policy(taste: Taste, first: float = 0.0) -> ToyPolicy:
    """Grades by taste; of two answers it prefers the better liked, and the first place by `first`."""

    def read(seen: str, choice: str) -> float:
        answers = re.findall(r"\[begin(?: [AB])? \w{16}\]\n(.*?)\n\[end", seen, re.DOTALL)
        liked = [taste(answer) for answer in answers]
        if len(answers) == 1:
            low, high = math.floor(4 * liked[0]), math.ceil(4 * liked[0])
            share = {low: 1 - (4 * liked[0] - low), high: 4 * liked[0] - low if high > low else 1.0}
            return math.log(max(share.get(int(choice) - 1, 0.0), 1e-300))
        a = min(1.0, max(0.0, 0.5 + (liked[0] - liked[1]) / 2 + first))
        return math.log(max(a if choice == "A" else 1 - a, 1e-300))

    return ToyPolicy(lambda question, so_far, rng, sampling: Draft("It has none."), read=read)


def knows(text: str) -> float:
    return float(any(text.startswith(pair.better) for pair in PAIRS))


def long(text: str) -> float:
    return min(1.0, len(text) / 1000)


@pytest.mark.parametrize("kind", benchmark.KINDS)
def test_a_judge_that_knows(kind: str) -> None:
    row = benchmark.measure(policy(knows), kind, PAIRS)
    assert row["right"] == [1.0] * 12 and row["padding"] == [pytest.approx(0)] * 12
    assert row["tokens"] > 100 and row["ms"] > 0
    assert kind != "pairwise" or row["first"] == [pytest.approx(0)] * 12


@pytest.mark.parametrize("kind", benchmark.KINDS)
def test_a_judge_that_counts_letters(kind: str) -> None:
    row = benchmark.measure(policy(long), kind, PAIRS)
    assert row["right"] == [float(len(pair.better) > len(pair.worse)) for pair in PAIRS]
    more = (len(benchmark.PADDING) + 1) / 1000 / (2 if kind == "pairwise" else 1)
    assert row["padding"] == [pytest.approx(more)] * 12


def test_a_judge_that_likes_the_first_place() -> None:
    row = benchmark.measure(policy(lambda text: 0.5, first=0.3), "pairwise", PAIRS)
    assert row["right"] == [0.5] * 12, "in both orders that cancels"
    assert row["first"] == [pytest.approx(0.6)] * 12 and row["padding"] == [pytest.approx(0)] * 12


@pytest.mark.parametrize(("kind", "share"), [("judge", 2), ("pairwise", 1)])
def test_the_cost_is_of_one_judgement_of_the_pair(kind: str, share: int) -> None:
    one = policy(long)
    row = benchmark.measure(one, kind, PAIRS[:1])
    everything = one.counters.prompt_tokens
    short = policy(long)
    verifier = Judge() if kind == "judge" else benchmark.Orders()

    async def strategy(search: Search) -> None:
        better, worse = (search.append(search.root, text) for text in (PAIRS[0].better, PAIRS[0].worse))
        await (search.score([better, worse]) if kind == "judge" else search.compare(better, worse))

    result = Runner(short, {"judge": verifier}, answers=BoxedAnswers()).solve(PAIRS[0].problem, strategy)
    assert result.error is None
    assert row["tokens"] * share == short.counters.prompt_tokens < everything


def test_the_table() -> None:
    row = {"right": [1.0, 0.5, 0.0, 1.0], "padding": [0.1, -0.3, 0.0, 0.0], "tokens": 1234.4, "ms": 9.6}
    first = {"first": [0.5, 0.25, 0.5, 0.25]}
    written = benchmark.text({"small judge": row, "small pairwise": {**row, **first}}, PAIRS[:4])
    lines = written.splitlines()
    assert lines[0].startswith("| model | judge | better text preferred |") and "| 50.0 % |" in lines[2]
    judged, compared = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[-2:])
    assert judged[:2] == ["small", "`judge`"] and judged[-2:] == ["1,234", "10"]
    assert judged[2].startswith("62.5 % (") and judged[3].startswith("−5.0 (") and judged[4] == ""
    assert compared[4].startswith("+37.5 (+25.0 to ")
