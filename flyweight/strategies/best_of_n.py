from __future__ import annotations

from flyweight.protocols import Search
from flyweight.select import finished, top
from flyweight.types import Node


async def best_of_n(search: Search, *, n: int = 16, temperature: float = 0.7, aggregation: str = "last") -> Node | None:
    """The sample the verifier scores highest.

    Use: a verifier that tells right from wrong: it finds the one right answer of many.
    Source: Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems", arXiv 2110.14168, section 4.
    Cost: n completions, n verifications (fewer when samples are truncated).
    """
    candidates = await search.complete([search.root], n, temperature=temperature)
    best = top(await search.score(finished(candidates)), 1, aggregation=aggregation)
    return best[0] if best else None
