"""`flyweight bench calibrate`: confidence maps fitted on recorded runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli import options, render
from flyweight.cli.folder import DEFAULT, NAMED, meant, reading
from flyweight.errors import ConfigError
from flyweight.select import lead
from flyweight.types import Budget

if TYPE_CHECKING:
    from flyweight.abstain import ConfidenceMap, Sample
    from flyweight.bench import GradedSearch, Plan
    from flyweight.store import RunInfo, Store

__all__ = ["fitted", "register", "samples"]

HELP = """Fit how often an answer is right that leads its vote by so much: what makes confidences probabilities.

\b
Examples:
  flyweight bench calibrate last -o mine.json
  flyweight bench calibrate 3fa9 81cc -o mine.json --runs results
  flyweight solve "What is 12 * 17 - 4?" -s self_consistency --confidence 0.6 --confidence-map mine.json

A run of self_consistency (or of weighted_best_of_n, with its verifier) gives one map, for its model, kind of answers
and temperature. Its questions must be of the split calibration, or development, or your own (jsonl); test questions
are refused. The more samples a question has, the more sizes of votes are learnt from it. See docs/abstention.md.
"""

KINDS = {"gsm8k": "math", "math500": "math"}
"""How the answers of a task are read."""


def register(group: typer.Typer) -> None:
    """Add the command to the group."""
    group.command("calibrate", help=HELP, short_help="Learn from runs how sure votes are.")(calibrate)


def calibrate(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help=f"Runs {NAMED}.")],
    out: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to.")],
    folder: Annotated[
        Path, typer.Option("--runs", envvar="FLYWEIGHT_RUNS", metavar="DIR", help="Folder of the runs.")
    ] = DEFAULT,
    json: options.JsonArray = False,
) -> None:
    from flyweight import abstain

    with reading(folder) as store:
        maps = [fitted(store, info) for info in meant(store, runs)]
    abstain.write(out, maps, store=store.path)
    if json:
        typer.echo(render.dumps([asdict(each) for each in maps]))
        return
    for each in maps:
        agreeing = ", ".join(f"{n} of {n} agree: {render.percent(each(lead(n, 0)))}" for n in (2, 4, 8, 16))
        typer.echo(f"{each.model}, {' and '.join(each.strategies)}, {each.questions} questions: {agreeing}")
    typer.echo(f"Wrote {out}.", err=True)


def fitted(store: Store, info: RunInfo) -> ConfidenceMap:
    """The map of a run. ConfigError for a run it cannot or must not be fitted on."""
    from flyweight import abstain, bench
    from flyweight.bench.engine import IDENTITY
    from flyweight.bench.graded import Recorded

    plan = bench.plan_of(info.configuration)
    kind, split = usable(info.id, plan)
    grades = Recorded(store, info.configuration)
    verifiers: set[str] = set()
    votes = []
    for search in bench.read(store, info.id, grades):
        found = samples(search, str(plan.parameters.get("aggregation", "last")))
        votes.append(abstain.votes(found, search.result.problem.id))
        scores = [each.sample.node.score for each in search.samples if each.sample.answer_class is not None]
        verifiers |= {"" if score is None else score.kind for score in scores}
    if grades.missing:
        raise ConfigError(f"run {info.id} is not graded: flyweight bench grade {info.id}")
    if len(verifiers) > 1:
        raise ConfigError(f"run {info.id}: not every vote was weighed by the same verifier ({sorted(verifiers)})")
    file = IDENTITY.fullmatch(info.models.get(plan.model, ""))
    return abstain.ConfidenceMap(
        model=plan.model,
        sha256="" if file is None else file[1].removeprefix("sha256:"),
        kind=kind,
        strategies=abstain.FAMILIES[plan.strategy],
        parameters={name: value for name, value in plan.parameters.items() if name != "n"},
        verifier=next(iter(verifiers), ""),
        fitted_on=f"{plan.task}, {split}",
        questions=sum(map(bool, votes)),
        weights=abstain.fit(votes),
    )


def usable(run: str, plan: Plan) -> tuple[str, str]:
    """How the answers of a run are read, and what its questions are. ConfigError for a run that may not be fitted on.

    A map fitted on the questions it is measured on would only repeat them.
    """
    from flyweight.abstain import FAMILIES

    if plan.strategy not in FAMILIES:
        raise ConfigError(f"run {run} is one of {plan.strategy}: maps are fitted on {' or '.join(FAMILIES)}")
    kind = str(plan.settings.get("checker")) if plan.task == "jsonl" else KINDS.get(plan.task, "")
    if kind in ("", "tests"):
        raise ConfigError(f"run {run}: the answers of {plan.task} are read in a way that --kind cannot name")
    # Without a split a task takes all of a file, test questions too; gsm8k without a file has others.
    bundled = {"gsm8k": "development"} if plan.data is None else {}
    split = plan.split or {"jsonl": "all rows", **bundled}.get(plan.task, "test")
    if split in ("test", "train"):
        raise ConfigError(
            f"run {run} is on the split {split}{'' if plan.split else ', as none was named'}: maps are fitted on "
            "calibration (or development) questions"
        )
    if plan.budget != Budget():
        raise ConfigError(f"run {run} had a budget, so that what it drew depends on what it saw: run it without")
    return kind, split


def samples(search: GradedSearch, aggregation: str = "last") -> list[Sample]:
    """The candidates of a search."""
    from flyweight.abstain import Sample
    from flyweight.select import aggregate

    found = []
    for (_, _, node, _, group, _), grade in search.samples:
        score = 1.0 if node.score is None else aggregate(node.score, aggregation)
        found.append(Sample(group, grade.value == "correct", score, node.mean_logprob))
    return found
