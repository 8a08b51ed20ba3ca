"""A small model many times against a big one once: where they break even, and what equal FLOPs buy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flyweight.optimal.planner import Choice, Options

__all__ = ["BreakEven", "Exchange", "break_even", "exchanges", "times"]

RATIOS = (0.16, 0.79, 22.0)
"""Inference over pretraining tokens, as in Snell et al. 2024, section 7: much less, about as many, many more."""


class BreakEven(NamedTuple):
    """How often a smaller model may be asked before a bigger one's first answer is as good, or as cheap."""

    model: str
    searched: str
    """Strategy and verifier."""
    bigger: str
    accuracy: int | None
    """Smallest n on record that is right as often; None for none."""
    most: int
    """Largest n on record."""
    reached: float
    """How often that is right."""
    flops: float
    """n that takes as many operations; infinite where the largest n on record takes fewer."""
    seconds: float
    """n that takes as long; infinite where the largest n on record is faster."""


class Exchange(NamedTuple):
    """What the bigger model's pretraining would buy the smaller one at inference."""

    small: str
    big: str
    ratio: float
    """R: inference over pretraining tokens; infinite where pretraining is paid already."""
    times: float
    """How many times the bigger model's tokens the smaller one may use."""
    choice: Choice | None
    """The smaller one's best within that; None where nothing on record is."""
    bigger: Choice


def break_even(choices: Sequence[Choice]) -> list[BreakEven]:
    """For every search of a smaller model that is on record with several n, against the bigger one's first answer."""
    found = []
    for small, big in _pairs(choices):
        greedy = _greedy(choices, big)
        families: dict[tuple[str, str | None], list[Choice]] = {}
        for choice in _fastest_form(choices, small):
            if "n" in choice.evidence.parameters:
                families.setdefault((choice.evidence.strategy, choice.evidence.verifier), []).append(choice)
        for (strategy, verifier), members in sorted(families.items(), key=str):
            members.sort(key=lambda choice: choice.evidence.n)
            if len(members) < 2:
                continue
            reached = next((c.evidence.n for c in members if c.accuracy >= greedy.accuracy), None)
            found.append(
                BreakEven(
                    small,
                    strategy + (f" ({verifier})" if verifier else ""),
                    greedy.label,
                    reached,
                    members[-1].evidence.n,
                    members[-1].accuracy,
                    _where(members, lambda choice: choice.flops, greedy.flops),
                    _where(members, lambda choice: choice.seconds, greedy.seconds),
                )
            )
    return sorted(found, key=lambda each: -each.reached)


def _where(members: Sequence[Choice], cost: Callable[[Choice], float], wanted: float) -> float:
    """The n at which a cost is reached, straight between those on record; 1 below, infinite beyond."""
    points = [(float(choice.evidence.n), cost(choice)) for choice in members]
    if wanted <= points[0][1]:
        return max(1.0, points[0][0] * wanted / points[0][1])
    for (n0, c0), (n1, c1) in itertools.pairwise(points):
        if c0 <= wanted <= c1:
            return n0 + (n1 - n0) * (wanted - c0) / (c1 - c0)
    return math.inf


def times(ratio: float, bigger: float, longer: float = 1.0) -> float:
    """How many times the inference tokens of a model `bigger` times as large a small one may use, at equal FLOPs.

    M + 3 (M - 1) / R. Pretraining takes 6 N D operations, inference 2 N D'; a model M times as large multiplies both,
    and R = D' / D is the ratio of inference to pretraining tokens. Source: Snell et al. 2024 (2408.03314), section 7.
    Deviation: the bigger one may have been trained on `longer` times as many tokens, which puts M x longer for the M
    in brackets; 0 where the small one's pretraining took more than everything the bigger one does.
    """
    return max(0.0, bigger + 3 * (bigger * longer - 1) / ratio)


def exchanges(options: Options, choices: Sequence[Choice]) -> list[Exchange]:
    """The FLOPs-matched comparison for every smaller model and the next bigger one.

    R is that of the traffic where it is known (`tokens_per_day` x `days` over the smaller one's pretraining tokens),
    else those of the paper; and infinite: both models are there, only inference is paid.
    """
    found = []
    for small, big in _pairs(choices):
        greedy = _greedy(choices, big)
        mine = _fastest_form(choices, small)
        known = mine[0].known
        ratios: list[float] = list(RATIOS)
        if options.tokens_per_day is not None and known.pretraining_tokens:
            ratios = [options.tokens_per_day * options.days / known.pretraining_tokens]
        larger = greedy.known.parameters / known.parameters
        theirs = greedy.known.pretraining_tokens
        longer = theirs / known.pretraining_tokens if theirs and known.pretraining_tokens else 1.0
        tokens = greedy.flops / (2 * greedy.known.parameters)
        for ratio in (*ratios, math.inf):
            allowed = times(ratio, larger, longer)
            fits = [c for c in mine if c.flops / (2 * known.parameters) <= allowed * tokens]
            best = max(fits, key=lambda choice: (choice.accuracy, -choice.flops), default=None)
            found.append(Exchange(small, big, ratio, allowed, best, greedy))
    return found


def _pairs(choices: Sequence[Choice]) -> list[tuple[str, str]]:
    """Every model with the next larger one that has a first answer on record, by parameters."""
    sizes = {choice.model: choice.known.parameters for choice in choices if choice.known.parameters}
    with_greedy = {choice.model for choice in choices if choice.evidence.strategy == "greedy"}
    found = []
    for small in sorted(sizes, key=lambda name: sizes[name]):
        larger = [name for name in with_greedy if sizes.get(name, 0) > sizes[small]]
        if larger and any(choice.model == small for choice in choices):
            found.append((small, min(larger, key=lambda name: sizes[name])))
    return found


def _greedy(choices: Sequence[Choice], model: str) -> Choice:
    """The first answer of a model, in its fastest form."""
    mine = [choice for choice in choices if choice.model == model and choice.evidence.strategy == "greedy"]
    return min(mine, key=lambda choice: choice.seconds)


def _fastest_form(choices: Sequence[Choice], model: str) -> list[Choice]:
    """Of every search of a model, the form of its weights that is fastest."""
    fastest: dict[str, Choice] = {}
    for choice in choices:
        if choice.model == model:
            other = fastest.setdefault(choice.evidence.label, choice)
            fastest[choice.evidence.label] = min(choice, other, key=lambda each: each.seconds)
    return list(fastest.values())
