"""A real server on a real socket, over a policy without weights."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2

from flyweight import api
from flyweight.protocols import Policy
from flyweight.server import app, serving
from flyweight.server.setup import Settings, build
from flyweight.testing import Draft, ToyPolicy

SUM = [{"role": "user", "content": "Add 3 and 4 and 5."}]
PERSON = {
    "type": "object",
    "properties": {"age": {"type": "integer"}, "kind": {"enum": ["a", "b"]}},
    "required": ["age", "kind"],
}


PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Made once and never used: reading the certificates of the machine for every client takes most of a test's time."""


@dataclass
class Running:
    """A server that answers."""

    url: str
    server: app.Server
    policy: Policy
    client: httpx2.Client
    log: list[str] = field(default_factory=list)

    def ask(self, body: dict[str, Any], path: str = "/v1/chat/completions", **settings: Any) -> httpx2.Response:
        """The response to a body; a chat of one turn on the model itself unless it says otherwise."""
        whole = {"model": "toy", **({"messages": SUM} if "chat" in path else {"prompt": "Add 3 and 4."}), **body}
        return self.client.post(path, json=whole, **settings)

    def get(self, path: str, **settings: Any) -> httpx2.Response:
        """The response to a GET."""
        return self.client.get(path, **settings)

    @contextlib.contextmanager
    def held(self, body: dict[str, Any], *, key: str = "none") -> Iterator[None]:
        """A chat that nobody reads, and that is hung up on in the end."""
        data = json.dumps({"model": "toy", "messages": SUM, **body}, separators=(",", ":")).encode()  # as `ask` does
        host, port = self.url.removeprefix("http://").split(":")
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        head += f"Idempotency-Key: {key}\r\n"
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            yield

    def until(self, condition: Callable[[], bool], seconds: float = 10.0) -> None:
        """Wait for something that has to happen."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.002)


@contextlib.contextmanager
def running(
    policy: Policy | None = None, *, limits: dict[str, Any] | None = None, **settings: Any
) -> Iterator[Running]:
    """A server over a policy, ToyPolicy by default; `limits` and `settings` as in Limits and Settings."""
    own = policy or ToyPolicy()
    chosen = Settings(**{"model": own.name, "verifiers": ("arithmetic",), "port": 0, **settings})
    log: list[str] = []
    session = api.Session(own, verifier=chosen.verifiers[0], kind=chosen.kind, max_tokens=chosen.max_tokens)
    server = build(session, chosen, log=log.append)
    if limits:
        server.service = replace(server.service, limits=replace(server.service.limits, **limits))
        server.app._limits = server.service.limits  # type: ignore[attr-defined]
    with (
        session if policy is None else contextlib.nullcontext(),
        serving.bind("127.0.0.1", 0) as listening,
        serving.background(server, listening) as url,
        httpx2.Client(base_url=url, timeout=60, verify=PLAIN) as client,
    ):
        yield Running(url, server, own, client, log)


def events(response: httpx2.Response) -> list[Any]:
    """The events of a stream, by the letter of the standard; `[DONE]` as it is."""
    found: list[Any] = []
    for block in response.text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        assert all(line.startswith("data: ") for line in lines), lines
        if lines:
            data = "\n".join(line.removeprefix("data: ") for line in lines)
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


def endless(text: str = "x" * 100_000) -> ToyPolicy:
    """A policy that writes until it is stopped, slowly enough to be watched."""
    return ToyPolicy(lambda question, so_far, rng, sampling: Draft(text), delay=0.001)
