from __future__ import annotations

from flyweight.protocols import Search
from flyweight.select import finished, top, weighted_vote
from flyweight.types import Node


async def dvts(
    search: Search,
    *,
    n: int = 16,
    width: int = 4,
    max_steps: int = 40,
    step_tokens: int = 256,
    temperature: float = 0.8,
    aggregation: str = "last",
) -> Node | None:
    """Diverse verifier tree search: n/width independent greedy searches that never exchange nodes, then a vote.

    Each subtree draws width steps, keeps the best one and goes on from it until that one has ended; the siblings
    that ended with it stand for election too, weighted by score.

    Use: as `beam_search` with a larger n, where beams would come to be alike.
    Source: Beeching, Tunstall, Rush 2024, "Scaling test-time compute with open models" (Hugging Face).
    Cost: at most n steps and n verifications a round, max_steps rounds; the last round runs to the end.
    Deviations: a subtree ends when the model ends its answer (the original also looks for a boxed answer) or adds
    only white space to a step better than those that go on from it; siblings still in mid-thought do not vote, and a
    subtree whose steps were all cut at step_tokens has no vote; subtrees do not wait for each other.
    """

    async def subtree() -> list[Node]:
        node = search.root
        for step in range(1, max_steps + 1):
            last = step == max_steps
            draw, limit = (search.complete, None) if last else (search.extend, step_tokens)
            drawn = finished(await draw([node], width, temperature=temperature, max_tokens=limit))
            children = await search.score([child for child in drawn if child.text.strip()])
            if node.score is not None and any(not child.text.strip() for child in drawn):
                children.append(node)  # white space ended it: it stands against what goes on from it
            ended = [child for child in children if child.complete or last or child is node]
            best = top(children, 1, aggregation=aggregation)
            if not best or best[0] in ended:
                return ended
            [node] = best
        return []

    leaves = await search.parallel(*(subtree() for _ in range(n // width)))
    voters = [leaf for siblings in leaves for leaf in siblings]
    return weighted_vote(await search.classes(voters), aggregation=aggregation)
