"""Several verifiers as one: all of them at once, or a weighted mean."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from flyweight.errors import BackendError, ConfigError, unknown
from flyweight.protocols import Models, Verifier
from flyweight.spelling import opened, parts
from flyweight.types import Node, Problem, Score

__all__ = ["WAYS", "All", "Weighted"]

WAYS = ("product", "min")


class _Composed(ABC):
    """Asks its parts in order; a part counts with its `Score.value`, and no scores of steps come out."""

    name = ""

    def __init__(self, parts: Sequence[Verifier]) -> None:
        self.verifiers = tuple(parts)
        self.sees_answer = any(part.sees_answer for part in parts)
        self.reads_states = any(getattr(part, "reads_states", False) for part in parts)
        self.analysis_only = any(getattr(part, "analysis_only", False) for part in parts)

    @cached_property
    def params(self) -> int:
        """Of the largest part. Asked for late: a part may have to look into its weights for it."""
        return max(part.params for part in self.verifiers)

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node; costs what the parts cost. BackendError if one of them gives no proper score."""
        values: list[list[float]] = [[] for _ in nodes]
        for part in self.verifiers:
            asked = [i for i in range(len(nodes)) if not self._settled(values[i])]
            if not asked:
                break
            shown = problem if part.sees_answer else replace(problem, answer=None)
            scores = await part.score(shown, [nodes[i] for i in asked], models)
            if len(scores) != len(asked):
                raise BackendError(f"verifier {part.name} returned {len(scores)} scores for {len(asked)} candidates")
            for i, score in zip(asked, scores, strict=True):
                if not (isinstance(score.value, int | float) and 0 <= score.value <= 1):  # also false for NaN
                    raise BackendError(f"verifier {part.name} gave the score {score.value}; scores must lie in [0, 1]")
                values[i].append(score.value)
        return [Score(self._value(each), (), self.name) for each in values]

    def close(self) -> None:
        """Release what the parts have loaded."""
        for part in self.verifiers:
            if (close := getattr(part, "close", None)) is not None:
                close()

    def _settled(self, values: Sequence[float]) -> bool:
        """Whether the parts not asked yet can no longer change the score."""
        return False

    @abstractmethod
    def _value(self, values: Sequence[float]) -> float:
        """The score from those of the parts asked, in their order."""


class All(_Composed):
    """The product of several verifiers' scores, or the least of them (by=min): high only where all are.

    On the command line: `all:form:arithmetic`, `all:by=min:form:length(least=20:most=80)`. A part is asked only about
    candidates that none before it scored 0, so cheap parts come first: `all:form:judge`.

    Source: Several verifiers at once, as in Lifshitz et al. 2025, Multi-Agent Verification (2502.20379), whose
    approvals are counted rather than multiplied.
    """

    name = "all"

    def __init__(self, *, parts: Sequence[str | Verifier] = (), by: str = "product") -> None:
        """`parts`: names as on the command line, or verifiers."""
        if not parts:
            raise ConfigError("all needs the verifiers it is made of: all:form:arithmetic")
        if by not in WAYS:
            raise unknown("way to combine", by, WAYS)
        super().__init__([_made(part) for part in parts])
        self.by = by

    def _settled(self, values: Sequence[float]) -> bool:
        return 0.0 in values

    def _value(self, values: Sequence[float]) -> float:
        return min(values) if self.by == "min" else math.prod(values)


class Weighted(_Composed):
    """The weighted mean of several verifiers' scores.

    On the command line: `weighted:arithmetic=2:form=1`, `weighted:judge(criteria=writing)=3:repetition=1`. Weights are
    above 0; only their ratios matter.

    Source: Weighted reward signals, as in Wang et al. 2024, Interpretable Preferences (2406.12845), with fixed weights.
    """

    name = "weighted"

    def __init__(self, *, parts: Sequence[tuple[str | Verifier, float]] = ()) -> None:
        """`parts`: (name as on the command line, or verifier; weight)."""
        if not parts:
            raise ConfigError("weighted needs verifiers and their weights: weighted:arithmetic=2:form=1")
        for part, weight in parts:
            if not 0 < weight < math.inf:
                name = part if isinstance(part, str) else part.name
                raise ConfigError(f"weighted: {name}={weight:g} is not allowed: a weight above 0")
        super().__init__([_made(part) for part, _ in parts])
        self.weights = tuple(weight for _, weight in parts)

    def _value(self, values: Sequence[float]) -> float:
        total = math.fsum(w * value for w, value in zip(self.weights, values, strict=True)) / math.fsum(self.weights)
        return min(1.0, total)  # rounding must not leave [0, 1]


def parse(name: str, text: str) -> dict[str, object]:
    """The settings of `all` or `weighted` from what stands behind its name on a command line."""
    made_of: list[object] = []
    found: dict[str, object] = {}
    for part in parts(text, ":"):
        head, equals, last = part.rpartition("=")
        if name == "all" and part.startswith("by="):
            found["by"] = last
        elif name == "all":
            made_of.append(_inner(part))
        else:
            try:
                weight = float(last)
            except ValueError:
                weight = math.nan
            if not equals or math.isnan(weight):
                raise ConfigError(f"weighted: {part!r} has no weight: write for example weighted:arithmetic=2:form=1")
            made_of.append((_inner(head), weight))
    return {**found, "parts": made_of}


def _inner(part: str) -> str:
    if not part.strip():
        raise ConfigError("a part of a composed verifier is empty: all:form:arithmetic")
    return opened(part)


def _made(part: str | Verifier) -> Verifier:
    from flyweight.verifiers import load  # the registry imports this module by name

    return load(part) if isinstance(part, str) else part
