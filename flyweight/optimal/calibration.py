"""What a fit has found, as a file: for one model, verifier and kind of problem, what to do at which difficulty.

A calibration belongs to the model it was fitted on. Where there is none, `published` has the defaults of Liu et al.
2025, "Can 1B LLM Surpass 405B LLM?", arXiv 2502.06703, section 4.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from flyweight import strategies
from flyweight.abstain import ConfidenceMap
from flyweight.errors import ConfigError
from flyweight.optimal.difficulty import Estimator, bin_of
from flyweight.optimal.work import Work
from flyweight.strategies import compose

__all__ = [
    "KINDS",
    "Calibration",
    "Cell",
    "Row",
    "Source",
    "Span",
    "find",
    "maps",
    "published",
    "read",
    "shipped",
    "write",
]

FORMAT = 1
FOLDER = Path(__file__).parent / "calibrations"
"""Those that come with the package, one file per model."""
KINDS = ("maths", "code")
"""Of problems: code is what brings public tests."""
SMALL, LARGE = 7e9, 34e9
"""Parameters below and up to which Liu's findings differ; what is sold as 32B has up to 33.4."""


class Span(NamedTuple):
    """A value with its 95 % interval."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Cell:
    """What is done at one budget and difficulty, and what it gave on the questions it was chosen on."""

    strategy: str
    """As one word, with its parameters: `weighted_best_of_n:n=8:lead=0.95`."""
    accuracy: Span
    """Share right on questions of this difficulty."""
    tokens: float
    """Generated for one of them, the probe included, and computed by the verifier."""
    questions: float
    """How many of the questions were taken for this difficult; a question counts by the share of its probes."""


@dataclass(frozen=True)
class Row:
    """What is done at one budget."""

    budget: int
    """Most tokens generated per question."""
    temperature: float
    """Of the samples."""
    greedy: bool
    """Whether the model's most likely answer comes before them."""
    estimator: Estimator
    """Of difficulty, from the first k samples."""
    edges: tuple[float, ...]
    """Estimated pass@1 that separates the bins, ascending."""
    cells: tuple[Cell, ...]
    """One per bin, the hardest first."""
    fixed: Cell
    """The best single strategy for all difficulties."""
    held_out: Span
    """Accuracy on questions set aside, everything chosen on the others."""
    held_out_tokens: float
    """Per question, of the same."""
    gain: Span
    """`held_out` minus the accuracy of the fixed strategy chosen on the others, on the same questions."""
    work: Work | None = field(default=None, repr=False)
    """Of one question, all of them played; None where nobody did. Runs are identified without it: `auto` never asks."""

    def __post_init__(self) -> None:
        """ConfigError for what cannot be a row."""
        if not isinstance(self.budget, int) or self.budget < 1:
            raise ConfigError(f"budget={self.budget!r} is not allowed: tokens from 1")
        if len(self.cells) != len(self.edges) + 1 or list(self.edges) != sorted(set(self.edges)):
            raise ConfigError(f"budget {self.budget}: {len(self.edges)} ascending edges separate one bin more")
        for cell in (*self.cells, self.fixed):
            strategies.bind(cell.strategy)
            if compose.spelled(cell.strategy)[0] == "auto":
                raise ConfigError("a cell names what auto does, which cannot be auto again")
            if not all(map(math.isfinite, (*cell.accuracy, cell.tokens, cell.questions))):
                raise ConfigError(f"{cell.strategy}: its figures are numbers")

    def cell(self, passed: float) -> Cell:
        """The cell of an estimated pass@1."""
        return self.cells[bin_of(passed, self.edges)]


@dataclass(frozen=True)
class Source:
    """Questions a calibration was fitted on."""

    task: str
    split: str
    questions: int
    samples: int
    """Per question and temperature."""
    digest: str
    """SHA-256 of their ids."""


@dataclass(frozen=True)
class Calibration:
    """All that was fitted for one model, verifier and kind of problem."""

    model: str
    """Its name, for people."""
    sha256: str
    """Of the model's file, in hex; empty without one."""
    verifier: str
    """As it was asked for, with its settings."""
    judge: str
    """What its scores say they are from: its name alone."""
    kind: str
    """One of `KINDS`."""
    sources: tuple[Source, ...]
    rows: tuple[Row, ...]
    """By budget, ascending."""
    confidence: tuple[float, float, float] | None = None
    """Weights of the confidence map (`flyweight.abstain`) of answers chosen so; None with too few questions, and for
    code: those of files from before are not gone by."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """How well difficulty is estimated on questions set aside, by k; for people."""

    def __post_init__(self) -> None:
        """ConfigError for what cannot be a calibration."""
        if not all(isinstance(text, str) and text for text in (self.model, self.verifier, self.judge)):
            raise ConfigError("model, verifier and judge are names")
        if self.sha256 and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(f"sha256={self.sha256!r} is no SHA-256 in hex")
        if self.kind not in KINDS:
            raise ConfigError(f"kind={self.kind!r} is not allowed: {' or '.join(KINDS)}")
        budgets = [row.budget for row in self.rows]
        if not budgets or budgets != sorted(set(budgets)):
            raise ConfigError(f"budgets={budgets}: at least one, each once, ascending")

    @property
    def questions(self) -> int:
        """How many it was fitted on."""
        return sum(source.questions for source in self.sources)

    @property
    def task(self) -> str | None:
        """What all its questions are of; None for those of several tasks, of none of which its figures are."""
        tasks = {source.task for source in self.sources}
        return tasks.pop() if len(tasks) == 1 else None

    def row(self, tokens: int) -> Row:
        """The row of the largest budget that `tokens` cover; the smallest where they cover none."""
        return next((row for row in reversed(self.rows) if row.budget <= tokens), self.rows[0])

    def confidence_map(self, reference: str = "") -> ConfidenceMap | None:
        """The probability that an answer of `auto` is right, from how it leads its vote; `reference` is its file.

        None without weights, and for code: samples are drawn until one passes the public tests, so that where many
        agree, none passed.
        """
        if self.confidence is None or self.kind == "code":
            return None
        return ConfidenceMap(
            model=self.model,
            sha256=self.sha256,
            kind={"maths": "math"}.get(self.kind, self.kind),
            strategies=("auto",),
            parameters={"calibration": reference},
            verifier=self.judge,
            fitted_on=", ".join(f"{source.task}, {source.split}" for source in self.sources),
            questions=self.questions,
            weights=self.confidence,
        )


def published(params: float, steps: bool, band: str) -> str:
    """Strategy of a policy with so many parameters for questions of one of Liu's bands: their findings.

    `steps` says whether the verifier scores every step, as a process reward model does; how good it is nobody can tell
    beforehand, though their findings are those of good ones. Deviation: without one search is no better than the vote
    it ends in, so it is best-of-n, by vote, for all.
    """
    if not steps:
        return "weighted_best_of_n"
    if params < SMALL:
        return "best_of_n" if band == "easy" else "beam_search"
    if params <= LARGE:
        return "beam_search" if band == "hard" else "dvts"
    return "best_of_n"


def find(known: Sequence[Calibration], sha256: str, kind: str) -> Calibration | None:
    """The calibration of a model file and a kind of problem; None without one, or without a file."""
    return next((each for each in known if sha256 and each.sha256 == sha256 and each.kind == kind), None)


def read(path: Path) -> tuple[Calibration, ...]:
    """The calibrations of a file. ConfigError, on one line, for a file that cannot be read or holds none."""
    try:
        return _parsed(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except KeyError as error:
        raise ConfigError(f"{path} holds no calibration: it has no {error}") from error
    except (ConfigError, ValueError, TypeError, AttributeError, RecursionError) as error:
        said = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{path} holds no calibration: {said}") from error


def write(path: Path, calibrations: Sequence[Calibration]) -> None:
    """Write calibrations to a file; the same ones give the same bytes, and the file changes whole or not at all.

    ConfigError if it cannot be written.
    """
    text = json.dumps({"format": FORMAT, "calibrations": [asdict(each) for each in calibrations]}, indent=1) + "\n"
    try:
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(text, "utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error


@cache
def shipped() -> tuple[Calibration, ...]:
    """The calibrations that come with the package. ConfigError if one of the files is damaged."""
    try:
        return tuple(each for path in sorted(FOLDER.glob("*.json")) for each in read(path))
    except ConfigError as error:
        raise ConfigError(f"{error}: reinstall flyweight") from error


def maps(known: Sequence[Calibration], reference: str = "") -> tuple[ConfidenceMap, ...]:
    """Their confidence maps; `reference` is the file they are from, empty for those that come with the package."""
    return tuple(found for each in known if (found := each.confidence_map(reference)) is not None)


def _parsed(whole: Mapping[str, Any]) -> tuple[Calibration, ...]:
    if whole["format"] != FORMAT:
        raise ConfigError(f"format {whole['format']!r}; this version of Flyweight reads {FORMAT}: calibrate again")
    found = tuple(_calibration(row) for row in whole["calibrations"])
    if not found:
        raise ConfigError("it is empty")
    return found


def _calibration(row: Mapping[str, Any]) -> Calibration:
    weights = row["confidence"]
    return Calibration(
        **{
            **row,
            "sources": tuple(Source(**each) for each in row["sources"]),
            "rows": tuple(_row(each) for each in row["rows"]),
            "confidence": None if weights is None else tuple(weights),
        }
    )


def _row(row: Mapping[str, Any]) -> Row:
    model = row["estimator"]
    numbers = {name: tuple(model[name]) for name in ("means", "scales", "weights")}
    return Row(
        **{
            **row,
            "estimator": Estimator(**{**model, **numbers}),
            "edges": tuple(row["edges"]),
            "cells": tuple(_cell(each) for each in row["cells"]),
            "fixed": _cell(row["fixed"]),
            "held_out": Span(*row["held_out"]),
            "gain": Span(*row["gain"]),
            "work": None if row.get("work") is None else Work.from_dict(row["work"]),
        }
    )


def _cell(cell: Mapping[str, Any]) -> Cell:
    return Cell(**{**cell, "accuracy": Span(*cell["accuracy"])})
