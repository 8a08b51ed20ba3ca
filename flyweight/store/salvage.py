"""What can be saved of a damaged store: every row that is still what was written."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from flyweight.store.database import Database, StoreError
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
    fresh = path.with_name(path.name + ".salvaged")
    for leftover in (fresh, *_beside(fresh)):
        leftover.unlink(missing_ok=True)
    kept: dict[str, int] = {}
    damaged: dict[str, int] = {}
    # Opening it for writing would refuse it; what a dead writer left in the log beside it is read all the same.
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, isolation_level=None)) as old:
        new = Database(fresh)
        try:
            for table, columns in TABLES.items():
                rows, damaged[table] = _rows(old, table, columns)
                kept[table] = len(rows)
                names, places = ", ".join(columns), ", ".join("?" * len(columns))
                new.write([(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({places})", rows)])
        finally:
            new.close()
    if not any(kept.values()):
        fresh.unlink()
        raise StoreError(f"{path}: nothing in it can be read")
    backup = path.with_name(path.name + ".damaged")
    number = 1
    while backup.exists():
        number += 1
        backup = path.with_name(f"{path.name}.damaged{number}")
    for suffix, beside in zip(("-wal", "-shm"), _beside(path), strict=True):
        if beside.exists():
            os.replace(beside, backup.with_name(backup.name + suffix))
    os.replace(path, backup)
    os.replace(fresh, path)
    fresh.with_name(fresh.name + ".lock").unlink(missing_ok=True)
    return Salvaged(kept, damaged, backup)


def _rows(old: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> tuple[list[tuple[object, ...]], int]:
    """The intact rows of a table, and how many others were found."""
    rows: list[tuple[object, ...]] = []
    damaged = 0
    query = f"SELECT {', '.join(columns)} FROM {table} WHERE id = ?"
    for id in range(1, _last(old, table) + 1):
        try:
            row = old.execute(query, (id,)).fetchone()
        except (sqlite3.Error, OverflowError):
            continue
        if row is None:
            continue
        if _intact(table, row):
            rows.append(row)
        else:
            damaged += 1
    return rows, damaged


def _last(old: sqlite3.Connection, table: str) -> int:
    """An upper bound of the table's row ids."""
    limit: int = 0
    with suppress(sqlite3.Error):
        pages = old.execute("PRAGMA page_count").fetchone()[0]
        limit = pages * old.execute("PRAGMA page_size").fetchone()[0] // SMALLEST_ROW
        found: int = old.execute(f"SELECT max(id) FROM {table}").fetchone()[0] or 0
        return min(limit, found)  # a damaged id may be astronomical
    return limit


def _intact(table: str, row: tuple[object, ...]) -> bool:
    if table == "contents":
        return all(isinstance(part, bytes) for part in row) and Content(*row[1:]).sum == row[0]  # type: ignore[arg-type]
    return mark(*row[:-1]) == row[-1]


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")
