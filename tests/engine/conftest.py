"""The tiny model, and engines on it that are closed after the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
