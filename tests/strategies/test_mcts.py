"""Monte Carlo tree search: simulations worked out by hand for both bounds and both values, and its cost."""

from __future__ import annotations

import random

import pytest

from flyweight import strategies
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Sampling
from tests.test_strategies import Q, Script, box, by_hash, play

TREE = {
    "": ["a\n\n", "b\n\n"],
    "a\n\n": [box(1), "c\n\n"],
    "a\n\nc\n\n": [box(2), box(3)],
    "b\n\n": ["d\n\n", box(2)],
    "b\n\nd\n\n": [box(4), box(5)],
}
SCORES = {
    "a\n\n": 0.6, "b\n\n": 0.5,
    f"a\n\n{box(1)}": 0.2, "a\n\nc\n\n": 0.3, f"a\n\nc\n\n{box(2)}": 0.4, f"a\n\nc\n\n{box(3)}": 0.1,
    "b\n\nd\n\n": 0.7, f"b\n\n{box(2)}": 0.9,
    f"b\n\nd\n\n{box(4)}": 0.3, f"b\n\nd\n\n{box(5)}": 0.8,
}  # fmt: skip


def grown(*paths: str) -> dict[str, list[str]]:
    """The part of the tree below these paths."""
    return {path: TREE[path] for path in ("", *paths)}


def test_puct_by_hand() -> None:
    # 1: to a (0.6 > 0.5), c (0.3 > 0.2), 2 (0.4 > 0.1), which gives 0.4.
    one = grown("a\n\n", "a\n\nc\n\n")
    result, judge, _ = play("mcts", one, SCORES, n=1, branch=2)
    assert (result.text, judge.scored) == (f"a\n\nc\n\n{box(2)}", list(SCORES)[:6])
    # 2: to b, as 0.5 + 1.25 / 2 > 0.4 + 1.25 / 4; there to 2, which gives 0.9.
    two = grown("a\n\n", "a\n\nc\n\n", "b\n\n")
    assert play("mcts", two, SCORES, n=2, branch=2)[0].text == f"b\n\n{box(2)}"
    # 3: to b, as 0.9 > 0.4 at equal visits; there to d, as 0.7 + 1.25 / 2 > 0.9 + 1.25 / 4, and to 5.
    result, judge, _ = play("mcts", TREE, SCORES, n=3, branch=2)
    assert judge.scored == list(SCORES)
    assert (result.answer, result.text) == ("2", f"b\n\n{box(2)}"), "0.4 + 0.9 beats 0.8"
    # 4: to b, as 0.85 + 1.25 * 1.73 / 6 > 0.4 + 1.25 * 1.73 / 4; there to 2, as 0.9 > 0.8: nothing new is drawn.
    assert play("mcts", TREE, SCORES, n=4, branch=2)[0].usage.policy_calls == 10


def test_the_bound_of_puct_is_shared_among_siblings() -> None:
    # At the second simulation 0.9 + 1.25 / 4 > 0.5 + 1.25 / 2; with a prior of 1 each it would be 1.53 < 1.75.
    play("mcts", {"": [box(2), "a\n\n"]}, {box(2): 0.9, "a\n\n": 0.5}, n=2, branch=2)


def test_uct_begins_with_the_best_of_those_nobody_took() -> None:
    tree = {"": ["a\n\n", "b\n\n"], "b\n\n": [box(1), box(2)]}
    scores = {"a\n\n": 0.1, "b\n\n": 0.9, f"b\n\n{box(1)}": 0.3, f"b\n\n{box(2)}": 0.4}
    assert play("mcts", tree, scores, n=1, branch=2, bound="uct")[0].answer == "2"


def test_uct_takes_every_step_once_before_any_twice() -> None:
    tree = {"": ["a\n\n", "b\n\n"], "a\n\n": [box(1), box(1)]}
    scores = {"a\n\n": 0.9, "b\n\n": 0.05, f"a\n\n{box(1)}": 0.9, f"b\n\n{box(2)}": 0.1}
    play("mcts", tree, scores, n=2, branch=2)  # 0.9 + 1.25 / 4 > 0.05 + 1.25 / 2
    play("mcts", {**tree, "b\n\n": [box(2), box(2)]}, scores, n=2, branch=2, bound="uct")


def test_uct_by_hand() -> None:
    # Two arms worth 0.9 and 0.1, in [-1, 1] 0.8 and -0.8, each taken once; then the first for as long as
    # 0.8 + 2 sqrt(ln t / (t - 1)) > -0.8 + 2 sqrt(ln t) after t simulations: at t = 6 it is 1.997 > 1.877, at t = 7
    # 1.939 < 1.990. So the 8th simulation goes back, to the step that nobody took.
    tree = {"": ["a\n\n", "b\n\n"], "a\n\n": [box(1), box(1)], "b\n\n": [box(2), "c\n\n"], "b\n\nc\n\n": [box(2)] * 2}
    scores = {"a\n\n": 0.9, "b\n\n": 0.05, f"a\n\n{box(1)}": 0.9, f"b\n\n{box(2)}": 0.1, "b\n\nc\n\n": 0.05}
    scores[f"b\n\nc\n\n{box(2)}"] = 0.1
    play("mcts", tree, scores, n=8, branch=2, bound="uct")
    del tree["b\n\nc\n\n"]
    play("mcts", tree, scores, n=7, branch=2, bound="uct")


def test_rollouts_by_hand() -> None:
    tree = {
        "": ["a\n\n", "b\n\n"],
        "a\n\n": [f"x\n\n{box(1)}"],
        "b\n\n": [box(2), box(3), "d\n\n"],
        "b\n\nd\n\n": [box(2)],
    }
    # 1: nothing is known, so to a, the first drawn; an answer from there is worth 0.2. 2: to b, which counts as the
    # 0.2 of the root: 0.2 + 1.25 / 2 > 0.2 + 1.25 / 4; worth 0.7. 3: to b, which is expanded: 3 has ended and is scored
    # at once, 0.1; d counts as the 0.7 of b and wins; an answer from there is worth 0.6.
    scores = {f"a\n\nx\n\n{box(1)}": 0.2, f"b\n\n{box(2)}": 0.7, f"b\n\n{box(3)}": 0.1, f"b\n\nd\n\n{box(2)}": 0.6}
    result, judge, script = play("mcts", tree, scores, n=3, branch=2, value="rollout")
    assert judge.scored == list(scores), "steps are never scored, only answers"
    assert (result.answer, result.text) == ("2", f"b\n\n{box(2)}")
    whole = [not sampling.stop for sampling in script.samplings]
    assert whole == [False, False, True, True, False, False, True]


def test_a_truncated_rollout_counts_nothing() -> None:
    far, b = "x" * 40, f"b\n\n{box(1)}"
    script = Script({"": ["a\n\n", "b\n\n"], "a\n\n": [far], "b\n\n": [box(1)]})
    judge = RuleVerifier(lambda question, solution: {b: 0.6}[solution])
    runner = Runner(ToyPolicy(script), {"rule": judge}, answers=BoxedAnswers(), sampling=Sampling(max_tokens=20))
    result = runner.solve(Q, strategies.bind("mcts", {"n": 2, "branch": 2, "value": "rollout", "step_tokens": 20}))
    assert (result.text, result.error, script.drawn_everything) == (b, None, True)


def test_a_dead_end_is_left() -> None:
    far = "never ends " * 3
    tree = {"": ["a\n\n", "b\n\n"], "a\n\n": [far, far], "b\n\n": [box(1), box(1)]}
    scores = {"a\n\n": 0.9, "b\n\n": 0.1, f"b\n\n{box(1)}": 0.5}
    assert play("mcts", tree, scores, n=2, branch=2, step_tokens=12)[0].answer == "1"
    tree = {"": [far, far]}
    assert play("mcts", tree, {}, n=5, branch=2, step_tokens=12)[0].best is None


@pytest.mark.parametrize("value", ["verifier", "rollout"])
def test_an_answer_ends_before_a_step_of_white_space(value: str) -> None:
    tree = {"": [box(5) + "\n\n"], box(5) + "\n\n": ["\n\n"]}
    n = 1 if value == "verifier" else 2
    if value == "rollout":  # the first simulation draws an answer from the step
        tree[box(5) + "\n\n"] = ["and so " + box(6), ""]
    scores = {box(5) + "\n\n": 0.7, box(5) + "\n\nand so " + box(6): 0.1}
    result, judge, _ = play("mcts", tree, scores, n=n, branch=1, value=value)
    assert (result.answer, result.text.strip()) == ("5", box(5))
    assert judge.scored.count(box(5) + "\n\n") == 1, "nothing is scored for an empty step"


def test_visits_weigh() -> None:
    # Four of six simulations go to 2: the 3rd and the 6th go to a, where 0.5 + 1.25 * 1.41 / 2 = 1.384 > 1.195 and
    # 0.5 + 1.25 * 2.24 / 4 = 1.199 > 1.180, and find one of its answers each.
    tree = {"": [box(2), "a\n\n"], "a\n\n": [box(1), box(1, "or ")]}
    scores = {box(2): 0.9, "a\n\n": 0.5, f"a\n\n{box(1)}": 0.5, f"a\n\n{box(1, 'or ')}": 0.5}
    assert play("mcts", tree, scores, n=6, branch=2)[0].answer == "2", "3.6 against 1; unvisited it would be 0.9"


@pytest.mark.parametrize("n", [1, 2, 4])
def test_the_cost(n: int) -> None:
    branch, depth = 4, 3

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(f"{rng.random()}\n\n" if so_far.count("\n\n") < depth - 1 else box(rng.random()))

    def solve(**parameters: str) -> tuple[int, int]:
        runner = Runner(ToyPolicy(write), {"rule": RuleVerifier(by_hash)}, answers=BoxedAnswers())
        bound = strategies.bind("mcts", {"n": n, "branch": branch, "bound": "uct", **parameters})
        usage = runner.solve(Q, bound).usage
        return usage.policy_calls, usage.verifier_calls

    # UCT takes n different steps at the root, which is expanded once.
    steps = branch + n * branch * (depth - 1)
    assert solve() == (steps, steps) and steps <= n * branch * depth
    assert solve(value="rollout") == (branch + n, n), "each new step at the root gets its rollout; nothing else is new"
