"""The model alone: no search, and every token told as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flyweight.protocols import Growth, Search, Strategy, Until
from flyweight.server.job import Delta
from flyweight.server.tokens import Pieces, visible
from flyweight.types import Node

__all__ = ["passing"]


def passing(
    n: int,
    temperature: float,
    stops: Sequence[str],
    drawn: dict[int, Node],
    tell: Callable[[Delta], None] | None,
    pieces: Pieces | None,
) -> Strategy:
    """A strategy that draws n answers, numbered from 0, and puts each into `drawn` as soon as it is whole.

    Cost: n completions. `tell` hears of more text as it is written, under the same numbers, with
    log-probabilities where `pieces` are given.
    """

    async def one(search: Search, index: int) -> None:
        watch = _watch(index, stops, tell, pieces) if tell is not None else None
        [drawn[index]] = await search.complete([search.root], temperature=temperature, until=watch)

    async def strategy(search: Search) -> Node | None:
        # Branches of their own, so that each can be watched: what is drawn does not depend on whether anybody does.
        await search.parallel(*(one(search, index) for index in range(n)))
        return drawn[0]

    return strategy


def _watch(index: int, stops: Sequence[str], tell: Callable[[Delta], None], pieces: Pieces | None) -> Until:
    """Tells what is new and certain to be part of the answer; never ends anything."""
    sent = told = 0

    def watch(growth: Growth) -> bool:
        nonlocal sent, told
        text, whole = visible(growth.text, stops)
        if len(text) > sent:
            entries = None
            # Tokens come with the text they are part of, which may be held back for what could become a stop string.
            if pieces is not None and whole:
                entries = pieces.entries(growth.tokens[told:], growth.logprobs[told:])
                told = len(growth.tokens)
            if pieces is None or whole:
                tell(Delta(index, text[sent:], entries))
                sent = len(text)
        return False

    return watch
