"""The tasks by name: one file per benchmark, one line each in the table below.

Each is a class made as `Task(data=path or None)`, with `split=` where one is asked for and the task's own settings;
summary and source are read from its docstring. Third parties register theirs under the entry point group
`flyweight.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

from flyweight.errors import ConfigError
from flyweight.protocols import Task
from flyweight.registry import Description, Registry
from flyweight.types import Problem

__all__ = ["describe", "factory", "load", "names", "pick"]

_REGISTRY = Registry(
    "task",
    "flyweight.tasks",
    {
        "gsm8k": "flyweight.tasks.gsm8k:GSM8K",
        "math500": "flyweight.tasks.math500:MATH500",
        "aime24": "flyweight.tasks.aime24:AIME24",
        "aime25": "flyweight.tasks.aime25:AIME25",
        "amc23": "flyweight.tasks.amc23:AMC23",
        "humaneval": "flyweight.tasks.humaneval:HumanEval",
        "mbpp": "flyweight.tasks.mbpp:MBPP",
        "countdown": "flyweight.tasks.countdown:Countdown",
        "jsonl": "flyweight.tasks.jsonl:JSONL",
    },
)


def names() -> list[str]:
    """Every registered task: ours in the order of the table, then third parties' by name."""
    return _REGISTRY.names()


def load(name: str, data: Path | None = None, split: str | None = None, **settings: object) -> Task:
    """The task of that name, with the problems in `data` or, for None, those that come with the package.

    `split` names one of the task's splits; None is its default (docs/tasks.md). Other settings are the task's own:
    `checker` of jsonl; `count`, `numbers`, `operations`, `largest` and `seed` of countdown. Raises ConfigError for an
    unknown name, split or setting (with the closest match), or a file that cannot be read as that task's.
    """
    if split is not None:
        settings["split"] = split
    return cast(Task, _REGISTRY.make(name, {"data": data, **settings}))


def factory(name: str) -> Callable[..., object]:
    """What makes the task of that name; ConfigError with the closest match for an unknown one."""
    return _REGISTRY.factory(name)


def describe() -> list[Description]:
    """Name, summary and source of every registered task."""
    return _REGISTRY.describe()


def pick(problems: Iterable[Problem], count: int, by: str = "") -> list[Problem]:
    """`count` of the problems, in the order of their ids' hash: nobody picks, and fewer are always among more.

    With `by`, a name in `meta` (such as "level"), its values take turns in proportion to how many problems have
    each. ConfigError when there are fewer than `count`, or for a name some problem lacks.
    """
    from flyweight.tasks.files import sha

    ordered = sorted(problems, key=lambda problem: sha(problem.id))
    if not 0 <= count <= len(ordered):
        raise ConfigError(f"{count} problems wanted of {len(ordered)}")
    if by and not all(by in problem.meta for problem in ordered):
        raise ConfigError(f"not every problem has {by!r} in its meta")
    groups: dict[str, list[Problem]] = {}
    for problem in ordered:
        groups.setdefault(str(problem.meta[by]) if by else "", []).append(problem)
    # The i-th of a group of g comes at (i + 1/2) / g of the way: every prefix is as near to proportional as it can be.
    places = [((i + 0.5) / len(group), value, i) for value, group in groups.items() for i in range(len(group))]
    return [groups[value][i] for _, value, i in sorted(places)[:count]]
