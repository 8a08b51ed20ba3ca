"""What a text must satisfy before anything expensive reads it. Answers come from models: every one is hostile."""

from __future__ import annotations

import re

__all__ = ["MAX_ANSWER", "MAX_NESTING", "MAX_TEXT", "refusal", "worker_refusal"]

MAX_TEXT = 100_000
"""Characters of a solution that extraction reads, counted from its end, where the answer is."""
MAX_ANSWER = 2_000
"""Characters of an extracted answer that is still read as mathematics."""
MAX_NESTING = 50
MAX_SYMBOLIC = 600
"""Characters of an answer handed to symbolic comparison: parsing takes about 2 ms a token."""
MAX_FRACTIONS = 12

CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""NUL, escape codes, direction overrides and lone surrogates: what a reader sees is not what is there."""

SLOW: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("an integral", re.compile(r"\\i{1,3}nt(?![a-z])|\\oint")),
    ("a limit", re.compile(r"\\lim(?![a-z])")),
    ("an infinite sum or product", re.compile(r"\\(?:sum|prod)(?![a-z])(?=.{0,100}\\infty)")),
    ("a long sum or product", re.compile(r"\\(?:sum|prod)(?![a-z])(?=.{0,100}[0-9]{3})")),
    ("a factorial", re.compile(r"[0-9]{3}!|!!|[)}\]]!|\\(?:Gamma|binom)(?![a-z])")),
    ("a power of a matrix", re.compile(r"matrix\}\s{0,3}(?:\\right\s{0,3})?[)\]]?\s{0,3}\^")),
    ("a huge exponent", re.compile(r"\^\s{0,3}\{?\s{0,3}-?[0-9]{3}")),
    (
        "a power tower",
        re.compile(r"\^\s{0,3}\{?\s{0,3}\(?[^{}()^+=,]{0,20}\^|\^\{[^{}]{0,40}\{[^{}]{0,40}\}?\^"),
    ),
    ("code", re.compile(r"__|lambda|import|eval|exec|\bdef\b|[\w\]]\.[A-Za-z]")),
    (
        "markup",
        re.compile(r"</?[A-Za-z]{1,20}[\s>/]|\\(?:input|include|write|def|newcommand|href|url)(?![a-z])"),
    ),
)


def nesting(text: str) -> int:
    """Deepest level of brackets of any sort."""
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth = max(0, depth - 1)
    return deepest


def refusal(answer: str) -> str:
    """Why this answer is not read as mathematics at all, or "" when it may be."""
    if len(answer) > MAX_ANSWER:
        return f"answer longer than {MAX_ANSWER} characters"
    if CONTROL.search(answer):
        return "control characters, direction overrides or lone surrogates in the answer"
    if nesting(answer) > MAX_NESTING:
        return f"brackets nested deeper than {MAX_NESTING}"
    return ""


def worker_refusal(answer: str) -> str:
    """Why this answer is not worth a symbolic comparison, or "" when it may be sent to the worker."""
    if len(answer) > MAX_SYMBOLIC:
        return f"longer than {MAX_SYMBOLIC} characters, too long for symbolic comparison"
    if answer.count("\\frac") > MAX_FRACTIONS:
        return f"more than {MAX_FRACTIONS} fractions are not compared symbolically"
    for what, pattern in SLOW:
        if pattern.search(answer):
            return f"{what} is not compared symbolically"
    return ""
