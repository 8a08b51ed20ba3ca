"""Strategies made of strategies: another verifier, another model, sub-searches, stop rules, all in one word."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest

from flyweight import strategies
from flyweight.errors import ConfigError
from flyweight.protocols import Search
from flyweight.select import lead
from flyweight.strategies import compose
from flyweight.testing import Draft, RuleVerifier, ToyPolicy, check_strategy
from flyweight.types import Budget, Finish, Node, Problem, Result, Sampling, Stopped
from tests.strategies.kit import InTurn, box, by_hash, play

# How it is spelled


def test_a_name_with_settings() -> None:
    word = "best_of_n:n=8:verifier=weighted(judge(criteria=a)=3:form=1):of=beam_search(n=4:width=2)+sample"
    name, given = compose.spelled(word)
    assert name == "best_of_n"
    assert given == {
        "n": "8", "verifier": "weighted(judge(criteria=a)=3:form=1)", "of": "beam_search(n=4:width=2)+sample",
    }  # fmt: skip
    assert compose.opened(str(given["verifier"])) == "weighted:judge(criteria=a)=3:form=1"
    assert compose.opened("(module:function)") == "module:function"
    assert compose.parts(str(given["of"]), "+") == ["beam_search(n=4:width=2)", "sample"]


def test_settings_in_the_name_are_those_given_beside_it() -> None:
    spelled: Any = strategies.bind("beam_search:n=8:width=2")
    given: Any = strategies.bind("beam_search", {"n": 8, "width": 2})
    assert (spelled.func, spelled.keywords) == (given.func, given.keywords)
    assert strategies.describe("beam_search:n=8").parameters == strategies.describe("beam_search").parameters
    both: Any = strategies.bind("best_of_n:n=8", {"of": "greedy", "temperature": "0.5"})
    assert both.keywords == {"n": 8, "temperature": 0.5, "aggregation": "last", "of": "greedy"}, "plain, for the record"


MISTAKES = [
    ("best_of_n:8", "'8' is no parameter; write name:key=value"),
    ("best_of_n:n=8:n=9", "n is given twice: 8 and 9"),
    ("best_of_n:of=beam_search(n=4", "the parentheses do not close"),
    ("best_of_n:of=beam_search)n=4(", "the parentheses do not close"),
    ("best_of_n:of=beam_search(n=4)x", "nothing may follow the parenthesis"),
    ("best_of_n:of=beam_serch", "did you mean 'beam_search'"),
    ("best_of_n:of=beam_search(n=3)", "n=3 is not a multiple of width=4"),
    ("best_of_n:of=greedy+", "unknown strategy ''"),
    ("best_of_n:verifiers=judge", "unknown parameter of best_of_n 'verifiers'; did you mean 'verifier'"),
    ("best_of_n:enough=0", "enough='0' is not allowed: a number from 0.01 to 1"),
    ("best_of_n:lead=1.5", "lead='1.5' is not allowed"),
    ("best_of_n:of=", "of='' is not allowed: text that is not empty"),
    ("best_of_n:verifier=", "verifier='' is not allowed"),
    ("best_of_n:policy=", "policy='' is not allowed"),
    ("medoid:of=beam_search(of=sample)", "beam_search takes no of=: it begins with a step"),
    ("best_of_n:of=" + "(" * 9 + ")" * 9, "nested deeper than 8"),
]


@pytest.mark.parametrize(("word", "message"), MISTAKES)
def test_mistakes_get_one_clear_line(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        strategies.bind(word)
    assert "\n" not in str(caught.value)


def test_what_is_given_twice_is_said() -> None:
    with pytest.raises(ConfigError, match="n is given twice: 8 and 4"):
        strategies.bind("best_of_n:n=8", {"n": 4})


# Another verifier, another model

TEXTS = [box(1), box(2), box(3)]


def test_another_verifier_scores_and_compares() -> None:
    judges = {
        "up": RuleVerifier(lambda q, s: int(s[7]) / 10, "up"),
        "down": RuleVerifier(lambda q, s: 1 - int(s[7]) / 10),
    }
    for name in ("best_of_n", "weighted_best_of_n", "tournament", "beam_search:width=1", "hybrid", "dvts:width=1"):
        for verifier, best in (("", "3"), (":verifier=up", "3"), (":verifier=down", "1")):
            assert play(f"{name}:n=3{verifier}", InTurn(*TEXTS), verifiers=judges).result.answer == best, name
    assert play("best_of_n:n=3:verifier=(down)", InTurn(*TEXTS), verifiers=judges).result.answer == "1"


def two_models(**drafts: str) -> dict[str, ToyPolicy]:
    return {name: ToyPolicy(lambda *asked, t=text: Draft(t), name=name) for name, text in drafts.items()}


def test_another_model_writes() -> None:
    for name in ("greedy", "self_consistency:n=3", "beam_search:n=2:width=2", "sequential_revision:n=2", "self_refine"):
        played = play(f"{name}:policy=large", policies=two_models(small=box(1), large=box(2)))
        assert played.result.answer == "2"
        assert {node.policy for node in played.drawn} == {"large"}


def test_a_small_model_drafts_and_a_large_one_revises() -> None:
    played = play(
        "sequential_revision:n=3:policy=large:of=sample(policy=small)", policies=two_models(small=box(1), large=box(2))
    )
    assert [node.policy for node in played.drawn] == ["small", "large", "large"]
    assert played.talks[1][1] == box(1) and played.result.answer == "2"


def test_a_mixture_of_models_takes_turns() -> None:
    policies = two_models(a=box(1), b=box(2), c=box(2))
    played = play("self_consistency:n=6:of=sample(policy=a)+sample(policy=b)+sample(policy=c)", policies=policies)
    assert sorted(node.policy for node in played.drawn) == ["a", "a", "b", "b", "c", "c"]
    assert played.result.answer == "2"


# Sub-searches


def test_whole_answers_are_found_by_searches_of_their_own() -> None:
    """Two searches of best of three, and a vote of three of them, by hand."""
    texts = [box(1), box(2), box(3), box(1), box(5), box(4)]
    scores = dict(zip(texts, (0.1, 0.9, 0.2, 0.1, 0.3, 0.2), strict=True)) | {box(1): 0.1}
    played = play("medoid:n=2:of=best_of_n(n=3)", InTurn(*texts), scores)
    assert played.result.text in (box(2), box(5))
    assert (played.result.usage.policy_calls, played.result.usage.verifier_calls) == (6, 6)
    assert {c.answer for c in played.result.candidates} == {"1", "2", "3", "4", "5"}


def test_the_cost_is_the_product() -> None:
    for outer, inner, calls in (
        ("self_consistency:n=3", "best_of_n(n=5)", 15),
        ("best_of_n:n=2", "hybrid(n=6:chains=2)", 12),
    ):
        usage = play(f"{outer}:of={inner}").result.usage
        assert usage.policy_calls == calls


def test_a_sub_search_has_the_verifier_and_model_of_the_search_around_it_unless_it_names_its_own() -> None:
    judges = {"first": RuleVerifier(by_hash), "second": RuleVerifier(by_hash), "third": RuleVerifier(by_hash)}
    play("best_of_n:n=2:verifier=second:of=best_of_n(n=3)", verifiers=judges)
    assert [len(judge.scored) for judge in judges.values()] == [0, 8, 0]
    play("best_of_n:n=2:of=best_of_n(n=3:verifier=third)", verifiers=judges)
    assert [len(judge.scored) for judge in judges.values()] == [2, 8, 6]


def test_one_sub_search_of_one_sample_is_one_sample() -> None:
    problem = Problem("p", "Add 3 and 5 and 9.")
    for seed in range(5):
        plain = play("best_of_n:n=4", problem=problem, seed=seed)
        nested = play("best_of_n:n=4:of=sample", problem=problem, seed=seed)
        assert nested.result.usage.policy_calls == plain.result.usage.policy_calls
        assert len(nested.result.candidates) == 4
    assert (
        play("self_consistency:n=3:of=greedy", problem=problem).result.text
        == play("greedy", problem=problem).result.text
    )


@pytest.mark.parametrize("name", strategies.names())
def test_of_is_refused_before_a_search_or_works_in_all_of_them(name: str) -> None:
    try:
        bound = strategies.bind(f"{name}:of=sample")
    except ConfigError as mistake:
        assert str(mistake).startswith(f"{name} takes no of=: ")
    else:
        # Samples that disagree and scores of steps: what makes `auto` search by steps.
        play(bound, lambda question, so_far, rng, sampling: Draft(box(rng.random())), lambda q, s: [0.5])


def test_a_strategy_of_ones_own_that_begins_with_a_step_says_that_of_is_not_for_it() -> None:
    async def own(search: Search) -> Node | None:
        return (await search.extend([search.root]))[0]

    bound = compose.compose(own, [strategies.bind("sample")])
    with pytest.raises(AssertionError, match="of= finds whole answers, and this strategy begins with a step: drop of="):
        play(bound)


@pytest.mark.parametrize(
    "outer", ["greedy", "medoid:n=2", "tournament:n=2", "adaptive_consistency", "hybrid:n=4:lead=0.9"]
)
def test_sub_searches_that_find_nothing_spend_no_budget(outer: str) -> None:
    """Every sample is cut short: there is no answer, but nobody set a limit that could have ended the search."""

    def search(budget: Budget | None = None) -> Result:
        return play(f"{outer}:of=best_of_n(n=2)", InTurn(*["endless"] * 32), budget=budget, max_tokens=4).result

    free = search()
    assert (free.stopped, free.answer, free.usage.verifier_calls) == (Stopped.DONE, None, 0)
    assert free.candidates and {c.node.finish for c in free.candidates} == {Finish.LENGTH}
    assert search(Budget(tokens=3)).stopped is Stopped.BUDGET


@pytest.mark.parametrize(
    ("word", "of"),
    [
        ("adaptive_consistency:n=16", "self_consistency(n=1)"),
        ("self_consistency:n=16:lead=0.95", "self_consistency(n=1)"),
        ("best_of_n:n=16:enough=0.95", "best_of_n(n=1)"),
        ("confidence_filtered:n=16:warmup=4", "self_consistency(n=1)"),
    ],
)
def test_a_sub_search_that_finds_nothing_ends_no_other(word: str, of: str) -> None:
    """Every fourth sample is cut short and no two agree: nothing is decided before all sixteen are drawn."""
    for nested in ("", f":of={of}"):
        texts = ["endless " * 9 if i % 4 == 0 else box(i) for i in range(16)]
        result = play(word + nested, InTurn(*texts), max_tokens=30).result
        assert (result.usage.policy_calls, result.stopped) == (16, Stopped.DONE)


def test_a_vote_that_runs_out_of_budget_between_two_rounds_is_held() -> None:
    """Four of ten tokens each, undecided: what they come to is what the search around them scores."""
    texts = [box(1), box(2), box(2), box(3)]
    result = play("best_of_n:n=1:of=adaptive_consistency", InTurn(*texts), budget=Budget(tokens=40)).result
    assert (result.answer, result.usage.verifier_calls, result.stopped) == ("2", 1, Stopped.BUDGET)


def test_searches_inside_searches_keep_the_contract() -> None:
    for word in (
        "self_consistency:n=3:of=best_of_n(n=2)",
        "hybrid:n=4:chains=2:of=beam_search(n=2:width=2)",
        "best_of_n:n=8:enough=0.9",
        "beam_search:n=4:width=2:lead=0.8",
        "dvts:n=4:width=2:lead=0.8:enough=0.9",
        "self_consistency:n=8:lead=0.9:of=best_of_n(n=2:enough=0.9)",
        "tournament:n=4:of=adaptive_consistency(n=6)",
    ):
        check_strategy(strategies.bind(word))


# Stop rules


@pytest.mark.parametrize(
    ("answers", "drawn", "best"), [("1111", 4, "1"), ("11121111", 8, "1"), ("1212111111111111", 16, "1")]
)
def test_a_vote_that_stops_when_sure_is_adaptive_consistency(answers: str, drawn: int, best: str) -> None:
    texts = [box(a) for a in answers]
    ruled = play("self_consistency:n=16:lead=0.95", InTurn(*texts)).result
    adaptive = play("adaptive_consistency", InTurn(*texts), n=16).result
    assert (ruled.answer, ruled.usage.policy_calls) == (adaptive.answer, adaptive.usage.policy_calls) == (best, drawn)
    assert ruled.stopped is Stopped.DONE
    assert lead(4, 0) >= 0.95 > lead(3, 1)


def test_it_stops_at_the_first_portion_with_a_candidate_that_is_good_enough() -> None:
    texts = [box(i) for i in range(16)]
    for good, drawn in ((0, 4), (3, 4), (4, 8), (9, 16), (99, 16)):
        scores = {text: 0.9 if i == good else 0.5 for i, text in enumerate(texts)}
        played = play("best_of_n:n=16:enough=0.9", InTurn(*texts), scores)
        assert played.result.usage.policy_calls == drawn
        assert played.result.answer == (str(good) if good < 16 else "0")
        assert played.judge.scored == texts[:drawn], "each is scored once, though the rule and the strategy ask"


def test_good_enough_is_measured_by_the_aggregation_of_the_strategy() -> None:
    texts = [box(i) for i in range(8)]
    rule = RuleVerifier(lambda question, solution: (0.2, 0.9))
    for how, drawn in (("last", 4), ("min", 8)):
        word = f"best_of_n:n=8:enough=0.9:aggregation={how}"
        assert play(word, InTurn(*texts), verifier=rule).result.usage.policy_calls == drawn


def test_until_a_rule_holds_the_samples_are_those_of_the_strategy_alone() -> None:
    for name in (
        "best_of_n:n=12",
        "self_consistency:n=12",
        "weighted_best_of_n:n=12",
        "dvts:n=4:width=2",
        "beam_search:n=4",
    ):
        problem = Problem("p", "Add 3 and 5 and 9 and 2.")
        plain, ruled = (play(name + rule, scores=lambda q, s: 0.5, problem=problem) for rule in ("", ":enough=0.6"))
        assert (plain.result.text, plain.result.usage.policy_calls) == (
            ruled.result.text,
            ruled.result.usage.policy_calls,
        )
        assert {c.node.key for c in plain.result.candidates} == {c.node.key for c in ruled.result.candidates}


def steps(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
    """Five steps of a digit; a path may end early, and then says 1."""
    depth = so_far.count("\n\n")
    return Draft(box(1) if rng.random() < 0.3 or depth == 5 else f"{rng.randrange(10)}\n\n")


@pytest.mark.parametrize("name", ["beam_search:n=8:width=2", "dvts:n=8:width=2"])
def test_a_tree_search_stops_early_too(name: str) -> None:
    whole, sure = (play(name + rule, steps, by_hash) for rule in ("", ":lead=0.9"))
    assert sure.result.answer == whole.result.answer == "1"
    assert sure.result.usage.policy_calls < whole.result.usage.policy_calls
    good = play(name + ":enough=0.5", steps, lambda q, s: 0.6 if "boxed" in s else 0.1)
    assert good.result.usage.policy_calls < whole.result.usage.policy_calls
    assert good.result.best is not None and good.result.best.score is not None and good.result.best.score.value == 0.6


def test_a_beam_that_ended_counts_once_however_often_it_ended() -> None:
    """The first of eight steps answers 5, and all that is drawn after it is nothing; the other beams answer 7."""
    first: list[str] = []

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        first.extend(["seen"] * (not so_far))
        if not so_far:
            return Draft((box(5) if len(first) == 1 else "other") + "\n\n")
        return Draft("" if so_far.startswith(box(5)) else box(7))

    def rule(question: str, solution: str) -> float:
        return 0.6 if solution.startswith(box(5)) else 0.5

    judge = RuleVerifier(rule)
    result = play("beam_search:n=8:width=4:lead=0.95", write, verifier=judge).result
    assert (result.answer, result.confidence) == ("7", lead(4, 1))
    first.clear()
    judge.scored.clear()
    play("beam_search:n=8:width=4:enough=0.95", write, verifier=judge)
    assert len(judge.scored) == 8 + 4, "nothing is scored for an empty step"


def test_a_chain_of_revisions_stops_once_it_is_good_enough() -> None:
    scores = {box(1): 0.2, box(2): 0.5, box(3): 0.8, box(4): 0.9}
    played = play("sequential_revision:n=4:enough=0.8", InTurn(*scores), scores)
    assert (played.result.answer, played.result.usage.policy_calls, played.judge.scored) == ("3", 3, list(scores)[:3])


def test_a_rule_of_a_sub_search_ends_that_one_alone() -> None:
    """Each search of best of eight ends after four; the vote around it takes place."""
    played = play("self_consistency:n=3:of=best_of_n(n=8:enough=0.7)", InTurn(*[box(1)] * 12), lambda q, s: 0.7)
    assert played.result.usage.policy_calls == 12
    played = play("self_consistency:n=3:of=best_of_n(n=8:enough=0.8)", InTurn(*[box(1)] * 24), lambda q, s: 0.7)
    assert played.result.usage.policy_calls == 24


def test_a_rule_does_not_outspend_a_budget() -> None:
    for verifications in (1, 3, 5, 9):
        played = play("best_of_n:n=16:enough=0.99", scores=lambda q, s: 0.5, budget=Budget(verifications=verifications))
        assert played.result.usage.verifier_calls == min(verifications, 16)
        assert played.result.best is not None
    scores = {box(1): 0.9, box(2): 0.5, box(2, "b "): 0.5, box(2, "c "): 0.5} | {box(i): 0.99 for i in range(3, 7)}
    played = play("best_of_n:n=8:enough=0.95", InTurn(*scores), scores, budget=Budget(verifications=4))
    assert played.result.answer == "1", "the best of what was scored, and no vote"
    texts = [box(1)] * 16
    played = play("self_consistency:n=16:lead=1", InTurn(*texts), budget=Budget(tokens=65))
    assert (played.result.usage.generated_tokens, played.result.answer) == (65, "1")


def test_every_strategy_takes_every_rule() -> None:
    """Whatever is in the registry: with each rule it ends, finds something, and draws no more than without."""
    problem = Problem("p", "Add 3 and 5 and 9.")
    for name in strategies.names():
        plain = play(name, scores=by_hash, problem=problem)
        for rule in ("lead=0.8", "enough=0.5", "verifier=judge", "policy=toy"):
            ruled = play(f"{name}:{rule}", scores=by_hash, problem=problem)
            assert ruled.result.best is not None, (name, rule)
            assert ruled.result.usage.policy_calls <= plain.result.usage.policy_calls, (name, rule)
            if rule.startswith(("verifier", "policy")):
                assert ruled.result.text == plain.result.text


def test_the_common_parameters_are_described_once() -> None:
    assert list(strategies.COMMON) == ["verifier", "policy", "of", "lead", "enough"]
    for name in strategies.names():
        assert not {parameter.name for parameter in strategies.describe(name).parameters} & set(strategies.COMMON)


def test_the_strategies_of_the_page_are_what_it_says() -> None:
    page = (Path(__file__).resolve().parent.parent.parent / "docs" / "compose.md").read_text("utf-8")
    words = [word for entry in re.findall(r'-s "([^"]+)"', page) for word in compose.parts(entry, ",")]
    assert len(words) >= 9
    for word in words:
        strategies.bind(word)
    assert re.findall(r"^\| `(\w+)=", page, re.MULTILINE) == list(strategies.COMMON)
