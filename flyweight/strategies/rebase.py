from __future__ import annotations

import math
from collections.abc import Sequence

from flyweight.protocols import Search
from flyweight.select import aggregate, finished, top, weighted_vote
from flyweight.types import Node


async def rebase(
    search: Search,
    *,
    n: int = 16,
    max_steps: int = 40,
    step_tokens: int = 256,
    temperature: float = 0.8,
    balance: float = 0.2,
    aggregation: str = "last",
) -> Node | None:
    """Reward balanced search: every partial solution gets a share of the n next steps by the softmax of its score.

    A path that ends takes its slot with it, so that at most n answers come out; they vote, weighted by score.
    `balance` is the temperature of the softmax: near 0 the best path gets all, far above 1 all get the same.

    Use: as `beam_search`, where good paths should get more without the others being dropped at once.
    Source: Wu et al. 2024, "Inference Scaling Laws", arXiv 2408.00724; rounding as in the authors' code.
    Cost: at most n steps and n verifications a round, max_steps rounds; the last round runs to the end.
    Deviations: a step cut at step_tokens is dropped and its slot shared out again; a step of white space ends its path
    where it stood; paths still open in the last round run to the end, where the authors' code drops them.
    """
    parents = [search.root] * n
    ended: dict[str, Node] = {}
    for step in range(1, max_steps + 1):
        last = step == max_steps
        draw, limit = (search.complete, None) if last else (search.extend, step_tokens)
        drawn = finished(await draw(parents, temperature=temperature, max_tokens=limit))
        stuck = [node.parent for node in drawn if node.parent and not node.text.strip()]
        ended |= {node.key: node for node in stuck if node.score is not None}
        children = await search.score([node for node in drawn if node.text.strip()])
        ended |= {node.key: node for node in children if node.complete or last}
        active = top([node for node in children if not node.complete], n, aggregation=aggregation)
        weights = [math.exp(aggregate(node.score, aggregation) / balance) for node in active]
        shares = allot(weights, n - len(ended))
        parents = [node for node, share in zip(active, shares, strict=True) for _ in range(share)]
        if last or not parents:
            break
    return weighted_vote(await search.classes(list(ended.values())), aggregation=aggregation)


def allot(weights: Sequence[float], slots: int) -> list[int]:
    """How many of the slots each gets: from the first on, its share of what is left, rounded up. All are given away."""
    shares = []
    for i, weight in enumerate(weights):
        # Rounded first, so that equal weights get equal shares whatever the last bit of their sum.
        share = math.ceil(round(slots * weight / math.fsum(weights[i:]), 9))
        shares.append(share)
        slots -= share
    return shares
