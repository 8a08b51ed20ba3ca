"""The viewer's tree and votes as SVG without a script: what notebooks show of a Result and of a Run.

Places, shapes and colours are those of the page (viewer-src/src/layout.js, tree.js, style.css, its light palette).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

from flyweight.bench.graded import identity
from flyweight.report import words
from flyweight.stats import wilson
from flyweight.store import Run
from flyweight.types import Candidate, Finish, Node, Result

__all__ = ["Layout", "layout", "result", "run", "tree"]

PAPER, INK, SOFT, LINE, EDGE = "#faf8f4", "#1d1b18", "#5d574d", "#e5dfd3", "#cfc8ba"
ACCENT, RIGHT, WRONG, MAYBE = "#3346c8", "#0f7b5c", "#c0432b", "#a8730a"
HEAT = ("#ece3d0", "#e3dcc6", "#d2d6bf", "#bccfb9", "#a1c5b3", "#84b8ac", "#66a8a3", "#499599", "#2f7f8b", "#1c6879")
"""Colours of scores from 0 to 1."""
FONT = "system-ui, sans-serif"
LEFT, LABEL = 26, 92
SHOWN = 8
"""Answer classes that are named."""
MOST = 400
"""Nodes that a notebook can bear: of a larger search the paths of the most voted answers are drawn."""


class Layout(NamedTuple):
    """Where the nodes stand."""

    rows: int
    depth: int
    place: Mapping[str, tuple[float, int]]
    """Key -> row and depth."""


def layout(roots: Sequence[str], children: Mapping[str, Sequence[str]]) -> Layout:
    """Leaves on consecutive rows, a parent in the middle between its first and last child."""
    place: dict[str, tuple[float, int]] = {}
    rows = deepest = 0
    for root in roots:
        stack = [(root, 0, iter(children.get(root, ())))]
        while stack:  # no recursion: a path may be thousands of steps long
            key, depth, below = stack[-1]
            deepest = max(deepest, depth)
            child = next(below, None)
            if child is not None:
                stack.append((child, depth + 1, iter(children.get(child, ()))))
                continue
            stack.pop()
            own = children.get(key, ())
            if own:
                place[key] = (place[own[0]][0] + place[own[-1]][0]) / 2, depth
            else:
                place[key] = rows, depth
                rows += 1
    return Layout(rows, deepest, place)


def result(found: Result) -> str:
    """A Result for a notebook: what was selected, the tree of its candidates, the votes, what it cost."""
    usage = found.usage
    cost = [f"{usage.generated_tokens:,} tokens drawn", f"{usage.policy_calls:,} calls", f"{usage.seconds:.1f} s"]
    if usage.prompt_tokens + usage.cached_tokens:
        cost.append(f"KV reuse {usage.cached_tokens / (usage.prompt_tokens + usage.cached_tokens):.0%}")
    said = "no answer" if found.answer is None else _short(found.answer, 60)
    sure = "" if found.confidence is None else f" · confidence {found.confidence:.2f}"
    head = f"<b>{_text(said)}</b> <span style='color:{SOFT}'>{_text(found.stopped.value + sure)}</span>"
    if found.error:
        head += f" <span style='color:{WRONG}'>{_text(_short(found.error, 200))}</span>"
    drawn = (
        f"<div style='display:flex;flex-wrap:wrap;gap:24px'>{tree(found)}{_votes(found.candidates, found.best)}</div>"
    )
    whole = f"<pre style='white-space:pre-wrap'>{_text(found.text)}</pre>"
    text = f"<details><summary>the selected solution</summary>{whole}</details>"
    return _card(head, drawn if found.candidates else "", " · ".join(cost), text if found.text else "")


def run(found: Run) -> str:
    """A Run for a notebook: accuracy so far, and a square for each question."""
    asked = found.info.configuration
    grader = found.grader(identity(asked))
    marks, titles = [], []
    for outline in found.outlines():
        searched = outline.result
        grade = None
        if searched.best is not None and searched.answer is not None:
            grade = grader.known(searched.problem, [searched.best])[0]
        silent = searched.best is None or searched.answer is None
        marks.append("wrong" if silent else "ungraded" if grade is None else grade.value)
        titles.append(f"{searched.problem.id}: {searched.answer}")
    name = " ".join(str(asked[key]) for key in ("strategy", "task", "model") if key in asked)
    head = f"<b>{_text(name or 'Run')}</b> <span style='color:{SOFT}'>{_text(found.id)}</span>"
    if not marks:
        return _card(head, "", "no question searched so far", "")
    said = f"{len(marks):,} questions"
    if "ungraded" not in marks:
        said += f" · {words.between(wilson(marks.count('correct'), len(marks)))} right"
    return _card(head, _squares(marks, titles), said, "")


def tree(found: Result, width: int = 560) -> str:
    """The paths of the candidates as an SVG element."""
    nodes = _nodes(found)
    if len(nodes) < 2:
        return ""
    children: dict[str, list[str]] = {}
    for node in nodes.values():
        if node.parent is not None:
            children.setdefault(node.parent.key, []).append(node.key)
    roots = [key for key, node in nodes.items() if node.parent is None]
    at = layout(roots, children)
    gap = min(40.0, max(5.0, 380 / at.rows))
    column = min(300.0, max(14.0, (width - LABEL - LEFT) / max(at.depth, 1)))
    radius = min(7.0, max(2.2, gap * 0.36))
    best = set() if found.best is None else {step.key for step in (found.best.root, *found.best.steps)}
    answers = {candidate.node.key: candidate.answer for candidate in found.candidates}

    def point(key: str) -> tuple[float, float]:
        row, depth = at.place[key]
        return LEFT + depth * column, 20 + (row + 0.5) * gap

    lines = []
    for node in sorted((n for n in nodes.values() if n.parent is not None), key=lambda n: n.key in best):
        assert node.parent is not None
        (x0, y0), (x1, y1) = point(node.parent.key), point(node.key)
        middle = (x0 + x1) / 2
        colour, weight = (ACCENT, 2.4) if node.key in best else (EDGE, 1.1)
        curve = f"M{x0:.1f},{y0:.1f}C{middle:.1f},{y0:.1f} {middle:.1f},{y1:.1f} {x1:.1f},{y1:.1f}"
        lines.append(f'<path d="{curve}" fill="none" stroke="{colour}" stroke-width="{weight}"/>')
    dots = [
        _dot(node, *point(key), radius, key in best, answers.get(key) if gap >= 11 else None)
        for key, node in nodes.items()
    ]
    wide, tall = LEFT + at.depth * column + LABEL, at.rows * gap + 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{tall:.0f}" viewBox="0 0 {wide:.0f} '
        f'{tall:.0f}" font-family="{FONT}" font-size="11.5" role="img" aria-label="Search tree">'
        f"{''.join(lines)}{''.join(dots)}</svg>"
    )


def _nodes(found: Result) -> dict[str, Node]:
    """The nodes on the paths of the candidates in the order drawn, parents first; of too many, the most voted."""
    order = sorted(found.candidates, key=lambda c: (c.answer_class is None, c.answer_class or 0))
    ends = ([] if found.best is None else [found.best]) + [candidate.node for candidate in order]
    kept: dict[str, Node] = {}
    for end in ends:
        path = {node.key: node for node in (end.root, *end.steps)}
        if len(kept | path) > MOST:
            break
        kept |= path
    return dict(sorted(kept.items(), key=lambda item: (len(item[1].steps), item[1].order)))


def _dot(node: Node, x: float, y: float, radius: float, selected: bool, answer: str | None) -> str:
    if node.parent is None:
        shape = f'<rect x="{x - radius:.1f}" y="{y - radius:.1f}" width="{2 * radius:.1f}" height="{2 * radius:.1f}"'
        return f'{shape} rx="2" fill="{INK}"><title>the question</title></rect>'
    value = None if node.score is None else node.score.value
    cut = node.finish in (Finish.LENGTH, Finish.CUT)
    fill = ACCENT if selected else "#fff" if cut else EDGE if value is None else HEAT[min(9, int(value * 10))]
    edge = f'stroke="{MAYBE}" stroke-dasharray="2.5 2"' if cut and not selected else 'stroke="#fff"'
    said = f"{node.drawn} tokens" if value is None else f"score {value:.2f}"
    dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius * (1.15 if selected else 1):.1f}" fill="{fill}" {edge}>'
    label = ""
    if answer is not None:
        colour, weight = (ACCENT, 600) if selected else (SOFT, 400)
        place = f'x="{x + radius + 7:.1f}" y="{y + 4:.1f}" fill="{colour}" font-weight="{weight}"'
        label = f"<text {place}>{_text(_short(answer, 12))}</text>"
    return f"{dot}<title>{said}</title></circle>{label}"


def _votes(candidates: Iterable[Candidate], best: Node | None) -> str:
    """The answer classes by votes."""
    classes: dict[int, list[Candidate]] = {}
    for candidate in candidates:
        if candidate.answer_class is not None:
            classes.setdefault(candidate.answer_class, []).append(candidate)
    if not classes:
        return ""
    groups = sorted(classes.values(), key=lambda group: -len(group))
    rows = []
    for index, group in enumerate(groups[:SHOWN]):
        chosen = best is not None and any(candidate.node.key == best.key for candidate in group)
        y, width = 26 * index, 200 * len(group) / len(groups[0])
        rows.append(
            f'<text x="0" y="{y + 12}" fill="{INK}" font-weight="{600 if chosen else 400}">'
            f"{_text(_short(group[0].answer or '', 26))}</text>"
            f'<text x="200" y="{y + 12}" text-anchor="end" fill="{SOFT}">{len(group)}</text>'
            f'<rect x="0" y="{y + 17}" width="{width:.1f}" height="5" rx="2.5" fill="{ACCENT if chosen else EDGE}"/>'
        )
    tall = 26 * len(rows) + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="204" height="{tall}" viewBox="0 0 204 {tall}" '
        f'font-family="{FONT}" font-size="12" role="img" aria-label="Votes">{"".join(rows)}</svg>'
    )


def _squares(marks: Sequence[str], titles: Sequence[str]) -> str:
    """A square for each question, as on the page of a run."""
    colours = {"correct": RIGHT, "wrong": WRONG, "undecided": MAYBE}
    across = 60
    rows = [
        f'<rect x="{11 * (i % across)}" y="{11 * (i // across)}" width="9" height="9" rx="2" '
        f'fill="{colours.get(mark, EDGE)}"><title>{_text(_short(title, 80))}</title></rect>'
        for i, (mark, title) in enumerate(zip(marks, titles, strict=True))
    ]
    wide, tall = 11 * min(across, len(marks)), 11 * ((len(marks) + across - 1) // across)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide}" height="{tall}" viewBox="0 0 {wide} {tall}" '
        f'role="img" aria-label="Questions">{"".join(rows)}</svg>'
    )


def _card(head: str, body: str, said: str, more: str) -> str:
    style = (
        f"background:{PAPER};color:{INK};border:1px solid {LINE};border-radius:10px;padding:12px 16px;font:14px {FONT}"
    )
    foot = f"<div style='color:{SOFT};font-size:12px'>{_text(said)}</div>"
    return f"<div style='{style}'><div style='margin-bottom:8px'>{head}</div>{body}{foot}{more}</div>"


def _short(text: str, most: int) -> str:
    flat = words.plain(text)
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def _text(text: str) -> str:
    """Escaped, every character that a page would obey or could not encode as its visible escape."""
    return escape("".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text))
