"""Drafts: what is proposed, and that what is drawn does not depend on it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flyweight.policies.llamacpp import LlamaCpp
from flyweight.policies.llamacpp.drawing import drafts
from flyweight.policies.llamacpp.lookup import Lookup
from flyweight.policies.llamacpp.row import Row, Writer
from flyweight.protocols import Request, Response, Until
from flyweight.types import Finish, Message, Node, Sampling
from tests.engine.test_engine_kernels import needs_kernels


@pytest.mark.parametrize(
    ("text", "most", "draft"),
    [
        ([], 3, []),
        ([1], 3, []),
        ([1, 2, 3], 3, []),  # 3 is new
        ([1, 2, 3, 1], 3, [2, 3, 1]),
        ([1, 2, 3, 1], 1, [2]),
        ([1, 2, 3, 1], 0, []),
        ([7, 7], 3, [7]),  # what followed the first 7
        ([1, 2, 9, 5, 2, 8, 1, 2], 1, [9]),  # after 1 2 came 9, though after the latest 2 came 8
        ([1, 2, 9, 5, 2, 8, 4, 2], 1, [8]),  # 4 2 is new: the latest 2
    ],
)
def test_what_is_proposed(text: list[int], most: int, draft: list[int]) -> None:
    assert Lookup(text).draft(most) == draft


def test_learning_bit_by_bit_equals_learning_at_once() -> None:
    text = [1, 2, 3, 1, 2, 4, 1, 2]
    lookup = Lookup(text[:3])
    for token in text[3:]:
        lookup.learn([token])
    assert lookup.draft(3) == Lookup(text).draft(3) == [4, 1, 2]


def test_rows_compute_as_much_ahead_as_any_of_few_can_use() -> None:
    def row(path: list[int]) -> Row:
        return Row(question("", 0, 0.0), path, Writer(()), random.Random(0))

    known, new = row([1, 2, 3, 1]), row([1, 2, 3])
    assert drafts([known], 100) == [[2, 3, 1]] and drafts([known], 6) == [[2]], "no more than the context has room for"
    assert drafts([known, new], 100) == [[2], [3]]
    assert drafts([new], 100) == [[]] and drafts([known] * 3, 100) == [[], [], []]
    asked, joined = row([1, 2, 3, 1]), row([1, 2, 3, 1])
    asked.choices, joined.twins = [5], [known]
    assert drafts([known, asked], 100) == drafts([known, joined], 100) == [[], []]


@pytest.fixture(scope="module")
def pair(quantised: Path) -> Iterator[tuple[LlamaCpp, LlamaCpp]]:
    """Without drafts and with them."""
    plain, drafting = (LlamaCpp(quantised, slots=4, context=192, weights="packed", drafting=on) for on in (False, True))
    yield plain, drafting
    plain.close()
    drafting.close()


def drawn(policy: LlamaCpp, *requests: Request) -> list[Response]:
    for request in requests:
        policy.add(request)
    responses: list[Response] = []
    while len(responses) < len(requests):
        responses += policy.step()
    return sorted(responses, key=lambda response: response.id)


def question(text: str, id: int, temperature: float, *, max_tokens: int = 100, stop: tuple[str, ...] = ()) -> Request:
    node = Node(key=text, messages=(Message("user", text),))
    return Request(id=id, node=node, sampling=Sampling(temperature, max_tokens=max_tokens, stop=stop), seed=id)


def after(count: int) -> Until:
    return lambda growth: len(growth.tokens) == count


@needs_kernels
@pytest.mark.parametrize("temperature", [0.0, 0.4])
@pytest.mark.parametrize("rows", [1, 2])
def test_the_same_is_drawn_in_fewer_steps(pair: tuple[LlamaCpp, LlamaCpp], rows: int, temperature: float) -> None:
    requests = [question(f"abcabc{id} {temperature}", id, temperature) for id in range(rows)]
    plain, drafting = pair
    before, slow = drafting.profile, plain.profile.row_steps
    assert drawn(drafting, *requests) == drawn(plain, *requests)
    kept = drafting.profile.kept - before.kept
    assert kept == plain.profile.row_steps - slow - (drafting.profile.row_steps - before.row_steps)
    assert plain.profile.drafted == 0
    if temperature == 0.0:  # a model of random weights soon repeats itself
        assert kept > 20
    assert drafting.counters == plain.counters


@needs_kernels
def test_every_way_to_end_ends_at_the_same_token(pair: tuple[LlamaCpp, LlamaCpp]) -> None:
    whole, _ = (drawn(policy, question("abc", 0, 0.0))[0] for policy in pair)
    for length in (41, 42, 43, 44):
        ends = [
            question("abc", 0, 0.0, max_tokens=length),
            question("abc", 0, 0.0, stop=(whole.text[length : length + 2],)),
            replace(question("abc", 0, 0.0), until=after(length)),
        ]
        for request in ends:
            (plain,), (drafted,) = (drawn(policy, request) for policy in pair)
            assert drafted == plain
    (plain,), (drafted,) = (drawn(policy, question("abc", 0, 0.0, max_tokens=999)) for policy in pair)
    assert drafted == plain  # cut by the context


@needs_kernels
def test_a_wrong_draft_leaves_nothing_for_who_goes_on(pair: tuple[LlamaCpp, LlamaCpp]) -> None:
    texts = []
    for policy in pair:
        node = Node(key="root", messages=(Message("user", "abcabc"),))
        for step in range(4):
            request = Request(step, node, Sampling(0.6, max_tokens=17), seed=step, hidden=True)
            (found,) = drawn(policy, request)
            node = Node(parent=node, text=found.text, tokens=found.tokens, finish=Finish.LENGTH, key=str(step))
            texts.append((found.text, found.cached_tokens, np.asarray(found.hidden).tobytes()))
    assert texts[:4] == texts[4:]
