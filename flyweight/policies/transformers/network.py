"""A causal model over rows of different lengths: what is known of each stands on the left, what is new on the right."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from flyweight import huggingface
from flyweight.errors import ModelError
from flyweight.policies.llamacpp.depths import tapped
from flyweight.policies.transformers.resident import KV

__all__ = ["Batch", "Computes", "Network", "Output"]

LARGEST = float(np.finfo(np.float16).max)
CLOSE = {"float32": 1e-3}
"""How far apart, in shares of the largest logit, two ways of computing the same may be; elsewhere COARSE."""
COARSE = 0.05


class Output(NamedTuple):
    """What came of a pass over new tokens."""

    logits: NDArray[np.float32]
    """[rows, vocab] behind the last column of tokens: each row's own only where all rows have the same number."""
    states: list[NDArray[np.float16]]
    """Per row what the tapped layers handed on for its new tokens, [tokens, layers, width]; empty unless wanted."""


class Computes(Protocol):
    """What a batch asks of a model."""

    torch: Any
    device: Any
    new_cache: Any
    """Makes an empty cache."""

    def call(self, states: bool, **inputs: Any) -> Any:
        """The model's own output, with its `hidden_states` where these are wanted."""


class Network:
    """The weights, and how they want to be called."""

    def __init__(self, path: Path, precision: str) -> None:
        """Load the model. ModelError for one that cannot be used."""
        self.torch, transformers = huggingface.libraries()
        self.new_cache = transformers.DynamicCache
        loaded = huggingface.load(path, "AutoModelForCausalLM", precision)
        self.model: Any = loaded.model
        self.tokenizer = loaded.tokenizer
        self.device = loaded.device
        text = self.model.config.get_text_config()
        self.longest: int | None = getattr(text, "max_position_embeddings", None)
        self.taps = tapped(int(getattr(text, "num_hidden_layers", 0)))
        takes = set(inspect.signature(self.model.forward).parameters)
        if "input_ids" not in takes:
            raise ModelError(f"{path} is no language model that reads tokens")
        self._takes = takes
        self.n_vocab = int(self.alone([0], states=False).logits.shape[-1])
        self.forks = self._forks()
        """Whether what was computed can be kept and continued by several: not the state of recurrent models."""

    @property
    def ends(self) -> list[int]:
        """Ids that end a text, as the model's configuration has it."""
        said = getattr(self.model.generation_config, "eos_token_id", None)
        return [] if said is None else [said] if isinstance(said, int) else list(said)

    def call(self, states: bool, **inputs: Any) -> Any:
        """The model's own output; of logits only those of the last column, where it can be told so."""
        wanted = {"logits_to_keep": 1, "position_ids": None, "attention_mask": None} | inputs
        given = {name: value for name, value in wanted.items() if name in self._takes and value is not None}
        with self.torch.inference_mode():
            return self.model(**given, output_hidden_states=states)

    def alone(self, ids: Sequence[int], *, states: bool) -> Output:
        """A whole path computed at once, nothing kept."""
        said = self.call(states, input_ids=self.torch.tensor([list(ids)], device=self.device), use_cache=False)
        return Output(self.logits(said), [self.states(said)[0]] if states else [])

    def extend(self, batch: Batch, tokens: Sequence[Sequence[int]], *, states: bool = False) -> Output:
        """Compute new tokens of every row of a batch, as `Batch.extend`."""
        said = batch.extend(tokens, states=states)
        inner = [row[: len(more)] for row, more in zip(self.states(said), tokens, strict=True)] if states else []
        return Output(self.logits(said), inner)

    def logits(self, said: Any) -> NDArray[np.float32]:
        """float32 [rows, vocab] of the last column."""
        found: NDArray[np.float32] = said.logits[:, -1].float().cpu().numpy()
        return found

    def states(self, said: Any) -> NDArray[np.float16]:
        """float16 [rows, columns, taps, width]."""
        inner = self.torch.stack([said.hidden_states[layer + 1] for layer in self.taps], dim=2)
        found: NDArray[np.float16] = inner.float().clamp(-LARGEST, LARGEST).half().cpu().numpy()
        return found

    def _forks(self) -> bool:
        """Tried rather than known by name: two beginnings of a path, padded, against the path computed whole."""
        path = [index % self.n_vocab for index in range(1, 8)]
        try:
            begun = Batch(self, [None])
            self.extend(begun, [path[:5]])
            kv = begun.kv(0)
            shorter = [(keys[:, :2], values[:, :2]) for keys, values in kv]
            continued = self.extend(Batch(self, [kv, shorter]), [path[5:6], path[2:3]]).logits
        except Exception:  # a model with another kind of memory raises whatever it likes
            return False
        close = CLOSE.get(str(self.model.dtype).removeprefix("torch."), COARSE)
        whole = np.concatenate([self.alone(path[:length], states=False).logits for length in (6, 3)])
        return bool(np.abs(whole - continued).max() <= close * np.abs(whole).max())


class Batch:
    """KV of some rows side by side, shorter ones padded on the left, and the passes that continue them."""

    def __init__(self, network: Computes, known: Sequence[KV | None]) -> None:
        """What is known of each row; None is nothing."""
        self._network = network
        self.lengths = [kv[0][0].shape[1] if kv else 0 for kv in known]
        self._cache = network.new_cache()
        self._width = max(self.lengths)
        self._ends = [self._width] * len(known)
        example = next((kv for kv in known if kv), None)
        for layer in range(len(example) if example and self._width else 0):
            self._cache.update(*self._padded([kv[layer] if kv else None for kv in known]), layer)

    def _padded(self, parts: Sequence[tuple[Any, Any] | None]) -> tuple[Any, Any]:
        """Keys and values [rows, heads, width, numbers], zeros in front of the shorter ones."""
        example = next(part for part in parts if part is not None)
        made = []
        for which in (0, 1):
            heads, _, numbers = example[which].shape
            room = example[which].new_zeros((len(parts), heads, self._width, numbers))
            for row, part in zip(room, parts, strict=True):
                if part is not None:
                    row[:, self._width - part[which].shape[1] :] = part[which]
            made.append(room)
        return made[0], made[1]

    def extend(self, tokens: Sequence[Sequence[int]], *, states: bool = False) -> Any:
        """The model's own output for new tokens of every row, at least one each, padded on the right.

        A batch with rows of several lengths ends with that.
        """
        network, torch = self._network, self._network.torch
        new = max(map(len, tokens))
        ids = torch.zeros((len(tokens), new), dtype=torch.long)
        places = torch.zeros((len(tokens), new), dtype=torch.long)
        seen = torch.zeros((len(tokens), self._width + new), dtype=torch.long)
        for row, more in enumerate(tokens):
            ids[row, : len(more)] = torch.tensor(list(more))
            places[row, : len(more)] = torch.arange(self.lengths[row], self.lengths[row] + len(more))
            self.lengths[row] += len(more)
            self._ends[row] = self._width + len(more)
            seen[row, self._ends[row] - self.lengths[row] : self._ends[row]] = 1
        said = network.call(
            states,
            input_ids=ids.to(network.device),
            position_ids=places.to(network.device),
            attention_mask=seen.to(network.device),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._width += new
        return said

    def kv(self, row: int) -> KV:
        """What is known of a row now: views of the batch."""
        end = self._ends[row]
        begin = end - self.lengths[row]
        with self._network.torch.inference_mode():
            return [(layer.keys[row, :, begin:end], layer.values[row, :, begin:end]) for layer in self._cache.layers]
