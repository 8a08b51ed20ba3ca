from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace

from flyweight.protocols import Search
from flyweight.select import aggregate, finished, weighted_vote
from flyweight.types import Node

C_BASE, C_INIT = 19652, 1.25
"""AlphaZero's constants of PUCT."""
C_UCT = 2.0
"""Constant of UCT for values in [-1, 1], the range of rStar-Math; scores are stretched to it."""


async def mcts(
    search: Search,
    *,
    n: int = 16,
    branch: int = 4,
    max_steps: int = 40,
    step_tokens: int = 256,
    temperature: float = 0.8,
    bound: str = "puct",
    value: str = "verifier",
    aggregation: str = "last",
) -> Node | None:
    """Monte Carlo tree search over steps: n simulations, each from the root to an answer, which vote.

    A simulation goes to the child of the highest upper confidence bound, draws `branch` steps where nobody has been,
    and adds the score of the answer it reaches to all it came by. value=verifier: every new step is scored and counts
    as that until it is visited. value=rollout: from a new step an answer is drawn at once, and only answers are scored.
    An answer has the weight of its visits times its score.

    Use: many simulations on one hard question whose steps can be judged; it goes back to earlier branches.
    Source: Guan et al. 2025, "rStar-Math", arXiv 2501.04519 (steps, UCT); Silver et al. 2017, "AlphaZero", arXiv
    1712.01815 (PUCT); Coulom 2006 (rollouts).
    Cost: at most n simulations of max_steps times branch steps and verifications; with value=rollout of branch steps, 1
    completion and branch verifications.
    Deviations: the steps were drawn from the policy, so the prior of PUCT is the same for each (Hubert et al. 2021);
    no noise at the root; answers vote where rStar-Math takes the best-scored one; a simulation whose steps were all
    truncated counts 0; an answer ends before a step of white space.
    """
    visits: Counter[str] = Counter()
    total: defaultdict[str, float] = defaultdict(float)
    children: dict[str, list[Node]] = {}
    ended: set[str] = set()

    async def expand(node: Node) -> list[Node]:
        """New steps after a node, with what is known of their worth; none where all were truncated."""
        last = len(node.steps) + 1 == max_steps
        draw, limit = (search.complete, None) if last else (search.extend, step_tokens)
        drawn = finished(await draw([node], branch, temperature=temperature, max_tokens=limit))
        blank = [step for step in drawn if not step.text.strip() and node.parent]
        steps = [step for step in drawn if step.text.strip()]
        ended.update(step.key for step in drawn if step.complete or last or step in blank)
        if blank and node.score is None:
            [node] = await search.score([node])
        judged = [step for step in steps if value == "verifier" or step.key in ended]
        unknown = [step for step in steps if step not in judged]
        return [*await search.score(judged), *unknown, *(replace(step, score=node.score) for step in blank)]

    def mean(node: Node) -> float:
        """What a visit was worth; before the first one its own score, or else what one of its parent was worth."""
        if visits[node.key]:
            return total[node.key] / visits[node.key]
        if node.score is not None:
            return aggregate(node.score, aggregation)
        return mean(node.parent) if node.parent else 0.0

    def upper(child: Node, above: int, siblings: int) -> float:
        """Upper confidence bound of a child's mean, its parent having been visited `above` times."""
        own = visits[child.key]
        if bound == "uct":
            return 2 * mean(child) - 1 + C_UCT * math.sqrt(math.log(above) / own) if own else math.inf
        rate = C_INIT + math.log((above + C_BASE + 1) / C_BASE)
        return mean(child) + rate * math.sqrt(above) / (1 + own) / siblings

    def follow(node: Node) -> Node:
        steps, above = children[node.key], visits[node.key]
        return max(steps, key=lambda s: (upper(s, above, len(steps)), mean(s), s.mean_logprob, -s.draw))

    answers: list[Node] = []
    for _ in range(n):
        path = [search.root]
        while path[-1].key not in ended:
            node = path[-1]
            if node.key not in children:
                children[node.key] = await expand(node)
            if not children[node.key]:
                break
            child = follow(node)
            path.append(child)
            if value == "rollout" and not visits[child.key] and child.key not in ended:
                rollout = await search.score(finished(await search.complete([child], temperature=temperature)))
                ended.update(answer.key for answer in rollout)
                path += rollout
                break
        worth = 0.0
        if path[-1].key in ended:
            answers.append(path[-1])
            worth = aggregate(path[-1].score, aggregation)
        search.note(reached=path[-1].key, worth=worth)
        for node in path:
            visits[node.key] += 1
            total[node.key] += worth
    return weighted_vote(await search.classes(answers), aggregation=aggregation)
