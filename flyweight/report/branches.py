"""The picture of a recorded search, as SVG: what was drawn from what, scored, dropped, kept, voted on and selected.

A line is a step and as long as the tokens it took, so the picture shows what the search spent and where. Colours are
of middle lightness, to be read on white and on black.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from flyweight.report.tree import Tree
from flyweight.types import Finish

__all__ = ["svg"]

WIDTH, LEFT, TOP = 880, 14, 40
TREE = 480
"""Width that the most tokens of a path take, in units of the picture, about pixels."""
ROW, THIN = 17, 9
"""Height of a path that ends in an answer, and of one that was dropped."""
FORCED = 14
"""Length of a forced step."""
ANSWER, BAR, VOTES = 512, 612, 690
"""Where the columns begin: what a path answers, what it is worth, how they voted."""
BAR_WIDTH, VOTES_WIDTH = 28, 64

INK, FAINT, CHOSEN = "#7d828a", "#a9adb5", "#3b82c8"
CLASSES = ("#3b82c8", "#c9771e", "#a866cc", "#1f99a8", "#9a8a1c", "#cf5f92")
LOW, MIDDLE, HIGH = (212, 85, 77), (214, 168, 60), (47, 158, 98)
"""Of scores 0, 1/2 and 1."""


def svg(tree: Tree) -> str:
    """The picture; the same tree gives the same bytes. What a step says is its tooltip."""
    drawn = _Drawing(tree)
    height = round(TOP + max(drawn.height, ROW * len(drawn.votes())) + 34)
    style = (
        f"text{{font:11px system-ui,sans-serif;fill:{INK}}}.s{{font-size:8.5px}}.i{{font-style:italic;fill:{FAINT}}}"
        ".b{font-weight:600}"
        f"path{{fill:none;stroke:{INK};stroke-width:1.2}}path.d{{stroke:{FAINT};stroke-width:.8;stroke-opacity:.75}}"
        f"path.c{{stroke:{CHOSEN};stroke-width:2.6}}path.f{{stroke-dasharray:2 2}}"
    )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(tree.title)}">\n<style>{style}</style>\n'
    )
    return head + "\n".join([*drawn.heading(), *drawn.paths(), *drawn.columns(), *drawn.footer(height)]) + "\n</svg>\n"


class _Drawing:
    """Where everything stands."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.children: dict[int, list[int]] = {}
        for i, step in enumerate(tree.steps):
            self.children.setdefault(step.parent, []).append(i)
        self.taken = [0.0] * len(tree.steps)
        for i, step in enumerate(tree.steps):
            self.taken[i] = (self.taken[step.parent] if step.parent >= 0 else 0.0) + step.tokens
        most = max([1.0, *self.taken])
        deepest = max((self._forced(i) for i in range(len(tree.steps))), default=0)
        self._scale = (TREE - FORCED * deepest) / most
        self.y: dict[int, float] = {}
        self.height = 0.0
        for top in self.children.get(-1, []):
            self._place(top)
        self._weighted = tree.votes == "weighted"
        self.selected = set(self._path(tree.chosen)) if tree.chosen >= 0 else set()
        self.alive = {i for leaf, step in enumerate(tree.steps) if step.candidate for i in self._path(leaf)}

    def heading(self) -> Iterable[str]:
        """Title and column heads."""
        yield f'<text x="{LEFT}" y="15" class="b">{escape(self.tree.title)}</text>'
        yield f'<text x="{LEFT}" y="31" class="s">tokens →</text>'
        if self.tree.votes:
            yield f'<text x="{VOTES}" y="31" class="s">votes{", weighted" if self._weighted else ""}</text>'
        if any(step.candidate for step in self.tree.steps):
            yield f'<text x="{ANSWER}" y="31" class="s">answer</text>'
        if any(self._worth(i) is not None for i in self.y):
            yield f'<text x="{BAR}" y="31" class="s">{self.tree.measure or "score"}</text>'

    def paths(self) -> Iterable[str]:
        """Every step as a line, the selected path last, then the dots on them."""
        order = sorted(self.y, key=lambda i: (i in self.selected, i in self.alive, i))
        yield from map(self._line, order)
        yield from map(self._dot, order)

    def columns(self) -> Iterable[str]:
        """Beside each path that ends what it says and what it is worth; the votes on the right."""
        best = max([1e-9, *(abs(worth) for i in self.y if (worth := self._worth(i)) is not None)])
        scale = best if self.tree.measure else 1.0
        for i in sorted(self.y):
            if not self.children.get(i):
                yield from self._leaf(i, scale)
        votes = self.votes()
        most = max([1e-9, *(weight for _, weight, _ in votes)])
        for place, (group, weight, count) in enumerate(votes):
            y = TOP + ROW * (place + 0.5)
            members = [step for step in self.tree.steps if step.group == group]
            said = _short(members[0].answer or "", 9) + (" ✓" if any(step.right for step in members) else "")
            chosen = self.tree.chosen >= 0 and self.tree.steps[self.tree.chosen].group == group
            length = VOTES_WIDTH * weight / most
            yield f'<rect x="{VOTES}" y="{_n(y - 5)}" width="{_n(length)}" height="10" rx="2" fill="{_class(group)}"/>'
            told = f"{count}" + (f" · {weight:.2f}" if self._weighted else "")
            bold = ' class="b"' if chosen else ""
            yield f'<text x="{_n(VOTES + length + 5)}" y="{_n(y + 4)}"{bold}>{escape(said)} ({told})</text>'

    def footer(self, height: int) -> Iterable[str]:
        """What was noted, and how to read the picture."""
        notes = "; ".join(self.tree.notes)
        if notes:
            yield f'<text x="{LEFT}" y="{height - 20}" class="s">{escape(_short(notes, 170))}</text>'
        dots = "".join(
            f'<circle cx="{LEFT + 4 + 12 * i}" cy="{height - 8}" r="3.2" fill="{_colour(i / 4)}"/>' for i in range(5)
        )
        said = "score 0 to 1 · blue: selected · pale: dropped · dashed: text put there by the strategy · ✓ right"
        yield f'{dots}<text x="{LEFT + 64}" y="{height - 5}" class="s">{said}</text>'

    def votes(self) -> list[tuple[int, float, int]]:
        """(class, weight, voters) of every answer class, heaviest first; empty where answers are not voted on."""
        if not self.tree.votes:
            return []
        weights: dict[int, list[float]] = {}
        steps = self.tree.steps
        voters = sorted(
            (i for i, step in enumerate(steps) if step.group is not None), key=lambda i: -(self._worth(i) or 0.0)
        )
        for i in voters[: self.tree.most or None]:
            step, worth = steps[i], self._worth(i)
            # What a search with visits never came to has no vote, and counts as often as it was come to.
            times = self.tree.visits.get(i, 0) if self.tree.visits else 1
            if step.group is not None and times and (worth or 0.0) >= self.tree.floor:
                weight = (worth or 0.0) if self.tree.votes == "weighted" else 1.0
                weights.setdefault(step.group, []).extend([weight] * times)
        found = [(group, sum(each), len(each)) for group, each in weights.items()]
        return sorted(found, key=lambda vote: (-vote[1], vote[0]))

    def _forced(self, i: int) -> int:
        return sum(not self.tree.steps[at].tokens for at in self._path(i))

    def _path(self, i: int) -> list[int]:
        path = []
        while i >= 0:
            path.append(i)
            i = self.tree.steps[i].parent
        return path

    def _place(self, i: int) -> float:
        """Give a step its height: the next there is for an end, the middle of what follows for others."""
        below = [self._place(child) for child in self.children.get(i, [])]
        if not below:
            step = self.tree.steps[i]
            row = ROW if step.candidate or step.finish == Finish.END else THIN
            row += THIN * any(self.tree.steps[at].candidate for at in self._path(step.parent))  # labels above the line
            below = [TOP + self.height + row / 2]
            self.height += row
        self.y[i] = (below[0] + below[-1]) / 2
        return self.y[i]

    def _x(self, i: int) -> float:
        return LEFT + (0.0 if i < 0 else self._scale * self.taken[i] + FORCED * self._forced(i))

    def _y(self, i: int) -> float:
        if i < 0:
            tops = self.children.get(-1, [0])
            return (self._y(tops[0]) + self._y(tops[-1])) / 2
        return self.y[i]

    def _line(self, i: int) -> str:
        step = self.tree.steps[i]
        kind = "c" if i in self.selected else "" if i in self.alive or self.children.get(i) else "d"
        kind += "" if step.tokens else " f"
        visits = self.tree.visits.get(i, 0)
        width = f' style="stroke-width:{1 + 0.9 * min(visits, 6):.1f}"' if visits > 1 and i not in self.selected else ""
        x, y, up = _n(self._x(step.parent)), _n(self._y(i)), _n(self._y(step.parent))
        down = "" if up == y else f"V{y}"
        said = f"{step.tokens} tokens" + ("" if step.score is None else f", score {step.score:.2f}")
        said += f", came by {visits} times" if visits else ""
        tip = f"<title>{escape(said)}: {escape(step.text)}</title>"
        named = f' class="{kind.strip()}"' if kind.strip() else ""
        return f'<path{named}{width} d="M{x} {up}{down}H{_n(self._x(i))}">{tip}</path>'

    def _dot(self, i: int) -> str:
        step = self.tree.steps[i]
        if not step.tokens and step.score is None:
            return ""
        x, y = _n(self._x(i)), _n(self._y(i))
        faint = i not in self.alive and not self.children.get(i)
        fill = "none" if step.score is None else _colour(step.score)
        ring = f' stroke="{CHOSEN if i in self.selected else INK}"' if step.score is None else ""
        pale = ' opacity=".55"' if faint else ""
        dot = f'<circle cx="{x}" cy="{y}" r="{2.4 if faint else 3.4}" fill="{fill}"{ring}{pale}/>'
        if step.candidate and self.children.get(i):
            # An answer that others were made from has no place in the columns.
            said = _short(step.answer or "–", 10) + ("✓" if step.right else "")
            said += "" if step.score is None else f" {step.score:.2f}"
            dot += f'<text x="{x}" y="{_n(self._y(i) - 7)}" class="s" text-anchor="end">{escape(said)}</text>'
        return dot

    def _leaf(self, i: int, scale: float) -> Iterable[str]:
        step, y = self.tree.steps[i], self._y(i)
        worth = self._worth(i)
        if step.candidate:
            bold = " b" if i == self.tree.chosen else ""
            if step.answer is None:
                said, colour, kind = ("cut" if step.finish in (Finish.LENGTH, Finish.CUT) else "–"), FAINT, "i"
            else:
                said = _short(step.answer, 12) + (" ✓" if step.right else "")
                colour, kind = _class(step.group), ""
            named = f' class="{(kind + bold).strip()}"' if kind or bold else ""
            style = "" if kind else f' style="fill:{colour}"'
            yield f'<text x="{ANSWER}" y="{_n(y + 4)}"{named}{style}>{escape(said)}</text>'
            start = _n(self._x(i) + 6)
            yield f'<path class="d f" d="M{start} {_n(y)}H{ANSWER - 5}"/>'
        elif step.finish == Finish.END:
            yield f'<text x="{ANSWER}" y="{_n(y + 4)}" class="s i">{escape(_short(step.text, 18))}</text>'
        if worth is not None and (step.candidate or self.tree.measure):
            length = BAR_WIDTH * abs(worth) / scale
            colour = CHOSEN if i == self.tree.chosen else FAINT
            yield f'<rect x="{BAR}" y="{_n(y - 3.5)}" width="{_n(length)}" height="7" rx="1.5" fill="{colour}"/>'
            yield f'<text x="{_n(BAR + length + 4)}" y="{_n(y + 3.5)}" class="s">{worth:.2f}</text>'

    def _worth(self, i: int) -> float | None:
        return self.tree.worths.get(i) if self.tree.measure else self.tree.steps[i].score


def _class(group: int | None) -> str:
    return INK if group is None else CLASSES[group % len(CLASSES)]


def _colour(score: float) -> str:
    """From red over amber to green."""
    low, high, share = (LOW, MIDDLE, 2 * score) if score < 0.5 else (MIDDLE, HIGH, 2 * score - 1)
    mixed = (round(a + (b - a) * min(1.0, max(0.0, share))) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{value:02x}" for value in mixed)


def _short(text: str, longest: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= longest else flat[: longest - 1] + "…"


def _n(value: float) -> str:
    """A number with at most one digit behind the point."""
    return f"{value:.1f}".removesuffix(".0")
