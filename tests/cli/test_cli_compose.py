"""Strategies made of strategies, from the command line and from Python."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest

from flyweight import api
from flyweight.errors import ConfigError
from flyweight.protocols import Policy
from flyweight.testing import Draft, RuleVerifier, ToyPolicy
from flyweight.types import Sampling
from tests.cli_kit import QUESTION, Command, solve

NESTED = "self_consistency:n=3:of=best_of_n(n=2:verifier=p_true)"


def test_a_strategy_is_made_in_one_word_or_by_set(flyweight: Command) -> None:
    word = flyweight(*solve("--json", "-s", NESTED, QUESTION)).json
    assert word["strategy"] == "self_consistency:of=best_of_n(n=2:verifier=p_true)"
    assert word["parameters"] == {"n": 3, "temperature": 0.7}
    assert (word["usage"]["policy_calls"], word["usage"]["verifier_calls"]) == (6, 6)
    assert word["usage"]["verifier_tokens"] > 0, "p_true, not the arithmetic of the run"
    inner = "of=best_of_n(n=2:verifier=p_true)"
    beside = flyweight(*solve("--json", "-s", "self_consistency", "-n", "3", "--set", inner, QUESTION)).json
    keys = ("answer", "text", "strategy", "parameters", "candidates")
    assert {key: beside[key] for key in keys} == {key: word[key] for key in keys}


def test_compare_takes_them_too(flyweight: Command) -> None:
    done = flyweight(
        "compare", "-m", "toy", "--json", "-s", f"{NESTED},best_of_n:enough=0.01,greedy", "-n", "8", QUESTION
    )
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["strategy"] for row in rows] == [NESTED.replace(":n=3", ""), "best_of_n:enough=0.01", "greedy"]
    assert [row["usage"]["policy_calls"] for row in rows] == [6, 4, 1], "a rule that any score meets stops at four"


def test_the_list_says_what_every_strategy_takes(flyweight: Command) -> None:
    out = flyweight("list", "strategies").out
    for name in ("verifier", "policy", "of", "lead", "enough"):
        assert f"      {name}  (" in out


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("best_of_n:verifier=p_tru", "unknown verifier 'p_tru'; did you mean 'p_true'"),
        ("self_consistency:of=best_of_n(verifier=p_tru)", "unknown verifier 'p_tru'; did you mean 'p_true'"),
        ("self_consistency:of=best_of_m", "unknown strategy 'best_of_m'; did you mean 'best_of_n'"),
        ("best_of_n:policy=nowhere.gguf", "nowhere.gguf"),
        ("best_of_n:n=4:n=5", "n is given twice"),
        ("best_of_n:four", "'four' is no parameter; write name:key=value"),
    ],
)
def test_mistakes_are_found_before_the_model_is_loaded(flyweight: Command, word: str, says: str) -> None:
    done = flyweight(*solve("-s", word, QUESTION))
    assert done.code in (2, 3) and says in done.err and done.out == ""
    assert len(done.err.splitlines()) == 1


def test_from_python() -> None:
    result = api.solve(QUESTION, model="toy", strategy="self_consistency", n=3, of="best_of_n(n=2)", enough=0.99)
    assert result.error is None and result.answer is not None and result.usage.policy_calls <= 6
    with pytest.raises(ConfigError, match="unknown verifier"):
        api.solve(QUESTION, model="toy", strategy="best_of_n", verifier="arithmetic", of="best_of_n(verifier=x)")


def test_a_second_model_is_loaded_when_it_is_first_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, ToyPolicy] = {}

    def find(name: str, **settings: object) -> Callable[[], Policy]:
        def load() -> Policy:
            def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
                return Draft(f"\\boxed{{{name}}}")

            made[name] = ToyPolicy(write, name=name)
            return made[name]

        return load

    monkeypatch.setattr(api, "find_policy", find)
    with api.Session("small") as session:
        assert session.solve(QUESTION, strategy="greedy").answer == "small" and list(made) == ["small"]
        refined = session.solve(QUESTION, strategy="sequential_revision:policy=large", n=3, of="sample(policy=small)")
        assert refined.answer == "large" and refined.error is None
        assert session.solve(QUESTION, strategy="greedy:policy=large").answer == "large"
        assert list(made) == ["small", "large"]
        large, small = made["large"].counters, made["small"].counters
        assert (large.generated_tokens, small.generated_tokens) == (3 * 14, 2 * 14)
        assert refined.usage.generated_tokens == 3 * 14
    assert all(policy.closed for policy in made.values()), "both are released"


def test_verifiers_and_models_of_ones_own_go_by_their_names() -> None:
    judge = RuleVerifier(lambda question, solution: 0.5, "mine")
    word = "medoid:n=2:of=best_of_n(n=3:verifier=mine:policy=own)"
    result = api.solve(QUESTION, model=ToyPolicy(name="own"), verifier=judge, strategy=word)
    assert result.error is None and len(judge.scored) == 6
    with api.Session(ToyPolicy(name="own"), verifier=judge) as session:
        assert session.solve(QUESTION, strategy=word).error is None and len(judge.scored) == 12
        with pytest.raises(ConfigError, match="unknown verifier 'yours'"):
            session.solve(QUESTION, strategy="best_of_n:verifier=yours")


def test_what_a_session_holds_by_name_is_not_loaded() -> None:
    loaded: list[str] = []

    def load(name: str) -> int:
        loaded.append(name)
        if name == "absent":
            raise ConfigError("unknown")
        return len(name)

    held = api.Loading({"one": 1}, load)
    assert (held["one"], held["three"], held["three"], loaded) == (1, 5, 5, ["three"])
    assert (list(held), len(held), "seven" in held) == (["one", "three"], 2, True)
    for _ in held:
        assert held["four"] == 4, "more may come while it is gone through"
    with pytest.raises(ConfigError):
        held["absent"]
