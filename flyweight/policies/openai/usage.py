"""What an answer cost, by the server's own count where that makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["Cost", "Estimate", "counted"]


class Cost(NamedTuple):
    """Tokens of a request, over all its tries."""

    prompt: int = 0
    """Computed."""
    cached: int = 0
    generated: int = 0

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(self.prompt + other.prompt, self.cached + other.cached, self.generated + other.generated)


class Estimate:
    """How many tokens a prompt has, for texts that were cut before the server said: by those it did count."""

    def __init__(self) -> None:
        self._bytes, self._tokens = 4, 1

    def learn(self, bytes: int, tokens: int) -> None:
        """A prompt of so many bytes had so many tokens."""
        self._bytes += bytes
        self._tokens += tokens

    def tokens(self, bytes: int) -> int:
        """Tokens of a prompt of so many bytes, at least 1."""
        return max(1, round(bytes * self._tokens / self._bytes))


def counted(event: Mapping[str, Any], most_prompt: int, most_generated: int) -> Cost | None:
    """The count an event brings, in OpenAI's or llama.cpp's form; None without one, or for a prompt that cannot be.

    `most_prompt` and `most_generated` are the largest that can be. More tokens than can have been generated count as 0:
    those that were seen are more to be trusted.
    """
    usage, timings = event.get("usage"), event.get("timings")
    if isinstance(usage, dict):
        details = usage.get("prompt_tokens_details")
        cached = _whole(details.get("cached_tokens") if isinstance(details, dict) else 0, most_prompt)
        prompt = _whole(usage.get("prompt_tokens"), most_prompt)
        generated = usage.get("completion_tokens")
        computed = None if prompt is None or cached is None else prompt - cached
    elif isinstance(timings, dict):
        computed, cached = (_whole(timings.get(name), most_prompt) for name in ("prompt_n", "cache_n"))
        generated = timings.get("predicted_n")
    else:
        return None
    if computed is None or cached is None or computed < 0:
        return None
    return Cost(computed, cached, _whole(generated, most_generated) or 0)


def _whole(value: object, most: int) -> int | None:
    """The number, 0 for None; None for anything that is no count up to `most`."""
    if value is None:
        return 0
    fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
    return value if fits and isinstance(value, int) else None
