"""`flyweight serve`: searched answers behind OpenAI's interface."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flyweight import api
from flyweight.cli import options, render
from flyweight.cli.folder import DEFAULT
from flyweight.errors import ConfigError
from flyweight.types import BOXED

__all__ = ["register"]

HELP = """Answer OpenAI's clients: change their base URL, and every answer is searched for.

The model's own name is the model as it is; MODEL@STRATEGY (also MODEL@best_of_n:n=16,budget=4096) searches, and so do
the presets of --config. /v1/models lists them. docs/server.md has the rest.

\b
Examples:
  flyweight serve --ui
  flyweight serve --port 9000 --model qwen2.5-1.5b --verifier self --verifier judge
  flyweight serve --host 0.0.0.0 --api-key "$SECRET" --config presets.toml

\b
After the first SIGTERM or Ctrl-C no new requests are taken and those under way have 8 seconds; the second one ends at
once.
"""

Host = Annotated[str, typer.Option(envvar="FLYWEIGHT_HOST", metavar="ADDRESS", help="Where to listen.")]
Port = Annotated[int, typer.Option(envvar="FLYWEIGHT_PORT", metavar="PORT", help="Where to listen; 0 picks one.")]
ApiKey = Annotated[
    list[str] | None,
    typer.Option(
        envvar="FLYWEIGHT_API_KEY",
        metavar="KEY",
        help="What clients have to send as Authorization: Bearer KEY; repeatable. [default: none]",
        show_envvar=True,
    ),
]
Verifiers = Annotated[
    list[str] | None,
    typer.Option(
        "--verifier",
        metavar="NAME",
        help="What scores candidates, and what requests may ask for; repeatable, the first is the default. "
        f"[default: {api.DEFAULT_VERIFIER}]",
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(envvar="FLYWEIGHT_CONFIG", metavar="FILE", help="TOML with presets: [models.NAME] strategy=..."),
]
AllowHost = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="A further name the server goes by (Host header); repeatable.")
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(metavar="ORIGIN", help="A web page's origin that may use the server (CORS); repeatable."),
]
Ui = Annotated[bool, typer.Option("--ui/--no-ui", help="A page under /ui/: ask, watch searches, see recorded runs.")]
Runs = Annotated[
    Path, typer.Option("--runs", envvar="FLYWEIGHT_RUNS", metavar="DIR", help="Folder of the runs the page shows.")
]
Deadline = Annotated[
    float, typer.Option(metavar="SECONDS", help="Longest time for a request, unless it sets one itself.")
]
Running = Annotated[int, typer.Option(metavar="N", help="Requests searched at once.")]
Queued = Annotated[int, typer.Option(metavar="N", help="Requests that wait; more get 429.")]
Generations = Annotated[int, typer.Option(metavar="N", help="Most answers one request may have drawn.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve", help=HELP, short_help="An OpenAI-compatible server.")(serve)


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key: ApiKey = None,
    model: options.Model = api.DEFAULT_MODEL,
    verifier: Verifiers = None,
    config: Config = None,
    kind: options.Kind = "math",
    system: options.System = BOXED,
    max_tokens: options.MaxTokens = 512,
    context: options.Context = 4096,
    slots: options.Slots = 32,
    weights: options.Weights = "auto",
    deadline: Deadline = 300.0,
    max_running: Running = 32,
    max_queued: Queued = 64,
    max_generations: Generations = 256,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    ui: Ui = False,
    runs: Runs = DEFAULT,
    quiet: options.Quiet = False,
) -> None:
    try:
        from flyweight.server import setup
    except ModuleNotFoundError as missing:
        raise ConfigError(f"serve needs {missing.name}: pip install 'flyweight[server]'") from None
    numbers = {"--max-running": max_running, "--max-generations": max_generations, "--deadline": deadline}
    for option, value in numbers.items():
        if not 0 < value < float("inf"):
            raise ConfigError(f"{option} {value:g} is not allowed: a number above 0")
    if max_queued < 0:
        raise ConfigError(f"--max-queued {max_queued} is not allowed: a whole number from 0")
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port} is not allowed: a whole number from 0 to 65535")
    judges = tuple(dict.fromkeys(verifier or [api.DEFAULT_VERIFIER]))
    made_of = options.ModelOptions(model, judges[0], kind, max_tokens, context, slots=slots, weights=weights)
    made_of.check()

    def say(line: str) -> None:
        typer.echo(render.clean(line), err=True)

    setup.run(
        made_of.open,
        setup.Settings(
            host=host,
            port=port,
            keys=tuple(api_key or ()),
            model=model,
            verifiers=judges,
            presets=config,
            kind=kind,
            system=system,
            max_tokens=max_tokens,
            deadline=deadline,
            running=max_running,
            queued=max_queued,
            generations=max_generations,
            hosts=tuple(allow_host or ()),
            origins=tuple(allow_origin or ()),
            ui=runs if ui else None,
        ),
        say=(lambda line: None) if quiet else say,
        log=say,
    )
