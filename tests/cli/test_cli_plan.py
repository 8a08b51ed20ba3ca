"""`flyweight plan` at the command line: what it prints, its JSON, its figure, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyweight.optimal import speed
from flyweight.optimal.evidence import Known
from tests.cli_kit import Command
from tests.planner_kit import SPEED, machine, said

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
    assert "\n- --latency below " in done.out.partition("What would change the verdict")[2]
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


def test_choosing_among_some(flyweight: Command) -> None:
    facts = flyweight("plan", "--task", "gsm8k", "-m", "small", "--json").json
    assert {choice["model"] for choice in facts["frontier"]} == {"small"} and not facts["break_even"]


def test_a_price_for_the_machine_and_for_a_model(flyweight: Command, tmp_path: Path) -> None:
    text = '[[model]]\nname = "far"\nseconds = 2\n[[model.result]]\ntask = "gsm8k"\naccuracy = 0.9\ngenerated = 100\n'
    (tmp_path / "mine.toml").write_text(text)
    asked = ["plan", "--task", "gsm8k", "--models", str(tmp_path / "mine.toml"), "--price", "far=1/2"]
    facts = flyweight(*asked, "--price", "3600", "--json").json
    assert facts["recommendation"]["model"] == "far" and facts["recommendation"]["dollars"] == pytest.approx(2e-4)
    assert "$0.00020" in flyweight(*asked).out


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
        (["--price", "gpt=1/2"], "unknown model in --price 'gpt'"),
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
