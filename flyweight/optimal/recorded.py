"""Questions with all that was recorded of them, read from a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flyweight import strategies
from flyweight.bench.graded import GradedSearch, Recorded, one, truncated
from flyweight.errors import ConfigError
from flyweight.optimal.pools import Question, Sample, Searched, Verifying
from flyweight.optimal.work import in_front, rounds
from flyweight.protocols import Answers
from flyweight.select import aggregate
from flyweight.store import RunInfo, Store
from flyweight.strategies import SAMPLING, Value, compose

__all__ = ["questions", "verifying", "word"]

Rounds = tuple[tuple[int, ...], ...]
RANKED = ("beam_search", "lookahead_search")
"""Of all that have ended only the n best stand for election."""


def questions(store: Store, runs: Sequence[RunInfo], answers: Answers) -> list[Question]:
    """The questions of recorded runs of one task, by id: those that every run has searched.

    Answers are told apart anew, since votes go across runs. ConfigError where the runs hold no pool or have no question
    in common, or were not graded; StoreError as of the store.
    """
    held: list[tuple[RunInfo, dict[str, tuple[GradedSearch, Rounds]]]] = []
    for info in runs:
        grades = Recorded(store, info.configuration)
        found = {
            each.result.problem.id: (one(each, grades), tuple(map(tuple, rounds(each.tree))))
            for each in store.searches(info.id)
        }
        held.append((info, found))
        if grades.missing:
            raise ConfigError(f"run {info.id} is not graded: flyweight bench grade {info.id}")
    common = set.intersection(*(set(found) for _, found in held)) if held else set()
    if not common:
        raise ConfigError("the recorded runs have no question in common")
    return [_question([(info, *found[id]) for info, found in held], answers) for id in sorted(common)]


def word(name: str, settings: Mapping[str, Value]) -> str:
    """The strategy as one word that says what is not its default."""
    usual = {parameter.name: parameter.default for parameter in strategies.describe(name).parameters}
    return compose.spell(name, {key: value for key, value in settings.items() if usual.get(key) != value})


def verifying(counts: Mapping[int, int]) -> Verifying:
    """What a verifier computes for any number of samples, from its tokens for the fewest and the most on record."""
    few, many = min(counts), max(counts)
    if few == many:
        return Verifying(0.0, counts[many] / many)
    each = min(counts[many] / many, max(0.0, (counts[many] - counts[few]) / (many - few)))
    return Verifying(counts[many] - each * many, each)


def _question(runs: Sequence[tuple[RunInfo, GradedSearch, Rounds]], answers: Answers) -> Question:
    problem = runs[0][1].result.problem
    said = {
        each.sample.answer: None
        for _, search, _ in runs
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
    found: dict[float | None, dict[str, Searched]] = {}
    verified: dict[str, dict[int, int]] = {}
    front = 0.0
    for info, search, drawn_in in runs:
        name, made_of = compose.spelled(str(info.configuration["strategy"]))
        parameters: dict[str, Value] = dict(info.configuration["parameters"])
        judge = str(info.configuration["verifier"] or "")
        samples = tuple(_samples(search, group, judge, str(parameters.get("aggregation", "last"))))
        pool = name in SAMPLING and not made_of
        if (pool or name == "greedy") and judge and samples:
            verified.setdefault(judge, {})[len(samples)] = search.result.usage.verifier_tokens
        if name == "greedy":
            greedy = next(iter(_merged(() if greedy is None else (greedy,), samples)), None)
        elif pool:
            temperature = float(parameters["temperature"])
            pools[temperature] = _merged(pools.get(temperature, ()), samples)
            front = max(front, in_front(search.result.usage))  # too few where a verifier asked other things, too
        else:
            drawn = None if strategies.stepwise(name) else parameters.pop("temperature", None)
            at = None if drawn is None else float(drawn)
            kept = _searched(search, name, parameters, samples)._replace(rounds=drawn_in)
            found.setdefault(at, {})[word(name, {**parameters, **made_of})] = kept
    if not pools or not all(pools.values()):
        raise ConfigError(f"{problem.id}: no pool of samples was recorded (best_of_n or self_consistency)")
    # What draws step by step has a temperature of its own, and goes with every pool.
    beside = {temperature: {**found.get(None, {}), **found.get(temperature, {})} for temperature in pools}
    costs = {judge: verifying(counts) for judge, counts in verified.items()}
    return Question(problem.id, len(problem.prompt), greedy, pools, beside, costs, front)


def _searched(search: GradedSearch, name: str, parameters: Mapping[str, Value], samples: Sequence[Sample]) -> Searched:
    usage, right = search.result.usage, search.grade.value == "correct"
    n = int(parameters.get("n", 1))
    if not strategies.stepwise(name):
        return Searched((), right, usage.generated_tokens, usage.verifier_tokens, n)
    leaves = [each for each in samples if each.scores]
    if name in RANKED:
        leaves.sort(key=lambda leaf: (*leaf.scores.values(), leaf.logprob), reverse=True)
        leaves = leaves[:n]
    return Searched(tuple(leaves), right, usage.generated_tokens, usage.verifier_tokens)


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
