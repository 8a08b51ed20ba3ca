"""Grades that are made once: whatever a text is worth is kept beside it, so that a report runs nothing again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Literal, cast

from flyweight.store.units import Content, Unit, Units, fingerprint
from flyweight.trace import write as plain
from flyweight.types import Event, Grade, Node, Problem

__all__ = ["Grader"]


class Grader:
    """Grading behind the store. See `Store.grader`."""

    def __init__(self, units: Units, grade: Callable[[Problem, str], Grade], identity: str) -> None:
        self._units = units
        self._grade = grade
        self._identity = identity

    def grades(self, problem: Problem, nodes: Sequence[Node]) -> list[Grade]:
        """The grade of every path, in order. Each one made is committed before the next is begun.

        What grading raises passes through: the grades before it are kept, nothing of that one.
        """
        prefix = self._prefix(problem)
        return [self._find(prefix, node) or self._make(prefix, problem, node) for node in nodes]

    def known(self, problem: Problem, nodes: Sequence[Node]) -> list[Grade | None]:
        """The grades on record, in order, None where there is none yet."""
        prefix = self._prefix(problem)
        return [self._find(prefix, node) for node in nodes]

    def _find(self, prefix: bytes, node: Node) -> Grade | None:
        found = self._units.generation(_key(prefix, node))
        if found is None:
            return None
        unit, content = found
        return Grade(cast(Literal["correct", "wrong", "undecided"], unit.label), content.string)

    def _make(self, prefix: bytes, problem: Problem, node: Node) -> Grade:
        grade = self._grade(problem, node.solution)
        content = Content.of(grade.reason, (), (), ())
        unit = Unit(_key(prefix, node), "grade", self._units.moment, grade.value, content=content.sum)
        self._units.put([unit], [content])
        return grade

    def _prefix(self, problem: Problem) -> bytes:
        """Of the whole problem, with its answer: the same for one that was read back from a run."""
        # Through the form in which a run keeps it, where tuples are lists and foreign values their repr.
        meta = plain(Event("", "note", 0.0, facts=problem.meta)).get("facts", {})
        turns = [asdict(message) for message in problem.messages]
        whole = [self._identity, problem.id, problem.prompt, turns, problem.answer, meta]
        return fingerprint(b"grade", json.dumps(whole, sort_keys=True).encode("ascii"))


def _key(prefix: bytes, node: Node) -> bytes:
    return fingerprint(prefix, node.solution.encode("utf-8", "surrogatepass"))
