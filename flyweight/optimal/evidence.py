"""What is known about how often a configuration is right, and where that is known from.

Measured on this project's recordings (`measured.json`, made by `python -m benchmarks.planner --evidence`) or on the
user's own recorded runs; `told.py` has what papers and the user say.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from flyweight import stats, strategies
from flyweight.errors import ConfigError
from flyweight.optimal.work import SLOTS, Work, mean, of_search, rounds, verifier_of
from flyweight.stats import Interval
from flyweight.strategies import compose

if TYPE_CHECKING:
    from flyweight.optimal.calibration import Calibration
    from flyweight.report import Report
    from flyweight.report.pools import Curve
    from flyweight.store import Search, Store

__all__ = [
    "ANSWER",
    "QUESTION",
    "Cost",
    "Evidence",
    "Known",
    "Source",
    "from_calibrations",
    "from_report",
    "from_store",
    "samples",
    "shipped",
    "shipped_costs",
    "usual",
]

Source = Literal["measured", "published", "given"]
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Sample counts that a pool is read at."""
VERSION = 1
ANSWER, QUESTION = 300.0, 80.0
"""Tokens of an answer and of a question where nobody has counted any."""


@dataclass(frozen=True)
class Evidence:
    """How often one configuration was right."""

    task: str
    model: str
    strategy: str
    parameters: Mapping[str, Any]
    verifier: str | None
    accuracy: Interval
    """95 %, in [0, 1]."""
    questions: int
    """That this was counted on; 0 where nobody says."""
    source: Source
    note: str
    """The command that counts again, or who published it."""
    work: Work | None = None
    """None where nobody recorded it."""
    max_tokens: int | None = None
    """Longest answer that was allowed; None where nobody says."""
    assumed: str = ""
    """What of the work nobody recorded."""

    @property
    def n(self) -> int:
        """Samples or beams; 1 where the strategy has no such parameter."""
        return int(self.parameters.get("n", 1))

    @property
    def settings(self) -> dict[str, Any]:
        """The strategy's own parameters beside n that are not as it has them."""
        usual = _defaults(self.strategy)
        return {key: value for key, value in self.parameters.items() if key != "n" and usual.get(key, value) != value}

    @property
    def label(self) -> str:
        """Strategy, n, what is set otherwise than usual, and verifier."""
        parts = [self.strategy]
        parts += [f"n={self.n}"] if "n" in self.parameters else []
        parts += [f"{self.parameters['budget_tokens']:,} tokens"] if "budget_tokens" in self.parameters else []
        # Whose calibration it is makes no other search of it: the user's own replaces ours.
        parts += [f"{key}={value}" for key, value in sorted(self.settings.items()) if key != "calibration"]
        return " ".join([*parts, *([f"({self.verifier})"] if self.verifier else [])])

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for two figures of one configuration."""
        return self.task, self.model, self.label

    def as_dict(self) -> dict[str, Any]:
        """JSON types; the work is kept apart, since rows share it."""
        return {
            **{name: getattr(self, name) for name in ("task", "model", "strategy", "verifier")},
            "parameters": dict(self.parameters),
            "accuracy": [round(value, 4) for value in self.accuracy],
            "questions": self.questions,
            "max_tokens": self.max_tokens,
            "note": self.note,
        }


@functools.cache
def _defaults(strategy: str) -> Mapping[str, Any]:
    """The parameters of a strategy; none of one that is not installed here."""
    try:
        return {each.name: each.default for each in strategies.describe(strategy).parameters}
    except ConfigError:
        return {}


@dataclass(frozen=True)
class Cost:
    """What a verifier takes beside the tokens it has a model compute, per path scored."""

    seconds: float
    memory: float
    """Bytes, once."""


@dataclass(frozen=True)
class Known:
    """A model the planner may choose, from the catalog, a paper or the user."""

    name: str
    parameters: float = 0.0
    """0 where nobody says."""
    bytes: float = 0.0
    """Of its file."""
    kv_bytes: float = 0.0
    """Of one token in the KV cache, f16."""
    pretraining_tokens: float = 0.0
    quantisation: str = ""
    path: str | None = None
    """Of a file of the user's own; None for catalog names and servers."""
    price: tuple[float, float] | None = None
    """US$ per million tokens read and written, of a model behind an interface."""
    seconds: float | None = None
    """Per answer, of such a model."""
    note: str = ""
    results: tuple[Evidence, ...] = field(default=(), compare=False)


@functools.cache
def _measured() -> dict[str, Any]:
    text = resources.files("flyweight.optimal").joinpath("measured.json").read_text("utf-8")
    return dict(json.loads(text))


def shipped() -> list[Evidence]:
    """What this project measured."""
    facts = _measured()
    works = {name: Work.from_dict(work) for name, work in facts["works"].items()}
    return [
        Evidence(
            **{**row, "accuracy": Interval(*row["accuracy"]), "work": works.get(row["work"]), "source": "measured"}
        )
        for row in facts["rows"]
    ]


def shipped_costs() -> dict[str, Cost]:
    """What verifiers take, as measured on the machine that `measured.json` names."""
    return {name: Cost(cost["ms"] / 1e3, cost["mb"] * 1e6) for name, cost in _measured()["verifiers"].items()}


# Recorded runs --------------------------------------------------------------------------------------------------------


def from_store(store: Store, note: str) -> list[Evidence]:
    """Every finished run without a budget in a store, and every n that its pools of samples answer for.

    ConfigError when there is none, or one is not graded.
    """
    from flyweight.report import Report, grader

    wanted = [
        info.id
        for info in store.runs()
        if info.finished is not None and not info.configuration.get("budget") and info.problems
    ]
    if not wanted:
        raise ConfigError(f"{store.path} holds no finished run to plan with: record one with flyweight bench run")
    report = Report.of(store, wanted, lambda store, info: grader(store, info, keep=False))
    return from_report(store, report, note)


def from_report(store: Store, report: Report, note: str) -> list[Evidence]:
    """The runs of a report, and every n that its pools answer for; the larger set of questions for each."""
    found: dict[tuple[object, ...], Evidence] = {}

    def take(evidence: Evidence) -> None:
        if evidence.key not in found or found[evidence.key].questions < evidence.questions:
            found[evidence.key] = evidence

    for section in report.sections:
        for row in section.rows:
            info = next(run.info for run in report.runs if run.id == row.run)
            searches = list(store.searches(row.run))
            works = [_work(search, str(info.configuration["strategy"])) for search in searches]
            verifier = verifier_of(search.result.usage for search in searches)
            parameters = dict(info.configuration.get("parameters") or {})
            evidence = Evidence(
                section.task,
                str(info.configuration["model"]),
                row.strategy,
                parameters,
                row.verifier,
                row.accuracy,
                row.problems,
                "measured",
                note,
                replace(mean(works), verifier=verifier),
                info.configuration["sampling"]["max_tokens"],
            )
            take(evidence)
        for pool in section.pools:
            for curve in pool.curves:
                for evidence in _curve(store, section.task, curve, pool.problems, note):
                    take(evidence)
    return list(found.values())


def _work(search: Search, strategy: str) -> Work:
    """The work of a recorded search; whole answers that wait for what others were found to be begin a new round."""
    name, settings = compose.spelled(strategy)
    chosen = compose.spelled(str(search.result.explained.get("chosen", ""))) if name == "auto" else (name, settings)
    ruled = chosen[0] == "adaptive_consistency" or bool({"lead", "enough"} & chosen[1].keys())
    by_round = rounds(search.tree)
    if len(by_round) != 1 or not (ruled or name == "auto"):
        return of_search(search.tree, search.result.usage)
    [lengths] = by_round
    # What auto has drawn is scored before it draws more; a rule is asked after portions that double.
    marks = {compose.FIRST << number for number in range(len(lengths).bit_length())} if ruled else set()
    drawn = 0
    for kind, after in itertools.pairwise(event[0] for event in search.log if event[0] in ("node", "score")):
        drawn += kind == "node"
        if name == "auto" and (kind, after) == ("score", "node"):
            marks.add(drawn)
    ends = [0, *sorted(mark for mark in marks if mark < len(lengths)), len(lengths)]
    apart = [lengths[begin:end] for begin, end in itertools.pairwise(ends)]
    return of_search(search.tree, search.result.usage, by_round=apart)


def _curve(store: Store, task: str, curve: Curve, questions: int, note: str) -> Iterator[Evidence]:
    """A pool's curve at the sizes people choose."""
    chosen = {"majority": "self_consistency", "best": "best_of_n", "vote": "weighted_best_of_n"}
    if curve.kind not in chosen:
        return
    info = next(info for info in store.runs() if info.id == curve.run)
    for point in curve.points:
        if point.k > 1 and point.k in SIZES:
            parameters = {**(info.configuration.get("parameters") or {}), "n": point.k}
            work = samples(store, curve.run, point.k)
            yield Evidence(
                task,
                str(info.configuration["model"]),
                chosen[curve.kind],
                parameters,
                curve.verifier,
                _honest(point.accuracy, questions),
                questions,
                "measured",
                note,
                work if curve.verifier else replace(work, verified=0.0, scored=0.0),
                info.configuration["sampling"]["max_tokens"],
            )


def _honest(accuracy: Interval, questions: int) -> Interval:
    """Where every question came out alike, drawing them again says nothing: then Wilson's interval."""
    low, value, high = accuracy
    return accuracy if low < high else stats.wilson(round(value * questions), questions)


def samples(store: Store, run: str, k: int) -> Work:
    """The work of `k` samples of a run: mean over its questions, and over all that can be taken without overlap."""
    works = []
    usages = []
    for search in store.searches(run):
        usages.append(search.result.usage)
        nodes = [node for node in search.tree if node.parent is not None]
        usage, share = search.result.usage, k / max(1, search.result.usage.policy_calls)
        for begin in range(0, len(nodes) - k + 1, k):
            taken = nodes[begin : begin + k]
            scaled = replace(
                usage,
                policy_calls=k,
                # The prompt is computed once, however many samples share it.
                cached_tokens=round((usage.prompt_tokens + usage.cached_tokens) * share) - usage.prompt_tokens,
                generated_tokens=sum(map(sum, rounds(taken))),
                verifier_tokens=round(usage.verifier_tokens * share),
                verifier_calls=round(usage.verifier_calls * share),
            )
            works.append(of_search(taken, scaled))
    return replace(mean(works), verifier=verifier_of(usages))


def from_calibrations(calibrations: Iterable[Calibration], note: str, *, file: str = "") -> list[Evidence]:
    """What `auto` was found to give at every budget, on questions set aside, and the work it was played to make.

    `file` is where they come from; empty for those of the package. Where nobody played the rounds, one answer is taken
    to come after the other, the slowest way to draw so many tokens, and that is said. One of several tasks is evidence
    for none of them.
    """
    return [
        Evidence(
            each.task,
            each.model,
            "auto",
            {"budget_tokens": row.budget, **({"calibration": file} if file else {})},
            each.verifier,
            Interval(*row.held_out),
            each.questions,
            "measured",
            note,
            row.work or usual(1, row.held_out_tokens, QUESTION),
            assumed="" if row.work else "rounds of auto not on record, one answer after the other assumed",
        )
        for each in calibrations
        if each.task is not None
        for row in each.rows
    ]


def usual(n: int, drawn: float, question: float) -> Work:
    """The work of n samples side by side that draw so many tokens in all."""
    rows = min(n, SLOTS)
    return Work(question, drawn, 0.0, float(n), question + drawn / n / 2, {rows: drawn / rows})
