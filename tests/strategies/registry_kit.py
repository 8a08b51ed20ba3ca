"""A model that answers at once from a random tree, and searches over it, for tests over every registered strategy."""

from __future__ import annotations

import functools
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flyweight import strategies
from flyweight.protocols import Counters, Growth, Request, Response
from flyweight.runner import Runner
from flyweight.strategies import Value
from flyweight.testing import BoxedAnswers, RuleVerifier
from flyweight.types import Budget, Event, Finish, Problem, Result, Sampling

NAMES = strategies.names()
STEP_TOKENS, MAX_TOKENS, MAX_STEPS = 12, 80, 5

Write = Callable[[Request], str]
"""The rest of the answer a request asks for."""


def box(answer: object) -> str:
    return f"\\boxed{{{answer}}}"


@functools.cache
def parameters(name: str) -> set[str]:
    """Names of the parameters of a strategy."""
    return {parameter.name for parameter in strategies.describe(name).parameters}


def fitting(name: str, wanted: Mapping[str, Value]) -> dict[str, Value]:
    """Those of the wanted parameters that the strategy has."""
    return {key: value for key, value in wanted.items() if key in parameters(name)}


class Instant:
    """A policy that has every answer ready at its next step. A token is a character."""

    name = "instant"
    params = 1
    boundary: tuple[str, ...] = ("\n\n",)

    def __init__(self, write: Write, *, shuffle: random.Random | None = None) -> None:
        """With `shuffle`, some of what is ready comes back at each step, in any order."""
        self.write = write
        self.shuffle = shuffle
        self.open: list[Request] = []
        self.rounds: list[list[Request]] = []
        """What was in flight at each step."""
        self.asked: list[Request] = []
        self.served: list[Response] = []

    def add(self, request: Request) -> None:
        self.open.append(request)
        self.asked.append(request)

    def step(self) -> list[Response]:
        self.rounds.append(self.open)
        ready, self.open = self.open, []
        if self.shuffle is not None:
            ready = self.shuffle.sample(ready, len(ready))
            ready, self.open = ready[: (few := self.shuffle.randint(1, len(ready)))], ready[few:]
        responses = [self._answer(request) for request in ready]
        self.served += responses
        return responses

    def cancel(self, id: int) -> Response:
        self.open = [request for request in self.open if request.id != id]
        return Response(id, finish=Finish.CUT)

    @property
    def counters(self) -> Counters:
        return Counters(
            prompt_tokens=sum(response.prompt_tokens for response in self.served),
            generated_tokens=sum(response.generated_tokens for response in self.served),
        )

    def close(self) -> None:
        self.open.clear()

    def _answer(self, request: Request) -> Response:
        text = self.write(request)
        stops = [text.find(stop) + len(stop) for stop in request.sampling.stop if stop in text]
        end, finish = (min(stops), Finish.STOP) if stops else (len(text) + 1, Finish.END)
        if end > request.sampling.max_tokens:
            end, finish = request.sampling.max_tokens, Finish.LENGTH
        logprob = -1 / (1 + zlib.crc32(text.encode()) % 7)
        for cut in range(1, end if request.until else 0):
            grown = Growth(text[:cut], range(cut), [logprob] * cut, [-logprob] * cut)
            if request.until is not None and request.until(grown):
                end, finish = cut, Finish.CUT
                break
        text = text[:end]
        values = (logprob,) * len(text)
        return Response(
            id=request.id,
            text=text,
            tokens=tuple(range(len(text))),
            logprobs=values,
            certainty=tuple(-value for value in values),
            finish=finish,
            prompt_tokens=1,
            generated_tokens=end,
        )


def grow(request: Request) -> str:
    """The rest of an answer in a random tree: steps, some of white space or too long, then 0, 1 or 2, or nothing."""
    rng = random.Random(request.seed)
    text = ""
    for _ in range(4 - request.node.solution.count("\n\n")):
        kind = rng.random()
        if kind < 0.25:
            break
        text += "\n\n" if kind < 0.3 else f"{rng.randrange(1000)}{'.' * (STEP_TOKENS if kind < 0.35 else 0)}\n\n"
    return text + (box(rng.randrange(3)) if rng.random() < 0.9 else "")


@dataclass
class Searched:
    """A search and all that went in and out of the model and the verifier."""

    result: Result
    policy: Instant
    judge: RuleVerifier
    settings: dict[str, Value] = field(default_factory=dict)


def search(
    name: str,
    rule: Callable[[str], float],
    *,
    seed: int = 0,
    write: Write = grow,
    budget: Budget | None = None,
    shuffle: random.Random | None = None,
    interrupt: int | None = None,
    problem: Problem | None = None,
    **wanted: Value,
) -> Searched:
    """One problem searched; `interrupt` stops it at that event. Of the wanted parameters, a strategy takes its own."""
    policy = Instant(write, shuffle=shuffle)
    judge = RuleVerifier(lambda question, solution: rule(solution))
    ticks = iter(range(10**6))

    def watch(event: Event) -> None:
        nonlocal interrupt
        if interrupt is not None and event.kind in ("node", "score"):
            interrupt -= 1
            if interrupt < 0:
                runner.interrupt()

    runner = Runner(
        policy,
        {"rule": judge},
        answers=BoxedAnswers(),
        sampling=Sampling(max_tokens=MAX_TOKENS),
        seed=seed,
        on_event=watch,
        clock=lambda: float(next(ticks)),
    )
    settings = fitting(name, {"max_steps": MAX_STEPS, "step_tokens": STEP_TOKENS, **wanted})
    result = runner.solve(problem or Problem("q", "a question"), strategies.bind(name, settings), budget)
    assert result.error is None, (name, result.error)
    return Searched(result, policy, judge, settings)


@functools.cache
def reads_scores(name: str) -> bool:
    """Whether a strategy of several candidates has any of them scored."""
    return "n" in parameters(name) and bool(search(name, lambda text: 0.5, n=4, width=2).judge.scored)
