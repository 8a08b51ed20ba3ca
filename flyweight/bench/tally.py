"""What is counted while plans are carried out: of a run, of an invocation, and what whoever watches is shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from flyweight import stats
from flyweight.bench.graded import truncated
from flyweight.bench.plan import Job
from flyweight.protocols import Strategy
from flyweight.types import Budget, Grade, Problem, Result, Stopped

__all__ = ["Ending", "Interruptible", "Limits", "Progress", "Summary", "Tally"]

Ending = Literal["finished", "interrupted", "tokens", "seconds", "errors"]


@dataclass(frozen=True)
class Limits:
    """Where a whole invocation ends, whatever is left to do; what was found by then is on record."""

    tokens: int | None = None
    """Drawn afresh."""
    seconds: float | None = None
    errors: float = 1.0
    """Share of the searches made now that may end in an error, once there are 20."""


@dataclass
class Tally:
    """What the searches of a run on record add up to."""

    searched: int = 0
    """Searches that ended, other than interrupted."""
    correct: int = 0
    wrong: int = 0
    """Selected nothing, or something wrong; errors are among them."""
    undecided: int = 0
    errors: int = 0
    error: str = ""
    """What the latest of them said."""
    candidates: int = 0
    truncated: int = 0
    """Candidates cut by max_tokens or the context."""
    tokens: int = 0
    """Generated for all of them, whenever that was."""

    @property
    def accuracy(self) -> stats.Interval | None:
        """Share of correct answers with its Wilson interval, undecided ones not counted as correct."""
        graded = self.correct + self.wrong + self.undecided
        return stats.wilson(self.correct, graded) if graded else None

    def grade(self, grade: Grade) -> None:
        """Take in what a search's selection is worth."""
        self.correct += grade.value == "correct"
        self.wrong += grade.value == "wrong"
        self.undecided += grade.value == "undecided"

    def add(self, result: Result) -> None:
        """Take in a search."""
        self.searched += 1
        self.errors += result.stopped is Stopped.ERROR
        self.error = result.error or self.error
        self.candidates += len(result.candidates)
        self.truncated += sum(truncated(candidate.node) for candidate in result.candidates)
        self.tokens += result.usage.generated_tokens


@dataclass(frozen=True)
class Summary:
    """A run as this invocation left it."""

    run: str
    """Its id."""
    job: Job
    tally: Tally
    ending: Ending
    calls: int
    """Draws the engine made now; 0 when the store had all of them."""
    generated: int
    """Tokens it drew now."""
    elapsed: float
    """Seconds this run took now, loading left out."""
    peak_memory_mb: int
    """Most memory this process has held so far."""
    readings: int = 0
    """What the engine read for verifiers now, without drawing."""


class Interruptible(Protocol):
    """Searches under way that can be asked to end."""

    interrupted: bool

    def interrupt(self) -> None:
        """End everything in good order."""

    def release(self) -> None:
        """Release what the verifiers have loaded."""

    def run(
        self, problems: Iterable[Problem], strategy: Strategy, budget: Budget | None = None, *, in_flight: int = 64
    ) -> Iterator[Result]:
        """As `Runner.run`."""


@dataclass
class Progress:
    """What `on_progress` is shown, several times a second: always the same object."""

    job: Job
    number: int
    """Place of the job among all, from 1."""
    of: int
    tally: Tally
    before: int = 0
    """Searches that were on record before."""
    loading: bool = False
    runner: Interruptible | None = None
    """While searching: its `interrupt()` ends everything in good order."""
    generated: int = 0
    """Tokens the engine drew for this run now."""
    elapsed: float = 0.0

    @property
    def left(self) -> float | None:
        """Seconds until the run is finished, at the speed so far; None before there is one."""
        made = self.tally.searched - self.before
        return self.elapsed / made * (len(self.job.problems) - self.tally.searched) if made else None
