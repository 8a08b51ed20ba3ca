"""What a server's work adds up to: prompt tokens computed, cached and recomputed.

A path is the token sequence of a text as the server tokenises it: a whole prompt, or a prompt with what was drawn
after it. Its first prefill is necessary; so is computing the last token drawn, which has no keys and values when it
is drawn. Every other prompt token that the server computed is recomputed: its path had been through the server
before, as part of an earlier prompt or as its output. For one request, with requests taken in order of arrival:

    new        = prompt tokens beyond the longest known path (a path drawn is known but for its last token)
    recomputed = max(0, prompt tokens computed - new)

Sixteen requests with one prompt of 100 tokens, all computed: 100 new and 1,500 recomputed. That the answer of a
request still under way counts as known makes no difference: nobody asks for its continuation before it is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["Served", "Tokens", "recomputed", "totals"]


class Served(NamedTuple):
    """One request the server answered."""

    prompt: Sequence[int]
    """The whole prompt, token by token."""
    computed: int
    """Prompt tokens the server really computed."""
    outputs: Sequence[Sequence[int]]
    """Prompt and answer together, tokenised anew; one for each completion drawn."""


class Tokens(NamedTuple):
    """Totals of a run."""

    computed: int
    """Prompt tokens computed in prefill."""
    cached: int
    """Prompt tokens served from a cache."""
    recomputed: int
    """Part of `computed` that had been computed before."""
    generated: int


def recomputed(served: Iterable[Served]) -> int:
    """Prompt tokens computed beyond the first prefill of each path; requests in order of arrival."""
    known: dict[int, dict] = {}  # type: ignore[type-arg]  # a trie: token -> what follows it
    total = 0
    for request in served:
        total += max(0, request.computed - _learn(known, request.prompt))
        for path in request.outputs:
            _learn(known, path[:-1])
    return total


def totals(served: Sequence[Served], computed: int, generated: int) -> Tokens:
    """`computed` and `generated` are the server's own counters; the rest follows from its requests."""
    asked = sum(len(request.prompt) * max(1, len(request.outputs)) for request in served)
    return Tokens(computed, max(0, asked - computed), recomputed(served), generated)


def _learn(known: dict[int, dict], path: Sequence[int]) -> int:  # type: ignore[type-arg]
    """Add a path; how many of its tokens were new."""
    new = 0
    for token in path:
        new += token not in known
        known = known.setdefault(token, {})
    return new
