"""Shares and intervals for people."""

from __future__ import annotations

from flyweight.stats import Interval

__all__ = ["interval", "share"]


def share(value: float) -> str:
    """In percent, with one digit."""
    return f"{100 * value:.1f} %"


def interval(value: Interval) -> str:
    """A share with its limits."""
    return f"{share(value.value)} ({100 * value.low:.0f}-{100 * value.high:.0f})"
