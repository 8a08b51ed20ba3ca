"""Rows of two data sets of judged steps, taken from their own files into results/verifiers.

ProcessBench (Zheng et al. 2024, 2412.06559) publishes JSON lists: a question, the steps of a solution, the first wrong
one. PRM800K (Lightman et al. 2023, 2305.20050) publishes JSON lines: a question and, step by step, completions rated
1, 0 or -1 with the one that the solution went on from.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rig import Figures
from benchmarks.verifiers_scores import KEPT
from flyweight.errors import ConfigError
from flyweight.types import digest

__all__ = ["EACH", "PRM800K", "PROCESSBENCH", "Taken", "file", "read", "stored", "take"]

PROCESSBENCH = "processbench"
PRM800K = "prm800k"
EACH = 100
"""Rows taken of every file of ProcessBench: the first by the hash of their ids. Of PRM800K all are."""
SHAPES = (
    'ProcessBench is a JSON list of rows with "id", "problem", "steps" and "label", '
    'PRM800K has on every line a row with "question" and "label"'
)


class Taken(NamedTuple):
    """What a file holds."""

    data: str
    """PROCESSBENCH or PRM800K"""
    lines: list[bytes]
    """A row each, as it is kept."""


def file(data: str, folder: Path = KEPT) -> Path:
    """Where the rows of a data set are kept."""
    return folder / f"{data}.jsonl.gz"


def stored(data: str) -> list[Figures]:
    """Those that are kept."""
    with gzip.open(file(data), "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def take(files: Iterable[Path], folder: Path = KEPT) -> dict[str, int]:
    """Keep the files' rows in place of those of the same data set; how many each data set now has.

    A row is kept once however often it is given. ConfigError for a file that is neither's; nothing is changed then.
    """
    found: dict[str, dict[bytes, None]] = {}
    for path in files:
        data, lines = read(path)
        found.setdefault(data, {}).update(dict.fromkeys(lines))
    folder.mkdir(parents=True, exist_ok=True)
    for data, kept in found.items():
        partial = file(data, folder).with_suffix(".partial")
        with partial.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            packed.writelines(kept)
        os.replace(partial, file(data, folder))
    return {data: len(kept) for data, kept in found.items()}


def read(path: Path) -> Taken:
    """The rows of a file that is of either data set. ConfigError in one line for any other."""
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if text.startswith("version https://git-lfs"):
        raise ConfigError(f"{path} only points to the file itself: fetch that with `git lfs pull`")
    listed = text.lstrip().startswith("[")
    # Not splitlines(): JSON allows the other line separators inside a text.
    pieces = (
        [(f"{path}", text)] if listed else [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1)]
    )
    found = [(where, _parsed(where, piece)) for where, piece in pieces if piece.strip()]
    if listed:
        found = [(f"{path}, row {n}", row) for n, row in enumerate(found[0][1], 1)]
    if not found:
        raise ConfigError(f"{path} has no rows: {SHAPES}")
    for where, row in found:
        if wrong := _wrong_in_marked(row) if listed else _wrong_in_rated(row):
            raise ConfigError(f"{where}: {wrong}")
    taken = [row for _, row in found]
    if not listed:
        return Taken(PRM800K, [_line(row) for row in taken])
    taken.sort(key=lambda row: digest(row["id"]))
    return Taken(PROCESSBENCH, [_line({"subset": path.stem, **row}) for row in taken[:EACH]])


def _parsed(where: str, text: str) -> Any:
    try:
        row = json.loads(text)
        _line(row)  # half of a surrogate pair is JSON, but no text
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not JSON ({error}): {SHAPES}") from error
    return row


def _line(row: Any) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8")


def _wrong_in_marked(row: Any) -> str:
    """What is wrong with a row of ProcessBench; nothing if it is one."""
    match row:
        case {"id": str(), "problem": str(), "steps": [str(), *_] as steps, "label": int(label)}:
            if not all(isinstance(step, str) for step in steps):
                return "a step is no text"
            return "" if -1 <= label < len(steps) else f'"label" is {label}, of {len(steps)} steps: -1 if none is wrong'
    return f"no such row: {SHAPES}"


def _wrong_in_rated(row: Any) -> str:
    """What is wrong with a row of PRM800K; nothing if it is one."""
    match row:
        case {"question": {"problem": str()}, "label": {"steps": [*steps]}}:
            return next((f"step {n}: {wrong}" for n, step in enumerate(steps, 1) if (wrong := _wrong_step(step))), "")
    return f"no such row: {SHAPES}"


def _wrong_step(step: Any) -> str:
    match step:
        case {"completions": [*completions]}:
            pass
        case {"completions": None}:  # as for a step at which people gave up
            completions = []
        case _:
            return 'no "completions"'
    for completion in completions:
        match completion:
            case {"text": str(), "rating": -1 | 0 | 1 | None}:
                continue
        return 'a completion lacks its "text" or its "rating" of 1, 0, -1 or null'
    return _wrong_choice(step, completions)


def _wrong_choice(step: Figures, completions: Sequence[Any]) -> str:
    chosen = step.get("chosen_completion")
    if chosen is not None and not (isinstance(chosen, int) and 0 <= chosen < len(completions)):
        return f'"chosen_completion" is {chosen!r}, of {len(completions)}'
    match step.get("human_completion"):
        case None | {"text": str()}:
            return ""
    return '"human_completion" has no "text"'
