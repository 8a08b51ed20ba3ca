"""What each choice of the engine is worth: decoding with one of them changed, and where a step's time goes.

    python -m benchmarks.variants            # about seven minutes
    python -m benchmarks.variants --only bf16,KV

Tokens/s of 32 rows with 400 tokens of context each and of prefill, a process for each variant; the table goes to
docs/performance.md, the picture to docs/step.svg. What is not named is the default: packed weights, our attention, f16
KV, flash attention, all CPUs, 512 tokens in a batch.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.picture import figure, save
from benchmarks.rig import ROOT, Child, Figures, publish
from flyweight import models

PAGE = ROOT / "docs" / "performance.md"
MODEL = "qwen2.5-coder-0.5b"
ROWS, CONTEXT, STEPS, PROMPT = 32, 400, 24, 512
ROUNDS = 2
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "the file's weights, llama.cpp's kernels": {"weights": "file", "attention": False},
    "bf16 weights, llama.cpp's kernels": {"weights": "bf16", "attention": False},
    "bf16 weights, our attention": {"weights": "bf16"},
    "llama.cpp's attention": {"attention": False},
    "no flash attention": {"flash_attention": False},
    "KV in bf16": {"kv_type": "bf16"},
    "KV in q8_0": {"kv_type": "q8_0"},
    "1 thread": {"threads": 1},
    "no logits at all": {"outputs": False},
    "batches of 64 tokens": {"batch": 64},
    "batches of 128 tokens": {"batch": 128},
    "OpenMP spins for milliseconds, its default": {"spin": "300000"},
    "OpenMP never spins": {"spin": "0"},
    "beside a busy process": {"busy": 1},
    "beside a busy process, OpenMP spins for milliseconds": {"busy": 1, "spin": "300000"},
    "beside two": {"busy": 2},
    "beside two, OpenMP spins for milliseconds": {"busy": 2, "spin": "300000"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="variants whose name contains one of these, separated by commas")
    wanted = [part for part in parser.parse_args().only.split(",") if part]
    names = [name for name in VARIANTS if not wanted or any(part in name for part in wanted)]
    rows = {name: measured(VARIANTS[name]) for name in names}
    lines = [
        f"| variant | {ROWS} rows, {CONTEXT} tokens of context: tokens/s | ms a step | products, attention | prefill |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        parts = f"{row['products']:.1f}, {row['attention']:.1f}" if row["products"] else "-"
        lines.append(
            f"| {name} | {row['rate']:.0f} | {1e3 * ROWS / row['rate']:.1f} | {parts} | {row['prefill']:.0f} |"
        )
    print("\n".join(lines))
    if not wanted:
        publish(PAGE, "variants", "\n".join(lines))
        picture(rows)


def measured(variant: Mapping[str, Any]) -> Figures:
    """Medians over the rounds of one variant."""
    os.environ["GOMP_SPINCOUNT"] = variant.get("spin", "1000")  # read by the child when it loads the library
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(variant.get("busy", 0))]
    try:
        child = Child(decode, str(models.resolve(MODEL)), variant)
        child.next()
        rounds = [child.next() for _ in range(ROUNDS)]
        child.close()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}


def decode(path: str, variant: Mapping[str, Any]) -> Iterator[Figures]:
    """Rounds of prefill and decoding on the engine's own context."""
    from pathlib import Path

    from flyweight.policies.llamacpp.context import Context, Model
    from flyweight.policies.llamacpp.kernels import Kernels, kernels
    from flyweight.policies.llamacpp.machine import default_threads
    from flyweight.policies.llamacpp.weights import encoded

    threads = variant.get("threads", default_threads())
    form = encoded(Path(path), variant.get("weights", "packed"), slots=ROWS, threads=threads, cache_dir=None)
    ours = kernels()
    if isinstance(ours, Kernels):
        ours.take_attention(variant.get("attention", True))
    model = Model(form.path, packed=form.kind == "packed")
    context = Context(
        model,
        streams=ROWS,
        length=1024,
        threads=threads,
        kv_type=variant.get("kv_type", "f16"),
        flash_attention=variant.get("flash_attention", True),
        batch=variant.get("batch", 512),
    )
    text = model.tokenize("The quick brown fox jumps over the lazy dog, and then it rests. " * 99, special=False)
    text = text[: max(PROMPT, CONTEXT + ROWS + STEPS)]

    def fill(count: int) -> float:
        started = time.perf_counter()
        for begin in range(0, count, variant.get("batch", 512)):
            part = range(begin, min(count, begin + variant.get("batch", 512)))
            context.decode(text[part.start : part.stop], part, [0] * len(part), outputs=False, hidden=False)
        return count / (time.perf_counter() - started)

    fill(PROMPT)
    yield {}
    while True:
        context.truncate(0, 0)
        prefill = fill(PROMPT)
        context.truncate(0, CONTEXT)
        blob = context.save(0)
        for row in range(1, ROWS):
            context.load(row, blob)
        seconds, parts = [], []
        for step in range(STEPS):
            before, began = ours.seconds() if isinstance(ours, Kernels) else (0.0, 0.0), time.perf_counter()
            tokens = [text[CONTEXT + row + step] for row in range(ROWS)]
            outputs = variant.get("outputs", True)
            context.decode(tokens, [CONTEXT + step] * ROWS, range(ROWS), outputs=outputs, hidden=False)
            if outputs:
                context.logits()
            seconds.append(time.perf_counter() - began)
            after = ours.seconds() if isinstance(ours, Kernels) else (0.0, 0.0)
            parts.append((after[0] - before[0], after[1] - before[1]))
        yield {
            "rate": ROWS / statistics.median(seconds),
            "prefill": prefill,
            "products": 1e3 * statistics.median(part[0] for part in parts),
            "attention": 1e3 * statistics.median(part[1] for part in parts),
        }


def picture(rows: Mapping[str, Figures]) -> None:
    """A step's milliseconds, by what they are spent on."""
    names = [name for name in rows if rows[name]["rate"] > 100]
    drawn, axes = figure(size=(8, 0.4 * len(names) + 1))
    whole = [1e3 * ROWS / rows[name]["rate"] for name in names]
    left = [0.0] * len(names)
    for part, colour in (("products", "#4c78a8"), ("attention", "#f58518")):
        axes.barh(names, [rows[name][part] for name in names], left=left, color=colour, label=f"our {part}")
        left = [begin + rows[name][part] for begin, name in zip(left, names, strict=True)]
    rest = [total - begin for total, begin in zip(whole, left, strict=True)]
    axes.barh(names, rest, left=left, color="#bab0ac", label="llama.cpp's operations")
    axes.invert_yaxis()
    axes.set_xlabel(f"ms a step of {ROWS} rows, {CONTEXT} tokens of context each")
    axes.legend(loc="lower right")
    save(drawn, "step.svg")


if __name__ == "__main__":
    main()
