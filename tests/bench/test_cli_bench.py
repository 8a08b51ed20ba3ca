"""`flyweight bench`: what it prints, how a run is gone on with, and mistakes, each said before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyweight import sandbox
from flyweight.errors import SandboxError
from flyweight.store import Store
from flyweight.testing import ToyPolicy
from tests.bench.kit import Arguments, questions, rows
from tests.cli_kit import Command, UsePolicy

# What it prints ----------------------------------------------------------------------------------------------------


def test_a_table_and_the_way_to_the_report(arguments: Arguments, flyweight: Command, tmp_path: Path) -> None:
    done = flyweight(*arguments("-s", "greedy,best_of_n", "--verifiers", "arithmetic,confidence", "--budgets", "2,4"))
    assert done.code == 0
    head = ["run", "strategy", "verifier", "n", "questions", "right", "95", "%", "tokens/question", "undecided"]
    assert done.out.splitlines()[0].split() == [*head, "truncated", "failed"]
    assert [row[1:5] for row in rows(done.out)] == [
        ["greedy", "-", "-", "6"],
        ["best_of_n", "arithmetic", "2", "6"],
        ["best_of_n", "confidence", "2", "6"],
        ["best_of_n", "arithmetic", "4", "6"],
        ["best_of_n", "confidence", "4", "6"],
    ]
    ids = " ".join(row[0] for row in rows(done.out))
    assert done.err == f"flyweight report {ids} --runs {tmp_path / 'runs'}\n"


def test_json_says_the_same_again_without_a_call(arguments: Arguments, flyweight: Command, policy: UsePolicy) -> None:
    first = flyweight(*arguments("-s", "self_consistency", "-n", "4", "--json")).json
    assert first["strategy"] == "self_consistency" and first["parameters"]["n"] == 4
    assert (first["problems"], first["searched"], first["candidates"], first["new_draws"]) == (6, 6, 24, 24)
    assert first["correct"] + first["wrong"] + first["undecided"] == 6
    assert first["accuracy"] == first["correct"] / 6 and first["ending"] == "finished"
    policy(ToyPolicy(fault=lambda request: pytest.fail("a call")))
    again = flyweight(*arguments("-s", "self_consistency", "-n", "4", "--json")).json
    assert again["new_draws"] == again["new_tokens"] == 0
    now = ("new_draws", "new_tokens", "seconds", "peak_memory_mb")
    assert {key: value for key, value in again.items() if key not in now} == {
        key: value for key, value in first.items() if key not in now
    }


@pytest.mark.usefixtures("no_model")
def test_a_dry_run_says_what_it_would_take_and_leaves_no_trace(
    arguments: Arguments, flyweight: Command, tmp_path: Path
) -> None:
    done = flyweight(*arguments("-s", "greedy,adaptive_consistency,beam_search", "--budgets", "8", "--dry-run"))
    assert done.code == 0 and not (tmp_path / "runs").exists()
    cells = [line.replace("≤ ", "≤").replace("≥ ", "≥").split() for line in done.out.splitlines()[1:4]]
    assert [cell[3:7] for cell in cells] == [["6", "0", "6", "0"], ["6", "0", "≤48", "?"], ["6", "0", "≥48", "?"]]
    assert "assumed: 200 tokens a sample" in done.out
    said = [json.loads(line) for line in flyweight(*arguments("-s", "greedy", "--dry-run", "--json")).out.splitlines()]
    assert said[0]["draws"] == 6 and said[0]["exact"] is True


def test_a_dry_run_counts_what_is_there(arguments: Arguments, flyweight: Command) -> None:
    flyweight(*arguments("-s", "self_consistency", "-n", "4"))
    found = flyweight(*arguments("-s", "best_of_n", "-n", "8", "--dry-run", "--json")).json
    assert (found["on_record"], found["draws"], found["stored"], found["reread"]) == (0, 48, 24, 24)
    wide = arguments("-s", "self_consistency,best_of_n", "-n", "8", "--dry-run")
    assert flyweight(*wide).out.endswith("\nat most 24 for best_of_n self n=8.\n")
    assert "at most" not in flyweight(*wide, "--verifiers", "arithmetic").out


def test_a_strategy_may_have_parameters_of_its_own(arguments: Arguments, flyweight: Command) -> None:
    names = "self_consistency:n=2:temperature=0.9,best_of_n,greedy"
    done = flyweight(*arguments("-s", names, "--budgets", "4", "--temperature", "0.5", "--json"))
    said = [json.loads(line)["parameters"] for line in done.out.splitlines()]
    assert said == [{"n": 2, "temperature": 0.9}, {"n": 4, "temperature": 0.5, "aggregation": "last"}, {}]


def test_resume_and_retry_need_only_the_run(
    arguments: Arguments, flyweight: Command, policy: UsePolicy, tmp_path: Path
) -> None:
    folder = ["--runs", str(tmp_path / "runs")]
    command = arguments("-s", "greedy", "--fail-on-error", "0", "--quiet")
    policy(ToyPolicy(fault=lambda request: "broken" if "3" in request.node.root.messages[-1].content else None))
    failed = flyweight(*command)
    run = rows(failed.out)[0][0]
    assert failed.code == 3 and rows(failed.out)[0][-1] == "1"
    assert failed.err == (
        f"Error: 1 of 6 searches failed, the last with: broken; once repaired: flyweight bench retry {run}"
        f" --runs {folder[1]} (--fail-on-error 1 never stops)\n"
    )
    policy(ToyPolicy())
    assert rows(flyweight("bench", "resume", run, *folder).out)[0][-1] == "1"
    again = flyweight("bench", "retry", "last", *folder, "--json").json
    assert again["run"].startswith(run) and (again["errors"], again["new_draws"]) == (0, 1)


def test_grades_can_be_left_for_later(arguments: Arguments, flyweight: Command, tmp_path: Path) -> None:
    first = flyweight(*arguments("-s", "greedy", "--predict-only"))
    assert rows(first.out)[0][5:7] == ["-", "-"]
    later = flyweight("bench", "grade", "last", "--runs", str(tmp_path / "runs"))
    assert later.code == 0 and rows(later.out)[0][0] == rows(first.out)[0][0]
    assert rows(later.out)[0][5:] == rows(flyweight(*arguments("-s", "greedy")).out)[0][5:] != rows(first.out)[0][5:]


def test_a_limit_on_the_whole_says_how_to_go_on(arguments: Arguments, flyweight: Command) -> None:
    done = flyweight(*arguments("-s", "self_consistency,greedy", "--max-tokens-total", "100", "--quiet"))
    assert done.code == 5
    assert done.err.startswith("--max-tokens-total 100 reached, 1 of 2 runs not begun: the same command goes on, or: ")
    rest = flyweight(*done.err.split("flyweight ")[1].split(), "--json").json
    assert rest["searched"] == 6 and rest["ending"] == "finished"


# Mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("-s greedi", "unknown strategy 'greedi'; did you mean 'greedy'"),
        ("-s ,", "--strategies ',' names nothing"),
        ("-s best_of_n --verifiers arithmetik", "unknown verifier 'arithmetik'; did you mean 'arithmetic'"),
        ("-s best_of_n --verifiers oracle", "the verifier oracle sees the answers"),
        ("-s greedy -n 4", "no strategy of greedy has a parameter n: drop --budgets (or -n, FLYWEIGHT_N)"),
        ("-s greedy,sample --budgets 4", "no strategy of greedy, sample has a parameter n: drop --budgets"),
        ("-s best_of_n --set widht=4", "unknown parameter of best_of_n 'widht'"),
        ("-s sample --temperature 9", "temperature=9.0 is not allowed"),
        ("-s sample --temperature 1 --set temperature=1", "temperature is given twice"),
        ("-s best_of_n --set n=3 -n 4", "n is given twice: --set n=3 and -n"),
        ("--budgets 4,x", "--budgets: 'x' is not a whole number"),
        ("--budgets 4 -n 4", "--budgets are several"),
        ("--limit 7", "--limit 7 is out of range: there are 6 problems"),
        ("--limit 3-2", "--limit 3-2 is not allowed"),
        ("--ids nothing", "unknown problem 'nothing'"),
        ("--split tset", "unknown split of jsonl 'tset'"),
        ("--set-task grader=math", "unknown setting of task jsonl 'grader'"),
        ("--set-task checker", "--set-task 'checker': write key=value"),
        ("--set-task checker=5", "unknown checker '5'"),
        ("--set-task data=x", "--set-task 'data=x': write --data instead"),
        ("--set-task split=x", "--set-task 'split=x': write --split instead"),
        ("-s best_of_n:three", "--strategies 'best_of_n:three': 'three' is no parameter; write name:key=value"),
        ("--ids ,", "--ids ',' names nothing"),
        ("--verifiers ,", "--verifiers ',' names nothing"),
        ("--limit 1_0", "--limit 1_0 is not allowed"),
        ("--limit 1.", "--limit 1. is not allowed"),
        ("--concurrency 0", "--concurrency 0 is not allowed"),
        ("--max-time 0", "--max-time 0 is not allowed"),
        ("--max-tokens-total 0", "--max-tokens-total 0 is not allowed"),
        ("--fail-on-error 2", "--fail-on-error 2 is not allowed"),
        ("--deadline -1", "--deadline -1 is not allowed"),
        ("--context 0", "--context 0 is not allowed"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(
    more: str, says: str, arguments: Arguments, flyweight: Command, tmp_path: Path
) -> None:
    done = flyweight(*arguments(*more.split()))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert says in done.err
    assert not (tmp_path / "runs").exists()


def test_a_model_that_is_not_there(arguments: Arguments, flyweight: Command, tmp_path: Path) -> None:
    done = flyweight(*arguments("-m", str(tmp_path / "none.gguf")))
    assert (done.code, done.err.count("\n")) == (3, 1) and "none.gguf" in done.err
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be(arguments: Arguments, flyweight: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = flyweight(*arguments(out="file"))
    assert (done.code, done.err.count("\n")) == (3, 1) and "cannot be made" in done.err


def test_a_folder_somebody_writes(arguments: Arguments, flyweight: Command, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with Store(tmp_path / "runs" / "flyweight.db"):
        done = flyweight(*arguments())
    assert (done.code, done.err.count("\n")) == (2, 1) and "already open for writing" in done.err


@pytest.mark.parametrize("name", ["abc", "deadbeef", "last"])
def test_a_run_that_is_not_there(name: str, arguments: Arguments, flyweight: Command, tmp_path: Path) -> None:
    folder = ["--runs", str(tmp_path / "runs")]
    assert "does not exist" in flyweight("bench", "resume", name, *folder).err
    flyweight(*arguments("-s", "greedy"))
    done = flyweight("bench", "resume", name, *folder)
    assert done.code == (0 if name == "last" else 2)


@pytest.mark.parametrize("setting", ["count=x", "count=2.5", "count=true"])
def test_a_setting_of_another_kind(setting: str, flyweight: Command, tmp_path: Path) -> None:
    done = flyweight("bench", "run", "countdown", "--set-task", setting, "-m", "toy", "--out", str(tmp_path / "runs"))
    assert (done.code, done.err.count("\n")) == (2, 1) and "is not allowed: a whole number" in done.err


@pytest.mark.parametrize("command", ["resume", "retry", "grade"])
def test_a_run_that_is_no_benchmark(command: str, flyweight: Command, tmp_path: Path) -> None:
    with Store(tmp_path / "flyweight.db") as store:
        store.run({"task": "mine"})
    done = flyweight("bench", command, "last", "--runs", str(tmp_path))
    assert (done.code, done.err.count("\n")) == (2, 1) and "is no benchmark: its configuration lacks" in done.err


def test_problems_that_have_changed_are_not_the_run(arguments: Arguments, flyweight: Command, tmp_path: Path) -> None:
    flyweight(*arguments("-s", "greedy"))
    questions(tmp_path, rows=5)
    done = flyweight("bench", "resume", "last", "--runs", str(tmp_path / "runs"))
    assert done.code == 2 and "its problems or settings have changed" in done.err


@pytest.mark.usefixtures("no_model")
def test_code_without_a_sandbox(flyweight: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **settings: object) -> object:
        raise SandboxError("no sandbox here: install bubblewrap")

    monkeypatch.setattr(sandbox, "check", missing)
    done = flyweight("bench", "run", "mbpp", "--limit", "2", "-m", "toy", "--out", str(tmp_path / "runs"))
    assert (done.code, done.err) == (4, "Error: no sandbox here: install bubblewrap\n")
