"""A search as a picture that moves: one SVG that grows the tree again and again, without a script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from flyweight.report import words
from flyweight.types import Event, Finish, Node, Result
from flyweight.viewer.drawing import ACCENT, EDGE, FONT, HEAT, INK, LINE, MAYBE, PAPER, SOFT, layout

__all__ = ["animated"]

SECONDS = 10.0
"""Of one round."""
GROWN, CHOSEN = 0.72, 0.8
"""Shares of it after which everything is drawn, and the selected path is shown."""
WIDTH, HEIGHT = 860, 460
HEAD = 58


def animated(events: Sequence[Event]) -> str:
    """The SVG document of a recorded search. A viewer without animation shows its end.

    ValueError for a search without nodes or without an end.
    """
    result = next((e.facts["result"] for e in reversed(events) if isinstance(e.facts.get("result"), Result)), None)
    born = {event.node.key: event for event in events if event.kind == "node" and event.node is not None}
    if not born or not isinstance(result, Result):
        raise ValueError("a search without nodes or without an end cannot be drawn")
    nodes = {key: event.node for key, event in born.items() if event.node is not None}
    scores = {e.node.key: e.node.score.value for e in events if e.node is not None and e.node.score is not None}
    root = next(iter(nodes.values())).root
    children: dict[str, list[str]] = {}
    for node in nodes.values():
        if node.parent is not None and (node.parent.key in nodes or node.parent is root or node.parent.key == root.key):
            children.setdefault(node.parent.key, []).append(node.key)
    at = layout([root.key], children)
    order = {key: rank / max(1, len(nodes) - 1) for rank, key in enumerate(nodes)}
    column = (WIDTH - 150) / max(at.depth, 1)
    gap = (HEIGHT - HEAD - 24) / max(at.rows, 1)

    def point(key: str) -> tuple[float, float]:
        row, depth = at.place[key]
        return 30 + depth * column, HEAD + 8 + (row + 0.5) * gap

    best = set() if result.best is None else {step.key for step in (result.best.root, *result.best.steps)}
    lines, dots, path = [], [], []
    for key, node in nodes.items():
        if key not in at.place or node.parent is None:
            continue
        when = GROWN * order[key]
        (x0, y0), (x1, y1) = point(node.parent.key), point(key)
        middle = (x0 + x1) / 2
        curve = f"M{x0:.0f},{y0:.1f}C{middle:.0f},{y0:.1f} {middle:.0f},{y1:.1f} {x1:.0f},{y1:.1f}"
        lines.append(f'<path d="{curve}">{_from(when)}</path>')
        if key in best:
            path.append(f'<path d="{curve}"/>')
        dots.append(_dot(node, x1, y1, scores.get(key), key in children, when))
    x, y = point(root.key)
    dots.append(f'<rect x="{x - 5:.0f}" y="{y - 5:.0f}" width="10" height="10" rx="2" fill="{INK}"/>')
    if result.best is not None and result.best.key in at.place:
        x, y = point(result.best.key)
        answer = escape(words.plain(result.answer or "")[:10])
        path.append(f'<circle cx="{x:.0f}" cy="{y:.1f}" r="6" fill="{ACCENT}" stroke="{PAPER}"/>')
        path.append(
            f'<text x="{x + 13:.0f}" y="{y + 5:.1f}" stroke="none" fill="{ACCENT}" font-size="17" font-weight="650">'
            f"{answer}</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="{FONT}">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="14" fill="{PAPER}" stroke="{LINE}"/>'
        f'<text x="26" y="36" font-size="15" fill="{INK}" font-weight="600">{_question(result)}</text>'
        f'<g fill="none" stroke="{EDGE}" stroke-width="1">{"".join(lines)}</g>'
        f'<g stroke="{PAPER}">{"".join(dots)}</g>'
        f'<g fill="none" stroke="{ACCENT}" stroke-width="2.6">{"".join(path)}{_from(CHOSEN)}</g>'
        f"{_counter(list(nodes.values()))}</svg>\n"
    )


def _dot(node: Node, x: float, y: float, score: float | None, kept: bool, when: float) -> str:
    cut = node.finish in (Finish.LENGTH, Finish.CUT)
    heat = EDGE if score is None else HEAT[min(9, int(score * 10))]
    dropped = not kept and node.finish is Finish.STOP
    fill, edge = (PAPER, f' stroke="{MAYBE if cut else EDGE}"') if cut or dropped else (heat, "")
    size = 2.6 if dropped else 4.2
    return f'<circle cx="{x:.0f}" cy="{y:.1f}" r="{size}" fill="{fill}"{edge}>{_from(when)}</circle>'


def _from(share: float) -> str:
    """Invisible until that share of the round, visible until its end."""
    later = min(0.999, share + 0.025)
    return (
        f'<animate attributeName="opacity" dur="{SECONDS:g}s" repeatCount="indefinite" values="0;0;1;1" '
        f'keyTimes="0;{share:.3f};{later:.3f};1"/>'
    )


def _counter(nodes: Sequence[Node]) -> str:
    """Tokens so far, in a dozen steps; the last one stays."""
    steps, shown = 12, []
    for step in range(steps + 1):
        drawn = sum(len(node.tokens or ()) for node in nodes[: round(len(nodes) * step / steps)])
        start, end = GROWN * step / steps, GROWN * (step + 1) / steps
        last = step == steps
        values = "0;1;1" if last else "0;1;0"
        times = f"0;{start:.3f};1" if last else f"0;{start:.3f};{end:.3f}"
        opacity = 1 if last else 0
        animate = (
            f'<animate attributeName="opacity" calcMode="discrete" dur="{SECONDS:g}s" repeatCount="indefinite" '
            f'values="{values}" keyTimes="{times}"/>'
        )
        shown.append(
            f'<text x="{WIDTH - 26}" y="36" text-anchor="end" font-size="15" fill="{SOFT}" opacity="{opacity}">'
            f"{drawn:,} tokens{animate}</text>"
        )
    return "".join(shown)


def _question(result: Result) -> str:
    text = words.plain(result.problem.prompt)
    return escape(text if len(text) <= 72 else text[:71] + "…")
