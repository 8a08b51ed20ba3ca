"""Fitting the default verifier: how much each part of `self` counts, from answers to questions no part has seen.

A logistic regression over the parts' log-odds, for each kind of problem, on the cross-entropy of the outcomes plus the
logistic loss of right-wrong pairs of a question; which parts stay is chosen by cross-validated AUC within a question,
its folds keeping the answers to a question together.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from flyweight import stats
from flyweight.training.calibrate import platt
from flyweight.verifiers.self_verifier import VERSION, logit

__all__ = ["Scored", "fit", "save"]

Doubles = NDArray[np.float64]
FOLDS = 5
RIDGE = 1e-2


class Scored(NamedTuple):
    """The answers to one question."""

    scores: Mapping[str, Sequence[float]]
    """By part."""
    right: Sequence[bool]


class Fitted(NamedTuple):
    """A combination, and how well it does on held-out questions."""

    weights: dict[str, float]
    offset: float
    facts: dict[str, object]


def fit(questions: Sequence[Scored], *, say: Callable[[str], None] = lambda line: None) -> Fitted:
    """The best combination of the parts. ConfigError where no question has right and wrong answers."""
    names = list(questions[0].scores)
    tried: dict[tuple[str, ...], tuple[float, list[Doubles]]] = {}
    for size in range(1, len(names) + 1):
        for chosen in itertools.combinations(names, size):
            held_out = _held_out(questions, chosen)
            value = stats.auc_within([list(row) for row in held_out], [q.right for q in questions]).value
            tried[chosen] = (value, held_out)
            say(f"{' + '.join(chosen)}: AUC within a question {value:.3f}")
    best = max(tried, key=lambda chosen: (round(tried[chosen][0], 3), -len(chosen)))
    value, held_out = tried[best]
    slope, shift = platt([x for row in held_out for x in row], [y for q in questions for y in q.right])
    weights = _solve([_matrix(q, best) for q in questions], [np.array(q.right) for q in questions])
    facts: dict[str, object] = {
        "questions": len(questions),
        "auc_within": round(value, 4),
        "parts_alone": {name: round(tried[name,][0], 4) for name in names},
    }
    offset = slope * float(weights[-1]) + shift
    return Fitted({name: slope * float(w) for name, w in zip(best, weights, strict=False)}, offset, facts)


def save(path: Path, sha256: str, kinds: Mapping[str, Fitted]) -> None:
    """Write the combinations of a model by kind of problem."""
    rows = {kind: {"weights": each.weights, "offset": each.offset, "facts": each.facts} for kind, each in kinds.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": VERSION, "sha256": sha256, "kinds": rows}, indent=1) + "\n", "utf-8")


def _matrix(question: Scored, names: Sequence[str]) -> Doubles:
    return np.array([[logit(question.scores[name][i]) for name in names] for i in range(len(question.right))])


def _held_out(questions: Sequence[Scored], names: Sequence[str]) -> list[Doubles]:
    x, y = [_matrix(q, names) for q in questions], [np.array(q.right) for q in questions]
    fold = np.random.default_rng(0).permutation(len(questions)) % FOLDS
    found: list[Doubles] = [np.zeros(0)] * len(questions)
    for held in range(FOLDS):
        train = [i for i in range(len(questions)) if fold[i] != held]
        weights = _solve([x[i] for i in train], [y[i] for i in train])
        for i in np.flatnonzero(fold == held):
            found[i] = x[i] @ weights[:-1] + weights[-1]
    return found


def _solve(x: Sequence[Doubles], y: Sequence[NDArray[np.bool_]]) -> Doubles:
    """[parts + 1] weights and offset."""
    flat, right = np.concatenate(x), np.concatenate(y)
    gaps = [
        (rows[marks][:, None] - rows[~marks]).reshape(-1, rows.shape[1])
        for rows, marks in zip(x, y, strict=True)
        if marks.any() and not marks.all()
    ]
    shares = np.concatenate([np.full(len(gap), 1 / len(gap)) for gap in gaps]) if gaps else np.zeros(0)
    pairs = np.concatenate(gaps) if gaps else np.zeros((0, flat.shape[1]))

    def cost(w: Doubles) -> tuple[float, Doubles]:
        z = flat @ w[:-1] + w[-1]
        margin = pairs @ w[:-1]
        value = np.logaddexp(0, np.where(right, -z, z)).mean() + RIDGE * float(w[:-1] @ w[:-1])
        slope = np.append(flat.T @ (_sigmoid(z) - right), (_sigmoid(z) - right).sum()) / len(flat)
        slope[:-1] += 2 * RIDGE * w[:-1]
        if len(gaps):
            value += float(shares @ np.logaddexp(0, -margin)) / len(gaps)
            slope[:-1] -= pairs.T @ (shares * _sigmoid(-margin)) / len(gaps)
        return float(value), slope

    return np.asarray(minimize(cost, np.zeros(flat.shape[1] + 1), jac=True, method="L-BFGS-B").x)


def _sigmoid(z: Doubles) -> Doubles:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -30, 30))))
