"""Which stream every row stands on: a dense range, because llama.cpp takes a batch with gaps apart."""

from __future__ import annotations

from collections.abc import Sequence

from flyweight.policies.llamacpp.row import Row
from flyweight.policies.llamacpp.streams import Blob, Streams

__all__ = ["arrange", "beside", "dense", "window"]


def dense(rows: Sequence[Row]) -> bool:
    """Whether rows stand on contiguous streams."""
    seats = [row.stream for row in rows]
    return min(seats) >= 0 and max(seats) - min(seats) == len(seats) - 1


def arrange(rows: Sequence[Row], streams: Streams[Blob]) -> list[tuple[Row, int]]:
    """Put rows on contiguous streams, moving as few as possible; new ones stay where their path already is.

    Sets `row.stream`. Returns the rows that had begun on another stream, and which: what it holds must follow them.
    """
    taken = {row.stream for row in rows if row.stream >= 0}
    weights = [2 if stream in taken else 0 for stream in range(streams.count)]
    home: dict[int, Row] = {}
    for row in rows:
        if row.stream < 0:
            idle = (stream for stream in range(streams.count) if stream not in taken and stream not in home)
            found = streams.home(row.path, len(row.path) - 1, idle)
            if found is not None:
                home[found] = row
                weights[found] = 1
    start = window(streams.count, len(rows), weights)
    inside = range(start, start + len(rows))
    for stream, row in home.items():
        if stream in inside:
            row.stream = stream
    inhabited = {row.stream for row in rows}
    holes = iter([stream for stream in inside if stream not in inhabited])
    moved: list[tuple[Row, int]] = []
    for row in rows:
        if row.stream not in inside:
            origin, row.stream = row.stream, next(holes)
            if row.started:
                moved.append((row, origin))
    return moved


def beside(rows: Sequence[Row], count: int) -> list[int]:
    """Idle streams of `count`, those next to the rows' own first: any number of them keeps the range dense."""
    taken = [row.stream for row in rows if row.stream >= 0]
    low, high = min(taken), max(taken)
    return sorted(set(range(count)).difference(taken), key=lambda stream: max(low - stream, stream - high))


def window(count: int, size: int, weights: Sequence[int]) -> int:
    """Start of the `size` contiguous streams of `count` with the largest total weight; the lowest on ties."""
    total = best = sum(weights[:size])
    start = 0
    for end in range(size, count):
        total += weights[end] - weights[end - size]
        if total > best:
            best, start = total, end - size + 1
    return start
