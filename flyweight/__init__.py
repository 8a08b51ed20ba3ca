"""Flyweight makes a small language model punch above its weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyweight.api import Session, solve
    from flyweight.errors import FlyweightError
    from flyweight.types import Budget, Message, Problem, Result, Usage

__version__ = "0.1.0"

__all__ = ["Budget", "FlyweightError", "Message", "Problem", "Result", "Session", "Usage", "solve"]

_HOME = {
    "Session": "api",
    "solve": "api",
    "FlyweightError": "errors",
    "Budget": "types",
    "Message": "types",
    "Problem": "types",
    "Result": "types",
    "Usage": "types",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that `import flyweight` costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'flyweight' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"flyweight.{_HOME[name]}"), name)
