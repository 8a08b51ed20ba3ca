"""What the programming tasks share: a block of code, run in the sandbox on tests the model never saw.

`Problem.answer` holds the tests that grade, as Python source: the runner strips it, so no policy or verifier sees
them. `Problem.meta` holds what is public: `public`, a tuple of asserts; `entry`, the function they call; `before` and
`after`, source that belongs around an answer to make it a program.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from flyweight.errors import ConfigError
from flyweight.types import Grade, Problem

if TYPE_CHECKING:
    from flyweight.answers.behaviour import Behaviour

__all__ = ["REPLY", "Code"]

REPLY = "Answer with the complete code in one ```python block."


class Code:
    """Problems whose answers are Python, right when they pass tests."""

    name = "code"

    def __init__(self, problems: Iterable[Problem], references: Mapping[str, str]) -> None:
        self._problems = tuple(problems)
        self._references = references

    def problems(self) -> Sequence[Problem]:
        """Every problem, in the file's order."""
        return self._problems

    def reference(self, problem: Problem) -> str:
        """The source's own solution; ConfigError where there is none. Kept apart: it reaches no policy or verifier."""
        if problem.id not in self._references:
            raise ConfigError(f"problem {problem.id!r} has no reference solution")
        return self._references[problem.id]

    @functools.cached_property
    def _votes(self) -> Behaviour:
        from flyweight.answers.behaviour import Behaviour

        return Behaviour()

    def extract(self, text: str) -> str | None:
        """The last block of code, or None."""
        from flyweight import answers

        return answers.extract(text, "code")

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        """Indices of programs that behave the same, as `answers.behaviour` says; SandboxError without a sandbox."""
        return self._votes.classes(answers, problem)

    def grade(self, problem: Problem, text: str) -> Grade:
        """Correct when the code passes every hidden test, each within 5 seconds and 512 MB; wrong otherwise.

        ConfigError for a problem without tests, SandboxError where code cannot be run safely.
        """
        from flyweight import sandbox

        if problem.answer is None:
            raise ConfigError(f"problem {problem.id!r} has no tests to grade against")
        tests = sandbox.asserts(problem.answer, entry=str(problem.meta.get("entry") or ""))
        code = self.extract(text)
        if code is None:
            return Grade("wrong", "no code in the answer")
        checked = sandbox.check(sandbox.program(problem.meta, code), tests)
        if checked.passed:
            return Grade("correct")
        number, reason = next((i, why) for i, why in enumerate(checked.failures, 1) if why)
        return Grade("wrong", f"{checked.failures.count('')} of {len(tests)} tests passed; test {number}: {reason}")
