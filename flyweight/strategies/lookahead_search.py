from __future__ import annotations

from dataclasses import replace

from flyweight.protocols import Search
from flyweight.select import finished, top, weighted_vote
from flyweight.types import Node


async def lookahead_search(
    search: Search,
    *,
    n: int = 16,
    width: int = 4,
    k: int = 1,
    max_steps: int = 40,
    step_tokens: int = 256,
    temperature: float = 0.8,
    aggregation: str = "last",
) -> Node | None:
    """Beam search that judges a step by where k further steps, drawn greedily, would lead.

    The score after the look-ahead is the step's: it chooses what to go on from. The looked-ahead steps themselves are
    dropped, unless they end an answer. With k=0 this is `beam_search`.

    Use: as `beam_search`, where a step can only be judged by what follows from it.
    Source: Snell et al. 2024, arXiv 2408.03314, section 5.2.
    Cost: at most n * (k + 1) steps and n verifications a round, max_steps rounds; the last round runs to the end.
    Deviations: a look-ahead that ends an answer stands for election, as it is paid for and scored; one that is cut at
    step_tokens or adds only white space is judged without that step; otherwise those of `beam_search`.
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

        leads = {node: node for node in drawn if node.text.strip()}
        moved = leads
        for _ in range(0 if last else k):
            origin = {lead: node for node, lead in moved.items() if not lead.complete}
            further = finished(await search.extend(list(origin), temperature=0, max_tokens=step_tokens))
            moved = {origin[node.parent]: node for node in further if node.parent and node.text.strip()}
            leads |= moved
        judged = {node.key: node for node in await search.score(list(leads.values()))}

        ended |= {key: node for key, node in judged.items() if node.complete or last}
        # What the budget of verifications did not cover has no score: it is left out.
        children = [replace(node, score=judged[lead.key].score) for node, lead in leads.items() if lead.key in judged]
        active = top([node for node in children if not node.complete], n // width, aggregation=aggregation)
        if last or not active:
            break
    best = top(list(ended.values()), n, aggregation=aggregation)
    return weighted_vote(await search.classes(best), aggregation=aggregation)
