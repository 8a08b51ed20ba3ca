"""What the tests of the command line share: a command's outcome, and policies for it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import pytest

from flyweight.testing import Draft, ToyPolicy
from flyweight.types import Sampling

__all__ = ["KEYS", "QUESTION", "Command", "Done", "UsePolicy", "adds_up", "solve"]

QUESTION = "Add 3 and 4 and 5."
KEYS = ["answer", "text", "strategy", "parameters", "model", "verifier", "seed", "stopped", "error", "confidence"]
KEYS += ["calibrated", "sure", "usage", "candidates"]


class Done(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, read as strict JSON."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


Command = Callable[..., Done]
UsePolicy = Callable[[ToyPolicy], None]


def solve(*arguments: str) -> Sequence[str]:
    """The command line of `solve` on the toy policy: a plain vote, unless another strategy is named behind it."""
    return ["solve", "--model", "toy", "--strategy", "self_consistency", *arguments]


def adds_up(question: str, so_far: str, rng: Random, sampling: Sampling) -> Draft:
    """Adds the numbers of a question without a slip, taking longer the more there are."""
    numbers = [int(number) for number in re.findall(r"\d+", question)]
    return Draft("+" * len(numbers) + f" \\boxed{{{sum(numbers)}}}")
