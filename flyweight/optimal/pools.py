"""What was recorded of a question, and what any strategy would have made of it at any budget.

Independent samples may come in any order, so one pool stands for every smaller one and for those that stop early. A
play is one order of a question's samples; what a strategy would choose and spend is read off it, as the strategies,
their stop rules (`strategies.compose`) and `auto` do it, the token budget included. Other searches are taken as they
were recorded.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from flyweight.optimal.difficulty import Draw, features
from flyweight.optimal.work import Work, played
from flyweight.select import Ballot, vote
from flyweight.strategies import compose

__all__ = [
    "Outcome",
    "Play",
    "Question",
    "Sample",
    "Searched",
    "Verifying",
    "plays",
]

FIRST = compose.FIRST


class Sample(NamedTuple):
    """A recorded candidate."""

    group: int | None
    """Its answer class among all of the question's answers; None when it cannot vote."""
    right: bool
    logprob: float
    tokens: int
    scores: Mapping[str, float] = {}
    """By verifier; none for what was cut short."""


class Searched(NamedTuple):
    """A recorded search that is no choice among samples alone."""

    leaves: tuple[Sample, ...]
    """What stood for election, where it drew step by step; else none."""
    right: bool
    generated: int
    """Tokens."""
    verified: int = 0
    """Tokens computed by the verifier."""
    samples: int = 0
    """Whole answers it began with, drawn as those of the probe are; none where it drew step by step."""
    rounds: tuple[tuple[int, ...], ...] = ()
    """Tokens of every draw, by round."""


class Verifying(NamedTuple):
    """Tokens a verifier computes for the samples of a question."""

    once: float
    """However many there are, such as for tests it writes."""
    each: float

    def tokens(self, samples: int) -> float:
        """For so many samples; none for none."""
        return self.once + self.each * samples if samples else 0.0


class Outcome(NamedTuple):
    """What a strategy would have come to."""

    right: bool
    tokens: float
    """Generated, and computed by the verifier."""


@dataclass(frozen=True)
class Question:
    """A question with all that was recorded of it."""

    id: str
    prompt: int
    """Characters of it."""
    greedy: Sample | None
    pools: Mapping[float, tuple[Sample, ...]]
    """By temperature."""
    searches: Mapping[float, Mapping[str, Searched]] = field(default_factory=dict)
    """By temperature of the samples they go with, then by strategy, as one word."""
    verifying: Mapping[str, Verifying] = field(default_factory=dict)
    """By verifier."""
    in_front: float = 0.0
    """Tokens in front of a sample."""

    def passed(self, temperature: float) -> float:
        """Share of the samples that are right: oracle difficulty."""
        pool = self.pools[temperature]
        return sum(sample.right for sample in pool) / len(pool)


class _Best(NamedTuple):
    """Leader of a vote or of a ranking so far."""

    sample: Sample | None
    """None where nothing can lead."""
    lead: float = 0.0
    """Of a vote: how the class of what it chose leads."""

    @property
    def right(self) -> bool:
        return self.sample is not None and self.sample.right

    @property
    def silent(self) -> bool:
        return self.sample is None or self.sample.group is None


class Play:
    """One order of a question's samples, from which every strategy over them is read off."""

    def __init__(self, question: Question, temperature: float, greedy: bool, seed: int, verifier: str) -> None:
        """With `greedy` the most likely answer first. `verifier` is what the probe is scored by."""
        self.question = question
        self.verifier = verifier
        pool = list(question.pools[temperature])
        random.Random(f"{seed} {question.id}").shuffle(pool)
        first = [question.greedy] if greedy and question.greedy is not None else []
        self.samples = [*first, *pool]
        self.spent = [0.0]
        """Tokens generated for so many samples."""
        for sample in self.samples:
            self.spent.append(self.spent[-1] + sample.tokens)
        self._first = len(first)
        self._searches = question.searches.get(temperature, {})
        self._chosen: dict[tuple[str, str, int], _Best] = {}

    def features(self, k: int) -> tuple[float, ...]:
        """What the first k samples say of the question's difficulty."""
        seen = [
            Draw(each.group, each.scores.get(self.verifier), each.logprob, each.tokens) for each in self.samples[:k]
        ]
        return features(seen, self.question.prompt)

    def outcome(self, strategy: str, k: int, budget: float) -> Outcome:
        """What a strategy, as one word, comes to after a probe of k samples, within a budget of generated tokens.

        With k = 0 it is what the strategy comes to by itself.
        """
        way = _way(strategy)
        if way.rule == "search":
            return self._search(strategy, k, budget)
        judge = way.verifier or self.verifier if way.rule in ("best", "vote") else ""
        count = self._portions(way)[-1]
        probe = min(k, len(self.samples))
        drawn = max(count, probe)
        fits = drawn
        while self.spent[fits] > budget:
            fits -= 1
        count, probe = min(count, fits), min(probe, fits)
        spent = self.spent[drawn] if fits == drawn else budget
        found = self._choose(way.rule, judge, count)
        if k and found.silent:
            found = self._answered(max(probe, count if judge == self.verifier else 0), fits)
        if way.enough and not judge:
            judge = way.verifier or self.verifier
        return Outcome(found.right, spent + self._verifying(probe, judge, count))

    def rounds(self, strategy: str, k: int, budget: float) -> list[list[int]]:
        """Tokens of what `outcome` draws, those side by side in one list: each waits for the one before it."""
        way, probe = _way(strategy), min(k, len(self.samples))
        found = self._searches[strategy] if way.rule == "search" else None
        marks = [0]
        for mark in (min(self._first, probe), probe, *(self._portions(way) if found is None else ())):
            marks += [mark] if mark > marks[-1] else []
        drawn = [[sample.tokens for sample in self.samples[a:b]] for a, b in itertools.pairwise(marks)]
        if found is not None:
            had = max(0, min(found.samples, probe - self._first))  # samples of the probe are the first of its own
            drawn += [list(lengths[0 if number else had :]) for number, lengths in enumerate(found.rounds)]
        return _within(drawn, budget)

    def work(self, strategy: str, k: int, budget: float) -> Work:
        """What that makes an engine do."""
        way, drawn = _way(strategy), self.rounds(strategy, k, budget)
        generated, number = sum(map(sum, drawn)), sum(map(len, drawn))
        steps, behind = played(drawn, self.question.in_front)
        verified = max(0.0, self.outcome(strategy, k, budget).tokens - generated)
        unseen = way.rule in ("first", "majority") and not way.enough
        return Work(self.question.in_front, generated, verified, min(k, number) if unseen else number, behind, steps)

    def _portions(self, way: _Way) -> list[int]:
        """How many samples there are after each portion that a strategy draws."""
        size = min(way.n, len(self.samples))
        if not (way.lead or way.enough):
            return [size]
        counts = [min(FIRST, size)]
        while counts[-1] < size and not self._stops(way, way.verifier or self.verifier, counts[-1]):
            counts.append(min(size, 2 * counts[-1]))
        return counts

    def _stops(self, way: _Way, judge: str, count: int) -> bool:
        if way.enough:
            best = max((each.scores.get(judge, 0.0) for each in self.samples[:count]), default=0.0)
            return best >= way.enough
        return self._choose("majority", "", count).lead >= way.lead

    def _answered(self, scored: int, drawn: int) -> _Best:
        """What stands in for a choice that states no answer, as in `auto`: a vote of what was scored, or of all."""
        found = self._choose("vote", self.verifier, scored)
        return self._choose("majority", "", drawn) if found.silent else found

    def _verifying(self, probe: int, judge: str, count: int) -> float:
        """Tokens that verifiers compute: of the probe every sample is scored, whatever comes after it."""
        asked = {self.verifier: probe}
        if judge:
            asked[judge] = max(asked.get(judge, 0), count)
        known = self.question.verifying
        return math.fsum(known[name].tokens(samples) for name, samples in asked.items() if name in known)

    def _search(self, strategy: str, k: int, budget: float) -> Outcome:
        """A recorded search: where it drew step by step, the probe's samples vote with its leaves, else they are among
        its samples, but for the most likely answer. Cut short, what the probe has found is left.
        """
        found = self._searches[strategy]
        probe = min(k, len(self.samples))
        begun = min(self._first + found.samples, probe)
        shared = self.spent[max(begun, self._first)] - self.spent[self._first] if found.samples else 0.0
        generated = found.generated + self.spent[probe] - shared
        verified = found.verified + self._verifying(probe, "", 0)
        if generated > budget:
            # By itself it would have found something, too, by then: taken for what a sample is worth.
            left = self.outcome(f"weighted_best_of_n:n={max(1, k)}", k, budget)
            return left._replace(tokens=max(left.tokens, budget))
        if not found.leaves or not probe:
            return Outcome(found.right, generated + verified)
        best = _vote([*self.samples[:probe], *found.leaves], self.verifier)
        return Outcome(best.right, generated + verified)

    def _choose(self, rule: str, judge: str, count: int) -> _Best:
        key = rule, judge, count
        if key not in self._chosen:
            self._chosen[key] = _CHOICES[rule](self.samples[:count], judge)
        return self._chosen[key]


def plays(question: Question, temperature: float, greedy: bool, count: int, verifier: str) -> list[Play]:
    """So many orders of a question's samples, the same every time."""
    return [Play(question, temperature, greedy, seed, verifier) for seed in range(count)]


def _within(rounds: Sequence[Sequence[int]], budget: float) -> list[list[int]]:
    """The draws that a budget of tokens allows for, the last of them cut."""
    found = []
    for lengths in rounds:
        kept = []
        for length in lengths:
            kept.append(min(length, int(budget)))
            budget -= kept[-1]
        found.append([length for length in kept if length])
    return [lengths for lengths in found if lengths]


# Strategies, as they are spelled ------------------------------------------------------------------------------------


class _Way(NamedTuple):
    """How a strategy chooses, and when it stops."""

    rule: str
    """first, majority, best, vote, or search for one that was recorded."""
    verifier: str
    """Empty for the calibration's."""
    n: int
    lead: float
    enough: float


_RULES = {
    "greedy": "first",
    "sample": "first",
    "self_consistency": "majority",
    "best_of_n": "best",
    "weighted_best_of_n": "vote",
}


@cache
def _way(strategy: str) -> _Way:
    name, settings = compose.spelled(strategy)
    n = int(settings.get("n", 1 if name in ("greedy", "sample") else 16))
    stops = float(settings.get("lead", 0)), float(settings.get("enough", 0))
    return _Way(_RULES.get(name, "search"), compose.opened(str(settings.get("verifier", ""))), n, *stops)


def _only(samples: Sequence[Sample], judge: str) -> _Best:
    """The first sample, unseen."""
    return _Best(samples[0] if samples else None)


def _top(samples: Sequence[Sample], judge: str) -> _Best:
    """As `select.top` over what was scored."""
    scored = [(each.scores[judge], each.logprob, -place) for place, each in enumerate(samples) if judge in each.scores]
    return _Best(samples[-max(scored)[2]] if scored else None)


def _vote(samples: Sequence[Sample], judge: str) -> _Best:
    """As `select.weighted_vote`, or `select.majority` where `judge` is empty."""
    voters = [each for each in samples if each.group is not None and (not judge or judge in each.scores)]
    if not voters:
        return _Best(None)
    chosen, sure = vote([Ballot(each.group, each.scores[judge] if judge else 0.0, each.logprob) for each in voters])
    return _Best(voters[chosen], sure)


_CHOICES = {"first": _only, "best": _top, "vote": _vote, "majority": _vote}
