"""On a tiny fp32 model every way of computing a text must give the same text: alone, together, shared, evicted."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from flyweight.policies.llamacpp import LlamaCpp, taps
from flyweight.policies.llamacpp.kernels import Unavailable
from flyweight.protocols import Request, Response
from flyweight.types import Finish, Node
from tests import tiny
from tests.engine_kit import Engines, child, cost, draw, drawn, finish, forced, prompt, run, totals

QUESTIONS = [prompt(f"question {i} " + "and so on " * i) for i in range(5)]


def tree(engine: LlamaCpp, rounds: int = 3, beams: int = 3, branch: int = 2) -> list[Response]:
    """A small beam search over two problems, always keeping the same draws; every response of it."""
    frontier = [root for root in QUESTIONS[:2] for _ in range(beams)]
    everything: list[Response] = []
    for turn in range(rounds):
        requests = [
            draw(turn * 100 + at * branch + i, node, max_tokens=6, stop=("\n\n",))
            for at, node in enumerate(frontier)
            for i in range(branch)
        ]
        responses = run(engine, requests)
        everything += responses
        frontier = [child(frontier[at], responses[at * branch], engine) for at in range(len(frontier))]
    return everything


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (0.7, 0.8), (1.7, 1.0)])
def test_equal_to_a_naive_reference(engines: Engines, temperature: float, top_p: float) -> None:
    engine = engines()
    reference = tiny.Reference()
    options = {"temperature": temperature, "top_p": top_p, "max_tokens": 16, "hidden": True}
    requests = [draw(i, QUESTIONS[i % 2], **options) for i in range(4)]  # type: ignore[arg-type]
    for request, response in zip(requests, run(engine, requests), strict=True):
        path = engine._tokens.path(request.node)
        naive = reference.sample(path, 16, temperature=temperature, top_p=top_p, seed=request.seed)
        assert list(response.tokens) == naive.tokens
        np.testing.assert_allclose(response.logprobs, naive.logprobs, atol=1e-4)
        np.testing.assert_allclose(response.certainty, naive.certainty, atol=1e-4)
        # The state a token was drawn from is the one at the position before it.
        states = reference.inner([*path, *response.tokens])[len(path) - 1 :]
        states = states if response.finish is Finish.END else states[:-1]
        np.testing.assert_allclose(cast(tiny.Array, response.hidden)[:, 0], states, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("compiled", [True, False])
def test_states_read_again_are_those_of_drawing(
    engines: Engines, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr(taps, "kernels", lambda: Unavailable("not wanted"))
    engine = engines()
    reference = tiny.Reference()
    drawn_ = run(engine, [draw(i, QUESTIONS[i % 2], max_tokens=40, hidden=True) for i in range(6)])
    asked = [draw(i, QUESTIONS[i % 2], max_tokens=40) for i in range(6)]
    nodes = [child(request.node, response, engine) for request, response in zip(asked, drawn_, strict=True)]
    assert any(node.complete for node in nodes) and not all(node.complete for node in nodes)
    again = run(engine, [replace(draw(10 + i, node), reread=True) for i, node in enumerate(nodes)])
    for first, second in zip(drawn_, again, strict=True):
        np.testing.assert_allclose(
            cast(tiny.Array, second.hidden), cast(tiny.Array, first.hidden), rtol=2e-3, atol=2e-3
        )
        assert second.generated_tokens == 0 and second.text == ""
        # Only what lies behind the prompt is computed again.
        assert second.prompt_tokens == len(cast(tiny.Array, first.hidden))
    root = nodes[0].root
    [prompt] = run(engines(), [replace(draw(20, root), reread=True)])
    tokens = engine._tokens.path(root)
    np.testing.assert_allclose(
        cast(tiny.Array, prompt.hidden)[:, 0], reference.inner(tokens)[:-1], rtol=1e-3, atol=1e-3
    )


def test_states_read_again_say_where_the_steps_of_a_text_end(engines: Engines) -> None:
    """Of text that somebody else wrote, the engine alone knows how many tokens a step has."""
    engine = engines()
    root = draw(0, QUESTIONS[0]).node
    first = Node(root, "one two", None, finish=Finish.FORCED, key="1")
    last = Node(first, "three", None, finish=Finish.FORCED, key="2")
    [found] = run(engine, [replace(draw(1, last), reread=True)])
    counted = len(engine._tokens.text("one two"))
    assert found.ends == (counted, len(cast(tiny.Array, found.hidden)))
    [alone] = run(engine, [replace(draw(2, first), reread=True)])
    np.testing.assert_allclose(
        cast(tiny.Array, found.hidden)[:counted], cast(tiny.Array, alone.hidden), rtol=2e-3, atol=2e-3
    )


def test_together_equals_alone(engines: Engines) -> None:
    requests = [draw(i, QUESTIONS[i % 5]) for i in range(12)]
    together = run(engines(), requests)
    for request, response in zip(requests, together, strict=True):
        (alone,) = run(engines(), [request])
        assert drawn(alone) == drawn(response)
        np.testing.assert_allclose(alone.logprobs, response.logprobs, atol=1e-4)


def test_continuous_equals_static(engines: Engines) -> None:
    """Requests that trickle in while others run draw what they would have drawn in one burst."""
    requests = [draw(i, QUESTIONS[i % 5], max_tokens=5 + i) for i in range(12)]
    static = run(engines(slots=12), requests)
    engine = engines(slots=3)
    out: list[Response] = []
    for request in requests:
        engine.add(request)
        out += engine.step()
    out += finish(engine, len(requests) - len(out))
    assert [drawn(r) for r in sorted(out, key=lambda r: r.id)] == [drawn(r) for r in static]


def test_order_of_arrival_does_not_matter(engines: Engines) -> None:
    requests = [draw(i, QUESTIONS[i % 5], max_tokens=4 + i % 7) for i in range(15)]
    expected = [drawn(r) for r in run(engines(), requests)]
    for seed in range(3):
        shuffled = random.Random(seed).sample(requests, len(requests))
        assert [drawn(r) for r in run(engines(), shuffled)] == expected


def test_eviction_changes_speed_only(engines: Engines) -> None:
    roomy, tight = engines(slots=8), engines(slots=2, parked_mb=0)
    with_room, without = tree(roomy), tree(tight)
    assert [drawn(r) for r in with_room] == [drawn(r) for r in without]
    for a, b in zip(with_room, without, strict=True):
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
    assert roomy.counters.recomputed_tokens == 0
    assert tight.counters.prompt_tokens > tight.counters.recomputed_tokens > 0


def test_a_shared_prefix_equals_one_computed_from_scratch(engines: Engines) -> None:
    engine = engines()
    root = QUESTIONS[4]
    (first,) = run(engine, [draw(1, root)])
    node = forced(child(root, first, engine), " wait, ")
    (shared,) = run(engine, [draw(2, node)])
    (scratch,) = run(engines(), [draw(2, node)])
    assert drawn(shared) == drawn(scratch)
    assert shared.cached_tokens > len(first.tokens) and scratch.cached_tokens == 0
    assert shared.prompt_tokens + shared.cached_tokens == scratch.prompt_tokens


@pytest.mark.parametrize("slots", [4, 16])
def test_a_prompt_is_computed_once_for_all_its_samples(engines: Engines, slots: int) -> None:
    engine = engines(slots=slots)
    root = QUESTIONS[3]
    length = len(engine._tokens.path(root))
    responses = run(engine, [draw(i, root) for i in range(16)])
    # One burst: the prompt once, everything else from the cache. Later bursts compute its last token, for the logits.
    late = 16 - slots
    assert engine.counters.prompt_tokens <= length + late
    assert all(r.prompt_tokens + r.cached_tokens == length for r in responses)
    if not late:
        assert sorted(r.prompt_tokens for r in responses) == [0] * 15 + [length]


def test_prompts_that_arrive_together_share_what_they_have_in_common(engines: Engines) -> None:
    engine = engines(slots=4)
    roots = [prompt("the same long beginning of every question, then: " + tail) for tail in ("a", "b", "c", "d")]
    lengths = [len(engine._tokens.path(root)) for root in roots]
    run(engine, [draw(i, root) for i, root in enumerate(roots)])
    assert engine.counters.prompt_tokens < lengths[0] + 3 * 40
    assert sum(lengths) == engine.counters.prompt_tokens + engine.counters.cached_tokens


def test_the_next_round_of_a_beam_computes_only_what_is_new(engines: Engines) -> None:
    engine = engines(slots=8)
    root = QUESTIONS[2]
    first = run(engine, [draw(i, root, max_tokens=8) for i in range(8)])
    before = engine.counters
    nodes = [child(root, first[i], engine) for i in (1, 6)]
    second = run(engine, [draw(100 + i, nodes[i // 4], max_tokens=8) for i in range(8)])
    # Per survivor: only the last drawn token had not been through the model.
    assert engine.counters.prompt_tokens - before.prompt_tokens == 2
    assert engine.counters.recomputed_tokens == 0
    assert cost(second)[1] == 4 * sum(len(engine._tokens.path(n)) for n in nodes) - 2


@pytest.mark.parametrize("slots", [1, 3, 8])
def test_counters_are_the_sums_of_all_responses(engines: Engines, slots: int) -> None:
    engine = engines(slots=slots, parked_mb=0)
    responses = tree(engine)
    tall = Node(parent=QUESTIONS[0], text="x" * 400, tokens=None)
    responses += run(engine, [draw(900, tall), draw(901, QUESTIONS[1], max_tokens=0)])
    for i in range(6):
        engine.add(draw(1000 + i, QUESTIONS[i % 5], max_tokens=50))
    for _ in range(3):
        responses += engine.step()
    responses += [engine.cancel(1000 + i) for i in range(6) if 1000 + i not in {r.id for r in responses}]
    assert totals(engine.counters) == cost(responses)
    assert engine.counters.recomputed_tokens <= engine.counters.prompt_tokens
    assert 0 < engine.counters.kv_bytes <= engine.counters.peak_kv_bytes


def test_choices_are_the_probabilities_of_first_tokens(engines: Engines) -> None:
    engine = engines()
    node = forced(QUESTIONS[1], "Is it right? ")
    requests = [
        Request(0, node, draw(0, node).sampling, 0, choices=("yes", "no", "the")),
        draw(1, node, max_tokens=3),
        Request(2, node, draw(0, node).sampling, 0, choices=("Q",)),
    ]
    first, sampled, second = run(engine, requests)
    logp = tiny.Reference().logp(engine._tokens.path(node))
    th = tiny.VOCABULARY.index("th")
    np.testing.assert_allclose(first.choices, [logp[ord("y")], logp[ord("n")], logp[th]], atol=1e-4)
    np.testing.assert_allclose(second.choices, [logp[ord("Q")]], atol=1e-4)
    assert (first.generated_tokens, first.text, first.tokens, first.error) == (0, "", (), None)
    assert drawn(sampled) == drawn(run(engines(), [requests[1]])[0])


def test_without_states_everything_else_works(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object) -> None:
        raise FileNotFoundError("no such library")

    monkeypatch.setattr(taps, "kernels", lambda: Unavailable("not wanted"))
    monkeypatch.setattr(taps, "load_shared_library", missing)
    blind = engines()
    [plain] = run(blind, [draw(1, QUESTIONS[0])])
    [seeing] = run(engines(), [draw(1, QUESTIONS[0])])
    assert plain.error is None and drawn(plain) == drawn(seeing)
    [hungry] = run(blind, [draw(2, QUESTIONS[0], hidden=True)])
    assert hungry.error is not None and "no hidden states" in hungry.error
