"""Requests that are too large, malformed or hostile: a clear 4xx that names the field, nothing else."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest

from flyweight.server.limits import Limits, generations, parsed
from flyweight.strategies import names
from tests.server.kit import SUM, Running, running


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(limits={"header_seconds": 0.3, "body_seconds": 0.3}) as found:
        found.server.service = replace(found.server.service, context=4096)
        yield found


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
LONG_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps({"a": "x" * 70_000})}}

OVERSIZED: list[tuple[dict[str, Any], str]] = [
    ({"n": 10**9}, "n"),
    ({"n": 257}, "n"),
    ({"n": 2**70}, "n"),
    ({"max_tokens": 10**12}, "max_tokens"),
    ({"max_completion_tokens": 10**12}, "max_completion_tokens"),
    ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ({"stop": ["x"] * 17}, "stop"),
    ({"stop": "x" * 257}, "stop"),
    ({"messages": [{"role": "user", "content": "x"}] * 1025}, "messages"),
    ({"messages": [{"role": "user", "content": "x" * 200_000}]}, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 257}]}, "messages.0.content"),
    ({"tools": [TOOL] * 129}, "tools"),
    ({"tools": [{"type": "function", "function": {"name": "f", "description": "x" * 70_000}}]}, "messages"),
    ({"messages": [*SUM, {"role": "assistant", "tool_calls": [LONG_CALL]}]}, "messages"),
    ({"logit_bias": {str(i): 1.0 for i in range(1025)}}, "logit_bias"),
    ({"user": "x" * 513}, "user"),
    ({"model": "x" * 513}, "model"),
    ({"flyweight": {"strategy": "best_of_n", "n": 257}}, "flyweight.parameters"),
    ({"flyweight": {"strategy": "best_of_n", "n": 10**9}}, "flyweight"),
    ({"flyweight": {"strategy": "beam_search", "n": 4096}}, "flyweight.parameters"),
    ({"flyweight": {"strategy": "beam_search", "max_steps": 10**6}}, "flyweight"),
    ({"flyweight": {"strategy": "mcts", "branch": 64}}, "flyweight.parameters"),
    ({"flyweight": {"strategy": "lookahead_search", "k": 64}}, "flyweight.parameters"),
    ({"flyweight": {"strategy": "particle_gibbs", "n": 64, "iterations": 8}}, "flyweight.parameters"),
    ({"flyweight": {"strategy": "self_refine", "rounds": 999}}, "flyweight.parameters"),
    ({"flyweight": {"strategy": "self_consistency", "n": 64, "of": "best_of_n(n=64)"}}, "flyweight.parameters"),
    ({"flyweight": {"budget": 10**10}}, "flyweight.budget"),
    ({"flyweight": {"deadline": 10**6}}, "flyweight.deadline"),
    ({"flyweight": {"strategy": "x" * 513}}, "flyweight.strategy"),
    ({"flyweight": {"parameters": {str(i): 1 for i in range(33)}}}, "flyweight.parameters"),
    ({"model": "toy@best_of_n:n=300"}, "flyweight.parameters"),
    ({"model": "toy@" + "(" * 200}, "flyweight"),
]
NOT: dict[str, list[Any]] = {
    **{name: ["1", 1.5, [], True] for name in ("n", "seed", "max_tokens")},
    **{name: ["1", [], {}, -1, 1e308, 3] for name in ("temperature", "top_p")},
    "stream": ["yes", 1, []],
    "messages": [None, "hi", {}, []],
}
WRONG: list[tuple[dict[str, Any], str]] = [
    *(({name: value}, name) for name, values in NOT.items() for value in values),
    ({"messages": ["hi"]}, "messages.0"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "  "}]}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0"),
    ({"model": None}, "model"),
    ({"model": ""}, "model"),
    ({"top_p": 0}, "top_p"),
    ({"stop": [""]}, "stop.0"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"tool_choice": "sometimes"}, "tool_choice"),
    ({"response_format": {"type": "xml"}}, "response_format.type"),
    ({"response_format": "json"}, "response_format"),
    ({"stream_options": []}, "stream_options"),
    ({"flyweight": []}, "flyweight"),
    ({"flyweight": {"budget": "many"}}, "flyweight.budget"),
    ({"flyweight": {"confidence": 1.5}}, "flyweight.confidence"),
    ({"flyweight": {"parameters": {"n": [1]}}}, "flyweight.parameters"),
    ({"flyweight": {"strategy": "best_of_n", "n": [1]}}, "flyweight"),
]


@pytest.mark.parametrize(("body", "param"), OVERSIZED + WRONG, ids=[str(b)[:40] for b, _ in OVERSIZED + WRONG])
def test_what_is_too_much_or_wrong_is_refused_by_name(server: Running, body: dict[str, Any], param: str) -> None:
    before = server.server.engine.steps
    refused = server.ask(body)
    error = refused.json()["error"]
    assert refused.status_code == 400, refused.text[:300]
    assert (error["param"] or "").startswith(param.split(".")[0]) and error["message"]
    assert set(error) == {"message", "type", "param", "code"} and error["type"] == "invalid_request_error"
    assert server.server.engine.steps == before, "nothing reached the engine"


RAW = [
    b"",
    b"[]",
    b"null",
    b'"text"',
    b"{",
    b'{"model": "toy"',
    b'{"model": "toy", "messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"model": "toy", "n": NaN, "messages": []}',
    b'{"model": "toy", "temperature": Infinity, "messages": []}',
    b'{"model": "toy", "temperature": 1e999, "messages": []}',
    b'{"model": "toy", "temperature": -1e999, "messages": []}',
    b"\xff\xfe\x00",
    b"\x00" * 100,
    json.dumps(nested(40)).encode(),
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"[" * 100_000,
    json.dumps({"messages": [0] * 30_000}).encode(),
    b'{"a":[' + b"1," * 2_000_000 + b"1]}",
]


@pytest.mark.parametrize("body", RAW, ids=[str(body)[:30] for body in RAW])
def test_a_body_that_is_no_request_is_refused(server: Running, body: bytes) -> None:
    with nullcontext(server.client) as client:
        refused = client.post("/v1/chat/completions", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 400 and refused.json()["error"]["message"]
    assert "Traceback" not in refused.text and ".py" not in refused.text


def test_the_size_of_a_body_is_refused_before_it_is_read(server: Running) -> None:
    assert server.ask({"user": "x" * (5 << 20)}).status_code == 413
    with nullcontext(server.client) as client:
        pieces = (b"x" * 65536 for _ in range(100))
        chunked = client.post("/v1/completions", content=pieces, headers={"Content-Type": "application/json"})
    assert chunked.status_code == 413


def test_methods_types_and_paths_that_are_none(server: Running) -> None:
    with nullcontext(server.client) as client:
        for method in ("PUT", "DELETE", "PATCH", "HEAD", "TRACE", "BREW"):
            assert client.request(method, "/v1/chat/completions").status_code == 405
        assert client.get("/v1/chat/completions").headers["allow"] == "POST"
        assert client.request("OPTIONS", "/v1/models").status_code == 405
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"):
            plain = client.post("/v1/completions", content=b"{}", headers={"Content-Type": kind})
            assert plain.status_code == 415 and plain.json()["error"]["message"]
        for path in ("/", "/v1", "/v2/models", "/v1/chat", "/v1/chat/completions/x", "/%00", "/../etc/passwd"):
            found = client.get(path)
            assert found.status_code == 404 and found.json()["error"]["code"], path
        for path in ("/v1/models/", "/health/", "/metrics/"):
            assert client.get(path).status_code == 200, "a slash at the end changes nothing"
        assert client.get("/health?" + "x" * 3000).status_code == 414
        assert client.get("/health", headers={"X-Big": "x" * 20_000}).status_code in (400, 431)
        assert client.get("/health", headers={f"X-{i}": "x" for i in range(120)}).status_code == 431


def raw(server: Running, data: bytes, *, wait: float = 3.0) -> bytes:
    """What comes back on a bare socket until it is closed."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        connection.sendall(data)
        found = b""
        while part := connection.recv(65536):
            found += part
    return found


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x y\r\nConnection: close\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: gzip\r\n\r\nabc",
        b"GET /" + b"x" * 70_000,
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
        b"",
    ],
    ids=range(11),
)
def test_what_is_no_http_gets_an_error_in_our_shape(server: Running, data: bytes) -> None:
    head, _, body = raw(server, data).partition(b"\r\n\r\n")
    assert head.split()[1][:1] == b"4", head
    assert json.loads(body)["error"]["message"]


def test_too_many_connections_are_told_when_to_come_back(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyweight.server.serving.CONNECTIONS", 0)
    head = raw(server, b"").lower()
    assert b" 503 " in head and b"retry-after: 1\r\n" in head


def test_a_body_that_trickles_in_is_not_waited_for(server: Running) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    reply = raw(server, head + b"Content-Length: 100\r\nConnection: close\r\n\r\n{")
    assert reply.split()[1] == b"408"


def test_json_is_bounded_in_depth_and_count_and_otherwise_as_it_is() -> None:
    limits = Limits(depth=4, values=10)
    assert parsed(b'{"a": [1, {"b": "\xc3\xa9"}]}', limits) == {"a": [1, {"b": "é"}]}
    from flyweight.server.errors import ApiError

    for body in (b'{"a": [[[[1]]]]}', b'{"a": [1,2,3,4,5,6,7,8,9,10,11]}', b'{"a":' + b"," * 200 + b"}"):
        with pytest.raises(ApiError):
            parsed(body, limits)


def test_generations_multiply_what_multiplies() -> None:
    assert generations("best_of_n", {"n": 7}) == 7
    assert generations("particle_gibbs", {"n": 4, "iterations": 3}) == 12
    assert generations("mcts", {"n": 4, "branch": 3}) == 12
    assert generations("lookahead_search", {"n": 4, "k": 2}) == 12
    assert generations("self_refine", {"rounds": 3}) == 7
    assert generations("self_consistency", {"n": 5, "of": "beam_search(n=8:width=2)"}) == 40
    assert all(1 <= generations(name, {}) <= 256 for name in names())


def test_one_request_never_takes_more_than_the_servers_tokens() -> None:
    with running(limits={"tokens": 100}) as own:
        answer = own.ask({"model": "toy@self_consistency:n=64", "messages": SUM, "flyweight": {"budget": 10**9}}).json()
    assert answer["usage"]["completion_tokens"] <= 100 and answer["flyweight"]["budget"] == 100
