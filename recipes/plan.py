"""Recipes read from their files, their commands written out, and what they take on a GPU.

The prediction is arithmetic on published figures of the hardware, not a measurement:

    a step of decoding  = (weights + rows x context x KV bytes a token) / memory bandwidth / EFFICIENCY
    tokens a second     = rows / that
    a verifier's second = FLOP/s x UTILISATION / (2 x its parameters) tokens

`rows` is what fits beside the weights, at most 256. A verifier reads every token of a solution once, because the KV of
what it has read stays resident.
"""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["GPUS", "Gpu", "Need", "Recipe", "find", "names", "need"]

FOLDER = Path(__file__).resolve().parent
EFFICIENCY = 0.6
"""Share of the memory bandwidth that decoding reaches."""
UTILISATION = 0.4
"""Share of the arithmetic that reading long batches reaches."""
ROWS = 256
PROMPT = 300
"""Tokens of a question with its template."""
OVERHEAD = 6e9
"""Bytes: CUDA's own, activations, fragments."""


@dataclass(frozen=True)
class Gpu:
    """What its maker says of it, and what it was taken to cost."""

    name: str
    memory: float
    """Bytes."""
    bandwidth: float
    """Bytes a second."""
    flops: float
    """bf16, dense."""
    price: float
    """US dollars an hour: an assumption, see --price."""


GPUS = {
    "a100": Gpu("A100 80 GB", 80e9, 2.039e12, 312e12, 2.0),
    "h100": Gpu("H100 80 GB", 80e9, 3.35e12, 989e12, 3.0),
    "l4": Gpu("L4 24 GB", 24e9, 0.3e12, 121e12, 0.8),
}


@dataclass(frozen=True)
class Recipe:
    """One file of this folder."""

    name: str
    title: str
    claim: str
    source: str
    policy: str
    verifiers: tuple[str, ...]
    scale: Mapping[str, str]
    """What a trial makes smaller: placeholders of the commands."""
    templates: tuple[str, ...]
    expected: tuple[Mapping[str, Any], ...]
    """Published figures: task, method, n, accuracy in percent, source."""
    models: tuple[Mapping[str, Any], ...]
    """Parameters and KV bytes a token of the policy (first) and of each verifier."""
    work: tuple[Mapping[str, Any], ...] = field(default=())
    """Of each command: questions, samples in all, how many of them a verifier guides, tokens of each."""

    def commands(self, **others: str) -> list[list[str]]:
        """The command lines, with placeholders filled; `others` replace those of the file."""
        values = {"policy": self.policy, "verifiers": ",".join(self.verifiers), **self.scale, **others}
        return [shlex.split(template.format(**values)) for template in self.templates]


@dataclass(frozen=True)
class Need:
    """What a recipe takes."""

    memory: float
    """Bytes: weights of the policy and the largest verifier, KV of the rows, and overhead."""
    rows: int
    policy_hours: float
    verifier_hours: float
    cost: float
    """US dollars."""

    @property
    def hours(self) -> float:
        """On one GPU; several share the questions (--ray)."""
        return self.policy_hours + self.verifier_hours


def names() -> list[str]:
    """Every recipe."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name: str) -> Recipe:
    """The recipe of that name. KeyError for none."""
    path = FOLDER / f"{name}.toml"
    if name not in names():
        raise KeyError(f"there is no recipe {name!r}: one of {', '.join(names())}")
    facts = tomllib.loads(path.read_text("utf-8"))
    return Recipe(
        name,
        facts["title"],
        facts["claim"],
        facts["source"],
        facts["policy"],
        tuple(facts["verifiers"]),
        facts["scale"],
        tuple(row["run"] for row in facts["command"]),
        tuple(facts["expected"]),
        tuple(facts["model"]),
        tuple(row for row in facts["command"]),
    )


def need(recipe: Recipe, gpu: Gpu, price: float | None = None) -> Need:
    """What all its commands take on one GPU."""
    policy, *verifiers = recipe.models
    weights = 2.0 * float(policy["parameters"])
    beside = max((2.0 * float(each["parameters"]) for each in verifiers), default=0.0)
    longest = max(PROMPT + float(row["tokens"]) for row in recipe.work)
    each = longest * float(policy["kv_bytes"])
    rows = int(max(1.0, min(float(ROWS), (gpu.memory - weights - beside - OVERHEAD) / each)))
    drawing = reading = 0.0
    for row in recipe.work:
        scored = float(row["questions"]) * float(row["samples"]) * float(row["tokens"])
        guided = float(row["questions"]) * float(row.get("guided", 0)) * float(row["tokens"])
        drawn = scored + guided * max(0, len(verifiers) - 1)  # the others are drawn once for all verifiers
        context = PROMPT + float(row["tokens"]) / 2
        step = (weights + rows * context * float(policy["kv_bytes"])) / gpu.bandwidth / EFFICIENCY
        drawing += drawn / (rows / step)
        if row.get("verified", True):
            for verifier in verifiers:
                reading += scored * 2 * float(verifier["parameters"]) / (gpu.flops * UTILISATION)
    hours = (drawing + reading) / 3600
    memory = weights + beside + rows * each + OVERHEAD
    return Need(memory, rows, drawing / 3600, reading / 3600, hours * (gpu.price if price is None else price))
