"""Grouping answers for a vote: transitive, independent of order, bounded in algebra."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import combinations

from flyweight.answers import limits
from flyweight.answers.canonical import canonical, check_kind
from flyweight.answers.client import symbolic
from flyweight.answers.compare import cheap, decide
from flyweight.answers.forms import Form, read
from flyweight.types import Verdict

__all__ = ["MAX_SYMBOLIC_COMPARISONS", "WALL_SECONDS", "classes"]

MAX_SYMBOLIC_COMPARISONS = 200
WALL_SECONDS = 1.5
"""Wall time for algebra in one grouping, the worker's start not counted."""
MAX_PAIRS = 4_000
"""Pairs looked at, most of which are told apart without algebra."""
OPAQUE = 20
"""How many of the largest classes that only algebra can read are compared with each other."""


def classes(answers: Sequence[str | None], kind: str = "math") -> list[list[int]]:
    """Indices of equal answers, largest class first, then by smallest index; None is in no class.

    Answers sharing a canonical key form buckets; bucket representatives are compared (largest buckets first, at most
    200 symbolic comparisons and 1.5 s) and equal ones joined with all they equal. The partition does not depend on
    the order of the answers; what the bounds leave undecided stays apart. Raises ConfigError for an unknown kind.
    """
    buckets: dict[str, list[int]] = {}
    for index, answer in enumerate(answers):
        if answer is not None:
            buckets.setdefault(canonical(answer, kind), []).append(index)
    groups = list(buckets.values())
    if check_kind(kind) == "math" and len(groups) > 1:
        texts = {key: min(answers[i] or "" for i in members) for key, members in buckets.items()}
        order = sorted(buckets, key=lambda key: (-len(buckets[key]), key))
        groups = [[i for key in joined for i in buckets[key]] for joined in _join(order, texts)]
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group[0]))


def _join(order: list[str], texts: dict[str, str]) -> list[list[str]]:
    """Keys joined by union-find over the pairs found equal."""
    forms = [read(texts[key]) for key in order]
    parent = list(range(len(order)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    ask = _Bounded()
    for i, j in _pairs(forms):
        if root(i) != root(j) and ask.open and decide(forms[i], forms[j], ask).value == "equal":
            parent[max(root(i), root(j))] = min(root(i), root(j))
    joined: dict[int, list[str]] = {}
    for at, key in enumerate(order):
        joined.setdefault(root(at), []).append(key)
    return list(joined.values())


class _Bounded:
    """Asks the worker until the comparisons or the seconds of one grouping are used up."""

    def __init__(self) -> None:
        self.left = MAX_SYMBOLIC_COMPARISONS
        self.deadline = 0.0

    @property
    def open(self) -> bool:
        """Whether algebra is still allowed; pairs decided without it do not count."""
        return self.left > 0 and (not self.deadline or time.monotonic() < self.deadline)

    def __call__(self, gold: str, answer: str) -> Verdict:
        if any(limits.worker_refusal(text) for text in (gold, answer)) or not self.open:
            return Verdict("undecided", "beyond the bounds of one grouping")
        self.left -= 1
        if not self.deadline:
            symbolic("1", "1", False, time.monotonic() + WALL_SECONDS)  # waits for the worker to start
            self.deadline = time.monotonic() + WALL_SECONDS
        return symbolic(gold, answer, True, self.deadline)


def _pairs(forms: list[Form]) -> Iterator[tuple[int, int]]:
    """Pairs worth deciding: values that nearly coincide, then answers that only algebra can read."""
    close = list(_close(forms))
    for count, pair in enumerate(sorted(set(close), key=lambda pair: (sum(pair), pair))):
        if count >= MAX_PAIRS:
            break
        yield pair
    dark = [at for at, form in enumerate(forms) if form.kind not in ("refused", "words", "number") and not _whole(form)]
    for i, j in combinations(dark[:OPAQUE], 2):
        if cheap(forms[i], forms[j]) is None:
            yield i, j


def _whole(form: Form) -> bool:
    """Whether the form's value is known at the fixed points, so that closeness finds its equals."""
    return bool(form.point) or form.kind in ("number", "words")


def _total(form: Form) -> float | None:
    """A number equal for equal forms: the sum of the real values at the first point; None when unknown."""
    if form.point:
        return form.point[0].real
    if form.kind == "group" and form.parts and form.shape != "\\cup":
        sums = [_total(part) for part in form.parts]
        return sum(s for s in sums if s is not None) if all(s is not None for s in sums) else None
    return None


def _close(forms: list[Form]) -> Iterator[tuple[int, int]]:
    """Pairs of forms whose totals agree to rounding, or to the decimals one of them is written with."""
    known = sorted(
        (total, at) for at, form in enumerate(forms) if (total := _total(form)) is not None and total == total
    )
    totals = [total for total, _ in known]
    for total, at in known:
        form = forms[at]
        places = min((p.places for p in (form, *form.parts) if p.places >= 4), default=0)
        width = max(abs(total) * 1e-8, 1e-9, 10.0**-places * max(1, len(form.parts)) if places else 0.0)
        low, high = bisect_left(totals, total - width), bisect_right(totals, total + width)
        for _, other in known[low : min(high, low + 64)]:
            if other != at and not (form.kind == forms[other].kind == "number" and not places):
                yield min(at, other), max(at, other)
