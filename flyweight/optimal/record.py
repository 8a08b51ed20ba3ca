"""Recording what a calibration is fitted on, and fitting it: pools and searches once, in a store, then every choice.

The record is that of `bench`: content-addressed, resumable, shared with any run that draws the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flyweight import api, bench, strategies, tasks
from flyweight.bench import Job, Plan
from flyweight.bench.engine import file_of
from flyweight.errors import ConfigError
from flyweight.optimal import fit
from flyweight.optimal.calibration import Calibration, Source
from flyweight.optimal.recorded import questions
from flyweight.store import Store
from flyweight.strategies import SAMPLING, Value, compose
from flyweight.types import digest
from flyweight.verifiers.self_verifier import kind_of

__all__ = ["SEARCHES", "Wanted", "calibrate", "plans", "shared"]

SEARCHES: Mapping[str, tuple[str, ...]] = {
    "maths": ("beam_search:n=8:width=4", "dvts:n=8:width=4"),
    "code": ("code_agreement:n=8",),
}
"""What is recorded beside samples, by kind of problem."""
GREEDY = "greedy:enough=1"
"""The most likely answer, scored: the stop rule asks the verifier."""
ALLOWED = ("calibration", "development")
"""Splits: a choice that was fitted on the questions it is measured on would only repeat them."""


@dataclass(frozen=True)
class Wanted:
    """What a calibration is to be made of."""

    task: str
    data: str | None = None
    split: str | None = None
    """None for calibration; of one's own questions (jsonl) for all."""
    settings: Mapping[str, object] = field(default_factory=dict)
    model: str = api.DEFAULT_MODEL
    verifiers: tuple[str, ...] = (api.DEFAULT_VERIFIER,)
    """The first scores the probe and holds for the whole; the others are tried too."""
    budgets: tuple[int, ...] = (256, 1000, 4000, 16000)
    """Tokens generated per question."""
    questions: str | None = None
    """Which: a number, a range or a share, as of `bench.Plan.limit`; None for all."""
    n: int = 16
    temperatures: tuple[float, ...] = (0.7,)
    searches: tuple[str, ...] | None = None
    """As words; None for `SEARCHES`. What draws whole answers is recorded at each of the temperatures."""
    max_tokens: int = 512
    context: int = 2048
    seed: int = 0


def plans(wanted: Wanted) -> list[Plan]:
    """The runs that have to be on record. ConfigError for test questions, and for what does not exist."""
    splits: Sequence[str] = getattr(tasks.factory(wanted.task), "splits", ())
    own = wanted.task == "jsonl"
    split = wanted.split or ("calibration" if "calibration" in splits and not own else None)
    if split not in ALLOWED and not (own and split is None):
        known = [name for name in splits if name in ALLOWED]
        way = f"--split {' or '.join(known)}" if known else "--task jsonl with questions of your own"
        raise ConfigError(
            f"{wanted.task} ({split or 'test'}): calibrations are not fitted on test questions: use {way}"
        )
    if not wanted.verifiers:
        raise ConfigError("a calibration needs a verifier")
    if wanted.n < 2:
        raise ConfigError(f"n={wanted.n} is not allowed: a pool has 2 samples or more")
    if any(budget < 1 for budget in wanted.budgets) or not wanted.budgets:
        raise ConfigError(f"budgets {list(wanted.budgets)} are not allowed: tokens from 1")
    if not wanted.temperatures:
        raise ConfigError("no temperatures: name one or more, such as --temperatures 0.4,0.8")
    base = Plan(
        wanted.task,
        strategy=GREEDY,
        verifier=wanted.verifiers[0],
        model=wanted.model,
        split=split,
        data=wanted.data,
        settings=wanted.settings,
        limit=wanted.questions,
        max_tokens=wanted.max_tokens,
        context=wanted.context,
        seed=wanted.seed,
    )
    [job] = bench.check([base])
    kind = kind_of(job.problems[0])
    if len(job.problems) < fit.LEAST:
        raise ConfigError(f"{len(job.problems)} questions: a calibration needs {fit.LEAST}")
    pools = [
        replace(base, strategy="best_of_n", parameters={"n": wanted.n, "temperature": temperature}, verifier=judge)
        for temperature in wanted.temperatures
        for judge in wanted.verifiers
    ]
    beside = [
        replace(base, strategy=name, parameters=parameters)
        for entry in (SEARCHES[kind] if wanted.searches is None else wanted.searches)
        for name, parameters in _searches(entry, wanted.temperatures)
    ]
    greedy = [replace(base, verifier=judge) for judge in wanted.verifiers]
    return [*greedy, *pools, *beside]


def shared(jobs: Sequence[Job]) -> list[int]:
    """For each of the jobs, how many of its draws the jobs before it make, at least: the same samples serve all."""
    drawn: dict[object, int] = {}
    found = []
    for job in jobs:
        name, parameters = compose.spelled(job.plan.strategy)[0], job.configuration["parameters"]
        how = None if strategies.stepwise(name) else parameters.get("temperature", name)
        n = 0 if how is None else int(parameters.get("n", 1))
        found.append(min(n, drawn.get(how, 0)) * len(job.problems))
        drawn[how] = max(n, drawn.get(how, 0))
    return found


def _searches(entry: str, temperatures: Sequence[float]) -> list[tuple[str, dict[str, Value]]]:
    """The runs that record a search, as strategies with their parameters.

    One that draws whole answers begins with the samples of the probe: it is recorded at each of their temperatures.
    ConfigError for one that cannot be played as `auto` would run it.
    """
    name, parameters = strategies.normal(entry)
    bare, made_of = compose.spelled(name)
    strategies.bind(name, parameters)
    if bare == "auto":
        raise ConfigError("--searches auto: it is auto that chooses among them: drop it")
    if bare in ("greedy", "sample", *SAMPLING) and "of" not in made_of:
        raise ConfigError(f"--searches {entry}: {bare} is played from the samples and needs no recording: drop it")
    if wrong := next((key for key in ("of", "policy", "verifier") if key in made_of), None):
        raise ConfigError(f"--searches {entry}: {wrong}= cannot be played from recordings: drop it")
    known = {parameter.name for parameter in strategies.describe(bare).parameters}
    if strategies.stepwise(bare) or "temperature" not in known:
        return [(name, parameters)]
    if "temperature" in parameters:
        raise ConfigError(f"--searches {entry}: whole answers are drawn at --temperatures: drop temperature=")
    return [(name, {**parameters, "temperature": temperature}) for temperature in temperatures]


def calibrate(
    store: Store, wanted: Wanted, runs: Sequence[str], say: Callable[[str], None] = lambda line: None
) -> Calibration:
    """The calibration, from runs of `plans` by id, all of them finished. Takes no model; deterministic."""
    infos = [info for info in store.runs() if info.id in set(runs)]
    [job] = bench.check([plans(wanted)[0]])
    judge = job.verifier
    assert judge is not None, "greedy:enough=1 asks its verifier"
    say("reading what was recorded")
    found = questions(store, infos, job.task)
    say(f"playing {len(found)} questions")
    table = fit.Table(found, wanted.verifiers[0])
    rows = tuple(fit.fit(table, budget, say) for budget in sorted(set(wanted.budgets)))
    drawing = fit.Drawing(rows[-1].greedy, rows[-1].temperature)
    samples = min(len(pool) for each in found for pool in each.pools.values())
    ids = digest(*(each.id for each in found))
    kind = kind_of(job.problems[0])
    return Calibration(
        model=wanted.model,
        sha256=(file_of(wanted.model) or "").removeprefix("sha256:"),
        verifier=wanted.verifiers[0],
        judge=judge.name,
        kind=kind,
        sources=(Source(wanted.task, str(job.plan.split or "all"), len(found), samples, ids),),
        rows=rows,
        # Where public tests end the drawing a map of votes does not hold: `Calibration.confidence_map`.
        confidence=None if kind == "code" else fit.confidence(found, drawing.temperature, wanted.verifiers[0]),
        report={"difficulty": [fit.report(table, drawing, k) for k in fit.PROBES if k < samples]},
    )
