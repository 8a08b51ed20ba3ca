"""Named factories, imported when asked for: one line per built-in, entry points for third parties."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flyweight.errors import ConfigError, unknown

__all__ = ["Description", "Registry"]


@dataclass(frozen=True, slots=True)
class Description:
    """What `flyweight list` shows of an entry, read from the factory's docstring."""

    name: str
    summary: str
    """First paragraph."""
    source: str
    """The paragraph that begins with "Source:"; empty without one."""


class Registry:
    """Factories by name: `builtin` maps a name to "module:attribute", `group` is the entry point group."""

    def __init__(self, what: str, group: str, builtin: Mapping[str, str]) -> None:
        self.what = what
        self.group = group
        self.builtin = builtin

    def names(self) -> list[str]:
        """Every name: ours in the order of the table, then third parties' by name."""
        return [*self.builtin, *sorted(self._plugins().keys() - self.builtin.keys())]

    def factory(self, name: str) -> Callable[..., object]:
        """What makes the entry; ConfigError with the closest match for an unknown name."""
        if name in self.builtin:
            module, _, attribute = self.builtin[name].partition(":")
            found = getattr(importlib.import_module(module), attribute)
        else:
            plugins = self._plugins()
            if name not in plugins:
                raise unknown(self.what, name, self.names())
            try:
                found = plugins[name]()
            except Exception as error:
                raise ConfigError(f"{self.what} {name!r} cannot be loaded: {error}") from error
        if not callable(found):
            raise ConfigError(f"{self.what} {name!r} is not callable: an entry point must name a class or a function")
        made: Callable[..., object] = found
        return made

    def make(self, name: str, settings: Mapping[str, object]) -> object:
        """The entry itself. ConfigError for an unknown name or setting."""
        return build(f"{self.what} {name}", self.factory(name), settings)

    def describe(self) -> list[Description]:
        """One row per name; a plugin that does not import shows why instead of hiding the others."""
        rows = []
        for name in self.names():
            try:
                paragraphs = [" ".join(p.split()) for p in (inspect.getdoc(self.factory(name)) or "").split("\n\n")]
            except ConfigError as error:
                paragraphs = [str(error)]
            source = next((p for p in paragraphs if p.startswith("Source:")), "")
            rows.append(Description(name, paragraphs[0], source.removeprefix("Source:").strip()))
        return rows

    def _plugins(self) -> dict[str, Callable[[], object]]:
        from importlib.metadata import entry_points

        return {point.name: point.load for point in entry_points(group=self.group)}


def build(what: str, factory: Callable[..., object], settings: Mapping[str, object]) -> object:
    """`factory(**settings)`, with a one-line ConfigError for a setting it does not have."""
    known = inspect.signature(factory).parameters
    for setting in settings:
        if setting not in known:
            raise unknown(f"setting of {what}", setting, known)
    return factory(**settings)
