"""Carrying out plans: search what is missing, grade what comes back, keep count, stop where a limit says so.

Everything is on record the moment it exists, so a run that was stopped by anything goes on when it is asked for again,
and one that is finished needs neither the model nor a call. One problem is in memory at a time for each one in flight.
"""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from importlib import metadata

from flyweight import api
from flyweight.bench.engine import CannotLoad, Engine, Load, recorded, run_of
from flyweight.bench.grading import Grading, Workers
from flyweight.bench.plan import Job, Plan, check, filed_as
from flyweight.bench.tally import Ending, Interruptible, Limits, Progress, Summary, Tally
from flyweight.errors import ConfigError, ModelError
from flyweight.protocols import Policy, Verifier
from flyweight.runner import Runner
from flyweight.store import Fresh, Run, RunInfo, Store, StoreError
from flyweight.types import Event, Problem, Result, Sampling, Stopped
from flyweight.verifiers import load as load_verifier

__all__ = [
    "Bench",
    "Searches",
    "carried_out",
    "execute",
    "regrade",
    "searching",
    "summaries",
]

ENOUGH = 20
"""Searches before the share of errors says anything."""
BACKLOG = 256
"""Results that may wait for their grades."""


class Searches(Runner):
    """A runner that remembers having been interrupted, and what its verifiers have loaded."""

    interrupted = False
    verifiers: Sequence[Verifier] = ()
    """Those it asks, or will have asked by its end."""

    def interrupt(self) -> None:
        self.interrupted = True
        super().interrupt()

    def release(self) -> None:
        """Release what the verifiers have loaded."""
        for verifier in self.verifiers:
            if (close := getattr(verifier, "close", None)) is not None:
                close()


def execute(
    store: Store,
    plans: Iterable[Plan],
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    grade: bool = True,
    retry: bool = False,
    limits: Limits | None = None,
    in_flight: int = 64,
    load: Load | None = None,
) -> list[Summary]:
    """Carry out the plans one after the other; what became of each, as far as it came.

    What is on record is not searched again; with `retry`, what ended in an error is. Without `grade` nothing is
    graded. `load` replaces `api.find_policy`. Raises what `plan.check` raises before anything else, StoreError when
    the store fails, ModelError when the model cannot be loaded, SandboxError where there is no sandbox for code.
    """
    jobs = check(plans, grade=grade)
    made = summaries(
        store,
        jobs,
        on_progress=on_progress,
        grade=grade,
        retry=retry,
        limits=limits or Limits(),
        in_flight=in_flight,
        load=load,
    )
    return list(made)


def summaries(
    store: Store,
    jobs: Sequence[Job],
    *,
    on_progress: Callable[[Progress], None],
    grade: bool = True,
    retry: bool = False,
    limits: Limits,
    in_flight: int = 64,
    load: Load | None = None,
) -> Iterator[Summary]:
    """`execute` for jobs that were checked: each summary as soon as it is there; a stopped one is the last."""
    yield from carried_out(Bench(store, on_progress, grade, retry, limits, in_flight, load), jobs)


def carried_out(bench: Bench, jobs: Sequence[Job]) -> Iterator[Summary]:
    """`summaries` of an invocation that was made ready; it is closed."""
    try:
        for number, job in enumerate(jobs, 1):
            summary = bench.run(job, Progress(job, number, len(jobs), Tally()))
            yield summary
            if summary.ending != "finished":
                return
    except CannotLoad as failure:
        raise failure.error from None
    finally:
        bench.close()


class Bench:
    """One invocation: the engine in memory, and what has been spent."""

    def __init__(
        self,
        store: Store,
        on_progress: Callable[[Progress], None],
        grade: bool,
        retry: bool,
        limits: Limits,
        in_flight: int,
        load: Load | None,
    ) -> None:
        self.store, self.limits, self.in_flight = store, limits, in_flight
        self.grade, self.retry = grade, retry
        self._on_progress = on_progress
        self._load = load
        self._engine: Engine | None = None
        self._began = time.perf_counter()
        self._progress: Progress
        self._runner: Interruptible | None = None
        self._spent = 0
        """Tokens drawn by engines that were closed."""
        self._workers = Workers()

    def run(self, job: Job, progress: Progress) -> Summary:
        """Go on with a run until it is finished or something stops it."""
        self._progress = progress
        self._on_progress(progress)
        grading = Grading(self.store, job, self._workers) if self.grade else None
        info = run_of(self.store, job.configuration)
        missing: list[Problem] = list(job.problems)
        if info is not None:
            ended = self._survey(info, grading, progress)
            missing = [problem for problem in job.problems if problem.id not in ended]
            if not missing and info.finished is not None:
                with suppress(ModelError):  # it is not needed; but if it is there, it must be the one
                    recorded(self.store, job.configuration)
                return self._summary(info.id, progress, "finished", Fresh())
        job.ready(self.grade)
        engine = self._engine_for(job)
        versions = _versions()
        models = {job.plan.model: engine.identity}
        record = self.store.run(job.configuration, models=models, versions=versions)
        ending = self._search(job, missing, record, engine, grading, progress)
        fresh, progress.generated = engine.stored.fresh, engine.generated
        if fresh.calls or fresh.readings:
            # What a later estimate goes by, and part of where the numbers come from.
            measured = {"generated_tokens": engine.generated, "seconds": round(progress.elapsed, 2)}
            measured |= {"peak_memory_mb": peak_memory_mb(), "recomputed_tokens": engine.recomputed}
            measured |= {} if job.shape.steps else {"samples": fresh.calls}
            facts = {name: str(value) for name, value in measured.items()}
            self.store.run(job.configuration, models=models, versions={**versions, **facts})
        whole = len(record.stopped) == len(job.problems) and Stopped.INTERRUPTED not in record.stopped.values()
        if whole and (grading is None or not len(grading)):
            record.finish()
            ending = "finished" if ending in ("tokens", "seconds") else ending  # reached with the last search
        return self._summary(record.id, progress, ending, fresh)

    def close(self) -> None:
        """Release the model and the threads."""
        self._workers.close()
        self._release()

    def _release(self) -> None:
        if self._engine is not None:
            self._spent += self._engine.generated
            self._engine.close()
            self._engine = None

    def _survey(self, info: RunInfo, grading: Grading | None, progress: Progress) -> set[str]:
        """Count what is on record, grading what was not; the problems that need no further search."""
        again = (Stopped.INTERRUPTED, Stopped.ERROR) if self.retry else (Stopped.INTERRUPTED,)
        ended: set[str] = set()

        def kept() -> Iterator[Result]:
            try:
                for result in self.store.results(info.id):
                    if result.stopped not in again:
                        ended.add(result.problem.id)
                        yield result
            except StoreError:
                if self.store.error is not None:
                    raise
                # Damaged searches are forgotten by having been met: they are among the missing.

        _count(kept(), grading, progress.tally, finished=info.finished is not None)
        progress.before = progress.tally.searched
        return ended

    def _engine_for(self, job: Job) -> Engine:
        """The model of a job, its cache empty: what a run costs must not depend on what ran before it."""
        self._release()
        known = recorded(self.store, job.configuration)
        plan = job.plan
        self._engine = Engine(self.store, plan.model, plan.context, known, load=self._load, on_load=self._loading)
        return self._engine

    def _loading(self, began: bool) -> None:
        """Say that the model is being loaded. Without a runner, whoever is asked to stop need not wait for it."""
        self._progress.runner = None if began else self._runner
        self._progress.loading = began
        self._on_progress(self._progress)

    def _search(
        self,
        job: Job,
        missing: Sequence[Problem],
        record: Run,
        engine: Engine,
        grading: Grading | None,
        progress: Progress,
    ) -> Ending:
        """Search the problems that are missing; why it ended."""
        reason: Ending = "finished"
        errors = 0
        loading, began = engine.seconds, time.perf_counter()

        def limit(which: Ending) -> None:
            nonlocal reason
            if not runner.interrupted:
                reason = which
                runner.interrupt()

        def watch(event: Event) -> None:
            if event.kind not in ("start", "progress", "end"):
                return
            progress.generated = engine.generated
            progress.elapsed = time.perf_counter() - began - (engine.seconds - loading)
            if self.limits.tokens is not None and self._spent + engine.generated >= self.limits.tokens:
                limit("tokens")
            if self.limits.seconds is not None and time.perf_counter() - self._began >= self.limits.seconds:
                limit("seconds")
            if event.kind != "end":  # after the result has been counted
                self._on_progress(progress)

        runner = self._runner = progress.runner = self._searches(job, record, engine, watch)

        def stopped() -> bool:
            return runner.interrupted

        made = 0
        results = runner.run(missing, job.strategy, job.plan.budget, in_flight=self.in_flight)
        with ExitStack() as ends:
            # Like the engine's cache: what a run costs must not depend on what ran before it. And the next one may
            # need the memory for a verifier of its own.
            ends.callback(runner.release)
            ends.enter_context(closing(results))  # type: ignore[type-var]
            for made, result in enumerate(results, 1):
                if record.error is not None:
                    raise record.error
                if result.stopped is not Stopped.INTERRUPTED:
                    errors += result.stopped is Stopped.ERROR
                    progress.tally.add(result)
                    if grading is not None:
                        grading.add(result)
                if made >= ENOUGH and errors > self.limits.errors * made:
                    limit("errors")
                for graded in () if grading is None else grading.done(len(grading) - BACKLOG, stopped):
                    progress.tally.grade(graded)
                self._on_progress(progress)
        if record.error is not None:
            raise record.error
        # Interrupted, what is not graded yet is left to whoever goes on.
        for graded in () if grading is None else grading.done(len(grading), stopped):
            progress.tally.grade(graded)
        self._runner = progress.runner = None
        if runner.interrupted and reason == "finished":
            return "interrupted"
        if reason == "finished" and errors > self.limits.errors * made:
            return "errors"
        return reason

    def _searches(self, job: Job, record: Run, engine: Engine, watch: Callable[[Event], None]) -> Interruptible:
        """What searches the problems; `watch` is told of everything after it is on record."""

        def both(event: Event) -> None:
            record(event)
            watch(event)

        return searching(self.store, job, engine.stored, both)

    def _summary(self, run: str, progress: Progress, ending: Ending, fresh: Fresh) -> Summary:
        generated, elapsed, peak = progress.generated, progress.elapsed, peak_memory_mb()
        return Summary(run, progress.job, progress.tally, ending, fresh.calls, generated, elapsed, peak, fresh.readings)


def searching(store: Store, job: Job, policy: Policy, on_event: Callable[[Event], None]) -> Searches:
    """What searches the problems of a job, its verifiers behind the store."""
    verifiers: dict[str, Verifier] = {}
    asked: list[Verifier] = []

    def stored(judge: Verifier, identity: str) -> Verifier:
        asked.append(judge)
        return store.verifier(judge, identity=identity)

    if job.verifier is not None:
        verifiers[job.verifier.name] = stored(job.verifier, job.identity)
    for name, (judge, identity) in job.others.items():
        verifiers[name] = stored(judge, identity)
    # What a strategy names only once it knows the question, as `auto` does, is loaded then.
    searches = Searches(
        policy,
        api.Loading(verifiers, lambda name: stored(judge := load_verifier(name), filed_as(name, judge))),
        answers=job.task,
        sampling=Sampling(temperature=job.plan.temperature, max_tokens=job.plan.max_tokens),
        seed=job.plan.seed,
        on_event=on_event,
    )
    searches.verifiers = asked
    return searches


def regrade(store: Store, job: Job) -> Summary:
    """A run on record with everything in it graded, now if not before. ConfigError if there is none."""
    info = run_of(store, job.configuration)
    if info is None:
        raise ConfigError(f"{store.path} holds no run of {job.label} on {job.plan.task}")
    tally = Tally()
    results = (result for result in store.results(info.id) if result.stopped is not Stopped.INTERRUPTED)
    workers = Workers()
    try:
        _count(results, Grading(store, job, workers), tally)
    finally:
        workers.close()
    ending: Ending = "finished" if info.finished is not None else "interrupted"
    return Summary(info.id, job, tally, ending, 0, 0, 0.0, peak_memory_mb())


def _count(results: Iterable[Result], grading: Grading | None, tally: Tally, *, finished: bool = False) -> None:
    """Add results to a tally, graded. Of a finished run it is enough to look up what was selected."""
    for result in results:
        tally.add(result)
        known = grading.known(result) if grading is not None and finished else None
        if known is not None:
            tally.grade(known)
        elif grading is not None:
            grading.add(result)
            for graded in grading.done(len(grading) - BACKLOG):
                tally.grade(graded)
    for graded in () if grading is None else grading.done(len(grading)):
        tally.grade(graded)


def peak_memory_mb() -> int:
    """Most memory this process has held, in MB of 2^20 bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak >> (20 if sys.platform == "darwin" else 10)


def _versions() -> dict[str, str]:
    """What the numbers depend on beside Flyweight itself."""
    versions = {"cpu": platform.processor() or platform.machine()}
    with suppress(OSError, StopIteration), open("/proc/cpuinfo") as file:
        versions["cpu"] = next(line.split(": ", 1)[1].strip() for line in file if line.startswith("model name"))
    with suppress(metadata.PackageNotFoundError):
        versions["llama-cpp-python"] = metadata.version("llama-cpp-python")
    return versions
