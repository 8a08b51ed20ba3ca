"""The benchmark of tournaments on judges whose taste is known."""

from __future__ import annotations

import random
import re

import pytest

from benchmarks import tournament as benchmark
from benchmarks.judges import Pair
from benchmarks.rig import Figures
from flyweight.testing import Draft, ToyPolicy
from flyweight.types import Problem, Sampling
from tests.test_benchmark_judges import Taste, policy

PAIR = Pair(Problem("p", "Praise a kettle.", meta={"criteria": "product"}), "", "")
SAID = "This is text number {} about a kettle, "


def writer(taste: Taste, first: float = 0.0) -> ToyPolicy:
    """Writes texts of different worth and length, and judges by taste."""
    made = policy(taste, first)

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(SAID.format(rng.randrange(100)) + "which boils. " * rng.randrange(1, 6))

    return ToyPolicy(write, read=made._read)


def number(text: str) -> float:
    return int(re.findall(r"\d+", text)[0]) / 100


def rows(small: Taste, big: Taste, first: float = 0.0) -> Figures:
    policies = {"small": writer(small, first), "big": writer(big)}
    for name, each in policies.items():
        each.name = name
    return benchmark.judged(policies, PAIR)


def test_who_knows_chooses_best_and_is_asked_about_a_pair_once() -> None:
    row = rows(small=lambda text: -number(text), big=number)
    places = range(benchmark.TEXTS)
    worth = [benchmark._wins(row["said"]["big"], place) for place in places]
    chosen = row["chosen"]
    assert worth[chosen["tournament, big"]] == max(worth)
    assert worth[chosen["tournament, small"]] == min(worth), "its taste is the opposite"
    assert sum(worth) / len(worth) == pytest.approx(0.5), "random choice wins half"
    for said in row["said"].values():
        assert len(said) == len({frozenset(each[:2]) for each in said}) == 10, "every pair, once"
    assert benchmark.agreement([row], "small", "big").value == 0
    assert benchmark.agreement([row], "big", "big").value == 1


def test_the_leanings_of_a_judge() -> None:
    row = rows(small=lambda text: 0.5, big=lambda text: min(1.0, len(text) / 200), first=0.3)
    assert benchmark.first_place([row], "small").value == pytest.approx(0.6)
    assert benchmark.first_place([row], "big").value == pytest.approx(0)
    assert benchmark.length([row], "small").value == pytest.approx(0)
    assert benchmark.length([row], "big").value > 0
    written = benchmark.text([row], "small", "big")
    assert "| random choice | 50.0 % | 0 |" in written and "+60.0 (" in written


def test_wins_by_hand() -> None:
    said = [[0, 1, 0.9, 0.7], [2, 0, 0.4, 0.2], [1, 2, 0.5, 0.5]]
    assert [benchmark._wins(said, place) for place in range(3)] == pytest.approx([0.75, 0.35, 0.4])
    assert benchmark._longer([30, 10, 20], 0) == pytest.approx(1.0)


def test_what_was_settled_without_the_judge_is_no_leaning_of_it() -> None:
    row = {"lengths": [10, 400, 200], "said": {"judge": [[0, 1, 0.0, 0.0], [1, 2, 0.9, 0.7], [2, 0, 1.0, 1.0]]}}
    assert benchmark.first_place([row], "judge").value == pytest.approx(0.2)
    assert benchmark.length([row], "judge").value == pytest.approx(0.3)
    settled = {"lengths": [10, 400], "said": {"judge": [[0, 1, 0.0, 0.0]]}}
    assert benchmark.first_place([settled], "judge").value == benchmark.length([settled], "judge").value == 0
