"""What several files of the server's tests ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flyweight.policies.llamacpp import LlamaCpp
from tests import tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    path = tiny.make(tmp_path_factory.mktemp("model") / "tiny.gguf")
    policy = LlamaCpp(path, slots=16, context=400, weights="file")
    yield policy
    policy.close()
