"""`serve --ui`: the page on the server, with its keys, its limits and its engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flyweight.store import Store
from tests import viewer_kit
from tests.browser import MISSING, Browser, chromium
from tests.server.kit import Running, endless, events, running
from tests.viewer_payloads import TRAVERSALS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run."""
    found = tmp_path_factory.mktemp("runs")
    with Store(found / "flyweight.db") as store:
        viewer_kit.record(store, [viewer_kit.problem(index) for index in range(3)])
    return found


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Running]:
    with running(ui=folder) as found:
        yield found


def test_the_page_and_the_records_are_there(served: Running) -> None:
    page = served.get("/ui/")
    assert page.status_code == 200 and page.headers["content-security-policy"].startswith("default-src 'none'")
    assert served.get("/ui").headers["location"] == "ui/"
    assert served.get("/ui/assets/page.js").headers["content-type"].startswith("text/javascript")
    index = served.get("/ui/api/index").json()
    assert index["ask"]["model"] == "toy" and len(index["runs"]) == 1
    assert len(served.get(f"/ui/api/run/{index['runs'][0]['id']}").json()["questions"]["id"]) == 3


def test_there_is_no_page_unless_asked_for() -> None:
    with running() as found:
        assert found.get("/ui/").status_code == 404


def test_a_question_is_searched_by_the_server_and_watched(served: Running) -> None:
    asked = {"question": "Add 3 and 4 and 5.", "strategy": "best_of_n", "parameters": {"n": 4}}
    id = served.client.post("/ui/api/ask", json=asked).json()["id"]
    seen = events(served.get(f"/ui/api/ask/{id}/events"))
    kinds = [event["kind"] for event in seen]
    assert kinds[0] == "start" and kinds[-1] == "end" and kinds.count("node") == 4
    # The seed is new each time and the toy may be wrong: what is told at the end stands in what was drawn.
    assert f"boxed{{{seen[-1]['result']['answer']}}}" in str([e for e in seen if e["kind"] == "node"])
    assert served.get("/runs").json()["data"][0]["id"] == id


def test_a_search_is_stopped(folder: Path) -> None:
    with running(endless(), ui=folder) as found:
        id = found.client.post("/ui/api/ask", json={"question": "x", "strategy": "best_of_n"}).json()["id"]
        found.until(lambda: bool(found.server.desk.running))
        assert found.client.post(f"/ui/api/ask/{id}/stop", json={}).status_code == 200
        found.until(lambda: not found.server.desk.running)
        events(found.get(f"/ui/api/ask/{id}/events"))  # ends


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"question": ""}', b'{"question": "x", "strategy": "no"}', b'{"question": "x", "n": 1}']
)
def test_bad_questions(served: Running, body: bytes) -> None:
    answer = served.client.post("/ui/api/ask", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["message"]


def test_a_question_is_bounded_like_any_other_request(folder: Path) -> None:
    with running(ui=folder, limits={"body_bytes": 1000}) as found:
        pieces = (b" " * 100 for _ in range(50))  # so that no length is told beforehand
        large = found.client.post("/ui/api/ask", content=pieces, headers={"Content-Type": "application/json"})
        assert large.status_code == 413
        deep = found.client.post(
            "/ui/api/ask", content=b'{"a":' * 50 + b"1" + b"}" * 50, headers={"Content-Type": "application/json"}
        )
        assert deep.json()["error"]["code"] == "too_deep"


def test_other_pages_may_not_ask(served: Running) -> None:
    asked = {"question": "Add 3 and 4."}
    assert served.client.post("/ui/api/ask", json=asked, headers={"Origin": "http://evil.invalid"}).status_code == 403
    plain = served.client.post("/ui/api/ask", content=b'{"question": "x"}', headers={"Content-Type": "text/plain"})
    assert plain.status_code == 415


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_anywhere_else(served: Running, path: str) -> None:
    answer = served.get(f"/ui/{path.replace(chr(92), '%5c')}")
    tidied = answer.url.path == "/ui/api/index"  # what the client itself made of "api/run/../index"
    assert tidied or answer.status_code in (400, 404, 414)
    assert "root:" not in answer.text


def test_keys_guard_everything_but_the_empty_page(folder: Path) -> None:
    with running(ui=folder, keys=("secret-key",)) as found:
        assert found.get("/ui/").status_code == 200 and found.get("/ui/assets/page.css").status_code == 200
        assert found.get("/ui/api/index").status_code == 401
        own = {"Authorization": "Bearer secret-key"}
        assert found.get("/ui/api/index", headers=own).status_code == 200
        assert found.client.post("/ui/api/ask", json={"question": "x"}).status_code == 401
        id = found.client.post("/ui/api/ask", json={"question": "Add 3 and 4."}, headers=own).json()["id"]
        assert found.get(f"/ui/api/ask/{id}/events").status_code == 401
        assert events(found.get(f"/ui/api/ask/{id}/events", headers=own))[-1]["kind"] == "end"


@pytest.mark.browser
@pytest.mark.skipif(chromium() is None, reason=MISSING)
def test_the_page_asks_for_the_key_and_watches(folder: Path) -> None:
    with running(ui=folder, keys=("secret-key",)) as found, Browser() as browser:
        browser.open(f"{found.url}/ui/")
        browser.wait("document.querySelector('[name=key]')")
        browser.run("document.querySelector('[name=key]').value = 'secret-key'")
        browser.run("document.querySelector('form.asking').requestSubmit()")
        browser.wait("document.querySelector('.run-row')")
        browser.press("a")
        browser.wait("document.querySelector('textarea')")
        browser.write("textarea", "Add 3 and 4 and 5.")
        browser.wait("!document.querySelector('.primary').disabled")
        browser.run("document.querySelector('form.asking').requestSubmit()")
        browser.wait("document.querySelector('.verdict strong')?.textContent === '12'")
        assert not browser.of("Runtime.exceptionThrown")
