"""REBASE: shares and a tree worked out by hand, and what it becomes at both ends of its balance."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.strategies.rebase import allot
from tests.test_strategies import Counting, box, play, run, told


def softmax(scores: list[float], balance: float) -> list[float]:
    return [math.exp(score / balance) for score in scores]


@pytest.mark.parametrize(
    ("scores", "balance", "slots", "shares"),
    [
        ([0.9, 0.5, 0.1], 0.2, 8, [7, 1, 0]),  # 6.93 of 8, 0.88 of 1, nothing is left
        ([0.9, 0.5, 0.1], 1, 3, [2, 1, 0]),  # 1.42 of 3, 0.60 of 1
        ([0.9, 0.5, 0.1], 100, 6, [3, 2, 1]),  # a little above 2 of 6, a little above 1.5 of 3
        ([0.7] * 5, 0.2, 16, [4, 3, 3, 3, 3]),  # 3.2 of 16, then 3 of 12, 3 of 9, ...
        ([0.3] * 3, 0.01, 6, [2, 2, 2]),
        ([0.5], 0.2, 4, [4]),
        ([0.5, 0.4], 0.2, 0, [0, 0]),
        ([], 0.2, 4, []),
    ],
)
def test_shares_by_hand(scores: list[float], balance: float, slots: int, shares: list[int]) -> None:
    assert allot(softmax(scores, balance), slots) == shares


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.sampled_from((0.01, 0.2, 1.0, 100.0)),
    st.integers(0, 64),
)
def test_all_slots_are_given_away_the_better_the_more(scores: list[float], balance: float, slots: int) -> None:
    shares = allot(softmax(sorted(scores, reverse=True), balance), slots)
    assert sum(shares) == slots
    assert all(share >= 0 for share in shares)
    assert shares == sorted(shares, reverse=True)


@given(st.floats(0, 1), st.integers(1, 30), st.integers(1, 8), st.sampled_from((0.01, 0.2, 3.0)))
def test_equal_scores_get_equal_shares(score: float, count: int, each: int, balance: float) -> None:
    assert allot(softmax([score] * count, balance), count * each) == [each] * count


def test_by_hand() -> None:
    tree = {
        "": ["a\n\n", "b\n\n", "c\n\n", box(0)],
        "a\n\n": [box(1), "d\n\n"],
        "b\n\n": [box(2)],
        "a\n\nd\n\n": [box(1)],
    }
    scores = {
        "a\n\n": 0.9, "b\n\n": 0.5, "c\n\n": 0.1, box(0): 0.4,
        f"a\n\n{box(1)}": 0.3, "a\n\nd\n\n": 0.7, f"b\n\n{box(2)}": 0.6,
        f"a\n\nd\n\n{box(1)}": 0.35,
    }  # fmt: skip
    result, judge, _ = play("rebase", tree, scores, n=4, balance=1)
    assert judge.scored == list(scores), "0 took a slot with it: two for a, one for b; then one is left, for d"
    assert (result.answer, result.text) == ("1", f"a\n\nd\n\n{box(1)}"), "0.65 beats 0.6 and 0.4"


def test_the_slot_of_a_truncated_step_is_shared_out_again() -> None:
    tree = {"": ["a\n\n", "never ends " * 3, "never ends " * 3], "a\n\n": [box(1), box(2), box(2)]}
    scores = {"a\n\n": 0.5, f"a\n\n{box(1)}": 0.5, f"a\n\n{box(2)}": 0.3}
    result, _, _ = play("rebase", tree, scores, n=3, step_tokens=12)
    assert result.answer == "2", "0.6 beats 0.5"


@pytest.mark.parametrize("balance", [0.01, 0.2, 100])
def test_with_equal_scores_it_is_independent_chains(balance: float) -> None:
    for n in (1, 4, 7):
        chains = run("beam_search", lambda q, s: 0.5, count=6, n=n, width=1)
        assert told(run("rebase", lambda q, s: 0.5, count=6, n=n, balance=balance)) == told(chains)


def test_without_balance_it_is_a_greedy_beam() -> None:
    def later_is_better(question: str, solution: str) -> float:
        return 0.2 * int(solution.split()[-1][-1]) + 0.1 if "box" not in solution else 0.5

    for n in (2, 4):
        beam = run("beam_search", later_is_better, count=2, write=Counting(), n=n, width=n)
        assert told(run("rebase", later_is_better, count=2, write=Counting(), n=n, balance=0.01)) == told(beam)
