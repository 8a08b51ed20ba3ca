from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, product
from math import fsum

from flyweight.errors import BudgetSpent
from flyweight.protocols import Search
from flyweight.select import finished
from flyweight.types import Node


async def tournament(search: Search, *, n: int = 8, pivots: int = 2, temperature: float = 0.7) -> Node | None:
    """The sample that wins most when the verifier compares them in pairs; for answers that cannot be voted on.

    First everyone meets a neighbour, in a ring by confidence; the best of that are the pivots, whom everyone meets. A
    candidate's standing is its mean probability of winning. A verifier that only scores compares by the odds of its
    scores.

    Use: texts that only a comparison can rank, with a judge that compares better than it grades.
    Source: Jiang, Ren, Lin 2023, "LLM-Blender", arXiv 2306.02561 (pairs); pivots as in llm-verifier 0.3.
    Cost: n completions, at most n + pivots * (n - pivots) + pivots * (pivots - 1) / 2 comparisons.
    Deviations: no pair meets twice: every comparison is made in both orders where the verifier does that.
    """
    drawn = finished(await search.complete([search.root], n, temperature=temperature))
    players = sorted(drawn, key=lambda node: (-node.mean_logprob, node.order, node.key))
    won: dict[Node, list[float]] = {player: [] for player in players}
    met: set[frozenset[Node]] = set()

    async def match(a: Node, b: Node) -> None:
        try:
            preference = await search.compare(a, b)
        except BudgetSpent:
            return  # what has been played decides
        won[a].append(preference)
        won[b].append(1 - preference)

    async def play(pairs: Iterable[tuple[Node, Node]]) -> list[Node]:
        """Everyone by standing, once these pairs have met too; equal ones in the order of their confidence."""
        matches = []
        for a, b in pairs:
            if a is not b and frozenset((a, b)) not in met:
                met.add(frozenset((a, b)))
                matches.append(match(a, b))
        await search.parallel(*matches)
        return sorted(players, key=lambda player: -standing(player))

    def standing(player: Node) -> float:
        return round(fsum(won[player]) / max(1, len(won[player])), 12)

    ring = await play(zip(players, players[1:] + players[:1], strict=True))
    best, others = ring[:pivots], ring[pivots:]
    table = await play([*product(others, best), *combinations(best, 2)])
    search.note(matches=sum(map(len, won.values())) // 2, standing={player.key: standing(player) for player in table})
    return table[0] if table else None
