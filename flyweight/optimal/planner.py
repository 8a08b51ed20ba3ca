"""Everything that could answer a task's questions here, with what it takes and how often it is right.

`choices` goes through model x form of its weights x strategy x n x verifier. A choice's seconds come from the work its
search was recorded to make (`work.py`) and from this machine's measured speed (`speed.py`); bytes from the same
measurement; accuracy from `evidence.py`. What to make of them is `verdict.py`'s.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from flyweight import models
from flyweight.errors import ConfigError, FlyweightError, ModelError, unknown
from flyweight.optimal import evidence, speed, told
from flyweight.optimal.evidence import ANSWER, Cost, Evidence, Known
from flyweight.optimal.speed import Speed
from flyweight.optimal.work import SLOTS, Work

__all__ = ["Choice", "Options", "billed", "busy", "choices", "collected"]

PARKED = 288 << 20
"""Bytes the engine keeps of finished paths at most (`LlamaCpp`, parked_mb)."""
DAY = 86_400
WIDE = 2
"""Bytes per parameter of a verifier's own model, where nobody has measured it: bf16."""


@dataclass(frozen=True)
class Options:
    """What is wanted, and what is known beyond what comes with the package."""

    task: str
    memory: float | None = None
    """Bytes a process may hold."""
    latency: float | None = None
    """Seconds for one question alone."""
    accuracy: float | None = None
    """Share of questions that should be right, in (0, 1]."""
    tokens_per_day: float | None = None
    """Of answers that somebody reads; a search draws more."""
    days: float = 365.0
    """For how long."""
    hour: float | None = None
    """US$ that this machine costs per hour."""
    context: int = 2048
    questions: int = 1000
    """Answered by then, which fills the memory for finished paths."""
    models: tuple[Known, ...] = ()
    """The user's."""
    evidence: tuple[Evidence, ...] = ()
    """Of the user's runs: stands before what is shipped."""
    only: tuple[str, ...] = ()
    """Names of the models to choose among; all where empty."""
    weights: str = "auto"
    """Form they run in; auto for the two that make sense here."""
    measure: bool = True
    """Whether models that were never measured here are measured now."""


@dataclass(frozen=True)
class Choice:
    """One way to answer a question."""

    model: str
    weights: str
    """Form they run in; empty behind an interface."""
    evidence: Evidence
    known: Known
    work: Work
    seconds: float
    """For one question, nothing else running."""
    memory: float
    """Bytes held at most; 0 behind an interface."""
    kv: float
    """Bytes of KV in it: slots x context."""
    slots: int
    context: int
    flops: float
    """For one question; 0 where the parameters are not known."""
    together: float
    """Seconds a question takes the machine when many are in flight: in `SLOTS`, or in `slots` for tokens_per_day."""
    dollars: float | None
    """For one question; None where no price was given."""
    parked: float = 0.0
    answer: float = ANSWER
    """Tokens of the one answer that is read: the model's first one."""
    here: bool = True
    """Whether the model is on this machine, or behind an interface."""
    public: bool = False
    """Whether the questions are for programs, with tests that everybody sees."""
    notes: tuple[str, ...] = field(default=())
    """What of this was not measured."""

    @property
    def accuracy(self) -> float:
        """The estimate, in [0, 1]."""
        return self.evidence.accuracy.value

    @property
    def remote(self) -> bool:
        """Whether the model runs behind an interface."""
        return self.known.price is not None

    @property
    def published(self) -> bool:
        """Whether the accuracy is somebody else's."""
        return self.evidence.source == "published"

    @property
    def label(self) -> str:
        """Model, form and search."""
        form = f" {self.weights}" if self.weights else ""
        return f"{self.model}{form} {self.evidence.label}"

    @property
    def command(self) -> str:
        """What runs it, for a shell; empty behind an interface, and for a model with no file here or in the catalog."""
        if self.remote or (self.known.path is None and self.model not in models.catalog()):
            return ""
        said, name = self.evidence, self.known.path or self.model
        tokens = said.parameters.get("budget_tokens")
        words = ["flyweight", "solve", "QUESTION", "--model", name, "--strategy", said.strategy]
        words += ["-n", str(said.n)] if "n" in said.parameters else []
        words += ["--budget-tokens", str(tokens)] if tokens else []
        words += [word for key, value in said.settings.items() for word in ("--set", f"{key}={value}")]
        words += ["--verifier", said.verifier] if said.verifier else []
        words += ["--tests", "FILE"] if self.public else []
        words += ["--max-tokens", str(said.max_tokens)] if said.max_tokens else []
        words += ["--weights", self.weights, "--slots", str(self.slots), "--context", str(self.context)]
        pull = [] if self.here else [shlex.join(["flyweight", "models", "pull", name])]
        return " && ".join([*pull, shlex.join(words)])

    def as_dict(self) -> dict[str, Any]:
        """JSON types: bytes, seconds, shares in [0, 1]."""
        said = self.evidence
        return {
            "model": self.model,
            "parameters": self.known.parameters or None,
            "quantisation": self.known.quantisation or None,
            "weights": self.weights or None,
            "strategy": said.strategy,
            "settings": dict(said.parameters),
            "n": said.n,
            "verifier": said.verifier,
            "accuracy": said.accuracy.value,
            "interval": [said.accuracy.low, said.accuracy.high],
            "questions": said.questions,
            "source": said.source,
            "evidence": said.note,
            "seconds": self.seconds,
            "seconds_in_company": self.together,
            "memory_bytes": self.memory,
            "weights_bytes": self.known.bytes or None,
            "kv_bytes": self.kv,
            "parked_bytes": self.parked,
            "slots": self.slots,
            "context": self.context,
            "flops": self.flops,
            "tokens": self.work.generated,
            "dollars": self.dollars,
            "command": self.command or None,
            "notes": list(self.notes),
        }


def collected(options: Options) -> tuple[list[Known], list[Evidence]]:
    """The models there are to choose among, and what is known of them on the task, the user's own before ours.

    ConfigError for names nobody knows, and for a task on which nothing is known.
    """
    theirs = {known.name: known for known in options.models}
    ours = {known.name: known for known in told.published()}
    found: dict[str, Known] = {}
    for model in models.catalog().values():
        facts = ours.get(model.name, Known(model.name))
        found[model.name] = replace(
            facts, parameters=model.parameters, bytes=model.bytes, quantisation=model.quantisation
        )
    found = {**ours, **found}
    for name, known in theirs.items():
        found[name] = _merged(known, found.get(name))
    for row in options.evidence:
        found.setdefault(row.model, Known(row.model, path=row.model if Path(row.model).suffix == ".gguf" else None))
    if missing := [name for name in options.only if name not in found]:
        if missing[0].endswith(".gguf"):
            raise ConfigError(
                f"nothing is known of {missing[0]}: record a run with flyweight bench run --model {missing[0]} and "
                "name its folder (--runs)"
            )
        raise unknown("model", missing[0], found)
    wanted = {name: known for name, known in found.items() if not options.only or name in options.only}
    layers = [*evidence.shipped(), *options.evidence, *(row for known in theirs.values() for row in known.results)]
    rows: dict[object, Evidence] = {}
    tasks = {row.task for row in layers}
    for row in layers:
        if row.task == options.task and row.model in wanted:
            rows[row.key] = row
    measured = {row.model for row in rows.values()}
    for known in ours.values():
        for row in known.results:
            tasks.add(row.task)
            if row.task == options.task and row.model in wanted and row.model not in measured:
                rows[row.key] = row
    if not rows:
        others = sorted({row.model for row in layers if row.task == options.task})
        about, have = (f"of {', '.join(options.only)} ", others) if others else ("", sorted(tasks))
        raise ConfigError(
            f"nothing is known {about}about {options.task} (measured: {', '.join(have)}): record a run with flyweight "
            "bench run and name its folder (--runs), or say what you know (--models)"
        )
    return list(wanted.values()), list(rows.values())


def _merged(known: Known, base: Known | None) -> Known:
    """What the user says of a model, and for the rest what we know of it."""
    if base is None:
        return known
    said = {each.name: getattr(known, each.name) for each in fields(known) if getattr(known, each.name)}
    return replace(base, **said)


def choices(options: Options, tell: Callable[[str], None] = lambda line: None) -> list[Choice]:
    """Every choice there is for the task, whatever the limits. `tell` hears what is being measured.

    Models that are on this machine are measured unless they were before; of others the speed is estimated from one
    that is. Raises as `collected`, ConfigError for a context that holds no answer, ModelError without any model to
    measure.
    """
    wanted, rows = collected(options)
    greedy = [row.work for row in rows if row.strategy == "greedy" and row.work is not None]
    answer = fmean(work.generated for work in greedy) if greedy else ANSWER
    question = fmean(work.prompt for work in greedy) if greedy else evidence.QUESTION
    code = any((row.task, row.verifier) == (options.task, "tests") for row in (*evidence.shipped(), *options.evidence))
    if options.context < question + answer:
        raise ConfigError(
            f"--context {options.context} is too short: a question of {options.task} and one answer take "
            f"{question + answer:.0f} tokens"
        )
    speeds = _speeds(options, [known for known in wanted if any(row.model == known.name for row in rows)], tell)
    costs = evidence.shipped_costs()
    lengths = {row.model: row.work.generated for row in rows if row.strategy == "greedy" and row.work is not None}
    found = []
    by_name = {known.name: known for known in wanted}
    for row in rows:
        known, notes = by_name[row.model], []
        work = row.work
        if work is None:
            work = evidence.usual(row.n, row.n * answer, question)
            notes.append(f"{answer:.0f} tokens an answer assumed")
        if row.assumed:
            notes.append(row.assumed)
        if known.price is not None:
            found.append(_remote(row, known, work, tuple(notes)))
            continue
        if row.verifier not in (None, *costs):
            size = f": as for {work.verifier:.1e} parameters, {WIDE} bytes each" if work.verifier else ""
            notes.append(f"{row.verifier} takes time and memory of its own, which nobody has measured{size}")
        for form, its in speeds.get(row.model, {}).items():
            cost = costs.get(row.verifier or "", Cost(0.0, 0.0))
            if row.verifier == "self" and code:  # what it combines for programs has them run, too
                cost = Cost(cost.seconds + costs.get("tests", cost).seconds, cost.memory)
            read = lengths.get(row.model, answer)
            found.append(_local(options, row, known, form, its, work, cost, notes, read))
    if not found:
        raise ConfigError(
            f"no model of {', '.join(sorted({row.model for row in rows}))} can be run or estimated here: say a path or "
            "parameters in --models"
        )
    found = [replace(choice, answer=lengths.get(choice.model, answer), public=code) for choice in found]
    return sorted(found, key=lambda choice: (choice.seconds, -choice.accuracy, choice.label))


def seconds(work: Work, its: Speed, cost: Cost) -> float:
    """For one question alone: its prompt, every step with as many rows as there are, and the verifier."""
    decoding = math.fsum(count * its.step(rows, work.behind) for rows, count in work.steps.items())
    return its.prompt(work.prompt) + decoding + _verifying(work, its, cost)


def together(work: Work, its: Speed, cost: Cost, slots: int) -> float:
    """Seconds of the machine for one question among many: every step has a row for each of the slots."""
    decoding = work.generated * its.step(slots, work.behind) / slots
    return work.prompt * its.prefill[1] + decoding + _verifying(work, its, cost)


def _verifying(work: Work, its: Speed, cost: Cost) -> float:
    """Seconds: a model of the verifier's own takes as much longer as it is larger than the policy."""
    times = work.verifier / its.parameters if work.verifier else 1.0
    return work.verified * times * its.prefill[1] + work.scored * cost.seconds


def busy(options: Options, answer: float, seconds: float) -> float:
    """Share of the day this machine works to answer what is asked, at so many seconds for `answer` tokens."""
    assert options.tokens_per_day is not None
    return options.tokens_per_day / max(1.0, answer) * seconds / DAY


def billed(options: Options, choice: Choice) -> float:
    """Seconds of this machine that a question is to pay for: those among many where it is told how many there are."""
    return choice.seconds if options.tokens_per_day is None else choice.together


def _local(
    options: Options,
    row: Evidence,
    known: Known,
    form: str,
    its: Speed,
    work: Work,
    cost: Cost,
    notes: Sequence[str],
    answer: float,
) -> Choice:
    slots = min(max(row.n, *work.steps, 1), SLOTS)
    if options.tokens_per_day is not None:  # as few as keep up: they take memory
        enough = (s for s in range(slots, SLOTS) if busy(options, answer, together(work, its, cost, s)) <= 1)
        slots = next(enough, SLOTS)
    # What earlier questions left is kept until the room for it is full.
    parked = min(PARKED, (options.questions - 1) * (work.prompt + work.generated) * its.kv_bytes)
    alone = seconds(work, its, cost)
    here = its.note == speed.MEASURED
    estimated = [] if here else [its.note]
    parameters = known.parameters or its.parameters
    found = Choice(
        row.model,
        form,
        row,
        replace(known, parameters=parameters),
        work,
        alone,
        its.resident(slots, options.context) + parked + (cost.memory or WIDE * work.verifier),
        slots * options.context * its.kv_bytes,
        slots,
        options.context,
        2 * (parameters * (work.prompt + work.generated) + (work.verifier or parameters) * work.verified),
        together(work, its, cost, SLOTS if options.tokens_per_day is None else slots),
        None,
        parked,
        answer,
        here=here,
        notes=(*estimated, *notes),
    )
    return found if options.hour is None else replace(found, dollars=billed(options, found) * options.hour / 3600)


def _remote(row: Evidence, known: Known, work: Work, notes: tuple[str, ...]) -> Choice:
    assert known.price is not None and known.seconds is not None
    reading, writing = known.price
    flops = 2 * known.parameters * (work.prompt + work.generated)
    dollars = (reading * work.prompt + writing * work.generated) / 1e6
    return Choice(
        row.model, "", row, known, work, known.seconds, 0.0, 0.0, 0, 0, flops, known.seconds, dollars, notes=notes
    )


# Speeds ---------------------------------------------------------------------------------------------------------------


def _speeds(
    options: Options, wanted: Iterable[Known], tell: Callable[[str], None]
) -> Mapping[str, Mapping[str, Speed]]:
    """By model and form. What is not here is estimated from the largest model that is."""
    local = [known for known in wanted if known.price is None]
    found: dict[str, dict[str, Speed]] = {}
    failures: list[str] = []
    if not local:
        return found
    forms = speed.forms() if options.weights == "auto" else (options.weights,)
    paths = {known.name: path for known in local if (path := _path(known, failures)) is not None}
    for name, path in paths.items():
        for form in forms:
            its = speed.known(path, form)
            if its is None and options.measure:
                try:
                    its = speed.measure(path, form, tell)
                except FlyweightError as error:
                    failures.append(f"{name} {form}: {error}")
            if its is not None:
                found.setdefault(name, {})[form] = its
    if not found:
        found = _any_measured(options, forms, failures, tell)
    if not found and paths and not options.measure:
        raise ConfigError("this machine was not measured with any of these models yet: drop --no-measure")
    if not found:
        why = f" ({failures[0]})" if failures else ""
        raise ModelError(f"no model is here to measure this machine with{why}; run: flyweight models pull")
    reference = max(found, key=lambda name: max(its.parameters for its in found[name].values()))
    for known in local:
        if known.name not in found and known.parameters:
            kv_bytes = known.kv_bytes or next(iter(found[reference].values())).kv_bytes
            found[known.name] = {
                form: speed.scaled(its, known.parameters, kv_bytes, known.bytes, reference)
                for form, its in found[reference].items()
            }
    return found


def _any_measured(
    options: Options, forms: Sequence[str], failures: list[str], tell: Callable[[str], None]
) -> dict[str, dict[str, Speed]]:
    """The first model of the store that runs here: none of those asked for does."""
    for entry in models.installed():
        for form in forms:
            its = speed.known(entry.path, form)
            if its is None and options.measure:
                try:
                    its = speed.measure(entry.path, form, tell)
                except FlyweightError as error:
                    failures.append(f"{entry.ref} {form}: {error}")
            if its is not None:
                return {entry.ref: {form: its}}
    return {}


def _path(known: Known, failures: list[str]) -> Path | None:
    """Where the model's file is, if it is on this machine."""
    try:
        return models.resolve(known.path or known.name)
    except ModelError as error:
        failures.append(str(error))
    except ConfigError:  # a name out of a paper
        pass
    return None
