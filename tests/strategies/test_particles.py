"""Particle filter and particle Gibbs: weights, resampling, trees worked out by hand, and their relatives."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.strategies.particle_filter import effective, resample, weight
from flyweight.testing import Draft
from flyweight.types import Node, Sampling, Score
from tests.test_strategies import box, play, right_sums, run, told

# Weights


@pytest.mark.parametrize(("score", "odds"), [(0.5, 1), (0.75, 3), (0.2, 0.25), (0, 1e-7), (1, 1e7)])
def test_the_weight_is_the_odds_of_the_score(score: float, odds: float) -> None:
    assert weight(Node(score=Score(score)), "last") == pytest.approx(odds, rel=1e-6)


def test_weights_are_the_softmax_of_logits() -> None:
    scores = [0.1, 0.5, 0.9, 0.97]
    logits = [math.exp(math.log(s) - math.log(1 - s)) for s in scores]
    weights = [weight(Node(score=Score(s)), "last") for s in scores]
    assert [w / sum(weights) for w in weights] == pytest.approx([x / sum(logits) for x in logits])


def test_the_weight_uses_the_aggregation() -> None:
    node = Node(score=Score(0.5, (0.2, 0.75)))
    assert [weight(node, how) for how in ("last", "min")] == pytest.approx([3, 0.25])


def test_effective_sample_size_by_hand() -> None:
    assert effective([3, 1, 0, 0]) == 1.6
    assert effective([0.2] * 5) == pytest.approx(5)
    assert effective([1e7, 1e-7]) == pytest.approx(1)


# Resampling


class Fixed(random.Random):
    """Says the same number again and again."""

    def __init__(self, said: float) -> None:
        super().__init__(0)
        self.said = said

    def random(self) -> float:
        return self.said


def test_systematic_resampling_by_hand() -> None:
    # Edges at 1, 4, 5, 10; places at (u + i) / 5 of 10.
    assert resample([1, 3, 1, 5], 5, "systematic", Fixed(0.25)) == [0, 1, 2, 3, 3]
    assert resample([1, 3, 1, 5], 5, "systematic", Fixed(0.75)) == [1, 1, 3, 3, 3]


@given(st.lists(st.floats(1e-7, 1e7), min_size=1, max_size=12), st.integers(1, 16), st.randoms(use_true_random=False))
def test_systematic_resampling_takes_each_as_often_as_its_share(
    weights: list[float], count: int, rng: random.Random
) -> None:
    chosen = resample(weights, count, "systematic", rng)
    assert len(chosen) == count and chosen == sorted(chosen)
    for i, value in enumerate(weights):
        share = count * value / math.fsum(weights)
        assert math.floor(share - 1e-6) <= chosen.count(i) <= math.ceil(share + 1e-6)


@pytest.mark.parametrize("how", ["systematic", "multinomial"])
def test_resampling_is_unbiased(how: str) -> None:
    """Standard deviation of a mean count: at most sqrt(count * p * (1 - p) / runs) < 0.023 for these."""
    rng, weights, runs = random.Random(5), [1, 3, 0.5, 5.5], 2000
    seen = Counter(i for _ in range(runs) for i in resample(weights, 4, how, rng))
    for i, value in enumerate(weights):
        assert abs(seen[i] / runs - 4 * value / 10) < 4 * 0.023


def test_multinomial_resampling_is_independent_draws() -> None:
    rng = random.Random(1)
    pairs = Counter(tuple(resample([1, 1], 2, "multinomial", rng)) for _ in range(400))
    assert 0.4 < pairs[0, 1] / 400 < 0.6, "both once with probability 1/2; systematic draws never take one twice"
    assert {tuple(resample([1, 1], 2, "systematic", rng)) for _ in range(50)} == {(0, 1)}


# The filter


def test_the_filter_by_hand() -> None:
    # Odds 3 : 1 : 0 : 0, an effective size of 1.6 of 4: a is drawn three times and b once, whatever the offset.
    tree = {
        "": ["a\n\n", "b\n\n", "c\n\n", "d\n\n"],
        "a\n\n": [box(1), "e\n\n", box(2)],
        "b\n\n": [box(2)],
        "a\n\ne\n\n": [box(3)],
    }
    scores = {
        "a\n\n": 0.75, "b\n\n": 0.5, "c\n\n": 0, "d\n\n": 0,
        f"a\n\n{box(1)}": 0.6, "a\n\ne\n\n": 0.5, f"a\n\n{box(2)}": 0.4, f"b\n\n{box(2)}": 0.45,
        f"a\n\ne\n\n{box(3)}": 0.7,
    }  # fmt: skip
    result, judge, _ = play("particle_filter", tree, scores, n=4)
    assert judge.scored == list(scores)
    assert (result.answer, result.text) == ("2", f"b\n\n{box(2)}"), "0.85 beats 0.7 and 0.6"


def test_a_particle_that_ended_is_drawn_with_the_others_and_votes_as_often() -> None:
    tree = {"": [box(1), "b\n\n", "c\n\n", "d\n\n"], "b\n\n": [box(2)]}
    scores = {box(1): 0.75, "b\n\n": 0.5, "c\n\n": 0, "d\n\n": 0, f"b\n\n{box(2)}": 0.9}
    result, _, _ = play("particle_filter", tree, scores, n=4)
    assert result.answer == "1", "three times 0.75 against 0.9"
    assert [c.answer for c in result.candidates] == ["1", "2"], "shown once"


def test_a_truncated_step_has_no_weight() -> None:
    far = "never ends " * 3
    tree = {"": [far, "a\n\n", far, far], "a\n\n": [box(1), box(2), box(2), far]}
    scores = {"a\n\n": 0.5, f"a\n\n{box(1)}": 0.5, f"a\n\n{box(2)}": 0.3}
    assert play("particle_filter", tree, scores, n=4, step_tokens=12)[0].answer == "2", "one is left"
    tree = {"": [far] * 2}
    assert play("particle_filter", tree, {}, n=2, step_tokens=12)[0].best is None


def test_how_much_weight_must_gather() -> None:
    first = {"a\n\n": 0.75, "b\n\n": 0.5, "c\n\n": 0, "d\n\n": 0}
    thin = {"": list(first), "a\n\n": [box(1)], "b\n\n": [box(1)], "c\n\n": [box(1)], "d\n\n": [box(1)]}
    scores = {**first, **{path + box(1): 0.5 for path in first}}
    for ess in (0, 0.39):  # the effective size is 0.4 of n, and a hair more
        play("particle_filter", thin, scores, n=4, ess=ess)
    drawn = {"": list(first), "a\n\n": [box(1)] * 3, "b\n\n": [box(1)]}
    for ess in (0.41, 1):
        play("particle_filter", drawn, scores, n=4, ess=ess)


@pytest.mark.parametrize("how", ["systematic", "multinomial"])
def test_with_equal_scores_it_is_independent_chains(how: str) -> None:
    for n in (1, 4, 7):
        chains = run("beam_search", lambda q, s: 0.5, count=6, n=n, width=1)
        assert told(run("particle_filter", lambda q, s: 0.5, count=6, n=n, resampling=how)) == told(chains)


# Gibbs


@pytest.mark.parametrize("ess", [0, 0.5, 1])
@pytest.mark.parametrize("how", ["systematic", "multinomial"])
def test_one_iteration_is_the_filter(how: str, ess: float) -> None:
    same: dict[str, Any] = {"count": 8, "n": 4, "resampling": how, "ess": ess}
    filtered = run("particle_filter", right_sums, **same)
    assert told(run("particle_gibbs", right_sums, iterations=1, **same)) == told(filtered)


def test_gibbs_by_hand() -> None:
    # Never drawn anew. 1 is certain to be the reference: its odds are 10^14 times those of 2.
    tree = {"": ["a\n\n", "b\n\n", "c\n\n"], "a\n\n": [box(1)], "b\n\n": [box(2)], "c\n\n": [box(3)]}
    scores = {
        "a\n\n": 0.5, "b\n\n": 0.5, f"a\n\n{box(1)}": 1, f"b\n\n{box(2)}": 0,
        "c\n\n": 0.5, f"c\n\n{box(3)}": 0.9,
    }  # fmt: skip
    result, judge, _ = play("particle_gibbs", tree, scores, n=2, iterations=2, ess=0)
    assert judge.scored == list(scores), "the second iteration draws one particle: the reference is the other"
    assert result.answer == "1"


def test_particles_branch_off_the_reference() -> None:
    tree = {
        "": ["a\n\n", "b\n\n", "c\n\n", "d\n\n", "e\n\n"],
        "a\n\n": [box(1), "f\n\n", "g\n\n"],
        "b\n\n": [box(0)],
        "c\n\n": [box(0)],
        "a\n\nf\n\n": [box(4)],
        "a\n\ng\n\n": [box(4)],
    }
    scores = {
        "a\n\n": 0.9, "b\n\n": 0.9, "c\n\n": 0.9, f"a\n\n{box(1)}": 1, f"b\n\n{box(0)}": 0, f"c\n\n{box(0)}": 0,
        "d\n\n": 0, "e\n\n": 0,  # both are drawn anew from the reference, which stands at a
        "a\n\nf\n\n": 1, "a\n\ng\n\n": 1, f"a\n\nf\n\n{box(4)}": 1, f"a\n\ng\n\n{box(4)}": 1,
    }  # fmt: skip
    result, judge, _ = play("particle_gibbs", tree, scores, n=3, iterations=2)
    assert judge.scored == list(scores)
    assert result.answer == "1", "1 votes in both iterations, as 4 does by two particles: the first drawn wins"


def test_the_reference_survives() -> None:
    """Its votes count in every iteration, although a better particle turns up beside it."""

    tree = {"": ["a\n\n", "b\n\n", "c\n\n"], "a\n\n": [box(1)], "b\n\n": [box(1)], "c\n\n": [box(3)]}
    scores: dict[str, float | Sequence[float]] = {
        "a\n\n": 0.5, "b\n\n": 0.5, f"a\n\n{box(1)}": 0.4, f"b\n\n{box(1)}": 0.4, "c\n\n": 0.5, f"c\n\n{box(3)}": 0.95,
    }  # fmt: skip
    assert play("particle_gibbs", tree, scores, n=2, iterations=2, ess=0)[0].answer == "1", "0.4 three times"


def test_a_reference_that_has_ended_may_be_drawn_and_is_not_gone_on_with() -> None:
    first = [box(1), "a\n\n", "b\n\n", "c\n\n", "d\n\n"]
    scores = {text: float(text == box(1)) for text in first}
    result, _, _ = play("particle_gibbs", {"": first}, scores, n=3, iterations=2)
    assert (result.answer, result.usage.policy_calls) == ("1", 3 + 2)


def test_the_reference_is_drawn_by_weight() -> None:
    """In each of 20 runs 1, of odds 99, not 0, of odds 1e-7: so that 1 has two votes against the better one of 2."""
    worth = {box(1): 0.99, box(0): 0.0, box(2): 0.9999}
    asked: Counter[str] = Counter()

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        asked[question] += 1
        return Draft(list(worth)[asked[question] - 1])

    found = run("particle_gibbs", lambda q, text: worth[text], write=write, n=2, iterations=2, ess=0)
    assert [result.answer for result in found.values()] == ["1"] * 20


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_the_cost_of_gibbs(iterations: int) -> None:
    n, steps = 4, 3
    tree_free = run("particle_gibbs", lambda q, s: 0.5, n=n, iterations=iterations, count=3, ess=0)
    for result in tree_free.values():
        depth = {len(c.node.steps) for c in result.candidates}
        assert depth == {steps + 1}, "three sums and the answer"
        assert result.usage.policy_calls == (n + (iterations - 1) * (n - 1)) * (steps + 1)
        assert result.usage.verifier_calls == result.usage.policy_calls
