"""Reading the text files that users name, and the JSON in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from flyweight.errors import ConfigError

__all__ = ["parse", "read", "rows"]


def read(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark; ConfigError, on one line, when it cannot be read as such."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error


def rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, object]]]:
    """(line number, JSON object) of every line of the file's text that is not blank; ConfigError for another line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse(line)
        except UnicodeEncodeError as error:
            raise ConfigError(f"{path}, line {number}: half a character, {error.object[error.start]!a}") from error
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ConfigError(f"{path}, line {number}: not a JSON object")
        yield number, row


def parse(line: str) -> object:
    """The JSON value of a line. ValueError for what is none, and for half of a surrogate pair in it (as \\ud83d alone):
    JSON can spell that, but no file, tokenizer or store can hold it. RecursionError for what is nested too deep.
    """
    value: object = json.loads(line)
    if "\\u" in line:
        json.dumps(value, ensure_ascii=False).encode()
    return value
