"""Programs that never end, and a search that has no time for all of them."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest

from flyweight import api, strategies
from flyweight.runner import Runner
from flyweight.testing import Draft, ToyPolicy
from flyweight.types import Budget, Problem, Stopped
from flyweight.verifiers import execution


@pytest.mark.parametrize("equal", [True, False])
def test_a_deadline_ends_a_search_between_programs(equal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that programs alone move: the second batch is begun in time, the third is not."""
    seconds = 0.0
    ran: list[str] = []

    def failures(problem: Problem, nodes: list[Any], tests: object, **limits: float) -> list[tuple[str, ...]]:
        nonlocal seconds
        seconds += 1.0
        ran.extend(node.solution for node in nodes)
        return [("",) for _ in nodes]

    monkeypatch.setattr(execution, "failures", failures)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    numbers = itertools.count()
    policy = ToyPolicy(lambda *asked: Draft(f"```python\n{'x = 1' if equal else f'x = {next(numbers)}'}\n```"))
    judge = execution.Tests()
    runner = Runner(policy, {"tests": judge}, answers=api.AnswersOf("math"), clock=lambda: seconds)
    problem = Problem("p", "Write f.", meta={"public": ["assert f(1) == 1"]})
    result = runner.solve(problem, strategies.bind("best_of_n", {"n": 8}), Budget(seconds=3.5))
    assert (len(ran), result.stopped) == ((1, Stopped.DONE) if equal else (4, Stopped.DEADLINE)), result.error
    assert len(result.candidates) == 8 and result.usage.verifier_calls == 8


def test_a_deadline_ends_code_agreement_between_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As above: every program is run on the tests that the model wrote, until there is no time left."""
    seconds = 0.0
    ran: list[str] = []

    def results(problem: Problem, node: Any, tests: list[str], **limits: float) -> list[bool]:
        nonlocal seconds
        seconds += 1.0
        ran.append(node.solution)
        return [True for _ in tests]

    monkeypatch.setattr("flyweight.strategies.code_agreement.results", results)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    numbers = itertools.count()

    def write(question: str, so_far: str, rng: object, sampling: object) -> Draft:
        asked = "Do not write" in question
        return Draft("assert f(1) == 1\n" if asked else f"```python\ndef f(x):\n    return {next(numbers)}\n```")

    runner = Runner(ToyPolicy(write), answers=api.AnswersOf("code"), clock=lambda: seconds)
    problem = Problem("p", "Write f(x).")
    result = runner.solve(problem, strategies.bind("code_agreement", {"n": 8}), Budget(seconds=3.5))
    assert (len(ran), result.stopped) == (4, Stopped.DEADLINE), result.error
    assert len(result.candidates) == 8 and result.best is not None
