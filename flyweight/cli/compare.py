"""`flyweight compare`: several strategies on the same question, one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated

import typer

from flyweight import api
from flyweight.cli import ask, options, render
from flyweight.cli.solve import fitted, worst
from flyweight.cli.warm import warm
from flyweight.errors import ConfigError
from flyweight.strategies import Value, compose
from flyweight.types import BOXED, Result, Stopped

__all__ = ["choices", "register"]

HELP = """Answer a question with several strategies and compare answers and costs in one table.

\b
Examples:
  flyweight compare "What is 12 * 17 - 4?" --strategies greedy,self_consistency
  flyweight compare - --strategies greedy,best_of_n,beam_search -n 8 < question.txt
  flyweight compare "What is 2/3 of 5/7?" --strategies self_consistency:n=4,self_consistency:n=32

A strategy may carry parameters of its own, name:key=value:key=value. -n and --set hold for every
strategy that has such a parameter. All of them use the same seed, so that those which draw the same
samples differ only in how they choose. Any strategy may be made of others: see flyweight list.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("compare", help=HELP, short_help="Several strategies on one question, one table.")(compare)


def compare(
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help='The question; "-" reads stdin.', show_default=False)
    ] = None,
    names: Annotated[
        str,
        typer.Option(
            "--strategies",
            "-s",
            envvar="FLYWEIGHT_STRATEGIES",
            metavar="A,B,...",
            help="What to compare, separated by commas.",
        ),
    ] = f"greedy,{api.DEFAULT_STRATEGY}",
    model: options.Model = api.DEFAULT_MODEL,
    n: options.N = None,
    set_: options.Set = None,
    verifier: options.VerifierName = api.DEFAULT_VERIFIER,
    budget_tokens: options.BudgetTokens = None,
    budget_verifications: options.BudgetVerifications = None,
    deadline: options.Deadline = None,
    confidence: options.Confidence = None,
    seed: options.Seed = 0,
    system: options.System = BOXED,
    kind: options.Kind = "math",
    max_tokens: options.MaxTokens = 512,
    context: options.Context = 2048,
    trace: options.TraceFile = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    from flyweight.cli.main import complain

    chosen = choices(names, options.pairs(set_, n), kind)
    limits = options.budget(budget_tokens, budget_verifications, deadline, confidence)
    made_of = options.ModelOptions(model, verifier, kind, max_tokens, context, seed)
    problem = api.problem(ask.question(question), system)
    options.apart(trace, model, *(value for choice in chosen for value in choice.parameters.values()))
    made_of.check([problem])
    maps = [api.find_maps(model, kind, fitted(choice, model)) for choice in chosen]
    results: list[Result] = []
    with warm(made_of, trace=trace, quiet=quiet) as (session, progress, stop):
        runner = session.runner
        for choice, known in zip(chosen, maps, strict=True):
            if stop.code:
                break
            wanted = choice.parameters.get("n")
            progress.begin(choice.name, wanted if isinstance(wanted, int) else None)
            runner.setting = replace(runner.setting, maps=known)
            result = runner.solve(problem, choice.bound, limits)
            results.append(result)
            if json:
                progress.clear()
                facts = render.as_json(
                    result,
                    strategy=choice.name,
                    parameters=choice.parameters,
                    model=model,
                    verifier=verifier,
                    seed=seed,
                )
                typer.echo(render.dumps(facts))
    if not json:
        typer.echo(_table(chosen, results))
    for choice, result in zip(chosen, results, strict=False):
        if result.stopped is Stopped.ERROR:
            complain(f"{choice.label}: {result.error or 'the search failed'}")
    return worst(map(render.code_of, results), stop.code)


def choices(names: str, parameters: Mapping[str, Value], kind: str) -> list[options.Choice]:
    """The strategies of a comma-separated list, each with its own parameters and the common ones it has.

    `kind` is how answers are read.

    ConfigError for unknown names, and for a common parameter that none of them has.
    """
    asked = []
    for entry in filter(None, (part.strip() for part in compose.parts(names, ","))):
        name, own = compose.spelled(entry)
        asked.append((name, own))
    if not asked:
        raise ConfigError("--strategies names no strategy: write for example greedy,self_consistency")
    options.check_common([name for name, _ in asked], parameters, "-n (or FLYWEIGHT_N)")
    return [options.choose(name, {**options.fitting(name, parameters), **own}, kind) for name, own in asked]


def _table(chosen: Sequence[options.Choice], results: Sequence[Result]) -> str:
    head = ("strategy", "answer", "votes", "confidence", "tokens", "verifier", "seconds")
    rows = [
        (
            choice.label,
            f"error: {render.short(result.error, 40)}" if result.error else render.short(result.answer, 16),
            render.share(result),
            render.percent(result.confidence) if result.confidence is not None and result.calibrated else "-",
            f"{result.usage.generated_tokens:,}",
            f"{result.usage.verifier_tokens:,}",
            f"{result.usage.seconds:.1f}",
        )
        for choice, result in zip(chosen, results, strict=False)
    ]
    return render.table(head, rows, right=5)
