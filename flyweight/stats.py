"""Uncertainty of measured numbers: intervals, and the unbiased estimate of coverage.

Pure functions. numpy is imported only by the bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from flyweight.errors import ConfigError

__all__ = ["Interval", "bootstrap_mean", "paired_bootstrap", "pass_at_k", "wilson"]

_CHUNK = 1 << 20
"""Indices drawn at once by the bootstrap: 8 MB, whatever the number of problems."""


class Interval(NamedTuple):
    """An estimate between its confidence limits."""

    low: float
    value: float
    high: float


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Share of successes with its Wilson score interval, all in [0, 1].

    Source: Wilson 1927, without continuity correction. ConfigError unless 0 <= successes <= n, n >= 1 and
    0 < level < 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ConfigError(f"wilson: {successes} successes of {n}; need 0 <= successes <= n and n >= 1")
    z = NormalDist().inv_cdf(0.5 + _level(level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the limit is exactly 0 or 1; rounding must not put the estimate outside its interval.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(low, share, high)


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
    if resamples < 1:
        raise ConfigError(f"bootstrap: resamples={resamples}; need at least 1")
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // data.size)
    means = np.concatenate(
        [
            data[generator.integers(0, data.size, (min(rows, resamples - done), data.size))].mean(axis=1)
            for done in range(0, resamples, rows)
        ]
    )
    tail = 50 * (1 - _level(level))
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(float(low), float(data.mean()), float(high))


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean of a - b over the same problems in the same order, with its percentile bootstrap interval.

    Far narrower than comparing two separate intervals, because what makes a problem hard cancels. An interval that
    holds 0 does not separate a from b. ConfigError as `bootstrap_mean`, or for lists of different length.
    """
    if len(a) != len(b):
        raise ConfigError(f"paired_bootstrap: {len(a)} and {len(b)} values; both must cover the same problems")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return bootstrap_mean(differences, resamples=resamples, seed=seed, level=level)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k samples is correct, estimated from n samples of which c are: in [0, 1].

    1 - C(n - c, k) / C(n, k): the exact mean over all subsets of k, hence unbiased. Source: Chen et al. 2021
    (2107.03374), equation 1. ConfigError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ConfigError(f"pass_at_k: n={n}, c={c}, k={k}; need 0 <= c <= n and 1 <= k <= n")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ConfigError(f"level={level!r} is not allowed: a confidence level between 0 and 1, such as 0.95")
    return level
