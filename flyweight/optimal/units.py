"""Amounts as people write them: "2GB", "500 MB", "10s", "2min", "1k"."""

from __future__ import annotations

import math
import re

from flyweight.errors import ConfigError

__all__ = ["amount", "bytes_of", "count", "dollars", "duration", "seconds_of", "size", "tick"]

BYTES = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
SECONDS = {"ms": 1e-3, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}
TICKS = ((1e-3, 0.0985), (0.1, 99.85), (1.0, 598.5), (60.0, 5340.0), (360.0, math.inf))
"""Seconds of the last digit that `duration` writes, below these: rounded up they are still written so."""
COUNTS = {"": 1, "k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
WHOLE = "(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9][0-9_]*)"


def amount(text: str, units: dict[str, float], what: str, example: str) -> float:
    """The number that `text` writes, in the smallest unit; a finite one above 0. ConfigError for anything else.

    Commas stand before groups of three digits: elsewhere one is a decimal comma, and is refused.
    """
    match = re.fullmatch(rf"\s*({WHOLE}(?:\.[0-9]*)?|\.[0-9]+)\s*([a-zA-Z]*)\s*", text)
    unit = match[2].lower() if match else ""
    if match is None or unit not in units:
        allowed = ", ".join(name for name in units if name)
        point = "; the decimal sign is a point" if "," in text else ""
        raise ConfigError(
            f"{what} {text!r} is not understood: write a number and one of {allowed}, such as {example}{point}"
        )
    value = float(re.sub("[_,]", "", match[1])) * units[unit]
    if not 0 < value < math.inf:
        raise ConfigError(f"{what} {text!r} is not allowed: more than 0")
    return value


def bytes_of(text: str, what: str = "--memory") -> float:
    """Bytes: "2GB" is 2 x 10^9, "2GiB" 2 x 2^30."""
    return amount(text, BYTES, what, "2GB or 500MB")


def seconds_of(text: str, what: str = "--latency") -> float:
    """Seconds: "10s", "2min", "500ms"; a bare number is seconds."""
    return amount(text, {"": 1, **SECONDS}, what, "10s or 2min")


def count(text: str, what: str) -> float:
    """A count: "1k" is 1,000, "5M" 5 x 10^6."""
    return amount(text, COUNTS, what, "20k or 5M")


def size(value: float) -> str:
    """Bytes for people."""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.0f} MB"


def duration(value: float) -> str:
    """Seconds for people."""
    if value < 99.95:
        return f"{value:.1f} s" if value >= 0.0995 else f"{1e3 * value:.0f} ms"
    if value < 599.5:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def tick(value: float) -> float:
    """Seconds of the last digit with which `duration` writes a value of that size."""
    return next(step for step, limit in TICKS if value < limit)


def dollars(value: float) -> str:
    """A price for people, to two significant digits."""
    if value >= 100:
        return f"${value:,.0f}"
    digits = 2 if value >= 1 or value <= 0 else 1 - math.floor(math.log10(value))
    return f"${value:.{digits}f}"
