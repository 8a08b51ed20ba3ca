"""Tokens that a reward model computes again in a beam search: counted by hand, and few."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import prm as benchmark
from flyweight.testing import ToyPolicy
from flyweight.verifiers.prm import Prm
from flyweight.verifiers.transformer import Reading, Said


class Forgetful:
    """A backend that computes everything anew."""

    def __init__(self, backend: Any = None) -> None:
        self.vocabulary, self._backend = backend and backend.vocabulary, backend

    def read(self, readings: Sequence[Reading]) -> list[Said]:
        return [Said([0.5] * len(reading.positions), len(reading.ids)) for reading in readings]

    def close(self) -> None:
        self._backend.close()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "STEPS", 4)


def test_the_tree_by_hand() -> None:
    counted = benchmark.Counted(Forgetful())
    counted.read([Reading([1, 2, 3], [2]), Reading([1, 2, 4], [2])])
    counted.read([Reading([1, 2, 3, 5], [3]), Reading([2], [0])])
    assert (counted.computed, counted.distinct) == (3 + 3 + 4 + 1, 6)


@pytest.mark.parametrize("recipe", ["math-shepherd", "rlhflow"])
def test_a_beam_search_computes_nearly_nothing_again(recipe: str, tmp_path: Path) -> None:
    """Of what 32 beams of width 4 cost on the embedded engine, at most 5 %."""
    prm = benchmark.gguf(tmp_path, recipe)
    count = benchmark.measure(prm, ToyPolicy(benchmark.write), searches=1)
    prm.close()
    assert count.scores == (4 + 1) * 32, "four steps and the answer"
    assert 0 <= count.again <= 0.05 * count.computed
    assert count.computed < count.whole / 3


def test_what_is_computed_again_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a cache most of it is."""
    prm, load = benchmark.gguf(tmp_path, "rlhflow"), Prm._load
    monkeypatch.setattr(Prm, "_load", lambda self: Forgetful(load(self)))
    count = benchmark.measure(prm, ToyPolicy(benchmark.write), searches=1)
    prm.close()
    assert count.again > 0.7 * count.computed


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("recipe", ["math-psa", "rlhflow", "token-yes-no"])
def test_so_with_a_folder(recipe: str, tmp_path: Path) -> None:
    for module in ("torch", "transformers"):
        pytest.importorskip(module)
    prm = benchmark.transformer(tmp_path, recipe)
    count = benchmark.measure(prm, ToyPolicy(benchmark.write), searches=1)
    assert 0 <= count.again <= 0.05 * count.computed
