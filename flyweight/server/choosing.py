"""Which strategy answers a request: the field `flyweight`, headers, the model's name, presets; never message text."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from flyweight import api, strategies
from flyweight.errors import ConfigError, FlyweightError, unknown
from flyweight.server.errors import ApiError
from flyweight.server.schema import SearchField
from flyweight.strategies import Value
from flyweight.strategies.compose import inner, parts, spelled

__all__ = ["Menu", "Wanted", "presets"]

HEADERS = ("strategy", "budget", "deadline", "confidence")
"""What `X-Flyweight-...` headers may say."""
OPTIONS = ("budget", "deadline", "confidence", "verifier", "kind")
"""What a model's name may say besides the strategy's parameters."""
LOADED = ("bigger", "calibration")
"""Parameters that name a model or a file: whoever runs the server may write them into a preset, a client may not."""

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Wanted:
    """How a request is answered."""

    strategy: str = ""
    """Empty: the model itself, without search."""
    parameters: Mapping[str, Value] = field(default_factory=dict)
    budget: int | None = None
    deadline: float | None = None
    confidence: float | None = None
    verifier: str | None = None
    kind: str | None = None
    system: str | None = None

    def over(self, other: Wanted) -> Wanted:
        """What this one says, and for the rest what the other one does.

        The parameters of another strategy are dropped with it.
        """
        changes: dict[str, Any] = {
            each.name: getattr(other, each.name)
            for each in fields(self)
            if each.name not in ("strategy", "parameters") and getattr(self, each.name) is None
        }
        if not self.strategy:
            changes["strategy"] = other.strategy
            changes["parameters"] = {**other.parameters, **self.parameters}
        return replace(self, **changes)

    @property
    def searches(self) -> bool:
        """Whether it asks for more than the model alone gives."""
        asked = (self.budget, self.confidence, self.verifier)
        return bool(self.strategy or self.parameters) or any(value is not None for value in asked)


class Menu:
    """The models a client may name."""

    def __init__(
        self,
        model: str,
        *,
        presets: Mapping[str, Wanted] | None = None,
        verifiers: Sequence[str] = (),
        default: str = api.DEFAULT_STRATEGY,
    ) -> None:
        """`verifiers` are those a request may ask for. ConfigError for a preset that does not hold together."""
        self.model = model
        self.presets = dict(presets or {})
        self.verifiers = tuple(verifiers)
        self.default = default
        self._strategies = strategies.names()  # looked up once: that reads what is installed
        self._loaded: dict[str, set[str]] = {key: set() for key in LOADED}
        """What the presets say of each."""
        for name, preset in self.presets.items():
            if name == model or "@" in name:
                raise ConfigError(f"preset {name!r}: that is a model's name; call it something else, without @")
            try:
                for key, known in self._loaded.items():
                    known.update(_values(_settings(preset.strategy, preset.parameters), key))
                self.check(preset)
            except FlyweightError as error:
                raise ConfigError(f"preset {name!r}: {error}") from None

    @property
    def names(self) -> list[str]:
        """What the list of models shows: the model itself, every strategy on it, the presets."""
        searched = [f"{self.model}@{name}" for name in self._strategies]
        own = ["auto"] if "auto" in self._strategies else []
        return [self.model, *searched, *own, *self.presets]

    def named(self, name: str) -> Wanted:
        """What a model's name asks for. ApiError 404 where there is no such model."""
        if name == self.model:
            return Wanted()
        if name in self.presets:
            return self.presets[name]
        if name.startswith(f"{self.model}@"):
            return _spelled(name.removeprefix(f"{self.model}@"))
        if name in self._strategies:
            return Wanted(strategy=name)
        allowed = [self.model, f"{self.model}@STRATEGY", *self.presets]
        raise ApiError(
            404,
            f"there is no model {name[:200]!r}; this server has {', '.join(allowed)} (GET /v1/models lists them)",
            param="model",
            code="model_not_found",
        )

    def wanted(self, model: str, asked: SearchField | None, headers: Headers) -> Wanted:
        """What a request asks for; its field goes before its headers, and they before the model's name.

        ApiError 400 for anything unknown or out of range, naming it and what there is; 404 for the model.
        """
        try:
            found = _asked(asked).over(_headers(headers)).over(self.named(model))
            if found.searches and not found.strategy:
                found = replace(found, strategy=self.default)
            if asked is not None:
                _check_keys(asked, found.strategy or self.default)
            return self.check(found)
        except FlyweightError as error:
            raise ApiError(400, str(error), param="flyweight", code="invalid_search") from None

    def check(self, wanted: Wanted) -> Wanted:
        """The same in normal form. ConfigError for what does not exist here.

        What a request names is never loaded or connected to: verifiers and models are those the server was given.
        """
        if wanted.verifier is not None and wanted.verifier not in self.verifiers:
            raise unknown("verifier of this server", wanted.verifier, self.verifiers)
        if wanted.kind is not None:
            api.AnswersOf(wanted.kind)
        if not wanted.strategy:
            return wanted
        name, parameters = strategies.normal(wanted.strategy, wanted.parameters)
        for verifier in strategies.named(name, "verifier"):
            if verifier not in self.verifiers:
                raise unknown("verifier of this server", verifier, self.verifiers)
        for policy in strategies.named(name, "policy"):
            if policy != self.model:
                raise unknown("model of this server", policy, [self.model])
        for key, there in zip(LOADED, (self.model, "published"), strict=True):
            for value in _values(_settings(name, parameters), key):
                if value not in ("", there, *self._loaded[key]):
                    raise unknown(f"{key} of this server", value, [there])
        strategies.bind(name, parameters)
        return replace(wanted, strategy=name, parameters=parameters)


def presets(file: Path, model: str) -> dict[str, Wanted]:
    """The tables `[models.NAME]` of a TOML file: `base`, `strategy`, `system` and the options of a request.

    ConfigError for a file that cannot be read, a key that is none, or a base that is not the model served.
    """
    try:
        whole = tomllib.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as TOML: {error}") from None
    for key in whole:
        if key != "models":
            raise unknown(f"table of {file}", key, ["models"])
    tables = whole.get("models", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{file}: models must be tables, [models.NAME]")
    found: dict[str, Wanted] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{file}: write a table [models.{name}]")
        rest = dict(table)
        if (base := rest.pop("base", model)) != model:
            raise ConfigError(f"{file}: [models.{name}] has base={base!r}, and the model served is {model!r}")
        strategy, system = rest.pop("strategy", ""), rest.pop("system", None)
        if not isinstance(strategy, str) or not isinstance(system, str | None):
            raise ConfigError(f"{file}: [models.{name}] has a strategy or a system prompt that is not text")
        for key in rest:
            if key not in OPTIONS:
                raise unknown(f"key of [models.{name}]", key, ["base", "strategy", "system", *OPTIONS])
        found[name] = replace(_spelled(strategy) if strategy else Wanted(), system=system, **_options(rest))
    return found


def _settings(strategy: str, parameters: Mapping[str, Value]) -> dict[str, Value]:
    """Everything that is set, in the strategy's word and beside it."""
    return {**spelled(strategy)[1], **parameters}


def _values(settings: Mapping[str, Value], key: str) -> Iterator[str]:
    """What a setting is, there and in sub-searches: as it is written, for that is what the strategy gets."""
    if key in settings:
        yield str(settings[key])
    for part in inner(settings):
        yield from _values(spelled(part)[1], key)


def _spelled(search: str) -> Wanted:
    """`best_of_n:n=16,budget=4096`: commas and colons mean the same between settings."""
    name, settings = spelled(":".join(parts(search, ",")))
    if not name:
        raise ConfigError(f"{search!r} names no strategy: write MODEL@STRATEGY, or MODEL alone")
    options = {key: settings.pop(key) for key in OPTIONS if key in settings}
    return Wanted(strategy=name, parameters=settings, **_options(options))


def _headers(headers: Headers) -> Wanted:
    """What `X-Flyweight-...` headers say."""
    given: dict[str, Value] = {}
    for name, value in headers:
        key = name.decode("latin-1").removeprefix("x-flyweight-")
        if key == name.decode("latin-1"):
            continue
        if key not in HEADERS:
            raise unknown("header", f"X-Flyweight-{key.title()}", [f"X-Flyweight-{each.title()}" for each in HEADERS])
        if key in given:
            raise ConfigError(f"the header X-Flyweight-{key.title()} is given twice")
        given[key] = value.decode("latin-1")
    strategy = str(given.pop("strategy", ""))
    return Wanted(**_options(given)).over(_spelled(strategy) if strategy else Wanted())


def _asked(asked: SearchField | None) -> Wanted:
    """What the field `flyweight` says."""
    if asked is None:
        return Wanted()
    given = asked.model_extra or {}
    for key, value in given.items():
        if not isinstance(value, int | float | str):
            raise ConfigError(f"flyweight.{key} must be a number, text, true or false")
        if key in asked.parameters:
            raise ConfigError(f"{key} is given twice: {asked.parameters[key]} and {value}")
    own = Wanted(
        strategy=(asked.strategy or "").strip(),
        parameters={**asked.parameters, **given},
        **{key: getattr(asked, key) for key in OPTIONS},
    )
    if not own.strategy:
        return own
    spelled = _spelled(own.strategy)
    for key in spelled.parameters.keys() & own.parameters.keys():
        raise ConfigError(f"{key} is given twice: {spelled.parameters[key]} and {own.parameters[key]}")
    merged = {**spelled.parameters, **own.parameters}
    return replace(own, strategy=spelled.strategy, parameters=merged).over(spelled)


def _check_keys(asked: SearchField, strategy: str) -> None:
    """ConfigError for a key of the field that is none, listing those there are."""
    own = [parameter.name for parameter in strategies.describe(strategy).parameters]
    for key in asked.model_extra or ():
        if key not in own and key not in strategies.COMMON:
            raise unknown("key of flyweight", key, {*SearchField.model_fields, *own, *strategies.COMMON})


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as written in a name, a header or a file, as what they are. ConfigError for values out of range."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        if key in ("verifier", "kind"):
            found[key] = str(value)
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ConfigError(f"{key}={value!r} is not a number") from None
        if key == "budget" and not (1 <= number <= 10**9 and number.is_integer()):
            raise ConfigError(f"budget={value} is not allowed: a whole number of tokens from 1")
        if key == "deadline" and not 0 < number <= 86_400:
            raise ConfigError(f"deadline={value} is not allowed: seconds above 0, at most a day")
        if key == "confidence" and not 0 < number <= 1:
            raise ConfigError(f"confidence={value} is not allowed: a probability above 0, at most 1")
        found[key] = int(number) if key == "budget" else number
    return found
