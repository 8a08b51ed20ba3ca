"""P(True): the policy is asked whether its own solution is right, on the KV it already holds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Models
from flyweight.types import Node, Problem, Score

__all__ = ["PTrue"]


class PTrue:
    """P(yes) / (P(yes) + P(no)) after asking the policy whether its own solution is correct.

    The question is forced as plain text after the solution, in the same assistant turn, so only its tokens (about a
    dozen) are computed. A path that is not complete is asked about so far; one that leaves no room in the context for
    the question scores 1/2. Deviations from the paper: Yes and No instead of (A) True and (B) False, no few-shot
    examples, no other samples shown.

    Source: Kadavath et al. 2022, Language Models (Mostly) Know What They Know (2207.05221), P(True).
    """

    name = "p_true"
    params = 0
    sees_answer = False

    def __init__(
        self,
        *,
        question: str = "\n\nIs the answer above correct? Reply Yes or No:",
        partial: str = "\n\nIs the reasoning so far correct? Reply Yes or No:",
        yes: str = " Yes",
        no: str = " No",
    ) -> None:
        """`question` follows a complete solution, `partial` an unfinished one; `yes` and `no` differ in their first
        token."""
        for setting, value in (("question", question), ("partial", partial), ("yes", yes), ("no", no)):
            if not isinstance(value, str) or not value.strip():
                raise ConfigError(f"{setting}={value!r} is not allowed: text that is not blank")
        if yes == no:
            raise ConfigError(f"yes and no are both {yes!r}: they must differ")
        self.question = question
        self.partial = partial
        self.choices = (yes, no)

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node; costs the tokens of the question each."""
        found: dict[int, Score] = {}
        for complete, text in ((True, self.question), (False, self.partial)):
            asked = [i for i, node in enumerate(nodes) if node.complete is complete]
            if asked:
                readings = await models.read([nodes[i] for i in asked], text, self.choices)
                for i, reading in zip(asked, readings, strict=True):
                    found[i] = Score(_share(*reading) if reading else 0.5, (), self.name)
        return [found[i] for i in range(len(nodes))]


def _share(yes: float, no: float) -> float:
    """P(yes) / (P(yes) + P(no)) from the log-probabilities, without underflow; 1/2 if both are impossible."""
    if not (yes < math.inf and no < math.inf):  # also true for NaN
        raise BackendError("p_true read a probability that is not a number")
    if yes == no:
        return 0.5
    low, high = min(yes, no), max(yes, no)
    less = math.exp(low - high)
    return (1.0 if yes > no else less) / (1.0 + less)
