"""Which layers hidden states are taken of."""

from __future__ import annotations

__all__ = ["tapped"]

DEPTHS = (15, 18, 21)
"""Of 24 layers. In between are those whose states tell right from wrong best; the last ones speak of the next word."""


def tapped(layers: int) -> tuple[int, ...]:
    """The layers whose outputs are kept, of a model with that many: three, fewer in a shallow one, never the last."""
    if layers < 2:
        return ()
    return tuple(sorted({max(0, min(layers * depth // 24, layers - 2)) for depth in DEPTHS}))
