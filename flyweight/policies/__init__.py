"""Models that write: the embedded engine, the toy, and whatever is installed under `flyweight.policies`.

A third party's entry point names a factory; `--model NAME:ARGUMENT` calls it with the argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from flyweight.protocols import Policy
from flyweight.registry import Description, Registry

__all__ = ["describe", "names", "plugin"]

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

_PLUGINS = Registry("policy", "flyweight.policies", {})


def names() -> list[str]:
    """Every policy: ours, then third parties' by name."""
    return [*(row.name for row in _BUILTIN), *_PLUGINS.names()]


def describe() -> list[Description]:
    """Name, summary and source of every policy."""
    return [*_BUILTIN, *_PLUGINS.describe()]


def plugin(model: str) -> Callable[[], Policy] | None:
    """What makes the policy `NAME:ARGUMENT` (or `NAME`) of a third party; None if the model is not one."""
    name, colon, argument = model.partition(":")
    if name not in _PLUGINS.names():
        return None
    factory = cast("Callable[..., Policy]", _PLUGINS.factory(name))
    return (lambda: factory(argument)) if colon else factory
