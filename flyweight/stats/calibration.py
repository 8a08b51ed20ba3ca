"""How far scores mean what they say: probabilities beside what came true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from flyweight.errors import ConfigError
from flyweight.stats.checks import at_least_one, same_length
from flyweight.stats.intervals import Interval, chunks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Calibrated", "brier", "calibrated", "ece"]


class Calibrated(NamedTuple):
    """What verdicts drawn with exactly the probabilities that the scores claim would give: mean and 95 % of draws."""

    brier: Interval
    ece: Interval


def brier(scores: Sequence[float], correct: Sequence[bool]) -> float:
    """Mean squared distance of probabilities from what came true, in [0, 1]: lower is better.

    Source: Brier 1950. Always saying the share of correct ones p gives p (1 - p). ConfigError for lists of different
    length, without values, or for one outside [0, 1].
    """
    _probable("brier", scores, correct)
    return math.fsum((p - bool(ok)) ** 2 for p, ok in zip(scores, correct, strict=True)) / len(scores)


def ece(scores: Sequence[float], correct: Sequence[bool], bins: int = 5) -> float:
    """Expected calibration error, in [0, 1]: how far, on average, a probability is from the share that came true.

    Over bins of equal width in [0, 1], the last with its upper end: the sum of |sum of scores - correct ones|, divided
    by the number of samples. Few samples make it larger than 0 even for a perfect forecast: see `calibrated`. Source:
    Naeini et al. 2015; Guo et al. 2017 (1706.04599). ConfigError as `brier`, or for bins < 1.
    """
    _probable("ece", scores, correct)
    at_least_one("ece: bins", bins)
    gaps: list[list[float]] = [[] for _ in range(bins)]
    for p, ok in zip(scores, correct, strict=True):
        gaps[min(int(p * bins), bins - 1)].append(p - bool(ok))
    return math.fsum(abs(math.fsum(gap)) for gap in gaps) / len(scores)


def calibrated(scores: Sequence[float], bins: int = 5, *, draws: int = 1000, seed: int = 0) -> Calibrated:
    """The Brier score and calibration error that these scores would have if every one of them were right.

    Each draw makes a sample correct with the probability its score says, independently. A measured `ece` within the
    interval is no sign against the scores. Source: the consistency resampling of Bröcker and Smith 2007. ConfigError
    without scores, for one outside [0, 1], or for bins or draws < 1.
    """
    import numpy as np

    _probable("calibrated", scores, [False] * len(scores))
    at_least_one("calibrated: bins", bins)
    at_least_one("calibrated: draws", draws)
    data = np.asarray(scores, dtype=np.float64)
    member = np.minimum((data * bins).astype(np.int64), bins - 1)
    inside = np.zeros((data.size, bins))
    inside[np.arange(data.size), member] = 1
    generator = np.random.default_rng(seed)
    briers, eces = [], []
    for count in chunks(draws, data.size):
        came_true = generator.random((count, data.size)) < data
        gaps = data - came_true
        briers.append((gaps**2).mean(axis=1))
        eces.append(np.abs(gaps @ inside).sum(axis=1) / data.size)
    return Calibrated(*(_spread(np.concatenate(found)) for found in (briers, eces)))


def _spread(values: NDArray[np.float64]) -> Interval:
    """Mean and the middle 95 % of simulated values."""
    import numpy as np

    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(values.mean()), float(high))


def _probable(name: str, scores: Sequence[float], correct: Sequence[bool]) -> None:
    same_length(name, scores, correct)
    if not scores:
        raise ConfigError(f"{name}: needs at least one score")
    if not all(0 <= score <= 1 for score in scores):  # also for NaN
        raise ConfigError(f"{name}: a score is outside [0, 1]")
