"""The tiny model, and engines on it that are closed after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import pytest

from flyweight.policies.llamacpp import LlamaCpp
from tests import tiny
from tests.engine_kit import Engines

EXACT: dict[str, Any] = {
    "weights": "file",
    "slots": 4,
    "context": 256,
    "threads": 1,
    "kv_type": "f32",
    "flash_attention": False,
}
"""fp32 throughout: nothing is rounded away."""


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model of seed 0."""
    return tiny.make(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="session")
def quantised(tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model in 8-bit blocks."""
    source = gguf.GGUFReader(tiny_path)
    path = tmp_path_factory.mktemp("quantised") / "quantised.gguf"
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


@pytest.fixture
def engines(tiny_path: Path) -> Iterator[Engines]:
    """Make engines on the tiny model, exact unless told otherwise."""
    made: list[LlamaCpp] = []

    def make(path: Path = tiny_path, **options: Any) -> LlamaCpp:
        engine = LlamaCpp(path, **EXACT | options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()
