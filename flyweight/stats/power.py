"""How many problems it takes to see a difference."""

from __future__ import annotations

import math
from statistics import NormalDist

from flyweight.errors import ConfigError
from flyweight.stats.intervals import two_sided

__all__ = ["problems_needed", "problems_needed_paired"]


def problems_needed(a: float, b: float, *, power: float = 0.8, level: float = 0.95) -> int:
    """Problems for EACH of two separate sets, to tell true accuracies a and b apart with probability `power`.

    ((z_level sqrt(2 p (1-p)) + z_power sqrt(a(1-a) + b(1-b))) / (a - b))^2 with p = (a + b) / 2, rounded up: the
    two-sided test of two proportions. Source: Fleiss, Levin and Paik 2003, Statistical Methods for Rates and
    Proportions, chapter 4, without continuity correction. A power that chance alone gives needs 1. ConfigError unless
    a and b lie in [0, 1] and differ and 0 < power, level < 1.
    """
    if not (0 <= a <= 1 and 0 <= b <= 1) or a == b:
        raise ConfigError(f"problems_needed: accuracies {a} and {b}; need two different numbers in [0, 1]")
    p = (a + b) / 2
    spread = two_sided(level) * math.sqrt(2 * p * (1 - p)) + _one_sided(power) * math.sqrt(a * (1 - a) + b * (1 - b))
    return max(1, math.ceil((max(0.0, spread) / (a - b)) ** 2))


def problems_needed_paired(difference: float, sd: float, *, power: float = 0.8, level: float = 0.95) -> int:
    """Problems, each solved by both, to see a true mean `difference` per problem with probability `power`.

    ((z_level + z_power) sd / difference)^2, rounded up, at least 2. `sd` is the standard deviation over problems of
    a - b, from a pilot; for one 0/1 outcome each it is sqrt(s - difference^2), s being the share of problems on which
    they disagree. Source: Miller 2024 (2411.00640), section 5. ConfigError for difference 0, sd < 0, or unless
    0 < power, level < 1.
    """
    if difference == 0 or not math.isfinite(difference) or not (0 <= sd < math.inf):
        raise ConfigError(f"problems_needed_paired: difference={difference}, sd={sd}; need a difference and sd >= 0")
    quantiles = max(0.0, two_sided(level) + _one_sided(power))
    return max(2, math.ceil((quantiles * sd / difference) ** 2))


def _one_sided(power: float) -> float:
    if not 0 < power < 1:
        raise ConfigError(f"power={power!r} is not allowed: a probability between 0 and 1, such as 0.8")
    return NormalDist().inv_cdf(power)
