"""Re-encoding and choosing weights on a tiny model: cached, atomic, and never a reason to fail."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import namedtuple
from pathlib import Path

import gguf
import llama_cpp
import pytest

from flyweight.policies.llamacpp import weights
from flyweight.policies.llamacpp.context import Model
from flyweight.policies.llamacpp.weights import encoded
from tests.engine_kit import Engines, draw, prompt, run

ROOT = prompt("hello")


@pytest.fixture(scope="session")
def packed(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in 8-bit blocks."""
    source = gguf.GGUFReader(tiny_path)
    path = tmp_path_factory.mktemp("packed") / "packed.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    for field in source.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    for tensor in source.tensors:
        kind = gguf.GGMLQuantizationType.Q8_0 if len(tensor.shape) == 2 else tensor.tensor_type
        data = gguf.quants.quantize(tensor.data, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_bf16_is_made_once_and_kept(packed: Path, tmp_path: Path, engines: Engines) -> None:
    first = encoded(packed, "bf16", slots=2, threads=1, cache_dir=tmp_path)
    assert first.kind == "bf16" and first.path.parent == tmp_path and not first.note
    made = first.path.stat().st_mtime_ns
    again = encoded(packed, "bf16", slots=2, threads=1, cache_dir=tmp_path)
    assert again == first and again.path.stat().st_mtime_ns == made
    assert not list(tmp_path.glob("*.partial"))
    model = Model(first.path)
    assert model.params == Model(packed).params
    model.close()
    engine = engines(packed, weights="bf16", cache_dir=tmp_path)
    assert engine.weights.kind == "bf16" and engine.name == "packed"
    assert run(engine, [draw(0, ROOT)])[0].error is None


def test_a_changed_file_gets_its_own_copy(packed: Path, tmp_path: Path) -> None:
    first = encoded(packed, "bf16", slots=1, threads=1, cache_dir=tmp_path)
    copy = tmp_path / "packed.gguf"
    data = bytearray(packed.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    assert encoded(copy, "bf16", slots=1, threads=1, cache_dir=tmp_path).path != first.path


def test_weights_that_are_not_packed_run_as_they_are(tiny_path: Path, tmp_path: Path) -> None:
    for wanted in ("auto", "bf16", "file"):
        assert encoded(tiny_path, wanted, slots=1, threads=1, cache_dir=tmp_path).kind == "file"
    assert not list(tmp_path.glob("*.gguf"))


def test_auto_measures_once_per_width(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "TRIAL_SECONDS", 0.01)
    first = encoded(packed, "auto", slots=2, threads=1, cache_dir=tmp_path)
    table = json.loads((tmp_path / "weights.json").read_text())
    ((key, row),) = table.items()
    assert "2 rows" in key and row["choice"] == first.kind
    speeds = row["tokens_per_second"]
    assert set(speeds) == {"file", "bf16"} and row["choice"] == max(speeds, key=speeds.get)
    monkeypatch.setattr(weights, "_speeds", None)  # calling it again would fail
    assert encoded(packed, "auto", slots=2, threads=1, cache_dir=tmp_path) == first


@pytest.mark.parametrize("choice", ["file", "bf16"])
def test_auto_follows_the_record(packed: Path, tmp_path: Path, choice: str) -> None:
    weights._remember(tmp_path, weights._key(packed, 3, 1), choice, {})
    assert encoded(packed, "auto", slots=3, threads=1, cache_dir=tmp_path).kind == choice


def test_a_broken_record_is_measured_again(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "TRIAL_SECONDS", 0.01)
    for junk in ("", "[1]", '{"a": 1}', "{"):
        (tmp_path / "weights.json").write_text(junk)
        assert encoded(packed, "auto", slots=2, threads=1, cache_dir=tmp_path).kind in ("file", "bf16")


Disk = namedtuple("Disk", "total used free")


def test_a_full_disk_falls_back_to_the_file_with_a_note(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(10, 10, 0))
    got = encoded(packed, "bf16", slots=1, threads=1, cache_dir=tmp_path)
    assert (got.kind, got.path) == ("file", packed)
    assert "0.0 GB free" in got.note and "\n" not in got.note and got.note in caplog.text


def test_a_failing_quantizer_leaves_nothing_behind(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(source: bytes, target: bytes, _: object) -> int:
        data = Path(source.decode()).read_bytes()
        Path(target.decode()).write_bytes(data[: len(data) // 2])
        return 0

    monkeypatch.setattr(llama_cpp, "llama_model_quantize", write_half)
    assert encoded(packed, "bf16", slots=1, threads=1, cache_dir=tmp_path).kind == "file"
    monkeypatch.setattr(llama_cpp, "llama_model_quantize", lambda *_: 1)
    assert encoded(packed, "bf16", slots=1, threads=1, cache_dir=tmp_path).kind == "file"
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_a_folder_that_cannot_be_written_falls_back(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    got = encoded(packed, "auto", slots=1, threads=1, cache_dir=tmp_path / "file" / "sub")
    assert got.kind == "file" and got.note


def test_the_lock_is_held_while_encoding(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []

    def quantize(*_: object) -> int:
        with (tmp_path / "lock").open("w") as other:
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                seen.append(True)
        return 1

    monkeypatch.setattr(llama_cpp, "llama_model_quantize", quantize)
    encoded(packed, "bf16", slots=1, threads=1, cache_dir=tmp_path)
    assert seen == [True]
