"""JSON schemas as grammars: what they permit, and what is refused."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import jsonschema_rs
import pytest

from flyweight.errors import ConfigError
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.protocols import Request, Response
from flyweight.server import grammar
from flyweight.testing import ToyPolicy
from flyweight.types import Finish, Message, Node, Sampling
from tests.server.kit import PERSON, running


def draw(policy: LlamaCpp, gbnf: str, n: int = 6) -> Sequence[str]:
    """Texts a random model writes under a grammar; those that came to an end."""
    root = Node(messages=(Message("user", "hi"),), key="root")
    for id in range(1, n + 1):
        policy.add(Request(id, root, Sampling(temperature=1.0, max_tokens=250, grammar=gbnf), id))
    done: list[Response] = []
    while len(done) < n:
        done += policy.step()
    assert not any(response.error for response in done), done
    return [response.text for response in done if response.finish is Finish.END]


SCHEMAS: list[Any] = [
    PERSON,
    True,
    {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 4},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}]},
    {"anyOf": [{"type": "null"}, {"const": 'x\ny"z\\'}]},
    {"type": "object", "additionalProperties": {"type": "boolean"}},
    {"type": "object", "additionalProperties": False},
    {"type": "string", "minLength": 2, "maxLength": 5},
    {"type": ["integer", "null"]},
    {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}, "c": {}}, "required": ["b"]},
    {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2}}, "$ref": "#/$defs/tree"},
    {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]},
    {"title": "t", "description": "d", "default": "a", "type": ["string", "null"], "enum": ["a", 5, None]},
    {"type": "integer", "const": 7},
    {"minLength": 3, "maxLength": 4},
    {"properties": {"a": {"type": "null"}}, "required": ["a"]},
    {"minItems": 2, "items": {"type": "null"}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_what_a_grammar_permits_its_schema_accepts(model: LlamaCpp, schema: Any) -> None:
    accepts = jsonschema_rs.validator_for(schema)
    for text in draw(model, grammar.from_schema(schema)):
        assert accepts.is_valid(json.loads(text)), text


def random_schema(rng: random.Random, depth: int) -> Any:
    kinds = ["integer", "boolean", "null", "enum"] + (["object", "array", "any"] if depth else [])
    kind = rng.choice(kinds)
    if kind == "enum":
        return {"enum": rng.sample([1, "two", None, [3], {"four": 4}, "ünï"], rng.randint(1, 4))}
    if kind == "any":
        return {"anyOf": [random_schema(rng, depth - 1) for _ in range(rng.randint(1, 3))]}
    if kind == "array":
        least = rng.randint(0, 2)
        return {"type": "array", "items": random_schema(rng, depth - 1), "minItems": least, "maxItems": least + 1}
    if kind == "object":
        names = rng.sample(["a", "b c", 'd"', "é", "e\\"], rng.randint(0, 4))
        required = [name for name in names if rng.random() < 0.5]
        return {"type": "object", "properties": {n: random_schema(rng, depth - 1) for n in names}, "required": required}
    return {"type": kind}


def test_random_schemas_are_kept(model: LlamaCpp) -> None:
    ended = 0
    for seed in range(25):
        schema = random_schema(random.Random(seed), 3)
        accepts = jsonschema_rs.validator_for(schema)
        for text in draw(model, grammar.from_schema(schema), 2):
            ended += 1
            assert accepts.is_valid(json.loads(text)), (schema, text)
    assert ended > 30


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "string", "pattern": "^a$"}, "pattern"),
        ({"type": "integer", "minimum": 3}, "minimum"),
        ({"type": "colour"}, "colour"),
        ({"$ref": "http://127.0.0.1:9/x"}, "within the schema"),
        ({"$ref": "#/$defs/none"}, "nowhere"),
        ({"$ref": "#"}, "itself"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "itself"),
        ({"enum": []}, "not empty"),
        ({"required": ["x"], "type": "object"}, "'x'"),
        ({"type": "array", "maxItems": 10**9}, "maxItems"),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "below"),
        ({"allOf": [{}, {}]}, "merge"),
        ({"anyOf": [{"type": "object", "properties": {"a": {}}}], "required": ["a"]}, "'required' beside 'anyOf'"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {}}, "type": "object"}, "'type' beside '\\$ref'"),
        ({"const": "a", "maxLength": 0}, "'maxLength' beside 'const'"),
        ({"enum": ["a"], "const": "b"}, "'enum' beside 'const'"),
        ({"allOf": [{}], "properties": {"a": {}}}, "'properties' beside 'allOf'"),
        ({"type": "string", "enum": [1]}, "no value of type"),
        ({"prefixItems": [{}], "minItems": 2}, "minItems"),
        (
            {"$ref": "#/$defs/0", "$defs": {**{str(i): {"$ref": f"#/$defs/{i + 1}"} for i in range(900)}, "900": {}}},
            "on and on",
        ),
        ({"type": "object", "properties": {str(i): {"type": "string"} for i in range(3000)}}, "too large"),
        (5, "JSON schema"),
    ],
    ids=str,
)
def test_what_no_grammar_can_keep_is_refused(schema: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        grammar.from_schema(schema)


WRONG: list[dict[str, Any]] = [
    {"type": "object", "properties": {"a": {}}, "required": [[1]]},
    {"type": []},
    {"type": "object", "properties": {"a": 5}},
    {"$ref": "http://127.0.0.1:9/x"},
    {"description": "x" * 70_000},
]


@pytest.mark.parametrize("schema", WRONG, ids=lambda schema: str(schema)[:40])
def test_a_schema_that_is_none_is_the_clients_mistake(schema: dict[str, Any]) -> None:
    policy = ToyPolicy()
    policy.grammars = True  # type: ignore[attr-defined]
    function = {"type": "function", "function": {"name": "f", "parameters": schema}}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with running(policy) as own:
        for body in ({"response_format": form}, {"tools": [function], "tool_choice": "required"}):
            refused = own.ask(body)
            assert refused.status_code == 400 and not own.log, refused.text
