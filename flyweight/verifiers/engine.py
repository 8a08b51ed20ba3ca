"""Causal reward models as GGUF files, read by the embedded engine: its prefix index keeps what was read.

Imports the engine only when this module is loaded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from flyweight import models
from flyweight.errors import BackendError, ModelError
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.policies.llamacpp.context import Model
from flyweight.policies.llamacpp.tokens import Tokens
from flyweight.protocols import Request, Response
from flyweight.types import Node, Sampling
from flyweight.verifiers.recipes import Recipe, Vocabulary
from flyweight.verifiers.transformer import Reading, Said, leaders

__all__ = ["Engine", "parameters", "share"]


def parameters(model: str) -> int:
    """Parameters that work on every token."""
    opened = Model(models.resolve(model))
    opened.close()
    return int(opened.params)


class Engine(LlamaCpp):
    """An engine that is asked for two tokens' probabilities behind given token ids, and for nothing else.

    A sequence costs the tokens behind its longest resident prefix. The engine reads at the end of a path only, so a
    sequence of several positions is asked for in parts, each the beginning of the next.
    """

    def __init__(self, path: Path, recipe: Recipe, *, slots: int, context: int) -> None:
        """Load the model. ModelError for one that does not fit the recipe, ConfigError for a context it cannot have."""
        assert recipe.good is not None and recipe.bad is not None
        super().__init__(path, slots=slots, context=context, drafting=False)
        try:
            self.vocabulary = self._vocabulary()
            good, bad = self.vocabulary.token(recipe.good), self.vocabulary.token(recipe.bad)
            if good == bad:
                raise ModelError(f"{recipe.good!r} and {recipe.bad!r} are one token to this model")
        except ModelError:
            self.close()
            raise
        self._choices = (str(good), str(bad))
        self._numbers = itertools.count()
        self._tokens = _Ids()

    def read(self, readings: Sequence[Reading]) -> list[Said]:
        """A value for every position of every sequence, and what they cost."""
        values: list[list[float]] = [[] for _ in readings]
        spent = [0] * len(readings)
        for wave in range(max((len(reading.positions) for reading in readings), default=0)):
            waiting = {
                i: reading.ids[: reading.positions[wave] + 1]
                for i, reading in enumerate(readings)
                if len(reading.positions) > wave
            }
            while waiting:
                asked = list(waiting)
                asked = [asked[i] for i in leaders(list(waiting.values()), self._cached)]
                for i, response in zip(asked, self._serve([waiting.pop(i) for i in asked]), strict=True):
                    values[i].append(share(*response.choices))
                    spent[i] += response.prompt_tokens
        return [Said(*both) for both in zip(values, spent, strict=True)]

    def _cached(self, path: list[int]) -> int:
        return self._streams.find(path, len(path) - 1)[0]

    def _serve(self, paths: Sequence[list[int]]) -> list[Response]:
        numbers = []
        for path in paths:
            numbers.append(next(self._numbers))
            node = Node(Node(), tokens=tuple(path))
            self.add(Request(numbers[-1], node, Sampling(temperature=0, max_tokens=1), 0, choices=self._choices))
        came: dict[int, Response] = {}
        while len(came) < len(numbers):
            came |= {response.id: response for response in self.step()}
        responses = [came[number] for number in numbers]
        for path, response in zip(paths, responses, strict=True):
            if response.error is not None:
                raise BackendError(f"{self.name}: {response.error}")
            if not response.choices:
                raise BackendError(
                    f"{self.name}: question and solution have {len(path)} tokens, the context only {self._length}: "
                    f"raise context={1 << len(path).bit_length()}"
                )
        return responses

    def _vocabulary(self) -> Vocabulary:
        model = self._model
        eos = model.spelling(model.eos) if model.eos >= 0 else ""
        return Vocabulary(
            lambda text: model.tokenize(text, special=True) if text else [],
            size=model.n_vocab,
            specials={model.spelling(token) for token in range(model.n_vocab) if model.is_control(token)},
            template=model.chat_template,
            bos=(model.bos, model.spelling(model.bos)) if model.bos >= 0 else None,
            eos=eos,
            begins=model.add_bos,
        )


class _Ids(Tokens):
    """Paths and choices that are token ids already, rendered by the recipe."""

    def __init__(self) -> None:
        """Nothing of a model's is needed."""

    def path(self, node: Node) -> list[int]:
        """The ids the node holds."""
        return list(node.tokens or ())

    def text(self, text: str) -> tuple[int, ...]:
        """The id written in `text`."""
        return (int(text),)

    def prompt(self, messages: object) -> tuple[int, ...]:
        """Nothing: a path stands for itself."""
        return ()


def share(good: float, bad: float) -> float:
    """P(good) / (P(good) + P(bad)) from log-probabilities, without underflow; 1/2 if both are impossible."""
    if math.isnan(good) or math.isnan(bad):
        raise BackendError("a probability is not a number")
    if good == bad:
        return 0.5
    return 1 / (1 + math.exp(min(bad - good, 700.0)))
