"""What is to be run: a task's problems, how each is searched and by which model. Checked before anything is loaded."""

from __future__ import annotations

import functools
import inspect
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from flyweight import api, models, strategies, tasks, verifiers
from flyweight.bench.engine import file_of
from flyweight.bench.graded import graded_by
from flyweight.errors import ConfigError, unknown
from flyweight.optimal.controller import resolve
from flyweight.protocols import Request, Response, Strategy, Task, Verifier
from flyweight.runner import Runner
from flyweight.strategies import Value, compose
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Budget, Problem, Sampling, digest
from flyweight.verifiers.self_verifier import kind_of

__all__ = ["Job", "Plan", "Shape", "check", "filed_as", "grid", "plan_of", "select", "shape"]

TRIAL = "```python\npass\n```"
"""A text every task can grade: what is missing for the first real one, such as a sandbox, is said at once."""


@dataclass(frozen=True)
class Plan:
    """One run: every problem selected from a task, searched in one way. Compared by value."""

    task: str
    strategy: str = "self_consistency"
    parameters: Mapping[str, Value] = field(default_factory=dict)
    """Of the strategy; the others have their defaults."""
    verifier: str | None = None
    """Of strategies that ask one; None is `api.DEFAULT_VERIFIER`, for code the public tests, or confidence where some
    lack them."""
    model: str = api.DEFAULT_MODEL
    split: str | None = None
    data: str | None = None
    """File of problems; None for those that come with the package."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """The task's own; the run is filed under what they came to, where a task says that (`effective_settings`)."""
    limit: str | None = None
    """Which problems: see `select`."""
    by: str | None = None
    ids: tuple[str, ...] | None = None
    shuffle: int | None = None
    temperature: float = Sampling().temperature
    """Of draws for which the strategy names none; strategies with a parameter `temperature` name it."""
    max_tokens: int = 512
    context: int = 2048
    """Longest prompt plus answer, in tokens."""
    budget: Budget = field(default_factory=Budget)
    """Per question."""
    seed: int = 0


@dataclass(frozen=True)
class Job:
    """A plan that was checked, with everything it names."""

    plan: Plan
    task: Task
    problems: Sequence[Problem]
    """Those selected, in the order in which they are searched."""
    strategy: Strategy
    """Bound to its parameters."""
    verifier: Verifier | None
    identity: str
    """Of the verifier: what its scores are filed under; empty for its own settings."""
    others: Mapping[str, tuple[Verifier, str]]
    """Those that searches within the strategy use, by name, with their identities."""
    shape: Shape
    configuration: Mapping[str, Any]
    """What the store files the run under."""

    def ready(self, grade: bool) -> None:
        """Raise now what would be raised when the first search ends: SandboxError where the answers are code."""
        if grade:
            graded_by(self.task, self.problems[0], TRIAL)
        else:
            self.task.classes(["pass"], self.problems[0])

    @property
    def label(self) -> str:
        """Strategy, verifier and n, for people."""
        parameters = self.configuration["parameters"]
        parts = [self.plan.strategy, *([] if self.verifier is None else [str(self.configuration["verifier"])])]
        return " ".join([*parts, *([f"n={parameters['n']}"] if "n" in parameters else [])])


class Shape(NamedTuple):
    """What a strategy asks of the models for one problem, as far as a trial without weights shows."""

    fewest: int
    """Draws when all samples agree."""
    most: int
    """Draws when no two samples agree."""
    verifies: bool
    """Whether it has candidates scored or compared."""
    steps: bool
    """Whether it draws step by step, or always as often but one after the other: what is asked for is then up to what
    was drawn before."""

    @property
    def fixed(self) -> bool:
        """Whether every problem takes the same number of draws, all asked for at once."""
        return not self.steps and self.fewest == self.most


def grid(plan: Plan, names: Sequence[str], judges: Sequence[str] = (), budgets: Sequence[int] = ()) -> list[Plan]:
    """The plan for every strategy, with every verifier if it asks one, and every n of `budgets` if it has one.

    Of the plan's parameters each strategy takes those it has. ConfigError for one that none has.
    """
    known = {parameter.name for name in names for parameter in strategies.describe(name).parameters}
    known |= set(strategies.COMMON)
    for key in [*plan.parameters, *(["n"] if budgets else [])]:
        if key not in known:
            raise unknown(f"parameter of {', '.join(names)}", key, known)
    for judge in judges:
        _judge(judge)
    plans = []
    for name in names:
        own = {parameter.name for parameter in strategies.describe(name).parameters}
        fitting = {key: value for key, value in plan.parameters.items() if key in own or key in strategies.COMMON}
        settings = [{**fitting, "n": n} for n in budgets] if "n" in own and budgets else [fitting]
        for parameters in settings:
            bare = _normal(replace(plan, strategy=name, parameters=parameters))
            asks = bool(judges) and bare.verifier == plan.verifier and shape(bare.strategy, bare.parameters).verifies
            plans += [replace(bare, verifier=judge) for judge in judges] if asks else [bare]
    return plans


def check(plans: Iterable[Plan], *, grade: bool = True) -> list[Job]:
    """The jobs of the plans, in order, each once. No model is loaded, no store opened.

    ConfigError for anything that does not exist or does not fit together; with `grade`, for a problem whose answer is
    not known too.
    """
    loaded: dict[str, Task] = {}
    picked: dict[str, tuple[Sequence[Problem], str]] = {}
    jobs: dict[str, Job] = {}
    for plan in map(_normal, plans):
        source = repr((plan.task, plan.data, plan.split, sorted(plan.settings.items())))
        if source not in loaded:
            data = None if plan.data is None else Path(plan.data)
            loaded[source] = tasks.load(plan.task, data=data, split=plan.split, **plan.settings)
        task = loaded[source]
        choice = repr((source, plan.limit, plan.by, plan.ids, plan.shuffle))
        if choice not in picked:
            problems = select(task.problems(), plan)
            # What a user's file holds may change. Bundled problems do not, and Countdown's prompts say all that is in
            # their meta: digests without it, under which runs are on record, tell those apart.
            picked[choice] = problems, _digest(problems, meta=plan.data is not None and plan.task != "countdown")
            for problem in problems if grade else ():
                if problem.answer is None:
                    graded_by(task, problem, TRIAL)  # says so, if that is what it grades by
        job = _job(plan, task, *picked[choice])
        jobs.setdefault(repr(job.configuration), job)
    return list(jobs.values())


def plan_of(configuration: Mapping[str, Any]) -> Plan:
    """The plan of a run on record. ConfigError for a run that is no benchmark's."""
    plain = ("task", "strategy", "parameters", "verifier", "model", "split", "data", "settings", "context", "seed")
    if lacking := [name for name in (*plain, "select", "sampling", "budget") if name not in configuration]:
        raise ConfigError(f"the run is no benchmark: its configuration lacks {', '.join(lacking)}")
    select, sampling = configuration["select"], configuration["sampling"]
    named = {name: configuration[name] for name in plain}
    ids = None if select["ids"] is None else tuple(select["ids"])
    return Plan(**named, **{**select, "ids": ids}, **sampling, budget=Budget(**configuration["budget"]))


def select(problems: Sequence[Problem], plan: Plan) -> Sequence[Problem]:
    """The problems a plan is about.

    `ids` are exactly those. `limit` is a number (the first 50), a range (the 10th to the 20th: "10-20") or a share
    ("0.1"), in the order of `tasks.pick`, which nobody chose: fewer are always among more. `by` lets the values of a
    name in `meta` take turns. `shuffle` is a seed for another order. ConfigError for what is not there.
    """
    if not problems:
        raise ConfigError(f"the task {plan.task} has no problems")
    known = {problem.id: problem for problem in problems}
    if len(known) < len(problems):
        raise ConfigError(f"the task {plan.task} has two problems of one id")
    if plan.ids is not None:
        if not plan.ids:
            raise ConfigError("--ids names no problem")
        if any(given is not None for given in (plan.limit, plan.by, plan.shuffle)):
            raise ConfigError("--ids says which problems: drop --limit, --by and --shuffle")
        missing = next((id for id in plan.ids if id not in known), None)
        if missing is not None:
            raise _unknown_id(missing, known)
        return [known[id] for id in dict.fromkeys(plan.ids)]
    if plan.limit is None and plan.by is not None:
        raise ConfigError(f"--by {plan.by} says how --limit picks: add --limit")
    if plan.limit is None and plan.shuffle is None:
        return problems
    first, last = (1, len(problems)) if plan.limit is None else _range(plan.limit, len(problems))
    if plan.shuffle is not None:
        # Ids of its own for every seed: `pick` orders by their hash.
        known = {f"{plan.shuffle} {id}": problem for id, problem in known.items()}
    renamed = [replace(problem, id=id) for id, problem in known.items()]
    return [known[problem.id] for problem in tasks.pick(renamed, last, plan.by or "")[first - 1 :]]


def shape(name: str, parameters: Mapping[str, Value]) -> Shape:
    """What a strategy asks for, found out by running it twice on a policy that answers at once."""
    return _shape(name, tuple(sorted(parameters.items())))


@functools.lru_cache
def _shape(name: str, parameters: tuple[tuple[str, Value], ...]) -> Shape:
    calls, verifies, steps = [], False, []
    most_rounds = 0

    def alike(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(f"{TRIAL} \\boxed{{0}}")

    def different(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(f"{TRIAL} \\boxed{{{rng.random()}}}")

    def anybody(name: str) -> Verifier:
        return RuleVerifier(lambda question, solution: 0.5)

    # What was fitted for one model is tried on this one, which is none.
    free = {"any_model": True} if any(each.name == "any_model" for each in strategies.describe(name).parameters) else {}
    for write in (alike, different):
        policy = _Rounds(write, slots=4096, fault=lambda request: steps.append(request.sampling.stop))
        runner = Runner(policy, api.Loading({"any": anybody("any")}, anybody), answers=BoxedAnswers())
        result = runner.solve(Problem("trial", "def one(): ..."), strategies.bind(name, {**dict(parameters), **free}))
        if result.error is not None:
            raise ConfigError(result.error)
        calls.append(result.usage.policy_calls)
        verifies = verifies or result.usage.verifier_calls > 0
        most_rounds = max(most_rounds, policy.rounds)
    in_turn = most_rounds > 1 and min(calls) == max(calls)
    return Shape(min(calls), max(calls), verifies, any(steps) or in_turn)


class _Rounds(ToyPolicy):
    """Counts how often something is asked of it after it has worked on what was asked before."""

    rounds = 0
    _fresh = False

    def add(self, request: Request) -> None:
        self._fresh = True
        super().add(request)

    def step(self) -> list[Response]:
        self.rounds += self._fresh
        self._fresh = False
        return super().step()


def _job(plan: Plan, task: Task, problems: Sequence[Problem], problems_sha256: str) -> Job:
    bound = strategies.bind(plan.strategy, plan.parameters)
    keywords = cast("functools.partial[object]", bound).keywords
    asks = shape(plan.strategy, plan.parameters)
    goes_by = {}
    if compose.spelled(plan.strategy)[0] == "auto":
        sha256, kind = (file_of(plan.model) or "").removeprefix("sha256:"), kind_of(problems[0])
        found = resolve(str(keywords["calibration"]), sha256, kind, any_model=bool(keywords["any_model"]))
        goes_by = {"calibration_sha256": None if found is None else digest(repr(found))}
    for name, value in (("max_tokens", plan.max_tokens), ("context", plan.context)):
        if value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value} is not allowed: a whole number from 1")
    if not 0 <= plan.temperature <= 5:
        raise ConfigError(f"--temperature {plan.temperature:g} is not allowed: a number from 0 to 5")
    name = plan.verifier or _usual(problems)
    judge = _judge(name) if asks.verifies else None
    others = {other: _judge(other) for other in strategies.named(plan.strategy, "verifier")}
    configuration = {
        "task": plan.task,
        "split": plan.split,
        "data": plan.data,
        "problems_sha256": problems_sha256,
        "settings": {**plan.settings, **getattr(task, "effective_settings", {})},
        "select": {
            "limit": plan.limit,
            "by": plan.by,
            "ids": None if plan.ids is None else list(plan.ids),
            "shuffle": plan.shuffle,
        },
        "model": plan.model,
        "strategy": plan.strategy,
        "parameters": {key: value for key, value in keywords.items() if key not in strategies.COMMON},
        "verifier": None if judge is None else name,
        "sampling": {"temperature": plan.temperature, "max_tokens": plan.max_tokens},
        "context": plan.context,
        "budget": {name: value for name, value in asdict(plan.budget).items() if value is not None},
        "seed": plan.seed,
        **goes_by,
    }
    filed = {other: (judge, filed_as(other, judge)) for other, judge in others.items()}
    return Job(plan, task, problems, bound, judge, filed_as(name, judge), filed, asks, configuration)


def _normal(plan: Plan) -> Plan:
    """The plan with everything in its one place: of what a strategy is made, its name holds all but the verifier."""
    name, parameters = strategies.normal(plan.strategy, plan.parameters)
    bare, made_of = compose.spelled(name)
    verifier = made_of.pop("verifier", None)
    if strategies.named(name, "policy"):
        raise ConfigError(f"{name}: a benchmark runs one model, that of --model: drop policy=")
    judge = plan.verifier if verifier is None else compose.opened(str(verifier))
    return replace(plan, strategy=compose.spell(bare, made_of), parameters=parameters, verifier=judge)


def _usual(problems: Sequence[Problem]) -> str:
    """The verifier where none is named: code that has public tests is judged by them."""
    if "public" not in problems[0].meta:
        return api.DEFAULT_VERIFIER
    return "tests" if all(problem.meta.get("public") for problem in problems) else "confidence"


def _judge(name: str) -> Verifier:
    judge = verifiers.load(name)
    if judge.sees_answer:
        raise ConfigError(
            f"the verifier {name} sees the answers, which proves nothing: coverage (pass@n) is in every report"
        )
    return judge


def filed_as(name: str, judge: Verifier | None) -> str:
    """What a verifier's scores are filed under; empty for its own settings.

    Of a name with parts: a Python callable's module and the files named may change, and the scores with them. What runs
    elsewhere says itself which model it is; its address and what it is asked at a time do not matter.
    """
    from flyweight.verifiers.remote import Remote  # late: few runs have one

    if judge is None or ":" not in name or isinstance(judge, Remote):
        return ""
    held = getattr(judge, "function", type(judge))
    files = [Path(part) for part in re.split("[:@=()]", name)]
    try:
        read = [models.digest(file) for file in files if file.is_file()]
        return digest(name, *read, Path(inspect.getfile(held)).read_text("utf-8"))
    except (TypeError, OSError) as error:
        raise ConfigError(f"verifier {name!r}: its source cannot be read, which tells when it changed") from error


def _range(limit: str, count: int) -> tuple[int, int]:
    """First and last place meant, from 1."""
    wrong = ConfigError(f"--limit {limit} is not allowed: a number (50), a range (10-20) or a share (0.1)")
    if re.fullmatch(r"[0-9]*\.[0-9]+", limit):
        share = float(limit)
        if not 0 < share <= 1:
            raise wrong
        return 1, max(1, round(share * count))
    if not re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?", limit):
        raise wrong
    low, dash, high = limit.partition("-")
    first, last = (int(low), int(high)) if dash else (1, int(low))
    if not 1 <= first <= last:
        raise wrong
    if last > count:
        raise ConfigError(f"--limit {limit} is out of range: there are {count} problems")
    return first, last


def _unknown_id(id: str, known: Mapping[str, Problem]) -> ConfigError:
    """The first few ids stand for all: a task may have thousands."""
    close = str(unknown("problem", id, known)).partition(" (one of")[0]
    return ConfigError(f"{close} ({len(known)} problems, such as {', '.join(list(known)[:3])})")


def _digest(problems: Iterable[Problem], *, meta: bool) -> str:
    """What the problems are, whatever their order; with `meta`, also what they hold there."""
    parts: list[object] = []
    for problem in sorted(problems, key=lambda problem: problem.id):
        turns = (part for turn in problem.conversation for part in (turn.role, turn.content))
        parts += [problem.id, problem.prompt, problem.answer, *turns]
        if meta and problem.meta:
            parts.append(json.dumps(dict(problem.meta), sort_keys=True, default=repr))
    return digest(*parts)
