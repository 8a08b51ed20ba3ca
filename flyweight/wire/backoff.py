"""How long to wait before another try, and how many tries there may be in all."""

from __future__ import annotations

import email.utils
import math
import random
import time

__all__ = ["Backoff", "retry_after"]

BASE = 2.0
"""Seconds within which the first retry comes; twice as many for each further one."""
CAP = 60.0
LONGEST_AFTER = 300.0
"""Seconds of a Retry-After that are waited for; a server that asks for more has given up on us."""
RATIO = 0.35
"""Retries there may be for every request."""
FREE = 32
"""Retries that are allowed before that counts."""
GOLDEN = (math.sqrt(5) - 1) / 2


class Backoff:
    """Waits with full jitter, and a budget of retries over all requests.

    The jitter is the golden-ratio sequence from a random start instead of independent draws: a hundred requests that
    failed together come back evenly spread, never in clumps.

    Source: Full jitter after Brooker 2015 (Exponential Backoff And Jitter); retry budgets after Google's SRE book.
    """

    def __init__(self) -> None:
        """Nothing has been tried yet."""
        self.calls = 0
        """First tries so far."""
        self.retries = 0
        self._position = random.random()

    def allowed(self) -> bool:
        """Whether another retry is within the budget; it is counted if it is."""
        if self.retries >= FREE + RATIO * self.calls:
            return False
        self.retries += 1
        return True

    def delay(self, attempt: int, after: float | None = None) -> float:
        """Seconds to wait after try number `attempt` (from 1) failed: never less than a server's `after`."""
        self._position = (self._position + GOLDEN) % 1.0
        jitter: float = min(CAP, BASE * 2 ** min(attempt - 1, 16)) * self._position
        return jitter if after is None else after + min(jitter, BASE)


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None where there is none that makes sense."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = email.utils.parsedate_to_datetime(value).timestamp()
        except (ValueError, TypeError, OverflowError):
            return None
        seconds = moment - (time.time() if now is None else now)
    if not math.isfinite(seconds):
        return None
    return max(0.0, seconds)
