from __future__ import annotations

from itertools import combinations, product

from flyweight.errors import BudgetSpent
from flyweight.protocols import Search
from flyweight.select import finished
from flyweight.types import Node


async def tournament(search: Search, *, n: int = 8, pivots: int = 2, temperature: float = 0.7) -> Node | None:
    """The sample that wins most when the verifier compares them in pairs; for answers that cannot be voted on.

    First everyone meets a neighbour, in a ring by confidence; the best of that are the pivots, whom everyone meets. A
    candidate's standing is its mean probability of winning. A verifier that only scores compares by the odds of its
    scores.

    Source: Jiang, Ren, Lin 2023, "LLM-Blender", arXiv 2306.02561 (pairs); pivots as in llm-verifier 0.3.
    Cost: n completions, at most n + pivots * (n - pivots) + pivots * (pivots - 1) / 2 comparisons.
    Deviations: no pair meets twice: every comparison is made in both orders where the verifier does that.
    """
    drawn = finished(await search.complete([search.root], n, temperature=temperature))
    players = sorted(drawn, key=lambda node: (-node.mean_logprob, node.order, node.key))
    results: dict[frozenset[Node], dict[Node, float]] = {}

    async def match(a: Node, b: Node) -> None:
        try:
            preference = await search.compare(a, b)
        except BudgetSpent:
            return  # what has been played decides
        results[frozenset((a, b))] = {a: preference, b: 1 - preference}

    async def play(pairs: list[tuple[Node, Node]]) -> list[Node]:
        """Everyone by standing, once these pairs have met too."""
        new: dict[frozenset[Node], tuple[Node, Node]] = {}
        for a, b in pairs:
            if a is not b and frozenset((a, b)) not in results:
                new.setdefault(frozenset((a, b)), (a, b))
        await search.parallel(*(match(a, b) for a, b in new.values()))
        return sorted(players, key=standing)  # equal ones stay in the order of their confidence

    def standing(player: Node) -> float:
        won = [shares[player] for shares in results.values() if player in shares]
        return -round(sum(won) / max(1, len(won)), 12)

    ring = await play(list(zip(players, players[1:] + players[:1], strict=True)))
    best, others = ring[:pivots], ring[pivots:]
    table = await play([*product(others, best), *combinations(best, 2)])
    search.note(matches=len(results))
    return table[0] if table else None
