"""What the `meta` of a problem says about programs that answer it: `before`, `after`, `public` and `entry`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flyweight.sandbox.tests import Test, asserts

__all__ = ["program", "public"]


def program(meta: Mapping[str, object], code: str) -> str:
    """The code between the source that belongs `before` and `after` it."""
    before, after = (str(meta.get(key) or "") for key in ("before", "after"))
    return "\n".join(part for part in (before, code, after) if part)


def public(meta: Mapping[str, object]) -> list[Test]:
    """The tests that anybody may see, of the asserts in `public`; none where there are none.

    `entry` is what they call `candidate`. ConfigError when they are no asserts.
    """
    given = meta.get("public")
    lines = [given] if isinstance(given, str) else given if isinstance(given, Sequence) else []
    return asserts("\n".join(map(str, lines)), entry=str(meta.get("entry") or "")) if lines else []
