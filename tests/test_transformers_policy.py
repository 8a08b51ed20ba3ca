"""The policy on torch: the embedded engine's own results on the same weights, and any other causal model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

from flyweight import api, strategies, verifiers  # noqa: E402
from flyweight.errors import ConfigError, ModelError  # noqa: E402
from flyweight.policies.llamacpp import LlamaCpp  # noqa: E402
from flyweight.policies.transformers.policy import Transformers  # noqa: E402
from flyweight.protocols import Request, Response  # noqa: E402
from flyweight.runner import Runner  # noqa: E402
from flyweight.testing import BoxedAnswers, check_policy  # noqa: E402
from flyweight.types import Finish, Node, Problem, Sampling  # noqa: E402
from tests import tiny, tiny_hf  # noqa: E402
from tests.engine.conftest import EXACT, quantised, tiny_path  # noqa: E402
from tests.engine_kit import child, cost, draw, drawn, finish, forced, prompt, run, totals  # noqa: E402
from tests.verifiers import prm_kit as kit  # noqa: E402

__all__ = ["quantised", "tiny_path"]

QUESTIONS = [prompt(f"question {i} " + "and so on " * i) for i in range(4)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model of seed 0."""
    return tiny_hf.make(tmp_path_factory.mktemp("hf") / "tiny")


@pytest.fixture
def policy(folder: Path) -> Iterator[Transformers]:
    made = Transformers(str(folder), slots=4, context=256)
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    made = LlamaCpp(tiny.make(tmp_path_factory.mktemp("gguf") / "tiny.gguf"), **EXACT)
    yield made
    made.close()


def close(ours: Response, theirs: Response) -> None:
    assert drawn(ours) == drawn(theirs)
    np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
    np.testing.assert_allclose(ours.certainty, theirs.certainty, atol=1e-4)
    assert ours.generated_tokens == theirs.generated_tokens
    assert ours.prompt_tokens + ours.cached_tokens == theirs.prompt_tokens + theirs.cached_tokens


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (0.7, 0.8)])
def test_the_same_weights_draw_the_same_as_in_the_embedded_engine(
    policy: Transformers, engine: LlamaCpp, temperature: float, top_p: float
) -> None:
    requests = [
        draw(i, QUESTIONS[i % 3], temperature=temperature, top_p=top_p, stop=("\n\n", "th"), hidden=True)
        for i in range(8)
    ]
    for ours, theirs in zip(run(policy, requests), run(engine, requests), strict=True):
        close(ours, theirs)
        np.testing.assert_allclose(ours.hidden, theirs.hidden, rtol=2e-3, atol=2e-3)  # type: ignore[call-overload]


def test_forks_choices_and_states_read_again_are_the_engines_too(policy: Transformers, engine: LlamaCpp) -> None:
    found = []
    for each in (policy, engine):
        first = run(each, [draw(i, QUESTIONS[1], max_tokens=6) for i in range(3)])
        nodes = [forced(child(QUESTIONS[1], response, each), " wait, é") for response in first]
        asked = [draw(10 + i, nodes[i // 2]) for i in range(6)]
        asked += [replace(draw(20, nodes[0]), choices=("yes", "no", "the")), replace(draw(21, nodes[2]), reread=True)]
        found.append(run(each, asked))
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)
        np.testing.assert_allclose(ours.choices, theirs.choices, atol=1e-4)
    np.testing.assert_allclose(found[0][-1].hidden, found[1][-1].hidden, rtol=2e-3, atol=2e-3)  # type: ignore[call-overload]


def test_quantised_weights_agree_within_the_error_of_quantising(policy: Transformers, quantised: Path) -> None:
    """Eight-bit blocks of the same weights move log-probabilities by a twentieth; another question by far more."""
    rough = LlamaCpp(quantised, **EXACT)
    letters = tuple("abcdefghijklmnopqrstuvwxyz")
    asked = [replace(draw(i, root), choices=letters) for i, root in enumerate(QUESTIONS)]
    exact, near = ([response.choices for response in run(each, asked)] for each in (policy, rough))
    rough.close()
    apart = np.abs(np.array(exact) - np.array(near))
    assert 1e-4 < apart.mean() < 0.1 and apart.max() < 0.5
    assert np.abs(np.array(exact) - np.array(exact[::-1])).mean() > 0.5


def test_it_keeps_the_contract_exactly(policy: Transformers) -> None:
    check_policy(policy)


def test_whole_searches_are_those_of_the_engine(folder: Path, engine: LlamaCpp) -> None:
    problems = [Problem(f"p{i}", f"Count to {i}.") for i in range(3)]
    strategy = strategies.bind("best_of_n", {"n": 4})
    judge = {"confidence": verifiers.load("confidence")}
    said = []
    made = api.find_policy(f"transformers:{folder}", context=256, slots=4)()
    for each in (made, engine):
        runner = Runner(each, judge, answers=BoxedAnswers(), sampling=Sampling(max_tokens=24))
        results = sorted(runner.run(problems, strategy), key=lambda result: result.problem.id)
        said.append([(r.text, r.usage.generated_tokens, len(r.candidates), r.error) for r in results])
    assert said[0] == said[1]


def test_company_order_and_eviction_change_nothing(folder: Path) -> None:
    requests = [draw(i, QUESTIONS[i % 4], max_tokens=4 + i % 7) for i in range(10)]
    roomy, tight = (
        Transformers(str(folder), slots=10, context=256),
        Transformers(str(folder), slots=2, context=256, cache_mb=0),
    )
    expected = run(roomy, requests)
    for ours, alone in zip(expected, run(tight, requests[::-1]), strict=True):
        assert drawn(ours) == drawn(alone)
    assert roomy.counters.recomputed_tokens == 0 < tight.counters.recomputed_tokens
    assert totals(roomy.counters) == cost(expected)


def test_a_prompt_is_computed_once_for_all_that_share_it(policy: Transformers) -> None:
    length = len(policy._tokens.path(QUESTIONS[3]))
    responses = run(policy, [draw(i, QUESTIONS[3]) for i in range(4)])
    assert sorted(r.prompt_tokens for r in responses) == [0, 0, 0, length]
    alike = [prompt("the same long beginning of every question, then: " + tail) for tail in "abcd"]
    before = policy.counters.prompt_tokens
    run(policy, [draw(10 + i, root) for i, root in enumerate(alike)])
    assert policy.counters.prompt_tokens - before < len(policy._tokens.path(alike[0])) + 3 * 40


def test_long_prompts_are_read_in_pieces(policy: Transformers, engine: LlamaCpp) -> None:
    policy._chunk = 32
    requests = [draw(i, prompt("x" * (40 * i + 40))) for i in range(3)]
    for ours, theirs in zip(run(policy, requests), run(engine, requests), strict=True):
        close(ours, theirs)


def test_cancelling_the_first_of_many_samples_leaves_the_others_before_who_waits(policy: Transformers) -> None:
    policy._chunk = 32
    long = prompt("w" * 180)
    requests = [*(draw(i, long, max_tokens=8) for i in range(4)), draw(4, QUESTIONS[0])]
    for request in requests:
        policy.add(request)
    assert policy.step() == []
    first = policy.cancel(0)
    assert first.finish is Finish.CUT and first.prompt_tokens == 32
    assert policy.step() == [] and [row.request.id for row in policy._rows] == [1, 2, 3, 4]
    rest = finish(policy, 4)
    assert totals(policy.counters) == cost([first, *rest])
    assert [drawn(r) for r in rest] == [drawn(r) for r in run(policy, requests[1:])]


def test_what_goes_wrong_is_said_by_its_own_request(policy: Transformers) -> None:
    def broken(_: object) -> bool:
        raise ValueError("no\nidea")

    tall = Node(parent=QUESTIONS[0], text="x" * 300, tokens=None)
    found = run(
        policy,
        [
            draw(0, prompt("x" * 300)),
            draw(1, tall),
            draw(2, QUESTIONS[0], grammar="root ::= [a-z]+"),
            replace(draw(3, QUESTIONS[0]), until=broken),
            draw(4, QUESTIONS[0], temperature=-1.0),
            draw(5, QUESTIONS[0]),
        ],
    )
    assert "raise context" in str(found[0].error)
    assert found[1].finish is Finish.LENGTH and found[1].error is None
    assert "embedded engine" in str(found[2].error)
    assert found[3].error == "ValueError: no idea"
    assert "temperature" in str(found[4].error)
    assert found[5].error is None and found[5].tokens


def test_an_overfull_memory_ends_its_requests_only(policy: Transformers, monkeypatch: pytest.MonkeyPatch) -> None:
    real = policy._network.call
    calls = iter(range(100))

    def call(*arguments: Any, **more: Any) -> Any:
        if next(calls) == 3:
            raise torch.OutOfMemoryError("full")
        return real(*arguments, **more)

    monkeypatch.setattr(policy._network, "call", call)
    found = run(policy, [draw(i, QUESTIONS[0]) for i in range(6)])
    assert [r.error for r in found if r.error] == ["OutOfMemoryError: full"] * 4
    assert totals(policy.counters) == cost(found)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "weights.pkl"])
def test_weights_that_can_run_code_are_refused(folder: Path, tmp_path: Path, file: str) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / file).write_bytes(b"\x80\x04anything")
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        Transformers(str(tmp_path))


def test_code_of_a_models_own_never_runs(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoModelForCausalLM": "own.Own", "AutoConfig": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()", "utf-8")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Transformers(str(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("transformers:", "names no model"),
        ("transformers:FOLDER#float8", "float32"),
        ("transformers:nowhere", "config.json|cannot fetch"),
    ],
)
def test_mistakes_are_one_line(folder: Path, reference: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((ConfigError, ModelError), match=said) as raised:
        api.find_policy(reference.replace("FOLDER", str(folder)))()
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="trained for 512"):
        Transformers(str(folder), context=1024)


def test_the_precision_is_the_files_or_the_one_asked_for(folder: Path) -> None:
    policy = api.find_policy(f"transformers:{folder}#bfloat16", context=128)()
    assert policy.name.split()[:2] == ["tiny", "bfloat16"]
    check_policy(policy, exact=False)


@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "mamba"])
def test_other_families_write_what_transformers_writes(family: str, tmp_path: Path) -> None:
    """Rotary or learned positions, byte-level or SentencePiece, with a memory that forks or without."""
    torch.manual_seed(0)
    if family in ("llama", "mistral"):
        path = kit.causal(tmp_path, family, kit.pieces_tokenizer())
    else:
        tokenizer = kit.bytes_tokenizer(kit.CHATML)
        size = len(tokenizer)
        shape: dict[str, Any] = {"vocab_size": size, "initializer_range": 0.4, "eos_token_id": 0, "bos_token_id": 0}
        model = (
            transformers.GPT2LMHeadModel(
                transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **shape)
            )
            if family == "gpt2"
            else transformers.MambaForCausalLM(
                transformers.MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=8, **shape)
            )
        )
        path = kit.save(tmp_path, tokenizer, model)
    policy = Transformers(str(path), slots=3, context=128)
    assert policy._network.forks == (family != "mamba")
    requests = [draw(i, QUESTIONS[i % 2], temperature=0.0, max_tokens=10) for i in range(4)]
    responses = run(policy, requests)
    for request, response in zip(requests, responses, strict=True):
        path_ids = policy._tokens.path(request.node)
        naive: list[int] = []
        while len(naive) < 10:
            with torch.inference_mode():
                next_id = int(policy._network.model(torch.tensor([path_ids + naive])).logits[0, -1].argmax())
            if policy._vocabulary.ends(next_id):
                break
            naive.append(next_id)
        assert response.error is None and list(response.tokens) == naive
        written = b"".join(map(policy._tokens.piece, naive)).decode("utf-8", "replace")
        assert written.startswith(response.text) and set(written[len(response.text) :]) <= {"\N{REPLACEMENT CHARACTER}"}
    assert totals(policy.counters) == cost(responses)
    [went_on] = run(policy, [draw(9, forced(QUESTIONS[0], "so 1 + 1"), temperature=0.0, max_tokens=4)])
    assert went_on.error is None and (went_on.cached_tokens > 0) == policy._network.forks
    assert isinstance(
        run(policy, [Request(10, QUESTIONS[0], Sampling(max_tokens=1), 0, reread=True)])[0].hidden, np.ndarray
    )
