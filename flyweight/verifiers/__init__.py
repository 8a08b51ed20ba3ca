"""The verifiers by name: one file per family, one line each in the table below.

Each is a class whose keyword parameters are its settings; summary and source are read from its docstring. Third
parties register theirs under the entry point group `flyweight.verifiers`; without any packaging, "module:function"
names a Python callable (see `flyweight.verifiers.function`).
"""

from __future__ import annotations

from typing import cast

from flyweight.protocols import Verifier
from flyweight.registry import Description, Registry

__all__ = ["describe", "load", "names"]

_REGISTRY = Registry(
    "verifier",
    "flyweight.verifiers",
    {
        "confidence": "flyweight.verifiers.confidence:Confidence",
        "confidence-window": "flyweight.verifiers.confidence:ConfidenceWindow",
        "self-certainty": "flyweight.verifiers.confidence:SelfCertainty",
        "p_true": "flyweight.verifiers.p_true:PTrue",
        "arithmetic": "flyweight.verifiers.arithmetic:Arithmetic",
        "tests": "flyweight.verifiers.execution:Tests",
        "oracle": "flyweight.verifiers.oracle:Oracle",
    },
)


def names() -> list[str]:
    """Every registered verifier: ours in the order of the table, then third parties' by name."""
    return _REGISTRY.names()


def load(name: str, **settings: object) -> Verifier:
    """The verifier of that name, or the Python callable named "module:function".

    Raises ConfigError for an unknown name (with the closest match), an unknown setting, or a value it refuses.
    """
    if ":" in name:
        from flyweight.verifiers.function import load_function

        return load_function(name, settings)
    return cast(Verifier, _REGISTRY.make(name, settings))


def describe() -> list[Description]:
    """Name, summary and source of every registered verifier, then a row for any Python callable."""
    anything = Description("module:function", "Any Python callable f(question, solution) -> number in [0, 1].", "")
    return [*_REGISTRY.describe(), anything]
