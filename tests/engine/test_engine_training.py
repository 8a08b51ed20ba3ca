"""Fine-tuned upper layers: what is learnt, an interruption that changes nothing, what the engine makes of the file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

from flyweight import models, stats  # noqa: E402
from flyweight.policies.llamacpp import LlamaCpp  # noqa: E402
from flyweight.protocols import Models  # noqa: E402
from flyweight.testing import drive  # noqa: E402
from flyweight.training import lora  # noqa: E402
from flyweight.training.pool import Chain, Question  # noqa: E402
from flyweight.types import Node, Problem  # noqa: E402
from flyweight.verifiers.lora import Lora  # noqa: E402
from tests import tiny  # noqa: E402
from tests.engine_kit import draw, prompt, run  # noqa: E402
from tests.states_kit import Held  # noqa: E402

PLAN = lora.Plan(first=12, rate=3e-3, seed=3)


class Drawn(NamedTuple):
    """Questions with their texts, as files that hold them would be read."""

    engine: LlamaCpp
    files: dict[Path, Question]
    nodes: dict[Path, list[Node]]
    models: Held


@pytest.fixture(scope="module")
def drawn(tiny_path: Path) -> Iterator[Drawn]:
    """Texts of the tiny model; one is "right" if a few numbers of its states are large."""
    with closing(LlamaCpp(tiny_path, slots=8, context=256, weights="file")) as engine:
        held = Held(engine, models.digest(tiny_path))
        files, nodes = {}, {}
        for number in range(36):
            root = replace(prompt(f"question {number}"), key=f"root {number}")
            requests = [draw(100 * number + i, root, hidden=True, max_tokens=6 + i) for i in range(6)]
            path = Path(f"{number}.npz")
            nodes[path] = [
                Node(root, r.text, r.tokens, r.logprobs, finish=r.finish, hidden=r.hidden, key=f"{number}/{r.id}")
                for r in run(engine, requests)
            ]
        middle = float(np.median([_sign(node) for group in nodes.values() for node in group]))
        for path, group in nodes.items():
            chains = tuple(_chain(node, _sign(node) > middle) for node in group)
            files[path] = Question(path.stem, held.prompt(group[0].root), chains)
        yield Drawn(engine, files, nodes, held)


def _sign(node: Node) -> float:
    return float(np.asarray(node.hidden)[:, 0, 1:4].mean(dtype=np.float64))


def _chain(node: Node, right: bool) -> Chain:
    states = np.asarray(node.hidden, np.float16)
    nothing = np.zeros(len(states), np.float32)
    half = max(1, len(states) // 2)
    return Chain(states, nothing, nothing, right, (half, len(states)) if half < len(states) else (half,), (-1.0,) * 2)


@pytest.fixture
def stored(drawn: Drawn, monkeypatch: pytest.MonkeyPatch) -> Drawn:
    monkeypatch.setattr(lora, "load", drawn.files.__getitem__)
    return drawn


def marks(verifier: lora.Verifier, files: list[Path]) -> float:
    found = list(lora.scores(verifier, files))
    return stats.auc([x for _, row, _ in found for x in row], [y for _, _, row in found for y in row])


def test_it_learns_and_the_engine_says_what_training_saw(stored: Drawn, tiny_path: Path, tmp_path: Path) -> None:
    files = list(stored.files)
    used, held_out = files[:28], files[28:]
    verifier = lora.Verifier(tiny_path, PLAN)
    told = list(lora.train(verifier, used, tmp_path / "lora.pt", PLAN))
    assert told[-1].done == told[-1].of == 28 and told[-1].seconds == 0
    assert marks(verifier, held_out) > 0.75
    assert all(weights.abs().sum() > 0 for name, weights in verifier.trained().items() if "lora_B" in name)

    adapter = tmp_path / "adapter.gguf"
    facts = lora.export(verifier, adapter, held_out, sha256=stored.models.sha256, questions=28)
    logits = {path: row for path, row, _ in lora.scores(verifier, held_out)}
    judge = Lora(adapter=str(adapter), model=str(tiny_path))
    try:
        said = {
            path: drive(judge.score(Problem("p", "q"), stored.nodes[path], cast(Models, stored.models)))
            for path in held_out
        }
    finally:
        judge.close()
    # The file's calibration is the only thing between the two, and it keeps the order.
    ours = [x for path in held_out for x in logits[path]]
    theirs = [score.value for path in held_out for score in said[path]]
    slope, shift = np.polyfit(ours, [np.log(p / (1 - p)) for p in theirs], 1)
    np.testing.assert_allclose(theirs, 1 / (1 + np.exp(-(slope * np.asarray(ours) + shift))), atol=0.03)
    right = [chain.right for path in held_out for chain in stored.files[path].chains]
    assert stats.auc(theirs, right) == pytest.approx(float(cast(Any, facts["auc"])), abs=0.02)


def test_an_adapter_is_of_the_architecture_that_was_read(stored: Drawn, tmp_path: Path) -> None:
    """llama.cpp refuses one of another."""
    path = tiny.make(tmp_path / "qwen3.gguf", architecture="qwen3")
    verifier = lora.Verifier(path, PLAN)
    files = list(stored.files)
    adapter = tmp_path / "adapter.gguf"
    lora.export(verifier, adapter, files[:2], sha256=stored.models.sha256, questions=0)
    judge = Lora(adapter=str(adapter), model=str(path))
    try:
        nodes = stored.nodes[files[0]]
        scores = drive(judge.score(Problem("p", "q"), nodes, cast(Models, stored.models)))
    finally:
        judge.close()
    assert len(scores) == len(nodes)


def test_interrupted_and_gone_on_with_it_is_the_same(stored: Drawn, tiny_path: Path, tmp_path: Path) -> None:
    files = list(stored.files)[:10]
    plan = replace(PLAN, first=4)
    whole = lora.Verifier(tiny_path, plan)
    list(lora.train(whole, files, tmp_path / "whole.pt", plan))
    cut = lora.Verifier(tiny_path, plan)
    for progress in lora.train(cut, files, tmp_path / "cut.pt", plan, every=0):
        if progress.done == 6:
            break
    again = lora.Verifier(tiny_path, plan)
    rest = [progress.done for progress in lora.train(again, files, tmp_path / "cut.pt", plan)]
    assert rest == [7, 8, 9, 10]
    for name, weights in whole.trained().items():
        assert torch.equal(weights, again.trained()[name]), name


def test_readings_by_hand() -> None:
    """Where a pack is read, and with which labels: two chains of different lengths behind a prompt of three."""
    state = np.arange(12, dtype=np.float16).reshape(6, 1, 2)
    short = Chain(state[:2], np.zeros(2, np.float32), np.zeros(2, np.float32), True, (2,), (-1.0,))
    long = Chain(state[:5], np.zeros(5, np.float32), np.zeros(5, np.float32), False, (1, 3, 5), (0.25, -1.0, 0.5))
    packed = lora.pack(Question("q", state[:3], (short, long)), [0, 1])
    assert packed.states.shape == (2, 8, 2) and packed.prompt == 3
    assert packed.present.tolist() == [[1] * 5 + [0] * 3, [1] * 8]
    assert packed.row.tolist() == [0, 1, 1, 1] and packed.at.tolist() == [4, 3, 5, 7]
    # The outcome at the end; inside, the share that came out right where it is known.
    assert packed.label.tolist() == [1.0, 0.25, 0.0, 0.0]
    assert packed.whole.tolist() == [True, False, False, True]
