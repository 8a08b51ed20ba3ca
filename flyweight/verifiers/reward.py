"""Outcome reward models: one score for a whole solution, from a sequence classifier.

`reward:RECIPE@MODEL` names one on the command line: a recipe of `recipes.toml` or a TOML file (docs/prm.md), and a
folder or `hf:org/repo` with safetensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flyweight.errors import ConfigError
from flyweight.types import Message
from flyweight.verifiers.recipes import RewardRecipe
from flyweight.verifiers.trained import Rated, Trained

if TYPE_CHECKING:
    from flyweight.verifiers.transformer import Reader

__all__ = ["Reward"]


class Reward(Trained[RewardRecipe, "Reader"]):
    """An outcome reward model's score of the solution so far: one logit's sigmoid, or a class of a softmax.

    It reads question and solution through the model's chat template or as a pair, as the recipe says. A path without
    text scores 0. A string in a question or solution that the model would take for a special token gets a space inside:
    it cannot forge one. Each score costs all of its tokens; padding is not counted.

    Source: Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems (2110.14168).
    """

    def __init__(self, recipe: str = "", model: str = "", *, batch: int = 8) -> None:
        """`recipe`: a name or FILE.toml. `model`: where its weights are; some recipes know. `batch`: read together.

        The model is loaded when the first score is asked for. Raises ConfigError for a recipe with mistakes.
        """
        from flyweight.huggingface import is_reference

        super().__init__("reward", RewardRecipe, recipe, model, batch)
        if not is_reference(self.model):
            raise ConfigError(f"reward: {self.model!r} is neither a folder nor hf:org/repo")

    def rate(self, question: str, solutions: Sequence[str]) -> list[Rated]:
        """The score of every solution and what it cost."""
        reader = self._loaded()
        asked = [i for i, solution in enumerate(solutions) if solution.strip()]
        inputs = [self._input(reader, question, solutions[i]) for i in asked]
        rated = [Rated(0.0, (), 0)] * len(solutions)
        for i, row, value in zip(asked, inputs, reader.read(inputs), strict=True):
            rated[i] = Rated(self._checked(value), (), len(row["input_ids"]))
        return rated

    def _input(self, reader: Reader, question: str, solution: str) -> dict[str, list[int]]:
        vocabulary, recipe = reader.vocabulary, self.recipe
        about = vocabulary.plain(question), vocabulary.plain(solution)
        if recipe.pair is not None:
            first, second = recipe.pair
            return reader.pair(recipe.fill(first, *about), recipe.fill(second, *about))
        turns = [Message(role, recipe.fill(text, *about)) for role, text in recipe.turns]
        return {"input_ids": vocabulary.encode(vocabulary.chat(turns, finished=True))}

    def _load(self) -> Reader:
        from flyweight import huggingface
        from flyweight.verifiers import transformer

        return transformer.Reader(huggingface.folder(self.model), self.recipe, batch=self.batch)

    def _size(self) -> int:
        from flyweight import huggingface

        return huggingface.parameters(huggingface.folder(self.model), head=False)
