"""What an endpoint can do, as far as it matters here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flyweight.policies.openai.prompt import Template

__all__ = ["Abilities"]


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """Findings about one endpoint and model."""

    model: str
    kind: str = ""
    """What the server calls itself in its list of models: vllm, llamacpp, sglang, ...; empty where it does not say."""
    api: Literal["chat", "completions"] = "chat"
    """Which of the two is used."""
    n: bool = False
    """Whether it returns several choices for one prompt."""
    logprobs: bool = False
    seed: bool = False
    """Whether the same seed draws the same text."""
    usage: bool = False
    """Whether it counts tokens."""
    tells_stop: bool = False
    """Whether it says which stop string ended a text: only then are stop strings left to it."""
    extras: bool = True
    """Whether it lets pass parameters that are not OpenAI's."""
    refused: frozenset[str] = frozenset()
    """Parameters of every request that it does not take (see `asking.SPARED`): they are not sent."""
    continues: bool = False
    """Whether a path can be gone on with in the middle of the answer."""
    trims: bool = False
    """Whether blanks at the end of a text to be continued are lost on the way."""
    limit: str = "max_tokens"
    """What it calls the longest answer."""
    template: Template | None = None
    """Writes prompts for completions; None joins the contents of the messages (a base model)."""
    why: str = ""
    """Why it cannot continue a path, and the way out."""
    params: int = 0
    vocabulary: int = 1 << 17
    """Tokens the model knows; a usual number where the server does not say."""
    context: int = 0
    """Longest prompt plus answer in tokens; 0 where it does not say."""
