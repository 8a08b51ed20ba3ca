"""The tasks by name: one file per benchmark, one line each in the table below.

Each is a class made as `Task(data=path or None)`; summary and source are read from its docstring. Third parties
register theirs under the entry point group `flyweight.tasks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from flyweight.protocols import Task
from flyweight.registry import Description, Registry

__all__ = ["describe", "load", "names"]

_REGISTRY = Registry("task", "flyweight.tasks", {"gsm8k": "flyweight.tasks.gsm8k:GSM8K"})


def names() -> list[str]:
    """Every registered task: ours in the order of the table, then third parties' by name."""
    return _REGISTRY.names()


def load(name: str, data: Path | None = None) -> Task:
    """The task of that name, with the problems in `data` or, for None, those that come with the package.

    Raises ConfigError for an unknown name (with the closest match) or a file that cannot be read as that task's.
    """
    return cast(Task, _REGISTRY.make(name, {"data": data}))


def describe() -> list[Description]:
    """Name, summary and source of every registered task."""
    return _REGISTRY.describe()
