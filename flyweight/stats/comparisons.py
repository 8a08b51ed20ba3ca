"""Two records over the same problems: by how much they differ, and whether that is chance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flyweight.errors import ConfigError
from flyweight.stats.checks import same_length
from flyweight.stats.intervals import Interval, bootstrap_mean

__all__ = ["McNemar", "holm", "mcnemar", "paired_bootstrap"]


class McNemar(NamedTuple):
    """Where two right-or-wrong records over the same problems differ."""

    only_a: int
    """Problems that a alone got right."""
    only_b: int
    p: float
    """Two-sided exact p-value, in [0, 1]: 0 stands for what no float can hold, below 5e-324."""


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Mean of a - b over the same problems in the same order, with its percentile bootstrap interval.

    Far narrower than comparing two separate intervals, because what makes a problem hard cancels. An interval that
    holds 0 does not separate a from b. ConfigError as `bootstrap_mean`, or for lists of different length.
    """
    same_length("paired_bootstrap", a, b)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return bootstrap_mean(differences, resamples=resamples, seed=seed, level=level)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """Exact test that a and b are right equally often, from the same problems in the same order.

    Only problems where they differ count. Of the d such, under equality each goes either way with 1/2:
    p = min(1, 2 P(Binomial(d, 1/2) <= min(only_a, only_b))); 1 where they never differ. Source: McNemar 1947, in the
    exact form. ConfigError for lists of different length.
    """
    same_length("mcnemar", a, b)
    only_a = sum(bool(x) and not y for x, y in zip(a, b, strict=True))
    only_b = sum(bool(y) and not x for x, y in zip(a, b, strict=True))
    d, fewer = only_a + only_b, min(only_a, only_b)
    tail = ways = 1
    for i in range(fewer):  # C(d, i + 1) from C(d, i): each anew would take seconds for thousands of problems
        ways = ways * (d - i) // (i + 1)
        tail += ways
    return McNemar(only_a, only_b, min(1.0, 2 * tail / 2**d))


def holm(ps: Sequence[float]) -> list[float]:
    """p-values adjusted for having made all of these comparisons, in the same order, each at most 1.

    The i-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= i. Calling those up to 0.05 different
    makes any false claim at all with probability 5 % at most, however the tests depend on each other. Source: Holm
    1979. ConfigError for a value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in ps):
        raise ConfigError(f"holm: {list(ps)}; p-values lie in [0, 1]")
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for done, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - done) * ps[index]))
        adjusted[index] = highest
    return adjusted
