"""Questions asked in the page, and the searches that people watch while they run."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from flyweight import strategies
from flyweight.errors import ConfigError, FlyweightError
from flyweight.types import Budget, Event, Node
from flyweight.viewer import searches
from flyweight.viewer.page import dumps

__all__ = ["Asked", "Asking", "Busy", "Engine", "menu"]

Json = dict[str, Any]

KNOWN = ("question", "strategy", "parameters", "budget")
LONGEST = 20_000
"""Characters of a question."""
REMEMBERED = 24
"""Searches that can still be watched."""
AT_ONCE = 8
"""Searches asked for in the page that have not ended."""
PROGRESS_SECONDS = 0.12
"""Progress comes with every step of the engine; people see a few of them a second."""
KEEPALIVE_SECONDS = 10.0


class Busy(FlyweightError):
    """Too many searches are running."""


@dataclass(frozen=True)
class Asked:
    """A question with how to search for its answer. Checked: the strategy exists and takes the parameters."""

    question: str
    strategy: str
    parameters: Mapping[str, strategies.Value]
    budget: Budget


class Engine(Protocol):
    """Whatever can search: the server's engine, or a model of one's own."""

    @property
    def model(self) -> str:
        """What answers."""

    def start(self, asked: Asked, on_event: Callable[[Event], None]) -> Callable[[], None]:
        """Begin a search whose events, the end among them, go to `on_event`; what is returned stops it."""

    def answer(self, text: str) -> str | None:
        """The answer a complete text states."""


def menu(model: str, default: str) -> Json:
    """What a page can choose from."""
    described = [strategies.describe(name) for name in strategies.names()]
    return {
        "model": model,
        "default": default,
        "strategies": [
            {
                "name": each.name,
                "summary": each.summary,
                "parameters": [
                    {"name": p.name, "default": p.default, "kind": type(p.default).__name__} for p in each.parameters
                ],
            }
            for each in described
        ],
    }


class Asking:
    """The searches of a page. Safe to use from several threads."""

    def __init__(self, engine: Engine, *, default: str = "self_consistency") -> None:
        self.menu = menu(engine.model, default)
        self._engine = engine
        self._searches: dict[str, _Watched] = {}
        self._lock = threading.Lock()

    def ask(self, body: object) -> str:
        """Begin what the page asked for; what the search is called. ConfigError for what cannot be asked, or Busy."""
        asked = checked(body)
        watched = _Watched(self._engine.answer)
        with self._lock:
            if sum(not each.ended for each in self._searches.values()) >= AT_ONCE:
                raise Busy(f"{AT_ONCE} searches are running: wait for one, or stop it")
            for id in [id for id, each in self._searches.items() if each.ended][: -REMEMBERED + 1 or None]:
                if len(self._searches) >= REMEMBERED:
                    del self._searches[id]
            id = secrets.token_hex(8)
            self._searches[id] = watched
        try:
            watched.stop = self._engine.start(asked, watched)
        except BaseException:
            with self._lock:
                del self._searches[id]
            raise
        return id

    def stop(self, id: str) -> None:
        """End a search at its next step. KeyError for one that is not there."""
        self._searches[id].stop()

    def events(self, id: str) -> Iterator[bytes]:
        """Everything that happened and happens, as server-sent events. KeyError for a search that is not there."""
        return self._searches[id].stream()


class _Watched:
    """The events of one search, for any number of readers."""

    def __init__(self, answer: Callable[[str], str | None]) -> None:
        self.stop: Callable[[], None] = lambda: None
        self.ended = False
        self._answer = answer
        self._known: set[str] = set()
        self._lines: list[bytes] = []
        self._changed = threading.Condition()
        self._told = 0.0

    def __call__(self, event: Event) -> None:
        """Take in an event of the engine's thread."""
        if event.kind == "progress":
            now = time.monotonic()
            if now - self._told < PROGRESS_SECONDS:
                return
            self._told = now
        record = searches.lean(event, self._known)
        record.pop("problem_id")
        if event.kind == "node" and event.node is not None and event.node.complete:
            record["answer"] = self._stated(event.node)
        with self._changed:
            self._lines.append(b"data: " + dumps(record).encode() + b"\n\n")
            self.ended = self.ended or event.kind == "end"
            self._changed.notify_all()

    def stream(self) -> Iterator[bytes]:
        """Lines as they come, from the first to the end."""
        sent = 0
        while True:
            with self._changed:
                if sent == len(self._lines) and not self.ended:
                    self._changed.wait(KEEPALIVE_SECONDS)
                lines, ended = self._lines[sent:], self.ended
            sent += len(lines)
            yield b"".join(lines) or b": still searching\n\n"
            if ended:
                return

    def _stated(self, node: Node) -> str | None:
        return self._answer(node.solution)


def checked(body: object) -> Asked:
    """What a page asked for. ConfigError with the field, what it may be and the fix."""
    if not isinstance(body, dict):
        raise ConfigError(f"a question is an object with {', '.join(KNOWN)}")
    if unknown := sorted(body.keys() - set(KNOWN)):
        raise ConfigError(f"unknown field {unknown[0]!r} (one of: {', '.join(KNOWN)})")
    question, strategy = body.get("question"), body.get("strategy", "self_consistency")
    if not isinstance(question, str) or not question.strip():
        raise ConfigError("the question is empty: write some text")
    if len(question) > LONGEST:
        raise ConfigError(f"the question has {len(question):,} characters, {LONGEST:,} are allowed: shorten it")
    if not isinstance(strategy, str):
        raise ConfigError("strategy must be a name (flyweight list strategies)")
    parameters, budget = body.get("parameters") or {}, body.get("budget") or {}
    if not isinstance(parameters, dict) or not all(isinstance(v, int | float | str) for v in parameters.values()):
        raise ConfigError("parameters must be an object of numbers, words or booleans")
    strategies.bind(strategy, parameters)
    return Asked(question, strategy, parameters, _budget(budget))


def _budget(given: object) -> Budget:
    limits = {"tokens": int, "seconds": float}
    if not isinstance(given, dict) or given.keys() - limits.keys():
        raise ConfigError("budget must be an object with tokens, seconds or both")
    for name, value in given.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or (name == "seconds" and isinstance(value, float))) or not 0 < value < 1e9:
            raise ConfigError(f"budget {name} must be a number above 0, not {value!r}")
    return Budget(tokens=given.get("tokens"), seconds=given.get("seconds"))
