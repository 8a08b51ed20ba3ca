"""The probe: a small head on hidden states that the policy computed anyway while it wrote."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Hidden, Models
from flyweight.types import Node, Problem, Score
from flyweight.verifiers import heads
from flyweight.verifiers.confidence import NEUTRAL

__all__ = ["SCALARS", "Head", "Probe", "scalars", "shipped"]

Floats = NDArray[np.float32]
VERSION = 1
WINDOW = 32
SCALARS = ("mean log-probability", "least sure window", "mean self-certainty", "log of the length")


@dataclass(frozen=True, slots=True)
class Head:
    """The weights of a probe. D numbers a token: what the layers hand on, one after another, standardised."""

    mean: Floats
    """[D] over the tokens trained on"""
    scale: Floats
    """[D] one over their standard deviation"""
    reward: Floats
    """[K, D] what a token says in each of K channels"""
    gate: Floats
    """[K, D] how much it counts there, before the sigmoid"""
    bias: Floats
    """[2, K] of the rewards and of the gates"""
    average: Floats
    """[D] read off the mean of the tokens"""
    last: Floats
    """[D] read off the last token"""
    scalar: Floats
    """[3, S] mean, 1 / deviation and weight of each of SCALARS"""
    channel: Floats
    """[K] weights of the channels"""
    offset: float
    sha256: str
    """Of the model's file."""
    facts: dict[str, object] = field(default_factory=dict)
    """What it was trained on, and how well it does there."""

    def logits(self, states: NDArray[np.float16], numbers: Floats, ends: Sequence[int]) -> Floats:
        """The logit of "right" after the first `end` states, for each end; `numbers` are SCALARS at each, [E, S].

        With x a token's standardised states: sum over channels of weighted means of w.x, the weights sigmoid(g.x);
        plus linear terms of the mean of x, of the last x and of the scalars.
        """
        x = (states.reshape(len(states), -1).astype(np.float32) - self.mean) * self.scale
        said = x @ self.reward.T + self.bias[0]
        weight = 1 / (1 + np.exp(-np.clip(x @ self.gate.T + self.bias[1], -30, 30)))
        total = np.cumsum(weight * said, axis=0) / np.cumsum(weight, axis=0)
        average = np.cumsum(x @ self.average) / np.arange(1, len(x) + 1)
        flat = total @ self.channel + average + x @ self.last
        at = np.array(ends) - 1
        known = (numbers - self.scalar[0]) * self.scalar[1]
        return cast(Floats, flat[at] + known @ self.scalar[2] + self.offset)

    def save(self, path: Path) -> None:
        """Write it as numpy's .npz, half precision."""
        arrays: dict[str, Any] = {name: getattr(self, name).astype(np.float16) for name in ("reward", "gate")}
        arrays |= {name: getattr(self, name) for name in ("mean", "scale", "bias", "scalar", "channel")}
        arrays |= {name: getattr(self, name).astype(np.float16) for name in ("average", "last")}
        facts = {"version": VERSION, "sha256": self.sha256, "offset": self.offset, **self.facts}
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            np.savez_compressed(stream, facts=np.array(json.dumps(facts)), **arrays)

    @classmethod
    def load(cls, path: Path) -> Head:
        """Read it. ConfigError in one line for a file that is none, or another version's."""
        try:
            if not zipfile.is_zipfile(path) and path.exists():
                raise ValueError("no numpy archive")
            with np.load(path, allow_pickle=False) as data:
                facts = json.loads(str(data["facts"]))
                arrays = {name: data[name].astype(np.float32) for name in data.files if name != "facts"}
            if facts.pop("version") != VERSION:
                raise ConfigError(f"{path} is a head of another version: train it again (flyweight train-verifier)")
            if not all(np.isfinite(array).all() for array in arrays.values()):
                raise ValueError("a weight is not a finite number")
            return cls(**arrays, offset=float(facts.pop("offset")), sha256=str(facts.pop("sha256")), facts=facts)
        except ConfigError:
            raise
        except FileNotFoundError as error:
            raise ConfigError(f"there is no head at {path}") from error
        except Exception as error:
            raise ConfigError(f"{path} is not a head that flyweight train-verifier wrote ({error})") from error


class Probe:
    """Probability that a solution is right, read off hidden states of the policy's inner layers.

    Free on what the policy has just drawn; other text is read again, at its tokens. `Score.steps` holds the
    probability after each step. `head` is a file from `flyweight train-verifier`; without one, the head shipped for
    the model. A head belongs to one model file and refuses others.

    Source: Guo et al. 2025, SWIFT: Mining Intrinsic Rewards from LLM Hidden States (2505.12225): gated mean of linear
    token rewards. Deviations: three inner layers instead of all; a few gated channels instead of one; beside them the
    plain mean, the last token and four scalars of the token probabilities.
    """

    name = "probe"
    params = 0
    sees_answer = False
    reads_states = True

    def __init__(self, *, head: str = "") -> None:
        """`head`: a file; empty for the shipped one."""
        self.head = head
        if head:
            _loaded(Path(head))

    @property
    def identity(self) -> str:
        """What its scores are filed under."""
        return heads.identity(self.name, self.head)

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node. ConfigError where there is no head for the model, or it was trained for another."""
        head = self._fitting(models.weights())
        found = await models.states(nodes)
        return [self._score(head, node, hidden) for node, hidden in zip(nodes, found, strict=True)]

    def _fitting(self, sha256: str) -> Head:
        if not self.head:
            return shipped(sha256)
        head = _loaded(Path(self.head))
        if head.sha256 != sha256:
            raise ConfigError(
                f"{self.head} was trained for the model {head.sha256[:12]}, this one is {sha256[:12] or 'unknown'}: "
                "train one with flyweight train-verifier"
            )
        return head

    def _score(self, head: Head, node: Node, hidden: Hidden) -> Score:
        states: NDArray[np.float16] = hidden.states
        if states is None or not len(states):
            return Score(NEUTRAL, (), self.name)
        if states[0].size != len(head.mean):
            raise BackendError(f"the probe reads {len(head.mean)} numbers a token, the policy gave {states[0].size}")
        ends = [*sorted({end for end in hidden.ends if 0 < end < len(states)}), len(states)]
        logits = head.logits(states, np.stack([scalars(node.steps, end) for end in ends]), ends)
        values = tuple(heads.probability(float(logit)) for logit in logits)
        return Score(values[-1], values, self.name)


def scalars(steps: Sequence[Node], end: int) -> Floats:
    """SCALARS of the first `end` tokens drawn along a path; 0 nats where nothing was recorded."""
    logprobs = np.array([lp for step in steps for lp in step.logprobs][:end], np.float32)
    certainty = np.array([c for step in steps for c in step.certainty][:end], np.float32)
    return numbers(logprobs, certainty, end)


def numbers(logprobs: Floats, certainty: Floats, end: int) -> Floats:
    """SCALARS from what was recorded for each token."""
    logprobs, certainty = np.maximum(logprobs[:end], -30.0), certainty[:end]
    if not len(logprobs):
        return np.array([0.0, 0.0, 0.0, math.log(max(1, end))], np.float32)
    window = min(WINDOW, len(logprobs))
    sums = np.cumsum(np.concatenate([[0.0], logprobs]))
    lowest = float(((sums[window:] - sums[:-window]) / window).min())
    return np.array([logprobs.mean(), lowest, certainty.mean() if len(certainty) else 0.0, math.log(end)], np.float32)


def shipped(sha256: str) -> Head:
    """The head in the package for a model file. ConfigError where there is none."""
    for path in sorted(heads.FOLDER.glob("*.npz")):
        head = _loaded(path)
        if head.sha256 == sha256:
            return head
    raise ConfigError(
        f"there is no probe for this model ({sha256[:12] or 'not a file'}): train one with flyweight train-verifier, "
        "then --verifier probe:head=FILE"
    )


@lru_cache(maxsize=8)
def _loaded(path: Path) -> Head:
    return Head.load(path)
