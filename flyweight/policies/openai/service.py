"""What happens to requests in the background: an endpoint is found, the answer read, the cost taken down."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import math
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from flyweight.errors import BackendError, FlyweightError
from flyweight.policies.openai import asking
from flyweight.policies.openai.abilities import Abilities
from flyweight.policies.openai.probe import probe
from flyweight.policies.openai.prompt import begun
from flyweight.policies.openai.reply import Reply, chances, choices
from flyweight.policies.openai.row import Row
from flyweight.policies.openai.spec import Spec
from flyweight.policies.openai.usage import Cost, Estimate, counted
from flyweight.protocols import Response
from flyweight.types import Finish, Node, Sampling
from flyweight.wire.client import Client, Failure
from flyweight.wire.pool import Endpoint, Pool

__all__ = ["KNOWN", "Service"]

log = logging.getLogger("flyweight")

KNOWN = 4096
"""Problems something is remembered about, those that asked last."""
TEMPLATE_TOKENS = 4096
"""Most that a server's template may add to a prompt; a count beyond that and the prompt's bytes is wrong."""
LINGER = 5.0
"""Seconds after the end of an answer in which its count may still come."""
LINGERING = 8
"""Events after it."""
REPLY_TOKENS = 8
"""Drawn to read a choice off, where there are no log-probabilities."""
TOO_LONG = re.compile(r"context.{0,12}(length|size|window)|too long|exceeds? the (available )?context", re.IGNORECASE)
ROOM = re.compile(r"context length is (?:only )?(\d{1,9})")
TAKEN = re.compile(r"(\d{1,9}) (?:in (?:the messages|the prompt|your prompt)|(?:input|prompt) tokens|tokens from the)")


class Service:
    """The endpoints, what they can do, and requests on their way through them. All in the background thread."""

    def __init__(self, spec: Spec) -> None:
        """Nobody is asked yet."""
        self._spec = spec
        secret = spec.secret()
        clients = [Client(url, secret, spec.timeouts, spec.in_flight) for url in spec.urls]
        self.pool = Pool(clients, in_flight=spec.in_flight, retries=spec.retries, patience=spec.patience)
        self._able: dict[str, Abilities] = {}
        self._probing: dict[str, asyncio.Lock] = {}
        self._estimate = Estimate()
        self._homes: OrderedDict[Node, str] = OrderedDict()
        """Root -> the endpoint that served it last."""

    async def look(self) -> Abilities:
        """Ask all endpoints what they can do; the findings about the first that answers."""
        found = await asyncio.gather(*map(self._known, self.pool.endpoints), return_exceptions=True)
        able = [each for each in found if isinstance(each, Abilities)]
        failed = [each for each in found if isinstance(each, BaseException)]
        for failure in failed:
            if not isinstance(failure, Failure):
                raise failure
        if not able or (len(failed) and not all(getattr(each, "retry", False) for each in failed)):
            raise BackendError(str(failed[0]))
        for failure in failed:
            log.warning("%s; the other endpoints are used meanwhile", failure)
        return able[0]

    async def serve(self, rows: Sequence[Row], rank: int) -> list[Response]:
        """What becomes of requests that are sent as one."""
        request = rows[0].request
        root = request.problem or request.node.root
        error = None
        try:
            once = functools.partial(self._once, rows)
            home = await self.pool.send(once, rank=rank, home=self._homes.get(root, ""))
            self._homes[root] = home
            self._homes.move_to_end(root)
            if len(self._homes) > KNOWN:
                self._homes.popitem(last=False)
        except Failure as failure:
            error = str(failure)
        except Exception as failure:  # an `until` may raise whatever it likes
            known = isinstance(failure, FlyweightError)
            error = str(failure) if known else f"{type(failure).__name__}: {' '.join(str(failure).split())}"
        for row in rows:
            row.ended = time.perf_counter()
        return [_answer(row) if error is None else row.response(error=error) for row in rows]

    async def _known(self, endpoint: Endpoint) -> Abilities:
        """What an endpoint can do; asked once."""
        url = endpoint.url
        async with self._probing.setdefault(url, asyncio.Lock()):
            if url not in self._able:
                able = await self._probed(endpoint.client)
                other = next((each.model for each in self._able.values() if each.model != able.model), None)
                if other is not None:
                    here, there = map(endpoint.client.shown, (able.model, other))
                    message = f"{url} serves {here}, another endpoint {there}: name one model"
                    raise Failure(message, retry=False, misplaced=True)
                self._able[url] = able
        return self._able[url]

    async def _probed(self, client: Client) -> Abilities:
        """A server that is there but busy is asked again; one that is not there fails at once."""
        for attempt in itertools.count(1):
            try:
                return await probe(client, self._spec)
            except Failure as failure:
                there = failure.retry and failure.status is not None and not failure.hopeless
                if not there or attempt > self._spec.retries:
                    raise
                await asyncio.sleep(self.pool.backoff.delay(attempt, failure.after))
        raise AssertionError("count() never ends")

    async def _once(self, rows: Sequence[Row], endpoint: Endpoint, attempt: int) -> str:
        """One try; the endpoint that was asked."""
        request = rows[0].request
        for row in rows:
            row.began = row.began or time.perf_counter()
        try:
            able = await self._known(endpoint)
            sampling, lead, top = request.sampling, True, asking.DRAWN
            if request.choices:
                # Where nothing can be continued, a prompt is read without the forced text that begins its answer.
                lead = able.continues or any(step.tokens is not None for step in request.node.steps)
                top = asking.READ
                sampling = Sampling(temperature=0, max_tokens=1 if able.logprobs else REPLY_TOKENS)
            make = functools.partial(
                asking.body, able, request.node, seed=request.seed, n=len(rows), top=top, lead=lead
            )
            try:
                await self._stream(rows, able, endpoint, sampling, make(sampling))
            except Failure as failure:
                room = _room(failure)
                if room is None:
                    raise
                if not room or request.choices:
                    return _full(rows, failure, endpoint.url)
                sampling = replace(sampling, max_tokens=min(room, sampling.max_tokens))
                await self._stream(rows, able, endpoint, sampling, make(sampling))
            again = attempt <= min(2, self._spec.retries) and not (request.choices or begun(request.node))
            if again and any(row.reply is not None and row.reply.empty for row in rows):
                raise Failure(f"{endpoint.url} sent an empty answer")
        except (Failure, FlyweightError) as error:
            for row in rows:
                row.again()
            if isinstance(error, Failure):  # what it quotes of the server
                error.args = (endpoint.client.shown(str(error), 600),)
            raise
        return endpoint.url

    async def _stream(
        self, rows: Sequence[Row], able: Abilities, endpoint: Endpoint, sampling: Sampling, body: dict[str, Any]
    ) -> None:
        """Read an answer to its end, or to where all that is wanted is there."""
        request = rows[0].request
        skip = able.trims and begun(request.node)[-1:].isspace()
        stops = asking.server_stops(able, sampling)
        replies = []
        for row in rows:
            row.reply = Reply(sampling, row.request.until, vocabulary=able.vocabulary, skip_blanks=skip, stops=stops)
            replies.append(row.reply)
        size = len(json.dumps(body.get("messages", body.get("prompt")), ensure_ascii=False).encode())
        count, idle, seen = None, 0, 0

        def over() -> bool:
            return all(reply.done or row.dropped for row, reply in zip(rows, replies, strict=True))

        try:
            async with (
                aclosing(endpoint.client.events(asking.path(able), body)) as events,
                asyncio.timeout(None) as lingering,
            ):
                async for event in events:
                    if count is None:
                        rows[0].running = Cost(prompt=self._estimate.tokens(size))
                    for index, choice in choices(event, len(rows)):
                        if not (rows[index].dropped or replies[index].done):
                            replies[index].take(choice)
                    said = counted(event, size + TEMPLATE_TOKENS, sampling.max_tokens * len(rows))
                    if said is not None:
                        count = said
                        _share(rows, count)
                    if all(reply.done and not reply.ended for reply in replies):
                        break
                    had, seen = seen, sum(reply.seen for reply in replies)
                    idle = 0 if seen > had else idle + 1
                    if all(reply.finish is not None for reply in replies) and idle > LINGERING:
                        break
                    if idle > 64 + 4 * sampling.max_tokens:
                        raise Failure("the server keeps sending events without text", retry=False)
                    if over() and lingering.when() is None:
                        lingering.reschedule(asyncio.get_running_loop().time() + LINGER)
        except (Failure, TimeoutError):  # what comes behind a whole answer does not matter
            if not over():
                raise
        if any(reply.finish is None and not row.dropped for row, reply in zip(rows, replies, strict=True)):
            raise Failure(f"{endpoint.url} broke off in the middle of an answer", sick=True)
        if count is not None:
            self._estimate.learn(size, count.prompt + count.cached)


def _answer(row: Row) -> Response:
    wanted, reply = row.request.choices, row.reply
    if reply is None:
        return row.response(Finish.LENGTH)
    if not wanted:
        return row.response()
    if reply.first is not None and reply.first.likely:
        return row.response(choices=chances(reply.first, wanted))
    said = reply.text.strip()
    chosen = max((text for text in wanted if said.startswith(text.strip())), key=len, default=None)
    return row.response(choices=tuple(0.0 if text == chosen else -math.inf for text in wanted))


def _full(rows: Sequence[Row], failure: Failure, url: str) -> str:
    """A path that has grown to the end of the context is truncated; a prompt that never fitted is an error."""
    if not rows[0].request.node.steps:
        raise BackendError(str(failure))
    for row in rows:
        row.again()
    return url


def _room(failure: Failure) -> int | None:
    """Tokens that are left for an answer, 0 for none, where that is what the server complains of; else None."""
    said = str(failure)
    if failure.status not in (400, 413, 422) or not TOO_LONG.search(said):
        return None
    room, taken = ROOM.search(said), TAKEN.search(said)
    return max(0, int(room[1]) - int(taken[1])) if room and taken else 0


def _share(rows: Sequence[Row], count: Cost) -> None:
    """Give every row its part of what they cost together: the prompt to the first, the tokens to whom they came.

    What the server says at the end counts, whatever was seen here: its pieces need not be tokens.
    """
    replies = [row.reply for row in rows]
    seen = [0 if reply is None else reply.counted for reply in replies]
    settled = count.generated > 0 and all(reply is not None and reply.ended for reply in replies)
    left = count.generated if settled else max(count.generated, sum(seen))
    for row, mine in reversed([*zip(rows[1:], seen[1:], strict=True)]):
        row.running, row.settled = Cost(generated=min(mine, left)), settled
        left -= min(mine, left)
    rows[0].running, rows[0].settled = Cost(count.prompt, count.cached, left), settled
