"""Fitting the default verifier: how much each part of `self` counts, from answers to questions no part has seen.

A logistic regression over the parts' log-odds, for each kind of problem, on the cross-entropy of the outcomes plus the
logistic loss of right-wrong pairs of a question. Parts are taken in one after another, as long as one adds to the
cross-validated AUC within a question; folds keep the answers to a question together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from flyweight import stats
from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Policy, Search, Task, Verifier
from flyweight.runner import Runner
from flyweight.training.calibrate import platt
from flyweight.training.pool import NOTHING
from flyweight.types import Node, Problem, Result, Sampling
from flyweight.verifiers.self_verifier import VERSION, kind_of, logit

__all__ = ["Fitted", "Scored", "collect", "fit", "load", "save"]

Doubles = NDArray[np.float64]
FOLDS = 5
RIDGE = 1e-2
GAIN = 0.005
"""Held-out AUC within a question that a part must add to be worth its cost."""


class Scored(NamedTuple):
    """The answers to one question."""

    id: str
    kind: str
    """Of the problem: "maths" or "code"."""
    scores: Mapping[str, Sequence[float]]
    """By part."""
    right: Sequence[bool]


def collect(
    policy: Policy,
    task: Task,
    problems: Sequence[Problem],
    parts: Mapping[str, Verifier],
    file: Path,
    *,
    n: int = 8,
    temperature: float = 0.7,
    max_tokens: int = 512,
    seed: int = 0,
) -> Iterator[Result]:
    """Draw answers and have every part score them; a line of `file` for each question, those there are left alone."""
    runner = Runner(
        policy, parts, answers=task, sampling=Sampling(temperature, max_tokens=max_tokens), seed=seed, hidden=True
    )
    found: dict[str, dict[str, list[float]]] = {}
    marks: dict[str, list[bool]] = {}

    async def strategy(search: Search) -> Node | None:
        nodes = [node for node in await search.complete([search.root], n) if node.complete]
        scores = {}
        for name in parts:
            scored = await search.score(nodes, verifier=name) if nodes else []
            scores[name] = [node.score.value for node in scored if node.score is not None]
        problem = known[search.problem.id]
        marks[problem.id] = [task.grade(problem, node.solution).value == "correct" for node in nodes]
        found[problem.id] = scores
        return None

    known = {problem.id: problem for problem in problems}
    done = {scored.id for scored in load(file)}
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as stream:
        for result in runner.run([problem for problem in problems if problem.id not in done], strategy, in_flight=8):
            id = result.problem.id
            if result.error is not None:
                raise BackendError(f"{id}: {result.error}")
            row = {"id": id, "kind": kind_of(result.problem), "scores": found.pop(id), "right": marks.pop(id)}
            stream.write(json.dumps(row) + "\n")
            stream.flush()
            yield result


def load(file: Path) -> list[Scored]:
    """What was collected; a last line that was not finished is left out."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text("utf-8").splitlines():
        try:
            rows.append(Scored(**json.loads(line)))
        except ValueError:
            continue
    return rows


class Fitted(NamedTuple):
    """A combination, and how well it does on held-out questions."""

    weights: dict[str, float]
    offset: float
    facts: dict[str, object]


def fit(questions: Sequence[Scored], *, say: Callable[[str], None] = lambda line: None) -> Fitted:
    """The best combination of the parts. ConfigError where no question has right and wrong answers."""
    if not any(len(set(question.right)) == 2 for question in questions):
        raise ConfigError(f"{len(questions)} questions: {NOTHING}")
    questions = [question for question in questions if question.right]
    names = list(questions[0].scores)
    right = [question.right for question in questions]
    alone: dict[str, float] = {}
    best: tuple[str, ...] = ()
    value, held_out = 0.0, [np.zeros(0)]
    while len(best) < len(names):
        tried = {}
        for name in names:
            if name not in best:
                found = _held_out(questions, (*best, name))
                tried[name] = stats.auc_within([list(row) for row in found], right).value, found
                say(f"{' + '.join((*best, name))}: AUC within a question {tried[name][0]:.3f}")
        alone = alone or {name: round(auc, 4) for name, (auc, _) in tried.items()}
        added = max(tried, key=lambda name: tried[name][0])
        if best and tried[added][0] < value + GAIN:
            break
        best = (*best, added)
        value, held_out = tried[added]
    slope, shift = platt([x for row in held_out for x in row], [y for q in questions for y in q.right])
    weights = _solve([_matrix(q, best) for q in questions], [np.array(q.right) for q in questions])
    facts: dict[str, object] = {
        "questions": len(questions),
        "auc_within": round(value, 4),
        "parts_alone": alone,
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
