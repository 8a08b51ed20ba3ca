"""The confidence filter by hand, online and offline: the bar, the cut, the tokens saved, the weighted vote."""

from __future__ import annotations

import math
import random

import pytest

from flyweight.strategies.confidence_filtered import least
from flyweight.testing import Draft
from flyweight.types import Budget, Finish, Node, Sampling
from tests.strategies.kit import InTurn, Played, box, play

SURE, HALF, UNSURE = (
    Draft(box(answer, "a line of thought: "), -nats) for answer, nats in ((1, 3.0), (2, 2.0), (3, 1.0))
)
LONG = len(SURE.text)


def test_online_by_hand() -> None:
    warmup = [SURE, HALF, UNSURE, SURE]
    later = [UNSURE, HALF, SURE, UNSURE]
    played = play("confidence_filtered", InTurn(*warmup, *later), n=8, warmup=4, keep=0.75, window=8)
    # Warm-up: 3, 2, 1 and 3 nats; three quarters of it lie at 2 or above.
    least = played.notes.pop("least")
    assert played.notes == {"bar": 2.0, "cut": 2, "saved_tokens": 2 * (LONG - 8)}
    assert [least.get(candidate.node.key) for candidate in played.result.candidates] == [
        3,
        2,
        1,
        3,
        None,
        2,
        3,
        None,
    ], "of those that ended"
    finishes = [candidate.node.finish for candidate in played.result.candidates]
    assert finishes == [Finish.END] * 4 + [Finish.CUT, Finish.END, Finish.END, Finish.CUT]
    assert played.result.usage.generated_tokens == 6 * (LONG + 1) + 2 * 8, "what was cut cost 8 tokens each"
    assert played.result.answer == "1", "9 nats against 4; the unsure one of the warm-up has no vote"


def test_offline_by_hand() -> None:
    drafts = [SURE, HALF, UNSURE, HALF, HALF, *[UNSURE] * 6]
    played = play("confidence_filtered", InTurn(*drafts), n=11, online=False, keep=0.36, window=8, warmup=1)
    del played.notes["least"]
    assert played.notes == {"bar": 2.0, "cut": 0, "saved_tokens": 0}
    assert played.result.usage.generated_tokens == 11 * (LONG + 1)
    assert played.result.answer == "2", "6 nats against 3; seven unsure ones have 7 together, and no vote"


def test_all_kept_the_vote_is_weighted() -> None:
    def vote(*drafts: Draft) -> Played:
        return play("confidence_filtered", InTurn(*drafts), n=len(drafts), keep=1.0, online=False)

    assert vote(SURE, UNSURE, UNSURE).result.answer == "1", "3 beats 2"
    assert vote(SURE, *[UNSURE] * 4).result.answer == "3", "4 beats 3"
    assert vote(HALF, UNSURE, UNSURE).result.answer == "3", "2 each: the larger class"


def test_the_surest_member_speaks_for_its_class() -> None:
    drafts = [Draft(box(1, "a "), -2.0), Draft(box(1, "b "), -4.0), Draft(box(1, "c "), -3.0)]
    assert play("confidence_filtered", InTurn(*drafts), n=3, online=False).result.text == box(1, "b ")


@pytest.mark.parametrize(("keep", "bar"), [(0.01, 5.0), (0.2, 5.0), (0.21, 4.0), (0.6, 3.0), (0.9, 1.0), (1.0, 1.0)])
def test_the_bar_keeps_its_share(keep: float, bar: float) -> None:
    drafts = [Draft(box(nats), -float(nats)) for nats in (3, 1, 5, 2, 4)]
    played = play("confidence_filtered", InTurn(*drafts), n=5, keep=keep, online=False)
    assert played.notes["bar"] == bar
    kept = sum(nats >= bar for nats in range(1, 6))
    assert kept == math.ceil(keep * 5)


def test_a_sample_is_as_sure_as_its_least_sure_stretch() -> None:
    rng = random.Random(0)
    for _ in range(300):
        values = [rng.random() * 20 for _ in range(rng.randrange(40))]
        at, window = rng.randint(0, len(values)), rng.randint(1, 30)
        parent = Node(Node(), certainty=tuple(values[:at]))
        node = Node(parent, certainty=tuple(values[at:]))
        spans = [values[i : i + window] for i in range(len(values) - window + 1)] or [values]
        naive = min(sum(span) / len(span) for span in spans) if values else 0.0
        assert math.isclose(least(node, window), naive, abs_tol=1e-6)


def test_whoever_falls_below_the_bar_is_cut_at_that_token_and_nobody_else() -> None:
    """A whole sample never has a stretch below the bar: the cut and the filter measure the same."""
    seen = []

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(box(rng.randrange(4), "x" * rng.randrange(30)), -rng.choice((0.1, 0.3, 0.7)) * 3)

    for seed in range(20):
        played = play("confidence_filtered", write, n=12, warmup=4, keep=0.5, window=6, seed=seed)
        for number, node in enumerate(played.drawn):
            if node.finish is Finish.CUT:
                assert number >= 4 and len(node.certainty) == 6 and least(node, 6) < played.notes["bar"]
            elif number >= 4:
                assert len(node.certainty) < 6 or least(node, 6) >= played.notes["bar"]
            seen.append(node.finish)
    assert seen.count(Finish.CUT) > 30


def test_it_is_self_consistency_where_all_are_equally_sure() -> None:
    for answers in ("12", "1221", "12333", "1122"):
        drafts = [Draft(box(answer)) for answer in answers]
        vote = play("self_consistency", InTurn(*drafts), n=len(drafts)).result
        for online in (True, False):
            filtered = play("confidence_filtered", InTurn(*drafts), n=len(drafts), warmup=2, online=online).result
            assert (filtered.text, filtered.usage.generated_tokens) == (vote.text, vote.usage.generated_tokens)


def test_the_order_of_draws_does_not_choose() -> None:
    """J4, offline: 100 orders."""
    rng = random.Random(3)
    drafts = [Draft(box(i % 4, "x" * i), -0.3 * i) for i in range(1, 12)]
    found = set()
    for _ in range(100):
        rng.shuffle(drafts)
        found.add(play("confidence_filtered", InTurn(*drafts), n=11, keep=0.7, online=False).result.text)
    assert len(found) == 1


def test_never_more_than_n() -> None:
    for n in (1, 2, 5, 9):
        assert play("confidence_filtered", n=n, warmup=4).result.usage.policy_calls == n


def test_a_budget_that_ends_with_the_warm_up_leaves_the_vote_to_those_above_the_bar() -> None:
    """Three sure of 2, four and one unsure of 1 and 3: half of the eight lie at 3 nats or above."""
    texts = [*[Draft(box(1), -0.1)] * 4, *[Draft(box(2), -3.0)] * 3, Draft(box(3), -3.0)]
    for tokens in (None, 81, 80):  # ten tokens each: a ninth, one token of it, none
        drafts = InTurn(*texts, Draft(box(1), -0.1))
        budget = Budget(tokens=tokens)
        played = play("confidence_filtered", drafts, n=9, warmup=8, keep=0.5, window=4, budget=budget)
        assert (played.result.answer, played.notes["bar"]) == ("2", 3.0), tokens


def test_truncated_samples_set_no_bar_and_have_no_vote() -> None:
    long = Draft(box(9) + " and on and on and on and on", -9.0)
    assert len(long.text) > 30 > LONG
    played = play("confidence_filtered", InTurn(long, SURE, long, SURE), n=4, warmup=2, max_tokens=30, window=4)
    assert (played.result.answer, played.notes["bar"]) == ("1", 3.0)
