"""Thinking and filtering in the embedded engine, on the tiny model: one KV, and samples cut midway."""

from __future__ import annotations

from typing import Any

from flyweight import strategies
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.runner import Runner
from flyweight.strategies.confidence_filtered import least
from flyweight.testing import BoxedAnswers, RuleVerifier
from flyweight.types import Event, Finish, Problem, Result, Sampling
from tests.engine.conftest import engines, tiny_path
from tests.engine_kit import Engines

__all__ = ["engines", "tiny_path"]


def search(engine: LlamaCpp, strategy: str, max_tokens: int = 60) -> tuple[Result, dict[str, Any]]:
    notes: dict[str, Any] = {}

    def watch(event: Event) -> None:
        notes.update(event.facts if event.kind == "note" else {})

    runner = Runner(
        engine,
        {"rule": RuleVerifier(lambda question, solution: 0.5)},
        answers=BoxedAnswers(),
        sampling=Sampling(max_tokens=max_tokens, stop=("3",)),
        on_event=watch,
    )
    result = runner.solve(Problem("q", "Say something."), strategies.bind(strategy))
    assert result.error is None, result.error
    assert result.usage.generated_tokens == engine.counters.generated_tokens
    return result, notes


def test_a_forced_thought_stays_in_its_kv(engines: Engines) -> None:
    """What is computed again after each forced text is that text and at most a few tokens at its edge."""
    alone, _ = search(engines(), "sample")
    word = "budget_forcing:opening=:closing=p:think_tokens=60:waits=3"
    result, _ = search(engines(), word)
    assert result.best is not None and "\nWait" in result.text
    calls = result.usage.policy_calls
    assert calls >= 3
    forced = len("\nWait") * result.text.count("\nWait") + len("\np\n\nFinal answer:")
    assert result.usage.prompt_tokens <= alone.usage.prompt_tokens + forced + 4 * calls
    assert result.usage.cached_tokens >= (calls - 1) * alone.usage.prompt_tokens - 4 * calls


def test_samples_are_cut_in_the_engine_as_soon_as_they_fall_below_the_bar(engines: Engines) -> None:
    whole, _ = search(engines(), "self_consistency:n=12")
    result, notes = search(engines(), "confidence_filtered:n=12:warmup=4:keep=0.25:window=6")
    cut = [c.node for c in result.candidates if c.node.finish is Finish.CUT]
    assert cut and notes["cut"] == len(cut)
    for node in cut:
        assert least(node, 6) < notes["bar"]
        before = node.certainty[:-1]
        assert all(sum(before[i : i + 6]) / 6 >= notes["bar"] - 1e-6 for i in range(len(before) - 5)), (
            "not a token late"
        )
    assert result.usage.generated_tokens < whole.usage.generated_tokens
    same = {c.node.key: c.node.tokens for c in whole.candidates}
    for candidate in result.candidates:
        tokens = candidate.node.tokens or ()
        assert tokens == (same[candidate.node.key] or ())[: len(tokens)], "the same samples, some of them shorter"
