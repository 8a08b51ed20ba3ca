"""The program `flyweight`: commands by name, one line per error, and the exit code."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from flyweight.cli.render import clean
from flyweight.errors import BackendError, ConfigError, FlyweightError, ModelError, SandboxError, StoreError

__all__ = ["app", "main", "run"]

_MODULES = (
    "solve",
    "compare",
    "chat",
    "serve",
    "demo",
    "bench",
    "report",
    "view",
    "train",
    "calibrate",
    "plan",
    "list",
    "models",
    "doctor",
)
"""Modules of this package, each registering its commands on the app it is given; in the order of the help."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a stream or a disk says that takes no more; files a command names have errors of their own."""
NUMBERS = {"int": "a whole number", "float": "a number"}


app = typer.Typer(
    name="flyweight",
    rich_markup_mode=None,  # plain help: the same in every terminal, in the docs and in under 0.3 s
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

HELP = """Make a small language model answer like a bigger one, and see what it cost.

\b
Examples:
  flyweight demo
  flyweight solve "What is 12 * 17 - 4?"
  flyweight compare "What is 12 * 17 - 4?" --strategies greedy,self_consistency

\b
Exit codes:
  0    the command did what it was asked
  1    a bug in Flyweight (--debug shows where), or the reader of its output went away
  2    the request cannot be carried out as written
  3    a model, policy, verifier or store failed, or a file could not be written
  4    the sandbox that generated code must run in is missing
  5    partial: the budget or the deadline ended before there was any answer
  130  interrupted (143 by SIGTERM); what was known so far is printed

\b
Results go to stdout, progress and errors to stderr.
"""


def _version(wanted: bool) -> None:
    if wanted:
        from flyweight import __version__

        typer.echo(f"flyweight {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, help=HELP)
def top(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="FLYWEIGHT_DEBUG", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    """Hold the options that stand before a command; without a command, show the help."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for _module in _MODULES:
    importlib.import_module(f"flyweight.cli.{_module}").register(app)


def run(arguments: Sequence[str]) -> int:
    """Carry out a command line; the exit code. Errors become one line on stderr."""
    arguments, debug = _debug(arguments)
    try:
        code = typer.main.get_command(app).main(args=arguments, prog_name="flyweight", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError as error:
        return _lost(error)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (typer.TyperException, FlyweightError) as error:
        if debug:
            raise
        complain(_message(error) if isinstance(error, typer.TyperException) else str(error))
        return exit_code(error)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in _FULL:
            return _lost(error)
        complain(f"{type(error).__name__}: {error} (this is a bug; --debug shows where)")
        return 1


def exit_code(error: Exception) -> int:
    """The exit code an error stands for."""
    if isinstance(error, ModelError | BackendError | StoreError):
        return 3
    if isinstance(error, SandboxError):
        return 4
    return 2 if isinstance(error, ConfigError | typer.TyperException) else 1


def complain(message: str) -> None:
    """One line on stderr."""
    typer.echo(f"Error: {' '.join(clean(message).split())}", err=True)


def main() -> None:
    """Entry point of the command `flyweight`."""
    for name in ("stdin", "stdout", "stderr"):  # in this order, so that each gets the descriptor that was closed
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal gets escapes, not a traceback
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        code = _lost(error)
    sys.exit(code)


def _debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """`--debug` counts wherever it stands before a `--`; the environment counts too."""
    rest = list(arguments)
    end = rest.index("--") if "--" in rest else len(rest)
    before = [argument for argument in rest[:end] if argument != "--debug"]
    asked = len(before) < end
    variable = os.environ.get("FLYWEIGHT_DEBUG", "").lower() in ("1", "true", "yes", "on")
    return [*before, *rest[end:]], asked or variable


def _message(error: typer.TyperException) -> str:
    """What is wrong with the command line; of a number that is none, with the value."""
    mistakes: Sequence[Mapping[str, str]] = getattr(error.__cause__, "errors", list)()  # pydantic's
    for mistake in mistakes[:1]:
        if wanted := NUMBERS.get(mistake["type"].partition("_")[0]):
            error.message = f"{mistake['input']!r} is not {wanted}"
    return error.format_message()


def _lost(error: OSError) -> int:
    """The exit code where stdout takes no more; only a reader that went away needs no word."""
    _abandon_stdout()
    if isinstance(error, BrokenPipeError):
        return 1
    complain(f"the output cannot be written: {error.strerror or error}")
    return 3


def _abandon_stdout() -> None:
    """Nobody reads stdout any more: keep Python from complaining about it when it exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
