"""`flyweight bench`: tasks run by strategies, on record; stopped by anything, a run goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight import api, strategies, tasks
from flyweight.cli import bench_calibrate, options, render, runs, spread
from flyweight.cli.carrying import How
from flyweight.cli.folder import DEFAULT, NAMED, Folder, database, meant, opened, reading
from flyweight.cli.progress import Progress
from flyweight.cli.stopping import Stop
from flyweight.cli.summaries import facts, table
from flyweight.errors import ConfigError, ModelError
from flyweight.strategies import Value, compose
from flyweight.verifiers.spec import convert

if TYPE_CHECKING:
    from flyweight import bench

__all__ = ["register", "settings_of"]

HELP = """Run benchmarks, keep everything that was drawn, go on where a run was stopped.

\b
Examples:
  flyweight bench run gsm8k --limit 50 --strategies greedy,self_consistency
  flyweight bench resume last
  flyweight bench grade last
"""

RUN = """Run a task with strategies, verifiers and values of n: one run for each combination.

\b
Examples:
  flyweight bench run gsm8k --limit 50 --strategies greedy,best_of_n --budgets 4,16
  flyweight bench run math500 --limit 100 --by level -s beam_search --verifiers arithmetic,confidence
  flyweight bench run jsonl --data questions.jsonl --set-task checker=text --dry-run

The same command again goes on, and does nothing more once it is finished. What was drawn for one run
serves every other one that would draw the same: a larger n takes only the new samples. A strategy may
carry parameters of its own, name:key=value; -n, --set and --budgets hold for all that have such a
parameter. Ctrl-C stops in good order. Exit code 5: a limit on the whole was reached.
"""

RESUME = """Go on with runs from what is on record about them.

\b
Examples:
  flyweight bench resume last
  flyweight bench resume 3fa9 81cc --max-time 3600
  flyweight bench resume last --out results
"""

RETRY = """Go on with runs, and search again what ended in an error.

\b
Examples:
  flyweight bench retry last
  flyweight bench retry 3fa9 --fail-on-error 1
  flyweight bench retry last --out results
"""

GRADE = """Grade what runs made with --predict-only selected and all their candidates.

\b
Examples:
  flyweight bench grade last
  flyweight bench grade 3fa9 81cc
  flyweight bench grade last --json
"""

Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help=f"Runs {NAMED}.")]
Concurrency = Annotated[
    int, typer.Option(envvar="FLYWEIGHT_CONCURRENCY", metavar="N", help="Most questions searched at a time.")
]
TokensTotal = Annotated[
    int | None, typer.Option("--max-tokens-total", metavar="TOKENS", help="Stop after so many newly drawn tokens.")
]
MaxTime = Annotated[float | None, typer.Option(metavar="SECONDS", help="Stop after so many seconds.")]
FailOnError = Annotated[
    float, typer.Option(metavar="SHARE", help="Stop when more than this share of 20 or more searches fails.")
]
PredictOnly = Annotated[bool, typer.Option("--predict-only", help="Do not grade; see flyweight bench grade.")]
Durable = Annotated[bool, typer.Option("--durable", help="Keep what is committed through a power cut too.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = options.group()
    group.command("run", cls=spread.WithRay, help=RUN, short_help="Run a task, or go on with it.")(run)
    group.command("resume", cls=spread.WithRay, help=RESUME, short_help="Go on with runs.")(going_on(again=False))
    group.command("retry", cls=spread.WithRay, help=RETRY, short_help="Search again what ended in an error.")(
        going_on(again=True)
    )
    group.command("grade", help=GRADE, short_help="Grade runs made with --predict-only.")(grade)
    runs.register(group)
    bench_calibrate.register(group)
    app.add_typer(group, name="bench", help=HELP, short_help="Run benchmarks, and go on with them.")


def run(
    task: Annotated[str, typer.Argument(metavar="TASK", help="Name of a task (flyweight list tasks).")],
    names: Annotated[
        str,
        typer.Option("--strategies", "-s", metavar="A,B,...", help="How the compute is spent (flyweight list)."),
    ] = "greedy,self_consistency",
    judges: Annotated[
        str | None,
        typer.Option(
            "--verifiers",
            metavar="V,W,...",
            help="What scores candidates; a strategy that asks a verifier runs once with each.",
            show_default="self; for code its public tests",
        ),
    ] = None,
    budgets: Annotated[
        str | None, typer.Option(metavar="N,M,...", help="Values of n; a strategy that has n runs once with each.")
    ] = None,
    n: options.N = None,
    set_: options.Set = None,
    model: options.Model = api.DEFAULT_MODEL,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="File of problems.")] = None,
    split: Annotated[str | None, typer.Option(metavar="NAME", help="Part of the task (flyweight list tasks).")] = None,
    set_task: Annotated[
        list[str] | None, typer.Option("--set-task", metavar="KEY=VALUE", help="A setting of the task; repeatable.")
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(metavar="WHICH", help="The first 50, the 10th to the 20th (10-20), or a share (0.1)."),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="NAME", help="Let the values of this take turns in --limit, such as level.")
    ] = None,
    ids: Annotated[str | None, typer.Option(metavar="ID,ID,...", help="Exactly these problems.")] = None,
    shuffle: Annotated[int | None, typer.Option(metavar="SEED", help="Another order to take --limit from.")] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="Of every strategy that samples.", show_default="the strategy's")
    ] = None,
    max_tokens: options.MaxTokens = 512,
    context: options.Context = 2048,
    budget_tokens: options.BudgetTokens = None,
    budget_verifications: options.BudgetVerifications = None,
    deadline: options.Deadline = None,
    confidence: options.Confidence = None,
    seed: options.Seed = 0,
    out: Folder = DEFAULT,
    durable: Durable = False,
    concurrency: Concurrency = 64,
    max_tokens_total: TokensTotal = None,
    max_time: MaxTime = None,
    fail_on_error: FailOnError = 0.1,
    predict_only: PredictOnly = False,
    ray: spread.Ray = None,
    workers: spread.Workers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take; do nothing.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    from flyweight import bench

    limits = (max_tokens_total, max_time, fail_on_error)
    how = How(out, durable, concurrency, *limits, predict_only, ray, workers, json, quiet)
    plan = bench.Plan(
        task,
        model=model,
        split=split,
        data=data,
        settings=settings_of(task, set_task or ()),
        limit=limit,
        by=by,
        ids=None if ids is None else tuple(_listed("--ids", ids)),
        shuffle=shuffle,
        max_tokens=max_tokens,
        context=context,
        budget=options.budget(budget_tokens, budget_verifications, deadline, confidence),
        seed=seed,
    )
    if temperature is not None:
        plan = replace(plan, temperature=temperature)
    if n is not None and budgets is not None:
        raise ConfigError("-n (or FLYWEIGHT_N) is one value and --budgets are several: give one of them")
    values = [n] if n is not None else [_whole("--budgets", each) for each in _listed("--budgets", budgets)]
    plans = _plans(plan, names, options.pairs(set_), _listed("--verifiers", judges), values, temperature)
    jobs = bench.check(plans, grade=not predict_only)
    try:
        api.find_policy(model, context=context)
    except ModelError:
        if not database(out).is_file():
            raise  # else all may be on record, which needs no model
    return how.estimated(jobs) if dry_run else how.carried_out(jobs)


def going_on(again: bool) -> Callable[..., int]:
    """The command that goes on with runs; `again` searches anew what ended in an error."""

    def go_on(
        runs: Runs,
        out: Folder = DEFAULT,
        durable: Durable = False,
        concurrency: Concurrency = 64,
        max_tokens_total: TokensTotal = None,
        max_time: MaxTime = None,
        fail_on_error: FailOnError = 0.1,
        predict_only: PredictOnly = False,
        ray: spread.Ray = None,
        workers: spread.Workers = None,
        json: options.Json = False,
        quiet: options.Quiet = False,
    ) -> int:
        limits = (max_tokens_total, max_time, fail_on_error)
        how = How(out, durable, concurrency, *limits, predict_only, ray, workers, json, quiet)
        return how.carried_out(_on_record(out, runs, not predict_only), again=again)

    return go_on


def grade(runs: Runs, out: Folder = DEFAULT, json: options.Json = False, quiet: options.Quiet = False) -> int:
    from flyweight import bench

    jobs = _on_record(out, runs, True)
    with Stop() as stop, Progress(quiet=quiet) as progress, opened(out, False) as store:
        summaries = []
        for job in jobs:
            progress.say(f"grading {job.label}")
            summaries.append(bench.regrade(store, job))
    for summary in summaries if json else ():
        typer.echo(render.dumps(facts(summary)))
    if not json:
        typer.echo(table(summaries))
    return stop.code


# What was asked for ------------------------------------------------------------------------------------------------


def _plans(
    plan: bench.Plan,
    names: str,
    parameters: dict[str, Value],
    judges: Sequence[str],
    budgets: Sequence[int],
    temperature: float | None,
) -> list[bench.Plan]:
    """One plan per combination. A strategy's own parameters, name:key=value, come before those meant for all."""
    from flyweight import bench

    chosen = []
    try:
        for entry in compose.parts(",".join(_listed("--strategies", names)), ","):
            chosen.append(compose.spelled(entry))
    except ConfigError as error:
        raise ConfigError(f"--strategies {error}") from None
    keys = (*parameters, *(("n",) if budgets else ()))
    options.check_common([name for name, _ in chosen], keys, "--budgets (or -n, FLYWEIGHT_N)")
    if budgets and "n" in parameters:
        raise ConfigError(f"n is given twice: --set n={parameters['n']} and -n or --budgets")
    if temperature is not None and "temperature" in parameters:
        raise ConfigError("temperature is given twice: --temperature and --set temperature=...")
    common = parameters if temperature is None else {**parameters, "temperature": temperature}
    plans = []
    for name, own in chosen:
        fitting = {**options.fitting(name, common), **own}
        has_n = any(parameter.name == "n" for parameter in strategies.describe(name).parameters)
        values = budgets if has_n and "n" not in fitting else ()
        plans += bench.grid(replace(plan, parameters=fitting), [name], judges, values)
    return plans


def _on_record(out: Path, names: Sequence[str], grade: bool) -> list[bench.Job]:
    """The jobs of runs on record. ConfigError if their problems are no longer the same."""
    from flyweight import bench

    with reading(out) as store:
        infos = meant(store, names)
    jobs = []
    for info in infos:
        (job,) = bench.check([bench.plan_of(info.configuration)], grade=grade)
        if job.configuration != info.configuration:
            task = job.plan.task
            raise ConfigError(f"run {info.id} is not what {task} is now: its problems or settings have changed")
        jobs.append(job)
    return jobs


def _listed(option: str, text: str | None) -> list[str]:
    found = [part.strip() for part in (text or "").split(",") if part.strip()]
    if text is not None and not found:
        raise ConfigError(f"{option} {text!r} names nothing")
    return found


def _whole(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is not a whole number") from None


def settings_of(task: str, given: Sequence[str]) -> dict[str, object]:
    """The task's settings, as the kinds it says they are."""
    found: dict[str, str] = {}
    for setting in given:
        key, equals, value = setting.partition("=")
        if not equals or not key.strip() or key.strip() in found:
            raise ConfigError(f"--set-task {setting!r}: write key=value, each key once")
        if key.strip() in ("data", "split"):
            raise ConfigError(f"--set-task {setting!r}: write --{key.strip()} instead")
        found[key.strip()] = value.strip()
    return convert(f"task {task}", tasks.factory(task), found)
