"""A model in memory with everything that watches it: progress, trace, and the signals that stop it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import typer

from flyweight import api
from flyweight.cli.options import ModelOptions
from flyweight.cli.progress import Progress
from flyweight.cli.stopping import Stop
from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Answers
from flyweight.types import Event

__all__ = ["Warm", "every", "record", "warm"]


class Warm(NamedTuple):
    """What a command works with."""

    session: api.Session
    progress: Progress
    stop: Stop


@contextmanager
def warm(
    made_of: ModelOptions, *, trace: Path | None = None, quiet: bool = False, answers: Answers | None = None
) -> Iterator[Warm]:
    """The session, its progress display, and the signals that stop it, until the block is left.

    The trace is opened before the model is loaded; whatever was recorded is on disk when the block is left.
    """
    with ExitStack() as stack:
        recorder = record(trace, stack)
        stop = stack.enter_context(Stop())
        progress = stack.enter_context(Progress(quiet=quiet, kind=made_of.kind))
        progress.say(f"loading {made_of.model}")
        session = stack.enter_context(made_of.open(every(stop, recorder, progress), answers=answers))
        stop.runner = session.runner
        if getattr(session.verifier, "analysis_only", False):
            progress.clear()
            typer.echo(f"ANALYSIS ONLY: the verifier {session.verifier.name} is shown the known answers", err=True)
        yield Warm(session, progress, stop)


def record(path: Path | None, stack: ExitStack) -> Callable[[Event], None]:
    """What writes events to `path` until the stack is left; nothing without a path. BackendError if it cannot."""
    if path is None:
        return lambda event: None
    from flyweight.trace import Writer

    try:
        writer = Writer(path)
    except ConfigError as error:  # a file that could not be written, as one whose disk fills up later
        raise BackendError(str(error)) from error
    return stack.enter_context(writer)


def every(*watchers: Callable[[Event], None]) -> Callable[[Event], None]:
    """Shows each event to all of the watchers, in order."""

    def watch(event: Event) -> None:
        for watcher in watchers:
            watcher(event)

    return watch
