from __future__ import annotations

from flyweight.protocols import Search
from flyweight.select import majority
from flyweight.types import Node


async def self_consistency(search: Search, *, n: int = 16, temperature: float = 0.7) -> Node | None:
    """The answer most samples agree on (majority vote).

    Use: answers that can be equal (numbers, choices, short facts) and no verifier worth trusting.
    Source: Wang et al. 2022, "Self-Consistency Improves Chain of Thought Reasoning", arXiv 2203.11171.
    Cost: n completions.
    Deviations: answers are compared as equivalence classes, not strings; a tie goes to the class the model was more
    confident in; truncated samples do not vote.
    """
    candidates = await search.complete([search.root], n, temperature=temperature)
    return majority(await search.classes(candidates))
