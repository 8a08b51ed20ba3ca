"""Code agreement by hand: programs and tests back each other, inputs tell the leading clusters apart."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from flyweight.answers.behaviour import Behaviour
from flyweight.testing import Draft
from flyweight.types import Budget, Problem, Sampling, Stopped
from tests.strategies.kit import InTurn, Played, box, play

DOUBLE = Problem("double", "Write double(x), which returns 2 x.", answer="assert double(41) == 82")
BODIES = {"right": "x + x", "too": "2 * x", "square": "x * x", "six": "6", "broken": "1 / 0"}
TESTS = "assert double(2) == 4\nassert double(3) == 6\nassert double(0) == 0\nassert double(1) == 3"
"""The last one is wrong. Right programs pass three, a square two (2 and 0), always six one (3)."""


def program(name: str) -> str:
    return f"```python\ndef double(x):\n    return {BODIES[name]}\n```"


class Model:
    """Writes the programs in turn, the tests when asked, and says of two outputs which one is right."""

    def __init__(self, *names: str, tests: str = TESTS, reply: str = "") -> None:
        self.names = list(names)
        self.tests, self.reply = tests, reply
        self.compared: list[tuple[str, str, str]] = []

    def __call__(self, question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        if "Do not write" in question:
            return Draft(self.tests)
        if "What should this give?" not in question:
            name = self.names.pop(0)
            return Draft(program(name) if name in BODIES else name, -0.1 if name == "too" else -0.5)
        found = re.search(r"double\((-?\d+)\)\nA: (.*)\nB: (.*)\n", question)
        assert found is not None and sampling.temperature == 0
        self.compared.append((found[1], found[2], found[3]))
        return Draft(self.reply or ("A" if found[2] == str(2 * int(found[1])) else "B."))


def agree(model: Model, **parameters: Any) -> Played:
    n = len(model.names)
    return play("code_agreement", model, problem=DOUBLE, answers=Behaviour(), n=n, **parameters)


def test_agreement_by_hand() -> None:
    """Two right programs pass three tests each, three squares two: 6 against 6; one six passes one."""
    played = agree(Model("square", "right", "square", "six", "too", "square"), probes=0)
    assert played.result.text == program("square"), "of equals the larger cluster leads"
    assert played.notes["tests"] == TESTS.splitlines()
    assert played.notes["clusters"] == [(3, 2), (2, 3), (1, 1)]
    played = agree(Model("square", "right", "square", "six", "too"), probes=0)
    assert played.result.text == program("too"), "6 against 4; the more confident one of the cluster"
    assert played.result.usage.policy_calls == 5 + 1


def test_one_that_passes_everything_does_not_beat_many_by_itself() -> None:
    played = agree(Model("right", "square", "square", "broken", "broken"), probes=0)
    assert played.notes["clusters"] == [(2, 2), (1, 3), (2, 0)]
    assert played.result.text == program("square")


def test_inputs_on_which_the_leaders_differ_are_put_to_the_model_in_both_orders() -> None:
    model = Model("square", "right", "square", "six", "too", "square")
    played = agree(model, probes=2)
    assert played.result.text == program("too"), "the model finds the right outputs right"
    assert played.notes["votes"] == 4 and played.notes["differing"] >= 2
    (x, a, b), (x2, a2, b2), *others = model.compared
    assert (x, a, b) == (x2, b2, a2) and a == str(2 * int(x)) and b == str(int(x) ** 2) and len(others) == 2
    assert played.result.usage.policy_calls == 6 + 1 + 2 * 2


@pytest.mark.parametrize("reply", ["A", "About both", ""])
def test_a_model_without_an_opinion_leaves_the_larger_agreement_in_front(reply: str) -> None:
    played = agree(Model("square", "right", "square", "six", "too", "square", reply=reply), probes=2)
    assert played.result.text == program("square" if reply else "too")
    assert played.notes["votes"] == (0 if reply else 4)


def test_programs_that_differ_on_no_input_are_not_asked_about() -> None:
    model = Model("right", "too", "right")
    played = agree(model, probes=4)
    assert played.result.text == program("too") and model.compared == []
    assert played.notes["clusters"] == [(3, 3)]


def test_without_tests_or_programs_the_majority_decides() -> None:
    played = agree(Model("right", "square", "square", tests="I cannot."))
    assert played.result.text == program("square") and "clusters" not in played.notes
    vote = play("code_agreement", InTurn(box(1), box(2), box(2)), n=3)
    assert (vote.result.answer, vote.result.usage.policy_calls) == ("2", 3), "no tests are written for answers"


def test_text_without_code_is_in_no_cluster() -> None:
    played = agree(Model("right", "Sorry.", "Sorry.", "Sorry."), probes=0)
    assert played.result.text == program("right") and played.notes["clusters"] == [(1, 3)]


def test_the_order_of_draws_does_not_choose() -> None:
    names = ["square", "right", "square", "six", "too", "square"]
    rng = random.Random(0)
    for _ in range(2):
        rng.shuffle(names)
        assert agree(Model(*names), probes=1).result.text == program("too")


def test_when_the_budget_ends_what_is_known_by_then_decides() -> None:
    names = ("square", "right", "square", "six", "too", "square")
    programs = sum(len(program(name)) + 1 for name in names)
    for left, best in ((0, "square"), (len(TESTS) + 1, "square")):
        played = agree(Model(*names), probes=2, budget=Budget(tokens=programs + left))
        assert played.result.stopped is Stopped.BUDGET
        assert played.result.text == program(best)


def test_the_tests_that_grade_reach_neither_model_nor_sandbox() -> None:
    seen: list[str] = []
    model = Model("square", "right", "too")

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        seen.append(question)
        return model(question, so_far, rng, sampling)

    play("code_agreement", write, problem=DOUBLE, answers=Behaviour(), n=3)
    assert len(seen) >= 4 and not any("41" in question or "82" in question for question in seen)
