"""What a coroutine hands up to the runner when it awaits, and the branch it is part of."""

from __future__ import annotations

import random
import types
from collections.abc import Coroutine, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from flyweight.protocols import Policy, Request, Response
from flyweight.types import Node

__all__ = ["Branch", "Draw", "Fork", "Outside", "ask"]


@dataclass(eq=False)
class Branch:
    """A running coroutine: the strategy itself, or one branch of a `parallel`."""

    coroutine: Coroutine[object, object, object]
    rng: random.Random
    place: tuple[int, ...] = ()
    """Where it sits in the tree of parallels; keeps draw indices independent of how branches interleave."""
    parent: Branch | None = None
    waiting: Draw | Fork | Outside | None = None
    draws: dict[str, int] = field(default_factory=dict)
    """Per parent node: how many draws this branch has asked for."""
    forks: int = 0


@dataclass(eq=False)
class Draw:
    """Continuations asked for in one `await`. Resolved when every one has come back or been refused."""

    requests: list[Request]
    policy: Policy
    verifying: bool
    """Asked by a verifier: its tokens are verifier tokens and do not count against the token budget."""
    nodes: list[Node | None]
    """The child each request will become, still without its text."""
    whole: bool = False
    """Whether a stop string ends the answer (complete, ask) rather than a step (extend)."""
    responses: list[Response | None] = field(default_factory=list)
    open: int = 0
    error: str | None = None

    def __post_init__(self) -> None:
        self.responses = [None] * len(self.requests)
        self.open = len(self.requests)

    def reserved(self, index: int) -> int:
        """Most tokens the request may take out of the token budget."""
        return 0 if self.verifying else self.requests[index].sampling.max_tokens


@dataclass(eq=False)
class Fork:
    """Branches started in one `await parallel(...)`."""

    coroutines: Sequence[Coroutine[object, object, object]]
    results: list[object] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    open: int = 0


@dataclass(eq=False)
class Outside:
    """Work done on another thread or machine, whose result is awaited while everything else goes on."""

    future: Future[Any]


@types.coroutine
def ask(call: Draw | Fork | Outside) -> Generator[Draw | Fork | Outside, Any, Any]:
    """Hand a request to whoever drives the coroutine; what it sends back is the answer."""
    return (yield call)
