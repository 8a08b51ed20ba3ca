"""A run read back with the grade of everything in it: what reports and exports are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from flyweight.errors import BackendError, FlyweightError
from flyweight.protocols import Task
from flyweight.store import Sample, Search, Store
from flyweight.types import Finish, Grade, Node, Problem, Result

__all__ = [
    "GRADING",
    "NOT_GRADED",
    "GradedSample",
    "GradedSearch",
    "Grades",
    "Recorded",
    "graded_by",
    "identity",
    "one",
    "read",
    "truncated",
]

GRADING = 1
"""Version of how tasks grade: raised whenever the same text may get another grade."""
NOT_GRADED = Grade("undecided", "not graded")
"""What stands where `Recorded` finds nothing."""


class Grades(Protocol):
    """Where grades come from: a `store.Grader`, or `Recorded`."""

    def grades(self, problem: Problem, nodes: Sequence[Node]) -> list[Grade]:
        """The grade of every path, in order."""


class GradedSample(NamedTuple):
    """A candidate and what it is worth."""

    sample: Sample
    grade: Grade


class GradedSearch(NamedTuple):
    """A search and what it is worth."""

    result: Result
    grade: Grade
    """Of what was selected."""
    samples: tuple[GradedSample, ...]
    """Every candidate, in the order drawn."""


def identity(configuration: Mapping[str, Any]) -> str:
    """What the grades of a run are filed under: its task with its settings, and the version of grading."""
    return json.dumps([configuration.get("task"), configuration.get("settings") or {}, GRADING], sort_keys=True)


def truncated(node: Node) -> bool:
    """Whether the text was cut before its end."""
    return node.finish in (Finish.LENGTH, Finish.CUT)


def graded_by(task: Task, problem: Problem, text: str) -> Grade:
    """The task's grade. BackendError for whatever a task raises that is no error of ours."""
    try:
        return task.grade(problem, text)
    except FlyweightError:
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise BackendError(f"the task {task.name} cannot grade {problem.id}: {said}") from error


class Recorded:
    """The grades of a run that are on record; makes none, so that it needs no task and writes nothing."""

    def __init__(self, store: Store, configuration: Mapping[str, Any]) -> None:
        self.missing = 0
        """How many were not there: they came out as `NOT_GRADED`."""
        self._grader = store.grader(_never, identity(configuration))

    def grades(self, problem: Problem, nodes: Sequence[Node]) -> list[Grade]:
        """The grade of every path, in order."""
        known = self._grader.known(problem, nodes)
        self.missing += known.count(None)
        return [grade or NOT_GRADED for grade in known]


def read(store: Store, run_id: str, grader: Grades) -> Iterator[GradedSearch]:
    """Every search of a run, graded, by problem id, one in memory at a time.

    Nothing selected, a truncated text and one that states no answer are wrong and never reach the grader: they could
    not vote either. Raises what `Store.searches` and grading raise.
    """
    for search in store.searches(run_id):
        yield one(search, grader)


def _never(problem: Problem, text: str) -> Grade:
    raise BackendError("grades on record are read, not made")


def one(search: Search, grader: Grades) -> GradedSearch:
    """A search graded; see `read`."""
    result, samples = search.result, tuple(search.samples)
    said = [(sample.node, sample.answer) for sample in samples]
    grade, *grades = _grades(result.problem, [(result.best, result.answer), *said], grader)
    return GradedSearch(result, grade, tuple(map(GradedSample, samples, grades)))


def _grades(problem: Problem, said: list[tuple[Node | None, str | None]], grader: Grades) -> list[Grade]:
    answered = [node for node, answer in said if node is not None and answer is not None]
    given = iter(grader.grades(problem, answered))
    return [_silent(node) if node is None or answer is None else next(given) for node, answer in said]


def _silent(node: Node | None) -> Grade:
    """The grade of a text from which no answer was read."""
    return Grade("wrong", "truncated" if node is not None and truncated(node) else "no answer")
