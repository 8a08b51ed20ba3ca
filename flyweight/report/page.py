"""The report as blocks, the same for every format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flyweight.report import words
from flyweight.report.numbers import SHARES, Section
from flyweight.report.pools import Curve, Pool
from flyweight.report.records import Recorded, file, natural
from flyweight.report.warnings import Warned, about, across

__all__ = [
    "Block",
    "Code",
    "Heading",
    "Items",
    "Picture",
    "Table",
    "Text",
    "blocks",
    "configuration",
    "curve_name",
    "title",
]


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the report's own."""

    level: int
    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list; `warning` marks what deserves attention."""

    items: tuple[str, ...]
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """A table: the first `left` columns are text, the others numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1


@dataclass(frozen=True)
class Picture:
    """The curves of a pool: its section's and its own place in the report."""

    section: int
    pool: int
    text: str
    """What it shows, for those who cannot see it."""


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    text: str


Block = Heading | Text | Items | Table | Picture | Code


def blocks(sections: Sequence[Section], runs: Sequence[Recorded], empty: Sequence[str]) -> Iterator[Block]:
    """The whole report. `empty` are the ids of runs without any result."""
    yield Heading(1, "Report")
    if empty:
        yield Text(f"Without any result so far: {', '.join(empty)}.")
    if not sections:
        yield Text("No results.")
    if between := across(sections):
        yield _warned(between)
    for index, section in enumerate(sections):
        yield Heading(2, title(section))
        yield from _section(index, section)
    if runs:
        yield Heading(2, "Provenance")
        labels = {row.run: f": {row.label}, {row.model}" for section in sections for row in section.rows}
        for run in runs:
            yield Heading(3, f"Run {run.id}{labels.get(run.id, '')}")
            yield from _provenance(run)


def title(section: Section) -> str:
    """Task, split and number of problems."""
    split = f", {section.split}" if section.split else ""
    noun = "problem" if section.problems == 1 else "problems"
    return f"{section.task}{split}: {section.problems:,} {noun}"


def configuration(run: Recorded) -> dict[str, Any]:
    """The run's, without the folders of one machine."""
    return {
        key: file(value) if key in ("model", "data") and isinstance(value, str) else value
        for key, value in sorted(run.configuration.items())
    }


def _section(index: int, section: Section) -> Iterator[Block]:
    yield Text(
        "Accuracy is that of what each run selected. Random choice takes any of its candidates, coverage counts a "
        "problem as solved if any of them is right: selecting well lies between the two. Costs are means per "
        "question, prompt tokens those computed rather than found in a cache; seconds are generated tokens by the "
        "speed at which the model was measured to draw many questions together. In brackets: 95 % intervals."
    )
    yield _rows(section)
    yield Items(tuple(_bigger(section)))
    if warned := about(section):
        yield Heading(3, "Warnings")
        yield _warned(warned)
    if section.differences:
        yield Heading(3, "Differences")
        yield Text(
            "Accuracy minus that of the baseline on the same problems, in points: paired bootstrap, exact McNemar "
            "test, and its p corrected for the number of rows (Holm)."
        )
        yield _differences(section)
    for place, pool in enumerate(section.pools):
        yield Heading(3, f"Samples and accuracy: {pool.model}")
        yield Text(_shared(section, pool))
        names = ", ".join(curve_name(curve) for curve in pool.curves)
        yield Picture(index, place, f"Accuracy of {names} against generated tokens, operations and seconds")
        yield _curves(pool)
    for name, strata in section.strata.items():
        yield Heading(3, f"By {name}")
        found = {(entry.run, entry.value): entry.accuracy for entry in strata}
        values = sorted({entry.value for entry in strata}, key=natural)
        counts = {value: max(_total(section, value, name)) for value in values}
        yield Table(
            ("run", "model", *(f"{value} ({counts[value]})" for value in values)),
            tuple(
                (row.label, row.model, *(words.shares(found.get((row.run, value))) for value in values))
                for row in section.rows
            ),
            left=2,
        )
    if section.abstention:
        yield Heading(3, "Answering only when confident")
        yield Text(
            "Accuracy on the most confident share of the problems. Equal confidences come together, and problems "
            "without a confidence are never answered: hence the number answered in each cell."
        )
        yield _abstention(section)


def _rows(section: Section) -> Table:
    what = ("run", "model", "accuracy", "random choice", "coverage")
    tokens = ("generated tokens", "prompt tokens", "verifier tokens")
    costs = ("FLOPs", "seconds", "model calls", "verifier calls", "peak KV")
    return Table(
        (*what, *tokens, *costs, "undecided", "truncated"),
        tuple(
            (
                row.label,
                row.model,
                words.between(row.accuracy),
                words.shares(row.random),
                words.shares(row.coverage),
                words.count(row.generated_tokens),
                words.count(row.prompt_tokens),
                words.count(row.verifier_tokens),
                words.operations(row.flops),
                "–" if row.seconds is None else f"{row.seconds:.2f}",
                words.count(row.policy_calls),
                words.count(row.verifier_calls),
                words.bytes_(row.peak_kv_bytes) if row.peak_kv_bytes else "–",
                f"{row.undecided}/{row.candidates}",
                f"{row.truncated}/{row.candidates}",
            )
            for row in section.rows
        ),
        left=2,
    )


def _bigger(section: Section) -> Iterator[str]:
    for entry in section.bigger:
        if not entry.runs:
            yield f"No bigger model than {entry.model} is recorded on these problems."
        for run in entry.runs:
            row = section.row(run)
            yield (
                f"Bigger than {entry.model}: {row.model}, greedy, {words.between(row.accuracy)} at "
                f"{words.operations(row.flops)} FLOPs per question."
            )
    for pool in section.pools:
        if len(pool.runs) > 1:
            labels = "; ".join(section.row(run).label for run in sorted(pool.runs, key=_place(section)))
            yield f"{pool.model}: these share their samples: {labels}."


def _place(section: Section) -> Any:
    order = {row.run: place for place, row in enumerate(section.rows)}
    return order.__getitem__


def _differences(section: Section) -> Table:
    return Table(
        ("run", "model", "baseline", "problems", "difference", "only run", "only baseline", "p", "p (Holm)"),
        tuple(
            (
                section.row(entry.run).label,
                section.row(entry.run).model,
                _against(section, entry.run, entry.baseline),
                str(entry.problems),
                words.difference(entry.difference),
                str(entry.only_run),
                str(entry.only_baseline),
                words.p_value(entry.p),
                words.p_value(entry.holm),
            )
            for entry in section.differences
        ),
        left=3,
    )


def _against(section: Section, run: str, baseline: str) -> str:
    row = section.row(baseline)
    return row.label if row.model == section.row(run).model else f"{row.model} {row.label}"


def _shared(section: Section, pool: Pool) -> str:
    return (
        f"All of these figures come from one pool of {pool.n} samples for each of {pool.problems} problems "
        f"(run {', '.join(pool.runs)}): they share samples, so they move together. At k they are means over all "
        "draws of k from the pool; a weighted vote over some. The table's FLOPs are without verifiers."
    )


def curve_name(curve: Curve) -> str:
    """What a curve is called."""
    named = {"random": "random choice", "best": f"best by {curve.verifier}", "vote": f"vote by {curve.verifier}"}
    return named.get(curve.kind, curve.kind)


def _curves(pool: Pool) -> Table:
    """Powers of two and all samples."""
    base = pool.curves[0]
    shown = [p for p in base.points if p.k & (p.k - 1) == 0 or p.k == pool.n]
    at = [{point.k: point for point in curve.points} for curve in pool.curves]
    return Table(
        ("k", "generated tokens", "FLOPs", *map(curve_name, pool.curves)),
        tuple(
            (
                str(point.k),
                words.count(point.tokens),
                words.operations(point.flops),
                *(words.shares(curve[point.k].accuracy if point.k in curve else None) for curve in at),
            )
            for point in shown
        ),
        left=0,
    )


def _total(section: Section, value: str, name: str) -> list[int]:
    """Problems of a level or subject in every run."""
    return [entry.problems for entry in section.strata[name] if entry.value == value]


def _abstention(section: Section) -> Table:
    found: dict[str, dict[float, str]] = {}
    for entry in section.abstention:
        text = f"{words.between(entry.accuracy)} of {entry.answered}"
        found.setdefault(entry.run, {})[entry.wanted] = text
    return Table(
        ("run", "model", *(f"{100 * share:.0f} %" for share in SHARES)),
        tuple(
            (row.label, row.model, *(found[row.run].get(share, "–") for share in SHARES))
            for row in section.rows
            if row.run in found
        ),
        left=2,
    )


def _warned(found: Sequence[Warned]) -> Items:
    return Items(tuple(warned.text for warned in found), warning=True)


def _provenance(run: Recorded) -> Iterator[Block]:
    known = sorted(run.info.models.items())
    kept = [each for each in run.info.versions if not any(each.items() < other.items() for other in run.info.versions)]
    versions = sorted(", ".join(f"{name} {said}" for name, said in sorted(each.items())) for each in kept)
    yield Items(
        (
            *(f"model {words.plain(file(name))}: {words.plain(what)}" for name, what in known),
            f"problems: {len(run.outcomes)}, sha256 {run.task[2]}",
            f"seed: {run.configuration.get('seed', 0)}",
            *(f"made with: {words.plain(each)}" for each in versions),
        )
    )
    yield Code(json.dumps(configuration(run), sort_keys=True))
    yield Code(f"flyweight bench resume {run.id}")
