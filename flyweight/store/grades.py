"""Grades that are made once: whatever a text is worth is kept beside it, so that a report runs nothing again."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Literal, cast

from flyweight.errors import FlyweightError
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
        self._retried: dict[bytes, Grade] = {}
        """Undecided again, by key: one grader asks once, and what takes all its time is not asked at every sight."""

    def grades(self, problem: Problem, nodes: Sequence[Node]) -> list[Grade]:
        """The grade of every path, in order. Each one made is committed before the next is begun.

        One on record with `retry` is made again, unless the store is only to be read. What grading raises passes
        through: the grades before it are kept, nothing of that one.
        """
        prefix = self._prefix(problem)
        return [self._grade_of(_key(prefix, node), problem, node.solution) for node in nodes]

    def known(self, problem: Problem, nodes: Sequence[Node]) -> list[Grade | None]:
        """The grades on record, in order, None where there is none yet."""
        prefix = self._prefix(problem)
        return [self._find(_key(prefix, node)) for node in nodes]

    def _grade_of(self, key: bytes, problem: Problem, text: str) -> Grade:
        if key in self._retried:
            return self._retried[key]
        known = self._find(key)
        if known is not None and not (known.retry and self._units.writable):
            return known
        try:
            grade = self._grade(problem, text)
        except FlyweightError:
            if known is None:
                raise
            grade = known  # its task is gone, say: what is on record stands
        if grade.retry:
            self._retried[key] = grade
        if known is None or not grade.retry:
            content = Content.of(grade.reason, (), (), ())
            label = "retry" if grade.retry else grade.value
            self._units.put([Unit(key, "grade", self._units.moment, label, content=content.sum)], [content])
        return grade

    def _find(self, key: bytes) -> Grade | None:
        found = self._units.generation(key)
        if found is None:
            return None
        unit, content = found
        if unit.label == "retry":
            return Grade("undecided", content.string, retry=True)
        return Grade(cast(Literal["correct", "wrong", "undecided"], unit.label), content.string)

    def _prefix(self, problem: Problem) -> bytes:
        """Of the whole problem, with its answer: the same for one that was read back from a run."""
        # Through the form in which a run keeps it, where tuples are lists and foreign values their repr.
        meta = plain(Event("", "note", 0.0, facts=problem.meta)).get("facts", {})
        turns = [asdict(message) for message in problem.messages]
        whole = [self._identity, problem.id, problem.prompt, turns, problem.answer, meta]
        return fingerprint(b"grade", json.dumps(whole, sort_keys=True).encode("ascii"))


def _key(prefix: bytes, node: Node) -> bytes:
    return fingerprint(prefix, node.solution.encode("utf-8", "surrogatepass"))
