from __future__ import annotations

from flyweight.protocols import Search
from flyweight.select import finished, weighted_vote
from flyweight.types import Message, Node

__all__ = ["AGAIN", "revisions", "sequential_revision"]

AGAIN = "There may be a mistake in this answer. Look for it, then answer again from the beginning:\n\n{question}"
"""What an attempt is followed by when the next one is asked for."""


async def sequential_revision(
    search: Search, *, n: int = 8, memory: int = 4, temperature: float = 0.7, aggregation: str = "last"
) -> Node | None:
    """A chain of n attempts, each made in view of the last few; all of them vote, weighted by score.

    Any attempt may be chosen, not only the last: a revision also turns right answers into wrong ones.

    Use: a model that can see its own mistakes, on questions where its first attempt is nearly right.
    Source: Snell et al. 2024, arXiv 2408.03314, section 6.
    Cost: n completions, n verifications (fewer when attempts are truncated), one after the other; the prompt of each
    holds up to `memory` attempts.
    Deviations: the model is asked for revisions, the paper trains one to make them; truncated attempts are shown to
    none of the later ones.
    """
    attempts = await revisions(search, n, memory=memory, temperature=temperature)
    return weighted_vote(await search.classes(attempts), aggregation=aggregation)


async def revisions(search: Search, n: int, *, memory: int, temperature: float) -> list[Node]:
    """The attempts of one chain of n that were not truncated, scored, in the order made."""
    attempts: list[Node] = []
    for _ in range(n):
        talk = list(search.problem.conversation)
        for attempt in attempts[-memory:]:
            talk += [
                Message("assistant", attempt.solution),
                Message("user", AGAIN.format(question=search.problem.prompt)),
            ]
        if attempts:
            drawn = await search.ask(talk, temperature=temperature)
        else:
            drawn = await search.complete([search.root], temperature=temperature)
        # Scored at once: whatever ends the search, the attempts so far are candidates.
        attempts += await search.score(finished(drawn))
    return attempts
