"""What a search is doing, while it does it: one line rewritten on a terminal, a line now and then elsewhere.

A fold over events and nothing else; it goes to stderr and leaves nothing behind on a terminal.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from flyweight.cli.render import oneline, short
from flyweight.types import Event, Finish, Node

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["Progress", "Tally"]

REFRESH = 0.1
"""Seconds between two drawings on a terminal."""
SPARSE = 5.0
"""Seconds between two lines elsewhere."""
WINDOW = 3.0
"""Seconds over which tokens per second are measured."""


@dataclass
class Tally:
    """What the events so far add up to, over all questions in flight."""

    kind: str = "math"
    started: int = 0
    ended: int = 0
    samples: int = 0
    """Solutions that came to an end, truncated ones included."""
    steps: int = 0
    depth: int = 0
    drawn: int = 0
    """Tokens of the nodes that came back."""
    before: int = 0
    """Tokens the engine had generated when this tally began."""
    engine: int = 0
    """Tokens it had generated when it was last heard of."""
    scored: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """Canonical answer -> how many samples gave it."""
    written: dict[str, str] = field(default_factory=dict)
    """Canonical answer -> how the first sample wrote it."""
    _speed: deque[tuple[float, int]] = field(default_factory=deque)

    def __call__(self, event: Event) -> None:
        """Take in one event."""
        if event.kind == "start":
            self.started += 1
        elif event.kind == "end":
            self.ended += 1
        elif event.kind == "score":
            self.scored += 1
        elif event.kind == "node" and event.node is not None:
            self._node(event.node)
        elif event.kind == "progress":
            total = event.facts.get("engine_tokens")
            if isinstance(total, int):
                self.engine = total
                self._measure(event.at, total)

    @property
    def tokens(self) -> int:
        """Tokens generated so far, those of unfinished nodes included as far as they are known."""
        return max(self.drawn, self.engine - self.before)

    @property
    def speed(self) -> float | None:
        """Tokens per second over the last few seconds; None before there are two measurements."""
        if len(self._speed) < 2:
            return None
        (since, before), (now, total) = self._speed[0], self._speed[-1]
        return (total - before) / (now - since) if now > since else None

    def _node(self, node: Node) -> None:
        self.drawn += len(node.tokens or ())
        if node.finish is Finish.STOP:
            self.steps += 1
            self.depth = max(self.depth, len(node.order))
            return
        self.samples += 1
        if node.finish is not Finish.END:
            return
        from flyweight import answers

        said = answers.extract(node.solution, self.kind)
        if said is not None:
            key = answers.canonical(said, self.kind)
            self.answers[key] += 1
            self.written.setdefault(key, said)

    def _measure(self, at: float, total: int) -> None:
        self._speed.append((at, total))
        while len(self._speed) > 2 and at - self._speed[0][0] > WINDOW:
            self._speed.popleft()

    def line(self, n: int | None, seconds: float) -> str:
        """The state in one line; `n` is how many samples are wanted, None when that is not fixed."""
        parts = []
        if self.started > 1:
            parts.append(f"{self.ended} of {self.started} questions")
        if self.steps:
            parts.append(f"step {self.depth} ({self.steps} drawn)")
        if self.samples or not self.steps:
            parts.append(f"{self.samples}{f'/{n}' if n else ''} samples")
        if self.scored:
            parts.append(f"{self.scored} scored")
        if self.answers and self.started <= 1:
            key, count = self.answers.most_common(1)[0]
            parts.append(f"leading {short(self.written[key], 16)} ({count}/{self.samples})")
        parts.append(f"{self.tokens:,} tokens")
        if self.speed is not None:
            parts.append(f"{self.speed:.0f}/s")
        parts.append(f"{seconds:.0f} s")
        return " · ".join(parts)


class Progress:
    """Shows what happens while entered. Call it with every event; `begin` starts a new tally under a title."""

    def __init__(self, *, quiet: bool = False, kind: str = "math", clock: Callable[[], float] = time.monotonic) -> None:
        self.quiet = quiet
        self.kind = kind
        self.tally = Tally(kind)
        self._clock = clock
        self._live: Live | None = None
        self._title = ""
        self._n: int | None = None
        self._since = self._shown = clock()
        self._every = REFRESH if sys.stderr.isatty() else SPARSE

    def begin(self, title: str, n: int | None = None) -> None:
        """Count from zero; `n` samples are expected, if that is known."""
        total = max(self.tally.engine, self.tally.before + self.tally.drawn)
        self.tally = Tally(self.kind, before=total, engine=total)
        self._title, self._n = title, n
        self._since = self._shown = self._clock()
        if self._live is not None:
            self._draw(title)

    def say(self, text: str) -> None:
        """Show that something without events goes on, such as loading."""
        if self._live is not None:
            self._draw(text)

    def clear(self) -> None:
        """Take the line away, for something to be printed in its place."""
        if self._live is not None:
            self._draw("")

    def note(self, text: str) -> None:
        """A line that stays, unless quiet."""
        if not self.quiet:
            self.clear()
            sys.stderr.write(oneline(text) + "\n")
            sys.stderr.flush()

    def __call__(self, event: Event) -> None:
        if self.quiet:
            return
        self.tally(event)
        now = self._clock()
        if now - self._shown < self._every:
            return
        self._shown = now
        text = f"{self._title}: {self.tally.line(self._n, now - self._since)}"
        if self._live is not None:
            self._draw(text)
        else:
            self.note(text)

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            # Drawn only when called: no thread that could write between two lines of ours.
            console = Console(stderr=True)
            self._live = Live(
                console=console, transient=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _draw(self, text: str) -> None:
        from rich.text import Text

        if self._live is not None:
            self._live.update(Text(oneline(text), overflow="ellipsis", no_wrap=True), refresh=True)
