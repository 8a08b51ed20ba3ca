"""How far does the bf16 copy of the weights stray from the file it was made of? (docs/engine.md)

    python -m benchmarks.encodings           # about half a minute

16 development questions with their solutions, 48 positions each, decoded by both files side by side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flyweight import models, tasks
from flyweight.policies.llamacpp.context import Context, Model
from flyweight.policies.llamacpp.machine import default_threads
from flyweight.policies.llamacpp.weights import encoded

STREAMS, POSITIONS = 16, 48


def main() -> None:
    path = models.resolve("qwen2.5-coder-0.5b")
    threads = default_threads()
    copy = encoded(path, "bf16", slots=STREAMS, threads=threads, cache_dir=None)
    sides = [Model(path), Model(copy.path)]
    texts = [f"{p.prompt}\n{p.meta['solution']}" for p in tasks.load("gsm8k").problems()[:STREAMS]]
    tokens = [sides[0].tokenize(text, special=False)[: POSITIONS + 1] for text in texts]
    contexts = [
        Context(model, streams=STREAMS, length=256, threads=threads, kv_type="f16", flash_attention=True)
        for model in sides
    ]
    kl, same, moved = [], [], []
    for position in range(POSITIONS):
        file, bf16 = (logprobs(context, tokens, position) for context in contexts)
        kl += (np.exp(file) * (file - bf16)).sum(axis=1).tolist()
        same += (file.argmax(axis=1) == bf16.argmax(axis=1)).tolist()
        following = [ids[position + 1] for ids in tokens]
        moved += np.abs((file - bf16)[np.arange(STREAMS), following]).tolist()
    print(f"{len(kl)} positions: mean KL {np.mean(kl):.4f} nats (largest {max(kl):.3f})")
    print(f"same favourite token: {np.mean(same):.1%}")
    print(f"log-probability of the next token: {np.mean(moved):.3f} nats apart on average, at most {max(moved):.2f}")


def logprobs(context: Context, tokens: list[list[int]], position: int) -> NDArray[np.float64]:
    """Log-probabilities after one more token of every text, [STREAMS, vocabulary]."""
    context.decode([ids[position] for ids in tokens], [position] * STREAMS, range(STREAMS), outputs=True, hidden=False)
    logits = context.logits().astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float64)


if __name__ == "__main__":
    main()
