"""The embedded engine against transformers on the very same weights.

    python -m benchmarks.reference

The GGUF file is unpacked to a folder of float32 weights, which `transformers:` runs; the engine runs the file in every
form it has. Both draw the same questions greedily. As long as the tokens are the same their log-probabilities are
compared: the weights are equal, so what differs is arithmetic (8-bit activations, f16 KV) and nothing else.
Prints a table, writes results/engine/reference.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flyweight import api, huggingface, models, tasks
from flyweight.cli import render
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.policies.transformers.policy import Transformers
from flyweight.protocols import Policy, Request, Response
from flyweight.types import Node, Sampling

__all__ = ["Agreement", "agreement", "unpacked"]

RESULT = Path(__file__).resolve().parent.parent / "results" / "engine" / "reference.json"


@dataclass
class Agreement:
    """How one form of the weights compares with the reference."""

    form: str
    texts: int
    same: int
    """Texts with the same tokens throughout."""
    compared: int
    """Tokens up to the first difference of each text."""
    mean: float
    """Absolute difference of their log-probabilities, in nats."""
    most: float


def agreement(form: str, ours: Sequence[Response], theirs: Sequence[Response]) -> Agreement:
    """Responses to the same requests, token by token as long as the tokens are the same."""
    apart: list[float] = []
    for a, b in zip(ours, theirs, strict=True):
        for mine, other, token, beside in zip(a.logprobs, b.logprobs, a.tokens, b.tokens, strict=False):
            if token != beside:
                break
            apart.append(abs(mine - other))
    same = sum(a.tokens == b.tokens for a, b in zip(ours, theirs, strict=True))
    return Agreement(form, len(ours), same, len(apart), statistics.fmean(apart), max(apart))


def unpacked(file: Path, folder: Path) -> Path:
    """The model of a GGUF file as a Hugging Face folder in float32."""
    torch, transformers = huggingface.libraries()
    (folder / "model.gguf").symlink_to(file.resolve())
    told = {"gguf_file": "model.gguf", "local_files_only": True}
    out = folder / "unpacked"
    read = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **told)
    read.config.__dict__.pop("quantization_config", None)  # it is none any more, and such a one cannot be saved
    plain = transformers.AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(folder, **told).save_pretrained(out)
    return out


def drawn(policy: Policy, roots: Sequence[Node], tokens: int) -> list[Response]:
    """A greedy text for every root, in order."""
    for number, root in enumerate(roots):
        policy.add(Request(number, root, Sampling(temperature=0.0, max_tokens=tokens), 0))
    found: list[Response] = []
    while len(found) < len(roots):
        found += policy.step()
    return sorted(found, key=lambda response: response.id)


def rows(file: Path, questions: int, tokens: int) -> Iterator[Agreement]:
    """Every form of the weights against the reference."""
    task = tasks.load("gsm8k")
    roots = [Node(messages=problem.conversation) for problem in task.problems()[:questions]]
    with (
        TemporaryDirectory(prefix="flyweight-reference-") as folder,
        closing(Transformers(str(unpacked(file, Path(folder))), context=1024, slots=questions)) as reference,
    ):
        expected = drawn(reference, roots, tokens)
    for form in ("file", "packed", "bf16"):
        with closing(LlamaCpp(file, weights=form, slots=questions, context=1024)) as engine:
            yield agreement(form, drawn(engine, roots, tokens), expected)


def main() -> None:
    parser = argparse.ArgumentParser(description="The embedded engine against transformers.")
    parser.add_argument("--model", default=api.DEFAULT_MODEL)
    parser.add_argument("--questions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    found = list(rows(models.resolve(options.model), options.questions, options.tokens))
    head = ("weights", "same texts", "tokens compared", "mean difference", "most")
    table = [(r.form, f"{r.same} of {r.texts}", f"{r.compared}", f"{r.mean:.4f}", f"{r.most:.3f}") for r in found]
    print(render.table(head, table, right=4))
    facts = {"model": options.model, "tokens": options.tokens, "rows": [asdict(row) for row in found]}
    RESULT.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
