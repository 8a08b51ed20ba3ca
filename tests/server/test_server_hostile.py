"""Requests that point elsewhere: no connection is made, nothing is loaded, no file is read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.kit import SUM, Running, running


class Trap:
    """A listener on loopback that counts who comes."""

    def __init__(self) -> None:
        self.came = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.came += 1
            connection.close()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def trap() -> Iterator[Trap]:
    found = Trap()
    yield found
    found.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as found:
        yield found


IGNORED = (
    "base_url", "api_base", "api_key", "proxies", "proxy", "headers", "extra_headers", "callback", "callback_url",
    "webhook", "model_path", "lora", "adapter", "tokenizer", "organization",
)  # fmt: skip


def bodies(url: str) -> list[tuple[dict[str, Any], int]]:
    image = [{"type": "image_url", "image_url": {"url": url}}]
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": f"{url}/schema.json"}}}
    return [
        *(({name: url}, 200) for name in IGNORED),
        ({"model": url}, 404),
        ({"model": "../../etc/passwd"}, 404),
        ({"model": f"openai:{url}"}, 404),
        ({"model": "hf:org/repo/file.gguf"}, 404),
        ({"messages": [{"role": "user", "content": image}]}, 400),
        ({"response_format": form}, 400),
        ({"flyweight": {"strategy": "best_of_n", "policy": f"openai:{url}"}}, 400),
        ({"flyweight": {"strategy": "best_of_n", "verifier": f"remote:{url}"}}, 400),
        ({"flyweight": {"strategy": "best_of_n", "verifier": "os:system"}}, 400),
        ({"flyweight": {"strategy": "best_of_n:verifier=schema(file=/etc/passwd)"}}, 400),
        ({"flyweight": {"strategy": f"best_of_n:of=sample(policy=openai:{url})"}}, 400),
        ({"flyweight": {"strategy": "best_of_n", "of": "greedy(verifier=judge)"}}, 400),
        ({"model": f"toy@best_of_n:policy=openai:{url}"}, 400),
        ({"model": "toy@best_of_n:verifier=reward:x@/tmp"}, 400),
        ({"flyweight": {"api_base": url}}, 400),
    ]


def test_no_request_makes_the_server_go_anywhere(server: Running, trap: Trap) -> None:
    for body, status in bodies(trap.url):
        answer = server.ask({"messages": SUM, **body})
        assert answer.status_code == status, (body, answer.text[:300])
        assert "root:" not in answer.text
    headers = {"X-Flyweight-Policy": f"openai:{trap.url}", "X-Forwarded-Host": "evil"}
    assert server.ask({}, headers=headers).status_code == 400
    assert trap.came == 0
