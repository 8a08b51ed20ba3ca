"""Answers as server-sent events."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Set
from typing import Any, TypeVar

from flyweight.server.job import Choice, Delta, Failed, Finished, Job, Thought
from flyweight.server.reply import facts, old_logprobs

__all__ = ["KEEPALIVE", "alive", "chunks", "event", "written"]

KEEPALIVE = 10.0
"""Seconds of silence after which a comment is sent; proxies hang up after about a minute."""
COMMENT = b": keepalive\n\n"
DONE = b"data: [DONE]\n\n"

T = TypeVar("T")


def event(value: object) -> bytes:
    """One event holding JSON."""
    return b"data: " + written(value) + b"\n\n"


def written(value: object) -> bytes:
    """JSON in UTF-8, which cannot say half a surrogate pair: that becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


async def alive(lines: AsyncIterator[bytes], seconds: float = KEEPALIVE) -> AsyncIterator[bytes]:
    """The lines, and a comment whenever none has come for so long."""
    pending: asyncio.Task[bytes] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(_next(lines))
            done, _ = await asyncio.wait({pending}, timeout=seconds)
            if not done:
                yield COMMENT
                continue
            line, pending = pending, None
            if not (found := line.result()):
                return
            yield found
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})


async def _next(lines: AsyncIterator[bytes]) -> bytes:
    """The next line, empty at the end."""
    try:
        return await anext(lines)
    except StopAsyncIteration:
        return b""


async def chunks(job: Job) -> AsyncIterator[bytes]:
    """The events of a job's answer, up to `[DONE]` or an error.

    What has been told of an answer before it was whole is not told again.
    """
    writer = _Chat(job) if job.plan.chat else _Text(job)
    for line in writer.begin():
        yield line
    async for piece in job.pieces():
        if isinstance(piece, Delta):
            for line in writer.more(piece):
                yield line
        elif isinstance(piece, Thought):
            if line := writer.thought(piece):
                yield line
        elif isinstance(piece, Failed):
            yield event(piece.error.body)
            return
        elif isinstance(piece, Finished):
            for line in writer.unfinished({choice.index for choice in piece.reply.choices}):
                yield line
            for choice in piece.reply.choices:
                last = choice is piece.reply.choices[-1]
                for line in writer.end(choice, {"flyweight": facts(job, piece)} if last else {}):
                    yield line
            if job.plan.include_usage:
                yield writer.chunk([], usage=piece.reply.usage)
            yield DONE


class _Writer(ABC):
    """Chunks of one answer."""

    kind = ""
    prefix = ""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._sent: dict[int, int] = {}
        """Characters of each choice."""
        self._told: dict[int, int] = {}
        """Tokens of each choice whose log-probabilities were sent."""

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        """One event."""
        head = {
            "id": f"{self.prefix}{self._job.id}",
            "object": self.kind,
            "created": int(self._job.created),
            "model": self._job.plan.model,
            "system_fingerprint": None,
        }
        if self._job.plan.include_usage:
            more = {"usage": None, **more}
        return event({**head, "choices": choices, **more})

    def begin(self) -> Iterator[bytes]:
        """What comes first."""
        return iter(())

    def unfinished(self, whole: Set[int]) -> Iterator[bytes]:
        """The end of choices of which something was told, and that did not get to their own end."""
        for index in sorted(self._sent.keys() - whole):
            yield self._ended(index, "length")

    def thought(self, piece: Thought) -> bytes:
        """How the search goes; empty where that cannot be said."""
        return b""

    def more(self, piece: Delta) -> Iterator[bytes]:
        """More text."""
        yield from self._open(piece.index)
        self._sent[piece.index] += len(piece.text)
        self._told[piece.index] = self._told.get(piece.index, 0) + len(piece.logprobs or ())
        yield self._content(piece.index, piece.text, piece.logprobs)

    def end(self, choice: Choice, more: dict[str, Any]) -> Iterator[bytes]:
        """The rest of a choice, and why it ends; `more` goes with the last of it."""
        yield from self._open(choice.index)
        text = choice.text[self._sent[choice.index] :]
        logprobs = None if choice.logprobs is None else choice.logprobs[self._told.get(choice.index, 0) :]
        if text or logprobs:
            yield from self.more(Delta(choice.index, text, logprobs))

    def _open(self, index: int) -> Iterator[bytes]:
        """The first of a choice, once."""
        if index not in self._sent:
            self._sent[index] = 0
            yield from self._first(index)

    def _first(self, index: int) -> Iterator[bytes]:
        """What a choice begins with."""
        return iter(())

    @abstractmethod
    def _ended(self, index: int, reason: str, **more: Any) -> bytes:
        """The last of a choice."""

    @abstractmethod
    def _content(self, index: int, text: str, logprobs: list[dict[str, Any]] | None) -> bytes:
        """Text of a choice."""


class _Chat(_Writer):
    kind = "chat.completion.chunk"
    prefix = "chatcmpl-"

    def begin(self) -> Iterator[bytes]:
        return self._open(0)

    def _first(self, index: int) -> Iterator[bytes]:
        yield self._delta(index, {"role": "assistant", "content": ""})

    def thought(self, piece: Thought) -> bytes:
        return self._delta(0, {"reasoning_content": piece.text})

    def end(self, choice: Choice, more: dict[str, Any]) -> Iterator[bytes]:
        yield from super().end(choice, more)
        for number, call in enumerate(choice.calls):
            yield self._delta(choice.index, {"tool_calls": [{"index": number, **call}]})
        yield self._ended(choice.index, choice.finish_reason, **more)

    def _ended(self, index: int, reason: str, **more: Any) -> bytes:
        return self._delta(index, {}, reason, **more)

    def _content(self, index: int, text: str, logprobs: list[dict[str, Any]] | None) -> bytes:
        return self._delta(index, {"content": text}, logprobs=logprobs)

    def _delta(
        self,
        index: int,
        delta: dict[str, Any],
        finish: str | None = None,
        logprobs: list[dict[str, Any]] | None = None,
        **more: Any,
    ) -> bytes:
        shown = None if logprobs is None else {"content": logprobs, "refusal": None}
        return self.chunk([{"index": index, "delta": delta, "logprobs": shown, "finish_reason": finish}], **more)


class _Text(_Writer):
    kind = "text_completion"
    prefix = "cmpl-"

    def end(self, choice: Choice, more: dict[str, Any]) -> Iterator[bytes]:
        yield from super().end(choice, more)
        yield self._ended(choice.index, choice.finish_reason, **more)

    def _ended(self, index: int, reason: str, **more: Any) -> bytes:
        return self.chunk([{"index": index, "text": "", "logprobs": None, "finish_reason": reason}], **more)

    def _content(self, index: int, text: str, logprobs: list[dict[str, Any]] | None) -> bytes:
        shown = None if logprobs is None else old_logprobs(logprobs, self._sent.get(index, 0) - len(text))
        return self.chunk([{"index": index, "text": text, "logprobs": shown, "finish_reason": None}])
