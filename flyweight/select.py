"""Choosing among nodes: pure functions, no models, no state.

Every tie is broken by what the nodes are (mean log-probability, then draw order, then key: branches of a `parallel` and
separate prompts each have a first draw), never by the order they arrive in, so permuting candidates changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from flyweight.errors import ConfigError, unknown
from flyweight.types import Finish, Node, Score

__all__ = [
    "AGGREGATIONS",
    "Ballot",
    "aggregate",
    "alike",
    "confidence",
    "finished",
    "lead",
    "majority",
    "preference",
    "top",
    "vote",
    "voter",
    "weighted_vote",
]

AGGREGATIONS = ("last", "min", "prod", "mean")


def aggregate(score: Score | None, how: str = "last") -> float:
    """One number in [0, 1] from a verifier's step scores; its `value` where it gave none.

    `last` is the best of the four for process reward models (Snell et al. 2024, 2408.03314, section 5.1).
    """
    if how not in AGGREGATIONS:
        raise unknown("aggregation", how, AGGREGATIONS)
    if score is None:
        raise ConfigError("a node without a score cannot be ranked: await search.score(...) first")
    steps = score.steps
    if not steps:
        return score.value
    if how == "last":
        return steps[-1]
    if how == "min":
        return min(steps)
    if how == "prod":
        return math.prod(steps)
    return math.fsum(steps) / len(steps)


def alike(keys: Sequence[str | None]) -> list[list[int]]:
    """Indices of equal keys, the largest class first, then by smallest index; None is in no class."""
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        if key is not None:
            groups.setdefault(key, []).append(index)
    return sorted(groups.values(), key=lambda group: (-len(group), group[0]))


def top(nodes: Sequence[Node], k: int, *, aggregation: str = "last") -> list[Node]:
    """The `k` nodes of highest aggregated score, best first; ties: higher mean log-probability, then first drawn."""
    return sorted(nodes, key=lambda node: _by_score(node, aggregation))[:k]


def finished(nodes: Sequence[Node]) -> list[Node]:
    """Those not cut short by a length limit or an `until`."""
    return [node for node in nodes if node.finish not in (Finish.LENGTH, Finish.CUT)]


def voter(node: Node) -> Node:
    """Who votes for a path: its last node, or where that adds only white space to a step, the step with its score."""
    step = node.parent
    if node.text.strip() or step is None or step.parent is None or len(finished([step, node])) < 2:
        return node
    return voter(step if node.score is None else replace(step, score=node.score))


def majority(groups: Sequence[Sequence[Node]]) -> Node | None:
    """The most confident member of the largest class (Wang et al. 2022, 2203.11171); None without classes.

    Ties between classes: higher mean log-probability over members, then the class with the first draw.
    """
    if not groups:
        return None
    largest = min(groups, key=lambda group: (-len(group), *_by_confidence(group)))
    return min(largest, key=_by_logprob)


def weighted_vote(groups: Sequence[Sequence[Node]], *, aggregation: str = "last") -> Node | None:
    """The best-scored member of the class with the largest sum of scores (Li et al. 2023, 2206.02336); None without.

    With equal scores this is `majority`.
    """
    if not groups:
        return None

    def weight(group: Sequence[Node]) -> float:
        # Rounded, so that equal sums added up in another order stay equal.
        return round(math.fsum(aggregate(node.score, aggregation) for node in group), 12)

    heaviest = min(groups, key=lambda group: (-weight(group), -len(group), *_by_confidence(group)))
    return top(heaviest, 1, aggregation=aggregation)[0]


class Ballot(NamedTuple):
    """What counts of a candidate whose text is not at hand."""

    group: Hashable
    """Its answer class."""
    score: float
    """Equal ones make the vote a majority."""
    logprob: float
    """Mean natural-log probability per token."""


def vote(ballots: Sequence[Ballot]) -> tuple[int, float]:
    """`weighted_vote` and `confidence` of recorded candidates, one or more, in the order drawn.

    The index of the one chosen, and the lead of its class: 0 where there is no other ballot.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, ballot in enumerate(ballots):
        groups.setdefault(ballot.group, []).append(place)

    def weight(places: list[int]) -> tuple[float, int, float]:
        mean = math.fsum(ballots[place].logprob for place in places) / len(places)
        return round(math.fsum(ballots[place].score for place in places), 12), len(places), round(mean, 12)

    heaviest = max(groups.values(), key=weight)  # of equals the first, which was drawn first
    other = max((len(places) for places in groups.values() if places is not heaviest), default=0)
    chosen = max(heaviest, key=lambda place: (ballots[place].score, ballots[place].logprob))
    return chosen, _lead(len(heaviest), other) if len(ballots) > 1 else 0.0


def lead(votes: int, other: int) -> float:
    """Posterior probability that an answer with `votes` is drawn more often than one with `other` votes.

    P(p > 1/2) under Beta(votes + 1, other + 1), exactly, as a binomial tail: the stopping rule of Adaptive-Consistency
    (Aggarwal et al. 2023, 2305.11860, section 3, "Beta" criterion).
    """
    trials = votes + other + 1
    return sum(math.comb(trials, k) for k in range(votes + 1)) / (1 << trials)


_lead = cache(lead)


def preference(a: float, b: float) -> float:
    """Probability that something of score `a` beats something of score `b`: the ratio of their odds (Bradley-Terry).

    1/2 where both scores are 0 or both are 1.
    """
    ahead, behind = a * (1 - b), b * (1 - a)
    return ahead / (ahead + behind) if ahead + behind else 0.5


def confidence(groups: Sequence[Sequence[Node]], chosen: Node) -> float | None:
    """`lead` of the class holding `chosen` over the strongest other one; None with fewer than two voters."""
    if sum(map(len, groups)) < 2:
        return None
    mine = next((len(g) for g in groups if any(node.key == chosen.key for node in g)), None)
    if mine is None:
        return None
    others = [len(g) for g in groups if not any(node.key == chosen.key for node in g)]
    return lead(mine, max(others, default=0))


def _by_score(node: Node, aggregation: str) -> tuple[float, float, tuple[int, ...], str]:
    return (-aggregate(node.score, aggregation), *_by_logprob(node))


def _by_logprob(node: Node) -> tuple[float, tuple[int, ...], str]:
    return (-node.mean_logprob, node.order, node.key)


def _by_confidence(group: Sequence[Node]) -> tuple[float, tuple[int, ...], str]:
    mean = math.fsum(node.mean_logprob for node in group) / len(group)
    # Branches of a `parallel` count their draws separately, so the order alone may tie.
    return (-round(mean, 12), *min((node.order, node.key) for node in group))
