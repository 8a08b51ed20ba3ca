"""Requests that point elsewhere: no connection is made, nothing is loaded, no file is read."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyweight import strategies
from flyweight.errors import ConfigError
from flyweight.server.choosing import Menu, Wanted, presets
from flyweight.server.errors import ApiError
from flyweight.strategies import Value
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
        ({"model": "toy@auto:calibration=/etc/passwd"}, 400),
        ({"model": "toy@auto:calibration=(published)"}, 400),
        ({"model": f"toy@auto:bigger=openai:{url}"}, 400),
        ({"flyweight": {"strategy": "auto", "calibration": "/dev/zero"}}, 400),
        ({"flyweight": {"strategy": "best_of_n", "of": "auto(calibration=/etc/passwd)"}}, 400),
        ({"flyweight": {"strategy": "best_of_n:of=self_consistency(of=auto(bigger=qwen2.5-0.5b))"}}, 400),
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


PLAIN = {"opening", "closing", "wait", "final"}
"""Texts a strategy writes into an answer, and nothing else."""
ELSEWHERE = (
    "/etc/passwd",
    "os:system",
    "openai:http://127.0.0.1:9",
    "remote:http://127.0.0.1:9",
    "prm:x@/tmp",
    "hf:a/b/c",
)


def texts() -> list[tuple[str, str]]:
    """Every strategy with every parameter of it that is a text."""
    described = [(name, strategies.describe(name).parameters) for name in strategies.names()]
    return [
        (name, each.name) for name, own in described for each in (*own, *strategies.COMMON.values()) if each.kind is str
    ]


@pytest.mark.parametrize(("name", "key"), texts(), ids=str)
def test_no_text_a_client_may_set_names_anything_to_load(name: str, key: str) -> None:
    menu = Menu("toy", verifiers=["arithmetic"])
    for value in ELSEWHERE:
        for word, parameters in ((name, {key: value}), (f"best_of_n:of={name}({key}={value})", dict[str, Value]())):
            try:
                menu.check(Wanted(word, parameters))
            except ConfigError:
                continue
            assert key in PLAIN, "a new text: have Menu.check refuse it, or say here that it is only text"


def test_presets_may_name_what_clients_may_not(tmp_path: Path) -> None:
    file = tmp_path / "presets.toml"
    file.write_text('[models.own]\nstrategy = "auto:calibration=fitted.json:bigger=large"\n')
    menu = Menu("toy", presets=presets(file, "toy"))
    assert menu.wanted("own", None, []).parameters == {"calibration": "fitted.json", "bigger": "large"}
    assert menu.wanted("toy@auto:calibration=published:bigger=toy", None, []).strategy == "auto"
    with pytest.raises(ApiError, match="one of: published"):
        menu.wanted("toy@auto:calibration=other.json", None, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[model.fast]\nstrategy = "greedy"\n', "unknown table of .*'model'; did you mean 'models'"),
        ("models = 5\n", r"\[models.NAME\]"),
        ("[models]\nfast = 1\n", r"\[models.fast\]"),
        ('[models.fast]\nspeed = "high"\n', "speed"),
    ],
)
def test_a_file_of_presets_with_a_slip_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "presets.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        presets(file, "toy")
