"""How far do other forms of the weights stray from the file they were made of? (docs/performance.md)

    python -m benchmarks.encodings           # about six minutes

64 recorded samples of the development questions (results/dev60), prompt and answer, 320 positions each: 20,480 tokens,
decoded by the file with llama.cpp's kernels' products and by the other forms, side by side.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.drafting import questions
from benchmarks.rig import ROOT, publish
from flyweight import models
from flyweight.policies.llamacpp.context import Context, Model
from flyweight.policies.llamacpp.machine import default_threads
from flyweight.policies.llamacpp.weights import encoded

STREAMS, POSITIONS, BATCHES = 32, 320, 2
PAGE = ROOT / "docs" / "performance.md"
Rows = NDArray[np.float32]


def main() -> None:
    path = models.resolve("qwen2.5-coder-0.5b")
    texts = [[*question.prompt, *sample] for question in questions() for sample in question.samples[:4]]
    texts = [tokens for tokens in texts if len(tokens) > POSITIONS][: STREAMS * BATCHES]
    if len(texts) < STREAMS * BATCHES:
        raise SystemExit(f"only {len(texts)} recorded samples are long enough")
    forms = {
        kind: encoded(path, kind, slots=STREAMS, threads=default_threads(), cache_dir=None)
        for kind in ("packed", "bf16")
    }
    sides = {"file": side(path)} | {
        form.kind: side(form.path, packed=form.kind == "packed") for form in forms.values() if form.kind != "file"
    }
    kl: dict[str, list[float]] = {kind: [] for kind in sides if kind != "file"}
    same: dict[str, list[bool]] = {kind: [] for kind in kl}
    moved: dict[str, list[float]] = {kind: [] for kind in kl}
    for batch in range(BATCHES):
        tokens = texts[batch * STREAMS : (batch + 1) * STREAMS]
        for position in range(POSITIONS):
            following = [ids[position + 1] for ids in tokens]
            rows = {kind: logprobs(context, tokens, position) for kind, context in sides.items()}
            file = rows.pop("file")
            weight = np.exp(file)
            for kind, other in rows.items():
                kl[kind] += np.einsum("rv,rv->r", weight, file - other, dtype=np.float64).tolist()
                same[kind] += (file.argmax(axis=1) == other.argmax(axis=1)).tolist()
                moved[kind] += np.abs((file - other)[np.arange(STREAMS), following]).tolist()
        for context in sides.values():
            for stream in range(STREAMS):
                context.truncate(stream, 0)
    lines = [
        "| form | tokens | mean KL to the file, nats | largest | same favourite token | next token's log-probability |",
        "|---|---|---|---|---|---|",
    ]
    for kind in kl:
        apart = f"{np.mean(moved[kind]):.4f} nats apart, at most {max(moved[kind]):.2f}"
        kl_figures = f"{np.mean(kl[kind]):.5f} | {max(kl[kind]):.3f}"
        lines.append(f"| {kind} | {len(kl[kind]):,} | {kl_figures} | {np.mean(same[kind]):.2%} | {apart} |")
    print("\n".join(lines))
    publish(PAGE, "encodings", "\n".join(lines))


def side(path: Path, *, packed: bool = False) -> Context:
    model = Model(path, packed=packed)
    return Context(
        model, streams=STREAMS, length=POSITIONS + 1, threads=default_threads(), kv_type="f16", flash_attention=True
    )


def logprobs(context: Context, tokens: list[list[int]], position: int) -> Rows:
    """Log-probabilities after one more token of every text, [STREAMS, vocabulary]."""
    context.decode([ids[position] for ids in tokens], [position] * STREAMS, range(STREAMS), outputs=True, hidden=False)
    logits = context.logits()
    shifted = logits - logits.max(axis=1, keepdims=True)
    shifted -= np.log(np.einsum("rv->r", np.exp(shifted), dtype=np.float64))[:, None].astype(np.float32)
    return np.asarray(shifted, np.float32)


if __name__ == "__main__":
    main()
