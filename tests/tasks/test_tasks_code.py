"""HumanEval and MBPP: what is public, what grades, and that the source's own solutions pass."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path
from typing import cast

import pytest

from flyweight import sandbox, tasks
from flyweight.errors import ConfigError, SandboxError
from flyweight.tasks import code, files, humaneval, mbpp
from flyweight.tasks.humaneval import HumanEval, Overlap, examples
from flyweight.tasks.mbpp import MBPP
from flyweight.types import Problem


@pytest.fixture
def box() -> None:
    """Skips the test where programs cannot be run safely."""
    try:
        sandbox.working()
    except SandboxError as error:
        pytest.skip(str(error))


def public(problem: Problem) -> tuple[str, ...]:
    return cast(tuple[str, ...], problem.meta["public"])


def shown(problem: Problem) -> str:
    """Everything a policy or a verifier can see of a problem."""
    return repr((problem.prompt, problem.messages, problem.meta))


def plain(test: str) -> str:
    return ast.unparse(ast.parse(test))


@cache
def original() -> dict[str, dict[str, object]]:
    return {f"mbpp-{row['task_id']}": row for row in files.bundled(mbpp.DATA)}


# Public against hidden


def test_mbpp_shows_its_first_test_and_grades_by_the_others() -> None:
    rows = original()
    repeated = []
    for split in MBPP.splits:
        for problem in tasks.load("mbpp", split=split).problems():
            row = rows[problem.id]
            first, *others = cast(list[str], row["test_list"]) + cast(list[str], row["challenge_test_list"])
            assert public(problem) == (first.strip(),) and first.strip() in problem.messages[-1].content
            graded = (problem.answer or "").split("\n")
            if plain(first) in map(plain, graded):
                repeated.append(problem.id)
                continue
            assert [plain(t) for t in graded] == [plain(t) for t in others if plain(t) != plain(first)]
            assert graded and not any(test in shown(problem) for test in graded)
    assert repeated == ["mbpp-37"], "it has one test three times, so there is no other to grade by"


def test_mbpp_challenges_grade() -> None:
    rows = original()
    challenged = [p for p in tasks.load("mbpp").problems() if rows[p.id]["challenge_test_list"]]
    assert challenged
    for problem in challenged:
        assert all(
            t.strip() in (problem.answer or "") for t in cast(list[str], rows[problem.id]["challenge_test_list"])
        )


def test_humaneval_hides_its_tests_and_its_solutions() -> None:
    task = HumanEval()
    assert len(task.problems()) == 164
    for problem in task.problems():
        solution = task.reference(problem).removeprefix(problem.prompt)
        assert "candidate" in (problem.answer or "") and "candidate" not in shown(problem)
        assert solution.strip() not in str(problem.meta["before"])
        for test in public(problem):
            [parsed] = sandbox.asserts(test)
            assert isinstance(parsed, sandbox.Call)


def test_the_overlap_of_examples_and_graded_tests() -> None:
    """23 % of the graded tests repeat an example of their prompt; docs/tasks.md says so."""
    assert HumanEval().overlap == Overlap(examples=400, graded=1181, shared=268, problems=102)


def test_examples_of_a_docstring() -> None:
    prompt = '''
def helper(x):
    """ f(1) == 9 """

def f(x, y=1):
    """ Adds; f(0) returns 1. f(n) => n, f(g(2)) == 3
    >>> f(1, 2)
    3
    >>> f([1], "a)")
    [1, 'a)']
    >>> round(f(0.5), 2)
    1.5
    * f(2) => 3 (since 2 + 1 = 3)
    f(3) ==> true
    f(4) = 1 + 4 = 5
    f('x') ➞ "it's"
    f(5)   # returns "db"
    f(5)   # returns "db"
    f(6) -> see above
    """
'''
    assert examples(prompt, "f") == [
        "assert f(1, 2) == 3",
        "assert f([1], 'a)') == [1, 'a)']",
        "assert f(2) == 3",
        "assert f(3) == True",
        "assert f(4) == 5",
        "assert f('x') == \"it's\"",
        "assert f(5) == 'db'",
    ]
    assert examples(prompt, "nosuch") == examples("def f(:", "f") == []


# Splits


def test_mbpp_splits() -> None:
    numbers = {
        s: [int(p.id.removeprefix("mbpp-")) for p in tasks.load("mbpp", split=s).problems()] for s in MBPP.splits
    }
    assert numbers["prompt"] == list(range(1, 11)) and numbers["validation"] == list(range(511, 601))
    assert numbers["test"] == list(range(11, 511)) == [int(p.id[5:]) for p in tasks.load("mbpp").problems()]
    training = sorted(numbers["train"] + numbers["calibration"] + numbers["development"])
    texts = {int(str(row["task_id"])): str(row["text"]).strip() for row in original().values()}
    tested = {texts[number]: number for number in numbers["test"]}
    repeats = {n: tested[texts[n]] for n in range(601, 975) if texts[n] in tested}
    assert repeats == mbpp.REPEATED
    assert training == [n for n in range(601, 975) if n not in repeats]
    for split in files.TRAINING:
        assert all(files.hash_split(str(original()[f"mbpp-{n}"]["text"])) == split for n in numbers[split])


# Grading


def test_what_is_no_code_is_wrong_and_what_has_no_tests_is_refused() -> None:
    task = tasks.load("mbpp")
    problem = task.problems()[0]
    assert task.grade(problem, "I cannot.").reason == "no code in the answer"
    with pytest.raises(ConfigError, match="no tests to grade against"):
        task.grade(Problem("p", "?"), "```python\nx = 1\n```")
    assert isinstance(task, MBPP)
    with pytest.raises(ConfigError, match="'p' has no reference solution"):
        task.reference(Problem("p", "?"))


@pytest.mark.usefixtures("box")
def test_right_wrong_and_cheating_programs() -> None:
    task = tasks.load("mbpp")
    [problem] = [p for p in task.problems() if p.id == "mbpp-12"]  # sort a matrix by the sums of its rows
    right = task.grade(problem, "Sure:\n```python\ndef sort_matrix(M):\n    return sorted(M, key=sum)\n```")
    assert right.value == "correct"
    wrong = task.grade(problem, "```python\ndef sort_matrix(M):\n    return sorted(M)\n```")
    assert wrong.value == "wrong" and "of 2 tests passed; test" in wrong.reason
    cheat = "class E(list):\n    def __eq__(self, other):\n        return True\ndef sort_matrix(M):\n    return E()"
    assert task.grade(problem, f"```python\n{cheat}\n```").value == "wrong"
    # What passes the public test alone does not pass: the hidden ones decide.
    known = f"def sort_matrix(M):\n    return {public(problem)[0].partition('==')[2]}"
    assert task.grade(problem, f"```python\n{known}\n```").value == "wrong"


@pytest.mark.usefixtures("box")
def test_a_body_completes_the_prompt() -> None:
    task = tasks.load("humaneval")
    [problem] = [p for p in task.problems() if p.id == "humaneval-53"]
    assert task.grade(problem, "```python\n    return x + y\n```").value == "correct"
    assert task.grade(problem, "```python\ndef add(x, y):\n    return x + y\n```").value == "correct"
    assert task.grade(problem, "```python\n    return x - y\n```").value == "wrong"
    assert task.grade(problem, "```python\ndef plus(x, y):\n    return x + y\n```").value == "wrong"


def failures(task: code.Code, problems: list[Problem]) -> list[tuple[str, str]]:
    grades = ((p.id, task.grade(p, f"```python\n{task.reference(p)}\n```")) for p in problems)
    return [(id, grade.reason) for id, grade in grades if grade.value != "correct"]


@pytest.mark.usefixtures("box")
def test_some_reference_solutions_pass() -> None:
    human, short = HumanEval(), MBPP(split="train")
    picked = {
        "humaneval-32",
        "humaneval-38",
        "humaneval-50",
        "humaneval-53",
        "humaneval-72",
        "humaneval-129",
        "humaneval-151",
    }
    odd = [p for p in human.problems() if p.id in picked]
    assert not failures(human, odd + tasks.pick(human.problems(), 4))
    setup = [p for p in short.problems() if p.meta["after"]]
    assert not failures(short, setup + tasks.pick(short.problems(), 9))
    number = [p for p in MBPP().problems() if p.id == "mbpp-414"]  # returns 0 where its test has False
    assert number and not failures(MBPP(), number)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("box")
def test_all_humaneval_solutions_pass() -> None:
    task = HumanEval()
    assert len(task.problems()) == 164 and not failures(task, list(task.problems()))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("box")
def test_all_mbpp_solutions_pass() -> None:
    rows = [mbpp._row(row)[1] for row in files.bundled(mbpp.DATA)]  # with the three that are in no split
    task = code.Code((p for p, _ in rows), {p.id: reference for p, reference in rows})
    assert len(rows) == 974
    assert not failures(task, list(task.problems()))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("box")
def test_examples_agree_with_the_reference_solutions() -> None:
    """All but seven of 400, where the prompt itself is wrong or its value not meant as a result."""
    task = HumanEval()
    wrong = {}
    for problem in (p for p in task.problems() if public(p)):
        checked = sandbox.check(task.reference(problem), sandbox.asserts("\n".join(public(problem))))
        if not checked.passed:
            wrong[problem.id] = len(checked.failures) - checked.failures.count("")
    assert wrong == {"humaneval-47": 1, "humaneval-116": 2, "humaneval-130": 3, "humaneval-148": 1}


# Files


def test_files_in_the_original_form(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for name, data, want in (("humaneval", humaneval.DATA, "test"), ("mbpp", mbpp.DATA, "train")):
        rows = files.bundled(data)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        assert tasks.load(name, file, want).problems() == tasks.load(name, split=want).problems()
        for row in ({}, {**rows[0], "prompt": 1, "text": 1}, {**rows[0], "test_list": "assert 1", "test": None}):
            file.write_text(json.dumps(row))
            with pytest.raises(ConfigError, match=r"line 1: not an? (HumanEval|MBPP) row") as caught:
                tasks.load(name, file)
            assert "\n" not in str(caught.value)
    for tests in (["assert (", "assert f(1) == 2"], ["assert f(1) == 2", "assert ("]):
        file.write_text(json.dumps({**files.bundled(mbpp.DATA)[0], "test_list": tests}))
        with pytest.raises(ConfigError, match=r"line 1: not an MBPP row, .*SyntaxError"):
            tasks.load("mbpp", file)
    file.write_text(json.dumps(files.bundled(mbpp.DATA)[0]))
    with pytest.raises(ConfigError, match="no question of the split 'test'"):
        tasks.load("mbpp", file)
