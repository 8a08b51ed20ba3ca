"""`flyweight list`: what there is to choose from, read from the code itself."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill
from typing import Annotated

import typer

from flyweight import strategies
from flyweight.cli import options, render
from flyweight.errors import unknown

__all__ = ["register"]

HELP = """List strategies, verifiers, policies and tasks, each with its parameters and its source.

\b
Examples:
  flyweight list
  flyweight list strategies
  flyweight list --json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("list", help=HELP, short_help="Strategies, verifiers, policies and tasks.")(show)


def show(
    what: Annotated[
        str | None,
        typer.Argument(metavar="WHAT", help="strategies, verifiers, policies or tasks.", show_default="all of them"),
    ] = None,
    json: options.Json = False,
) -> None:
    entries = everything()
    if what is not None:
        if what not in entries:
            raise unknown("list", what, entries)
        entries = {what: entries[what]}
    if json:
        typer.echo(render.dumps(entries))
        return
    typer.echo("\n\n".join("\n".join(_lines(heading, rows)) for heading, rows in entries.items()))


def everything() -> dict[str, list[dict[str, object]]]:
    """Rows with name, summary and source for every heading; strategies also have cost, use and parameters.

    `composition` are what every strategy may be given besides its own parameters.
    """
    from flyweight import policies, tasks, verifiers

    described = [strategies.describe(name) for name in strategies.names()]
    return {
        "strategies": [
            {
                "name": strategy.name,
                "summary": strategy.summary,
                "source": strategy.source,
                "cost": strategy.cost,
                "use": strategy.use,
                "parameters": [_parameter(parameter) for parameter in strategy.parameters],
                "composition": [_parameter(parameter) for parameter in strategies.COMMON.values()],
            }
            for strategy in described
        ],
        **{
            heading: [{"name": row.name, "summary": row.summary, "source": row.source} for row in rows]
            for heading, rows in (
                ("verifiers", verifiers.describe()),
                ("policies", policies.describe()),
                ("tasks", tasks.describe()),
            )
        },
    }


def _parameter(parameter: strategies.Parameter) -> dict[str, object]:
    return {
        "name": parameter.name,
        "type": parameter.kind.__name__,
        "default": parameter.default,
        "allowed": parameter.allowed,
    }


def _lines(heading: str, rows: list[dict[str, object]]) -> Iterator[str]:
    yield heading.capitalize()
    if heading == "strategies":
        yield from _common()
    for row in rows:
        yield f"  {render.oneline(str(row['name']))}"
        yield _wrapped(str(row["summary"]))
        parameters = row.get("parameters")
        if isinstance(parameters, list):
            for parameter in parameters:
                yield f"      {parameter['name']}={parameter['default']}  ({parameter['allowed']})"
        if row.get("cost"):
            yield _wrapped(f"Cost: {row['cost']}")
        if row.get("use"):
            yield _wrapped(f"Use: {row['use']}")
        if row["source"]:
            yield _wrapped(f"Source: {row['source']}")


def _common() -> Iterator[str]:
    """What every strategy takes."""
    yield _wrapped("Each may be given, beside its own parameters, what it is made of, as in best_of_n:of=beam_search:")
    for parameter in strategies.COMMON.values():
        yield fill(
            f"{parameter.name}  ({parameter.allowed})",
            100,
            initial_indent=" " * 6,
            subsequent_indent=" " * 8,
        )


def _wrapped(text: str) -> str:
    return fill(render.oneline(text), 100, initial_indent="    ", subsequent_indent="    ")
