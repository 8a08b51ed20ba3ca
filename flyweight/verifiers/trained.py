"""What process and outcome reward models have in common: a recipe, and a model that is loaded when it is needed."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Models
from flyweight.types import Node, Problem, Score
from flyweight.verifiers.recipes import Kind, find, shipped

__all__ = ["Closing", "Rated", "Trained", "whole"]

log = logging.getLogger("flyweight")


class Closing(Protocol):
    """Whatever holds a model's weights."""

    def close(self) -> None:
        """Release them."""


Backend = TypeVar("Backend", bound=Closing)


class Rated(NamedTuple):
    """What came of one solution."""

    value: float
    """In [0, 1]; 0 for a solution without text."""
    steps: tuple[float, ...]
    """One per step, in [0, 1]; none from an outcome model."""
    tokens: int
    """Computed for it now."""


class Trained(ABC, Generic[Kind, Backend]):
    """A verifier that reads a model of its own by a recipe."""

    sees_answer = False
    __slots__ = ("__dict__", "_backend", "_params", "recipe")
    # Settings are in __dict__, where a store reads what scores depend on; the model and what is known are not.

    def __init__(self, family: str, kind: type[Kind], recipe: str, model: str, batch: int) -> None:
        if not recipe:
            known = ", ".join(shipped(kind))
            raise ConfigError(
                f"{family} needs a recipe and a model: {family}:RECIPE@MODEL (recipes: {known}, or FILE.toml)"
            )
        self.recipe: Kind = find(kind, recipe)
        self.model = model or self.recipe.model
        if not self.model:
            raise ConfigError(f"{family}:{recipe} needs a model: {family}:{recipe}@FOLDER, or @hf:org/repo")
        self.name = f"{family}:{self.recipe.name}"
        self.told = repr(self.recipe)
        """The whole recipe: with the settings, what scores depend on."""
        self.batch = whole("batch", batch, 1)
        self._params: int | None = None
        self._backend: Backend | None = None

    @property
    def params(self) -> int:
        """Parameters behind each verifier token, read from the model's files without loading it."""
        if self._params is None:
            self._params = self._size()
        return self._params

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node. ModelError or BackendError if the model cannot say."""
        rated = self.rate(problem.prompt, [node.solution for node in nodes])
        models.spent(sum(each.tokens for each in rated))
        return [Score(each.value, each.steps, self.name) for each in rated]

    def example(self) -> tuple[float, float]:
        """Values of the right and the wrong solution of the recipe's example; loads the model."""
        if self._backend is None:
            self._backend = self._load()
        example = self.recipe.example
        good, bad = self.rate(example.question, [example.good, example.bad])
        return good.value, bad.value

    def close(self) -> None:
        """Release the model; it is loaded again when a score is asked for."""
        if self._backend is not None:
            self._backend.close()
        self._backend = None

    def _loaded(self) -> Backend:
        if self._backend is None:
            good, bad = self.example()
            if good <= bad:
                log.warning(
                    "%s gives a right solution %.3f and a wrong one %.3f: the model may not fit its recipe",
                    *(self.name, good, bad),
                )
        assert self._backend is not None
        return self._backend

    def _checked(self, value: float) -> float:
        if not 0 <= value <= 1:  # also true for NaN
            raise BackendError(f"{self.name} gave the score {value}; scores must lie in [0, 1]")
        return value

    @abstractmethod
    def rate(self, question: str, solutions: Sequence[str]) -> list[Rated]:
        """What each solution scores, and what that cost."""

    @abstractmethod
    def _load(self) -> Backend:
        """The model."""

    @abstractmethod
    def _size(self) -> int:
        """Parameters that work on every token."""


def whole(setting: str, value: object, least: int) -> int:
    """The value; ConfigError unless it is a whole number from `least`."""
    if not isinstance(value, int) or value < least:
        raise ConfigError(f"{setting}={value!r} is not allowed: a whole number from {least}")
    return value
