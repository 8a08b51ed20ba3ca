"""Curves from recorded samples: what k of them would have given and cost, for every k up to all of them."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyweight.report.records import Draw, Recorded, identity
from flyweight.stats import Interval, best_at_k, bootstrap_mean, maj_at_k, pass_at_k
from flyweight.strategies import SAMPLING
from flyweight.types import digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Curve", "Point", "Pool", "parameters", "pools", "voted", "votes"]

RESAMPLES = 2000
"""Of the bootstrap behind each point of a curve."""
SHUFFLES = 800
"""Least number of orders of a problem's samples that a weighted vote is averaged over."""


@dataclass(frozen=True)
class Point:
    """A selector given k samples."""

    k: int
    accuracy: Interval
    """Over problems, by bootstrap."""
    tokens: float
    """Generated per question."""
    flops: float
    """Per question, prompt and verifier included."""
    seconds: float | None
    """Per question, at the speed its run has."""
    score: float | None
    """Mean score of what a verifier chose; None where none did."""


@dataclass(frozen=True)
class Curve:
    """A selector over k."""

    kind: str
    """random, coverage, majority, best or vote."""
    verifier: str | None
    run: str
    """The run whose samples, scores and costs these are."""
    points: tuple[Point, ...]
    values: tuple[tuple[float, ...], ...]
    """For every point, one value per problem, in the order of the problems' ids."""


@dataclass(frozen=True)
class Pool:
    """Samples that several runs of one model share."""

    model: str
    n: int
    """Samples per problem."""
    problems: int
    """Those that every run of the pool completed."""
    runs: tuple[str, ...]
    """Runs whose samples are all among these."""
    curves: tuple[Curve, ...]


def pools(runs: Sequence[Recorded]) -> list[Pool]:
    """The largest pool of every model that has one, in the order of the models' names."""
    largest: dict[tuple[str, str], list[Recorded]] = {}
    for family in _families(runs):
        largest.setdefault(identity(family[0].info), family)
    made = (
        _pool(family, parameters([run for run in runs if identity(run.info) == model]))
        for model, family in largest.items()
    )
    return sorted((pool for pool in made if pool is not None), key=lambda pool: pool.model)


def _families(runs: Sequence[Recorded]) -> list[list[Recorded]]:
    """Runs that share their draws, those with most samples first, and so within each.

    A budget cuts samples short or leaves some out, so a run with one is no pool; nor is a single sample.
    """
    drawing = [run for run in runs if run.strategy in SAMPLING and run.n > 1 and not run.configuration.get("budget")]
    families: list[list[Recorded]] = []
    for run in sorted(drawing, key=lambda run: (-run.n * _problems(run), -run.n, run.id)):
        home = next((family for family in families if _shares(family[0], run)), None)
        if home is None:
            families.append([run])
        else:
            home.append(run)
    return families


def _shares(large: Recorded, small: Recorded) -> bool:
    """Whether every draw of one run is among the other's, on the problems that both completed."""
    if identity(large.info) != identity(small.info):
        return False
    shared = False
    for problem, outcome in small.outcomes.items():
        other = large.outcomes.get(problem)
        if other is None or not other.complete or not outcome.complete:
            continue
        if not {draw.id for draw in outcome.draws} <= {draw.id for draw in other.draws}:
            return False
        shared = shared or bool(outcome.draws)
    return shared


def _pool(family: Sequence[Recorded], params: float) -> Pool | None:
    base = family[0]
    judges: dict[str, Recorded] = {}
    for run in family:
        # One that has only begun would leave few problems for all curves.
        begun = 2 * _problems(run) < _problems(base)
        if run.verifier is not None and run.strategy != "self_consistency" and not begun:
            judges.setdefault(run.verifier, run)
    used = [base, *(judges[name] for name in sorted(judges))]
    problems = [id for id in base.outcomes if all(_whole(run, id) for run in used)]
    if not problems:
        return None
    curves = [_curve(kind, None, base, problems, params) for kind in ("random", "coverage", "majority")]
    for name in sorted(judges):
        curves += [_curve(kind, name, judges[name], problems, params) for kind in ("best", "vote")]
    return Pool(base.name, base.n, len(problems), tuple(run.id for run in family), tuple(curves))


def _problems(run: Recorded) -> int:
    """How many have all their samples."""
    return sum(_whole(run, problem) for problem in run.outcomes)


def _whole(run: Recorded, problem: str) -> bool:
    outcome = run.outcomes.get(problem)
    return outcome is not None and outcome.complete and len(outcome.draws) == run.n


def _curve(kind: str, verifier: str | None, run: Recorded, problems: Sequence[str], params: float) -> Curve:
    outcomes = [run.outcomes[id] for id in problems]
    columns = [_values(kind, id, outcome.draws, _sizes(run.n)) for id, outcome in zip(problems, outcomes, strict=True)]
    usage = [outcome.usage for outcome in outcomes]
    prompt = _mean([u.prompt_tokens for u in usage])
    generated = _mean([u.generated_tokens for u in usage]) / run.n
    # What is not the policy's is the verifier's, whatever its size.
    verifying = _mean([u.flops for u in usage]) / run.n - 2 * params * (prompt / run.n + generated)
    points, values = [], []
    for index, k in enumerate(_sizes(run.n)):
        value = tuple(column[index] for column in columns)
        # Choosing at random needs one sample, whatever k; the curve is a level to compare with.
        tokens = k * generated
        points.append(
            Point(
                k,
                bootstrap_mean(value, resamples=RESAMPLES),
                tokens,
                2 * params * (prompt + tokens) + (0.0 if verifier is None else k * verifying),
                None if run.speed is None else tokens / run.speed,
                _mean([_expected_top(outcome.draws, k) for outcome in outcomes]) if kind == "best" else None,
            )
        )
        values.append(value)
    return Curve(kind, verifier, run.id, tuple(points), tuple(values))


def parameters(runs: Iterable[Recorded]) -> float:
    """Parameters of the model of these runs, from the operations counted for every token; 0 if none were.

    A verifier's operations go by its own size: searches that asked one tell only where there are no others.
    """
    spent = [outcome.usage for run in runs for outcome in run.outcomes.values()]
    usage = [u for u in spent if u.generated_tokens and not u.verifier_tokens] or spent
    tokens = sum(u.prompt_tokens + u.generated_tokens + u.verifier_tokens for u in usage)
    return math.fsum(u.flops for u in usage) / (2 * tokens) if tokens else 0.0


def _sizes(n: int) -> list[int]:
    """Every k up to 32, then four for every doubling, and n."""
    beyond = {round(32 * 2 ** (i / 4)) for i in range(4 * max(0, n.bit_length() - 5))}
    return sorted({*range(1, min(n, 32) + 1), *(k for k in beyond if k < n), n})


def _values(kind: str, problem: str, draws: Sequence[Draw], sizes: Sequence[int]) -> list[float]:
    """Probability of a right answer to the problem at every size."""
    n, right = len(draws), [draw.right for draw in draws]
    if kind == "random":
        return [sum(right) / n] * len(sizes)
    if kind == "coverage":
        return [pass_at_k(n, sum(right), k) for k in sizes]
    if kind == "majority":
        return [_majority(_classes(draws), n, k) for k in sizes]
    if kind == "best":
        ranks = _ranks(draws)
        chosen = [draw.right and draw.score is not None for draw in draws]
        return [best_at_k(ranks, chosen, k) for k in sizes]
    found = voted(draws, int(digest("vote", problem)[:16], 16))
    return [found[k - 1] for k in sizes]


def _classes(draws: Sequence[Draw]) -> tuple[tuple[int, int], ...]:
    """(members, right ones among them) of every answer class, sorted."""
    groups: dict[int, list[bool]] = {}
    for draw in draws:
        if draw.group is not None:
            groups.setdefault(draw.group, []).append(draw.right)
    return tuple(sorted((len(marks), sum(marks)) for marks in groups.values()))


@functools.lru_cache(maxsize=4096)
def _majority(classes: tuple[tuple[int, int], ...], n: int, k: int) -> float:
    """maj@k of n samples in these classes; what problems have in common is counted once."""
    answers: list[int | None] = []
    right: list[bool] = []
    for index, (size, correct) in enumerate(classes):
        answers += [index] * size
        right += [True] * correct + [False] * (size - correct)
    silent = n - len(answers)
    return maj_at_k([*answers, *[None] * silent], [*right, *[False] * silent], k)


def _ranks(draws: Sequence[Draw]) -> list[float]:
    """Place of every draw in the order of best_of_n, equal ones sharing it; -inf for those without a score."""
    keys = [None if draw.score is None else (draw.score, draw.logprob) for draw in draws]
    places = {key: place for place, key in enumerate(sorted({key for key in keys if key is not None}))}
    return [-math.inf if key is None else float(places[key]) for key in keys]


def _expected_top(draws: Sequence[Draw], k: int) -> float:
    """Mean over all subsets of k of the highest score, an unscored draw counting 0."""
    scores = sorted(draw.score or 0.0 for draw in draws)
    ways = [math.comb(i, k - 1) for i in range(len(scores))]
    return math.fsum(way * score for way, score in zip(ways, scores, strict=True)) / math.comb(len(scores), k)


def voted(draws: Sequence[Draw], seed: int) -> list[float]:
    """Probability that a score-weighted vote of k of the draws is right, k = 1 .. n, from `SHUFFLES` orders or more.

    Every order comes with all its rotations, so that each draw is at each place equally often: k = 1 is exact, and so
    is k = n, where nothing is random.
    """
    import numpy as np

    n = len(draws)
    shuffled = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (-(-SHUFFLES // n), 1)), axis=1)
    orders = np.concatenate([np.roll(shuffled, turn, axis=1) for turn in range(n)])
    return [float(share) for share in votes(draws, orders).mean(axis=0)]


def votes(draws: Sequence[Draw], orders: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[order, k - 1]: whether a score-weighted vote of the first k is right.

    As `select.weighted_vote` on the draws that have a score and an answer: the heaviest class, then the one with more
    votes, then the more confident one, then the one drawn first; right if its best-scored member is.
    """
    import numpy as np

    n = len(draws)
    # Equal ranks are told apart by draw order, as `select.top` does. Behind the last place stands: nobody, wrong.
    place = np.empty(n, dtype=np.int64)
    place[np.lexsort((-np.arange(n), np.asarray(_ranks(draws))))] = np.arange(n)
    right = np.zeros(n + 1, dtype=bool)
    right[place] = [draw.right for draw in draws]
    scores = np.asarray([draw.score or 0.0 for draw in draws])
    logprobs = np.asarray([draw.logprob for draw in draws])
    keys: list[tuple[NDArray[np.float64], ...]] = []
    best = []
    for group in sorted({draw.group for draw in draws if draw.group is not None}):
        mine = np.asarray([draw.group == group and draw.score is not None for draw in draws])
        count = np.cumsum(mine[orders], axis=1)
        weight = np.where(count > 0, np.cumsum(np.where(mine, scores, 0.0)[orders], axis=1).round(12), -1.0)
        sure = (np.cumsum(np.where(mine, logprobs, 0.0)[orders], axis=1) / np.maximum(count, 1)).round(12)
        first = -np.minimum.accumulate(np.where(mine[orders], orders, n), axis=1).astype(np.float64)
        keys.append((weight, count.astype(np.float64), sure, first))
        best.append(np.maximum.accumulate(np.where(mine, place, -1)[orders], axis=1))
    if not keys:
        return np.zeros(orders.shape, dtype=bool)
    still = np.ones((len(keys), *orders.shape), dtype=bool)
    for key in zip(*keys, strict=True):
        held = np.where(still, np.stack(key), -np.inf)
        still &= held == held.max(axis=0)
    chosen = np.take_along_axis(np.stack(best), still.argmax(axis=0)[None], axis=0)[0]
    found: NDArray[np.bool_] = right[chosen]
    return found


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
