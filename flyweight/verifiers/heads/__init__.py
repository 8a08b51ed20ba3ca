"""The trained parts that come with the package: which files there are, and what changes when they do."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

from flyweight.types import digest

__all__ = ["FOLDER", "identity", "probability", "trained"]

FOLDER = Path(__file__).parent
"""One head (.npz), adapter (.gguf) and combination (.json) a model."""


def identity(name: str, *settings: str) -> str:
    """What scores of a trained verifier are filed under: its settings, and the contents of every file it may read."""
    files = [Path(setting) for setting in settings if setting and Path(setting).is_file()]
    return digest(name, *settings, *(_contents(path) for path in files), _package())


def probability(logit: float) -> float:
    """From log-odds, without overflow."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def trained(sha256: str) -> list[str]:
    """The trained verifiers that the package has for a model file."""
    from flyweight.errors import ConfigError
    from flyweight.verifiers import lora, probe

    found = []
    for name, shipped in (("probe", probe.shipped), ("lora", lora.shipped)):
        try:
            shipped(sha256)
            found.append(name)
        except ConfigError:
            continue
    return found


@cache
def _package() -> str:
    files = (path for path in sorted(FOLDER.iterdir()) if path.suffix in (".npz", ".gguf", ".json"))
    return digest(*(f"{path.name} {_contents(path)}" for path in files))


def _contents(path: Path) -> str:
    from flyweight import models

    return models.digest(path)
