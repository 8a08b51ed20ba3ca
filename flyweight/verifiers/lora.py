"""The policy's own upper layers, fine-tuned: a verifier that goes on from the states the policy left.

Imports the engine only when this module is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from numpy.typing import NDArray

from flyweight import models as store
from flyweight.errors import BackendError, ConfigError
from flyweight.policies.llamacpp.kernels import Kernels, kernels
from flyweight.policies.llamacpp.layers import Layers, cut
from flyweight.policies.llamacpp.machine import cache_folder, default_threads, locked
from flyweight.protocols import Models
from flyweight.types import Node, Problem, Score
from flyweight.verifiers import heads
from flyweight.verifiers.confidence import NEUTRAL

__all__ = ["Adapter", "Lora"]

SEQUENCES = 256
"""Paths kept apart; llama.cpp's LLAMA_MAX_SEQ."""
STATES = 16384
"""Kept of all paths together, what they share counted once: 4 kB each for the 0.5B model's eight layers."""


class Adapter(NamedTuple):
    """What stands in an adapter's file beside its weights."""

    path: Path
    sha256: str
    """Of the model's file it belongs to."""
    layer: int
    """The first of the model's layers that is run."""
    head: NDArray[np.float32]
    """[2, width] read off the last layer's states after its norm: off a path's last one, and off the mean of all"""
    offset: float
    facts: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> Adapter:
        """ConfigError in one line for a file that is none."""
        try:
            fields = gguf.GGUFReader(path).fields
            found = {
                name: fields[f"flyweight.{name}"].contents() for name in ("sha256", "layer", "heads", "offset", "facts")
            }
            return cls(
                path,
                str(found["sha256"]),
                int(found["layer"]),
                np.array(found["heads"], np.float32).reshape(2, -1),
                float(found["offset"]),
                json.loads(found["facts"]),
            )
        except FileNotFoundError as error:
            raise ConfigError(f"there is no adapter at {path}") from error
        except Exception as error:
            raise ConfigError(
                f"{path} is not an adapter that flyweight train-verifier --lora wrote ({error})"
            ) from error


class Lora:
    """Probability that a solution is right, by the policy's own upper layers with a low-rank change to their weights.

    They read the states that the policy's lower layers handed on while it wrote: only what lies above is computed, a
    third of the model, and of a path only the steps that have not been read before. `Score.steps` holds the
    probability after each step. `adapter` is a file from `flyweight train-verifier --lora`; without one, the adapter
    shipped for the model. An adapter belongs to one model file and refuses others.

    Source: Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems (2110.14168); Hu et al. 2021, LoRA
    (2106.09685). Deviation: the layers below the adapter are shared with the policy, pass and all.
    """

    name = "lora"
    sees_answer = False
    reads_states = True

    def __init__(self, *, adapter: str = "", model: str = "") -> None:
        """`adapter`: a file, empty for the shipped one. `model`: the file or name of the model, where the policy has
        none of its own (for example when answers are replayed)."""
        self.adapter = adapter
        self.model = model
        self._reader: _Reader | None = None
        if adapter:
            _loaded(Path(adapter))

    @property
    def params(self) -> int:
        """Of the layers that are run; known once they are."""
        return self._reader.layers.params if self._reader is not None else 0

    @property
    def identity(self) -> str:
        """What its scores are filed under."""
        return heads.identity(self.name, self.adapter)

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node, at a token of `params` for each state not read before.

        ConfigError where there is no adapter for the model, or it was trained for another.
        """
        reader = self._opened(models.weights())
        found = [hidden.states for hidden in await models.states(nodes)]
        roots = {node.root.key: node.root for node in nodes if not reader.knows(node.root)}
        prompts = await models.states(list(roots.values()))
        for root, prompt in zip(roots.values(), prompts, strict=True):
            reader.begin(root, prompt.states)
        values = reader.read(nodes, found)
        models.spent(reader.spent())
        return [Score(each[-1], each, self.name) if each else Score(NEUTRAL, (), self.name) for each in values]

    def close(self) -> None:
        """Release the layers."""
        if self._reader is not None:
            self._reader.layers.close()
            self._reader = None

    def _opened(self, sha256: str) -> _Reader:
        if self._reader is None or self._reader.adapter.sha256 != sha256:
            self.close()
            adapter = _loaded(Path(self.adapter)) if self.adapter else shipped(sha256)
            if adapter.sha256 != sha256:
                raise ConfigError(
                    f"{self.adapter} was trained for the model {adapter.sha256[:12]}, this one is "
                    f"{sha256[:12] or 'unknown'}: train one with flyweight train-verifier --lora"
                )
            self._reader = _Reader(adapter, _file(sha256, self.model))
        return self._reader


@dataclass(eq=False, slots=True)
class _Segment:
    """States that were read together, behind those of its parent."""

    parent: _Segment | None
    length: int
    held: int = 0
    """Sequences that go through it."""


@dataclass(eq=False, slots=True)
class _Path:
    """A path that has been read: its sequence, the states it holds, what was read off them, and the probability after
    each of its steps."""

    sequence: int
    last: _Segment
    length: int
    total: float
    """Of what the head's second row says of each state behind the prompt."""
    values: tuple[float, ...]


class _Reader:
    """The layers, and which paths they have read: those used last stay."""

    def __init__(self, adapter: Adapter, file: Path) -> None:
        self.adapter = adapter
        self.layers = Layers(
            _cut(file, adapter),
            adapter.path,
            packed=isinstance(kernels(), Kernels),
            sequences=SEQUENCES,
            length=STATES,
            threads=default_threads(),
        )
        self._paths: OrderedDict[str, _Path] = OrderedDict()
        self._free = list(range(SEQUENCES))
        self._room = STATES
        self._spent = 0

    def knows(self, node: Node) -> bool:
        """Whether a path has been read and is still there."""
        return node.key in self._paths

    def spent(self) -> int:
        """States read since it was asked last."""
        spent, self._spent = self._spent, 0
        return spent

    def begin(self, root: Node, prompt: Any) -> None:
        """Read a prompt."""
        self._append([(root, None, prompt, [])])

    def read(self, nodes: Sequence[Node], states: Sequence[Any]) -> list[tuple[float, ...]]:
        """The probability after each step of each path."""
        wanted = []
        for node, own in zip(nodes, states, strict=True):
            line = [node]
            while line[-1].key not in self._paths:
                parent = line[-1].parent
                if parent is None:
                    raise BackendError("the states of this prompt have not been read")
                line.append(parent)
            base = self._paths[line[-1].key]
            self._paths.move_to_end(line[-1].key)
            done = base.length - self._paths[node.root.key].length
            ends = list(accumulate((len(step.tokens or ()) for step in reversed(line[:-1])), initial=done))[1:]
            if line[:-1] and own is not None:
                ends[-1] = len(own)
                wanted.append((node, base, own[done:], [end - done for end in ends]))
        self._append(wanted)
        return [self._paths[node.key].values if node.key in self._paths else () for node in nodes]

    def _append(self, wanted: Sequence[tuple[Node, _Path | None, Any, list[int]]]) -> None:
        """Read states behind a path that is there, or a prompt's behind nothing, and remember the value at each end."""
        kept = {id(base) for _, base, _, _ in wanted}
        parts: list[Any] = []
        positions: list[int] = []
        sequences: list[int] = []
        marks: list[NDArray[np.bool_]] = []
        paths = []
        for node, base, states, ends in wanted:
            if node.key in self._paths:
                continue
            self._make_room(len(states), kept)
            begin = base.length if base is not None else 0
            segment = _Segment(base.last if base is not None else None, len(states))
            path = _Path(self._free.pop(), segment, begin + len(states), 0.0, ())
            if base is not None:
                self.layers.share(base.sequence, path.sequence, base.length)
                path.total, path.values = base.total, base.values
            self._hold(path)
            kept.add(id(path))
            self._paths[node.key] = path
            parts.append(np.asarray(states)[:, 0])
            positions += range(begin, begin + len(states))
            sequences += [path.sequence] * len(states)
            marks.append(np.full(len(states), base is not None))  # nothing is read off a prompt
            if base is not None:
                drawn = begin - self._paths[node.root.key].length
                paths.append((path, drawn, len(states), sorted({end for end in ends if 0 < end <= len(states)})))
        if parts:
            read = self.layers.read(np.concatenate(parts), positions, sequences, np.concatenate(marks))
            self._spent += len(positions)
            at = 0
            for path, drawn, count, ends in paths:
                last, each = read[at : at + count, 0], read[at : at + count, 1]
                sums = path.total + np.cumsum(each, dtype=np.float64)
                logits = [last[end - 1] + sums[end - 1] / (drawn + end) + self.adapter.offset for end in ends]
                path.values = (*path.values, *(heads.probability(float(logit)) for logit in logits))
                path.total = float(sums[-1])
                at += count

    def _make_room(self, states: int, kept: set[int]) -> None:
        """Forget what was used longest ago until so many states and a sequence fit."""
        if states > STATES // 2:
            raise BackendError(f"a path of {states} states does not fit the verifier's {STATES // 2}")
        for key in list(self._paths):
            if self._free and self._room >= states:
                return
            if id(self._paths[key]) not in kept:
                self._forget(key)
        if not self._free or self._room < states:
            raise BackendError(f"the candidates scored together do not fit the verifier's {STATES} states")

    def _hold(self, path: _Path) -> None:
        segment: _Segment | None = path.last
        self._room -= path.last.length
        while segment is not None:
            segment.held += 1
            segment = segment.parent

    def _forget(self, key: str) -> None:
        path = self._paths.pop(key)
        self.layers.forget(path.sequence)
        self._free.append(path.sequence)
        segment: _Segment | None = path.last
        while segment is not None:
            segment.held -= 1
            if not segment.held:
                self._room += segment.length
            segment = segment.parent


def shipped(sha256: str) -> Adapter:
    """The adapter in the package for a model file. ConfigError where there is none."""
    for path in sorted(heads.FOLDER.glob("*.gguf")):
        adapter = _loaded(path)
        if adapter.sha256 == sha256:
            return adapter
    raise ConfigError(
        f"there is no adapter for this model ({sha256[:12] or 'not a file'}): train one with "
        "flyweight train-verifier --lora, then --verifier lora:adapter=FILE"
    )


def _file(sha256: str, model: str) -> Path:
    """The model's file."""
    if model:
        return store.resolve(model)
    for each in store.installed():
        if each.sha256 == sha256:
            return each.path
    raise ConfigError(f"the model {sha256[:12]} is not in the model store: name its file, lora:model=FILE")


def _cut(file: Path, adapter: Adapter) -> Path:
    """The layers' own file, made once."""
    name = hashlib.sha256(f"{adapter.sha256} {adapter.layer} {adapter.head.tobytes().hex()}".encode()).hexdigest()[:16]
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{file.stem}-layers-{name}.gguf"
    with locked(folder / "lock"):
        if not path.is_file():
            cut(file, path, first=adapter.layer, head=adapter.head)
    return path


@lru_cache(maxsize=8)
def _loaded(path: Path) -> Adapter:
    return Adapter.load(path)
