"""The pure parts of the engine's benchmarks: windows, rows that survive an interruption, tables."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import engine, growth
from benchmarks.contenders import Step, room, window
from benchmarks.engine import Plan, completions_table, rate, report, searches_table, share
from benchmarks.rig import Child, Figures, Results, alternate, publish, spread, table
from flyweight import models


def test_the_window_is_the_full_steps_between_the_first_and_the_last_one() -> None:
    steps = [
        Step(0.0, 1.0, 4, 100),  # all four draw, but the prompt is in it
        Step(1.5, 2.0, 4, 0),
        Step(2.25, 3.0, 4, 0),
        Step(3.0, 4.0, 3, 0),  # one has ended
    ]
    tokens, inside, wall = window(steps, 4)
    assert tokens == 8
    assert inside == pytest.approx(0.5 + 0.75)
    assert wall == pytest.approx(2.0), "from the end of the step before"


def test_a_window_holds_what_lies_between_full_steps() -> None:
    steps = [Step(0, 1, 2, 5), Step(1, 2, 2, 0), Step(2, 3, 1, 7), Step(3, 4, 2, 0)]
    assert window(steps, 2) == (5, 3, 3)


def test_no_full_step_is_said() -> None:
    with pytest.raises(SystemExit, match="all 3 rows"):
        window([Step(0, 1, 3, 9), Step(1, 2, 2, 0)], 3)


@pytest.mark.parametrize(("prompt", "steps", "expected"), [(1, 1, 256), (200, 54, 256), (200, 55, 512), (510, 1, 768)])
def test_room_is_a_multiple_of_256(prompt: int, steps: int, expected: int) -> None:
    assert room(prompt, steps) == expected


def test_wide_rounds_have_fewer_steps_within_limits() -> None:
    assert [Plan().steps(width) for width in (1, 16, 64)] == [32, 20, 12]


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.json"
    results = Results(path, {"cpu": "a"})
    results.row("x/1", lambda: {"rate": 1.5})

    def interrupted() -> Figures:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        results.row("x/2", interrupted)
    again = Results(path, {"cpu": "a"})
    assert again.row("x/1", interrupted) == {"rate": 1.5}
    again.row("y/2", lambda: {"rate": 2.0})
    assert again.named("x/") == {"1": {"rate": 1.5}}
    assert Results(path, {"cpu": "a"}).rows == {"x/1": {"rate": 1.5}, "y/2": {"rate": 2.0}}


def test_rows_of_another_setting_are_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    Results(path, {"cpu": "a"}).row("x", lambda: {"rate": 1.0})
    assert Results(path, {"cpu": "b"}).rows == {}


def test_publish_replaces_what_stands_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- engine -->\nold\n<!-- /engine -->\nb\n")
    assert publish(page, "engine", "new")
    assert page.read_text() == "a\n<!-- engine -->\nnew\n<!-- /engine -->\nb\n"
    assert not publish(page, "growth", "new")
    assert not publish(tmp_path / "missing.md", "engine", "new")


def test_other_weights_get_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ROOT", tmp_path)
    monkeypatch.setattr(models, "resolve", lambda name: tmp_path / f"{name}.gguf")
    options = argparse.ArgumentParser()
    engine.common_options(options)
    for line in ([], ["--weights", "file"], ["--model", "other"]):
        arguments = options.parse_args(line)
        arguments.quick = False
        engine.begin("growth", arguments)[1].row("n/1", lambda: {"rate": 1.0})
    written = sorted(path.name for path in (tmp_path / "results" / "engine").iterdir())
    assert written == sorted([f"growth-{engine.MODEL}-file.json", "growth-other-auto.json", "growth.json"])


def test_table() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_spreads_as_text() -> None:
    assert spread([3, 1, 8]) == (3, 1, 8)
    assert rate([2.4]) == "2"
    assert rate([1.0, 9.0, 2.0]) == "2 (1-9)"
    assert share([0.02, -0.01, 0.5]) == "2.0 (-1.0 to 50.0)"


def test_the_report_orders_widths_by_context_then_rows() -> None:
    results = Results(None, {})
    for name in ("widths/8/400", "widths/64/40", "widths/8/40"):
        results.rows[name] = {
            "kind": "file",
            "bare": {"rate": [100.0], "drawing": [0.1], "peak_mb": 600},
            "engine": {"rate": [90.0], "inside": [92.0], "runner": [0.02], "drawing": [0.1], "peak_mb": 700},
            "stock": {"rate": [50.0], "peak_mb": 650},
        }
    lines = report(results).splitlines()[2:]
    assert [line.split(" | ")[:2] for line in lines] == [["| 8", "40"], ["| 64", "40"], ["| 8", "400"]]
    # The stock file is the same weights here; 90 of 100 is 90 %.
    assert lines[0] == "| 8 | 40 | file | 100 | 10.0 | 90 | 90 | 92 | 2.0 | 50 | 50 | 600 | 700 | 650 |"


def test_completions_are_compared_by_tokens_a_second() -> None:
    rows = {"2 x 4": {"engine": {"seconds": [2.0], "rate": [4.0]}, "stock": {"seconds": [5.0], "rate": [1.6]}}}
    assert completions_table(rows).splitlines()[-1] == "| 2 x 4 | stock | 5.0 | 2 | 2.50 |"


def test_shares_of_a_search() -> None:
    row = {
        "prompt": 10, "cached": 20, "generated": 200, "recomputed": 5, "occupancy": 0.875, "rate": 50.0, "wall": 4.0,
        "prefill": 0.4, "decode": 3.0, "sampling": 0.4, "python": 0.2, "runner": 0.01, "peak_mb": 900.0,
    }  # fmt: skip
    assert searches_table({"dvts": row}).splitlines()[-1] == (
        "| dvts | 10 | 20 | 200 | 5 | 2.5 | 88 | 50 | 4 | 10.0 | 75.0 | 10.0 | 5.0 | 1.0 | 900 |"
    )


def test_growth_goes_up_by_number_and_shows_what_was_recomputed() -> None:
    results = Results(None, {})
    for n in (16, 2, 128):
        results.rows[f"n/{n}"] = {"rate": 10.0 * n, "peak_mb": 500 + n, "generated": 50, "recomputed": n}
    results.rows["context/400"] = {"rate": 7.0, "peak_mb": 800}
    assert list(growth.series(results, "n")) == [2, 16, 128]
    assert growth.growth_table(results).splitlines()[2:] == [
        "| n | 2 | 20 | 502 | 4.0 |",
        "| n | 16 | 160 | 516 | 32.0 |",
        "| n | 128 | 1280 | 628 | 256.0 |",
        "| context | 400 | 7 | 800 | - |",
    ]


def counting(start: int) -> Iterator[Figures]:
    yield {}
    while start < 12:
        yield {"value": start}
        start += 1
    raise ValueError("that is all")


def test_children_take_turns_and_their_failure_ends_the_run(capfd: pytest.CaptureFixture[str]) -> None:
    with Child(counting, 1) as a, Child(counting, 11) as b:
        assert alternate({"a": a, "b": b}, 1) == {"a": [{"value": 1}], "b": [{"value": 11}]}
        assert a.next() == {"value": 2}
        assert a.close() > 1
        with pytest.raises(SystemExit, match="failed"):
            b.next()
    assert "that is all" in capfd.readouterr().err
