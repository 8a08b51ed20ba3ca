"""Where steps end, for every strategy that goes step by step; in each tree one path alone is worth going on with."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from flyweight import strategies
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Budget, Finish, Sampling, Stopped
from tests.test_strategies import Q, Script, box, play

SETTINGS: Mapping[str, dict[str, Any]] = {
    "beam_search": {"n": 2, "width": 2},
    "lookahead_search": {"n": 2, "width": 2, "k": 0},
    "rebase": {"n": 2, "balance": 0.01},
    "particle_filter": {"n": 2, "ess": 1},
    "particle_gibbs": {"n": 2, "ess": 1, "iterations": 1},
    "mcts": {"n": 1, "branch": 2},
}
"""All of them draw two steps at the root, and two more after the one that is worth it."""
every = pytest.mark.parametrize("name", list(SETTINGS))
WORTH, NOT = 1.0, 0.0


@every
def test_a_truncated_step_is_neither_continued_nor_taken_for_the_end(name: str) -> None:
    tree = {"": [box(9) + " never ends", "a\n\n"], "a\n\n": [box(8) + " never ends", box(1)]}
    scores = {"a\n\n": 0.5, f"a\n\n{box(1)}": 0.1}
    result, judge, _ = play(name, tree, scores, **SETTINGS[name], step_tokens=12)
    assert (result.answer, judge.scored) == ("1", list(scores))


@every
def test_nothing_complete_means_no_answer(name: str) -> None:
    policy = ToyPolicy(lambda *asked: Draft("never ends" * 10))
    runner = Runner(policy, {"rule": RuleVerifier(lambda q, s: 0.5)}, answers=BoxedAnswers())
    result = runner.solve(Q, strategies.bind(name, {**SETTINGS[name], "step_tokens": 20}))
    assert (result.best, result.answer, result.error) == (None, None, None)
    assert all(candidate.node.finish is Finish.LENGTH for candidate in result.candidates)


@every
@pytest.mark.parametrize("empty", [["\n\n", " \n\n"], ["", ""], ["", "\n\n"]])
def test_an_empty_step_ends_the_answer_where_it_stood(name: str, empty: list[str]) -> None:
    step = box(5) + "\n\n"
    result, judge, _ = play(name, {"": [step, "b\n\n"], step: empty}, {step: WORTH, "b\n\n": NOT}, **SETTINGS[name])
    assert (result.answer, result.text.strip()) == ("5", box(5))
    assert result.best is not None and result.best.score is not None and result.best.score.value == WORTH
    assert judge.scored == [step, "b\n\n"], "nothing is scored for an empty step"


@every
def test_the_last_round_runs_to_the_end(name: str) -> None:
    tree = {"": ["a\n\n", "b\n\n"], "b\n\n": [f"c\n\n{box(1)}", f"d\n\n{box(2)}"]}
    scores = {"a\n\n": NOT, "b\n\n": WORTH, f"b\n\nc\n\n{box(1)}": 0.3, f"b\n\nd\n\n{box(2)}": 0.4}
    result, _, script = play(name, tree, scores, **SETTINGS[name], max_steps=2, step_tokens=9)
    assert result.answer == "2"
    assert [(s.stop, s.max_tokens) for s in script.samplings] == [(("\n\n",), 9)] * 2 + [((), 1024)] * 2


@every
def test_a_stop_string_of_the_run_ends_an_answer_in_the_last_round(name: str) -> None:
    scores = {box(1) + "###": (0.2, 0.9), box(2) + "###": (0.8, 0.7)}
    runner = Runner(
        ToyPolicy(Script({"": list(scores)})),
        {"rule": RuleVerifier(lambda question, solution: scores[solution])},
        answers=BoxedAnswers(),
        sampling=Sampling(stop=("###",)),
    )
    settings = {**SETTINGS[name], "max_steps": 1, "aggregation": "min"}
    assert runner.solve(Q, strategies.bind(name, settings)).answer == "2"


@every
def test_the_aggregation_chooses_what_to_go_on_with(name: str) -> None:
    scores = {"a\n\n": (NOT, WORTH), "b\n\n": (0.5, 0.5)}
    for how, kept in (("last", "a\n\n"), ("min", "b\n\n")):
        tree = {"": ["a\n\n", "b\n\n"], kept: [box(1)] * 2}
        assert play(name, tree, {**scores, kept + box(1): 0.5}, **SETTINGS[name], aggregation=how)[0].answer == "1"


@every
def test_the_aggregation_chooses_the_answer(name: str) -> None:
    tree, scores = {"": [box(1), box(2)]}, {box(1): (0.2, 0.9), box(2): (0.8, 0.7)}
    answers = {how: play(name, tree, scores, **SETTINGS[name], aggregation=how)[0].answer for how in ("last", "min")}
    assert answers == {"last": "1", "min": "2"}


TREES = ["beam_search", "dvts", "lookahead_search", "rebase", "particle_filter", "mcts"]


def fours(name: str) -> dict[str, Any]:
    """Four draws at a time, and then four more after the best of them."""
    known = {parameter.name for parameter in strategies.describe(name).parameters}
    settings = {"n": 4, "width": 4, "branch": 4, "k": 0, "max_steps": 3, "balance": 0.01, "ess": 1.0}
    return {key: value for key, value in settings.items() if key in known}


@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("budget", [None, Budget(confidence=0.8)])
def test_a_step_that_ended_votes_once_however_often_it_ended(name: str, budget: Budget | None) -> None:
    """Only the first of four steps is worth anything; whoever goes on from it adds nothing."""

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        written.append(so_far)
        if so_far.startswith(box(5)):
            return Draft("")
        return Draft((box(5) if len(written) == 1 else "b") + "\n\n")

    written: list[str] = []
    judge = RuleVerifier(lambda question, solution: 1.0 if solution.startswith(box(5)) else 0.0)
    runner = Runner(ToyPolicy(write), {"rule": judge}, answers=BoxedAnswers())
    result = runner.solve(Q, strategies.bind(name, fours(name)), budget)
    assert result.error is None and result.answer == "5" and result.stopped is Stopped.DONE
    voters = [candidate.node for candidate in result.candidates if candidate.answer == "5"]
    assert [(node.text, node.score and node.score.value) for node in voters] == [(box(5) + "\n\n", 1.0)]
    assert (result.confidence, result.sure) == (None, budget is None), "one voter leads nobody"


@pytest.mark.parametrize("name", ["beam_search", "dvts", "lookahead_search", "rebase"])
def test_a_step_that_ended_and_what_went_on_from_it_have_a_vote_each(name: str) -> None:
    """Whichever of the two is chosen."""

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        drawn[so_far] += 1
        if not so_far:
            return Draft(box(5) + "\n\n" if drawn[so_far] == 1 else "b\n\n")
        return Draft(box(9) if so_far.startswith(box(5)) and drawn[so_far] % 4 == 0 else "")

    for better, chosen in ((0.1, "5"), (1.0, "9")):
        drawn: Counter[str] = Counter()

        def rule(question: str, solution: str, better: float = better) -> float:
            return better if "9" in solution else 0.9 if solution.startswith(box(5)) else 0.0

        runner = Runner(ToyPolicy(write), {"rule": RuleVerifier(rule)}, answers=BoxedAnswers())
        result = runner.solve(Q, strategies.bind(name, fours(name)))
        said = [(c.answer, c.node.score and c.node.score.value) for c in result.candidates if c.answer is not None]
        assert (result.answer, sorted(said), result.confidence) == (chosen, [("5", 0.9), ("9", better)], 0.5)


def test_a_search_cut_short_chooses_by_the_aggregation_too() -> None:
    scores = {box(1): (0.05, 0.9), box(2): (0.5, 0.5), "a\n\n": (0.4, 0.4), "b\n\n": (0.4, 0.4)}
    for how, answer in (("last", "1"), ("min", "2")):
        script = Script({"": list(scores), "a\n\n": ["c"] * 2, "b\n\n": ["d"] * 2})
        judge = RuleVerifier(lambda question, solution: scores[solution])
        runner = Runner(ToyPolicy(script), {"rule": judge}, answers=BoxedAnswers(), sampling=Sampling(max_tokens=20))
        strategy = strategies.bind("beam_search", {"n": 4, "width": 2, "aggregation": how})
        first_round = sum(map(len, scores)) + 2
        result = runner.solve(Q, strategy, Budget(tokens=first_round))
        assert (result.answer, result.stopped) == (answer, Stopped.BUDGET)
