"""Uncertainty of measured numbers: intervals, unbiased estimates at k samples, comparisons, abstention, power; and how
well scores rank (AUC) and mean what they say (Brier score, calibration error).

Pure functions; what each interval means and when to use it is in docs/statistics.md. numpy is imported only by what
resamples or simulates.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from itertools import groupby
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from flyweight.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Calibrated",
    "Interval",
    "McNemar",
    "RiskPoint",
    "auc",
    "auc_within",
    "best_at_k",
    "bootstrap_mean",
    "brier",
    "calibrated",
    "clustered_auc",
    "clustered_mean",
    "ece",
    "holm",
    "maj_at_k",
    "mcnemar",
    "paired_bootstrap",
    "pass_at_k",
    "problems_needed",
    "problems_needed_paired",
    "resampled_at_k",
    "risk_coverage",
    "wilson",
]

_CHUNK = 1 << 20
"""Indices drawn at once by the bootstrap: 8 MB, whatever the number of problems."""


class Interval(NamedTuple):
    """An estimate between its confidence limits."""

    low: float
    value: float
    high: float


class McNemar(NamedTuple):
    """Where two right-or-wrong records over the same problems differ."""

    only_a: int
    """Problems that a alone got right."""
    only_b: int
    p: float
    """Two-sided exact p-value, in [0, 1]: 0 stands for what no float can hold, below 5e-324."""


class Calibrated(NamedTuple):
    """What verdicts drawn with exactly the probabilities that the scores claim would give: mean and 95 % of draws."""

    brier: Interval
    ece: Interval


class RiskPoint(NamedTuple):
    """What answering only above a confidence gives."""

    threshold: float
    """Answers with at least this confidence are given."""
    coverage: float
    """Share of all problems answered, in (0, 1]."""
    risk: float
    """Share of the answered ones that are wrong, in [0, 1]."""


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Share of successes with its Wilson score interval, all in [0, 1].

    For one 0/1 outcome per problem. Source: Wilson 1927, without continuity correction. ConfigError unless
    0 <= successes <= n, n >= 1 and 0 < level < 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ConfigError(f"wilson: {successes} successes of {n}; need 0 <= successes <= n and n >= 1")
    z = _two_sided(level)
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
    half = _two_sided(level) * math.sqrt(len(groups) / (len(groups) - 1) * squares) / count
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
    _at_least_one("bootstrap: resamples", resamples)
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
    _same_length("paired_bootstrap", a, b)
    differences = [x - y for x, y in zip(a, b, strict=True)]
    return bootstrap_mean(differences, resamples=resamples, seed=seed, level=level)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> McNemar:
    """Exact test that a and b are right equally often, from the same problems in the same order.

    Only problems where they differ count. Of the d such, under equality each goes either way with 1/2:
    p = min(1, 2 P(Binomial(d, 1/2) <= min(only_a, only_b))); 1 where they never differ. Source: McNemar 1947, in the
    exact form. ConfigError for lists of different length.
    """
    _same_length("mcnemar", a, b)
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
    _same_length("maj_at_k", answers, correct)
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
    _same_length("best_at_k", scores, correct)
    n = len(scores)
    _pool("best_at_k", n, k)
    if any(math.isnan(score) for score in scores):
        raise ConfigError("best_at_k: a score is NaN")
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
    _at_least_one("resampled_at_k: resamples", resamples)
    rng = random.Random(seed)
    return math.fsum(value(rng.sample(range(n), k)) for _ in range(resamples)) / resamples


def risk_coverage(confidence: Sequence[float | None], correct: Sequence[bool]) -> list[RiskPoint]:
    """The trade between answering and being right, from the most confident answers alone to all of them.

    One point per distinct confidence, falling; None never answers, so coverage may end below 1. Equal confidences
    come together, whatever their order. Source: El-Yaniv and Wiener 2010, On the Foundations of Noise-free Selective
    Classification; Geifman and El-Yaniv 2017 (1705.08500). ConfigError for lists of different length or NaN.
    """
    _same_length("risk_coverage", confidence, correct)
    given = [(c, bool(ok)) for c, ok in zip(confidence, correct, strict=True) if c is not None]
    if any(math.isnan(c) for c, _ in given):
        raise ConfigError("risk_coverage: a confidence is NaN")
    points: list[RiskPoint] = []
    answered = wrong = 0
    for threshold, group in groupby(sorted(given, key=lambda pair: -pair[0]), key=lambda pair: pair[0]):
        marks = [ok for _, ok in group]
        answered += len(marks)
        wrong += len(marks) - sum(marks)
        points.append(RiskPoint(threshold, answered / len(confidence), wrong / answered))
    return points


def auc(scores: Sequence[float], correct: Sequence[bool]) -> float:
    """Probability that a correct sample has a higher score than an incorrect one, ties half: in [0, 1].

    1/2 is chance, whatever the share of correct ones. Source: Hanley and McNeil 1982; counted by mean ranks (Mann and
    Whitney 1947), so exactly. ConfigError for lists of different length, without one of either kind, or for NaN.
    """
    _scored("auc", scores, correct)
    right = sum(map(bool, correct))
    wrong = len(correct) - right
    if not right or not wrong:
        raise ConfigError(f"auc: {right} correct and {wrong} incorrect samples; need at least one of each")
    below = 0
    pairs = 0  # twice the pairs ranked the right way round
    for _, group in groupby(sorted(zip(scores, correct, strict=True), key=_first), key=_first):
        marks = [bool(ok) for _, ok in group]
        hits = sum(marks)
        misses = len(marks) - hits
        pairs += hits * (2 * below + misses)
        below += misses
    return pairs / (2 * right * wrong)


def auc_within(
    scores: Sequence[Sequence[float]],
    correct: Sequence[Sequence[bool]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Mean AUC within a problem over those that have both kinds, with its bootstrap interval over problems.

    One list per problem. What choosing among the samples of a problem lives on: telling easy problems from hard ones
    does not count. ConfigError as `auc` and `bootstrap_mean`, or where no problem has both.
    """
    _same_length("auc_within", scores, correct)
    values = [auc(own, marks) for own, marks in zip(scores, correct, strict=True) if any(marks) and not all(marks)]
    if not values:
        raise ConfigError("auc_within: no problem has both correct and incorrect samples")
    return bootstrap_mean(values, resamples=resamples, seed=seed, level=level)


def clustered_auc(
    scores: Sequence[Sequence[float]],
    correct: Sequence[Sequence[bool]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """AUC over the samples of all problems together, with its percentile bootstrap interval over problems.

    One list per problem; a problem is drawn with all its samples, since these resemble each other. Draws in which all
    samples are of one kind are left out. ConfigError as `auc`, or for resamples < 1.
    """
    import numpy as np

    _same_length("clustered_auc", scores, correct)
    for own, marks in zip(scores, correct, strict=True):
        _same_length("clustered_auc", own, marks)
    value = auc([x for own in scores for x in own], [ok for marks in correct for ok in marks])
    _at_least_one("clustered_auc: resamples", resamples)
    count = len(scores)
    paired = [list(zip(own, marks, strict=True)) for own, marks in zip(scores, correct, strict=True)]
    wrong = np.asarray([x for pairs in paired for x, ok in pairs if not ok], dtype=np.float64)
    home = np.asarray([i for i, pairs in enumerate(paired) for _, ok in pairs if not ok], dtype=np.int64)
    rights, wrongs = np.zeros(count), np.bincount(home, minlength=count)
    won = np.zeros((count, count))  # won[i, j]: correct samples of i above incorrect ones of j, ties half
    for i, pairs in enumerate(paired):
        mine = np.asarray([x for x, ok in pairs if ok], dtype=np.float64)[:, None]
        rights[i] = len(mine)
        won[i] = np.bincount(home, weights=((mine > wrong) + 0.5 * (mine == wrong)).sum(axis=0), minlength=count)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // count)
    found = []
    for done in range(0, resamples, rows):
        times = generator.multinomial(count, np.full(count, 1 / count), min(rows, resamples - done)).astype(np.float64)
        pairs_drawn = (times @ rights) * (times @ wrongs)
        both = pairs_drawn > 0
        found.append((((times @ won) * times).sum(axis=1)[both]) / pairs_drawn[both])
    drawn = np.concatenate(found)
    tail = 50 * (1 - _level(level))
    low, high = np.percentile(drawn, [tail, 100 - tail]) if drawn.size else (value, value)
    return Interval(float(low), value, float(high))


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
    _at_least_one("ece: bins", bins)
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
    _at_least_one("calibrated: bins", bins)
    _at_least_one("calibrated: draws", draws)
    data = np.asarray(scores, dtype=np.float64)
    member = np.minimum((data * bins).astype(np.int64), bins - 1)
    inside = np.zeros((data.size, bins))
    inside[np.arange(data.size), member] = 1
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // data.size)
    briers, eces = [], []
    for done in range(0, draws, rows):
        came_true = generator.random((min(rows, draws - done), data.size)) < data
        gaps = data - came_true
        briers.append((gaps**2).mean(axis=1))
        eces.append(np.abs(gaps @ inside).sum(axis=1) / data.size)
    return Calibrated(*(_spread(np.concatenate(found)) for found in (briers, eces)))


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
    spread = _two_sided(level) * math.sqrt(2 * p * (1 - p)) + _one_sided(power) * math.sqrt(a * (1 - a) + b * (1 - b))
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
    quantiles = max(0.0, _two_sided(level) + _one_sided(power))
    return max(2, math.ceil((quantiles * sd / difference) ** 2))


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


def _first(pair: tuple[float, bool]) -> float:
    return pair[0]


def _spread(values: NDArray[np.float64]) -> Interval:
    """Mean and the middle 95 % of simulated values."""
    import numpy as np

    low, high = np.percentile(values, [2.5, 97.5])
    return Interval(float(low), float(values.mean()), float(high))


def _scored(name: str, scores: Sequence[float], correct: Sequence[bool]) -> None:
    _same_length(name, scores, correct)
    if any(math.isnan(score) for score in scores):
        raise ConfigError(f"{name}: a score is NaN")


def _probable(name: str, scores: Sequence[float], correct: Sequence[bool]) -> None:
    _same_length(name, scores, correct)
    if not scores:
        raise ConfigError(f"{name}: needs at least one score")
    if not all(0 <= score <= 1 for score in scores):  # also for NaN
        raise ConfigError(f"{name}: a score is outside [0, 1]")


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ConfigError(f"level={level!r} is not allowed: a confidence level between 0 and 1, such as 0.95")
    return level


def _two_sided(level: float) -> float:
    """Standard normal quantile that leaves (1 - level) / 2 on each side."""
    return -NormalDist().inv_cdf((1 - _level(level)) / 2)


def _one_sided(power: float) -> float:
    if not 0 < power < 1:
        raise ConfigError(f"power={power!r} is not allowed: a probability between 0 and 1, such as 0.8")
    return NormalDist().inv_cdf(power)


def _same_length(name: str, a: Sequence[object], b: Sequence[object]) -> None:
    if len(a) != len(b):
        raise ConfigError(f"{name}: {len(a)} and {len(b)} values; both must cover the same ones in the same order")


def _pool(name: str, n: int, k: int) -> None:
    if not 1 <= k <= n:
        raise ConfigError(f"{name}: k={k} of n={n} samples; need 1 <= k <= n")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{name}={value}; need at least 1")
