"""Grading: what counts as right, and who cannot make it so."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.errors import ConfigError
from flyweight.sandbox import (
    Call,
    Statements,
    Stdin,
    asserts,
    check,
    evaluate,
    execute,
    inside,
    program,
    public,
    read_tests,
    run,
    wire,
)
from flyweight.sandbox.cell import Cell
from tests.sandbox_hijacks import HIJACKS, HONEST, TESTS
from tests.sandbox_programs import PROGRAMS, Program

TASK = asserts(TESTS)


def test_the_honest_program_passes() -> None:
    assert [type(test) for test in TASK] == [Call, Call, Call, Statements, Statements, Call]
    assert check(HONEST, TASK).failures == ("",) * 6


@pytest.mark.parametrize("name", HIJACKS)
def test_hijackers_gain_nothing(name: str) -> None:
    """None knows 4217, [2, 1], 4.56789 or the loop's values; what else they return is theirs."""
    assert len(HIJACKS) == 25
    failures = check(HIJACKS[name], TASK, seconds=1).failures
    assert all(failures[at] for at in (0, 1, 3, 4)), failures


def test_what_is_expected_never_enters_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    send = Cell.send

    def spy(cell: Cell, kind: str, payload: bytes, seconds: float | None = None) -> None:
        if kind in "ES":
            sent.append(payload)
        send(cell, kind, payload, seconds)

    monkeypatch.setattr(Cell, "send", spy)
    check(HONEST, [*TASK, Stdin("1", "secret")])
    assert sent == [
        b"f(3)",
        b"f([1, 2])",
        b"f('a')",
        b"f(float('2.0'))",
        b"f(0)",
        b"f(1)",
        b"f(2)",
        b"bool(f(5))",
        b"1",
    ]


def test_which_asserts_need_no_judge() -> None:
    found = asserts(
        "n = 3\nassert f(1) == 2\nassert 2 == f(1)\nassert f(1) is None\nassert not f(1)\nassert sorted(f(1)) == [1]\n"
        "assert f(n) == 2\nassert f(1) == n\nassert (f(1) == 2) == True\nassert f(1) != 2\nassert f(lambda: 2) == 1"
    )
    calls = [test for test in found if isinstance(test, Call)]
    assert calls == [
        Call("f(1)", 2),
        Call("f(1)", 2),
        Call("f(1)", None),
        Call("bool(f(1))", False),
        Call("sorted(f(1))", [1]),
        Call("f(lambda: 2)", 1),
    ]
    assert [test.names for test in found if isinstance(test, Statements)] == [(("f", "f"),)] * 4


def test_a_test_may_be_that_an_error_is_raised() -> None:
    tests = asserts(
        "try:\n    f(0)\n    assert False\nexcept ZeroDivisionError as error:\n    assert 'zero' in str(error)"
    )
    assert check("def f(x): return 1 / x", tests).passed
    assert check("def f(x): return 1", tests).failures == ("AssertionError: ",)
    assert check("def f(x): raise ValueError('zero')", tests).failures == ("ValueError: zero",)
    assert check("class Odd(Exception): ...\ndef f(x): raise Odd", tests).failures == ("Refused: Odd: ",)
    for odd in (
        "UnicodeDecodeError('a', b'', 0, 1, 'b')",
        "ExceptionGroup('a', [OSError(1)])",
        "SystemExit",
        "OSError(2, 'x')",
    ):
        assert not check(f"def f(x): raise {odd}", tests).passed


def test_who_evaluates_a_truth_value() -> None:
    """The program's own functions do; what Python makes of their values is found out where the program is not."""
    given = {
        "f(1)": Call,
        "f(1).empty()": Call,
        "f(1) == True": Call,
        "all(is_prime(p) for p in PRIMES)": Call,
        "isinstance(f(1), Shape)": Call,
        "all([f(1), f(2)])": Statements,
        "isinstance(f(1), str)": Statements,
        "str.isdigit(f(1))": Statements,
        "'abc'.startswith(f(1))": Statements,
        "math.isclose(f(1), 0.5)": Statements,
        "math.isclose(f(1), 0.5) == True": Statements,
        "f(1)[0]": Statements,
    }
    assert {text: type(asserts(f"assert {text}")[0]) for text in given} == given
    cheat = "class math: isclose = lambda *a: True\nall = isinstance = lambda *a: True\ndef f(x): return 0"
    tests = asserts("assert math.isclose(f(2), 0.5)\nassert all([f(2), f(3)])\nassert isinstance(f(1), str)")
    assert check(cheat, tests).failures == ("AssertionError: ",) * 3
    assert check("def f(x): return '' if x == 1 else 0.5", tests).passed


def test_names_mean_what_the_test_means() -> None:
    star = asserts("from math import *\nassert isclose(f(2), 0.5)")
    assert check("def f(x): return 1 / x", star).passed
    renamed = asserts(
        "import math as m, os.path\nassert f(m.floor(2.5)) == 2\nassert f(os.path.join('a', 'b')) == 'a/b'"
    )
    assert check("def f(x): return x", renamed).passed
    module = asserts("for k in range(3): assert bisect(k) == math.sqrt(k * k)")  # a function named as a module
    assert check("def bisect(x): return x", module).passed
    builtin = "for k in range(3): assert pow(k) == abs(k)"
    assert check("def pow(x): return x", asserts(builtin, entry="pow")).passed
    with pytest.raises(ConfigError, match="no assert"):
        asserts("async def later():\n    assert f(1) == 1")


def test_tests_inside_a_check_function() -> None:
    source = (
        "def check(candidate):\n    assert candidate(2) == 4\n    for i in range(3): assert candidate(i) == 2 * i\n"
    )
    tests = asserts(source, entry="double")
    assert tests[0] == Call("double(2)", 4) and isinstance(tests[1], Statements)
    assert check("def double(x): return 2 * x", tests).passed
    assert check("def double(x): return x + 2", tests).failures == ("", "AssertionError: ")
    with pytest.raises(ConfigError, match="need the name of the function"):
        asserts(source)


DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


def test_types_count() -> None:
    given = [
        "True",
        "1",
        "1.0",
        "(1,)",
        "[1]",
        "{1}",
        "{1: 2}",
        "iter([1])",
        "'1'",
        "b'1'",
        "None",
        "1j",
        "float('nan')",
    ]
    values = [outcome.value for outcome in evaluate("", [Call(text, None) for text in given])]
    equal = {
        (a, b)
        for a, x in zip(given, values, strict=True)
        for b, y in zip(given, values, strict=True)
        if wire.same(x, y)
    }
    assert equal == {(a, a) for a in given} - {("float('nan')",) * 2} | set(permutations(("True", "1", "1.0"), 2))
    assert check("def f(x): return {x, 2}", asserts("assert f(1) == {1, 2}\nassert f(1) == {1, 3}")).share == 0.5
    spelled = [wire.canonical(value) for value in (0.3, 0.1 + 0.2, 0.3 + 0j, 0.300000001, 0.3j, 3, 2.9999999999999996)]
    assert spelled == ["0.3", "0.3", "0.3", "0.300000001", "complex(0,0.3)", "3", "3"]
    assert wire.canonical(set("hgfedcba")) == "set('a','b','c','d','e','f','g','h')"
    nested: list[object] = [[(0, {"a": False})], [(False, {"a": 0})], [(0, {"a": 1})]]
    assert [wire.same(nested[0], value) for value in nested] == [True, True, False]
    assert len(set(map(wire.canonical, nested))) == 2


@given(DATA, DATA)
def test_equal_is_what_python_calls_equal(a: object, b: object) -> None:
    for x, y in ((a, b), (a, a), (a, inverted(a))):
        assert wire.same(x, y) == (x == y)
        assert (wire.canonical(x) == wire.canonical(y)) or x != y


def inverted(value: object) -> object:
    """Bools for 0 and 1, and 0 and 1 for bools."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, list | tuple):
        return type(value)(map(inverted, value))
    return value


def test_a_number_is_graded_as_the_bool_it_equals_unless_the_test_asks_for_identity() -> None:
    program = "def f(x): return x"
    asked = ("f(0) == False", "f([1]) == [True]", "f(1) is True", "f(True) is True", "f(2) == True")
    tests = asserts("\n".join(f"assert {test}" for test in asked))
    assert [type(test) for test in tests] == [Call, Call, Statements, Statements, Call]
    assert check(program, tests).failures == ("", "", "AssertionError: ", "", "another value: 2")


@given(DATA)
def test_plain_data_survives_the_way_out_and_in(value: object) -> None:
    there = wire.decode(inside.encode(value, 0))
    assert wire.same(there, value) and wire.canonical(there) == wire.canonical(value)
    assert wire.same(inside.decode(json.loads(inside.encode(value, 0))), value)


@given(st.text() | st.binary())
def test_nonsense_is_no_value(text: str | bytes) -> None:
    with contextlib.suppress(wire.Malformed):
        wire.decode(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", '{"z":[]}', '{"b":"x"}', '{"c":[1]}', '{"d":[1]}', '{"d":[{"t":[]}]}', '{"s":[[]]}', "[" * 10**5),
        f'{{"c":[{10**400},0]}}',
        "1" * 5000,
    ],
)
def test_malformed_values(text: str) -> None:
    with pytest.raises(wire.Malformed):
        wire.decode(text)


@pytest.mark.parametrize(
    ("reply", "why"), [('V{"d":[{"t":[]}]}', "not a value: IndexError"), ("X", "an error"), ('V"\\ud800"', "\\ud800")]
)
def test_a_reply_the_program_made_itself_fails_the_test_and_nothing_else(reply: str, why: str) -> None:
    """Written to every descriptor it has, the one that values leave by among them."""
    program = (
        f"import os\ndef f(x):\n    for fd in range(3, 64):\n        try: os.write(fd, {reply.encode()!r})\n"
        "        except OSError: pass\n    os._exit(0)"
    )
    plain, judged = check(program, asserts("assert f(1) == 2\nfor k in [1]: assert f(k) == 2")).failures
    assert why in plain and plain.encode() and judged.encode()


def test_stdin_programs() -> None:
    program = "n = int(input())\nprint(n * 2, end=' \\n\\n')"
    assert check(program, [Stdin("2\n", "4"), Stdin("2", "5"), Stdin("x", "4")]).failures == (
        "",
        "another value: '4 \\n\\n'",
        "exit status 1",
    )
    assert check("print('a\\x0bb')", [Stdin("", "a\nb"), Stdin("", "a\x0bb\r\n")]).failures[1] == ""
    assert check("if __name__ == '__main__': print(len(input()))", [Stdin("x" * 10**5, "100000")]).passed


def test_a_problem_says_what_belongs_to_a_program() -> None:
    meta = {"before": "import math", "after": "root = Node(1)", "entry": "f", "public": ("assert f(1) == 2",)}
    assert program(meta, "def f(): pass") == "import math\ndef f(): pass\nroot = Node(1)"
    assert public(meta) == public({"public": "assert f(1) == 2"}) == [Call("f(1)", 2)]
    assert program({}, "x = 1") == "x = 1" and public({}) == []


def test_a_program_starts_anew_for_every_test() -> None:
    program = "seen = []\ndef f(x):\n    seen.append(x)\n    return len(seen)"
    assert check(program, [Call("f(1)", 1)] * 3).passed


def test_what_goes_wrong_is_said() -> None:
    program = "def f(x):\n    if x == 1: raise KeyError('k')\n    if x == 2: return 'x' * 10**6\n    return object()"
    tests = [Call(f"f({x})", 0) for x in (1, 2, 3)]
    assert check(program, tests).failures == (
        "KeyError: 'k'",
        "more than 64000 bytes of output",
        "TypeError: returned a object, which is not plain data",
    )
    assert check("x = (", tests[:1]).failures == ("SyntaxError: does not compile",)
    with pytest.raises(ConfigError, match="no tests"):
        check(program, [])


def test_after_two_timeouts_no_more_time_is_spent() -> None:
    outcomes = evaluate(
        "def f(x):\n    while x: pass\n    return x", [Call(f"f({x})", 0) for x in (0, 1, 1, 0)], seconds=0.3
    )
    assert [outcome.kind for outcome in outcomes] == ["value", "timeout", "timeout", "timeout"]


def test_a_judged_test_that_runs_out_of_time_counts_once() -> None:
    program = "import time\ndef f(x):\n    if x: time.sleep(9)\n    return x"
    tests = asserts("for k in [1]: assert f(k) == k\nassert f(0) == 0\nfor k in [0]: assert f(k) == k")
    assert check(program, tests, seconds=0.5).failures == ("out of time", "", "")


def test_a_judged_test_has_its_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[float] = []
    send = Cell.send

    def spy(cell: Cell, kind: str, payload: bytes, seconds: float | None = None) -> None:
        if kind == "E" and seconds is not None:
            left.append(seconds)
        send(cell, kind, payload, seconds)

    monkeypatch.setattr(Cell, "send", spy)
    assert check("import time\ndef f(x): time.sleep(0.2)", asserts("for k in range(2): assert f(k) is None")).passed
    assert left[0] <= 5 and left[1] <= left[0] - 0.2


def test_what_one_input_breaks_is_whole_for_the_next() -> None:
    program = "import os\ndef f(x):\n    if x: os.kill(os.getppid(), 9)\n    return x"
    tests = asserts("\n".join(f"assert f({x}) == {x}\nfor k in [{x}]: assert f(k) == k" for x in (1, 0, 1, 0)))
    broken, judged = "the sandbox ended", "Refused: the sandbox ended"
    assert check(program, tests).failures == (broken, judged, "", "") * 2


@pytest.mark.parametrize(
    "limits", [{"seconds": 0}, {"seconds": float("inf")}, {"seconds": float("nan")}, {"memory_mb": -1}]
)
def test_limits_that_would_be_none(limits: dict[str, Any]) -> None:
    for attempt in (
        lambda: run("x = 1", **limits),
        lambda: execute(["true"], **limits),
        lambda: check("x = 1", [Call("x", 1)], **limits),
        lambda: evaluate("x = 1", [Call("x", 1)], **limits),
    ):
        with pytest.raises(ConfigError, match="is not allowed: a number"):
            attempt()


def test_share_of_tests_passed() -> None:
    checked = check("def f(x): return x", [Call("f(1)", 1), Call("f(1)", 2), Call("f(1)", 1), Call("f(1)", 3)])
    assert (checked.share, checked.passed) == (0.5, False)


def test_files_of_tests(tmp_path: Path) -> None:
    file = tmp_path / "tests"

    def read(text: str) -> object:
        file.write_text(text)
        return read_tests(file)

    assert read("assert f(1) == 2\n") == [Call("f(1)", 2)]
    assert read('{"stdin": "1", "expected": "2"}\n\n{"expected": "3"}') == [Stdin("1", "2"), Stdin("", "3")]
    for text, message in (
        ("", "holds no tests"),
        ("x = 1", "hold no assert"),
        ("assert (", "the tests are not Python"),
        ('{"stdin": "1"}', 'line 1: needs "expected"'),
        ('{"expected": "1"}\nnope', "line 2: not a JSON object"),
        ('{"expected": "\\ud83d"}', r"line 1: half a character, '\\ud83d'"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            read(text)
        assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot read"):
        read_tests(tmp_path / "missing")


def verdicts(programs: Sequence[Program], workers: int) -> list[tuple[bool, ...]]:
    """Whether the right program of each task passes, then its mutants."""
    with ThreadPoolExecutor(workers) as pool:
        every = [(code, task.tests) for task in programs for code in (task.right, *task.mutants)]
        passed = list(pool.map(lambda given: check(*given).passed, every))
    return [tuple(passed[at : at + 5]) for at in range(0, len(passed), 5)]


RIGHT = (True, False, False, False, False)


def test_fifty_tasks_of_every_kind() -> None:
    assert len(PROGRAMS) == 50 and {len(set(task.mutants) - {task.right}) for task in PROGRAMS} == {4}
    kinds = {kind for task in PROGRAMS for kind in {type(test) for test in task.tests}}
    assert kinds == {Call, Stdin, Statements}
    for task in PROGRAMS:
        for mutant in task.mutants:
            compile(mutant, "<mutant>", "exec")  # wrong, not broken


def test_right_programs_pass_and_mutants_fail() -> None:
    few = [*PROGRAMS[::13], PROGRAMS[37], PROGRAMS[41]]  # 37 reads stdin, 41 is judged
    assert verdicts(few, 2) == [RIGHT] * len(few)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fifty_right_programs_pass_and_two_hundred_mutants_fail_whatever_else_runs() -> None:
    """Three times, eight at once, beside two processes that want all the time there is."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        for _ in range(3):
            assert verdicts(PROGRAMS, 8) == [RIGHT] * 50
    finally:
        for process in busy:
            process.kill()
            process.wait()
