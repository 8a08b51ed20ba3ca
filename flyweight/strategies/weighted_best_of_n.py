from __future__ import annotations

from flyweight.protocols import Search
from flyweight.select import finished, weighted_vote
from flyweight.types import Node


async def weighted_best_of_n(
    search: Search, *, n: int = 16, temperature: float = 0.7, aggregation: str = "last"
) -> Node | None:
    """The answer whose samples have the largest sum of scores; its text is the best-scored of them.

    Use: a verifier that is better than chance and answers that can be equal: scores and votes make up
    for each other's mistakes.
    Source: Li et al. 2023, "Making Language Models Better Reasoners with Step-Aware Verifier", arXiv 2206.02336,
    section 3.2; used for test-time scaling by Snell et al. 2024, arXiv 2408.03314.
    Cost: n completions, n verifications (fewer when samples are truncated).
    """
    candidates = await search.complete([search.root], n, temperature=temperature)
    scored = await search.score(finished(candidates))
    return weighted_vote(await search.classes(scored), aggregation=aggregation)
