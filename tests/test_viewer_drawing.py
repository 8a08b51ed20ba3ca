"""What notebooks show: the layout against a naive one, what is drawn of a Result and of a Run."""

from __future__ import annotations

import random
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import flyweight
from flyweight.store import Store
from flyweight.types import Problem, Result, Stopped
from flyweight.viewer import drawing, page
from flyweight.viewer.animation import animated
from tests import viewer_kit
from tests.viewer_payloads import XSS


def naive(key: str, children: dict[str, list[str]], rows: list[int], depth: int = 0) -> dict[str, tuple[float, int]]:
    """Rows and depths by recursion."""
    below = children.get(key, [])
    found: dict[str, tuple[float, int]] = {}
    for child in below:
        found |= naive(child, children, rows, depth + 1)
    if below:
        row = (found[below[0]][0] + found[below[-1]][0]) / 2
    else:
        row = float(rows[0])
        rows[0] += 1
    return found | {key: (row, depth)}


@pytest.mark.parametrize("seed", range(20))
def test_the_layout_is_that_of_recursion(seed: int) -> None:
    rng = random.Random(seed)
    children: dict[str, list[str]] = {}
    for index in range(1, rng.randrange(2, 60)):
        children.setdefault(str(rng.randrange(index)), []).append(str(index))
    rows = [0]
    expected = naive("0", children, rows)
    found = drawing.layout(["0"], children)
    assert found.place == expected and found.rows == rows[0]
    assert found.depth == max(depth for _, depth in expected.values())


def test_a_path_of_any_length_is_laid_out() -> None:
    children = {str(index): [str(index + 1)] for index in range(5000)}
    assert drawing.layout(["0"], children).depth == 5000


def test_colours_are_those_of_the_page() -> None:
    style = page.asset("page.css").lower()
    light = style[
        : style.index('data-theme="dark"') if 'data-theme="dark"' in style else style.index("data-theme=dark")
    ]
    for name in ("PAPER", "INK", "SOFT", "LINE", "EDGE", "ACCENT", "RIGHT", "WRONG", "MAYBE"):
        assert getattr(drawing, name) in light, name
    assert all(colour in light for colour in drawing.HEAT)


def svgs(html: str) -> list[ElementTree.Element]:
    """The pictures in it, which must be well-formed."""
    return [ElementTree.fromstring(found) for found in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def test_a_result_draws_its_tree_and_its_votes() -> None:
    result = flyweight.solve("What is 12 * 17 - 4 + 9?", model="toy", strategy="beam_search", n=8)
    tree, votes = svgs(result._repr_html_())
    kinds = [element.tag.rpartition("}")[2] for element in tree.iter()]
    paths = {node.key for c in result.candidates for node in (c.node.root, *c.node.steps)}
    assert kinds.count("circle") + kinds.count("rect") == len(paths) and kinds.count("path") == len(paths) - 1
    counted = [text.text for text in votes.iter() if text.tag.endswith("text") and text.get("text-anchor") == "end"]
    assert sum(map(int, filter(None, counted))) == sum(c.answer_class is not None for c in result.candidates)
    assert f"{result.usage.generated_tokens:,} tokens" in result._repr_html_()


def test_a_large_search_is_drawn_in_part() -> None:
    events = list(viewer_kit.grown(1500))
    (tree, _) = svgs(events[-1].facts["result"]._repr_html_())  # type: ignore[attr-defined]
    dots = sum(element.tag.endswith("circle") for element in tree.iter())
    assert 100 < dots <= drawing.MOST


def test_a_result_without_anything_still_shows() -> None:
    shown = Result(Problem("x", "?"), None, None, stopped=Stopped.ERROR, error="it <b>broke</b>")._repr_html_()
    assert "no answer" in shown and "&lt;b&gt;" in shown and "<svg" not in shown


def test_a_run_shows_a_square_for_each_question(tmp_path: Path) -> None:
    with Store(tmp_path / "flyweight.db") as store:
        viewer_kit.record(store, [viewer_kit.problem(index) for index in range(7)], 3)
        run = store.run(dict(store.runs()[0].configuration))
        (squares,) = svgs(run._repr_html_())
        colours = [element.get("fill") for element in squares.iter() if element.tag.endswith("rect")]
        results = list(store.results(run.id))
        right = sum(viewer_kit.grade(each.problem, each.text).value == "correct" for each in results)
        assert len(colours) == 7 and colours.count(drawing.RIGHT) == right
        empty = store.run({"task": "kit", "model": "toy", "strategy": "greedy"})
        assert "no question" in empty._repr_html_()


@pytest.mark.parametrize("text", XSS)
def test_payloads_are_text(text: str) -> None:
    result = viewer_kit.trap(1, text)[-1].facts["result"]
    shown = result._repr_html_()  # type: ignore[attr-defined]
    tags = set(re.findall(r"<(\w+)", shown))
    assert tags <= {"b", "circle", "details", "div", "path", "pre", "rect", "span", "summary", "svg", "text", "title"}
    svgs(shown)


def test_a_search_that_moves_ends_with_everything_drawn() -> None:
    events = [event for event in viewer_kit.grown(40) if event.kind != "progress"]
    document = animated(events)
    assert len(document) < 40_000 and "<script" not in document
    tree = ElementTree.fromstring(document)
    kinds = [element.tag.rpartition("}")[2] for element in tree.iter()]
    assert kinds.count("circle") == 40 + 1 and kinds.count("rect") == 2  # the selected one stands above its own dot
    last = [element.text for element in tree.iter() if element.get("opacity") == "1"]
    assert last == [f"{12 * 40} tokens"]
    for element in tree.iter():
        times = [float(each) for each in (element.get("keyTimes") or "0;1").split(";")]
        assert times == sorted(times) and times[0] == 0
        assert times[-1] == 1 or element.get("calcMode") == "discrete"


def test_what_has_no_end_cannot_move() -> None:
    with pytest.raises(ValueError, match="end"):
        animated(list(viewer_kit.grown(5))[:-1])
