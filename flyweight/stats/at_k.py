"""What k samples would give, estimated without bias from one pool of n."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from itertools import groupby

from flyweight.errors import ConfigError
from flyweight.stats.checks import at_least_one, known, same_length

__all__ = ["best_at_k", "maj_at_k", "pass_at_k", "resampled_at_k"]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k samples is correct, estimated from n samples of which c are: in [0, 1].

    1 - C(n - c, k) / C(n, k): the exact mean over all subsets of k, hence unbiased. Source: Chen et al. 2021
    (2107.03374), equation 1. ConfigError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ConfigError(f"pass_at_k: n={n}, c={c}, k={k}; need 0 <= c <= n and 1 <= k <= n")
    subsets = math.comb(n, k)
    return (subsets - math.comb(n - c, k)) / subsets


def maj_at_k(answers: Sequence[Hashable | None], correct: Sequence[bool], k: int) -> float:
    """Probability that a majority vote over k samples is correct, estimated from one pool of n: in [0, 1].

    `answers` names each sample's answer class, None for one that cannot vote; nobody voting is wrong. The exact mean
    over all subsets of k in all orders, hence unbiased: the first drawn of the tied classes wins, which over all
    orders shares a tie equally, and the first drawn member of the winning class is graded, so a class counts by the
    share of its members that are correct. The winner's j votes out of its c, every other class at most j, are
    counted with binomials:
    the sum over j and t of C(c, j) [x^(k-j), t other classes at j] / (t + 1), divided by C(n, k).
    Source: counting of our own; the vote is Wang et al. 2022 (2203.11171). ConfigError for lists of different length
    or unless 1 <= k <= n.
    """
    same_length("maj_at_k", answers, correct)
    n = len(answers)
    _pool("maj_at_k", n, k)
    votes = Counter(answer for answer in answers if answer is not None)
    right = Counter(answer for answer, ok in zip(answers, correct, strict=True) if ok and answer is not None)
    sizes = Counter(votes.values())
    total = Fraction(0)
    for c in {votes[answer] for answer in right}:
        others = sizes - Counter([c])
        ways = sum((_ways_to_win(c, j, others, n - votes.total(), k) for j in range(1, min(c, k) + 1)), Fraction(0))
        total += ways * Fraction(sum(right[answer] for answer in right if votes[answer] == c), c)
    return float(total / math.comb(n, k))


def best_at_k(scores: Sequence[float], correct: Sequence[bool], k: int) -> float:
    """Probability that the highest-scored of k samples is correct, estimated from one pool of n: in [0, 1].

    The exact mean over all subsets of k in all orders, hence unbiased. The g samples sharing a score, with m samples
    above them, hold the best of C(n - m, k) - C(n - m - g, k) of the C(n, k) subsets; the first drawn of them is
    taken, which over all orders gives each the same share. Source: the order statistics behind best-of-n in Cobbe et
    al. 2021 (2110.14168). ConfigError for lists of different length, unless 1 <= k <= n, or for NaN.
    """
    same_length("best_at_k", scores, correct)
    n = len(scores)
    _pool("best_at_k", n, k)
    known("best_at_k", "a score", scores)
    ranked = sorted(zip(scores, correct, strict=True), key=lambda pair: -pair[0])
    total = Fraction(0)
    above = 0
    for _, group in groupby(ranked, key=lambda pair: pair[0]):
        marks = [bool(ok) for _, ok in group]
        ways = math.comb(n - above, k) - math.comb(n - above - len(marks), k)
        total += Fraction(ways * sum(marks), len(marks))
        above += len(marks)
    return float(total / math.comb(n, k))


def resampled_at_k(
    value: Callable[[Sequence[int]], float], n: int, k: int, *, resamples: int = 1000, seed: int = 0
) -> float:
    """Mean of `value` over draws of k of the samples 0 .. n-1, each without replacement and in random order.

    For what has no closed form (weighted votes, adaptive stopping): `value` is given the indices in the order drawn.
    Unbiased; the same for the same seed. With a value in [0, 1] its standard error is at most 1 / (2 sqrt(resamples)),
    0.016 for the default, and over many problems it averages out. ConfigError unless 1 <= k <= n and resamples >= 1.
    """
    _pool("resampled_at_k", n, k)
    at_least_one("resampled_at_k: resamples", resamples)
    rng = random.Random(seed)
    return math.fsum(value(rng.sample(range(n), k)) for _ in range(resamples)) / resamples


def _ways_to_win(c: int, j: int, others: Counter[int], silent: int, k: int) -> Fraction:
    """Subsets of k in which a class of c has j votes and wins; one tied with t others counts 1 / (t + 1).

    `others` counts the other classes by their size, `silent` the samples that cannot vote.
    """
    room = k - j
    free = silent  # samples that may come in any number: non-voters and classes too small to reach j
    ways = {(0, 0): 1}  # (samples drawn from the classes that can reach j, how many of those have j) -> subsets
    for size, classes in others.items():
        if size < j:
            free += size * classes
            continue
        choices = [math.comb(size, i) for i in range(j + 1)]
        for _ in range(classes):
            longer: dict[tuple[int, int], int] = {}
            for (drawn, ties), count in ways.items():
                for i in range(min(j, room - drawn) + 1):
                    state = (drawn + i, ties + (i == j))
                    longer[state] = longer.get(state, 0) + count * choices[i]
            ways = longer
    shared = sum(
        (Fraction(count * math.comb(free, room - drawn), ties + 1) for (drawn, ties), count in ways.items()),
        Fraction(0),
    )
    return math.comb(c, j) * shared


def _pool(name: str, n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ConfigError(f"{name}: k={k} of n={n} samples; need 1 <= k <= n")
