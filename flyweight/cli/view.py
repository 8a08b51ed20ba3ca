"""`flyweight view`: recorded runs, and questions asked here, as a page in the browser."""

from __future__ import annotations

import json
import queue
import signal
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flyweight.cli.folder import DEFAULT, NAMED, database, existing, meant, reading
from flyweight.errors import ConfigError

if TYPE_CHECKING:
    from flyweight.api import Session
    from flyweight.types import Event
    from flyweight.viewer.asking import Asked

__all__ = ["plan_of", "register"]

HELP = """Look at recorded runs in the browser: every question, every search as a tree, curves, comparisons.

\b
Examples:
  flyweight view
  flyweight view last --port 8300
  flyweight view --model qwen2.5-coder-0.5b

It listens on this machine alone and writes nothing. With --model it also answers questions asked in
the page, whose search can be watched; flyweight report --html makes one file of it to pass on.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("view", help=HELP, short_help="Runs and searches in the browser.")(view)


def view(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help=f"Open this run, {NAMED}.", show_default=False)
    ] = None,
    folder: Annotated[
        Path, typer.Option("--runs", envvar="FLYWEIGHT_RUNS", metavar="DIR", help="Folder of the runs.")
    ] = DEFAULT,
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="Answer questions with this model.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Show this plan: what flyweight plan --json printed.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port; 0 takes a free one.")] = 8321,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    from flyweight.api import DEFAULT_STRATEGY
    from flyweight.viewer.asking import Asking
    from flyweight.viewer.local import serve
    from flyweight.viewer.site import Site

    start = ""
    if run is not None:
        with reading(folder) as store:
            start = f"/run/{meant(store, [run])[0].id}"
    elif model is None:
        existing(folder)
    engine = None if model is None else Own(model)
    site = Site(
        database(folder),
        asking=None if engine is None else Asking(engine, default=DEFAULT_STRATEGY),
        plan=None if plan is None else plan_of(plan),
        start=start or ("/ask" if engine is not None and not database(folder).is_file() else ""),
    )

    def ready(address: str, shut: Callable[[], None]) -> None:
        typer.echo(f"Viewer on {address} (Ctrl-C ends it)", err=True)
        # From a thread of its own: shutting down waits for the loop that this handler interrupts.
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=shut).start())
        if browser:
            threading.Thread(target=_open, args=(address,), daemon=True).start()

    try:
        serve(site, port, ready)
    except KeyboardInterrupt:
        return
    finally:
        if engine is not None:
            engine.close()


def plan_of(path: Path) -> dict[str, Any]:
    """A plan from its file. ConfigError for one that is none."""
    from flyweight.textfile import read

    try:
        found = json.loads(read(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: give it what flyweight plan --json printed") from error
    if not isinstance(found, dict) or not isinstance(found.get("frontier"), list):
        raise ConfigError(f"{path} holds no plan (no frontier): give it what flyweight plan --json printed")
    return found


def _open(address: str) -> None:
    with suppress(webbrowser.Error):
        webbrowser.open(address)


class Own:
    """A model of one's own that searches one question after another, in a thread of its own."""

    def __init__(self, model: str) -> None:
        """ConfigError or ModelError now if there is no such model; it is loaded with the first question."""
        from flyweight import api

        api.find_policy(model)
        self.model = model
        self._waiting: queue.SimpleQueue[tuple[Asked, Callable[[Event], None], threading.Event] | None]
        self._waiting = queue.SimpleQueue()
        self._session: Session | None = None
        self._now: tuple[Callable[[Event], None], threading.Event] | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def start(self, asked: Asked, on_event: Callable[[Event], None]) -> Callable[[], None]:
        """Queue a question."""
        stopped = threading.Event()
        self._waiting.put((asked, on_event, stopped))
        return stopped.set

    def answer(self, text: str) -> str | None:
        """The answer of a text, as maths are read."""
        from flyweight import answers

        return answers.extract(text, "math")

    def close(self) -> None:
        """Let the model go, once the search at hand has stopped."""
        now = self._now
        if now is not None:
            now[1].set()
        self._waiting.put(None)
        self._thread.join(5)

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            asked, on_event, stopped = item
            self._now = on_event, stopped
            try:
                self._search(asked, stopped)
            except Exception as error:
                _failed(asked, on_event, error)
        if self._session is not None:
            self._session.close()

    def _search(self, asked: Asked, stopped: threading.Event) -> None:
        from flyweight import api, strategies

        if self._session is None:
            self._session = api.Session(self.model, on_event=self._event)
        if stopped.is_set():
            raise ConfigError("stopped before it began")
        bound = strategies.bind(asked.strategy, asked.parameters)
        self._session.runner.solve(api.problem(asked.question), bound, asked.budget)

    def _event(self, event: Event) -> None:
        assert self._now is not None and self._session is not None
        on_event, stopped = self._now
        on_event(event)
        if stopped.is_set():
            self._session.runner.interrupt()


def _failed(asked: Asked, on_event: Callable[[Event], None], error: Exception) -> None:
    """A search that could not even begin ends all the same."""
    from flyweight import api
    from flyweight.types import Event, Result, Stopped

    problem = api.problem(asked.question)
    result = Result(problem, None, None, stopped=Stopped.ERROR, error=f"{type(error).__name__}: {error}")
    on_event(Event(problem.id, "end", 0.0, None, {"result": result}))
