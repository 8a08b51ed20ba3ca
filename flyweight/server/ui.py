"""The viewer on the server: its page, what is recorded, and questions that are searched like any other request."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from flyweight import api
from flyweight.errors import FlyweightError
from flyweight.server.errors import ApiError
from flyweight.server.job import Failed, Job
from flyweight.server.limits import parsed, read_body
from flyweight.server.schema import ChatRequest, checked
from flyweight.server.stream import alive
from flyweight.viewer import asking
from flyweight.viewer.page import ASSETS, dumps
from flyweight.viewer.site import Reply, Site

if TYPE_CHECKING:
    from flyweight.server.app import Server

__all__ = ["OPEN", "Page"]

OPEN = frozenset({"/ui", "/ui/", *(f"/ui/assets/{name}" for name in ASSETS)})
"""What a browser asks for before the page can send a key: nothing of it is a secret."""
ID = re.compile("ask/([0-9a-f]{24})/(events|stop)")


class Page:
    """Routes under /ui/. `server` is set once there is one."""

    server: Server

    def __init__(self, store: Path, model: str) -> None:
        """`store` need not exist; `model` is what the page says answers."""
        self._menu = asking.menu(model, api.DEFAULT_STRATEGY)
        self._site = Site(store)
        self._waiting: dict[str, asyncio.Task[None]] = {}
        """Searches asked for here: the page keeps them alive, whether anybody watches or not."""

    def routes(self) -> list[Route]:
        """What the application serves besides its own."""
        return [
            Route("/ui", self._front, methods=["GET"]),
            Route("/ui/", self._get, methods=["GET"]),
            Route("/ui/assets/{name}", self._get, methods=["GET"]),
            Route("/ui/api/{path:path}", self._api, methods=["GET", "POST"]),
        ]

    async def _front(self, request: Request) -> Response:
        return RedirectResponse("ui/", 307)

    async def _get(self, request: Request) -> Response:
        reply = await asyncio.to_thread(self._site.get, request.scope["path"].removeprefix("/ui/"))
        return _response(reply)

    async def _api(self, request: Request) -> Response:
        path = request.path_params["path"]
        found = ID.fullmatch(path)
        if request.method == "POST" and path == "ask":
            return await self._ask(request)
        if found and (request.method == "POST") is (found[2] == "stop"):
            job = self.server.desk.find(found[1], request.scope["state"]["owner"])
            if job is None:
                raise ApiError(404, "that search is no longer there", code="not_found")
            return self._stop(job) if found[2] == "stop" else self._events(job)
        if request.method == "GET" and path == "index":
            index = await asyncio.to_thread(self._site.index)
            start = index["start"] or ("" if index["runs"] else "/ask")
            return _json({**index, "ask": self._menu, "start": start})
        if request.method == "GET":
            return await self._get(request)
        raise ApiError(404, "there is nothing here", code="not_found")

    async def _ask(self, request: Request) -> Response:
        """Begin a search as a chat completion would, with the same limits; what it is called."""
        body = await read_body(request, self.server.service.limits)
        try:
            asked = asking.checked(parsed(body, self.server.service.limits))
        except FlyweightError as error:
            raise ApiError(400, str(error), code="invalid_value") from None
        wanted: dict[str, Any] = {"strategy": asked.strategy, "parameters": dict(asked.parameters), "coalesce": False}
        limits = {"budget": asked.budget.tokens, "deadline": asked.budget.seconds}
        chat = {
            "model": self.server.service.menu.model,
            "messages": [{"role": "user", "content": asked.question}],
            "flyweight": wanted | {name: value for name, value in limits.items() if value is not None},
        }
        plan = self.server.service.chat(checked(ChatRequest, chat), request.scope["headers"])
        job = self.server.desk.take(plan, request.scope["state"]["owner"], "")
        self._waiting[job.id] = asyncio.ensure_future(self._kept(job))
        return _json({"id": job.id})

    async def _kept(self, job: Job) -> None:
        try:
            await job.wait()
        finally:
            self._waiting.pop(job.id, None)
            self.server.desk.leave(job)

    def _stop(self, job: Job) -> Response:
        task = self._waiting.get(job.id)
        if task is not None:
            task.cancel()
        return _json({})

    def _events(self, job: Job) -> Response:
        from flyweight.server.app import Events

        async def lines() -> AsyncIterator[bytes]:
            async for line in job.events():
                yield b"data: " + line + b"\n\n"
            if isinstance(job.end, Failed):
                failed = {"kind": "failed", "at": 0, "message": job.end.error.body["error"]["message"]}
                yield b"data: " + json.dumps(failed).encode() + b"\n\n"

        return Events(alive(lines(), self.server.keepalive), {})


def _response(reply: Reply) -> Response:
    assert isinstance(reply.body, bytes)
    return Response(reply.body, reply.status, reply.headers)


def _json(value: object) -> Response:
    return _response(Reply(200, "application/json", dumps(value).encode()))
