"""What holds of every registered strategy on any tree: 2,000 random ones, each searched under some limit.

A strategy that is registered is covered as it is. `-m slow` searches 2,000 trees with each.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.protocols import Request
from flyweight.select import finished
from flyweight.types import Budget, Finish, Node, Result, Stopped, digest
from tests.strategies.registry_kit import NAMES, Searched, box, grow, parameters, reads_scores, search

TREES, FEW = 2000, 4
"""In all, and of each example: drawing an example takes longer than searching a tree."""
SIZES = [(1, 1), (2, 1), (2, 2), (4, 2), (6, 3), (6, 1), (3, 3)]
"""n and width."""


def by_hash(seed: int) -> Callable[[str], float]:
    """Scores that depend on the text alone, with many ties."""
    return lambda text: int(digest(seed, text)[:4], 16) % 5 / 4


def oracle(text: str) -> float:
    """1 for the right answer, 0 for a wrong one, 1/2 for what has none yet."""
    return float(text.endswith(box(0))) if "box" in text else 0.5


def told(result: Result) -> tuple[object, ...]:
    keys = [candidate.node.key for candidate in result.candidates]
    return (result.text, result.answer, result.stopped, result.usage.generated_tokens, keys)


def hold(name: str, seed: int) -> None:
    """Search one random tree and hold the search to everything that must be true of it."""
    rng = random.Random(seed)
    n, width = rng.choice(SIZES)
    knowing = rng.random() < 0.4
    limit, budget, interrupt = rng.choice(("none", "none", "tokens", "calls", "time", "sure", "stop")), Budget(), None
    if limit == "tokens":
        budget = Budget(tokens=rng.randint(1, 400))
    elif limit == "calls":
        budget = Budget(verifications=rng.randint(1, 12))
    elif limit == "time":
        budget = Budget(seconds=rng.randint(1, 200))
    elif limit == "sure":
        budget = Budget(confidence=0.8)
    elif limit == "stop":
        interrupt = rng.randint(0, 20)
    sizes: dict[str, Any] = {"n": n, "width": width, "branch": width, "chains": width, "iterations": 2, "rounds": 2}
    sizes |= {"warmup": 2, "window": 4, "think_tokens": 40, "answer_tokens": 20}
    rule = oracle if knowing else by_hash(seed)
    shuffle = random.Random(seed) if seed % 2 else None
    found = search(name, rule, seed=seed, budget=budget, interrupt=interrupt, shuffle=shuffle, **sizes)

    accounts_agree(found)
    limits_are_kept(found, budget)
    anytime(found.result)
    if "n" in found.settings:
        frontier_is_bounded(found, n, width)
        if n == 1:
            one_sample(found)
    if name == "dvts":
        subtrees_keep_their_nodes(found)
    if limit == "none" and knowing and reads_scores(name):
        covered = any(candidate.answer == "0" for candidate in found.result.candidates)
        assert (found.result.answer == "0") == covered, "with an oracle, what was found is chosen"
    if limit == "none":
        again = search(name, rule, seed=seed, budget=budget, **sizes)
        assert told(again.result) == told(found.result), "the order in which nodes came back changed something"


def sampled(request: Request) -> bool:
    """Whether it belongs to the search itself; what is drawn greedily is only looked ahead to."""
    return request.sampling.temperature > 0


def accounts_agree(found: Searched) -> None:
    """Usage is the sum of the calls, cancelled ones included."""
    usage, counters = found.result.usage, found.policy.counters
    assert usage.policy_calls == len(found.policy.asked)
    assert usage.generated_tokens == counters.generated_tokens
    assert usage.prompt_tokens == counters.prompt_tokens
    assert usage.verifier_calls == len(found.judge.scored)
    assert not found.policy.open, "nothing is left behind"


def limits_are_kept(found: Searched, budget: Budget) -> None:
    usage, stopped = found.result.usage, found.result.stopped
    assert budget.tokens is None or usage.generated_tokens <= budget.tokens
    assert budget.verifications is None or usage.verifier_calls <= budget.verifications
    assert stopped is not Stopped.DEADLINE or budget.seconds is not None
    assert stopped is not Stopped.CONFIDENT or budget.confidence is not None


def anytime(result: Result) -> None:
    """Whatever ended the search: if an answer was completed there is a best one, and it is among the candidates."""
    nodes = [candidate.node for candidate in result.candidates]
    assert result.best is not None or not finished(nodes)
    assert result.best is None or result.best.key in {node.key for node in nodes}
    assert len({node.key for node in nodes}) == len(nodes), "no candidate is shown twice"
    assert all(c.answer is None for c in result.candidates if c.node.finish in (Finish.LENGTH, Finish.CUT))


def frontier_is_bounded(found: Searched, n: int, width: int) -> None:
    """At most n draws begun, and n at a time, from at most n / width paths where width steps are drawn after each."""
    begun = [request for request in found.policy.asked if len(request.node.messages) == 1 and sampled(request)]
    assert len(begun) <= (width if "branch" in found.settings else n * int(found.settings.get("iterations", 1)))
    most = n // width if "width" in found.settings else n
    for flying in found.policy.rounds:
        assert len(flying) <= (width if "branch" in found.settings else n)
        assert len({request.node.key for request in flying if sampled(request)}) <= most


def one_sample(found: Searched) -> None:
    """With n=1 a single path is drawn; only one that came to nothing may be begun anew."""
    path = [request for request in found.policy.asked if sampled(request)]
    path = [request for request in path if request.node.root.messages == path[0].node.root.messages]
    nothing = {r.id for r in found.policy.served if r.finish is Finish.LENGTH or not r.text.strip()}
    for before, after in itertools.pairwise(path):
        went_on = after.node.parent is not None and after.node.parent.key == before.node.key
        assert went_on or (after.node.parent is None and before.id in nothing)


def subtrees_keep_their_nodes(found: Searched) -> None:
    """Every path that is gone on with has a step of its own at each depth: no two come from the same one."""
    gone_on: dict[str, Node] = {request.node.key: request.node for request in found.policy.asked}
    below = [node.parent.key for node in gone_on.values() if node.parent is not None and node.parent.parent is not None]
    assert len(below) == len(set(below)), "two subtrees go on from one node"
    assert set(below) <= gone_on.keys()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=-(-TREES // FEW // len(NAMES)))
@given(seed=st.integers(0, 10**9))
def test_what_holds_of_every_strategy(name: str, seed: int) -> None:
    for tree in range(seed, seed + FEW):
        hold(name, tree)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_holds_of_every_strategy_on_as_many_trees_each(name: str) -> None:
    for seed in range(TREES):
        hold(name, seed)


@pytest.mark.parametrize("name", [name for name in NAMES if "n" in parameters(name)])
def test_a_sure_answer_ends_any_search_early(name: str) -> None:
    """Also in the midst of a tree: four answers that agree are believed at 0.95, 1 - 2^-5 being more."""

    def agree(request: Request) -> str:
        return "step\n\n" * (2 - request.node.solution.count("\n\n")) + box(0)

    def tokens(budget: Budget) -> tuple[Result, int]:
        slow = random.Random(0)
        result = search(name, oracle, write=agree, budget=budget, shuffle=slow, n=12, width=3, chains=3).result
        return result, result.usage.generated_tokens

    (free, most), (early, spent) = tokens(Budget()), tokens(Budget(confidence=0.95))
    assert (free.answer, early.answer) == ("0", "0")
    assert early.stopped is Stopped.CONFIDENT or name == "adaptive_consistency", "which stops by itself"
    assert spent < most or name == "adaptive_consistency"


CHAINS = ["beam_search", "lookahead_search", "rebase", "particle_filter", "particle_gibbs"]


def whole(request: Request) -> str:
    """A random tree in which nothing is cut and no step is empty."""
    rng = random.Random(request.seed)
    left = 4 - request.node.solution.count("\n\n")
    return "".join(f"{rng.randrange(1000)}\n\n" for _ in range(rng.randint(0, left))) + box(rng.randrange(3))


@settings(max_examples=40)
@given(seed=st.integers(0, 10**9), n=st.integers(1, 7), score=st.sampled_from((0.0, 0.3, 1.0)))
def test_with_equal_scores_weighted_voting_is_majority(seed: int, n: int, score: float) -> None:
    """Of n samples; or, step by step, of n chains, none of which there is a reason to prefer or to drop."""

    def chosen(name: str) -> tuple[object, ...]:
        found = search(name, lambda text: score, seed=seed, write=whole, n=n, width=1, k=0, iterations=1)
        return told(found.result)

    assert chosen("weighted_best_of_n") == chosen("self_consistency")
    chains = search("beam_search", lambda text: score, seed=seed, write=whole, n=n, width=1).result
    votes = Counter(candidate.answer for candidate in chains.candidates)
    assert votes.total() == n
    assert votes[chains.answer] == max(votes.values())
    assert {name: chosen(name) for name in CHAINS} == dict.fromkeys(CHAINS, told(chains))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**9), size=st.sampled_from(SIZES))
def test_looking_ahead_nowhere_is_beam_search(seed: int, size: tuple[int, int]) -> None:
    n, width = size
    rule = by_hash(seed)
    beam = search("beam_search", rule, seed=seed, n=n, width=width)
    ahead = search("lookahead_search", rule, seed=seed, n=n, width=width, k=0)
    assert told(ahead.result) == told(beam.result)
    assert ahead.judge.scored == beam.judge.scored


def test_the_trees_have_everything_in_them() -> None:
    """Otherwise the properties above would hold of nothing."""
    seen = [search("beam_search", oracle, seed=seed, n=6, width=3) for seed in range(60)]
    served = [response for found in seen for response in found.policy.served]
    assert {response.finish for response in served} == {Finish.STOP, Finish.END, Finish.LENGTH}
    assert any(response.text == "\n\n" for response in served) and any(response.text == "" for response in served)
    assert {c.answer for found in seen for c in found.result.candidates} == {None, "0", "1", "2"}
    assert grow(seen[0].policy.asked[0]) == grow(seen[0].policy.asked[0])
