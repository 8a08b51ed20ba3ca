"""One search on record: written down event by event, packed, and read back as it was.

Texts and numbers of its nodes are among the contents; the record holds the rest.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from flyweight.store.units import Content, Units, unpack
from flyweight.trace import write as plain
from flyweight.types import Candidate, Event, Finish, Message, Node, Problem, Result, Score, Stopped, ToolMessage, Usage

__all__ = [
    "Book",
    "Outline",
    "Sample",
    "Search",
    "Vote",
    "pack_record",
    "read_outline",
    "read_record",
    "unpack_record",
]

Json = dict[str, Any]

EMPTY = Content(b"", b"", b"", b"")


class Sample(NamedTuple):
    """A candidate of one search, as it is exported."""

    problem_id: str
    sample: int
    """Its place among the problem's candidates, in the order drawn."""
    node: Node
    answer: str | None
    answer_class: int | None
    scores: tuple[Score, ...]
    """Everything verifiers said about it, in order."""


class Vote(NamedTuple):
    """A candidate without its text."""

    score: float | None
    answer: str | None
    answer_class: int | None


class Outline(NamedTuple):
    """A search without the texts that were not selected."""

    result: Result
    """Its candidates left out."""
    votes: tuple[Vote, ...]
    """The candidates, in the order drawn."""


class Search(NamedTuple):
    """A search read back."""

    result: Result
    nodes: dict[str, Node]
    """By key, every node with its last score."""
    log: list[list[Any]]
    """Its events: kind, time, key of the node, score the node had, facts."""

    @property
    def tree(self) -> list[Node]:
        """The nodes in the order drawn, whatever the order in which they came."""
        return sorted(self.nodes.values(), key=lambda node: (node.order, node.key))

    @property
    def events(self) -> list[Event]:
        """As they happened, progress left out."""
        events = []
        for kind, at, key, score, facts in self.log:
            node = None if key is None else _scored(self.nodes, key, score)
            facts = {"result": self.result} if kind == "end" else facts or {}
            events.append(Event(self.result.problem.id, kind, at, node, facts))
        return events

    @property
    def samples(self) -> Iterator[Sample]:
        """The candidates with their scores."""
        scores: dict[str, list[Score]] = {}
        for kind, _, key, score, _ in self.log:
            if kind == "score" and (said := _score(score)) is not None:
                scores.setdefault(key, []).append(said)
        for number, candidate in enumerate(self.result.candidates):
            node, said_of_it = candidate.node, tuple(scores.get(candidate.node.key, ()))
            yield Sample(self.result.problem.id, number, node, candidate.answer, candidate.answer_class, said_of_it)


@dataclass
class Book:
    """A search being written down."""

    nodes: dict[str, Json] = field(default_factory=dict)
    contents: list[Content] = field(default_factory=list)
    log: list[list[Any]] = field(default_factory=list)

    def event(self, event: Event) -> None:
        """Take in one event."""
        node = event.node
        facts = plain(replace(event, node=None))["facts"] if event.facts and event.kind != "end" else None
        self.log.append([event.kind, event.at, *(self.node(node) if node is not None else (None, None)), facts])

    def node(self, node: Node) -> tuple[str, list[Any] | None]:
        """The node's key and score; its path is on record from then on."""
        above: list[Node] = []
        step: Node | None = node
        while step is not None and step.key not in self.nodes:
            above.append(step)
            step = step.parent
        for step in reversed(above):
            entry: Json = {"parent": step.parent.key if step.parent is not None else None, "draw": step.draw}
            entry |= {"policy": step.policy, "finish": step.finish, "forced": step.tokens is None}
            if step.messages:
                entry["messages"] = [asdict(message) for message in step.messages]
            content = Content.of(step.text, step.tokens or (), step.logprobs, step.certainty)
            if any(content):
                entry["content"] = content.sum.hex()
                self.contents.append(content)
            self.nodes[step.key] = entry
        return node.key, None if node.score is None else [node.score.value, node.score.steps, node.score.kind]

    def record(self, result: Result) -> bytes:
        """The finished search, packed."""
        problem = result.problem
        meta = plain(Event("", "note", 0.0, facts=problem.meta)).get("facts", {})
        written = {
            "problem": {**{name: getattr(problem, name) for name in ("id", "prompt", "answer")}, "meta": meta},
            "messages": [asdict(message) for message in problem.messages],
            "best": None if result.best is None else self.node(result.best),
            "answer": result.answer,
            "candidates": [(*self.node(c.node), c.answer, c.answer_class) for c in result.candidates],
            "usage": asdict(result.usage),
            "stopped": result.stopped,
            "confidence": result.confidence,
            **({"calibrated": True} if result.calibrated else {}),
            **({"explained": dict(result.explained)} if result.explained else {}),
            **({} if result.sure else {"sure": False}),
            "error": result.error,
        }
        return pack_record({"result": written, "nodes": self.nodes, "log": self.log})


def read_record(units: Units, record: bytes) -> Search | None:
    """The search of an intact record; None if a content is missing."""
    whole = unpack_record(record)
    nodes = _nodes(units, whole)
    return None if nodes is None else Search(_result(whole, nodes), nodes, whole["log"])


def read_outline(units: Units, record: bytes) -> Outline | None:
    """The outline of an intact record; None if a content of what was selected is missing."""
    whole = unpack_record(record)
    said, entries = whole["result"], whole["nodes"]
    path, key = {}, None if said["best"] is None else said["best"][0]
    while key is not None:
        path[key] = entries[key]
        key = entries[key]["parent"]
    votes = tuple(Vote(score and score[0], answer, group) for _, score, answer, group in said["candidates"])
    selected = {"result": {**said, "candidates": ()}, "nodes": dict(reversed(path.items())), "log": ()}
    nodes = _nodes(units, selected)
    return None if nodes is None else Outline(_result(selected, nodes), votes)


def pack_record(whole: Json) -> bytes:
    """A search as it is kept."""
    return zlib.compress(json.dumps(whole, separators=(",", ":")).encode("ascii"), 1)


def unpack_record(record: bytes) -> Json:
    """What `pack_record` packed."""
    whole: Json = json.loads(zlib.decompress(record))
    return whole


def _nodes(units: Units, whole: Json) -> dict[str, Node] | None:
    """The nodes by key, each with the last score it was given; None if a content is missing."""
    scores = {key: _score(score) for _, _, key, score, _ in whole["log"] if score is not None}
    sums = {key: bytes.fromhex(entry["content"]) for key, entry in whole["nodes"].items() if "content" in entry}
    contents = units.contents(sorted(set(sums.values())))
    if len(contents) < len(set(sums.values())):
        return None
    nodes: dict[str, Node] = {}
    for key, entry in whole["nodes"].items():
        content = contents[sums[key]] if key in sums else EMPTY
        nodes[key] = Node(
            parent=None if entry["parent"] is None else nodes[entry["parent"]],
            text=content.string,
            tokens=None if entry["forced"] else unpack("i", content.tokens),  # type: ignore[arg-type]
            logprobs=unpack("f", content.logprobs),
            certainty=unpack("f", content.certainty),
            finish=None if entry["finish"] is None else Finish(entry["finish"]),
            score=scores.get(key),
            key=key,
            draw=entry["draw"],
            policy=entry["policy"],
            messages=_messages(entry.get("messages", ())),
        )
    return nodes


def _result(whole: Json, nodes: Mapping[str, Node]) -> Result:
    record = whole["result"]
    return Result(
        problem=Problem(messages=_messages(record["messages"]), **record["problem"]),
        best=None if record["best"] is None else _scored(nodes, *record["best"]),
        answer=record["answer"],
        candidates=tuple(
            Candidate(_scored(nodes, key, score), answer, answer_class)
            for key, score, answer, answer_class in record["candidates"]
        ),
        usage=Usage(**record["usage"]),
        stopped=Stopped(record["stopped"]),
        confidence=record["confidence"],
        calibrated=record.get("calibrated", False),
        explained=record.get("explained", {}),
        sure=record.get("sure", True),
        error=record["error"],
    )


def _scored(nodes: Mapping[str, Node], key: str, score: list[Any] | None) -> Node:
    """The node with the score it had at that time."""
    node, then = nodes[key], _score(score)
    return node if node.score == then else replace(node, score=then)


def _score(record: list[Any] | None) -> Score | None:
    return None if record is None else Score(record[0], tuple(record[1]), record[2])


def _messages(records: Any) -> tuple[Message, ...]:
    return tuple((ToolMessage if "tools" in record else Message)(**record) for record in records)
