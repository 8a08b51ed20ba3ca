"""The verifier that has seen the answer: an upper bound for analysis, never a result."""

from __future__ import annotations

from collections.abc import Sequence

from flyweight.errors import BackendError
from flyweight.protocols import Models
from flyweight.types import Node, Problem, Score

__all__ = ["Oracle"]


class Oracle:
    """ANALYSIS ONLY: 1 where the answer equals the known one, 0 where not. It sees the answer, so it proves nothing.

    best_of_n under the oracle is coverage, pass@n: the most any verifier could get out of those samples. A
    comparison the answer layer cannot decide scores 1/2; a solution without an answer, 0.

    Source: Coverage, as in Brown et al. 2024, Large Language Monkeys (2407.21787).
    """

    name = "oracle"
    params = 0
    sees_answer = True
    analysis_only = True
    """Whoever prints results made with this says so."""

    def __init__(self, *, kind: str = "math") -> None:
        """`kind` of answer, as in `flyweight.answers.extract`."""
        self.kind = kind

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node; costs no tokens. BackendError if the problem's answer is not known."""
        if problem.answer is None:
            raise BackendError(f"oracle needs the known answer, and problem {problem.id!r} has none")
        from flyweight import answers

        value = {"correct": 1.0, "wrong": 0.0, "undecided": 0.5}
        scores = []
        for node in nodes:
            answer = answers.extract(node.solution, self.kind)
            grade = answers.grade(answer, problem.answer, self.kind)
            scores.append(Score(value[grade.value], (), self.name))
        return scores
