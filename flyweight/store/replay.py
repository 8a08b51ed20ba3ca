"""Policies that remember: what is in the store is answered from it, the rest is drawn and kept.

A replayed unit costs what it cost when it was drawn, so the Usage of a replayed search equals the recorded one; what
an engine really computed is counted apart, in `fresh`. Searches that stop early (a confidence reached, a branch that
fails) stop at the same place again: stored responses come back in the order in which they were drawn, those of one
engine step together, and whatever is missing is asked of the engine only when nothing stored is left to deliver.

Which cut texts are kept. Cut by an `until`: yes, with the end of every token, and the predicate is asked again when it
is replayed, so that one recording answers every predicate that cuts no later. Cut by max_tokens, also by a token
budget's last rest: yes, that is part of what was asked. Called off by the runner (deadline, confidence, Ctrl-C, failing
branch): not the text, since how far it got is an accident, but its cost, which was spent.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import count
from typing import NamedTuple, cast

from flyweight.errors import BackendError, StoreError
from flyweight.protocols import Counters, Growth, Policy, Request, Response, Until
from flyweight.store.units import Content, Paths, Unit, Units, fingerprint, pack, unpack
from flyweight.types import Finish, Node

__all__ = ["Fresh", "StoredPolicy"]


class Fresh(NamedTuple):
    """What was really computed, not replayed, since the wrapper was made."""

    calls: int = 0
    """Draws the engine was asked for; paths a verifier was asked about."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    readings: int = 0
    """Requests to the engine that draw nothing: probabilities of choices, hidden states."""


class _Tape:
    """An `until` that notes where the text of every token ends."""

    def __init__(self, until: Until) -> None:
        self.ends: list[int] = []
        self._until = until

    def __call__(self, growth: Growth) -> bool:
        self.ends.append(len(growth.text))
        return self._until(growth)


class _Asked(NamedTuple):
    """A request the engine is to answer."""

    request: Request
    key: bytes
    tape: _Tape | None


class _Stored(NamedTuple):
    """A response waiting for its turn: sorted by when it was drawn, then by when it was asked for."""

    moment: int
    order: int
    key: bytes
    response: Response


class StoredPolicy:
    """A policy behind the store. See `Store.policy` and `Store.deferred`."""

    def __init__(
        self, units: Units, model: str, name: str, params: int, boundary: tuple[str, ...], make: Callable[[], Policy]
    ) -> None:
        self.name = name
        self.params = params
        self.boundary = boundary
        self.fresh = Fresh()
        self._units = units
        self._paths = Paths()
        self._model = model
        self._make = make
        self._policy: Policy | None = None
        self._replayed = Counters()
        self._ready: dict[Node, list[_Stored]] = {}
        """Root of a search -> heap of its stored responses: each search is told its own in their order."""
        self._pending: dict[int, _Asked] = {}
        self._flying: dict[int, _Asked] = {}
        self._order = count()

    def add(self, request: Request) -> None:
        """Queue a request. The engine sees it only once everything stored has been delivered."""
        key = self._paths.request(self._model, request)
        # Hidden states are never stored: what is replayed comes without, and reading them again is left to the engine.
        found = None
        with suppress(StoreError):  # the next step says so
            found = None if request.reread else self._find(key, request)
        if found is None:
            self._pending[request.id] = _Asked(request, key, None if request.until is None else _Tape(request.until))
        else:
            moment, response = found
            stored = _Stored(moment, next(self._order), key, response)
            heapq.heappush(self._ready.setdefault(request.node.root, []), stored)

    def step(self) -> list[Response]:
        """Deliver what is stored; if nothing is, let the engine work, and store what it returns."""
        return self._advance(lambda: self._engine().step())

    @property
    def poll(self) -> Callable[[], list[Response]] | None:
        """`step` without waiting, if the engine has one and is loaded; else None."""
        poll = getattr(self._policy, "poll", None)
        return None if poll is None else partial(self._advance, poll)

    def _advance(self, work: Callable[[], list[Response]]) -> list[Response]:
        if self._ready:
            return self._deliver()
        if not self._pending and not self._flying:
            return []
        self._units.check()  # what cannot be kept is not drawn
        policy = self._engine()
        readings = sum(bool(asked.request.choices or asked.request.reread) for asked in self._pending.values())
        calls = self.fresh.calls + len(self._pending) - readings
        self.fresh = self.fresh._replace(calls=calls, readings=self.fresh.readings + readings)
        for id, asked in self._pending.items():
            self._flying[id] = asked
            policy.add(asked.request if asked.tape is None else replace(asked.request, until=asked.tape))
        self._pending = {}
        units: list[Unit] = []
        contents: list[Content] = []
        finished = []
        for response in work():
            self._count(response)
            finished.append(self._keep(self._flying.pop(response.id), response, units, contents))
        if units:
            self._units.put(units, contents)
        return finished

    def cancel(self, id: int) -> Response:
        """Drop a request; its cost, or what dropping it cost when that was recorded."""
        if id in self._flying:
            asked = self._flying.pop(id)
            key = asked.key
            response = self._engine().cancel(id)
            self._count(response)
            cost = (response.prompt_tokens, response.cached_tokens, response.generated_tokens)
            if any(cost) and not asked.request.reread:
                self._units.put([Unit(_key(key, "dropped"), "dropped", self._units.moment, "", *cost)])
            return response
        key = self._pending.pop(id).key if id in self._pending else self._take(id).key
        unit = self._units.get(_key(key, "dropped"))
        if unit is None:
            return Response(id, finish=Finish.CUT)
        return self._charged(_response(id, unit, finish=Finish.CUT))

    @property
    def sha256(self) -> str:
        """Of the model's file, where the store knows it; else empty."""
        found = re.match("sha256:([0-9a-f]{64})", self._model)
        return found[1] if found else ""

    @property
    def counters(self) -> Counters:
        """The engine's own totals with what was replayed added: what every Usage adds up to."""
        own = self._policy.counters if self._policy is not None else Counters()
        return own._replace(
            prompt_tokens=own.prompt_tokens + self._replayed.prompt_tokens,
            cached_tokens=own.cached_tokens + self._replayed.cached_tokens,
            generated_tokens=own.generated_tokens + self._replayed.generated_tokens,
        )

    def close(self) -> None:
        """Release the engine, if it was ever needed."""
        if self._policy is not None:
            self._policy.close()

    # Stored responses ----------------------------------------------------------------------------------------

    def _find(self, key: bytes, request: Request) -> tuple[int, Response] | None:
        """The stored answer to a request, and its moment."""
        if request.choices:
            unit = self._units.get(key)
            return (
                None if unit is None else (unit.moment, _response(request.id, unit, choices=unpack("d", unit.numbers)))
            )
        if request.until is None:
            found = self._units.generation(key)
            return None if found is None else (found[0].moment, _drawn(request.id, *found))
        # Of what was recorded under other predicates, the one that ends exactly where this one cuts has the very cost.
        shorter = None
        for variant in count():
            found = self._units.generation(_key(key, variant))
            if found is None:
                return shorter
            unit, content = found
            response = _drawn(request.id, unit, content)
            try:
                fired = _fires(request.until, response, cast("tuple[int, ...]", unpack("i", unit.numbers)))
            except Exception:
                return None  # the engine will meet the same failure, and say so in its own way
            if fired is None and response.finish is not Finish.CUT:
                return unit.moment, response
            if fired is not None and response.finish is Finish.CUT and fired.tokens == response.tokens:
                return unit.moment, response
            shorter = shorter or (None if fired is None else (unit.moment, fired))
        raise AssertionError("count() never ends")

    def _deliver(self) -> list[Response]:
        """Of every search, what came of the earliest step."""
        delivered = []
        for root, heap in list(self._ready.items()):
            moment = heap[0].moment
            while heap and heap[0].moment == moment:
                delivered.append(self._charged(heapq.heappop(heap).response))
            if not heap:
                del self._ready[root]
        return delivered

    def _take(self, id: int) -> _Stored:
        """Take a stored response out of the queue."""
        for root, heap in self._ready.items():
            for stored in heap:
                if stored.response.id == id:
                    heap.remove(stored)
                    heapq.heapify(heap)
                    if not heap:
                        del self._ready[root]
                    return stored
        raise BackendError(f"request {id} is not in flight")

    def _charged(self, response: Response) -> Response:
        totals = self._replayed
        self._replayed = totals._replace(
            prompt_tokens=totals.prompt_tokens + response.prompt_tokens,
            cached_tokens=totals.cached_tokens + response.cached_tokens,
            generated_tokens=totals.generated_tokens + response.generated_tokens,
        )
        return response

    # Fresh responses -----------------------------------------------------------------------------------------

    def _keep(self, asked: _Asked, response: Response, units: list[Unit], contents: list[Content]) -> Response:
        """The response as it will be replayed, rounding included; noted for storing if it can be."""
        if response.error is not None:
            return response
        cost = (response.prompt_tokens, response.cached_tokens, response.generated_tokens)
        moment = self._units.moment
        if asked.request.reread:
            return response
        if asked.request.choices:
            numbers = pack("d", response.choices)
            units.append(Unit(asked.key, "reading", moment, response.finish.value, *cost, numbers=numbers))
            return response
        content = Content.of(response.text, response.tokens, response.logprobs, response.certainty)
        ends = () if asked.tape is None else tuple(asked.tape.ends)
        if asked.tape is None:
            key, whole = asked.key, response.finish is not Finish.CUT
        else:
            free = (_key(asked.key, variant) for variant in count())
            key = next(key for key in free if self._units.generation(key) is None)
            whole = len(ends) == len(response.tokens) or (response.finish is not Finish.CUT and bool(response.tokens))
        if whole:
            contents.append(content)
            label, numbers = response.finish.value, pack("i", ends)
            units.append(Unit(key, "generation", moment, label, *cost, content=content.sum, numbers=numbers))
        logprobs, certainty = unpack("f", content.logprobs), unpack("f", content.certainty)
        return replace(response, logprobs=logprobs, certainty=certainty)

    def _engine(self) -> Policy:
        if self._policy is None:
            self._policy = self._make()
        return self._policy

    def _count(self, response: Response) -> None:
        fresh = self.fresh
        self.fresh = fresh._replace(
            prompt_tokens=fresh.prompt_tokens + response.prompt_tokens,
            cached_tokens=fresh.cached_tokens + response.cached_tokens,
            generated_tokens=fresh.generated_tokens + response.generated_tokens,
        )


def _key(key: bytes, part: object) -> bytes:
    """Key of something that belongs to what has this key."""
    return fingerprint(key, str(part).encode())


def _response(id: int, unit: Unit, *, finish: Finish | None = None, choices: tuple[float, ...] = ()) -> Response:
    """A response with a unit's cost and no text."""
    return Response(
        id,
        finish=finish or Finish(unit.label),
        choices=choices,
        prompt_tokens=unit.prompt_tokens,
        cached_tokens=unit.cached_tokens,
        generated_tokens=unit.generated_tokens,
    )


def _drawn(id: int, unit: Unit, content: Content) -> Response:
    """The response a generation was recorded from."""
    return Response(
        id,
        text=content.string,
        tokens=cast("tuple[int, ...]", unpack("i", content.tokens)),
        logprobs=unpack("f", content.logprobs),
        certainty=unpack("f", content.certainty),
        finish=Finish(unit.label),
        prompt_tokens=unit.prompt_tokens,
        cached_tokens=unit.cached_tokens,
        generated_tokens=unit.generated_tokens,
    )


def _fires(until: Until, response: Response, ends: tuple[int, ...]) -> Response | None:
    """The response as a predicate cuts it, asked after every token as the engine does; None if it never does."""
    for drawn, end in enumerate(ends, 1):
        text, tokens = response.text[:end], response.tokens[:drawn]
        logprobs, certainty = response.logprobs[:drawn], response.certainty[:drawn]
        if until(Growth(text, tokens, logprobs, certainty)):
            return replace(
                response,
                text=text,
                tokens=tokens,
                logprobs=logprobs,
                certainty=certainty,
                finish=Finish.CUT,
                generated_tokens=drawn,
            )
    return None
