"""`flyweight bench calibrate`: a map from a recorded run, and the runs it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight import abstain
from flyweight.bench import Plan
from flyweight.cli.bench_calibrate import usable
from flyweight.errors import ConfigError
from flyweight.select import lead
from flyweight.store import Store
from flyweight.types import Budget
from tests.bench.kit import questions
from tests.cli_kit import QUESTION, Command, solve

Drawn = Callable[..., Path]


@pytest.fixture
def drawn(flyweight: Command, tmp_path: Path) -> Drawn:
    """Runs 40 questions, and says in which folder."""

    def made(*more: str, rows: int = 40) -> Path:
        folder = tmp_path / "runs"
        data = questions(tmp_path, rows=rows)
        asked = ["bench", "run", "jsonl", "--data", data, "-m", "toy", "-n", "4", "--out", str(folder)]
        assert flyweight(*asked, *more).code == 0
        return folder

    return made


def test_a_run_becomes_a_map_that_solve_uses(flyweight: Command, drawn: Drawn, tmp_path: Path) -> None:
    folder, file = drawn("-s", "self_consistency"), tmp_path / "map.json"
    done = flyweight("bench", "calibrate", "last", "-o", str(file), "--runs", str(folder))
    assert done.code == 0 and done.err == f"Wrote {file}.\n"
    (made,) = abstain.read(file)
    assert (made.model, made.sha256, made.kind, made.verifier) == ("toy", "", "math", "")
    assert made.strategies == ("self_consistency", "adaptive_consistency")
    assert (dict(made.parameters), made.fitted_on, made.questions) == ({"temperature": 0.7}, "jsonl, all rows", 40)
    assert "toy, self_consistency and adaptive_consistency, 40 questions: 2 of 2 agree: " in done.out
    facts = flyweight(*solve(QUESTION, "-n", "4", "--confidence-map", str(file), "--json")).json
    votes = sorted((sum(c["class"] == k for c in facts["candidates"]) for k in range(4)), reverse=True)
    assert facts["calibrated"] and facts["confidence"] == pytest.approx(made(lead(votes[0], votes[1])))


def test_it_is_the_fit_of_the_grades_on_record(flyweight: Command, drawn: Drawn, tmp_path: Path) -> None:
    folder, file = drawn("-s", "self_consistency"), tmp_path / "map.json"
    assert flyweight("bench", "calibrate", "last", "-o", str(file), "--runs", str(folder)).code == 0
    votes = []
    with Store(folder / "flyweight.db", readonly=True) as store:
        for search in store.searches(store.runs()[-1].id):
            known = str(search.result.problem.answer)
            found = [
                abstain.Sample(c.answer_class, c.answer == known, 1.0, c.node.mean_logprob)
                for c in search.result.candidates
            ]
            votes.append(abstain.votes(found, search.result.problem.id))
    assert abstain.read(file)[0].weights == pytest.approx(abstain.fit(votes), abs=1e-9)
    before = file.read_bytes()
    assert flyweight("bench", "calibrate", "last", "-o", str(file), "--runs", str(folder)).code == 0
    assert file.read_bytes() == before


def test_votes_weighed_by_a_verifier_get_their_own(flyweight: Command, drawn: Drawn, tmp_path: Path) -> None:
    folder, file = drawn("-s", "weighted_best_of_n", "--verifiers", "arithmetic"), tmp_path / "map.json"
    done = flyweight("bench", "calibrate", "last", "-o", str(file), "--runs", str(folder), "--json")
    assert done.json[0]["verifier"] == "arithmetic" and done.json[0]["strategies"] == ["weighted_best_of_n"]
    asked = ["solve", QUESTION, "-m", "toy", "-s", "weighted_best_of_n", "--confidence-map", str(file), "--json"]
    assert flyweight(*asked, "--verifier", "arithmetic").json["calibrated"]
    assert not flyweight(*asked, "--verifier", "length").json["calibrated"]


def test_too_few_questions_and_no_grades(flyweight: Command, drawn: Drawn, tmp_path: Path) -> None:
    calibrate = ("bench", "calibrate", "last", "-o", str(tmp_path / "map.json"), "--runs", str(tmp_path / "runs"))
    drawn("-s", "self_consistency", rows=12)
    done = flyweight(*calibrate)
    assert done.code == 2 and "12 questions with two votes or more: a map needs 30" in done.err
    drawn("-s", "self_consistency", "--predict-only", "--seed", "5")
    done = flyweight(*calibrate)
    assert done.code == 2 and "is not graded: flyweight bench grade" in done.err
    assert not (tmp_path / "map.json").exists()


def test_the_store_is_never_written_over(flyweight: Command, drawn: Drawn, tmp_path: Path) -> None:
    folder = drawn("-s", "self_consistency")
    before = (folder / "flyweight.db").read_bytes()
    (tmp_path / "link").symlink_to(folder / "flyweight.db")
    for name in (folder / "flyweight.db", tmp_path / "link", folder / "flyweight.db-wal"):
        done = flyweight("bench", "calibrate", "last", "-o", str(name), "--runs", str(folder))
        assert (done.code, done.err) == (2, f"Error: {name} is the store itself: name another file\n")
    assert (folder / "flyweight.db").read_bytes() == before


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan("gsm8k", split="test"), "is on the split test: maps are fitted on calibration"),
        (Plan("gsm8k", split="train"), "is on the split train"),
        (Plan("math500"), "is on the split test, as none was named: maps are fitted on calibration"),
        (Plan("gsm8k", data="test.jsonl"), "is on the split test, as none was named"),
        (Plan("gsm8k", strategy="best_of_n"), "is one of best_of_n: maps are fitted on self_consistency or"),
        (Plan("humaneval"), "the answers of humaneval are read in a way that --kind cannot name"),
        (Plan("jsonl", settings={"checker": "tests"}), "the answers of jsonl are read in a way"),
        (Plan("gsm8k", budget=Budget(confidence=0.9)), "had a budget"),
    ],
)
def test_what_may_not_be_fitted_on(plan: Plan, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        usable("3fa9", plan)


@pytest.mark.parametrize(
    ("plan", "found"),
    [
        (Plan("gsm8k", split="calibration"), ("math", "calibration")),
        (Plan("gsm8k"), ("math", "development")),
        (Plan("gsm8k", data="train.jsonl", split="calibration"), ("math", "calibration")),
        (Plan("math500", split="development"), ("math", "development")),
        (Plan("jsonl", settings={"checker": "choice"}), ("choice", "all rows")),
    ],
)
def test_what_may_be_fitted_on(plan: Plan, found: tuple[str, str]) -> None:
    assert usable("3fa9", plan) == found
