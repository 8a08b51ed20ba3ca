"""Ranking and calibration of scores against brute force, enumeration and hand-computed values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.errors import ConfigError
from flyweight.stats import auc, auc_within, bootstrap_mean, brier, calibrated, clustered_auc, ece

SAMPLES = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]), st.booleans()), min_size=2, max_size=12)


def pairwise(scores: Sequence[float], correct: Sequence[float]) -> float:
    """Every pair of a right and a wrong one."""
    right = [x for x, ok in zip(scores, correct, strict=True) if ok]
    wrong = [x for x, ok in zip(scores, correct, strict=True) if not ok]
    return sum((a > b) + 0.5 * (a == b) for a in right for b in wrong) / (len(right) * len(wrong))


@given(SAMPLES)
def test_auc_equals_every_pair(samples: list[tuple[float, bool]]) -> None:
    scores, correct = [x for x, _ in samples], [ok for _, ok in samples]
    if any(correct) and not all(correct):
        assert auc(scores, correct) == pytest.approx(pairwise(scores, correct), abs=1e-12)
        assert auc([-x for x in scores], correct) == pytest.approx(1 - auc(scores, correct), abs=1e-12)
        assert auc([math.atan(9 * x) for x in scores], correct) == auc(scores, correct)  # only the order counts
    else:
        with pytest.raises(ConfigError, match="at least one of each"):
            auc(scores, correct)


def test_auc_by_hand() -> None:
    # Right 0.9, 0.4; wrong 0.4, 0.1: of the four pairs three are ranked right and one is tied.
    assert auc([0.9, 0.4, 0.4, 0.1], [True, True, False, False]) == 3.5 / 4
    assert auc([1.0, 0.0], [True, False]) == 1 and auc([0.0, 1.0], [True, False]) == 0
    assert auc([0.3] * 5, [True, False, True, False, False]) == 0.5
    assert auc([math.inf, -math.inf], [True, False]) == 1


def flat(lists: Sequence[Sequence[float]]) -> list[float]:
    return [x for own in lists for x in own]


def test_auc_within_is_the_mean_over_problems_that_have_both() -> None:
    scores = [[0.9, 0.1], [0.2, 0.8, 0.5], [0.7, 0.7], [0.1, 0.2]]
    correct = [[True, False], [True, False, False], [True, True], [False, False]]
    assert auc_within(scores, correct) == bootstrap_mean([1.0, 0.0])
    # Easy problems scored high say nothing within one: overall it is another number.
    assert clustered_auc(scores, correct).value == pytest.approx(pairwise(flat(scores), flat(correct)))


def test_clustered_auc_equals_resampling_whole_problems() -> None:
    random = np.random.default_rng(2)
    scores = [list(random.integers(0, 5, size).astype(float)) for size in (3, 1, 4, 2, 6, 3)]
    correct = [[bool(random.random() < x / 5 + 0.1) for x in own] for own in scores]
    counts = np.random.default_rng(7).multinomial(6, np.full(6, 1 / 6), 400)
    found = []
    for times in counts:
        drawn = [i for i, n in enumerate(times) for _ in range(n)]
        marks = [ok for i in drawn for ok in correct[i]]
        if any(marks) and not all(marks):
            found.append(pairwise([x for i in drawn for x in scores[i]], marks))
    low, high = np.percentile(found, [5, 95])
    got = clustered_auc(scores, correct, resamples=400, seed=7, level=0.9)
    assert got == pytest.approx((low, pairwise(flat(scores), flat(correct)), high), abs=1e-12)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, correct = [[0.1, 0.9], [0.6, 0.4], [0.3, 0.7]], [[False, True]] * 3
    monkeypatch.setattr("flyweight.stats.intervals.CHUNK", 10)
    split = clustered_auc(scores, correct, resamples=50), calibrated([0.2, 0.7, 0.9], draws=50)
    monkeypatch.setattr("flyweight.stats.intervals.CHUNK", 1 << 20)
    assert split[0].value == clustered_auc(scores, correct, resamples=50).value
    whole = calibrated([0.2, 0.7, 0.9], draws=50)
    assert split[1].ece == pytest.approx(whole.ece, abs=1e-12)
    assert split[1].brier == pytest.approx(whole.brier, abs=1e-12)


def test_one_problem_has_no_interval() -> None:
    assert clustered_auc([[0.1, 0.9]], [[False, True]], resamples=10) == (1, 1, 1)


def test_brier_and_ece_by_hand() -> None:
    scores, correct = [0.9, 0.8, 0.3, 0.1], [True, False, True, False]
    assert brier(scores, correct) == pytest.approx((0.01 + 0.64 + 0.49 + 0.01) / 4)
    # Bins of 1/5: {0.1}, {0.3}, {0.9, 0.8}; gaps 0.1, -0.7 and 1.7 - 1.
    assert ece(scores, correct) == pytest.approx((0.1 + 0.7 + 0.7) / 4)
    assert ece(scores, correct, bins=1) == pytest.approx(abs(2.1 - 2) / 4)
    assert ece([1.0, 1.0], [True, True]) == 0 and brier([1.0, 0.0], [False, True]) == 1
    assert ece([0.2] * 5, [True] + [False] * 4) == pytest.approx(0, abs=1e-12)  # the end of a bin belongs to the next
    assert ece([0.2, 0.19], [False, True], bins=5) == pytest.approx((0.2 + 0.81) / 2)


@given(SAMPLES, st.integers(1, 7))
def test_ece_equals_its_definition(samples: list[tuple[float, bool]], bins: int) -> None:
    total = 0.0
    for b in range(bins):
        inside = [(x, ok) for x, ok in samples if b <= x * bins < b + 1 or (b == bins - 1 and x == 1)]
        if inside:
            said = sum(x for x, _ in inside) / len(inside)
            true = sum(ok for _, ok in inside) / len(inside)
            total += len(inside) / len(samples) * abs(said - true)
    assert ece([x for x, _ in samples], [ok for _, ok in samples], bins) == pytest.approx(total, abs=1e-12)


def test_calibrated_equals_every_outcome() -> None:
    scores = [0.05, 0.3, 0.35, 0.6, 0.95]
    expected_brier = expected_ece = 0.0
    for outcome in itertools.product([False, True], repeat=5):
        chance = math.prod(p if ok else 1 - p for p, ok in zip(scores, outcome, strict=True))
        expected_brier += chance * brier(scores, outcome)
        expected_ece += chance * ece(scores, outcome)
    assert expected_brier == pytest.approx(sum(p * (1 - p) for p in scores) / 5)
    got = calibrated(scores, draws=100_000)
    # Both lie in [0, 1] with a standard deviation below 0.2: four standard errors of the mean are 0.0025.
    assert got.brier.value == pytest.approx(expected_brier, abs=0.0025)
    assert got.ece.value == pytest.approx(expected_ece, abs=0.0025)
    assert got.ece.low <= got.ece.value <= got.ece.high
    assert got == calibrated(scores, draws=100_000) != calibrated(scores, draws=100_000, seed=1)


def test_a_calibrated_forecast_lies_within_its_reference() -> None:
    random = np.random.default_rng(0)
    scores = [float(p) for p in random.random(500)]
    reference = calibrated(scores)
    inside = 0
    for _ in range(200):
        correct = [bool(random.random() < p) for p in scores]
        inside += reference.ece.low <= ece(scores, correct) <= reference.ece.high
    assert 180 <= inside <= 199  # 95 % of 200, three standard errors either way
    sure = [min(1.0, p + 0.2) for p in scores]  # what claims more than it holds does not
    assert ece(sure, [bool(random.random() < p) for p in scores]) > calibrated(sure).ece.high


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: auc([0.1], [True, False]), "1 and 2 values"),
        (lambda: auc([math.nan, 0.1], [True, False]), "NaN"),
        (lambda: auc_within([[0.1, 0.2]], [[True, True]]), "no problem has both"),
        (lambda: clustered_auc([[0.1], [0.2]], [[True], [False]], resamples=0), "resamples=0"),
        (lambda: clustered_auc([[0.1], [0.2, 0.3]], [[True], [False]]), "2 and 1 values"),
        (lambda: brier([], []), "at least one"),
        (lambda: brier([1.1], [True]), "outside"),
        (lambda: ece([math.nan], [True]), "outside"),
        (lambda: ece([0.5], [True], bins=0), "bins=0"),
        (lambda: calibrated([0.5], draws=0), "draws=0"),
        (lambda: calibrated([-0.1]), "outside"),
    ],
)
def test_mistakes_give_one_line(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as raised:
        call()
    assert "\n" not in str(raised.value)
