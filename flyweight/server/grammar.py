"""JSON schemas as GBNF grammars: what the embedded engine can be held to while it writes.

A grammar permits a part of what its schema does: the properties named, in their order, and text without needless
space. A keyword that no grammar can keep is refused rather than left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flyweight.errors import ConfigError
from flyweight.verifiers.schema import fits

__all__ = ["ANY", "from_schema", "json_object", "one_of"]

MOST_RULES = 2000
MOST_REPEATS = 256
NOTES = {
    "$anchor", "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description", "examples",
    "format", "readOnly", "strict", "title", "writeOnly",
}  # fmt: skip
"""Keywords that tell people something, and forbid nothing."""
KNOWN = {
    "additionalProperties", "allOf", "anyOf", "const", "enum", "items", "maxItems", "maxLength", "minItems",
    "minLength", "oneOf", "prefixItems", "properties", "$ref", "required", "type",
}  # fmt: skip
WHOLE = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
"""Keywords that say by themselves what is written; what others beside them forbid, no grammar can add."""
TYPED = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "string": ("minLength", "maxLength"),
}
"""Keywords that bind values of one type alone: where no type is named, it is that one that is written."""
BASICS = r"""
gap ::= (" " | "\n" [ \t]{0,16})?
char ::= [^"\\\x00-\x1f\x7f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})
string ::= "\"" char* "\""
digits ::= [0-9]{1,15}
integer ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= integer ("." digits)? ([eE] [-+]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
member ::= string ":" gap value
object ::= "{" gap (member ("," gap member)*)? gap "}"
array ::= "[" gap (value ("," gap value)*)? gap "]"
value ::= object | array | string | number | boolean | null
"""
ANY = f"root ::= value\n{BASICS}"
"""Any JSON value."""
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")


def json_object() -> str:
    """The grammar of any JSON object."""
    return f"root ::= object\n{BASICS}"


@contextmanager
def _following() -> Iterator[None]:
    try:
        yield
    except RecursionError:
        raise ConfigError("the JSON schema's references lead on and on; write out some of them") from None


@_following()
def from_schema(schema: Any) -> str:
    """The grammar of JSON that the schema accepts, which `fits` has read.

    ConfigError for a schema that no grammar can keep.
    """
    writer = _Writer(schema)
    return writer.grammar(writer.rule(schema, "the schema"))


@_following()
def one_of(calls: list[tuple[str, Any]], *, opening: str, closing: str, several: bool) -> str:
    """The grammar of a call of one of the functions (name, schema of its arguments) between two texts; or of more."""
    writer = _Writer(None)
    names = []
    for name, schema in calls:
        writer.top = schema
        arguments = writer.rule(schema or {"type": "object"}, f"the parameters of {name}")
        start, middle, end = opening + '{"name": ' + json.dumps(name) + ', "arguments": ', arguments, "}" + closing
        names.append(writer.add(f"{literal(start)} {middle} {literal(end)}"))
    call = writer.add(" | ".join(names))
    more = f' ("\\n" {call}){{0,7}}' if several else ""
    return writer.grammar(f"{call}{more}")


def literal(text: str) -> str:
    """A text as GBNF writes it."""
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    )
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", escaped) + '"'


class _Writer:
    """Rules as they come up."""

    def __init__(self, top: Any) -> None:
        self.top = top
        """What `#` means."""
        self._rules: list[str] = []
        self._known: dict[tuple[int, str], str] = {}
        """Rules of referenced schemas, so that one may hold itself."""
        self._heads: set[tuple[int, str]] = set()
        """References being followed before anything is written: one of them again would never write anything."""

    def grammar(self, root: str) -> str:
        """All rules."""
        rules = "\n".join(self._rules)
        return f"root ::= {root}\n{rules}\n{BASICS}"

    def add(self, body: str, name: str = "") -> str:
        """A new rule's name."""
        if len(self._rules) >= MOST_RULES:
            raise ConfigError(f"the JSON schema is too large: its grammar has more than {MOST_RULES} rules")
        name = name or f"r{len(self._rules)}"
        self._rules.append(f"{name} ::= {body}")
        return name

    def rule(self, schema: Any, where: str) -> str:
        """An expression for what the schema accepts."""
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            raise ConfigError(f"{where} must be a JSON schema: an object, or true")
        for key in schema:
            if key not in KNOWN | NOTES:
                raise ConfigError(f"{where}: the keyword {key!r} cannot be kept while writing; leave it out")
        if word := next((key for key in WHOLE if key in schema), None):
            told = {"type"} if word in ("const", "enum") else set()
            if beside := sorted(schema.keys() & KNOWN - {word} - told):
                raise ConfigError(f"{where}: {beside[0]!r} beside {word!r} cannot be kept while writing; merge them")
        if "$ref" in schema:
            return self._reference(schema["$ref"], where)
        if word in ("const", "enum"):
            return self._values(schema, word, where)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                found = _list(schema[key], f"{where}: {key}")
                return self._any_of([self.rule(each, f"{where}: {key}") for each in found])
        if "allOf" in schema:
            found = _list(schema["allOf"], f"{where}: allOf")
            if len(found) > 1:
                raise ConfigError(f"{where}: allOf of several schemas cannot be kept while writing; merge them")
            return self.rule(found[0], where)
        implied = next((kind for kind, keys in TYPED.items() if any(key in schema for key in keys)), None)
        kind = schema.get("type", implied)
        if isinstance(kind, list):
            return self._any_of([self._typed(schema, each, where) for each in kind])
        return "value" if kind is None else self._typed(schema, kind, where)

    def _values(self, schema: dict[str, Any], word: str, where: str) -> str:
        """One of the values listed, as long as it is of the type."""
        listed = [schema[word]] if word == "const" else _list(schema[word], f"{where}: {word}")
        typed = fits(json.dumps({"type": schema["type"]} if "type" in schema else {}))
        if not (values := [value for value in listed if typed(value)]):
            raise ConfigError(f"{where}: {word} has no value of type {schema['type']!r}")
        return self._any_of([literal(_json(value)) for value in values])

    def _typed(self, schema: dict[str, Any], kind: Any, where: str) -> str:
        if kind not in TYPES:
            raise ConfigError(f"{where}: type {kind!r} is none of {', '.join(TYPES)}")
        if kind in ("object", "array"):
            heads, self._heads = self._heads, set()
            found = self._object(schema, where) if kind == "object" else self._array(schema, where)
            self._heads = heads
            return found
        if kind == "string" and ("minLength" in schema or "maxLength" in schema):
            return self.add(f'"\\"" char{_times(schema, "Length", where)} "\\""')
        return str(kind)

    def _object(self, schema: dict[str, Any], where: str) -> str:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        if not isinstance(properties, dict) or not isinstance(required, list):
            raise ConfigError(f"{where}: properties must be an object, required a list")
        for name in required:
            if name not in properties:
                raise ConfigError(f"{where}: required names {name!r}, which is not among the properties")
        others = schema.get("additionalProperties", True)
        if not properties:
            if others is False:
                return literal("{}")
            member = self.add(f'string ":" gap {self.rule(others, where)}')
            return self.add(f'"{{" gap ({member} ("," gap {member})*)? gap "}}"')
        # From the last property to the first: what may follow it, with a comma before it or as the first one.
        after, first = '""', '""'
        for name, inner in reversed(properties.items()):
            member = f'{literal(_json(name))} ":" gap {self.rule(inner, f"{where}: {name}")}'
            skip = name not in required
            first = self.add(f"{member} {after}" + (f" | {first}" if skip else ""))
            after = self.add(f'"," gap {member} {after}' + (f" | {after}" if skip else ""))
        return self.add(f'"{{" gap {first} gap "}}"')

    def _array(self, schema: dict[str, Any], where: str) -> str:
        fixed = _list(schema["prefixItems"], f"{where}: prefixItems") if "prefixItems" in schema else []
        if fixed:
            least, most = _range(schema, "Items", where)
            if not least <= len(fixed) <= (len(fixed) if most is None else most):
                raise ConfigError(f"{where}: prefixItems has {len(fixed)} schemas, which minItems or maxItems forbids")
            members = [self.rule(each, f"{where}: prefixItems") for each in fixed]
            return self.add('"[" gap ' + ' "," gap '.join(members) + ' gap "]"')
        item = self.add(self.rule(schema.get("items", True), f"{where}: items"))
        least, most = _range(schema, "Items", where)
        if most == 0:
            return literal("[]")
        rest = f"{{{max(0, least - 1)},{'' if most is None else most - 1}}}"
        some = f'{item} ("," gap {item}){rest}'
        return self.add(f'"[" gap {some} gap "]"' if least else f'"[" gap ({some})? gap "]"')

    def _any_of(self, options: list[str]) -> str:
        return self.add(" | ".join(options))

    def _reference(self, target: Any, where: str) -> str:
        """References lead within the document only."""
        if not isinstance(target, str) or not target.startswith("#"):
            raise ConfigError(f"{where}: $ref may only lead within the schema (#/$defs/NAME)")
        key = (id(self.top), target)
        if key in self._heads:
            raise ConfigError(f"{where}: $ref {target!r} leads back to itself")
        if key not in self._known:
            self._heads.add(key)
            found = self.top
            for step in target.removeprefix("#").split("/")[1:]:
                step = step.replace("~1", "/").replace("~0", "~")
                if not isinstance(found, dict) or step not in found:
                    raise ConfigError(f"{where}: $ref {target!r} leads nowhere")
                found = found[step]
            name = self._known[key] = f"ref{len(self._known)}"
            self.add(self.rule(found, f"{where}: {target}"), name)
            self._heads.discard(key)
        return self._known[key]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{where} must be a list that is not empty")
    return value


def _range(schema: dict[str, Any], what: str, where: str) -> tuple[int, int | None]:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}")
    for value in (least, 0 if most is None else most):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST_REPEATS:
            raise ConfigError(f"{where}: min{what} and max{what} must be whole numbers from 0 to {MOST_REPEATS}")
    if most is not None and most < least:
        raise ConfigError(f"{where}: max{what} is below min{what}")
    return least, most


def _times(schema: dict[str, Any], what: str, where: str) -> str:
    least, most = _range(schema, what, where)
    return f"{{{least},{'' if most is None else most}}}"
