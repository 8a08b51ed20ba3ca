"""The routes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from flyweight import __version__
from flyweight.errors import FlyweightError
from flyweight.server import openapi, reply
from flyweight.server.asking import Service
from flyweight.server.auth import Keys
from flyweight.server.desk import Desk
from flyweight.server.engine import Engine
from flyweight.server.errors import ApiError, gone
from flyweight.server.guard import Guard
from flyweight.server.job import Failed, Job, Plan
from flyweight.server.limits import parsed, read_body
from flyweight.server.metrics import TYPE, Metrics
from flyweight.server.schema import ChatRequest, CompletionRequest, checked
from flyweight.server.stream import KEEPALIVE, alive, chunks, written

__all__ = ["Events", "Server", "create"]

PATIENCE = 1.0
"""Seconds a stream waits for the engine's word before its headers go out: what is refused has a status until then."""
SSE_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass
class Server:
    """An application and what is behind it."""

    app: ASGIApp
    engine: Engine
    desk: Desk
    service: Service
    metrics: Metrics
    keepalive: float = KEEPALIVE
    born: float = 0.0

    # Routes --------------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`"""
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self.service.menu.names]})

    async def model(self, request: Request) -> Response:
        """`GET /v1/models/NAME`, any spelling a request may use among them."""
        name = request.path_params["name"].rstrip("/")
        try:
            self.service.menu.check(self.service.menu.named(name))
        except FlyweightError as error:
            raise ApiError(404, str(error), param="model", code="model_not_found") from None
        return JSONResponse(self._model(name))

    async def chat(self, request: Request) -> Response:
        """`POST /v1/chat/completions`"""
        body, same = await self._read(request)
        asked = checked(ChatRequest, parsed(body, self.service.limits))
        return await self._answer(request, same, self.service.chat(asked, request.scope["headers"]), reply.chat)

    async def completions(self, request: Request) -> Response:
        """`POST /v1/completions`"""
        body, same = await self._read(request)
        asked = checked(CompletionRequest, parsed(body, self.service.limits))
        plan = self.service.completion(asked, request.scope["headers"])
        return await self._answer(request, same, plan, reply.completion)

    async def runs(self, request: Request) -> Response:
        """`GET /runs`: searches under way and lately ended, the newest first."""
        owned = self.desk.runs(request.scope["state"]["owner"])
        return JSONResponse({"object": "list", "data": [_run(job) for job in owned]})

    async def events(self, request: Request) -> Response:
        """`GET /runs/ID/events`: everything that happens in a search, from its beginning, as server-sent events."""
        job = self.desk.find(request.path_params["run"], request.scope["state"]["owner"])
        if job is None:
            raise ApiError(404, "there is no such run", code="not_found")

        async def lines() -> AsyncIterator[bytes]:
            async for line in job.events():
                yield b"data: " + line + b"\n\n"
            yield b"data: [DONE]\n\n"

        return Events(alive(lines(), self.keepalive), {})

    async def health(self, request: Request) -> Response:
        """`GET /health`"""
        state = "draining" if self.desk.draining else "ok" if self.engine.alive else "broken"
        return JSONResponse({"status": state}, 200 if state == "ok" else 503)

    async def figures(self, request: Request) -> Response:
        """`GET /metrics`"""
        return Response(self.metrics.text(), media_type=TYPE)

    async def openapi(self, request: Request) -> Response:
        """`GET /openapi.json`"""
        return JSONResponse(openapi.document(__version__))

    # Inside --------------------------------------------------------------------------------------------------

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": int(self.born), "owned_by": "flyweight"}

    async def _read(self, request: Request) -> tuple[bytes, Same]:
        """The body, and what identical requests share. ApiError 429 where nothing can come of it."""
        body = await read_body(request, self.service.limits)
        same = _same(request, request.scope["state"]["owner"], body)
        self.desk.hurry(same.key)
        return body, same

    async def _answer(self, request: Request, same: Same, plan: Plan, whole: Callable[..., Any]) -> Response:
        job = self.desk.take(plan, request.scope["state"]["owner"], same.key if plan.coalesce else "", same.said)
        headers = {"X-Flyweight-Run-Id": job.id}
        try:
            if plan.stream:
                await _while_connected(request, job.begun(PATIENCE))
                if isinstance(job.end, Failed):
                    raise job.end.error
                lines = alive(chunks(job), self.keepalive)
                return Events(lines, headers, lambda: self.desk.leave(job))
            end = await _while_connected(request, job.wait())
            if isinstance(end, Failed):
                raise end.error
        except BaseException:
            self.desk.leave(job)
            raise
        self.desk.leave(job)
        return Response(written(whole(job, end)), headers=headers, media_type="application/json")


class Events(StreamingResponse):
    """A stream of events that says when it ends, in whatever way."""

    def __init__(
        self, lines: AsyncIterator[bytes], headers: Mapping[str, str], on_end: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(lines, media_type="text/event-stream", headers={**headers, **SSE_HEADERS})
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._on_end()


def create(
    engine: Engine,
    service: Service,
    *,
    metrics: Metrics,
    keys: Keys | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    running: int = 32,
    queued: int = 64,
    routes: Sequence[Route] = (),
    log: Callable[[str], None] = lambda line: None,
) -> Server:
    """The server, its engine started and stopped with the application. `routes` are more of them, for a page."""
    desk = Desk(engine, running=running, queued=queued, count=lambda what: metrics.outcomes.labels(what).inc())
    server = Server(_nothing, engine, desk, service, metrics, born=time.time())
    metrics.gauge("flyweight_running", "Requests being searched.", lambda: len(desk.running))
    metrics.gauge("flyweight_queued", "Requests waiting for a place.", lambda: len(desk.queue))
    table = [
        *_both("/v1/models", server.models, "GET"),
        Route("/v1/models/{name:path}", server.model, methods=["GET"]),
        *_both("/v1/chat/completions", server.chat, "POST"),
        *_both("/v1/completions", server.completions, "POST"),
        *_both("/runs", server.runs, "GET"),
        *_both("/runs/{run}/events", server.events, "GET"),
        *_both("/health", server.health, "GET"),
        *_both("/metrics", server.figures, "GET"),
        *_both("/openapi.json", server.openapi, "GET"),
        *routes,
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: object) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            await asyncio.to_thread(engine.stop)

    # The router alone: Starlette's own middleware would answer errors in its own words before ours could.
    server.app = Guard(
        Router(table, lifespan=lifespan, redirect_slashes=False),
        keys=keys or Keys(),
        limits=service.limits,
        metrics=metrics,
        routes=lambda path: _named(table, path),
        hosts=hosts,
        origins=origins,
        log=log,
    )
    return server


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Before the application is put together."""


def _both(path: str, endpoint: Callable[..., Any], method: str) -> list[Route]:
    """A route with and without a slash at its end."""
    return [Route(spelled, endpoint, methods=[method]) for spelled in (path, f"{path}/")]


def _named(table: Sequence[Route], path: str) -> tuple[str, set[str]] | None:
    """The route of a path as it is written in the table, and its methods."""
    scope = {"type": "http", "path": path, "method": "GET"}
    for route in table:
        if route.matches(scope)[0] is not Match.NONE:
            return route.path.rstrip("/"), set(route.methods or ()) - {"HEAD"}
    return None


async def _while_connected(request: Request, work: Any) -> Any:
    """What the work comes to. Cancelled as soon as the client has gone."""
    doing = asyncio.ensure_future(work)
    hearing = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({doing, hearing}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        raise gone()
    finally:
        for task in (doing, hearing):
            task.cancel()
        await asyncio.wait({doing, hearing})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Same(NamedTuple):
    """Requests that are one and the same share both."""

    key: str
    """Digest of who asks, where, and of the key they bring or else what they say."""
    said: str
    """Digest of what they say, which must be the same wherever the key is."""


def _same(request: Request, owner: str, body: bytes) -> Same:
    search = sorted((n, v) for n, v in request.scope["headers"] if n.startswith(b"x-flyweight-"))
    said = _digest(hashlib.sha256(body).hexdigest(), repr(search))
    given = request.headers.get("idempotency-key")
    return Same(_digest(owner, request.url.path, f"given {given}" if given else said), said)


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _run(job: Job) -> dict[str, Any]:
    state = "cancelled" if job.cancelled else "running" if job.end is None else "ended"
    return {
        "id": job.id,
        "object": "run",
        "created": int(job.created),
        "model": job.plan.model,
        "strategy": job.plan.wanted.strategy or None,
        "state": "failed" if isinstance(job.end, Failed) else state,
        "events": f"/runs/{job.id}/events",
    }
