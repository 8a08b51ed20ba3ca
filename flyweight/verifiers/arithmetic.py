"""Sums that can be checked are checked: a verifier without a model."""

from __future__ import annotations

from collections.abc import Sequence

from flyweight.protocols import Models
from flyweight.types import Node, Problem, Score
from flyweight.verifiers.equations import equations

__all__ = ["Arithmetic", "value"]


class Arithmetic:
    """Evaluates every "a op b = c" in the text exactly; free, and never above 1/2 once a sum is wrong.

    With r right and w wrong equations on the path: (1 + r) / (2 + r) while all are right, so 1/2 without any
    evidence; r / (2 (r + w)), below 1/2, as soon as one is wrong. `Score.steps` holds that value for the path up to
    the end of each step, so that the default aggregation (`last`) ranks by `Score.value`. What cannot be read with
    certainty is not judged, and a right sum of the wrong numbers is a right sum.

    Source: The calculator annotations of Cobbe et al. 2021 (2110.14168), turned into a check.
    """

    name = "arithmetic"
    params = 0
    sees_answer = False

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node; costs no tokens."""
        return [self._score(node) for node in nodes]

    def _score(self, node: Node) -> Score:
        right = wrong = 0
        values = []
        for step in node.steps:
            for equation in equations(step.text):
                right += equation.holds
                wrong += not equation.holds
            values.append(value(right, wrong))
        return Score(value(right, wrong), tuple(values), self.name)


def value(right: int, wrong: int) -> float:
    """In [0, 1): grows with every right equation, falls with every wrong one; 1/2 without any."""
    return 0.5 * right / (right + wrong) if wrong else (1 + right) / (2 + right)
