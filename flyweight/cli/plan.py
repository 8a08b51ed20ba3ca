"""`flyweight plan`: a big model once or a small one many times, for one's own machine, task and limits."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight.cli import options, render
from flyweight.cli.folder import reading
from flyweight.errors import ConfigError, unknown

if TYPE_CHECKING:
    from flyweight.optimal.bigger import Exchange
    from flyweight.optimal.calibration import Calibration
    from flyweight.optimal.evidence import Known
    from flyweight.optimal.planner import Choice, Options
    from flyweight.optimal.verdict import Verdict

__all__ = ["register", "shown"]

HELP = """Choose model, weights, verifier, strategy and n for a task, a machine and limits.

\b
Examples:
  flyweight plan --task gsm8k --memory 2GB --latency 10s
  flyweight plan --task mbpp --accuracy 0.55 --price 0.05 --tokens-per-day 2M --json
  flyweight plan --task jsonl --runs runs --models mine.toml --figure plan.svg

Prints what nothing beats in accuracy, seconds and memory at once, one recommendation with its reason and its command,
how often a smaller model may be asked for the price of a bigger one's answer, and what would change the verdict.

Accuracy comes from this project's recordings, your own runs (--runs, recorded by flyweight bench run), calibrations
(--calibration, made by flyweight calibrate) and what you say (--models); published figures are marked and decide only
where nothing was measured. Seconds and bytes come from a measurement of this machine, made once per model: about half
a minute for the default one. See docs/plan.md.
"""

WIDTH = 100
SEARCHES = 5
FORMS = ("auto", "file", "packed", "bf16")
ENDINGS = (".svg", ".png")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("plan", help=HELP, short_help="A big model once, or a small one many times?")(plan)


def plan(
    task: Annotated[str, typer.Option(metavar="TASK", help="What is to be answered: gsm8k, math500, mbpp, jsonl ...")],
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most a process may hold, such as 2GB or 500MB.")
    ] = None,
    latency: Annotated[
        str | None, typer.Option(metavar="TIME", help="Longest for one question alone, such as 10s or 2min.")
    ] = None,
    accuracy: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Least share of right answers, above 0, at most 1.")
    ] = None,
    tokens_per_day: Annotated[
        str | None, typer.Option(metavar="N", help="Tokens of answers that are read in a day, such as 20k or 5M.")
    ] = None,
    days: Annotated[float, typer.Option(metavar="DAYS", help="For how long, for Snell's R.")] = 365.0,
    price: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRICE",
            help="US$ an hour of this machine costs, or NAME=READ/WRITTEN: per million tokens of a model; repeatable.",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="NAME", help="Choose among these only; repeatable.", show_default="all"),
    ] = None,
    models: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your models and what you know of them (TOML, docs/plan.md).")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of your runs: what was measured there counts.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="From flyweight calibrate: what auto gives.")
    ] = None,
    context: options.Context = 2048,
    weights: Annotated[
        str,
        typer.Option(
            metavar="FORM", help="Form of the weights: file, packed, bf16, or auto for what makes sense here."
        ),
    ] = "auto",
    measure: Annotated[
        bool, typer.Option(help="Measure models that are on this machine and were not measured yet.")
    ] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was measured of this machine before.")] = False,
    figure: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it too, as .svg or .png (flyweight[plots]).")
    ] = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    from flyweight.optimal import picture, planner, speed, verdict
    from flyweight.report import plots

    if figure is not None and figure.suffix not in ENDINGS:
        raise ConfigError(f"--figure {figure}: the ending must be one of {', '.join(ENDINGS)}")
    if figure is not None and not plots.available():
        raise ConfigError(f"pictures need matplotlib: {plots.MISSING}")
    if fresh and not measure:
        raise ConfigError("--fresh forgets what was measured, to measure again: drop it or --no-measure")

    def tell(line: str) -> None:
        if not quiet:
            typer.echo(render.oneline(line), err=True)

    asked = wanted(
        task=task,
        memory=memory,
        latency=latency,
        accuracy=accuracy,
        tokens_per_day=tokens_per_day,
        days=days,
        prices=price or (),
        only=model or (),
        models=models,
        runs=runs,
        calibration=calibration,
        context=context,
        weights=weights,
        measure=measure,
    )
    if runs is not None and not any(row.task == task for row in asked.evidence if row.note == _of_runs(runs)):
        tell(f"{runs} holds no finished run of {task}")
    if fresh:
        planner.collected(asked)  # a mistake should not cost what was measured
        speed.forget()
    choices = planner.choices(asked, tell)
    found = verdict.judge(asked, choices)
    if figure is not None:
        from flyweight.store.files import replacing

        with replacing(figure) as file:
            file.write(picture.drawn(found, choices, figure.suffix[1:], f"{task}: what could answer it here"))
        tell(f"Wrote {figure}.")
    typer.echo(render.dumps(found.as_dict()) if json else shown(asked, found))


def wanted(
    *,
    task: str,
    memory: str | None,
    latency: str | None,
    accuracy: float | None,
    tokens_per_day: str | None,
    days: float,
    prices: Sequence[str],
    only: Sequence[str],
    models: Path | None,
    runs: Path | None,
    calibration: Path | None,
    context: int,
    weights: str,
    measure: bool,
) -> Options:
    """The options, checked; ConfigError for what is not understood. Reads files, loads nothing."""
    from flyweight import tasks
    from flyweight.optimal import calibration as calibrations
    from flyweight.optimal import evidence, told, units
    from flyweight.optimal.planner import Options

    tasks.factory(task)
    if accuracy is not None and not 0 < accuracy <= 1:
        raise ConfigError(f"--accuracy {accuracy:g} is not allowed: a share above 0, at most 1, such as 0.6")
    if not 0 < days < 1e6:
        raise ConfigError(f"--days {days:g} is not allowed: above 0 and below a million")
    if context < 1:
        raise ConfigError(f"--context {context} is not allowed: a whole number from 1")
    if weights not in FORMS:
        raise unknown("--weights", weights, FORMS)
    theirs = [] if models is None else told.read_models(models)
    hour, theirs = _priced(prices, theirs)
    known = evidence.from_calibrations(calibrations.shipped(), "the calibration that comes with the package")
    if runs is not None:
        with reading(runs) as store:
            known += evidence.from_store(store, _of_runs(runs))
    if calibration is not None:
        note = f"flyweight calibrate ({calibration})"
        known += evidence.from_calibrations(_of_model(calibration, task, only), note, file=str(calibration))
    return Options(
        task=task,
        memory=None if memory is None else units.bytes_of(memory),
        latency=None if latency is None else units.seconds_of(latency),
        accuracy=accuracy,
        tokens_per_day=None if tokens_per_day is None else units.count(tokens_per_day, "--tokens-per-day"),
        days=days,
        hour=hour,
        context=context,
        models=tuple(theirs),
        evidence=tuple(known),
        only=tuple(only),
        weights=weights,
        measure=measure,
    )


def _of_runs(runs: Path) -> str:
    return f"flyweight report --runs {shlex.quote(str(runs))}"


def _of_model(file: Path, task: str, only: Sequence[str]) -> list[Calibration]:
    """The calibrations of a file, under the names of the models chosen among.

    ConfigError where none was fitted on the task alone, or on one of the models.
    """
    from dataclasses import replace

    from flyweight.bench.engine import file_of
    from flyweight.errors import FlyweightError
    from flyweight.optimal import calibration

    def fits(name: str, each: Calibration) -> bool:
        try:
            return (file_of(name) or "sha256:") == f"sha256:{each.sha256}"
        except FlyweightError:  # not on this machine: then its name has to do
            return name == each.model

    held = calibration.read(file)
    mine = [each for each in held if each.task == task]
    if not mine:
        tasks = ", ".join(sorted({" with ".join(sorted({source.task for source in each.sources})) for each in held}))
        raise ConfigError(f"--calibration {file} was fitted on {tasks}, not on {task}: see flyweight calibrate")
    found = [replace(each, model=name) for each in mine for name in only or (each.model,) if fits(name, each)]
    if not found:
        fitted = ", ".join(f"{each.model} ({each.sha256[:12] or 'no file'})" for each in mine)
        raise ConfigError(
            f"--calibration {file} was fitted on {fitted}, not on {' or '.join(only) or 'the file of that name'}: fit "
            "one with flyweight calibrate"
        )
    return found


def _priced(prices: Sequence[str], models: Sequence[Known]) -> tuple[float | None, list[Known]]:
    """What an hour of this machine costs, and the models with their prices."""
    from dataclasses import replace

    hour = None
    found = {known.name: known for known in models}
    for text in prices:
        name, equals, amounts = text.rpartition("=")
        parts = amounts.split("/") if equals else [amounts]
        if not all(re.fullmatch(r"\$?(\d+\.?\d*|\.\d+)", part.strip()) for part in parts) or len(parts) != 1 + bool(
            equals
        ):
            raise ConfigError(
                f"--price {text!r} is not understood: write 0.05 for an hour of this machine, or NAME=0.15/0.60 for a "
                "million tokens read and written"
            )
        numbers = [float(part.strip().lstrip("$")) for part in parts]
        if not equals and hour is not None:
            raise ConfigError(f"--price {text}: an hour of this machine has one price, and {hour:g} was given, too")
        if not equals:
            hour = numbers[0]
        elif not found:
            raise ConfigError(f"unknown model in --price {name!r}: say what is known of it in --models (docs/plan.md)")
        elif name not in found:
            raise unknown("model in --price", name, found)
        elif found[name].seconds is None:
            raise ConfigError(f"--price {text}: say in --models how many seconds an answer of {name} takes")
        else:
            found[name] = replace(found[name], price=(numbers[0], numbers[1]))
    return hour, list(found.values())


# What is shown --------------------------------------------------------------------------------------------------------


def shown(asked: Options, found: Verdict) -> str:
    """The plan, for people."""
    from flyweight.optimal.units import duration, size
    from flyweight.optimal.words import interval

    best = found.recommendation
    priced = any(choice.dollars is not None for choice in found.frontier)
    parts = [f"{len(found.frontier)} of {found.considered} choices that nothing beats (* is recommended)", ""]
    parts.append(_table(found.frontier, best, priced))
    facts = [
        f"{best.label}: right on {interval(best.evidence.accuracy)} of {best.evidence.questions or 'unknown'} questions"
        f"{' (published)' if best.published else ''}, {duration(best.seconds)}"
        + (f", {size(best.memory)}" if best.memory else "")
    ]
    parts += ["", _block("Recommendation", facts), _block("Because", [f"it is {found.reason}"])]
    if best.command:
        parts.append(_command(best.command))
    parts.append(_block("Evidence", [best.evidence.note]))
    if found.even:
        parts += ["", "Break-even with the bigger model's first answer", "", _even(found)]
    if found.exchanges:
        parts += ["", "At equal FLOPs, pretraining included (Snell et al. 2024, section 7)", ""]
        parts += [_exchange(each) for each in found.exchanges]
    if found.changes:
        parts += ["", "What would change the verdict", "", *(_item(line) for line in found.changes)]
    parts += ["", "Assumptions", "", *(_item(line) for line in found.assumptions)]
    return render.clean("\n".join(parts))


def _table(choices: Sequence[Choice], best: Choice, priced: bool) -> str:
    from flyweight.optimal.units import dollars, duration, size
    from flyweight.optimal.words import interval

    columns: list[tuple[str, Callable[[Choice], str]]] = [
        ("", lambda choice: "*" if choice is best else ""),
        ("model", lambda choice: choice.model),
        ("weights", lambda choice: f"{choice.known.quantisation} {choice.weights}".strip() or "-"),
        ("search", lambda choice: choice.evidence.label),
        ("right", lambda choice: interval(choice.evidence.accuracy) + ("p" if choice.published else "")),
        ("time", lambda choice: duration(choice.seconds)),
        ("memory", lambda choice: size(choice.memory) if choice.memory else "-"),
        ("of it KV", lambda choice: size(choice.kv) if choice.kv else "-"),
        ("FLOPs", lambda choice: f"{choice.flops:.1e}" if choice.flops else "-"),
    ]
    if priced:
        columns.append(("price", lambda choice: "-" if choice.dollars is None else dollars(choice.dollars)))
    rows = [[cell(choice) for _, cell in columns] for choice in choices]
    text = render.table([name for name, _ in columns], rows, len(columns) - 4)
    return text + ("\np: published, counted by others" if any(choice.published for choice in choices) else "")


def _even(found: Verdict) -> str:
    """The searches that come nearest; all of them are in the JSON."""
    from flyweight.optimal.words import share

    def at(n: float) -> str:
        return "beyond" if n == float("inf") else f"{n:.1f}"

    rows = [
        [
            each.model,
            each.searched,
            each.bigger,
            f"n={each.accuracy}" if each.accuracy else f"not by {each.most}: {share(each.reached)}",
            at(each.flops),
            at(each.seconds),
        ]
        for each in found.even[:SEARCHES]
    ]
    return render.table(["model", "search", "against", "as accurate", "as many FLOPs, n", "as long, n"], rows, 3)


def _exchange(each: Exchange) -> str:
    from flyweight.optimal.words import share

    ratio = "pretraining is paid" if each.ratio == float("inf") else f"R = {each.ratio:.2g}"
    mine = "nothing on record" if each.choice is None else f"{each.choice.evidence.label} {share(each.choice.accuracy)}"
    return _item(
        f"{ratio}: {each.small} may use {each.times:,.1f} times the tokens of {each.big}: {mine} against "
        f"{share(each.bigger.accuracy)}"
    )


def _item(text: str) -> str:
    return _filled(text, "- ", "  ")


def _block(name: str, lines: Sequence[str]) -> str:
    pad = f"{name:<15} "
    return _filled(" ".join(lines), pad, " " * len(pad))


def _command(text: str) -> str:
    """The command on as many lines as it takes, as a shell reads it; an option stays with its value."""
    words: list[str] = []
    for word in map(shlex.quote, shlex.split(text)):
        if words and words[-1].startswith("-") and not word.startswith("-"):
            words[-1] += f" {word}"
        else:
            words.append("&&" if word == "'&&'" else word)
    lines = [f"{'Run it':<15}"]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH - 2 and lines[-1].strip():
            lines.append(" " * 15)
        lines[-1] += f" {word}"
    return " \\\n".join(lines)


def _filled(text: str, first: str, others: str) -> str:
    """Lines of `WIDTH`; a number stays with its unit."""
    tied = re.sub(r"(?<=\d) (?=(?:%|s|ms|min|MB|GB)\b|%)", "\N{NO-BREAK SPACE}", text)
    made = textwrap.fill(tied, WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False)
    return made.replace("\N{NO-BREAK SPACE}", " ")
