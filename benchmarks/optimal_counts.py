"""What benchmarks.optimal counts: tokens to an accuracy, ratios of them, the oracle choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flyweight.optimal.calibration import Row
from flyweight.optimal.fit import Drawing
from flyweight.optimal.pools import Play, Question, plays

__all__ = ["Curve", "Ratio", "Reached", "automatic", "fixed", "growing", "oracle", "ordered", "ratio", "reached"]

RESAMPLES = 4000
RULES: Mapping[str, str] = {
    "majority": "self_consistency:n={n}",
    "best of n": "best_of_n:n={n}",
    "weighted best of n": "weighted_best_of_n:n={n}",
}
"""What `auto` is compared with, as words."""

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """A way of answering at several costs, the cheapest first."""

    name: str
    labels: tuple[str, ...]
    """Of every cost."""
    right: Floats
    """Share right over orders, [costs, questions]"""
    tokens: Floats
    """Per question, [costs, questions]"""


class Reached(NamedTuple):
    """Where a curve first reaches an accuracy."""

    place: int
    tokens: float


class Ratio(NamedTuple):
    """How many times the tokens of one curve another one needs for the same accuracy."""

    low: float
    value: float
    high: float
    both: float
    """Share of the resamples in which both reach it: only these count in the interval."""


def growing(questions: Sequence[Question], temperature: float, orders: int, verifier: str) -> list[Curve]:
    """Every rule of choosing at every n, without a budget."""
    played = [plays(each, temperature, False, orders, verifier) for each in questions]
    most = min(len(play.samples) for each in played for play in each)
    return [
        _curve(name, [(f"n={n}", rule.format(n=n)) for n in range(1, most + 1)], played) for name, rule in RULES.items()
    ]


def automatic(rows: Sequence[Row], questions: Sequence[Question], orders: int, verifier: str) -> Curve:
    """`auto` at every budget that was fitted."""
    right, tokens = [], []
    for row in rows:
        found = [[_auto(row, play) for play in ordered(row, each, orders, verifier)] for each in questions]
        values = np.array(found, dtype=float)
        right.append(values[..., 0].mean(axis=1))
        tokens.append(values[..., 1].mean(axis=1))
    order = np.argsort([each.mean() for each in tokens], kind="stable")
    labels = tuple(f"{rows[i].budget:,}" for i in order)
    return Curve("auto", labels, np.array(right)[order], np.array(tokens)[order])


def oracle(row: Row, words: Sequence[str], questions: Sequence[Question], orders: int, verifier: str) -> Floats:
    """Share right of the choice that is best for each question, which takes its answer to know, [questions]"""
    best = []
    for each in questions:
        played = ordered(row, each, orders, verifier)
        shares = [sum(play.outcome(word, row.estimator.k, row.budget).right for play in played) for word in words]
        best.append(max(shares) / orders)
    return np.array(best)


def fixed(row: Row, word: str, questions: Sequence[Question], orders: int, verifier: str) -> tuple[Floats, Floats]:
    """Share right and tokens of one strategy at the row's budget, without a probe, [questions]"""
    found = np.array(
        [[play.outcome(word, 0, row.budget) for play in ordered(row, each, orders, verifier)] for each in questions],
        dtype=float,
    )
    return found[..., 0].mean(axis=1), found[..., 1].mean(axis=1)


def reached(curve: Curve, target: float, questions: Sequence[int] | None = None) -> Reached | None:
    """The cheapest point of a curve that is right on this share of the questions, or of those named; None if none."""
    chosen = np.arange(curve.right.shape[1]) if questions is None else np.array(questions)
    good = np.flatnonzero(curve.right[:, chosen].mean(axis=1) >= target - 1e-12)
    if not len(good):
        return None
    return Reached(int(good[0]), float(curve.tokens[good[0], chosen].mean()))


def ratio(curve: Curve, auto: Curve, target: float, seed: int = 0) -> Ratio | None:
    """Tokens of the curve over those of auto; None where one of them does not reach the accuracy.

    The interval is a bootstrap over questions in which both look for their cheapest point anew.
    """
    mine, theirs = reached(curve, target), reached(auto, target)
    if mine is None or theirs is None:
        return None
    rng = np.random.default_rng(seed)
    count = curve.right.shape[1]
    found = []
    for _ in range(RESAMPLES):
        drawn = [int(place) for place in rng.integers(0, count, size=(count,))]
        a, b = reached(curve, target, drawn), reached(auto, target, drawn)
        if a is not None and b is not None:
            found.append(a.tokens / b.tokens)
    low, high = np.percentile(found, [2.5, 97.5]) if found else (math.nan, math.nan)
    return Ratio(float(low), mine.tokens / theirs.tokens, float(high), len(found) / RESAMPLES)


def _auto(row: Row, play: Play) -> tuple[bool, float]:
    passed = row.estimator(play.features(row.estimator.k))
    return play.outcome(row.cell(passed).strategy, row.estimator.k, row.budget)


def ordered(row: Row, question: Question, orders: int, verifier: str) -> list[Play]:
    """So many orders of a question's samples, drawn as the row has it."""
    drawing = Drawing(row.greedy, row.temperature)
    return plays(question, drawing.temperature, drawing.greedy, orders, verifier)


def _curve(name: str, points: Sequence[tuple[str, str]], played: Sequence[Sequence[Play]]) -> Curve:
    values = np.array(
        [[[play.outcome(word, 0, math.inf) for play in each] for each in played] for _, word in points], dtype=float
    )
    return Curve(name, tuple(label for label, _ in points), values[..., 0].mean(axis=2), values[..., 1].mean(axis=2))
