from __future__ import annotations

from flyweight.protocols import Search
from flyweight.select import weighted_vote
from flyweight.strategies.particle_filter import sweep, weight
from flyweight.types import Node


async def particle_gibbs(
    search: Search,
    *,
    n: int = 8,
    iterations: int = 2,
    max_steps: int = 40,
    step_tokens: int = 256,
    temperature: float = 0.8,
    ess: float = 0.5,
    resampling: str = "multinomial",
    aggregation: str = "last",
) -> Node | None:
    """Particle filters one after another, each around a path that the one before has drawn by weight.

    That path is one of the n particles and survives; others may branch off any step of it. The particles of all
    iterations vote, weighted by score. With iterations=1 this is `particle_filter`.

    Use: as `particle_filter`, where a second pass around the best of the first is worth its price.
    Source: Puri et al. 2025, "Rollout Roulette", arXiv 2502.01618, particle Gibbs; after Andrieu et al. 2010.
    Cost: at most n steps and n verifications a round, n - 1 after the first iteration; iterations * max_steps rounds.
    Deviations: all iterations vote, where the paper's code answers from the last; otherwise those of `particle_filter`.
    """
    voters: list[Node] = []
    reference: Node | None = None
    for _ in range(iterations):
        particles = await sweep(search, n, max_steps, step_tokens, temperature, ess, resampling, aggregation, reference)
        voters += particles
        if particles:
            [reference] = search.rng.choices(particles, [weight(node, aggregation) for node in particles])
    return weighted_vote(await search.classes(voters), aggregation=aggregation)
