"""The options several commands share, and what they mean together. Everything is checked before a model is loaded."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer

from flyweight import api, strategies
from flyweight.errors import ConfigError, unknown
from flyweight.protocols import Answers, Policy, Strategy, Verifier
from flyweight.strategies import Value
from flyweight.types import Budget, Event, Problem

__all__ = [
    "Choice",
    "ModelOptions",
    "apart",
    "budget",
    "check_common",
    "choose",
    "fitting",
    "group",
    "pairs",
]


def _models(incomplete: str) -> list[str]:
    """For shell completion."""
    from flyweight import models

    return [*models.catalog(), "toy"]


def _strategies(incomplete: str) -> list[str]:
    """For shell completion."""
    return strategies.names()


def _verifiers(incomplete: str) -> list[str]:
    """For shell completion."""
    from flyweight import verifiers

    return verifiers.names()


Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="FLYWEIGHT_MODEL",
        autocompletion=_models,
        metavar="MODEL",
        help="Catalog name (flyweight models ls), GGUF file, hf:org/repo/file, openai:URL, transformers:DIR or toy.",
    ),
]
StrategyName = Annotated[
    str,
    typer.Option(
        "--strategy",
        "-s",
        envvar="FLYWEIGHT_STRATEGY",
        autocompletion=_strategies,
        metavar="NAME",
        help="How the compute is spent (flyweight list).",
    ),
]
N = Annotated[
    int | None,
    typer.Option(
        "-n",
        envvar="FLYWEIGHT_N",
        metavar="N",
        help="Samples or beams; short for --set n=N. [default: the strategy's]",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A parameter of the strategy, such as temperature=0.9; repeatable."
    ),
]
VerifierName = Annotated[
    str,
    typer.Option(
        "--verifier",
        envvar="FLYWEIGHT_VERIFIER",
        autocompletion=_verifiers,
        metavar="NAME",
        help="What scores candidates: a name, with settings (length:least=20), prm:RECIPE@MODEL, or module:function.",
    ),
]
BudgetTokens = Annotated[
    int | None,
    typer.Option(envvar="FLYWEIGHT_BUDGET_TOKENS", metavar="TOKENS", help="Most tokens generated per question."),
]
BudgetVerifications = Annotated[
    int | None,
    typer.Option(envvar="FLYWEIGHT_BUDGET_VERIFICATIONS", metavar="N", help="Most candidates scored per question."),
]
Deadline = Annotated[
    float | None,
    typer.Option(envvar="FLYWEIGHT_DEADLINE", metavar="SECONDS", help="Stop each question after this many seconds."),
]
Quality = Annotated[
    str | None,
    typer.Option(
        "--quality",
        envvar="FLYWEIGHT_QUALITY",
        metavar="fast|balanced|max",
        help="A budget for people who do not think in tokens; says how long it takes.",
    ),
]
Confidence = Annotated[
    float | None,
    typer.Option(
        envvar="FLYWEIGHT_CONFIDENCE",
        metavar="P",
        help="Stop as soon as the answer is this sure, in (0, 1]; below it say so (docs/abstention.md).",
    ),
]
ConfidenceMap = Annotated[
    Path | None,
    typer.Option(
        envvar="FLYWEIGHT_CONFIDENCE_MAP",
        metavar="FILE",
        help="How sure votes are, from flyweight bench calibrate.",
        show_default="that of the package, where there is one",
    ),
]
Seed = Annotated[int, typer.Option(envvar="FLYWEIGHT_SEED", metavar="SEED", help="Seed of every draw.")]
System = Annotated[
    str,
    typer.Option(envvar="FLYWEIGHT_SYSTEM", metavar="TEXT", help='System prompt; "" for none.', show_default=False),
]
Kind = Annotated[
    str,
    typer.Option(
        envvar="FLYWEIGHT_KIND",
        metavar="KIND",
        help="How answers are read: math, choice, json, json:FIELD, code or text.",
    ),
]
MaxTokens = Annotated[int, typer.Option(envvar="FLYWEIGHT_MAX_TOKENS", metavar="TOKENS", help="Longest single answer.")]
Context = Annotated[int, typer.Option(envvar="FLYWEIGHT_CONTEXT", metavar="TOKENS", help="Longest prompt plus answer.")]
Slots = Annotated[
    int,
    typer.Option(
        envvar="FLYWEIGHT_SLOTS", metavar="N", help="Answers written together; memory is kept for as many contexts."
    ),
]
Weights = Annotated[
    str,
    typer.Option(
        envvar="FLYWEIGHT_WEIGHTS",
        metavar="FORM",
        help="auto (the faster here), file (as stored), packed or bf16; see docs/engine.md.",
    ),
]
TraceFile = Annotated[
    Path | None,
    typer.Option(
        "--trace", envvar="FLYWEIGHT_TRACE", metavar="FILE", help="Write every event to FILE, one JSON a line."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
JsonArray = Annotated[bool, typer.Option("--json", help="Print JSON, one array of objects.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]


def group() -> typer.Typer:
    """A group of commands that shows its help when none is named."""
    made = typer.Typer(rich_markup_mode=None)

    @made.callback(invoke_without_command=True)
    def top(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return made


@dataclass(frozen=True)
class Choice:
    """A strategy with all of its parameters, checked."""

    name: str
    """With what it is made of: `best_of_n:of=beam_search`."""
    parameters: Mapping[str, Value]
    """Its own."""
    bound: Strategy

    @property
    def label(self) -> str:
        """Name and n, as shown to people."""
        return f"{self.name} n={self.parameters['n']}" if "n" in self.parameters else self.name


def choose(name: str, parameters: Mapping[str, Value], kind: str = "math", *, public: bool = False) -> Choice:
    """The strategy `name` with `parameters` set, for answers read as `kind`; `public` says whether tests are shown.

    ConfigError for unknown names and values out of range.
    """
    name, parameters = strategies.normal(name, api.for_kind(name, parameters, kind, public=public))
    known = {parameter.name for parameter in strategies.describe(name).parameters}
    if "n" in parameters and "n" not in known:
        having = ", ".join(
            other
            for other in strategies.names()
            if any(parameter.name == "n" for parameter in strategies.describe(other).parameters)
        )
        raise ConfigError(f"{name} has no parameter n: drop -n (or FLYWEIGHT_N), or use one of {having}")
    bound = strategies.bind(name, parameters)
    api.check_named(name)
    values = cast("functools.partial[object]", bound).keywords
    return Choice(name, {key: value for key, value in values.items() if key not in strategies.COMMON}, bound)


def pairs(settings: Sequence[str] | None, n: int | None = None) -> dict[str, Value]:
    """Parameters from `-n N` and `--set key=value` options. ConfigError for one without "=" or given twice."""
    parameters: dict[str, Value] = {} if n is None else {"n": n}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        key, value = key.strip(), value.strip()
        if not equals or not key:
            raise ConfigError(f"--set {setting!r}: write key=value, for example --set temperature=0.9")
        if key in parameters:
            raise ConfigError(f"{key} is given twice: {parameters[key]} and {value}")
        parameters[key] = value
    return parameters


def fitting(name: str, parameters: Mapping[str, Value]) -> dict[str, Value]:
    """Those of the parameters that the strategy has."""
    known = {parameter.name for parameter in strategies.describe(name).parameters} | set(strategies.COMMON)
    return {key: value for key, value in parameters.items() if key in known}


def apart(trace: Path | None, *read: object) -> None:
    """ConfigError where the trace would replace a file that is read: those of `read` that name one."""
    if trace is None or not trace.is_file():
        return
    for name in read:
        if isinstance(name, str | Path) and os.path.exists(name) and os.path.samefile(name, trace):
            raise ConfigError(f"--trace {trace} would replace {name}, which is read: name another file")


def check_common(names: Sequence[str], keys: Iterable[str], n_from: str) -> None:
    """ConfigError for a parameter meant for all of the strategies that none of them has; `n_from` is what set n."""
    known = {parameter.name for name in names for parameter in strategies.describe(name).parameters}
    known |= set(strategies.COMMON)
    for key in keys:
        if key == "n" and key not in known:
            raise ConfigError(f"no strategy of {', '.join(names)} has a parameter n: drop {n_from}")
        if key not in known:
            raise unknown(f"parameter of {', '.join(names)}", key, known)


def budget(
    tokens: int | None = None,
    verifications: int | None = None,
    seconds: float | None = None,
    confidence: float | None = None,
) -> Budget:
    """The limits, checked. ConfigError for one that is not positive, or a confidence above 1."""
    whole = (("--budget-tokens", tokens), ("--budget-verifications", verifications))
    for option, value in whole:
        if value is not None and value < 1:
            raise ConfigError(f"{option} {value} is not allowed: a whole number from 1")
    if seconds is not None and not 0 < seconds < math.inf:
        raise ConfigError(f"--deadline {seconds:g} is not allowed: seconds above 0")
    if confidence is not None and not 0 < confidence <= 1:
        raise ConfigError(f"--confidence {confidence:g} is not allowed: a probability above 0, at most 1")
    return Budget(tokens, seconds, verifications, confidence)


@dataclass(frozen=True)
class ModelOptions:
    """What a session is made of."""

    model: str = api.DEFAULT_MODEL
    verifier: str = api.DEFAULT_VERIFIER
    kind: str = "math"
    max_tokens: int = 512
    context: int = 2048
    seed: int = 0
    judge: Verifier | None = None
    """A verifier that is there already; `verifier` is then its name."""
    confidence_map: Path | None = None
    slots: int = 32
    weights: str = "auto"

    def check(self, problems: Sequence[Problem] = ()) -> None:
        """Find every mistake that can be found without loading the model. Raises ConfigError or ModelError."""
        from flyweight import answers, verifiers

        answers.extract("", self.kind)
        judge = self.judge or verifiers.load(self.verifier)
        if judge.sees_answer and any(problem.answer is None for problem in problems):
            raise ConfigError(
                f'the verifier {self.verifier} needs the known answers: use --file with JSON lines that have "answer"'
            )
        for option, value in (("--max-tokens", self.max_tokens), ("--context", self.context), ("--slots", self.slots)):
            if value < 1:
                raise ConfigError(f"{option} {value} is not allowed: a whole number from 1")
        api.find_policy(self.model)
        if self.confidence_map is not None:
            api.find_maps(self.model, self.kind, self.confidence_map)

    def open(
        self,
        on_event: Callable[[Event], None],
        *,
        policy: Policy | None = None,
        answers: Answers | None = None,
    ) -> api.Session:
        """Load the model, unless `policy` is already there. `answers` replaces the layer that `kind` names."""
        return api.Session(
            policy or self.model,
            verifier=self.judge or self.verifier,
            kind=self.kind,
            answers=answers,
            max_tokens=self.max_tokens,
            context=self.context,
            slots=self.slots,
            weights=self.weights,
            seed=self.seed,
            confidence_map=self.confidence_map,
            on_event=on_event,
        )
