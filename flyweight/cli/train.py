"""`flyweight train-verifier`: a verifier of one's own for a model, from its own answers to train questions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from flyweight import api, models, stats, tasks, verifiers
from flyweight.cli import options
from flyweight.cli.summaries import duration
from flyweight.errors import ConfigError, ModelError
from flyweight.protocols import Task
from flyweight.types import Problem, digest
from flyweight.verifiers import heads
from flyweight.verifiers.self_verifier import FREE, kind_of

__all__ = ["register"]

HELP = """Train a verifier for a model on its own answers to train questions.

\b
Examples:
  flyweight train-verifier gsm8k=train.jsonl --questions 600 --out head.npz
  flyweight train-verifier jsonl=mine.jsonl --lora --out adapter.gguf
  flyweight train-verifier gsm8k=train.jsonl --combine --questions 100

Draws answers to each question, with the hidden states the model had while it wrote, and has the task
grade them; then fits a head (verifier probe), or with --lora an adapter for the model's upper layers
(verifier lora), or with --combine how much each of these counts in the verifier self. A task gives its
questions of the split "train" only, for --combine those of "calibration"; one without them is refused.
Everything goes to --work as it is made: interrupted at any moment, the same command goes on. Needs
pip install 'flyweight[train]'.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("train-verifier", help=HELP, short_help="Train a verifier for a model.")(train_verifier)


def train_verifier(
    sources: Annotated[
        list[str], typer.Argument(metavar="TASK[=FILE]...", help="Where questions come from (flyweight list tasks).")
    ],
    model: options.Model = api.DEFAULT_MODEL,
    questions: Annotated[int, typer.Option(metavar="N", help="Questions of each task; fewer if it has fewer.")] = 600,
    n: Annotated[int, typer.Option("-n", metavar="N", help="Answers drawn for each question.")] = 8,
    rollouts: Annotated[
        int, typer.Option(metavar="N", help="Continuations of one step of each question, for its value.")
    ] = 2,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="[default: in --work]", show_default=False)] = None,
    work: Annotated[Path, typer.Option(metavar="FOLDER", help="What is drawn, 16 MB a question of 0.5B.")] = Path(
        "runs/train-verifier"
    ),
    lora: Annotated[bool, typer.Option("--lora", help="Fine-tune the upper layers instead of fitting a head.")] = False,
    epochs: Annotated[int, typer.Option(metavar="N", help="Of --lora.")] = 1,
    curve: Annotated[bool, typer.Option("--curve", help="Fit on fewer questions too: the learning curve.")] = False,
    combine: Annotated[
        bool,
        typer.Option("--combine", help="Fit how much each part of the verifier self counts, on calibration questions."),
    ] = False,
    parts: Annotated[
        str | None,
        typer.Option(
            metavar="V,W,...",
            help="Of --combine.",
            show_default="all that there are",
        ),
    ] = None,
    draw_only: Annotated[bool, typer.Option("--draw-only", help="Draw, train nothing.")] = False,
    max_tokens: options.MaxTokens = 512,
    seed: options.Seed = 0,
) -> None:
    """See HELP."""
    for option, value, least in (("--questions", questions, 8), ("-n", n, 2), ("--epochs", epochs, 1)):
        if value < least:
            raise ConfigError(f"{option} {value} is not allowed: a whole number from {least}")
    if rollouts < 0 or rollouts == 1:
        raise ConfigError(f"--rollouts {rollouts} is not allowed: 0, or a whole number from 2")
    if not draw_only:
        _libraries(lora)
    file = models.resolve(model)
    sha256 = models.digest(file)
    folder = work / f"{file.stem}-n{n}-r{rollouts}-t{max_tokens}-s{seed}"
    if combine:
        _combination(model, sha256, sources, questions, parts, folder, out, n=n, max_tokens=max_tokens, seed=seed)
        return
    files: dict[str, list[Path]] = {}
    for task, problems in _chosen(sources, "train", questions):
        _draw(model, task, problems, folder / task.name, n=n, rollouts=rollouts, max_tokens=max_tokens, seed=seed)
        from flyweight.training.pool import recorded

        files.setdefault(task.name, []).extend(recorded(folder / task.name, problems))
    if draw_only:
        return
    if lora:
        _adapter(file, sha256, files, folder, out or folder / "adapter.gguf", epochs, seed)
    else:
        _head(sha256, files, out or folder / "head.npz", curve, seed)


def _mixed(files: Mapping[str, Sequence[Path]]) -> list[Path]:
    """Tasks take turns."""
    return [path for row in itertools.zip_longest(*files.values()) for path in row if path is not None]


def _libraries(lora: bool) -> None:
    try:
        import torch  # noqa: F401

        if lora:
            import peft  # noqa: F401
            import transformers  # noqa: F401
    except ImportError as missing:
        raise ConfigError(f"training needs {missing.name}: pip install 'flyweight[train]'") from missing


def _chosen(sources: Sequence[str], split: str, questions: int) -> list[tuple[Task, list[Problem]]]:
    """The questions of each source. ConfigError for an id that two of one task have: what is drawn goes by it."""
    found = []
    taken: set[tuple[str, str]] = set()
    for task in (_task(source, split) for source in sources):
        problems = tasks.pick(task.problems(), min(questions, len(task.problems())))
        names = {(task.name, problem.id) for problem in problems}
        if twice := sorted(id for _, id in names & taken):
            raise ConfigError(f"{len(twice)} ids of {task.name} stand in two of its files, such as {twice[0]!r}")
        taken |= names
        found.append((task, problems))
    return found


def _task(source: str, split: str) -> Task:
    """The questions of that split. ConfigError for a task without it, whose questions are for testing."""
    name, _, file = source.partition("=")
    if split not in getattr(tasks.factory(name), "splits", ()):
        raise ConfigError(
            f"{name} has no split {split}, and nothing is fitted on test questions: use jsonl=FILE with your own"
        )
    return tasks.load(name, Path(file) if file else None, split)


def _draw(
    model: str,
    task: Task,
    problems: Sequence[Problem],
    folder: Path,
    *,
    n: int,
    rollouts: int,
    max_tokens: int,
    seed: int,
) -> None:
    from flyweight.training import pool

    have = len(pool.recorded(folder, problems))
    if have == len(problems):
        return
    policy = api.find_policy(model)()
    if not hasattr(policy, "sha256"):
        raise ModelError(f"{model} has no hidden states: a verifier is trained for a model of the embedded engine")
    began, failed = time.monotonic(), 0
    say = _Lines(f"drawing {task.name}")
    try:
        results = pool.collect(policy, task, problems, folder, n=n, rollouts=rollouts, max_tokens=max_tokens, seed=seed)
        for done, result in enumerate(results, 1):
            failed += result.error is not None
            if result.error is not None:
                typer.echo(f"{result.problem.id}: {result.error}", err=True)
            left = (time.monotonic() - began) / done * (len(problems) - have - done)
            say(f"{have + done} of {len(problems)} questions, {duration(left)} left")
    finally:
        policy.close()
    if failed:
        raise ModelError(f"{failed} questions of {task.name} could not be drawn: the same command tries them again")


def _head(sha256: str, files: Mapping[str, Sequence[Path]], out: Path, curve: bool, seed: int) -> None:
    from flyweight.training import head, pool

    questions = {path: pool.load(path) for own in files.values() for path in own}
    learned: list[dict[str, object]] = []
    for share in (1, 2, 4, 8) if curve else (8,):
        # The same share of every task, so that what changes is how many there are.
        used = {task: own[: len(own) * share // 8] for task, own in files.items()}
        asked = _mixed(used)
        try:
            fitted = head.fit(
                [questions[path] for path in asked],
                sha256,
                head.Plan(seed=seed),
                say=_Lines(f"fitting on {len(asked)}"),
            )
        except ValueError as error:
            if share == 8:
                raise ConfigError(f"{len(asked)} questions: {error}") from error
            typer.echo(f"{len(asked)} questions: {error}", err=True)
            continue
        facts = fitted.head.facts
        typer.echo(f"{len(asked)} questions: AUC {facts['auc']}, within a question {facts['auc_within']} (held out)")
        held_out = dict(zip((path for path in asked if questions[path].chains), fitted.logits, strict=True))
        point: dict[str, object] = {"questions": len(asked)}
        for task, own in used.items():
            rows = [
                (held_out[path], [chain.right for chain in questions[path].chains]) for path in own if path in held_out
            ]
            with suppress(ConfigError):  # one whose questions are all of one kind has none
                low, value, high = stats.auc_within([logits for logits, _ in rows], [right for _, right in rows])
                typer.echo(f"  {task}: within a question {value:.3f} [{low:.3f}, {high:.3f}], {len(rows)} questions")
                point[task] = round(value, 4)
        learned.append(point)
    fitted.head.facts["curve"] = learned
    fitted.head.save(out)
    typer.echo(f"{out}: {out.stat().st_size / 1e3:.0f} kB; use it with --verifier probe:head={out}")


def _adapter(
    file: Path,
    sha256: str,
    files: Mapping[str, Sequence[Path]],
    folder: Path,
    out: Path,
    epochs: int,
    seed: int,
) -> None:
    from flyweight.training import lora, pool

    plan = lora.Plan(epochs=epochs, seed=seed)
    # Every tenth question of each task is held out.
    held = _mixed({task: own[::10] for task, own in files.items()})
    used = _mixed({task: [path for index, path in enumerate(own) if index % 10] for task, own in files.items()})
    for what, own in (("held-out", held), ("other", used)):
        if not any(pool.load(path).mixed for path in own):
            raise ConfigError(f"{len(own)} {what} questions: {pool.NOTHING}")
    verifier = lora.Verifier(file, plan)
    say = _Lines("training")
    for progress in lora.train(verifier, used, folder / "lora.pt", plan):
        say(f"{progress.done} of {progress.of} questions, loss {progress.loss:.3f}, {duration(progress.seconds)} left")
    facts = lora.export(verifier, out, held, sha256=sha256, questions=len(used))
    typer.echo(f"{len(held)} held-out questions: AUC {facts['auc']}, within a question {facts['auc_within']}")
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB; use it with --verifier lora:adapter={out}")


def _combination(
    model: str,
    sha256: str,
    sources: Sequence[str],
    questions: int,
    parts: str | None,
    folder: Path,
    out: Path | None,
    *,
    n: int,
    max_tokens: int,
    seed: int,
) -> None:
    from flyweight.training import combine

    scored: list[combine.Scored] = []
    policy = None
    for task, problems in _chosen(sources, "calibration", questions):
        ids = {problem.id for problem in problems}
        usual = [*heads.trained(sha256), FREE[kind_of(problems[0])], "self-certainty", "confidence", "p_true"]
        judges = {name: verifiers.load(name) for name in (parts.split(",") if parts else usual)}
        said_by = digest(*(getattr(judge, "identity", name) for name, judge in judges.items()))
        file = folder / f"{task.name}-{said_by[:8]}.jsonl"
        if ids - {each.id for each in combine.load(file)}:
            policy = policy or api.find_policy(model)()
            say = _Lines(f"scoring {task.name}")
            results = combine.collect(policy, task, problems, judges, file, n=n, max_tokens=max_tokens, seed=seed)
            for done, _ in enumerate(results, 1):
                say(f"{done} questions more")
        scored += [each for each in combine.load(file) if each.id in ids]
    kinds = {}
    for kind in sorted({each.kind for each in scored}):
        fitted = kinds[kind] = combine.fit([each for each in scored if each.kind == kind], say=typer.echo)
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in fitted.weights.items())
        typer.echo(f"{kind}: {weights}; AUC within a question {fitted.facts['auc_within']} (held out)")
    target = out or folder / "self.json"
    combine.save(target, sha256, kinds)
    typer.echo(f"{target}: use it with --verifier self:combination={target}")


class _Lines:
    """A line of progress on stderr every few seconds."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._next = 0.0

    def __call__(self, line: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 5
            typer.echo(f"{self.what}: {line}", err=True)
