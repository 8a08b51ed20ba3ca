"""How the engine is compared with the reference: tokens as long as they agree, log-probabilities of those."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.torch

from benchmarks.reference import Agreement, agreement  # noqa: E402
from flyweight.protocols import Response  # noqa: E402


def test_only_what_both_drew_is_compared() -> None:
    ours = [Response(0, tokens=(1, 2, 3), logprobs=(-0.1, -0.2, -0.3)), Response(1, tokens=(4,), logprobs=(-1.0,))]
    theirs = [Response(0, tokens=(1, 9, 3), logprobs=(-0.2, -5.0, -9.0)), Response(1, tokens=(4,), logprobs=(-1.5,))]
    found = agreement("file", ours, theirs)
    assert found == Agreement("file", 2, 1, 2, pytest.approx(0.3), pytest.approx(0.5))  # type: ignore[arg-type]
    assert agreement("file", ours, ours) == Agreement("file", 2, 2, 4, 0.0, 0.0)
