"""Forty checks of the server, each by five clients: openai-python whole, async and streaming, plain HTTP, and curl.

python -m benchmarks.conformance
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx2
import openai

from flyweight import api
from flyweight.server import serving
from flyweight.server.setup import Settings, build
from flyweight.testing import Draft, ToyPolicy, arithmetic
from flyweight.types import Sampling

__all__ = ["CHECKS", "CLIENTS", "run"]

KEY = "conformance-key"
ASK = [{"role": "user", "content": "Add 3 and 4 and 5."}]
CALL = '<tool_call>\n{"name": "clock", "arguments": {"zone": "UTC"}}\n</tool_call>'
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}
USE = [{"role": "user", "content": "Use the tool."}]
CALLED = [
    *USE,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "7 and 8"},
]
STANDARD = {
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "seed",
    "logprobs", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "response_format", "user", "metadata",
    "store", "presence_penalty", "frequency_penalty", "stream_options", "reasoning_effort",
}  # fmt: skip
"""Arguments openai-python's methods have; others go into its `extra_body`."""


class Answer(NamedTuple):
    """What a client got."""

    status: int
    body: dict[str, Any]
    headers: Mapping[str, str]

    @property
    def choice(self) -> dict[str, Any]:
        """The first choice."""
        found: dict[str, Any] = self.body["choices"][0]
        return found

    @property
    def text(self) -> str:
        """Its text."""
        return str(self.choice["message"]["content"] if "message" in self.choice else self.choice["text"])

    @property
    def facts(self) -> dict[str, Any]:
        """The object `flyweight`."""
        found: dict[str, Any] = self.body["flyweight"]
        return found

    @property
    def param(self) -> str:
        """The field an error is about."""
        return str(self.body["error"]["param"])


class Check(NamedTuple):
    """A request and what has to come of it."""

    name: str
    body: dict[str, Any]
    holds: Callable[[Answer], object]
    path: str = "/chat/completions"
    status: int = 200
    headers: Mapping[str, str] = MappingProxyType({})


def _usage(answer: Answer) -> bool:
    usage = answer.body["usage"]
    details = usage["completion_tokens_details"]["reasoning_tokens"], usage["prompt_tokens_details"]["cached_tokens"]
    total = usage["prompt_tokens"] + usage["completion_tokens"]
    return bool(usage["total_tokens"] == total > 0 and min(details) >= 0)


def _searched(name: str, **parameters: object) -> Callable[[Answer], bool]:
    return lambda a: a.facts["strategy"] == name and parameters.items() <= a.facts["parameters"].items()


def _called(answer: Answer) -> bool:
    [call] = answer.choice["message"]["tool_calls"]
    return bool(answer.choice["finish_reason"] == "tool_calls" and json.loads(call["function"]["arguments"]))


CHECKS = [
    Check("models are listed", {}, lambda a: {"toy", "toy@best_of_n"} <= {m["id"] for m in a.body["data"]}, "/models"),
    Check("a model is described", {}, lambda a: a.body["object"] == "model", "/models/toy"),
    Check("an unknown model", {"model": "other"}, lambda a: a.body["error"]["code"] == "model_not_found", status=404),
    Check("a wrong key", {}, lambda a: a.body["error"]["code"] == "invalid_api_key", status=401,
          headers={"Authorization": "Bearer wrong"}),
    Check("a question", {}, lambda a: "boxed" in a.text and a.choice["finish_reason"] == "stop"),
    Check("id and object", {}, lambda a: a.body["id"][:9] == "chatcmpl-" and "chat.completion" in a.body["object"]),
    Check("created and model", {}, lambda a: isinstance(a.body["created"], int) and a.body["model"] == "toy"),
    Check("the role", {}, lambda a: a.choice["message"]["role"] == "assistant"),
    Check("content in parts", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Add 1 and 2."}]}]},
          lambda a: "1 + 2" in a.text),
    Check("a system turn", {"messages": [{"role": "system", "content": "Hi."}, *ASK]}, lambda a: "boxed" in a.text),
    Check("a developer turn", {"messages": [{"role": "developer", "content": "Hi."}, *ASK]}, lambda a: a.text),
    Check("several turns", {"messages": [*ASK, {"role": "assistant", "content": "12"},
          {"role": "user", "content": "Add 20 and 1."}]}, lambda a: "20 + 1" in a.text),
    Check("max_tokens", {"max_tokens": 5}, lambda a: len(a.text) == 5 and a.choice["finish_reason"] == "length"),
    Check("max_completion_tokens", {"max_completion_tokens": 6}, lambda a: len(a.text) == 6),
    Check("a stop string", {"stop": "boxed"}, lambda a: a.text.endswith("\\")),
    Check("stop strings", {"stop": ["nowhere", "answer"]}, lambda a: a.text.endswith("The ")),
    Check("a seed", {"seed": 11}, lambda a: a.facts["seed"] == 11),
    Check("temperature 0", {"temperature": 0}, lambda a: "boxed" in a.text),
    Check("top_p", {"top_p": 0.5}, lambda a: "boxed" in a.text),
    Check("several choices", {"n": 3}, lambda a: [c["index"] for c in a.body["choices"]] == [0, 1, 2]),
    Check("logprobs", {"logprobs": True},
          lambda a: "".join(e["token"] for e in a.choice["logprobs"]["content"]) == a.text),
    Check("top_logprobs", {"logprobs": True, "top_logprobs": 2, "max_tokens": 3},
          lambda a: [len(e["top_logprobs"]) for e in a.choice["logprobs"]["content"]] == [2, 2, 2]),
    Check("usage", {}, _usage),
    Check("usage of a search", {"model": "toy@best_of_n:n=4"}, _usage),
    Check("a strategy in the name", {"model": "toy@self_consistency"}, _searched("self_consistency")),
    Check("its parameters", {"model": "toy@best_of_n:n=3,budget=4096"}, _searched("best_of_n", n=3)),
    Check("the field flyweight", {"flyweight": {"strategy": "beam_search", "n": 8, "width": 2}},
          _searched("beam_search", n=8, width=2)),
    Check("headers", {}, _searched("best_of_n", n=2), headers={"X-Flyweight-Strategy": "best_of_n:n=2"}),
    Check("a budget", {"flyweight": {"strategy": "self_consistency", "budget": 150}},
          lambda a: a.body["usage"]["completion_tokens"] <= 150),
    Check("an unknown key", {"flyweight": {"speed": 1}}, lambda a: "strategy" in a.body["error"]["message"],
          status=400),
    Check("more choices than candidates", {"model": "toy@greedy", "n": 2}, lambda a: a.param == "n", status=400),
    Check("a value of the wrong kind", {"max_tokens": "many"}, lambda a: a.param == "max_tokens", status=400),
    Check("a function called", {"messages": USE, "tools": [CLOCK]}, _called),
    Check("no function wanted", {"messages": USE, "tools": [CLOCK], "tool_choice": "none"},
          lambda a: a.choice["finish_reason"] == "stop"),
    Check("what a function gave", {"messages": CALLED, "tools": [CLOCK]}, lambda a: "7" in a.text),
    Check("calls voted on", {"model": "toy@self_consistency:n=4", "messages": USE, "tools": [CLOCK]}, _called),
    Check("no functions in a tree", {"model": "toy@beam_search", "messages": USE, "tools": [CLOCK]},
          lambda a: "tools" in a.body["error"]["message"], status=400),
    Check("fields of no effect", {"store": True, "user": "me", "metadata": {"a": "b"}, "response_format":
          {"type": "text"}}, lambda a: "store" in a.facts["ignored"]),
    Check("names of the run", {}, lambda a: a.headers["x-flyweight-run-id"] and a.headers["x-request-id"]),
    Check("a completion", {"prompt": "Add 5 and 6.", "max_tokens": 40}, lambda a: "5 + 6" in a.text, "/completions"),
]  # fmt: skip


def toy() -> ToyPolicy:
    """A policy that adds up, and calls a function where it is told to."""

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(CALL) if question == "Use the tool." else arithmetic(question, so_far, rng, sampling)

    return ToyPolicy(write)


class Clients:
    """Five ways to ask the server at an address."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/v1"

    def sync(self, check: Check) -> Answer:
        """openai-python."""
        with openai.OpenAI(base_url=self.url, api_key=KEY, max_retries=0) as client:
            return self._called(lambda: _method(client, check)(**_arguments(check)))

    def async_(self, check: Check) -> Answer:
        """openai-python's asynchronous client."""

        async def ask() -> Any:
            async with openai.AsyncOpenAI(base_url=self.url, api_key=KEY, max_retries=0) as client:
                return await _method(client, check)(**_arguments(check))

        return self._called(lambda: asyncio.run(ask()))

    def stream(self, check: Check) -> Answer:
        """openai-python, streaming; models cannot be."""
        if check.path.startswith("/models"):
            return self.sync(check)
        options = {"stream": True, "stream_options": {"include_usage": True}}
        with openai.OpenAI(base_url=self.url, api_key=KEY, max_retries=0) as client:
            try:
                raw = _method(client, check)(**_arguments(check), **options)
                return Answer(raw.status_code, _joined([part.model_dump() for part in raw.parse()]), raw.headers)
            except openai.APIStatusError as error:
                return Answer(error.status_code, error.response.json(), error.response.headers)

    def plain(self, check: Check) -> Answer:
        """HTTP by hand."""
        method, body = _request(check)
        headers = {"Authorization": f"Bearer {KEY}", **check.headers}
        got = httpx2.request(method, self.url + check.path, json=body, headers=headers, timeout=60)
        return Answer(got.status_code, got.json(), got.headers)

    def curl(self, check: Check) -> Answer:
        """The command."""
        method, body = _request(check)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **check.headers}
        command = ["curl", "-sS", "-i", "-X", method, self.url + check.path, "--max-time", "60"]
        command += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
        command += [] if body is None else ["--data-binary", json.dumps(body)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=90)
        head, _, rest = done.stdout.decode().partition("\r\n\r\n")
        lines = head.split("\r\n")
        found = {line.split(": ")[0].lower(): line.split(": ")[1] for line in lines[1:]}
        return Answer(int(lines[0].split()[1]), json.loads(rest), found)

    def _called(self, ask: Callable[[], Any]) -> Answer:
        try:
            raw = ask()
        except openai.APIStatusError as error:
            return Answer(error.status_code, error.response.json(), error.response.headers)
        parsed = raw.parse()
        if not hasattr(parsed, "model_dump"):
            raise TypeError(f"openai-python made a {type(parsed).__name__} of it")
        return Answer(raw.status_code, parsed.model_dump(), raw.headers)


CLIENTS = ("sync", "async_", "stream", "plain", "curl")


def _method(client: Any, check: Check) -> Any:
    if check.path == "/models":
        return client.models.with_raw_response.list
    if check.path.startswith("/models/"):
        return client.models.with_raw_response.retrieve
    if check.path == "/completions":
        return client.completions.with_raw_response.create
    return client.chat.completions.with_raw_response.create


def _arguments(check: Check) -> dict[str, Any]:
    if check.path == "/models":
        return {"extra_headers": check.headers}
    if check.path.startswith("/models/"):
        return {"model": check.path.removeprefix("/models/")}
    body = _body(check)
    own = {key: value for key, value in body.items() if key in STANDARD}
    return {**own, "extra_body": {k: v for k, v in body.items() if k not in own}, "extra_headers": check.headers}


def _body(check: Check) -> dict[str, Any]:
    default = {"model": "toy"} if check.path == "/completions" else {"model": "toy", "messages": ASK}
    return {**default, "temperature": 0.1, **check.body}


def _request(check: Check) -> tuple[str, dict[str, Any] | None]:
    return ("GET", None) if check.path.startswith("/models") else ("POST", _body(check))


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The completion that chunks make up."""
    whole: dict[str, Any] = {"choices": []}
    for part in parts:
        whole |= {key: value for key, value in part.items() if key != "choices" and value is not None}
        for piece in part["choices"]:
            while len(whole["choices"]) <= piece["index"]:
                whole["choices"].append({"index": len(whole["choices"]), "message": {"content": ""}, "text": ""})
            choice = whole["choices"][piece["index"]]
            delta = piece.get("delta") or {}
            choice["text"] += piece.get("text") or ""
            choice["message"]["content"] += delta.get("content") or ""
            choice["message"] |= {k: v for k, v in delta.items() if k in ("role", "tool_calls") and v}
            choice["finish_reason"] = piece["finish_reason"] or choice.get("finish_reason")
            if piece.get("logprobs"):
                choice.setdefault("logprobs", {"content": []})["content"] += piece["logprobs"].get("content") or []
    if parts and "delta" not in (parts[0]["choices"] or [{}])[0]:
        for choice in whole["choices"]:
            del choice["message"]
    return whole


def run(clients: tuple[str, ...] = CLIENTS) -> list[tuple[str, str, str]]:
    """(check, client, what was wrong; empty for nothing) of every check by every client."""
    policy = toy()
    session = api.Session(policy, verifier="arithmetic")
    server = build(session, Settings(model="toy", verifiers=("arithmetic",), keys=(KEY,)))
    found = []
    with serving.bind("127.0.0.1", 0) as listening, serving.background(server, listening) as url:
        asking = Clients(url)
        for check in CHECKS:
            for client in clients:
                try:
                    answer: Answer = getattr(asking, client)(check)
                    wrong = "" if answer.status == check.status and check.holds(answer) else str(answer)[:300]
                except Exception as error:
                    wrong = f"{type(error).__name__}: {error}"[:300]
                found.append((check.name, client, wrong))
    return found


def main() -> int:
    """Print the table; 1 if anything failed."""
    clients = CLIENTS if shutil.which("curl") else CLIENTS[:-1]
    found = run(clients)
    failed = [row for row in found if row[2]]
    for name, client, wrong in failed:
        print(f"{name} ({client}): {wrong}")
    print(f"openai-python {openai.__version__}, {len(CHECKS)} checks")
    for client in clients:
        held = sum(not wrong for _, by, wrong in found if by == client)
        print(f"  {client.rstrip('_'):7} {held}/{len(CHECKS)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
