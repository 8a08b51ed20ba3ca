"""A run on record: every event as one JSON object a line, and the results read back from it.

Lines are written as the events happen and flushed one by one, so a killed run leaves every line it got to; a line
cut in the middle is skipped by the reader. Nodes refer to their parents by key; a node that no event announced, such
as forced text or a prompt of the strategy's own, stands inside the first node that needs it. Not recorded: hidden
states, and what could have been drawn instead (`Node.alternatives`). Numbers that JSON lacks are written as the strings
"nan", "inf", "-inf"; lone surrogates survive as escapes, except that a high one directly before a low one is read back
as the character they encode.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO, cast

from flyweight.errors import BackendError, ConfigError
from flyweight.types import Candidate, Event, Finish, Message, Node, Problem, Result, Score, Stopped, ToolMessage, Usage

__all__ = ["Writer", "read", "write"]

Json = dict[str, Any]


DATABASE = (b"SQLite format 3\0", b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83")
"""How a store begins, and what was written to it last."""


class Writer:
    """Writes the events it is called with to a file, opened (and emptied) at once."""

    def __init__(self, path: Path) -> None:
        """ConfigError if the file cannot be written, or is a store."""
        self.path = path
        self.error: OSError | None = None
        self._known: dict[str, set[str]] = {}
        try:
            if path.is_file() and _head(path).startswith(DATABASE):
                raise ConfigError(f"{path} is a store: name another file for the trace")
            self._file: TextIO = path.open("w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"cannot write the trace {path}: {error.strerror or error}") from error

    def __call__(self, event: Event) -> None:
        """Append one event. A disk that fills up ends the record, not the search: leaving the context says so."""
        if event.kind == "start":
            self._known[event.problem_id] = set()
        if self.error is None:
            try:
                line = json.dumps(write(event, self._known.setdefault(event.problem_id, set())))
                self._file.write(line + "\n")
                self._file.flush()
            except OSError as error:
                self.error = error
        if event.kind == "end":
            self._known.pop(event.problem_id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file. Raises BackendError if the record is incomplete, unless something else went wrong."""
        try:
            self._file.close()
        except OSError as failure:
            self.error = self.error or failure
        if self.error is not None and error is None:
            raise BackendError(f"the trace {self.path} is incomplete: {self.error.strerror or self.error}")


def write(event: Event, known: set[str] | None = None) -> Json:
    """The event as an object of JSON's own types.

    `known` holds the keys of the nodes already on record for this problem, and is added to; without it the object
    repeats every node it needs and can be read by itself.
    """
    seen = set() if known is None else known
    record: Json = {"problem_id": event.problem_id, "kind": event.kind, "at": _plain(event.at)}
    if event.node is not None:
        record["node"] = _node(event.node, seen)
    facts = dict(event.facts)
    result = facts.pop("result", None) if event.kind == "end" else None
    if facts:
        record["facts"] = _plain(facts)
    if isinstance(result, Result):
        record["result"] = _result(result, seen)
    return record


def read(path: Path) -> list[Result]:
    """The results of every finished search of a trace, in the order they ended.

    Raises ConfigError naming the line that is not a trace's; a last line cut short is passed over.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the trace {path}: {error}") from error
    nodes: dict[str, dict[str, Node]] = {}
    results = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            problem_id = record["problem_id"]
            if record["kind"] == "start":
                nodes[problem_id] = {}
            known = nodes.setdefault(problem_id, {})
            if "node" in record:
                _read_node(record["node"], known)
            if "result" in record:
                results.append(_read_result(record["result"], known))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if number == len(lines):  # the writer was killed within it: a whole line ends in a newline
                break
            raise ConfigError(
                f"{path}, line {number}: not a line of a trace ({type(error).__name__}: {error})"
            ) from error
    return results


# Writing -----------------------------------------------------------------------------------------------------


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


def _node(node: Node, seen: set[str]) -> Json:
    """A node in full the first time, afterwards its key with the score it has by then."""
    score = {} if node.score is None else {"score": _plain(asdict(node.score))}
    if node.key in seen:
        return {"key": node.key, **score}
    record: Json = {"key": node.key, **score}
    # From the root down, so that a long path needs no deep recursion.
    unseen = []
    above = node.parent
    while above is not None and above.key not in seen:
        unseen.append(above)
        above = above.parent
    if unseen:
        record["path"] = [_node(ancestor, seen) for ancestor in reversed(unseen)]
    seen.add(node.key)
    if node.parent is not None:
        record["parent"] = node.parent.key
    if node.messages:
        record["messages"] = [asdict(message) for message in node.messages]
    for name in ("text", "tokens", "logprobs", "certainty", "finish", "draw", "policy"):
        value = getattr(node, name)
        if value not in ("", (), 0) or name == "tokens":
            record[name] = _plain(value)
    return record


def _result(result: Result, seen: set[str]) -> Json:
    problem = result.problem
    return {
        "problem": {
            "id": problem.id,
            "prompt": problem.prompt,
            "messages": [asdict(message) for message in problem.messages],
            "answer": problem.answer,
            "meta": _plain(problem.meta),
        },
        "best": None if result.best is None else _node(result.best, seen),
        "answer": result.answer,
        "candidates": [
            {"node": _node(c.node, seen), "answer": c.answer, "class": c.answer_class} for c in result.candidates
        ],
        "usage": _plain(asdict(result.usage)),
        "stopped": result.stopped.value,
        "confidence": _plain(result.confidence),
        **({"calibrated": True} if result.calibrated else {}),
        **({} if result.sure else {"sure": False}),
        **({"explained": _plain(result.explained)} if result.explained else {}),
        "error": result.error,
    }


def _plain(value: object) -> Any:
    """JSON's own types: nodes become their keys, dataclasses objects, and what is foreign its `repr`."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Node):
        return value.key
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return repr(value)


# Reading -----------------------------------------------------------------------------------------------------


def _read_node(record: Json, known: dict[str, Node]) -> Node:
    """The node a record stands for, remembered under its key."""
    for ancestor in record.get("path", ()):
        _read_node(ancestor, known)
    key = record["key"]
    if key not in known:
        parent = record.get("parent")
        tokens = record["tokens"]
        finish = record.get("finish")
        known[key] = Node(
            parent=None if parent is None else known[parent],
            text=record.get("text", ""),
            tokens=None if tokens is None else tuple(tokens),
            logprobs=tuple(map(float, record.get("logprobs", ()))),
            certainty=tuple(map(float, record.get("certainty", ()))),
            finish=None if finish is None else Finish(finish),
            key=key,
            draw=record.get("draw", 0),
            policy=record.get("policy", ""),
            messages=_messages(record.get("messages", ())),
        )
    score = record.get("score")
    if score is not None:
        steps = tuple(map(float, score["steps"]))
        known[key] = replace(known[key], score=Score(float(score["value"]), steps, score["kind"]))
    return known[key]


def _read_result(record: Json, known: dict[str, Node]) -> Result:
    problem = record["problem"]
    best = None if record["best"] is None else _read_node(record["best"], known)
    candidates = [(_read_node(c["node"], known), c) for c in record["candidates"]]
    confidence = record["confidence"]
    return Result(
        problem=Problem(
            problem["id"],
            problem["prompt"],
            _messages(problem["messages"]),
            problem["answer"],
            problem["meta"],
        ),
        best=best,
        answer=record["answer"],
        candidates=tuple(Candidate(node, c["answer"], c["class"]) for node, c in candidates),
        usage=Usage(**record["usage"]),
        stopped=Stopped(record["stopped"]),
        confidence=None if confidence is None else float(confidence),
        calibrated=record.get("calibrated", False),
        sure=record.get("sure", True),
        explained=record.get("explained", {}),
        error=record["error"],
    )


def _messages(records: object) -> tuple[Message, ...]:
    return tuple((ToolMessage if "tools" in m else Message)(**m) for m in cast("list[Json]", records))
