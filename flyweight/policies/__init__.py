"""Models that write: the embedded engine, the toy, other engines, and whatever is installed under `flyweight.policies`.

`--model NAME:ARGUMENT` calls a factory of the table or a third party's entry point with the argument, and with those of
the engine's settings (`context`, `slots`) that it has parameters for.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import cast

from flyweight.protocols import Policy
from flyweight.registry import Description, Registry

__all__ = ["describe", "names", "plugin", "present"]

# Written out, because importing the engine to read its docstring takes most of a second.
_BUILTIN = (
    Description(
        "llamacpp",
        "The embedded engine: any GGUF model, many sequences at once over one shared KV cache.",
        "llama.cpp through llama-cpp-python; --model NAME, PATH.gguf or hf:org/repo/file.gguf.",
    ),
    Description(
        "toy",
        "Adds up the numbers of a question and slips now and then; needs no weights.",
        "flyweight.testing.ToyPolicy; --model toy.",
    ),
)

_FACTORIES = {
    "openai": "flyweight.policies.openai.policy:OpenAI",
    "transformers": "flyweight.policies.transformers:load",
    "vllm": "flyweight.policies.vllm:VLLM",
}
_PLUGINS = Registry("policy", "flyweight.policies", _FACTORIES)


def names() -> list[str]:
    """Every policy: ours, then third parties' by name."""
    return [*(row.name for row in _BUILTIN), *_PLUGINS.names()]


def describe() -> list[Description]:
    """Name, summary and source of every policy."""
    return [*_BUILTIN, *_PLUGINS.describe()]


def plugin(model: str, **settings: int) -> Callable[[], Policy] | None:
    """What makes the policy `NAME:ARGUMENT` (or `NAME`) of a factory; None if the model is not one.

    The factory is given those of the settings that it has parameters for. One with a `check` has the argument looked at
    now, before anything is loaded or asked: ConfigError for one with mistakes.
    """
    name, colon, argument = model.partition(":")
    if name not in _PLUGINS.names():
        return None
    factory = cast("Callable[..., Policy]", _PLUGINS.factory(name))
    if (check := getattr(factory, "check", None)) is not None:
        check(argument)
    known = inspect.signature(factory).parameters
    fitting = {name: value for name, value in settings.items() if name in known}
    return partial(factory, *([argument] if colon else []), **fitting)


def present(model: str) -> str | None:
    """What the identity of a factory's policy begins with at present; None where only loading it can tell."""
    name, _, argument = model.partition(":")
    factory = _PLUGINS.factory(name) if name in _PLUGINS.names() else None
    tell: Callable[[str], str | None] = getattr(factory, "present", lambda argument: None)
    return tell(argument)
