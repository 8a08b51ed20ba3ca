"""Benchmarks of strategies made of strategies: one identity however spelled, verifiers of sub-searches in the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import bench, strategies
from flyweight.bench import Plan, check, grid, plan_of
from flyweight.bench.plan import Shape, shape
from flyweight.errors import ConfigError
from flyweight.store import Store
from flyweight.types import Budget
from tests.bench.kit import Arguments, questions
from tests.cli_kit import Command


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan("jsonl", "self_consistency", {"n": 3}, data=questions(tmp_path), model="toy")


def test_however_it_is_spelled_it_is_one_run(plan: Plan) -> None:
    spellings = [
        replace(plan, strategy="self_consistency:n=3:of=best_of_n(n=2)", parameters={}),
        replace(plan, strategy="self_consistency", parameters={"n": "3", "of": "best_of_n(n=2)"}),
        replace(plan, strategy="self_consistency:of=best_of_n(n=2)"),
    ]
    (job,) = check(spellings)
    assert job.configuration["strategy"] == "self_consistency:of=best_of_n(n=2)"
    assert job.configuration["parameters"] == {"n": 3, "temperature": 0.7}
    assert job.label == "self_consistency:of=best_of_n(n=2) self n=3"
    assert check([plan_of(job.configuration)])[0].configuration == job.configuration


def test_a_plain_strategy_is_filed_as_before(plan: Plan) -> None:
    (job,) = check([plan])
    assert (job.configuration["strategy"], job.configuration["verifier"]) == ("self_consistency", None)
    assert (job.configuration["parameters"], dict(job.others)) == ({"n": 3, "temperature": 0.7}, {})


def test_a_verifier_of_its_own_is_that_of_the_run(plan: Plan) -> None:
    (own,) = check([replace(plan, strategy="best_of_n:verifier=confidence")])
    (given,) = check([replace(plan, strategy="best_of_n", verifier="confidence")])
    assert own.configuration == given.configuration and own.configuration["verifier"] == "confidence"
    plans = grid(plan, ["best_of_n:verifier=confidence", "best_of_n"], ["arithmetic", "form"])
    assert [each.verifier for each in plans] == ["confidence", "arithmetic", "form"]


def test_what_it_asks_for_is_found_out_inside_too() -> None:
    assert shape("self_consistency:of=best_of_n(n=5:verifier=anything)", {"n": 2}) == Shape(10, 10, True, False)
    assert shape("self_consistency:lead=0.9", {"n": 16}) == Shape(4, 16, False, False)
    assert shape("medoid:of=beam_search(n=2:width=2)", {"n": 2}).steps


@pytest.mark.parametrize(
    ("strategy", "says"),
    [
        ("best_of_n:policy=large", "a benchmark runs one model, that of --model: drop policy="),
        ("medoid:of=sample(policy=large)", "a benchmark runs one model"),
        ("medoid:of=best_of_n(verifier=oracle)", "the verifier oracle sees the answers"),
        ("beam_search:of=sample", "beam_search takes no of=: it begins with a step"),
    ],
)
def test_what_a_benchmark_cannot_do_is_said_before_it_begins(plan: Plan, strategy: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check([replace(plan, strategy=strategy, parameters={})])


def test_scores_of_a_sub_search_are_kept_and_replayed(tmp_path: Path, plan: Plan) -> None:
    nested = replace(plan, strategy="self_consistency:of=best_of_n(n=2:verifier=confidence)")
    with Store(tmp_path / "flyweight.db") as store:
        (first,) = bench.execute(store, [nested])
        assert (first.calls, first.tally.errors, first.tally.searched) == (6 * 6, 0, 6)
        (again,) = bench.execute(store, [nested])
        assert (again.calls, again.tally) == (0, first.tally)
        (wider,) = bench.execute(store, [replace(nested, parameters={"n": 4})])
        assert wider.calls == 6 * 2, "only the fourth search of each question is new"


@pytest.mark.parametrize("strategy", [*strategies.names(), "self_consistency:lead=0.9", "best_of_n:enough=0.6"])
def test_every_strategy_is_replayed_from_the_store_as_it_was(tmp_path: Path, plan: Plan, strategy: str) -> None:
    """Cut samples, revisions, forced text and early stops included: another run draws nothing and says the same."""
    with Store(tmp_path / "flyweight.db") as store:
        run = replace(plan, strategy=strategy, parameters={}, limit="2")
        (first,) = bench.execute(store, [run])
        assert first.calls > 0 and first.tally.errors == 0
        (again,) = bench.execute(store, [replace(run, budget=Budget(tokens=10**6))])
        assert again.calls == 0 and again.run != first.run
        told = [
            [(result.problem.id, result.text, result.usage.generated_tokens) for result in store.results(each.run)]
            for each in (first, again)
        ]
        assert sorted(told[0]) == sorted(told[1])


def test_from_the_command_line(flyweight: Command, arguments: Arguments) -> None:
    words = "best_of_n:enough=0.01,medoid:n=2:of=best_of_n(n=2)"
    done = flyweight(*arguments("-s", words, "--budgets", "8", "--json"))
    assert done.code == 0, done.err
    assert "best_of_n:enough=0.01" in done.out and "medoid:of=best_of_n(n=2)" in done.out
    wrong = flyweight(*arguments("-s", "medoid:of=best_of_n(n=2"))
    assert wrong.code == 2 and "the parentheses do not close" in wrong.err
