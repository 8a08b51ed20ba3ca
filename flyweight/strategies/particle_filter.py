from __future__ import annotations

import itertools
import random
from bisect import bisect
from collections.abc import Sequence

from flyweight.protocols import Search
from flyweight.select import aggregate, finished, weighted_vote
from flyweight.types import Node


async def particle_filter(
    search: Search,
    *,
    n: int = 16,
    max_steps: int = 40,
    step_tokens: int = 256,
    temperature: float = 0.8,
    ess: float = 0.5,
    resampling: str = "systematic",
    aggregation: str = "last",
) -> Node | None:
    """n particles grow step by step; whenever few of them carry the weight, all are drawn anew by weight.

    The weight of a particle is the odds of its score, s / (1 - s). Particles that have ended are drawn with the others
    and wait. At the end the particles vote, weighted by score; one that was drawn twice has two votes. `ess`: draw anew
    when the effective sample size is at most this share of n; 1 does so every round, 0 never.

    Use: a noisy step verifier: paths of a low score keep a chance.
    Source: Puri et al. 2025, "Rollout Roulette", arXiv 2502.01618, algorithm 1.
    Cost: at most n steps and n verifications a round, max_steps rounds; the last round runs to the end.
    Deviations: the paper draws anew every round, by multinomial sampling; the answer is a weighted vote instead of the
    best particle; a particle whose step was cut at step_tokens has no weight, one that adds only white space has ended
    where it stood.
    """
    particles = await sweep(search, n, max_steps, step_tokens, temperature, ess, resampling, aggregation)
    return weighted_vote(await search.classes(particles), aggregation=aggregation)


async def sweep(
    search: Search,
    n: int,
    max_steps: int,
    step_tokens: int,
    temperature: float,
    ess: float,
    resampling: str,
    aggregation: str,
    reference: Node | None = None,
) -> list[Node]:
    """The ended particles of one run of the filter; at most n.

    Given a reference, one of the n particles is that path and survives whatever is drawn; others may branch off it.
    """
    path = reference.steps if reference is not None else ()
    free = n - 1 if path else n
    moving = [search.root] * free
    ended: list[Node] = []
    for step in range(1, max_steps + 1):
        last = step == max_steps
        draw, limit = (search.complete, None) if last else (search.extend, step_tokens)
        drawn = finished(await draw(moving, temperature=temperature, max_tokens=limit))
        stuck = [node.parent for node in drawn if node.parent and not node.text.strip()]
        scored = await search.score([node for node in drawn if node.text.strip()])
        ended += [node for node in stuck if node.score is not None]
        ended += [node for node in scored if node.complete or last]
        moving = [node for node in scored if not (node.complete or last)]
        if not moving:
            break
        pool = [*ended, *moving, *path[:step][-1:]]
        done = [True] * len(ended) + [False] * len(moving) + [step >= len(path)] * bool(path)
        weights = [weight(node, aggregation) for node in pool]
        size = round(effective(weights), 9)
        if size <= ess * n:
            chosen = resample(weights, free, resampling, search.rng)
            search.note(effective=size, drawn=[pool[i].key for i in chosen])
            ended, moving = [pool[i] for i in chosen if done[i]], [pool[i] for i in chosen if not done[i]]
    return ended if reference is None else [*ended, reference]


def weight(node: Node, aggregation: str) -> float:
    """The odds of a node's score, which make the softmax of its logits; scores of 0 and 1 are kept off by 1e-7."""
    score = min(max(aggregate(node.score, aggregation), 1e-7), 1 - 1e-7)
    return score / (1 - score)


def effective(weights: Sequence[float]) -> float:
    """Effective sample size: as many particles of equal weight would estimate as well. From 1 to their number."""
    return sum(weights) ** 2 / sum(value * value for value in weights)


def resample(weights: Sequence[float], count: int, how: str, rng: random.Random) -> list[int]:
    """Indices drawn with replacement by weight, in order.

    Multinomial draws are independent. Systematic ones lie on a comb with one random offset: each index comes as often
    as its share of `count`, rounded down or up.
    """
    if how == "multinomial":
        return sorted(rng.choices(range(len(weights)), weights, k=count))
    edges = list(itertools.accumulate(weights))
    offset = rng.random()
    places = [(offset + i) / count * edges[-1] for i in range(count)]
    return [min(bisect(edges, place), len(edges) - 1) for place in places]
