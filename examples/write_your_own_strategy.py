"""A strategy of your own in fifteen lines, run on the toy model: no weights, no download, done in a moment.

    python examples/write_your_own_strategy.py

Give `solve` a real model's name instead of "toy" and nothing else changes.
"""

import flyweight
from flyweight.protocols import Search
from flyweight.select import finished, majority, weighted_vote
from flyweight.types import Node


async def second_opinion(search: Search, *, n: int = 8, sure: float = 0.75) -> Node | None:
    """Ask n/2 times; only if they disagree, ask n/2 times more and let the verifier weigh all answers.

    Cost: n/2 completions when they agree, n completions and n verifications when they do not.
    """
    candidates = await search.complete([search.root], n // 2)
    groups = await search.classes(candidates)
    if groups and len(groups[0]) >= sure * len(candidates):
        return majority(groups)
    candidates += await search.complete([search.root], n - n // 2)
    scored = await search.score(finished(candidates))
    search.note(answers_in_doubt=len(groups))
    return weighted_vote(await search.classes(scored))


def right_sums(question: str, solution: str) -> float:
    """A verifier can be any function: the share of lines "a + b = c" that are right."""
    sums = [line.replace("=", "+").split("+") for line in solution.splitlines() if "=" in line]
    return sum(int(a) + int(b) == int(c) for a, b, c in sums) / max(1, len(sums))


if __name__ == "__main__":
    for question in ("What is 12 + 30?", "Add 17 and 25 and 8 and 31 and 6."):
        result = flyweight.solve(question, model="toy", strategy=second_opinion, verifier=right_sums, n=8)
        print(f"{question} {result.answer} ({result.usage.policy_calls} samples, {result.stopped})")
