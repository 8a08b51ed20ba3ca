"""`flyweight calibrate`: which strategy at which difficulty and budget, learnt from one's own model and questions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flyweight import api
from flyweight.cli import options, render
from flyweight.cli.bench import settings_of
from flyweight.cli.folder import DEFAULT, made
from flyweight.cli.progress import Progress
from flyweight.cli.stopping import Stop
from flyweight.cli.summaries import View, duration
from flyweight.errors import ConfigError

if TYPE_CHECKING:
    from flyweight.bench.estimate import Estimate
    from flyweight.optimal.calibration import Calibration, Cell

__all__ = ["register"]

HELP = """Learn which strategy is best at which difficulty and budget, for your model, verifier and questions.

\b
Examples:
  flyweight calibrate --task gsm8k --data train.jsonl --questions 150 --out mine.json
  flyweight calibrate --task jsonl --data mine.jsonl --budgets 1k,4k -n 8 --out mine.json
  flyweight solve "What is 12 * 17 - 4?" --set calibration=mine.json

Samples and searches are recorded once, in the same store as flyweight bench: interrupted, the same command goes on.
Then every strategy is played on them at every budget, and the best is taken per difficulty; how much that gains is
measured on questions set aside. What comes out is for the strategy auto, and only for this model; the one of the same
model and kind in --out is replaced. Questions must be of the split calibration or development, or your own (jsonl).
How sure votes are is another matter: flyweight bench calibrate. See docs/compute-optimal.md.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("calibrate", help=HELP, short_help="Learn which strategy is best when.")(calibrate)


def calibrate(
    task: Annotated[str, typer.Option(metavar="TASK", help="Where questions come from (flyweight list tasks).")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="Where to.")],
    data: Annotated[str | None, typer.Option(metavar="FILE", help="File of problems.")] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Part of the task.", show_default="calibration; of jsonl all"),
    ] = None,
    set_task: Annotated[
        list[str] | None, typer.Option("--set-task", metavar="KEY=VALUE", help="A setting of the task; repeatable.")
    ] = None,
    model: options.Model = api.DEFAULT_MODEL,
    verifier: options.VerifierName = api.DEFAULT_VERIFIER,
    others: Annotated[
        str | None, typer.Option("--also", metavar="V,W,...", help="Further verifiers to choose by.")
    ] = None,
    budgets: Annotated[str, typer.Option(metavar="B,C,...", help="Tokens generated per question.")] = "256,1k,4k,16k",
    questions: Annotated[
        str | None,
        typer.Option(metavar="WHICH", help="The first 150, the 10th to the 200th (10-200), or a share (0.1)."),
    ] = None,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Samples recorded per question.")] = 16,
    temperatures: Annotated[str, typer.Option(metavar="T,U,...", help="At which they are drawn.")] = "0.7",
    searches: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help='Searches recorded beside them; "" for none.',
            show_default="beam_search:n=8:width=4,dvts:n=8:width=4; for code code_agreement:n=8",
        ),
    ] = None,
    max_tokens: options.MaxTokens = 512,
    context: options.Context = 2048,
    seed: options.Seed = 0,
    runs: Annotated[
        Path, typer.Option("--runs", envvar="FLYWEIGHT_RUNS", metavar="DIR", help="Folder in which all is kept.")
    ] = DEFAULT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take; do nothing.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    from flyweight import bench
    from flyweight.bench.estimate import estimate, measured
    from flyweight.optimal import calibration, record
    from flyweight.store import Store
    from flyweight.strategies import compose

    wanted = record.Wanted(
        task,
        data=data,
        split=split,
        settings=settings_of(task, set_task or ()),
        model=model,
        verifiers=(verifier, *_listed(others)),
        budgets=tuple(_tokens(each) for each in _listed(budgets)),
        questions=questions,
        n=n,
        temperatures=tuple(_number("--temperatures", each) for each in _listed(temperatures)),
        searches=None if searches is None else tuple(filter(None, compose.parts(searches, ","))),
        max_tokens=max_tokens,
        context=context,
        seed=seed,
    )
    try:
        jobs = bench.check(record.plans(wanted))
    except ConfigError as error:  # a benchmark's name for the same
        raise ConfigError(str(error).replace("--limit", "--questions")) from error
    api.find_policy(model, context=context)
    known = [each for each in calibration.read(out) if out.is_file()] if out.exists() else []
    if not out.parent.is_dir():
        raise ConfigError(f"cannot write {out}: the folder {out.parent} does not exist")
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        store = stack.enter_context(Store(made(runs)))
        expected = [estimate(store, job) for job in jobs]
        if not quiet or dry_run:
            drawn, seconds = _left(expected, record.shared(jobs))
            took = duration(seconds)
            at_least = "" if all(each.exact for each in expected) else "about "
            typer.echo(f"{at_least}{drawn:,} draws, {took}, {measured(store, jobs[0]).basis}", err=not dry_run)
        if dry_run:
            return 0
        view = View(stack.enter_context(Progress(quiet=quiet)), stop)
        ids = []
        for summary in bench.summaries(store, jobs, on_progress=view, limits=bench.Limits(errors=0.1)):
            ids.append(summary.run)
            if stop.code or summary.ending != "finished":
                typer.echo("the same command goes on", err=True)
                return stop.code or 3
        found = record.calibrate(store, wanted, ids, say=view.progress.say)
        view.progress.clear()
    kept = [each for each in known if (each.sha256, each.model, each.kind) != (found.sha256, found.model, found.kind)]
    calibration.write(out, [*kept, found])
    typer.echo(render.dumps(summary_of(found)) if json else shown(found, out))
    return 0


def _left(expected: Sequence[Estimate], shared: Sequence[int]) -> tuple[int, float]:
    """Draws that are missing, each once, and the seconds they take."""
    drawn, seconds = 0, 0.0
    for each, others in zip(expected, shared, strict=True):
        new = max(0, each.draws - max(each.stored, others))
        drawn += new
        seconds += each.seconds * new / max(1, each.draws - each.stored)
    return drawn, seconds


def summary_of(found: Calibration) -> dict[str, object]:
    """The rows, for programs."""
    return {
        "model": found.model,
        "verifier": found.verifier,
        "kind": found.kind,
        "questions": found.questions,
        "rows": [
            {
                "budget": row.budget,
                "k": row.estimator.k,
                "temperature": row.temperature,
                "greedy": row.greedy,
                "edges": list(row.edges),
                "strategies": [cell.strategy for cell in row.cells],
                "fixed": row.fixed.strategy,
                "held_out": list(row.held_out),
                "held_out_tokens": row.held_out_tokens,
                "gain": list(row.gain),
            }
            for row in found.rows
        ],
        "difficulty": found.report["difficulty"],
    }


def shown(found: Calibration, out: Path) -> str:
    """A table of what is done when, and what it gives."""
    lines = []
    for row in found.rows:
        for number, cell in enumerate(row.cells):
            first = number == 0
            lines.append(
                [
                    f"{row.budget:,}" if first else "",
                    _bin(row.edges, number),
                    cell.strategy,
                    _accuracy(cell),
                    f"{cell.tokens:,.0f}",
                    f"{render.percent(row.held_out.value)}" if first else "",
                    f"{100 * row.gain.value:+.1f} [{100 * row.gain.low:+.1f}, {100 * row.gain.high:+.1f}]"
                    if first
                    else "",
                ]
            )
    head = ("budget", "pass@1", "strategy", "right", "tokens", "held out", "gain, points")
    told = found.report["difficulty"]
    rank = ", ".join(f"{each['spearman']:.2f} (k={each['k']})" for each in told)
    return (
        f"{found.model}, verifier {found.verifier}, {found.kind}: {found.questions} questions\n\n"
        f"{render.table(head, lines, right=4)}\n\n"
        "right: of the questions it was chosen on; held out: of questions set aside, everything chosen on the others;\n"
        "gain: over the best single strategy, on the same.\n"
        f"Rank correlation of estimated and true difficulty, on questions set aside: {rank}\n\n"
        f"{out}: use it with --set calibration={out}"
    )


def _bin(edges: tuple[float, ...], number: int) -> str:
    low = edges[number - 1] if number else 0.0
    high = edges[number] if number < len(edges) else 1.0
    return f"{low:.2f}-{high:.2f}"


def _accuracy(cell: Cell) -> str:
    low, value, high = (100 * share for share in cell.accuracy)
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _tokens(text: str) -> int:
    """1k is 1,000."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})(k?)", text)
    if match is None:
        raise ConfigError(f"--budgets: {text!r} is not allowed: tokens from 1, such as 256 or 4k")
    return int(match[1]) * (1000 if match[2] else 1)


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is not a number") from None
