"""The process: the socket, clients that take their time, and an end that cuts nobody off."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from flyweight.errors import ConfigError
from flyweight.server.app import Server
from flyweight.server.errors import ApiError

__all__ = ["background", "bind", "serve"]

DRAIN_SECONDS = 8.0
"""For requests under way when the process is told to end."""
CONNECTIONS = 1024
SWITCH_SECONDS = 0.0001
"""How long the engine's thread may keep Python to itself while the event loop wants it. The loop lets go of Python at
every send and receive, and waits this long each time to have it back: Python's own 5 ms add up to seconds."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. ConfigError where the address is taken or not ours."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=512)
        # asyncio does this for sockets it made itself only; without it every response waits 40 ms for a client's ACK.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}; choose another --port or --host") from None


def serve(server: Server, listening: socket.socket) -> None:
    """Answer until SIGTERM or Ctrl-C; then take no more, finish what is under way within seconds, and return."""
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()  # what is there by now stays: looking through it for garbage would hold the event loop for 70 ms
    _Draining(_config(server), server).run(sockets=[listening])


@contextlib.contextmanager
def background(server: Server, listening: socket.socket) -> Iterator[str]:
    """Answer on a thread of its own while the context is open; the base URL."""
    inner = _Draining(_config(server), server)
    thread = threading.Thread(target=inner.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not inner.started and thread.is_alive():
        time.sleep(0.005)
    host, port = listening.getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        inner.should_exit = True
        thread.join()
        server.engine.stop()


def _config(server: Server) -> uvicorn.Config:
    header_seconds = server.service.limits.header_seconds

    class Patient(Http):
        seconds = header_seconds

    return uvicorn.Config(
        server.app,
        http=Patient,
        ws="none",
        lifespan="on",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=server.service.limits.header_bytes,
    )


class _Draining(uvicorn.Server):
    """The first signal drains, the second one ends at once."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._server.desk.draining or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._server.desk.draining = True
        self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        if not await self._server.desk.drain(DRAIN_SECONDS):
            self._server.desk.abort()
        self.should_exit = True


class Http(H11Protocol):
    """HTTP/1.1 with a time limit on headers and errors in our shape."""

    seconds = 10.0
    """For the first line and the headers."""
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._refuse(ApiError(503, "too many connections", code="overloaded", headers={"Retry-After": "1"}))
            return
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets an error like any other."""
        self._refuse(ApiError(400, "this is not a valid HTTP request, or its headers are too large", code="bad_http"))

    def _watch(self) -> None:
        """Count down while the headers of a request are missing."""
        waiting = self.conn.their_state is h11.IDLE
        if waiting and self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self._late)
        elif not waiting and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete):
            self._refuse(ApiError(408, f"no request within {self.seconds:g} s", code="timeout"))

    def _refuse(self, error: ApiError) -> None:
        """Answer without a request, and hang up."""
        body = json.dumps(error.body).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        headers += error.headers.items()
        reason = b"refused"
        try:
            parts = [
                self.conn.send(h11.Response(status_code=error.status, headers=headers, reason=reason)),
                self.conn.send(h11.Data(data=body)),
                self.conn.send(h11.EndOfMessage()),
            ]
            self.transport.write(b"".join(part for part in parts if part))
        except h11.LocalProtocolError:
            pass  # a response is under way already
        self.transport.close()
