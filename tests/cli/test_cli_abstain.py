"""`--confidence` and its maps on the command line: what is said below the dial, and which maps are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from flyweight import abstain, api
from flyweight.cli import render
from flyweight.optimal import calibration
from flyweight.select import lead
from flyweight.testing import Draft, ToyPolicy
from flyweight.types import Node, Problem, Result, Sampling
from tests.cli_kit import QUESTION, Command, UsePolicy, solve
from tests.test_abstain import MAP
from tests.test_optimal_fit import made


@pytest.fixture
def map_file(tmp_path: Path) -> str:
    abstain.write(tmp_path / "map.json", [MAP])
    return str(tmp_path / "map.json")


def says(*answers: str) -> ToyPolicy:
    """States these answers, in this order, again and again."""
    said = 0

    def write(question: str, so_far: str, rng: Random, sampling: Sampling) -> Draft:
        nonlocal said
        said += 1
        return Draft(f"\\boxed{{{answers[(said - 1) % len(answers)]}}}", -0.5)

    return ToyPolicy(write, slots=1)


def row(out: str, name: str) -> Sequence[str]:
    """What stands behind the name, if there is such a row."""
    return re.findall(rf"^{name} +(.*)$", out, re.MULTILINE)


def test_below_the_dial_the_answer_is_a_guess(flyweight: Command, policy: UsePolicy, map_file: str) -> None:
    asked = solve(QUESTION, "-n", "5", "--confidence", "0.6", "--confidence-map", map_file)
    policy(says("12", "13", "12", "14", "12"))
    done = flyweight(*asked)
    assert done.code == 0
    below = MAP(lead(3, 1))
    assert 0.5 < below < 0.6
    assert row(done.out, "Answer") == [f"not sure (p≈{int(100 * below) / 100}): 12"]
    assert row(done.out, "Confidence") == [f"{round(100 * below)} % that it is right"]
    assert not row(done.out, "Agreement")
    policy(says("12", "13", "12", "14", "12"))
    assert flyweight(*asked, "--quiet").out == f"not sure (p≈{int(100 * below) / 100}): 12\n"
    policy(says("12", "13", "12", "14", "12"))
    facts = flyweight(*asked, "--json").json
    assert (facts["answer"], facts["confidence"], facts["calibrated"], facts["sure"]) == ("12", below, True, False)
    assert facts["stopped"] == "done"


def test_at_the_dial_the_search_ends_and_the_answer_stands(
    flyweight: Command, policy: UsePolicy, map_file: str
) -> None:
    policy(says("12"))
    done = flyweight(*solve(QUESTION, "-n", "9", "--confidence", "0.6", "--confidence-map", map_file))
    assert row(done.out, "Answer") == ["12"] and row(done.out, "Stopped") == ["confident"]
    assert row(done.out, "Votes") == ["12: 2 of 2"]


def test_without_a_map_no_probability_is_said(flyweight: Command, policy: UsePolicy) -> None:
    policy(says("12", "13"))
    done = flyweight(*solve(QUESTION, "-n", "5", "--confidence", "0.8"))
    assert row(done.out, "Answer") == ["not sure (3 of 5 agree): 12"]
    assert row(done.out, "Agreement") == ["3 of 5 agree"]
    assert "%" not in done.out and "≈" not in done.out
    policy(says("12", "13"))
    assert row(flyweight(*solve(QUESTION, "-n", "1", "--confidence", "0.8")).out, "Answer") == [
        "not sure (no second answer to compare with): 12"
    ]


def test_compare_shows_probabilities_alone(flyweight: Command) -> None:
    done = flyweight("compare", QUESTION, "-m", "toy", "--strategies", "self_consistency:n=4")
    assert done.out.splitlines()[1].split()[-4] == "-"


def test_chat_says_when_it_is_not_sure(flyweight: Command, policy: UsePolicy) -> None:
    policy(says("12", "13"))
    done = flyweight("chat", "-m", "toy", "-n", "5", "--confidence", "0.8", stdin=QUESTION + "\n")
    assert f"{api.DEFAULT_STRATEGY} n=5 · not sure (3 of 5 agree) · " in done.err


@pytest.fixture
def fitted_file(tmp_path: Path) -> str:
    path = tmp_path / "c.json"
    calibration.write(path, [made("", model="toy", verifier="arithmetic")])
    return str(path)


def test_compare_goes_by_the_calibration_of_each(flyweight: Command, fitted_file: str) -> None:
    usual = [QUESTION, "-m", "toy", "--verifier", "arithmetic", "--json"]
    alone = flyweight("solve", *usual, "--set", f"calibration={fitted_file}").json
    assert alone["calibrated"]
    choices = f"greedy,auto:calibration={fitted_file},auto:calibration=published"
    facts = [json.loads(line) for line in flyweight("compare", *usual, "-s", choices).out.splitlines()]
    assert [row["calibrated"] for row in facts] == [False, True, False]
    assert facts[1]["confidence"] == alone["confidence"]


def test_chat_goes_by_the_calibration_that_was_named_last(flyweight: Command, fitted_file: str) -> None:
    usual = ["chat", "-m", "toy", "--verifier", "arithmetic", "--confidence", "1"]
    script = f"{QUESTION}\n/strategy auto calibration=published\n{QUESTION}\n/strategy auto calibration={fitted_file}\n"
    script += f"/strategy auto calibration=none.json\n{QUESTION}\n/verifier form\n/verifier arithmetic\n{QUESTION}\n"
    done = flyweight(*usual, "--set", f"calibration={fitted_file}", stdin=script)
    said = re.findall(r"not sure \((p≈|\d+ of \d+ agree)", done.err)
    assert [each == "p≈" for each in said] == [True, False, True, True], done.err
    assert "Error: cannot read none.json: No such file or directory\n" in done.err


def test_demo_goes_by_the_calibration(flyweight: Command, fitted_file: str) -> None:
    facts = flyweight("demo", "-m", "toy", "--verifier", "arithmetic", "--set", f"calibration={fitted_file}", "--json")
    for question in facts.json["questions"]:
        greedy, searched = question["results"]
        assert not greedy["calibrated"] and (searched["calibrated"] or searched["confidence"] is None)
    assert any(question["results"][1]["calibrated"] for question in facts.json["questions"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--kind", "choice"], "holds for toy (math), not for toy (choice): fit one with flyweight bench calibrate"),
        (["-s", "best_of_n"], "not for best_of_n {'n': 16, 'temperature': 0.7"),
        (["--set", "temperature=1.1"], "not for self_consistency {'n': 16, 'temperature': 1.1}"),
    ],
)
def test_a_map_that_does_not_hold_is_refused(
    more: list[str], said: str, flyweight: Command, map_file: str, no_model: None
) -> None:
    done = flyweight(*solve(QUESTION, "--confidence-map", map_file, *more))
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert said in done.err


def test_a_damaged_map_is_refused(flyweight: Command, tmp_path: Path, no_model: None) -> None:
    path = tmp_path / "map.json"
    abstain.write(path, [replace(MAP, model="someone's")])
    done = flyweight(*solve(QUESTION, "--confidence-map", str(path)))
    assert done.code == 2 and "holds for someone's (math), not for toy (math)" in done.err
    path.write_text(path.read_text("utf-8")[:-20], "utf-8")
    done = flyweight(*solve(QUESTION, "--confidence-map", str(path)))
    assert done.code == 2 and "holds no confidence maps" in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("p", "said"), [(0.5996, "0.59"), (0.3, "0.3"), (0.051, "0.05"), (0.9999, "0.99"), (0.004, "0")]
)
def test_what_is_missing_is_never_rounded_away(p: float, said: str) -> None:
    node = Node(text="12", key="12", parent=Node())
    result = Result(Problem("q", "?"), node, "12", (), confidence=p, calibrated=True, sure=False)
    assert render.unsure(result) == f"not sure (p≈{said}): "
