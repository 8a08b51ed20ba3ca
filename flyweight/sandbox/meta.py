"""What the `meta` of a problem says about programs that answer it: `before`, `after`, `public` and `entry`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from flyweight import textfile
from flyweight.sandbox.tests import Stdin, Test, asserts, read_tests

__all__ = ["program", "public", "read_public"]


def program(meta: Mapping[str, object], code: str) -> str:
    """The code between the source that belongs `before` and `after` it."""
    before, after = (str(meta.get(key) or "") for key in ("before", "after"))
    return "\n".join(part for part in (before, code, after) if part)


def public(meta: Mapping[str, object]) -> list[Test]:
    """The tests that anybody may see: of `public`, its asserts and its objects of "stdin" and "expected".

    `entry` is what the asserts call `candidate`. ConfigError when they are no asserts.
    """
    given = meta.get("public")
    shown = [given] if isinstance(given, str) else given if isinstance(given, Sequence) else []
    pairs = [Stdin(str(row["stdin"]), str(row["expected"])) for row in shown if isinstance(row, Mapping)]
    lines = [str(row) for row in shown if not isinstance(row, Mapping)]
    return [*(asserts("\n".join(lines), entry=str(meta.get("entry") or "")) if lines else []), *pairs]


def read_public(path: Path) -> tuple[object, ...]:
    """What a file of tests, as of `read_tests`, is as the `public` of a problem; its errors."""
    tests = read_tests(path)
    pairs = tuple({"stdin": test.stdin, "expected": test.expected} for test in tests if isinstance(test, Stdin))
    return pairs or (textfile.read(path),)
