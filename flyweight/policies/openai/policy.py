"""`OpenAI`: the policy whose model runs elsewhere, behind one URL or many."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

from flyweight.errors import BackendError, FlyweightError
from flyweight.policies.openai import asking
from flyweight.policies.openai.abilities import Abilities
from flyweight.policies.openai.probe import served
from flyweight.policies.openai.row import Row
from flyweight.policies.openai.service import KNOWN, Service
from flyweight.policies.openai.spec import Spec, parse
from flyweight.protocols import Counters, Request, Response
from flyweight.types import Finish, Node, Sampling
from flyweight.wire.background import lease
from flyweight.wire.client import Client, Failure

__all__ = ["OpenAI"]

LOOK = 10.0
"""Seconds for a look at which model a server has."""
WAIT = 0.2
"""Seconds that a step waits at most for something to come back: how late a deadline is noticed."""


class OpenAI:
    """A model behind one or many OpenAI-compatible URLs: vLLM, SGLang, llama-server, Ollama, hosted APIs.

    A request is a streamed HTTP request of its own with its own seed, so that what is in flight beside it changes
    nothing; samples of one prompt are asked for together (`n`) only where seeds count for nothing anyway. Text is cut
    here: at stop strings, by `until`, at max_tokens, whatever the server sends; what is cut or called off is dropped at
    the server too, by closing its connection.

    Costs are the server's own counts. Of a text that was cut before the server gave one, what was generated is what
    was seen, and the prompt is estimated from those that were counted. Every try is charged. `Node.tokens` are
    checksums of the tokens' texts, as servers do not tell ids; certainty is a lower bound from the likeliest tokens.

    Source: OpenAI's chat and completions API as servers speak it; --model openai:URL[,URL...][#NAME], docs/remote.md.
    """

    def __init__(self, spec: Spec | str = "") -> None:
        """Ask every endpoint what it can do (some short requests each, which no usage counts).

        BackendError if none of them answers, ConfigError for a spec with mistakes. Those that are down are asked again
        when their turn comes.
        """
        self.spec = parse(spec) if isinstance(spec, str) else spec
        self.name = self.spec.name
        self.boundary: tuple[str, ...] = ("\n\n",)
        self._closed = False
        self._lock = threading.Lock()
        self._rows: dict[int, Row] = {}
        """Everything that has not been delivered."""
        self._queued: list[Row] = []
        """Those of them that are sent at the next step."""
        self._sent: dict[int, Future[None]] = {}
        self._finished: list[tuple[Row, Response]] = []
        self._ranks: OrderedDict[Node, int] = OrderedDict()
        """Root -> its place in the order: what the oldest problem asks for goes first."""
        self._arrivals = 0
        self._totals = Counters()
        self._rung = 0
        self._service = Service(self.spec)
        self._background = lease()
        try:
            self.abilities: Abilities = self._background.start(self._service.look()).result()
        except BaseException:
            self.close()
            raise
        self.params = self.abilities.params

    @property
    def identity(self) -> str:
        """What is drawn from, wherever it runs and however it is asked: the model, the API, and the template's hash."""
        able = self.abilities
        written = f" template {able.template.sha256[:8]}" if able.template is not None else ""
        return f"openai:{able.model} {able.api}{written}"

    @staticmethod
    def present(spec: str) -> str | None:
        """What `identity` begins with now, the model's name; without #NAME a server is asked, None if none is there."""
        asked = parse(spec)
        name = asked.model or next(filter(None, map(partial(_listed, asked), asked.urls)), None)
        return None if name is None else f"openai:{name} "

    @staticmethod
    def check(spec: str) -> None:
        """ConfigError in one line for a spec with mistakes; nobody is asked."""
        parse(spec)

    # The Policy protocol -------------------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """Queue a request; it is sent at the next step, with what came beside it."""
        row = self._rows[request.id] = Row(request)
        try:
            self._check(request)
        except FlyweightError as error:
            self._finish(row, row.response(error=str(error)))
        else:
            self._queued.append(row)

    def step(self) -> list[Response]:
        """Send what is queued; what has come back, waited for up to a fifth of a second."""
        finished = self.poll()
        if not finished and self._rows:
            self._rung = self._background.wait(self._rung, WAIT)
            finished = self.poll()
        return finished

    def poll(self) -> list[Response]:
        """Send what is queued; what has come back, without waiting."""
        if self._closed:
            raise BackendError(f"policy {self.name!r} is closed")
        self._send()
        with self._lock:
            finished, self._finished = self._finished, []
        for row, response in finished:
            self._forget(row, response)
        return [response for _, response in finished]

    def cancel(self, id: int) -> Response:
        """Drop a request: what it has cost so far. An id that is not in flight is a BackendError."""
        row = self._rows.get(id)
        if row is None:
            raise BackendError(f"request {id} is not in flight")
        with self._lock:
            row.dropped = True
            self._finished = [each for each in self._finished if each[0] is not row]
            self._queued = [each for each in self._queued if each is not row]
            row.ended = time.perf_counter()
            response = row.response(Finish.CUT)
        future = self._forget(row, response)
        if future is not None and future not in self._sent.values():  # others may have been sent along with it
            future.cancel()
        return response

    @property
    def counters(self) -> Counters:
        """Totals of what has been delivered or cancelled; they equal the sums over all responses."""
        return self._totals

    def close(self) -> None:
        """Drop what is in flight, and the connections."""
        if self._closed:
            return
        self._closed = True
        for future in self._sent.values():
            future.cancel()
        self._background.leave(self._service.pool.close())

    # Inside --------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Start what is queued; requests that differ only in their seeds together, where that is wanted."""
        queued, self._queued = self._queued, []
        together: dict[object, list[Row]] = {}
        for row in queued:
            request = row.request
            alone = request.until is not None or request.choices or not self._grouped(request.sampling)
            together.setdefault(request.id if alone else (request.node, request.sampling), []).append(row)
        for rows in together.values():
            future = self._background.start(self._serve(rows, self._rank(rows[0].request)))
            for row in rows:
                self._sent[row.request.id] = future

    def _grouped(self, sampling: Sampling) -> bool:
        """Whether samples of one prompt go together: not where one may be cut here, which the others would pay for."""
        able = self.abilities
        wanted = self.spec.n == "yes" or (self.spec.n == "auto" and not able.seed)
        return able.n and wanted and len(asking.server_stops(able, sampling)) == len(sampling.stop)

    def _rank(self, request: Request) -> int:
        root = request.problem or request.node.root
        if root not in self._ranks:
            self._arrivals += 1
            self._ranks[root] = self._arrivals
        self._ranks.move_to_end(root)
        if len(self._ranks) > KNOWN:
            self._ranks.popitem(last=False)
        return self._ranks[root]

    async def _serve(self, rows: Sequence[Row], rank: int) -> None:
        for row, response in zip(rows, await self._service.serve(rows, rank), strict=True):
            self._finish(row, response)

    def _finish(self, row: Row, response: Response) -> None:
        with self._lock:
            if not row.dropped:
                self._finished.append((row, response))

    def _forget(self, row: Row, response: Response) -> Future[None] | None:
        """A request has been answered for: count it. What it was sent with."""
        del self._rows[row.request.id]
        totals = self._totals
        self._totals = totals._replace(
            prompt_tokens=totals.prompt_tokens + response.prompt_tokens,
            cached_tokens=totals.cached_tokens + response.cached_tokens,
            generated_tokens=totals.generated_tokens + response.generated_tokens,
        )
        return self._sent.pop(row.request.id, None)

    def _check(self, request: Request) -> None:
        """BackendError in one line for what cannot be served."""
        sampling = request.sampling
        if request.reread:
            raise BackendError("hidden states do not come over the wire: use another verifier, or the embedded engine")
        if request.choices:
            if not all(request.choices):
                raise BackendError("choices holds an empty string")
            return
        if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
            raise BackendError(f"temperature={sampling.temperature}: must be 0 or more")
        if not 0 < sampling.top_p <= 1:
            raise BackendError(f"top_p={sampling.top_p}: must be above 0 and at most 1")
        for name, value in (("top_p", sampling.top_p), ("temperature", sampling.temperature)):
            if name in self.abilities.refused and value != 1:
                raise BackendError(f"this endpoint takes no {name}, which is 1 there: {value:g} was asked for")
        if sampling.max_tokens < 1:
            raise BackendError(f"max_tokens={sampling.max_tokens}: must be at least 1")
        if not all(sampling.stop):
            raise BackendError("stop holds an empty string")
        if sampling.stop == self.boundary and not self.abilities.continues:
            raise BackendError(self.abilities.why)  # the first of many steps: better said before anything is drawn


def _listed(spec: Spec, url: str) -> str | None:
    """The model that a server lists first; None if it does not answer."""
    background = lease()
    client = Client(url, spec.secret(), spec.timeouts._replace(first=min(LOOK, spec.first)), 1)
    try:
        return background.start(served(client, spec)).result().model
    except Failure:
        return None
    finally:
        background.leave(client.close())
