"""What is checked before any route: sizes, host, origin, method, type of the body, key. Plain ASGI, no copies."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flyweight.server.auth import Headers, Keys, check_host, check_origin
from flyweight.server.errors import ApiError, failed, too_large
from flyweight.server.limits import Limits
from flyweight.server.metrics import Metrics
from flyweight.server.ui import OPEN as PAGE

__all__ = ["Guard"]

OPEN = frozenset({"/health", "/health/"}) | PAGE
"""What needs no key."""
SAFE_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
EXPOSED = b"retry-after, x-flyweight-run-id, x-request-id, x-should-retry"
"""Headers of ours that pages of others may read."""
NAMES = re.compile(rb"[A-Za-z0-9_, -]+")
"""Names of headers."""


class Guard:
    """The outermost layer of the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Keys,
        limits: Limits,
        metrics: Metrics,
        routes: Callable[[str], tuple[str, Collection[str]] | None],
        hosts: Iterable[str] = (),
        origins: Iterable[str] = (),
        log: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`hosts` are the names the server goes by, none meaning any; `origins` pages of others that may use it.

        `routes` tells of a path what it is called in the metrics and its methods, None where there is nothing.
        """
        self._app = app
        self._keys = keys
        self._limits = limits
        self._metrics = metrics
        self._routes = routes
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origins)
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = secrets.token_hex(8)
        known = self._routes(scope["path"])
        route = known[0] if known else "other"
        extra = [(b"x-request-id", request_id.encode()), *SAFE_HEADERS]
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                have = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in extra if pair[0] not in have)]
            await send(message)

        try:
            origin = self._origin(scope)
            if origin is not None:  # first of all: a page must be able to read what is wrong, too
                extra += [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]
                extra += [(b"access-control-expose-headers", EXPOSED)]
            self._check(scope, known, origin)
            if scope["method"] == "OPTIONS":
                await _preflight(scope["headers"], answer)
            else:
                await self._app(scope, receive, answer)
        except ApiError as error:
            await error.response()(scope, receive, answer)
        except Exception as error:
            self._log(f"request {request_id}: {type(error).__name__}: {error}")
            if status:
                raise
            await failed(request_id).response()(scope, receive, answer)
        finally:
            self._metrics.responses.labels(route, str(status or 499)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _origin(self, scope: Scope) -> str | None:
        """The origin to allow. ApiError for a host or an origin that is not."""
        check_host(scope["headers"], self._hosts)
        return check_origin(scope["headers"], self._origins)

    def _check(self, scope: Scope, known: tuple[str, Collection[str]] | None, origin: str | None) -> None:
        """ApiError for what must not get any further."""
        headers: Headers = scope["headers"]
        limits = self._limits
        if len(scope["raw_path"]) + len(scope["query_string"]) > limits.url_bytes:
            raise ApiError(414, f"the URL is longer than {limits.url_bytes} bytes", code="url_too_long")
        if len(headers) > limits.headers or sum(len(n) + len(v) + 4 for n, v in headers) > limits.header_bytes:
            raise ApiError(431, "the headers are too large or too many", code="headers_too_large")
        method = scope["method"]
        if method == "OPTIONS" and origin is not None:
            return  # a browser asks before it sends the key
        scope.setdefault("state", {})["owner"] = "" if scope["path"] in OPEN else self._keys.owner(headers)
        if known is None:
            raise ApiError(404, f"there is nothing at {_shown(scope['path'])}", code="not_found")
        if method not in known[1]:
            allow = ", ".join(sorted(known[1]))
            raise ApiError(
                405, f"{_shown(method)} is not allowed here, only {allow}", code="method_not_allowed",
                headers={"Allow": allow},
            )  # fmt: skip
        if method == "POST":
            self._check_body(headers)

    def _check_body(self, headers: Headers) -> None:
        given = [value for name, value in headers if name == b"content-type"]
        kind = given[0].split(b";")[0].strip().lower() if len(given) == 1 else b""
        if kind != b"application/json":
            raise ApiError(415, "send the body as Content-Type: application/json", code="unsupported_media_type")
        if any(name == b"content-encoding" and value != b"identity" for name, value in headers):
            raise ApiError(415, "compressed bodies are not taken", code="unsupported_media_type")
        length = next((value for name, value in headers if name == b"content-length"), b"0")
        if not length.isdigit() or len(length) > 20 or int(length) > self._limits.body_bytes:
            raise too_large(self._limits.body_bytes)


async def _preflight(headers: Headers, send: Callable[[Message], Any]) -> None:
    """A page of an origin that may use the server may send whatever headers it asks for: clients have many."""
    asked = next((value for name, value in headers if name == b"access-control-request-headers"), b"")
    allowed = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", asked if NAMES.fullmatch(asked) else b"authorization, content-type"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": allowed})
    await send({"type": "http.response.body", "body": b""})


def _shown(text: str) -> str:
    """A client's own text as ASCII, not too long."""
    return ascii(text[:100])
