"""Several endpoints behind one door: who is asked, who is left alone for a while, and what is tried again."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from flyweight.wire.backoff import LONGEST_AFTER, Backoff
from flyweight.wire.client import Client, Failure

__all__ = ["Endpoint", "Pool"]

log = logging.getLogger("flyweight")

T = TypeVar("T")

FAILURES = 5
"""In a row, after which an endpoint is left alone."""
REST = 1.0
"""Seconds it is left alone for, the first time; twice as long after every trial that fails."""
LONGEST_REST = 15.0
LIMITED = 429
"""HTTP status of a server that is well and wants fewer requests."""


class Endpoint:
    """One URL, what it is busy with and how it has been doing."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.busy = 0
        """Requests under way."""
        self.peak = 0
        self.calls = 0
        self.misplaced = False
        """Whether it said at last that it is the wrong one to ask: it does not know the key, the path or the model."""
        self._failures = 0
        self._rest = REST
        self._until = 0.0
        """When it may be sent something again, on the loop's clock."""

    @property
    def url(self) -> str:
        """Its base URL."""
        return self.client.url

    @property
    def resting(self) -> bool:
        """Whether it failed too often lately to be sent more than a trial."""
        return self._failures >= FAILURES

    def free(self, most: int, now: float) -> bool:
        """Whether it can be sent another request: while it is unwell, one at a time after a rest."""
        return now >= self._until and self.busy < (1 if self.resting else most)

    def wakes(self, now: float) -> float:
        """Seconds until it may be tried again."""
        return max(0.0, self._until - now)

    def succeeded(self) -> None:
        """It answered, be it with a refusal."""
        self._failures, self._rest, self.misplaced = 0, REST, False

    def hold(self, until: float) -> None:
        """It wants no request before that."""
        self._until = max(self._until, until)

    def limited(self, now: float, after: float | None) -> None:
        """It wants fewer requests: none for `after` seconds; where it does not say, for a rest that grows in vain."""
        self._failures = 0
        if after is None and now >= self._until:  # not one of several that were refused together
            after, self._rest = self._rest, min(LONGEST_REST, 2 * self._rest)
        self.hold(now + (after or 0.0))

    def bench(self, now: float) -> None:
        """It is the wrong one to ask: from now on a trial at times, whether that has been put right."""
        self.misplaced, self._failures = True, FAILURES
        self.hold(now + LONGEST_REST)

    def failed(self, now: float) -> bool:
        """It did not; whether it rests from now on."""
        self._failures += 1
        if self.resting:
            self.hold(now + self._rest)
            self._rest = min(LONGEST_REST, 2 * self._rest)
        return self._failures == FAILURES


class Pool:
    """Endpoints that serve the same model. Requests go to the one with the fewest under way.

    At most `in_flight` requests are under way at an endpoint, the others wait in the order of their rank. An endpoint
    that failed FAILURES times in a row rests, then gets a single trial. If all rest for `patience` seconds with nothing
    under way, what waits fails too; later requests are tried whenever a rest is over. One that is the wrong one to ask
    rests at once, and its requests go to the others.
    """

    def __init__(self, clients: Sequence[Client], *, in_flight: int, retries: int, patience: float) -> None:
        """`retries`: most for one request."""
        self.endpoints = [Endpoint(client) for client in clients]
        self.backoff = Backoff()
        self._in_flight = in_flight
        self._retries = retries
        self._patience = patience
        self._waiting: list[tuple[int, int, str, asyncio.Future[Endpoint]]] = []
        self._order = itertools.count()
        self._dark: float | None = None
        """Since when all endpoints rest, nothing being under way but trials."""
        self._last = ""
        """What the latest failure said."""
        self._timer: asyncio.TimerHandle | None = None

    async def send(self, work: Callable[[Endpoint, int], Awaitable[T]], *, rank: int = 0, home: str = "") -> T:
        """What `work(endpoint, try number)` returns, tried again on failures that may pass.

        A lower `rank` goes first. `home`: of endpoints equally busy, the one that served this before is taken, whose
        cache may still hold what it shares. Raises the last Failure.
        """
        self.backoff.calls += 1
        charged, waited = 0, 0.0
        for attempt in itertools.count(1):
            async with self._seat(rank, home) as endpoint:
                try:
                    result = await work(endpoint, attempt)
                except Failure as failure:
                    caught, pause = failure, 0.0
                    if not self._note(endpoint, failure):
                        limited = failure.status == LIMITED
                        free = limited and waited < LONGEST_AFTER
                        charged += not free
                        after = endpoint.wakes(_now()) if limited else failure.after
                        pause = self._pause(failure, attempt, None if free else charged, after)
                        waited += pause if limited else 0.0
                else:
                    endpoint.succeeded()
                    return result
            log.warning("try %d failed: %s; again in %.1f s", attempt, caught, pause)
            await asyncio.sleep(pause)
        raise AssertionError("count() never ends")

    async def close(self) -> None:
        """Release the connections."""
        if self._timer is not None:
            self._timer.cancel()
        for endpoint in self.endpoints:
            await endpoint.client.close()

    def _pause(self, failure: Failure, attempt: int, charged: int | None, after: float | None) -> float:
        """Seconds until the next try, at least `after`; raises the failure if there is to be none.

        `charged`: tries so far that count.
        """
        if not failure.retry or failure.hopeless:
            raise failure
        if charged is not None and (charged > self._retries or not self.backoff.allowed()):
            raise Failure(f"{failure} ({attempt} {'try' if attempt == 1 else 'tries'})", retry=False) from None
        return self.backoff.delay(attempt, after)

    def _note(self, endpoint: Endpoint, failure: Failure) -> bool:
        """Take down what a failure says about its endpoint; whether the request belongs to the others."""
        self._last = str(failure)
        others = any(each is not endpoint and not each.misplaced for each in self.endpoints)
        if others and (failure.misplaced or failure.hopeless):
            log.warning("%s is not asked for now, the others are: %s", endpoint.url, failure)
            endpoint.bench(_now())
            return True
        if failure.status == LIMITED and not failure.hopeless:
            endpoint.limited(_now(), failure.after)
        elif not failure.sick:
            endpoint.succeeded()
        elif endpoint.failed(_now()):
            log.warning("%s failed %d times in a row and is left alone for a while", endpoint.url, FAILURES)
        return False

    @asynccontextmanager
    async def _seat(self, rank: int, home: str) -> AsyncIterator[Endpoint]:
        """An endpoint with room for one more request, waited for."""
        granted: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, next(self._order), home, granted))
        self._serve()
        try:
            endpoint = await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._leave(granted.result())
            raise
        try:
            yield endpoint
        finally:
            self._leave(endpoint)

    def _leave(self, endpoint: Endpoint) -> None:
        endpoint.busy -= 1
        self._serve()

    def _serve(self) -> None:
        """Seat whoever can be seated; what cannot be served at all is told so."""
        now = _now()
        if not all(each.resting for each in self.endpoints):
            self._dark = None
        elif self._dark is None and not any(each.busy for each in self.endpoints):
            self._dark = now  # as long as an answer is coming in, something works
        while self._waiting:
            free = [each for each in self.endpoints if each.free(self._in_flight, now)]
            if not free:
                break
            *_, home, granted = heapq.heappop(self._waiting)
            if granted.done():  # cancelled while it waited
                continue
            chosen = min(free, key=lambda each: (each.resting, each.busy, each.url != home))
            chosen.busy += 1
            chosen.calls += 1
            chosen.peak = max(chosen.peak, chosen.busy)
            granted.set_result(chosen)
        if self._waiting and self._dark is not None and now - self._dark >= self._patience:
            self._give_up(now - self._dark)
        elif self._waiting:
            self._look_again(now)

    def _give_up(self, seconds: float) -> None:
        down = ", ".join(each.url for each in self.endpoints)
        message = f"nothing has come from {down} for {seconds:.0f} s, the last with: {self._last}"
        for *_, granted in self._waiting:
            if not granted.done():
                granted.set_exception(Failure(message, retry=False))
        self._waiting.clear()

    def _look_again(self, now: float) -> None:
        """When the first endpoint may be tried again, or all have been dark for long enough."""
        moments = [each.wakes(now) for each in self.endpoints if each.wakes(now)]
        if self._dark is not None:
            moments.append(self._dark + self._patience - now)
        if self._timer is not None:
            self._timer.cancel()
        if moments:  # else whoever is served now will look
            self._timer = asyncio.get_running_loop().call_later(max(0.01, min(moments)), self._serve)


def _now() -> float:
    return asyncio.get_running_loop().time()
