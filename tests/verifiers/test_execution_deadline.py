"""Programs that never end, and a search that has no time for all of them."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flyweight import api, strategies
from flyweight.runner import Runner
from flyweight.testing import Draft, ToyPolicy
from flyweight.types import Budget, Problem, Result, Stopped
from flyweight.verifiers import execution


class Endless:
    """Programs that go on until they are let go; a clock that passes the deadline once the first one has begun."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.let_go = threading.Event()
        self.ran: list[str] = []

    def run(self, solution: str) -> None:
        self.ran.append(solution)
        self.begun.set()
        self.let_go.wait(60)

    def clock(self) -> float:
        return 10.0 if self.begun.is_set() else 0.0

    def search(self, strategy: str, equal: bool = False, **verifiers: Any) -> Result:
        numbers = itertools.count()

        def write(question: str, so_far: str, rng: object, sampling: object) -> Draft:
            if "Do not write" in question:
                return Draft("assert f(1) == 1\n")
            return Draft(f"```python\ndef f(x):\n    return {0 if equal else next(numbers)}\n```")

        runner = Runner(ToyPolicy(write), verifiers, answers=api.AnswersOf("code"), clock=self.clock)
        problem = Problem("p", "Write f(x).", meta={"public": ["assert f(1) == 1"]})
        return runner.solve(problem, strategies.bind(strategy, {"n": 8}), Budget(seconds=3.5))


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endless]:
    found = Endless()
    execution._waiting.cache_clear()
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    yield found
    found.let_go.set()
    execution._waiting.cache_clear()


def test_a_deadline_ends_a_search_while_programs_run(endless: Endless, monkeypatch: pytest.MonkeyPatch) -> None:
    def failures(problem: Problem, node: Any, tests: object, **limits: float) -> tuple[str, ...]:
        endless.run(node.solution)
        return ("",)

    monkeypatch.setattr(execution, "failures", failures)
    result = endless.search("best_of_n", tests=execution.Tests())
    assert result.stopped is Stopped.DEADLINE and len(result.candidates) == 8, result.error
    assert len(endless.ran) <= 2, "the others are not begun"


def test_a_deadline_ends_code_agreement_while_programs_run(endless: Endless, monkeypatch: pytest.MonkeyPatch) -> None:
    def results(problem: Problem, node: Any, tests: list[str], **limits: float) -> list[bool]:
        endless.run(node.solution)
        return [True for _ in tests]

    monkeypatch.setattr("flyweight.strategies.code_agreement.results", results)
    result = endless.search("code_agreement")
    assert result.stopped is Stopped.DEADLINE and len(result.candidates) == 8, result.error
    assert len(endless.ran) <= 2 and result.best is not None


def test_equal_programs_run_once(endless: Endless, monkeypatch: pytest.MonkeyPatch) -> None:
    def failures(problem: Problem, node: Any, tests: object, **limits: float) -> tuple[str, ...]:
        endless.ran.append(node.solution)
        return ("",)

    monkeypatch.setattr(execution, "failures", failures)
    result = endless.search("best_of_n", equal=True, tests=execution.Tests())
    assert (len(endless.ran), result.stopped, result.usage.verifier_calls) == (1, Stopped.DONE, 8)
