"""What benchmarks.optimal and .optimal_headline count, by hand; and that the pages hold together."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import optimal, optimal_headline, picture
from benchmarks.optimal_counts import Curve, growing, oracle, ratio, reached
from benchmarks.results import SMALL
from benchmarks.rig import ROOT
from flyweight import models
from flyweight.errors import ConfigError
from flyweight.optimal.pools import Question, Sample
from tests.test_optimal_auto import fitted
from tests.test_optimal_fit import two_kinds


def curve(name: str, right: list[list[float]], tokens: list[list[float]]) -> Curve:
    return Curve(name, tuple(f"n={i + 1}" for i in range(len(right))), np.array(right), np.array(tokens))


GROWING = curve("majority", [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], [[10.0, 20.0], [20.0, 40.0], [30.0, 60.0]])


def test_the_smallest_n_that_reaches_an_accuracy() -> None:
    found = [reached(GROWING, target) for target in (0.0, 0.5, 0.51, 1.0)]
    assert [(each.place, each.tokens) for each in found if each is not None] == [(0, 15), (1, 30), (2, 45), (2, 45)]
    assert reached(GROWING, 1.01) is None
    only = reached(GROWING, 0.5, [1])
    assert only is not None and (only.place, only.tokens) == (2, 60)


def test_a_ratio_with_its_interval() -> None:
    auto = curve("auto", [[1.0, 1.0]], [[15.0, 15.0]])
    found = ratio(GROWING, auto, 1.0)
    assert found is not None and found.value == pytest.approx(3.0) and found.both == 1.0
    # Resamples of the first question alone need 20 of its tokens, of the second alone 60, of both 45.
    assert found.low == pytest.approx(20 / 15) and found.high == pytest.approx(60 / 15)
    assert ratio(GROWING, curve("auto", [[0.0, 0.0]], [[1.0, 1.0]]), 0.5) is None


def pool(*rights: bool) -> Question:
    samples = tuple(Sample(int(not right), right, -0.1, 100, {"v": float(right)}) for right in rights)
    return Question("q", 10, None, {0.7: samples})


def test_curves_without_a_budget_take_every_sample() -> None:
    majority, best, vote = growing([pool(True, True, False)], 0.7, 6, "v")
    assert majority.labels == best.labels == ("n=1", "n=2", "n=3")
    assert majority.tokens[:, 0].tolist() == [100, 200, 300]
    assert majority.right[2, 0] == 1.0 and best.right[2, 0] == vote.right[2, 0] == 1.0
    assert 0 < majority.right[0, 0] < 1


def test_the_oracle_takes_what_is_best_for_each_question() -> None:
    row = replace(fitted("sample", "sample").rows[0], budget=5000)
    words = ["best_of_n:n=4", "self_consistency:n=4"]
    misled = Question("m", 1, None, {0.7: tuple(Sample(i > 2, i < 3, -0.1, 10, {"v": float(i > 2)}) for i in range(4))})
    assert oracle(row, words, [pool(True, False, False, False), misled], 4, "v").tolist() == [1.0, 1.0]


# The headline --------------------------------------------------------------------------------------------------------


def row(rights: list[bool], flops: float, model: str = "m") -> dict[str, Any]:
    questions = {
        f"q{i}": {"right": right, "level": None, "error": None, "difficulty": 0.3, "tokens": 5, "flops": flops}
        for i, right in enumerate(rights)
    }
    return {"model": model, "questions": questions, "seconds": 2.0, "peak_memory_mb": 900}


def test_of_the_bigger_models_samples_the_fewest_that_cost_as_much() -> None:
    held = {
        optimal_headline.A: row([True, False], 50),
        optimal_headline.B: row([True, True], 20),
        optimal_headline.D: row([False, False], 5),
        **{optimal_headline.C.format(n=n): row([True, True], 20.0 * n) for n in (1, 2, 3, 4)},
    }
    assert [name for name in optimal_headline.rows_of(held) if "best of" in name] == [optimal_headline.C.format(n=3)]
    held[optimal_headline.A] = row([True, False], 500)
    assert [name for name in optimal_headline.rows_of(held) if "best of" in name] == [optimal_headline.C.format(n=4)]


def test_the_verdict_follows_the_interval() -> None:
    many = [True] * 60 + [False] * 40
    better = {optimal_headline.A: row([True] * 100, 1), optimal_headline.B: row(many, 1)}
    worse = {optimal_headline.A: row(many, 1), optimal_headline.B: row([True] * 100, 1)}
    even = {optimal_headline.A: row(many, 1), optimal_headline.B: row([*reversed(many)], 1)}
    said = [optimal_headline.verdict(each) for each in (better, worse, even)]
    assert "wins" in said[0] and "loses" in said[1] and "is not told apart" in said[2]


def test_other_questions_are_not_compared() -> None:
    with pytest.raises(ConfigError, match="other questions"):
        optimal_headline.against(row([True], 1), row([True, False], 1))


def test_the_protocols_rows_are_the_plans() -> None:
    for task in optimal_headline.TASKS:
        found = optimal_headline.plans(task)
        assert found[optimal_headline.A].parameters == {"n": 16, "tokens": 4000}
        assert (optimal_headline.C.format(n=4) in found) == task.primary
    text = (ROOT / "docs" / "protocol-headline.md").read_text("utf-8")
    for part in optimal.PARTS:
        last = f"{100 * part.targets[-1]:.0f} %"
        assert last in text


def test_a_calibration_that_auto_would_not_go_by_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be run with the published defaults, and there is one run."""
    [task] = [each for each in optimal_headline.TASKS if each.name == "mbpp"]
    sha256 = models.catalog()[SMALL].sha256
    other = fitted("sample", "sample", sha256=sha256, kind="code", verifier="weighted:tests=1", judge="weighted")
    for shipped, said in (((), "comes with the package"), ((other,), "is of the verifier weighted:tests=1")):
        monkeypatch.setattr("benchmarks.optimal_headline.calibration.shipped", lambda shipped=shipped: shipped)
        with pytest.raises(SystemExit, match=said):
            optimal_headline.record(task, tmp_path)


# The page ------------------------------------------------------------------------------------------------------------


def test_the_page_is_made_of_what_is_on_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    found = fitted("self_consistency:n=4", "best_of_n:n=8:enough=0.5", verifier="self")
    rows = []
    for i in range(12):
        samples = [each._replace(scores={"self": each.scores["v"]}) for each in two_kinds(random.Random(i), i)]
        question = Question(f"q{i}", 20, samples[0], {0.7: tuple(samples)})
        rows.append(optimal.packed(question, [each.scores["self"] for each in samples]))
    monkeypatch.setattr(optimal, "FOLDER", tmp_path)
    monkeypatch.setattr(optimal, "ORDERS", 2)
    monkeypatch.setattr(optimal_headline, "FOLDER", tmp_path / "headline")
    monkeypatch.setattr(optimal_headline, "COSTS", tmp_path / "headline" / "costs.json")
    monkeypatch.setattr("benchmarks.optimal.calibration.shipped", lambda: (found,))
    monkeypatch.setattr(picture, "ROOT", tmp_path)
    monkeypatch.setattr("benchmarks.optimal_counts.RESAMPLES", 20)
    (tmp_path / "docs").mkdir()
    for part in optimal.PARTS:
        with gzip.open(tmp_path / f"{part.name}.json.gz", "wt", encoding="utf-8") as file:
            json.dump({"questions": rows}, file)
    page = optimal.written(found)
    assert "Not run yet: humaneval, mbpp, gsm8k, math500" in page
    assert "| 34.0 % |" in page and "150 questions of gsm8k" in page and "truly hard" in page
    assert (tmp_path / "docs" / "compute-optimal.svg").read_text("utf-8").startswith("<?xml")


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "No calibration of qwen2.5-coder-0.5b on maths comes with the package." in optimal.written(None)
    monkeypatch.setattr(optimal, "FOLDER", ROOT / "results" / "nothing")
    with pytest.raises(SystemExit, match="run with --draw"):
        optimal.recorded(optimal.PARTS[0])
