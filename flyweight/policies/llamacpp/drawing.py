"""What a decode computes ahead for its rows, and what it gives to each: a token, log-probabilities, or why neither."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flyweight.errors import BackendError
from flyweight.policies.llamacpp.row import Row
from flyweight.policies.llamacpp.sampler import Drawn, Rows, Wanted

__all__ = ["Outcome", "Place", "drafts", "draw"]

Outcome = Drawn | tuple[float, ...] | Exception
"""A token, the log-probabilities of choices, or the reason for neither."""
DRAFTS = {1: 3, 2: 1}
"""Tokens drafted for each row, by how many rows there are: four rows cost little more than one, eight do not."""


class Place(NamedTuple):
    """Where something is drawn from, and for whom."""

    row: Row
    at: int
    """Which of the decode's rows of logits."""
    ahead: int = 0
    """Drafted tokens before it."""


def drafts(rows: Sequence[Row], context: int) -> list[list[int]]:
    """For each row the same number of tokens that may follow its next one; none where that could not pay."""
    most = DRAFTS.get(len(rows), 0)
    if not most or any(row.twins or row.choices or row.grammar is not None for row in rows):
        return [[] for _ in rows]
    found = [row.draft(most, context) for row in rows]
    width = max(map(len, found))
    # A row that knows nothing computes along: streams of one length make one batch.
    return [(draft + [row.next_token] * width)[:width] for draft, row in zip(found, rows, strict=True)]


def draw(places: Sequence[Place], logits: Rows) -> list[Outcome]:
    """One outcome for each place; their logits must ascend."""
    wanted = [
        Wanted(at, row.request.sampling.temperature, row.request.sampling.top_p, row.uniform(ahead))
        for row, at, ahead in places
        if _plain(row)
    ]
    tokens = iter(logits.draw_all(wanted))
    drawn: list[Outcome] = []
    for row, at, _ in places:
        easy = next(tokens) if _plain(row) else None
        try:
            if not logits.is_finite(at):
                raise BackendError("the model returned logits that are not finite numbers")
            drawn.append(logits.logprobs(at, row.choices) if row.choices else easy or _legal(row, logits, at))
        except Exception as error:
            drawn.append(error)
    return drawn


def _plain(row: Row) -> bool:
    return row.grammar is None and not row.choices


def _legal(row: Row, logits: Rows, at: int) -> Drawn:
    """A token the row's grammar permits."""
    assert row.grammar is not None
    sampling = row.request.sampling
    allowed = row.grammar.allowed(logits, at, sampling.temperature)
    if not allowed.ids.size:
        raise BackendError("the grammar permits no token here")
    return logits.draw(at, temperature=sampling.temperature, top_p=sampling.top_p, u=row.uniform(), allowed=allowed)
