"""The fine-tuned upper layers: the same numbers as a naive pass, shared prefixes, forgetting, refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gguf
import numpy as np
import pytest

from flyweight.errors import BackendError, ConfigError
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.protocols import Models
from flyweight.testing import drive
from flyweight.types import Finish, Node, Problem, Score
from flyweight.verifiers import lora
from tests import tiny
from tests.engine_kit import draw, prompt, run
from tests.states_kit import Held

RANK, ALPHA = 4, 8.0
TARGETS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


class Tuned(tiny.Reference):
    """The upper layer with its low-rank change, computed the obvious way."""

    def __init__(self, changes: dict[str, tuple[Any, Any]], head: Any, offset: float) -> None:
        super().__init__()
        for name, (a, b) in changes.items():
            key = f"blk.1.{name}.weight"
            self.w[key] = self.w[key] + (ALPHA / RANK) * b @ a
        self.head, self.offset = head, offset

    def value(self, states: Any, prompt: int) -> float:
        """Probability of a sequence of states that layer 0 handed on, the first `prompt` of them the prompt's."""
        x = self.layers(np.asarray(states, np.float32), range(1, 2))
        normed = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + tiny.EPSILON)
        logit = normed[-1] @ self.head[0] + normed[prompt:].mean(axis=0) @ self.head[1] + self.offset
        return float(1 / (1 + np.exp(-logit)))


@pytest.fixture
def adapter(tiny_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Tuned]:
    """An adapter with random weights for the tiny model, and its reference."""
    monkeypatch.setattr(lora, "cache_folder", lambda: tmp_path / "cache")
    rng = np.random.default_rng(5)
    w = tiny.weights(0)
    changes: dict[str, tuple[Any, Any]] = {}
    path = tmp_path / "adapter.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    head = rng.standard_normal((2, tiny.WIDTH)).astype(np.float32) / 4
    writer.add_array("flyweight.heads", [float(x) for x in head.ravel()])
    writer.add_float32("flyweight.offset", -0.25)
    writer.add_uint32("flyweight.layer", 1)
    writer.add_string("flyweight.sha256", "of the tiny model")
    writer.add_string("flyweight.facts", json.dumps({"questions": 0}))
    for name in TARGETS:
        rows, columns = w[f"blk.1.{name}.weight"].shape
        a = rng.standard_normal((RANK, columns)).astype(np.float32) / 8
        b = rng.standard_normal((rows, RANK)).astype(np.float32) / 8
        changes[name] = (a, b)
        writer.add_tensor(f"blk.0.{name}.weight.lora_a", a)
        writer.add_tensor(f"blk.0.{name}.weight.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path, Tuned(changes, head, -0.25)


@pytest.fixture
def verifier(adapter: tuple[Path, Tuned], tiny_path: Path) -> Iterator[lora.Lora]:
    made = lora.Lora(adapter=str(adapter[0]), model=str(tiny_path))
    yield made
    made.close()


def grown(engine: LlamaCpp, parent: Node, id: int, **more: Any) -> Node:
    """A drawn child with its hidden states."""
    [found] = run(engine, [draw(id, parent, hidden=True, **more)])
    return Node(
        parent=parent,
        text=found.text,
        tokens=found.tokens,
        logprobs=found.logprobs,
        certainty=found.certainty,
        finish=found.finish,
        hidden=found.hidden,
        key=f"{parent.key}/{id}",
        policy=engine.name,
    )


def scored(verifier: lora.Lora, nodes: list[Node], models: Held) -> list[Score]:
    return drive(verifier.score(Problem("p", "q"), nodes, cast(Models, models)))


def naive(reference: Tuned, models: Held, node: Node) -> list[float]:
    """The probability after each step, each from a pass over prompt and path up to there."""
    before = models.prompt(node.root)
    states = np.concatenate([before, models.path(node)])[:, 0]
    ends = np.cumsum([len(cast(Any, step.hidden)) for step in node.steps]) + len(before)
    return [reference.value(states[:end], len(before)) for end in ends]


def test_equal_to_a_naive_pass(engines: Any, verifier: lora.Lora, adapter: tuple[Path, Tuned]) -> None:
    engine = engines()
    models = Held(engine, "of the tiny model")
    root = prompt("what is 12 and 7?")
    nodes = [grown(engine, root, i, max_tokens=12 + i) for i in range(5)]
    for node, score in zip(nodes, scored(verifier, nodes, models), strict=True):
        np.testing.assert_allclose(score.steps, naive(adapter[1], models, node), atol=2e-3)
        assert score.value == score.steps[-1]
    # One pass over the prompt, and one over each path.
    expected = len(models.prompt(root)) + sum(len(models.path(node)) for node in nodes)
    assert models.tokens == expected


def test_a_new_step_costs_its_own_states_and_changes_nothing(
    engines: Any, verifier: lora.Lora, adapter: tuple[Path, Tuned]
) -> None:
    engine = engines()
    models = Held(engine, "of the tiny model")
    first = [grown(engine, prompt("a question"), i, max_tokens=8) for i in range(3)]
    first = [node for node in first if node.finish is not Finish.END]
    scored(verifier, first, models)
    before = models.tokens
    second = [grown(engine, node, 10 + i, max_tokens=8) for i, node in enumerate(first) for _ in range(1)]
    scores = scored(verifier, second, models)
    assert models.tokens - before == sum(len(cast(Any, node.hidden)) for node in second)
    for node, score in zip(second, scores, strict=True):
        assert len(score.steps) == 2
        np.testing.assert_allclose(score.steps, naive(adapter[1], models, node), atol=2e-3)
    # Asked again, it knows.
    before = models.tokens
    assert scored(verifier, second, models) == scores and models.tokens == before


def test_what_is_forgotten_is_read_again(
    engines: Any, verifier: lora.Lora, adapter: tuple[Path, Tuned], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "STATES", 160)
    monkeypatch.setattr(lora, "SEQUENCES", 4)
    engine = engines()
    models = Held(engine, "of the tiny model")
    found: dict[str, Score] = {}
    roots = [replace(prompt(f"question {i}"), key=f"root {i}") for i in range(6)]
    nodes = [grown(engine, root, i, max_tokens=10) for i, root in enumerate(roots)]
    for _ in range(2):
        for node in nodes:
            [score] = scored(verifier, [node], models)
            np.testing.assert_allclose(score.steps, naive(adapter[1], models, node), atol=2e-3)
            assert found.setdefault(node.key, score).steps == pytest.approx(score.steps, abs=1e-5)
    assert verifier._reader is not None
    # Nothing leaks: what is held adds up to what is not free.
    reader = verifier._reader
    held = {id(s): s.length for path in reader._paths.values() for s in _line(path.last)}
    assert reader._room == 160 - sum(held.values())
    assert len(reader._paths) + len(reader._free) == 4


def _line(segment: Any) -> Iterator[Any]:
    while segment is not None:
        yield segment
        segment = segment.parent


def test_what_cannot_fit_is_refused_in_a_line(
    engines: Any, verifier: lora.Lora, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "STATES", 64)
    engine = engines()
    models = Held(engine, "of the tiny model")
    with pytest.raises(BackendError, match="does not fit"):
        scored(verifier, [grown(engine, prompt("question " * 8), 1, max_tokens=10)], models)


def test_another_model_is_refused(engines: Any, verifier: lora.Lora) -> None:
    engine = engines()
    with pytest.raises(ConfigError, match="was trained for the model of the tiny"):
        scored(verifier, [grown(engine, prompt("a"), 1)], Held(engine, "f" * 64))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a file of that kind" * 9])
def test_a_file_that_is_no_adapter_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(ConfigError, match="is not an adapter"):
        lora.Lora(adapter=str(tmp_path / "a.gguf"))
    with pytest.raises(ConfigError, match="there is no adapter"):
        lora.Lora(adapter=str(tmp_path / "b.gguf"))
