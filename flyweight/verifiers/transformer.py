"""Reward models as Hugging Face folders: safetensors only, none of their code, KV of what was read kept.

Imports torch and transformers only when a model is loaded.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flyweight.errors import BackendError, ConfigError, FlyweightError, ModelError
from flyweight.verifiers.recipes import Recipe, RewardRecipe, Vocabulary

__all__ = ["Reader", "Reading", "Said", "Sequences", "folder", "is_reference", "parameters"]

SHARED_WORTH = 16
"""Common tokens for which a sequence waits until another one has computed them."""
FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What is fetched of a repository: no pickles and no code."""


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


def is_reference(model: str) -> bool:
    """Whether `model` names a Hugging Face folder or repository rather than a GGUF file."""
    return not model.endswith(".gguf") and (Path(model).expanduser().is_dir() or _repository(model) is not None)


def folder(model: str) -> Path:
    """The folder of a local path or of `hf:org/repo[@revision]`, which is fetched unless it is there.

    ModelError where there is no model in it, or none in safetensors: other formats can run code when they are loaded.
    """
    repository = _repository(model)
    path = Path(model).expanduser() if repository is None else _fetched(*repository)
    if not (path / "config.json").is_file():
        raise ModelError(f"{model} holds no model: there is no config.json")
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"{model} has no .safetensors weights, and no others are loaded: pickled ones can run code")
    return path


def parameters(path: Path, *, head: bool) -> int:
    """Parameters that work on every token, read from the headers of the weights: all but an embedding table that is
    only looked up. `head`: whether scores are read from the vocabulary's own head."""
    shapes = {name: shape for file in sorted(path.glob("*.safetensors")) for name, shape in _shapes(file).items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    tied = head and not any(name.endswith("lm_head.weight") for name in sizes)
    unused = [] if tied else [name for name in sizes if name.endswith("embed_tokens.weight")]
    if not head:
        unused += [name for name in sizes if name.endswith("lm_head.weight")]
    return sum(sizes.values()) - sum(sizes[name] for name in unused)


class Loaded(NamedTuple):
    """A model's parts."""

    model: Any
    tokenizer: Any
    vocabulary: Vocabulary
    device: Any


def load(path: Path, kind: str) -> Loaded:
    """The model in a folder as transformers' `kind` (AutoModel, ...), on the GPU if there is one, in the precision of
    its file. ModelError in one line for one that cannot be used; none of its own code ever runs."""
    torch, transformers = libraries()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    safely = {"trust_remote_code": False, "local_files_only": True}
    said: Any
    try:
        with _quietly(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(path, **safely)
            model, said = getattr(transformers, kind).from_pretrained(
                path, use_safetensors=True, dtype="auto", output_loading_info=True, **safely
            )
    except Exception as error:  # transformers raises whatever its parts do
        raise ModelError(f"{path} cannot be loaded: {_line(error)}") from error
    if said["missing_keys"]:
        missing = sorted(said["missing_keys"])
        raise ModelError(f"{path} lacks {len(missing)} of the model's weights: {missing[0]} ...")
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{path} has no tokenizer.json, the only kind of tokenizer that is read")
    return Loaded(model.eval().to(device), tokenizer, _vocabulary(tokenizer), device)


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """No progress bars, and no complaints about weights of heads that we read ourselves."""
    told = transformers.utils.logging
    level, bars = told.get_verbosity(), told.is_progress_bar_enabled()
    told.set_verbosity_error()
    told.disable_progress_bar()
    try:
        yield
    finally:
        told.set_verbosity(level)
        if bars:
            told.enable_progress_bar()


class Sequences:
    """Sequences read by a causal transformer with a head, in padded batches.

    The KV of what was read is kept, up to `cache_mb`, least recently used dropped first: a sequence costs the tokens
    behind its longest prefix that is still there. Sequences of one call that share a prefix compute it once.
    """

    def __init__(self, path: Path, recipe: Recipe, *, batch: int, cache_mb: int) -> None:
        """Load the model. ModelError for one that does not fit the recipe."""
        self._torch, transformers = libraries()
        self._new_cache = transformers.DynamicCache
        causal = recipe.head == "causal"
        loaded = load(path, "AutoModelForCausalLM" if causal else "AutoModel")
        self.vocabulary = loaded.vocabulary
        self._device = loaded.device
        self._model: Any = loaded.model.base_model if causal else loaded.model
        self._longest = getattr(loaded.model.config, "max_position_embeddings", None) or math.inf
        self._layers = self._causal_head(loaded.model, recipe) if causal else self._linear_head(path, recipe)
        self._squash, self._label = recipe.squashing, 0 if causal else recipe.label
        self._check_head(path)
        self._batch = batch
        self._kept: dict[tuple[int, ...], Any] = {}
        """Read sequences with their KV [layers, 2, heads, tokens, width], least recently used first."""
        self._room = cache_mb << 20
        self._held = 0

    def close(self) -> None:
        """Release the model and what was kept."""
        self._kept.clear()
        self._held = 0
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
            ready = self._ready(readings, waiting)
            waiting = [i for i in waiting if i not in ready]
            ready.sort(key=lambda i: len(readings[i].ids))  # less padding
            for begin in range(0, len(ready), self._batch):
                chunk = ready[begin : begin + self._batch]
                for i, said in zip(chunk, self._forward([readings[i] for i in chunk]), strict=True):
                    found[i] = said
        return [found[i] for i in range(len(readings))]

    def _ready(self, readings: Sequence[Reading], waiting: Sequence[int]) -> list[int]:
        """Those that need not wait for another one of them to compute what they share."""
        ready: list[int] = []
        for i in waiting:
            ids = readings[i].ids
            cached = self._find(readings[i])[0]
            if all(common(ids, readings[other].ids) - cached < SHARED_WORTH for other in ready):
                ready.append(i)
        return ready

    def _find(self, reading: Reading) -> tuple[int, tuple[int, ...] | None]:
        """How many of the first tokens need not be computed, and the kept sequence that holds them."""
        limit = reading.positions[0]  # the token itself must be computed for its state
        best, where = 0, None
        for kept in self._kept:
            length = min(limit, common(reading.ids, kept))
            if length > best:
                best, where = length, kept
        return best, where

    def _forward(self, rows: Sequence[Reading]) -> list[Said]:
        """One pass: what is known on the left, padded at its beginning; what is new behind it, padded at its end."""
        torch = self._torch
        known = [self._find(row) for row in rows]
        for _, kept in known:
            if kept is not None:
                self._kept[kept] = self._kept.pop(kept)
        past = max(cached for cached, _ in known)
        new = max(len(row.ids) - cached for row, (cached, _) in zip(rows, known, strict=True))
        ids = torch.zeros((len(rows), new), dtype=torch.long)
        places = torch.zeros((len(rows), new), dtype=torch.long)
        seen = torch.zeros((len(rows), past + new), dtype=torch.long)
        for b, (row, (cached, _)) in enumerate(zip(rows, known, strict=True)):
            length = len(row.ids) - cached
            ids[b, :length] = torch.tensor(row.ids[cached:])
            places[b, :length] = torch.arange(cached, len(row.ids))
            seen[b, past - cached : past + length] = 1
        cache = self._new_cache()
        with torch.inference_mode():
            for layer, (keys, values) in enumerate(self._padded(known, past)):
                cache.update(keys, values, layer)
            states = self._model(
                input_ids=ids.to(self._device),
                attention_mask=seen.to(self._device),
                position_ids=places.to(self._device),
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
            said = []
            for b, (row, (cached, _)) in enumerate(zip(rows, known, strict=True)):
                at = torch.tensor([position - cached for position in row.positions], device=self._device)
                said.append(Said(self._values(states[b, at]), len(row.ids) - cached))
                self._keep(row.ids, cache, b, past - cached)
        return said

    def _padded(self, known: Sequence[tuple[int, tuple[int, ...] | None]], past: int) -> list[tuple[Any, Any]]:
        """Keys and values per layer [rows, heads, past, width], zeros in front of the shorter ones."""
        if not past:
            return []
        example = next(self._kept[kept] for _, kept in known if kept is not None)
        layers, _, heads, _, width = example.shape
        room = self._torch.zeros((layers, 2, len(known), heads, past, width), dtype=example.dtype, device=self._device)
        for b, (cached, kept) in enumerate(known):
            if kept is not None:
                room[:, :, b, :, past - cached :] = self._kept[kept][:, :, :, :cached]
        return [(layer[0], layer[1]) for layer in room]

    def _keep(self, ids: list[int], cache: Any, row: int, begin: int) -> None:
        """Keep a row's KV; a kept sequence that it continues is no longer needed."""
        end = begin + len(ids)
        held = self._torch.stack(
            [
                self._torch.stack([layer.keys[row, :, begin:end], layer.values[row, :, begin:end]])
                for layer in cache.layers
            ]
        )
        size = held.numel() * held.element_size()
        for kept in [kept for kept in self._kept if len(kept) <= len(ids) and common(kept, ids) == len(kept)]:
            self._drop(kept)
        while self._kept and self._held + size > self._room:
            self._drop(next(iter(self._kept)))
        if size <= self._room:
            self._kept[tuple(ids)] = held
            self._held += size

    def _drop(self, kept: tuple[int, ...]) -> None:
        held = self._kept.pop(kept)
        self._held -= held.numel() * held.element_size()

    # Heads --------------------------------------------------------------------------------------------------------

    def _values(self, states: Any) -> list[float]:
        """Scores of hidden states [positions, width], computed in float32."""
        torch = self._torch
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
            weight, bias = _tensor(path, f"{name}.weight"), _tensor(path, f"{name}.bias")
            if weight is None:
                raise ModelError(
                    f"{path} has no weights {name}.weight, which the recipe {recipe.name} reads scores from"
                )
            layers.append((weight.float().to(self._device), None if bias is None else bias.float().to(self._device)))
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
        torch = self._torch
        with torch.inference_mode():
            pair = torch.tensor([[1, 2], [1, 3]], device=self._device)
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
        self._model, self._device = loaded.model, loaded.device
        self._longest = getattr(loaded.model.config, "max_position_embeddings", None) or math.inf
        self._squash, self._label = recipe.squash, recipe.label
        self._batch = batch
        outputs = loaded.model.config.num_labels
        if self._squash == "sigmoid" and outputs != 1:
            raise ModelError(f"{path} has {outputs} classes, and a sigmoid is for one logit: use squash = 'softmax'")
        if self._squash == "softmax" and not self._label < outputs != 1:
            raise ModelError(f"{path} has {outputs} outputs and no class {self._label} to take")

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


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the common prefix, found by halving: slices compare at the speed of C."""
    a, b = list(a), list(b)
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def libraries() -> tuple[Any, Any]:
    """torch and transformers; ConfigError, on one line, where they are missing."""
    # transformers says so on stderr when it finds no GPU library or wants to tell of its news.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        import torch
        import transformers
    except ImportError as missing:
        raise ConfigError(
            "reward models in folders need torch and transformers: pip install 'flyweight[hf]'"
        ) from missing
    return torch, transformers


def _repository(model: str) -> tuple[str, str] | None:
    """Repository and revision of `hf:org/repo[@revision]`."""
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", model)
    return (match[1], match[2] or "main") if match else None


def _fetched(repository: str, revision: str) -> Path:
    libraries()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the network's errors, the hub's and the disk's
        raise ModelError(f"cannot fetch hf:{repository}@{revision}: {_line(error)}") from error


def _shapes(file: Path) -> dict[str, Sequence[int]]:
    libraries()
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has an error class of its own, and files raise OSError
        raise ModelError(f"{file} is not a safetensors file: {_line(error)}") from error


def _tensor(path: Path, name: str) -> Any:
    """A tensor of the folder's weights; None if there is none of that name."""
    from safetensors import safe_open

    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118
                return tensors.get_tensor(name)
    return None


def _vocabulary(tokenizer: Any) -> Vocabulary:
    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    bos = None if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id), str(tokenizer.bos_token))
    template = tokenizer.chat_template
    return Vocabulary(
        encode,
        size=len(tokenizer),
        specials={*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens},
        template=template.get("default", "") if isinstance(template, dict) else template or "",
        bos=bos,
        eos=tokenizer.eos_token or "",
        begins=bos is not None and tokenizer("")["input_ids"][:1] == [bos[0]],
    )


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] if isinstance(error, FlyweightError) else f"{type(error).__name__}: {text[:300]}"
