"""A policy without weights, and something for it to write."""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from flyweight.protocols import Counters, Growth, Request, Response
from flyweight.types import Finish, Node, Sampling

__all__ = ["Draft", "ToyPolicy", "arithmetic"]

KV_BYTES_PER_TOKEN = 8


class Draft(NamedTuple):
    """What a toy policy is going to say."""

    text: str
    logprob: float = -0.5
    """Of every token, <= 0."""


Write = Callable[[str, str, random.Random, Sampling], Draft]
"""(question, solution so far, the request's own random numbers, sampling) -> the rest of the answer."""


def arithmetic(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
    """Adds up the whole numbers of the question, one step each, and slips in a fifth of the steps.

    A mistake shows in its step ("3 + 4 = 8"), so a verifier that checks steps can steer around it. At temperature 0
    the draw is the same every time.
    """
    numbers = [int(number) for number in re.findall(r"\d+", question)] or [0]
    if sampling.temperature == 0:
        rng = random.Random(question + so_far)
    done = re.findall(r"= (-?\d+)", so_far)
    total = int(done[-1]) if done else numbers[0]
    steps = []
    for number in numbers[1 + len(done) :]:
        right = total + number
        said = right + rng.choice((-1, 1, 10)) if rng.random() < 0.2 else right
        steps.append(f"{total} + {number} = {said}\n\n")
        total = said
    return Draft("".join(steps) + f"The answer is \\boxed{{{total}}}.", -0.2 - 0.2 * rng.random())


@dataclass(eq=False)
class _Row:
    request: Request
    draft: Draft
    prompt_tokens: int
    cached_tokens: int
    length: int
    """Tokens of the path so far, the prompt included."""
    written: int = 0


class ToyPolicy:
    """A policy without weights: deterministic, exact, instant unless told otherwise.

    Tokens are characters. Every step each of `slots` rows grows by one token. The KV cache never forgets.
    """

    def __init__(
        self,
        write: Write = arithmetic,
        *,
        name: str = "toy",
        params: int = 1000,
        boundary: tuple[str, ...] = ("\n\n",),
        slots: int = 32,
        delay: float = 0.0,
        fault: Callable[[Request], str | None] = lambda request: None,
        read: Callable[[str, str], float] = lambda text, choice: math.log(0.5),
    ) -> None:
        """`delay` is slept at every step, in seconds. `fault` may name an error for a request.

        `read(everything so far, choice)` is the log-probability given to a choice.
        """
        self.name = name
        self.params = params
        self.boundary = boundary
        self.closed = False
        self._write, self._slots, self._delay, self._fault, self._read = write, slots, delay, fault, read
        self._queue: list[Request] = []
        self._rows: list[_Row] = []
        self._resident: dict[str, object] = {}
        self._prompt = self._cached = self._generated = self._peak = 0

    def add(self, request: Request) -> None:
        self._queue.append(request)

    def step(self) -> list[Response]:
        if self._delay:
            time.sleep(self._delay)
        finished = []
        while self._queue and len(self._rows) < self._slots:
            request = self._queue.pop(0)
            error = self._fault(request)
            if error is not None:
                finished.append(Response(request.id, error=error))
            elif request.choices:
                finished.append(self._choose(request))
            else:
                self._rows.append(self._admit(request))
        for row in list(self._rows):
            finish = self._grow(row)
            if finish is not None:
                self._rows.remove(row)
                finished.append(self._response(row, finish))
        self._peak = max(self._peak, self._kv_bytes())
        return finished

    def cancel(self, id: int) -> Response:
        self._queue = [request for request in self._queue if request.id != id]
        for row in self._rows:
            if row.request.id == id:
                self._rows.remove(row)
                return self._response(row, Finish.CUT)
        return Response(id, finish=Finish.CUT)

    def piece(self, token: int) -> bytes:
        """The character a token stands for, in UTF-8."""
        return chr(token).encode("utf-8", "surrogatepass")

    @property
    def counters(self) -> Counters:
        return Counters(self._prompt, self._cached, self._generated, 0, self._kv_bytes(), self._peak)

    def close(self) -> None:
        self.closed = True

    def _admit(self, request: Request) -> _Row:
        everything = _everything(request.node)
        prompt, cached = self._prefill(everything)
        sampling = request.sampling
        question = request.node.root.messages[-1].content
        draft = self._write(question, request.node.solution, random.Random(request.seed), sampling)
        return _Row(request, draft, prompt, cached, len(everything))

    def _grow(self, row: _Row) -> Finish | None:
        """One more token; the reason if it was the last one."""
        sampling = row.request.sampling
        self._generated += 1
        if row.written == len(row.draft.text):
            row.written += 1  # the end-of-answer token is drawn like any other
            return Finish.END
        row.written += 1
        text = row.draft.text[: row.written]
        if any(text.endswith(stop) for stop in sampling.stop):
            return Finish.STOP
        if row.request.until is not None:
            logprobs = (row.draft.logprob,) * row.written
            growth = Growth(text, [ord(c) for c in text], logprobs, tuple(-value for value in logprobs))
            if row.request.until(growth):
                return Finish.CUT
        return Finish.LENGTH if row.written >= sampling.max_tokens else None

    def _response(self, row: _Row, finish: Finish) -> Response:
        text = row.draft.text[: row.written]
        self._prefill(_everything(row.request.node) + text, free=True)
        return Response(
            id=row.request.id,
            text=text,
            tokens=tuple(map(ord, text)),
            logprobs=(row.draft.logprob,) * len(text),
            certainty=(-row.draft.logprob,) * len(text),
            alternatives=tuple(_guesses(c, row.draft.logprob, row.request.alternatives) for c in text)
            if row.request.alternatives
            else (),
            finish=finish,
            prompt_tokens=row.prompt_tokens,
            cached_tokens=row.cached_tokens,
            generated_tokens=row.written,
        )

    def _choose(self, request: Request) -> Response:
        everything = _everything(request.node)
        prompt, cached = self._prefill(everything)
        choices = tuple(self._read(everything, choice) for choice in request.choices)
        return Response(request.id, choices=choices, finish=Finish.STOP, prompt_tokens=prompt, cached_tokens=cached)

    def _prefill(self, text: str, free: bool = False) -> tuple[int, int]:
        """Make a text resident; tokens (computed, cached). The last one is always computed: its logits are wanted."""
        node, cached = self._resident, 0
        for depth, character in enumerate(text):
            child = node.get(character)
            if child is None:
                child = node[character] = {}
            elif cached == depth:
                cached += 1
            assert isinstance(child, dict)
            node = child
        cached = min(cached, len(text) - 1)
        if free:
            return 0, 0
        self._prompt += len(text) - cached
        self._cached += cached
        return len(text) - cached, cached

    def _kv_bytes(self) -> int:
        return KV_BYTES_PER_TOKEN * sum(row.length + row.written for row in self._rows)


def _guesses(character: str, logprob: float, count: int) -> tuple[tuple[int, float], ...]:
    """A character and others that the toy thinks less likely."""
    return tuple((ord(character) + i, logprob - i) for i in range(count))


def _everything(node: Node) -> str:
    return "".join(f"{m.role}: {m.content}\n" for m in node.root.messages) + node.solution
