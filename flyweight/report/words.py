"""Numbers and names as people read them, the same in every format."""

from __future__ import annotations

import re

from flyweight.stats import Interval

__all__ = ["between", "bytes_", "count", "difference", "operations", "p_value", "plain", "points", "share", "shares"]


def plain(text: str) -> str:
    """The text on one line, every character that does not print as its escape."""
    shown = "".join(c if c.isprintable() else " " if c.isspace() else _escape(c) for c in text)
    return " ".join(shown.split())


def share(value: float) -> str:
    """A share in percent."""
    return f"{100 * value:.1f} %"


def between(value: Interval) -> str:
    """A share with its interval: "42.0 % (34.4–50.0)"."""
    return f"{share(value.value)} ({100 * value.low:.1f}–{100 * value.high:.1f})"


def shares(value: Interval | None) -> str:
    """The same; a dash for None."""
    return "–" if value is None else between(value)


def points(value: float) -> str:
    """A difference of shares in percentage points, without a sign of its own for what is not negative."""
    return f"{100 * value + 0.0:.1f}".replace("-", "−")


def difference(value: Interval) -> str:
    """A difference with its interval, signed: "+5.0 (−1.2 to +11.0)"."""
    low, middle, high = (_signed(100 * number) for number in value)
    return f"{middle} ({low} to {high})"


def p_value(p: float) -> str:
    """A p-value with two or three digits behind the point."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(value: float) -> str:
    """A mean count: whole numbers as such, others with a digit behind the point below 100."""
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.1f}"


def operations(value: float) -> str:
    """Floating-point operations: "1.23e12"."""
    return "0" if value == 0 else re.sub(r"e\+?(-?)0*(?=\d)", r"e\1", f"{value:.2e}")


def bytes_(value: int) -> str:
    """Bytes with a decimal unit."""
    size, units = float(value), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"


def _signed(value: float) -> str:
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
