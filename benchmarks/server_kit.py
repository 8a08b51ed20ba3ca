"""What measurements of the server share: a server over a policy, a client, and what the system says of a process."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from flyweight import api
from flyweight.protocols import Policy
from flyweight.server import serving
from flyweight.server.app import Server
from flyweight.server.setup import Settings, build
from flyweight.testing import Draft, ToyPolicy

__all__ = [
    "Figures",
    "answers",
    "chat",
    "client",
    "cpu_seconds",
    "endless",
    "engine",
    "free_port",
    "quantile",
    "rss",
    "served",
]

PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
Figures = dict[str, Any]


@contextlib.contextmanager
def served(policy: Policy, **settings: Any) -> Iterator[tuple[str, Server]]:
    """A server over a policy, and its address."""
    session = api.Session(policy, verifier="self", max_tokens=settings.pop("max_tokens", 512))
    gc.freeze()  # as the server does in a process of its own
    server = build(session, Settings(**{"model": policy.name, "verifiers": ("self",), **settings}))
    with serving.bind("127.0.0.1", 0) as listening, serving.background(server, listening) as url:
        yield url, server


def client(url: str) -> httpx2.Client:
    """One that keeps its connections."""
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx2.Client(base_url=url, timeout=600, verify=PLAIN, limits=limits)


def chat(model: str, text: str, **more: Any) -> dict[str, Any]:
    """A body."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def rss(process: int | str = "self") -> float:
    """Resident memory of a process, MB."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(process: int) -> float:
    """User and system time of all threads of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def endless(delay: float = 0.001) -> ToyPolicy:
    """Writes until it is stopped."""
    return ToyPolicy(lambda *_: Draft("x" * 1_000_000), delay=delay)


def quantile(values: list[float], q: float) -> float:
    """Of sorted values."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def engine(model: str) -> Policy:
    """The default engine, loaded."""
    return api.find_policy(model, context=2048)()


def free_port() -> int:
    """One that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(http: httpx2.Client) -> bool:
    """Whether a server is there and ready."""
    try:
        return http.get("/health").status_code == 200
    except httpx2.HTTPError:
        return False
