from __future__ import annotations

from flyweight.protocols import Search
from flyweight.select import aggregate, finished
from flyweight.types import Message, Node

__all__ = ["ACCEPTED", "CRITICISE", "REVISE", "self_refine"]

ACCEPTED = "NOTHING TO CHANGE"
CRITICISE = f"What is wrong with this answer? If nothing is, reply only: {ACCEPTED}. It answers:\n\n{{question}}"
REVISE = "Now answer again, with this put right:\n\n{question}"


async def self_refine(
    search: Search, *, rounds: int = 3, temperature: float = 0.7, aggregation: str = "last"
) -> Node | None:
    """The model criticises its answer and revises it, until it finds nothing wrong or gets no further.

    It ends when the critique accepts the answer, when a revision says what an earlier version said (fixpoint or
    cycle), when a revision scores below the first answer, or after `rounds`. What comes back never scores below the
    first answer, whatever ends the search.

    Use: texts and code, where criticism in words says more than a score.
    Source: Madaan et al. 2023, "Self-Refine: Iterative Refinement with Self-Feedback", arXiv 2303.17651.
    Cost: 1 + 2 * rounds completions, 1 + rounds verifications at most, one after the other.
    Deviations: the paper needs no verifier and returns the last version; critique and revision see the latest
    version, not the whole history; nothing is shown to the model as an example.
    """
    versions = await search.score(finished(await search.complete([search.root], temperature=temperature)))
    if not versions:
        return None
    floor = aggregate(versions[0].score, aggregation)
    for _ in range(rounds):
        talk = [*search.problem.conversation, Message("assistant", versions[-1].solution)]
        talk.append(Message("user", CRITICISE.format(question=search.problem.prompt)))
        [critique] = await search.ask(talk, temperature=temperature)
        if critique.solution.lstrip(" \n*_\"'").upper().startswith(ACCEPTED):
            break
        talk.append(Message("assistant", critique.solution))
        talk.append(Message("user", REVISE.format(question=search.problem.prompt)))
        [revision] = await search.ask(talk, temperature=temperature)
        if revision.solution.strip() in {version.solution.strip() for version in versions}:
            break
        scored = await search.score(finished([revision]))
        if not scored or aggregate(scored[0].score, aggregation) < floor:
            break  # so at most one version is worse than the first, and it wins no vote over all there are
        versions += scored
    return versions[-1]
