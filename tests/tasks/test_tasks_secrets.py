"""What grades a problem reaches no policy and no verifier: a run strips `answer`, and `meta` does not repeat it."""

from __future__ import annotations

import pytest

from flyweight import tasks
from flyweight.errors import ConfigError
from flyweight.tasks import files, gsm8k, humaneval, math500, mbpp
from flyweight.tasks.code import Code
from flyweight.types import Problem

META: dict[str, set[str]] = {
    "gsm8k": set(),
    "math500": {"level", "subject"},
    "humaneval": {"entry", "public", "before"},
    "mbpp": {"entry", "public", "after", "split"},
    "countdown": {"numbers", "target"},
}
"""All that the problems of the bundled tasks bring along."""
SPLITS = {"gsm8k": ("test", "development"), "mbpp": mbpp.MBPP.splits, "countdown": files.TRAINING}


def secrets(task: object, problem: Problem) -> list[str]:
    """Texts that would help: of the answer, of each hidden test, of a known solution."""
    lines = [line.strip() for line in (problem.answer or "").split("\n")]
    if isinstance(task, Code):
        shown = str(problem.meta.get("before", ""))
        solution = task.reference(problem).removeprefix(shown).strip()
        return [solution, *(line for line in lines if line.startswith("assert"))]
    return lines


def texts(value: object) -> list[str]:
    return [text for item in value for text in texts(item)] if isinstance(value, tuple) else [str(value)]


def test_every_task_without_a_file_is_looked_at() -> None:
    needy = []
    for name in set(tasks.names()) - set(META):
        with pytest.raises(ConfigError, match="pass data=PATH"):
            tasks.load(name)
        needy.append(name)
    assert sorted(needy) == ["aime24", "aime25", "amc23", "jsonl"]


@pytest.mark.parametrize(("name", "split"), [(name, split) for name in META for split in SPLITS.get(name, ("test",))])
def test_meta_holds_no_answer_no_solution_and_no_hidden_test(name: str, split: str) -> None:
    task = tasks.load(name, split=split)
    for problem in task.problems():
        assert set(problem.meta) == META[name], problem.id
        found = [text for value in problem.meta.values() for text in texts(value)]
        leaked = [secret for secret in secrets(task, problem) if any(secret in text for text in found)]
        if name == "math500":
            leaked = [secret for secret in leaked if len(secret) > 1]  # the answer 3 to a question of level 3
        if problem.id == "mbpp-37":
            leaked = leaked[1:]  # has one test three times, so that it is shown and grades
        assert not leaked, (problem.id, leaked)


def test_the_worked_solutions_of_the_maths_tasks_are_in_no_problem() -> None:
    rows = [(str(row["question"]), str(row["solution"])) for row in files.bundled(gsm8k.DEV)]
    rows += [(str(row["question"]), str(row["answer"])) for row in files.bundled(gsm8k.TEST)]
    rows += [(str(row["problem"]), str(row["solution"])) for row in files.bundled(math500.TEST)]
    solutions = dict(rows)
    made = [tasks.load("gsm8k", split=split) for split in ("test", "development")] + [tasks.load("math500")]
    problems = [problem for task in made for problem in task.problems()]
    assert len(problems) == len(rows) == 200 + 1319 + 500
    assert not [p.id for p in problems if solutions[p.prompt] in repr((p.messages, p.meta, p.answer))]


def test_a_leak_would_be_found() -> None:
    [problem] = [p for p in humaneval.HumanEval().problems() if p.id == "humaneval-53"]
    assert secrets(humaneval.HumanEval(), problem)[:2] == ["return x + y", "assert candidate(0, 1) == 1"]
    assert texts(("a", ("b", 3))) == ["a", "b", "3"]
