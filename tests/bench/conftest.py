"""Fixtures of the benchmark tests: those of the command line, and the command itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.kit import Arguments, questions
from tests.cli.conftest import flyweight, no_model, policy

__all__ = ["arguments", "flyweight", "no_model", "policy"]


@pytest.fixture
def arguments(tmp_path: Path) -> Arguments:
    """The command line that runs six questions in a folder."""
    data = questions(tmp_path)

    def made(*more: str, out: str = "runs") -> list[str]:
        return ["bench", "run", "jsonl", "--data", data, "-m", "toy", "--out", str(tmp_path / out), *more]

    return made
