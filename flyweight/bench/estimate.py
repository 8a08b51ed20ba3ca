"""What a run would take, without taking it: nothing is drawn, loaded or written."""

from __future__ import annotations

from typing import NamedTuple

from flyweight.bench.engine import drawn_from, recorded, run_of
from flyweight.bench.plan import Job
from flyweight.protocols import Counters, Request, Response
from flyweight.runner import Runner
from flyweight.store import Store
from flyweight.testing import BoxedAnswers, RuleVerifier
from flyweight.types import Finish, Problem, Sampling, Stopped

__all__ = ["Estimate", "Speed", "estimate", "measured"]

TOKENS = 200.0
"""Per sample, where nothing was measured: a grade-school maths solution; other tasks differ by a factor of three."""
PER_SECOND = 100.0
"""Tokens, where nothing was measured: a 0.5B model on two cores."""


class Speed(NamedTuple):
    """What earlier runs took."""

    tokens: float
    """Per draw of a whole answer."""
    per_second: float
    basis: str
    """Where the two come from, for people."""


class Estimate(NamedTuple):
    """What is left of a run."""

    problems: int
    on_record: int
    """Of them, searches that need nothing more."""
    draws: int
    """The strategy's draws for the others: at least so many where `exact` is false."""
    stored: int
    """Of those, draws that the store has already."""
    exact: bool
    """Whether `draws` and `stored` are what the run will ask for, to the last one."""
    tokens: float
    """Expected of the draws that are missing; for a strategy that may stop early, at most."""
    seconds: float
    """Of these tokens: what verifiers read is left out."""
    reread: int
    """Of the stored draws, those that a verifier may have read again: it goes by hidden states, which no store has."""


def estimate(store: Store | None, job: Job) -> Estimate:
    """What the run of a job would still take; `store` may be read-only, or None where there is none yet."""
    ended: set[str] = set()
    info = None if store is None else run_of(store, job.configuration)
    if store is not None and info is not None:
        ended = {r.problem.id for r in store.results(info.id) if r.stopped is not Stopped.INTERRUPTED}
    missing = [problem for problem in job.problems if problem.id not in ended]
    # A token budget may refuse some of a problem's draws, a confidence or a deadline too.
    fixed = job.shape.fixed and not job.configuration["budget"]
    draws = (job.shape.fewest if fixed or job.shape.steps else job.shape.most) * len(missing)
    absent = _absent(store, job, missing) if fixed and store is not None and missing else draws
    speed = measured(store, job)
    # A tree search of n paths writes about as much as n samples: whatever does not survive was short.
    tokens = absent * speed.tokens
    if job.plan.budget.tokens is not None:
        tokens = min(tokens, float(job.plan.budget.tokens * len(missing)))
    stored, seconds = draws - absent, tokens / speed.per_second
    judges = [job.verifier, *(judge for judge, _ in job.others.values())]
    reread = stored if any(getattr(judge, "reads_states", False) for judge in judges) else 0
    return Estimate(len(job.problems), len(ended), draws, stored, fixed or not missing, tokens, seconds, reread)


def measured(store: Store | None, job: Job) -> Speed:
    """Tokens per sample and per second of earlier runs of this model, on this task if there are any."""
    identity = None if store is None else recorded(store, job.configuration)
    runs = [] if store is None or identity is None else [r for r in store.runs() if identity in r.models.values()]
    same = [run for run in runs if run.configuration.get("task") == job.plan.task]
    for some, of in ((same, f"{job.plan.model} on {job.plan.task}"), (runs, f"{job.plan.model} on other tasks")):
        # Where nothing was drawn, the seconds went into reading for a verifier.
        facts = [said for run in some for said in run.versions if float(said.get("generated_tokens", 0))]
        samples = sum(float(versions.get("samples", 0)) for versions in facts)
        seconds = sum(float(versions["seconds"]) for versions in facts)
        if samples and seconds:
            sampled = sum(float(versions["generated_tokens"]) for versions in facts if "samples" in versions)
            generated = sum(float(versions["generated_tokens"]) for versions in facts)
            return Speed(sampled / samples, generated / seconds, f"measured: earlier runs of {of}")
    return Speed(TOKENS, PER_SECOND, f"assumed: {TOKENS:g} tokens a sample, {PER_SECOND:g} a second; nothing measured")


def _absent(store: Store, job: Job, missing: list[Problem]) -> int:
    """Draws the store lacks, counted by replaying what it has up to the first draw of each problem that is missing.

    For strategies that ask for all draws of a problem at once.
    """
    identity = recorded(store, job.configuration)
    if identity is None:
        return job.shape.fewest * len(missing)
    policy = store.deferred(drawn_from(identity, job.plan.context), _Nobody)
    runner = Runner(
        policy,
        {"any": RuleVerifier(lambda question, solution: 0.5)},
        answers=BoxedAnswers(),
        sampling=Sampling(temperature=job.plan.temperature, max_tokens=job.plan.max_tokens),
        seed=job.plan.seed,
    )
    for _ in runner.run(missing, job.strategy):
        pass
    return policy.fresh.calls


class _Nobody:
    """A policy that draws nothing: whoever asks is told so."""

    name = "nobody"
    params = 0
    boundary: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._asked: list[int] = []

    @property
    def counters(self) -> Counters:
        return Counters()

    def add(self, request: Request) -> None:
        self._asked.append(request.id)

    def step(self) -> list[Response]:
        asked, self._asked = self._asked, []
        return [Response(id, error="not drawn") for id in asked]

    def cancel(self, id: int) -> Response:
        return Response(id, finish=Finish.CUT)

    def close(self) -> None:
        pass
