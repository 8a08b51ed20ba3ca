"""Host memory for copies of streams: given back to the system or used again, never lost between the two."""

from __future__ import annotations

import mmap
import weakref

import numpy as np
from numpy.typing import NDArray

__all__ = ["Buffers"]

STEP = 256 << 10
"""Sizes are rounded up to this many bytes, so that a buffer that has become free fits many paths."""


class Buffers:
    """Byte arrays of their own mappings.

    Touching fresh pages costs more than the copy that goes into them, and a heap full of arrays of a few megabytes each
    falls into pieces. So what is no longer referred to is kept for the next one of its size, up to `spare` bytes, and
    beyond that returned to the system at once.
    """

    def __init__(self, spare: int) -> None:
        self._spare = spare
        self._free: list[NDArray[np.uint8]] = []
        """Oldest first."""

    @property
    def free(self) -> int:
        """Bytes kept for later."""
        return sum(buffer.size for buffer in self._free)

    def take(self, size: int) -> NDArray[np.uint8]:
        """An array of `size` bytes of any content. It is free again as soon as nobody refers to it."""
        room = -(-size // STEP) * STEP
        for index, buffer in enumerate(self._free):
            if buffer.size == room:
                del self._free[index]
                break
        else:
            buffer = np.frombuffer(mmap.mmap(-1, room), np.uint8)
        array = buffer[:size]
        weakref.finalize(array, self._give, buffer).atexit = False
        return array

    def _give(self, buffer: NDArray[np.uint8]) -> None:
        self._free.append(buffer)
        while self.free > self._spare:
            del self._free[0]
