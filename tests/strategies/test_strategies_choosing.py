"""Choosing where nothing can be voted on: the tournament of pairs and the medoid."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import combinations

import pytest

from flyweight.errors import BudgetSpent
from flyweight.protocols import Models, Search
from flyweight.testing import Draft, RuleVerifier
from flyweight.types import Budget, Finish, Node, Problem, Score, Stopped
from tests.strategies.kit import InTurn, box, by_hash, play

# Tournament


class Stronger:
    """A judge of pairs: the larger answer wins three times out of four."""

    name, params, sees_answer = "stronger", 0, False

    def __init__(self) -> None:
        self.matches: list[tuple[str, str]] = []

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        raise AssertionError("only compares")

    async def compare(self, problem: Problem, a: Node, b: Node, models: Models) -> float:
        self.matches.append((a.solution, b.solution))
        return 0.75 if a.solution > b.solution else 0.25


def test_a_tournament_by_hand() -> None:
    """Ring of four: b beats a, c beats b, d beats c, d beats a. d leads with 0.75; b and c have 0.5, b was drawn first:
    d and b are the pivots; of their matches, d against b alone is left to play."""
    judge = Stronger()
    texts = [box("a"), box("b"), box("c"), box("d")]
    played = play("tournament", InTurn(*texts), verifier=judge, n=4, pivots=2)
    a, b, c, d = texts
    assert judge.matches == [(a, b), (b, c), (c, d), (d, a), (d, b)]
    assert (played.result.answer, played.notes["matches"]) == ("d", 5)
    standing = {node.solution: played.notes["standing"][node.key] for node in played.drawn}
    assert standing == {d: 0.75, c: 0.5, b: pytest.approx(5 / 12), a: 0.25}
    assert (played.result.usage.policy_calls, played.result.usage.verifier_calls) == (4, 10)


@pytest.mark.parametrize(("n", "pivots"), [(1, 1), (2, 1), (3, 1), (6, 2), (8, 3), (5, 5), (4, 9)])
def test_the_strongest_wins_whatever_the_draw_and_no_pair_meets_twice(n: int, pivots: int) -> None:
    rng = random.Random(n)
    for _ in range(10):
        judge = Stronger()
        texts = [box(i) for i in rng.sample(range(n), n)]
        played = play("tournament", InTurn(*texts), verifier=judge, n=n, pivots=pivots)
        assert played.result.answer == str(n - 1)
        pairs = Counter(frozenset(match) for match in judge.matches)
        assert all(len(pair) == 2 for pair in pairs) and set(pairs.values()) <= {1}
        k = min(pivots, n)
        assert len(judge.matches) <= n + k * (n - k) + k * (k - 1) // 2
        assert len(judge.matches) >= k * (n - k) + k * (k - 1) // 2, "everyone has met the pivots"
        assert played.result.usage.verifier_calls == 2 * len(judge.matches)


def test_a_verifier_that_only_scores_is_asked_once_about_each() -> None:
    played = play("tournament", InTurn(*map(box, "abcd")), {box(c): i / 4 for i, c in enumerate("abcd")}, n=4, pivots=2)
    assert played.result.answer == "d"
    assert played.result.usage.verifier_calls == 4 and len(played.judge.scored) == 4


class Waiting(RuleVerifier):
    """Scores by text, once the model has answered."""

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        await models.read(nodes, "?", ("yes", "no"))
        return await super().score(problem, nodes, models)


@pytest.mark.parametrize("verifications", [None, 1, 2, 3, 5, 8, 20])
def test_scores_that_have_to_be_waited_for_are_asked_for_once(verifications: int | None) -> None:
    """Every match is the same as with a verifier that answers at once."""

    def search(judge: RuleVerifier) -> tuple[object, ...]:
        budget = Budget(verifications=verifications)
        played = play("tournament", InTurn(*map(box, "abcdefgh")), verifier=judge, n=8, budget=budget)
        assert len(judge.scored) == played.result.usage.verifier_calls == min(8, verifications or 8)
        return played.notes, played.result.answer, played.result.stopped

    assert search(Waiting(by_hash)) == search(RuleVerifier(by_hash))


@pytest.mark.parametrize("scorer", [0, 1])
def test_who_waits_for_a_score_has_it_whatever_becomes_of_the_others(scorer: int) -> None:
    """Of two that compare the same texts the first scores, the second waits, and one of them is cancelled."""
    future: Future[None] = Future()
    found = []

    class Late(RuleVerifier):
        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
            await models.wait(future)
            return await super().score(problem, nodes, models)

    async def strategy(search: Search) -> Node | None:
        a, b = await search.complete([search.root], 2)

        async def ending() -> float:
            await search.complete([search.root])
            future.set_result(None)
            raise BudgetSpent("all of it")

        async def cancelled() -> None:
            with suppress(BudgetSpent):
                await search.parallel(search.compare(a, b), ending())

        async def kept() -> None:
            found.append(await search.compare(a, b))

        await search.parallel(*((cancelled(), kept()) if scorer == 0 else (kept(), cancelled())))
        return a

    judge = Late(lambda question, solution: 0.8 if "{1}" in solution else 0.5)
    play(strategy, InTurn(*map(box, "123")), verifier=judge)
    assert found == [pytest.approx(0.8)] and len(judge.scored) == 2


def test_all_pivots_is_a_league() -> None:
    judge = Stronger()
    play("tournament", InTurn(*map(box, "abcdef")), verifier=judge, n=6, pivots=6)
    assert {frozenset(match) for match in judge.matches} == {
        frozenset(pair) for pair in combinations(map(box, "abcdef"), 2)
    }


def test_a_verifier_of_single_texts_can_judge_pairs() -> None:
    scores = {box(i, "x"): 0.1 + 0.1 * i for i in (3, 1, 5, 0, 4, 2)}
    assert play("tournament", InTurn(*scores), scores, n=6).result.answer == "5"


def test_equal_players_are_ranked_by_confidence_then_draw() -> None:
    drafts = [Draft(box(1), -0.5), Draft(box(2), -0.2), Draft(box(3), -0.2)]
    assert play("tournament", InTurn(*drafts), n=3).result.answer == "2"


def test_the_order_of_draws_does_not_choose() -> None:
    """J4: a judge whose preferences go in circles, 100 orders."""

    class Circles(Stronger):
        async def compare(self, problem: Problem, a: Node, b: Node, models: Models) -> float:
            low, high = sorted((a.solution, b.solution))
            wins = by_hash("", low + high)
            return wins if a.solution == low else 1 - wins

    rng = random.Random(1)
    drafts = [Draft(box(i), -0.1 * i) for i in range(1, 7)]
    for pivots in (1, 2, 6):
        found = set()
        for _ in range(100):
            rng.shuffle(drafts)
            found.add(play("tournament", InTurn(*drafts), verifier=Circles(), n=6, pivots=pivots).result.text)
        assert len(found) == 1, pivots


def test_when_comparisons_run_out_what_was_played_decides() -> None:
    texts = list(map(box, "abdc"))
    for verifications, winner in ((2, "b"), (3, "b"), (6, "d"), (8, "d")):
        judge = Stronger()
        played = play("tournament", InTurn(*texts), verifier=judge, n=4, budget=Budget(verifications=verifications))
        assert (played.result.answer, played.result.stopped) == (winner, Stopped.BUDGET)
        assert len(judge.matches) == verifications // 2


def test_truncated_samples_do_not_play() -> None:
    judge = Stronger()
    long = "z" * 40
    played = play("tournament", InTurn(long, box(1), long, box(2)), verifier=judge, n=4, max_tokens=20)
    assert (played.result.answer, judge.matches) == ("2", [(box(1), box(2))])
    nobody = play("tournament", InTurn(long, long), verifier=judge, n=2, max_tokens=20)
    assert (nobody.result.best, nobody.notes) == (None, {"matches": 0, "standing": {}})


# Medoid


def test_a_medoid_by_hand() -> None:
    texts = ["abcdxy", "zzzzzz", "abcdef", "bcdefg"]
    played = play("medoid", InTurn(*texts), n=4)
    # abcdef shares abcd with abcdxy (2/6), bcde and cdef with bcdefg (4/6): 1.0; bcdefg 4/6; abcdxy 2/6; zzzzzz 0.
    assert played.result.text == "abcdef"
    assert (played.result.usage.policy_calls, played.result.usage.verifier_calls) == (4, 0)


def test_case_and_spacing_do_not_count() -> None:
    for said in ("THE ANSWER IS SEVEN", " the\nanswer  is seven\n"):
        drafts = [Draft("my answer is seven"), Draft("the answer is seven"), Draft(said, -0.1)]
        assert play("medoid", InTurn(*drafts), n=3).result.text == said, "alike to one altogether, so as good as it"


def test_repeats_are_counted() -> None:
    loop, once = "na " * 30, "na na na batman"
    played = play("medoid", InTurn(loop, once, once + "!"), n=3)
    assert played.result.text in (once, once + "!")


def naive(texts: Sequence[str]) -> list[float]:
    """Sum of likenesses to the others, by removing one shared 4-gram after another."""

    def grams(text: str) -> list[str]:
        plain = " ".join(text.lower().split())
        return [plain[i : i + 4] for i in range(len(plain) - 3)] if len(plain) > 4 else [plain]

    def alike(a: str, b: str) -> float:
        left, shared = grams(b), 0
        for gram in grams(a):
            if gram in left:
                left.remove(gram)
                shared += 1
        return 2 * shared / max(1, len(grams(a)) + len(grams(b)))

    return [sum(alike(a, b) for j, b in enumerate(texts) if j != i) for i, a in enumerate(texts)]


def test_likeness_is_what_a_naive_count_gives_and_order_is_irrelevant() -> None:
    rng = random.Random(0)
    for _ in range(60):
        words = ["red", "green", "blue", "a", "of"]
        texts = [" ".join(rng.choices(words, k=rng.randrange(1, 9))) for _ in range(rng.randrange(1, 8))]
        drafts = [Draft(text, -0.01 * (1 + i)) for i, text in enumerate(texts)]
        likeness = naive(texts)
        best = max(range(len(texts)), key=lambda i: (round(likeness[i], 9), -i))
        for _ in range(3):
            rng.shuffle(drafts)
            played = play("medoid", InTurn(*drafts), n=len(drafts))
            assert played.result.text == texts[best]


def test_with_answers_all_alike_or_all_unlike_the_most_confident_wins() -> None:
    alike = play("medoid", InTurn(Draft("aaaaa", -0.9), Draft("aaaaa", -0.1)), n=2)
    assert alike.result.best is not None and alike.result.best.mean_logprob == -0.1
    unlike = [Draft("abcdefg", -0.5), Draft("hijklmn", -0.2), Draft("opqrstu", -0.4)]
    assert play("medoid", InTurn(*unlike), n=3).result.text == "hijklmn"


def test_truncated_samples_are_no_candidates_for_the_medoid() -> None:
    texts = ["abcdefgh and more and more", "abcdefgh and more and more", "short"]
    played = play("medoid", InTurn(*texts), n=3, max_tokens=10)
    assert played.result.text == "short"
    assert [c.node.finish for c in played.result.candidates].count(Finish.LENGTH) == 2
    assert play("medoid", InTurn(*texts[:2]), n=2, max_tokens=10).result.best is None


def test_one_sample_is_one_sample() -> None:
    one = play("sample").result
    for name in ("tournament", "medoid", "confidence_filtered"):
        assert play(name, n=1).result.text == one.text
        assert math.isclose(play(name, n=1).result.usage.flops, one.usage.flops)
