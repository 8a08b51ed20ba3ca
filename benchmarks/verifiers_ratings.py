"""Is this step right? Verifiers on single steps of other models' solutions, which people have rated.

    python -m benchmarks.verifiers_steps phase2_test.jsonl          # takes the rows from PRM800K's own files
    python -m benchmarks.verifiers --score probe --only prm800k     # has a verifier score them

As PRM800K has it (Lightman et al. 2023, 2305.20050): at every step some completions, each rated +1 (right), 0 (neither
wrong nor a help) or -1 (wrong), one of which, or a step that a person wrote, the solution goes on from. A completion's
score is that of the path which ends in it, after the earlier steps that were gone on from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from benchmarks import default_strategy as dev
from benchmarks import verifiers_steps as steps
from benchmarks.rig import Figures, table
from benchmarks.verifiers_rows import PRM800K, stored
from benchmarks.verifiers_scores import KEPT, Kept
from flyweight import stats
from flyweight.protocols import Search
from flyweight.select import aggregate
from flyweight.stats import Interval
from flyweight.tasks import maths
from flyweight.types import Node, Problem, digest

__all__ = ["FEW", "NAME", "SCORES", "Branches", "Rated", "measured", "rated", "score", "section"]

NAME = PRM800K
SCORES = KEPT / f"{NAME}-scores.json.gz"
FEW = 50
"""Problems below which the page says that nothing is measured."""


class Rated(NamedTuple):
    """A solution and what people said of its steps."""

    problem: Problem
    """Its id is the row's."""
    paths: tuple[tuple[str, ...], ...]
    """The steps up to and with each rated completion."""
    ratings: tuple[int, ...]
    """Of the last step of each path: 1, 0 or -1."""


class Branches:
    """Scores every rated completion of solutions as the path that ends in it."""

    def __init__(self, solutions: Mapping[str, Rated]) -> None:
        self.values: dict[str, list[float]] = {}
        """By problem id, one per path."""
        self._solutions = solutions

    async def __call__(self, search: Search) -> Node | None:
        ends = []
        for *earlier, last in self._solutions[search.problem.id].paths:
            node = search.root
            for step in earlier:
                node = search.append(node, f"{step}\n\n")
            ends.append(search.append(node, last))
        self.values[search.problem.id] = [round(aggregate(node.score), 9) for node in await search.score(ends)]
        return None


def score(names: Sequence[str], runs: Path) -> None:
    """Have the verifiers score every rated completion that they have not."""
    solutions = {solution.problem.id: solution for solution in map(rated, stored(NAME))}
    kept = Kept(SCORES)
    kept.take(
        {"model": dev.SMALL},
        {
            id: {
                "draws": digest(*map(digest, chain.from_iterable(solution.paths)), *map(len, solution.paths))[:16],
                "question": digest(solution.problem.prompt)[:16],
                "ratings": solution.ratings,
            }
            for id, solution in solutions.items()
        },
    )
    problems = [solution.problem for solution in solutions.values()]
    steps.ask(kept, problems, Branches(solutions), names, runs / NAME)


def rated(row: Figures) -> Rated:
    """A row of PRM800K. What comes after a step from which nothing went on has no path, and is left out."""
    path: tuple[str, ...] = ()
    paths, ratings = [], []
    for step in row["label"]["steps"]:
        completions = step["completions"] or []
        for completion in completions:
            if completion["rating"] is not None:
                paths.append((*path, completion["text"]))
                ratings.append(int(completion["rating"]))
        chosen, written = step.get("chosen_completion"), step.get("human_completion")
        if chosen is None and written is None:
            break
        path += (written["text"] if chosen is None else completions[chosen]["text"],)
    problem = maths.problem(digest(row)[:16], row["question"]["problem"], "", {})
    return Rated(replace(problem, answer=None), tuple(paths), tuple(ratings))


# What is measured -----------------------------------------------------------------------------------------------------


def measured(questions: Sequence[Figures], name: str) -> Interval | None:
    """AUC of a verifier at telling +1 from -1 in all rows together; None if there is nothing to tell apart.

    The interval is a bootstrap over problems: all rows about one are drawn together. What is rated 0 is neither.
    """
    scores: dict[str, list[float]] = {}
    right: dict[str, list[bool]] = {}
    for row in questions:
        for value, rating in zip(row["scores"][name], row["ratings"], strict=True):
            if rating:
                scores.setdefault(row["question"], []).append(value)
                right.setdefault(row["question"], []).append(rating > 0)
    if len(set(chain.from_iterable(right.values()))) < 2:
        return None
    return stats.clustered_auc(list(scores.values()), list(right.values()), resamples=2000)


# The page -------------------------------------------------------------------------------------------------------------

INTRODUCTION = """### Rated steps (PRM800K)

Steps of other models' solutions, each rated by people: +1 right, −1 wrong, 0 neither (results/README.md). Every rated
completion is scored as the path that ends in it: the question, the earlier steps that the solution went on from, and
that completion. AUC: how often a +1 step is scored above a −1 step, of all problems together; steps rated 0 count as
neither and are left out. Intervals by bootstrap over problems.
"""
TOO_FEW = """
**{problems} problems are a check of the plumbing, not a measurement**: they show that such rows are read, scored and
counted, and no verifier should be chosen by them. `python -m benchmarks.verifiers_steps` takes the whole data set.
"""
HEAD = ("verifier", "problems", "rated +1", "rated −1", "rated 0, left out", "AUC")


def section() -> str:
    """The table; nothing as long as nothing is scored."""
    kept = Kept(SCORES)
    if not kept.whole:
        return ""
    questions = list(kept.questions.values())
    given = [rating for row in questions for rating in row["ratings"]]
    problems = len({row["question"] for row in questions if any(row["ratings"])})
    counts = [str(problems), *(str(given.count(rating)) for rating in (1, -1, 0))]
    lines = [[f"`{name}`", *counts, auc(measured(questions, name))] for name in kept.whole]
    few = TOO_FEW.format(problems=problems) if problems < FEW else ""
    return INTRODUCTION + few + "\n" + table(HEAD, lines) + "\n"


def auc(value: Interval | None) -> str:
    """With its interval; a dash where there is none."""
    return "–" if value is None else f"{value.value:.3f} ({value.low:.3f}–{value.high:.3f})"
