"""Confidence maps: how often an answer is right that leads its vote by so much, learnt where the answers are known.

Votes say how surely an answer leads (`select.lead`), not how often such answers are right: eight samples of a small
model may agree on the same mistake. A map turns the one into the other, for one model, kind of answer and way of
choosing; elsewhere it says nothing, and `Result.confidence` stays what the votes say.

p = 1 / (1 + exp(-(a + b ln(lead) - c ln(1 - lead)))) with b, c >= 0: beta calibration (Kull, Silva Filho and Flach
2017, "Beta calibration: a well-founded and easily implemented improvement on logistic calibration for binary
classifiers"). It never falls as the lead grows, and three numbers can be had from a few dozen questions, where isotonic
regression would follow each of them. The number of votes is no input: given the lead it adds nothing that questions set
aside could show (docs/abstention.md).
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, cast

from flyweight import select
from flyweight import strategies as known
from flyweight.errors import ConfigError
from flyweight.protocols import Strategy
from flyweight.strategies import Value

__all__ = [
    "FAMILIES",
    "LEAST",
    "ConfidenceMap",
    "Sample",
    "Vote",
    "fit",
    "read",
    "shipped",
    "votes",
    "write",
]

FORMAT = 1
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "self_consistency": ("self_consistency", "adaptive_consistency"),
    "weighted_best_of_n": ("weighted_best_of_n",),
}
"""Strategy a map can be fitted on -> those it then holds for: what the votes are says how sure they are, not why they
are no more."""
LEAST = 30
"""Questions a map needs."""
ORDERS = 16
"""Of a question's samples, each a series of votes that grows from two samples to all."""
EDGE = 1e-9
"""A lead counts as at least this far from 0 and from 1."""


class Sample(NamedTuple):
    """A candidate whose worth is known."""

    group: int | None
    """Its answer class; None when it could not vote."""
    right: bool
    score: float = 1.0
    """What a verifier said, in [0, 1]; equal ones make the vote a majority."""
    logprob: float = 0.0
    """Mean natural-log probability per token: breaks ties."""


class Vote(NamedTuple):
    """A vote whose outcome is known."""

    lead: float
    """`select.confidence` of what was chosen, in [0, 1]."""
    right: bool


@dataclass(frozen=True)
class ConfidenceMap:
    """The map of one model, kind of answer and way of choosing. Call it with a lead."""

    model: str
    """Its name, for people; what identifies a model without a file."""
    sha256: str
    """Of the model's file, in hex; empty without one."""
    kind: str
    """Of answers, as `--kind` says it."""
    strategies: tuple[str, ...]
    """Those it holds for."""
    parameters: Mapping[str, Value]
    """What these must be called with, as far as they have the parameter."""
    verifier: str
    """Whose scores weigh the votes; empty for none."""
    fitted_on: str
    """Task and split."""
    questions: int
    weights: tuple[float, float, float]
    """a, b and c of the formula."""

    def __post_init__(self) -> None:
        """ConfigError for what cannot be a map."""
        texts = (self.model, self.sha256, self.kind, self.verifier, self.fitted_on, *self.strategies)
        weights = self.weights
        if not all(isinstance(text, str) for text in texts) or not self.strategies or not self.model:
            raise ConfigError("model, kind and strategies are names")
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(f"sha256={self.sha256!r} is no SHA-256 in hex")
        if not isinstance(self.parameters, Mapping):
            raise ConfigError("parameters are names and values")
        if not isinstance(self.questions, int) or self.questions < LEAST:
            raise ConfigError(f"questions={self.questions!r}; a map needs {LEAST}")
        finite = all(isinstance(weight, int | float) and math.isfinite(weight) for weight in weights)
        if len(weights) != 3 or not finite or min(weights[1:]) < 0:
            raise ConfigError(f"weights={list(weights)}; three finite numbers, the last two at least 0")

    def __call__(self, lead: float) -> float:
        """Probability, in (0, 1), that an answer with this lead is right."""
        a, b, c = self.weights
        low, high = _features(lead)
        return _sigmoid(a + b * low + c * high)

    def of(self, model: str, sha256: str, kind: str) -> bool:
        """Whether it was fitted on this model (`sha256` of its file, empty without one) and this kind of answer."""
        return kind == self.kind and sha256 == self.sha256 and (bool(sha256) or model == self.model)

    def holds(self, strategy: Strategy, verifier: str) -> bool:
        """Whether it holds for a strategy bound by `strategies.bind`, with this verifier at hand."""
        function, given = getattr(strategy, "func", None), getattr(strategy, "keywords", {})
        named = any(known.load(name) is function for name in self.strategies)
        same = all(given.get(name, value) == value for name, value in self.parameters.items())
        return named and same and self.verifier in ("", verifier)


def votes(samples: Sequence[Sample], seed: int | str = 0) -> list[Vote]:
    """What growing votes among one question's samples choose, as `select.weighted_vote` does: nothing for fewer than
    two that can vote, else every vote of two and more in each of `ORDERS` orders, the same for the same seed.

    Independent draws may come in any order, so that one recorded search stands for all smaller ones, and for those
    that stop early by what they see.
    """
    rng = random.Random(seed)
    able = [sample for sample in samples if sample.group is not None]
    found = []
    for _ in range(ORDERS if len(able) > 1 else 0):
        order = rng.sample(able, len(able))
        ballots = [select.Ballot(sample.group, sample.score, sample.logprob) for sample in order]
        for count in range(2, len(order) + 1):
            chosen, lead = select.vote(ballots[:count])
            found.append(Vote(lead, order[chosen].right))
    return found


def fit(questions: Iterable[Sequence[Vote]]) -> tuple[float, float, float]:
    """The weights of a map: the largest likelihood of what came true, each question counting once.

    Outcomes count as (N+ + 1) / (N+ + 2) and 1 / (N- + 2) instead of 1 and 0, for N+ right of N+ + N- questions, so
    that few questions without a mistake are no certainty (Platt 1999). ConfigError for fewer than `LEAST` questions
    with a vote.
    """
    import numpy as np

    rows: dict[float, list[float]] = {}  # lead -> weight of the votes that have it, and of the right ones among them
    count = 0
    for outcomes in questions:
        count += bool(outcomes)
        for vote in outcomes:
            row = rows.setdefault(vote.lead, [0.0, 0.0])
            row[0] += 1 / len(outcomes)
            row[1] += vote.right / len(outcomes)
    if count < LEAST:
        raise ConfigError(f"{count} questions with two votes or more: a map needs {LEAST}")
    leads = sorted(rows)
    weight, right = np.asarray([rows[each] for each in leads]).T
    yes, no = (right.sum() + 1) / (right.sum() + 2), 1 / (weight.sum() - right.sum() + 2)
    target = (right * yes + (weight - right) * no) / weight
    features = np.asarray([(1.0, *_features(each)) for each in leads])

    def solved(columns: Sequence[int]) -> tuple[float, list[float]]:
        """Loss and weights using only these features: Newton's method, each step halved until it helps."""
        x = features[:, list(columns)]
        beta = np.zeros(len(columns))

        def loss(beta: np.typing.NDArray[np.float64]) -> float:
            z = x @ beta
            # A trace of a ridge: leads that are all the same leave b and c undetermined.
            return float((weight * (np.logaddexp(0, z) - target * z)).sum() + 1e-6 * (beta @ beta))

        for _ in range(200):
            p = 1 / (1 + np.exp(-(x @ beta)))
            gradient = x.T @ (weight * (p - target)) + 2e-6 * beta
            curvature = (x * (weight * p * (1 - p))[:, None]).T @ x + 2e-6 * np.eye(len(columns))
            step = np.linalg.solve(curvature, gradient)
            size = 1.0
            while size > 1e-6 and loss(beta - size * step) > loss(beta):
                size /= 2
            beta = beta - size * step
            if float(np.abs(size * step).max()) < 1e-10:
                break
        whole = np.zeros(3)
        whole[list(columns)] = beta
        return loss(beta), [float(each) for each in whole]

    # The loss is convex: of all ways of holding b or c at 0, the best that leaves neither below 0 is the answer.
    tried = [solved((0, *more)) for size in range(3) for more in combinations((1, 2), size)]
    a, b, c = min((loss, weights) for loss, weights in tried if min(weights[1:]) >= 0)[1]
    return a, b, c


def read(path: Path) -> tuple[ConfidenceMap, ...]:
    """The maps of a file. ConfigError, on one line, for a file that cannot be read or holds none."""
    try:
        return _parsed(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except (ConfigError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        said = f"{type(error).__name__}: {error}" if not isinstance(error, ConfigError) else str(error)
        raise ConfigError(f"{path} holds no confidence maps: {said}") from error


def write(path: Path, maps: Sequence[ConfidenceMap], *, store: Path | None = None) -> None:
    """Write the maps to a file; the same maps give the same bytes.

    ConfigError for what belongs to `store`, StoreError if it cannot be written.
    """
    from flyweight.store.files import replacing

    text = json.dumps({"format": FORMAT, "maps": [asdict(each) for each in maps]}, indent=1) + "\n"
    with replacing(path, store=store) as file:
        file.write(text.encode())


@cache
def shipped() -> tuple[ConfidenceMap, ...]:
    """The maps that come with the package. ConfigError if the file is missing or damaged."""
    try:
        return read(Path(__file__).with_suffix(".json"))
    except ConfigError as error:
        raise ConfigError(f"{error}: reinstall flyweight") from error


def _parsed(text: str) -> tuple[ConfidenceMap, ...]:
    whole = json.loads(text)
    if whole["format"] != FORMAT:
        raise ConfigError(f"format {whole['format']!r}; this version of Flyweight reads {FORMAT}")
    rows = cast("list[dict[str, object]]", whole["maps"])
    for row in rows:
        for name in ("strategies", "weights"):
            if not isinstance(row[name], list):
                raise ConfigError(f"{name} is no list")
    return tuple(
        ConfidenceMap(**{name: tuple(value) if isinstance(value, list) else value for name, value in row.items()})  # type: ignore[arg-type]
        for row in rows
    )


def _features(lead: float) -> tuple[float, float]:
    inside = min(max(lead, EDGE), 1 - EDGE)
    return math.log(inside), -math.log1p(-inside)


def _sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
