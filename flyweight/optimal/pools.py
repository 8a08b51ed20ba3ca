"""What was recorded of a question, and what any strategy would have made of it at any budget.

Independent samples may come in any order, so one pool stands for every smaller one and for those that stop early. A
play is one order of a question's samples; what a strategy would choose and spend is read off it, as the strategies and
their stop rules (`strategies.compose`) do it, the token budget included. Tree searches are taken as they were recorded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from flyweight import strategies
from flyweight.bench.graded import GradedSearch, Recorded, truncated
from flyweight.bench.graded import read as searches
from flyweight.errors import ConfigError
from flyweight.optimal.difficulty import Draw, features
from flyweight.protocols import Answers
from flyweight.select import aggregate, lead
from flyweight.store import RunInfo, Store
from flyweight.strategies import compose

__all__ = ["SAMPLING", "Outcome", "Play", "Question", "Sample", "Searched", "plays", "questions", "word"]

SAMPLING = ("self_consistency", "best_of_n", "weighted_best_of_n")
"""Strategies that choose among independent samples: any of them stands for all."""
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
    """A recorded tree search."""

    leaves: tuple[Sample, ...]
    """What stood for election."""
    right: bool
    tokens: int
    """Generated, and computed by the verifier."""


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
    searches: Mapping[str, Searched] = field(default_factory=dict)
    """By strategy, as one word."""
    verifying: Mapping[str, float] = field(default_factory=dict)
    """Tokens a verifier computes per sample."""

    def passed(self, temperature: float) -> float:
        """Share of the samples that are right: oracle difficulty."""
        pool = self.pools[temperature]
        return sum(sample.right for sample in pool) / len(pool)


class _Best(NamedTuple):
    """Leader of a vote or of a ranking so far."""

    right: bool
    value: float
    """Its score, or how it leads."""


class Play:
    """One order of a question's samples, from which every strategy over them is read off."""

    def __init__(self, question: Question, temperature: float, greedy: bool, seed: int, verifier: str) -> None:
        """With `greedy` the most likely answer first. `verifier` is what the probe is scored by."""
        self.question = question
        self.verifier = verifier
        pool = list(question.pools[temperature])
        random.Random(f"{seed} {question.id}").shuffle(pool)
        self.samples = [*([question.greedy] if greedy and question.greedy is not None else []), *pool]
        self.spent = [0.0]
        """Tokens generated for so many samples."""
        for sample in self.samples:
            self.spent.append(self.spent[-1] + sample.tokens)
        self._chosen: dict[tuple[str, str, int], _Best] = {}

    def features(self, k: int) -> tuple[float, ...]:
        """What the first k samples say of the question's difficulty."""
        seen = [
            Draw(each.group, each.scores.get(self.verifier), each.logprob, each.tokens) for each in self.samples[:k]
        ]
        return features(seen, self.question.prompt)

    def outcome(self, strategy: str, k: int, budget: float) -> Outcome:
        """What a strategy, as one word, comes to after a probe of k samples, within a budget of generated tokens."""
        way = _way(strategy)
        judge = "" if way.rule == "majority" else way.verifier or self.verifier
        if way.rule == "search":
            return self._search(strategy, k, budget)
        size = min(way.n, len(self.samples))
        count = size
        if way.lead or way.enough:
            count = min(FIRST, size)
            while count < size and not self._stops(way, judge, count):
                count = min(size, 2 * count)
        drawn = max(count, min(k, len(self.samples)))
        fits = drawn
        while self.spent[fits] > budget:
            fits -= 1
        count = min(count, fits)
        spent = self.spent[drawn] if fits == drawn else budget
        price = self.question.verifying.get(judge, 0.0) * count
        return Outcome(count > 0 and self._choose(way.rule, judge, count).right, spent + price)

    def _stops(self, way: _Way, judge: str, count: int) -> bool:
        if way.enough:
            best = max((each.scores.get(judge, 0.0) for each in self.samples[:count]), default=0.0)
            return best >= way.enough
        return self._choose("majority", "", count).value >= way.lead

    def _search(self, strategy: str, k: int, budget: float) -> Outcome:
        """A recorded search, whose leaves and the probe's samples vote together; cut short, the probe is left."""
        found = self.question.searches[strategy]
        probe = self.samples[:k]
        # What scores nothing (code_agreement) draws samples, the probe's among them, and chooses in its own way.
        whole = found.tokens + (self.spent[len(probe)] if found.leaves else 0)
        if whole > budget:
            return self.outcome(f"weighted_best_of_n:n={k}", k, budget)._replace(tokens=float(budget))
        if not found.leaves:
            return Outcome(found.right, whole)
        return Outcome(_vote([*probe, *found.leaves], self.verifier).right, whole)

    def _choose(self, rule: str, judge: str, count: int) -> _Best:
        key = rule, judge, count
        if key not in self._chosen:
            samples = self.samples[:count]
            self._chosen[key] = _top(samples, judge) if rule == "best" else _vote(samples, judge)
        return self._chosen[key]


def plays(question: Question, temperature: float, greedy: bool, count: int, verifier: str) -> list[Play]:
    """So many orders of a question's samples, the same every time."""
    return [Play(question, temperature, greedy, seed, verifier) for seed in range(count)]


def questions(store: Store, runs: Sequence[RunInfo], answers: Answers) -> list[Question]:
    """The questions of recorded runs of one task, by id: those that every run has searched.

    Answers are told apart anew, since votes go across runs. ConfigError where the runs hold no pool or have no question
    in common, or were not graded; StoreError as of the store.
    """
    held: list[tuple[RunInfo, dict[str, GradedSearch]]] = []
    for info in runs:
        grades = Recorded(store, info.configuration)
        held.append((info, {each.result.problem.id: each for each in searches(store, info.id, grades)}))
        if grades.missing:
            raise ConfigError(f"run {info.id} is not graded: flyweight bench grade {info.id}")
    common = set.intersection(*(set(found) for _, found in held)) if held else set()
    if not common:
        raise ConfigError("the recorded runs have no question in common")
    return [_question([(info, found[id]) for info, found in held], answers) for id in sorted(common)]


def word(name: str, parameters: Mapping[str, object], verifier: str | None = None) -> str:
    """The strategy as one word that says what is not its default."""
    usual = {parameter.name: parameter.default for parameter in strategies.describe(name).parameters}
    settings = {key: value for key, value in parameters.items() if usual.get(key) != value}
    return compose.spell(name, {**settings, **({"verifier": verifier} if verifier else {})})  # type: ignore[dict-item]


def _question(runs: Sequence[tuple[RunInfo, GradedSearch]], answers: Answers) -> Question:
    problem = runs[0][1].result.problem
    said = {
        each.sample.answer: None
        for _, search in runs
        for each in search.samples
        if each.sample.answer is not None and not truncated(each.sample.node)
    }
    distinct = [answer for answer in said if answer is not None]
    group = {
        distinct[index]: number
        for number, members in enumerate(answers.classes(distinct, problem))
        for index in members
    }
    greedy: Sample | None = None
    pools: dict[float, tuple[Sample, ...]] = {}
    trees: dict[str, Searched] = {}
    verifying: dict[str, float] = {}
    for info, search in runs:
        strategy, parameters = str(info.configuration["strategy"]), info.configuration["parameters"]
        name = compose.spelled(strategy)[0]
        judge = str(info.configuration["verifier"] or "")
        samples = tuple(_samples(search, group, judge, str(parameters.get("aggregation", "last"))))
        if judge and samples:
            verifying[judge] = max(verifying.get(judge, 0.0), search.result.usage.verifier_tokens / len(samples))
        if name == "greedy":
            greedy = next(iter(_merged(() if greedy is None else (greedy,), samples)), None)
        elif name in SAMPLING:
            temperature = float(parameters["temperature"])
            pools[temperature] = _merged(pools.get(temperature, ()), samples)
        else:
            usage = search.result.usage
            leaves = tuple(each for each in samples if each.scores)
            spent = usage.generated_tokens + usage.verifier_tokens
            trees[word(name, parameters)] = Searched(leaves, search.grade.value == "correct", spent)
    if not pools or not all(pools.values()):
        raise ConfigError(f"{problem.id}: no pool of samples was recorded (best_of_n or self_consistency)")
    return Question(problem.id, len(problem.prompt), greedy, pools, trees, verifying)


def _samples(search: GradedSearch, group: Mapping[str, int], judge: str, aggregation: str) -> list[Sample]:
    found = []
    for sample, grade in search.samples:
        node, cut = sample.node, truncated(sample.node)
        score = {} if cut or node.score is None else {judge: aggregate(node.score, aggregation)}
        place = None if cut or sample.answer is None else group.get(sample.answer)
        tokens = node.drawn + node.complete  # the one that ends it too
        found.append(Sample(place, grade.value == "correct", node.mean_logprob, tokens, score))
    return found


def _merged(a: tuple[Sample, ...], b: tuple[Sample, ...]) -> tuple[Sample, ...]:
    """The same draws scored by several verifiers; the larger of two pools where one is part of the other."""
    more = max(a, b, key=len)
    pairs = zip(a, b, strict=False)
    return (*(x._replace(scores={**x.scores, **y.scores}) for x, y in pairs), *more[min(len(a), len(b)) :])


# Strategies, as they are spelled ------------------------------------------------------------------------------------


class _Way(NamedTuple):
    """How a strategy chooses, and when it stops."""

    rule: str
    """majority, best, vote, or search for one that was recorded."""
    verifier: str
    """Empty for the calibration's."""
    n: int
    lead: float
    enough: float


_RULES = {
    "greedy": "best",
    "sample": "best",
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


def _top(samples: Sequence[Sample], judge: str) -> _Best:
    """As `select.top` over what was scored; a single sample needs no score."""
    if len(samples) == 1:
        return _Best(samples[0].right, 0.0)
    scored = [(each.scores[judge], each.logprob, -place) for place, each in enumerate(samples) if judge in each.scores]
    if not scored:
        return _Best(False, 0.0)
    value, _, place = max(scored)
    return _Best(samples[-place].right, value)


def _vote(samples: Sequence[Sample], judge: str) -> _Best:
    """As `select.weighted_vote`, or `select.majority` where `judge` is empty; its value: how far the first leads."""
    groups: dict[int, list[int]] = {}
    for place, each in enumerate(samples):
        if each.group is not None and (not judge or judge in each.scores):
            groups.setdefault(each.group, []).append(place)
    if not groups:
        return _Best(False, 0.0)

    def weight(places: Sequence[int]) -> tuple[float, int, float, int]:
        total = math.fsum(samples[place].scores[judge] for place in places) if judge else float(len(places))
        mean = math.fsum(samples[place].logprob for place in places) / len(places)
        return round(total, 12), len(places), round(mean, 12), -places[0]

    def worth(place: int) -> tuple[float, float, int]:
        return samples[place].scores[judge] if judge else 0.0, samples[place].logprob, -place

    classes = list(groups.values())
    sizes = sorted(map(len, classes), reverse=True)
    sure = _lead(sizes[0], sizes[1] if len(sizes) > 1 else 0) if sum(sizes) > 1 else 0.0
    heaviest = max(classes, key=weight)
    return _Best(samples[max(heaviest, key=worth)].right, sure)


_lead = cache(lead)
