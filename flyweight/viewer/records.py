"""What a store says, as the page reads it: JSON objects, each computed when it is first asked for.

Grades are those on record: nothing is graded, and nothing written, by looking at it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

from flyweight import stats
from flyweight.bench import counted
from flyweight.bench.graded import NOT_GRADED, Grades, Recorded, one, read
from flyweight.errors import ConfigError
from flyweight.report import Report, records
from flyweight.store import Outline, RunInfo, Store
from flyweight.types import Grade, Stopped
from flyweight.viewer import searches

__all__ = ["Kept", "Records"]

Json = dict[str, Any]
Kept = dict[tuple[str, ...], tuple[object, object]]
T = TypeVar("T")

SHOWN = 240
"""Characters of a question in a list."""
BINS = 20
"""Of the histogram of scores."""


class Records:
    """The runs of a store. Whatever is asked for again is remembered while the run has not changed."""

    def __init__(self, store: Store, kept: Kept | None = None) -> None:
        """`kept` is what several of them, one after another, remember together."""
        self._store = store
        self._kept: Kept = {} if kept is None else kept

    def runs(self) -> list[Json]:
        """Every run, latest first."""
        return [_run(info) for info in reversed(self._store.runs())]

    def run(self, id: str) -> Json:
        """A run and one row for each of its questions, as columns; ConfigError for an unknown one."""
        info = self._info(id)
        return self._remembered(info, ("run", id), lambda: self._overview(info))

    def report(self, id: str) -> Json:
        """What `flyweight report` says of the run, and counts of its candidates; `report` is None if it cannot."""
        info = self._info(id)
        try:
            return self._remembered(info, ("report", id), lambda: self._report(info))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # The configuration is whatever the run's maker wrote; the rest of the run can be read all the same.
            return {"report": None, "why": f"Its configuration cannot be reported on ({type(error).__name__})."}

    def question(self, id: str, key: str) -> Json:
        """The search of one question; ConfigError if there is none."""
        info = self._info(id)
        search = self._store.search(id, self._problem(info, key))
        grades = self._grades(info)
        graded = one(search, grades)
        said = {each.sample.node.key: each.grade for each in graded.samples}
        return {"run": _run(info), "grade": _grade(graded.grade), "events": searches.events(search.events, said)}

    def difference(self, a: str, b: str) -> Json:
        """Two runs on the problems of both; ConfigError if they have none, or lack grades.

        `keys` are the questions compared where some of both runs are not the same problem; None where all are.
        """
        first, second = (self._counted(self._info(id)) for id in (a, b))
        if first.missing or second.missing:
            raise ConfigError("not everything is graded yet: run flyweight report")
        found = counted.difference(first, second)
        return {
            "only_in_a": found.only_in_a,
            "only_in_b": found.only_in_b,
            "keys": [searches.problem_key(each.problem.id) for each in found.a] if found.changed else None,
            "interval": _interval(found.interval),
            "p": found.p,
        }

    def keys(self, id: str) -> list[str]:
        """The addresses of a run's questions."""
        found: list[str] = self.run(id)["questions"]["key"]
        return found

    # Inside --------------------------------------------------------------------------------------------------------

    def _info(self, id: str) -> RunInfo:
        for info in self._store.runs():
            if info.id == id:
                return info
        raise ConfigError(f"the store holds no run {id!r}")

    def _grades(self, info: RunInfo) -> Recorded:
        return Recorded(self._store, info.configuration)

    def _remembered(self, info: RunInfo, key: tuple[str, ...], make: Callable[[], T]) -> T:
        state = (info.finished, info.problems, info.versions)
        kept = self._kept.get(key)
        if info.finished is None or kept is None or kept[0] != state:
            kept = self._kept[key] = (state, make())
        return cast("T", kept[1])

    def _problem(self, info: RunInfo, key: str) -> str:
        for id in self._store.problems(info.id):
            if searches.problem_key(id) == key:
                return id
        raise ConfigError(f"run {info.id} holds no question {key!r}")

    def _overview(self, info: RunInfo) -> Json:
        grades = self._grades(info)
        rows = sorted((_row(outline, grades) for outline in self._store.outlines(info.id)), key=lambda row: row.id)
        columns = {name: [getattr(row, name) for row in rows] for name in _Row._fields}
        count = len(rows)
        right = columns["mark"].count("right")
        return {
            "run": _run(info) | {"configuration": dict(info.configuration), "models": dict(info.models)},
            "questions": columns,
            "accuracy": _interval(stats.wilson(right, count)) if count and "ungraded" not in columns["mark"] else None,
            "tokens": sum(columns["tokens"]) / count if count else 0,
        }

    def _report(self, info: RunInfo) -> Json:
        if missing := sorted(name for name in ("task", "model", "strategy") if name not in info.configuration):
            return {"report": None, "why": f"Its configuration lacks {', '.join(missing)}: it is no benchmark."}
        infos = [each for each in self._store.runs() if {"task", "model", "strategy"} <= each.configuration.keys()]
        name = records.names([info])[records.identity(info)]
        grades = self._grades(info)
        recorded = records.recorded(info, name, read(self._store, info.id, grades), infos)
        if grades.missing:
            return {"report": None, "why": "Not everything is graded yet: flyweight report does that."}
        made = Report.made([recorded]).as_dict()
        return {
            "report": made["sections"][0] if made["sections"] else None,
            "why": "" if made["sections"] else "Nothing has been searched so far.",
            "provenance": made["runs"],
            "scores": _scores(recorded),
            "samples": {
                searches.problem_key(id): [len(each.draws), sum(draw.right for draw in each.draws)]
                for id, each in recorded.outcomes.items()
            },
        }

    def _counted(self, info: RunInfo) -> counted.Counted:
        return self._remembered(info, ("counted", info.id), lambda: counted.Counted.of(self._store, info))


class _Row(NamedTuple):
    """A question in a list."""

    id: str
    key: str
    prompt: str
    truth: str | None
    answer: str | None
    mark: str
    """right, wrong, undecided, ungraded, or error for a search that failed."""
    stopped: str
    confidence: float | None
    tokens: int
    """Generated."""
    seconds: float
    candidates: int
    votes: list[int]
    """Candidates in each answer class, largest first."""
    level: str
    subject: str


def _row(outline: Outline, grades: Grades) -> _Row:
    result = outline.result
    problem = result.problem
    groups = [vote.answer_class for vote in outline.votes if vote.answer_class is not None]
    return _Row(
        id=problem.id,
        key=searches.problem_key(problem.id),
        prompt=problem.prompt if len(problem.prompt) <= SHOWN else problem.prompt[:SHOWN] + "…",
        truth=problem.answer,
        answer=result.answer,
        mark=_mark(outline, grades),
        stopped=result.stopped.value,
        confidence=result.confidence,
        tokens=result.usage.generated_tokens,
        seconds=round(result.usage.seconds, 3),
        candidates=len(outline.votes),
        votes=sorted((groups.count(group) for group in set(groups)), reverse=True),
        level=str(problem.meta.get("level", "")),
        subject=str(problem.meta.get("subject", "")),
    )


def _mark(outline: Outline, grades: Grades) -> str:
    result = outline.result
    if result.stopped is Stopped.ERROR:
        return "error"
    if result.best is None or result.answer is None:
        return "wrong"
    (grade,) = grades.grades(result.problem, [result.best])
    return _grade(grade)[0]


def _grade(grade: Grade) -> tuple[str, str]:
    """The mark of a grade, and its reason."""
    marks = {"correct": "right", "wrong": "wrong", "undecided": "undecided"}
    return ("ungraded" if grade == NOT_GRADED else marks[grade.value]), grade.reason


def _scores(recorded: records.Recorded) -> Json | None:
    """How the scores of right and of wrong candidates are spread, and how well they tell them apart."""
    draws = [draw for outcome in recorded.outcomes.values() for draw in outcome.draws if draw.score is not None]
    if not draws:
        return None
    spread = {True: [0] * BINS, False: [0] * BINS}
    for draw in draws:
        spread[draw.right][min(BINS - 1, int(BINS * (draw.score or 0.0)))] += 1
    marks = [draw.right for draw in draws]
    both = any(marks) and not all(marks)
    return {
        "verifier": recorded.verifier,
        "right": spread[True],
        "wrong": spread[False],
        "auc": stats.auc([draw.score or 0.0 for draw in draws], marks) if both else None,
    }


def _run(info: RunInfo) -> Json:
    """A run in a list."""
    asked = info.configuration
    return {
        "id": info.id,
        "task": asked.get("task"),
        "split": asked.get("split"),
        "model": records.file(str(asked.get("model", ""))),
        "strategy": asked.get("strategy"),
        "parameters": asked.get("parameters") or {},
        "verifier": asked.get("verifier"),
        "budget": asked.get("budget") or {},
        "seed": asked.get("seed", 0),
        "started": info.started,
        "finished": info.finished,
        "problems": info.problems,
    }


def _interval(value: stats.Interval) -> list[float]:
    """Low, value, high, rounded so that the order of a sum does not show."""
    return [round(number, 9) for number in value]
