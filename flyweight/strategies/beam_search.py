from __future__ import annotations

from flyweight.protocols import Search
from flyweight.select import finished, top, weighted_vote
from flyweight.types import Node


async def beam_search(
    search: Search,
    *,
    n: int = 16,
    width: int = 4,
    max_steps: int = 40,
    step_tokens: int = 256,
    temperature: float = 0.8,
    aggregation: str = "last",
    unique: bool = False,
) -> Node | None:
    """Step by step, keep the n/width partial solutions the verifier likes best and draw width steps after each.

    A beam that ends leaves the pool with its score; the n best of those vote, weighted by score. With width=n one
    beam survives each round; with width=1 there are n independent chains. `unique` drops exact duplicates.

    Use: long solutions in steps, and a verifier that sees a wrong step early; hard questions, small n.
    Source: Snell et al. 2024, arXiv 2408.03314, section 5.2; the recipe is Hugging Face's search-and-learn (2024).
    Cost: at most n steps and n verifications a round, max_steps rounds; the last round runs to the end.
    Deviations: a step cut at step_tokens is dropped, not taken for finished; beams that ended are never repeated to
    make up n; a step of white space ends its beam where it stood.
    """
    active = [search.root]
    ended: dict[str, Node] = {}
    for step in range(1, max_steps + 1):
        last = step == max_steps
        draw, limit = (search.complete, None) if last else (search.extend, step_tokens)
        draws = n if step == 1 else width
        drawn = finished(await draw(active, draws, temperature=temperature, max_tokens=limit))
        stuck = [node.parent for node in drawn if node.parent and not node.text.strip()]
        ended |= {node.key: node for node in stuck if node.score is not None}
        children = await search.score([node for node in drawn if node.text.strip()])
        if unique:
            children = list({(node.parent, node.text): node for node in reversed(children)}.values())[::-1]
        ended |= {node.key: node for node in children if node.complete or last}
        active = top([node for node in children if not node.complete], n // width, aggregation=aggregation)
        if last or not active:
            break
    best = top(list(ended.values()), n, aggregation=aggregation)
    return weighted_vote(await search.classes(best), aggregation=aggregation)
