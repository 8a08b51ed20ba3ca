"""Difficulty: bins and features computed by hand, the estimator against what it is fitted on."""

from __future__ import annotations

import math
import random

import pytest

from flyweight.errors import ConfigError
from flyweight.optimal.difficulty import (
    FEATURES,
    Draw,
    Estimator,
    band,
    bin_of,
    features,
    fit,
    quantiles,
    ranked,
    spearman,
)

ONES = (1.0,) * len(FEATURES)


def test_bands_are_lius() -> None:
    assert [band(p) for p in (0.0, 0.09, 0.1, 0.49, 0.5, 1.0)] == ["hard", "hard", "medium", "medium", "easy", "easy"]


def test_quintiles_are_snells() -> None:
    edges = quantiles([k / 10 for k in range(10)], 5)
    assert edges == (0.2, 0.4, 0.6, 0.8)
    counts = [0] * 5
    for k in range(10):
        counts[bin_of(k / 10, edges)] += 1
    assert counts == [2, 2, 2, 2, 2]


def test_values_that_are_alike_are_not_cut() -> None:
    assert quantiles([0.5] * 9, 5) == ()
    assert quantiles([0.0] * 6 + [1.0] * 4, 5) == (1.0,)
    assert quantiles([0.3, 0.1, 0.2], 1) == ()


def test_features_by_hand() -> None:
    draws = [
        Draw(0, 0.9, -0.1, 100),
        Draw(0, 0.5, -0.2, 200),
        Draw(1, 0.1, -0.3, 300),
        Draw(None, None, -1.0, 400),
    ]
    found = dict(zip(FEATURES, features(draws, 99), strict=True))
    assert found["agreement"] == 0.5
    assert found["classes"] == 0.5
    assert found["silent"] == 0.25
    assert found["mean_score"] == pytest.approx(0.5)
    assert found["best_score"] == 0.9
    assert found["confidence"] == pytest.approx(sum(map(math.exp, (-0.1, -0.2, -0.3, -1.0))) / 4)
    assert found["prompt"] == pytest.approx(math.log(100))
    assert found["length"] == pytest.approx(math.log(251))


def test_samples_without_scores_or_answers_have_features_too() -> None:
    found = dict(zip(FEATURES, features([Draw(None, None, -2.0, 5)], 0), strict=True))
    assert (found["agreement"], found["mean_score"], found["best_score"], found["silent"]) == (0, 0.5, 0.5, 1)


def test_the_estimator_learns_what_tells_difficulty() -> None:
    rng = random.Random(0)
    rows, passed = [], []
    for _ in range(200):
        agreement = rng.random()
        rows.append([agreement, *(rng.random() for _ in FEATURES[1:])])
        passed.append(1 / (1 + math.exp(-(6 * agreement - 3))))
    told = fit(4, rows, passed, [1.0] * len(rows))
    estimates = [told(row) for row in rows]
    assert told.weights[0] > 5 * max(map(abs, told.weights[1:]))
    assert spearman(estimates, passed) > 0.99
    # At the maximum of the likelihood the mean estimate is the mean of what was seen.
    assert sum(estimates) / len(rows) == pytest.approx(sum(passed) / len(rows), abs=1e-4)


def test_order_and_repetition_of_rows_do_not_matter() -> None:
    rng = random.Random(1)
    rows = [[rng.random() for _ in FEATURES] for _ in range(30)]
    passed = [rng.random() for _ in rows]
    once = fit(2, rows, passed, [1.0] * 30)
    again = fit(2, [*reversed(rows), *rows], [*reversed(passed), *passed], [0.5] * 60)
    assert again.weights == pytest.approx(once.weights, abs=1e-6)
    assert again.offset == pytest.approx(once.offset, abs=1e-6)


def test_what_never_varies_has_no_weight() -> None:
    rows = [[0.5] * len(FEATURES) for _ in range(20)]
    told = fit(1, rows, [0.3] * 20, [1.0] * 20)
    assert told(rows[0]) == pytest.approx(0.3, abs=1e-5)
    assert max(map(abs, told.weights)) < 1e-9


def test_ranks_and_their_correlation_by_hand() -> None:
    assert ranked([3.0, 1.0, 3.0, 2.0]) == [3.5, 1, 3.5, 2]
    assert spearman([1, 2, 3], [10, 20, 30]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1 2 3 4 and 2 1 4 3: 1 - 6 * 4 / (4 * 15).
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)
    assert spearman([1, 1, 1], [1, 2, 3]) == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: quantiles([], 3),
        lambda: quantiles([1.0], 0),
        lambda: spearman([1.0], [1.0, 2.0]),
        lambda: fit(1, [], [], []),
        lambda: Estimator(1, (0.0,), (1.0,), (1.0,), 0.0),
        lambda: Estimator(0, ONES, ONES, ONES, 0.0),
        lambda: Estimator(1, ONES, ONES, (math.nan,) * len(FEATURES), 0.0),
        lambda: Estimator(1, ONES, (0.0,) * len(FEATURES), ONES, 0.0),
    ],
)
def test_mistakes_get_one_line(make: object) -> None:
    assert callable(make)
    with pytest.raises(ConfigError) as caught:
        make()
    assert "\n" not in str(caught.value)
