"""Which strategy without a calibration? The strategies at equal tokens on 60 development questions.

    python -m benchmarks.default_strategy            # the table, from the committed recordings: no model, seconds
    python -m benchmarks.default_strategy --record   # draw what is missing: about 40 minutes on 2 cores

Questions: the first 60 of GSM8K's train split 9 by hash (never picked, not test questions). Every selector reads the
same 16 samples a question. Prints the table and writes it into docs/default-strategy.md; writes docs/dev60.svg (with
matplotlib: `pip install 'flyweight[plots]'`) and flyweight/tasks/data/dev60.json, which `flyweight demo` shows as its
footer.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks import picture
from benchmarks.cassette import Cassette, Recorded
from benchmarks.rig import ROOT, publish
from flyweight import models, stats, strategies, tasks, verifiers
from flyweight.protocols import Policy, Task
from flyweight.runner import Runner
from flyweight.strategies import Value
from flyweight.types import Problem, Result, Sampling

PAGE = ROOT / "docs" / "default-strategy.md"
RECORDINGS = ROOT / "results" / "dev60"
SUMMARY = ROOT / "flyweight" / "tasks" / "data" / "dev60.json"

SMALL, BIG = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
QUESTIONS = 60
MAX_TOKENS = 512
CURVE = (1, 2, 4, 8, 16)
"""Samples a question at which the picture shows majority and coverage."""
FOOTER = ("greedy", "self_consistency n=8", "coverage pass@8")
"""What the demo shows."""
BASELINE = "self_consistency n=8"
"""What the others are compared with, question by question."""


class Row(NamedTuple):
    """One line of the table."""

    name: str
    verifier: str
    model: str
    right: tuple[float, ...]
    """Per question: 1 right, 0 wrong (for random choice and coverage: an expectation)."""
    generated: float
    """Tokens a question."""
    verified: float
    flops: float


class Plan(NamedTuple):
    strategy: str
    parameters: Mapping[str, Value]
    verifier: str = ""
    model: str = SMALL


PLANS = [
    Plan("greedy", {}),
    Plan("greedy", {}, "", BIG),
    Plan("self_consistency", {"n": 16}),
    Plan("self_consistency", {"n": 8}),
    Plan("adaptive_consistency", {"n": 16}),
    Plan("adaptive_consistency", {"n": 8}),
    *(Plan(s, {"n": 8}, v) for v in ("p_true", "confidence", "self-certainty", "arithmetic") for s in
      ("best_of_n", "weighted_best_of_n")),
    *(Plan(s, {"n": 8, "width": 4}, "arithmetic") for s in ("beam_search", "dvts")),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="draw what the recordings lack")
    parser.add_argument("--only", default="", help="only rows whose strategy contains this")
    arguments = parser.parse_args()
    task = tasks.load("gsm8k")
    problems = list(task.problems()[:QUESTIONS])
    rows = []
    for plan in PLANS:
        if arguments.only in plan.strategy:
            rows += measure(plan, task, problems, arguments.record)
    print(table(rows))
    if not arguments.only:
        publish(PAGE, "dev60", table(rows))
        SUMMARY.write_text(json.dumps(summary(rows), indent=1) + "\n")
        curve = [measure(Plan("self_consistency", {"n": n}), task, problems, False)[0] for n in CURVE[1:]]
        plot(rows, curve)


def measure(plan: Plan, task: Task, problems: list[Problem], record: bool) -> list[Row]:
    """Run one plan over all questions at once; the pool of samples also gives random choice and coverage."""
    name = " ".join([plan.strategy, *(f"{key}={value}" for key, value in plan.parameters.items())])
    tape = "pool" if "width" not in plan.parameters else f"{plan.strategy}-{plan.verifier}"
    cassette = Cassette(RECORDINGS / f"{plan.model}-{tape}.jsonl.xz")
    policy = Recorded(
        plan.model, models.catalog()[plan.model].parameters, cassette, load(plan.model) if record else None
    )
    judges = {plan.verifier: verifiers.load(plan.verifier)} if plan.verifier else {}
    runner = Runner(policy, judges, answers=task, sampling=Sampling(max_tokens=MAX_TOKENS))
    began = time.monotonic()
    strategy = strategies.bind(plan.strategy, plan.parameters)
    results: dict[str, Result] = {}
    try:
        for result in runner.run(problems, strategy):
            results[result.problem.id] = result
            if policy.counters.generated_tokens:
                note = f"{name} {plan.verifier}: {len(results)}/{len(problems)}, {time.monotonic() - began:.0f} s"
                print(note, file=sys.stderr, flush=True)
    finally:
        runner.close()  # an interrupted recording keeps what it has
    ordered = [results[problem.id] for problem in problems]
    for result in ordered:
        if result.error is not None:
            raise SystemExit(f"{name}: {result.problem.id}: {result.error}")
    right = tuple(float(task.grade(r.problem, r.text).value == "correct") for r in ordered)
    rows = [row(name, plan, right, ordered)]
    if plan.strategy == "self_consistency" and plan.parameters["n"] == 16:
        graded = [[task.grade(r.problem, c.node.solution).value == "correct" for c in r.candidates] for r in ordered]
        chance = tuple(math.fsum(marks) / len(marks) for marks in graded)
        rows.append(row("random choice (1 sample)", plan, chance, ordered, share=1 / 16))
        for k in (8, 16):
            covered = tuple(stats.pass_at_k(len(marks), sum(marks), k) for marks in graded)
            rows.append(row(f"coverage pass@{k}", plan, covered, ordered, share=k / 16))
    return rows


def row(name: str, plan: Plan, right: tuple[float, ...], results: list[Result], share: float = 1.0) -> Row:
    count = len(results)
    return Row(
        name,
        plan.verifier,
        plan.model,
        right,
        share * sum(r.usage.generated_tokens for r in results) / count,
        sum(r.usage.verifier_tokens for r in results) / count,
        # Prefill is shared; with a share of the samples this is an upper bound by the prompt.
        share * sum(r.usage.flops for r in results) / count,
    )


def load(model: str) -> Callable[[], Policy]:
    def make() -> Policy:
        from flyweight.policies.llamacpp import LlamaCpp

        return LlamaCpp(models.resolve(model), name=model, slots=64, context=1024)

    return make


def table(rows: list[Row]) -> str:
    base = next((r.right for r in rows if r.name == BASELINE), None)
    lines = [
        "| strategy | verifier | model | right, % [95 %] | against majority of 8 | tokens | verifier tokens | TFLOP |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        low, value, high = interval(r)
        against = "-"
        if base is not None and r.name != BASELINE:
            d = stats.paired_bootstrap(r.right, base)
            against = f"{100 * d.value:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}]"
        cells = [
            r.name, r.verifier or "-", r.model.removeprefix("qwen2.5-coder-"),
            f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]", against,
            f"{r.generated:.0f}", f"{r.verified:.0f}", f"{r.flops / 1e12:.2f}",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def interval(r: Row) -> stats.Interval:
    """Wilson for right-or-wrong, bootstrap over questions for expectations."""
    if all(mark in (0.0, 1.0) for mark in r.right):
        return stats.wilson(int(sum(r.right)), len(r.right))
    return stats.bootstrap_mean(r.right)


def summary(rows: list[Row]) -> dict[str, object]:
    listed = []
    for r in (row for row in rows if row.name in FOOTER):
        low, value, high = interval(r)
        listed.append({
            "strategy": r.name if r.model == SMALL else f"{r.name}, {r.model}",
            "verifier": r.verifier, "model": r.model, "right": round(sum(r.right), 2),
            "low": round(low, 4), "value": round(value, 4), "high": round(high, 4),
            "tokens": round(r.generated), "verifier_tokens": round(r.verified), "flops": round(r.flops),
        })  # fmt: skip
    return {"questions": QUESTIONS, "model": SMALL, "max_tokens": MAX_TOKENS, "rows": listed}


def plot(rows: list[Row], majority: list[Row]) -> None:
    """Right answers against generated tokens, with intervals, chance, coverage and the bigger model."""
    by_name = {(r.name, r.verifier, r.model): r for r in rows}
    chance = by_name["random choice (1 sample)", "", SMALL]
    big = by_name["greedy", "", BIG]
    figure, axes = picture.figure(size=(8, 4.5))

    def show(points: list[Row], label: str, **style: Any) -> None:
        spans = [interval(r) for r in points]
        values = [100 * span.value for span in spans]
        errors = [[100 * (s.value - s.low) for s in spans], [100 * (s.high - s.value) for s in spans]]
        axes.errorbar([r.generated for r in points], values, errors, label=label, capsize=2, **style)

    show([chance, *majority], "majority of 1 to 16 samples", marker="o", color="tab:blue")
    covered = [chance, *(by_name[f"coverage pass@{k}", "", SMALL] for k in (8, 16))]
    show(covered, "coverage: any sample right", marker="o", mfc="white", ls=":", color="tab:gray")
    show([by_name["greedy", "", SMALL]], "greedy", marker="s", ls="", color="black")
    for name, colour in (("weighted_best_of_n n=8", "tab:green"), ("beam_search n=8 width=4", "tab:red"),
                         ("dvts n=8 width=4", "tab:purple")):  # fmt: skip
        show([by_name[name, "arithmetic", SMALL]], f"{name}, arithmetic", marker="D", ls="", color=colour)
    low, value, high = interval(big)
    axes.axhline(100 * value, color="tab:orange", label="1.5B, greedy (3 times the parameters)")
    axes.axhspan(100 * low, 100 * high, color="tab:orange", alpha=0.12)
    axes.set(xscale="log", ylim=(0, 100), xlabel="generated tokens a question", ylabel="right answers, %")
    axes.set_title("Qwen2.5-Coder-0.5B on 60 GSM8K development questions", fontsize=10)
    axes.legend(fontsize=8, loc="upper left", ncols=2)
    picture.save(figure, "dev60.svg")


if __name__ == "__main__":
    main()
