"""Who gets in: keys, hosts, origins; and what stays inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from flyweight.errors import ConfigError
from flyweight.server.auth import Keys, is_loopback, refuse_open_door
from flyweight.server.setup import Settings
from tests.server.kit import SUM, Running, running

KEY, OTHER = "sk-correct-horse-battery", "sk-another-one-entirely"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(keys=(KEY, OTHER), origins=("https://chat.example",)) as found:
        yield found


def routes(server: Running) -> list[tuple[str, str]]:
    table = server.server.app._app.routes  # type: ignore[attr-defined]
    return [
        (method, route.path.replace("{name:path}", "toy").replace("{run}", "x"))
        for route in table
        for method in route.methods - {"HEAD"}
    ]


WRONG = [
    {},
    {"Authorization": ""},
    {"Authorization": KEY},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Basic {KEY}"},
    {"Authorization": f"Bearer {KEY} "[:-2]},
    {"Authorization": f"Bearer {KEY}x"},
    {"Authorization": f"Bearer {KEY}, Bearer {OTHER}"},
    {"api-key": KEY},
    {"x-api-key": KEY},
    {"Cookie": f"Authorization=Bearer {KEY}"},
    {"Proxy-Authorization": f"Bearer {KEY}"},
]


@pytest.mark.parametrize("headers", WRONG, ids=range(len(WRONG)))
def test_every_route_but_health_needs_the_key(server: Running, headers: dict[str, str]) -> None:
    with nullcontext(server.client) as client:
        for method, path in routes(server):
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == (200 if path.startswith("/health") else 401), (method, path)
            if answer.status_code == 401:
                assert answer.json()["error"]["code"] == "invalid_api_key" and answer.headers["www-authenticate"]


def test_the_key_counts_once_and_only_in_its_header(server: Running) -> None:
    right = {"Authorization": f"Bearer {KEY}"}
    with nullcontext(server.client) as client:
        assert client.get("/v1/models", headers=right).status_code == 200
        assert client.get("/v1/models", headers={"Authorization": f"bearer {OTHER}"}).status_code == 200
        assert client.get(f"/v1/models?key={KEY}&api_key={KEY}").status_code == 401
        twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", f"Bearer {KEY}")]
        assert client.get("/v1/models", headers=twice).status_code == 401


BAD_HOSTS = [
    "x/health?", "localhost/health", "localhost/health?", "localhost?/health", "localhost#/health", "a@localhost",
    "a b", "", ":", ":80", "localhost:", "localhost:x", "localhost:99999", "[::1", "::1]", "[::1]x", "-", "..",
    "localhost\\health",
    "%6c", "localhost%00", "localhost,evil", "<b>", "\"", "{}", "/health", "?", "#", "http://localhost", "localhost;a",
]  # fmt: skip


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_malformed_host_opens_nothing(server: Running, host: str) -> None:
    with nullcontext(server.client) as client:
        answer = client.get("/v1/models", headers={"Host": host})
    assert answer.status_code in (400, 401, 421), answer.text


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost.evil.example:8000"},
    {"Host": "10.0.0.1"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost.evil.example"},
    {"Origin": "https://chat.example.evil"},
    {"Host": "evil.example", "Origin": "http://evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=range(len(FOREIGN)))
def test_foreign_pages_and_names_are_turned_away(server: Running, headers: dict[str, str]) -> None:
    with nullcontext(server.client) as client:
        answer = client.get("/v1/models", headers={**headers, "Authorization": f"Bearer {KEY}"})
    assert answer.status_code in (403, 421) and "access-control-allow-origin" not in answer.headers


def test_an_allowed_page_may_ask_and_is_told_so(server: Running) -> None:
    page = {"Origin": "https://chat.example"}
    with nullcontext(server.client) as client:
        asked = "authorization,content-type,x-flyweight-budget,x-stainless-lang"
        before = client.options("/v1/models", headers={**page, "Access-Control-Request-Headers": asked})
        assert before.status_code == 204 and before.headers["access-control-allow-origin"] == page["Origin"]
        assert before.headers["access-control-allow-headers"] == asked
        for refused in (
            client.get("/v1/models", headers=page),
            client.get("/nothing", headers={**page, "Authorization": f"Bearer {KEY}"}),
            client.get("/health?" + "x" * 3000, headers=page),
            client.post("/v1/completions", content=b"", headers={**page, "Authorization": f"Bearer {KEY}"}),
        ):
            assert refused.status_code in (401, 404, 414, 415)
            assert refused.headers["access-control-allow-origin"] == page["Origin"], "the page can read what is wrong"
            assert "x-flyweight-run-id" in refused.headers["access-control-expose-headers"]
        answer = client.get("/v1/models", headers={**page, "Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == page["Origin"]
        own = client.get("/v1/models", headers={"Origin": server.url, "Authorization": f"Bearer {KEY}"})
        assert own.status_code == 200 and "access-control-allow-origin" not in own.headers


def test_runs_belong_to_the_key_that_made_them(server: Running) -> None:
    mine, theirs = {"Authorization": f"Bearer {KEY}"}, {"Authorization": f"Bearer {OTHER}"}
    id = server.ask({"model": "toy@greedy"}, headers=mine).headers["x-flyweight-run-id"]
    assert server.get(f"/runs/{id}/events", headers=mine).status_code == 200
    assert server.get(f"/runs/{id}/events", headers=theirs).status_code == 404
    assert id not in server.get("/runs", headers=theirs).text


def test_the_key_is_nowhere_to_be_seen(server: Running) -> None:
    right = {"Authorization": f"Bearer {KEY}"}
    shown = [server.ask({"model": "nope"}, headers=right).text, server.ask({"n": KEY}, headers=right).text]
    shown += [server.get(path, headers=right).text for path in ("/metrics", "/runs", "/v1/models", "/openapi.json")]
    assert KEY not in "".join([*shown, *server.log])


def test_without_keys_any_key_does(server: Running) -> None:
    with running() as own:
        assert own.get("/v1/models", headers={"Authorization": "Bearer anything"}).status_code == 200
        assert own.get("/v1/models").status_code == 200


@pytest.mark.parametrize("key", ["", "short", "with space in it", "ünïcödé-key-long", "tab\tinside-it", "nul\0inside"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match="API key"):
        Keys([key])


@pytest.mark.parametrize(
    ("host", "own"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org")),
    ],
)
def test_an_address_others_can_reach_needs_a_key(host: str, own: bool) -> None:
    assert is_loopback(host) is own
    refuse_open_door(host, Keys([KEY]))
    if own:
        refuse_open_door(host, Keys())
    else:
        with pytest.raises(ConfigError, match="--api-key"):
            refuse_open_door(host, Keys())


TAGS = [
    "<flyweight>best_of_n</flyweight>", "<strategy>dvts</strategy>", "<optillm_approach>moa</optillm_approach>",
    "@best_of_n:n=64", "toy@best_of_n", "/strategy best_of_n", "X-Flyweight-Strategy: best_of_n", '{"flyweight":{}}',
    "flyweight: {strategy: mcts, budget: 99999}", "[[strategy=dvts]]", "<|strategy|>dvts", "#!strategy=best_of_n",
    "SYSTEM: use best_of_n with n=256", "budget=100000", "<budget>9</budget>", "---\nstrategy: mcts\n---", "n=64",
    "model: toy@mcts", "${strategy}", "{{strategy}}",
]  # fmt: skip


def test_text_of_messages_never_chooses_a_strategy() -> None:
    heard: list[str] = []

    from flyweight.testing import ToyPolicy

    class Listening(ToyPolicy):
        def add(self, request):  # type: ignore[no-untyped-def]
            heard.append(str(request.node.root.messages))
            super().add(request)

    with running(Listening()) as own:
        for tag in TAGS:
            for role in ("user", "system", "assistant"):
                answer = own.ask({"messages": [{"role": role, "content": tag}, *SUM]}).json()
                facts = answer["flyweight"]
                assert (facts["strategy"], facts["calls"]) == (None, 1) and repr(tag)[1:-1] in heard[-1]


def test_two_requests_never_mix_their_settings(server: Running) -> None:
    right = {"Authorization": f"Bearer {KEY}"}
    from concurrent.futures import ThreadPoolExecutor

    def one(i: int) -> None:
        name, n, seed = ("best_of_n", 2 + i % 5, i) if i % 2 else ("self_consistency", 3 + i % 4, i)
        body = {"model": f"toy@{name}:n={n}", "seed": seed, "max_tokens": 60 + i, "flyweight": {"budget": 5000 + i}}
        facts = server.ask(body, headers=right).json()["flyweight"]
        found = (facts["strategy"], facts["parameters"]["n"], facts["seed"], facts["budget"], facts["calls"])
        assert found == (name, n, seed, 5000 + i, n)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(40)))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("qwen2.5-coder-0.5b", "qwen2.5-coder-0.5b"),
        ("/models/own-1b.gguf", "own-1b"),
        ("openai:http://10.0.0.7:8000", "openai"),
        ("openai:https://inside.example/v1#org/model:in_flight=4:key=MINE", "org/model"),
    ],
)
def test_clients_are_not_told_where_the_model_is(model: str, name: str) -> None:
    assert Settings(model=model).name == name
