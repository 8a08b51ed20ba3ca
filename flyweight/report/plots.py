"""Accuracy against tokens, operations and seconds, drawn with matplotlib (`pip install 'flyweight[plots]'`).

The same figures give the same bytes. Colours are of middle lightness, to be read on white and on black.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from flyweight.errors import ConfigError
from flyweight.report.numbers import Row, Section
from flyweight.report.page import curve_name, title
from flyweight.report.pools import Pool
from flyweight.report.words import operations
from flyweight.stats import Interval

__all__ = ["MISSING", "available", "figure", "png", "settings", "svg"]

MISSING = "pip install 'flyweight[plots]'"

INK = "#7d828a"
PLAIN = {"random": ("#8a8f98", ":"), "coverage": ("#8a8f98", "--"), "majority": ("#3b82c8", "-")}
COLOURS = ("#c9771e", "#2f9e62", "#a866cc", "#d4554d", "#1f99a8", "#9a8a1c")
"""Of verifiers: solid for their best, dash-dotted for the vote they weigh."""
OTHERS = "#cf5f92"
"""Of runs that are points."""

WIDTH, HEIGHT, BETWEEN = 8.6, 2.3, 0.85
"""Of a panel with its margins, without them, and from one to the next, in inches."""
TEXT = 8.0
"""Size of labels, in points."""
LINE = 11.5
"""Distance between labels, in points."""
APART = 0.09
"""Least distance of numbers along an axis, as a share of it."""
LONGEST = 36
"""Characters of a label."""
AROUND = (
    (5, 0, "left", "center"),
    (-5, 0, "right", "center"),
    (5, 5, "left", "bottom"),
    (5, -5, "left", "top"),
    (-5, 5, "right", "bottom"),
    (-5, -5, "right", "top"),
    (5, 16, "left", "bottom"),
    (5, -16, "left", "top"),
    (-5, 16, "right", "bottom"),
    (-5, -16, "right", "top"),
)
"""Where a point may be named: offset in points, and which side of the text is there."""


class _Mark(NamedTuple):
    """A run that is a point."""

    name: str
    x: float
    y: Interval


class _End(NamedTuple):
    """What a name in the margin belongs to."""

    name: str
    x: float
    y: float
    colour: str


class _Line(NamedTuple):
    """What names must not lie on."""

    xs: Sequence[float]
    ys: Sequence[float]
    where: Any
    """The transformation to pixels."""


class _Panel(NamedTuple):
    """What the curves are drawn against."""

    field: str
    run_field: str
    text: str
    tick: Callable[[float], str]


PANELS = (
    _Panel("tokens", "generated_tokens", "generated tokens per question", "{:,.6g}".format),
    _Panel(
        "flops", "flops", "floating-point operations per question", lambda value: operations(value).replace(".00", "")
    ),
    _Panel("seconds", "seconds", "seconds per question", "{:,.6g}".format),
)


def available() -> bool:
    """Whether matplotlib is there."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


def svg(drawn: Sequence[tuple[Section, Pool]], *, inline: str | None = None) -> str:
    """The pools' panels, below each other. `inline` names the picture within a page: the element alone, text in the
    page's colour.

    ConfigError without matplotlib, or for no pool.
    """
    text = _saved(drawn, "svg", {}).decode()
    text = re.sub(r"<!DOCTYPE.*?>\s*", "", text, count=1, flags=re.DOTALL)
    # The date and matplotlib's version.
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    if inline is None:
        return text
    text = re.sub(r"<\?xml.*?\?>\s*", "", text, count=1).replace(INK, "currentColor")
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\1{inline}-", text).strip()


def png(drawn: Sequence[tuple[Section, Pool]]) -> bytes:
    """The same on white, at 150 points per inch; errors as of `svg`."""
    return _saved(drawn, "png", {"Software": None})


def _saved(drawn: Sequence[tuple[Section, Pool]], kind: str, metadata: dict[str, None]) -> bytes:
    if not available():
        raise ConfigError(f"pictures need matplotlib: {MISSING}")
    if not drawn:
        raise ConfigError(
            "nothing to draw: no run of self_consistency, best_of_n or weighted_best_of_n without a budget"
        )
    file = io.BytesIO()
    with settings():
        # An SVG has no ground of its own: the page shows through.
        figure(drawn).savefig(file, format=kind, metadata=metadata, transparent=kind == "svg")
    return file.getvalue()


def figure(drawn: Sequence[tuple[Section, Pool]]) -> Any:
    """The matplotlib figure, to be made and saved within `settings`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [(*each, panel) for each in drawn for panel in PANELS if _measured(*each, panel)]
    names = max(len(pool.curves) + len(_marks(section, pool, PANELS[0])) for section, pool in drawn)
    inner = max(HEIGHT, LINE * names / 72)
    height = (inner + BETWEEN) * len(panels)
    made = Figure(figsize=(WIDTH, height), dpi=150)
    FigureCanvasAgg(made)
    made.subplots_adjust(
        left=0.62 / WIDTH, right=1 - 2.5 / WIDTH, top=1 - 0.35 / height, bottom=0.5 / height, hspace=BETWEEN / inner
    )
    for ax, (section, pool, panel) in zip(made.subplots(len(panels), 1, squeeze=False)[:, 0], panels, strict=True):
        _draw(ax, section, pool, panel)
    return made


@contextmanager
def settings() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's are."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script the font lacks is drawn as boxes
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(
            {
                "svg.hashsalt": "flyweight",
                "svg.fonttype": "none",
                "font.family": "sans-serif",
                "font.size": TEXT,
                "text.parse_math": False,
                "axes.edgecolor": INK,
                "axes.labelcolor": INK,
                "xtick.color": INK,
                "ytick.color": INK,
                "text.color": INK,
                "axes.spines.top": False,
                "axes.spines.right": False,
            }
        )
        yield


def _measured(section: Section, pool: Pool, panel: _Panel) -> bool:
    """Whether there is something to draw against; tokens always are."""
    return panel is PANELS[0] or any(getattr(p, panel.field) for p in pool.curves[0].points)


def _draw(ax: Any, section: Section, pool: Pool, panel: _Panel) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
    from matplotlib.transforms import ScaledTranslation

    colours = _colours(pool)
    margin: list[_End] = []
    lines: list[_Line] = []
    for place, curve in enumerate(pool.curves):
        colour, style = colours[curve.kind, curve.verifier]
        xs = [getattr(point, panel.field) for point in curve.points]
        ys = [100 * point.accuracy.value for point in curve.points]
        ax.plot(xs, ys, style, color=colour, linewidth=1.4, zorder=3)
        lines.append(_Line(xs, ys, ax.transData))
        # Side by side where they are at the same k.
        aside = ax.transData + ScaledTranslation(
            1.6 * (place - len(pool.curves) / 2) / 72, 0, ax.figure.dpi_scale_trans
        )
        for point in curve.points:
            if curve.kind != "random" and (point.k & (point.k - 1) == 0 or point is curve.points[-1]):
                lines.append(_interval(ax, getattr(point, panel.field), point.accuracy, colour, aside))
        margin.append(_End(curve_name(curve), xs[-1], ys[-1], colour))
    marks = _marks(section, pool, panel)
    for mark in marks:
        lines.append(_interval(ax, mark.x, mark.y, OTHERS, ax.transData))
        ax.plot([mark.x], [100 * mark.y.value], "o", color=OTHERS, markersize=4.5, zorder=4)
    ends = [x for line in lines for x in line.xs]
    if min(ends) > 0:
        ax.set_xscale("log")
    ax.margins(x=0.04, y=0.06)
    if min(ends) > 0:
        ticks = _ticks(*ax.get_xlim())
        ax.xaxis.set_major_locator(FixedLocator(ticks))
        ax.xaxis.set_major_formatter(FixedFormatter([panel.tick(tick) for tick in ticks]))
        ax.xaxis.set_minor_locator(NullLocator())
    # Names are placed in pixels: from here on nothing moves.
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    ax.set_xlabel(panel.text)
    ax.set_ylabel("accuracy, %")
    if panel is PANELS[0]:
        ax.set_title(f"{title(section)}, {pool.model}", loc="left", fontsize=TEXT + 1)
    ax.grid(axis="y", color=INK, alpha=0.25, linewidth=0.5)
    _name(ax, margin, marks, lines)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between the limits: as many leading digits of every power of ten as stay apart."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    leading = (range(1, 10), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,))
    found = [[digit * 10.0**power for power in powers for digit in digits] for digits in leading]
    # Where the limits are near each other: equal steps.
    for step in (size * 10.0 ** math.floor(math.log10((high - low) / 4)) for size in (1, 2, 5)):
        found.append([step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)])
    apart = []
    for ticks in ([tick for tick in ticks if low <= tick <= high] for ticks in found):
        gaps = [math.log(b / a) / math.log(high / low) for a, b in itertools.pairwise(ticks)]
        if min(gaps, default=1.0) >= APART:
            apart.append(ticks)
    return next((ticks for ticks in apart if len(ticks) > 2), max(apart, key=len, default=[]))


def _interval(ax: Any, x: float, y: Interval, colour: str, where: Any) -> _Line:
    """Draws an upright line; where it is in the data."""
    shown = {"color": colour, "linewidth": 0.8, "alpha": 0.5, "zorder": 2}
    xs, ys = (x, x), (100 * y.low, 100 * y.high)
    ax.plot(xs, ys, "-", transform=where, **shown)
    ax.update_datalim(list(zip(xs, ys, strict=True)))
    return _Line(xs, ys, where)


def _colours(pool: Pool) -> dict[tuple[str, str | None], tuple[str, str]]:
    judges = sorted({curve.verifier for curve in pool.curves if curve.verifier is not None})
    mine: dict[tuple[str, str | None], tuple[str, str]] = {(kind, None): look for kind, look in PLAIN.items()}
    for place, judge in enumerate(judges):
        colour = COLOURS[place % len(COLOURS)]
        mine |= {("best", judge): (colour, "-"), ("vote", judge): (colour, "-.")}
    return mine


def _marks(section: Section, pool: Pool, panel: _Panel) -> list[_Mark]:
    """The model's runs that draw otherwise than the pool, and bigger models' greedy."""
    bigger = {run for entry in section.bigger if entry.model == pool.model for run in entry.runs}
    elsewhere = {run for other in section.pools for run in other.runs}
    rows = [row for row in section.rows if row.run in bigger or (row.model == pool.model and row.run not in elsewhere)]
    at = ((row, getattr(row, panel.run_field)) for row in rows)
    return [_Mark(_named(row, pool), x, row.accuracy) for row, x in at if x is not None]


def _named(row: Row, pool: Pool) -> str:
    return row.label if row.model == pool.model else f"{row.model} {row.label}"


def _name(ax: Any, ends: Sequence[_End], marks: Sequence[_Mark], lines: Sequence[_Line]) -> None:
    """Names everything: curves in the margin, points beside themselves where there is room, else in the margin too."""
    taken = [pixel for xs, ys, where in lines for pixel in _along(where.transform(list(zip(xs, ys, strict=True))))]
    margin, beside = list(ends), list(marks)
    while True:
        leaders = [pixel for leader in _leaders(ax, margin) for pixel in _along(leader[1:])]
        stuck = _beside(ax, beside, [*taken, *leaders])
        if stuck is None:
            break
        beside.remove(stuck)
        margin.append(_End(stuck.name, stuck.x, 100 * stuck.y.value, OTHERS))
    for end, start, stop in _leaders(ax, margin):
        (x, y), (to_x, to_y) = ax.transAxes.inverted().transform([start, stop])
        line = {"color": end.colour, "linewidth": 0.5, "alpha": 0.55, "clip_on": False, "transform": ax.transAxes}
        ax.plot([x, to_x], [y, to_y], "-", **line)
        placed = {"transform": ax.transAxes, "va": "center", "ha": "left"}
        ax.text(to_x + 0.01, to_y, _short(end.name), color=end.colour, fontsize=TEXT, **placed)


def _beside(ax: Any, marks: Sequence[_Mark], taken: Sequence[Any]) -> _Mark | None:
    """Names points where the plot is free around them. If it is not around one, that is what comes back, none named."""
    renderer = ax.figure.canvas.get_renderer()
    frame = ax.get_window_extent()
    boxes: list[Any] = []
    texts: list[Any] = []
    for mark in marks:
        text = ax.annotate(
            _short(mark.name),
            (mark.x, 100 * mark.y.value),
            xytext=(0, 0),
            textcoords="offset points",
            color=OTHERS,
            fontsize=TEXT,
        )
        texts.append(text)
        for dx, dy, across, up in AROUND:
            text.set(position=(dx, dy), ha=across, va=up)
            box = text.get_window_extent(renderer).padded(2)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not box.count_contains(taken) and not box.count_overlaps(boxes):
                boxes.append(box)
                break
        else:
            for drawn in texts:
                drawn.remove()
            return mark
    return None


def _along(corners: Sequence[Any]) -> list[Any]:
    """Points along a line in pixels, closer together than letters are high."""
    pixels = [*corners]
    for (x, y), (to_x, to_y) in itertools.pairwise(corners):
        parts = int(math.hypot(to_x - x, to_y - y) / 4) + 1
        pixels += [(x + (to_x - x) * i / parts, y + (to_y - y) * i / parts) for i in range(1, parts)]
    return pixels


def _leaders(ax: Any, ends: Sequence[_End]) -> list[tuple[_End, Any, Any]]:
    """What has its name in the margin, with the line to it in pixels: as near to its own height as all of them fit."""
    box = ax.get_window_extent()
    starts = [ax.transData.transform((end.x, end.y)) for end in ends]
    order = sorted(range(len(ends)), key=lambda i: (float(starts[i][1]), ends[i].name))
    gap = LINE * ax.figure.dpi / 72
    places = _spread([float(starts[i][1]) for i in order], gap, float(box.y0), float(box.y1))
    edge = box.x0 + 1.045 * (box.x1 - box.x0)
    return [(ends[i], starts[i], (edge, place)) for i, place in zip(order, places, strict=True)]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Ascending places at least `gap` apart, as near to the wanted ones as may be, within the bounds if they fit.

    Neighbours that are too close form a block, which stands at the mean of what its members want (isotonic
    regression by pooling of adjacent violators).
    """
    blocks: list[list[float]] = []  # of each: sum of (wanted - offset), members
    for index, value in enumerate(wanted):
        blocks.append([value - index * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, members = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += members
    bases = [total / members for total, members in blocks for _ in range(int(members))]
    top = max(low, high - gap * (len(wanted) - 1))
    return [min(max(base, low), top) + index * gap for index, base in enumerate(bases)]
