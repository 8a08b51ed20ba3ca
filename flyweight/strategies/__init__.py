"""The strategies by name: one file per paper, one line each in the table below.

A strategy is `async def name(search, *, parameters) -> Node | None`. Parameters, defaults, summary, source and cost
are read from its signature and docstring, so the CLI, the docs and the server need no second list. A name may carry
settings, and one strategy may be made of others: see `compose`. Third parties register theirs under the entry point
group `flyweight.strategies`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from flyweight.errors import ConfigError, unknown
from flyweight.protocols import Strategy
from flyweight.registry import Registry
from flyweight.select import AGGREGATIONS
from flyweight.strategies import compose
from flyweight.strategies.compose import Value

__all__ = [
    "COMMON",
    "SAMPLING",
    "Description",
    "Parameter",
    "Value",
    "bind",
    "describe",
    "load",
    "named",
    "names",
    "normal",
    "stepwise",
]

_REGISTRY = Registry(
    "strategy",
    "flyweight.strategies",
    {
        "greedy": "flyweight.strategies.greedy:greedy",
        "sample": "flyweight.strategies.sample:sample",
        "self_consistency": "flyweight.strategies.self_consistency:self_consistency",
        "adaptive_consistency": "flyweight.strategies.adaptive_consistency:adaptive_consistency",
        "best_of_n": "flyweight.strategies.best_of_n:best_of_n",
        "weighted_best_of_n": "flyweight.strategies.weighted_best_of_n:weighted_best_of_n",
        "beam_search": "flyweight.strategies.beam_search:beam_search",
        "dvts": "flyweight.strategies.dvts:dvts",
        "lookahead_search": "flyweight.strategies.lookahead_search:lookahead_search",
        "rebase": "flyweight.strategies.rebase:rebase",
        "particle_filter": "flyweight.strategies.particle_filter:particle_filter",
        "particle_gibbs": "flyweight.strategies.particle_gibbs:particle_gibbs",
        "mcts": "flyweight.strategies.mcts:mcts",
        "sequential_revision": "flyweight.strategies.sequential_revision:sequential_revision",
        "hybrid": "flyweight.strategies.hybrid:hybrid",
        "self_refine": "flyweight.strategies.self_refine:self_refine",
        "budget_forcing": "flyweight.strategies.budget_forcing:budget_forcing",
        "confidence_filtered": "flyweight.strategies.confidence_filtered:confidence_filtered",
        "code_agreement": "flyweight.strategies.code_agreement:code_agreement",
        "tournament": "flyweight.strategies.tournament:tournament",
        "medoid": "flyweight.strategies.medoid:medoid",
        "auto": "flyweight.optimal.controller:auto",
    },
)

SAMPLING = ("self_consistency", "best_of_n", "weighted_best_of_n")
"""Those that draw n independent whole samples, whatever they choose among them by: the samples of any stand for all."""
_RANGES: Mapping[str, tuple[float, float]] = {
    "n": (1, 4096),
    "width": (1, 4096),
    "max_steps": (1, 1000),
    "step_tokens": (1, 32768),
    "temperature": (0.01, 5),
    "threshold": (0.5, 1),
    "k": (0, 64),
    "balance": (0.01, 100),
    "ess": (0, 1),
    "iterations": (1, 64),
    "branch": (1, 64),
    "chains": (1, 4096),
    "memory": (1, 64),
    "rounds": (0, 1000),
    "think_tokens": (1, 32768),
    "answer_tokens": (1, 32768),
    "waits": (0, 1000),
    "warmup": (1, 4096),
    "keep": (0.01, 1),
    "window": (1, 32768),
    "tests": (1, 100),
    "probes": (0, 24),
    "pivots": (1, 4096),
    "lead": (0.01, 1),
    "enough": (0.01, 1),
    "tokens": (1, 10_000_000),
}
"""One vocabulary of parameters: the same name means the same thing, and has the same bounds, everywhere."""
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "aggregation": AGGREGATIONS,
    "resampling": ("systematic", "multinomial"),
    "bound": ("puct", "uct"),
    "value": ("verifier", "rollout"),
}
_FILLED = frozenset(("closing", *compose.PARAMETERS))
"""Texts that mean nothing when they are empty."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a strategy."""

    name: str
    kind: type
    """int, float, str or bool."""
    default: Value
    allowed: str
    """The allowed values, for people; of a parameter in `COMMON`, what it does too."""


@dataclass(frozen=True, slots=True)
class Description:
    """What `flyweight list` shows of a strategy."""

    name: str
    summary: str
    """First line of the docstring."""
    source: str
    """The paper."""
    cost: str
    use: str
    """When to take it; empty where its docstring does not say."""
    parameters: tuple[Parameter, ...]


def names() -> list[str]:
    """Every registered strategy: ours in the order of the table, then third parties' by name."""
    return _REGISTRY.names()


def load(name: str) -> Callable[..., object]:
    """The strategy function of a name, with or without settings; ConfigError with the closest match if unknown."""
    return _REGISTRY.factory(compose.spelled(name)[0])


def describe(name: str) -> Description:
    """Name, summary, source, cost, use and parameters, read from the function."""
    return _described(name, load(name))


@functools.lru_cache  # a server asks this several times of every request, and a signature takes 50 µs to read
def _described(name: str, function: Callable[..., object]) -> Description:
    doc = inspect.getdoc(function) or ""
    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY:
            kind = type(parameter.default)
            parameters.append(Parameter(parameter.name, kind, parameter.default, _allowed(parameter.name, kind)))
    summary = doc.split("\n\n")[0].replace("\n", " ")
    source, cost, use = (_paragraph(doc, heading) for heading in ("Source:", "Cost:", "Use:"))
    return Description(name, summary, source, cost, use, tuple(parameters))


def stepwise(name: str) -> bool:
    """Whether the strategy draws step by step, which `max_steps` bounds: whole samples cannot begin it."""
    return any(parameter.name == "max_steps" for parameter in describe(name).parameters)


def bind(name: str, parameters: Mapping[str, Value] | None = None) -> Strategy:
    """The strategy with its parameters set and checked; `best_of_n:n=8` is the name with one of them.

    Values may be strings, as they come from a command line. Those in `COMMON` every strategy has. Raises ConfigError
    for an unknown parameter or a value outside its range.
    """
    name, given = _given(name, parameters)
    function = load(name)
    known = {parameter.name: parameter for parameter in describe(name).parameters}
    if wrong := next((key for key in given if key not in known and key not in COMMON), None):
        raise unknown(f"parameter of {name}", wrong, [*known, *COMMON])
    checked = {key: _checked(known.get(key) or COMMON[key], value) for key, value in given.items()}
    values = {parameter.name: parameter.default for parameter in known.values()} | checked
    if "width" in values and int(values["n"]) % int(values["width"]):
        n, width = values["n"], values["width"]
        raise ConfigError(f"n={n} is not a multiple of width={width}: n/width beams survive a round")
    if "of" in checked and (stepwise(name) or name in ("budget_forcing", "auto")):
        raise ConfigError(f"{name} takes no of=: it begins with a step, or may choose a strategy that does; drop of=")
    if checked.keys() - known:
        found_by = [bind(part) for part in compose.inner(checked)]
        function = compose.compose(cast("compose.Function", function), found_by)
    return cast(Strategy, functools.partial(function, **values))


def normal(name: str, parameters: Mapping[str, Value] | None = None) -> tuple[str, dict[str, Value]]:
    """The same strategy as a name that says what it is made of, and its own parameters.

    `("best_of_n:n=8", {"of": "greedy"})` is `("best_of_n:of=greedy", {"n": "8"})`. ConfigError for what is given twice.
    """
    name, given = _given(name, parameters)
    made_of = {key: given.pop(key) for key in COMMON if key in given}
    return compose.spell(name, made_of), given


def named(name: str, what: Literal["verifier", "policy"]) -> list[str]:
    """The verifiers, or the models, that a name says the strategy and its sub-searches use; as `load` names them."""
    return compose.named(compose.spelled(name)[1], what)


def _given(name: str, parameters: Mapping[str, Value] | None) -> tuple[str, dict[str, Value]]:
    """The bare name, and the settings in it along with those beside it."""
    name, given = compose.spelled(name)
    for key, value in (parameters or {}).items():
        if key in given:
            raise ConfigError(f"{key} is given twice: {given[key]} and {value}")
        given[key] = value
    return name, given


def _checked(parameter: Parameter, value: Value) -> Value:
    wrong = ConfigError(f"{parameter.name}={value!r} is not allowed: {parameter.allowed}")
    try:
        if parameter.kind is bool:
            if str(value).lower() not in ("true", "false", "1", "0", "yes", "no"):
                raise wrong
            return str(value).lower() in ("true", "1", "yes")
        if parameter.kind is int and isinstance(value, float) and not value.is_integer():
            raise wrong
        converted = cast(Value, parameter.kind(value))
    except (TypeError, ValueError, OverflowError):
        raise wrong from None
    if parameter.name in _RANGES and isinstance(converted, int | float):
        low, high = _RANGES[parameter.name]
        if not low <= converted <= high:
            raise wrong
    if parameter.name in _CHOICES and converted not in _CHOICES[parameter.name]:
        raise wrong
    if parameter.name in _FILLED and not converted:
        raise wrong
    return converted


def _allowed(name: str, kind: type) -> str:
    if name in _CHOICES:
        return ", ".join(_CHOICES[name])
    if kind is bool:
        return "true or false"
    noun = {int: "a whole number", float: "a number", str: "text"}.get(kind, kind.__name__)
    if kind is str and name in _FILLED:
        return "text that is not empty"
    if name in _RANGES:
        low, high = _RANGES[name]
        return f"{noun} from {low:g} to {high:g}"
    return noun


def _paragraph(doc: str, heading: str) -> str:
    """The text after `heading` up to the next heading or blank line, on one line."""
    lines: list[str] = []
    for line in doc.splitlines():
        if line.startswith(heading):
            lines.append(line.removeprefix(heading).strip())
        elif lines and (not line.strip() or line.split(" ")[0].endswith(":")):
            break
        elif lines:
            lines.append(line.strip())
    return " ".join(lines)


COMMON: Mapping[str, Parameter] = {
    name: Parameter(name, kind, kind(), f"{_allowed(name, kind)}: {meaning}")
    for name, (kind, meaning) in compose.PARAMETERS.items()
}
"""What every strategy may be given besides its own parameters, by name."""
