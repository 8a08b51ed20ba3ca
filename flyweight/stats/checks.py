"""What every estimate refuses: ConfigError, with the name of who refuses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flyweight.errors import ConfigError

__all__ = ["at_least_one", "known", "same_length"]


def same_length(name: str, a: Sequence[object], b: Sequence[object]) -> None:
    """Refuse records that cannot be of the same problems or samples."""
    if len(a) != len(b):
        raise ConfigError(f"{name}: {len(a)} and {len(b)} values; both must cover the same ones in the same order")


def at_least_one(name: str, value: int) -> None:
    """Refuse a count that asks for nothing; `name` says of what."""
    if value < 1:
        raise ConfigError(f"{name}={value}; need at least 1")


def known(name: str, what: str, values: Sequence[float]) -> None:
    """Refuse NaN; `what` is one of the values in words."""
    if any(map(math.isnan, values)):
        raise ConfigError(f"{name}: {what} is NaN")
