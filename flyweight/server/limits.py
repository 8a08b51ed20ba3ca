"""How large a request may be, and how much work it may ask for: all computed before anything is dispatched."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from flyweight import strategies
from flyweight.server.errors import ApiError, gone, too_large
from flyweight.strategies import Value
from flyweight.strategies.compose import inner

__all__ = ["Limits", "generations", "parsed", "read_body"]


@dataclass(frozen=True)
class Limits:
    """The caps of one server."""

    body_bytes: int = 4 << 20
    header_bytes: int = 16 << 10
    headers: int = 100
    url_bytes: int = 2048
    depth: int = 32
    """Of nested JSON."""
    values: int = 20_000
    """In a body, keys included."""
    generations: int = 256
    """Answers one request may have drawn."""
    tokens: int = 131_072
    """Generated for one request, whatever it asks for."""
    verifications: int = 4096
    body_seconds: float = 15.0
    """For a body to arrive."""
    header_seconds: float = 10.0
    """For the first line and the headers to arrive."""


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body. ApiError 413 for one that is too large, 408 for one that takes too long."""
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > limits.body_bytes:
                    raise too_large(limits.body_bytes)
                parts.append(part)
    except ClientDisconnect:
        raise gone() from None
    except TimeoutError:
        message = f"the body took longer than {limits.body_seconds:g} s"
        raise ApiError(408, message, code="timeout", headers={"Connection": "close"}) from None
    return b"".join(parts)


def parsed(body: bytes, limits: Limits) -> dict[str, Any]:
    """The JSON object in a body. ApiError 400 for anything else, or for one too deep or with too many values."""
    # Every value but the first follows one of these. Counting them is cheap, making millions of objects is not.
    if sum(map(body.count, (b",", b"[", b"{"))) > 4 * limits.values:
        raise _too_many(limits)
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        reason = str(error).removeprefix("json error: ")[:120]
        raise ApiError(400, f"the body is not JSON: {reason}", code="invalid_json") from None
    if not isinstance(found, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    _measure(found, limits)
    return found


def _measure(found: object, limits: Limits) -> None:
    count = 0
    level: list[object] = [found]
    for _ in range(limits.depth + 1):
        below: list[object] = []
        for value in level:
            if isinstance(value, dict):
                count += 2 * len(value)
                below += value.values()
            elif isinstance(value, list):
                count += len(value)
                below += value
        if count > limits.values:
            raise _too_many(limits)
        if not below:
            return
        level = below
    raise ApiError(400, f"the JSON is nested more than {limits.depth} deep", code="too_deep")


def _too_many(limits: Limits) -> ApiError:
    return ApiError(400, f"the body holds more than {limits.values} JSON values", code="too_many_values")


def generations(name: str, parameters: Mapping[str, Value]) -> int:
    """Most answers, or paths of steps side by side, that a strategy bound to these parameters draws.

    n times whatever multiplies it, times those of a sub-search. Steps one after the other do not count: the budget of
    tokens, which every request has, bounds them.
    """
    name, own = strategies.normal(name, parameters)
    described = {parameter.name: parameter.default for parameter in strategies.describe(name).parameters}
    values = {**described, **own}

    def number(key: str) -> int:
        return math.ceil(float(values.get(key, 0)))

    total = max(1, number("n")) * max(1, number("iterations")) * max(1, number("branch")) * (1 + number("k"))
    total += 2 * number("rounds") * max(1, number("n"))
    subs = inner(strategies.compose.spelled(name)[1])
    return total * max((generations(sub, {}) for sub in subs), default=1)
