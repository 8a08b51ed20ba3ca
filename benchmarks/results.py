"""First results: what searching buys a 0.5B model on test questions, beside a model three times its size.

    python -m benchmarks.results                   # docs/results.md from results/pools: no model, no sandbox, a minute
    python -m benchmarks.results --draw            # draw what is missing first: about two hours on 2 cores
    python -m benchmarks.results --cost            # measure seconds and memory of one question at a time: four minutes
    python -m benchmarks.results --only gsm8k      # parts whose name contains this; prints, writes no page

Every task has a store of its own under --runs, filled from results/pools where it is missing, and written back there
after --draw. `flyweight report --runs runs/results/gsm8k` shows all that it holds. Nothing was chosen by looking at
these questions: they are the first by the hash of their ids, every setting is the default of its strategy, and n was
fixed beforehand. Speeds come from runs of their own (seed 1, four questions), drawn with nothing else running.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.rig import ROOT, Child, Figures, machine, table
from flyweight import bench, stats, strategies, tasks
from flyweight.api import Session
from flyweight.bench import Plan, Progress
from flyweight.protocols import Policy
from flyweight.report import Report, page, text
from flyweight.report.records import Recorded
from flyweight.report.words import between, difference, operations
from flyweight.store import Store
from flyweight.strategies import Value

SMALL, BIG = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
POOLS = ROOT / "results" / "pools"
PAGE = ROOT / "docs" / "results.md"
SPEED_SEED, SPEED_QUESTIONS = 1, "4"


class Part(NamedTuple):
    """Questions, and what is run on them."""

    name: str
    store: str
    """Where it is kept; parts that share draws share it."""
    plans: Sequence[Plan]
    speed: Sequence[Plan]
    """Drawn only for their seconds."""


def parts() -> Iterator[Part]:
    """GSM8K, the first 60 of its questions with tree searches and more samples of the bigger model, and the others."""
    words = ("confidence", "p_true", "arithmetic")
    gsm8k = Plan("gsm8k", split="test", limit="250")
    yield part("gsm8k", gsm8k, 16, words)
    few = replace(gsm8k, limit="60")
    trees = [
        replace(few, strategy=name, parameters={"n": 16, "width": 4}, verifier="arithmetic")
        for name in ("beam_search", "dvts")
    ]
    samples = [
        replace(few, strategy="self_consistency", parameters={"n": n}, model=model)
        for n, model in ((16, SMALL), (8, BIG))
    ]
    greedy = [replace(few, strategy="greedy", model=model) for model in (SMALL, BIG)]
    yield Part("gsm8k-60", "gsm8k", [*greedy, *samples, *trees], [speed(plan) for plan in (*trees, samples[1])])
    yield part("math500", Plan("math500", limit="60", by="level", max_tokens=1024), 8, words)
    code = ("confidence", "p_true", "tests")
    yield part("humaneval", Plan("humaneval"), 8, code)
    yield part("mbpp", Plan("mbpp", split="test", limit="100"), 8, code)


def part(name: str, plan: Plan, n: int, judges: Sequence[str]) -> Part:
    """Greedy of both models, and what can be chosen from n samples of the small one."""
    chosen = ["greedy", "self_consistency", "adaptive_consistency", "best_of_n", "weighted_best_of_n"]
    small = bench.grid(replace(plan, model=SMALL), chosen, judges, [n])
    big = replace(plan, strategy="greedy", model=BIG)
    return Part(name, name, [*small, big], [speed(small[1]), speed(replace(small[1], parameters={"n": 8}, model=BIG))])


def speed(plan: Plan) -> Plan:
    """The same on a few questions, with other draws."""
    return replace(plan, seed=SPEED_SEED, limit=SPEED_QUESTIONS, by=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="run the models for what is not on record")
    parser.add_argument("--cost", action="store_true", help="measure what one question costs")
    parser.add_argument("--only", default="", help="only parts whose name contains this")
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="folder of the stores")
    arguments = parser.parse_args()
    if arguments.cost:
        measure_cost()
    reports = {
        part.name: record(part, arguments.runs, None if arguments.draw else refuse)
        for part in parts()
        if arguments.only in part.name
    }
    if arguments.only:
        print("\n".join(figures.terminal() for figures in reports.values()))
        return
    for name, figures in reports.items():
        if any(section.pools for section in figures.sections):
            (PAGE.parent / f"results-{name}.svg").write_text(figures.svg(), "utf-8")
    PAGE.write_text(written(reports), "utf-8")


def record(part: Part, folder: Path, load: bench.Load | None) -> Report:
    """Everything of a part, from its store, drawn first where something is missing and may be."""
    path, pool = folder / part.store / "flyweight.db", POOLS / f"{part.store}.jsonl.xz"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with Store(path) as store:
        if new and pool.exists():
            store.load(pool)
        plans = [*part.plans, *part.speed]
        summaries = bench.execute(store, plans, on_progress=show, load=load)
        print()
        if any(summary.calls or summary.readings for summary in summaries) or not pool.exists():
            POOLS.mkdir(parents=True, exist_ok=True)
            store.dump(pool)
        return Report.of(store, [summary.run for summary in summaries[: len(part.plans)]])


def show(progress: Progress) -> None:
    """One line that says how far it is."""
    line = f"{progress.number}/{progress.of} {progress.job.plan.task} {progress.job.plan.model} {progress.job.label}"
    print(f"\r{line}: {progress.tally.searched}/{len(progress.job.problems)}\x1b[K", end="", flush=True)


def refuse(model: str, context: int, weights: str) -> Callable[[], Policy]:
    """What is missing is not drawn by accident."""

    def missing() -> Policy:
        raise SystemExit(f"results/pools lacks draws of {model}: run with --draw")

    return missing


# One question at a time ----------------------------------------------------------------------------------------------

COST = ROOT / "results" / "cost.json"
ALONE = 4
"""Questions searched one after the other."""
ALONE_RUNS: Sequence[tuple[str, str, Mapping[str, Value]]] = (
    (SMALL, "greedy", {}),
    (SMALL, "self_consistency", {"n": 8}),
    (SMALL, "self_consistency", {"n": 16}),
    (BIG, "greedy", {}),
    (BIG, "self_consistency", {"n": 8}),
)


def measure_cost() -> None:
    """Seconds and memory of both models, a process for each row."""
    rows = []
    for model, strategy, parameters in ALONE_RUNS:
        child = Child(alone, model, strategy, parameters)
        child.next()
        figures = child.next()
        rows.append(
            {"model": model, "strategy": strategy, "n": parameters.get("n", 1), **figures, "peak_mb": child.close()}
        )
    COST.write_text(json.dumps({"machine": machine(), "questions": ALONE, "rows": rows}, indent=1) + "\n", "utf-8")


def alone(model: str, strategy: str, parameters: Mapping[str, Value]) -> Iterator[Figures]:
    """A warm model; then each question on its own."""
    task = tasks.load("gsm8k", split="test")
    problems = tasks.pick(task.problems(), ALONE)
    with Session(model, answers=task, context=1024) as session:
        yield {}
        began = time.perf_counter()
        results = list(session.runner.run(problems, strategies.bind(strategy, parameters), in_flight=1))
        seconds = time.perf_counter() - began
        tokens = sum(result.usage.generated_tokens for result in results)
        flops = sum(result.usage.flops for result in results)
        kv = max(result.usage.peak_kv_bytes for result in results)
        yield {"seconds": seconds / ALONE, "tokens": tokens / ALONE, "flops": flops / ALONE, "peak_kv_mb": kv / 1e6}


def cost() -> str:
    """The table of them."""
    measured = json.loads(COST.read_text("utf-8"))
    head = ["model", "run", "tokens", "FLOPs", "seconds", "tokens/s", "peak memory, MB", "of it KV in use, MB"]
    lines = [
        [
            row["model"],
            row["strategy"] + (f" n={row['n']}" if row["n"] > 1 else ""),
            f"{row['tokens']:.0f}",
            operations(row["flops"]),
            f"{row['seconds']:.1f}",
            f"{row['tokens'] / row['seconds']:.0f}",
            f"{row['peak_mb']:.0f}",
            f"{row['peak_kv_mb']:.0f}",
        ]
        for row in measured["rows"]
    ]
    return (
        f"## One question at a time\n\nMeans over {measured['questions']} GSM8K questions, one after the other on a "
        f"warm model ({measured['machine']['cpu']}, 2 CPUs), 32 slots of 1,024 tokens.\n\n{table(head, lines)}\n"
    )


# The page --------------------------------------------------------------------------------------------------------

INTRODUCTION = """# First results

Made by `python -m benchmarks.results` from the recordings in results/pools: every generation, score, grade and search
tree is in them, so nothing here needs a model. `--draw` repeats the draws. Model: Qwen2.5-Coder-0.5B-Instruct, Q4_K_M,
run `packed` (docs/engine.md), at temperature 0.7; bigger model: the 1.5B of the same family, greedy. The questions are
test questions, the first by the hash of their ids (MATH-500 in proportion to its levels); nothing was tuned on them.
Seconds are those of the whole machine (two cores) with many questions in flight, those of GSM8K partly while it did
other work; prompts are computed once a question.

- **Without executed code, searching does not make the 0.5B a 1.5B.** Voting helps everywhere (GSM8K 28 to 38 %, MBPP 39
  to 47 %, HumanEval 57 to 62 %) and stays 8 to 21 points below the bigger model's first answer, at two to four times
  its FLOPs.
- **With the public test of each problem it draws level on MBPP** (best of 8: 59 %, the 1.5B's greedy 57 %), at 2.2
  times the FLOPs; on HumanEval 70 against 71 %, where a quarter of the grading tests repeat the examples selected by.
- **The room is there:** one of 16 samples is right on 66 % of GSM8K; what is missing is a verifier that finds it.
- `self` and `auto`, today's defaults, came later: [verifiers.md](verifiers.md) and
  [compute-optimal.md](compute-optimal.md).
- **Losses:** except on MATH-500, the best by `p_true` is no better than a random sample, and worse on GSM8K. Scores of
  `confidence` and `arithmetic` add nothing to a vote. Beam search (30 %) and DVTS (35 %) with `arithmetic` are below a
  vote of as many samples (40 %). MATH-500 is beyond the 0.5B, voting or not.
"""


def written(reports: Mapping[str, Report]) -> str:
    """The whole page."""
    pieces = [INTRODUCTION, "## In short\n", summary(reports)]
    if COST.exists():
        pieces.append(cost())
    for name, figures in reports.items():
        pieces.append(f"## {name}\n")
        if any(section.pools for section in figures.sections):
            pieces.append(f"![Accuracy against tokens, operations and seconds](results-{name}.svg)\n")
        blocks = [block for block in page.blocks(figures.sections, (), ()) if not is_title(block)]
        pieces.append(text.markdown(blocks))
    return "\n".join(pieces)


def is_title(block: page.Block) -> bool:
    return isinstance(block, page.Heading) and block.level < 3


def summary(reports: Mapping[str, Report]) -> str:
    """Every way of choosing beside the bigger model's first answer, and whether they can be told apart."""
    lines = []
    for name, figures in reports.items():
        big = next(run for run in figures.runs if run.name == BIG and run.strategy == "greedy")
        for run in sorted(figures.runs, key=lambda run: (run.name, order(run))):
            if run is not big:
                lines.append([name, *compared(figures, run, big)])
    head = [
        "questions",
        "model",
        "run",
        "accuracy",
        "minus the 1.5B's greedy, points",
        "FLOPs, share of its",
        "verdict",
    ]
    return table(head, lines) + "\n"


def compared(figures: Report, run: Recorded, big: Recorded) -> list[str]:
    """Cells of one run."""
    rows = {row.run: row for section in figures.sections for row in section.rows}
    right = [
        [float(one.outcomes[id].right) for id in sorted(run.outcomes.keys() & big.outcomes.keys())]
        for one in (run, big)
    ]
    apart = stats.paired_bootstrap(*right)
    verdict = "wins" if apart.low > 0 else "loses" if apart.high < 0 else "not told apart"
    share = rows[run.id].flops / rows[big.id].flops
    return [run.name, rows[run.id].label, between(rows[run.id].accuracy), difference(apart), f"{share:.1f} x", verdict]


def order(run: Recorded) -> tuple[Any, ...]:
    known = ("greedy", "self_consistency", "adaptive_consistency", "best_of_n", "weighted_best_of_n")
    return (known.index(run.strategy) if run.strategy in known else len(known), run.strategy, run.verifier or "")


if __name__ == "__main__":
    main()
