"""One measured number between its confidence limits, and what every resampled interval is made with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from flyweight.errors import ConfigError
from flyweight.stats.checks import at_least_one

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Interval", "bootstrap_mean", "chunks", "clustered_mean", "percentiles", "two_sided", "wilson"]

CHUNK = 1 << 20
"""Random numbers drawn at once: 8 MB, whatever the number of problems."""


class Interval(NamedTuple):
    """An estimate between its confidence limits."""

    low: float
    value: float
    high: float


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Share of successes with its Wilson score interval, all in [0, 1].

    For one 0/1 outcome per problem. Source: Wilson 1927, without continuity correction. ConfigError unless
    0 <= successes <= n, n >= 1 and 0 < level < 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ConfigError(f"wilson: {successes} successes of {n}; need 0 <= successes <= n and n >= 1")
    z = two_sided(level)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the limit is exactly 0 or 1; rounding must not put the estimate outside its interval.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, share, high)


def clustered_mean(groups: Sequence[Sequence[float]], level: float = 0.95) -> Interval:
    """Mean of all values with an interval that lets the values of one group (the samples of a problem) be alike.

    mean +- z SE with SE^2 = G/(G-1) / N^2 x the sum over the G groups of (sum of value - mean)^2, N values in all:
    the cluster-robust error of a mean. With one value per group it is the usual standard error. Normal theory: use
    30 groups or more; it may reach below 0 or above 1. Source: Miller 2024 (2411.00640), section 2.2; the factor
    G/(G-1) is the usual small-sample correction, which the paper leaves out. ConfigError for fewer than two groups,
    an empty one or a value that is not finite.
    """
    count = sum(len(group) for group in groups)
    if len(groups) < 2 or not all(len(group) and all(map(math.isfinite, group)) for group in groups):
        raise ConfigError("clustered_mean: needs at least two groups, each with at least one finite number")
    mean = math.fsum(value for group in groups for value in group) / count
    squares = math.fsum(math.fsum(value - mean for value in group) ** 2 for group in groups)
    half = two_sided(level) * math.sqrt(len(groups) / (len(groups) - 1) * squares) / count
    return Interval(mean - half, mean, mean + half)


def bootstrap_mean(values: Sequence[float], *, resamples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """Mean with its percentile bootstrap interval; the same for the same values, order and seed.

    One value per problem, however many samples stand behind it: problems are the unit that was drawn at random
    (Miller 2024, 2411.00640). Source: Efron 1979. ConfigError without values, with one that is not finite, or for
    resamples < 1.
    """
    import numpy as np

    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not data.size or not np.isfinite(data).all():
        raise ConfigError("bootstrap: needs a list of at least one finite number")
    at_least_one("bootstrap: resamples", resamples)
    generator = np.random.default_rng(seed)
    means = [
        data[generator.integers(0, data.size, (count, data.size))].mean(axis=1)
        for count in chunks(resamples, data.size)
    ]
    return percentiles(float(data.mean()), np.concatenate(means), level)


def percentiles(value: float, draws: NDArray[np.float64], level: float) -> Interval:
    """The value between the percentiles that hold the middle `level` of what it was in each draw.

    Without draws, the value alone.
    """
    import numpy as np

    tail = 50 * (1 - _checked(level))
    low, high = np.percentile(draws, [tail, 100 - tail]) if draws.size else (value, value)
    return Interval(float(low), value, float(high))


def chunks(draws: int, size: int) -> Iterator[int]:
    """How many of the draws, each of `size` numbers, to make at a time so that they fit into memory."""
    rows = max(1, CHUNK // size)
    for done in range(0, draws, rows):
        yield min(rows, draws - done)


def two_sided(level: float) -> float:
    """Standard normal quantile that leaves (1 - level) / 2 on each side."""
    return -NormalDist().inv_cdf((1 - _checked(level)) / 2)


def _checked(level: float) -> float:
    if not 0 < level < 1:
        raise ConfigError(f"level={level!r} is not allowed: a confidence level between 0 and 1, such as 0.95")
    return level
