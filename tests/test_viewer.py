"""The viewer without a browser: the bundle is that of its source, paths and answers, questions asked and watched."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flyweight.cli.main import run
from flyweight.cli.view import Own, plan_of
from flyweight.errors import ConfigError
from flyweight.store import Store
from flyweight.types import Event, Grade
from flyweight.viewer import asking, local, page, searches
from flyweight.viewer.export import export
from flyweight.viewer.records import Records
from flyweight.viewer.site import Reply, Site
from tests import viewer_kit
from tests.viewer_payloads import TRAVERSALS

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "viewer-src"
ASSETS = ROOT / "flyweight" / "viewer" / "assets"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A store with two runs on the same questions."""
    path = tmp_path_factory.mktemp("viewer") / "flyweight.db"
    with Store(path) as store:
        problems = [viewer_kit.problem(index) for index in range(6)]
        return path, [viewer_kit.record(store, problems, 4, seed) for seed in (0, 1)]


def said(reply: Reply) -> Any:
    """What a reply holds."""
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)


# The bundle --------------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_bundle_is_that_of_the_source() -> None:
    built = json.loads((ASSETS / "built.json").read_text("utf-8"))
    if SOURCE.is_dir():
        names = ["build.mjs", "package.json", "package-lock.json"]
        names += [path.relative_to(SOURCE).as_posix() for path in (SOURCE / "src").rglob("*.[jc]s*")]
        found = {name: sha256(SOURCE / name) for name in names}
        assert found == built["sources"], "run npm ci and npm run build in viewer-src"
    assert {name: sha256(ASSETS / name) for name in built["files"]} == built["files"]
    assert built["files"].keys() == page.ASSETS.keys()


def test_the_bundle_is_small_and_names_no_other_server() -> None:
    assert len(gzip.compress((ASSETS / "page.js").read_bytes())) < 48_000
    for name in page.ASSETS:
        text = page.asset(name)
        # Names of XML's vocabularies are no addresses that anything asks.
        found = {url for url in re.findall(r"https?://[^\s\"'`)]+", text) if "www.w3.org" not in url}
        assert not found, name
    for path in (SOURCE / "src").rglob("*.js"):
        assert not re.search(r"innerHTML =|InnerHTML=|eval\(|Function\(|document\.write", path.read_text("utf-8")), path


def test_every_package_in_the_bundle_has_its_licence() -> None:
    text = (ASSETS / "LICENSES.txt").read_text("utf-8")
    for name in ("preact", "htm", "katex", "d3-scale", "d3-shape", "@fontsource-variable/ibm-plex-sans"):
        assert re.search(rf"^{re.escape(name)} [\d.]+ \(", text, re.MULTILINE), name


# Paths and answers -------------------------------------------------------------------------------------------------


def test_what_a_run_says(recorded: tuple[Path, list[str]]) -> None:
    path, (id, _) = recorded
    site = Site(path)
    index = said(site.get("api/index"))
    assert [entry["id"] for entry in index["runs"]] == recorded[1][::-1] and index["ask"] is None
    told = said(site.get(f"api/run/{id}"))
    columns = told["questions"]
    with Store(path, readonly=True) as store:
        searched = list(store.results(id))
        right = [viewer_kit.grade(each.problem, each.text).value == "correct" for each in searched]
    assert columns["id"] == [each.problem.id for each in searched]
    assert [mark == "right" for mark in columns["mark"]] == right
    assert columns["tokens"] == [each.usage.generated_tokens for each in searched]
    assert told["accuracy"][1] == pytest.approx(sum(right) / len(right))
    assert [sum(votes) for votes in columns["votes"]] == [4] * 6


def test_what_a_question_says(recorded: tuple[Path, list[str]]) -> None:
    path, (id, _) = recorded
    told = said(Site(path).get(f"api/run/{id}/question/{searches.problem_key('q-00003')}"))
    kinds = [event["kind"] for event in told["events"]]
    assert kinds == ["start"] + ["node"] * 4 + ["score"] * 4 + ["end"]
    end = told["events"][-1]
    assert end["result"]["problem"]["id"] == "q-00003" and len(end["grades"]) == 4
    node = told["events"][1]["node"]
    assert node["tokens"] == len(node["text"]) // 4 and "logprobs" not in node and -1 < node["logprob"] < 0
    truths = [candidate["answer"] == "3" for candidate in end["result"]["candidates"]]
    assert [end["grades"][c["node"]["key"]][0] == "correct" for c in end["result"]["candidates"]] == truths


def test_reports_and_differences_are_those_of_the_command_line(recorded: tuple[Path, list[str]]) -> None:
    path, (a, b) = recorded
    site = Site(path)
    told = said(site.get(f"api/run/{a}/report"))
    kinds = [curve["kind"] for curve in told["report"]["pools"][0]["curves"]]
    assert kinds == ["random", "coverage", "majority", "best", "vote"]
    assert sum(told["scores"]["right"]) + sum(told["scores"]["wrong"]) == 24
    assert set(told["report"]["strata"]) == {"level"}
    one, other = said(site.get(f"api/diff/{a}/{b}")), said(site.get(f"api/diff/{b}/{a}"))
    assert one["interval"][1] == pytest.approx(-other["interval"][1]) and one["p"] == other["p"]
    assert one["keys"] is None


def test_a_run_that_goes_on_is_seen_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "flyweight.db"
    with Store(path) as store:
        run = store.run({"task": "kit", "model": "toy", "strategy": "best_of_n"})
        site = Site(path)
        for count in (1, 2):
            for event in viewer_kit.solved(viewer_kit.problem(count), 2):
                run(event)
            told = said(site.get(f"api/run/{run.id}"))
            assert len(told["questions"]["id"]) == count and told["run"]["finished"] is None
            assert told["questions"]["mark"] == ["ungraded"] * count and told["accuracy"] is None


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_anywhere_else(recorded: tuple[Path, list[str]], path: str) -> None:
    reply = Site(recorded[0]).get(path)
    assert reply.status in (400, 404), reply
    assert str(recorded[0].parent) not in str(reply.body) and "root:" not in str(reply.body)


def test_the_policy_is_strict(recorded: tuple[Path, list[str]]) -> None:
    for path in ("", "assets/page.js", "api/index", "nowhere"):
        policy = Site(recorded[0]).get(path).headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy


def test_looking_writes_nothing(recorded: tuple[Path, list[str]]) -> None:
    path, (a, b) = recorded
    before = sha256(path)
    site = Site(path)
    for reply in ("api/index", f"api/run/{a}", f"api/run/{a}/report", f"api/diff/{a}/{b}"):
        assert site.get(reply).status == 200
    assert sha256(path) == before


def test_nothing_recorded_is_no_failure(tmp_path: Path) -> None:
    site = Site(tmp_path / "flyweight.db")
    assert said(site.get("api/index"))["runs"] == []
    assert site.get("api/run/0123456789abcdef").status == 404
    assert site.get("api/plan").status == 404


# The local server --------------------------------------------------------------------------------------------------


@pytest.fixture
def served(recorded: tuple[Path, list[str]]) -> Iterator[int]:
    """The port of a server with the toy to ask."""
    engine = Own("toy")
    with serving(Site(recorded[0], asking=asking.Asking(engine))) as port:
        yield port
    engine.close()


class serving:
    """A site served while entered."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._ready = threading.Event()

    def __enter__(self) -> int:
        self._thread = threading.Thread(target=local.serve, args=(self._site, 0, self._began))
        self._thread.start()
        assert self._ready.wait(20)
        return int(self._address.rstrip("/").rpartition(":")[2])

    def __exit__(self, *_: object) -> None:
        self._shut()
        self._thread.join(20)

    def _began(self, address: str, shut: Callable[[], None]) -> None:
        self._address, self._shut = address, shut
        self._ready.set()


def call(port: int, method: str, path: str, body: object = None, **headers: str) -> tuple[int, str]:
    """Status and text of an answer."""
    connection = http.client.HTTPConnection(local.LOOPBACK, port, timeout=30)
    text = None if body is None else body if isinstance(body, str) else json.dumps(body)
    own = {"Host": f"127.0.0.1:{port}", "Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
    connection.request(method, path, text, own | {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_questions_are_searched_and_watched(served: int) -> None:
    asked = {"question": "What is 12 * 17 - 4?", "strategy": "best_of_n", "parameters": {"n": 4}, "budget": {}}
    status, text = call(served, "POST", "/api/ask", asked)
    assert status == 200, text
    id = json.loads(text)["id"]
    status, text = call(served, "GET", f"/api/ask/{id}/events")
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert status == 200 and events[0]["kind"] == "start" and events[-1]["kind"] == "end"
    drawn = [event for event in events if event["kind"] == "node"]
    assert len(drawn) == 4 and all("answer" in event for event in drawn)
    assert events[-1]["result"]["answer"] is not None
    again = call(served, "GET", f"/api/ask/{id}/events")[1]
    assert again.count('"kind":"node"') == 4  # who comes late sees it from the beginning


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("{", "not JSON"),
        ("[" * 60_000, "not JSON"),
        ([], "an object"),
        ({"question": " "}, "empty"),
        ({"question": "x" * 20_001}, "20,000"),
        ({"question": "x", "strategy": "beam_serch"}, "beam_search"),
        ({"question": "x", "parameters": {"m": 1}, "strategy": "best_of_n"}, "n"),
        ({"question": "x", "parameters": {"n": -1}, "strategy": "best_of_n"}, "n"),
        ({"question": "x", "parameters": {"n": [1]}}, "numbers"),
        ({"question": "x", "budget": {"tokens": 0}}, "above 0"),
        ({"question": "x", "budget": {"dollars": 1}}, "tokens"),
        ({"question": "x", "model": "y"}, "model"),
    ],
)
def test_bad_questions_are_refused_in_one_line(served: int, body: object, why: str) -> None:
    status, text = call(served, "POST", "/api/ask", body)
    assert status == 400 and why in json.loads(text)["error"]["message"], text


def test_only_the_page_itself_asks(served: int) -> None:
    good = {"question": "What is 1 + 1?"}
    assert call(served, "POST", "/api/ask", good, Origin="http://elsewhere.invalid")[0] == 403
    assert call(served, "POST", "/api/ask", good, Content_Type="text/plain")[0] == 403
    assert call(served, "GET", "/api/index", Host="elsewhere.invalid")[0] == 403
    assert call(served, "POST", "/api/ask", good, Host="elsewhere.invalid", Origin="http://elsewhere.invalid")[0] == 403
    assert call(served, "PUT", "/api/ask", good)[0] == 501
    assert call(served, "POST", "/api/ask", " " * 70_000)[0] == 413


class Stalled:
    """An engine whose searches last until they are stopped."""

    model = "stalled"

    def __init__(self) -> None:
        self.stopped: list[int] = []
        self.tell: list[Callable[[Event], None]] = []

    def start(self, asked: asking.Asked, on_event: Callable[[Event], None]) -> Callable[[], None]:
        number = len(self.tell)
        self.tell.append(on_event)
        return lambda: self.stopped.append(number)

    def answer(self, text: str) -> str | None:
        return None


def test_searches_are_limited_and_stopped(recorded: tuple[Path, list[str]]) -> None:
    engine = Stalled()
    site = Site(recorded[0], asking=asking.Asking(engine))
    body = b'{"question": "What is 1 + 1?"}'
    ids = [said(site.post("api/ask", body))["id"] for _ in range(asking.AT_ONCE)]
    assert site.post("api/ask", body).status == 429
    assert site.post(f"api/ask/{ids[2]}/stop", b"{}").status == 200 and engine.stopped == [2]
    engine.tell[2](Event("x", "end", 0.0))
    assert site.post("api/ask", body).status == 200
    assert site.post("api/ask/0123456789abcdef/stop", b"").status == 404
    assert Site(recorded[0]).post("api/ask", body).status == 404


def test_the_oldest_searches_are_forgotten(recorded: tuple[Path, list[str]]) -> None:
    engine = Stalled()
    asks = asking.Asking(engine)
    ids = []
    for index in range(asking.REMEMBERED + 5):
        ids.append(asks.ask({"question": "What is 1 + 1?"}))
        engine.tell[index](Event("x", "end", 0.0))
    assert b"end" in b"".join(asks.events(ids[-1]))
    with pytest.raises(KeyError):
        asks.events(ids[0])


# One file ----------------------------------------------------------------------------------------------------------


def test_the_file_holds_what_the_server_would_say(recorded: tuple[Path, list[str]]) -> None:
    path, ids = recorded
    with Store(path, readonly=True) as store:
        text = "".join(export(store, ids))
        assert text == "".join(export(store, ids))
    blocks = dict(re.findall(r'<script type="text/plain" data-path="([^"]+)">([^<]+)</script>', text))
    held = {name: gzip.decompress(base64.b64decode(data)).decode() for name, data in blocks.items()}
    site = Site(path)
    for name, found in held.items():
        if name.startswith(("run/", "diff/")):
            assert json.loads(found) == said(site.get(f"api/{name}")), name
    assert len([name for name in held if "/question/" in name]) == 12 and "maths.js" in held
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None and policy[1].startswith("default-src 'none'")
    for tag in ("script", "style"):
        inline = re.findall(rf"<{tag}>(.+?)</{tag}>", text, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in inline]
        assert digests and all(f"'sha256-{each}'" in policy[1] for each in digests)


def test_one_run_opens_at_once_and_without_maths_nothing_typesets() -> None:
    parts = "".join(page.standalone([("index", {"plain": "text"})]))
    assert 'data-path="maths.js"' not in parts
    assert 'data-path="maths.js"' in "".join(page.standalone([("index", {"m": "$x$"})]))


def test_the_command_line_writes_the_file(
    recorded: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    folder = str(recorded[0].parent)
    assert run(["report", recorded[1][0], "--runs", folder, "--html", str(out)]) == 0
    assert out.read_text("utf-8").startswith("<!doctype html>") and "Wrote" in capsys.readouterr().err
    assert run(["report", "--runs", folder, "--html", str(out), "--json"]) == 2
    assert "leave out" in capsys.readouterr().err
    assert run(["report", "--runs", folder, "--html", str(tmp_path / "no" / "page.html")]) in (2, 3)


def test_mistakes_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text("[1]")
    for arguments in (["--runs", str(tmp_path)], ["--model", "no-such-model"], ["nope", "--runs", str(tmp_path)]):
        assert run(["view", *arguments]) in (2, 3)
        error = capsys.readouterr().err
        assert error.startswith("Error: ") and error.count("\n") == 1
    with pytest.raises(ConfigError, match="no frontier"):
        plan_of(plan)
    plan.write_text('{"frontier": []}')
    assert plan_of(plan) == {"frontier": []}


def test_a_port_that_is_taken_is_said(recorded: tuple[Path, list[str]]) -> None:
    with serving(Site(None)) as port, pytest.raises(ConfigError, match="--port"):
        local.serve(Site(None), port, lambda address, shut: shut())


# Outlines ----------------------------------------------------------------------------------------------------------


def test_outlines_are_the_searches_without_what_was_not_selected(recorded: tuple[Path, list[str]]) -> None:
    path, (id, _) = recorded
    with Store(path, readonly=True) as store:
        whole = {search.result.problem.id: search.result for search in store.searches(id)}
        found = {outline.result.problem.id: outline for outline in store.outlines(id)}
        assert found.keys() == whole.keys() == set(store.problems(id))
        for name, outline in found.items():
            result = whole[name]
            assert (outline.result.text, outline.result.usage) == (result.text, result.usage)
            votes = [(c.node.score and c.node.score.value, c.answer, c.answer_class) for c in result.candidates]
            assert list(map(tuple, outline.votes)) == votes


def test_records_remember_finished_runs(recorded: tuple[Path, list[str]]) -> None:
    path, (id, _) = recorded
    kept: dict[tuple[str, ...], tuple[object, object]] = {}
    with Store(path, readonly=True) as store:
        first = Records(store, kept).run(id)
        assert Records(store, kept).run(id) is first
        with pytest.raises(ConfigError):
            Records(store, kept).question(id, "0" * 16)


def test_an_event_is_light_and_says_the_grades() -> None:
    events = viewer_kit.solved(viewer_kit.problem(1), 2)
    node = events[1].node
    assert node is not None
    records = searches.events(events, {node.key: Grade("correct", "same")})
    assert records[-1]["grades"] == {node.key: ["correct", "same"]}
    assert not any(name in json.dumps(records) for name in ("logprobs", "certainty"))
