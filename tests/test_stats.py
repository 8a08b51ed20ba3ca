"""Intervals and estimators against scipy, brute force and simulation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.errors import ConfigError
from flyweight.stats import Interval, bootstrap_mean, paired_bootstrap, pass_at_k, wilson

CASES = [(0, 1), (1, 1), (0, 60), (60, 60), (1, 2), (7, 60), (33, 60), (1319, 1319), (742, 1319), (1, 10**6)]


@pytest.mark.parametrize(("successes", "n"), CASES)
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_wilson_equals_scipy(successes: int, n: int, level: float) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    expected = scipy_stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    got = wilson(successes, n, level)
    assert got.low == pytest.approx(float(expected.low), abs=1e-9)
    assert got.high == pytest.approx(float(expected.high), abs=1e-9)
    assert got.value == successes / n


def test_wilson_at_the_ends_of_level() -> None:
    least, most = wilson(3, 10, 5e-324), wilson(3, 10, math.nextafter(1, 0))
    assert least == pytest.approx((0.3, 0.3, 0.3)) and 0 < most.low < 0.1 and 0.9 < most.high < 1


def test_wilson_by_hand() -> None:
    z = 1.959963984540054
    # 5 of 10: centred on 1/2, half width z sqrt(1/40 + z^2/400) / (1 + z^2/10).
    half = z * math.sqrt(1 / 40 + z * z / 400) / (1 + z * z / 10)
    assert wilson(5, 10) == pytest.approx((0.5 - half, 0.5, 0.5 + half), abs=1e-12)


@given(st.integers(1, 2000), st.data())
def test_wilson_is_an_interval_and_symmetric(n: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, n))
    got, mirror = wilson(successes, n), wilson(n - successes, n)
    assert 0 <= got.low <= got.value <= got.high <= 1
    assert got.low == pytest.approx(1 - mirror.high, abs=1e-12)


@pytest.mark.parametrize(("n", "rows"), [(3, 500), (60, 2000)])
def test_bootstrap_equals_scipy(n: int, rows: int) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(5).normal(size=n)
    expected = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=rows, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    got = bootstrap_mean(list(values), resamples=rows, seed=3)
    assert got == pytest.approx((float(expected.low), float(values.mean()), float(expected.high)), abs=1e-9)


def test_bootstrap_equals_all_resamples() -> None:
    values = [0.0, 0.0, 1.0, 3.0]
    means = [sum(sample) / 4 for sample in itertools.product(values, repeat=4)]
    exact = np.percentile(means, [10, 90])
    got = bootstrap_mean(values, resamples=40_000, level=0.8)
    assert (got.low, got.high) == pytest.approx(tuple(exact), abs=0.001)  # the means are 1/4 apart


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [float(i % 7) for i in range(50)]
    counts = (3, 333)  # of three, a fourth mean would be seen in the limits
    whole = [bootstrap_mean(values, resamples=count) for count in counts]
    monkeypatch.setattr("flyweight.stats.intervals.CHUNK", 120)  # two rows at a time, and one left over
    assert [bootstrap_mean(values, resamples=count) for count in counts] == whole


def test_paired_bootstrap_is_the_bootstrap_of_differences() -> None:
    a, b = [1.0, 1, 0, 1, 1, 0, 1, 1], [0.0, 1, 0, 0, 1, 0, 1, 1]
    got = paired_bootstrap(a, b, resamples=2000, seed=4)
    assert got == bootstrap_mean([1, 0, 0, 1, 0, 0, 0, 0], resamples=2000, seed=4)
    assert got.value == 0.25 and got.low == 0.0
    swapped = paired_bootstrap(b, a, resamples=2000, seed=4)
    assert swapped == pytest.approx((-got.high, -0.25, -got.low))
    assert paired_bootstrap(a, a) == Interval(0, 0, 0)
    assert paired_bootstrap(a, b, seed=1) == paired_bootstrap(a, b, seed=1)


def test_coverage_of_the_intervals() -> None:
    """1,000 simulated benchmarks of 60 problems: 95 % intervals hold the truth 95 +- 2 % of the time."""
    rng = np.random.default_rng(0)
    # Per problem: chance of a success under a and b, correlated as hard problems are.
    hardness = rng.beta(1, 1, size=(1000, 60))
    gain = 0.1 * hardness * (1 - hardness) * 4
    a = rng.random((1000, 60)) < hardness + gain
    b = rng.random((1000, 60)) < hardness
    truth = 0.1 * 4 / 6  # E[4 h (1 - h)] = 4/6 for a uniform h
    paired = sum(
        got.low <= truth <= got.high
        for x, y in zip(a.astype(float), b.astype(float), strict=True)
        for got in [paired_bootstrap(list(x), list(y), resamples=400)]
    )
    assert 930 <= paired <= 970
    shares = sum(got.low <= 0.5 <= got.high for x in b for got in [wilson(int(x.sum()), 60)])
    assert 930 <= shares <= 970


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_equals_every_subset(n: int) -> None:
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([i < c for i in range(n)], k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_stays_exact_for_large_pools() -> None:
    assert pass_at_k(10_000, 1, 5_000) == 0.5
    assert pass_at_k(256, 256, 1) == 1.0 and pass_at_k(256, 0, 256) == 0.0
    assert pass_at_k(200, 3, 1) == pytest.approx(3 / 200, abs=1e-15)


def test_mistakes_give_one_line() -> None:
    mistakes: list[Callable[[], object]] = [
        lambda: wilson(3, 2),
        lambda: wilson(-1, 2),
        lambda: wilson(0, 0),
        lambda: wilson(1, 2, 1.0),
        lambda: wilson(1, 2, math.nan),
        lambda: bootstrap_mean([]),
        lambda: bootstrap_mean([1.0, math.nan]),
        lambda: bootstrap_mean([1.0], resamples=0),
        lambda: bootstrap_mean([1.0], level=95),
        lambda: paired_bootstrap([1.0], [1.0, 2.0]),
        lambda: pass_at_k(4, 5, 1),
        lambda: pass_at_k(4, 2, 5),
        lambda: pass_at_k(4, 2, 0),
    ]
    for mistake in mistakes:
        with pytest.raises(ConfigError) as caught:
            mistake()
        assert "\n" not in str(caught.value)
