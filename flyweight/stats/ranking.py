"""How well scores rank: correct samples above incorrect ones, sure answers above unsure ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from flyweight.errors import ConfigError
from flyweight.stats.checks import at_least_one, known, same_length
from flyweight.stats.intervals import Interval, bootstrap_mean, chunks, percentiles

__all__ = ["RiskPoint", "auc", "auc_within", "clustered_auc", "risk_coverage"]


class RiskPoint(NamedTuple):
    """What answering only above a confidence gives."""

    threshold: float
    """Answers with at least this confidence are given."""
    coverage: float
    """Share of all problems answered, in (0, 1]."""
    risk: float
    """Share of the answered ones that are wrong, in [0, 1]."""


def risk_coverage(confidence: Sequence[float | None], correct: Sequence[bool]) -> list[RiskPoint]:
    """The trade between answering and being right, from the most confident answers alone to all of them.

    One point per distinct confidence, falling; None never answers, so coverage may end below 1. Equal confidences
    come together, whatever their order. Source: El-Yaniv and Wiener 2010, On the Foundations of Noise-free Selective
    Classification; Geifman and El-Yaniv 2017 (1705.08500). ConfigError for lists of different length or NaN.
    """
    same_length("risk_coverage", confidence, correct)
    given = [(c, bool(ok)) for c, ok in zip(confidence, correct, strict=True) if c is not None]
    known("risk_coverage", "a confidence", [c for c, _ in given])
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
    same_length("auc", scores, correct)
    known("auc", "a score", scores)
    right = sum(map(bool, correct))
    wrong = len(correct) - right
    if not right or not wrong:
        raise ConfigError(f"auc: {right} correct and {wrong} incorrect samples; need at least one of each")
    below = 0
    pairs = 0  # twice the pairs ranked the right way round
    for _, group in groupby(sorted(zip(scores, correct, strict=True), key=itemgetter(0)), key=itemgetter(0)):
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
    same_length("auc_within", scores, correct)
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

    same_length("clustered_auc", scores, correct)
    for own, marks in zip(scores, correct, strict=True):
        same_length("clustered_auc", own, marks)
    value = auc([x for own in scores for x in own], [ok for marks in correct for ok in marks])
    at_least_one("clustered_auc: resamples", resamples)
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
    found = []
    for draws in chunks(resamples, count):
        times = generator.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)
        pairs_drawn = (times @ rights) * (times @ wrongs)
        both = pairs_drawn > 0
        found.append((((times @ won) * times).sum(axis=1)[both]) / pairs_drawn[both])
    return percentiles(value, np.concatenate(found), level)
