"""Budgets for people who do not think in tokens, and the seconds they take here."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from flyweight import models
from flyweight.errors import FlyweightError, unknown

__all__ = ["QUALITIES", "Expected", "expected", "tokens_of"]

QUALITIES: Mapping[str, int] = {"fast": 1000, "balanced": 4000, "max": 16000}
"""Most tokens generated per question."""
ANSWER = 256
"""Tokens of one answer, where nothing is known of the questions."""
ROWS = 16
"""Answers drawn side by side, at most: `auto` draws no more of them."""
PER_SECOND = 100.0
"""Tokens, where nothing was measured: a 0.5B model on two cores."""


class Expected(NamedTuple):
    """What a question will take at most."""

    seconds: float
    basis: str
    """Where that comes from, for people."""


def tokens_of(quality: str) -> int:
    """The budget of a quality. ConfigError with the closest match for an unknown one."""
    if quality not in QUALITIES:
        raise unknown("quality", quality, QUALITIES)
    return QUALITIES[quality]


def expected(model: str, tokens: int) -> Expected:
    """Seconds a question takes that spends the whole budget, from this machine's measured speed where that is known.

    It is measured by `flyweight plan`; nothing is measured or loaded here.
    """
    rows = min(ROWS, max(1, tokens // ANSWER))
    with suppress(FlyweightError, ImportError):
        from flyweight.optimal import speed

        path = models.resolve(model)
        for form in speed.forms():
            if (found := speed.known(path, form)) is not None:
                return Expected(tokens / rows * found.step(rows, 1.5 * ANSWER), found.note)
    return Expected(tokens / PER_SECOND, f"assuming {PER_SECOND:.0f} tokens a second; flyweight plan measures it")
