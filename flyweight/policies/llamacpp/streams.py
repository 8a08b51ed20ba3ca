"""Which KV stream holds which tokens: prefixes found, forked, parked and evicted. Pure bookkeeping, no llama.cpp.

A stream is one of the context's separate sequences. A busy one belongs to a row being served; an idle one still holds
what its last row left, so that the path can be continued or read. Content in the way of a new row is parked: copied to
host memory in its used size, found again like any other. When parked paths exceed their budget of bytes they are
evicted, least recently used first; a request that has just been queued counts as a use of the path it continues. What
is evicted is computed again when wanted, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from flyweight.policies.llamacpp.history import History, common_prefix

__all__ = ["Blob", "Memory", "Streams"]

Blob = TypeVar("Blob")

WORTH_PARKING = 16
"""Tokens below which computing again is as cheap as copying."""


class Memory(Protocol[Blob]):
    """The KV itself."""

    def save(self, stream: int) -> Blob:
        """Copy of everything a stream holds."""

    def load(self, stream: int, blob: Blob) -> None:
        """Replace what a stream holds."""

    def truncate(self, stream: int, length: int) -> None:
        """Drop a stream's tokens from `length` on."""


@dataclass(slots=True, eq=False)
class Parked(Generic[Blob]):
    """A path in host memory."""

    tokens: list[int]
    blob: Blob


class Taken(NamedTuple):
    """What `Streams.take` found."""

    cached: int
    """Tokens of the path the stream holds now."""
    evicted: int
    """Further tokens of the path that were resident once and have been evicted since."""


class Streams(Generic[Blob]):
    """The tokens of `count` streams and of the parked paths; every change goes to `memory` too."""

    def __init__(self, count: int, memory: Memory[Blob], *, token_bytes: int, parked_bytes: int) -> None:
        self.count = count
        self.held: list[list[int]] = [[] for _ in range(count)]
        """Tokens in each stream. Rows append the tokens they decode."""
        self._memory = memory
        self._token_bytes = token_bytes
        self._parked_limit = parked_bytes // token_bytes
        self._parked: dict[Parked[Blob], None] = {}
        """Least recently used first."""
        self._parked_tokens = 0
        self._evicted = History()

    @property
    def bytes(self) -> int:
        """KV bytes of the tokens held in streams and parked."""
        return (sum(map(len, self.held)) + self._parked_tokens) * self._token_bytes

    def find(self, path: Sequence[int], limit: int) -> tuple[int, int | None, Parked[Blob] | None]:
        """Longest resident prefix of `path[:limit]`: its length and the stream or parked path that holds it."""
        best, stream, parked = 0, None, None
        for index, tokens in enumerate(self.held):
            # A longer match must agree at position `best`: one comparison rules most of them out.
            if best < limit and len(tokens) > best and tokens[best] == path[best]:
                length = common_prefix(tokens, path, limit)
                if length > best:
                    best, stream = length, index
        for entry in self._parked:
            tokens = entry.tokens
            if best < limit and len(tokens) > best and tokens[best] == path[best]:
                length = common_prefix(tokens, path, limit)
                if length > best:
                    best, stream, parked = length, None, entry
        return best, stream, parked

    def expect(self, path: Sequence[int]) -> None:
        """A path is going to be taken: what is parked of it should be the last to be evicted."""
        parked = self.find(path, len(path) - 1)[2]
        if parked is not None:
            self._touch(parked)

    def retire(self, prefix: Sequence[int]) -> None:
        """What is parked and begins with `prefix` may be evicted first, unless it is expected again."""
        start = list(prefix)
        self._parked = {entry: None for entry in self._parked if _starts(entry.tokens, start)} | self._parked

    def home(self, path: Sequence[int], limit: int, idle: Iterable[int]) -> int | None:
        """The idle stream that holds as much of `path[:limit]` as there is anywhere, and least besides."""
        best = self.find(path, limit)[0]
        prefix = list(path[:best])
        homes = [stream for stream in idle if best and _starts(self.held[stream], prefix)]
        return min(homes, key=lambda stream: len(self.held[stream]), default=None)

    def take(self, stream: int, path: Sequence[int], limit: int) -> Taken:
        """Make an idle stream hold the longest resident prefix of `path[:limit]`, parking what was in it."""
        cached, source, parked = self.find(path, limit)
        own = common_prefix(self.held[stream], path, limit)
        evicted = self._evicted.longest(path, limit)
        if own == cached:
            if len(self.held[stream]) > own:
                self.park(stream)
            self._cut(stream, own)
        else:
            if parked is not None:
                self._touch(parked)
                tokens, blob = list(parked.tokens), parked.blob
            else:
                assert source is not None
                tokens, blob = list(self.held[source]), self._memory.save(source)
            self.park(stream)
            self._memory.load(stream, blob)
            self.held[stream] = tokens
            self._cut(stream, cached)
        return Taken(cached, max(0, evicted - cached))

    def fork(self, source: int, targets: Iterable[int]) -> None:
        """Copy everything `source` holds to the targets, parking what is in their way."""
        blob: Blob | None = None
        for target in targets:
            if blob is None:
                blob = self._memory.save(source)
            self.park(target)
            self._memory.load(target, blob)
            self.held[target] = list(self.held[source])

    def move(self, source: int, target: int) -> None:
        """Carry a row's content to another stream, leaving nothing behind."""
        self.fork(source, (target,))
        self.forget(source)

    def forget(self, stream: int) -> None:
        """Drop what a stream holds."""
        self.rewind(stream, 0)

    def rewind(self, stream: int, length: int) -> None:
        """Drop a stream's tokens from `length` on, which turned out to be wrong."""
        self._cut(stream, length)

    def trim(self, stream: int, length: int) -> None:
        """Drop a stream's tokens from `length` on, which nobody will continue."""
        self._evicted.add(self.held[stream])
        self._cut(stream, length)

    def park(self, stream: int) -> None:
        """Copy an idle stream's path to host memory, unless it is short or resident elsewhere too."""
        tokens = self.held[stream]
        if not tokens or self._elsewhere(tokens, stream):
            return
        if len(tokens) < WORTH_PARKING or len(tokens) > self._parked_limit:
            self._evicted.add(tokens)
            return
        # The new path serves for every parked one that is a prefix of it.
        for entry in [e for e in self._parked if _starts(tokens, e.tokens)]:
            self._drop(entry)
        while self._parked_tokens + len(tokens) > self._parked_limit:
            oldest = next(iter(self._parked))
            self._drop(oldest)
            self._evicted.add(oldest.tokens)
        self._parked[Parked(list(tokens), self._memory.save(stream))] = None
        self._parked_tokens += len(tokens)

    def _elsewhere(self, tokens: list[int], stream: int) -> bool:
        if any(_starts(other, tokens) for index, other in enumerate(self.held) if index != stream):
            return True
        for entry in self._parked:
            if _starts(entry.tokens, tokens):
                self._touch(entry)
                return True
        return False

    def _touch(self, entry: Parked[Blob]) -> None:
        del self._parked[entry]
        self._parked[entry] = None

    def _drop(self, entry: Parked[Blob]) -> None:
        del self._parked[entry]
        self._parked_tokens -= len(entry.tokens)

    def _cut(self, stream: int, length: int) -> None:
        if len(self.held[stream]) > length:
            self._memory.truncate(stream, length)
            del self.held[stream][length:]


def _starts(longer: list[int], shorter: list[int]) -> bool:
    n = len(shorter)
    return len(longer) >= n and longer[n - 1] == shorter[n - 1] and longer[:n] == shorter
