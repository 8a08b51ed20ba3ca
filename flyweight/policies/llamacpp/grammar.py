"""GBNF constraints through llama.cpp's grammar sampler, applied to the few candidate tokens that matter."""

from __future__ import annotations

import ctypes
from typing import Any, cast

import llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from flyweight.errors import BackendError
from flyweight.policies.llamacpp.context import Model, log_errors
from flyweight.policies.llamacpp.sampler import REACH, Candidates, Rows

__all__ = ["Grammar"]

LONGEST = 1 << 16
"""Characters of a grammar we are willing to parse."""
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Grammar:
    """The state of one text's parse."""

    def __init__(self, model: Model, gbnf: str) -> None:
        """Parse a grammar whose start symbol is `root`; one that does not parse is a BackendError."""
        if len(gbnf) > LONGEST:
            raise BackendError(f"grammar of {len(gbnf)} characters; at most {LONGEST} are accepted")
        log_errors()
        self._sampler = llama.llama_sampler_init_grammar(model.vocab, gbnf.encode("utf-8", "replace"), b"root")
        if not self._sampler:
            raise BackendError(f"grammar does not parse: {log_errors() or 'is there a rule named root?'}")
        self._vocab = model.n_vocab

    def allowed(self, rows: Rows, row: int, temperature: float) -> Candidates:
        """Tokens the grammar permits next, all those within reach of the best of them; empty when it permits none."""
        peak = rows.peak(row)
        # At temperature 0 one nat is enough to see whether the favourite is permitted.
        reach = REACH * temperature or 1.0
        legal = self._legal(rows.candidates(row, peak - reach))
        if not legal.ids.size:
            legal = self._legal(rows.candidates(row, -np.inf))
        elif (best := float(legal.logits.max())) < peak:
            legal = self._legal(rows.candidates(row, best - reach))
        return legal

    def _legal(self, candidates: Candidates) -> Candidates:
        table = np.zeros(candidates.ids.size, _CANDIDATE)
        table["id"] = candidates.ids
        array = llama.llama_token_data_array(
            data=ctypes.cast(table.ctypes.data, ctypes.POINTER(llama.llama_token_data)),
            size=table.size,
            selected=-1,
            sorted=False,
        )
        llama.llama_sampler_apply(self._sampler, cast(Any, ctypes.byref(array)))
        legal: NDArray[np.bool_] = np.isfinite(table["logit"])
        return Candidates(candidates.ids[legal], candidates.logits[legal])

    def accept(self, token: int) -> None:
        """Advance by a token `allowed` has returned; any other would end the process."""
        llama.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        """Release the parser."""
        if self._sampler:
            llama.llama_sampler_free(self._sampler)
            self._sampler = cast(Any, None)
