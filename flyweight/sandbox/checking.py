"""Grading programs by tests without showing them what is expected.

A program's sandbox gets its code and one input at a time, a call or a stdin, and hands back plain data; expected values
stay in this process, which does the comparing. Test statements that are more than "call equals literal" run in a second
sandbox, in which each call of the program is a message to the first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

from flyweight.errors import ConfigError
from flyweight.sandbox import wire
from flyweight.sandbox.cell import Cell, allowed
from flyweight.sandbox.tests import Call, Statements, Stdin, Test

__all__ = ["Checked", "Outcome", "check", "evaluate"]

GRACE = 1.0
"""Seconds beyond a test's own that the sandbox has to say that the time is up."""
PATIENCE = 2
"""Tests that may run out of time; a program's remaining ones then count as out of time without being run."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one input gave."""

    kind: Literal["value", "error", "timeout", "memory"]
    value: object = None
    """Plain data for a call, the text on stdout for a stdin."""
    error: str = ""
    """Why there is no value; empty where there is one. Untrusted text."""


@dataclass(frozen=True, slots=True)
class Checked:
    """How a program fared."""

    failures: tuple[str, ...]
    """One entry per test: empty when it passed, else why not. May quote the program: untrusted text."""

    @property
    def share(self) -> float:
        """Tests passed, in [0, 1]."""
        return self.failures.count("") / len(self.failures)

    @property
    def passed(self) -> bool:
        """Whether all passed."""
        return not any(self.failures)


def check(program: str, tests: Sequence[Test], *, seconds: float = 5, memory_mb: int = 512) -> Checked:
    """Run the program on every test. `seconds` is wall time per test; after two tests that ran out of it the
    remaining ones are not run. ConfigError without tests and as in `allowed`; SandboxError when there is no sandbox.
    """
    if not tests:
        raise ConfigError("there are no tests to check against")
    with _Bench(program, seconds, memory_mb) as bench:
        return Checked(tuple(bench.failure(test) for test in tests))


def evaluate(
    program: str, inputs: Sequence[Call | Stdin], *, seconds: float = 5, memory_mb: int = 512
) -> list[Outcome]:
    """What the program makes of every input; nothing is compared. Limits and errors as in `check`."""
    with _Bench(program, seconds, memory_mb) as bench:
        return [bench.outcome(given) for given in inputs]


class _Bench(ExitStack):
    """A program in its sandbox, and beside it the sandbox of tests that are statements."""

    def __init__(self, program: str, seconds: float, memory_mb: int) -> None:
        super().__init__()
        allowed(seconds=seconds, memory_mb=memory_mb)
        self.code = program.encode("utf-8", "surrogatepass")
        self.seconds, self.memory_mb = seconds, memory_mb
        self.late = 0
        self.payload = b""
        """The last reply as it came."""
        self.program = self._cell("serve", self.code)
        self.judge: Cell | None = None

    def _cell(self, mode: str, code: bytes | None = None) -> Cell:
        return self.enter_context(Cell(mode, code=code, channel=True, cpu=1e6, memory_mb=self.memory_mb))

    def outcome(self, given: Call | Stdin) -> Outcome:
        """What came back for one input."""
        if self.late >= PATIENCE:
            return Outcome("timeout", error="out of time")
        kind, text = ("E", given.expression) if isinstance(given, Call) else ("S", given.stdin)
        outcome = self._ask(kind, text, self.seconds)
        self.late += outcome.kind == "timeout"
        return outcome

    def _ask(self, kind: str, text: str, seconds: float) -> Outcome:
        if self.program.ended is not None:  # an earlier input broke it
            self.program = self._cell("serve", self.code)
        cell = self.program
        cell.send(kind, text.encode("utf-8", "surrogatepass"), seconds)
        if not cell.wait(time.monotonic() + seconds + GRACE, messages=True):
            if cell.ended == "timeout":
                return Outcome("timeout", error="out of time")
            if cell.ended == "memory":
                return Outcome("memory", error="memory limit")
            return Outcome("error", error="the sandbox ended")
        found, payload = cell.messages.pop(0)
        self.payload = payload
        if found == "T":
            return Outcome("timeout", error="out of time")
        if found != "V":
            # The program may have sent this itself, and an empty reason would stand for a test that passed.
            return Outcome("error", error=payload.decode("utf-8", "replace") or "an error")
        if kind == "S":
            return Outcome("value", payload.decode("utf-8", "replace"))
        try:
            return Outcome("value", wire.decode(payload))
        except wire.Malformed as error:
            return Outcome("error", error=str(error))

    def failure(self, test: Test) -> str:
        """Why the test failed; empty when it passed."""
        if isinstance(test, Statements):
            return self._judged(test)
        outcome = self.outcome(test)
        if outcome.kind != "value":
            return outcome.error
        if isinstance(test, Stdin):
            right = wire.printed(str(outcome.value)) == wire.printed(test.expected)
        else:
            right = wire.same(outcome.value, test.expected)
        return "" if right else f"another value: {repr(outcome.value)[:200]}"

    def _judged(self, test: Statements) -> str:
        if self.late >= PATIENCE:
            return "out of time"
        if self.judge is None or self.judge.ended is not None:
            self.judge = self._cell("judge")
        judge, until = self.judge, time.monotonic() + self.seconds
        header = " ".join(f"{own}={theirs}" for own, theirs in test.names)
        judge.send("J", f"{header}\n{test.source}".encode("utf-8", "surrogatepass"), self.seconds)
        while judge.wait(until + GRACE, messages=True):
            kind, payload = judge.messages.pop(0)
            if kind == "V":
                return ""
            if kind == "T":
                self.late += 1
                judge.close()  # an answer to its last question may still be on the way
                return "out of time"
            if kind == "X":
                return payload.decode("utf-8", "replace") or "an error"
            left = max(0.001, until - time.monotonic())  # the test's time, not as much again for each of its calls
            outcome = self._ask("E", payload.decode("utf-8", "surrogatepass"), left)
            if outcome.kind == "value":
                judge.send("V", self.payload)
            else:
                judge.send("X", outcome.error.encode("utf-8", "replace"))
        self.late += judge.ended == "timeout"
        return "out of time" if judge.ended == "timeout" else "the tests' sandbox ended"
