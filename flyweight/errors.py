"""Everything Flyweight raises on purpose.

FlyweightError
├── ConfigError      the caller asked for something that does not exist or does not fit together (exit 2)
├── ModelError       a model file is missing, corrupt, refused or could not be fetched (exit 3)
├── BackendError     a policy or verifier failed while working (exit 3)
├── StoreError       the record of what was drawn cannot be read or written (exit 3)
├── SandboxError     generated code was to run and there is no sandbox for it (exit 4)
└── BudgetSpent      raised inside a search whose budget is used up; the runner turns it into a Result
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BackendError",
    "BudgetSpent",
    "ConfigError",
    "FlyweightError",
    "ModelError",
    "SandboxError",
    "StoreError",
    "unknown",
]


class FlyweightError(Exception):
    """A failure with one line of explanation for a person; the CLI prints it without a traceback."""


class ConfigError(FlyweightError):
    """The request cannot be carried out as written: the message names the value, the allowed set and the fix."""


class ModelError(FlyweightError):
    """A model file cannot be used or obtained."""


class BackendError(FlyweightError):
    """A policy or a verifier broke its contract or stopped working."""


class StoreError(FlyweightError):
    """A store cannot be read or written: one line with its path, the cause and the way out."""


class SandboxError(FlyweightError):
    """There is no sandbox for generated code, which never runs without one: the message says how to get it."""


class BudgetSpent(FlyweightError):
    """The next model call would exceed the budget."""


def unknown(what: str, name: str, allowed: Iterable[str]) -> ConfigError:
    """One-line ConfigError for a name outside `allowed`, with the closest match if there is one."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1) or [known for known in names if name and name in known]
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ConfigError(f"unknown {what} {name!r}{hint} (one of: {', '.join(names) or 'none'})")
