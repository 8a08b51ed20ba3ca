"""What would a head with fewer tokens save, and what would it lose? (docs/performance.md)

    python -m benchmarks.vocabulary          # about a minute

Kept are the tokens that occur in the recorded samples of half of the development questions (results/dev60). Lost is
what the model gives to all others: on 10,240 recorded positions of the other half, and in the reference programs of
MBPP, which nobody thought of when the tokens were chosen. Saved is at most a step's whole head: 32 rows with 400 tokens
of context, with logits and without.
"""

from __future__ import annotations

import statistics

import numpy as np

from benchmarks.drafting import questions
from benchmarks.encodings import POSITIONS, STREAMS, logprobs, side
from benchmarks.rig import Child
from benchmarks.variants import MODEL, ROWS, decode
from flyweight import models, tasks
from flyweight.policies.llamacpp.context import Model
from flyweight.policies.llamacpp.kernels import Kernels, kernels

ROUNDS = 3


def main() -> None:
    path, packed = models.resolve(MODEL), isinstance(kernels(), Kernels)
    recorded = questions()
    chosen = sorted({token for question in recorded[::2] for sample in question.samples for token in sample})
    texts = [[*question.prompt, *sample] for question in recorded[1::2] for sample in question.samples[:4]]
    texts = [tokens for tokens in texts if len(tokens) > POSITIONS][:STREAMS]
    context = side(path, packed=packed)
    lost: list[float] = []
    outside: list[bool] = []
    for position in range(POSITIONS):
        rows = logprobs(context, texts, position)
        lost += (-np.log(np.exp(rows[:, chosen], dtype=np.float64).sum(axis=1))).tolist()
        outside += [ids[position + 1] not in set(chosen) for ids in texts]
    context.close()
    print(f"{len(chosen):,} tokens kept of {rows.shape[1]:,}")
    print(f"other questions: mean KL of what is left to the model {np.mean(lost):.4f} nats, largest {max(lost):.1f}; ")
    print(f"  {np.mean(outside):.2%} of {len(outside):,} recorded tokens could not have been drawn")
    model = Model(path)
    task = tasks.load("mbpp", split="test")
    programs = [model.tokenize(task.reference(problem), special=False) for problem in task.problems()]  # type: ignore[attr-defined]
    kept = set(chosen)
    gone = sum(any(token not in kept for token in program) for program in programs)
    share = statistics.mean(token not in kept for program in programs for token in program)
    print(f"MBPP references: {share:.1%} of their tokens could not be drawn, in {gone} of {len(programs)} programs")
    children = {outputs: Child(decode, str(path), {"outputs": outputs}) for outputs in (True, False)}
    for child in children.values():
        child.next()
    rates = {
        outputs: statistics.median(child.next()["rate"] for _ in range(ROUNDS)) for outputs, child in children.items()
    }
    for child in children.values():
        child.close()
    whole, bare = (1e3 * ROWS / rates[outputs] for outputs in (True, False))
    print(f"a step of {ROWS} rows: {whole:.1f} ms, without its head {bare:.1f}: at most {whole / bare:.2f} x")


if __name__ == "__main__":
    main()
