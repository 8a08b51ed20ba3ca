"""What the numbers of a report do not support, said plainly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flyweight.report.numbers import Difference, Section
from flyweight.report.pools import Curve
from flyweight.report.words import points, share
from flyweight.stats import paired_bootstrap

__all__ = ["TRUNCATED", "UNDECIDED", "Warned", "about", "across"]

UNDECIDED = 0.02
"""Share of candidates without a grade above which it is said: accuracy could be that much higher."""
TRUNCATED = 0.05
"""Share of candidates cut by a length limit above which it is said."""


@dataclass(frozen=True)
class Warned:
    """A warning."""

    kind: str
    """loses, below, small, optimised, cached, undecided, truncated, problems, failed or unfinished."""
    text: str


def across(sections: Sequence[Section]) -> list[Warned]:
    """What holds between sections."""
    found = []
    for task in sorted({section.task for section in sections}):
        count = sum(section.task == task for section in sections)
        if count > 1:
            text = f"{task}: {count} different selections of problems; figures of different sections do not compare."
            found.append(Warned("problems", text))
    return found


def about(section: Section) -> list[Warned]:
    """What holds within a section."""
    return [
        *_greedy(section),
        *_small(section),
        *_optimised(section),
        *_candidates(section),
        *_unfinished(section),
    ]


def _greedy(section: Section) -> list[Warned]:
    """Search that loses to the same model's greedy answer."""
    found = []
    for entry in section.greedy:
        low, value, high = entry.difference
        name = _name(section, entry.run)
        if high < 0:
            text = f"{name} loses to greedy by {points(-value)} points ({points(-high)}–{points(-low)})."
            found.append(Warned("loses", text))
        elif value < 0:
            found.append(
                Warned("below", f"{name} is {points(-value)} points below greedy, a difference that may be chance.")
            )
    return found


def _small(section: Section) -> list[Warned]:
    found = []
    for entry in section.differences:
        if entry.needed is None or entry.needed <= entry.problems or not _open(entry):
            continue
        text = (
            f"{_name(section, entry.run)} against {section.row(entry.baseline).label}: {entry.problems} problems see "
            f"differences of {points(entry.visible)} points; this is {points(abs(entry.difference.value))}. "
            f"To see that takes {entry.needed:,}."
        )
        found.append(Warned("small", text))
    return found


def _open(entry: Difference) -> bool:
    """Whether the interval holds 0."""
    return entry.difference.low <= 0 <= entry.difference.high


def _optimised(section: Section) -> list[Warned]:
    """A verifier whose choice gets worse the more there is to choose from, while it likes it better."""
    found = []
    for pool in section.pools:
        for curve in pool.curves:
            if curve.kind == "best" and (said := _turns(curve)) is not None:
                several = len({row.model for row in section.rows}) > 1
                text = f"{f'{pool.model}: ' if several else ''}the verifier {curve.verifier} is over-optimised: {said}"
                found.append(Warned("optimised", text))
    return found


def _turns(curve: Curve) -> str | None:
    """From the best of the smaller powers of two to all samples: accuracy falls beyond chance, the score rises.

    On the way every fourth as many samples are named at which it is already lower beyond chance.
    """
    *earlier, (last, final) = [
        (point, values)
        for point, values in zip(curve.points, curve.values, strict=True)
        if point.k & (point.k - 1) == 0 or point is curve.points[-1]
    ]
    falls = [(paired_bootstrap(final, values), point, values) for point, values in earlier]
    falls = [fall for fall in falls if fall[0].high < 0]
    if not falls:
        return None
    _, best, most = min(falls, key=lambda fall: (fall[0].value, fall[1].k))
    if best.score is None or last.score is None or last.score <= best.score:
        return None
    on_the_way = [
        f"{share(point.accuracy.value)} (best of {point.k}), then "
        for point, values in earlier
        if point.k in (4**i * best.k for i in range(1, 20)) and paired_bootstrap(values, most).high < 0
    ]
    return (
        f"from the best of {best.k} to the best of {last.k} its score of the chosen rises from {best.score:.2f} to "
        f"{last.score:.2f}, and accuracy falls from {share(best.accuracy.value)} to {''.join(on_the_way)}"
        f"{share(last.accuracy.value)}."
    )


def _candidates(section: Section) -> list[Warned]:
    found = []
    for row in section.rows:
        name = _name(section, row.run)
        if row.undecided > UNDECIDED * row.candidates:
            text = f"{name}: {row.undecided} of {row.candidates} candidates could not be graded and count as wrong."
            found.append(Warned("undecided", text))
        if row.truncated > TRUNCATED * row.candidates:
            text = (
                f"{name}: {row.truncated} of {row.candidates} candidates were cut by a length limit and never voted; "
                "raise --max-tokens or --context."
            )
            found.append(Warned("truncated", text))
    return found


def _unfinished(section: Section) -> list[Warned]:
    found = []
    for row in section.rows:
        name = _name(section, row.run)
        if row.problems < section.problems:
            text = f"{name} has {row.problems} of the {section.problems} problems; differences use the common ones."
            found.append(Warned("problems", text))
        if row.failed:
            text = f"{name}: {row.failed} of {row.problems} searches ended in an error and count as wrong."
            found.append(Warned("failed", f"{text} Again: flyweight bench retry {row.run}"))
        if not row.finished:
            text = f"{name} is unfinished. Go on with: flyweight bench resume {row.run}"
            found.append(Warned("unfinished", text))
    return found


def _name(section: Section, run: str) -> str:
    """A run's label, with its model where there are several."""
    row = section.row(run)
    return f"{row.model} {row.label}" if len({row.model for row in section.rows}) > 1 else row.label
