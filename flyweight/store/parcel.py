"""How what one process drew comes into the store of another: a copy to begin with, then parcels of what is new.

A worker opens a copy of the store, so that it draws nothing that is there, and sends with each search that has ended
its texts and the units it has added since its last parcel. Rows carry the checksums of their tables, which are checked.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flyweight.errors import StoreError
from flyweight.store.database import Batch, Database
from flyweight.store.runs import KEEP
from flyweight.store.searches import unpack_record
from flyweight.store.units import TOGETHER, Content, Units, mark
from flyweight.types import Stopped

__all__ = ["Parcels", "copy", "take"]

UNITS = "key, kind, moment, label, prompt_tokens, cached_tokens, generated_tokens, content, numbers, mark"
CONTENTS = "sum, text, tokens, logprobs, certainty"
_SET = ", ".join(f"{column} = excluded.{column}" for column in UNITS.split(", ")[1:])
PUT_UNIT = f"INSERT INTO units ({UNITS}) VALUES ({', '.join('?' * 10)}) ON CONFLICT (key) DO UPDATE SET {_SET}"
PUT_CONTENT = f"INSERT OR IGNORE INTO contents ({CONTENTS}) VALUES (?, ?, ?, ?, ?)"
BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, zlib.error)


def copy(database: Database) -> bytes:
    """Everything that was drawn, as the file of a store without runs; empty if there is nothing."""
    if database.one("SELECT 1 FROM units LIMIT 1") is None:
        return b""
    with TemporaryDirectory(prefix="flyweight-copy-") as folder:
        path = Path(folder) / "units.db"
        try:
            database.connection.execute("VACUUM INTO ?", (str(path),))
            with closing(sqlite3.connect(path, isolation_level=None)) as made:
                for table in ("searches", "runs", "owner"):
                    made.execute(f"DELETE FROM {table}")
                made.execute("VACUUM")
            return path.read_bytes()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"cannot copy {database.path}: {error}") from error


class Parcels:
    """What a store gains from now on, packed search by search; each parcel can be taken in without the others."""

    def __init__(self, database: Database, run: str) -> None:
        self._database = database
        self._run = run
        self._sent = self._last()

    def pack(self, problem: str) -> bytes:
        """The search of a problem with all rows that are new since the last parcel. StoreError if it is not there."""
        id = problem.encode("utf-8", "surrogatepass")
        row = self._database.one(
            "SELECT stopped, record, mark FROM searches WHERE run = ? AND problem = ?", (self._run, id)
        )
        if row is None:
            raise StoreError(f"{self._database.path} holds no search of {problem!r}")
        last = self._last()
        query = f"SELECT {UNITS} FROM units WHERE id > ? AND id <= ? ORDER BY id"
        units = list(self._database.read(query, (self._sent, last)))
        self._sent = last
        # Every text it speaks of, sent before or not: a parcel must not depend on another one that may be lost.
        nodes = unpack_record(row[1])["nodes"].values()
        sums = {bytes.fromhex(node["content"]) for node in nodes if "content" in node}
        sums |= {unit[7] for unit in units if unit[7]}
        parcel = {
            "search": _packed((id, *row)),
            "units": [_packed(unit) for unit in units],
            "contents": [_packed(content) for content in self._contents(sorted(sums))],
        }
        return zlib.compress(json.dumps(parcel, separators=(",", ":")).encode("ascii"), 1)

    def _contents(self, sums: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(sums), TOGETHER):
            some = sums[start : start + TOGETHER]
            places = ", ".join("?" * len(some))
            yield from self._database.read(f"SELECT {CONTENTS} FROM contents WHERE sum IN ({places})", some)

    def _last(self) -> int:
        found = self._database.one("SELECT max(id) FROM units")
        return int(found[0] or 0) if found is not None else 0


def take(database: Database, units: Units, run: str, parcel: bytes) -> tuple[str, Stopped]:
    """Write a parcel into a store that holds its run, whole or not at all: the problem, and how its search ended.

    A unit that is there already is replaced: what a lost worker had begun was drawn again by the one that ended it. A
    search stays as it is unless it had been interrupted or failed. StoreError for a parcel that was damaged.
    """
    try:
        whole = json.loads(zlib.decompress(parcel))
        problem, stopped, record, check = _unpacked(whole["search"])
        rows = [_unpacked(row) for row in whole["units"]]
        contents = [_unpacked(row) for row in whole["contents"]]
        intact = mark(run, problem, stopped, record) == check and all(mark(*row[:-1]) == row[-1] for row in rows)
        intact = intact and all(Content.intact(sum, columns) is not None for sum, *columns in contents)
        ended = problem.decode("utf-8", "surrogatepass"), Stopped(stopped)
    except BROKEN as error:
        raise StoreError(f"what a worker sent cannot be read: {type(error).__name__}: {error}") from error
    if not intact:
        raise StoreError("what a worker sent was damaged on the way, or is of another run")
    batches: list[Batch] = [
        (PUT_CONTENT, contents),
        (PUT_UNIT, rows),
        (KEEP, [(run, problem, stopped, record, check)]),
    ]
    database.write(batches)
    units.moment = max(units.moment, 1 + max((moment for _, _, moment, *_ in rows), default=0))
    return ended


def _packed(row: tuple[Any, ...]) -> list[Any]:
    """A row as JSON can hold it: bytes are strings in a list."""
    return [[b64encode(value).decode()] if isinstance(value, bytes) else value for value in row]


def _unpacked(row: list[Any]) -> list[Any]:
    return [b64decode(value[0], validate=True) if isinstance(value, list) else value for value in row]
