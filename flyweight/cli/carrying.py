"""Carrying out the runs of a benchmark: here or on a cluster, watched, and how to go on where one was stopped."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flyweight.cli import render, spread
from flyweight.cli.folder import DEFAULT, database, opened
from flyweight.cli.progress import Progress
from flyweight.cli.stopping import Stop
from flyweight.cli.summaries import View, asked, cells, duration, facts, table
from flyweight.errors import ConfigError

if TYPE_CHECKING:
    from flyweight import bench
    from flyweight.store import Store

__all__ = ["How"]


@dataclass(frozen=True)
class How:
    """Everything that does not change what a run is."""

    out: Path
    durable: bool
    concurrency: int
    max_tokens_total: int | None
    max_time: float | None
    fail_on_error: float
    predict_only: bool
    ray: str | None
    workers: int | None
    json: bool
    quiet: bool

    def __post_init__(self) -> None:
        if not 1 <= self.concurrency <= 4096:
            raise ConfigError(f"--concurrency {self.concurrency} is not allowed: a whole number from 1 to 4096")
        if self.max_tokens_total is not None and self.max_tokens_total < 1:
            raise ConfigError(f"--max-tokens-total {self.max_tokens_total} is not allowed: a whole number from 1")
        if self.max_time is not None and not 0 < self.max_time < math.inf:
            raise ConfigError(f"--max-time {self.max_time:g} is not allowed: seconds above 0")
        if not 0 <= self.fail_on_error <= 1:
            raise ConfigError(f"--fail-on-error {self.fail_on_error:g} is not allowed: a share from 0 to 1")

    def carried_out(self, jobs: Sequence[bench.Job], *, again: bool = False) -> int:
        """Run them; the exit code."""
        summaries = []
        with ExitStack() as stack:
            stop = stack.enter_context(Stop())
            store = stack.enter_context(opened(self.out, self.durable))
            view = View(stack.enter_context(Progress(quiet=self.quiet)), stop)
            running = self._running(stack, store, jobs, view, again)
            try:
                for summary in running:
                    summaries.append(summary)
                    if self.json:
                        view.progress.clear()
                        typer.echo(render.dumps(facts(summary)))
                    if stop.code:
                        break
            except KeyboardInterrupt:  # while nothing was being searched
                if not (stop.code and summaries):
                    raise
        if not self.json:
            typer.echo(table(summaries))
        return self._ended(summaries, jobs, stop.code)

    def _running(
        self, stack: ExitStack, store: Store, jobs: Sequence[bench.Job], view: View, again: bool
    ) -> Iterator[bench.Summary]:
        """Summaries as they come, of searches made here or elsewhere."""
        from flyweight import bench

        limits = bench.Limits(self.max_tokens_total, self.max_time, self.fail_on_error)
        grade, many = not self.predict_only, self.concurrency
        cluster = spread.cluster(self.ray, self.workers)
        if cluster is None:
            return bench.summaries(
                store, jobs, on_progress=view, grade=grade, retry=again, limits=limits, in_flight=many
            )
        from flyweight import distributed

        stack.callback(cluster.close)
        return distributed.summaries(
            store, jobs, cluster, on_progress=view, grade=grade, retry=again, limits=limits, in_flight=many
        )

    def _ended(self, summaries: Sequence[bench.Summary], jobs: Sequence[bench.Job], signalled: int) -> int:
        """Say how to go on; the exit code."""
        from flyweight.cli.main import complain

        last = summaries[-1]
        ids = " ".join(summary.run[:8] for summary in summaries)
        folder = "" if self.out == DEFAULT else f" --runs {shlex.quote(str(self.out))}"
        go_on = f"the same command goes on, or: flyweight bench resume {last.run[:8]}{folder}"
        if last.ending == "finished" and not signalled:
            if not self.quiet:
                typer.echo(f"flyweight report {ids}{folder}", err=True)
            return 0
        if last.ending == "errors":
            complain(
                f"{last.tally.errors} of {last.tally.searched} searches failed, the last with: {last.tally.error}; "
                f"once repaired: flyweight bench retry {last.run[:8]}{folder} (--fail-on-error 1 never stops)"
            )
            return 3
        why = {
            "tokens": f"--max-tokens-total {self.max_tokens_total} reached",
            "seconds": f"--max-time {self.max_time} reached",
        }.get(last.ending, "interrupted")
        unbegun = f", {len(jobs) - len(summaries)} of {len(jobs)} runs not begun" if len(summaries) < len(jobs) else ""
        typer.echo(f"{why}{unbegun}: {go_on}", err=True)
        return signalled or 5

    def estimated(self, jobs: Sequence[bench.Job]) -> int:
        """Say what they would take; 0."""
        from flyweight.bench.estimate import estimate, measured
        from flyweight.store import Store

        path = database(self.out)
        with ExitStack() as stack:
            store = stack.enter_context(Store(path, readonly=True)) if path.is_file() else None
            found = [(job, estimate(store, job)) for job in jobs]
            basis = measured(store, jobs[0]).basis
        if self.json:
            for job, each in found:
                typer.echo(render.dumps({**asked(job), **each._asdict()}))
            return 0
        head = ("strategy", "verifier", "n", "questions", "on record", "draws", "in the store", "tokens", "time")
        rows = [
            (
                *cells(job),
                f"{each.problems:,}",
                f"{each.on_record:,}",
                f"{'' if each.exact else '≥ ' if job.shape.steps else '≤ '}{each.draws:,}",
                f"{each.stored:,}" if each.exact else "?",
                f"{each.tokens:,.0f}",
                duration(each.seconds),
            )
            for job, each in found
        ]
        typer.echo(render.table(head, rows, right=7))
        typer.echo(
            f"\nTokens and time, {basis}.\n"
            "On record: searches that ended. Draws: what is asked of the model for the other questions; in the store:\n"
            "of those, drawn before by any run. Runs further down may find what those above them draw."
        )
        if again := ", ".join(f"{each.reread:,} for {job.label}" for job, each in found if each.reread):
            typer.echo(
                "Not counted: draws in the store that verifiers read again, as their hidden states are not there,\n"
                f"at most {again}."
            )
        return 0
