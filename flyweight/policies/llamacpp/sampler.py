"""From a row of logits to a drawn token, its log-probability and its certainty.

One pass over the logits finds the largest of every block of 128; only blocks that reach within 25 nats of a row's
maximum (25·T above temperature 1) are looked at again. What is left out has a mass below V·e^-25, 2e-6 for a
vocabulary of 150k: far below float32 noise of the logits themselves. Every draw takes exactly one uniform number, which
the caller provides.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Drawn", "Rows"]

BLOCK = 128
REACH = 25.0
"""Nats below the maximum, at temperature 1 or less, beyond which a token is left out."""


class Drawn(NamedTuple):
    """A token and what the model thought of it."""

    token: int
    logprob: float
    """Under the model itself: temperature, nucleus and grammar don't change it."""
    certainty: float
    """KL(uniform || model) in nats."""


class Candidates(NamedTuple):
    """Tokens of a row that matter, in ascending order of id."""

    ids: NDArray[np.intp]
    logits: NDArray[np.float64]


class Rows:
    """The logits of one decode, float32 [rows, vocab], and what all rows need: maximum, block maxima, mean."""

    def __init__(self, logits: NDArray[np.float32]) -> None:
        rows, vocab = logits.shape
        self._logits = logits
        self._body = vocab // BLOCK * BLOCK
        blocks = logits[:, : self._body].reshape(rows, -1, BLOCK)
        self._blocks = blocks.max(axis=2)
        if self._body < vocab:
            tail = logits[:, self._body :].max(axis=1, keepdims=True)
            self._blocks = np.concatenate([self._blocks, tail], axis=1)
        self._peaks: list[float] = self._blocks.max(axis=1).tolist()
        # A matrix-vector product is the fastest way to sum rows.
        self._means: list[float] = (logits @ np.full(vocab, 1.0 / vocab, np.float32)).tolist()
        self._log_vocab = math.log(vocab)

    def candidates(self, row: int, floor: float) -> Candidates:
        """Tokens of a row with logits of at least `floor`."""
        hits = np.flatnonzero(self._blocks[row] >= floor)
        ids = (hits[:, None] * BLOCK + _OFFSETS).ravel()
        vocab = self._logits.shape[1]
        if ids.size and ids[-1] >= vocab:
            ids = ids[ids < vocab]
        values = self._logits[row, ids]
        keep = values >= floor
        return Candidates(ids[keep], values[keep].astype(np.float64))

    def peak(self, row: int) -> float:
        """The largest logit of a row."""
        return self._peaks[row]

    def is_finite(self, row: int) -> bool:
        """Whether a row holds no NaN and a finite maximum."""
        return math.isfinite(self._peaks[row])

    def log_total(self, row: int, candidates: Candidates | None = None) -> float:
        """Log of the sum of the exponentials of a row's logits."""
        peak = self._peaks[row]
        values = (candidates or self.candidates(row, peak - REACH)).logits
        return peak + math.log(float(np.exp(values - peak).sum()))

    def logprobs(self, row: int, tokens: list[int]) -> tuple[float, ...]:
        """Log-probability of the given tokens, <= 0."""
        total = self.log_total(row)
        return tuple(min(0.0, float(self._logits[row, token]) - total) for token in tokens)

    def draw(self, row: int, *, temperature: float, top_p: float, u: float, allowed: Candidates | None = None) -> Drawn:
        """Draw by inverting the cumulative distribution at `u` in [0, 1).

        Ids ascend in it; under a nucleus, probabilities descend. Temperature 0 takes the most likely token, the lowest
        id on ties. `allowed` restricts the choice (grammars).
        """
        peak = self._peaks[row]
        everything = self.candidates(row, peak - REACH * max(1.0, temperature))
        total = self.log_total(row, everything)
        ids, values = everything if allowed is None else allowed
        if temperature == 0.0 or ids.size == 1:
            at = int(values.argmax())
        else:
            weights = np.exp((values - values.max()) / temperature)
            order = None
            if top_p < 1.0:
                order = np.argsort(-weights, kind="stable")
                weights = weights[order]
            mass = weights.cumsum()
            if order is not None:
                # The smallest set that reaches top_p, the token that reaches it included.
                last = min(int(np.searchsorted(mass, top_p * mass[-1])), mass.size - 1)
                mass = mass[: last + 1]
            at = min(int(np.searchsorted(mass, u * mass[-1], side="right")), mass.size - 1)
            if order is not None:
                at = int(order[at])
        certainty = total - self._means[row] - self._log_vocab
        return Drawn(int(ids[at]), min(0.0, float(values[at]) - total), max(0.0, certainty))


_OFFSETS = np.arange(BLOCK)
