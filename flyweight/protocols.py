"""What plugs into what: policies, verifiers, strategies and tasks, and the vocabulary a strategy speaks.

A strategy is an `async def` over `Search`. Its `await` hands a request to our own runner, the way trio's coroutines
talk to their kernel: no event loop, no threads, no timers. Batching, caching, seeds, budgets and events live on the
other side of that `await`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from flyweight.types import Budget, Finish, Grade, Message, Node, Problem, Sampling, Score, Usage

__all__ = [
    "Answers",
    "Counters",
    "Growth",
    "Hidden",
    "Models",
    "Policy",
    "Request",
    "Response",
    "Search",
    "Strategy",
    "Task",
    "Until",
    "Verifier",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Growth:
    """A node while it grows: what an `until` predicate may look at."""

    text: str
    tokens: Sequence[int]
    logprobs: Sequence[float]
    certainty: Sequence[float]


Until = Callable[[Growth], bool]


@dataclass(frozen=True, slots=True)
class Request:
    """One continuation wanted from a policy. Company in flight never changes what it draws."""

    id: int
    """Unique within a runner."""
    node: Node
    """The path to continue; its root holds the prompt."""
    sampling: Sampling
    seed: int
    """Seed of this continuation's own random numbers, in [0, 2**63)."""
    until: Until | None = None
    """Called after every token; generation ends with Finish.CUT as soon as it returns true."""
    choices: tuple[str, ...] = ()
    """If given, nothing is drawn: the response carries the probability of each as the next text."""
    hidden: bool = False
    """Keep the hidden states of the drawn tokens (`Node.hidden`)."""
    reread: bool = False
    """Nothing is drawn: the response carries the hidden states of the whole path, computed again behind its prompt; of
    a root, those of the prompt."""
    alternatives: int = 0
    """How many of the likeliest tokens to tell at every position (`Node.alternatives`)."""
    problem: Node | None = None
    """Root of the problem this is drawn for, where the path has another one: whose turn it is goes by problems."""


@dataclass(frozen=True, slots=True)
class Response:
    """What came of a Request, with its exact cost."""

    id: int
    text: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    certainty: tuple[float, ...] = ()
    finish: Finish = Finish.END
    hidden: object | None = None
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()
    """Where asked for, per token the likeliest ones with their natural-log probabilities, the likeliest first."""
    choices: tuple[float, ...] = ()
    """Natural-log probability of each of the request's choices' first token, <= 0; none where the path fills the
    context (Finish.LENGTH)."""
    ends: tuple[int, ...] = ()
    """Of a path that was read again: states up to the end of each step, the last being all."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0
    """From being sent to its end, where it went over the wire; else 0."""
    error: str | None = None
    """Why this request could not be served; the other fields then hold only its cost."""


class Counters(NamedTuple):
    """An engine's own totals since it was made: what every Usage must add up to."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    recomputed_tokens: int = 0
    """Part of prompt_tokens that had been resident before and was evicted."""
    kv_bytes: int = 0
    """KV memory of the cells in use now."""
    peak_kv_bytes: int = 0


class Policy(Protocol):
    """A model that writes. Driven by the runner: `add` requests, then `step` until they come back."""

    name: str
    params: int
    """Parameters, for FLOPs."""
    boundary: tuple[str, ...]
    """Strings that end a reasoning step, for `extend`."""

    def add(self, request: Request) -> None:
        """Queue a request. Never blocks and never raises for a bad one: that comes back as Response.error."""

    def step(self) -> list[Response]:
        """Do a bounded amount of work (at most about a second) and return whatever finished, in any order.

        A policy that only waits for another machine has a `poll` as well: the same, without waiting.
        """

    def cancel(self, id: int) -> Response:
        """Drop a request that has not come back; its cost comes back (Finish.CUT). Frees its slot at once."""

    @property
    def counters(self) -> Counters:
        """Totals so far."""

    def close(self) -> None:
        """Release the model."""


class Hidden(NamedTuple):
    """The hidden states of a path, as in `Node.hidden`, and what it cost to have them."""

    states: Any
    """float16 [T, layers, width]"""
    tokens: int = 0
    """Computed again for them; none where they had been kept."""
    ends: tuple[int, ...] = ()
    """States up to the end of each step of the path, the last being all; empty for a root."""


class Models(Protocol):
    """What a verifier may ask of the models, awaited like everything else and batched with it."""

    async def read(
        self, nodes: Sequence[Node], text: str, choices: Sequence[str], *, policy: str | None = None
    ) -> list[tuple[float, ...]]:
        """Per node: log-probability of each choice's first token right after the path and the forced `text`.

        Costs the tokens of `text` on the path's own KV, counted as verifier tokens. Empty for a path that leaves no
        room for the text in the context.
        """

    async def complete(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        *,
        temperature: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        """`n` continuations of each node to the end, counted as verifier tokens: all of the first node's, then on."""

    async def ask(
        self,
        messages: Sequence[Message],
        n: int = 1,
        *,
        temperature: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        """`n` completions of a prompt of the verifier's own, counted as verifier tokens."""

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        """Per node the hidden states of its path; of a root those of its prompt, without the last token.

        Free where every step was drawn with them; otherwise the path is read again, counted as verifier tokens.
        """

    def weights(self, policy: str | None = None) -> str:
        """SHA-256 of a policy's model file, which trained heads are tied to; empty where there is none."""

    async def wait(self, future: Future[T]) -> T:
        """The result of work done on another thread or machine; everything else goes on meanwhile.

        Raises what the work raised; cancelled when the search ends before it.
        """

    def spent(self, tokens: int) -> None:
        """Book tokens that the verifier computed itself, with its own `params` behind each."""

    def note(self, **facts: object) -> None:
        """Put facts on the record (events, trace): why a score is what it is. Never changes a score."""


class Verifier(Protocol):
    """Whatever scores: process or outcome reward model, judge, self-verifier, rules, executed tests."""

    name: str
    sees_answer: bool
    """Whether it is shown `Problem.answer`: the oracle alone."""

    @property
    def params(self) -> int:
        """Parameters behind each verifier token, for FLOPs; 0 where it reads a policy (that policy's count then)."""

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        """One Score per node, in order. A missing one, NaN or a value outside [0, 1] is a BackendError."""


class Answers(Protocol):
    """How answers are read from text and when two answers to a problem are the same."""

    def extract(self, text: str) -> str | None:
        """The answer a solution states, or None."""

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        """Indices grouped by equality: transitive and independent of order, largest class first; None in no class.

        Asked about no answers before a search begins: what it raises then (SandboxError) ends the whole run.
        """


class Task(Answers, Protocol):
    """A source of problems and the way they are graded."""

    name: str

    def problems(self) -> Sequence[Problem]:
        """Every problem, in a fixed order."""

    def grade(self, problem: Problem, text: str) -> Grade:
        """Grade a solution against the problem's known answer."""


class Search(Protocol):
    """The whole vocabulary of a strategy, bound to one problem.

    Every drawing verb takes `temperature`, `top_p`, `stop`, `max_tokens` (None: the run's defaults), `until` (cut a
    node while it grows) and `policy` (a name; None: the first). Nodes come back in the order asked: all draws of the
    first node, then of the second. When the token budget runs out midway, fewer come back; when nothing more can be
    drawn, the call raises BudgetSpent, which a strategy lets pass: the runner then returns the best candidate so far.
    """

    @property
    def problem(self) -> Problem:
        """The problem, without its answer."""

    @property
    def root(self) -> Node:
        """The node holding the problem's prompt."""

    @property
    def rng(self) -> random.Random:
        """Seeded from (run seed, problem id, branch): for resampling and shuffles."""

    @property
    def budget(self) -> Budget:
        """The limits of this problem."""

    @property
    def usage(self) -> Usage:
        """Spent so far on this problem."""

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        until: Until | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        """`n` next steps after each node: up to the policy's step boundary (kept in the text) or the end."""

    async def complete(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        until: Until | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        """`n` continuations of each node to the end of the answer."""

    async def ask(
        self,
        messages: Sequence[Message],
        n: int = 1,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        until: Until | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        """`n` completions of a fresh prompt. They become candidates for the answer only once scored or classed."""

    def append(self, node: Node, text: str) -> Node:
        """The node followed by forced text, on the same KV. Costs nothing until something continues it."""

    async def score(self, nodes: Sequence[Node], *, verifier: str | None = None) -> list[Node]:
        """The same nodes with `score` set, in order."""

    async def compare(self, a: Node, b: Node, *, verifier: str | None = None) -> float:
        """Probability in [0, 1] that `a` is better than `b`, in the verifier's judgement."""

    async def classes(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """Nodes grouped by equal answers, largest group first (then first drawn).

        Truncated nodes and nodes without an answer are in no group.
        """

    async def parallel(self, *searches: Coroutine[object, object, T]) -> list[T]:
        """Run sub-searches side by side; their results in order. If one fails the others are cancelled."""

    async def wait(self, future: Future[T]) -> T:
        """As of `Models`: the result of work done elsewhere, while everything else goes on."""

    def weights(self, policy: str | None = None) -> str:
        """SHA-256 of a policy's model file, which what was fitted for it is tied to; empty where there is none."""

    def note(self, **facts: object) -> None:
        """Put facts on the record (events, trace). Never changes the search.

        `explained`, a mapping of plain values, is what the strategy says of its own choice: `Result.explained`.
        """


class Strategy(Protocol):
    """An algorithm that spends the budget: `async def name(search, *, parameters) -> Node | None`.

    Its parameters, defaults and documentation are read from its signature and docstring; the runner gets it with
    the parameters bound.
    """

    def __call__(self, search: Search, /) -> Coroutine[object, object, Node | None]:
        """Return the selected node, or None when no candidate could be chosen."""
