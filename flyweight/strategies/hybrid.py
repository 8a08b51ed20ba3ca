from __future__ import annotations

from flyweight.protocols import Search
from flyweight.select import weighted_vote
from flyweight.strategies.sequential_revision import revisions
from flyweight.types import Node


async def hybrid(
    search: Search,
    *,
    n: int = 16,
    chains: int = 4,
    memory: int = 4,
    temperature: float = 0.7,
    aggregation: str = "last",
) -> Node | None:
    """Chains of revisions side by side, n attempts in all; every attempt of every chain votes, weighted by score.

    `chains` is the ratio of parallel to sequential: chains=1 is `sequential_revision`, chains=n is
    `weighted_best_of_n`. Lengths differ by at most one where chains does not divide n.

    Use: as `sequential_revision`, where one chain alone may go astray.
    Source: Snell et al. 2024, arXiv 2408.03314, section 6.2: the ratio that is best depends on the difficulty.
    Cost: n completions, n verifications (fewer when attempts are truncated), n / chains one after the other.
    Deviations: those of `sequential_revision`; one weighted vote over all attempts, where the paper first selects
    within each chain and then among the chains.
    """
    lengths = [n // chains + (chain < n % chains) for chain in range(chains)]
    found = await search.parallel(
        *(revisions(search, length, memory=memory, temperature=temperature) for length in lengths if length)
    )
    attempts = [attempt for chain in found for attempt in chain]
    return weighted_vote(await search.classes(attempts), aggregation=aggregation)
