from __future__ import annotations

from flyweight.protocols import Search
from flyweight.types import Node


async def greedy(search: Search) -> Node:
    """The most likely token at every position: what the model says without search.

    Use: the cheapest answer there is, the same every time; the baseline of every comparison.
    Cost: 1 completion.
    """
    return (await search.complete([search.root], temperature=0))[0]
