"""Where the time of an engine goes."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Profile"]


class Profile(NamedTuple):
    """Where an engine's time has gone since it was made; seconds of wall time."""

    steps: int = 0
    """Decodes of one token for every row that was ready, at least one."""
    row_steps: int = 0
    """Rows of all these decodes: row_steps / steps / slots is the occupancy."""
    prefill_seconds: float = 0.0
    """In llama.cpp, computing paths."""
    decode_seconds: float = 0.0
    """In llama.cpp, in the decodes counted by `steps`."""
    sampling_seconds: float = 0.0
    """Drawing from their logits."""
    step_seconds: float = 0.0
    """The whole of `step`: beyond the three above, copies of KV and Python."""
    drafted: int = 0
    """Tokens computed because they might come next."""
    kept: int = 0
    """Those of them that did."""
