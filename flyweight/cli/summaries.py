"""What `flyweight bench` shows of runs: a line while one is under way, a table of what became of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flyweight.cli import render
from flyweight.cli.progress import REFRESH, SPARSE, Progress
from flyweight.cli.stopping import Stop

if TYPE_CHECKING:
    from flyweight import bench

__all__ = ["View", "asked", "cells", "duration", "facts", "table"]


class View:
    """One line about the run under way, and the way signals take."""

    def __init__(self, progress: Progress, stop: Stop) -> None:
        self.progress = progress
        self._stop = stop
        self._every = REFRESH if sys.stderr.isatty() else SPARSE
        self._shown = time.monotonic()

    def __call__(self, state: bench.Progress) -> None:
        self._stop.runner = state.runner
        if self._stop.code and state.runner is None:
            raise KeyboardInterrupt
        if self._stop.code and state.runner is not None:
            state.runner.interrupt()
        now = time.monotonic()
        if self.progress.quiet or (now - self._shown < self._every and not state.loading):
            return
        self._shown = now
        if sys.stderr.isatty():
            self.progress.say(_line(state))
        elif not state.loading:
            self.progress.note(_line(state))


def _line(state: bench.Progress) -> str:
    if state.loading:
        return f"loading {state.job.plan.model}"
    tally, parts = state.tally, [f"{state.tally.searched} of {len(state.job.problems)} questions"]
    if (accuracy := tally.accuracy) is not None:
        parts.append(f"{_percent(accuracy.value)} % right ({_percent(accuracy.low)}–{_percent(accuracy.high)})")
    if tally.errors:
        parts.append(f"{tally.errors} failed")
    if state.left is not None:
        parts.append(f"{duration(state.left)} left")
    if state.elapsed > 0:
        parts.append(f"{state.generated / state.elapsed:,.0f} tokens/s")
    which = f" (run {state.number} of {state.of})" if state.of > 1 else ""
    return f"{state.job.label}{which}: " + " · ".join(parts)


def table(summaries: Sequence[bench.Summary]) -> str:
    """A line for each."""
    head = ["run", "strategy", "verifier", "n", "questions", "right", "95 %", "tokens/question"]
    head += ["undecided", "truncated", "failed"]
    rows = []
    for summary in summaries:
        tally, accuracy = summary.tally, summary.tally.accuracy
        wanted = len(summary.job.problems)
        searched = f"{tally.searched:,}{f' of {wanted:,}' if tally.searched < wanted else ''}"
        row = [summary.run[:8], *cells(summary.job), searched, "-", "-"]
        if accuracy is not None:
            row[-2:] = [f"{_percent(accuracy.value)} %", f"{_percent(accuracy.low)}–{_percent(accuracy.high)}"]
        row.append(f"{tally.tokens / tally.searched:,.0f}" if tally.searched else "-")
        truncated = render.percent(tally.truncated / tally.candidates) if tally.candidates else "-"
        rows.append([*row, f"{tally.undecided:,}", truncated, f"{tally.errors:,}"])
    return render.table(head, rows, right=8)


def facts(summary: bench.Summary) -> dict[str, object]:
    """The same of one, for programs."""
    tally, accuracy = summary.tally, summary.tally.accuracy
    return {
        "run": summary.run,
        **asked(summary.job),
        "problems": len(summary.job.problems),
        "searched": tally.searched,
        "correct": tally.correct,
        "wrong": tally.wrong,
        "undecided": tally.undecided,
        "errors": tally.errors,
        "accuracy": None if accuracy is None else accuracy.value,
        "interval": None if accuracy is None else [accuracy.low, accuracy.high],
        "candidates": tally.candidates,
        "truncated": tally.truncated,
        "generated_tokens": tally.tokens,
        "ending": summary.ending,
        "new_draws": summary.calls,
        "new_readings": summary.readings,
        "new_tokens": summary.generated,
        "seconds": round(summary.elapsed, 3),
        "peak_memory_mb": summary.peak_memory_mb,
    }


def asked(job: bench.Job) -> dict[str, object]:
    """What a job is, for programs."""
    names = ("task", "split", "model", "strategy", "parameters", "verifier", "seed")
    return {name: job.configuration[name] for name in names}


def cells(job: bench.Job) -> tuple[str, str, str]:
    """Strategy, verifier and n, for a table."""
    configuration = job.configuration
    n = configuration["parameters"].get("n", "-")
    return configuration["strategy"], configuration["verifier"] or "-", str(n)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, in two or three digits."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"
