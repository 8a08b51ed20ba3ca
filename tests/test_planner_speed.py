"""Speeds: interpolated by hand, measured once, kept under what they depend on; the real engine on a tiny model."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flyweight import api
from flyweight.errors import ModelError
from flyweight.optimal import speed
from flyweight.optimal.speed import Machine, Speed, scaled
from tests import tiny
from tests.planner_kit import SPEED


def test_steps_between_what_was_measured() -> None:
    assert SPEED.step(4, 100) == 0.02 and SPEED.step(4, 300) == pytest.approx(0.03)
    assert SPEED.step(2.5, 100) == pytest.approx(0.015)
    assert SPEED.step(4, 900) == pytest.approx(0.06)  # the slope goes on
    assert SPEED.step(4, 10) == 0.02 and SPEED.step(0.5, 100) == 0.01  # nothing is cheaper than what was seen
    assert SPEED.step(64, 100) == pytest.approx(0.08 + 32 * 0.06 / 28)


def test_noise_never_makes_more_work_cheaper() -> None:
    noisy = Speed(1.0, 1.0, ((1, 100, 0.02), (1, 500, 0.01)), (0.0, 0.0), ((2, 16, 1.0),))
    assert noisy.step(1, 900) == 0.01 and noisy.step(1, 1) == 0.01


def test_memory_of_other_slots_and_contexts() -> None:
    assert SPEED.resident(2, 1000) == pytest.approx(1.004e9) and SPEED.resident(32, 1000) == pytest.approx(1.064e9)
    assert SPEED.resident(17, 2000) == pytest.approx(1e9 + 17e6 + 17 * 2000 * 1000)


def test_prompts() -> None:
    assert SPEED.prompt(100) == pytest.approx(0.6) and SPEED.prompt(0) == 0
    assert speed._fitted([(100, 0.2), (500, 0.6), (110, 0.21), (510, 0.61)]) == pytest.approx((0.1, 0.001))
    assert speed._fitted([(100, 0.5), (500, 0.4)]) == pytest.approx((0.5, 0.0))


def test_an_estimate_is_in_proportion() -> None:
    big = scaled(SPEED, 3e9, 2000.0, 2.9e9, "small")
    assert big.step(4, 100) == pytest.approx(0.06) and big.prompt(100) == pytest.approx(0.8)
    rest = big.resident(2, 1000) - 2 * 1000 * 2000
    assert rest == pytest.approx(3 * 1.002e9) and big.resident(32, 1000) - rest == pytest.approx(
        30e6 + 32 * 1000 * 2000
    )
    assert scaled(SPEED, 1e6, 1000.0, 5e9, "small").resident(2, 1000) > 5e9  # the file has to be there at least


def test_what_is_written_is_read() -> None:
    assert Speed.from_dict(json.loads(json.dumps(SPEED.as_dict()))) == SPEED


# The measurement ------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The measuring processes that were started, which answer at once."""
    monkeypatch.setenv("FLYWEIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("os.getloadavg", lambda: (0.1, 0.1, 0.1))
    calls: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        slots = int(command[-1])
        facts = {
            "parameters": 1e9,
            "kv_bytes": 1000,
            "slots": slots,
            "context": 1000,
            "points": [[rows, 100, 0.01 * rows] for rows in speed.ENGINES[slots]],
            "prompts": [[100, 0.2], [500, 0.6]],
            "memory": 1e9 + slots * 1000 * 1000,
        }
        return subprocess.CompletedProcess(command, 0, json.dumps(facts), "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


@pytest.fixture
def model(tmp_path: Path) -> Path:
    file = tmp_path / "some.gguf"
    file.write_bytes(b"GGUF, more or less")
    return file


def test_measured_once(asked: list[list[str]], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    found = speed.measure(model, "file", told.append)
    assert [command[-2:] for command in asked] == [["file", "2"], ["file", "32"]] and len(told) == 2
    assert found.step(32, 100) == pytest.approx(0.32) and found.prefill == pytest.approx((0.1, 0.001))
    assert speed.measure(model, "file") == found == speed.known(model, "file") and len(asked) == 2
    assert speed.known(model, "packed") is None
    monkeypatch.setattr(Machine, "here", lambda: Machine("another CPU", 64, "an engine"))
    assert speed.known(model, "file") is None


def test_a_busy_machine_is_told(asked: list[list[str]], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (999.0, 1.0, 1.0))
    told: list[str] = []
    speed.measure(model, "file", told.append)
    assert told[0] == "this machine is busy (load 999.0): what is measured now is too slow; --fresh measures again"


def test_another_file_of_that_name_is_measured_anew(asked: list[list[str]], model: Path) -> None:
    speed.measure(model, "file")
    model.write_bytes(b"GGUF, something else")
    assert speed.known(model, "file") is None


@pytest.mark.parametrize("damage", ["", "{", "[]", "null"])
def test_a_damaged_record_is_made_anew(asked: list[list[str]], model: Path, damage: str) -> None:
    found = speed.measure(model, "file")
    speed._file().write_text(damage)
    assert speed.measure(model, "file") == found and len(asked) == 4
    speed.forget()
    assert speed.known(model, "file") is None


@pytest.mark.parametrize("row", [{}, None, {"parameters": 1, "kv_bytes": 1, "points": [[1]], "prefill": [1, 2]}])
def test_a_damaged_row_is_measured_anew(asked: list[list[str]], model: Path, row: object) -> None:
    found = speed.measure(model, "file")
    speed._file().write_text(json.dumps({speed._key(model, "file"): row}))
    assert speed.known(model, "file") is None
    assert speed.measure(model, "file") == found and len(asked) == 4


def test_a_model_that_does_not_run_is_one_line(model: Path) -> None:
    with pytest.raises(ModelError) as caught:
        speed.measure(model, "file")
    assert str(model) in str(caught.value) and "\n" not in str(caught.value)


def test_the_engine_is_really_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.05)
    found = speed.figures(tiny.make(tmp_path / "tiny.gguf"), "file", 2)
    assert [(rows, seconds > 0) for rows, _, seconds in found["points"]] == [(1, True), (1, True), (2, True), (2, True)]
    assert found["kv_bytes"] == tiny.LAYERS * 2 * tiny.KV_HEADS * tiny.HEAD * 2
    assert found["context"] == tiny.CONTEXT and found["memory"] > 1e7
    assert all(tokens > 0 and seconds > 0 for tokens, seconds in found["prompts"])
    with pytest.raises(ModelError, match="does not run as bf16 here"):
        speed.figures(tmp_path / "tiny.gguf", "bf16", 2)


def test_a_session_takes_slots_and_weights(tmp_path: Path) -> None:
    path = str(tiny.make(tmp_path / "tiny.gguf"))
    with api.Session(path, slots=3, context=128, weights="file") as session:
        assert getattr(session.policy, "_slots") == 3  # noqa: B009
