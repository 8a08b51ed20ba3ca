"""Every strategy on trees worked out by hand, against its relatives, under company, and against shuffled scores."""

from __future__ import annotations

import random
import re
import runpy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from flyweight import strategies
from flyweight.errors import ConfigError
from flyweight.protocols import Answers, Search, Strategy, Verifier
from flyweight.runner import Runner
from flyweight.select import top, weighted_vote
from flyweight.strategies import Value
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy, check_strategy
from flyweight.types import Budget, Finish, Node, Problem, Result, Sampling, digest
from tests.recorded import NormalAnswers, Recorded, Replay, load

ROOT = Path(__file__).resolve().parent.parent

EVERY = [
    "greedy",
    "sample",
    "self_consistency",
    "adaptive_consistency",
    "best_of_n",
    "weighted_best_of_n",
    "beam_search",
    "dvts",
]
SCORING = ["best_of_n", "weighted_best_of_n", "beam_search", "dvts"]
FLAT = ["best_of_n", "weighted_best_of_n"]
TREE = ["beam_search", "dvts"]

Q = Problem("q", "a question")


def setting(name: str, n: int, width: int) -> dict[str, Any]:
    """Those of the two parameters that the strategy has."""
    return {} if name in ("greedy", "sample") else {"n": n, "width": width} if name in TREE else {"n": n}


def box(answer: object, before: str = "") -> str:
    return f"{before}\\boxed{{{answer}}}"


class Script:
    """Says what a tree has at each path: the k-th request for a path gets its k-th continuation, once each.

    A request too many is an error, so a script also holds a strategy to its number of draws.
    """

    def __init__(self, tree: Mapping[str, Sequence[str | Draft]]) -> None:
        self.tree = tree
        self.asked: Counter[str] = Counter()
        self.samplings: list[Sampling] = []

    def __call__(self, question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        k = self.asked[so_far]
        self.asked[so_far] += 1
        self.samplings.append(sampling)
        said = self.tree[so_far][k]
        return said if isinstance(said, Draft) else Draft(said)

    @property
    def drawn_everything(self) -> bool:
        return self.asked == {path: len(said) for path, said in self.tree.items()}


def play(
    strategy: str,
    tree: Mapping[str, Sequence[str | Draft]],
    scores: Mapping[str, float | Sequence[float]] | None = None,
    answers: Answers | None = None,
    **parameters: Value,
) -> tuple[Result, RuleVerifier, Script]:
    """Search a scripted tree; the verifier knows the scores of exactly the paths given."""
    script = Script(tree)
    policy = ToyPolicy(script)
    judge = RuleVerifier(lambda question, solution: (scores or {})[solution])
    runner = Runner(policy, {"rule": judge}, answers=answers or BoxedAnswers())
    result = runner.solve(Q, strategies.bind(strategy, parameters))
    assert result.error is None, result.error
    assert script.drawn_everything, (script.asked, tree)
    assert result.usage.policy_calls == sum(map(len, tree.values()))
    assert result.usage.verifier_calls == len(judge.scored)
    assert result.usage.generated_tokens == policy.counters.generated_tokens
    return result, judge, script


# One completion


def test_greedy_takes_one_at_temperature_zero() -> None:
    result, judge, script = play("greedy", {"": [box(1)]})
    assert (result.text, result.answer, judge.scored) == (box(1), "1", [])
    assert [s.temperature for s in script.samplings] == [0]
    assert result.usage.generated_tokens == len(box(1)) + 1


def test_sample_takes_one_at_its_temperature() -> None:
    result, judge, script = play("sample", {"": [box(1)]}, temperature=1.25)
    assert (result.text, judge.scored) == (box(1), [])
    assert [s.temperature for s in script.samplings] == [1.25]


# Votes


def test_self_consistency_by_hand() -> None:
    texts: list[str | Draft] = [box(1, "first "), box(2), Draft(box(2, "sure "), -0.1), "no answer", box(2), box(1)]
    result, judge, _ = play("self_consistency", {"": texts}, n=6)
    assert result.text == box(2, "sure "), "two has three votes; its most confident text speaks for it"
    assert judge.scored == []
    assert [c.answer for c in result.candidates] == ["1", "2", "2", None, "2", "1"]
    assert result.usage.generated_tokens == sum(len(t.text if isinstance(t, Draft) else t) + 1 for t in texts)


def test_a_tied_vote_goes_to_the_more_confident_class() -> None:
    texts = [Draft(box(1), -0.4), Draft(box(2), -0.2), Draft(box(1), -0.4), Draft(box(2), -0.5)]
    assert play("self_consistency", {"": texts}, n=4)[0].answer == "2"


@pytest.mark.parametrize(
    ("answers", "drawn", "best"),
    [
        ("1111", 4, "1"),  # 1 - 2^-5 = 0.969
        ("11121111", 8, "1"),  # 3:1 is 0.8125, 7:1 is 0.980
        ("1212111111111111", 16, "1"),  # 6:2 is 0.910 at 8; the next look is at 16, not 12
        ("1212121233333333", 16, "3"),  # 2:2, then 4:4, then n is reached
        ("12341111", 8, "1"),  # 5:1 is 0.9375, but n is reached
    ],
)
def test_adaptive_consistency_stops_when_decided(answers: str, drawn: int, best: str) -> None:
    n = 8 if answers == "12341111" else 16
    result, _, _ = play("adaptive_consistency", {"": [box(a) for a in answers]}, n=n)
    assert (result.answer, len(result.candidates)) == (best, drawn)


def test_adaptive_consistency_is_no_more_certain_than_asked() -> None:
    eight = [box(a) for a in "11112111"]
    assert play("adaptive_consistency", {"": eight[:4]}, n=8, threshold=0.96)[0].usage.policy_calls == 4
    assert play("adaptive_consistency", {"": eight}, n=8, threshold=0.97)[0].usage.policy_calls == 8


@pytest.mark.parametrize("n", [1, 2, 3, 5, 12])
def test_adaptive_consistency_never_draws_more_than_n(n: int) -> None:
    texts = [box(i) for i in range(n)]
    assert play("adaptive_consistency", {"": texts}, n=n)[0].usage.policy_calls == n


# Verified samples


def test_best_of_n_by_hand() -> None:
    scores = {box(1): 0.2, box(2): 0.9, box(3): 0.4, box(1, "again "): 0.3}
    result, judge, _ = play("best_of_n", {"": list(scores)}, scores, n=4)
    assert (result.text, result.best and result.best.score and result.best.score.value) == (box(2), 0.9)
    assert judge.scored == list(scores), "every sample once, in the order drawn"


def test_weighted_best_of_n_by_hand() -> None:
    scores = {box(1): 0.9, box(2): 0.5, box(2, "better "): 0.6, box(3): 0.3}
    result, judge, _ = play("weighted_best_of_n", {"": list(scores)}, scores, n=4)
    assert result.text == box(2, "better "), "1.1 beats 0.9; the best-scored member speaks"
    assert judge.scored == list(scores)


def test_a_weighted_vote_is_not_overruled_by_the_plain_majority() -> None:
    scores = {box(1): 0.1, box(1, "b"): 0.1, box(1, "c"): 0.1, box(2): 0.9}
    result, _, _ = play("weighted_best_of_n", {"": list(scores)}, scores, n=4)
    assert (result.answer, result.text) == ("2", box(2))


# Trees


def test_beam_search_by_hand() -> None:
    tree = {
        "": ["a\n\n", "b\n\n", box(3, "c ") + "\n\n", box(0)],
        "a\n\n": [box(1), "d\n\n"],
        box(3, "c ") + "\n\n": [box(2), "\n\n"],
        "a\n\nd\n\n": [box(1), "far too long to be one step"],
    }
    c = box(3, "c ") + "\n\n"
    scores = {
        "a\n\n": 0.9, "b\n\n": 0.2, c: 0.6, box(0): 0.5,
        f"a\n\n{box(1)}": 0.35, "a\n\nd\n\n": 0.8, c + box(2): 0.65,
        f"a\n\nd\n\n{box(1)}": 0.4,
    }  # fmt: skip
    result, judge, _ = play("beam_search", tree, scores, n=4, width=2, step_tokens=len(c))
    assert result.usage.policy_calls == 4 + 4 + 2
    assert judge.scored == list(scores), "b is never continued, the white space and the truncated step never scored"
    # Ended: 0 (0.5), 1 (0.35), 2 (0.65), 3 (0.6, by a step of white space), 1 (0.4). The best four vote.
    assert (result.answer, result.text) == ("2", c + box(2))
    drawn = [*tree[""], *tree["a\n\n"], *tree[c], box(1), "x" * len(c)]
    assert result.usage.generated_tokens == sum(map(len, drawn)) + 4, "four answers ended with a token of their own"


def test_dvts_by_hand() -> None:
    tree = {
        "": ["a\n\n", "b\n\n", "c\n\n", "d\n\n"],
        "b\n\n": [box(1), box(2)],
        "c\n\n": ["e\n\n", box(2)],
        "c\n\ne\n\n": [box(2), box(1, "f ") + "\n\n"],
    }
    scores = {
        "a\n\n": 0.9, "b\n\n": 0.95, "c\n\n": 0.3, "d\n\n": 0.1,
        f"b\n\n{box(1)}": 0.7, f"b\n\n{box(2)}": 0.3, "c\n\ne\n\n": 0.5, f"c\n\n{box(2)}": 0.4,
        f"c\n\ne\n\n{box(2)}": 0.45, "c\n\ne\n\n" + box(1, "f ") + "\n\n": 0.2,
    }  # fmt: skip
    result, judge, _ = play("dvts", tree, scores, n=4, width=2)
    assert result.usage.policy_calls == 4 + 4 + 2
    assert sorted(judge.scored) == sorted(scores), (
        "c is continued though a scored higher: subtrees never exchange nodes"
    )
    # Voters: 1 (0.7) and 2 (0.3) of the first subtree, 2 (0.45) of the second; siblings in mid-thought are no voters.
    assert (result.answer, result.text) == ("2", f"c\n\ne\n\n{box(2)}")


def test_a_subtree_of_dvts_ends_at_a_step_better_than_what_goes_on_from_it() -> None:
    step, more = box(5) + "\n\n", box(9, "Wait, no. ")
    tree = {"": [step, "b\n\n"], step: ["", more]}
    for score, answer in ((0.1, "5"), (0.95, "9")):
        result, judge, _ = play("dvts", tree, {step: 0.9, "b\n\n": 0.2, step + more: score}, n=2, width=2)
        assert (result.answer, judge.scored) == (answer, [step, "b\n\n", step + more])
    # Where a thought that goes on is better, the subtree follows it, and the step that ended has no vote.
    tree, scores = (
        {"": [step, "b\n\n"], step: ["", "c\n\n"], f"{step}c\n\n": [box(7), box(8)]},
        {step: 0.6, "b\n\n": 0.2},
    )
    later = {f"{step}c\n\n": 0.7, f"{step}c\n\n{box(7)}": 0.3, f"{step}c\n\n{box(8)}": 0.1}
    assert play("dvts", tree, {**scores, **later}, n=2, width=2)[0].answer == "7"


@pytest.mark.parametrize("name", TREE)
def test_the_last_round_runs_to_the_end(name: str) -> None:
    tree = {"": ["a\n\n", "b\n\n"], "b\n\n": [f"c\n\n{box(1)}", f"d\n\n{box(2)}"]}
    scores = {"a\n\n": 0.1, "b\n\n": 0.2, f"b\n\nc\n\n{box(1)}": 0.3, f"b\n\nd\n\n{box(2)}": 0.4}
    result, _, script = play(name, tree, scores, n=2, width=2, max_steps=2, step_tokens=9)
    assert result.answer == "2"
    assert [(s.stop, s.max_tokens) for s in script.samplings] == [(("\n\n",), 9)] * 2 + [((), 1024)] * 2


@pytest.mark.parametrize("name", TREE)
def test_a_stop_string_of_the_run_ends_an_answer_in_the_last_round(name: str) -> None:
    scores = {box(1) + "###": (0.2, 0.9), box(2) + "###": (0.8, 0.7)}
    runner = Runner(
        ToyPolicy(Script({"": list(scores)})),
        {"rule": RuleVerifier(lambda question, solution: scores[solution])},
        answers=BoxedAnswers(),
        sampling=Sampling(stop=("###",)),
    )
    assert (
        runner.solve(Q, strategies.bind(name, {"n": 2, "width": 2, "max_steps": 1, "aggregation": "min"})).answer == "2"
    )


# Cost


@pytest.mark.parametrize("n", [1, 4, 8, 12])
@pytest.mark.parametrize("name", EVERY)
def test_the_cost_formula_of_the_docstring(name: str, n: int) -> None:
    depth = 3

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        # Every path is `depth` steps long and no two answers agree, so nothing stops early.
        return Draft(f"{rng.random()}\n\n" if so_far.count("\n\n") < depth - 1 else box(rng.random()))

    runner = Runner(ToyPolicy(write), {"rule": RuleVerifier(lambda q, s: 0.5)}, answers=BoxedAnswers())
    result = runner.solve(Q, strategies.bind(name, setting(name, n, min(4, n))))
    expected = {
        "greedy": (1, 0),
        "sample": (1, 0),
        "self_consistency": (n, 0),
        "adaptive_consistency": (n, 0),
        "best_of_n": (n, n),
        "weighted_best_of_n": (n, n),
        "beam_search": (n * depth, n * depth),
        "dvts": (n * depth, n * depth),
    }
    assert (result.usage.policy_calls, result.usage.verifier_calls) == expected[name]


# Equivalences


def right_sums(question: str, solution: str) -> list[float]:
    """One value per step: 1 for a right sum, 0 for a wrong one."""
    sums = re.findall(r"(\d+) \+ (\d+) = (\d+)", solution)
    values = [float(int(a) + int(b) == int(c)) for a, b, c in sums]
    return [min(values[: i + 1]) for i in range(len(values))] or [0.5]


def problems(count: int) -> list[Problem]:
    return [Problem(f"p{i}", f"Add {i} and {i * i % 17} and {3 * i} and 4.") for i in range(count)]


def run(
    strategy: str | Strategy,
    rule: Callable[[str, str], float | Sequence[float]] = right_sums,
    count: int = 20,
    slots: int = 32,
    in_flight: int = 64,
    seed: int = 0,
    write: Callable[[str, str, random.Random, Sampling], Draft] | None = None,
    **parameters: Value,
) -> dict[str, Result]:
    bound = strategies.bind(strategy, parameters) if isinstance(strategy, str) else strategy
    policy = ToyPolicy(slots=slots) if write is None else ToyPolicy(write, slots=slots)
    runner = Runner(policy, {"rule": RuleVerifier(rule)}, answers=BoxedAnswers(), seed=seed)
    results = {r.problem.id: r for r in runner.run(problems(count), bound, in_flight=in_flight)}
    assert not any(r.error for r in results.values())
    return results


def told(results: Mapping[str, Result]) -> dict[str, tuple[str, str | None, int, int, int]]:
    return {
        id: (r.text, r.answer, r.usage.policy_calls, r.usage.verifier_calls, r.usage.generated_tokens)
        for id, r in results.items()
    }


def chosen(results: Mapping[str, Result]) -> dict[str, tuple[str, str | None]]:
    return {id: (r.text, r.answer) for id, r in results.items()}


def test_one_sample_is_one_sample_whatever_chooses() -> None:
    one = chosen(run("sample"))
    for name in ("self_consistency", "adaptive_consistency", "best_of_n", "weighted_best_of_n"):
        assert chosen(run(name, n=1)) == one, name


def test_a_beam_as_wide_as_n_is_stepwise_best_of_n() -> None:
    async def stepwise(search: Search) -> Node | None:
        node, ended = search.root, list[Node]()
        while True:
            children = await search.score(await search.extend([node], 4, temperature=0.8))
            ended += [child for child in children if child.complete]
            going = [child for child in children if not child.complete]
            if not going:
                return weighted_vote(await search.classes(top(ended, 4)))
            node = top(going, 1)[0]

    assert told(run("beam_search", n=4, width=4)) == told(run(stepwise))


def test_a_beam_of_width_one_is_independent_chains() -> None:
    async def chains(search: Search) -> Node | None:
        ended = []
        for node in await search.extend([search.root], 4, temperature=0.8):
            [node] = await search.score([node])
            while not node.complete:
                [node] = await search.score(await search.extend([node], 1, temperature=0.8))
            ended.append(node)
        return weighted_vote(await search.classes(ended))

    assert told(run("beam_search", n=4, width=1)) == told(run(chains))


def fixed_depth(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
    """Three steps of a digit each; the third states the sum. Depends on the path and the draw alone."""
    digits = [int(line) for line in so_far.split()]
    digit = rng.randrange(10)
    return Draft(f"{digit}\n\n" if len(digits) < 2 else box(sum(digits) + digit))


def by_hash(question: str, solution: str) -> float:
    return int(digest(question, solution)[:8], 16) / 16**8


class Counting:
    """Says "0", "1", "2", ... at each path of a problem, whoever asks: the draws of two strategies are the same."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()

    def __call__(self, question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        k = self.asked[question, so_far]
        self.asked[question, so_far] += 1
        depth = so_far.count("\n\n")
        return Draft(f"{k}\n\n" if depth < 3 else box(k % 3))


def test_dvts_with_one_subtree_is_a_greedy_beam() -> None:
    for width in (2, 4):
        beam = run("beam_search", by_hash, write=Counting(), n=width, width=width)
        tree = run("dvts", by_hash, write=Counting(), n=width, width=width)
        assert told(beam) == told(tree)


def test_weighted_vote_with_equal_scores_is_self_consistency() -> None:
    vote = run("self_consistency", n=8)
    weighted = run("weighted_best_of_n", lambda q, s: 0.5, n=8)
    assert chosen(vote) == chosen(weighted)
    assert {r.usage.verifier_calls for r in weighted.values()} == {8}


@pytest.mark.parametrize("n", [1, 4, 7, 16])
def test_adaptive_consistency_that_is_never_sure_is_self_consistency(n: int) -> None:
    never = run("adaptive_consistency", n=n, threshold=1)
    assert told(never) == told(run("self_consistency", n=n))
    for id, result in run("self_consistency", n=n).items():
        assert [c.node.key for c in result.candidates] == [c.node.key for c in never[id].candidates], "same samples"


def total(question: str) -> str:
    return str(sum(map(int, re.findall(r"\d+", question))))


@pytest.mark.parametrize("name", FLAT)
def test_with_an_oracle_selection_reaches_coverage(name: str) -> None:
    def oracle(question: str, solution: str) -> float:
        return float(solution.endswith(box(total(question)) + "."))

    results = run(name, oracle, count=40, n=4)
    solved = {id for id, r in results.items() if r.answer == total(r.problem.prompt)}
    covered = {id for id, r in results.items() if any(c.answer == total(r.problem.prompt) for c in r.candidates)}
    assert solved == covered
    assert 20 < len(covered) <= 40, "neither trivial nor hopeless"


# Invariances


@pytest.mark.parametrize("name", EVERY)
def test_company_and_slots_change_nothing(name: str) -> None:
    parameters = setting(name, 4, 2)
    alone = told(run(name, count=12, in_flight=1, slots=1, **parameters))
    for in_flight, slots in ((1, 32), (4, 3), (64, 1), (64, 32)):
        assert told(run(name, count=12, in_flight=in_flight, slots=slots, **parameters)) == alone
    if name != "greedy":
        assert told(run(name, count=12, seed=1, **parameters)) != alone, "the seed does nothing"


@pytest.mark.parametrize("name", ["self_consistency", "best_of_n", "weighted_best_of_n"])
def test_the_order_samples_are_drawn_in_does_not_choose(name: str) -> None:
    scores = {box(a, b): 0.1 * i for i, (a, b) in enumerate(zip("1223331", "aababcb", strict=True), 1)}
    rng = random.Random(2)
    texts: list[str | Draft] = [Draft(text, -score) for text, score in scores.items()]
    found = set()
    for _ in range(100):
        rng.shuffle(texts)
        found.add(play(name, {"": texts}, scores, n=7)[0].text)
    assert len(found) == 1


@pytest.mark.parametrize("name", EVERY)
def test_a_problem_is_searched_alike_after_others(name: str) -> None:
    """Nothing a search changes, such as a temperature, outlives it."""
    samplings: list[tuple[str, Sampling]] = []

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        samplings.append((question, sampling))
        return fixed_depth(question, so_far, rng, sampling)

    runner = Runner(ToyPolicy(write), {"rule": RuleVerifier(by_hash)}, answers=BoxedAnswers())
    strategy = strategies.bind(name)
    first, *_, last = [runner.solve(problem, strategy) for problem in (Q, *problems(4), Q)]
    assert told({"q": first}) == told({"q": last})
    mine = [sampling for question, sampling in samplings if question == Q.prompt]
    assert mine[: len(mine) // 2] == mine[len(mine) // 2 :]
    assert len({sampling.temperature for _, sampling in samplings}) == 1


# Known bugs of other implementations, each of which would fail here


@pytest.mark.parametrize("name", ["self_consistency", "adaptive_consistency", "best_of_n", "weighted_best_of_n"])
def test_truncated_samples_neither_vote_nor_win(name: str) -> None:
    long = box(9) + " and so on and on and on"
    scores = {box(1): 0.1, long: 1.0}
    script = Script({"": [long, box(1), long, long]})
    judge = RuleVerifier(lambda question, solution: scores[solution])
    runner = Runner(ToyPolicy(script), {"rule": judge}, answers=BoxedAnswers(), sampling=Sampling(max_tokens=20))
    result = runner.solve(Q, strategies.bind(name, {"n": 4}))
    assert result.text == box(1)
    assert [c.answer_class for c in result.candidates] == [None, 0, None, None], "shown, not counted"
    assert judge.scored in ([], [box(1)])


@pytest.mark.parametrize("name", TREE)
def test_a_truncated_step_is_neither_continued_nor_taken_for_the_end(name: str) -> None:
    tree = {
        "": [box(9) + " never ends", "a\n\n"],
        "a\n\n": [box(8) + " never ends", box(1)],
    }
    scores = {"a\n\n": 0.5, f"a\n\n{box(1)}": 0.1}
    result, judge, _ = play(name, tree, scores, n=2, width=2, step_tokens=12)
    assert result.answer == "1"
    assert judge.scored == list(scores)


@pytest.mark.parametrize("name", TREE)
def test_a_thought_whose_steps_were_all_truncated_is_no_solution(name: str) -> None:
    half = box(9) + "\n\n"
    tree = {"": [half, box(1)], half: ["never ends " * 3] * 2}
    scores = {half: 0.9, box(1): 0.1}
    assert play(name, tree, scores, n=2, width=2, step_tokens=12)[0].best is not None
    if name == "dvts":  # the sibling that ended first stands for nothing in a subtree that went another way
        tree = {"": [half, "b\n\n", "c\n\n", "d\n\n"], half: ["never ends " * 3] * 2, "c\n\n": [box(1), box(2)]}
        scores = {half: 0.9, "b\n\n": 0.1, "c\n\n": 0.2, "d\n\n": 0.1, f"c\n\n{box(1)}": 0.2, f"c\n\n{box(2)}": 0.1}
        assert play(name, tree, scores, n=4, width=2, step_tokens=12)[0].answer == "1"


@pytest.mark.parametrize("name", TREE)
def test_a_step_of_white_space_ends_the_beam_where_it_stood(name: str) -> None:
    step = box(5) + "\n\n"
    tree = {"": [step, "b\n\n"], step: ["\n\n", " \n\n"]}
    result, judge, _ = play(name, tree, {step: 0.7, "b\n\n": 0.2}, n=2, width=2)
    assert (result.answer, result.text) == ("5", step)
    assert judge.scored == [step, "b\n\n"], "nothing is scored for an empty step"


@pytest.mark.parametrize("name", TREE)
def test_the_model_ending_right_after_a_step_ends_the_beam(name: str) -> None:
    step = box(5) + "\n\n"
    tree = {"": [step, "b\n\n"], step: ["", ""]}
    result, judge, _ = play(name, tree, {step: 0.7, "b\n\n": 0.2}, n=2, width=2)
    assert (result.answer, judge.scored) == ("5", [step, "b\n\n"])


def test_a_beam_that_ended_and_went_on_is_still_a_candidate() -> None:
    step = box(5) + "\n\n"
    tree = {"": [step, "b\n\n"], step: ["\n\n", box(6)]}
    scores = {step: 0.7, "b\n\n": 0.2, step + box(6): 0.1}
    result, _, _ = play("beam_search", tree, scores, n=2, width=2)
    assert result.answer == "5"
    assert result.best is not None
    assert result.best.key in {c.node.key for c in result.candidates}, "the best is one of the candidates"


def test_beams_that_ended_are_not_repeated_to_make_up_n() -> None:
    scores = {box(1): 0.5, box(2): 0.3, box(2, "b "): 0.3, "a\n\n": 0.9}
    tree = {"": list(scores), "a\n\n": ["never ever ends"] * 4}
    result, _, _ = play("beam_search", tree, scores, n=4, width=4, step_tokens=13)
    assert result.answer == "2", "0.6 beats 0.5, unless the best beam is counted twice"
    assert len({c.node.key for c in result.candidates}) == len(result.candidates)


def test_the_n_best_ended_beams_vote_not_the_n_first() -> None:
    tree = {
        "": [box(1), "a\n\n"],
        "a\n\n": [box(1), "b\n\n"],
        "a\n\nb\n\n": [box(2), box(3)],
    }
    ab = "a\n\nb\n\n"
    scores = {
        box(1): 0.1, "a\n\n": 0.9, f"a\n\n{box(1)}": 0.2, ab: 0.95, ab + box(2): 0.25, ab + box(3): 0.24,
    }  # fmt: skip
    result, _, _ = play("beam_search", tree, scores, n=2, width=2)
    assert result.answer == "2", "the first two would say 1 with 0.3, and so would all four"


def test_unique_drops_exact_duplicates() -> None:
    tree = {"": ["a\n\n", "a\n\n", "b\n\n", box(7)], "a\n\n": [box(1), box(1)], "b\n\n": [box(2), box(3)]}
    scores = {
        "a\n\n": 0.9,
        "b\n\n": 0.5,
        box(7): 0.1,
        f"a\n\n{box(1)}": 0.4,
        f"b\n\n{box(2)}": 0.45,
        f"b\n\n{box(3)}": 0.4,
    }
    result, _, _ = play("beam_search", tree, scores, n=4, width=2, unique=True)
    assert result.answer == "2", "one counts once: 0.4"
    doubled = {**tree, "a\n\n": [box(1)] * 4}
    del doubled["b\n\n"]
    result, _, _ = play("beam_search", doubled, scores, n=4, width=2)
    assert result.answer == "1", "without it both copies survive, and all their children vote"


@pytest.mark.parametrize("name", SCORING)
def test_the_aggregation_is_used(name: str) -> None:
    scores = {box(1): (0.2, 0.9), box(2): (0.8, 0.7)}
    tree = {"": [box(1), box(2)]}
    answers = {
        how: play(name, tree, scores, **setting(name, 2, 1), aggregation=how)[0].answer
        for how in ("last", "min", "prod")
    }
    assert answers == {"last": "1", "min": "2", "prod": "2"}


@pytest.mark.parametrize("name", TREE)
def test_the_aggregation_chooses_what_to_continue(name: str) -> None:
    scores = {"a\n\n": (0.2, 0.9), "b\n\n": (0.8, 0.7)}
    for how, kept in (("last", "a\n\n"), ("min", "b\n\n")):
        leaf = {kept + box(1): 0.5}
        tree = {"": ["a\n\n", "b\n\n"], kept: [box(1)] * 2}
        assert play(name, tree, {**scores, **leaf}, n=2, width=2, aggregation=how)[0].text == kept + box(1)


@pytest.mark.parametrize("name", SCORING)
def test_ties_are_broken_alike_every_time(name: str) -> None:
    seen = [told(run(name, lambda q, s: 0.5, slots=slots, **setting(name, 4, 2))) for slots in (1, 5, 32)]
    assert seen[0] == seen[1] == seen[2]


def test_a_tie_goes_to_the_first_drawn() -> None:
    texts = {box(i): 0.5 for i in (3, 1, 2)}
    assert play("best_of_n", {"": list(texts)}, texts, n=3)[0].answer == "3"
    assert play("weighted_best_of_n", {"": list(texts)}, texts, n=3)[0].answer == "3"
    assert play("self_consistency", {"": list(texts)}, n=3)[0].answer == "3"


class Halves(BoxedAnswers):
    """Knows that 1/2 is 0.5."""

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        return super().classes([a and a.replace("1/2", "0.5") for a in answers], problem)


@pytest.mark.parametrize("name", [n for n in EVERY if n not in ("greedy", "sample", "best_of_n")])
def test_votes_are_counted_by_equal_answers_not_equal_strings(name: str) -> None:
    scores = {box("1/2"): 0.4, box(3): 0.5, box("0.5"): 0.4, box(3, "b") + box(4): 0.1}
    result, _, _ = play(name, {"": list(scores)}, scores, Halves(), **setting(name, 4, 1))
    assert result.answer in ("1/2", "0.5")


@pytest.mark.parametrize("name", EVERY)
def test_a_failing_policy_is_an_error_not_an_answer(name: str) -> None:
    policy = ToyPolicy(fault=lambda request: "the server is on fire")
    result = Runner(policy, {"rule": RuleVerifier(by_hash)}, answers=BoxedAnswers()).solve(Q, strategies.bind(name))
    assert (result.answer, result.best, result.text) == (None, None, "")
    assert result.error == "the server is on fire"


@pytest.mark.parametrize("name", SCORING)
def test_nothing_complete_means_no_answer(name: str) -> None:
    policy = ToyPolicy(lambda *asked: Draft("never ends" * 10))
    runner = Runner(policy, {"rule": RuleVerifier(by_hash)}, answers=BoxedAnswers(), sampling=Sampling(max_tokens=20))
    result = runner.solve(Q, strategies.bind(name, {"n": 4, "step_tokens": 20} if name in TREE else {"n": 4}))
    assert (result.best, result.answer, result.error) == (None, None, None)
    assert all(c.node.finish is Finish.LENGTH for c in result.candidates)


# Reading the scores pays


def cotts(strategy: str, pairs: Sequence[Sequence[Mapping[str, object]]], verifier: Verifier) -> int:
    """Questions of the recorded pool answered right."""
    samples = {str(pair[0]["q"]): [text(row, i) for i, row in enumerate(pair)] for pair in pairs}
    runner = Runner(Replay(samples), {"recorded": verifier}, answers=NormalAnswers())
    asked = [Problem(f"p{q}", q) for q in samples]
    right = {text(row, i) for pair in pairs for i, row in enumerate(pair) if row["correct"]}
    return sum(r.text in right for r in runner.run(asked, strategies.bind(strategy, {"n": 2}), in_flight=500))


def text(row: Mapping[str, object], i: int) -> str:
    return f"question {row['q']}, sample {i}: \\boxed{{{row['extracted_answer']}}}"


@pytest.mark.parametrize("name", FLAT)
def test_recorded_scores_beat_shuffled_ones(name: str) -> None:
    """Control: the scores of a question's own two samples, dealt to them by chance.

    That keeps every question's scores and samples and removes only which belongs to which, so the difference is what
    the strategy gains by reading. Where both samples are right, or both wrong, dealing changes nothing: the difference
    comes from the 119 other questions, and only those are searched here. Chance solves half of them, 59.5, with a
    standard deviation of 5.5.
    """
    by_question: dict[int, list[Mapping[str, object]]] = {}
    for row in load("pools/cotts_qwen2.5-1.5b_bon_math-shepherd"):
        by_question.setdefault(row["q"], []).append(row)
    pairs = [pair for pair in by_question.values() if pair[0]["correct"] != pair[1]["correct"]]
    assert len(pairs) == 119

    def judged(deal: Callable[[], bool]) -> int:
        steps: dict[str, Sequence[float]] = {}
        for pair in pairs:
            scores: list[Sequence[float]] = [row["value"] for row in pair]  # type: ignore[misc]
            if deal():
                scores.reverse()
            steps |= {text(row, i): score for i, (row, score) in enumerate(zip(pair, scores, strict=True))}
        return cotts(name, pairs, Recorded(steps))

    rng = random.Random(0)
    control = [judged(lambda: rng.random() < 0.5) for _ in range(30)]
    real = judged(lambda: False)
    assert real - sum(control) / len(control) > 3 * 5.5
    assert real > max(control)
    if name == "best_of_n":
        assert real + 188 == 275, "55.0 % of 500, as published: 188 have two right samples"


@pytest.mark.parametrize("name", TREE)
def test_right_sums_beat_random_scores(name: str) -> None:
    """Control: a score drawn per path, with the same values but blind to what the path says."""

    def random_scores(seed: int) -> Callable[[str, str], float]:
        return lambda question, solution: random.Random(digest(seed, question, solution)).random()

    def right(rule: Callable[[str, str], float | Sequence[float]]) -> list[bool]:
        results = run(name, rule, count=60, n=4, width=2)
        return [r.answer == total(r.problem.prompt) for r in results.values()]

    real = right(right_sums)
    controls = [right(random_scores(seed)) for seed in range(4)]
    assert sum(real) > max(map(sum, controls))
    differences = [a - sum(c[i] for c in controls) / len(controls) for i, a in enumerate(real)]
    rng = random.Random(0)
    resampled = sorted(sum(rng.choices(differences, k=60)) / 60 for _ in range(400))
    assert resampled[4] > 0.1, "lower end of a 98 % paired bootstrap interval"


# Golden traces


@pytest.mark.parametrize("name", EVERY)
def test_the_trace_is_the_golden_one(name: str) -> None:
    """If the change is wanted: `python scripts/make_golden.py`, and read the diff."""
    script = runpy.run_path(str(ROOT / "scripts" / "make_golden.py"))
    assert script["search"](name).splitlines() == (script["GOLDEN"] / f"{name}.jsonl").read_text("utf-8").splitlines()


def test_the_example_of_an_own_strategy_keeps_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    example = runpy.run_path(str(ROOT / "examples" / "write_your_own_strategy.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert "(4 samples, done)" in printed and "(8 samples, done)" in printed, "agreeing at once, and not"
    check_strategy(example["second_opinion"], verifier=RuleVerifier(example["right_sums"]))


# The contract, and the registry


@pytest.mark.parametrize("name", EVERY)
def test_the_contract(name: str) -> None:
    check_strategy(strategies.bind(name, setting(name, 4, 2)))


def test_every_strategy_is_here() -> None:
    assert strategies.names()[: len(EVERY)] == EVERY


@pytest.mark.parametrize("name", EVERY)
def test_a_strategy_describes_itself(name: str) -> None:
    said = strategies.describe(name)
    assert said.name == name
    assert said.summary.endswith(".") and len(said.summary) < 120
    assert re.match(r"(1 completion|n completions|between|at most n)", said.cost), said.cost
    assert name in ("greedy", "sample") or re.search(r"\d{4}", said.source), said.source
    names = [p.name for p in said.parameters]
    assert ("n" in names) == (name not in ("greedy", "sample"))
    assert ("width" in names and "max_steps" in names) == (name in TREE)
    assert ("aggregation" in names) == (name in SCORING)
    assert ("temperature" in names) == (name != "greedy")
    for parameter in said.parameters:
        strategies.bind(name, {parameter.name: parameter.default})
        strategies.bind(name, {parameter.name: str(parameter.default)})


MISTAKES: list[tuple[str, Mapping[str, Value], str]] = [
    ("beam_serch", {}, "did you mean 'beam_search'"),
    ("beam_search", {"widht": 4}, "unknown parameter of beam_search 'widht'; did you mean 'width'"),
    ("greedy", {"n": 4}, "unknown parameter of greedy 'n'"),
    ("best_of_n", {"n": 0}, "n=0 is not allowed: a whole number from 1 to 4096"),
    ("best_of_n", {"n": "many"}, "n='many' is not allowed: a whole number"),
    ("best_of_n", {"n": 2.5}, "n=2.5 is not allowed"),
    ("best_of_n", {"n": float("inf")}, "n=inf is not allowed"),
    ("best_of_n", {"n": None}, "n=None is not allowed"),  # type: ignore[dict-item]
    ("best_of_n", {"aggregation": "max"}, "aggregation='max' is not allowed: last, min, prod, mean"),
    ("sample", {"temperature": 0}, "temperature=0 is not allowed: a number from 0.01 to 5"),
    ("sample", {"temperature": "nan"}, "temperature='nan' is not allowed"),
    ("adaptive_consistency", {"threshold": 0.4}, "threshold=0.4 is not allowed: a number from 0.5 to 1"),
    ("beam_search", {"unique": "maybe"}, "unique='maybe' is not allowed: true or false"),
    ("beam_search", {"n": 16, "width": 3}, "n=16 is not a multiple of width=3"),
    ("dvts", {"n": 2, "width": 4}, "n=2 is not a multiple of width=4"),
]


@pytest.mark.parametrize(("name", "parameters", "message"), MISTAKES)
def test_mistakes_get_one_clear_line(name: str, parameters: Mapping[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        strategies.bind(name, parameters)
    assert "\n" not in str(caught.value)


def test_parameters_may_come_as_strings() -> None:
    bound = strategies.bind("beam_search", {"n": "8", "width": "2", "unique": "true", "temperature": "0.5"})
    assert bound.keywords | {"n": 8, "width": 2, "unique": True, "temperature": 0.5} == bound.keywords  # type: ignore[attr-defined]


def test_budgets_reach_every_strategy() -> None:
    for name in EVERY:
        runner = Runner(ToyPolicy(), {"rule": RuleVerifier(right_sums)}, answers=BoxedAnswers())
        result = runner.solve(problems(4)[3], strategies.bind(name), Budget(tokens=150))
        assert result.error is None and result.usage.generated_tokens <= 150
