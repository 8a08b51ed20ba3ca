"""Any Python callable as a verifier: tests, rules, a call to something of your own."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import cast

from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Models, Verifier
from flyweight.registry import build
from flyweight.types import Node, Problem, Score

__all__ = ["Function", "load_function"]


class Function:
    """Wraps `f(question, solution)`, which returns a number in [0, 1], or one per step.

    For a list, `Score.steps` holds it as it is, in steps as the function sees them, and `Score.value` its last
    number. The question is `Problem.prompt`; the known answer is never shown.
    """

    params = 0
    sees_answer = False

    def __init__(self, function: Callable[[str, str], object], *, name: str = "") -> None:
        """`name` is what scores and records call it: the function's own by default."""
        self.function = function
        self.name = name or getattr(function, "__name__", type(function).__name__)

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node; costs no tokens. BackendError if the function fails or returns anything else."""
        return [self._score(problem.prompt, node.solution) for node in nodes]

    def _score(self, question: str, solution: str) -> Score:
        try:
            returned = self.function(question, solution)
        except Exception as error:
            raise BackendError(f"verifier {self.name} failed: {type(error).__name__}: {error}") from error
        if isinstance(returned, Real):
            return Score(self._number(returned), (), self.name)
        if isinstance(returned, Iterable) and not isinstance(returned, str | bytes | Mapping):
            steps = tuple(self._number(number) for number in returned)
            if steps:
                return Score(steps[-1], steps, self.name)
        raise self._wrong(returned)

    def _number(self, returned: object) -> float:
        if not isinstance(returned, Real) or not 0 <= (number := float(returned)) <= 1:  # also false for NaN
            raise self._wrong(returned)
        return number

    def _wrong(self, returned: object) -> BackendError:
        shown = repr(returned)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return BackendError(f"verifier {self.name} returned {shown}: must be a number in [0, 1], or one per step")


def load_function(name: str, settings: Mapping[str, object]) -> Verifier:
    """The verifier named "module:attribute", looked for in the current folder too.

    The attribute is a callable of (question, solution), a Verifier, or a class that makes one from the settings.
    """
    module_name, _, attribute = name.partition(":")
    with _current_folder():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:
            raise ConfigError(f"verifier {name!r}: cannot import {module_name!r}: {error}") from error
    found: object = getattr(module, attribute, None)
    if found is None:
        raise ConfigError(f"verifier {name!r}: {module_name} has no {attribute!r}")
    if isinstance(found, type) and hasattr(found, "score"):
        return cast(Verifier, build(f"verifier {name}", found, settings))
    if settings:
        raise ConfigError(f"verifier {name!r} takes no settings (given: {', '.join(settings)})")
    if hasattr(found, "score"):
        return cast(Verifier, found)
    if not callable(found):
        raise ConfigError(f"verifier {name!r} is not callable: write a function of (question, solution)")
    return Function(found, name=name)


@contextlib.contextmanager
def _current_folder() -> Iterator[None]:
    """Modules of the current folder can be imported, after all installed ones: a script's folder is not ours."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
