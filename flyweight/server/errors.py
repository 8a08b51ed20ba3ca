"""What goes wrong, in the shape OpenAI's clients read: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

__all__ = ["ApiError", "failed", "gone", "overdue", "reused", "stopping", "too_large", "too_much"]

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    414: "invalid_request_error",
    415: "invalid_request_error",
    421: "permission_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    503: "server_error",
    504: "timeout_error",
}
"""OpenAI's `type` for each status we answer with."""


class ApiError(Exception):
    """A request that gets no answer, and why. The message never holds a path, a key or a traceback."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`param` is the field at fault, `code` the word clients branch on."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The object sent."""
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The response sent."""
        return JSONResponse(self.body, self.status, self.headers)


def failed(run: str) -> ApiError:
    """Something broke that is not the client's fault; the server's log says what."""
    return ApiError(500, f"the search failed; the server's log has the cause under run {run}", code="search_failed")


def gone() -> ApiError:
    """The client hung up; nobody reads this."""
    return ApiError(499, "the client has gone", code="client_closed_request")


def overdue() -> ApiError:
    """Nothing was drawn in time, and asking again would begin anew."""
    message = "the deadline passed before there was a place"
    return ApiError(504, message, code="deadline", headers={"x-should-retry": "false"})


def reused() -> ApiError:
    """An idempotency key came with another request than before."""
    message = "the Idempotency-Key came with another request that is still under way: give each request its own"
    return ApiError(422, message, code="idempotency_key_reused", headers={"x-should-retry": "false"})


def too_large(most: int) -> ApiError:
    """A body over the limit, in bytes."""
    return ApiError(413, f"the body is larger than {most} bytes", code="body_too_large")


def too_much(seconds: int) -> ApiError:
    """No place is free, not even in the queue."""
    return ApiError(
        429,
        f"too many requests are waiting: try again in {seconds} s",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(seconds)},
    )


def stopping() -> ApiError:
    """The server takes no more requests."""
    return ApiError(
        503, "the server is shutting down: try again in a moment", code="shutting_down", headers={"Retry-After": "5"}
    )
