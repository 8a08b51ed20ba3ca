"""Tokens for people: the text they stand for, where an answer is cut, how likely each was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from flyweight.protocols import Policy
from flyweight.types import Node

__all__ = ["Pieces", "Visible", "cut", "visible"]


Guesses = Sequence[tuple[int, float]]


class Visible(NamedTuple):
    """What may be shown of a text that is still growing."""

    text: str
    whole: bool
    """Whether that is all of it: nothing is held back."""


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def visible(text: str, stops: Sequence[str]) -> Visible:
    """The part of a growing text that no stop string can take back."""
    before, found = cut(text, stops)
    if found:
        return Visible(before, False)
    held = max((_begun(text, stop) for stop in stops), default=0)
    return Visible(text[: len(text) - held], not held)


def _begun(text: str, stop: str) -> int:
    """Characters at the end of the text that begin the stop string."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


class Pieces:
    """The pieces a policy's tokens stand for."""

    def __init__(self, policy: Policy) -> None:
        self._piece = getattr(policy, "piece", None)

    @property
    def known(self) -> bool:
        """Whether the policy tells them."""
        return self._piece is not None

    def entries(
        self, tokens: Sequence[int], logprobs: Sequence[float], alternatives: Sequence[Guesses] = ()
    ) -> list[dict[str, Any]]:
        """One object per token: its text, bytes and natural-log probability, and the likeliest tokens in its place."""
        found = []
        for index, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True)):
            others = alternatives[index] if index < len(alternatives) else ()
            found.append({**self._entry(token, logprob), "top_logprobs": [self._entry(*other) for other in others]})
        return found

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        assert self._piece is not None
        data: bytes = self._piece(token)
        return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}

    def of(self, node: Node, text: str) -> list[dict[str, Any]]:
        """Those of an answer's drawn tokens that begin within `text`, which is its solution or the beginning of it."""
        found: list[dict[str, Any]] = []
        room = len(text.encode("utf-8", "surrogatepass"))
        for step in node.steps:
            entries = self.entries(step.tokens or (), step.logprobs, step.alternatives)
            for entry in entries:
                if room <= 0:
                    return found
                found.append(entry)
                room -= len(entry["bytes"])
            if step.tokens is None:
                room -= len(step.text.encode("utf-8", "surrogatepass"))
        return found
