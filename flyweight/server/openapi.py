"""The interface as an OpenAPI document, made of the schemas requests are checked with."""

from __future__ import annotations

from typing import Any

from flyweight.server.schema import ChatRequest, CompletionRequest

__all__ = ["document"]

ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
REFUSED = "An error in OpenAI's shape."
POST_ERRORS = ("400", "401", "404", "405", "408", "413", "415", "421", "422", "429", "431", "500", "503", "504")
GET_ERRORS = ("400", "401", "404", "405", "421", "503")


def document(version: str) -> dict[str, Any]:
    """The whole document."""
    schemas: dict[str, Any] = {"Error": ERROR}
    for model in (ChatRequest, CompletionRequest):
        made = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= made.pop("$defs", {})
        schemas[model.__name__] = made
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Flyweight",
            "version": version,
            "description": "Searched answers, OpenAI's interface.",
        },
        "security": [{"key": []}],
        "paths": {
            "/v1/models": {"get": _get("Every model a client may name.")},
            "/v1/models/{model}": {"get": _get("One of them.", "model")},
            "/v1/chat/completions": {"post": _post("A chat completion, searched for.", "ChatRequest")},
            "/v1/completions": {"post": _post("A text completion, searched for.", "CompletionRequest")},
            "/runs": {"get": _get("Searches under way and lately ended.")},
            "/runs/{run}/events": {"get": _get("What happens in a search, as server-sent events.", "run")},
            "/health": {"get": {**_get("Whether the server takes requests."), "security": []}},
            "/metrics": {"get": _get("Figures for Prometheus.")},
        },
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
    }


def _get(summary: str, parameter: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"summary": summary, "responses": _responses(GET_ERRORS)}
    if parameter:
        found["parameters"] = [{"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}]
    return found


def _post(summary: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": _responses(POST_ERRORS),
    }


def _responses(errors: tuple[str, ...]) -> dict[str, Any]:
    refused = {
        "description": REFUSED,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    return {"200": {"description": "The answer."}, **dict.fromkeys(errors, refused)}
