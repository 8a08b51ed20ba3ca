"""Look-ahead search: a tree worked out by hand, its cost, and beam search as its k=0."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence

import pytest

from flyweight import select, strategies
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Budget, Node, Sampling
from tests.test_strategies import Counting, Q, Script, box, by_hash, play, right_sums, run, told


def test_by_hand() -> None:
    far = "far too long to be one step"
    tree = {  # the first draw after a step is the look-ahead, if it has one
        "": ["a\n\n", "b\n\n", "c\n\n", box(0)],
        "a\n\n": ["d\n\n"],
        "b\n\n": [box(1), box(2), "e\n\n"],
        "c\n\n": [far, box(3), "\n\n"],
        "b\n\ne\n\n": [box(2), box(4), box(5)],
    }
    scores = {
        "a\n\nd\n\n": 0.2, f"b\n\n{box(1)}": 0.85, "c\n\n": 0.6, box(0): 0.5,
        f"b\n\n{box(2)}": 0.55, f"b\n\ne\n\n{box(2)}": 0.35, f"c\n\n{box(3)}": 0.8,
        f"b\n\ne\n\n{box(4)}": 0.1, f"b\n\ne\n\n{box(5)}": 0.15,
    }  # fmt: skip
    result, judge, script = play("lookahead_search", tree, scores, n=4, width=2, k=1, step_tokens=len(far) - 1)
    assert judge.scored == list(scores), "only where a look-ahead arrived is scored: never a, b or e themselves"
    assert [s.temperature for s in script.samplings] == [0.8] * 4 + [0] * 3 + [0.8] * 4 + [0] + [0.8] * 2
    # Ended, best first: 1 (0.85, a look-ahead), 3 (0.8), c (0.6, no answer), 2 (0.55), 0 (0.5), ... The best four vote.
    assert (result.answer, result.text) == ("1", f"b\n\n{box(1)}")


def test_the_score_after_the_look_ahead_selects() -> None:
    tree = {
        "": ["a\n\n", "b\n\n"],
        "a\n\n": ["bad\n\n"],
        "b\n\n": ["good\n\n", box(1), box(2)],
    }
    scores = {"a\n\n": 0.9, "b\n\n": 0.1, "a\n\nbad\n\n": 0.1, "b\n\ngood\n\n": 0.9}
    leaves = {f"b\n\n{box(1)}": 0.3, f"b\n\n{box(2)}": 0.4}
    assert play("lookahead_search", tree, {**scores, **leaves}, n=2, width=2)[0].answer == "2"


def test_a_look_ahead_ends_with_the_answer() -> None:
    tree = {"": ["a\n\n", box(1)], "a\n\n": ["b\n\n", box(3), box(3)], "a\n\nb\n\n": [box(2)]}
    scores = {f"a\n\nb\n\n{box(2)}": 0.9, box(1): 0.8, f"a\n\n{box(3)}": 0.1}
    result, judge, _ = play("lookahead_search", tree, scores, n=2, width=2, k=5)
    assert result.answer == "2", "what a look-ahead found is not lost"
    assert judge.scored[:2] == list(scores)[:2]


def test_nothing_is_looked_ahead_to_after_the_last_round() -> None:
    """Not even where a stop string of the run ended the answer, and not the model."""
    script = Script({"": [box(1) + "###", box(2) + "###"]})
    judge = RuleVerifier(lambda question, solution: {box(1) + "###": 0.2, box(2) + "###": 0.8}[solution])
    runner = Runner(ToyPolicy(script), {"rule": judge}, answers=BoxedAnswers(), sampling=Sampling(stop=("###",)))
    result = runner.solve(Q, strategies.bind("lookahead_search", {"n": 2, "width": 2, "max_steps": 1}))
    assert (result.answer, result.error) == ("2", None)


@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_costs_k_plus_one_times_a_beam(k: int) -> None:
    n, rounds = 8, 3

    def endless(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(f"{rng.random()}\n\n" * 20)

    judge = RuleVerifier(by_hash)
    runner = Runner(ToyPolicy(endless), {"rule": judge}, answers=BoxedAnswers())
    parameters = {"n": n, "width": 4, "k": k, "max_steps": rounds}
    usage = runner.solve(Q, strategies.bind("lookahead_search", parameters)).usage
    assert usage.policy_calls == n * (k + 1) * (rounds - 1) + n, "the last round has nothing to look ahead to"
    assert usage.verifier_calls == n * rounds


@pytest.mark.parametrize("rule", [right_sums, by_hash])
@pytest.mark.parametrize(("n", "width"), [(1, 1), (4, 2), (6, 3), (4, 4)])
def test_without_looking_ahead_it_is_beam_search(n: int, width: int, rule: object) -> None:
    for write in (None, Counting):
        beam = run("beam_search", rule, count=8, write=write and write(), n=n, width=width)  # type: ignore[arg-type]
        ahead = run("lookahead_search", rule, count=8, write=write and write(), n=n, width=width, k=0)  # type: ignore[arg-type]
        assert told(ahead) == told(beam)
        for id, result in beam.items():
            assert [c.node.key for c in ahead[id].candidates] == [c.node.key for c in result.candidates]


@pytest.mark.parametrize("left", range(1, 14))
def test_no_step_has_the_score_of_another(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a stop rule the scores that a budget leaves out lie anywhere among the steps."""

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        name = f"s{rng.randrange(1000)}"
        return Draft(box(rng.randrange(9), name) if rng.random() < 0.5 else f"{name}\n\n")

    def truth(question: str, solution: str) -> float:
        return 0.9 * by_hash(question, solution)

    def top(nodes: Sequence[Node], k: int, *, aggregation: str) -> list[Node]:
        ranked.extend(nodes)
        return select.top(nodes, k, aggregation=aggregation)

    ranked: list[Node] = []
    module = importlib.import_module("flyweight.strategies.lookahead_search")
    monkeypatch.setattr(module, "top", top)
    strategy = strategies.bind("lookahead_search:n=4:width=2:k=0:max_steps=5:enough=0.99")
    for seed in range(20):
        runner = Runner(ToyPolicy(write), {"rule": RuleVerifier(truth)}, answers=BoxedAnswers(), seed=seed)
        assert runner.solve(Q, strategy, Budget(verifications=left)).error is None
    assert ranked
    assert [node.score and node.score.value for node in ranked] == [truth(Q.prompt, node.solution) for node in ranked]
