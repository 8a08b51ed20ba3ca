"""Writing a file that a user names: whole or not at all."""

from __future__ import annotations

import gzip
import lzma
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal, cast

from flyweight.errors import ConfigError, StoreError

__all__ = ["BESIDE", "replacing"]

BESIDE = ("-wal", "-shm", ".lock")
"""Ends of the names of what lies beside a store."""


@contextmanager
def replacing(
    path: Path, *, packed: Literal["gz", "xz"] | None = None, store: Path | None = None
) -> Iterator[IO[bytes]]:
    """A file to write, compressed as `packed` says, that takes the place of `path` once it is complete.

    ConfigError for what belongs to `store`, StoreError if it cannot be written: a device is not replaced either.
    """
    target = Path(os.path.realpath(path))  # or a link would be replaced, not what it names
    if target.exists() and not target.is_file():
        raise StoreError(f"cannot write {path}: {'Is a directory' if target.is_dir() else 'not a regular file'}")
    if store is not None and target in {Path(os.path.realpath(store) + end) for end in ("", *BESIDE)}:
        raise ConfigError(f"{path} is the store itself: name another file")
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            if packed == "gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as lines:
                    yield cast("IO[bytes]", lines)
            elif packed == "xz":
                with lzma.open(file, "wb", preset=9) as lines:  # texts of a question may lie far apart
                    yield lines
            else:
                yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()
