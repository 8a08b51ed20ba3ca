"""How hard a question is for a model: known from many samples, estimated from a few.

Oracle difficulty is pass@1 over a recorded pool: for analysis, since it takes the answers. What can be had at run time
is an estimate of it from the first k samples: how far they agree, what the verifier says of them, how sure the model
was while drawing them, how long they and the question are. A logistic regression turns that into pass@1.

Source: Snell et al. 2024, "Scaling LLM Test-Time Compute Optimally", arXiv 2408.03314, section 3.2 (quintiles;
predicted difficulty from verifier scores); Liu et al. 2025, arXiv 2502.06703, section 4.2 (absolute bands).
Deviations: Snell averages a verifier's scores over 2048 samples; here k <= 8 samples are drawn, which the search then
uses, and agreement and confidence count beside the scores.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from flyweight.errors import ConfigError

__all__ = [
    "BANDS",
    "FEATURES",
    "Draw",
    "Estimator",
    "band",
    "bin_of",
    "features",
    "fit",
    "quantiles",
    "ranked",
    "spearman",
]

BANDS = ("hard", "medium", "easy")
"""Liu's: pass@1 below 0.1, below 0.5, and from there on."""
BAND_EDGES = (0.1, 0.5)
FEATURES = ("agreement", "classes", "silent", "mean_score", "best_score", "confidence", "prompt", "length")
RIDGE = 1.0
"""On standardised weights, against the summed loss of the questions: a few dozen of them bear little more."""


class Draw(NamedTuple):
    """What is seen of one sample."""

    group: int | None
    """Its answer class; None for one that states no answer or was cut short."""
    score: float | None
    """What the verifier said, in [0, 1]; None where it was not asked."""
    logprob: float
    """Mean natural-log probability per token, <= 0."""
    tokens: int
    """Drawn."""


@dataclass(frozen=True)
class Estimator:
    """pass@1 from the first `k` samples of a question, by a logistic regression on standardised features."""

    k: int
    means: tuple[float, ...]
    scales: tuple[float, ...]
    """Standard deviations, 1 for what never varied."""
    weights: tuple[float, ...]
    offset: float

    def __post_init__(self) -> None:
        """ConfigError for what cannot be one."""
        numbers = (*self.means, *self.scales, *self.weights, self.offset)
        lengths = {len(self.means), len(self.scales), len(self.weights)}
        if lengths != {len(FEATURES)} or not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
            raise ConfigError(f"a difficulty model has {len(FEATURES)} finite means, scales and weights")
        if not isinstance(self.k, int) or not 1 <= self.k <= 64 or min(self.scales) <= 0:
            raise ConfigError(f"a difficulty model is of 1 to 64 samples and has scales above 0, not k={self.k!r}")

    def __call__(self, seen: Sequence[float]) -> float:
        """Estimated pass@1, in (0, 1), from `features`."""
        rows = zip(seen, self.means, self.scales, self.weights, strict=True)
        z = self.offset + math.fsum(weight * (value - mean) / scale for value, mean, scale, weight in rows)
        return 1 / (1 + math.exp(-max(-30.0, min(30.0, z))))


def features(draws: Sequence[Draw], prompt: int) -> tuple[float, ...]:
    """`FEATURES` of the first samples of a question whose prompt has so many characters; at least one sample.

    Shares are of all draws: a sample without an answer agrees with nobody. Without scores both are 1/2.
    """
    sizes: dict[int, int] = {}
    for draw in draws:
        if draw.group is not None:
            sizes[draw.group] = sizes.get(draw.group, 0) + 1
    scores = [draw.score for draw in draws if draw.score is not None]
    k = len(draws)
    return (
        max(sizes.values(), default=0) / k,
        len(sizes) / k,
        sum(draw.group is None for draw in draws) / k,
        math.fsum(scores) / len(scores) if scores else 0.5,
        max(scores, default=0.5),
        math.fsum(math.exp(draw.logprob) for draw in draws) / k,
        math.log1p(prompt),
        math.log1p(sum(draw.tokens for draw in draws) / k),
    )


def fit(k: int, rows: Sequence[Sequence[float]], passes: Sequence[float], weights: Sequence[float]) -> Estimator:
    """The estimator of largest likelihood with a ridge: rows of `features`, their pass@1 and how much each counts.

    Newton's method on a convex loss. The same rows in another order give the same estimator up to rounding.
    ConfigError without rows.
    """
    import numpy as np

    if not rows:
        raise ConfigError("a difficulty model is fitted on at least one question")
    x, target, weight = (np.asarray(each, dtype=float) for each in (rows, passes, weights))
    share = weight / weight.sum()
    means = share @ x
    scales = np.sqrt(share @ (x - means) ** 2)
    scales[scales < 1e-9] = 1.0
    z = np.column_stack([np.ones(len(x)), (x - means) / scales])
    ridge = np.diag([1e-6, *[RIDGE] * (z.shape[1] - 1)])
    beta = np.zeros(z.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(z @ beta, -30, 30)))
        gradient = z.T @ (weight * (p - target)) + ridge @ beta
        curvature = (z * (weight * p * (1 - p))[:, None]).T @ z + ridge
        step = np.linalg.solve(curvature, gradient)
        # A step this short cannot leave the region where the quadratic model of the loss holds.
        beta -= step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-9:
            break
    means, scales, beta = (np.round(each, 9) for each in (means, scales, beta))
    return Estimator(k, tuple(means.tolist()), tuple(scales.tolist()), tuple(beta[1:].tolist()), float(beta[0]))


def band(passed: float) -> str:
    """Liu's band of a pass@1: "hard" below 0.1, "medium" below 0.5, else "easy"."""
    return BANDS[bin_of(passed, BAND_EDGES)]


def bin_of(value: float, edges: Sequence[float]) -> int:
    """The bin a value falls into, from 0 for below the first edge; a value on an edge belongs above it."""
    return bisect_right(edges, value)


def quantiles(values: Sequence[float], bins: int) -> tuple[float, ...]:
    """Edges that cut the values into bins of equal count: Snell's quintiles for 5. Ascending, without repeats.

    Values that are all alike cannot be cut; fewer bins come of it. ConfigError without values or for bins below 1.
    """
    if not values or bins < 1:
        raise ConfigError(f"{len(values)} values cannot be cut into {bins} bins")
    ordered = sorted(values)
    places = [ordered[len(ordered) * cut // bins] for cut in range(1, bins)]
    return tuple(sorted({edge for edge in places if edge > ordered[0]}))


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation, in [-1, 1], ties sharing their mean rank; 0 where one side never varies.

    ConfigError for lists of different length.
    """
    if len(a) != len(b):
        raise ConfigError(f"spearman: {len(a)} and {len(b)} values")
    x, y = ranked(a), ranked(b)
    middle = (len(a) + 1) / 2
    both = math.fsum((p - middle) * (q - middle) for p, q in zip(x, y, strict=True))
    spread = math.sqrt(math.fsum((p - middle) ** 2 for p in x) * math.fsum((q - middle) ** 2 for q in y))
    return both / spread if spread else 0.0


def ranked(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1 for the least, equals sharing their mean rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and values[order[end]] == values[order[start]]:
            end += 1
        for place in order[start:end]:
            ranks[place] = (start + end + 1) / 2
        start = end
    return ranks
