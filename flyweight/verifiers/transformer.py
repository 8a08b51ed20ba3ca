"""Reading sequences with a transformer and its head: in padded batches, the KV of what was read kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flyweight.errors import BackendError, ModelError
from flyweight.huggingface import libraries, tensor
from flyweight.policies.llamacpp.history import common_prefix
from flyweight.policies.transformers.network import Batch
from flyweight.policies.transformers.resident import Resident
from flyweight.verifiers.folder import load
from flyweight.verifiers.recipes import Recipe, RewardRecipe

__all__ = ["Reader", "Reading", "Said", "Sequences", "leaders"]

SHARED_WORTH = 4
"""Common tokens for which a sequence waits until another one has computed them: fewer than what a chat template puts
between two steps, which the children of a node all share."""


class Reading(NamedTuple):
    """Token ids, and after which of them a score is read, ascending."""

    ids: list[int]
    positions: list[int]


class Said(NamedTuple):
    """What came of a Reading."""

    values: list[float]
    """One per position, in [0, 1]."""
    tokens: int
    """Computed for it."""


def leaders(paths: Sequence[list[int]], cached: Callable[[list[int]], int]) -> list[int]:
    """Indices of those that need not wait for another one of them to compute what they share.

    `cached`: how many of a path's tokens are there already.
    """
    found: list[int] = []
    for i, path in enumerate(paths):
        known = cached(path)
        if all(common_prefix(path, paths[other], len(path)) - known < SHARED_WORTH for other in found):
            found.append(i)
    return found


class Sequences:
    """Sequences read by a causal transformer with a head, in padded batches.

    The KV of what was read is kept, up to `cache_mb`, least recently used dropped first: a sequence costs the tokens
    behind its longest prefix that is still there. Sequences of one call that share a prefix compute it once.
    """

    def __init__(self, path: Path, recipe: Recipe, *, batch: int, cache_mb: int) -> None:
        """Load the model. ModelError for one that does not fit the recipe."""
        self.torch, transformers = libraries()
        self.new_cache = transformers.DynamicCache
        causal = recipe.head == "causal"
        loaded = load(path, "AutoModelForCausalLM" if causal else "AutoModel")
        self.vocabulary = loaded.vocabulary
        self.device = loaded.device
        self._model: Any = loaded.model.base_model if causal else loaded.model
        self._longest = getattr(loaded.model.config, "max_position_embeddings", None) or math.inf
        self._layers = self._causal_head(loaded.model, recipe) if causal else self._linear_head(path, recipe)
        self._squash, self._label = recipe.squashing, 0 if causal else recipe.label
        self._check_head(path)
        self._batch = batch
        self._resident = Resident(cache_mb << 20)

    def close(self) -> None:
        """Release the model and what was kept."""
        self._resident.clear()
        self._model = None

    def read(self, readings: Sequence[Reading]) -> list[Said]:
        """A value for every position of every sequence, and what they cost."""
        for reading in readings:
            if len(reading.ids) > self._longest:
                raise BackendError(
                    f"a path of {len(reading.ids)} tokens is longer than the {self._longest} of the model"
                )
        found: dict[int, Said] = {}
        waiting = list(range(len(readings)))
        while waiting:
            first = leaders([readings[i].ids for i in waiting], lambda ids: self._resident.length(ids, len(ids)))
            ready = [waiting[i] for i in first]
            waiting = [i for i in waiting if i not in ready]
            ready.sort(key=lambda i: len(readings[i].ids))  # less padding
            for begin in range(0, len(ready), self._batch):
                chunk = ready[begin : begin + self._batch]
                for i, said in zip(chunk, self._forward([readings[i] for i in chunk]), strict=True):
                    found[i] = said
        return [found[i] for i in range(len(readings))]

    def call(self, states: bool, **inputs: Any) -> Any:
        """The model's own output: the states below the head. `states`, those of the layers between, nobody asks for."""
        with self.torch.inference_mode():
            return self._model(**inputs)

    def _forward(self, rows: Sequence[Reading]) -> list[Said]:
        known = [self._resident.find(row.ids, row.positions[0]) for row in rows]  # what is read must be computed
        batch = Batch(self, [found.kv for found in known])
        new = [row.ids[found.length :] for row, found in zip(rows, known, strict=True)]
        states = batch.extend(new).last_hidden_state
        said = []
        for index, (row, found) in enumerate(zip(rows, known, strict=True)):
            said.append(Said(self._values(states[index, [at - found.length for at in row.positions]]), len(new[index])))
            self._resident.keep(row.ids, batch.kv(index))
        return said

    # Heads --------------------------------------------------------------------------------------------------------

    def _values(self, states: Any) -> list[float]:
        """Scores of hidden states [positions, width], computed in float32."""
        torch = self.torch
        states = states.float()
        for index, (weight, bias) in enumerate(self._layers):
            states = torch.nn.functional.linear(torch.relu(states) if index else states, weight, bias)
        squashed = torch.sigmoid(states[:, 0]) if self._squash == "sigmoid" else states.softmax(-1)[:, self._label]
        values: list[float] = squashed.tolist()
        return values

    def _causal_head(self, model: Any, recipe: Recipe) -> list[tuple[Any, Any]]:
        """The two rows of the vocabulary's head that count: a softmax over them needs no other."""
        assert recipe.good is not None and recipe.bad is not None
        good, bad = self.vocabulary.token(recipe.good), self.vocabulary.token(recipe.bad)
        if good == bad:
            raise ModelError(f"{recipe.good!r} and {recipe.bad!r} are one token to this model")
        for scaled in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
            if getattr(model.config, scaled, None) not in (None, 1, 1.0):
                raise ModelError(f"models whose logits are scaled ({scaled}) cannot be read")
        head = model.get_output_embeddings()
        bias = getattr(head, "bias", None)
        return [
            (head.weight[[good, bad]].detach().float(), None if bias is None else bias[[good, bad]].detach().float())
        ]

    def _linear_head(self, path: Path, recipe: Recipe) -> list[tuple[Any, Any]]:
        layers = []
        for name in recipe.linear:
            weight, bias = tensor(path, f"{name}.weight"), tensor(path, f"{name}.bias")
            if weight is None:
                raise ModelError(
                    f"{path} has no weights {name}.weight, which the recipe {recipe.name} reads scores from"
                )
            layers.append((weight.float().to(self.device), None if bias is None else bias.float().to(self.device)))
        return layers

    def _check_head(self, path: Path) -> None:
        outputs = self._layers[-1][0].shape[0]
        if self._squash == "sigmoid" and outputs != 1:
            raise ModelError(f"{path} has {outputs} outputs, and a sigmoid is for one: the recipe is for another model")
        if self._squash == "softmax" and not self._label < outputs:
            raise ModelError(
                f"{path} has {outputs} outputs and no class {self._label}: the recipe is for another model"
            )
        # An encoder would read steps before they are there, and what is kept of a prefix would be wrong.
        torch = self.torch
        with torch.inference_mode():
            pair = torch.tensor([[1, 2], [1, 3]], device=self.device)
            first, second = self._model(input_ids=pair).last_hidden_state[:, 0].float()
        if not torch.allclose(first, second, atol=1e-2, rtol=1e-2):
            raise ModelError(f"{path} reads ahead (an encoder): scores of steps need a causal model")


class Reader:
    """Whole solutions read by a sequence classifier, in padded batches."""

    def __init__(self, path: Path, recipe: RewardRecipe, *, batch: int) -> None:
        """Load the model. ModelError for one that does not fit the recipe."""
        self._torch, _ = libraries()
        loaded = load(path, "AutoModelForSequenceClassification")
        self.vocabulary = loaded.vocabulary
        self._tokenizer = loaded.tokenizer
        self._model: Any = loaded.model
        self._device = loaded.device
        self._longest = getattr(loaded.model.config, "max_position_embeddings", None) or math.inf
        self._squash, self._label = recipe.squash, recipe.label
        self._batch = batch
        outputs = loaded.model.config.num_labels
        if self._squash == "sigmoid" and outputs != 1:
            raise ModelError(f"{path} has {outputs} classes, and a sigmoid is for one logit: use squash = 'softmax'")
        if self._squash == "softmax" and not self._label < outputs != 1:
            raise ModelError(f"{path} has {outputs} outputs and no class {self._label} to take")

    def close(self) -> None:
        """Release the model."""
        self._model = None

    def pair(self, first: str, second: str) -> dict[str, list[int]]:
        """Two texts, with what the tokenizer puts around and between them."""
        made: dict[str, list[int]] = dict(self._tokenizer(first, second))
        return made

    def read(self, inputs: Sequence[dict[str, list[int]]]) -> list[float]:
        """A value in [0, 1] for each of the tokenised inputs."""
        values: dict[int, float] = {}
        order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]["input_ids"]))
        for begin in range(0, len(order), self._batch):
            chunk = order[begin : begin + self._batch]
            for i, value in zip(chunk, self._forward([inputs[i] for i in chunk]), strict=True):
                values[i] = value
        return [values[i] for i in range(len(inputs))]

    def _forward(self, rows: Sequence[dict[str, list[int]]]) -> list[float]:
        torch = self._torch
        ids = [row["input_ids"] for row in rows]
        longest = max(map(len, ids))
        if longest > self._longest:
            raise BackendError(f"a solution of {longest} tokens is longer than the {self._longest} of the model")
        # Decoders take the state of the last token that is not the padding's: it must be none that ends a row.
        pad = next(id for id in range(len(rows) + 1) if id not in {row[-1] for row in ids})
        self._model.config.pad_token_id = pad
        padded = {"input_ids": [row + [pad] * (longest - len(row)) for row in ids]}
        padded["attention_mask"] = [[1] * len(row) + [0] * (longest - len(row)) for row in ids]
        if all("token_type_ids" in row for row in rows):
            padded["token_type_ids"] = [row["token_type_ids"] + [0] * (longest - len(row["input_ids"])) for row in rows]
        with torch.inference_mode():
            tensors = {name: torch.tensor(table, device=self._device) for name, table in padded.items()}
            logits = self._model(**tensors).logits.float()
            squashed = torch.sigmoid(logits[:, 0]) if self._squash == "sigmoid" else logits.softmax(-1)[:, self._label]
        values: list[float] = squashed.tolist()
        return values
