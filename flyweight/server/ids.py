"""Random names and numbers nobody can guess, a thousand of them for one call of the system.

A call of the system lets go of Python's lock. Under load the event loop then waits a millisecond to have it back: three
times for every request it made up most of the time it took to refuse one.
"""

from __future__ import annotations

import os

__all__ = ["number", "token"]

STOCK = 1 << 14
"""Bytes fetched at once."""
_stock = bytearray()


def token(size: int) -> str:
    """`size` random bytes in hex. To be called on one thread, the event loop's."""
    if len(_stock) < size:
        _stock.extend(os.urandom(STOCK))
    taken = _stock[-size:].hex()
    del _stock[-size:]
    return taken


def number(bits: int) -> int:
    """A random whole number of at most so many bits."""
    return int(token((bits + 7) // 8), 16) % (1 << bits)
