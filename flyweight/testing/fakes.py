"""Small stand-ins for the models a verifier asks, a verifier, an answer layer and whoever awaits."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from flyweight.errors import BackendError
from flyweight.protocols import Hidden, Models
from flyweight.select import alike
from flyweight.types import Message, Node, Problem, Score

__all__ = ["BoxedAnswers", "NoModels", "RuleVerifier", "drive"]

T = TypeVar("T")


class NoModels(Models):
    """Models for a verifier that asks none; a test's own derive from it and override what is asked."""

    async def read(
        self, nodes: Sequence[Node], text: str, choices: Sequence[str], *, policy: str | None = None
    ) -> list[tuple[float, ...]]:
        """BackendError."""
        raise BackendError("the models were read, and there are none")

    async def complete(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        *,
        temperature: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        """BackendError."""
        raise BackendError("the models were asked, and there are none")

    async def ask(
        self,
        messages: Sequence[Message],
        n: int = 1,
        *,
        temperature: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        """BackendError."""
        raise BackendError("the models were asked, and there are none")

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        """BackendError."""
        raise BackendError("hidden states were asked for, and there are none")

    def weights(self, policy: str | None = None) -> str:
        """No file."""
        return ""

    async def wait(self, future: Future[T]) -> T:
        """Its result."""
        return future.result()

    def spent(self, tokens: int) -> None:
        """Nothing is booked."""

    def note(self, **facts: object) -> None:
        """Nothing is kept."""


@dataclass
class RuleVerifier:
    """A verifier made of a function (question, solution) -> value in [0, 1] or one value per step."""

    rule: Callable[[str, str], float | Sequence[float]]
    name: str = "rule"
    params: int = 0
    sees_answer: bool = False
    scored: list[str] = field(default_factory=list)
    """Every solution it was shown, in order."""

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        scores = []
        for node in nodes:
            self.scored.append(node.solution)
            said = self.rule(problem.prompt, node.solution)
            if isinstance(said, int | float):
                scores.append(Score(float(said), kind=self.name))
            else:
                steps = tuple(said)
                scores.append(Score(math.fsum(steps) / len(steps), steps, self.name))
        return scores


class BoxedAnswers:
    """An answer layer for tests: the last boxed text, equal when the strings are."""

    def extract(self, text: str) -> str | None:
        found = re.findall(r"\\boxed\{([^{}]*)\}", text)
        return found[-1] if found else None

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        return alike(answers)


def drive(coroutine: Coroutine[object, object, T]) -> T:
    """Result of a coroutine that never waits for anything, such as a rule verifier's `score`."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the coroutine waited for a model")
