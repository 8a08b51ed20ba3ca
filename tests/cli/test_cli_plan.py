"""`flyweight plan` at the command line: what it prints, its JSON, its figure, and one line for every mistake."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import bench, models
from flyweight.cli import plan
from flyweight.optimal import calibration, speed
from flyweight.optimal.evidence import Known
from flyweight.store import Store
from tests.bench.kit import questions
from tests.cli_kit import Command
from tests.planner_kit import SPEED, machine, said

SHIPPED = calibration.shipped()
ROWS = [
    said(),
    said(strategy="best_of_n", n=4, right=(0.4, 0.5, 0.6), verifier="arithmetic"),
    said(strategy="best_of_n", n=16, right=(0.5, 0.6, 0.7), verifier="arithmetic"),
    said("big", right=(0.45, 0.55, 0.65)),
]
LISTED = [
    Known("small", parameters=1e9, bytes=6e8, pretraining_tokens=1e12),
    Known("big", parameters=3e9, bytes=1.8e9, kv_bytes=2000.0),
]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model that is here and a big one that is not."""
    machine(monkeypatch, ROWS, {"small": SPEED}, LISTED)


def test_a_plan_says_what_why_and_what_else(flyweight: Command) -> None:
    done = flyweight("plan", "--task", "gsm8k")
    assert done.code == 0 and done.err == ""
    assert done.out.startswith("4 of 4 choices that nothing beats")
    assert "best_of_n n=16 (arithmetic)  60.0 % (50-70)" in done.out
    for part in ("Recommendation", "Because", "Break-even", "R = 0.16: small may use 40.5 times", "Assumptions"):
        assert part in done.out
    assert "\n- with --latency below " in done.out.partition("What would change the verdict")[2]
    assert all(len(line) <= 120 for line in done.out.splitlines())


def test_json_has_frontier_recommendation_and_assumptions(flyweight: Command) -> None:
    facts = flyweight("plan", "--task", "gsm8k", "--memory", "2GB", "--latency", "10s", "--json").json
    assert {"frontier", "recommendation", "assumptions"} <= facts.keys()
    best = facts["recommendation"]
    assert (best["model"], best["strategy"], best["n"], best["verifier"]) == ("small", "best_of_n", 16, "arithmetic")
    assert best["reason"] and best["changes"] and best["interval"] == [0.5, 0.7] and best["source"] == "measured"
    seconds = [choice["seconds"] for choice in facts["frontier"]]
    assert seconds == sorted(seconds) and facts["considered"] == 4
    assert facts["break_even"][0]["accuracy"] == 16 and facts["flops_matched"][-1]["times"] == 3.0
    cheap = flyweight("plan", "--task", "gsm8k", "--accuracy", "0.4", "--json").json["recommendation"]
    assert cheap["strategy"] == "greedy" and "--slots 1" not in (cheap["command"] or "")  # not in the catalog


def test_fresh_forgets_what_was_measured(flyweight: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = []
    monkeypatch.setattr(speed, "forget", lambda: forgotten.append(True))
    assert flyweight("plan", "--task", "gsm8k").code == 0 and not forgotten
    assert flyweight("plan", "--task", "gsm8k", "--fresh").code == 0 and forgotten


def test_what_was_measured_outlives_a_mistake(flyweight: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten = []
    monkeypatch.setattr(speed, "forget", lambda: forgotten.append(True))
    assert "unknown model 'smol'" in flyweight("plan", "--task", "gsm8k", "--fresh", "-m", "smol").err
    done = flyweight("plan", "--task", "gsm8k", "--fresh", "--no-measure")
    assert done.code == 2 and "--fresh forgets what was measured, to measure again: drop it or" in done.err
    assert not forgotten


def test_the_command_is_printed_as_a_shell_reads_it(flyweight: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "a folder/with a rather long name/for models of all sizes/and of every kind there is/small model.gguf"
    rows = [replace(ROWS[2], max_tokens=512)]
    machine(monkeypatch, rows, {"small": SPEED}, [replace(LISTED[0], path=path)])
    out = flyweight("plan", "--task", "gsm8k").out
    printed = out.partition("Run it ")[2].partition("\nEvidence")[0]
    assert printed.count("\\\n") == 3 and f"--model '{path}'" in printed
    facts = flyweight("plan", "--task", "gsm8k", "--json").json["recommendation"]
    shown = ["sh", "-c", f"flyweight() {{ printf '%s\\n' \"$@\"; }}\n{printed}"]
    given = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.splitlines()
    assert ["flyweight", *given] == shlex.split(facts["command"])
    assert given[:5] == ["solve", "QUESTION", "--model", path, "--strategy"]


def test_a_calibration_of_something_else(flyweight: Command, tmp_path: Path) -> None:
    mine = next(each for each in SHIPPED if each.kind == "maths")
    file = tmp_path / "mine.json"
    calibration.write(file, [mine])
    asked = ["plan", "--calibration", str(file)]
    done = flyweight(*asked, "--task", "mbpp")
    assert done.code == 2 and f"--calibration {file} was fitted on gsm8k, not on mbpp: see flyweight" in done.err
    other = replace(mine.sources[0], task="math500")
    calibration.write(file, [replace(mine, sources=(*mine.sources, other))])
    done = flyweight(*asked, "--task", "gsm8k")
    assert done.code == 2 and f"--calibration {file} was fitted on gsm8k with math500, not on gsm8k: see" in done.err
    calibration.write(file, [mine])
    done = flyweight(*asked, "--task", "gsm8k", "-m", "small")
    fitted = f"was fitted on {mine.model} ({mine.sha256[:12]}), not on small: fit one with flyweight calibrate"
    assert done.code == 2 and fitted in done.err and done.err.count("\n") == 1
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(b"GGUF, whatever else")
    calibration.write(file, [replace(mine, sha256=models.digest(copy))])
    rows = plan._of_model(file, "gsm8k", [str(copy)])
    assert [each.model for each in rows] == [str(copy)]  # the same file, under the name it was asked for by


def test_runs_of_other_tasks_are_told(flyweight: Command, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    base = bench.Plan("jsonl", data=questions(tmp_path, rows=4), model="toy", strategy="greedy")
    with Store(tmp_path / "runs" / "flyweight.db") as store:
        list(bench.execute(store, [base]))
    done = flyweight("plan", "--task", "gsm8k", "--runs", str(tmp_path / "runs"))
    assert done.code == 0 and done.err == f"{tmp_path / 'runs'} holds no finished run of gsm8k\n"


def test_choosing_among_some(flyweight: Command) -> None:
    facts = flyweight("plan", "--task", "gsm8k", "-m", "small", "--json").json
    assert {choice["model"] for choice in facts["frontier"]} == {"small"} and not facts["break_even"]


def test_a_price_for_the_machine_and_for_a_model(flyweight: Command, tmp_path: Path) -> None:
    result = 'task = "gsm8k"\naccuracy = 0.9\ngenerated = 100\nprompt = 100\n'
    text = f'[[model]]\nname = "far"\nseconds = 2\n[[model.result]]\n{result}'
    (tmp_path / "mine.toml").write_text(text)
    asked = ["plan", "--task", "gsm8k", "--models", str(tmp_path / "mine.toml"), "--price", "far=1/2"]
    facts = flyweight(*asked, "--price", "3600", "--json").json
    assert facts["recommendation"]["model"] == "far" and facts["recommendation"]["dollars"] == pytest.approx(3e-4)
    assert "$0.00030" in flyweight(*asked).out


def test_traffic_sets_r(flyweight: Command) -> None:
    done = flyweight("plan", "--task", "gsm8k", "--tokens-per-day", "1M", "--days", "100", "--json")
    assert [each["ratio"] for each in done.json["flops_matched"]] == [1e-4, None]


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_figure(flyweight: Command, tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"plan.{ending}"
    done = flyweight("plan", "--task", "gsm8k", "--figure", str(file))
    assert done.code == 0 and done.err == f"Wrote {file}.\n"
    first = file.read_bytes()
    assert first.startswith(b"<?xml" if ending == "svg" else b"\x89PNG") and len(first) > 5000
    assert flyweight("plan", "--task", "gsm8k", "--figure", str(file)).code == 0 and file.read_bytes() == first


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--memory", "100MB"], "nothing fits --memory 100 MB: the smallest, small file greedy, needs 1."),
        (["--memory", "2XB"], "--memory '2XB' is not understood: write a number and one of b, kb"),
        (["--latency", "fast"], "--latency 'fast' is not understood"),
        (["--latency", "1ms"], "nothing answers within --latency 1 ms: the fastest, small file greedy"),
        (["--accuracy", "60"], "--accuracy 60 is not allowed: a share above 0, at most 1"),
        (["--accuracy", "0.99"], "nothing is known to reach --accuracy 0.99"),
        (["--tokens-per-day", "lots"], "--tokens-per-day 'lots' is not understood"),
        (["--price", "cheap"], "--price 'cheap' is not understood: write 0.05"),
        (["--price", "gpt=1"], "--price 'gpt=1' is not understood"),
        (["--price", "1", "--price", "2"], "--price 2: an hour of this machine has one price, and 1 was given, too"),
        (["--context", "109"], "--context 109 is too short: a question of gsm8k and one answer take 110 tokens"),
        (["--price", "gpt=1/2"], "unknown model in --price 'gpt': say what is known of it in --models"),
        (["--days", "0"], "--days 0 is not allowed"),
        (["--context", "0"], "--context 0 is not allowed"),
        (["--model", "smol"], "unknown model 'smol'; did you mean 'small'?"),
        (["--models", "none.toml"], "--models none.toml: No such file"),
        (["--runs", "none"], "none/flyweight.db does not exist: record runs with flyweight bench run"),
        (["--calibration", "none.json"], "cannot read none.json: No such file"),
        (["--weights", "int3"], "unknown --weights 'int3' (one of: auto, bf16, file, packed)"),
        (["--figure", "plan.pdf"], "--figure plan.pdf: the ending must be one of .svg, .png"),
    ],
)
def test_mistakes_are_one_line(flyweight: Command, more: list[str], says: str) -> None:
    done = flyweight("plan", "--task", "gsm8k", *more)
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("Error: ") and says in done.err and done.err.count("\n") == 1


def test_tasks_without_evidence(flyweight: Command) -> None:
    assert "unknown task 'gsm9k'; did you mean 'gsm8k'?" in flyweight("plan", "--task", "gsm9k").err
    done = flyweight("plan", "--task", "jsonl")
    assert done.code == 2 and "nothing is known about jsonl (measured: gsm8k): record a run" in done.err
