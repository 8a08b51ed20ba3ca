"""What a model of vLLM is filed under, which needs no vLLM."""

from __future__ import annotations

from pathlib import Path

from flyweight.policies.vllm import _name


def test_a_folder_whose_weights_change_is_another_model(tmp_path: Path) -> None:
    (folder := tmp_path / "tiny").mkdir()
    (folder / "model.safetensors").write_bytes(b"some weights")
    was = _name(f"{folder}/", "bfloat16", folder)
    assert was.startswith("tiny bfloat16 ") and was.endswith(" vllm")
    assert _name(str(folder), "bfloat16", folder) == was != _name(str(folder), "float32", folder)
    (folder / "model.safetensors").write_bytes(b"some other weights")
    assert _name(str(folder), "bfloat16", folder) != was
    assert _name("org/tiny", "bfloat16", folder).startswith("org/tiny bfloat16 ")
