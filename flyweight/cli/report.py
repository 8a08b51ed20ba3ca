"""`flyweight report`: what recorded runs say, in the terminal or as a file."""

from __future__ import annotations

import functools
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli import options
from flyweight.errors import ConfigError

if TYPE_CHECKING:
    from flyweight.report import Report
    from flyweight.store import Store

__all__ = ["register"]

HELP = """Report on recorded runs: accuracy with intervals beside cost, differences, curves, warnings.

\b
Examples:
  flyweight report
  flyweight report last 3fa9 --baseline 3fa9
  flyweight report -o report.html --runs results

Runs are named by their id or its first characters (at least 4), or "last"; without any, all are
taken. Runs on the same problems stand together. The file's ending says what is written: .md, .html
(one file with its pictures), .svg, .png or .json.
"""

DATABASE = "flyweight.db"
ENDINGS = (".html", ".json", ".md", ".png", ".svg")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report", help=HELP, short_help="What recorded runs say, with intervals.")(report)


def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Runs to report on.", show_default="all")
    ] = None,
    folder: Annotated[
        Path, typer.Option("--runs", envvar="FLYWEIGHT_RUNS", metavar="DIR", help="Folder of the runs.")
    ] = Path("runs"),
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write FILE instead of the terminal.")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="What the others are compared with.", show_default="greedy of the same model"),
    ] = None,
    json: options.Json = False,
) -> None:
    if out is not None and json:
        raise ConfigError("--json prints; to write a file use -o FILE.json alone")
    if out is not None and out.suffix not in ENDINGS:
        raise ConfigError(f"-o {out}: the ending must be one of {', '.join(ENDINGS)}")
    store, keep = _open(folder)
    with closing(store):
        made = _made(store, runs or [], baseline, keep)
    if out is not None:
        _write(made, out)
    else:
        typer.echo(made.json() if json else made.terminal(), nl=False)


def _open(folder: Path) -> tuple[Store, bool]:
    """The store, and whether grades that are missing can be kept: not where another process writes or nobody may."""
    from flyweight.store import Store, StoreError

    path = folder / DATABASE
    if not path.is_file():
        raise ConfigError(f"{path} does not exist: record runs with flyweight bench, or name their folder with --runs")
    try:
        return Store(path), True
    except (ConfigError, StoreError):
        return Store(path, readonly=True), False


def _made(store: Store, names: list[str], baseline: str | None, keep: bool) -> Report:
    from flyweight.report import Report, grader

    known = [info.id for info in store.runs()]
    if not known:
        raise ConfigError(f"{store.path} holds no runs: record some with flyweight bench")
    wanted = [_find(name, known) for name in names] or known
    against = None if baseline is None else _find(baseline, known)
    return Report.of(store, wanted, functools.partial(grader, keep=keep), baseline=against)


def _find(name: str, known: list[str]) -> str:
    """The run that a name means; `known` in the order begun."""
    if name == "last":
        return known[-1]
    found = [id for id in known if id.startswith(name)] if len(name) >= 4 else []
    if len(found) == 1:
        return found[0]
    why = f"means {len(found)} runs" if found else "is no run" if len(name) >= 4 else "is too short: 4 characters"
    raise ConfigError(f"{name!r} {why} (last ones: {', '.join(known[-5:])})")


def _write(made: Report, out: Path) -> None:
    text = {".md": made.markdown, ".html": made.html, ".svg": made.svg, ".json": made.json}
    content = made.png() if out.suffix == ".png" else text[out.suffix]().encode()
    try:
        out.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from error
    typer.echo(f"Wrote {out}.", err=True)
