"""The viewer in a real headless Chromium: what people do, what hostile texts try, what goes over the network."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flyweight.cli.view import Own
from flyweight.store import Store
from flyweight.viewer import asking, drawing, searches
from flyweight.viewer.export import export
from flyweight.viewer.site import Site
from tests import viewer_kit
from tests.browser import MISSING, Browser, chromium
from tests.test_viewer import serving
from tests.viewer_payloads import XSS, hostile

pytestmark = [pytest.mark.browser, pytest.mark.skipif(chromium() is None, reason=MISSING)]

CHOICE = {
    "model": "small",
    "weights": "bf16",
    "strategy": "greedy",
    "settings": {},
    "n": 1,
    "verifier": None,
    "accuracy": 0.3,
    "interval": [0.2, 0.4],
    "questions": 100,
    "source": "measured",
    "seconds": 1.0,
    "memory_bytes": 5e8,
    "flops": 2e11,
    "dollars": None,
    "command": "flyweight solve",
}
SEARCHED = {**CHOICE, "strategy": "best_of_n", "n": 8, "accuracy": 0.42, "interval": [0.3, 0.5], "seconds": 6.0}
PLAN = {
    "frontier": [CHOICE, SEARCHED],
    "recommendation": {**SEARCHED, "reason": "It fits.", "changes": ["less time"]},
    "assumptions": ["two cores"],
}
"""What `flyweight plan --json` prints, as far as it is drawn."""

HERE = """(() => {
  const here = document.querySelector('.path .here')?.cloneNode(true);
  here?.querySelectorAll('.formula').forEach((formula) => formula.remove());
  return here?.textContent;
})()"""
"""The chosen node's text without its formulas, which are typeset some time after it is drawn."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of two ordinary runs and one of hostile texts."""
    folder = tmp_path_factory.mktemp("viewer")
    with Store(folder / "plain.db") as store:
        problems = [viewer_kit.problem(index) for index in range(12)]
        for seed in (0, 1):
            viewer_kit.record(store, problems, 6, seed)
    with Store(folder / "hostile.db") as store:
        named: dict[str, Any] = {
            name: " ".join(XSS[i::4]) for i, name in enumerate(("task", "model", "strategy", "verifier"))
        }
        viewer_kit.traps(
            store, XSS, **named, split=XSS[5], parameters={"n": 1, XSS[6]: XSS[7]}, budget={XSS[8]: XSS[9]}
        )
    return folder


@pytest.fixture(scope="module")
def site(stores: Path) -> Iterator[str]:
    """Address of a server with the toy to ask and a plan."""
    engine = Own("toy")
    with serving(Site(stores / "plain.db", asking=asking.Asking(engine), plan=PLAN)) as port:
        yield f"http://127.0.0.1:{port}/"
    engine.close()


def go(browser: Browser, hash: str, true: str) -> None:
    """Move within the page and wait."""
    browser.run(f"location.hash = {json.dumps(hash)}")
    browser.wait(true)


def unharmed(browser: Browser, own: str) -> None:
    """Nothing ran, nothing was asked of anybody else, nothing broke."""
    assert not browser.of("Page.javascriptDialogOpening")
    asked = [event["request"]["url"] for event in browser.of("Network.requestWillBeSent")]
    assert not [url for url in asked if not url.startswith((own, "data:", "blob:"))]
    assert not browser.of("Runtime.exceptionThrown")
    assert not [each["entry"]["text"] for each in browser.of("Log.entryAdded") if each["entry"]["level"] == "error"]
    planted = "#app :is(img, iframe, object, embed, base, meta, link, script, style, video, audio, form:not(.asking))"
    assert browser.run(f"[...document.querySelectorAll({json.dumps(planted)})].map((e) => e.outerHTML)") == []
    addresses = browser.run("[...document.querySelectorAll('#app a')].map((a) => a.getAttribute('href'))")
    assert all(address.startswith("#/") for address in addresses)
    handlers = (
        "[...document.querySelectorAll('#app *')].some((e) => e.getAttributeNames().some((n) => n.startsWith('on')))"
    )
    assert browser.run(handlers) is False


# What people do ----------------------------------------------------------------------------------------------------


def test_from_the_runs_to_a_search(browser: Browser, site: str) -> None:
    browser.open(site)
    browser.wait("document.querySelectorAll('.run-row .fill').length === 2")
    browser.press("j")
    assert browser.run("document.activeElement.matches('.run-row [data-item]')")
    browser.press("Enter")
    browser.wait("document.querySelectorAll('.question-row').length === 12 && document.querySelector('.keys .main')")
    assert browser.run("document.querySelectorAll('.waffle i').length") == 12
    browser.press("/")
    assert browser.run("document.activeElement.type") == "search"
    browser.write("input[type=search]", "What is 7 ")
    browser.wait("document.querySelectorAll('.question-row').length === 1")
    browser.press("Escape")
    browser.press("j")
    browser.press("Enter")
    browser.wait("document.querySelectorAll('.tree .node').length === 7 && document.querySelector('.asked .katex')")
    assert browser.run("document.querySelectorAll('.votes li').length") > 0
    browser.press("u")
    browser.wait("document.querySelector('.question-row')")
    unharmed(browser, site)


def test_a_search_is_played_back(browser: Browser, site: str, stores: Path) -> None:
    run = address(stores / "plain.db")
    browser.open(f"{site}#/run/{run}/{searches.problem_key('q-00002')}")
    browser.wait("document.querySelectorAll('.tree .node').length === 7")
    end = browser.run("document.querySelector('.transport output').textContent")
    browser.write("input[type=range]", "3")
    browser.wait("document.querySelectorAll('.tree .node').length === 4")
    assert not browser.run("document.querySelector('.tree .selected')")
    browser.press("ArrowRight")
    browser.wait("document.querySelectorAll('.tree .node').length === 5")
    browser.press(" ")
    browser.wait(f"document.querySelector('.transport output').textContent === {json.dumps(end)}")
    browser.wait("document.querySelector('.tree .selected')")
    browser.click(".tree .node:nth-child(3)")
    browser.wait("location.hash.includes('?node=')")
    browser.wait("document.querySelector('.path .here')")
    before, shown = browser.run("location.hash"), browser.run(HERE)
    browser.press("ArrowDown", shift=True)
    browser.wait(f"location.hash !== {json.dumps(before)}")
    browser.wait(f"{HERE} !== {json.dumps(shown)}")  # it has been drawn
    chosen = browser.run(HERE)
    browser.open(browser.run("location.href"))
    browser.wait(f"{HERE} === {json.dumps(chosen)}")  # a link leads back


def test_every_part_of_a_run_is_drawn(browser: Browser, site: str, stores: Path) -> None:
    run = address(stores / "plain.db")
    browser.open(f"{site}#/run/{run}?tab=curves")
    browser.wait("document.querySelectorAll('.curve .line').length === 5 && document.querySelector('.curve .band')")
    go(browser, f"#/run/{run}?tab=scores", "document.querySelectorAll('.histogram rect').length === 40")
    go(browser, f"#/run/{run}?tab=difficulty", "document.querySelectorAll('.bars tr').length > 5")
    go(browser, f"#/run/{run}?tab=setup", "document.querySelector('.setup pre').textContent.includes('best_of_n')")
    go(
        browser,
        "#/plan",
        "document.querySelector('.single.best') && document.querySelectorAll('.plan-row').length === 2",
    )
    go(browser, "#/nowhere", "document.querySelector('.empty')")
    unharmed(browser, site)


def test_two_runs_side_by_side(browser: Browser, site: str) -> None:
    browser.open(site)
    browser.wait("document.querySelectorAll('.run-row').length === 2")
    browser.run("document.querySelectorAll('.run-row input').forEach((box) => box.click())")
    browser.wait("document.querySelector('.tray a')")
    browser.run("document.querySelector('.tray a').click()")
    browser.wait("document.querySelectorAll('.diff-row').length === 12")
    counts = browser.run("[...document.querySelectorAll('.four b')].map((b) => +b.textContent)")
    assert sum(counts) == 12
    browser.click(".four .won")
    browser.wait(f"document.querySelectorAll('.diff-row').length === {counts[1]}")


def test_a_question_is_asked_and_watched(browser: Browser, site: str) -> None:
    browser.open(f"{site}#/ask")
    browser.wait("document.querySelector('textarea')")
    browser.write("textarea", "What is 12 * 17 - 4 + 9 - 2?")
    browser.run(
        "(() => { const s = document.querySelector('.dials select'); s.value = 'beam_search';"
        " s.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    browser.wait("document.querySelector('.dials input[placeholder=\"4\"]')")
    browser.click(".primary")
    browser.wait("document.querySelector('.verdict strong') && document.querySelector('.tree .selected')")
    assert browser.run("document.querySelectorAll('.tree .pruned').length") > 0
    assert "KV reuse" in browser.text() and "%" in browser.run("document.querySelector('.meters').textContent")
    browser.write("input[type=range]", "4")
    browser.wait("document.querySelectorAll('.tree .node').length < 6")  # what was watched can be played back
    unharmed(browser, site)


@pytest.mark.parametrize(("width", "dark"), [(360, False), (768, True), (1280, True)])
def test_every_page_fits_every_screen(browser: Browser, site: str, stores: Path, width: int, dark: bool) -> None:
    run = address(stores / "plain.db")
    browser.resize(width, 800)
    browser.dark(dark)
    browser.open(site)
    seen = {
        "#/": ".run-row",
        f"#/run/{run}": ".question-row",
        f"#/run/{run}?tab=curves": ".curve",
        f"#/run/{run}/{searches.problem_key('q-00001')}": ".tree .node",
        "#/plan": ".plan-row",
        "#/ask": ".asking",
    }
    try:
        for hash, element in seen.items():
            go(browser, hash, f"document.querySelector({json.dumps(element)})")
            wide = browser.run("document.documentElement.scrollWidth")
            assert wide <= width, f"{hash} is {wide} wide"
        shade = browser.run("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0] | 0")
        assert (shade < 60) is dark
        for theme in ("light", "dark", "auto"):
            browser.press("t")
            browser.wait(f"document.documentElement.dataset.theme === '{theme}'")
    finally:
        browser.resize(1280, 860)
        browser.dark(False)


# What hostile texts try --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["served", "exported"])
def test_sixty_payloads_do_nothing(browser: Browser, stores: Path, tmp_path: Path, mode: str) -> None:
    store = stores / "hostile.db"
    run = address(store)
    if mode == "served":
        with serving(Site(store)) as port:
            visit(browser, f"http://127.0.0.1:{port}/", run)
    else:
        page = tmp_path / "page.html"
        with Store(store, readonly=True) as opened:
            page.write_text("".join(export(opened, [run])), "utf-8")
        visit(browser, page.as_uri(), run)


def visit(browser: Browser, own: str, run: str) -> None:
    """Every page on which a payload may stand; each is shown as the text it is."""
    browser.open(f"{own}#/")
    browser.wait("document.querySelector('.run-row') || document.querySelector('.question-row')")
    unharmed(browser, own)
    for tab in ("curves", "scores", "difficulty", "setup"):
        go(browser, f"#/run/{run}?tab={tab}", f"document.querySelector('[aria-current][href$={json.dumps(tab)}]')")
        unharmed(browser, own)
    go(browser, f"#/run/{run}", f"document.querySelectorAll('.question-row').length === {len(XSS) + 1}")
    unharmed(browser, own)
    # One search holds them all as its steps and as its answers; some have one of their own.
    go(browser, f"#/run/{run}/{searches.problem_key('all')}", f"document.querySelectorAll('.step').length > {len(XSS)}")
    steps = browser.run("[...document.querySelectorAll('.step .prose')].map((e) => e.textContent)")
    assert sum(any(text in step for step in steps) for text in XSS[:40]) >= 38
    unharmed(browser, own)
    for index in range(0, len(XSS), 9):
        key = searches.problem_key(f"{index}: {XSS[index]}")
        go(browser, f"#/run/{run}/{key}", f"document.querySelector('.path .here') && location.hash.endsWith('{key}')")
        browser.wait(f"document.querySelector('.asked')?.textContent.includes('question {index}')")
    unharmed(browser, own)


def test_hostile_strings_are_shown_as_what_they_are(browser: Browser, tmp_path: Path) -> None:
    texts = [text for text in hostile() if text.strip()]
    path = tmp_path / "flyweight.db"
    with Store(path) as store:
        run = viewer_kit.traps(store, texts[:40])
    with serving(Site(path)) as port:
        own = f"http://127.0.0.1:{port}/"
        browser.open(f"{own}#/run/{run}")
        browser.wait("document.querySelectorAll('.question-row').length === 41")
        for index in (0, 1, 4, 5, 6, 8, 10, 11, 13):
            key = searches.problem_key(f"{index}: {texts[index]}")
            go(
                browser,
                f"#/run/{run}/{key}",
                f"document.querySelector('.path .here') && location.hash.endsWith('{key}')",
            )
            browser.wait(f"document.querySelector('.asked')?.textContent.includes('question {index}')")
            browser.wait("globalThis.flyweightMaths")
            shown = browser.run("document.body.innerText")
            assert [c for c in "\x00\x07\x08\x1b\x9b\u202e\u2066\x7f" if c in shown] == [], texts[index]
        unharmed(browser, own)


# One drawing -------------------------------------------------------------------------------------------------------


def test_the_page_and_the_notebook_place_nodes_alike(browser: Browser, stores: Path, tmp_path: Path) -> None:
    path = tmp_path / "flyweight.db"
    with Store(path) as store:
        run = store.run({"task": "kit", "model": "toy", "strategy": "beam_search"})
        events = list(viewer_kit.grown(60))
        for event in events:
            run(event)
    nodes = [event.node for event in events if event.node is not None]
    children: dict[str, list[str]] = {}
    for node in nodes:
        if node.parent is not None:
            children.setdefault(node.parent.key, []).append(node.key)
    expected = drawing.layout([nodes[0].key], children)
    with serving(Site(path)) as port:
        browser.open(f"http://127.0.0.1:{port}/#/run/{run.id}/{searches.problem_key(events[0].problem_id)}")
        browser.wait(f"document.querySelectorAll('.tree .node').length === {len(nodes)}")
        drawn = browser.run("[...document.querySelectorAll('.tree .node')].map((n) => n.style.transform)")
    points = [tuple(float(part.strip(" px")) for part in each[10:-1].split(",")) for each in drawn]
    column, gap = ratio(points, [expected.place[node.key] for node in nodes])
    for (x, y), node in zip(points, nodes, strict=True):
        row, depth = expected.place[node.key]
        assert x == pytest.approx(26 + depth * column, abs=0.2) and y == pytest.approx(20 + (row + 0.5) * gap, abs=0.2)


def ratio(points: list[tuple[float, ...]], places: list[tuple[float, int]]) -> tuple[float, float]:
    """Pixels per depth and per row."""
    deep = max(range(len(places)), key=lambda i: places[i][1])
    low = max(range(len(places)), key=lambda i: places[i][0])
    return (points[deep][0] - 26) / places[deep][1], (points[low][1] - 20) / (places[low][0] + 0.5)


def address(path: Path) -> str:
    """The id of the store's last run."""
    with Store(path, readonly=True) as store:
        return store.runs()[-1].id
