"""A run read back with the grade of everything in it: what reports and exports are made of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from flyweight.store import Grader, Sample, Search, Store
from flyweight.types import Finish, Grade, Node, Problem, Result

__all__ = ["GRADING", "GradedSample", "GradedSearch", "identity", "read"]

GRADING = 1
"""Version of how tasks grade: raised whenever the same text may get another grade."""


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
    return json.dumps([configuration["task"], configuration.get("settings") or {}, GRADING], sort_keys=True)


def read(store: Store, run_id: str, grader: Grader) -> Iterator[GradedSearch]:
    """Every search of a run, graded, by problem id, one in memory at a time.

    Nothing selected, a truncated text and one that states no answer are wrong and never reach the grader: they could
    not vote either. Raises what `Store.searches` and grading raise.
    """
    for search in store.searches(run_id):
        yield _graded(search, grader)


def _graded(search: Search, grader: Grader) -> GradedSearch:
    result, samples = search.result, tuple(search.samples)
    said = [(sample.node, sample.answer) for sample in samples]
    grade, *grades = _grades(result.problem, [(result.best, result.answer), *said], grader)
    return GradedSearch(result, grade, tuple(map(GradedSample, samples, grades)))


def _grades(problem: Problem, said: list[tuple[Node | None, str | None]], grader: Grader) -> list[Grade]:
    answered = [node for node, answer in said if node is not None and answer is not None]
    given = iter(grader.grades(problem, answered))
    return [_silent(node) if node is None or answer is None else next(given) for node, answer in said]


def _silent(node: Node | None) -> Grade:
    """The grade of a text from which no answer was read."""
    truncated = node is not None and node.finish in (Finish.LENGTH, Finish.CUT)
    return Grade("wrong", "truncated" if truncated else "no answer")
