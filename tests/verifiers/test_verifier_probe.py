"""The probe: its arithmetic against loops, its steps, what it refuses; and that fitting finds what is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Hidden, Models
from flyweight.testing import NoModels, drive
from flyweight.types import Finish, Node, Problem, Score
from flyweight.verifiers.probe import SCALARS, Head, Probe, numbers

LAYERS, WIDTH, CHANNELS = 2, 3, 2
SIZE = LAYERS * WIDTH


def head(**changes: Any) -> Head:
    rng = np.random.default_rng(1)

    def drawn(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float16).astype(np.float32)

    made = Head(
        mean=drawn(SIZE),
        scale=np.abs(drawn(SIZE)) + 0.5,
        reward=drawn(CHANNELS, SIZE),
        gate=drawn(CHANNELS, SIZE),
        bias=drawn(2, CHANNELS),
        average=drawn(SIZE),
        last=drawn(SIZE),
        scalar=drawn(3, len(SCALARS)),
        channel=drawn(CHANNELS),
        offset=0.3,
        sha256="a" * 64,
        facts={"questions": 7},
    )
    return replace(made, **changes)


class Given(NoModels):
    """States and the model's hash, as told."""

    def __init__(self, states: dict[str, Any], sha256: str = "a" * 64) -> None:
        self._states, self._sha256 = states, sha256

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        found = []
        for node in nodes:
            inner = accumulate(len(step.tokens or ()) for step in node.steps[:-1])
            states = self._states[node.key]
            found.append(Hidden(states, ends=(*inner, len(states)) if states is not None else ()))
        return found

    def weights(self, policy: str | None = None) -> str:
        return self._sha256


def states(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((count, LAYERS, WIDTH)).astype(np.float16)


def step(parent: Node, tokens: int, *, key: str, finish: Finish = Finish.STOP) -> Node:
    logprobs = tuple(-0.1 * (i + 1) for i in range(tokens))
    return Node(parent, "x" * tokens, tuple(range(tokens)), logprobs, (2.0,) * tokens, finish, key=key, policy="m")


def loops(h: Head, x: Any, known: Sequence[float]) -> float:
    """The logit of a text, one number at a time."""
    rows = [[(float(v) - h.mean[d]) * h.scale[d] for d, v in enumerate(row.reshape(-1))] for row in x]

    def dot(a: Any, b: Any) -> float:
        return sum(float(p) * float(q) for p, q in zip(a, b, strict=True))

    total = h.offset
    for k in range(CHANNELS):
        gates = [1 / (1 + math.exp(-(dot(h.gate[k], row) + h.bias[1][k]))) for row in rows]
        rewards = [dot(h.reward[k], row) + h.bias[0][k] for row in rows]
        total += h.channel[k] * dot(gates, rewards) / sum(gates)
    total += sum(dot(h.average, row) for row in rows) / len(rows) + dot(h.last, rows[-1])
    return float(total + sum((v - m) * s * w for v, m, s, w in zip(known, *h.scalar, strict=True)))


def scored(tmp_path: Path, nodes: list[Node], models: Models) -> list[Score]:
    head().save(tmp_path / "head.npz")
    return drive(Probe(head=str(tmp_path / "head.npz")).score(Problem("p", "q"), nodes, models))


def test_equal_to_loops_and_one_value_a_step(tmp_path: Path) -> None:
    first = step(Node(), 4, key="a")
    whole = step(first, 3, key="b", finish=Finish.END)
    x = states(8)  # the end, too, was drawn from a state
    [score] = scored(tmp_path, [whole], Given({"b": x}))
    logprobs = [*first.logprobs, *whole.logprobs]
    expected = []
    for end in (4, 8):
        known = [
            sum(logprobs[:end]) / len(logprobs[:end]),
            sum(logprobs[:end]) / len(logprobs[:end]),  # shorter than a window: all of it
            2.0,
            math.log(end),
        ]
        expected.append(1 / (1 + math.exp(-loops(head(), x[:end], known))))
    np.testing.assert_allclose(score.steps, expected, atol=2e-3)
    assert score.value == score.steps[-1] and score.kind == "probe"


def test_a_path_scored_step_by_step_has_the_steps_of_the_whole(tmp_path: Path) -> None:
    first = step(Node(), 4, key="a")
    second = step(first, 3, key="b")
    x = states(7)
    short, whole = scored(tmp_path, [first, second], Given({"a": x[:4], "b": x}))
    assert whole.steps[0] == pytest.approx(short.value, abs=1e-6) and len(whole.steps) == 2


def test_least_sure_window() -> None:
    logprobs = np.array([-0.1] * 40 + [-2.0] * 10 + [-0.1] * 40, np.float32)
    found = numbers(logprobs, np.ones(90, np.float32), 90)
    naive = min(float(np.mean(logprobs[i : i + 32])) for i in range(len(logprobs) - 31))
    assert found[1] == pytest.approx(naive, abs=1e-5)
    assert numbers(np.zeros(0, np.float32), np.zeros(0, np.float32), 0).tolist() == [0.0, 0.0, 0.0, 0.0]


def test_text_without_states_says_nothing(tmp_path: Path) -> None:
    empty = step(Node(), 0, key="a")
    assert [s.value for s in scored(tmp_path, [empty], Given({"a": states(0)}))] == [0.5]


def test_other_models_and_other_widths_are_refused(tmp_path: Path) -> None:
    node = step(Node(), 2, key="a")
    with pytest.raises(ConfigError, match="was trained for the model aaaa"):
        scored(tmp_path, [node], Given({"a": states(2)}, sha256="b" * 64))
    with pytest.raises(BackendError, match="reads 6 numbers a token, the policy gave 9"):
        scored(tmp_path, [node], Given({"a": np.zeros((2, 3, 3), np.float16)}))
    with pytest.raises(ConfigError, match="there is no probe for this model"):
        drive(Probe().score(Problem("p", "q"), [node], Given({"a": states(2)}, sha256="c" * 64)))


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY nothing", b"{}"])
def test_a_file_that_is_no_head_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "h.npz").write_bytes(content)
    with pytest.raises(ConfigError, match="is not a head") as error:
        Probe(head=str(tmp_path / "h.npz"))
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="there is no head"):
        Probe(head=str(tmp_path / "none.npz"))


def test_a_head_with_a_weight_that_is_no_number_is_refused(tmp_path: Path) -> None:
    head(last=np.full(SIZE, np.nan, np.float32)).save(tmp_path / "h.npz")
    with pytest.raises(ConfigError, match="not a finite number"):
        Probe(head=str(tmp_path / "h.npz"))


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    head().save(tmp_path / "h.npz")
    again = Head.load(tmp_path / "h.npz")
    assert again.facts == {"questions": 7} and again.sha256 == "a" * 64 and again.offset == 0.3
    for name in ("mean", "scale", "reward", "gate", "bias", "average", "last", "scalar", "channel"):
        np.testing.assert_allclose(getattr(again, name), getattr(head(), name), rtol=1e-3)


def test_what_it_is_filed_under_changes_with_the_file(tmp_path: Path) -> None:
    head().save(tmp_path / "h.npz")
    before = Probe(head=str(tmp_path / "h.npz")).identity
    assert Probe(head=str(tmp_path / "h.npz")).identity == before != Probe().identity
    head(offset=0.4).save(tmp_path / "h.npz")
    assert Probe(head=str(tmp_path / "h.npz")).identity != before


@pytest.mark.torch
def test_fitting_finds_a_direction_that_tells_right_from_wrong() -> None:
    pytest.importorskip("torch")
    from flyweight.training import head as training
    from flyweight.training.pool import Chain, Question

    rng = np.random.default_rng(3)
    direction = rng.standard_normal((LAYERS, WIDTH))
    questions = []
    for q in range(48):
        chains = []
        for c in range(6):
            right = bool((q + c) % 2)
            length = int(rng.integers(5, 30))
            x = rng.standard_normal((length, LAYERS, WIDTH))
            x += 0.4 * (1 if right else -1) * direction  # visible only on average over the tokens
            chains.append(
                Chain(
                    x.astype(np.float16),
                    np.full(length, -0.5, np.float32),
                    np.ones(length, np.float32),
                    right,
                    (length,),
                    (-1.0,),
                )
            )
        questions.append(Question(str(q), states(4, q), tuple(chains)))
    plan = training.Plan(decays=(0.1,), epochs=6, rate=0.02, folds=3)
    fitted = training.fit(questions, "a" * 64, plan)
    assert cast(float, fitted.head.facts["auc_within"]) > 0.9
    # What was fitted in torch is what the head computes.
    chain = questions[0].chains[0]
    known = numbers(chain.logprobs, chain.certainty, len(chain.states))
    whole = fitted.head.logits(chain.states, known[None], [len(chain.states)])
    assert (whole[0] > 0) == chain.right
    shuffled = [replace(q, chains=tuple(replace(c, right=bool(rng.integers(2))) for c in q.chains)) for q in questions]
    assert abs(cast(float, training.fit(shuffled, "a" * 64, plan).head.facts["auc_within"]) - 0.5) < 0.15
