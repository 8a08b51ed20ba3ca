"""The pictures: the same bytes every time, nothing overlapping, readable on light and dark."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flyweight.errors import ConfigError
from flyweight.report import plots
from flyweight.report.plots import _spread, _ticks
from flyweight.store import Store
from tests.report.report_kit import Found, Said, opened, report, small, spent, write


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path) as store:
        yield store


def crowded(store: Store) -> None:
    """Four verifiers, as many other strategies, some at the same cost."""
    for number, verifier in enumerate(("arithmetic", "confidence", "p_true", "self-certainty")):
        pool = {
            f"p{i}": Found(
                [Said("RW"[i * j % 3 == 0], j % 3, ((i + number) * j % 7) / 7) for j in range(8)],
                usage=spent(1000, 20, 800, 4.0, 9),
            )
            for i in range(9)
        }
        write(store, "best_of_n", pool, n=8, verifier=verifier)
    for number, strategy in enumerate(("greedy", "dvts", "beam_search", "adaptive_consistency")):
        for n in (4, 8):
            usage = spent(1000, 20, 100 * n, n / 2)
            write(store, strategy, {f"p{i}": Found([Said("RW"[(i + number) % 2])], usage=usage) for i in range(9)}, n=n)


def sparse(store: Store) -> None:
    """A pool far up, a point right under its curves, and far below two points at the same place."""
    pool = {f"p{i}": Found([Said("R"), Said("R")], usage=spent(1000, 20, 800, 4.0)) for i in range(90)}
    write(store, "self_consistency", pool, n=2)
    for strategy in ("dvts", "beam_search"):
        found = {f"p{i}": Found([Said("RWWW"[i % 4])], usage=spent(1000, 20, 550, 2.5)) for i in range(90)}
        write(store, strategy, found)
    near = {f"p{i}": Found([Said("W" if i == 7 else "R")], usage=spent(1000, 20, 500, 2.3)) for i in range(90)}
    write(store, "adaptive_consistency", near)


def free(store: Store) -> None:
    """Nothing cost anything."""
    write(store, "self_consistency", {f"p{i}": Found([Said("R"), Said("W", 1)]) for i in range(9)}, n=2)
    write(store, "greedy", {f"p{i}": Found([Said("W")]) for i in range(9)})


def test_an_svg_is_well_formed_and_dateless(store: Store) -> None:
    pytest.importorskip("matplotlib")
    small(store)
    text = report(store).svg()
    root = ElementTree.fromstring(text)
    words = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {
        "coverage",
        "majority",
        "random choice",
        "best by v",
        "big greedy",
        "generated tokens per question",
    } <= words
    assert "metadata" not in text and "DOCTYPE" not in text and not re.search(r"20\d\d-\d\d", text)


@pytest.mark.parametrize(("scene", "panels", "names"), [(crowded, 3, 11 + 8), (sparse, 3, 3 + 3), (free, 1, 3 + 1)])
def test_nothing_written_overlaps(store: Store, scene: Callable[[Store], None], panels: int, names: int) -> None:
    """Words are within the picture, off each other and off every line; a line to a name keeps to its panel's height."""
    pytest.importorskip("matplotlib")
    scene(store)
    made = report(store)
    drawn = [(section, pool) for section in made.sections for pool in section.pools]
    with plots.settings():
        figure = plots.figure(drawn)
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()
        width, height = figure.canvas.get_width_height()
        assert len(figure.axes) == panels
        for ax in figure.axes:
            low, high = ax.get_ylim()
            heights = [tick for tick in ax.get_yticklabels() if low <= tick.get_position()[1] <= high]
            texts = [*ax.texts, *ax.get_xticklabels(), *heights, ax.xaxis.label, ax.yaxis.label, ax.title]
            boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_text()]
            assert len(ax.texts) == names
            for i, (name, box) in enumerate(boxes):
                assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height, name
                for other, second in boxes[:i]:
                    assert not box.overlaps(second), f"{name} on {other}"
            for line in ax.lines:
                along = line.get_path().transformed(line.get_transform()).interpolated(100).vertices
                assert not any(box.count_contains(along) for _, box in boxes)
            leaders = [line for line in ax.lines if line.get_transform() == ax.transAxes]
            assert leaders and all(-0.05 <= y <= 1.05 for line in leaders for y in line.get_ydata())


def test_nothing_to_draw(store: Store) -> None:
    pytest.importorskip("matplotlib")
    write(store, "greedy", {"p": Found([Said("R")])})
    with pytest.raises(ConfigError, match="nothing to draw"):
        report(store).svg()


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [plots.INK, plots.OTHERS, *plots.COLOURS, *(c for c, _ in plots.PLAIN.values())])
def test_colours_are_seen_on_light_and_dark(colour: str) -> None:
    """At least 3 to 1 on white and on the dark ground of the page, as WCAG 2 asks of graphics."""
    on_white = 1.05 / (luminance(colour) + 0.05)
    on_dark = (luminance(colour) + 0.05) / (luminance("#14171b") + 0.05)
    assert on_white >= 3 and on_dark >= 3


def test_labels_spread_no_further_than_they_must() -> None:
    assert _spread([0, 50, 100], 10, 0, 100) == [0, 50, 100]
    assert _spread([50, 50, 52], 10, 0, 100) == pytest.approx([122 / 3, 152 / 3, 182 / 3])
    assert _spread([0, 1, 100], 10, 0, 100) == [0, 10, 100]
    assert _spread([99, 99], 10, 0, 100) == [90, 100]
    assert _spread([], 10, 0, 100) == []


@pytest.mark.parametrize("limits", [(50, 900), (8.1e5, 1.65e6), (1e5, 1e12), (0.005, 0.4), (100, 101), (0.9, 1e9)])
def test_an_axis_has_enough_numbers_and_room_for_them(limits: tuple[float, float]) -> None:
    low, high = limits
    ticks = _ticks(low, high)
    gaps = [math.log(b / a) / math.log(high / low) for a, b in itertools.pairwise(ticks)]
    assert len(ticks) >= 3 and min(gaps) >= 0.05 and low <= ticks[0] and ticks[-1] <= high


def test_an_axis_beyond_all_measure_has_none() -> None:
    assert _ticks(1, 1e40) == []
