"""One logical request: what is to be searched, what has come of it so far, and who waits for it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from flyweight.protocols import Answers, Strategy
from flyweight.server.choosing import Wanted
from flyweight.server.errors import ApiError
from flyweight.types import Budget, Problem, Sampling

__all__ = ["Choice", "Delta", "Failed", "Finished", "Job", "Piece", "Plan", "Reply", "Seen", "Started", "Thought"]


@dataclass(frozen=True)
class Plan:
    """A request that was checked: everything the engine has to know, and what its answer has to look like."""

    model: str
    """As the client named it."""
    chat: bool
    problems: tuple[Problem, ...]
    wanted: Wanted
    strategy: Strategy | None
    """Bound to its parameters; None for the model alone."""
    parameters: Mapping[str, Any]
    budget: Budget
    deadline: float
    """Seconds, waiting included."""
    sampling: Sampling
    seed: int
    answers: Answers
    verifier: str
    n: int = 1
    """Choices returned for each problem."""
    whole: str = ""
    """What only answers drawn in one piece can have."""
    tools: tuple[str, ...] = ()
    """Names of the functions on offer."""
    one_call: bool = False
    """Whether an answer has one call at most."""
    schema: str = ""
    """JSON schema the answer must fit."""
    logprobs: bool = False
    top_logprobs: int = 0
    stream: bool = False
    include_usage: bool = False
    progress: bool = False
    coalesce: bool = True
    ignored: tuple[str, ...] = ()
    """Fields of the request that change nothing here."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer returned."""

    index: int
    text: str
    finish_reason: str
    tokens: int
    """Generated along its path, the one that ends it among them."""
    logprobs: list[dict[str, Any]] | None = None
    calls: tuple[dict[str, Any], ...] = ()
    """Functions called, in OpenAI's form."""


class Reply(NamedTuple):
    """What a request comes to."""

    choices: list[Choice]
    usage: dict[str, Any]
    facts: dict[str, Any]
    """The object `flyweight` of the response."""


class Started(NamedTuple):
    """The engine has taken the request."""


@dataclass(frozen=True, slots=True)
class Delta:
    """More of an answer that is being written."""

    index: int
    text: str
    logprobs: list[dict[str, Any]] | None = None


class Thought(NamedTuple):
    """A line on how the search goes."""

    text: str


class Seen(NamedTuple):
    """An event of a search, as JSON."""

    line: bytes


class Finished(NamedTuple):
    """The answer."""

    reply: Reply


class Failed(NamedTuple):
    """There will be none."""

    error: ApiError


Piece = Started | Delta | Thought | Seen | Finished | Failed


@dataclass(eq=False)
class Job:
    """A request under way or over. Used on the event loop alone."""

    plan: Plan
    owner: str
    """Digest of the key it came with."""
    key: str = ""
    """What identical requests share; empty for none."""
    said: str = ""
    """Digest of the request."""
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: float = field(default_factory=time.time)
    waiters: int = 0
    end: Finished | Failed | None = None
    cancelled: bool = False
    queued_seconds: float = 0.0
    on_end: Callable[[Job], None] = lambda job: None
    _pieces: list[Piece] = field(default_factory=list)
    """Everything a waiter who comes late has to hear."""
    _seen: list[bytes] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.end is not None or self.cancelled

    def tell(self, piece: Piece) -> None:
        """Take in a piece from the engine."""
        if self.over:
            return
        if isinstance(piece, Seen):
            self._seen.append(piece.line)
        else:
            self._pieces.append(piece)
        if isinstance(piece, Finished | Failed):
            self.end = piece
            self.on_end(self)
        self._wake()

    def drop(self) -> None:
        """Nobody waits for it any more."""
        self.cancelled = True
        self.on_end(self)
        self._wake()

    def begin(self, waited: float) -> None:
        """The job has its turn after so many seconds, which its deadline counts in."""
        self.queued_seconds = waited
        left = max(0.001, self.plan.deadline - waited)
        self.plan = replace(self.plan, budget=replace(self.plan.budget, seconds=left))

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self) -> Finished | Failed:
        """How it ends."""
        while self.end is None:
            if self.cancelled:
                raise asyncio.CancelledError
            await self._news.wait()
        return self.end

    async def begun(self, seconds: float) -> None:
        """Return once there is anything to tell, at the latest after these seconds."""
        if not self._pieces and not self.over:
            try:
                async with asyncio.timeout(seconds):
                    while not self._pieces and not self.over:
                        await self._news.wait()
            except TimeoutError:
                return

    def pieces(self) -> AsyncIterator[Piece]:
        """Everything told so far and from now on."""
        return self._follow(lambda: self._pieces)

    def events(self) -> AsyncIterator[bytes]:
        """The events of the search, from its beginning to its end."""
        return self._follow(lambda: self._seen)

    async def _follow(self, log: Callable[[], list[Any]]) -> AsyncIterator[Any]:
        at = 0
        while True:
            news = self._news
            items = log()
            while at < len(items):
                at += 1
                yield items[at - 1]
            if self.over:
                return
            if news is self._news:
                await news.wait()
