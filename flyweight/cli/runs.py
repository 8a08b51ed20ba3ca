"""The commands of `flyweight bench` that read: what runs there are, what they say, and carrying them elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from flyweight.cli import options, render
from flyweight.cli.folder import DEFAULT, NAMED, Folder, made, meant, reading
from flyweight.errors import FlyweightError

__all__ = ["register"]

LS = """List the runs on record.

\b
Examples:
  flyweight bench ls
  flyweight bench ls --out results
  flyweight bench ls --json | jq '.[] | select(.state == "unfinished") | .run'
"""

SHOW = """Show what a run was and what came of it, or the whole search of one problem.

\b
Examples:
  flyweight bench show last
  flyweight bench show 3fa9 --problems
  flyweight bench show 3fa9 gsm8k-test-0c2a51d7
"""

DIFF = """Compare two runs on the problems that both have searched.

\b
Examples:
  flyweight bench diff 3fa9 81cc
  flyweight bench diff 3fa9 last --json
  flyweight bench diff 3fa9 81cc --out results

The difference is B minus A, with its paired bootstrap interval; p is McNemar's exact test.
"""

EXPORT = """Write every candidate of a run with its grade and scores, one JSON object a line.

\b
Examples:
  flyweight bench export last --jsonl samples.jsonl
  flyweight bench export 3fa9 --jsonl samples.jsonl.gz
  flyweight bench export 3fa9 --jsonl - | jq 'select(.selected) | .answer'

A file is written whole or not at all; a name ending in .gz is compressed.
"""

PACK = """Write everything in the store to one compressed file, to keep in version control or carry elsewhere.

\b
Examples:
  flyweight bench pack runs.jsonl.gz
  flyweight bench pack exact.jsonl.gz --precision float32
  flyweight bench pack to-read.jsonl.xz --precision none

Equal stores give equal files. With float16 log-probabilities keep three significant digits, at about
6 bytes a token; float32 is exact. With none a text keeps their mean alone, a quarter of the size:
reports, exports and the viewer read searches, texts, scores and grades, but nothing can be drawn or
scored on from there.
"""

UNPACK = """Take what `pack` wrote into the store. What is there stays; the file is taken in whole or not at all.

\b
Examples:
  flyweight bench unpack runs.jsonl.gz
  flyweight bench unpack runs.jsonl.gz --out results
  flyweight bench unpack here.jsonl.gz && flyweight bench unpack there.jsonl.gz
"""

Run = Annotated[str, typer.Argument(metavar="RUN", help=f"A run {NAMED}.")]


def register(group: typer.Typer) -> None:
    """Add the commands to the group."""
    group.command("ls", help=LS, short_help="List the runs on record.")(ls)
    group.command("show", help=SHOW, short_help="Show a run, or the search of a problem.")(show)
    group.command("diff", help=DIFF, short_help="Compare two runs.")(diff)
    group.command("export", help=EXPORT, short_help="Write every candidate of a run as JSON lines.")(export)
    group.command("pack", help=PACK, short_help="Write the whole store to one file.")(pack)
    group.command("unpack", help=UNPACK, short_help="Take in a file that pack wrote.")(unpack)


def ls(folder: Folder = DEFAULT, json: options.JsonArray = False) -> None:
    from flyweight.cli import recorded

    with reading(folder) as store:
        runs = [recorded.summary(store, info) for info in store.runs()]
    if json:
        typer.echo(render.dumps(runs))
        return
    typer.echo(recorded.listing(runs) if runs else f"{render.oneline(str(folder))} holds no runs.")


def show(
    run: Run,
    problem: Annotated[
        str | None, typer.Argument(metavar="PROBLEM", help="Its id: show that search.", show_default=False)
    ] = None,
    problems: Annotated[bool, typer.Option("--problems", help="List the problems too.")] = False,
    folder: Folder = DEFAULT,
    json: options.Json = False,
) -> None:
    from flyweight.cli import recorded

    with reading(folder) as store:
        (info,) = meant(store, [run])
        if problem is not None:
            searched = recorded.search(store, info, problem)
            facts = recorded.search_facts(info, *searched) if json else {}
            typer.echo(render.dumps(facts) if json else recorded.search_text(info, *searched))
            return
        counted = recorded.Counted.of(store, info)
    if json:
        each = {"each": [recorded.question_facts(question) for question in counted.questions]} if problems else {}
        typer.echo(render.dumps(recorded.run_facts(info, counted) | each))
        return
    typer.echo(recorded.run_text(info, counted))
    if problems and counted.questions:
        typer.echo("\n" + recorded.problem_table(counted))


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A run, as for show.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    folder: Folder = DEFAULT,
    json: options.Json = False,
) -> None:
    from flyweight.cli import recorded

    with reading(folder) as store:
        (first,), (second,) = meant(store, [a]), meant(store, [b])
        facts = recorded.difference_facts(store, first, second)
    typer.echo(render.dumps(facts) if json else recorded.difference_text(facts))


def export(
    run: Run,
    jsonl: Annotated[Path, typer.Option("--jsonl", metavar="FILE", help='Where to; "-" is stdout.')],
    folder: Folder = DEFAULT,
) -> None:
    from flyweight.cli import recorded
    from flyweight.store.files import replacing

    with reading(folder) as store:
        (info,) = meant(store, [run])
        if str(jsonl) == "-":
            for row in recorded.samples(store, info):
                typer.echo(render.dumps(row))
            return
        written = 0
        with replacing(jsonl, packed="gz" if jsonl.suffix == ".gz" else None, store=store.path) as file:
            for row in recorded.samples(store, info):
                file.write(render.dumps(row).encode("ascii") + b"\n")
                written += 1
    typer.echo(f"Wrote {written:,} samples to {jsonl}.", err=True)


def pack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to.")],
    precision: Annotated[str, typer.Option(metavar="NAME", help="none, float16 or float32.")] = "float16",
    folder: Folder = DEFAULT,
) -> None:
    with reading(folder) as store:
        counts = store.dump(file, precision)  # type: ignore[arg-type]  # checked there
    typer.echo(f"Wrote {_numbers(counts)} to {file}: {file.stat().st_size / 1e6:,.2f} MB.", err=True)


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Written by pack.")], folder: Folder = DEFAULT
) -> None:
    from flyweight.store import Store
    from flyweight.store.files import BESIDE

    path = made(folder)
    new = not path.exists()
    store = Store(path)
    try:
        with store:
            new = new and not store.runs()  # or another process has just written it
            counts = store.load(file)
    except FlyweightError:
        if new:  # nothing came of it: leave nothing behind
            for end in ("", *BESIDE):
                path.with_name(path.name + end).unlink(missing_ok=True)
        raise
    typer.echo(f"Took {_numbers(counts)} into {path}.", err=True)


def _numbers(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts.get(table, 0):,} {table}" for table in ("runs", "searches", "units"))
