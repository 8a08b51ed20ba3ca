from __future__ import annotations

from flyweight.protocols import Search
from flyweight.types import Node


async def sample(search: Search, *, temperature: float = 0.7) -> Node:
    """One completion at a temperature: the random choice every selector has to beat.

    Use: to know what a random choice is worth, and inside other strategies.
    Cost: 1 completion.
    """
    return (await search.complete([search.root], temperature=temperature))[0]
