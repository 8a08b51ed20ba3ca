"""Revisions in a chain, chains side by side, self-refine: by hand, against their relatives, and J6."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from flyweight import strategies
from flyweight.runner import Runner
from flyweight.select import aggregate
from flyweight.strategies.self_refine import ACCEPTED, CRITICISE, REVISE
from flyweight.strategies.sequential_revision import AGAIN
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Budget, Event, Finish, Message, Problem, Result, Sampling, Stopped
from tests.strategies.kit import InTurn, Played, Q, box, by_hash, interrupted, play

AGAIN_Q = AGAIN.format(question=Q.prompt)

# A chain of revisions


def test_a_chain_by_hand() -> None:
    scores = {box(1): 0.3, box(2): 0.4, box(2, "b "): 0.5, box(3): 0.8}
    played = play("sequential_revision", InTurn(*scores), scores, n=4, temperature=1.25)
    assert played.result.text == box(2, "b "), "0.9 beats 0.8: all attempts vote, not only the last"
    assert played.judge.scored == list(scores), "each once, as they come"
    assert (played.result.usage.policy_calls, played.result.usage.verifier_calls) == (4, 4)
    assert played.result.usage.generated_tokens == sum(len(text) + 1 for text in scores)
    assert played.talks[0] == [Q.prompt]
    assert played.talks[1] == [Q.prompt, box(1), AGAIN_Q]
    assert played.talks[3] == [Q.prompt, box(1), AGAIN_Q, box(2), AGAIN_Q, box(2, "b "), AGAIN_Q]


def test_every_draw_has_the_temperature() -> None:
    write = InTurn(*[box(1)] * 3)
    play("sequential_revision", write, n=3, temperature=1.25)
    assert [sampling.temperature for sampling in write.samplings] == [1.25] * 3


def test_a_system_prompt_and_earlier_turns_stay() -> None:
    turns = (Message("system", "S"), Message("user", "u"), Message("assistant", "a"), Message("user", "last"))
    played = play(
        "sequential_revision", InTurn(box(1), box(2)), problem=Problem("p", "last", turns), scores=by_hash, n=2
    )
    assert played.talks[1] == ["S", "u", "a", "last", box(1), AGAIN.format(question="last")]


def test_only_the_last_few_attempts_are_shown() -> None:
    played = play("sequential_revision", InTurn(*map(box, range(5))), n=5, memory=2)
    assert [talk[1::2] for talk in played.talks] == [
        [], [box(0)], [box(0), box(1)], [box(1), box(2)], [box(2), box(3)],
    ]  # fmt: skip


def test_truncated_attempts_are_neither_shown_nor_scored() -> None:
    long = box(9) + " and on and on"
    texts = [long, box(1), long, box(2)]
    played = play("sequential_revision", InTurn(*texts), {box(1): 0.2, box(2): 0.1}, n=4, max_tokens=15)
    assert played.talks == [[Q.prompt], [Q.prompt], [Q.prompt, box(1), AGAIN_Q], [Q.prompt, box(1), AGAIN_Q]]
    assert (played.result.answer, played.judge.scored) == ("1", [box(1), box(2)])
    assert [c.node.finish for c in played.result.candidates].count(Finish.LENGTH) == 1, "that of the first prompt"


def test_chains_by_hand() -> None:
    """Five attempts in two chains: three and two."""
    said: Mapping[str, list[str]] = {Q.prompt: [box(1), box(2)], AGAIN_Q: [box(3), box(3), box(1)]}
    asked: Counter[str] = Counter()

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        asked[question] += 1
        return Draft(said[question][asked[question] - 1])

    played = play("hybrid", write, {box(1): 0.4, box(2): 0.7, box(3): 0.3}, n=5, chains=2)
    assert played.result.answer == "1", "1 has 0.8, 2 has 0.7, 3 has 0.6: an attempt of each chain"
    first, second = ([len(talk) // 2 for talk in played.talks if talk[1:2] == [box(a)]] for a in (1, 2))
    assert (first, second) == ([1, 2], [1]), "neither chain sees the other"


def told(result: Result) -> tuple[str, str | None, int, int, int]:
    usage = result.usage
    return result.text, result.answer, usage.policy_calls, usage.verifier_calls, usage.generated_tokens


class Counting:
    """Says 0, 1, 2, ... modulo 3 to each question asked, whoever asks."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        self.asked[question] += 1
        return Draft(box(self.asked[question] % 3, f"{self.asked[question]} "))


def test_one_chain_is_sequential_revision_and_single_links_are_weighted_best_of_n() -> None:
    for n in (1, 2, 5, 8):
        chain = play("sequential_revision", Counting(), by_hash, n=n)
        assert told(play("hybrid", Counting(), by_hash, n=n, chains=1).result) == told(chain.result)
        flat = play("weighted_best_of_n", Counting(), by_hash, n=n)
        for chains in (n, 4 * n):
            assert told(play("hybrid", Counting(), by_hash, n=n, chains=chains).result) == told(flat.result)
    one = play("sample", Counting())
    assert play("hybrid", Counting(), n=1).result.text == one.result.text


@pytest.mark.parametrize(("n", "chains"), [(1, 1), (7, 3), (8, 4), (3, 5)])
def test_the_cost_is_n(n: int, chains: int) -> None:
    usage = play("hybrid", n=n, chains=chains).result.usage
    assert (usage.policy_calls, usage.verifier_calls) == (n, n)


@pytest.mark.parametrize("name", ["sequential_revision", "hybrid:chains=1"])
def test_whatever_ends_it_the_attempts_so_far_vote(name: str) -> None:
    texts = [box(1), box(2), box(3)]
    for budget, best in ((Budget(tokens=15), "1"), (Budget(verifications=2), "2")):
        played = play(name, InTurn(*texts), {box(1): 0.2, box(2): 0.7, box(3): 0.9}, budget=budget, n=3)
        assert (played.result.answer, played.result.stopped) == (best, Stopped.BUDGET)


# Self-refine

CRITICISE_Q, REVISE_Q = CRITICISE.format(question=Q.prompt), REVISE.format(question=Q.prompt)
SCORES = {box(1): 0.5, box(2): 0.7, box(3): 0.2, box(4): 0.5}


def refine(*texts: str, rounds: int = 3) -> tuple[str | None, int, int]:
    played = play("self_refine", InTurn(*texts), SCORES, rounds=rounds)
    return played.result.answer, played.result.usage.policy_calls, played.result.usage.verifier_calls


def test_it_stops_when_the_critique_accepts() -> None:
    assert refine(box(1), ACCEPTED) == ("1", 2, 1)
    assert refine(box(1), f"**{ACCEPTED.lower()}.** It is right.") == ("1", 2, 1)
    assert refine(box(1), "no", box(2), ACCEPTED) == ("2", 4, 2)
    assert refine(box(1), f"Do not say {ACCEPTED}", box(2), ACCEPTED) == ("2", 4, 2), "named, not said"


def test_it_stops_at_a_fixpoint_and_in_a_cycle() -> None:
    assert refine(box(1), "no", box(1)) == ("1", 3, 1)
    assert refine(box(1), "no", box(1) + "\n") == ("1", 3, 1), "white space is no revision"
    assert refine(box(1), "no", box(2), "no", box(4), "no", box(2), rounds=9) == ("4", 7, 3)


def test_it_stops_after_its_rounds() -> None:
    assert refine(box(1), rounds=0) == ("1", 1, 1)
    assert refine(box(1), "no", box(2), rounds=1) == ("2", 1 + 2, 1 + 1)
    assert refine(box(1), "no", box(2), "no", box(4), rounds=2) == ("4", 1 + 2 * 2, 1 + 2)


def test_it_stops_at_what_is_worse_than_the_first_answer_and_returns_what_was_before() -> None:
    assert refine(box(1), "no", box(3)) == ("1", 3, 2)
    assert refine(box(1), "no", box(2), "no", box(3)) == ("2", 5, 3)
    assert refine(box(1), "no", box(2), "no", box(4), ACCEPTED) == ("4", 6, 3), "not worse than the first"


def test_critique_and_revision_see_the_latest_version() -> None:
    texts = [box(1), "a sum is off", box(2), "still", box(4), ACCEPTED]
    played = play("self_refine", InTurn(*texts), SCORES)
    assert played.talks == [
        [Q.prompt],
        [Q.prompt, box(1), CRITICISE_Q],
        [Q.prompt, box(1), CRITICISE_Q, "a sum is off", REVISE_Q],
        [Q.prompt, box(2), CRITICISE_Q],
        [Q.prompt, box(2), CRITICISE_Q, "still", REVISE_Q],
        [Q.prompt, box(4), CRITICISE_Q],
    ]
    assert {c.answer for c in played.result.candidates} == {"1", "2", "4"}, "critiques are no candidates"


def test_truncated_versions_are_none() -> None:
    long = box(9) + " and on and on"
    assert play("self_refine", InTurn(long), max_tokens=15).result.best is None
    played = play("self_refine", InTurn(box(1), "no", long), SCORES, max_tokens=15)
    assert (played.result.answer, played.judge.scored) == ("1", [box(1)])


def refined(seed: int, budget: Budget | None = None, stopped: Callable[[Event], bool] | None = None) -> Played:
    """A search whose scores are drawn by chance, with few different answers: cycles and relapses of all kinds."""

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        if question == CRITICISE_Q:
            return Draft(ACCEPTED if rng.random() < 0.1 else "no")
        return Draft(box(rng.randrange(3), f"{rng.randrange(3)} "))

    return play("self_refine", write, by_hash, budget=budget, seed=seed, rounds=6, stopped=stopped)


def not_worse(played: Played) -> bool:
    """Whether the choice scores no less than the first answer, if there is one."""
    first = next((s for s in played.judge.scored), None)
    best = played.result.best
    if first is None or best is None:
        return best is None
    return by_hash("", best.solution) >= by_hash("", first)


def test_never_worse_than_the_first_answer_whatever_ends_it() -> None:
    """J6: 60 searches whole, under token and verification budgets, and interrupted at each of their events."""
    rounds, relapses = Counter[int](), 0
    for seed in range(60):
        whole = refined(seed)
        assert not_worse(whole), seed
        rounds[whole.result.usage.verifier_calls] += 1
        relapses += by_hash("", whole.judge.scored[-1]) < by_hash("", whole.judge.scored[0])
        spent = whole.result.usage.generated_tokens
        for tokens in range(12, spent, 9):
            assert not_worse(refined(seed, Budget(tokens=tokens))), (seed, tokens)
        for verifications in range(1, whole.result.usage.verifier_calls):
            assert not_worse(refined(seed, Budget(verifications=verifications))), (seed, verifications)
    assert len(rounds) >= 4 and relapses > 10, "searches of many lengths, and revisions that are worse"
    for seed in range(12):
        for played in interrupted(functools.partial(refined, seed, None), "node", "score"):
            assert not_worse(played), seed


def test_without_rounds_it_is_one_sample() -> None:
    problems = [Problem(f"p{i}", f"Add {i} and {i + 2} and 4.") for i in range(10)]

    def run(name: str, **parameters: int) -> list[tuple[str, str]]:
        runner = Runner(ToyPolicy(), {"any": RuleVerifier(by_hash)}, answers=BoxedAnswers())
        results = runner.run(problems, strategies.bind(name, parameters))
        return sorted((result.problem.id, result.text) for result in results)

    assert run("self_refine", rounds=0) == run("sample") == run("sequential_revision", n=1)


def test_the_floor_is_measured_by_the_aggregation() -> None:
    steps = {box(1): (0.9, 0.5), box(2): (0.1, 0.6)}
    for how, best in (("last", "2"), ("min", "1"), ("mean", "1")):
        rule = RuleVerifier(lambda question, solution: steps[solution])
        played = play("self_refine", InTurn(box(1), "no", box(2)), verifier=rule, rounds=1, aggregation=how)
        assert played.result.answer == best, how
        assert played.result.best is not None and aggregate(played.result.best.score, how) >= 0.5
