"""A run counted: how many were right, beside random choice, coverage and another run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from flyweight import stats
from flyweight.bench.graded import Recorded, read, truncated
from flyweight.errors import ConfigError
from flyweight.store import RunInfo, Store
from flyweight.types import Grade, Problem, Stopped

__all__ = ["STRATA", "Counted", "Difference", "Draw", "Question", "accuracy", "coverage", "difference", "random_choice"]

STRATA = ("level", "subject")
"""What accuracy is told by, where problems have it in their meta."""


class Draw(NamedTuple):
    """A candidate."""

    right: bool
    undecided: bool
    truncated: bool


class Question(NamedTuple):
    """What is kept of a search while a whole run is counted: no texts but the answers."""

    problem: Problem
    grade: Grade
    """Of what was selected."""
    answer: str | None
    stopped: Stopped
    tokens: int
    """Generated."""
    draws: tuple[Draw, ...]

    @property
    def right(self) -> bool:
        """Whether what was selected is correct; undecided is not."""
        return self.grade.value == "correct"


class Counted(NamedTuple):
    """A run with the grades that are on record."""

    questions: list[Question]
    """By problem id, without those that were interrupted."""
    interrupted: int
    missing: int
    """Grades of the questions that are not on record: as long as there are any, nothing can be said."""

    @classmethod
    def of(cls, store: Store, info: RunInfo) -> Counted:
        """Read one search at a time. Errors as of `Store.searches`."""
        recorded = Recorded(store, info.configuration)
        questions = []
        interrupted = missing = 0
        for result, grade, samples in read(store, info.id, recorded):
            absent, recorded.missing = recorded.missing, 0
            if result.stopped is Stopped.INTERRUPTED:
                interrupted += 1
                continue
            missing += absent
            draws = tuple(
                Draw(each.value == "correct", each.value == "undecided", truncated(sample.node))
                for sample, each in samples
            )
            tokens = result.usage.generated_tokens
            questions.append(Question(result.problem, grade, result.answer, result.stopped, tokens, draws))
        return cls(questions, interrupted, missing)

    def strata(self) -> dict[str, dict[str, list[Question]]]:
        """The questions by level and by subject, where every problem has one."""
        found = {}
        for name in STRATA:
            if self.questions and all(name in question.problem.meta for question in self.questions):
                groups: dict[str, list[Question]] = {}
                for question in self.questions:
                    groups.setdefault(str(question.problem.meta[name]), []).append(question)
                found[name] = dict(sorted(groups.items()))
        return found


class Marked(Protocol):
    """What was selected for a problem and among what, each right or not."""

    @property
    def right(self) -> bool:
        """Of what was selected."""

    @property
    def draws(self) -> Sequence[Candidate]:
        """What there was to select from."""


class Candidate(Protocol):
    """Right or not."""

    @property
    def right(self) -> bool:
        """Whether it is."""


def accuracy(questions: Sequence[Marked]) -> stats.Interval | None:
    """Share selected correctly, with its Wilson interval; None of none."""
    return stats.wilson(sum(question.right for question in questions), len(questions)) if questions else None


def coverage(questions: Sequence[Marked]) -> stats.Interval | None:
    """Share with at least one correct candidate (pass@n with all there are), with its Wilson interval."""
    covered = sum(any(draw.right for draw in question.draws) for question in questions)
    return stats.wilson(covered, len(questions)) if questions else None


def random_choice(questions: Sequence[Marked]) -> stats.Interval | None:
    """Share of correct candidates: what choosing one blindly gives. The interval is clustered by question.

    None without candidates; of a single question's, the interval is Wilson's.
    """
    groups = [[float(draw.right) for draw in question.draws] for question in questions if question.draws]
    if len(groups) == 1:
        return stats.wilson(round(sum(groups[0])), len(groups[0]))
    if not groups:
        return None
    low, value, high = stats.clustered_mean(groups)
    return stats.Interval(max(0.0, low), value, min(1.0, high))


class Difference(NamedTuple):
    """Two runs on the problems that both have."""

    a: list[Question]
    """In the order of `b`, which has the same problems."""
    b: list[Question]
    only_in_a: int
    """Problems that the other has not."""
    only_in_b: int
    changed: int
    """Problems of one id that are not the same in both; compared nowhere."""
    interval: stats.Interval
    """Accuracy of b minus that of a: paired bootstrap."""
    p: float
    """McNemar's exact test."""


def difference(a: Counted, b: Counted) -> Difference:
    """What separates two runs that are graded. ConfigError if they have no problem in common."""
    mine, theirs = ({question.problem.id: question for question in counted.questions} for counted in (a, b))
    both = [id for id in mine if id in theirs]
    common = [id for id in both if _asked(mine[id].problem) == _asked(theirs[id].problem)]
    if not common:
        raise ConfigError("the runs have no problem in common")
    of_a, of_b = [mine[id] for id in common], [theirs[id] for id in common]
    right_a, right_b = [question.right for question in of_a], [question.right for question in of_b]
    return Difference(
        of_a,
        of_b,
        len(mine) - len(both),
        len(theirs) - len(both),
        len(both) - len(common),
        stats.paired_bootstrap([float(right) for right in right_b], [float(right) for right in right_a]),
        stats.mcnemar(right_a, right_b).p,
    )


def _asked(problem: Problem) -> tuple[object, ...]:
    return problem.prompt, problem.messages, problem.answer
