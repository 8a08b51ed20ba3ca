"""Reading task data: files of the package, held to their sha256, and users' JSON lines, held to limits."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar, cast

from flyweight import textfile
from flyweight.errors import ConfigError, unknown
from flyweight.types import Problem

__all__ = [
    "TRAINING",
    "Bundled",
    "bundled",
    "check_split",
    "chosen",
    "hash_split",
    "lines",
    "needs_data",
    "parsed",
    "sha",
    "split_beside",
]

TRAINING = ("train", "calibration", "development")
"""Splits of questions that may be trained on, in the order of their shares: 6, 3 and 1 in ten."""
MAX_LINE = 1 << 20
MAX_FILE = 64 << 20
"""Bytes of a user's file, unpacked: one that was made to be enormous is refused while it is read."""

Row = TypeVar("Row")


class Bundled(NamedTuple):
    """A data file of the package, and what it must be."""

    name: str
    """Ends in .gz when compressed."""
    rows: int
    sha256: str
    """Of the content, unpacked."""


def sha(text: str) -> str:
    """Hex sha256 of a question's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_split(text: str) -> str:
    """Which of `TRAINING` a question belongs to: its sha256 mod 10, 0-5 train, 6-8 calibration, 9 development."""
    residue = int(sha(text), 16) % 10
    return "development" if residue == 9 else "calibration" if residue >= 6 else "train"


def split_beside(test: Bundled, field: str, text: str) -> str:
    """`test` for a question that stands in the test set, whatever file it was found in, else its `hash_split`."""
    return "test" if text in _questions(test, field) else hash_split(text)


@cache
def _questions(file: Bundled, field: str) -> frozenset[str]:
    return frozenset(str(row[field]) for row in bundled(file))


def check_split(task: str, split: str | None, allowed: tuple[str, ...]) -> None:
    """ConfigError with the closest match unless it is None or one of the task's."""
    if split is not None and split not in allowed:
        raise unknown(f"split of {task}", split, allowed)


def bundled(file: Bundled) -> list[dict[str, object]]:
    """Rows of a file of the package; ConfigError when it is missing or not the one that was released."""
    try:
        content = (resources.files("flyweight.tasks") / "data" / file.name).read_bytes()
        if file.name.endswith(".gz"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"the bundled {file.name} is missing or damaged: reinstall flyweight ({reason})") from error
    rows = content.splitlines()
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256 or len(rows) != file.rows:
        raise ConfigError(
            f"the bundled {file.name} was changed: {len(rows)} rows with sha256 {found[:12]}..., expected {file.rows} "
            f"with {file.sha256[:12]}...: reinstall flyweight"
        )
    return [json.loads(row) for row in rows]


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of every line that is not blank, of a file that may be gzipped. ConfigError on one line."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with path.open("rb") as file:
            yield from _read(path, gzip.GzipFile(fileobj=file) if packed else file)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _read(path: Path, file: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, str]]:
    number = size = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        size += len(line)
        if len(line) > MAX_LINE or size > MAX_FILE:
            limit = f"a line over {MAX_LINE >> 20} MB" if len(line) > MAX_LINE else f"over {MAX_FILE >> 20} MB unpacked"
            raise ConfigError(f"{path}, line {number}: {limit} is not read")
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        if text.strip():
            yield number, text


def parsed(path: Path, what: str, read: Callable[[Mapping[str, object]], tuple[str, Row]]) -> dict[str, Row]:
    """Rows of a file of JSON lines by key. `read` gives (key, row) and raises for a row that is not `what`.

    ConfigError names the line that is no such row or repeats a key, and a file without any.
    """
    rows: dict[str, Row] = {}
    for number, line in lines(path):
        try:
            key, row = read(cast(Mapping[str, object], textfile.parse(line)))
        except (ValueError, KeyError, TypeError, AttributeError, SyntaxError, OverflowError, RecursionError) as error:
            raise ConfigError(f"{path}, line {number}: not {what} ({type(error).__name__}: {error})") from error
        if key in rows:
            raise ConfigError(f"{path}, line {number}: the same question stands there twice")
        rows[key] = row
    if not rows:
        raise ConfigError(f"{path} holds no problems")
    return rows


def chosen(problems: list[Problem], split: str | None, split_of: Callable[[Problem], str], path: Path) -> list[Problem]:
    """The problems of a file that belong to the split, or all for None; ConfigError when there are none."""
    kept = [problem for problem in problems if split is None or split_of(problem) == split]
    if not kept:
        raise ConfigError(f"{path} holds no question of the split {split!r}")
    return kept


def needs_data(task: str, split: str, file: str) -> ConfigError:
    """For a split that does not come with the package."""
    return ConfigError(f"the {split} questions of {task} are not bundled: pass data=PATH (--data) of {file}")
