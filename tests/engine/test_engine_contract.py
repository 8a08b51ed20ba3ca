"""The embedded engine under the published contract, and whole searches on it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from flyweight import strategies, verifiers
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.runner import Runner
from flyweight.select import alike
from flyweight.testing import check_policy, check_verifier
from flyweight.types import Problem, Result, Sampling
from tests.engine_kit import Engines


class Letters:
    """An answer layer for a model that writes noise: the first letter of the text."""

    def extract(self, text: str) -> str | None:
        return next((c for c in text if c.isalpha()), None)

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        return alike(answers)


def test_the_tiny_model_keeps_the_contract_exactly(engines: Engines) -> None:
    check_policy(engines())


def test_verifiers_that_read_the_engine_keep_theirs(engines: Engines) -> None:
    check_verifier(verifiers.load("p_true"), policy=engines(slots=8))


@pytest.mark.parametrize("name", strategies.names())
def test_searches_are_the_same_in_any_company_and_with_any_slots(name: str, engines: Engines) -> None:
    problems = [Problem(f"p{i}", f"Count to {i}.") for i in range(4)]
    known = {parameter.name for parameter in strategies.describe(name).parameters}
    small = {
        "n": 4,
        "width": 2,
        "max_steps": 3,
        "step_tokens": 12,
        "think_tokens": 24,
        "answer_tokens": 24,
        "rounds": 2,
    }
    strategy = strategies.bind(name, {key: value for key, value in small.items() if key in known})

    def searched(engine: LlamaCpp, in_flight: int) -> dict[str, Result]:
        judges = {"p_true": verifiers.load("p_true")}
        run = Runner(engine, judges, answers=Letters(), sampling=Sampling(max_tokens=24))
        found = {r.problem.id: r for r in run.run(problems, strategy, in_flight=in_flight)}
        usage = [r.usage for r in found.values()]
        assert not [r.error for r in found.values() if r.error]
        counters = engine.counters
        assert sum(u.generated_tokens for u in usage) == counters.generated_tokens
        assert sum(u.prompt_tokens + u.verifier_tokens for u in usage) == counters.prompt_tokens
        assert sum(u.cached_tokens for u in usage) == counters.cached_tokens
        return found

    alone = searched(engines(slots=2, context=192), 1)
    together = searched(engines(slots=8, context=192), 4)
    assert {id: (r.text, r.answer) for id, r in alone.items()} == {id: (r.text, r.answer) for id, r in together.items()}


@pytest.mark.model
def test_the_default_model_keeps_the_contract() -> None:
    from flyweight import models

    engine = LlamaCpp(models.resolve("qwen2.5-coder-0.5b"), weights="file", slots=8, context=512)
    check_policy(engine, exact=False)
    check_verifier(verifiers.load("p_true"), policy=engine, tolerance=0.05)
    engine.close()
