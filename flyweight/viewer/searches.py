"""A search as the page reads it: its events as JSON objects, nodes by key, texts once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flyweight.trace import write
from flyweight.types import Event, Grade, digest

__all__ = ["events", "lean", "problem_key"]

Json = dict[str, Any]


def problem_key(problem_id: str) -> str:
    """What a problem is called in an address: 16 hex digits, whatever its id is made of."""
    return digest("problem", problem_id)[:16]


def lean(event: Event, known: set[str]) -> Json:
    """The event for the page: `trace.write`, with how many tokens a node has and their mean log-probability alone."""
    record = write(event, known)
    if "node" in record:
        _shorten(record["node"])
    if "result" in record:
        result = record["result"]
        for node in (result["best"], *(candidate["node"] for candidate in result["candidates"])):
            if node is not None:
                _shorten(node)
    return record


def events(found: Iterable[Event], grades: Mapping[str, Grade] | None = None) -> list[Json]:
    """All events of one search; the last also tells the grade of every candidate by its key, as far as known."""
    known: set[str] = set()
    records = [lean(event, known) for event in found]
    if records and grades:
        records[-1]["grades"] = {key: [grade.value, grade.reason] for key, grade in grades.items()}
    return records


def _shorten(node: Json) -> None:
    for above in node.get("path", ()):
        _shorten(above)
    if "tokens" in node:
        tokens: Sequence[int] | None = node.pop("tokens")
        node["tokens"] = None if tokens is None else len(tokens)
    logprobs = node.pop("logprobs", None)
    if logprobs:
        numbers = [float(value) for value in logprobs]
        node["logprob"] = round(sum(numbers) / len(numbers), 4)
    node.pop("certainty", None)
