"""Executed tests and commands as verifiers, alone and behind `flyweight solve`."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from flyweight import api, sandbox, verifiers
from flyweight.cli.main import run
from flyweight.errors import BackendError, ConfigError, SandboxError
from flyweight.optimal import calibration
from flyweight.sandbox import bubblewrap, cell
from flyweight.testing import Draft, NoModels, ToyPolicy, check_verifier, drive
from flyweight.types import Message, Node, Problem
from flyweight.verifiers import execution

DOUBLES = ("return x * 2", "return x + x", "y = x\n    return x + y")
WRONG = "return x ** 2"
DRAFTS = [f"Here:\n```python\ndef double(x):\n    {body}\n```" for body in (WRONG, WRONG, *DOUBLES)]


def solutions(*texts: str) -> list[Node]:
    root = Node(messages=(Message("user", "?"),), key="r")
    return [Node(root, text, draw=k, key=str(k)) for k, text in enumerate(texts)]


class Notes(NoModels):
    """Models that are not asked, and what is noted."""

    def __init__(self) -> None:
        self.facts: list[dict[str, object]] = []

    def note(self, **facts: object) -> None:
        self.facts.append(facts)


def values(verifier: Any, problem: Problem, *texts: str) -> list[float]:
    scores = drive(verifier.score(problem, solutions(*texts), Notes()))
    assert [score.kind for score in scores] == [verifier.name] * len(texts)
    return [score.value for score in scores]


def test_the_score_is_the_share_of_tests_passed(tmp_path: Path) -> None:
    file = tmp_path / "tests.py"
    file.write_text("assert double(2) == 4\nassert double(3) == 6\nassert double('a') == 'aa'\nassert double(0) == 0\n")
    judge = verifiers.load("tests", file=str(file))
    assert values(judge, Problem("p", "?"), *DRAFTS[1:3], "no code", "```\nx = (\n```") == [0.5, 1.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match="seconds 0 is not allowed"):
        verifiers.load("tests", seconds=0)
    with pytest.raises(ConfigError, match="seconds inf is not allowed"):
        execution.Command("true", seconds=float("inf"))


def test_what_each_test_said_is_noted() -> None:
    notes = Notes()
    meta = {"public": ("assert double(2) == 4", "assert double(3) == 6")}
    drive(verifiers.load("tests").score(Problem("p", "?", meta=meta), solutions(DRAFTS[0], "no code"), notes))
    assert notes.facts == [{"verifier": "tests", "failures": {"0": ("", "another value: 9"), "1": None}}]


def test_a_problem_may_bring_its_public_tests() -> None:
    judge = verifiers.load("tests")
    meta = {"public": ("assert double(2) == 4", "assert double(3) == 6"), "before": "k = 2", "entry": "double"}
    assert values(judge, Problem("p", "?", meta=meta), DRAFTS[0], "```\ndouble = lambda x: k * x\n```") == [0.5, 1.0]
    assert values(judge, Problem("p", "?", meta={"public": ()}), DRAFTS[0], "no code") == [0.5, 0.0]
    with pytest.raises(BackendError, match="problem 'p' has none"):
        values(judge, Problem("p", "?"), DRAFTS[0])


def test_a_command_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("check.py").write_text(
        "import sys\nanswer = sys.stdin.read()\n"
        "ok = answer in open('/candidate/text').read() and open('/candidate/question').read() == '?'\n"
        "sys.exit(0 if ok and answer == '12' else 1)"
    )
    judge = execution.Command("python check.py")
    assert values(judge, Problem("p", "?"), r"so \boxed{12}", r"so \boxed{13}", "I do not know") == [1.0, 0.0, 0.0]
    assert values(execution.Command("grep -q 1"), Problem("p", "?"), r"\boxed{12}", r"\boxed{3}") == [1.0, 0.0]
    assert values(execution.Command("true"), Problem("p", "?"), "nothing") == [0.0]
    (tmp_path / "house" / "me").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "house" / "me"))
    Path("link").symlink_to("house")
    Path("sub").mkdir()
    given = f"sh -c 'exit 0' / ~ {tmp_path}/house/me house link . sub -c"
    assert execution.Command(given).visible == (str(tmp_path / "sub"),)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "the check is empty"),
        ("python 'check", "cannot be read"),
        ("no-such-command x", "there is no command 'no-such-command'"),
        ("./missing.sh", r"there is no file './missing\.sh'"),
    ],
)
def test_a_command_that_cannot_be(command: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        execution.Command(command)


def test_they_keep_the_contract_of_verifiers(tmp_path: Path) -> None:
    file = tmp_path / "tests.py"
    file.write_text("assert f(1) == 1")
    check_verifier(verifiers.load("tests", file=str(file)))
    check_verifier(execution.Command("true"))


@pytest.fixture
def coder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that writes the drafts, each once, and knows that it was asked for code."""
    drafts = list(DRAFTS)

    def write(question: str, so_far: str, rng: random.Random, sampling: object) -> Draft:
        return Draft(drafts.pop(0))

    monkeypatch.setattr(api, "find_policy", lambda model, **settings: lambda: ToyPolicy(write, slots=1))


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    file = tmp_path / "tests.py"
    file.write_text("assert double(3) == 6\n")
    return file


@pytest.mark.parametrize("strategy", ["best_of_n", "self_consistency", "weighted_best_of_n"])
def test_solve_with_tests(strategy: str, tests: Path, coder: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Two wrong programs of the same text stand against three right ones that differ."""
    words = ["solve", "Double it.", "--model", "toy", "-s", strategy, "-n", "5", "--tests", str(tests), "--json"]
    assert run(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verifier"] == "self" and any(body in said["answer"] for body in DOUBLES)
    assert [candidate["class"] for candidate in said["candidates"]] == [1, 1, 0, 0, 0]
    if strategy != "self_consistency":
        assert [candidate["score"] for candidate in said["candidates"]] == [0, 0, 1, 1, 1]


def test_solve_with_pairs_of_input_and_output(tmp_path: Path, coder: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs that only define a function print nothing; only the verifier asked for says so."""
    file = tmp_path / "tests.jsonl"
    file.write_text('{"stdin": "", "expected": ""}\n{"stdin": "3", "expected": "6"}\n')
    words = ["solve", "Double it.", "--model", "toy", "-s", "best_of_n", "-n", "5", "--tests", str(file), "--json"]
    assert run([*words, "--verifier", "tests"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verifier"] == "tests" and {each["score"] for each in said["candidates"]} == {0.5}


def test_solve_finds_the_calibration_of_code(
    tests: Path, coder: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`auto` with tests looks for the calibration of code, and where there is none says so."""
    looked: list[str] = []
    monkeypatch.setattr(calibration, "find", lambda held, sha256, kind: looked.append(kind))
    words = ["solve", "Double it.", "--model", "toy", "-s", "auto", "-n", "4", "--tests", str(tests)]
    assert run(words) == 0
    assert set(looked) == {"code"} and "no calibration" in capsys.readouterr().out


def test_solve_with_a_check(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["solve", "Add 3 and 4.", "--model", "toy", "-s", "best_of_n", "-n", "3", "--check", "grep -qx 7", "--json"]
    assert run(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verifier"] == "check"
    assert all(candidate["score"] == (candidate["answer"] == "7") for candidate in said["candidates"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tests", "TESTS", "--check", "true"], "give --tests or --check, not both"),
        (["--check", "true", "--verifier", "p_true"], "--check is the verifier: drop --verifier p_true"),
        (["--tests", "TESTS", "--kind", "json"], "--tests reads answers as code: drop --kind json"),
        (["--tests", "missing.py"], "cannot read missing.py: No such file"),
        (["--tests", "EMPTY"], "EMPTY holds no tests"),
        (["--check", "no-such-command"], "there is no command 'no-such-command'"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, tests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = tmp_path / "EMPTY"
    empty.write_text("")
    given = [{"TESTS": str(tests), "EMPTY": str(empty)}.get(word, word) for word in words]
    assert run(["solve", "?", "--model", "toy", *given]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err.replace(str(empty), "EMPTY")


def test_tests_are_for_one_question(tests: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("a\nb\n")
    assert run(["solve", "--model", "toy", "--file", str(questions), "--tests", str(tests)]) == 2
    assert "--tests belongs to one question" in capsys.readouterr().err


def test_without_a_sandbox_solve_ends_with_4(
    tests: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> list[str]:
        raise SandboxError("bubblewrap is missing: install it")

    monkeypatch.setattr(cell, "_working", "")
    monkeypatch.setattr(bubblewrap, "binaries", missing)
    for words in (["--tests", str(tests)], ["--check", "true"]):
        assert run(["solve", "?", "--model", "toy", *words]) == 4
        assert capsys.readouterr() == ("", "Error: bubblewrap is missing: install it\n")


def test_a_sandbox_that_breaks_ends_the_command_with_4_after_what_was_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    execute, ran = sandbox.execute, []

    def breaking(*args: Any, **settings: Any) -> sandbox.SandboxResult:
        ran.append(args)
        if len(ran) > 4:
            raise SandboxError("it broke")
        return execute(*args, **settings)

    monkeypatch.setattr(sandbox, "execute", breaking)
    questions = tmp_path / "questions.txt"
    questions.write_text("".join(f"Add {k} and 4.\n" for k in range(9)))
    words = ["solve", "--file", str(questions), "--model", "toy", "-s", "best_of_n", "-n", "2", "--check", "true"]
    assert run([*words, "--json"]) == 4
    out, err = capsys.readouterr()
    assert err == "Error: it broke\n"
    done = [json.loads(line)["error"] for line in out.splitlines()]
    assert done in ([None], [None, None]), "two questions' programs had run, and the first one's were waited for first"
