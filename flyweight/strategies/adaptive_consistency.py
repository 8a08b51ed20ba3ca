from __future__ import annotations

from flyweight.errors import BudgetSpent
from flyweight.protocols import Search
from flyweight.select import lead, majority
from flyweight.types import Node


async def adaptive_consistency(
    search: Search, *, n: int = 16, temperature: float = 0.7, threshold: float = 0.95
) -> Node | None:
    """Majority vote that stops sampling once the leader is decided: P(it really leads) >= threshold.

    Use: as `self_consistency`, where many questions are easy: those cost four samples.
    Source: Aggarwal et al. 2023, "Let's Sample Step by Step", arXiv 2305.11860, section 3 (Beta criterion).
    Cost: between min(4, n) and n completions.
    Deviations: samples come in rounds that double their number (4, 8, 16, ...) so that they can be drawn in a batch;
    the paper asks after every sample.
    """
    candidates: list[Node] = []
    groups: list[list[Node]] = []
    asked = 0
    while asked < n:
        more = min(n, max(4, 2 * asked)) - asked
        try:
            candidates += await search.complete([search.root], more, temperature=temperature)
        except BudgetSpent:
            if not candidates:
                raise
            break  # what was drawn decides
        asked += more
        groups = await search.classes(candidates)
        votes, other = [*map(len, groups[:2]), 0, 0][:2]
        if lead(votes, other) >= threshold:
            break
    return majority(groups)
