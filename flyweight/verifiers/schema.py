"""Whether an answer is a JSON value of a given shape."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from flyweight import textfile
from flyweight.answers import extract
from flyweight.errors import BackendError, ConfigError, unknown
from flyweight.types import Problem
from flyweight.verifiers.rules import Rule, matcher

__all__ = ["KEYWORDS", "Schema", "check_schema", "mismatch"]

KEYWORDS = (
    "type", "enum", "const", "properties", "required", "additionalProperties", "minProperties", "maxProperties",
    "items", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern", "minimum", "maximum",
    "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "anyOf", "allOf", "oneOf", "not",
)  # fmt: skip
"""What is checked, as JSON Schema 2020-12 defines it; patterns in the syntax of the verifier `regex`."""
SILENT = ("$schema", "$id", "$comment", "title", "description", "default", "examples", "format", "deprecated")
"""What says nothing about validity."""
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "number": (int, float), "integer": (int, float),
    "boolean": (bool,), "null": (type(None),),
}  # fmt: skip
MOST_DEPTH = 40

_Check = Callable[[Any, Any], bool]
"""(value, what the keyword says) -> whether it holds."""


class Schema(Rule):
    """1 where the text holds JSON that a schema accepts, else 0.

    The JSON is the whole text, else the last fenced block, else the last object in it. The schema is in `file`, or in
    the problem's meta (`schema`), and uses the vocabulary of JSON Schema for types, objects, arrays, strings, numbers,
    enum, const, anyOf, allOf, oneOf and not; references are not followed.

    Source: JSON Schema 2020-12; structured output as in Willard and Louf 2023 (2307.09702).
    """

    name = "schema"

    def __init__(self, *, file: str = "") -> None:
        """ConfigError for a file that is not JSON, or a schema with a keyword that is not checked."""
        self.schema = ""
        if file:
            try:
                found = json.loads(textfile.read(Path(file)))
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{file} is not JSON: {error}") from None
            check_schema(found)
            self.schema = json.dumps(found)

    def value(self, problem: Problem, text: str) -> float:
        """BackendError for a problem without a schema where no file gave one."""
        schema = json.loads(self.schema) if self.schema else problem.meta.get("schema")
        if schema is None:
            raise BackendError(f"the verifier schema needs one (schema:file=PATH), and problem {problem.id!r} has none")
        check_schema(schema)
        values = _values(text)
        return float(bool(values) and not mismatch(values[0], schema))


def check_schema(schema: object, depth: int = 0) -> None:
    """ConfigError unless the schema is an object (or true, false) whose keywords are all known."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping) or depth > MOST_DEPTH:
        raise ConfigError(f"a JSON schema is an object, nested {MOST_DEPTH} deep at most, not {type(schema).__name__}")
    for keyword, value in schema.items():
        if keyword in SILENT:
            continue
        if keyword not in KEYWORDS:
            raise unknown("keyword of a JSON schema", str(keyword), KEYWORDS)
        if not _SHAPES[keyword](value):
            raise ConfigError(f"{keyword} of a JSON schema: {json.dumps(value)[:80]} is not allowed")
        if keyword == "pattern":
            matcher(value)
        inner = value.values() if keyword == "properties" else value if keyword in _LISTS else ()
        for each in [value] if keyword in ("items", "additionalProperties", "not") else inner:
            check_schema(each, depth + 1)


def mismatch(value: object, schema: object) -> str:
    """Where and why the value does not fit the schema, or "" when it does."""
    try:
        return _mismatch(value, schema, "it")
    except RecursionError:
        return "it is nested too deep"


def _mismatch(value: object, schema: object, at: str) -> str:
    if not isinstance(schema, Mapping):
        return "" if schema else f"{at} is not allowed"
    for keyword, wanted in schema.items():
        if keyword in _CHECKS and not _CHECKS[keyword](value, wanted):
            return f"{at}: {keyword} is {json.dumps(wanted)}"
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        for name, each in value.items():
            inner = properties.get(name, schema.get("additionalProperties", True))
            if found := _mismatch(each, inner, f"{at}.{name}"):
                return found
    if isinstance(value, list) and "items" in schema:
        for i, each in enumerate(value):
            if found := _mismatch(each, schema["items"], f"{at}[{i}]"):
                return found
    fits = {name: [not _mismatch(value, each, at) for each in schema.get(name, ())] for name in _LISTS}
    if "anyOf" in schema and not any(fits["anyOf"]):
        return f"{at} fits none of anyOf"
    if not all(fits["allOf"]):
        return f"{at} does not fit all of allOf"
    if "oneOf" in schema and sum(fits["oneOf"]) != 1:
        return f"{at} fits {sum(fits['oneOf'])} of oneOf"
    if "not" in schema and not _mismatch(value, schema["not"], at):
        return f"{at} fits what it must not"
    return ""


def _type(value: Any, wanted: Any) -> bool:
    for name in wanted if isinstance(wanted, list) else [wanted]:
        right = isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
        if right and (name != "integer" or isinstance(value, int) or value.is_integer()):
            return True
    return False


def _same(value: object) -> str:
    """One spelling for equal JSON values; 1 and 1.0 are equal, 1 and true are not."""
    return json.dumps(json.loads(json.dumps(value), parse_float=_number), sort_keys=True)


def _number(text: str) -> float | int:
    number = float(text)
    return int(number) if number.is_integer() else number


def _sized(kind: type, most: bool) -> _Check:
    def check(value: Any, limit: Any) -> bool:
        if type(value) is not kind:
            return True
        size = len(value)  # type: ignore[arg-type]  # a str, list or dict
        return bool(size <= limit if most else size >= limit)

    return check


def _number_check(holds: Callable[[float, float], bool]) -> _Check:
    def check(value: Any, limit: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return holds(value, limit)

    return check


_CHECKS: dict[str, _Check] = {
    "type": _type,
    "enum": lambda value, wanted: _same(value) in {_same(each) for each in wanted},
    "const": lambda value, wanted: _same(value) == _same(wanted),
    "required": lambda value, names: not isinstance(value, dict) or set(names) <= set(value),
    "minProperties": _sized(dict, False),
    "maxProperties": _sized(dict, True),
    "minItems": _sized(list, False),
    "maxItems": _sized(list, True),
    "minLength": _sized(str, False),
    "maxLength": _sized(str, True),
    "uniqueItems": lambda value, wanted: (
        not wanted or not isinstance(value, list) or len(set(map(_same, value))) == len(value)
    ),
    "pattern": lambda value, wanted: not isinstance(value, str) or matcher(str(wanted))(value),
    "minimum": _number_check(lambda number, limit: number >= limit),
    "maximum": _number_check(lambda number, limit: number <= limit),
    "exclusiveMinimum": _number_check(lambda number, limit: number > limit),
    "exclusiveMaximum": _number_check(lambda number, limit: number < limit),
    "multipleOf": _number_check(lambda number, step: Fraction(str(number)) % Fraction(str(step)) == 0),
}


_LISTS = ("anyOf", "allOf", "oneOf")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_SHAPES: dict[str, Callable[[Any], bool]] = {
    "type": lambda value: all(name in TYPES for name in (value if isinstance(value, list) else [str(value)])),
    "enum": lambda value: isinstance(value, list),
    "const": lambda value: True,
    "properties": lambda value: isinstance(value, Mapping),
    "required": lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    "pattern": lambda value: isinstance(value, str) and bool(value),
    "uniqueItems": lambda value: isinstance(value, bool),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    **dict.fromkeys(("items", "additionalProperties", "not"), lambda value: isinstance(value, bool | Mapping)),
    **dict.fromkeys(_LISTS, lambda value: isinstance(value, list) and bool(value)),
    **dict.fromkeys([name for name in KEYWORDS if name.startswith(("min", "max", "exclusive"))], _is_number),
}
"""Keyword -> whether what a schema says for it has the right form."""


def _values(text: str) -> list[object]:
    """The JSON value that a text gives: the whole of it, else its last fenced block, else its last object."""
    whole = text.strip()
    for found in (whole, extract(text, "code") or "", extract(text, "json") or ""):
        try:
            return [json.loads(found, parse_constant=_refuse)]
        except (ValueError, RecursionError):
            continue
    return []


def _refuse(constant: str) -> object:
    raise ValueError(constant)
