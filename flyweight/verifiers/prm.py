"""Process reward models: a score for every step, read where the model's recipe says.

`prm:RECIPE@MODEL` names one on the command line: a recipe of `recipes.toml` or a TOML file (docs/prm.md), and a folder
or `hf:org/repo` with safetensors, or a GGUF file for causal recipes. What was scored stays known, and the KV of what
was read stays resident: a new step of a path costs its own tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Protocol

from flyweight.errors import BackendError, ConfigError
from flyweight.types import digest
from flyweight.verifiers.recipes import Recipe
from flyweight.verifiers.trained import Rated, Trained, whole

if TYPE_CHECKING:
    from flyweight.verifiers.recipes import Vocabulary
    from flyweight.verifiers.transformer import Reading, Said

__all__ = ["Prm"]

KNOWN = 1 << 16
"""Steps whose scores are remembered."""


class Backend(Protocol):
    """What reads sequences."""

    vocabulary: Vocabulary

    def read(self, readings: Sequence[Reading]) -> list[Said]:
        """Values and cost of each."""

    def close(self) -> None:
        """Release the model."""


class Prm(Trained[Recipe, Backend]):
    """A process reward model's score of every step so far; the value is the last one's.

    Steps end where the recipe says (a blank line), whatever the nodes of the search are. A path without text scores 0.
    A string in a question or solution that the model would take for a special token gets a space inside: it cannot
    forge one. Each step costs its own tokens once, as far as the KV before it is still there.

    Source: Lightman et al. 2023, Let's Verify Step by Step (2305.20050); of each recipe: `recipes.toml`.
    """

    __slots__ = ("_known",)

    def __init__(
        self, recipe: str = "", model: str = "", *, batch: int = 8, cache_mb: int = 512, context: int = 2048
    ) -> None:
        """`recipe`: a name or FILE.toml. `model`: where its weights are; some recipes know.

        batch: sequences read together. cache_mb: KV kept of a folder's model. context: longest path of a GGUF file, of
        which `batch` are kept. The model is loaded when the first score is asked for. Raises ConfigError for a recipe
        with mistakes or values that are not allowed, ModelError for a file that is not there.
        """
        super().__init__("prm", Recipe, recipe, model, batch)
        self.cache_mb, self.context = whole("cache_mb", cache_mb, 0), whole("context", context, 16)
        self._known: OrderedDict[str, float] = OrderedDict()
        if self._gguf:
            from flyweight import models

            models.resolve(self.model)  # says what is wrong with it before anyone waits
            if self.recipe.head != "causal":
                raise ConfigError(
                    f"the recipe {self.recipe.name} reads a {self.recipe.head} head, which a GGUF file cannot hold: "
                    "give a folder with safetensors"
                )

    @property
    def _gguf(self) -> bool:
        from flyweight.huggingface import is_reference

        return not is_reference(self.model)

    def rate(self, question: str, solutions: Sequence[str]) -> list[Rated]:
        """The scores of every solution's steps and what they cost; what is known is not computed again."""
        backend = self._loaded()
        paths = [self.recipe.steps(solution) for solution in solutions]
        keys = [list(_keys(question, steps)) for steps in paths]
        values = {key: self._known[key] for each in keys for key in each if key in self._known}
        tokens = [0] * len(paths)
        waves = self._wanted(backend, question, paths, keys, set(values))
        while waves:
            asked = [(i, sequences.pop(0)) for i, sequences in waves.items()]
            for (i, (_, wanted)), said in zip(asked, backend.read([reading for _, (reading, _) in asked]), strict=True):
                tokens[i] += said.tokens
                for key, value in zip(wanted, said.values, strict=True):
                    values[key] = self._checked(value)
            waves = {i: sequences for i, sequences in waves.items() if sequences}
        for each in keys:
            for key in each:
                self._known[key] = values[key]
                self._known.move_to_end(key)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        scores = [tuple(values[key] for key in each) for each in keys]
        return [Rated(each[-1] if each else 0.0, each, n) for each, n in zip(scores, tokens, strict=True)]

    def _wanted(
        self,
        backend: Backend,
        question: str,
        paths: Sequence[tuple[str, ...]],
        keys: Sequence[list[str]],
        known: set[str],
    ) -> dict[int, list[tuple[Reading, list[str]]]]:
        """Per path what must be read, with the keys of its values. A text that only begins another is read with it."""
        from flyweight.verifiers.transformer import Reading

        wanted: dict[int, list[tuple[Reading, list[str]]]] = {}
        for i, (steps, each) in enumerate(zip(paths, keys, strict=True)):
            sequences: list[tuple[Reading, list[str]]] = []
            for count, key in enumerate(each, 1):
                if key in known:
                    continue
                known.add(key)
                ids = self.recipe.ids(backend.vocabulary, question, steps[:count])
                if not ids:
                    raise BackendError(f"{self.name}: nothing stands before the score")
                if sequences and ids[: len(sequences[-1][0].ids)] == sequences[-1][0].ids != ids:
                    reading, names = sequences[-1]
                    sequences[-1] = Reading(ids, [*reading.positions, len(ids) - 1]), [*names, key]
                else:
                    sequences.append((Reading(ids, [len(ids) - 1]), [key]))
            if sequences:
                wanted[i] = sequences
        return wanted

    def close(self) -> None:
        """Release the model; it is loaded again when a score is asked for."""
        super().close()
        self._known.clear()

    def _load(self) -> Backend:
        if self._gguf:
            from flyweight import models
            from flyweight.verifiers.engine import Engine

            return Engine(models.resolve(self.model), self.recipe, slots=self.batch, context=self.context)
        from flyweight import huggingface
        from flyweight.verifiers import transformer

        path = huggingface.folder(self.model)
        return transformer.Sequences(path, self.recipe, batch=self.batch, cache_mb=self.cache_mb)

    def _size(self) -> int:
        if self._gguf:
            from flyweight.verifiers.engine import parameters

            return parameters(self.model)
        from flyweight import huggingface

        return huggingface.parameters(huggingface.folder(self.model), head=self.recipe.head == "causal")


def _keys(question: str, steps: Sequence[str]) -> Iterator[str]:
    """Names of the path up to each step."""
    return islice(accumulate(steps, digest, initial=digest(question)), 1, None)
