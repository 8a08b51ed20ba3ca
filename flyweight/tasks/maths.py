"""What the maths tasks share: a boxed answer, read, grouped and graded by the answer layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flyweight.errors import ConfigError
from flyweight.types import BOXED, Grade, Message, Problem

__all__ = ["Maths", "problem"]


def problem(id: str, question: str, answer: str, meta: Mapping[str, object]) -> Problem:
    """A question with the system prompt that asks for steps and a boxed answer."""
    messages = (Message("system", BOXED), Message("user", question))
    return Problem(id, question, messages, answer, meta)


class Maths:
    """Problems whose answers are compared as mathematics."""

    name = "maths"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self._problems = tuple(problems)

    def problems(self) -> Sequence[Problem]:
        """Every problem, in the file's order."""
        return self._problems

    def extract(self, text: str) -> str | None:
        """The answer a solution states, or None."""
        from flyweight import answers

        return answers.extract(text, "math")

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        """Indices grouped by equal answers, largest group first; None in no class."""
        from flyweight.answers import classes

        return classes(answers)

    def grade(self, problem: Problem, text: str) -> Grade:
        """Grade a solution against the problem's known answer; ConfigError if it has none."""
        from flyweight import answers

        if problem.answer is None:
            raise ConfigError(f"problem {problem.id!r} has no known answer to grade against")
        return answers.grade(self.extract(text), problem.answer, "math")
