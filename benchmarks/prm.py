"""Tokens a process reward model computes in beam searches, and how many of them it had computed before.

    python -m benchmarks.prm                # tiny random models, half a minute; writes the table of docs/prm.md
    python -m benchmarks.prm --searches 1   # fewer searches, and nothing is written

The models are tiny and random, for what is counted does not depend on what they say: n beams of random words, the
searches all in flight together. "Again" are tokens whose whole prefix had been computed for an earlier score: all that
was computed less the nodes of the tree that its token ids make.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.rig import ROOT, publish, table
from flyweight import strategies
from flyweight.protocols import Policy
from flyweight.report.words import share
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, Draft, ToyPolicy
from flyweight.types import Problem, Sampling
from flyweight.verifiers.prm import Backend, Prm
from flyweight.verifiers.trained import Rated
from flyweight.verifiers.transformer import Reading, Said
from tests import tiny

PAGE = ROOT / "docs" / "prm.md"
WORDS = ("apples", "bank", "cost", "each", "five", "gives", "half", "left", "more", "next", "pays", "rest", "seven")
STEPS = 7

Tree = dict[int, "Tree"]


class Counted:
    """A backend, with the tree of all token ids it has read."""

    def __init__(self, backend: Backend) -> None:
        self.vocabulary = backend.vocabulary
        self.computed = self.distinct = 0
        self._backend = backend
        self._tree: Tree = {}

    def read(self, readings: Sequence[Reading]) -> list[Said]:
        """What the backend says, counted."""
        said = self._backend.read(readings)
        self.computed += sum(each.tokens for each in said)
        for reading in readings:
            tree = self._tree
            for token in reading.ids:
                self.distinct += token not in tree
                tree = tree.setdefault(token, {})
        return said

    def close(self) -> None:
        """Release the model."""
        self._backend.close()


class CountedPrm(Prm):
    """A reward model whose backend is counted, and what reading every path anew would cost."""

    __slots__ = ("counted", "scores", "whole")
    counted: Counted

    def _load(self) -> Backend:
        self.counted = Counted(super()._load())
        self.scores = self.whole = 0
        return self.counted

    def rate(self, question: str, solutions: Sequence[str]) -> list[Rated]:
        """As of the model."""
        rated = super().rate(question, solutions)
        for solution in solutions:
            self.scores += 1
            self.whole += len(self.recipe.ids(self.counted.vocabulary, question, self.recipe.steps(solution)))
        return rated


class Count(NamedTuple):
    """Tokens of some searches, those of loading the model left out."""

    scores: int
    """Candidates scored."""
    whole: int
    """If every candidate's path is read anew."""
    computed: int
    again: int
    """Part of `computed` that had been computed before."""


def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
    """Random words: steps that hardly ever agree."""
    begun = so_far.count("\n\n")
    steps = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(4, 8))) for _ in range(begun, STEPS)]
    return Draft("\n\n".join([*steps, "The answer is \\boxed{7}."]))


def measure(prm: CountedPrm, policy: Policy, *, searches: int, n: int = 32, width: int = 4) -> Count:
    """Beam searches with the reward model, all in flight together."""
    prm.example()
    scores, whole, computed, distinct = prm.scores, prm.whole, prm.counted.computed, prm.counted.distinct
    problems = [Problem(str(i), f"Tom has {i + 3} apples. How many are left?") for i in range(searches)]
    runner = Runner(policy, {prm.name: prm}, answers=BoxedAnswers())
    results = list(runner.run(problems, strategies.bind("beam_search", {"n": n, "width": width})))
    computed, distinct = prm.counted.computed - computed, prm.counted.distinct - distinct
    assert all(result.error is None for result in results), [result.error for result in results]
    assert sum(result.usage.verifier_tokens for result in results) == computed, "what is computed is booked"
    return Count(prm.scores - scores, prm.whole - whole, computed, computed - distinct)


def gguf(folder: Path, recipe: str) -> CountedPrm:
    """On a tiny GGUF file."""
    return CountedPrm(recipe, str(tiny.make(folder / "tiny.gguf")), context=tiny.CONTEXT)


def transformer(folder: Path, recipe: str) -> CountedPrm:
    """On a tiny folder of transformers."""
    from tests.verifiers import prm_kit as kit

    chatml = kit.bytes_tokenizer(kit.CHATML, "<|im_start|>", "<|im_end|>", "<extra_0>")
    return CountedPrm(recipe, str(kit.causal(folder / recipe, "qwen2", chatml)))


def rows(searches: int) -> Iterator[list[str]]:
    """A row of the table for each backend and recipe."""
    kinds = [("GGUF", gguf, name) for name in ("math-shepherd", "rlhflow")]
    if importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"):
        kinds += [("folder", transformer, name) for name in ("math-psa", "rlhflow", "token-yes-no")]
    for backend, make, recipe in kinds:
        with tempfile.TemporaryDirectory() as folder:
            prm = make(Path(folder), recipe)
            try:
                count = measure(prm, ToyPolicy(write), searches=searches)
            finally:
                prm.close()
        saved, again = 1 - count.computed / count.whole, count.again / count.computed
        yield [backend, recipe, *(f"{number:,}" for number in count[:3]), share(saved), share(again)]


def main() -> None:
    """Measure, print, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--searches", type=int, default=4)
    given = parser.parse_args()
    head = ["backend", "recipe", "scores", "tokens, every path anew", "tokens computed", "saved", "of these again"]
    text = table(head, list(rows(given.searches)))
    print(text)
    if given.searches == parser.get_default("searches"):
        publish(PAGE, "prm", text)


if __name__ == "__main__":
    main()
