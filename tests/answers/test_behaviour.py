"""Code votes by what it does."""

from __future__ import annotations

import ast
import random
from typing import Any

import pytest

from flyweight import sandbox
from flyweight.answers import behaviour
from flyweight.answers.behaviour import Behaviour, inputs
from flyweight.api import Session
from flyweight.errors import SandboxError
from flyweight.runner import Runner
from flyweight.sandbox import Call, Outcome, Stdin, asserts, bubblewrap, cell
from flyweight.strategies import bind
from flyweight.tasks.code import Code
from flyweight.testing import Draft, ToyPolicy
from flyweight.types import Problem

SORT = Problem("sort", "Sort.")
EXAMPLES = asserts("assert f([3, 1, 2]) == [1, 2, 3]")
SORTS = (
    "def f(x): return sorted(x)",
    "def f(x):\n    out = []\n    for v in x:\n        out.insert(sum(o <= v for o in out), v)\n    return out",
    "f = lambda x: sorted(x, key=lambda v: (v, 1))",
)
OTHERS = (
    "def f(x): return sorted(set(x))",  # equal on the example alone
    "def f(x): return x[::-1]",
    "def f(x): return tuple(sorted(x))",
    "def f(x):\n    while True: pass",
    "def g(x): return sorted(x)",
    "def f(x): return sorted(x",
)


def test_programs_that_do_the_same_are_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviour, "SECONDS", 0.6)
    programs: list[str | None] = [OTHERS[0], SORTS[0], None, *OTHERS[1:], SORTS[1], SORTS[2], SORTS[0]]
    votes = Behaviour([*EXAMPLES, Call("f([2, 2, 1])", None)])
    assert votes.classes(programs, SORT) == [[1, 8, 9, 10], [0], [3], [4]]
    monkeypatch.setattr(sandbox, "evaluate", lambda *args, **kwargs: pytest.fail("a program ran twice"))
    order = list(range(len(programs)))
    for seed in range(20):
        random.Random(seed).shuffle(order)
        found = votes.classes([programs[i] for i in order], SORT)
        assert sorted(sorted(order[i] for i in group) for group in found) == [[0], [1, 8, 9, 10], [3], [4]]


def test_inputs_are_the_examples_and_then_more_of_their_kind() -> None:
    examples = asserts(
        "assert f([3, 1, 2], 3, 'ab') == 1\nassert f([5], 1, 'b') == 2\nassert abs(f([7, 7], 2, 'a')) < 3"
    )
    found = inputs(examples)
    assert found[:3] == [Call(f"f({given})", None) for given in ("[3, 1, 2], 3, 'ab'", "[5], 1, 'b'", "[7, 7], 2, 'a'")]
    assert len(found) == len(set(found)) == behaviour.INPUTS and found == inputs(examples)
    for given in found:
        assert isinstance(given, Call)
        items, length, text = ast.literal_eval(given.expression.removeprefix("f"))
        assert len(items) == length and all(type(item) is int and item > 0 for item in items)
        assert text and set(text) <= {"a", "b"}


@pytest.mark.parametrize(
    "value",
    [
        *(0, 5, -3, 2.5, True, None, "word", "w", "", [1, 2], [7], [], (1, "a"), {1, 2}, {3}, {"a": 1}, [[1, 2], [3]]),
        *(b"x", 10**30),
    ],
)
def test_mutations_keep_the_type(value: object) -> None:
    rng = random.Random(0)
    for _ in range(30):
        changed = behaviour._mutated(value, rng)
        assert (type(changed) is type(value) and bool(changed) == bool(value)) or isinstance(value, bool | int | float)
        if isinstance(value, int) and isinstance(changed, int):
            assert changed * value >= 0


@pytest.mark.parametrize(
    ("source", "only"),
    [
        ("assert f(max(1, 2)) == 2", "f(max(1, 2))"),
        ("assert f(1, k=2) == 3", "f(1, k=2)"),
        ("assert f() == 3", "f()"),
        ("k = 3\nassert f(k) == 3", None),
    ],
)
def test_what_holds_more_than_literals_is_not_mutated(source: str, only: str | None) -> None:
    assert inputs(asserts(source)) == ([] if only is None else [Call(only, None)])


def test_inputs_are_spelled_for_the_program_the_same_in_every_process() -> None:
    judged = "def check(candidate):\n    assert abs(candidate(4) - 2) < 1"
    found = inputs(asserts(judged, entry="root"))
    assert len(found) > 5
    assert all(isinstance(given, Call) and given.expression.startswith("root(") for given in found)
    letters = list("abcdefghijkl")
    assert ast.literal_eval(behaviour._spelled([(1,), (), {2: "x"}, set(letters)])) == [
        (1,),
        (),
        {2: "x"},
        set(letters),
    ]
    assert behaviour._spelled(set(letters)) == f"{{{str(letters)[1:-1]}}}"


def test_stdin_programs_vote_too() -> None:
    examples = [Stdin("3\n1 2 3\n", "6\n")]
    found = inputs(examples)
    assert found[0] == Stdin("3\n1 2 3\n", "") and len(found) > 5
    for given in found:
        assert isinstance(given, Stdin)
        count, numbers, end = given.stdin.split("\n")
        assert (count, len(numbers.split()), end) == ("3", 3, "")
    votes = Behaviour(examples)
    total = "input()\nprint(sum(map(int, input().split())))"
    loop = "n = int(input())\nt = 0\nfor w in input().split(): t += int(w)\nprint(t, end='')"
    assert votes.classes([total, "print(6)", loop, "print(int('x'))"], SORT) == [[0, 2], [1]]
    assert len(inputs([Stdin("1\n", "")])) > 2, "a number that counts nothing after it"
    assert {given.stdin for given in inputs([Stdin("abc\n", "")]) if isinstance(given, Stdin)} > {"abc\n"}


@pytest.mark.parametrize("stdin", ["--5 -- 7\n", "9" * 5000 + " 100\n", "\u0663 \u00b2 4\n", "\n", ""])
def test_no_stdin_is_too_odd_to_be_mutated(stdin: str) -> None:
    found = inputs([Stdin(stdin, "")])
    assert found[0] == Stdin(stdin, "") and all(isinstance(given, Stdin) for given in found)
    assert len(found) > 5 or not any(digit in stdin for digit in "147")


def test_errors_and_lateness_are_outputs_but_nothing_else_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = {
        "all fail": [Outcome("error"), Outcome("timeout")],
        "one fails": [Outcome("value", 1), Outcome("error", error="ValueError")],
        "fails otherwise": [Outcome("value", 1.0), Outcome("error", error="KeyError")],
        "late": [Outcome("value", 1), Outcome("timeout")],
        "true": [Outcome("value", True), Outcome("error")],
    }
    monkeypatch.setattr(sandbox, "evaluate", lambda program, *args, **kwargs: outcomes[program])
    assert Behaviour(EXAMPLES).classes(list(outcomes), SORT) == [[1, 2, 4], [3]]


def test_a_program_alone_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "evaluate", lambda *args, **kwargs: pytest.fail("it was run"))
    layer = Behaviour(asserts("assert f(2) == 4"))
    code = "def f(x):\n    return x"
    assert layer.classes([None, code, code], Problem("p", "?")) == [[1, 2]]
    assert layer.classes([None], Problem("p", "?")) == layer.classes([], Problem("p", "?")) == []


def test_what_is_remembered_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behaviour, "REMEMBERED", 3)
    votes = Behaviour()
    for k in range(9):
        assert votes.classes([f"x = {k}", "y = 1"], SORT) == [[0], [1]]
        assert len(votes._seen) <= 5


def test_without_examples_equal_source_is_one_answer() -> None:
    assert Behaviour().classes(["x = 1", "y = 1", "x = 1\n", None], SORT) == [[0, 2], [1]]


def test_every_problem_brings_its_examples_and_what_stands_around_its_programs() -> None:
    meta = {"public": ("assert f(2) == 4",), "entry": "f", "before": "k = 2", "after": "def f(x): return h(x)"}
    votes = Behaviour()
    programs = ["def h(x): return k * x", "def h(x): return x + x", "def h(x): return x ** k"]
    double, treble = Problem("2", "?", meta=meta), Problem("3", "?", meta={**meta, "before": "k = 3"})
    for _ in range(2):  # asked in turns: what is remembered of one problem says nothing about another
        assert votes.classes(programs, double) == [[0, 1], [2]]
        assert votes.classes(programs, treble) == [[0], [1], [2]]
    check = "def check(candidate):\n    assert candidate(2) == 4"
    named = Problem("c", "?", meta={"public": [check], "entry": "f"})
    assert votes.classes(["def f(x): return 2 * x", "f = lambda x: x + x"], named) == [[0, 1]]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("One:\n```python\na = 1\n```\nTwo:\n```python\nb = 2\n```\nDone.", "b = 2"),
        ("b = 2\n", "b = 2"),
        ("b = '\\d'", "b = '\\d'"),
        ("for x in 'ab':\n    print(x)", "for x in 'ab':\n    print(x)"),
        ("def f(x): return x +", None),
        ("42", None),
        ("I do not know.", None),
        ("word", None),
        ("", None),
    ],
)
def test_where_the_code_is(text: str, code: str | None) -> None:
    assert Behaviour().extract(text) == code


def coder(*drafts: str) -> ToyPolicy:
    """Writes the programs in order, each once."""
    left = list(drafts)

    def write(question: str, so_far: str, rng: random.Random, sampling: object) -> Draft:
        return Draft(f"```python\n{left.pop(0)}\n```")

    return ToyPolicy(write, slots=1)


SORTING = Problem("sort", "Sort.", meta={"public": ("assert f([3, 1, 2]) == [1, 2, 3]",)})


@pytest.mark.parametrize("name", ["self_consistency", "adaptive_consistency"])
def test_three_right_programs_win_over_two_that_are_one_text(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a task's own votes; and however often a search asks, each program runs once."""
    ran: list[str] = []
    evaluate = sandbox.evaluate

    def counted(program: str, *args: Any, **settings: Any) -> list[Outcome]:
        ran.append(program)
        return evaluate(program, *args, **settings)

    monkeypatch.setattr(sandbox, "evaluate", counted)
    runner = Runner(coder(OTHERS[1], OTHERS[1], *SORTS), answers=Code((), {}))
    result = runner.solve(SORTING, bind(name, {"n": 5}))
    assert result.error is None and result.answer in SORTS
    assert [candidate.answer_class for candidate in result.candidates] == [1, 1, 0, 0, 0]
    assert sorted(ran) == sorted({OTHERS[1], *SORTS})


def test_a_session_for_code_votes_so_too() -> None:
    with Session(coder(OTHERS[1], OTHERS[1], *SORTS), kind="code") as session:
        assert session.solve(SORTING, n=5).answer in SORTS
    with Session(coder(OTHERS[1], OTHERS[1], *SORTS), kind="code") as session:
        assert session.solve("Sort.", n=5).answer == OTHERS[1], "without examples equal source makes a vote"


def test_without_a_sandbox_the_run_fails_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> list[str]:
        raise SandboxError("bubblewrap is missing")

    monkeypatch.setattr(cell, "_working", "")
    monkeypatch.setattr(bubblewrap, "binaries", missing)
    policy = coder(*SORTS)
    runs = Runner(policy, answers=Code((), {})).run([SORTING, SORT], bind("self_consistency", {"n": 3}))
    with pytest.raises(SandboxError, match="bubblewrap is missing"):
        next(runs)
    assert policy.counters.prompt_tokens == policy.counters.generated_tokens == 0
