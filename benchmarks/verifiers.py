"""How well does each verifier tell right from wrong, what is it worth to a search, and what does it cost?

    python -m benchmarks.verifiers                       # the tables of docs/verifiers.md, in seconds, without a model
    python -m benchmarks.verifiers --score               # first score what the pools hold by every free verifier
    python -m benchmarks.verifiers --score p_true,judge  # by these; what is not on record needs the model, and hours
    python -m benchmarks.verifiers --cost p_true         # tokens, time and memory of these, on four questions of a pool
    python -m benchmarks.verifiers --only gsm8k          # pools whose name contains this; prints, writes no page

Every verifier is measured on the same samples: recordings of development questions (results/dev60) and of test
questions (results/pools), and solutions of other models with the first error marked (verifiers_steps.py) or with steps
rated (verifiers_ratings.py). Scoring goes on where it was stopped; what it found is kept in results/verifiers. Nothing
here is fitted; a threshold is chosen on development questions.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from types import ModuleType

from benchmarks import verifiers_beam as beam
from benchmarks import verifiers_cost as costs
from benchmarks import verifiers_ratings as ratings
from benchmarks import verifiers_steps as steps
from benchmarks.rig import ROOT, Figures, publish, table
from benchmarks.verifiers_scores import DEV, FREE, KEPT, Kept, free, names, opened, score, score_states
from flyweight import stats
from flyweight.bench.engine import CannotLoad
from flyweight.report.pools import votes
from flyweight.report.records import Draw
from flyweight.report.words import between, difference, share
from flyweight.stats import Interval
from flyweight.verifiers import load

PAGE = ROOT / "docs" / "verifiers.md"
MARK = "measured"
JUDGED = (steps, ratings)
"""Solutions of other models whose steps people have judged."""
RESAMPLES = 2000
ORACLE = "oracle"
"""Scores 1 what is right: the most any verifier can get out of these samples."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--score", nargs="?", const="", metavar="NAMES", help="score first; without names, the free ones"
    )
    parser.add_argument("--cost", nargs="?", const="", metavar="NAMES", help="measure first what these cost")
    parser.add_argument("--only", default="", help="only pools whose name contains this")
    parser.add_argument("--runs", type=Path, default=Path("runs/verifiers"), help="folder of stores")
    arguments = parser.parse_args()
    pools = [name for name in names() if arguments.only in name]
    judged = [part for part in JUDGED if arguments.only in part.NAME]
    if arguments.score is not None:
        try:
            for name in pools:
                print(name)
                scored(name, listed(arguments.score), arguments.runs)
            for part in judged:
                print(part.NAME)
                part.score(listed(arguments.score) or steps.FREE, arguments.runs)
        except KeyboardInterrupt:
            raise SystemExit("\nstopped: what was scored is kept") from None
    if arguments.cost is not None:
        for name in pools:
            if name != DEV:
                costs.measure(name, listed(arguments.cost), arguments.runs)
    text = page(pools, judged)
    print(text)
    if not arguments.only and not publish(PAGE, MARK, text):
        raise SystemExit(f"{PAGE} has no <!-- {MARK} --> to write between")


def listed(names: str) -> list[str]:
    """Names between commas."""
    return [name for name in names.split(",") if name]


def scored(pool: str, wanted: list[str], runs: Path) -> None:
    """Have verifiers score a pool; the free ones if none are named."""
    kept = Kept(KEPT / f"{pool}.json.gz")
    try:
        with opened(pool, runs, draw=not FREE.issuperset(wanted)) as source:
            kept.take(source.about, source.facts())
            names = wanted or free(source)
            reading = [name for name in names if getattr(load(name), "reads_states", False)]
            if reading and (wrong := score_states(kept, source, reading)):
                print(f"{', '.join(reading)} left out: {wrong}")
            for name in names:
                if name not in reading and (wrong := score(kept, source, name)):
                    print(f"{name} left out: {wrong}")
    except CannotLoad as failure:
        raise SystemExit(str(failure)) from None


# What is measured -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Samples:
    """The samples of a pool, question by question."""

    draws: list[list[Draw]]
    """Without scores."""
    n: int

    @classmethod
    def of(cls, kept: Kept) -> Samples:
        """Those of a file."""
        return cls([_draws(question) for question in kept.questions.values()], kept.about["n"])

    @property
    def random(self) -> list[float]:
        """Of every question, the share of its samples that are right."""
        return [math.fsum(draw.right for draw in draws) / len(draws) for draws in self.draws]

    @property
    def covered(self) -> list[float]:
        """1 for every question with a right sample."""
        return [float(any(draw.right for draw in draws)) for draws in self.draws]

    @property
    def majority(self) -> list[float]:
        """1 for every question whose vote is right."""
        return [voted(given(draws, [1.0] * len(draws))) for draws in self.draws]


@dataclass(frozen=True)
class Measured:
    """A verifier on the samples of a pool that can be chosen."""

    overall: Interval
    """AUC over all of them."""
    within: Interval
    """AUC within a question."""
    brier: float
    ece: float
    reference: stats.Calibrated
    best: list[float]
    """1 for every question whose best-scored sample is right."""
    vote: list[float]
    """1 for every question whose score-weighted vote is right."""


def measured(samples: Samples, scores: Sequence[Sequence[float | None]]) -> Measured:
    """What the scores are worth, one for every draw; None for one that cannot be chosen."""
    draws = [given(own, values) for own, values in zip(samples.draws, scores, strict=True)]
    held = [[draw for draw in own if draw.score is not None] for own in draws]
    said = [[float(draw.score or 0) for draw in own] for own in held]
    right = [[draw.right for draw in own] for own in held]
    flat, marks = [x for own in said for x in own], [ok for own in right for ok in own]
    return Measured(
        stats.clustered_auc(said, right, resamples=RESAMPLES),
        stats.auc_within(said, right),
        stats.brier(flat, marks),
        stats.ece(flat, marks),
        stats.calibrated(flat),
        [best(own) for own in draws],
        [voted(own) for own in draws],
    )


def best(draws: Sequence[Draw]) -> float:
    """Whether best_of_n selects a right one: the highest score, then the more confident, then the first drawn."""
    chosen = max((d for d in draws if d.score is not None), key=lambda d: (d.score, d.logprob), default=None)
    return float(chosen is not None and chosen.right)


def voted(draws: Sequence[Draw]) -> float:
    """Whether weighted_best_of_n selects a right one."""
    import numpy as np

    return float(votes(draws, np.arange(len(draws))[None])[0, -1])


def given(draws: Sequence[Draw], scores: Sequence[float | None]) -> list[Draw]:
    """The draws with their scores."""
    return [
        Draw(draw.id, draw.right, draw.undecided, draw.truncated, draw.group, score, draw.logprob)
        for draw, score in zip(draws, scores, strict=True)
    ]


def _draws(question: Figures) -> list[Draw]:
    columns = zip(*(question[name] for name in ("right", "group", "logprob", "ended")), strict=True)
    return [
        Draw(str(i), bool(right), False, not ended, group, None, logprob)
        for i, (right, group, logprob, ended) in enumerate(columns)
    ]


# The page -------------------------------------------------------------------------------------------------------------

INTRODUCTION = """Made by `python -m benchmarks.verifiers`, without a model: the scores are in results/verifiers, the
samples in results/pools and results/dev60 (Qwen2.5-Coder-0.5B, temperature 0.7). All verifiers of a table scored the
same samples, those that were not cut short. Nothing was fitted to test questions.

- **AUC**: how often a right sample is scored above a wrong one, 0.5 being chance. *Within a question*, the mean over
  questions that have both, is what choosing lives on; *overall* also rewards telling easy questions from hard ones.
- **Brier score and calibration error** (5 bins), and in parentheses what the same scores would get if each were exactly
  the probability it claims to be: the error a perfect verifier shows on so few samples. Most verifiers only rank.
- **Best of n** against choosing at random, and **weighted vote** against majority, in points, question by question.
  Equal scores are told apart by log-probability: what says the same of all chooses as `confidence` does. `oracle` knows
  what is right: the most these samples give.
- **Cost** per candidate: tokens a verifier computes, milliseconds, memory in MB beyond what drawing takes; – is not
  measured. Intervals: 95 %, by bootstrap over questions.
"""
HEAD = (
    "verifier",
    "AUC",
    "AUC within a question",
    "Brier (calibrated)",
    "calibration error (calibrated)",
    "best of n",
    "minus random, points",
    "weighted vote",
    "minus majority, points",
    "tokens",
    "ms",
    "MB",
)


def page(pools: Sequence[str], judged: Sequence[ModuleType]) -> str:
    """Every table."""
    cost = json.loads(costs.COST.read_text("utf-8")) if costs.COST.exists() else {"rows": {}}
    pieces = [INTRODUCTION]
    for pool in pools:
        kept = Kept(KEPT / f"{pool}.json.gz")
        if kept.questions:
            pieces.append(section(pool, kept, cost["rows"]))
    pieces += filter(None, (part.section() for part in (beam, *judged)))
    if "setting" in cost:
        machine = cost["setting"]["machine"]
        pieces.append(
            f"Costs: {machine['cpu']}, {machine['cpus']} CPUs, {cost['setting']['questions']} questions a pool.\n"
        )
    return "\n".join(pieces)


def section(pool: str, kept: Kept, cost: dict[str, Figures]) -> str:
    """One pool."""
    samples = Samples.of(kept)
    about = kept.about
    ended = sum(not draw.truncated for draws in samples.draws for draw in draws)
    both = sum(0 < value < 1 for value in samples.random)
    words = [
        f"### {about['task']}, {about['split'] or 'all'} ({pool})\n",
        f"{len(samples.draws)} questions x {samples.n} samples, of which {ended:,} were not cut short; {both} "
        f"questions have right and wrong ones. Random choice {between(interval(samples.random))}, majority "
        f"{between(interval(samples.majority))}, coverage {between(interval(samples.covered))}.\n",
        table(HEAD, rows(pool, kept, samples, cost)) + "\n",
    ]
    if kept.parts:
        begun = ", ".join(f"{name} {count}" for name, count in kept.parts.items())
        words.append(f"Begun, of {len(kept.questions)} questions: {begun}.\n")
    return "\n".join(words)


def rows(pool: str, kept: Kept, samples: Samples, cost: dict[str, Figures]) -> list[list[str]]:
    """A row for every verifier, and one for the oracle; the better within a question first."""
    scores = {name: [question["scores"][name] for question in kept.questions.values()] for name in kept.whole}
    found = {name: measured(samples, values) for name, values in scores.items()}
    ordered = sorted(found, key=lambda name: (-found[name].within.value, name))
    knows = [[None if draw.truncated else float(draw.right) for draw in draws] for draws in samples.draws]
    return [
        *(row(name, found[name], samples, paid(cost.get(f"{pool} {name}"))) for name in ordered),
        row(ORACLE, measured(samples, knows), samples, ["", "", ""]),
    ]


def row(name: str, found: Measured, samples: Samples, paid: list[str]) -> list[str]:
    """Cells of one."""
    return [
        f"`{name}`",
        number(found.overall),
        number(found.within),
        f"{found.brier:.3f} ({found.reference.brier.value:.3f})",
        f"{found.ece:.3f} ({found.reference.ece.value:.3f})",
        share(fmean(found.best)),
        difference(stats.paired_bootstrap(found.best, samples.random)),
        share(fmean(found.vote)),
        difference(stats.paired_bootstrap(found.vote, samples.majority)),
        *paid,
    ]


def paid(figures: Figures | None) -> list[str]:
    """Tokens, milliseconds and memory."""
    if figures is None:
        return ["–"] * 3
    return [f"{figures['tokens']:.0f}", f"{figures['ms']:.{0 if figures['ms'] >= 10 else 2}f}", f"{figures['mb']:.0f}"]


def interval(values: Sequence[float]) -> Interval:
    """Their mean and its interval."""
    return stats.bootstrap_mean(values, resamples=RESAMPLES)


def number(value: Interval) -> str:
    """An AUC with its interval."""
    return f"{value.value:.3f} ({value.low:.3f}–{value.high:.3f})"


if __name__ == "__main__":
    main()
