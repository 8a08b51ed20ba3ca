"""Whose paths are computed next, and how much of them: several in one pass, what they share only once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from flyweight.policies.llamacpp.history import common_prefix
from flyweight.policies.llamacpp.row import Row

__all__ = ["Part", "packs"]

Part = tuple[Row, list[int]]
"""A row and the tokens of its path that come next."""
SHARED_WORTH = 32
"""Common tokens for which a path waits until another one's can be shared."""


def packs(
    rows: Sequence[Row],
    room: int,
    *,
    start: Callable[[Row], None],
    resident: Callable[[Row], int],
    alone: bool = False,
) -> Iterator[list[Part]]:
    """Paths up to their last token, which joins the token batch: pass after pass, `room` tokens in all.

    Each pass has to be computed, or its rows taken out of `rows`, before the next is asked for. Its parts stand in the
    order of their streams. `start` gives a row what it can reuse of its path, or takes it out; `resident` tells how
    many tokens that would be. `alone`: a path that is read again gets a pass of its own.
    """
    waiting = [row for row in rows if row.leader is None and not row.ready]
    while room > 0 and waiting:
        pack: list[Row] = []
        for row in waiting:
            if any(_shares(row, other, resident) for other in pack) or (alone and pack and row.reread is not None):
                continue
            if not row.started:
                start(row)
            if row.started and row.left:
                pack.append(row)
            if (alone and row.reread is not None) or sum(row.left for row in pack) >= room:
                break
        parts: list[Part] = []
        for row in sorted(pack, key=lambda row: row.stream):
            tokens = row.path[row.done : row.done + min(row.left, room)]
            if tokens:
                parts.append((row, tokens))
                room -= len(tokens)
        if parts:
            yield parts
        waiting = [row for row in waiting if row in rows and not row.ready]


def _shares(row: Row, other: Row, resident: Callable[[Row], int]) -> bool:
    """Whether `row` would do well to wait for what `other` is about to compute."""
    common = common_prefix(row.path, other.path, row.reusable)
    if row.started or common - other.done < SHARED_WORTH:
        return False
    return common - resident(row) >= SHARED_WORTH
