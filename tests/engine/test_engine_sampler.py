"""Drawing from rows of logits, against the textbook computation in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from flyweight.policies.llamacpp.sampler import Candidates, Rows, Scratch

VOCAB = 20_003  # not a multiple of 8 or 128


def logits(seed: int, rows: int = 6) -> NDArray[np.float32]:
    """Peaked rows and flat ones, as models make them."""
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((rows, VOCAB)) * np.linspace(0.5, 3.5, rows)[:, None]
    table[:, rng.integers(0, VOCAB, 20)] += 9.0
    return table.astype(np.float32)


def log_softmax(row: NDArray[np.float32], temperature: float = 1.0) -> NDArray[np.float64]:
    scaled = row.astype(np.float64) / temperature
    return np.asarray(scaled - scaled.max() - math.log(np.exp(scaled - scaled.max()).sum()))


def textbook(
    row: NDArray[np.float32], temperature: float, top_p: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Ids in the order of the draw and the upper edges of their intervals in [0, 1]."""
    p = np.exp(log_softmax(row, temperature))
    order = np.arange(p.size)
    if top_p < 1:
        order = np.argsort(-p, kind="stable")
        order = order[: int(np.searchsorted(p[order].cumsum(), top_p)) + 1]
    edges = p[order].cumsum()
    return order, np.asarray(edges / edges[-1])


@pytest.mark.parametrize("temperature", [0.3, 0.8, 1.0, 2.0])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 0.01])
def test_draws_invert_the_cumulative_distribution(temperature: float, top_p: float) -> None:
    table = logits(1)
    rows = Rows(table, Scratch(VOCAB))
    for row in range(len(table)):
        order, edges = textbook(table[row], temperature, top_p)
        for u in (0.0, 0.1, 0.4, 0.77, 0.999, 1 - 1e-12):
            token = rows.draw(row, temperature=temperature, top_p=top_p, u=u).token
            at = int(np.flatnonzero(order == token)[0])
            lower = edges[at - 1] if at else 0.0
            # float32 sums: an edge may lie a few 1e-6 from where float64 puts it, and the nucleus of a flat row may
            # hold one token of weight 2e-5 more or less
            assert lower - 4e-5 <= u <= edges[at] + 4e-5


def test_logprob_and_certainty_are_the_models_own() -> None:
    table = logits(2)
    rows = Rows(table, Scratch(VOCAB))
    for row in range(len(table)):
        exact = log_softmax(table[row])
        for temperature in (0.0, 0.5, 1.5):
            drawn = rows.draw(row, temperature=temperature, top_p=0.9, u=0.5)
            assert drawn.logprob == pytest.approx(exact[drawn.token], abs=1e-5)
            assert drawn.certainty == pytest.approx(-exact.mean() - math.log(VOCAB), abs=1e-4)
        assert rows.logprobs(row, [5, 7]) == pytest.approx((exact[5], exact[7]), abs=1e-5)


def test_temperature_zero_takes_the_lowest_of_equals() -> None:
    table = np.zeros((2, VOCAB), np.float32)
    table[1, [300, 9000]] = 4.0
    rows = Rows(table, Scratch(VOCAB))
    assert [rows.draw(r, temperature=0.0, top_p=1.0, u=0.9).token for r in (0, 1)] == [0, 300]


def test_large_logits_neither_overflow_nor_vanish() -> None:
    for offset in (-500.0, 500.0):
        table = logits(3) + np.float32(offset)
        rows = Rows(table, Scratch(VOCAB))
        for row in range(len(table)):
            exact = log_softmax(table[row])
            drawn = rows.draw(row, temperature=1.0, top_p=1.0, u=0.3)
            assert drawn.logprob == pytest.approx(exact[drawn.token], abs=1e-4)


def test_not_a_number_is_noticed() -> None:
    table = logits(4)
    table[2, 77] = np.nan
    rows = Rows(table, Scratch(VOCAB))
    assert [rows.is_finite(row) for row in range(4)] == [True, True, False, True]


def test_a_restricted_draw_renormalises_but_reports_the_models_logprob() -> None:
    table = logits(5)
    rows = Rows(table, Scratch(VOCAB))
    ids = np.array([3, 8, 500])
    allowed = Candidates(ids, table[0, ids].astype(np.float64))
    exact = log_softmax(table[0])
    p = np.exp(exact[ids]) / np.exp(exact[ids]).sum()
    for u in (0.01, 0.5, 0.99):
        drawn = rows.draw(0, temperature=1.0, top_p=1.0, u=u, allowed=allowed)
        assert drawn.token == ids[np.searchsorted(p.cumsum(), u, side="right")]
        assert drawn.logprob == pytest.approx(exact[drawn.token], abs=1e-5)


def test_a_draw_depends_on_its_own_row_only() -> None:
    table = logits(6)
    together = Rows(table, Scratch(VOCAB))
    for row in range(len(table)):
        alone = Rows(table[row : row + 1], Scratch(VOCAB))
        for temperature in (0.7, 1.3):
            a = together.draw(row, temperature=temperature, top_p=1.0, u=0.6)
            b = alone.draw(0, temperature=temperature, top_p=1.0, u=0.6)
            assert a == b


def test_the_likeliest_tokens_are_those_of_a_full_sort() -> None:
    logits = np.round(np.random.default_rng(3).normal(size=(2, 1000)), 1).astype(np.float32)  # with ties
    rows = Rows(logits, Scratch(1000))
    for row in range(2):
        for count in (1, 5, 20):
            wanted = sorted(range(1000), key=lambda token, row=row: (-logits[row, token], token))[:count]  # type: ignore[misc]
            found = rows.likeliest(row, count)
            assert [token for token, _ in found] == wanted
            total = math.log(np.exp(logits[row].astype(np.float64)).sum())
            assert all(math.isclose(lp, logits[row, token] - total, abs_tol=1e-4) for token, lp in found)
