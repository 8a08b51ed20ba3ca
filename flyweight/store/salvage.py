"""What can be saved of a damaged store: every row that is still what was written."""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from flyweight.errors import StoreError
from flyweight.store.database import FAILURES, Database, Lock
from flyweight.store.units import Content, mark

__all__ = ["Salvaged", "salvage"]

TABLES = {
    "models": ("model", "name", "params", "boundary", "mark"),
    "contents": ("sum", "text", "tokens", "logprobs", "certainty"),
    "units": (
        *("key", "kind", "moment", "label", "prompt_tokens", "cached_tokens", "generated_tokens"),
        *("content", "numbers", "mark"),
    ),
    "runs": ("run", "configuration", "models", "versions", "started", "finished", "problems", "mark"),
    "searches": ("run", "problem", "stopped", "record", "mark"),
}
SMALLEST_ROW = 16
"""Bytes: bounds how many rows a file can hold when it will not say."""


class Salvaged(NamedTuple):
    """What became of a damaged store."""

    kept: dict[str, int]
    """Intact rows by table."""
    damaged: dict[str, int]
    """Rows that were found but are not what had been written; those that could not be found are in nobody's count."""
    backup: Path
    """The damaged file."""


def salvage(path: str | Path) -> Salvaged:
    """Put a new store with every intact row in the place of a damaged one, which is kept beside it.

    Rows are looked up one by one, so that a damaged page costs only its own. What is missing afterwards is drawn
    again by the next run. Raises StoreError if nothing at all can be read.
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"cannot salvage {path}: no such file")
    lock = Lock(path)
    fresh = path.with_name(path.name + ".salvaged")
    try:
        kept, damaged = _copy(path, fresh)
        if not any(kept.values()):
            raise StoreError(f"{path}: nothing in it can be read")
        number = 1
        while (backup := path.with_name(f"{path.name}.damaged{number}")).exists():
            number += 1
        for was, suffix in zip(_beside(path), ("-wal", "-shm"), strict=True):
            if was.exists():
                os.replace(was, backup.with_name(backup.name + suffix))
        os.replace(path, backup)
        os.replace(fresh, path)
    except (OSError, *FAILURES) as error:
        raise StoreError(f"cannot salvage {path}: {' '.join(str(error).split())}") from error
    finally:
        lock.release()
        for leftover in (fresh, *_beside(fresh), fresh.with_name(fresh.name + ".lock")):
            leftover.unlink(missing_ok=True)
    return Salvaged(kept, damaged, backup)


def _copy(path: Path, fresh: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Write the intact rows to a new store; by table, how many were and how many were not."""
    kept: dict[str, int] = {}
    damaged: dict[str, int] = {}
    sums: set[str] = set()
    for leftover in (fresh, *_beside(fresh)):
        leftover.unlink(missing_ok=True)
    # What a dead writer left in the log beside the file is read along with it.
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)) as old:
        old.execute("PRAGMA writable_schema = ON")  # or SQLite will not open a file shorter than it says it is
        old.text_factory = lambda data: data.decode("utf-8", "backslashreplace")
        new = Database(fresh)
        try:
            for table, columns in TABLES.items():
                rows, damaged[table] = _rows(old, table, columns)
                if table == "contents":
                    sums = {row[0].hex() for row in rows}
                if table == "searches":  # one that has lost a text is searched again
                    whole = [row for row in rows if _texts(row) <= sums]
                    damaged[table] += len(rows) - len(whole)
                    rows = whole
                kept[table] = len(rows)
                names, places = ", ".join(columns), ", ".join("?" * len(columns))
                new.write([(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({places})", rows)])
        finally:
            new.close()
    return kept, damaged


def _rows(old: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> tuple[list[tuple[Any, ...]], int]:
    """The intact rows of a table, and how many others were found."""
    rows: list[tuple[Any, ...]] = []
    damaged = 0
    query = f"SELECT {', '.join(columns)} FROM {table} WHERE id = ?"
    for id in range(1, _last(old, table) + 1):
        try:
            row = old.execute(query, (id,)).fetchone()
        except FAILURES:
            continue
        if row is None:
            continue
        if _intact(table, row):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged


def _texts(row: tuple[Any, ...]) -> set[str]:
    """Sums of the contents a search refers to."""
    _, _, _, record, _ = row
    nodes = json.loads(zlib.decompress(record))["nodes"].values()
    return {node["content"] for node in nodes if "content" in node}


def _last(old: sqlite3.Connection, table: str) -> int:
    """An upper bound of the table's row ids."""
    limit: int = 0
    with suppress(*FAILURES):
        pages = old.execute("PRAGMA page_count").fetchone()[0]
        limit = pages * old.execute("PRAGMA page_size").fetchone()[0] // SMALLEST_ROW
        found: int = old.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0
        return min(limit, found)  # a damaged id may be astronomical
    return limit


def _intact(table: str, row: tuple[object, ...]) -> bool:
    if table == "contents":
        return Content.intact(row[0], row[1:]) is not None
    return mark(*row[:-1]) == row[-1]


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
