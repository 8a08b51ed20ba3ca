"""Re-encoding and choosing weights on a tiny model: cached, atomic, and never a reason to fail."""

from __future__ import annotations

import fcntl
import inspect
import json
import shutil
from collections import namedtuple
from pathlib import Path

import llama_cpp
import pytest

from flyweight.policies.llamacpp import LlamaCpp, weights
from flyweight.policies.llamacpp.context import Model
from flyweight.policies.llamacpp.kernels import Unavailable, kernels
from flyweight.policies.llamacpp.weights import encoded
from tests.engine_kit import Engines, draw, prompt, run

ROOT = prompt("hello")


def test_the_engine_s_page_of_settings_is_whole() -> None:
    doc = LlamaCpp.__init__.__doc__ or ""
    assert all(f'"{form}"' in doc for form in weights.WEIGHTS)
    assert all(f"{name}: " in doc for name in list(inspect.signature(LlamaCpp).parameters)[1:])


def test_bf16_is_made_once_and_kept(quantised: Path, tmp_path: Path, engines: Engines) -> None:
    first = encoded(quantised, "bf16", slots=2, threads=1, cache_dir=tmp_path)
    assert first.kind == "bf16" and first.path.parent == tmp_path and not first.note
    made = first.path.stat().st_mtime_ns
    again = encoded(quantised, "bf16", slots=2, threads=1, cache_dir=tmp_path)
    assert again == first and again.path.stat().st_mtime_ns == made
    assert not list(tmp_path.glob("*.partial"))
    model = Model(first.path)
    assert model.params == Model(quantised).params
    model.close()
    engine = engines(quantised, weights="bf16", cache_dir=tmp_path)
    assert engine.weights.kind == "bf16" and engine.name == "quantised"
    assert run(engine, [draw(0, ROOT)])[0].error is None


def test_a_changed_file_gets_its_own_copy(quantised: Path, tmp_path: Path) -> None:
    first = encoded(quantised, "bf16", slots=1, threads=1, cache_dir=tmp_path)
    copy = tmp_path / "quantised.gguf"
    data = bytearray(quantised.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert encoded(copy, "bf16", slots=1, threads=1, cache_dir=tmp_path).path != first.path


def test_weights_that_are_not_packed_run_as_they_are(tiny_path: Path, tmp_path: Path) -> None:
    for wanted in ("auto", "bf16", "file"):
        assert encoded(tiny_path, wanted, slots=1, threads=1, cache_dir=tmp_path).kind == "file"
    assert not list(tmp_path.glob("*.gguf"))


@pytest.fixture(params=["packed", "bf16"])
def other(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The form measured against the file: unpacked for our kernels where there are some, else bf16."""
    if request.param == "bf16":
        monkeypatch.setattr(weights, "kernels", lambda: Unavailable("none here"))
    elif isinstance(kernels(), Unavailable):
        pytest.skip(f"no kernels: {kernels()}")
    return str(request.param)


def test_auto_measures_once_per_width(
    quantised: Path, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "TRIAL_SECONDS", 0.01)
    first = encoded(quantised, "auto", slots=2, threads=1, cache_dir=tmp_path)
    table = json.loads((tmp_path / "weights.json").read_text())
    ((key, row),) = table.items()
    assert "2 rows" in key and row["choice"] == first.kind
    speeds = row["tokens_per_second"]
    assert set(speeds) == {"file", other} and row["choice"] == max(speeds, key=speeds.get)
    monkeypatch.setattr(weights, "_speeds", None)  # calling it again would fail
    assert encoded(quantised, "auto", slots=2, threads=1, cache_dir=tmp_path) == first


def test_auto_follows_the_record(quantised: Path, other: str, tmp_path: Path) -> None:
    for choice in ("file", other):
        weights._remember(tmp_path, weights._key(quantised, other, 3, 1), choice, {})
        assert encoded(quantised, "auto", slots=3, threads=1, cache_dir=tmp_path).kind == choice


def test_a_record_of_a_form_that_is_gone_is_measured_again(
    quantised: Path, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "TRIAL_SECONDS", 0.01)
    gone = {"packed": "bf16", "bf16": "packed"}[other]
    weights._remember(tmp_path, weights._key(quantised, other, 3, 1), gone, {})
    assert encoded(quantised, "auto", slots=3, threads=1, cache_dir=tmp_path).kind in ("file", other)


def test_packed_without_kernels_says_why(
    quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(weights, "kernels", lambda: Unavailable("there is no C++ compiler"))
    got = encoded(quantised, "packed", slots=1, threads=1, cache_dir=tmp_path)
    assert (got.kind, got.path) == ("file", quantised) and "no C++ compiler" in got.note and got.note in caplog.text


def test_a_broken_record_is_measured_again(quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "TRIAL_SECONDS", 0.01)
    for junk in ("", "[1]", '{"a": 1}', "{"):
        (tmp_path / "weights.json").write_text(junk)
        assert encoded(quantised, "auto", slots=2, threads=1, cache_dir=tmp_path).kind in ("file", "packed", "bf16")


Disk = namedtuple("Disk", "total used free")


def test_a_full_disk_falls_back_to_the_file_with_a_note(
    quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10, 10, 0))
    got = encoded(quantised, "bf16", slots=1, threads=1, cache_dir=tmp_path)
    assert (got.kind, got.path) == ("file", quantised)
    assert "0.0 GB free" in got.note and "\n" not in got.note and got.note in caplog.text


def test_a_failing_quantizer_leaves_nothing_behind(
    quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(source: bytes, target: bytes, _: object) -> int:
        data = Path(source.decode()).read_bytes()
        Path(target.decode()).write_bytes(data[: len(data) // 2])
        return 0

    monkeypatch.setattr(llama_cpp, "llama_model_quantize", write_half)
    assert encoded(quantised, "bf16", slots=1, threads=1, cache_dir=tmp_path).kind == "file"
    monkeypatch.setattr(llama_cpp, "llama_model_quantize", lambda *_: 1)
    assert encoded(quantised, "bf16", slots=1, threads=1, cache_dir=tmp_path).kind == "file"
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_written_falls_back(quantised: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    got = encoded(quantised, "auto", slots=1, threads=1, cache_dir=tmp_path / "file" / "sub")
    assert got.kind == "file" and got.note


def test_the_lock_is_held_while_encoding(quantised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def quantize(*_: object) -> int:
        with (tmp_path / "lock").open("w") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                seen.append(True)
        return 1

    monkeypatch.setattr(llama_cpp, "llama_model_quantize", quantize)
    encoded(quantised, "bf16", slots=1, threads=1, cache_dir=tmp_path)
    assert seen == [True]
