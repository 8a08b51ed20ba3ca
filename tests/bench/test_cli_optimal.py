"""`flyweight calibrate`: recorded once, resumed, refused; and what solve makes of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight import strategies
from flyweight.errors import ConfigError
from flyweight.optimal import calibration
from flyweight.store import Store
from flyweight.strategies import Value
from tests.bench.kit import questions
from tests.cli_kit import QUESTION, Command, Done

Calibrate = Callable[..., Done]


@pytest.fixture
def calibrate(flyweight: Command, tmp_path: Path) -> Calibrate:
    """Runs the command on 24 questions, on the toy."""
    data = questions(tmp_path, rows=24)

    def made(*more: str) -> Done:
        usual = ["--task", "jsonl", "--data", data, "-m", "toy", "--verifier", "arithmetic", "-n", "4"]
        usual += ["--budgets", "100,1k", "--out", str(tmp_path / "c.json"), "--runs", str(tmp_path / "runs")]
        return flyweight("calibrate", *usual, *more)

    return made


def test_it_learns_once_and_solve_goes_by_it(flyweight: Command, calibrate: Calibrate, tmp_path: Path) -> None:
    first = calibrate()
    assert first.code == 0, first.err
    assert "toy, verifier arithmetic, maths: 24 questions" in first.out and "about " in first.err
    path = tmp_path / "c.json"
    before = path.read_bytes()
    (found,) = calibration.read(path)
    assert [row.budget for row in found.rows] == [100, 1000] and found.sources[0].samples == 4
    again = calibrate("--json")
    assert again.code == 0
    assert path.read_bytes() == before, "the same record gives the same file"
    assert again.json["questions"] == 24 and len(again.json["rows"]) == 2
    facts = flyweight(
        "solve",
        QUESTION,
        "-m",
        "toy",
        "--verifier",
        "arithmetic",
        "-s",
        "auto",
        "--set",
        f"calibration={path}",
        "--json",
    ).json
    assert facts["strategy"] == "auto" and facts["chosen"] and 0 < facts["difficulty"] < 1
    assert "published" not in facts["line"]


def test_others_in_the_file_are_kept(calibrate: Calibrate, tmp_path: Path) -> None:
    from tests.test_optimal_fit import made

    calibration.write(tmp_path / "c.json", [made("b" * 64), made("", model="toy")])
    assert calibrate("-q", "--searches", "").code == 0
    held = calibration.read(tmp_path / "c.json")
    assert [(each.model, each.questions) for each in held] == [("m", 150), ("toy", 24)]


def test_a_dry_run_draws_nothing(calibrate: Calibrate, tmp_path: Path, no_model: None) -> None:
    done = calibrate("--dry-run")
    assert done.code == 0 and "draws" in done.out and not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--budgets", "0"], "--budgets: '0' is not allowed: tokens from 1"),
        (["--budgets", "1g"], "--budgets: '1g' is not allowed"),
        (["--budgets", ","], "budgets [] are not allowed"),
        (["-n", "1"], "n=1 is not allowed: a pool has 2 samples or more"),
        (["--temperatures", "warm"], "--temperatures: 'warm' is not a number"),
        (["--temperatures", "9"], "temperature=9.0 is not allowed"),
        (["--questions", "5"], "5 questions: a calibration needs 20"),
        (["--questions", "999"], "--questions 999 is out of range"),
        (["--searches", "beam_serch"], "did you mean 'beam_search'"),
        (["--searches", "auto"], "it is auto that chooses among them"),
        (["--searches", "best_of_n:n=4"], "is played from the samples and needs no recording"),
        (["--searches", "medoid:temperature=0.4"], "whole answers are drawn at --temperatures"),
        (["--searches", "beam_search:n=4:verifier=form"], "verifier= cannot be played from recordings"),
        (["--searches", "medoid:n=4:of=beam_search"], "of= cannot be played from recordings"),
        (["--temperatures", ","], "no temperatures: name one or more"),
        (["--also", "probbe"], "unknown verifier 'probbe'"),
        (["--verifier", "oracle"], "sees the answers"),
        (["--split", "train"], "calibrations are not fitted on"),
        (["--out", "/no/such/folder/c.json"], "the folder /no/such/folder does not exist"),
        (["-m", "toyy"], "unknown model 'toyy'"),
    ],
)
def test_mistakes_get_one_line_before_anything_is_drawn(
    more: list[str], said: str, calibrate: Calibrate, tmp_path: Path
) -> None:
    done = calibrate(*more)
    assert done.code == 2 or "toyy" in said
    assert said in done.err and done.err.startswith("Error: ") and done.err.count("\n") == 1
    assert not (tmp_path / "runs" / "flyweight.db").exists()


def test_test_questions_are_refused(flyweight: Command, tmp_path: Path) -> None:
    for task in ("humaneval", "gsm8k"):
        more = ["--split", "test"] if task == "gsm8k" else []
        done = flyweight("calibrate", "--task", task, *more, "-m", "toy", "--out", str(tmp_path / "c.json"))
        assert done.code == 2 and "calibrations are not fitted on" in done.err


def test_a_file_that_is_no_calibration_is_not_overwritten(calibrate: Calibrate, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("notes", "utf-8")
    done = calibrate()
    assert done.code == 2 and "holds no calibration" in done.err
    assert (tmp_path / "c.json").read_text("utf-8") == "notes"


def test_a_benchmark_goes_by_it_too(flyweight: Command, tmp_path: Path) -> None:
    """Also by a verifier that only a cell names."""
    from tests.test_optimal_auto import fitted

    word = "best_of_n:n=4:verifier=(weighted:arithmetic=3:form=1)"
    path, runs, data = tmp_path / "c.json", str(tmp_path / "runs"), questions(tmp_path, rows=3)
    usual = ["bench", "run", "jsonl", "--data", data, "-m", "toy", "--verifiers", "arithmetic", "--runs", runs, "-q"]
    calibration.write(path, [fitted(word, word, sha256="", model="toy", verifier="arithmetic")])
    done = flyweight(*usual, "-s", f"auto:calibration={path}")
    assert done.code == 0, done.err
    with Store(tmp_path / "runs" / "flyweight.db", readonly=True) as store:
        (info,) = store.runs()
        found = list(store.results(info.id))
    assert len(found) == 3 and all(each.error is None for each in found)
    assert all("weighted" in str(each.explained["chosen"]) for each in found), "on record with what it chose"
    calibration.write(path, [fitted("sample", "sample", sha256="", model="toy", verifier="arithmetic")])
    assert flyweight(*usual, "-s", f"auto:calibration={path}").code == 0
    with Store(tmp_path / "runs" / "flyweight.db", readonly=True) as store:
        chosen = {str(each.explained["chosen"])[:6] for info in store.runs() for each in store.results(info.id)}
    assert chosen == {"best_o", "sample"}, "what another calibration chose is another run"
    calibration.write(path, [fitted(word, word)])
    refused = flyweight(*usual, "-s", f"auto:calibration={path}")
    assert refused.code == 2 and "was fitted on" in refused.err


# What solve makes of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--set", "calibration=none.json"], "cannot read none.json"),
        (["--set", "bigger=none"], "unknown model 'none'"),
        (["--quality", "bset"], "unknown quality 'bset'"),
        (["--quality", "fast", "--budget-tokens", "7"], "drop it or --budget-tokens 7"),
        (["--set", "tokens=0"], "tokens='0' is not allowed"),
    ],
)
def test_solve_says_what_is_wrong(more: list[str], said: str, flyweight: Command) -> None:
    done = flyweight("solve", QUESTION, "-m", "toy", "-s", "auto", *more)
    assert done.code in (2, 3) and said in done.err and done.err.count("\n") == 1


def test_another_models_calibration_is_refused_before_the_model_is_loaded(
    flyweight: Command, tmp_path: Path, no_model: None
) -> None:
    from tests.test_optimal_fit import made

    path = tmp_path / "c.json"
    calibration.write(path, [made("b" * 64)])
    done = flyweight("solve", QUESTION, "-m", "toy", "-s", "auto", "--set", f"calibration={path}")
    assert done.code == 2 and "was fitted on m (bbbbbbbbbbbb)" in done.err


def test_a_calibration_is_held_against_the_model_that_writes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flyweight.bench import engine
    from flyweight.cli import options, solve
    from tests.test_optimal_fit import made

    monkeypatch.setattr(engine, "file_of", {"a": f"sha256:{'a' * 64}", "b": f"sha256:{'b' * 64}"}.get)

    def fitted(name: str, sha256: str) -> Path | None:
        calibration.write(path, [made(sha256)])
        given: dict[str, Value] = {"calibration": str(path), "any_model": False, "bigger": ""}
        return solve.fitted(options.Choice(name, given, strategies.bind(name)), "a")

    path = tmp_path / "c.json"
    assert fitted("auto", "a" * 64) == path
    assert fitted("auto:policy=b", "b" * 64) is None, "what it says of how sure an answer is holds for a alone"
    with pytest.raises(ConfigError, match="not on the model in use"):
        fitted("auto:policy=b", "a" * 64)


def test_quality_is_a_budget_that_says_how_long(flyweight: Command) -> None:
    done = flyweight("solve", QUESTION, "-m", "toy", "-s", "auto", "--quality", "fast")
    assert done.code == 0 and "fast: at most 1,000 tokens a question, about " in done.err
    assert "Because     " in done.out
    tight = flyweight("solve", QUESTION, "-m", "toy", "-s", "auto", "--quality", "fast", "--json").json
    assert tight["usage"]["generated_tokens"] <= 1000
