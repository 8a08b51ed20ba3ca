"""Exit codes, and mistakes found before they cost anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyweight import api
from flyweight.testing import ToyPolicy
from tests.cli_kit import QUESTION, Command, UsePolicy, solve

MISTAKES = [
    (["solve", QUESTION, "-s", "greed"], "unknown strategy 'greed'; did you mean 'greedy'?"),
    (["solve", QUESTION, "-s", "greedy", "-n", "4"], "greedy has no parameter n: drop -n (or FLYWEIGHT_N), or"),
    (["solve", QUESTION, "-s", "beam_search", "--set", "widht=4"], "did you mean 'width'?"),
    (["solve", QUESTION, "--set", "temperature"], "write key=value"),
    (["solve", QUESTION, "-s", "sample", "--set", "temperature=hot"], "temperature='hot' is not allowed: a number"),
    (["solve", QUESTION, "-n", "0"], "n=0 is not allowed"),
    (["solve", QUESTION, "-n", "4", "--set", "n=5"], "n is given twice: 4 and 5"),
    (["solve", QUESTION, "-n", "many"], "Invalid value for '-n' (env var: 'FLYWEIGHT_N'): 'many' is not a whole"),
    (["solve", QUESTION, "--seed", "1.5"], "'1.5' is not a whole number"),
    (["solve", QUESTION, "--deadline", "soon"], "'soon' is not a number"),
    (["solve", QUESTION, "-s", "beam_search", "-n", "6", "--set", "width=4"], "n=6 is not a multiple of width=4"),
    (["solve", QUESTION, "--verifier", "arithmetik"], "did you mean 'arithmetic'?"),
    (["solve", QUESTION, "--verifier", "oracle"], "needs the known answers"),
    (["solve", QUESTION, "--kind", "maths"], "unknown answer kind 'maths'"),
    (["solve", QUESTION, "--budget-tokens", "0"], "--budget-tokens 0 is not allowed"),
    (["solve", QUESTION, "--budget-verifications", "-1"], "--budget-verifications -1 is not allowed"),
    (["solve", QUESTION, "--deadline", "0"], "--deadline 0 is not allowed: seconds above 0"),
    (["solve", QUESTION, "--deadline", "nan"], "--deadline nan is not allowed"),
    (["solve", QUESTION, "--confidence", "1.5"], "--confidence 1.5 is not allowed"),
    (["solve", QUESTION, "--max-tokens", "0"], "--max-tokens 0 is not allowed"),
    (["solve", QUESTION, "--context", "-5"], "--context -5 is not allowed"),
    (["solve", QUESTION, "--file", "questions.txt"], "give a question or --file, not both"),
    (["solve", "--file", "none.txt"], "cannot read none.txt: No such file"),
    (["solve", "   "], "the question is empty"),
    (["solve"], "the question is empty"),
    (["solve", QUESTION, "--modle", "toy"], "--model"),
    (["slove", QUESTION], "Did you mean 'solve', 'serve'?"),
    (["compare", QUESTION, "--strategies", "greedy,self_consistncy"], "did you mean 'self_consistency'?"),
    (["compare", QUESTION, "--strategies", "greedy", "-n", "4"], "no strategy of greedy has a parameter n: drop -n"),
    (["compare", QUESTION, "--strategies", ","], "names no strategy"),
    (["compare", QUESTION, "-m", "toy", "--set", "calibration=none.json"], "cannot read none.json: No such file"),
    (["chat", "-m", "toy", "--set", "calibration=none.json"], "cannot read none.json: No such file"),
    (["demo", "-m", "toy", "--set", "calibration=none.json"], "cannot read none.json: No such file"),
    (["serve", "--port", "70000"], "Error: --port 70000 is not allowed: a whole number from 0 to 65535\n"),
    (["serve", "--max-queued", "-1"], "Error: --max-queued -1 is not allowed: a whole number from 0\n"),
    (["chat", "-s", "greed"], "did you mean 'greedy'?"),
    (["demo", "-s", "greed"], "did you mean 'greedy'?"),
    (["list", "strategy"], "did you mean 'strategies'?"),
]  # fmt: skip


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(a)[:60] for a, _ in MISTAKES])
def test_a_mistake_is_one_line_before_any_model_is_loaded(
    flyweight: Command, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    done = flyweight(*arguments)
    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("Error: ") and done.err.count("\n") == 1
    assert said in done.err


def test_a_model_nobody_has_is_told_apart_from_one_not_pulled(
    flyweight: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLYWEIGHT_HOME", str(tmp_path))
    unknown = flyweight("solve", QUESTION, "--model", "qwen2.5-coder-0.6b")
    assert unknown.code == 2 and "did you mean 'qwen2.5-coder-0.5b'?" in unknown.err
    missing = flyweight("solve", QUESTION)
    assert missing.code == 3 and "run: flyweight models pull" in missing.err and missing.out == ""


def test_a_failing_policy_is_exit_3_with_the_reason(flyweight: Command, policy: UsePolicy) -> None:
    policy(ToyPolicy(fault=lambda request: "the dog\x1b[2J ate it"))
    done = flyweight(*solve(QUESTION))
    assert done.code == 3
    assert done.err == "Error: the dog\\x1b[2J ate it\n"
    facts = flyweight(*solve(QUESTION, "--json"))
    assert facts.code == 3 and facts.json["stopped"] == "error" and facts.json["answer"] is None


def test_a_bug_is_exit_1_and_debug_shows_where(flyweight: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("cheese")

    monkeypatch.setattr(api, "find_policy", broken)
    done = flyweight(*solve(QUESTION))
    assert done.code == 1 and done.err.startswith("Error: RuntimeError: cheese") and done.err.count("\n") == 1
    for arguments in (("--debug", *solve(QUESTION)), (*solve(QUESTION), "--debug")):
        with pytest.raises(RuntimeError, match="cheese"):
            flyweight(*arguments)


def test_a_budget_that_ends_before_any_answer_is_exit_5(flyweight: Command) -> None:
    done = flyweight(*solve(QUESTION, "--budget-tokens", "5", "--json"))
    assert done.code == 5
    assert (done.json["stopped"], done.json["answer"]) == ("budget", None)
    assert done.json["usage"]["generated_tokens"] == 5
    text = flyweight(*solve(QUESTION, "--budget-tokens", "5"))
    assert "Answer      none found" in text.out and "Stopped     budget" in text.out


def test_a_budget_that_leaves_an_answer_is_exit_0(flyweight: Command) -> None:
    done = flyweight(*solve(QUESTION, "-s", "self_consistency", "-n", "16", "--budget-tokens", "600", "--json"))
    assert done.code == 0
    assert (done.json["stopped"], done.json["answer"]) == ("budget", "12")


def test_enough_confidence_stops_early(flyweight: Command) -> None:
    done = flyweight(*solve(QUESTION, "-s", "adaptive_consistency", "-n", "64", "--confidence", "0.6", "--json"))
    assert done.code == 0 and done.json["stopped"] in ("confident", "done")
    assert done.json["confidence"] >= 0.6 and len(done.json["candidates"]) < 64


def test_a_deadline_ends_a_slow_search(flyweight: Command, policy: UsePolicy) -> None:
    policy(ToyPolicy(delay=0.02))
    done = flyweight(*solve(QUESTION, "--deadline", "0.1", "--json"))
    assert (done.code, done.json["stopped"]) == (5, "deadline")


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    "arguments",
    [
        ["solve", "--file", "mine"],
        ["solve", QUESTION, "--tests", "mine"],
        ["solve", QUESTION, "-s", "auto", "--set", "calibration=mine"],
        ["compare", QUESTION, "--strategies", "auto:calibration=mine"],
        ["chat", "--set", "calibration=mine"],
        ["demo", "--set", "calibration=mine"],
    ],
    ids=" ".join,
)
def test_a_trace_replaces_nothing_that_is_read(
    flyweight: Command, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "assert double(2) == 4\n"
    Path("mine").write_text(text, "utf-8")
    Path("link").symlink_to("mine")
    for name in ("mine", "./mine", "link"):
        done = flyweight(*arguments, "--model", "toy", "--trace", name)
        said = f"Error: --trace {Path(name)} would replace mine, which is read: name another file\n"
        assert (done.code, done.out, done.err) == (2, "", said)
    assert Path("mine").read_text("utf-8") == text


@pytest.mark.parametrize("command", [("compare", QUESTION), ("chat",), ("demo",)])
def test_a_bigger_model_nobody_has_is_found_before_anything_is_searched(
    flyweight: Command, command: tuple[str, ...]
) -> None:
    done = flyweight(*command, "-m", "toy", "--set", "bigger=nope")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1) and "unknown model 'nope'" in done.err


def test_compare_says_in_full_why_a_strategy_failed(flyweight: Command, policy: UsePolicy) -> None:
    why = "the dog ate " + "and ate " * 20 + "it"
    policy(ToyPolicy(fault=lambda request: why))
    for more in ((), ("--json",)):
        done = flyweight("compare", QUESTION, "-s", "greedy,self_consistency:n=2", *more)
        assert done.code == 3
        assert done.err == f"Error: greedy: {why}\nError: self_consistency n=2: {why}\n"


@pytest.mark.usefixtures("no_model")
def test_a_trace_that_cannot_be_opened_is_a_file_that_could_not_be_written(flyweight: Command) -> None:
    done = flyweight("solve", QUESTION, "--trace", "no/such/folder/t.jsonl")
    said = "Error: cannot write the trace no/such/folder/t.jsonl: No such file or directory\n"
    assert (done.code, done.out, done.err) == (3, "", said)


def test_a_trace_on_a_full_disk_is_reported_after_the_result(flyweight: Command) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = flyweight(*solve(QUESTION, "--quiet", "--trace", "/dev/full"))
    assert done.code == 3 and done.out == "12\n"
    assert done.err == "Error: the trace /dev/full is incomplete: No space left on device\n"
