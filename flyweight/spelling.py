"""What strategies and verifiers that are written as one word have in common: marks, parentheses, settings."""

from __future__ import annotations

import re

from flyweight.errors import ConfigError

__all__ = ["SETTING", "opened", "parts"]

MOST_DEPTH = 8
"""Of parentheses."""
SETTING = re.compile(r"[a-z_][a-z0-9_]{0,40}=")
"""How a setting begins: a colon that none follows belongs to the value before it."""


def parts(text: str, mark: str) -> list[str]:
    """What stands between the marks outside parentheses. ConfigError where these do not close."""
    found, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if not 0 <= depth <= MOST_DEPTH:
            break
        if char == mark and depth == 0:
            found.append("")
        else:
            found[-1] += char
    if depth:
        raise ConfigError(f"{text!r}: the parentheses do not close, or are nested deeper than {MOST_DEPTH}")
    return found


def opened(text: str) -> str:
    """`judge(criteria=writing)` as `judge:criteria=writing`; what stands in parentheses altogether without them.

    ConfigError where something follows the parenthesis.
    """
    name, opens, rest = text.strip().partition("(")
    if not opens or ":" in name:
        return text.strip()
    if not rest.endswith(")"):
        raise ConfigError(f"{text!r}: nothing may follow the parenthesis")
    return f"{name}:{rest[:-1]}" if name else rest[:-1]
