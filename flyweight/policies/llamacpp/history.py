"""Paths that were resident once: what of a path is computed for the second time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

__all__ = ["History", "common_prefix"]

REMEMBERED = 1 << 20
"""Tokens after which a new tree is begun; the one before it is kept, 4 bytes a token."""


@dataclass(slots=True)
class Branch:
    """Tokens that follow each other without a fork, and what was seen after them, by its first token."""

    tokens: array[int]
    after: dict[int, Branch] = field(default_factory=dict)


class History:
    """A set of paths, beginnings stored once. Remembers at least the last million tokens added, at most twice that."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._size = 0
        self._trees = [Branch(array("i"))] * 2

    def add(self, path: Sequence[int]) -> None:
        """Remember a path and with it all its beginnings."""
        if self._size > self._remembered:
            self._trees = [Branch(array("i")), self._trees[0]]
            self._size = 0
        rest = array("i", path)
        branch = self._trees[0]
        while rest:
            following = branch.after.get(rest[0])
            if following is None:
                branch.after[rest[0]] = Branch(rest)
                self._size += len(rest)
                return
            same = common_prefix(following.tokens, rest, len(rest))
            if same < len(following.tokens):
                tail = Branch(following.tokens[same:], following.after)
                following.tokens, following.after = following.tokens[:same], {tail.tokens[0]: tail}
            branch, rest = following, rest[same:]

    def longest(self, path: Sequence[int], limit: int) -> int:
        """How many tokens at the start of `path[:limit]` begin a path remembered."""
        whole = array("i", path[:limit])
        return max(_longest(tree, whole) for tree in self._trees)


def _longest(branch: Branch, path: array[int]) -> int:
    known = 0
    while known < len(path):
        following = branch.after.get(path[known])
        if following is None:
            break
        rest = path[known : known + len(following.tokens)]
        same = common_prefix(following.tokens, rest, len(rest))
        known += same
        if same < len(following.tokens):
            break
        branch = following
    return known


def common_prefix(a: Sequence[int], b: Sequence[int], limit: int) -> int:
    """Tokens `a` and `b` share at their start, at most `limit`. By bisection on slices, which compare in C."""
    low, high = 0, min(len(a), len(b), limit)
    if a[:high] == b[:high]:
        return high
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
