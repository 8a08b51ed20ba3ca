"""Ctrl-C and SIGTERM while a search runs: the first one stops it, the second one ends the program at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Protocol, Self

import typer

from flyweight.types import Event

__all__ = ["Stop"]

_Handler = Callable[[int, FrameType | None], object] | int | None


class Interruptible(Protocol):
    """Whatever searches."""

    def interrupt(self) -> None:
        """Stop in good order."""


class Stop:
    """While entered, the first signal asks the runner to stop at its next step, and the second kills the process.

    `code` is then the exit code the signal stands for (130 or 143), else 0. Call it with every event: a signal that
    comes just before a search begins is passed on when it does.
    """

    def __init__(self) -> None:
        self.code = 0
        self.runner: Interruptible | None = None
        self._before: dict[int, _Handler] = {}

    def __call__(self, event: Event) -> None:
        if self.code and self.runner is not None:
            self.runner.interrupt()

    def __enter__(self) -> Self:
        self.code = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self.code and isinstance(error, KeyboardInterrupt):
            raise typer.Exit(self.code) from error

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        # From here on the kernel's own action, which no busy C call can delay.
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_DFL)
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h")  # a live display may have hidden the cursor
        if self.runner is None:
            raise KeyboardInterrupt  # still loading: nothing is known yet
        self.runner.interrupt()
