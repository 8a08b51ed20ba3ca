"""From a row of logits to a drawn token, its log-probability and its certainty.

Normalisation is exact: an exponential of every logit, in float32, in a buffer that stays in the CPU's cache. Drawing
looks at few tokens where few matter: those within 22·T nats of the row's maximum at temperature T. What that leaves out
weighs less than V·e^-22 = 4e-5 of the tempered distribution if a vocabulary of 150k lay just below the line; on rows of
a real model at most 5e-6. Where many tokens matter (T about 1 and above) all of them are drawn from. Every draw takes
exactly one uniform number, which the caller provides.

Where the engine's kernels run, they draw whatever needs neither a nucleus nor a grammar, from all tokens at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from flyweight.policies.llamacpp.kernels import Kernels

__all__ = ["REACH", "Candidates", "Drawn", "Rows", "Scratch", "Wanted"]

REACH = 22.0
"""Tempered nats below the maximum beyond which a token is never drawn."""
SAFE = 60.0
"""Logits up to here can be exponentiated in float32 as they are."""
BLOCK = 128
_EIGHT = np.arange(8)


class Drawn(NamedTuple):
    """A token and what the model thought of it."""

    token: int
    logprob: float
    """Under the model itself: temperature, nucleus and grammar don't change it."""
    certainty: float
    """KL(uniform || model) in nats."""


class Wanted(NamedTuple):
    """A draw from one of the rows."""

    row: int
    temperature: float
    top_p: float
    u: float
    """In [0, 1): the only randomness."""


class Candidates(NamedTuple):
    """Tokens of a row that matter, in ascending order of id."""

    ids: NDArray[np.intp]
    logits: NDArray[np.float64]


class Scratch:
    """Buffers of one row, kept from decode to decode."""

    def __init__(self, vocab: int) -> None:
        self.exponentials = np.empty(vocab, np.float32)
        # Padded with False to whole machine words, so that eight comparisons can be looked at together.
        self.hits = np.zeros(-(-vocab // 8) * 8, np.bool_)
        self.words = self.hits.view(np.uint64)


class Rows:
    """The logits of one decode, float32 [rows, vocab]."""

    def __init__(
        self, logits: NDArray[np.float32], scratch: Scratch, *, kernels: Kernels | None = None, threads: int = 1
    ) -> None:
        self._logits = logits
        self._scratch = scratch
        self._kernels = kernels
        self._threads = threads
        self._log_vocab = math.log(logits.shape[1])
        self._peaks: list[float] = []
        self._totals: dict[int, float] = {}
        self._exponentiated: tuple[int, float] | None = None
        """Row and temperature whose exponentials the scratch buffer holds."""

    def draw_all(self, wanted: Sequence[Wanted]) -> list[Drawn]:
        """The draws, in order. Rows must ascend; what comes of one that is not finite means nothing."""
        if self._kernels is None or any(draw.top_p < 1.0 for draw in wanted):
            return [
                self.draw(row, temperature=t, top_p=top_p, u=u) if self.is_finite(row) else Drawn(0, 0.0, 0.0)
                for row, t, top_p, u in wanted
            ]
        counts = [0] * len(self._logits)
        for draw in wanted:
            counts[draw.row] += 1
        done = self._kernels.draw(
            self._logits, counts, [draw.temperature for draw in wanted], [draw.u for draw in wanted], self._threads
        )
        self._peaks = done.peak.tolist()
        self._totals = dict(enumerate(done.log_total.tolist()))
        certainty = np.maximum(0.0, done.log_total - done.mean - self._log_vocab).tolist()
        return [
            Drawn(token, min(0.0, logit - self._totals[draw.row]), certainty[draw.row])
            for draw, token, logit in zip(wanted, done.token.tolist(), done.logit.tolist(), strict=True)
        ]

    def peak(self, row: int) -> float:
        """The largest logit of a row."""
        if not self._peaks:
            if self._kernels is not None:
                self.draw_all(())
            else:
                self._peaks = self._logits.max(axis=1).tolist()
        return self._peaks[row]

    def is_finite(self, row: int) -> bool:
        """Whether a row holds no NaN and a finite maximum."""
        return math.isfinite(self.peak(row))

    def candidates(self, row: int, floor: float) -> Candidates:
        """Tokens of a row with logits of at least `floor`."""
        few = self._few(row, floor)
        if few is not None:
            return few
        ids = np.flatnonzero(self._scratch.hits)
        return Candidates(ids, self._logits[row, ids].astype(np.float64))

    def _few(self, row: int, floor: float) -> Candidates | None:
        """The same where that is fast; None where so many tokens qualify that looking at all of them costs less."""
        logits, scratch = self._logits[row], self._scratch
        np.greater_equal(logits, floor, out=scratch.hits[: logits.size])
        words = np.flatnonzero(scratch.words)
        if words.size * 100 > logits.size:
            return None
        ids = (words[:, None] * 8 + _EIGHT).ravel()
        ids = ids[scratch.hits[ids]]
        return Candidates(ids, logits[ids].astype(np.float64))

    def _exponentials(self, row: int, temperature: float) -> tuple[NDArray[np.float32], float]:
        """exp(logit / temperature - shift) of a whole row, in the scratch buffer, and the shift."""
        buffer = self._scratch.exponentials
        shift = self.peak(row) / temperature
        if abs(shift) < SAFE:
            shift = 0.0
        if self._exponentiated != (row, temperature):
            logits = self._logits[row]
            if temperature != 1.0:
                logits = np.multiply(logits, np.float32(1.0 / temperature), out=buffer)
            if shift:
                logits = np.subtract(logits, np.float32(shift), out=buffer)
            np.exp(logits, out=buffer)
            self._exponentiated = (row, temperature)
        return buffer, shift

    def log_total(self, row: int) -> float:
        """Log of the sum of the exponentials of a row's logits."""
        total = self._totals.get(row)
        if total is None:
            buffer, shift = self._exponentials(row, 1.0)
            total = self._totals[row] = shift + math.log(float(np.einsum("v->", buffer)))
        return total

    def logprobs(self, row: int, tokens: list[int]) -> tuple[float, ...]:
        """Log-probability of the given tokens, <= 0."""
        total = self.log_total(row)
        return tuple(min(0.0, float(self._logits[row, token]) - total) for token in tokens)

    def likeliest(self, row: int, count: int) -> tuple[tuple[int, float], ...]:
        """The most likely tokens of a row with their log-probabilities, descending; the lowest id first on ties."""
        logits = self._logits[row]
        floor = np.partition(logits, logits.size - min(count, logits.size))[logits.size - min(count, logits.size)]
        ids = np.flatnonzero(logits >= floor)
        ids = ids[np.argsort(-logits[ids], kind="stable")][:count]
        return tuple(zip(ids.tolist(), self.logprobs(row, ids.tolist()), strict=True))

    def draw(self, row: int, *, temperature: float, top_p: float, u: float, allowed: Candidates | None = None) -> Drawn:
        """Draw by inverting the cumulative distribution at `u` in [0, 1).

        Ids ascend in it; under a nucleus, probabilities descend. Temperature 0 takes the most likely token, the lowest
        id on ties. `allowed` restricts the choice (grammars).
        """
        total = self.log_total(row)
        if allowed is not None:
            token = _pick(_nucleus(allowed, temperature, top_p), temperature, u)
        elif temperature == 0.0:
            token = int(self._logits[row].argmax())
        elif top_p < 1.0:
            token = _pick(self._nucleus(row, temperature, top_p), temperature, u)
        elif (few := self._few(row, self.peak(row) - REACH * temperature)) is not None:
            token = _pick(few, temperature, u)
        else:
            token = self._pick_any(row, temperature, u)
        mean = float(np.einsum("v->", self._logits[row])) / self._logits.shape[1]
        certainty = total - mean - self._log_vocab
        return Drawn(token, min(0.0, float(self._logits[row, token]) - total), max(0.0, certainty))

    def _nucleus(self, row: int, temperature: float, top_p: float) -> Candidates:
        """The nucleus of a row, most likely first; as few tokens as possible are sorted for it."""
        buffer, shift = self._exponentials(row, temperature)
        everything = float(np.einsum("v->", buffer))
        for reach in (4.0, 8.0, 14.0, REACH):
            some = self.candidates(row, self.peak(row) - reach * temperature)
            share = float(np.exp(some.logits / temperature - shift).sum()) / everything
            if share > top_p + 1e-5:
                break
        return _nucleus(some, temperature, min(1.0, top_p / share))

    def _pick_any(self, row: int, temperature: float, u: float) -> int:
        """A token of the whole vocabulary: first the block of 128, then the token in it."""
        buffer, _ = self._exponentials(row, temperature)
        body = buffer.size // BLOCK * BLOCK
        blocks = np.einsum("bv->b", buffer[:body].reshape(-1, BLOCK)).astype(np.float64)
        mass = np.append(blocks, float(buffer[body:].sum())).cumsum()
        wanted = u * mass[-1]
        block = min(int(mass.searchsorted(wanted, side="right")), mass.size - 1)
        within = buffer[block * BLOCK : (block + 1) * BLOCK].astype(np.float64).cumsum()
        before = mass[block - 1] if block else 0.0
        return block * BLOCK + min(int(within.searchsorted(wanted - before, side="right")), within.size - 1)


def _nucleus(candidates: Candidates, temperature: float, top_p: float) -> Candidates:
    """The smallest set of candidates with at least `top_p` of their mass, most likely first; all of them at 1."""
    if top_p >= 1.0 or temperature == 0.0:
        return candidates
    ids, values = candidates
    order = np.argsort(-values, kind="stable")
    mass = np.exp((values[order] - values[order[0]]) / temperature).cumsum()
    order = order[: int(mass.searchsorted(top_p * mass[-1])) + 1]
    return Candidates(ids[order], values[order])


def _pick(candidates: Candidates, temperature: float, u: float) -> int:
    """The candidate at which the cumulative tempered distribution passes `u`."""
    ids, values = candidates
    if ids.size == 1:
        return int(ids[0])
    if temperature == 0.0:
        return int(ids[values.argmax()])
    mass = np.exp((values - values.max()) / temperature).cumsum()
    return int(ids[min(int(mass.searchsorted(u * mass[-1], side="right")), mass.size - 1)])
