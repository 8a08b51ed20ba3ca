"""`flyweight report`: what recorded runs say, in the terminal or as a file."""

from __future__ import annotations

import functools
import shutil
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli import options
from flyweight.cli.folder import DEFAULT, NAMED, existing, meant
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
  flyweight report last --html page.html

Runs on the same problems stand together. The file's ending says what -o writes: .md, .html (one
file with its pictures), .svg, .png or .json. --html writes the viewer's page, one file with every
question and every search.
"""

ENDINGS = (".html", ".json", ".md", ".png", ".svg")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("report", help=HELP, short_help="What recorded runs say, with intervals.")(report)


def report(
    runs: Annotated[list[str] | None, typer.Argument(metavar="RUN", help=f"Runs {NAMED}.", show_default="all")] = None,
    folder: Annotated[
        Path, typer.Option("--runs", envvar="FLYWEIGHT_RUNS", metavar="DIR", help="Folder of the runs.")
    ] = DEFAULT,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write FILE instead of the terminal.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write FILE: the page of flyweight view with everything in it.")
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
    if html is not None and (out is not None or json or baseline is not None):
        raise ConfigError("--html writes the page alone: leave out -o, --json and --baseline")
    store, keep = _open(folder)
    with closing(store):
        if html is not None:
            _page(store, runs or [], keep, html)
            return
        made = _made(store, runs or [], baseline, keep)
    if out is not None:
        _write(made, out)
    else:
        # As wide as it may be to be read well; a table's first column alone takes about 40.
        width = min(100, max(40, shutil.get_terminal_size((100, 24)).columns))
        typer.echo(made.json() if json else made.terminal(width), nl=False)


def _open(folder: Path) -> tuple[Store, bool]:
    """The store, and whether grades that are missing can be kept: not where another process writes or nobody may."""
    from flyweight.store import Store, StoreError

    path = existing(folder)
    try:
        return Store(path), True
    except (ConfigError, StoreError):
        return Store(path, readonly=True), False


def _made(store: Store, names: list[str], baseline: str | None, keep: bool) -> Report:
    from flyweight.report import Report, grader

    wanted = [info.id for info in (meant(store, names) if names else store.runs())]
    if not wanted:
        raise ConfigError(f"{store.path} holds no runs: record some with flyweight bench run")
    against = None if baseline is None else meant(store, [baseline])[0].id
    return Report.of(store, wanted, functools.partial(grader, keep=keep), baseline=against)


def _page(store: Store, names: list[str], keep: bool, out: Path) -> None:
    from flyweight.bench.graded import read
    from flyweight.report import ASKED, grader
    from flyweight.store.files import replacing
    from flyweight.viewer.export import export

    wanted = meant(store, names) if names else store.runs()
    if not wanted:
        raise ConfigError(f"{store.path} holds no runs: record some with flyweight bench run")
    if keep:
        for info in wanted:
            if info.configuration.keys() >= ASKED:
                for _ in read(store, info.id, grader(store, info)):
                    pass  # what has no grade yet gets one, and the page shows it
    with replacing(out) as file:
        for part in export(store, [info.id for info in wanted]):
            file.write(part.encode())
    typer.echo(f"Wrote {out}: {out.stat().st_size / 1e6:,.1f} MB.", err=True)


def _write(made: Report, out: Path) -> None:
    from flyweight.store.files import replacing

    text = {".md": made.markdown, ".html": made.html, ".svg": made.svg, ".json": made.json}
    content = made.png() if out.suffix == ".png" else text[out.suffix]().encode()
    with replacing(out) as file:
        file.write(content)
    typer.echo(f"Wrote {out}.", err=True)
