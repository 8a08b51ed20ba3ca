"""Runs on record: what was asked for, and of every problem its search.

A search is written in one transaction when it ends, so a problem of a run is there completely or not at all; what an
unfinished one had drawn is among the units. Searches are read back one problem at a time.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flyweight import __version__
from flyweight.errors import ConfigError, StoreError
from flyweight.store.database import Database
from flyweight.store.grades import Grader
from flyweight.store.searches import Book, Outline, Search, read_outline, read_record
from flyweight.store.units import Units, mark
from flyweight.types import Event, Grade, Problem, Result, Stopped, digest

__all__ = [
    "AGAIN",
    "KEEP",
    "Run",
    "RunInfo",
    "known_run",
    "list_runs",
    "read_outlines",
    "read_problems",
    "read_search",
    "start_run",
]

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
        self._books: dict[str, Book] = {}
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
            self._books[event.problem_id] = Book()
        book = self._books.setdefault(event.problem_id, Book())
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
        outline = read_outline(units, record)
        if outline is not None:
            yield outline


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _string(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
