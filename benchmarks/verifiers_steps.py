"""Where is the first error? Verifiers on solutions of other models, whose first wrong step people have marked.

    python -m benchmarks.verifiers_steps gsm8k.json math.json    # takes the rows from ProcessBench's own files
    python -m benchmarks.verifiers_steps phase2_test.jsonl       # and from PRM800K's (verifiers_ratings.py)

A verifier says of every step how good the path up to its end is; the first step below a threshold is called wrong, none
if no step is. As ProcessBench defines it (Zheng et al. 2024, 2412.06559, section 4): the accuracy on solutions with an
error (that very step), the accuracy on those without, and F1, their harmonic mean. The threshold is that of the best F1
at telling wrong from right answers among recorded answers to development questions, in which no step is marked.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, Protocol

from benchmarks import default_strategy as dev
from benchmarks.cassette import Cassette
from benchmarks.cassette import Recorded as Replayed
from benchmarks.rig import ROOT, Figures, table
from benchmarks.verifiers_rows import PROCESSBENCH, file, stored, take
from benchmarks.verifiers_scores import IN_FLIGHT, KEPT, Kept, development, keep, late, sound
from flyweight import models, stats, tasks, verifiers
from flyweight.errors import ConfigError
from flyweight.protocols import Policy, Search
from flyweight.runner import Runner
from flyweight.select import aggregate
from flyweight.stats import Interval
from flyweight.tasks import maths
from flyweight.types import Node, Problem, Sampling, digest
from flyweight.verifiers.self_verifier import combination

__all__ = ["FREE", "NAME", "ROWS", "Solution", "ask", "f1", "located", "score", "section", "threshold"]

NAME = PROCESSBENCH
ROWS = file(NAME)
SCORES = KEPT / f"{NAME}-scores.json.gz"
SELF = "self"
FREE = ("arithmetic",)
"""Verifiers that need no model and say something about a step."""
DEVELOPMENT = "development"
ANSWERS = 4
"""Recorded answers to every development question that a threshold is chosen on."""
CONTEXT = 2048


class Solution(NamedTuple):
    """An answer to a question, step by step."""

    problem: Problem
    """Its id is the solution's."""
    subset: str
    steps: tuple[str, ...]
    wrong: int
    """The first wrong step, -1 for none; of an answer to a development question, 0 where it is wrong somewhere."""


class Reading(Protocol):
    """A strategy that draws nothing and has texts scored that are there already."""

    values: dict[str, list[float]]
    """What was said last, by problem id."""

    async def __call__(self, search: Search) -> Node | None:
        """Has the texts of a problem scored; selects none."""


class Walk:
    """Scores the path up to the end of every step of solutions that are there already."""

    def __init__(self, solutions: Mapping[str, Solution]) -> None:
        self.values: dict[str, list[float]] = {}
        """By problem id, one per step."""
        self._solutions = solutions

    async def __call__(self, search: Search) -> Node | None:
        solution = self._solutions[search.problem.id]
        path, node = [], search.root
        for number, step in enumerate(solution.steps, 1):
            node = search.append(node, step if number == len(solution.steps) else f"{step}\n\n")
            path.append(node)
        (whole,) = await search.score(path[-1:])
        steps = () if whole.score is None else whole.score.steps
        if len(steps) != len(path):  # it scores paths, or counts steps in another way
            steps = tuple(aggregate(each.score) for each in [*await search.score(path[:-1]), whole])
        self.values[search.problem.id] = [round(value, 9) for value in steps]
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="as ProcessBench (JSON lists) and PRM800K (JSON lines) are")
    try:
        taken = take(parser.parse_args().files)
    except ConfigError as mistake:
        raise SystemExit(f"Error: {mistake}") from None
    for name, count in taken.items():
        print(f"{file(name).relative_to(ROOT)}: {count} rows")


def score(names: Sequence[str], runs: Path) -> None:
    """Have the verifiers score every solution that they have not."""
    solutions = {solution.problem.id: solution for solution in (*answered(), *marked())}
    kept = Kept(SCORES)
    kept.take(
        {"model": dev.SMALL},
        {
            id: {
                "draws": digest(*solution.steps)[:16],
                "subset": solution.subset,
                "length": len(solution.steps),
                "wrong": solution.wrong,
            }
            for id, solution in solutions.items()
        },
    )
    problems = [solution.problem for solution in solutions.values()]
    ask(kept, problems, Walk(solutions), names, runs / NAME)


def ask(kept: Kept, problems: Sequence[Problem], strategy: Reading, names: Sequence[str], folder: Path) -> None:
    """Have verifiers say what they have not said; what a model told one that asks it is kept in the folder."""
    cassette = Cassette(folder / f"{dev.SMALL}.jsonl.xz")
    make = late(dev.SMALL, CONTEXT, "auto")
    recorded: Policy = Replayed(dev.SMALL, models.catalog()[dev.SMALL].parameters, cassette, make)
    reading = [name for name in names if getattr(verifiers.load(name), "reads_states", False)]
    own = make() if reading else recorded  # hidden states are on no record
    try:
        for name in names:
            if name == SELF and stacked(kept):
                continue
            missing = [problem for problem in problems if name not in kept.questions[problem.id]["scores"]]
            if wrong := walk(kept, missing, strategy, name, own if name in reading else recorded):
                print(f"{name} left out: {wrong}")
    finally:
        for policy in {recorded, own}:
            policy.close()


def stacked(kept: Kept) -> bool:
    """Whether the parts of `self` have scored every step; then it is what they said, weighed, and no model is asked."""
    whole = combination(models.catalog()[dev.SMALL].sha256)["maths"]
    if not set(whole.weights) <= set(kept.whole):
        return False
    for question in kept.questions.values():
        said = zip(*(question["scores"][part] for part in whole.weights), strict=True)
        question["scores"][SELF] = [round(whole.value(step), 9) for step in said]
    kept.write()
    return True


def walk(kept: Kept, problems: Sequence[Problem], strategy: Reading, name: str, policy: Policy) -> str:
    """Have one verifier score them; what is wrong if it cannot, else nothing."""
    judge = verifiers.load(name)
    runner = Runner(policy, {judge.name: judge}, answers=tasks.load("gsm8k"), sampling=Sampling(max_tokens=512))
    results = runner.run(problems, strategy, in_flight=IN_FLIGHT)
    return keep(kept, {name: lambda result: strategy.values.pop(result.problem.id)}, results)


def marked() -> list[Solution]:
    """The rows of ProcessBench."""
    return [
        Solution(
            replace(maths.problem(row["id"], row["problem"], "", {}), answer=None),
            row["subset"],
            tuple(row["steps"]),
            row["label"],
        )
        for row in stored(NAME)
    ]


def answered() -> list[Solution]:
    """Recorded answers to development questions, cut into steps at blank lines."""
    source = development()
    facts = source.facts()
    found = []
    for result in source.runner(source.policy).run(source.problems, source.strategy("self_consistency")):
        right = facts[result.problem.id]["right"]
        for index, candidate in enumerate(sound(result).candidates[:ANSWERS]):
            steps = tuple(step for step in re.split(r"\n\s*\n", candidate.node.solution) if step.strip())
            if candidate.answer is not None and steps:
                problem = replace(result.problem, id=f"{result.problem.id} {index}", answer=None)
                found.append(Solution(problem, DEVELOPMENT, steps, -1 if right[index] else 0))
    return found


# What is measured -----------------------------------------------------------------------------------------------------


def located(values: Sequence[float], threshold: float) -> int:
    """The first step whose score is below the threshold, -1 if none is."""
    return next((index for index, value in enumerate(values) if value < threshold), -1)


def threshold(scores: Sequence[Sequence[float]], wrong: Sequence[bool]) -> float:
    """The score that best tells solutions with a step below it from those without: by F1, then the lowest."""
    least = [min(values) for values in scores]

    def worth(limit: float) -> float:
        caught = [value < limit for value, bad in zip(least, wrong, strict=True) if bad]
        passed = [value >= limit for value, bad in zip(least, wrong, strict=True) if not bad]
        return f1(sum(caught) / len(caught), sum(passed) / len(passed))

    return max(sorted(set(least)), key=worth)


def f1(on_erroneous: float, on_correct: float) -> float:
    """The harmonic mean of two accuracies; 0 where either is."""
    total = on_erroneous + on_correct
    return 2 * on_erroneous * on_correct / total if total else 0.0


class Found(NamedTuple):
    """How well first errors were found."""

    on_erroneous: float
    on_correct: float
    f1: Interval
    auc: float
    """Of the lowest score of a solution, at telling those without an error from the others."""


def found(scores: Sequence[Sequence[float]], wrong: Sequence[int], limit: float) -> Found:
    """With that threshold. The interval is a bootstrap over solutions, of either kind as many as there are."""
    import numpy as np

    hits = [float(located(values, limit) == label) for values, label in zip(scores, wrong, strict=True)]
    kinds = [
        np.asarray([hit for hit, label in zip(hits, wrong, strict=True) if (label < 0) is correct])
        for correct in (False, True)
    ]
    generator = np.random.default_rng(0)
    drawn = [kind[generator.integers(0, kind.size, (2000, kind.size))].mean(axis=1) for kind in kinds]
    low, high = np.percentile([f1(*pair) for pair in zip(*drawn, strict=True)], [2.5, 97.5])
    on_erroneous, on_correct = (float(kind.mean()) for kind in kinds)
    return Found(
        on_erroneous,
        on_correct,
        Interval(float(low), f1(on_erroneous, on_correct), float(high)),
        stats.auc([min(values) for values in scores], [label < 0 for label in wrong]),
    )


# The page -------------------------------------------------------------------------------------------------------------

INTRODUCTION = """### First wrong step (ProcessBench)

Solutions of other models, {rows}, whose first wrong step people have marked (results/README.md). The
first step scored below a threshold is called wrong. F1 is the harmonic mean of the accuracy on solutions with an error
(that very step) and on those without; the threshold is the one that best tells wrong from right among {answers}
recorded answers to development questions, where no step is marked. AUC: a solution without an error against one with,
by its lowest score. A guess picks a step or "none" blindly; saying "none" always has F1 0.
"""
HEAD = ("verifier", "rows", "threshold", "with an error", "without", "F1", "AUC")


def section() -> str:
    """The table; nothing as long as nothing is scored."""
    kept = Kept(SCORES)
    if not kept.whole:
        return ""
    subsets: dict[str, list[Figures]] = {}
    for question in kept.questions.values():
        subsets.setdefault(question["subset"], []).append(question)
    ours = subsets.pop(DEVELOPMENT)
    lines = []
    for name in kept.whole:
        limit = threshold([one["scores"][name] for one in ours], [one["wrong"] >= 0 for one in ours])
        for subset, rows in sorted(subsets.items()):
            said = found([one["scores"][name] for one in rows], [one["wrong"] for one in rows], limit)
            lines.append([f"`{name}`", subset, f"{limit:.3f}", *cells(said), f"{said.auc:.3f}"])
    for subset, rows in sorted(subsets.items()):
        lines.append(["a guess", subset, "–", *guess(rows), "0.500"])
    counts = " and ".join(f"{len(rows)} of {subset}" for subset, rows in sorted(subsets.items()))
    return INTRODUCTION.format(rows=counts, answers=len(ours)) + "\n" + table(HEAD, lines) + "\n"


def cells(said: Found) -> list[str]:
    """Accuracies and F1 in percent."""
    low, value, high = (100 * number for number in said.f1)
    return [f"{100 * said.on_erroneous:.1f}", f"{100 * said.on_correct:.1f}", f"{value:.1f} ({low:.1f}–{high:.1f})"]


def guess(rows: Sequence[Figures]) -> list[str]:
    """What picking a step or "none" blindly is expected to give."""
    chances = [[1 / (row["length"] + 1) for row in rows if (row["wrong"] < 0) is correct] for correct in (False, True)]
    on_erroneous, on_correct = (sum(kind) / len(kind) for kind in chances)
    return [f"{100 * on_erroneous:.1f}", f"{100 * on_correct:.1f}", f"{100 * f1(on_erroneous, on_correct):.1f}"]


if __name__ == "__main__":
    main()
