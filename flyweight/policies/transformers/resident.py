"""KV of paths that were computed, kept so that what continues them need not compute them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flyweight.policies.llamacpp.history import History, common_prefix

__all__ = ["KV", "Found", "Resident", "size"]

KV = list[tuple[Any, Any]]
"""Of each layer the keys and the values of some tokens, [heads, tokens, width]."""


class Found(NamedTuple):
    """The beginning of a path, as far as it is there."""

    length: int
    kv: KV | None
    evicted: int
    """Tokens behind it that were there once."""


class Resident:
    """Paths with their KV, least recently used dropped first beyond `room` bytes."""

    def __init__(self, room: int) -> None:
        self.bytes = 0
        self._room = room
        self._kept: dict[tuple[int, ...], KV] = {}
        self._history = History()

    def length(self, path: Sequence[int], limit: int) -> int:
        """How many of the first tokens, `limit` at most, are there."""
        return self._longest(path, limit)[0]

    def find(self, path: Sequence[int], limit: int) -> Found:
        """As much of the path as is there, `limit` tokens at most; that counts as a use."""
        length, where = self._longest(path, limit)
        evicted = max(0, self._history.longest(path, limit) - length)
        if where is None:
            return Found(0, None, evicted)
        kept = self._kept[where] = self._kept.pop(where)
        return Found(length, [(keys[:, :length], values[:, :length]) for keys, values in kept], evicted)

    def keep(self, path: Sequence[int], kv: KV) -> None:
        """Keep a copy of a path's KV; paths that it continues are no longer needed."""
        whole = tuple(path)
        self._history.add(whole)
        for kept in [kept for kept in self._kept if kept == whole[: len(kept)]]:
            self._drop(kept)
        needed = size(kv)
        while self._kept and self.bytes + needed > self._room:
            self._drop(next(iter(self._kept)))
        if needed <= self._room:
            # A view would hold on to the whole batch that it is a part of.
            self._kept[whole] = [(keys.clone(), values.clone()) for keys, values in kv]
            self.bytes += needed

    def clear(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self.bytes = 0

    def _longest(self, path: Sequence[int], limit: int) -> tuple[int, tuple[int, ...] | None]:
        best, where, wanted = 0, None, tuple(path)
        for kept in self._kept:
            # A longer match must agree at position `best`: one comparison rules most of them out.
            if best >= limit or kept[best : best + 1] != wanted[best : best + 1]:
                continue
            length = common_prefix(wanted, kept, limit)
            if length > best:
                best, where = length, kept
        return best, where

    def _drop(self, kept: tuple[int, ...]) -> None:
        self.bytes -= size(self._kept.pop(kept))


def size(kv: KV) -> int:
    """Bytes of a path's KV."""
    return sum(part.numel() * part.element_size() for layer in kv for part in layer)
