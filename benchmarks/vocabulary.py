"""What would a head with fewer tokens save, and what would it lose? (docs/performance.md)

    python -m benchmarks.vocabulary          # about a minute

Kept are the tokens that occur in the recorded samples of half of the development questions (results/dev60). Lost is
what the model gives to all others: on what was drawn for the other half (the first 320 positions of 32 texts), and in
the reference programs of MBPP, which nobody thought of when the tokens were chosen. Saved is at most a step's whole
head: 32 rows with 400 tokens of context, with logits and without.
"""

from __future__ import annotations

import math
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
    pairs = [(question.prompt, sample) for question in recorded[1::2] for sample in question.samples[:4]]
    pairs = [(prompt, sample) for prompt, sample in pairs if len(prompt) + len(sample) > POSITIONS][:STREAMS]
    texts = [[*prompt, *sample] for prompt, sample in pairs]
    starts = [len(prompt) - 1 for prompt, _ in pairs]
    context = side(path, packed=packed)
    kept = set(chosen)
    lost: list[float] = []
    outside: list[bool] = []
    for position in range(POSITIONS):
        rows = logprobs(context, texts, position)
        mass = np.exp(rows[:, chosen], dtype=np.float64).sum(axis=1)
        drawn = [row for row, start in enumerate(starts) if position >= start]
        lost += [-math.log(mass[row]) for row in drawn]
        outside += [texts[row][position + 1] not in kept for row in drawn]
    context.close()
    print(f"{len(chosen):,} tokens kept of {rows.shape[1]:,}")
    print(f"other questions: mean KL of what is left to the model {np.mean(lost):.4f} nats, largest {max(lost):.1f}; ")
    print(f"  {np.mean(outside):.2%} of {len(outside):,} recorded tokens could not have been drawn")
    model = Model(path)
    task = tasks.load("mbpp", split="test")
    programs = [model.tokenize(task.reference(problem), special=False) for problem in task.problems()]  # type: ignore[attr-defined]
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
