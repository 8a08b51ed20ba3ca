"""Selection: values worked out by hand, ties, permutations, and the posterior against an independent integral."""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.errors import ConfigError
from flyweight.select import (
    AGGREGATIONS,
    Ballot,
    aggregate,
    alike,
    confidence,
    finished,
    lead,
    majority,
    preference,
    top,
    vote,
    voter,
    weighted_vote,
)
from flyweight.types import Finish, Node, Score

ROOT = Node(key="root")


def node(
    answer: str,
    draw: int = 0,
    score: float | Sequence[float] | None = None,
    logp: float = -0.5,
    finish: Finish = Finish.END,
    key: str | None = None,
) -> Node:
    """A candidate of one token."""
    if isinstance(score, int | float):
        rated: Score | None = Score(float(score))
    else:
        rated = None if score is None else Score(0.0, tuple(score))
    return Node(ROOT, answer, (0,), (logp,), (-logp,), finish, rated, key or f"{answer}/{draw}", draw)


def grouped(nodes: Sequence[Node]) -> list[list[Node]]:
    """By text, in order of appearance: what arrives first depends on the permutation, on purpose."""
    groups: dict[str, list[Node]] = {}
    for one in nodes:
        groups.setdefault(one.text, []).append(one)
    return list(groups.values())


# Aggregation


@pytest.mark.parametrize(("how", "value"), [("last", 0.5), ("min", 0.25), ("prod", 0.0625), ("mean", 5 / 12)])
def test_aggregate_by_hand(how: str, value: float) -> None:
    assert aggregate(Score(0.9, (0.5, 0.25, 0.5)), how) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_without_steps_the_value_counts(how: str) -> None:
    assert aggregate(Score(0.3), how) == 0.3
    assert aggregate(Score(0.3, (0.7,)), how) == 0.7


def test_aggregate_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        aggregate(Score(0.5), "meen")
    with pytest.raises(ConfigError, match="score"):
        aggregate(None)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_aggregations_are_ordered_and_stay_in_the_unit_interval(steps: list[float]) -> None:
    values = {how: aggregate(Score(0.0, tuple(steps)), how) for how in AGGREGATIONS}
    assert all(0 <= value <= 1 for value in values.values())
    assert values["prod"] <= values["min"] <= values["mean"] + 1e-12
    assert values["min"] <= values["last"]


# Top


def test_equal_keys_stand_together_the_largest_class_first() -> None:
    assert alike(["b", None, "a", "c", "a", None, "c"]) == [[2, 4], [3, 6], [0]]
    assert alike([None]) == alike([]) == []


def test_top_orders_by_the_aggregation_asked_for() -> None:
    up, down, flat = node("up", 0, (0.1, 0.9)), node("down", 1, (0.9, 0.2)), node("flat", 2, (0.6, 0.6))
    order = {how: [n.text for n in top([up, down, flat], 3, aggregation=how)] for how in AGGREGATIONS}
    assert order["last"] == ["up", "flat", "down"]
    assert order["min"] == ["flat", "down", "up"]
    assert order["prod"] == ["flat", "down", "up"]
    assert order["mean"] == ["flat", "down", "up"]


def test_top_takes_the_best_not_the_first() -> None:
    nodes = [node(str(i), i, score) for i, score in enumerate((0.1, 0.2, 0.9, 0.3, 0.8))]
    assert [n.text for n in top(nodes, 2)] == ["2", "4"]
    assert top(nodes, 99) == [nodes[i] for i in (2, 4, 3, 1, 0)]
    assert top([], 3) == [] and top(nodes, 0) == []


def test_top_ties_go_to_confidence_then_to_the_first_drawn() -> None:
    late_sure = node("sure", 5, 0.5, logp=-0.1)
    early, late = node("early", 1, 0.5), node("late", 2, 0.5)
    assert [n.text for n in top([late, late_sure, early], 3)] == ["sure", "early", "late"]


def test_an_unscored_node_cannot_be_ranked() -> None:
    with pytest.raises(ConfigError, match=r"search\.score"):
        top([node("a", 0, 0.5), node("b", 1)], 1)


# Finished


def test_finished_leaves_out_what_was_cut() -> None:
    nodes = [node(finish, i, finish=finish) for i, finish in enumerate(Finish)]
    assert [n.finish for n in finished(nodes)] == [Finish.END, Finish.STOP, Finish.FORCED]


def test_white_space_after_a_step_is_the_vote_of_the_step() -> None:
    step = node("5", 0, 0.9, finish=Finish.STOP)
    blank = Node(step, "\n", finish=Finish.STOP, key="blank")
    assert voter(step) is voter(blank) is voter(Node(blank, "", finish=Finish.END, key="end")) is step
    rated = voter(Node(step, "", finish=Finish.END, score=Score(0.4), key="end"))
    assert (rated.key, rated.score) == (step.key, Score(0.4)), "what was said of the path is said of the step"
    whole = Node(ROOT, "", finish=Finish.END, key="nothing")
    cut = Node(step, "\n\n", finish=Finish.LENGTH, key="cut")
    last = Node(node("half", finish=Finish.LENGTH), "", finish=Finish.END, key="last")
    assert [voter(each) for each in (whole, cut, last)] == [whole, cut, last], "a truncated text does not vote"


# Votes


def test_majority_by_hand() -> None:
    nodes = [node("a", 0), node("b", 1), node("b", 2, logp=-0.1), node("c", 3, logp=0.0)]
    assert majority(grouped(nodes)) is nodes[2], "largest class, its most confident member"
    assert majority([]) is None


def test_majority_ties_go_to_the_more_confident_class_then_to_the_first_drawn() -> None:
    a, b = [node("a", 0, logp=-0.4), node("a", 3, logp=-0.4)], [node("b", 1, logp=-0.1), node("b", 2, logp=-0.6)]
    assert majority([a, b]) is b[0], "mean -0.35 beats -0.4"
    level = [node("b", 1, logp=-0.4), node("b", 2, logp=-0.4)]
    assert majority([level, a]) is a[0], "equal confidence: the class with draw 0"


def test_weighted_vote_by_hand() -> None:
    nodes = [node("a", 0, 0.9), node("b", 1, 0.5), node("b", 2, 0.45), node("c", 3, 0.3), node("c", 4, 0.3)]
    assert weighted_vote(grouped(nodes)) is nodes[1], "0.95 beats 0.9 and 0.6; its best member speaks for it"
    assert weighted_vote([]) is None


def test_weighted_vote_uses_the_aggregation() -> None:
    nodes = [node("a", 0, (0.1, 0.8)), node("b", 1, (0.7, 0.5))]
    assert weighted_vote(grouped(nodes), aggregation="last") is nodes[0]
    assert weighted_vote(grouped(nodes), aggregation="min") is nodes[1]


def test_equal_sums_added_in_another_order_are_a_tie() -> None:
    a = [node("a", i, score, logp=-0.3) for i, score in enumerate((0.3, 0.2, 0.1))]
    b = [node("b", 3 + i, score, logp=-0.3) for i, score in enumerate((0.1, 0.2, 0.3))]
    assert weighted_vote([b, a]) is a[0], "the class drawn first wins the tie, not the last bit of a float"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((-0.1, -0.2, -0.3))), max_size=12))
def test_weighted_vote_with_equal_scores_is_majority(drawn: list[tuple[str, float]]) -> None:
    for score in (0.0, 0.1, 0.7, 1.0):
        nodes = [node(answer, i, score, logp) for i, (answer, logp) in enumerate(drawn)]
        assert weighted_vote(grouped(nodes)) is majority(grouped(nodes))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from((0.1, 0.2, 0.3)), st.floats(-2, 0)), min_size=1))
def test_a_vote_of_ballots_is_the_vote_of_their_nodes(drawn: list[tuple[str, float, float]]) -> None:
    nodes = [node(answer, i, score, logp) for i, (answer, score, logp) in enumerate(drawn)]
    chosen, sure = vote([Ballot(*each) for each in drawn])
    assert nodes[chosen] is weighted_vote(grouped(nodes))
    assert sure == (confidence(grouped(nodes), nodes[chosen]) or 0.0)


# Order never matters

candidates = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from((0.0, 0.25, 0.5, 1.0)),
        st.sampled_from((-0.1, -0.2)),
        st.sampled_from((0, 0, 1)),
    ),
    min_size=1,
    max_size=10,
)


@settings(max_examples=60)
@given(candidates, st.sampled_from(AGGREGATIONS), st.randoms(use_true_random=False))
def test_permutations_choose_the_same_node(
    drawn: list[tuple[str, float, float, int]], how: str, rng: random.Random
) -> None:
    """Also for nodes of several branches, whose draw indices repeat."""
    nodes = [node(text, draw, (score, 0.5, score), logp, key=f"k{i}") for i, (text, score, logp, draw) in
             enumerate(drawn)]  # fmt: skip
    shuffled = rng.sample(nodes, len(nodes))
    assert top(shuffled, 3, aggregation=how) == top(nodes, 3, aggregation=how)
    assert majority(grouped(shuffled)) is majority(grouped(nodes))
    assert weighted_vote(grouped(shuffled), aggregation=how) is weighted_vote(grouped(nodes), aggregation=how)


def test_a_hundred_permutations_of_a_full_tie() -> None:
    nodes = [node(text, draw, 0.5, key=f"{text}{draw}") for text in "abcd" for draw in (0, 1)]
    rng = random.Random(1)
    chosen = set()
    for _ in range(100):
        rng.shuffle(nodes)
        chosen.add((majority(grouped(nodes)), weighted_vote(grouped(nodes)), top(nodes, 1)[0]))
    assert len(chosen) == 1


# The posterior


@functools.cache
def more_often(votes: int, other: int) -> Fraction:
    """P(p > 1/2) for Beta(votes + 1, other + 1), by the recursion of the integral of p^a (1-p)^b by parts."""
    if other == 0:
        return 1 - Fraction(1, 2 ** (votes + 1))
    # int_{1/2}^1 p^a q^b = -(1/2)^(a+b+1)/(a+1) + b/(a+1) int_{1/2}^1 p^(a+1) q^(b-1), normalised on both sides
    norm = Fraction(math.factorial(votes + other + 1), math.factorial(votes) * math.factorial(other))
    rest: Fraction = more_often(votes + 1, other - 1)
    return rest - norm / Fraction((votes + 1) * 2 ** (votes + other + 1))


def test_lead_is_the_exact_posterior() -> None:
    for votes in range(26):
        for other in range(26):
            assert lead(votes, other) == pytest.approx(float(more_often(votes, other)), abs=1e-15), (votes, other)


@given(st.integers(0, 300), st.integers(0, 300))
def test_lead_is_a_probability_symmetric_and_monotone(votes: int, other: int) -> None:
    assert lead(votes, other) + lead(other, votes) == pytest.approx(1, abs=1e-12)
    assert lead(votes + 1, other) >= lead(votes, other) >= lead(votes, other + 1)
    assert 0 <= lead(votes, other) <= 1


def test_when_a_lead_is_decided() -> None:
    """Unanimous votes are believed at 0.95 from the fourth on: 1 - 2^-5."""
    assert [lead(v, 0) for v in range(5)] == [0.5, 0.75, 0.875, 0.9375, 0.96875]


def test_confidence_by_hand() -> None:
    a, b = [node("a", i) for i in range(3)], [node("b", 3)]
    assert confidence([a, b], a[1]) == lead(3, 1)
    assert confidence([a, b], b[0]) == lead(1, 3)
    assert confidence([a], a[0]) == lead(3, 0)
    assert confidence([b], b[0]) is None, "one voter proves nothing"
    assert confidence([a, b], node("c", 9)) is None, "the chosen one did not vote"
    assert confidence([], a[0]) is None
    rescored = node("a", 1, score=0.9)
    assert confidence([a, b], rescored) == lead(3, 1), "known by its key, scored or not"


def test_preference_is_the_ratio_of_odds() -> None:
    assert preference(0.9, 0.5) == pytest.approx(0.9)  # odds 9:1 against 1:1
    assert preference(0.8, 0.2) == pytest.approx(16 / 17)  # 4:1 against 1:4
    assert preference(0.3, 0.7) == pytest.approx(1 - preference(0.7, 0.3))
    assert preference(1, 0) == 1 and preference(0, 1) == 0
    assert preference(0, 0) == preference(1, 1) == 0.5
