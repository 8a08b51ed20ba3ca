"""How sure the policy was of what it wrote: free verifiers that read what generation recorded anyway.

Only drawn tokens count; forced text was nobody's choice. `Score.steps` holds, per step, the value of the path up to
the end of that step, so that the default aggregation (`last`) ranks by `Score.value`. A path on which nothing was
drawn scores NEUTRAL.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import accumulate

from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Models
from flyweight.types import Node, Problem, Score

__all__ = ["NEUTRAL", "Confidence", "ConfidenceWindow", "SelfCertainty"]

NEUTRAL = 0.5
"""Score of a path that holds no evidence either way."""
FLOOR = -100.0
"""No token counts for less than exp(-100): keeps differences of sums finite when a log-probability is -inf."""


class _Recorded(ABC):
    """A verifier that is a function of one recorded number per drawn token."""

    name = ""
    params = 0
    sees_answer = False

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node; costs no tokens. BackendError if the policy recorded nothing for tokens it drew."""
        return [self._score(node) for node in nodes]

    def _score(self, node: Node) -> Score:
        numbers: list[float] = []
        ends: list[int] = []
        for step in node.steps:
            numbers += self._numbers(step)
            ends.append(len(numbers))
        values = tuple(self._values(numbers, ends))
        return Score(values[-1] if values else NEUTRAL, values, self.name)

    def _numbers(self, step: Node) -> Sequence[float]:
        """What was recorded per drawn token of one step."""
        return _checked(self.name, step, step.logprobs, "log-probabilities", high=1e-3)

    @abstractmethod
    def _values(self, numbers: Sequence[float], ends: Sequence[int]) -> Iterator[float]:
        """The value in [0, 1] of the path's first `end` tokens, for each end."""


class Confidence(_Recorded):
    """Geometric-mean probability of the drawn tokens: exp(mean log-probability) along the path.

    Ranks as the length-normalised likelihood does; nothing is spent.

    Source: Length-normalised likelihood; as a ranker of samples see Wang et al. 2022 (2203.11171).
    """

    name = "confidence"

    def _values(self, numbers: Sequence[float], ends: Sequence[int]) -> Iterator[float]:
        sums = _sums(numbers)
        return (_probability(sums[end] / end) if end else NEUTRAL for end in ends)


class ConfidenceWindow(_Recorded):
    """Geometric-mean token probability of the least sure stretch of `window` tokens on the path.

    A group is `window` consecutive drawn tokens, sliding by one; a path shorter than that is a single group.
    Deviations from DeepConf: a token's confidence is the log-probability of the token drawn, not the mean over the
    k most likely; the window is 32 tokens rather than 1,024 or more, since small models answer in a few hundred; the
    result is mapped to [0, 1] by exp, which keeps the ranking.

    Source: Fu et al. 2025, Deep Think with Confidence (2508.15260): lowest group confidence.
    """

    name = "confidence-window"

    def __init__(self, *, window: int = 32) -> None:
        """`window` in tokens, at least 1."""
        self.window = _whole("window", window)

    def _values(self, numbers: Sequence[float], ends: Sequence[int]) -> Iterator[float]:
        sums = _sums(numbers)
        groups = ((sums[i + self.window] - sums[i]) / self.window for i in range(len(numbers) - self.window + 1))
        lowest = list(accumulate(groups, min))  # lowest[i]: over the groups among the first i + window tokens
        for end in ends:
            if end >= self.window:
                yield _probability(lowest[end - self.window])
            else:
                yield _probability(sums[end] / end) if end else NEUTRAL


class SelfCertainty(_Recorded):
    """Mean over the drawn tokens of KL(uniform || model), how far the model was from guessing.

    The mean of x nats becomes 1 - exp(-x / scale): monotone, so the ranking is the paper's, in [0, 1). The scale
    (20 nats by default) only sets where the middle lies; the KL of a peaked distribution over 150,000 tokens is
    typically 10 to 30.

    Source: Kang et al. 2025, Scalable Best-of-N Selection via Self-Certainty (2502.18581).
    """

    name = "self-certainty"

    def __init__(self, *, scale: float = 20.0) -> None:
        """`scale` in nats, above 0."""
        if not 0 < scale < math.inf:
            raise ConfigError(f"scale={scale!r} is not allowed: a number of nats above 0")
        self.scale = scale

    def _numbers(self, step: Node) -> Sequence[float]:
        return _checked(self.name, step, step.certainty, "self-certainties", low=-1e-3)

    def _values(self, numbers: Sequence[float], ends: Sequence[int]) -> Iterator[float]:
        sums = [0.0, *accumulate(numbers)]
        return (-math.expm1(-max(0.0, sums[end] / end) / self.scale) if end else NEUTRAL for end in ends)


def _checked(
    name: str,
    step: Node,
    numbers: Sequence[float],
    what: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
) -> Sequence[float]:
    """The numbers, if there is one per drawn token and none is out of range (a rounding error is let pass)."""
    drawn = len(step.tokens or ())
    policy = step.policy or "the policy"
    if len(numbers) != drawn:
        raise BackendError(f"{name} needs {what}, but {policy} recorded {len(numbers)} for {drawn} tokens")
    if not all(low <= number <= high for number in numbers):  # also false for NaN
        raise BackendError(f"{name} cannot use the {what} of {policy}: one is NaN or has the wrong sign")
    return numbers


def _sums(logprobs: Sequence[float]) -> list[float]:
    """Running sums, starting at 0, of the floored log-probabilities."""
    return [0.0, *accumulate(max(logprob, FLOOR) for logprob in logprobs)]


def _probability(logprob: float) -> float:
    return math.exp(min(logprob, 0.0))


def _whole(name: str, value: int) -> int:
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{name}={value!r} is not allowed: a whole number from 1")
    return value
