"""Canonical keys: cheap, exact, no algebra system. Two answers with the same key are equal."""

from __future__ import annotations

import json

from flyweight.answers.forms import read
from flyweight.errors import unknown

__all__ = ["KINDS", "canonical", "check_kind"]

KINDS = ("choice", "code", "json", "json:FIELD", "math", "text")


def check_kind(kind: str) -> str:
    """The kind without its field; ConfigError for one that does not exist."""
    name, _, field = kind.partition(":")
    if f"{name}:FIELD" in KINDS and field:
        return name
    if field or name not in KINDS or kind.endswith(":"):
        raise unknown("answer kind", kind, KINDS)
    return name


def canonical(answer: str, kind: str = "math") -> str:
    """Key of an answer: equal keys mean equal answers; different keys may still be equal (see `compare`).

    math: numbers as exact fractions in lowest terms (1/2, 0.5, \\frac12 and 50% share "1/2"), names of assigned
    variables, units, currency, degrees and outer brackets dropped, expressions with sums and products sorted, sets
    and lists sorted, tuples and intervals in order, words case-folded. choice: the capital letter. json: keys sorted.
    json:FIELD: like math for a number, otherwise case-folded. text: case-folded, spaces collapsed. code: lines
    without trailing blanks. Raises ConfigError for an unknown kind.
    """
    name = check_kind(kind)
    if name == "math":
        return read(answer).key
    if name == "choice":
        return answer.strip(" ().:*\n").upper()
    if name == "code":
        return "\n".join(line.rstrip() for line in answer.strip().splitlines())
    if name == "json":
        parsed = load_json(answer)
        if isinstance(parsed, (dict, list)):
            return dump_json(parsed)
        if kind != "json":
            form = read(answer)
            return form.key if form.kind == "number" else " ".join(answer.split()).casefold()
        return answer.strip()
    return " ".join(answer.split()).casefold()


def load_json(text: str) -> object:
    """Parsed JSON, or None when it is not valid, nested too deeply, or holds NaN or infinities."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None


def dump_json(value: object) -> str:
    """One spelling for equal JSON values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _refuse(constant: str) -> object:
    raise ValueError(constant)
