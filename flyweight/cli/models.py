"""`flyweight models`: the files models come in, and where they are kept."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer

from flyweight.cli import options, render

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Bar", "register"]

SPARSE = 5.0
"""Seconds between two lines where there is no terminal to draw a bar on."""

HELP = """List, fetch, find and delete models. Every file is checked by its SHA-256 before it is used.

\b
Examples:
  flyweight models ls
  flyweight models pull qwen2.5-coder-1.5b
  flyweight models rm qwen2.5-coder-1.5b

Models are kept in $FLYWEIGHT_HOME/models, else in flyweight/models in your cache folder.
"""

LS = """List the models known by name and those that were pulled.

\b
Examples:
  flyweight models ls
  flyweight models ls --json
  flyweight models ls --json | jq '.[] | select(.pulled) | .path'
"""

PULL = """Fetch a model into the store unless it is there. An interrupted pull goes on where it stopped.

\b
Examples:
  flyweight models pull
  flyweight models pull qwen2.5-coder-1.5b
  flyweight models pull hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q8_0.gguf
"""

PATH = """Print where the file of a model is.

\b
Examples:
  flyweight models path
  flyweight models path qwen2.5-coder-1.5b
  ls -lh "$(flyweight models path)"
"""

RM = """Delete a model from the store, with leftovers of its pulls.

\b
Examples:
  flyweight models rm qwen2.5-coder-1.5b
  flyweight models rm smollm2-135m
  flyweight models rm hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF/qwen2.5-0.5b-instruct-q8_0.gguf
"""

Ref = Annotated[
    str | None,
    typer.Argument(metavar="MODEL", help="Catalog name or hf:org/repo/file.gguf.", show_default="the default model"),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = options.group()
    group.command("ls", help=LS, short_help="List models.")(ls)
    group.command("pull", help=PULL, short_help="Fetch a model.")(pull)
    group.command("path", help=PATH, short_help="Print the path of a model.")(path)
    group.command("rm", help=RM, short_help="Delete a model.")(rm)
    app.add_typer(group, name="models", help=HELP, short_help="List, fetch, find and delete models.")


def ls(json: options.JsonArray = False) -> None:
    """Print one line per model."""
    from flyweight import models

    there = {entry.ref: entry for entry in models.installed()}
    rows: list[dict[str, object]] = []
    for model in models.catalog().values():
        entry = there.pop(model.name, None)
        rows.append(
            {
                "name": model.name,
                "default": model.name == models.default().name,
                "pulled": entry is not None,
                "path": None if entry is None else str(entry.path),
                "bytes": model.bytes,
                "parameters": model.parameters,
                "quantisation": model.quantisation,
                "licence": model.licence,
                "sha256": model.sha256,
            }
        )
    for entry in there.values():
        rows.append(
            {
                "name": entry.ref,
                "default": False,
                "pulled": True,
                "path": str(entry.path),
                "bytes": entry.bytes,
                "parameters": None,
                "quantisation": None,
                "licence": None,
                "sha256": entry.sha256,
            }
        )
    if json:
        typer.echo(render.dumps(rows))
        return
    width = max(len(str(row["name"])) for row in rows)
    for row in rows:
        state = "pulled" if row["pulled"] else "-"
        facts = [str(row[key]) for key in ("quantisation", "licence") if row[key]]
        if row["default"]:
            facts.append("default")
        size = int(str(row["bytes"])) / 1e6
        typer.echo(f"{row['name']!s:<{width}}  {state:<6}  {size:>6,.0f} MB  {', '.join(facts)}".rstrip())


def pull(model: Ref = None, quiet: options.Quiet = False) -> None:
    """Fetch a model and print its path."""
    from flyweight import models

    with Bar(quiet=quiet) as bar:
        found = models.pull(model or models.default().name, progress=bar)
    typer.echo(str(found))


def path(model: Ref = None) -> None:
    """Print the path of a model that was pulled."""
    from flyweight import models

    typer.echo(str(models.resolve(model or models.default().name)))


def rm(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Catalog name or hf:org/repo/file.gguf.")],
) -> None:
    """Delete a model and say what that freed."""
    from flyweight import models

    freed = models.remove(model)
    typer.echo(f"{render.oneline(model)}: {freed / 1e6:,.0f} MB freed")


class Bar:
    """How far a pull is, on stderr: a bar on a terminal, a line now and then elsewhere. A `Progress` of the store."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._rich: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._said = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if self.quiet:
            return
        if self._rich is not None:
            if self._task is None or what != self._what:
                if self._task is not None:
                    self._rich.remove_task(self._task)
                self._task = self._rich.add_task(what, total=total or None)
            self._rich.update(self._task, completed=done)
        else:
            now = time.monotonic()
            if what != self._what or now - self._said >= SPARSE or (total and done == total):
                self._said = now
                share = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else f"{done / 1e6:,.0f} MB"
                typer.echo(f"{render.oneline(what)}: {share}", err=True)
        self._what = what

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            self._rich = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._rich.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rich is not None:
            self._rich.stop()
            self._rich = None
