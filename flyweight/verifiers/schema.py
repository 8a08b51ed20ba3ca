"""Whether an answer is a JSON value of a given shape."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight import textfile
from flyweight.answers import extract
from flyweight.errors import BackendError, ConfigError
from flyweight.types import Problem
from flyweight.verifiers.rules import Rule

if TYPE_CHECKING:
    import jsonschema_rs

__all__ = ["Schema", "fits"]

DRAFT = "https://json-schema.org/draft/2020-12/schema"


class Schema(Rule):
    """1 where the text holds JSON that a schema accepts, else 0.

    The JSON is the whole text, else the last fenced block, else the last object in it. The schema is in `file`, or in
    the problem's meta (`schema`). References lead within it only: nothing is ever fetched.

    Source: JSON Schema 2020-12; structured output as in Willard and Louf 2023 (2307.09702).
    """

    name = "schema"

    def __init__(self, *, file: str = "") -> None:
        """ConfigError for a file that is no JSON schema, or one with a keyword that JSON Schema does not have."""
        self.schema = textfile.read(Path(file)) if file else ""
        if file:
            fits(self.schema)

    def value(self, problem: Problem, text: str) -> float:
        """BackendError for a problem without a schema where no file gave one."""
        given = problem.meta.get("schema")
        if not self.schema and given is None:
            raise BackendError(f"the verifier schema needs one (schema:file=PATH), and problem {problem.id!r} has none")
        accepted = fits(self.schema or json.dumps(given))
        for found in (text.strip(), extract(text, "code"), extract(text, "json")):
            try:
                value = json.loads(found or "", parse_constant=_refuse)
            except (ValueError, RecursionError):
                continue
            return float(accepted(value))
        return 0.0


@lru_cache(maxsize=256)
def fits(schema: str) -> Callable[[object], bool]:
    """Whether a JSON value fits the schema, which is given as JSON; in time linear in its strings.

    ConfigError for a schema that is none, whose patterns look around or back, or that refers to another document.
    """
    import jsonschema_rs

    try:
        found = json.loads(schema)
        validator = jsonschema_rs.Draft202012Validator(
            found, pattern_options=jsonschema_rs.RegexOptions(), validate_formats=True, offline=True
        )
        # The innermost is the keyword itself, the others what it stands in.
        if wrong := max(_strict().iter_errors(found), key=lambda error: len(error.instance_path), default=None):
            raise wrong
    except jsonschema_rs.ValidationError as error:
        where = "/".join(map(str, error.instance_path))
        raise ConfigError(f"the JSON schema{' at ' if where else ''}{where}: {error.message[:200]}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"the JSON schema cannot be read: {error}") from None

    def accepted(value: object) -> bool:
        try:
            return validator.is_valid(value)
        except ValueError:  # a lone surrogate, which JSON can spell and no other program reads
            return False

    return accepted


@cache
def _strict() -> jsonschema_rs.Draft202012Validator:
    """Accepts schemas without unknown keywords: with one mistyped, a schema would silently check less."""
    import jsonschema_rs

    # A "meta" of one's own stands in for the draft's wherever one schema holds another.
    schema = {"$id": "urn:strict", "$schema": DRAFT, "$dynamicAnchor": "meta", "$ref": DRAFT}
    return jsonschema_rs.Draft202012Validator({**schema, "unevaluatedProperties": False}, offline=True)


def _refuse(constant: str) -> object:
    raise ValueError(constant)
