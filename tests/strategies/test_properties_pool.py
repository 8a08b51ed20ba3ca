"""What holds of every registered strategy on pools of known samples: the order of draws, and what scores are worth."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flyweight.protocols import Request
from flyweight.types import Problem
from tests.recorded import load
from tests.strategies.registry_kit import NAMES, box, parameters, reads_scores, search

READS_SCORES = [name for name in NAMES if reads_scores(name)]

# The order in which candidates are drawn

POOL = {
    box(1) + "a": 0.1,
    box(2) + "a": 0.2,
    box(2) + "b": 0.3,
    box(3) + "a": 0.4,
    box(3) + "b": 0.5,
    box(1) + "c": 0.7,
}
"""Six samples and their scores. The answers have two samples each, with 0.8, 0.5 and 0.9 in all; no two are as sure."""


def one_round(name: str) -> bool:
    """Whether a strategy draws all its candidates at once and compares everyone with everyone."""
    found = search(name, POOL.__getitem__, write=lambda request: next(iter(POOL)), n=6, width=3, branch=6)
    return [len(flying) for flying in found.policy.rounds] == [6] and "pivots" not in parameters(name)


def test_permuting_the_candidates_changes_nothing() -> None:
    rng = random.Random(0)
    asked = [name for name in NAMES if one_round(name)]
    assert {"self_consistency", "best_of_n", "weighted_best_of_n", "beam_search", "medoid"} <= set(asked)
    for name in asked:
        chosen = set()
        for _ in range(100):
            drawn = iter(rng.sample(list(POOL), 6))
            write = functools.partial(lambda drawn, request: next(drawn), drawn)
            chosen.add(search(name, POOL.__getitem__, write=write, n=6, width=3, branch=6).result.text)
        assert len(chosen) == 1, (name, chosen)


# Reading the scores pays

Pair = Sequence[Mapping[str, Any]]


def pairs() -> list[Pair]:
    """Recorded questions with one right and one wrong sample, each with the scores of its steps."""
    by_question: dict[int, list[Mapping[str, Any]]] = {}
    for row in load("pools/cotts_qwen2.5-1.5b_bon_math-shepherd"):
        by_question.setdefault(row["q"], []).append(row)
    return [pair for pair in by_question.values() if pair[0]["correct"] != pair[1]["correct"]]


def solved(name: str, dealt: Sequence[tuple[Pair, bool]]) -> int:
    """Questions answered right, their two samples drawn in turn; where dealt so, each has the scores of the other.

    A sample is two steps, with the last but one and the last of its recorded scores: a step chosen well leads to the
    right answer, as does an answer chosen well.
    """
    right = 0
    for pair, swapped in dealt:
        steps = [row["value"][-2:] for row in (reversed(pair) if swapped else pair)]
        scores = {f"sample {i}\n\n": values[0] for i, values in enumerate(steps)}
        texts = [f"sample {i}\n\n\\boxed{{{i}}}" for i in range(2)]
        scores |= {text: values[-1] for text, values in zip(texts, steps, strict=True)}
        drawn: Counter[str] = Counter()

        def write(request: Request, texts: Sequence[str] = texts, drawn: Counter[str] = drawn) -> str:
            so_far = request.node.solution
            drawn[so_far] += 1
            text = texts[(drawn[so_far] - 1) % 2] if not so_far else texts[int(so_far.split()[1])]
            return text.removeprefix(so_far)

        problem = Problem(f"q{pair[0]['q']}", pair[0]["question"])
        result = search(name, scores.__getitem__, write=write, problem=problem, n=4, width=2, branch=2, chains=4).result
        right += result.answer is not None and bool(pair[int(result.answer)]["correct"])
    return right


@pytest.mark.parametrize("name", READS_SCORES)
def test_scores_beat_shuffled_scores(name: str) -> None:
    """Control: the scores of a question's two samples dealt to them by chance.

    That leaves every question its scores and samples and takes away only which belongs to which, so the difference is
    what the strategy gains by reading. By chance half of the 119 questions are solved, 59.5, with a standard deviation
    of 5.5.
    """
    rng = random.Random(0)
    known = pairs()
    assert len(known) == 119
    real = solved(name, [(pair, False) for pair in known])
    control = solved(name, [(pair, rng.random() < 0.5) for pair in known])
    assert real > 59.5 + 3 * 5.5
    assert real > control
    assert abs(control - 59.5) < 4 * 5.5
