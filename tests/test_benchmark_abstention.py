"""What `python -m benchmarks.abstention` counts: the area under the curve, the forms of a map, the dial."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from benchmarks import optimal_headline
from benchmarks.abstention import (
    Question,
    aurc,
    bootstrap,
    isotonic,
    logistic,
    probabilities,
    ratio,
    searched,
    surest,
    verdict,
)
from flyweight.abstain import ConfidenceMap, Sample

CURVE = ConfidenceMap("m", "", "math", ("s",), {}, "", "", 100, (0.0, 1.0, 0.0))
"""Odds of a lead: lead : 1."""


def test_area_by_hand() -> None:
    assert aurc([0.9, 0.5, 0.7], [True, False, True]) == pytest.approx((0 + 0 + 1 / 3) / 3)
    assert aurc([0.9, 0.5, 0.7], [False, True, True]) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert aurc([0.5] * 4, [True, False, True, False]) == pytest.approx(0.5), "no order: the share of wrong ones"
    assert aurc([None, 0.1], [True, False]) == pytest.approx((1 + 1 / 2) / 2), "None comes last"


@pytest.mark.parametrize("seed", range(6))
def test_area_is_the_mean_over_all_ways_to_break_ties(seed: int) -> None:
    rng = random.Random(seed)
    confidence = [rng.choice([0.2, 0.4, 0.6, None]) for _ in range(6)]
    right = [rng.random() < 0.5 for _ in range(6)]
    found = []
    for order in itertools.permutations(range(6)):
        ranks = [-1.0 if confidence[i] is None else confidence[i] or 0.0 for i in order]
        if ranks == sorted(ranks, reverse=True):
            wrong = list(itertools.accumulate(not right[i] for i in order))
            found.append(sum(w / (k + 1) for k, w in enumerate(wrong)) / 6)
    assert aurc(confidence, right) == pytest.approx(sum(found) / len(found))


@pytest.mark.parametrize("seed", range(4))
def test_isotonic_is_the_best_rising_function(seed: int) -> None:
    """Against the min-max formula: the largest over starts of the smallest over ends of the means between them."""
    import numpy as np

    rng = np.random.default_rng(seed)
    leads = rng.choice([0.5, 0.6, 0.7, 0.8, 0.9], 40)
    right, weight = (rng.random(40) < 0.5).astype(float), rng.random(40) + 0.1
    found = isotonic(leads)(np.ones(40, dtype=bool), right, weight)
    places = np.unique(leads)

    def mean(low: float, high: float) -> float:
        inside = (leads >= low) & (leads <= high)
        return float((weight * right)[inside].sum() / weight[inside].sum())

    for place in places:
        best = max(min(mean(low, high) for high in places if high >= place) for low in places if low <= place)
        assert found[leads == place] == pytest.approx(best)


def test_logistic_leaves_no_gradient() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(200, 2)), rng.random(200)
    right = (rng.random(200) < 1 / (1 + np.exp(-x[:, 0]))).astype(float)
    rows = np.arange(200) % 3 > 0
    p = logistic(x)(rows, right, weight)
    assert abs((weight * (p - right))[rows].sum()) < 0.01, "of the constant"
    assert np.abs(x[rows].T @ (weight * (p - right))[rows]).max() < 0.01


def test_the_dial_by_hand() -> None:
    """All agree: two votes lead with 7/8, three with 15/16."""
    alike = Question("q", [Sample(0, True)] * 4, None, True)
    two, three = (lead / (1 + lead) for lead in (7 / 8, 15 / 16))
    assert searched(alike, CURVE, two) == pytest.approx((1, 1, two, 0, 0, 2 * 5 / 5))
    assert searched(alike, CURVE, two + 1e-6) == pytest.approx((1, 1, three, 0, 0, 3))
    assert searched(alike, CURVE, 0.9) == pytest.approx((0, 0, 0, 1, 1, 4)), "never: all are drawn"
    silent = Question("q", [Sample(0, False)] * 3 + [Sample(None, False)] * 4, None, False)
    assert searched(silent, CURVE, two) == pytest.approx((1, 0, two, 0, 0, 2 * 8 / 4)), "one in two cannot vote"
    alone = Question("q", [Sample(0, True), Sample(None, False)], None, True)
    assert searched(alone, CURVE, 0.1) == (0, 0, 0, 1, 1, 2)


def test_what_is_said_of_a_map_follows_from_its_figures() -> None:
    """Of ten answers claimed at 0.5, chance makes 2 to 8 right (2.1 % each way are fewer, or more)."""
    beyond, within = (verdict([0.5] * 10, [True] * right + [False] * (10 - right)) for right in (1, 7))
    assert beyond.startswith("40 points too much (50.0 % claimed, 10.0 % true); ECE 0.400, above the 0.300 ")
    assert within.startswith("20 points too little (50.0 % claimed, 70.0 % true); ECE 0.200, within the 0.300 ")


def test_the_surest_by_hand() -> None:
    rows = [(0.95, False, [0, 0]), (0.9, False, [0, 1]), (0.85, True, [1, 1]), (0.79, True, [1, 1])]
    told = [{"confidence": sure, "right": right, "samples": samples} for sure, right, samples in rows]
    said = "1 of the 3 answers claimed at 80 % or more are right; 1 of the 2 at 90 % or more had no right sample."
    assert surest(told) == said


def test_an_agreement_is_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"a": {"confidence": 0.9, "calibrated": False}, "b": {"confidence": None}, "c": {"confidence": 0.4}}
    monkeypatch.setattr(optimal_headline, "read", lambda name: {optimal_headline.A: {"questions": rows}})
    assert probabilities("mbpp") == [rows["c"]]


def test_ratios_and_their_intervals() -> None:
    rows = [(1.0, 1.0), (1.0, 0.0), (0.0, 0.0), (1.0, 1.0)]
    found = ratio(rows, 1, 0)
    assert found.value == pytest.approx(2 / 3) and 0 <= found.low < 2 / 3 < found.high <= 1
    assert found == ratio(rows, 1, 0)
    assert all(map(math.isnan, ratio([(0.0, 1.0), (0.0, 1.0)], 1, 0))), "nothing was sure"
    wide, narrow = (bootstrap(lambda rows: sum(i % 2 for i in rows) / len(rows), count) for count in (10, 1000))
    assert narrow.high - narrow.low < (wide.high - wide.low) / 5
