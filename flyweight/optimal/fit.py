"""The choice of strategy and parameters per difficulty and budget, and what it gains where nothing was chosen.

For every budget: the estimator of difficulty is fitted, its estimates cut the questions into bins of equal count, and
in every bin the strategy that is right most often is taken, where its tokens are worth it: on questions that many
samples leave as wrong as few do, few are drawn. How many samples the probe has, their temperature and the
number of bins are chosen by cross-validation; and all of that is done again without the fifth of the questions it is
then measured on, so that what is reported is what questions that nobody looked at would give.

Source: Snell et al. 2024, arXiv 2408.03314, section 3.2: five difficulty quantiles, choice by two-fold
cross-validation.
Deviations: a bin leaves the strategy that is best over all difficulties only for one that is better there by more than
a standard error, since a bin of some thirty questions is decided by chance otherwise; of equally good ones the cheapest
is taken, and a token has a price: a quarter of what it buys where the best single strategy spends its last ones, so
that little accuracy is given away for it; five folds, nested.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flyweight import abstain, stats
from flyweight.errors import ConfigError
from flyweight.optimal.calibration import Cell, Row, Span
from flyweight.optimal.difficulty import BANDS, Estimator, band, quantiles, ranked, spearman
from flyweight.optimal.difficulty import fit as fit_difficulty
from flyweight.optimal.pools import Play, Question, plays
from flyweight.optimal.work import Work, mean
from flyweight.strategies import compose

__all__ = ["LEAST", "PROBES", "Drawing", "Probing", "Table", "choices", "confidence", "fit", "report", "work"]

LEAST = 20
"""Questions a calibration needs."""
ORDERS = 16
"""Of every question's samples."""
FOLDS, INNER = 5, 3
PROBES = (1, 2, 4, 8)
BINS = (1, 3, 5)
TIE = 0.005
"""Accuracies that differ by less are equal: the cheaper one is taken."""
RATE = 0.25
"""A token is spent where it buys at least this share of what it buys at the margin, on all difficulties together."""
LEADS, ENOUGH = (0.8, 0.95), (0.5, 0.8, 0.95)

Floats = NDArray[np.float64]


class Drawing(NamedTuple):
    """How samples are drawn."""

    greedy: bool
    """Whether the most likely answer comes first."""
    temperature: float
    """Of the others."""


class Probing(NamedTuple):
    """What is chosen for all difficulties together: the probe, and how finely it tells them apart."""

    drawing: Drawing
    k: int
    """Samples of the probe."""
    bins: int


class _Outcomes(NamedTuple):
    """What every choice comes to, [choices, questions, orders]."""

    right: Floats
    tokens: Floats


@dataclass(frozen=True)
class _Fitted:
    """What a fit has chosen for a budget."""

    probing: Probing
    estimator: Estimator
    edges: tuple[float, ...]
    cells: tuple[int, ...]
    """Index of the choice, per bin."""
    fixed: tuple[Drawing, int]
    """Drawing and index of the best single one."""


def choices(questions: Sequence[Question], verifier: str) -> list[str]:
    """Every strategy with every value of its parameters that the recordings can tell about, cheaper ones first."""
    first = questions[0]
    largest = min(len(pool) for each in questions for pool in each.pools.values()) + (first.greedy is not None)
    judges = sorted({name for each in questions for pool in each.pools.values() for s in pool for name in s.scores})
    found = ["sample"]
    for n in (2**power for power in range(1, 13) if 2**power <= largest):
        stops = (0.0, *LEADS) if n > 4 else (0.0,)
        found += [_word("self_consistency", n, "", lead=stop) for stop in stops]
        for judge in judges:
            other = "" if judge == verifier else judge
            found += [_word("weighted_best_of_n", n, other, lead=stop) for stop in stops]
            found += [_word("best_of_n", n, other, enough=stop) for stop in ((0.0, *ENOUGH) if n > 4 else (0.0,))]
    searched = set.intersection(*(set(each.searches.get(at, ())) for each in questions for at in each.pools))
    return [*found, *sorted(searched)]


def _word(name: str, n: int, verifier: str, **stops: float) -> str:
    given = {key: value for key, value in stops.items() if value}
    return compose.spell(name, {"n": n, **given, **({"verifier": verifier} if verifier else {})})


class Table:
    """Every choice played on every question in every order: what all fits on some of the questions look up."""

    def __init__(self, questions: Sequence[Question], verifier: str, orders: int = ORDERS) -> None:
        """ConfigError for fewer than `LEAST` questions."""
        if len(questions) < LEAST:
            raise ConfigError(f"{len(questions)} questions: a calibration needs {LEAST}")
        self.questions = questions
        self.verifier = verifier
        self.words = choices(questions, verifier)
        temperatures = sorted(set.intersection(*(set(each.pools) for each in questions)))
        if not temperatures:
            raise ConfigError("no temperature was recorded for all questions")
        firsts = (False, True) if all(each.greedy is not None for each in questions) else (False,)
        self.drawings = [Drawing(greedy, t) for greedy in firsts for t in temperatures]
        self.plays: dict[Drawing, list[list[Play]]] = {
            how: [plays(each, how.temperature, how.greedy, orders, verifier) for each in questions]
            for how in self.drawings
        }
        self._features: dict[tuple[Drawing, int], Floats] = {}
        self._outcomes: dict[tuple[Drawing, int, int], _Outcomes] = {}
        self.singles: dict[tuple[int, bytes], tuple[Drawing, int]] = {}
        """What `_fixed_choice` has found, by budget and questions."""

    def probings(self, budget: int, indices: NDArray[np.int64]) -> list[Probing]:
        """Those worth a trial on these questions: a probe takes at most half the budget, on average."""
        found = []
        for how in self.drawings:
            played = [play for place in indices for play in self.plays[how][place]]
            least = min(len(play.samples) for play in played)
            for k in PROBES:
                spent = np.mean([play.spent[min(k, least)] for play in played])
                if k == 1 or (k <= least and spent <= budget / 2):
                    found += [Probing(how, k, bins) for bins in BINS]
        return found

    def passed(self, drawing: Drawing) -> Floats:
        """Oracle difficulty of every question."""
        return np.array([each.passed(drawing.temperature) for each in self.questions])

    def features(self, drawing: Drawing, k: int) -> Floats:
        """[questions, orders, features]"""
        key = drawing, k
        if key not in self._features:
            self._features[key] = np.array(
                [[play.features(k) for play in each] for each in self.plays[drawing]], dtype=float
            )
        return self._features[key]

    def outcomes(self, drawing: Drawing, k: int, budget: int) -> _Outcomes:
        """What every choice comes to after a probe of k samples, by itself for 0."""
        key = drawing, k, budget
        if key not in self._outcomes:
            found = np.array(
                [
                    [[play.outcome(choice, k, budget) for play in each] for each in self.plays[drawing]]
                    for choice in self.words
                ],
                dtype=float,
            )
            self._outcomes[key] = _Outcomes(found[..., 0], found[..., 1])
        return self._outcomes[key]

    def estimates(self, estimator: Estimator, drawing: Drawing) -> Floats:
        """Estimated pass@1, [questions, orders]"""
        seen = self.features(drawing, estimator.k)
        z = (seen - np.array(estimator.means)) / np.array(estimator.scales) @ np.array(estimator.weights)
        return np.asarray(1 / (1 + np.exp(-np.clip(z + estimator.offset, -30, 30))))


def fit(table: Table, budget: int, say: Callable[[str], None] = lambda line: None) -> Row:
    """What to do at one budget, with what it gives on questions set aside. Deterministic."""
    everything = np.arange(len(table.questions))
    parts = [(fitted, held) for fitted, held in _nested(table, budget)]
    right, tokens, fixed = (np.zeros(len(everything)) for _ in range(3))
    for fitted, held in parts:
        right[held], tokens[held] = _measured(table, fitted, budget, held)
        fixed[held] = _fixed(table, fitted, budget, held)
    final = _choose(table, budget, _probing(table, budget, everything), everything)
    gain = stats.paired_bootstrap(list(right), list(fixed))
    row = _row(table, final, budget)
    say(f"budget {budget}: {', '.join(cell.strategy for cell in row.cells)}")
    low, value, high = stats.bootstrap_mean(list(right))
    return replace(
        row,
        held_out=Span(low, value, high),
        held_out_tokens=round(float(tokens.mean()), 1),
        gain=Span(*gain),
        work=work(table, row),
    )


def work(table: Table, row: Row) -> Work:
    """What one question makes an engine do where `auto` goes by this row: mean over the questions, in every order."""
    k = row.estimator.k
    played = [play for each in table.plays[Drawing(row.greedy, row.temperature)] for play in each]
    chosen = [row.cell(row.estimator(play.features(k))).strategy for play in played]
    found = mean([play.work(word, k, row.budget) for play, word in zip(played, chosen, strict=True)])
    return Work.from_dict(found.as_dict())  # as it is written


def report(table: Table, drawing: Drawing, k: int) -> dict[str, Any]:
    """How well the first k samples tell the difficulty of questions set aside, against samples outside the probe.

    `spearman` in [-1, 1]; `bands` and `quintiles` count questions, a row per oracle bin from the hardest, a column per
    estimated one (equals share a quintile, so a row may be empty); `within` is the share estimated into the right band.
    """
    everything = np.arange(len(table.questions))
    orders = len(table.plays[drawing][0])
    estimated = np.zeros((len(everything), orders))
    for train, held in _folds(everything, FOLDS):
        estimated[held] = table.estimates(_estimator(table, drawing, k, train), drawing)[held]
    ranks: list[float] = []
    bands, fifths = np.zeros((3, 3)), np.zeros((5, 5))
    for order in range(orders):
        told = estimated[:, order]
        # What the probe itself has drawn would be told by the probe, difficulty or not.
        rest = [[s.right for s in each[order].samples[k:]] for each in table.plays[drawing]]
        oracle = [sum(marks) / len(marks) if marks else 0.0 for marks in rest]
        ranks.append(spearman(list(told), oracle))
        places = [[int(5 * (rank - 0.5) / len(oracle)) for rank in ranked(values)] for values in (oracle, list(told))]
        for mine, theirs, row, column in zip(oracle, told, *places, strict=True):
            bands[BANDS.index(band(mine)), BANDS.index(band(theirs))] += 1 / orders
            fifths[row, column] += 1 / orders
    return {
        "k": k,
        "temperature": drawing.temperature,
        "greedy": drawing.greedy,
        "questions": len(everything),
        "spearman": round(float(np.mean(ranks)), 3),
        "within": round(float(np.trace(bands) / bands.sum()), 3),
        "bands": np.round(bands, 1).tolist(),
        "quintiles": np.round(fifths, 1).tolist(),
    }


def confidence(questions: Sequence[Question], temperature: float, verifier: str) -> tuple[float, float, float] | None:
    """Weights of the confidence map of votes weighted by the verifier; None with too few questions."""
    votes = []
    for each in questions:
        samples = [*([each.greedy] if each.greedy is not None else []), *each.pools[temperature]]
        votes.append(
            abstain.votes(
                [abstain.Sample(s.group, s.right, s.scores.get(verifier, 0.0), s.logprob) for s in samples], each.id
            )
        )
    return abstain.fit(votes) if sum(map(bool, votes)) >= abstain.LEAST else None


# Inside --------------------------------------------------------------------------------------------------------------


def _folds(indices: NDArray[np.int64], count: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(the others, set aside), as even as can be. The questions stand in the order of their ids, which say nothing."""
    for fold in range(count):
        aside = np.arange(len(indices)) % count == fold
        yield indices[~aside], indices[aside]


def _nested(table: Table, budget: int) -> Iterator[tuple[_Fitted, NDArray[np.int64]]]:
    for train, held in _folds(np.arange(len(table.questions)), FOLDS):
        yield _choose(table, budget, _probing(table, budget, train), train), held


def _probing(table: Table, budget: int, indices: NDArray[np.int64]) -> Probing:
    """The one that is worth most where it was not fitted; the cheaper of equals."""
    tried = []
    price = _price(table, budget, indices)
    for probing in table.probings(budget, indices):
        right, tokens = [], []
        for train, held in _folds(indices, INNER):
            values = _measured(table, _choose(table, budget, probing, train), budget, held)
            right.append(values[0])
            tokens.append(values[1])
        spent = float(np.concatenate(tokens).mean())
        tried.append((float(np.concatenate(right).mean()) - price * spent, spent, probing))
    best = max(value for value, _, _ in tried)
    return min((tokens, probing) for value, tokens, probing in tried if value >= best - TIE)[1]


def _estimator(table: Table, drawing: Drawing, k: int, indices: NDArray[np.int64]) -> Estimator:
    seen = table.features(drawing, k)[indices]
    orders = len(seen[0])
    rows = seen.reshape(len(seen) * orders, -1)
    passed = np.repeat(table.passed(drawing)[indices], orders)
    return fit_difficulty(k, rows.tolist(), passed.tolist(), [1 / orders] * len(rows))


def _choose(table: Table, budget: int, probing: Probing, indices: NDArray[np.int64]) -> _Fitted:
    """The choice per bin, made on these questions."""
    estimator = _estimator(table, probing.drawing, probing.k, indices)
    told = table.estimates(estimator, probing.drawing)[indices]
    edges = quantiles(told.ravel().tolist(), probing.bins)
    outcomes = table.outcomes(probing.drawing, probing.k, budget)
    tokens = outcomes.tokens[:, indices]
    worth = outcomes.right[:, indices] - _price(table, budget, indices) * tokens
    reference = _best(worth.mean(axis=(1, 2)), tokens.mean(axis=(1, 2)))
    cells = []
    place = np.searchsorted(np.array(edges), told, side="right")
    for number in range(len(edges) + 1):
        mask = (place == number) / told.shape[1]
        weight = mask.sum()
        values = (worth * mask).sum(axis=(1, 2)) / weight
        price = (tokens * mask).sum(axis=(1, 2)) / weight
        lead = worth - worth[reference]
        apart = (lead * mask).sum(axis=2) - mask.sum(axis=1) * (values - values[reference])[:, None]
        error = np.sqrt((apart**2).sum(axis=1)) / weight
        better = np.flatnonzero(values - values[reference] > error)
        target = max([values[reference], *values[better]])
        # What is cheaper and no worse than the one for all difficulties needs no proof either.
        cells.append(_best(np.where(values >= target - TIE, target, -1.0), price))
    return _Fitted(probing, estimator, edges, tuple(cells), _fixed_choice(table, budget, indices))


def _best(values: Floats, price: Floats) -> int:
    """The cheapest of the best."""
    good = np.flatnonzero(values >= values.max() - TIE)
    return int(good[np.argmin(price[good])])


def _price(table: Table, budget: int, indices: NDArray[np.int64]) -> float:
    """Accuracy that a token has to buy: `RATE` of what the second half of the budget buys the best single strategy."""
    points = []
    for tokens in (budget, budget // 2):
        how, index = _fixed_choice(table, tokens, indices)
        outcomes = table.outcomes(how, 0, tokens)
        points.append([float(each[index, indices].mean()) for each in outcomes])
    (more, spent), (fewer, half) = points
    return RATE * max(0.0, more - fewer) / max(1.0, spent - half)


def _fixed_choice(table: Table, budget: int, indices: NDArray[np.int64]) -> tuple[Drawing, int]:
    """Drawing and index of the best single strategy, which needs no probe."""
    key = budget, indices.tobytes()
    if key not in table.singles:
        found = []
        for how in table.drawings:
            outcomes = table.outcomes(how, 0, budget)
            values, price = (each[:, indices].mean(axis=(1, 2)) for each in outcomes)
            index = _best(values, price)
            found.append((float(values[index]), -float(price[index]), how, index))
        table.singles[key] = max(found)[2:]
    return table.singles[key]


def _measured(table: Table, fitted: _Fitted, budget: int, indices: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Share right and tokens per question, over all orders."""
    probing = fitted.probing
    told = table.estimates(fitted.estimator, probing.drawing)[indices]
    place = np.searchsorted(np.array(fitted.edges), told, side="right")
    chosen = np.array(fitted.cells)[place]
    outcomes = table.outcomes(probing.drawing, probing.k, budget)
    rows, columns = indices[:, None], np.arange(told.shape[1])[None, :]
    return outcomes.right[chosen, rows, columns].mean(axis=1), outcomes.tokens[chosen, rows, columns].mean(axis=1)


def _fixed(table: Table, fitted: _Fitted, budget: int, indices: NDArray[np.int64]) -> Floats:
    drawing, index = fitted.fixed
    return np.asarray(table.outcomes(drawing, 0, budget).right[index, indices].mean(axis=1))


def _row(table: Table, fitted: _Fitted, budget: int) -> Row:
    """The row of what was fitted on all questions, without what is measured on questions set aside."""
    probing = fitted.probing
    told = table.estimates(fitted.estimator, probing.drawing)
    place = np.searchsorted(np.array(fitted.edges), told, side="right")
    outcomes = table.outcomes(probing.drawing, probing.k, budget)
    cells = [
        _cell(table.words[choice], outcomes, choice, (place == number) / told.shape[1])
        for number, choice in enumerate(fitted.cells)
    ]
    drawing, index = fitted.fixed
    alone = table.outcomes(drawing, 0, budget)
    whole = np.full(told.shape, 1 / told.shape[1])
    nothing = Span(0.0, 0.0, 0.0)
    return Row(
        budget,
        probing.drawing.temperature,
        probing.drawing.greedy,
        fitted.estimator,
        fitted.edges,
        tuple(cells),
        _cell(table.words[index], alone, index, whole),
        nothing,
        0.0,
        nothing,
    )


def _cell(strategy: str, outcomes: _Outcomes, choice: int, mask: Floats) -> Cell:
    count = float(mask.sum())
    right = (outcomes.right[choice] * mask).sum(axis=1)
    value = float(right.sum() / count)
    # Wilson's interval for a share of so many questions, which need not be whole ones.
    low, _, high = _wilson(value, count)
    tokens = float((outcomes.tokens[choice] * mask).sum() / count)
    return Cell(strategy, Span(low, round(value, 4), high), round(tokens, 1), round(count, 1))


def _wilson(share: float, n: float, z: float = 1.959964) -> Span:
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Span(round(max(0.0, middle - half), 4), share, round(min(1.0, middle + half), 4))
