"""`flyweight demo`: five real questions, answered greedily and with search, and what each answer cost."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib import resources
from operator import add
from textwrap import fill
from typing import Annotated

import typer

from flyweight import api
from flyweight.cli import options, render
from flyweight.cli.models import Bar
from flyweight.cli.solve import fitted, in_order, worst
from flyweight.cli.warm import Warm, warm
from flyweight.protocols import Task
from flyweight.types import Grade, Problem, Result, Stopped, Usage

__all__ = ["register"]

QUESTIONS = 5
N = 8
WIDTH = 78

HELP = """Answer five grade-school maths questions greedily and with search, and show what each answer cost.

\b
Examples:
  flyweight demo
  flyweight demo -s best_of_n --verifier arithmetic
  flyweight demo --json | jq .summary

The questions are the first five development questions of GSM8K by hash, never picked. The model is
pulled if it is not there yet; after that no network is needed.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo", help=HELP, short_help="Five real questions, with and without search.")(demo)


def demo(
    model: options.Model = api.DEFAULT_MODEL,
    strategy: options.StrategyName = api.DEFAULT_STRATEGY,
    n: Annotated[
        int, typer.Option("-n", envvar="FLYWEIGHT_N", metavar="N", help="Samples or beams of the search.")
    ] = N,
    set_: options.Set = None,
    verifier: options.VerifierName = api.DEFAULT_VERIFIER,
    seed: options.Seed = 0,
    trace: options.TraceFile = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    from flyweight import tasks

    given = options.pairs(set_)
    searched = options.choose(strategy, {**options.fitting(strategy, {"n": n}), **given})
    task = tasks.load("gsm8k")
    problems = task.problems()[:QUESTIONS]
    made_of = options.ModelOptions(model=model, verifier=verifier, seed=seed)
    options.apart(trace, model, *searched.parameters.values())
    _fetch(model, quiet)
    made_of.check(problems)
    made_of = replace(made_of, confidence_map=fitted(searched, model))
    sheet = Sheet(task, problems, made_of, (options.choose("greedy", {}), searched), json)
    with warm(made_of, trace=trace, quiet=quiet, answers=task) as ready:
        return sheet.run(ready)


def _fetch(model: str, quiet: bool) -> None:
    """Pull a model of the catalog, or from the Hub, unless it is there."""
    from flyweight import models

    if model in models.catalog() or model.startswith("hf:"):
        with Bar(quiet=quiet) as bar:
            models.pull(model, progress=bar)


@dataclass(frozen=True)
class Round:
    """One strategy on all questions."""

    choice: options.Choice
    results: Sequence[Result]
    grades: Sequence[Grade]
    seconds: float
    """Wall time of the round; its questions were searched together."""

    @property
    def right(self) -> int:
        """How many answers are right."""
        return sum(grade.value == "correct" for grade in self.grades)

    @property
    def usage(self) -> Usage:
        """What all questions cost together."""
        return reduce(add, (result.usage for result in self.results), Usage())

    @property
    def tokens(self) -> int:
        """Tokens generated, and computed by a verifier."""
        return self.usage.generated_tokens + self.usage.verifier_tokens


@dataclass(frozen=True)
class Sheet:
    """The questions, who answers them, and the report."""

    task: Task
    problems: Sequence[Problem]
    made_of: options.ModelOptions
    choices: Sequence[options.Choice]
    json: bool

    def run(self, ready: Warm) -> int:
        """Every strategy on every question; the exit code."""
        ready.progress.clear()
        if not self.json:
            typer.echo(f"{self.made_of.model} on {len(self.problems)} grade-school maths questions\n")
        rounds: list[Round] = []
        for choice in self.choices:
            # The last round prints each question as soon as it is finished; the others only count.
            rounds.append(self.round(choice, ready, rounds, last=choice is self.choices[-1]))
            if ready.stop.code:
                break
        ready.progress.clear()
        if self.json:
            typer.echo(render.dumps(self.facts(rounds)))
        elif len(rounds) == len(self.choices) and not ready.stop.code:
            typer.echo(self.summary(rounds))
        codes = [render.code_of(result) for done in rounds for result in done.results]
        return worst(codes, ready.stop.code)

    def round(self, choice: options.Choice, ready: Warm, before: Sequence[Round], last: bool) -> Round:
        """Search all questions with one strategy."""
        ready.progress.begin(choice.label)
        began = time.perf_counter()
        results: list[Result] = []
        grades: list[Grade] = []
        for number, result in in_order(self.problems, ready.session.runner.run(self.problems, choice.bound)):
            results.append(result)
            grades.append(self.task.grade(result.problem, result.text))
            if last and not self.json:
                earlier = [(other.choice, other.results[number], other.grades[number]) for other in before]
                ready.progress.clear()
                typer.echo(self.question(number, [*earlier, (choice, result, grades[-1])]))
        return Round(choice, results, grades, time.perf_counter() - began)

    def question(self, number: int, answers: Sequence[tuple[options.Choice, Result, Grade]]) -> str:
        """One question with what each strategy made of it."""
        problem = self.problems[number]
        text = f"{number + 1}. {render.oneline(problem.prompt)}"
        lines = [fill(text, WIDTH, subsequent_indent="   "), f"   known answer: {problem.answer}"]
        width = max(len(choice.label) for choice in self.choices)
        for choice, result, grade in answers:
            cost = f"{result.usage.generated_tokens + result.usage.verifier_tokens:>6,} tokens"
            lines.append(
                f"   {choice.label:<{width}}  {render.short(result.answer, 14):<14} {_mark(result, grade)}"
                f"  {cost}  {result.usage.seconds:>5.1f} s"
            )
            if len(result.candidates) > 1:
                lines.append(f"     votes: {render.votes(result)}")
            if any(candidate.node.score is not None for candidate in result.candidates):
                lines.append(f"     score: {render.scores(result)}")
            if result.stopped is not Stopped.DONE:
                lines.append(f"     stopped: {result.stopped.value} {render.oneline(result.error or '')}".rstrip())
        return "\n".join(lines) + "\n"

    def summary(self, rounds: Sequence[Round]) -> str:
        """Right answers, tokens and seconds side by side, in plain words, and the figure of 60 questions."""
        head = ("", "right", "tokens", "seconds")
        rows = [
            (each.choice.label, f"{each.right} of {len(each.grades)}", f"{each.tokens:,}", f"{each.seconds:.1f}")
            for each in rounds
        ]
        return "\n\n".join(
            filter(None, (render.table(head, rows, right=3), fill(_verdict(*rounds), WIDTH), _dev60(_figures())))
        )

    def facts(self, rounds: Sequence[Round]) -> dict[str, object]:
        """The same as JSON: per question the result of each strategy with its grade, then the sums."""
        return {
            "model": self.made_of.model,
            "questions": [
                {
                    "id": problem.id,
                    "question": problem.prompt,
                    "known": problem.answer,
                    "results": [
                        {**self._result(each, number), "grade": each.grades[number].value}
                        for each in rounds
                        if number < len(each.results)
                    ],
                }
                for number, problem in enumerate(self.problems)
            ],
            "summary": [
                {
                    "strategy": each.choice.name,
                    "right": each.right,
                    "questions": len(each.grades),
                    "tokens": each.tokens,
                    "seconds": each.seconds,
                }
                for each in rounds
            ],
            "dev60": _figures(),
        }

    def _result(self, each: Round, number: int) -> dict[str, object]:
        return render.as_json(
            each.results[number],
            strategy=each.choice.name,
            parameters=each.choice.parameters,
            model=self.made_of.model,
            verifier=self.made_of.verifier,
            seed=self.made_of.seed,
        )


def _mark(result: Result, grade: Grade) -> str:
    """right, wrong, undecided or, without any answer, unfinished; in colour on a terminal that takes it."""
    cut = result.best is None and result.stopped is not Stopped.DONE
    text = "unfinished" if cut else {"correct": "right"}.get(grade.value, grade.value)
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return typer.style(text, fg={"right": "green", "wrong": "red"}.get(text, "yellow"))


def _verdict(greedy: Round, searched: Round) -> str:
    """What the five questions say, whichever way they went."""
    more = searched.right - greedy.right
    times = f"{searched.tokens / max(1, greedy.tokens):.1f} times the tokens"
    plural = "" if abs(more) == 1 else "s"
    if more > 0:
        said = f"Search got {more} more question{plural} right, for {times}."
    elif more < 0:
        said = f"Search got {-more} question{plural} fewer right, for {times}."
    else:
        said = f"Search changed nothing in the count here, for {times}."
    return f"{said} Five questions are a demonstration, not a measurement."


def _figures() -> dict[str, object] | None:
    """The figures over 60 questions that come with the package; None when there are none."""
    try:
        found = json.loads((resources.files("flyweight.tasks") / "data" / "dev60.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("rows"), list) else None


def _dev60(figures: Mapping[str, object] | None) -> str:
    """The footer; empty without figures."""
    if figures is None:
        return ""
    rows = figures["rows"]
    assert isinstance(rows, Iterable)
    head = ("", "right", "share", "95 % interval", "tokens a question")
    table = [
        (
            str(row["strategy"]),
            f"{row['right']} of {figures['questions']}",
            render.percent(row["value"]),
            f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %",
            f"{row['tokens']:,.0f}",
        )
        for row in rows
    ]
    title = f"Measured over {figures['questions']} such questions, {figures['model']}:"
    return f"{title}\n{render.table(head, table, right=4)}"
