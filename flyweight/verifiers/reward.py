"""Outcome reward models: one score for a whole solution, from a sequence classifier.

`reward:RECIPE@MODEL` names one on the command line: a recipe of `recipes.toml` or a TOML file (docs/prm.md), and a
folder or `hf:org/repo` with safetensors.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Models
from flyweight.types import Message, Node, Problem, Score
from flyweight.verifiers.prm import Rated, compare

if TYPE_CHECKING:
    from flyweight.verifiers.recipes import Example
    from flyweight.verifiers.transformer import Reader

__all__ = ["Reward"]

log = logging.getLogger("flyweight")


class Reward:
    """An outcome reward model's score of the solution so far: one logit's sigmoid, or a class of a softmax.

    It reads question and solution through the model's chat template or as a pair, as the recipe says. A path without
    text scores 0. A string in a question or solution that the model would take for a special token gets a space inside:
    it cannot forge one. Each score costs all of its tokens; padding is not counted.

    Source: Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems (2110.14168).
    """

    sees_answer = False
    __slots__ = ("__dict__", "_params", "_reader", "recipe")
    # Its settings are in __dict__, where a store reads what scores depend on; the model is not.

    def __init__(self, recipe: str = "", model: str = "", *, batch: int = 8) -> None:
        """`recipe`: a name or FILE.toml. `model`: where its weights are; some recipes know. `batch`: read together.

        The model is loaded when the first score is asked for. Raises ConfigError for a recipe with mistakes.
        """
        from flyweight.verifiers.folder import is_reference
        from flyweight.verifiers.recipes import RewardRecipe, named

        if not isinstance(batch, int) or batch < 1:
            raise ConfigError(f"batch={batch!r} is not allowed: a whole number from 1")
        self.recipe, self.model = named(RewardRecipe, recipe, model)
        if not is_reference(self.model):
            raise ConfigError(f"reward: {self.model!r} is neither a folder nor hf:org/repo")
        self.name = f"reward:{self.recipe.name}"
        self.told = repr(self.recipe)
        """The whole recipe: with the settings, what scores depend on."""
        self.batch = batch
        self._params: int | None = None
        self._reader: Reader | None = None

    @property
    def params(self) -> int:
        """Parameters behind each verifier token, read from the model's files without loading it."""
        if self._params is None:
            from flyweight.verifiers import folder

            self._params = folder.parameters(folder.folder(self.model), head=False)
        return self._params

    @property
    def example(self) -> Example:
        """The recipe's, for `check`."""
        return self.recipe.example

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node. ModelError or BackendError if the model cannot say."""
        rated = self.rate(problem.prompt, [node.solution for node in nodes])
        models.spent(sum(each.tokens for each in rated))
        return [Score(each.steps[-1] if each.steps else 0.0, (), self.name) for each in rated]

    def rate(self, question: str, solutions: Sequence[str]) -> list[Rated]:
        """The score of every solution and what it cost."""
        reader = self._loaded()
        asked = [i for i, solution in enumerate(solutions) if solution.strip()]
        inputs = [self._input(reader, question, solutions[i]) for i in asked]
        rated = [Rated((), 0)] * len(solutions)
        for i, row, value in zip(asked, inputs, reader.read(inputs), strict=True):
            if not 0 <= value <= 1:  # also true for NaN
                raise BackendError(f"{self.name} gave the score {value}; scores must lie in [0, 1]")
            rated[i] = Rated((value,), len(row["input_ids"]))
        return rated

    def _input(self, reader: Reader, question: str, solution: str) -> dict[str, list[int]]:
        vocabulary, recipe = reader.vocabulary, self.recipe
        about = vocabulary.plain(question), vocabulary.plain(solution)
        if recipe.pair is not None:
            first, second = recipe.pair
            return reader.pair(recipe.fill(first, *about), recipe.fill(second, *about))
        turns = [Message(role, recipe.fill(text, *about)) for role, text in recipe.turns]
        return {"input_ids": vocabulary.encode(vocabulary.chat(turns, finished=True))}

    def close(self) -> None:
        """Release the model; it is loaded again when a score is asked for."""
        self._reader = None

    def _loaded(self) -> Reader:
        if self._reader is None:
            from flyweight.verifiers import folder, transformer

            self._reader = transformer.Reader(folder.folder(self.model), self.recipe, batch=self.batch)
            said, right = compare(self)
            if not right:
                log.warning("%s: the model may not fit its recipe", said)
        return self._reader
