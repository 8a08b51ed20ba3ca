"""The real default model: shared prefixes, random numbers, and how far logits move with the shape of the batch."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from flyweight import models
from flyweight.errors import ModelError
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.protocols import Request
from flyweight.types import Finish, Node, Sampling
from tests.engine_kit import child, cost, draw, forced, prompt, run, totals

pytestmark = pytest.mark.model

ROOT = prompt(
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May?"
)
TOLERANCE = 0.35
"""Largest difference, in nats, of a drawn token's log-probability between batch shapes; measured below 0.1."""


def load(weights: str) -> LlamaCpp:
    try:
        path = models.resolve("qwen2.5-coder-0.5b")
    except ModelError as missing:
        pytest.skip(str(missing))
    return LlamaCpp(path, weights=weights, slots=16, context=1024)


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaCpp]:
    made = load("file")
    yield made
    made.close()


def test_the_prompt_is_computed_once_for_sixteen_samples(engine: LlamaCpp) -> None:
    before = engine.counters
    root = prompt("Write a haiku about streams.")
    length = len(engine._tokens.path(root))
    responses = run(engine, [draw(i, root, max_tokens=12, temperature=0.8) for i in range(16)])
    assert cost(responses)[:2] == (length, 15 * length)
    after = engine.counters
    assert totals(after) == tuple(a + b for a, b in zip(totals(before), cost(responses), strict=True))
    assert len({r.text for r in responses}) > 4
    assert all(r.error is None and "\ufffd" not in r.text for r in responses)


def test_the_next_rounds_of_a_beam_reuse_what_is_resident(engine: LlamaCpp) -> None:
    before = engine.counters
    frontier = [ROOT]
    for turn in range(3):
        requests = [
            draw(turn * 100 + 4 * at + i, node, max_tokens=10, stop=("\n\n",), temperature=0.8)
            for at, node in enumerate(frontier)
            for i in range(16 // len(frontier))
        ]
        responses = run(engine, requests)
        parents = {request.id: request.node for request in requests}
        keep = [r for r in responses if r.finish is not Finish.END][::4]
        frontier = [child(parents[r.id], r, engine) for r in keep]
    root = len(engine._tokens.path(ROOT))
    # After the first round each survivor costs one token: the last one drawn.
    assert engine.counters.prompt_tokens - before.prompt_tokens <= root + 2 * 4
    assert engine.counters.cached_tokens - before.cached_tokens >= 15 * root + 2 * 16 * root
    assert engine.counters.recomputed_tokens == before.recomputed_tokens


def test_probabilities_after_a_question_cost_only_the_question(engine: LlamaCpp) -> None:
    nodes = [child(ROOT, r, engine) for r in run(engine, [draw(i, ROOT, max_tokens=16) for i in range(4)])]
    question = "\n\nIs the answer above correct? Answer:"
    asked = [Request(50 + i, forced(n, question), Sampling(), 0, choices=(" Yes", " No")) for i, n in enumerate(nodes)]
    before = engine.counters
    responses = run(engine, asked)
    spent = engine.counters.prompt_tokens - before.prompt_tokens
    # The question, and the last drawn token unless a sibling had drawn on from it.
    assert 0 <= spent - 4 * len(engine._tokens.text(question)) <= 4
    assert all(-12 < p < 0 for r in responses for p in r.choices)


class Recorder(random.Random):
    """Remembers the uniform numbers each seed gave."""

    given: dict[int, list[float]] = {}  # noqa: RUF012

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.mine = Recorder.given[seed] = []

    def random(self) -> float:
        u = super().random()
        self.mine.append(u)
        return u


def test_company_changes_no_random_number_and_logits_only_within_tolerance(
    engine: LlamaCpp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "Random", Recorder)
    requests = [draw(i, ROOT, max_tokens=24, temperature=0.8) for i in range(16)]
    together = run(engine, requests)
    numbers = dict(Recorder.given)
    for request in requests[::9]:
        (alone,) = run(engine, [request])
        shared = min(len(numbers[request.seed]), len(Recorder.given[request.seed]))
        assert Recorder.given[request.seed][:shared] == numbers[request.seed][:shared]
        company = together[request.id]
        for a, b, p, q in zip(alone.tokens, company.tokens, alone.logprobs, company.logprobs, strict=False):
            if a != b:
                break  # a uniform number fell between the two distributions: from here on the texts differ
            assert abs(p - q) < TOLERANCE


@pytest.fixture(scope="module", params=["packed", "bf16"])
def other(request: pytest.FixtureRequest) -> Iterator[LlamaCpp]:
    made = load(request.param)
    if made.weights.kind == request.param:
        yield made
    else:
        pytest.skip(made.weights.note)
    made.close()


def test_other_forms_are_the_same_model(engine: LlamaCpp, other: LlamaCpp) -> None:
    """Greedy next tokens along one text agree but for near ties, and log-probabilities are close."""
    (text,) = run(engine, [draw(1, ROOT, max_tokens=48, temperature=0.0)])
    steps = range(len(text.tokens))
    nodes = [Node(parent=ROOT, text="", tokens=text.tokens[:n], policy=other.name) if n else ROOT for n in steps]
    greedy = run(other, [draw(n, nodes[n], max_tokens=1, temperature=0.0) for n in steps])
    same = [n for n in steps if greedy[n].tokens[:1] == text.tokens[n : n + 1]]
    assert len(same) >= 0.9 * len(steps)
    assert max(abs(greedy[n].logprobs[0] - text.logprobs[n]) for n in same) < 0.5


def test_our_kernels_give_the_same_text_in_any_company(other: LlamaCpp) -> None:
    if other.weights.kind != "packed":
        pytest.skip("llama.cpp's products depend on the shape of the batch")
    requests = [draw(i, ROOT, max_tokens=32, temperature=0.8) for i in range(16)]
    together = run(other, requests)
    for request in requests[::5]:
        (alone,) = run(other, [request])
        company = together[request.id]
        assert (alone.tokens, alone.logprobs) == (company.tokens, company.logprobs)
