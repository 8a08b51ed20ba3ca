"""The headline: 0.5B with `auto` against 1.5B at once, as docs/protocol-headline.md has it.

    python -m benchmarks.optimal_headline --draw     # once: about two hours on 2 cores; goes on where it was
    python -m benchmarks.optimal_headline --costs    # seconds and memory of every row, each in a process of its own
    python -m benchmarks.optimal_headline --draw --only mbpp

What was recorded goes to results/headline, and from there into docs/compute-optimal.md by `python -m
benchmarks.optimal`. Every task has a store of its own under --runs, begun with what results/headline holds of it, else
results/pools. Seconds and memory are measured apart from that: there much of a row is taken from the rows before it.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.results import BIG, POOLS, SMALL, show
from benchmarks.rig import ROOT, Child, Figures, machine, table
from flyweight import bench, models, stats
from flyweight.bench import Plan
from flyweight.bench.graded import Recorded
from flyweight.errors import ConfigError
from flyweight.optimal import calibration
from flyweight.optimal.difficulty import BANDS, band
from flyweight.report.words import between, difference, operations, share
from flyweight.store import Store
from flyweight.types import Usage

__all__ = ["A", "front", "headline", "read", "rows_of"]

FOLDER = ROOT / "results" / "headline"
NOTES = """As [the protocol](protocol-headline.md) fixed it before any of its answers were generated.

- 4,000 tokens are what `auto` plans for. Where answers are longer than those it was calibrated on, it takes more
  (MATH-500); `--budget-tokens` is the limit that holds.
- On GSM8K and MATH-500 most samples were on record, and their hidden states had to be read again for `self`: these are
  the verifier's tokens, and part of the FLOPs. Of samples that are drawn the states are kept, and it takes none.
- `auto` stops drawing when it is sure, so its samples are more where it is not. Random choice is among all it drew for
  a question; with a right one among them, choosing could have got it.
"""
COSTS = FOLDER / "costs.json"
COSTED = 32
"""Questions that seconds and memory are measured on."""
A, B, C, D = "0.5B, auto", "1.5B, greedy", "1.5B, best of {n} by public tests", "0.5B, greedy"
JUDGE = "self"
"""The verifier of `auto`; samples chosen by another one are a matter of its calibration."""
MOST = 4
"""Samples of the bigger model, at most."""


class Task(NamedTuple):
    """Questions of the protocol."""

    name: str
    plan: Plan
    primary: bool
    kept: bool = True
    """Whether its recordings are kept beside the figures; what was drawn of GSM8K is in results/pools."""


TASKS = (
    Task("humaneval", Plan("humaneval"), True),
    Task("mbpp", Plan("mbpp", split="test"), True),
    Task("gsm8k", Plan("gsm8k", split="test", limit="150"), False, kept=False),
    Task("math500", Plan("math500", limit="60", by="level", max_tokens=1024), False),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="run the models")
    parser.add_argument("--costs", action="store_true", help="measure seconds and memory")
    parser.add_argument("--only", default="", help="only tasks whose name contains this")
    parser.add_argument("--runs", type=Path, default=Path("runs/headline"), help="folder of the stores")
    arguments = parser.parse_args()
    for task in TASKS if arguments.draw else ():
        if arguments.only in task.name:
            record(task, arguments.runs)
    for task in TASKS if arguments.costs else ():
        if arguments.only in task.name:
            measure(task)
    print(headline())


def plans(task: Task) -> dict[str, Plan]:
    """The runs of a task by row, those of the bigger model with every n."""
    found = {
        A: replace(task.plan, model=SMALL, strategy="auto", parameters={"n": 16, "tokens": 4000}, verifier=JUDGE),
        B: replace(task.plan, model=BIG, strategy="greedy"),
        D: replace(task.plan, model=SMALL, strategy="greedy"),
    }
    for n in range(1, MOST + 1) if task.primary else ():
        found[C.format(n=n)] = replace(
            task.plan, model=BIG, strategy="best_of_n", parameters={"n": n}, verifier="tests"
        )
    return found


def record(task: Task, folder: Path) -> None:
    """Carry out the runs of a task, and write down what came of every question.

    SystemExit without a calibration, or with one that `auto` would not go by.
    """
    kind = "code" if task.primary else "maths"
    sha256 = models.catalog()[SMALL].sha256
    found = calibration.find(calibration.shipped(), sha256, kind)
    if found is None:
        raise SystemExit(f"no calibration of {SMALL} on {kind} comes with the package: the protocol asks for it")
    if found.judge != JUDGE:
        raise SystemExit(f"the calibration on {kind} is of the verifier {found.verifier}, the protocol's is {JUDGE}")
    path = folder / task.name / "flyweight.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    wanted = plans(task)
    with Store(path) as store:
        for pool in (FOLDER / f"{task.name}.jsonl.xz", POOLS / f"{task.name}.jsonl.xz") if new else ():
            if pool.exists():
                store.load(pool)
                break
        rows: dict[str, Any] = {}
        for row, plan in wanted.items():
            [summary] = bench.execute(store, [plan], on_progress=show)
            print()
            if summary.ending != "finished":
                raise SystemExit(f"{task.name}, {row}: {summary.ending}; the same command goes on")
            info = next(each for each in store.runs() if each.id == summary.run)
            searches = bench.read(store, info.id, Recorded(store, info.configuration))
            rows[row] = {
                "model": plan.model,
                "questions": {
                    each.result.problem.id: {
                        "right": each.grade.value == "correct",
                        "samples": [sample.grade.value == "correct" for sample in each.samples],
                        "level": each.result.problem.meta.get("level"),
                        "error": each.result.error,
                        "chosen": each.result.explained.get("chosen"),
                        "difficulty": each.result.explained.get("difficulty"),
                        "confidence": each.result.explained.get("confidence"),
                        "calibrated": each.result.explained.get("calibrated"),
                        **spent(each.result.usage),
                    }
                    for each in searches
                },
            }
        FOLDER.mkdir(parents=True, exist_ok=True)
        if task.kept:
            store.dump(FOLDER / f"{task.name}.jsonl.xz", precision="none")
    text = json.dumps({"task": task.name, "rows": rows}, separators=(",", ":"))
    (FOLDER / f"{task.name}.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


def measure(task: Task) -> None:
    """Carry out the rows of the page once more on a few questions, with nothing on record, and write down what they
    took. SystemExit before the task was recorded.
    """
    rows = read(task.name)
    if rows is None:
        raise SystemExit(f"{task.name}: record it first, with --draw")
    held = costs()
    for row, plan in plans(task).items():
        if row in shown(rows):
            with Child(alone, replace(plan, limit=str(COSTED))) as child:
                child.next()
                seconds = child.next()["seconds"]
                held.setdefault(task.name, {})[row] = {"seconds": seconds, "peak_memory_mb": child.close()}
            print(f"{task.name}, {row}: {held[task.name][row]}", flush=True)
            COSTS.write_text(json.dumps({"machine": machine(), "questions": COSTED, "tasks": held}, indent=1) + "\n")


def alone(plan: Plan) -> Iterator[Figures]:
    """A plan in an empty store."""
    yield {}
    with TemporaryDirectory() as folder, Store(Path(folder) / "flyweight.db") as store:
        [summary] = bench.execute(store, [plan])
    yield {"seconds": summary.elapsed / len(summary.job.problems)}


def costs() -> dict[str, dict[str, Figures]]:
    """What was measured so far, by task and row."""
    found: dict[str, dict[str, Figures]] = json.loads(COSTS.read_text("utf-8"))["tasks"] if COSTS.exists() else {}
    return found


def shown(rows: Mapping[str, Any]) -> set[str]:
    """The rows that the page has of a task, alone or among the primary ones."""
    first = [found for task in TASKS if task.primary and (found := read(task.name)) is not None]
    return {*rows_of(rows), *pool(first)}


def spent(usage: Usage) -> dict[str, float]:
    """What the page has of a usage."""
    return {"tokens": usage.generated_tokens, "verifier_tokens": usage.verifier_tokens, "flops": usage.flops}


# The section ---------------------------------------------------------------------------------------------------------


def headline() -> str:
    """The section of the page; what is missing is said to be."""
    held = {task.name: read(task.name) for task in TASKS}
    missing = [name for name, rows in held.items() if rows is None]
    pieces = ["## The headline\n", NOTES]
    if missing:
        pieces.append(f"Not run yet: {', '.join(missing)}.\n")
    done = {name: rows for name, rows in held.items() if rows is not None}
    first = [task.name for task in TASKS if task.primary]
    if all(name in done for name in first):
        pooled = pool([done[name] for name in first])
        pieces += [verdict(pooled), compared(f"{' and '.join(first)}, pooled", pooled, first)]
    pieces += [compared(name, rows_of(rows), [name]) for name, rows in done.items()]
    if costs():
        pieces.append(
            "Seconds, of the whole machine with many questions in flight, and memory are those of "
            f"{COSTED} problems of a task with nothing on record, each row in a process of its own.\n"
        )
    return "\n".join(pieces)


def front() -> str:
    """The table of the README: the small model alone and with `auto`, and the bigger one, on what was run."""
    held = {task.name: read(task.name) for task in TASKS}
    lines = []
    for name, rows in held.items():
        if rows is None:
            continue
        cells = []
        for row in (D, A, B):
            marks = [each["right"] for each in rows[row]["questions"].values()]
            cells.append(between(stats.wilson(sum(marks), len(marks))))
        spends = [mean(rows[row], "flops") for row in (A, B)]
        lines.append(
            [
                f"{name}, {len(rows[A]['questions'])}",
                *cells,
                difference(against(rows[A], rows[D])),
                difference(against(rows[A], rows[B])),
                f"{mean(rows[A], 'tokens'):,.0f}",
                f"{spends[0] / spends[1]:.1f} x",
            ]
        )
    head = ["test questions", D, A, B, "auto minus greedy", "auto minus 1.5B", "tokens of auto", "FLOPs, of the 1.5B's"]
    return table(head, lines)


def read(name: str) -> Mapping[str, Any] | None:
    """The rows of a task; None where it was not run."""
    path = FOLDER / f"{name}.json.gz"
    if not path.exists():
        return None
    found: Mapping[str, Any] = json.loads(gzip.decompress(path.read_bytes()))["rows"]
    return found


def rows_of(rows: Mapping[str, Any]) -> dict[str, Any]:
    """The four rows of the protocol: of the bigger model's samples the fewest that cost what `auto` costs."""
    own = {row: rows[row] for row in (A, B, D)}
    spends = {row: mean(rows[row], "flops") for row in rows}
    filtered = [C.format(n=n) for n in range(1, MOST + 1) if C.format(n=n) in rows]
    if filtered:
        fit = next((row for row in filtered if spends[row] >= spends[A]), filtered[-1])
        own[fit] = rows[fit]
    return own


def pool(tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Several tasks as one, each question counting once."""
    names = [name for name in tasks[0] if all(name in each for each in tasks)]
    whole = {}
    for name in names:
        parts = [each[name] for each in tasks]
        whole[name] = {
            "model": parts[0]["model"],
            "questions": {id: row for part in parts for id, row in part["questions"].items()},
        }
    return rows_of(whole)


def verdict(rows: Mapping[str, Any]) -> str:
    """The primary endpoint in one sentence."""
    apart = against(rows[A], rows[B])
    said = "wins" if apart.low > 0 else "loses" if apart.high < 0 else "is not told apart"
    return (
        f"**The 0.5B with `auto` {said}**: {difference(apart)} points against the 1.5B's first answer, on "
        f"{len(rows[A]['questions'])} problems.\n"
    )


def compared(name: str, rows: Mapping[str, Any], names: Sequence[str]) -> str:
    """A line per row of the questions of some tasks."""
    lines = []
    for row, facts in rows.items():
        marks = [each["right"] for each in facts["questions"].values()]
        measured = taken(names, row)
        lines.append(
            [
                row,
                between(stats.wilson(sum(marks), len(marks))),
                "" if row == A else difference(against(rows[A], facts)),
                f"{mean(facts, 'tokens'):,.0f}",
                f"{mean(facts, 'verifier_tokens'):,.0f}",
                operations(mean(facts, "flops")),
                "" if measured is None else f"{measured['seconds']:.1f}",
                "" if measured is None else f"{measured['peak_memory_mb']:,.0f}",
            ]
        )
    drawn = [each["samples"] for each in rows[A]["questions"].values()]
    chance = stats.bootstrap_mean([sum(marks) / max(1, len(marks)) for marks in drawn])
    covered = stats.wilson(sum(map(any, drawn)), len(drawn))
    lines += [
        [f"*{what} of auto*", between(found), *[""] * 6]
        for what, found in (("random choice among the samples", chance), ("a right one among the samples", covered))
    ]
    head = ["", "right", "auto minus it, points", "tokens", "verifier tokens", "FLOPs", "seconds", "peak memory, MB"]
    failed = sum(each["error"] is not None for facts in rows.values() for each in facts["questions"].values())
    note = f" {failed} searches failed and count as wrong." if failed else ""
    return f"{name}: {len(rows[A]['questions'])} problems.{note}\n\n{table(head, lines)}\n{by_level(rows)}"


def taken(names: Sequence[str], row: str) -> Figures | None:
    """Seconds a question and memory of a row on these tasks; None where one of them was not measured."""
    held = costs()
    if not all(row in held.get(name, {}) for name in names):
        return None
    counts = [len((read(name) or {})[row]["questions"]) for name in names]
    figures = [held[name][row] for name in names]
    return {
        "seconds": sum(n * each["seconds"] for n, each in zip(counts, figures, strict=True)) / sum(counts),
        "peak_memory_mb": max(each["peak_memory_mb"] for each in figures),
    }


def by_level(rows: Mapping[str, Any]) -> str:
    """Accuracy of A and B by the task's own levels, else by the band that A took a question for."""
    mine, theirs = rows[A]["questions"], rows[B]["questions"]
    levels: dict[str, list[str]] = {}
    for id, row in mine.items():
        told = row["difficulty"]
        named = row["level"] if row["level"] is not None else None if told is None else band_of(told)
        if named is not None:
            levels.setdefault(str(named), []).append(id)
    if len(levels) < 2:
        return ""
    lines = []
    for level, ids in sorted(levels.items()):
        cells = [share(sum(each[id]["right"] for id in ids) / len(ids)) for each in (mine, theirs)]
        lines.append([level, str(len(ids)), *cells])
    return f"\n{table(['difficulty', 'problems', A, B], lines)}\n"


def band_of(told: float) -> str:
    """As it sorts in a table."""
    return f"{BANDS.index(band(told)) + 1} {band(told)} (estimated)"


def against(a: Mapping[str, Any], b: Mapping[str, Any]) -> stats.Interval:
    """Accuracy of a minus that of b. ConfigError where they have other questions."""
    if a["questions"].keys() != b["questions"].keys():
        raise ConfigError("the rows have other questions")
    ids = sorted(a["questions"])
    return stats.paired_bootstrap(*([float(each["questions"][id]["right"]) for id in ids] for each in (a, b)))


def mean(facts: Mapping[str, Any], name: str) -> float:
    """Per question."""
    values = [float(each[name]) for each in facts["questions"].values()]
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
