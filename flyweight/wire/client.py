"""One endpoint: JSON goes out, JSON or a stream of events comes back, and there is a limit to all of it.

What comes back is untrusted. Lines, bodies and waits are bounded, nothing is decompressed, redirects are not followed,
and the key travels in one header to the host that was named and shows in no message.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from flyweight.wire.address import loopback
from flyweight.wire.backoff import LONGEST_AFTER, retry_after

if TYPE_CHECKING:
    import httpx2

__all__ = ["Client", "Failure", "Timeouts", "finite"]

log = logging.getLogger("flyweight")

LONGEST_LINE = 4 << 20
"""Bytes of one event of a stream; the log-probabilities of a token take a few thousand."""
LONGEST_BODY = 16 << 20
LONGEST_COMPLAINT = 1 << 16
"""Bytes read of an answer that says what went wrong."""
RETRIED = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""HTTP statuses after which the same request may succeed."""
MISPLACED = {401, 403, 404}
"""Those after which another endpoint may be the right one to ask."""
SICK = {500, 502, 503, 504, 529}
"""Those of them that say something about the endpoint's health."""
HINTS = {
    401: "; is OPENAI_API_KEY (or the variable that key= names) set to a key of this server?",
    403: "; is OPENAI_API_KEY (or the variable that key= names) set to a key of this server?",
    404: "; is the path right, and the model served there?",
}


class Timeouts(NamedTuple):
    """Seconds that each phase of a request may take."""

    connect: float = 5.0
    first: float = 120.0
    """Until the first event, or for an answer in one piece the whole of it: time in the server's queue included."""
    between: float = 30.0
    """From one event to the next."""
    total: float = 600.0


class Failure(Exception):
    """Why a request came to nothing, in one line."""

    def __init__(
        self,
        message: str,
        *,
        retry: bool = True,
        sick: bool = False,
        misplaced: bool = False,
        after: float | None = None,
        status: int | None = None,
    ) -> None:
        """`retry`: the same request may succeed later, not before `after` seconds. `sick`: the endpoint is unwell.

        `misplaced`: it is well, and the wrong one to ask.
        """
        super().__init__(message)
        self.retry, self.sick, self.misplaced, self.after, self.status = retry, sick, misplaced, after, status

    @property
    def hopeless(self) -> bool:
        """Whether the server asks for a longer wait than anybody waits."""
        return self.after is not None and self.after > LONGEST_AFTER


class Client:
    """Connections to one endpoint. Everything here runs in the background thread."""

    def __init__(self, url: str, key: str, timeouts: Timeouts, connections: int) -> None:
        """Nothing is connected yet."""
        import httpx2  # late: most of the package has no use for it

        self.url = url
        self.timeouts = timeouts
        self._key = key
        headers = {"Accept-Encoding": "identity", "Content-Type": "application/json", "User-Agent": "flyweight"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
            if url.startswith("http:") and not loopback(url):
                log.warning("the key travels to %s without encryption: use https where others can listen", url)
        self._http = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(None, connect=timeouts.connect),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=connections),
            follow_redirects=False,
            verify=_trusted(),
            trust_env=not loopback(url),  # a proxy does not reach this machine's own servers
        )

    async def close(self) -> None:
        """Release the connections."""
        await self._http.aclose()

    async def get(self, path: str, *, root: bool = False) -> Any:
        """What a path answers, as JSON. `root`: the path stands beside /v1, not below it."""
        return await self._whole("GET", path, None, root)

    async def post(self, path: str, body: Mapping[str, object], *, root: bool = False) -> Any:
        """What a path answers to a body, both as JSON."""
        return await self._whole("POST", path, body, root)

    async def events(self, path: str, body: Mapping[str, object]) -> AsyncGenerator[Any]:
        """The events of a streamed answer, decoded; an answer that is not a stream is a single one."""
        now = asyncio.get_running_loop().time
        began = now()
        deadline = began + self.timeouts.total
        async with self._answer("POST", path, body, False) as answer:
            late = began + self.timeouts.first
            if "event-stream" not in answer.headers.get("content-type", ""):
                yield self._event(await self._read(answer, LONGEST_BODY, min(late, deadline) - now()))
                return
            phase: Literal["first", "between"] = "first"
            async with aclosing(_lines(answer)) as lines:
                while True:
                    try:
                        async with asyncio.timeout_at(min(late, deadline)):
                            line = await anext(lines, None)
                    except TimeoutError:
                        raise self._late("total" if deadline <= late else phase) from None
                    if line is None or line == b"[DONE]":
                        return
                    yield self._event(line)
                    late, phase = now() + self.timeouts.between, "between"

    def _event(self, content: bytes) -> Any:
        event = self._decoded(content)
        if isinstance(event, dict) and (complaint := event.get("error")):
            raise Failure(f"{self.url} broke off: {self._said(complaint)}", sick=True)
        return event

    def _late(self, phase: Literal["first", "between", "total"]) -> Failure:
        if phase == "total":
            return Failure(f"{self.url} was not done within {self.timeouts.total:g} s (total)", retry=False)
        what = "no token" if phase == "first" else "no further token"
        seconds = getattr(self.timeouts, phase)
        return Failure(f"{self.url} sent {what} for {seconds:g} s ({phase})", sick=phase == "first")

    async def _whole(self, method: str, path: str, body: Mapping[str, object] | None, root: bool) -> Any:
        seconds = min(self.timeouts.first, self.timeouts.total)
        try:
            async with asyncio.timeout(seconds):
                async with self._answer(method, path, body, root) as answer:
                    return self._decoded(await self._read(answer, LONGEST_BODY, seconds))
        except TimeoutError:
            raise Failure(f"{self.url} did not answer within {seconds:g} s (first)", sick=True) from None

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: Mapping[str, object] | None, root: bool
    ) -> AsyncIterator[httpx2.Response]:
        """An answer with status 200 whose body is still to be read; anything else is a Failure."""
        import httpx2

        base = self.url.removesuffix("/v1") if root else self.url
        content = None if body is None else json.dumps(body).encode()
        request = self._http.build_request(method, base + path, content=content)
        try:
            async with asyncio.timeout(min(self.timeouts.first, self.timeouts.total)) as waiting:
                answer = await self._http.send(request, stream=True)
                waiting.reschedule(None)
            try:
                if answer.status_code != 200:
                    raise await self._refused(answer)
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise Failure(f"{self.url} sent compressed data that was not asked for", retry=False)
                yield answer
            finally:
                await answer.aclose()
        except TimeoutError:
            raise Failure(f"{self.url} did not answer within {self.timeouts.first:g} s (first)", sick=True) from None
        except httpx2.ConnectTimeout:
            raise Failure(
                f"{self.url} accepted no connection within {self.timeouts.connect:g} s (connect)", sick=True
            ) from None
        except httpx2.ConnectError as error:
            raise Failure(
                f"nothing listens at {self.url} ({self.shown(str(error))}): is the server running?", sick=True
            ) from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise Failure(f"{self.url}: {type(error).__name__}: {self.shown(str(error))}", sick=True) from None

    async def _refused(self, answer: httpx2.Response) -> Failure:
        status = answer.status_code
        if 300 <= status < 400:
            return Failure(
                f"{self.url} redirects elsewhere (HTTP {status}), which is not followed: name the address itself",
                retry=False,
                status=status,
            )
        try:
            content = await self._read(answer, LONGEST_COMPLAINT, self.timeouts.connect)
        except Failure:
            content = b""
        try:
            said = self._said(self._decoded(content))
        except Failure:
            said = self.shown(content.decode("utf-8", "replace"))
        return Failure(
            f"{self.url} answers HTTP {status}{f': {said}' if said else ''}{HINTS.get(status, '')}",
            retry=status in RETRIED,
            sick=status in SICK,
            misplaced=status in MISPLACED,
            after=retry_after(answer.headers.get("retry-after")),
            status=status,
        )

    async def _read(self, answer: httpx2.Response, most: int, seconds: float) -> bytes:
        """The body. Failure if it is longer or takes longer than that."""
        content = bytearray()
        try:
            async with asyncio.timeout(seconds), aclosing(_chunks(answer)) as chunks:
                async for chunk in chunks:
                    content += chunk
                    if len(content) > most:
                        raise Failure(f"{self.url} sent more than {most >> 20 or 1} MiB in one answer", retry=False)
        except TimeoutError:
            raise Failure(f"{self.url} did not finish its answer within {seconds:g} s", sick=True) from None
        return bytes(content)

    def _said(self, complaint: object) -> str:
        """What an error in OpenAI's, vLLM's or TEI's form says."""
        for name in ("error", "message", "detail"):
            if isinstance(complaint, dict) and complaint.get(name):
                complaint = complaint[name]
        return self.shown(complaint if isinstance(complaint, str) else json.dumps(complaint))

    def _decoded(self, content: bytes) -> Any:
        """JSON from the wire. Failure if it is none."""
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            start = self.shown(content[:LONGEST_COMPLAINT].decode("utf-8", "replace"), 60)
            raise Failure(f"the answer is not JSON: {start!r}") from None

    def shown(self, text: str, most: int = 300) -> str:
        """Text of theirs for a message of ours: one line, short, without the key or control characters."""
        if self._key:
            text = text.replace(self._key, "[key]")  # before anything is cut off, or a part of it would stay
        return " ".join("".join(c if c.isprintable() else " " for c in text[: 8 * most]).split())[:most]


@functools.cache
def _trusted() -> ssl.SSLContext:
    """The certificates trusted by default, read once for all clients: reading takes a fifth of a second."""
    import httpx2

    return httpx2.create_ssl_context()


def finite(value: object) -> float | None:
    """A number from the wire; None for anything else, and for one that is not finite or larger than a float can be."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


async def _chunks(answer: httpx2.Response) -> AsyncGenerator[bytes]:
    async for chunk in answer.aiter_raw():
        yield chunk


async def _lines(answer: httpx2.Response) -> AsyncGenerator[bytes]:
    """What the data lines of an event stream hold; comments, which keep a connection alive, are passed over."""
    held = bytearray()
    async with aclosing(_chunks(answer)) as chunks:
        async for chunk in chunks:
            searched = len(held)
            held += chunk
            begin = 0
            while (end := held.find(b"\n", max(begin, searched))) >= 0:
                line = bytes(held[begin:end]).rstrip(b"\r")
                begin = end + 1
                if line.startswith(b"data:"):
                    yield line[5:].strip()
            del held[:begin]
            if len(held) > LONGEST_LINE:
                raise Failure(f"a line of the stream is longer than {LONGEST_LINE >> 20} MiB", retry=False)
    if held.startswith(b"data:"):
        yield bytes(held[5:]).strip()
