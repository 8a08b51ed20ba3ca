"""The folder that holds all runs, and which of them a command line means."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from flyweight.store import RunInfo, Store

__all__ = ["DEFAULT", "NAMED", "Folder", "database", "existing", "made", "meant", "opened", "reading"]

DEFAULT = Path("runs")
NAMED = 'by id, its first characters (4 or more) or "last"'
"""How a run is named, for help texts."""

Folder = Annotated[
    Path,
    typer.Option("--out", "--runs", envvar="FLYWEIGHT_RUNS", metavar="DIR", help="Folder in which all is kept."),
]


def database(folder: Path) -> Path:
    """The file of the folder's store."""
    return folder / "flyweight.db"


def existing(folder: Path) -> Path:
    """The same, of a folder that has one. ConfigError for others."""
    path = database(folder)
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: record runs with flyweight bench run, or name their folder (--runs)")
    return path


def made(folder: Path) -> Path:
    """The same, of a folder that is made if it is not there. StoreError if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be made: {error.strerror or error}") from error
    return database(folder)


@contextmanager
def reading(folder: Path) -> Iterator[Store]:
    """The store of a folder, which is not changed; errors as of `existing` and `Store`."""
    from flyweight.store import Store

    with Store(existing(folder), readonly=True) as store:
        yield store


@contextmanager
def opened(folder: Path, durable: bool) -> Iterator[Store]:
    """The store of a folder, which is made; errors as of `made` and `Store`."""
    from flyweight.store import Store

    with Store(made(folder), durable) as store:
        yield store


def meant(store: Store, names: Sequence[str]) -> list[RunInfo]:
    """The runs meant, each once, in the order named. ConfigError for a name that means none or several."""
    runs = store.runs()
    if not runs:
        raise ConfigError(f"{store.path} holds no runs: record some with flyweight bench run")
    return list({info.id: info for info in (_meant(runs, name) for name in names)}.values())


def _meant(runs: Sequence[RunInfo], name: str) -> RunInfo:
    if name == "last":
        return runs[-1]
    found = [run for run in runs if run.id.startswith(name)] if len(name) >= 4 else []
    if len(found) != 1:
        why = "write 4 characters or more" if len(name) < 4 else f"{len(found)} begin so" if found else "there is none"
        raise ConfigError(f"run {name!r}: {why} (latest: {', '.join(run.id for run in runs[-5:])})")
    return found[0]
