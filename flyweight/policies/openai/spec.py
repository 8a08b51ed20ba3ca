"""What `openai:URL[,URL...][#NAME][:setting=value...]` says, checked without asking anybody."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

from flyweight.errors import ConfigError, unknown
from flyweight.wire.address import addresses, key
from flyweight.wire.client import Timeouts

__all__ = ["FORM", "Spec", "parse"]

FORM = "openai:URL[,URL...][#NAME][:setting=value...]"
SETTING = re.compile(r":(?=[a-z_]{1,20}=)")

Continues = Literal["auto", "chat", "completions", "no"]
Choice = Literal["auto", "yes", "no"]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A policy over the wire as asked for."""

    name: str
    """The whole of it as it was written: what the policy is called."""
    urls: tuple[str, ...]
    model: str = ""
    """Which of the server's models; empty for its first."""
    in_flight: int = 16
    """Requests under way at each endpoint."""
    retries: int = 4
    """Further tries of a request whose failure may pass."""
    connect: float = 5.0
    first: float = 120.0
    between: float = 30.0
    total: float = 600.0
    patience: float = 30.0
    """Seconds for which all endpoints may be down before what waits fails."""
    key: str = ""
    """Environment variable that holds the key, instead of OPENAI_API_KEY."""
    template: str = ""
    """Chat template for /v1/completions: a Jinja file, or a tokenizer_config.json."""
    continues: Continues = "auto"
    """How a path is continued, instead of finding out."""
    n: Choice = "auto"
    """Whether samples of one prompt are asked for together; auto: where seeds count for nothing anyway."""
    params: float = 0
    """Parameters of the model, for FLOPs; 0 reads them off the server or the model's name."""

    @property
    def timeouts(self) -> Timeouts:
        """Seconds per phase."""
        return Timeouts(self.connect, self.first, self.between, self.total)

    def secret(self) -> str:
        """The key; empty without one."""
        return key(self.key)


def parse(text: str) -> Spec:
    """The spec in `text`, with or without `openai:`. ConfigError in one line for anything that is not allowed."""
    text = text.removeprefix("openai:")
    places, *given = SETTING.split(text)
    if not places:
        raise ConfigError(f"openai: names no endpoint: write {FORM}, such as openai:http://127.0.0.1:8000/v1")
    urls, _, model = places.partition("#")
    if "#" in model or "," in model:
        raise ConfigError(f"openai:{text} names more than one model: every URL serves the same one, {FORM}")
    settings: dict[str, object] = {}
    known = {field.name: field for field in fields(Spec) if field.name not in ("name", "urls", "model")}
    for part in given:
        name, _, value = part.partition("=")
        if name not in known:
            raise unknown("setting of openai", name, known)
        if name in settings:
            raise ConfigError(f"{name} is given twice: {settings[name]} and {value}")
        settings[name] = _value(name, value)
    spec = Spec(name=f"openai:{text}", urls=addresses(urls, FORM), model=model, **settings)  # type: ignore[arg-type]
    if spec.template and not Path(spec.template).is_file():
        raise ConfigError(f"template={spec.template!r} is not a file: a Jinja file or a tokenizer_config.json")
    spec.secret()
    return spec


def _value(name: str, value: str) -> object:
    if name in ("key", "template"):
        return value
    choices: tuple[str, ...] = {"continues": get_args(Continues), "n": get_args(Choice)}.get(name, ())
    if choices:
        if value not in choices:
            raise ConfigError(f"{name}={value!r} is not allowed: one of {', '.join(choices)}")
        return value
    whole = name in ("in_flight", "retries")
    least = 1 if name == "in_flight" else 0
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        number = -1
    seconds = not whole and name != "params"
    if not (math.isfinite(number) and number >= least and (number > 0 or not seconds) and number <= 1e13):
        kind = f"a whole number from {least}" if whole else "a number of seconds above 0" if seconds else "a number"
        raise ConfigError(f"{name}={value!r} is not allowed: {kind}")
    if name == "in_flight" and number > 4096:
        raise ConfigError(f"in_flight={value} is not allowed: at most 4096")
    return number
