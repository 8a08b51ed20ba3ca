"""Reading the text files that users name."""

from __future__ import annotations

from pathlib import Path

from flyweight.errors import ConfigError

__all__ = ["read"]


def read(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark; ConfigError, on one line, when it cannot be read as such."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
