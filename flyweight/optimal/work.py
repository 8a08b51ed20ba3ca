"""What a search makes an engine do, whatever the machine: prompts, decoding steps by rows, tokens for verifiers.

A question searched alone keeps as many rows busy as there are unfinished candidates; how long a step takes depends on
that number (`speed.py`), so seconds need the whole histogram and not only the tokens.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from flyweight.types import Finish, Node, Usage

__all__ = ["Work", "in_front", "mean", "of_search", "played", "rounds", "schedule", "verifier_of"]

SLOTS = 32
"""Rows the embedded engine decodes together unless told otherwise."""


@dataclass(frozen=True)
class Work:
    """Of one question, searched alone; means where it stands for several."""

    prompt: float
    """Tokens computed before the first one is drawn."""
    generated: float
    """Tokens drawn."""
    verified: float
    """Tokens a verifier computes."""
    scored: float
    """Paths scored."""
    behind: float
    """Tokens in front of a row while it is decoded, mean over rows and steps."""
    steps: Mapping[int, float]
    """Rows decoded together -> steps with so many."""
    verifier: float = 0.0
    """Parameters behind each token a verifier computes; 0 for the policy's."""

    def as_dict(self) -> dict[str, Any]:
        """JSON types, rounded to what is known."""
        numbers = ("prompt", "generated", "verified", "scored", "behind")
        steps = {str(rows): round(steps, 2) for rows, steps in sorted(self.steps.items())}
        own = {"verifier": round(self.verifier)} if self.verifier else {}
        return {**{name: round(getattr(self, name), 1) for name in numbers}, **own, "steps": steps}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Work:
        """The opposite of `as_dict`."""
        return cls(**{**facts, "steps": {int(rows): float(steps) for rows, steps in facts["steps"].items()}})


def rounds(nodes: Iterable[Node]) -> list[list[int]]:
    """Tokens of every draw, by how many draws come before it on its path: each depth waits for the one before it.

    That is how beam search works; subtrees of DVTS go their own ways, so for them it is the longest they can take.
    """
    found: dict[int, list[int]] = {}
    for node in nodes:
        if node.parent is not None and node.finish not in (None, Finish.FORCED):
            depth = sum(step.finish is not Finish.FORCED for step in node.steps)
            # The token that ends an answer is drawn, too, though it is not among the node's.
            found.setdefault(depth, []).append(len(node.tokens or ()) + (node.finish is Finish.END))
    return [found[depth] for depth in sorted(found)]


def schedule(lengths: Sequence[int], slots: int = SLOTS) -> Counter[int]:
    """Rows decoded together -> steps with so many, for draws of these lengths that begin together.

    Those beyond `slots` wait for a row to end, as in the engine.
    """
    ends: list[int] = []
    spans = []
    for length in lengths:
        begin = heapq.heappop(ends) if len(ends) == slots else 0
        heapq.heappush(ends, begin + length)
        spans.append((begin, begin + length))
    moments = sorted({moment for span in spans for moment in span})
    found: Counter[int] = Counter()
    for begin, end in itertools.pairwise(moments):
        found[sum(b <= begin and end <= e for b, e in spans)] += end - begin
    found.pop(0, None)
    return found


def played(by_round: Iterable[Sequence[int]], path: float, slots: int = SLOTS) -> tuple[dict[int, float], float]:
    """`Work.steps` and `Work.behind` of draws of these lengths, round after round, `path` tokens before each."""
    steps: Counter[int] = Counter()
    drawn = squares = 0
    for lengths in by_round:
        steps += schedule(lengths, slots)
        drawn += sum(lengths)
        squares += sum(length * length for length in lengths)
    return {rows: float(count) for rows, count in steps.items()}, path + squares / 2 / max(1, drawn)


def in_front(usage: Usage) -> float:
    """Tokens in front of a draw as it begins, mean over those of a search."""
    # A verifier that reads with the policy finds whole paths in the cache: those are not in front of any row.
    read = usage.verifier_calls if usage.verifier_tokens else 0
    found = usage.prompt_tokens + usage.cached_tokens - read * usage.generated_tokens / max(1, usage.policy_calls)
    return max(0.0, found) / max(1, usage.policy_calls + read)


def of_search(
    nodes: Sequence[Node], usage: Usage, slots: int = SLOTS, by_round: Sequence[Sequence[int]] | None = None
) -> Work:
    """The work of a recorded search: its nodes, and what it cost. `by_round` where depth does not tell its rounds."""
    steps, behind = played(rounds(nodes) if by_round is None else by_round, in_front(usage), slots)
    return Work(
        usage.prompt_tokens,
        usage.generated_tokens,
        usage.verifier_tokens,
        usage.verifier_calls,
        behind,
        steps,
    )


def verifier_of(usages: Iterable[Usage]) -> float:
    """Parameters behind each verifier token of a run; 0 where they are the policy's, or cannot be told.

    FLOPs are 2 x (policy x tokens of prompts and draws + verifier x its tokens): the two sizes that fit best.
    """
    aa = ab = bb = ac = bc = 0.0
    for usage in usages:
        a, b, c = usage.prompt_tokens + usage.generated_tokens, usage.verifier_tokens, usage.flops / 2
        aa, ab, bb, ac, bc = aa + a * a, ab + a * b, bb + b * b, ac + a * c, bc + b * c
    determinant = aa * bb - ab * ab
    if determinant <= 1e-9 * aa * bb:
        return 0.0
    policy, verifier = (bb * ac - ab * bc) / determinant, (aa * bc - ab * ac) / determinant
    return 0.0 if verifier <= 0 or math.isclose(policy, verifier, rel_tol=1e-3) else verifier


def mean(works: Sequence[Work]) -> Work:
    """Of several questions."""
    steps: dict[int, float] = {}
    for work in works:
        for rows, count in work.steps.items():
            steps[rows] = steps.get(rows, 0.0) + count / len(works)
    weight = math.fsum(work.generated for work in works) or 1.0
    return Work(
        prompt=fmean(work.prompt for work in works),
        generated=fmean(work.generated for work in works),
        verified=fmean(work.verified for work in works),
        scored=fmean(work.scored for work in works),
        behind=math.fsum(work.behind * work.generated for work in works) / weight,
        steps=steps,
        verifier=max(work.verifier for work in works),
    )
