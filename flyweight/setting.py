"""What a search works with: models, answers, sampling, seed, and where its events go."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from flyweight.abstain import ConfidenceMap
from flyweight.errors import ConfigError, unknown
from flyweight.protocols import Answers, Policy, Strategy, Verifier
from flyweight.types import Event, Sampling

__all__ = ["Setting"]


@dataclass(frozen=True)
class Setting:
    """What a search works with; all of a runner's share the first of these unless told otherwise."""

    policies: Mapping[str, Policy]
    verifiers: Mapping[str, Verifier]
    answers: Answers
    sampling: Sampling
    seed: int
    hidden: bool
    """Whether policies keep hidden states while a search is under way."""
    emit: Callable[[Event], None]
    maps: Sequence[ConfidenceMap] = ()
    """Those of the model and the kind of answers at hand."""
    clock: Callable[[], float] = time.perf_counter
    keeps_states: bool = False
    """Whether results keep them, too: 5 kB a token of the default model, which few ask for."""
    whole: str = ""
    """What only answers drawn in one piece can have, such as "tools"; a strategy that searches by steps is refused."""
    alternatives: int = 0
    """How many of the likeliest tokens are told at every position of an answer."""
    longest: int | None = None
    """Most tokens of an answer made of steps; one that would grow beyond is cut there. None for no limit."""

    def policy(self, name: str | None) -> Policy:
        """The policy of that name; the first for None."""
        if name is None:
            return next(iter(self.policies.values()))
        if name not in self.policies:
            raise unknown("policy", name, self.policies)
        return self.policies[name]

    def verifier(self, name: str | None) -> Verifier:
        """The verifier of that name; the first for None."""
        if not self.verifiers:
            raise ConfigError("this strategy needs a verifier: pass --verifier, or use self_consistency")
        if name is None:
            return next(iter(self.verifiers.values()))
        if name not in self.verifiers:
            raise unknown("verifier", name, self.verifiers)
        return self.verifiers[name]

    def weights(self, policy: str | None) -> str:
        """SHA-256 of the policy's model file; empty where there is none."""
        return str(getattr(self.policy(policy), "sha256", ""))

    def map(self, strategy: Strategy) -> ConfidenceMap | None:
        """The confidence map that holds for the strategy."""
        verifier = next(iter(self.verifiers), "")
        return next((each for each in self.maps if each.holds(strategy, verifier)), None)

    def sampling_with(
        self,
        temperature: float | None,
        top_p: float | None,
        stop: tuple[str, ...] | None,
        max_tokens: int | None,
        *,
        own: bool = False,
    ) -> Sampling:
        """The usual sampling with these changes. `own`: for an answer to the problem; its form binds nothing else."""
        usual = self.sampling if own else replace(self.sampling, stop=(), grammar="")
        return replace(
            usual,
            temperature=usual.temperature if temperature is None else temperature,
            top_p=usual.top_p if top_p is None else top_p,
            stop=usual.stop if stop is None else stop,
            max_tokens=usual.max_tokens if max_tokens is None else max_tokens,
        )
