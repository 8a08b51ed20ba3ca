"""Runs on record: what was asked for, and of every problem its result and its whole search, read back as it was.

A search is written in one transaction when it ends, so a problem of a run is there completely or not at all; what an
unfinished one had drawn is among the units. Results, trees and samples come one problem at a time.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

from flyweight import __version__
from flyweight.errors import ConfigError, StoreError
from flyweight.store.database import Database
from flyweight.store.grades import Grader
from flyweight.store.units import Content, Units, mark, unpack
from flyweight.trace import write as plain
from flyweight.types import (
    Candidate,
    Event,
    Finish,
    Grade,
    Message,
    Node,
    Problem,
    Result,
    Score,
    Stopped,
    Usage,
    digest,
)

__all__ = [
    "AGAIN",
    "KEEP",
    "Outline",
    "Run",
    "RunInfo",
    "Sample",
    "Search",
    "Vote",
    "known_run",
    "list_runs",
    "pack_record",
    "read_outlines",
    "read_problems",
    "read_record",
    "read_search",
    "start_run",
    "unpack_record",
]

Json = dict[str, Any]

EMPTY = Content(b"", b"", b"", b"")
AGAIN = (Stopped.INTERRUPTED, Stopped.ERROR)
"""Ends that a later search of the same problem replaces."""
KEEP = (
    "INSERT INTO searches (run, problem, stopped, record, mark) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (run, problem) DO UPDATE SET stopped = excluded.stopped, record = excluded.record,"
    f" mark = excluded.mark WHERE stopped IN ({', '.join(repr(end.value) for end in AGAIN)})"
)
"""Writes a search where there is none, or one to be replaced."""


@dataclass(frozen=True)
class RunInfo:
    """A run as it is listed."""

    id: str
    """Hash of the configuration."""
    configuration: Mapping[str, Any]
    models: Mapping[str, str]
    """What was run, by name: a file's SHA-256 or whatever else identifies it."""
    versions: tuple[Mapping[str, str], ...]
    """Of Flyweight, Python, SQLite and what the caller named; one entry per set the run was worked on with."""
    started: float
    """Seconds since 1970, by the clock of the machine."""
    finished: float | None
    problems: int | None
    """Searches on record when it finished."""


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
class _Book:
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


class Run:
    """A run being written: call it with every event (`Runner(..., on_event=run)`), and `finish` it.

    A full disk or a lost file ends the record, not the process: `error` then holds what happened, every policy of
    the store refuses to work on, and `finish` raises it.
    """

    def __init__(self, database: Database, units: Units, id: str) -> None:
        self.id = id
        self.stopped: dict[str, Stopped] = {}
        """Problem id -> how its search ended, for every one on record."""
        self._database = database
        self._units = units
        self._books: dict[str, _Book] = {}
        damaged = []
        for problem, stopped, record, check in database.read(
            "SELECT problem, stopped, record, mark FROM searches WHERE run = ?", (id,)
        ):
            if mark(id, problem, stopped, record) == check:
                self.stopped[_string(problem)] = Stopped(stopped)
            else:
                damaged.append((id, problem))
        if damaged:
            database.write([("DELETE FROM searches WHERE run = ? AND problem = ?", damaged)])

    @property
    def done(self) -> set[str]:
        """Problems that need no further search: neither interrupted nor ended by an error."""
        return {problem for problem, stopped in self.stopped.items() if stopped not in AGAIN}

    @property
    def error(self) -> StoreError | None:
        """What ended the work with the store; None while all is well."""
        return self._database.error

    def __call__(self, event: Event) -> None:
        """Write down an event; the search is committed with its last one. Never raises for a full disk."""
        if event.kind == "start":
            self._books[event.problem_id] = _Book()
        book = self._books.setdefault(event.problem_id, _Book())
        if event.kind != "progress":
            book.event(event)
        result = event.facts.get("result")
        if event.kind != "end" or not isinstance(result, Result):
            return
        del self._books[event.problem_id]
        problem, stopped, record = _utf8(event.problem_id), result.stopped.value, book.record(result)
        row = (self.id, problem, stopped, record, mark(self.id, problem, stopped, record))
        try:
            self._units.put([], book.contents, [(KEEP, [row])])
        except StoreError:
            return  # kept in `error`
        if self.stopped.get(event.problem_id, Stopped.ERROR) in AGAIN:
            self.stopped[event.problem_id] = result.stopped

    @property
    def info(self) -> RunInfo:
        """The run as it is listed."""
        return known_run(self._database, self.id)

    def outlines(self) -> Iterator[Outline]:
        """As of `Store.outlines`."""
        return read_outlines(self._database, self._units, self.id)

    def grader(self, identity: str) -> Grader:
        """The grades on record under that identity; asked for others, it raises StoreError."""
        return Grader(self._units, _ungraded, identity)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from flyweight.viewer.drawing import run

        return run(self)

    def finish(self) -> None:
        """Mark the run as finished with the searches on record. Raises StoreError if something was not written."""
        if self.error is not None:
            raise self.error
        info = known_run(self._database, self.id)
        _put(self._database, replace(info, finished=time.time(), problems=len(self.stopped)))


def _ungraded(problem: Problem, text: str) -> Grade:
    raise StoreError(f"no grade of {problem.id} is on record")


def start_run(
    database: Database,
    units: Units,
    configuration: Mapping[str, Any],
    models: Mapping[str, str],
    versions: Mapping[str, str],
) -> Run:
    """Begin the run of this configuration, or go on with it."""
    try:
        text = json.dumps(dict(configuration), sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a run's configuration must be JSON: {error}") from error
    id = digest("run", text)[:16]
    now = {"flyweight": __version__, "python": platform.python_version(), "sqlite": sqlite3.sqlite_version, **versions}
    if _row(database, id) is None:
        _put(database, RunInfo(id, json.loads(text), dict(models), (now,), time.time(), None, None))
    else:
        info = known_run(database, id)
        if dict(info.models) != dict(models):
            raise ConfigError(f"run {id} was made with the models {dict(info.models)}, not {dict(models)}")
        if now not in info.versions:
            _put(database, replace(info, versions=(*info.versions, now)))
    return Run(database, units, id)


def list_runs(database: Database) -> list[RunInfo]:
    """Every run, oldest first."""
    ids = dict.fromkeys(id for (id,) in database.read("SELECT run FROM runs ORDER BY id"))
    return [known_run(database, id) for id in ids]


def known_run(database: Database, id: str) -> RunInfo:
    """The run of that id. ConfigError if there is none, StoreError if it is damaged."""
    row = _row(database, id)
    if row is None:
        known = [run for (run,) in database.read("SELECT run FROM runs ORDER BY id DESC LIMIT 5")]
        raise ConfigError(f"{database.path} holds no run {id!r} (latest: {', '.join(known) or 'none'})")
    if mark(*row[:-1]) != row[-1]:
        raise database.damaged(f"the record of run {id}")
    run, configuration, models, versions, started, finished, problems, _ = row
    return RunInfo(
        run, json.loads(configuration), json.loads(models), tuple(json.loads(versions)), started, finished, problems
    )


def _row(database: Database, id: str) -> tuple[Any, ...] | None:
    columns = "run, configuration, models, versions, started, finished, problems, mark"
    return database.one(f"SELECT {columns} FROM runs WHERE run = ?", (id,))


def _put(database: Database, info: RunInfo) -> None:
    row = (
        info.id,
        json.dumps(info.configuration, sort_keys=True),
        json.dumps(info.models, sort_keys=True),
        json.dumps(info.versions, sort_keys=True),
        info.started,
        info.finished,
        info.problems,
    )
    columns = ("run", "configuration", "models", "versions", "started", "finished", "problems", "mark")
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns[1:])
    statement = f"INSERT INTO runs ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    database.write([(f"{statement} ON CONFLICT (run) DO UPDATE SET {updates}", [(*row, mark(*row))])])


# Reading back ----------------------------------------------------------------------------------------------------


def read_problems(database: Database, run: str) -> list[bytes]:
    """The ids of the problems on record, sorted. StoreError if a finished run has lost some."""
    info = known_run(database, run)
    # A damaged index may name one twice, or in another order.
    problems = {problem for (problem,) in database.read("SELECT problem FROM searches WHERE run = ?", (run,))}
    found = sorted(problem for problem in problems if isinstance(problem, bytes))
    if info.problems is not None and len(found) < info.problems:
        raise StoreError(
            f"{database.path} lost {info.problems - len(found)} of {info.problems} searches of run {run}: run it again"
        )
    return found


def read_search(database: Database, units: Units, run: str, problem: bytes) -> Search | None:
    """The search of one problem; None, and forgotten by a writer, if it or a part of it is damaged or missing."""
    row = database.one("SELECT stopped, record, mark FROM searches WHERE run = ? AND problem = ?", (run, problem))
    intact = row is not None and mark(run, problem, *row[:2]) == row[2]
    search = read_record(units, row[1]) if row is not None and intact else None
    if search is None and not database.readonly:
        database.write([("DELETE FROM searches WHERE run = ? AND problem = ?", [(run, problem)])])
    return search


def read_outlines(database: Database, units: Units, run: str) -> Iterator[Outline]:
    """Every intact search of a run without what was not selected, in the order kept."""
    known_run(database, run)
    rows = database.read("SELECT problem, stopped, record, mark FROM searches WHERE run = ?", (run,))
    for problem, stopped, record, check in rows:
        if mark(run, problem, stopped, record) != check:
            continue
        whole = unpack_record(record)
        said, entries = whole["result"], whole["nodes"]
        path, key = {}, None if said["best"] is None else said["best"][0]
        while key is not None:
            path[key] = entries[key]
            key = entries[key]["parent"]
        votes = tuple(Vote(score and score[0], answer, group) for _, score, answer, group in said["candidates"])
        selected = {"result": {**said, "candidates": ()}, "nodes": dict(reversed(path.items())), "log": ()}
        nodes = _nodes(units, selected)
        if nodes is not None:
            yield Outline(_result(selected, nodes), votes)


def read_record(units: Units, record: bytes) -> Search | None:
    """The search of an intact record; None if a content is missing."""
    whole = unpack_record(record)
    nodes = _nodes(units, whole)
    return None if nodes is None else Search(_result(whole, nodes), nodes, whole["log"])


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
    return tuple(Message(record["role"], record["content"]) for record in records)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _string(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
