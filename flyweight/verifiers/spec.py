"""Verifiers written as one word of a command line: `length:least=20:most=80`, `weighted:arithmetic=2:form=1`.

The form is that of `flyweight bench run --strategies`: a name, then settings behind colons. A colon followed by
anything but KEY= belongs to the value before it.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping

from flyweight import spelling
from flyweight.errors import ConfigError

__all__ = ["SETTING", "convert", "settings"]

SETTING = re.compile(f":(?={spelling.SETTING.pattern})")
"""The colon before a setting. Parentheses count for nothing here: a regular expression may leave them open."""


def settings(text: str) -> dict[str, object]:
    """`least=20:most=80` as a mapping. ConfigError for a part without "=" or a setting given twice."""
    found: dict[str, object] = {}
    for part in SETTING.split(text):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{part!r} is not a setting: write key=value, for example length:least=20")
        if key.strip() in found:
            raise ConfigError(f"{key.strip()} is given twice: {found[key.strip()]} and {value}")
        found[key.strip()] = value
    return found


def convert(what: str, factory: Callable[..., object], given: Mapping[str, object]) -> dict[str, object]:
    """The settings with those given as text turned into what the factory's signature says: numbers, true or false."""
    known = inspect.signature(factory, eval_str=True).parameters
    return {
        key: _converted(what, key, value, known[key].annotation) if isinstance(value, str) and key in known else value
        for key, value in given.items()
    }


def _converted(what: str, key: str, value: str, wanted: object) -> object:
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    if str in options:
        return value
    try:
        if bool in options and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if int in options:
            return int(value)
        if float in options:
            return float(value)
    except ValueError:
        pass
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    allowed = " or ".join(names[option] for option in options if isinstance(option, type) and option in names)
    if not allowed:
        return value
    raise ConfigError(f"{what}: {key}={value!r} is not allowed: {allowed}")
