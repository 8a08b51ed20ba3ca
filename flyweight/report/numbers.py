"""What a report computes: runs on the same problems side by side, their differences, curves and abstention."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, stdev

from flyweight.bench.counted import STRATA, coverage, random_choice
from flyweight.report.pools import Pool, parameters, pools
from flyweight.report.records import Outcome, Recorded, identity, natural
from flyweight.report.words import plain
from flyweight.stats import (
    Interval,
    holm,
    mcnemar,
    paired_bootstrap,
    problems_needed_paired,
    risk_coverage,
    wilson,
)

__all__ = ["SHARES", "Answered", "Bigger", "Difference", "Row", "Section", "Stratum", "sections"]

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the problems, the most confident first, that abstention is shown at."""
STRATEGY_ORDER = ("greedy", "sample", "self_consistency", "adaptive_consistency", "best_of_n", "weighted_best_of_n")


@dataclass(frozen=True)
class Row:
    """A run over its problems. Costs are means per question."""

    run: str
    label: str
    """Strategy with n and verifier, and whatever tells it from the others of its section."""
    model: str
    strategy: str
    n: int
    verifier: str | None
    problems: int
    accuracy: Interval
    """Of what was selected; Wilson."""
    random: Interval | None
    """Of a candidate taken at random, clustered by problem; None with one candidate per problem."""
    coverage: Interval | None
    """Share of problems with a right candidate, Wilson; None as `random`."""
    generated_tokens: float
    prompt_tokens: float
    """Computed."""
    verifier_tokens: float
    flops: float
    seconds: float | None
    """Of the machine with many questions in flight: generated tokens by the model's measured speed."""
    policy_calls: float
    verifier_calls: float
    peak_kv_bytes: int
    """The largest of any question."""
    candidates: int
    """Of all problems."""
    undecided: int
    """Candidates whose grade is undecided; they count as wrong."""
    truncated: int
    failed: int
    """Searches that ended in an error; they count as wrong."""
    finished: bool
    parameters: float
    """Of the model; see `pools.parameters`."""


@dataclass(frozen=True)
class Difference:
    """A run against the baseline, on the problems of both."""

    run: str
    baseline: str
    problems: int
    difference: Interval
    """Of accuracy; paired bootstrap."""
    only_run: int
    """Problems that the run alone got right."""
    only_baseline: int
    p: float
    """Exact McNemar."""
    holm: float
    """The same, corrected for the number of rows."""
    visible: float
    """The difference these problems see with a chance of 80 %."""
    needed: int | None
    """Problems it would take to see this difference with that chance; None for no difference."""


@dataclass(frozen=True)
class Stratum:
    """A run on the problems of one level or subject."""

    run: str
    value: str
    problems: int
    accuracy: Interval


@dataclass(frozen=True)
class Answered:
    """A run that answers only the problems it is most confident about."""

    run: str
    wanted: float
    """Share of the problems to answer."""
    answered: int
    """Problems with at least the confidence this takes; equal confidences come together."""
    accuracy: Interval
    """Wilson."""


@dataclass(frozen=True)
class Bigger:
    """What a model with search has to be compared with."""

    model: str
    runs: tuple[str, ...]
    """Greedy runs of models with more parameters on these problems."""


@dataclass(frozen=True)
class Section:
    """Runs on the same problems."""

    task: str
    split: str
    problems_sha256: str
    problems: int
    """That any of the runs has."""
    rows: tuple[Row, ...]
    bigger: tuple[Bigger, ...]
    differences: tuple[Difference, ...]
    greedy: tuple[Difference, ...]
    """Searches against greedy of the same model, whatever the baseline."""
    pools: tuple[Pool, ...]
    strata: Mapping[str, tuple[Stratum, ...]]
    """By "level" and "subject"."""
    abstention: tuple[Answered, ...]

    def row(self, run: str) -> Row:
        """The row of a run."""
        return next(row for row in self.rows if row.run == run)

    def pool(self, run: str) -> Pool | None:
        """The pool that holds all samples of a run."""
        return next((pool for pool in self.pools if run in pool.runs), None)


def sections(runs: Sequence[Recorded], baseline: str | None = None) -> list[Section]:
    """One section for every task and selection of problems that has results, by task, split and digest.

    `baseline` is a run's id; sections without it, and all for None, compare with greedy of the same model, or its
    first row.
    """
    groups: dict[tuple[str, str, str], list[Recorded]] = {}
    for run in runs:
        if run.outcomes:
            groups.setdefault(run.task, []).append(run)
    return [_section(key, sorted(group, key=_order), baseline) for key, group in sorted(groups.items())]


def _order(run: Recorded) -> tuple[object, ...]:
    known = run.strategy in STRATEGY_ORDER
    place = STRATEGY_ORDER.index(run.strategy) if known else len(STRATEGY_ORDER)
    return (run.name, place, run.strategy, run.n, run.verifier or "", run.id)


def _section(key: tuple[str, str, str], runs: Sequence[Recorded], baseline: str | None) -> Section:
    labels = _labels(runs)
    sizes = {name: parameters([run for run in runs if run.name == name]) for name in {run.name for run in runs}}
    rows = tuple(_row(run, labels[run.id], sizes[run.name]) for run in runs)
    return Section(
        *key,
        problems=len({problem for run in runs for problem in run.outcomes}),
        rows=rows,
        bigger=tuple(_bigger(rows)),
        differences=tuple(_differences(runs, baseline)),
        greedy=tuple(_searches(runs)),
        pools=tuple(pools(runs)),
        strata={name: found for name in STRATA if (found := tuple(_strata(runs, name)))},
        abstention=tuple(answered for run in runs for answered in _abstention(run)),
    )


# Rows --------------------------------------------------------------------------------------------------------------


def _labels(runs: Sequence[Recorded]) -> dict[str, str]:
    """What the runs are called; those that would be called the same also by the settings in which they differ."""
    short = {run.id: _label(run) for run in runs}
    labels = {}
    for run in runs:
        alike = [other for other in runs if (other.name, short[other.id]) == (run.name, short[run.id])]
        flat = [_flat(other.configuration) for other in alike]
        mine = _flat(run.configuration)
        differing = sorted(
            key for key in mine if key.split(".")[0] != "model" and any(other.get(key) != mine[key] for other in flat)
        )
        settings = ", ".join(plain(f"{key.rpartition('.')[2]}={mine[key]}") for key in differing)
        labels[run.id] = f"{short[run.id]}, {settings}" if settings else short[run.id]
    return labels


def _label(run: Recorded) -> str:
    n = f" n={run.parameters['n']}" if "n" in run.parameters else ""
    budget = "".join(f", {value:,} {name}" for name, value in sorted((run.configuration.get("budget") or {}).items()))
    return f"{run.strategy}{n}" + (f" ({run.verifier})" if run.verifier else "") + budget


def _flat(value: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def _row(run: Recorded, label: str, params: float) -> Row:
    outcomes = list(run.outcomes.values())
    count = len(outcomes)
    usage = [outcome.usage for outcome in outcomes]
    draws = [draw for outcome in outcomes for draw in outcome.draws]
    several = any(len(outcome.draws) > 1 for outcome in outcomes)
    return Row(
        run=run.id,
        label=label,
        model=run.name,
        strategy=run.strategy,
        n=run.n,
        verifier=run.verifier,
        problems=count,
        accuracy=wilson(sum(outcome.right for outcome in outcomes), count),
        random=random_choice(outcomes) if several else None,
        coverage=coverage(outcomes) if several else None,
        generated_tokens=sum(u.generated_tokens for u in usage) / count,
        prompt_tokens=sum(u.prompt_tokens for u in usage) / count,
        verifier_tokens=sum(u.verifier_tokens for u in usage) / count,
        flops=math.fsum(u.flops for u in usage) / count,
        seconds=None if run.speed is None else sum(u.generated_tokens for u in usage) / count / run.speed,
        policy_calls=sum(u.policy_calls for u in usage) / count,
        verifier_calls=sum(u.verifier_calls for u in usage) / count,
        peak_kv_bytes=max(u.peak_kv_bytes for u in usage),
        candidates=len(draws),
        undecided=sum(draw.undecided for draw in draws),
        truncated=sum(draw.truncated for draw in draws),
        failed=sum(not outcome.complete for outcome in outcomes),
        finished=run.finished,
        parameters=params,
    )


def _bigger(rows: Sequence[Row]) -> list[Bigger]:
    """Of every model that was searched with, the greedy runs of those with more parameters."""
    sizes = {row.model: row.parameters for row in rows}
    searched = sorted({row.model for row in rows if row.strategy != "greedy"} or sizes)
    found = []
    for model in searched:
        larger = [row.run for row in rows if row.strategy == "greedy" and row.parameters > sizes[model]]
        found.append(Bigger(model, tuple(larger)))
    # A model that is itself the bigger one of another is not asked for a bigger one in turn.
    answers = {run for bigger in found for run in bigger.runs}
    return [entry for entry in found if entry.runs or not any(row.run in answers for row in _of(rows, entry.model))]


def _of(rows: Sequence[Row], model: str) -> list[Row]:
    return [row for row in rows if row.model == model]


# Differences -------------------------------------------------------------------------------------------------------


def _differences(runs: Sequence[Recorded], baseline: str | None) -> list[Difference]:
    made = []
    for run in runs:
        against = _baseline(run, runs, baseline)
        common = [problem for problem in run.outcomes if problem in against.outcomes]
        if run is not against and common:
            made.append(_difference(run, against, common))
    corrected = holm([entry.p for entry in made])
    return [Difference(**{**vars(entry), "holm": p}) for entry, p in zip(made, corrected, strict=True)]


def _searches(runs: Sequence[Recorded]) -> list[Difference]:
    strategies = {run.id: run.strategy for run in runs}
    return [
        entry
        for entry in _differences(runs, None)
        if strategies[entry.baseline] == "greedy" and strategies[entry.run] != "greedy"
    ]


def _baseline(run: Recorded, runs: Sequence[Recorded], wanted: str | None) -> Recorded:
    for other in runs:
        if other.id == wanted:
            return other
    own = [other for other in runs if identity(other.info) == identity(run.info)]
    return next((other for other in own if other.strategy == "greedy"), own[0])


def _difference(run: Recorded, against: Recorded, common: Sequence[str]) -> Difference:
    mine, theirs = ([other.outcomes[problem].right for problem in common] for other in (run, against))
    test = mcnemar(mine, theirs)
    differences = [float(a) - float(b) for a, b in zip(mine, theirs, strict=True)]
    interval = paired_bootstrap([float(a) for a in mine], [float(b) for b in theirs])
    sd = stdev(differences) if len(differences) > 1 else 0.0
    return Difference(
        run=run.id,
        baseline=against.id,
        problems=len(common),
        difference=interval,
        only_run=test.only_a,
        only_baseline=test.only_b,
        p=test.p,
        holm=test.p,
        visible=(NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)) * sd / math.sqrt(len(common)),
        needed=problems_needed_paired(interval.value, sd) if interval.value else None,
    )


# Strata and abstention ---------------------------------------------------------------------------------------------


def _strata(runs: Sequence[Recorded], name: str) -> list[Stratum]:
    found = []
    for run in runs:
        groups: dict[str, list[Outcome]] = {}
        for outcome in run.outcomes.values():
            if name in outcome.strata:
                groups.setdefault(outcome.strata[name], []).append(outcome)
        for value in sorted(groups, key=natural):
            marks = [outcome.right for outcome in groups[value]]
            found.append(Stratum(run.id, value, len(marks), wilson(sum(marks), len(marks))))
    return found


def _abstention(run: Recorded) -> list[Answered]:
    """Nothing for a run without confidences. A share that no confidence reaches is answered as far as they go."""
    outcomes = list(run.outcomes.values())
    points = risk_coverage([o.confidence for o in outcomes], [o.right for o in outcomes])
    found = []
    for share in SHARES:
        point = next((point for point in points if point.coverage >= share - 1e-9), points[-1] if points else None)
        if point is not None:
            answered = round(point.coverage * len(outcomes))
            found.append(Answered(run.id, share, answered, wilson(round((1 - point.risk) * answered), answered)))
    return found
