"""The default verifier: everything a policy can say about its own solutions, in one calibrated probability."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from flyweight.errors import ConfigError
from flyweight.protocols import Models, Verifier
from flyweight.types import Node, Problem, Score
from flyweight.verifiers import heads

__all__ = ["FREE", "Combination", "SelfVerifier", "combination", "kind_of", "logit"]

VERSION = 1
FREE = {"maths": "arithmetic", "code": "tests"}
"""What is left for a model that nothing was trained for."""
LIMIT = 0.005
"""No part is believed to be surer than this, or that much below 1."""


@dataclass(frozen=True, slots=True)
class Combination:
    """A logistic regression over the parts' log-odds, for one kind of problem."""

    weights: Mapping[str, float]
    """By the verifier's name, as `verifiers.load` takes it."""
    offset: float

    def value(self, scores: Sequence[float]) -> float:
        """Probability that the solution is right, from the parts' scores in the order of `weights`."""
        weighed = (weight * logit(score) for weight, score in zip(self.weights.values(), scores, strict=True))
        return heads.probability(self.offset + math.fsum(weighed))


class SelfVerifier:
    """Probability that a solution is right, from all that the model itself, sums and tests say about it.

    The parts - a probe of hidden states, the fine-tuned upper layers, P(True), sums that hold, public tests for code -
    are verifiers of their own; which of them count and how much was fitted per model and kind of problem on
    calibration questions (`flyweight train-verifier --combine`). No second model is loaded. For a model that nothing
    was trained for, what remains is `arithmetic`, or `tests` for code. Each candidate is scored alone: agreement
    between them is for voting to see.

    Source: Self-evaluation after Kadavath et al. 2022 (2207.05221), of several kinds, stacked (Wolpert 1992).
    """

    name = "self"
    sees_answer = False
    reads_states = True

    def __init__(self, *, combination: str = "") -> None:
        """`combination`: a file that `flyweight train-verifier --combine` wrote; empty for the shipped one."""
        self.combination = combination
        self._parts: dict[str, Verifier] = {}
        if combination:
            _read(Path(combination))

    @cached_property
    def params(self) -> int:
        """Of the largest part that is no policy's own pass; asked for once the parts have been used."""
        return max((part.params for part in self._parts.values()), default=0)

    @property
    def identity(self) -> str:
        """What its scores are filed under."""
        return heads.identity(self.name, self.combination)

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node; costs what the parts cost."""
        combined = self._combination(models.weights(), kind_of(problem))
        if combined is None:
            [free] = self._load([FREE[kind_of(problem)]])
            scores = await free.score(problem, nodes, models)
            return [Score(score.value, score.steps, self.name) for score in scores]
        parts = self._load(combined.weights)
        said = [await part.score(problem, nodes, models) for part in parts]
        return [
            Score(combined.value([score.value for score in row]), self._steps(combined, row), self.name)
            for row in zip(*said, strict=True)
        ]

    def _steps(self, combined: Combination, row: Sequence[Score]) -> tuple[float, ...]:
        """Of each step, where every part says something about each; a part that runs whole programs does not."""
        if len({len(score.steps) for score in row}) != 1:
            return ()
        return tuple(map(combined.value, zip(*(score.steps for score in row), strict=True)))

    def _combination(self, sha256: str, kind: str) -> Combination | None:
        if self.combination:
            owner, kinds = _read(Path(self.combination))
            if owner != sha256:
                raise ConfigError(
                    f"{self.combination} was fitted for the model {owner[:12]}, this one is {sha256[:12] or 'unknown'}"
                )
            return kinds.get(kind)
        return combination(sha256).get(kind)

    def _load(self, names: Sequence[str] | Mapping[str, float]) -> list[Verifier]:
        from flyweight import verifiers  # the registry imports this module by name

        for name in names:
            if name not in self._parts:
                self._parts[name] = verifiers.load(name)
        return [self._parts[name] for name in names]


def kind_of(problem: Problem) -> str:
    """ "code" for a programming problem, else "maths"."""
    return "code" if "public" in problem.meta else "maths"


def logit(score: float) -> float:
    """Log-odds of a score, kept off 0 and 1."""
    p = min(1 - LIMIT, max(LIMIT, score))
    return math.log(p / (1 - p))


def combination(sha256: str) -> Mapping[str, Combination]:
    """The shipped combination for a model file by kind of problem; empty where there is none."""
    for path in sorted(heads.FOLDER.glob("*.json")):
        owner, kinds = _read(path)
        if owner == sha256:
            return kinds
    return {}


@lru_cache(maxsize=8)
def _read(path: Path) -> tuple[str, Mapping[str, Combination]]:
    """A combination's model and kinds. ConfigError in one line for a file that is none."""
    try:
        data = json.loads(path.read_text("utf-8"))
        if data["version"] != VERSION:
            raise ConfigError(f"{path} is a combination of another version: fit it again")
        kinds = {
            str(kind): Combination({str(k): float(v) for k, v in row["weights"].items()}, float(row["offset"]))
            for kind, row in data["kinds"].items()
        }
        return str(data["sha256"]), kinds
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path} is not a combination that flyweight train-verifier wrote ({error})") from error
