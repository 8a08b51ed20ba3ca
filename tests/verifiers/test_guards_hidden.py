"""Tests that grade reach no policy, no verifier and no sandbox of a search: canaries in them, spies everywhere."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from flyweight import tasks, verifiers
from flyweight.protocols import Models, Request, Verifier
from flyweight.runner import Runner
from flyweight.sandbox.cell import Cell
from flyweight.store import Store
from flyweight.strategies import bind
from flyweight.tasks.code import Code
from flyweight.testing import Draft, RuleVerifier, ToyPolicy
from flyweight.types import Problem, Result, Sampling

CANARY = "xylophone"
"""Stands in every hidden test and in every solution of the source, and nowhere else."""
SHOWN = "double(2)"
"""Stands in every public test."""

PROMPT = 'def double(x):\n    """Twice x.\n    >>> double(2)\n    4\n    """\n'
HIDDEN = f"assert double('{CANARY}') == '{CANARY}{CANARY}'"
SOLUTION = f"    return x + x  # {CANARY}\n"
ROWS: dict[str, dict[str, object]] = {
    "humaneval": {
        "task_id": "HumanEval/0",
        "prompt": PROMPT,
        "entry_point": "double",
        "canonical_solution": SOLUTION,
        "test": f"METADATA = '{CANARY}'\n\ndef check(candidate):\n    {HIDDEN.replace('double', 'candidate')}\n",
    },
    "mbpp": {
        "task_id": 11,
        "text": "Write a function that doubles.",
        "code": f"def double(x):\n{SOLUTION}",
        "test_list": ["assert double(2) == 4", HIDDEN],
        "challenge_test_list": [HIDDEN.replace("==", "==  ")],
        "test_setup_code": "",
    },
    "jsonl": {
        "prompt": "Write double(x), which returns 2 x.",
        "answer": HIDDEN,
        "public": ["assert double(2) == 4"],
        "checker": "tests",
    },
}
PROGRAMS = [
    f"Here:\n\n```python\ndef double(x):\n    return {body}\n```\n" for body in ("x + x", "x * x", "4", "2 * x")
]
EXECUTING = ("tests", "written-tests", "all:form(kind=code):tests", "weighted:tests=3:written-tests(n=2)=1")
ASKING = ("judge:kind=code", "critique:kind=code", "p_true", "all:form(kind=code):judge(kind=code)")


class Seen(list[str]):
    """All that was shown to somebody, as text."""

    def __call__(self, *things: object) -> None:
        for thing in things:
            if isinstance(thing, bytes):
                self.append(thing.decode("utf-8", "replace"))
            elif isinstance(thing, Mapping):
                self(*thing.keys(), *thing.values())
            elif isinstance(thing, list | tuple):
                self(*thing)
            else:
                self.append(str(thing))

    def __contains__(self, word: object) -> bool:
        return any(str(word) in text for text in self)


class Policy(ToyPolicy):
    """Writes programs and tests; all it is shown is kept."""

    def __init__(self, seen: Seen) -> None:
        def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
            return Draft("assert double(3) == 6\n" if "Do not write" in question else rng.choice(PROGRAMS))

        super().__init__(write)
        self.seen = seen

    def add(self, request: Request) -> None:
        self.seen([m.content for m in request.node.root.messages], request.node.solution, request.choices)
        self.seen(repr(request.sampling))
        super().add(request)


class Watched(RuleVerifier):
    """A verifier, and all it is shown."""

    def __init__(self, verifier: Verifier, seen: Seen) -> None:
        super().__init__(lambda question, solution: 0, verifier.name)
        self.verifier, self.seen = verifier, seen

    async def score(self, problem: Problem, nodes: Sequence[Any], models: Models) -> Any:
        self.seen(problem.id, problem.prompt, [m.content for m in problem.messages], problem.answer, problem.meta)
        self.seen([node.solution for node in nodes], [m.content for node in nodes for m in node.root.messages])
        return await self.verifier.score(problem, nodes, models)


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """All that entered a sandbox."""
    seen = Seen()

    def watch(name: str, real: Any) -> None:
        def spy(self: Cell, *given: object) -> object:
            seen(given)
            return real(self, *given)

        monkeypatch.setattr(Cell, name, spy)

    for name in ("_start", "_given", "send"):
        watch(name, getattr(Cell, name))
    return seen


def loaded(name: str, folder: Path, **changes: object) -> tuple[Any, Problem]:
    """The task of one problem, from a file in its source's own form."""
    file = folder / f"{name}.jsonl"
    file.write_text(json.dumps({**ROWS[name], **changes}) + "\n", "utf-8")
    task = tasks.load(name, data=file)
    [problem] = task.problems()
    assert CANARY in (problem.answer or "")
    return task, problem


def search(task: Any, problem: Problem, verifier: str, seen: Seen, store: Store | None = None) -> Result:
    """Four programs, one of them chosen."""
    judge: Verifier = Watched(verifiers.load(verifier), seen)
    if store is not None:
        judge = store.verifier(judge, identity=verifier)
    return Runner(Policy(seen), {"judge": judge}, answers=task).solve(problem, bind("best_of_n", {"n": 4}))


@pytest.mark.parametrize("name", ROWS)
def test_hidden_tests_reach_nobody_before_the_grading(name: str, tmp_path: Path, cells: Seen) -> None:
    task, problem = loaded(name, tmp_path)
    seen = Seen()
    for verifier in (*EXECUTING, *ASKING):
        result = search(task, problem, verifier, seen)
        assert result.error is None, (verifier, result.error)
    with Store(tmp_path / "flyweight.db") as store:
        assert search(task, problem, "tests", seen, store).error is None
    assert SHOWN in seen and SHOWN in cells, "the spies see what is public"
    assert "double(3)" in cells, "and the tests that the model wrote"
    assert CANARY not in seen and CANARY not in cells
    assert task.grade(problem, PROGRAMS[0]).value == "correct" and task.grade(problem, PROGRAMS[1]).value == "wrong"
    assert CANARY in cells and CANARY + CANARY not in cells, "inputs are run then, and still no expected value"


@pytest.mark.parametrize("verifier", EXECUTING)
def test_a_task_that_leaked_would_be_noticed(verifier: str, tmp_path: Path, cells: Seen) -> None:
    task, problem = loaded("jsonl", tmp_path, public=["assert double(2) == 4", HIDDEN])
    seen = Seen()
    assert search(task, problem, verifier, seen).error is None
    assert CANARY in seen and CANARY in cells


def test_a_solution_that_a_source_brings_along_is_kept_apart(tmp_path: Path) -> None:
    for name in ("humaneval", "mbpp"):
        task, problem = loaded(name, tmp_path)
        assert isinstance(task, Code) and CANARY in task.reference(problem)
        assert CANARY not in repr((problem.id, problem.prompt, problem.messages, problem.meta))
