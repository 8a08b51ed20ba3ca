"""The planner held to what really happens, and the evidence it ships.

    python -m benchmarks.planner                  # five configurations run for real beside predictions: 25 minutes
    python -m benchmarks.planner --only greedy    # those whose name contains this; the others stay as they are
    python -m benchmarks.planner --questions 3    # a rough look; written nowhere
    python -m benchmarks.planner --tables         # docs/plan.md again, from results/planner.json
    python -m benchmarks.planner --evidence       # measured.json and the work of auto: no model, five minutes

A configuration runs in a process of its own, one question after the other on a warm model: the same questions that its
evidence was counted on, drawn again with another seed. Nothing else should run meanwhile. The measurement of the
machine that the predictions rest on is made first, unless it is known (`--fresh` forgets it). Rows go to
results/planner.json; the table, an example and its picture go to docs/plan.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.rig import ROOT, Child, Figures, machine, publish, table
from benchmarks.verifiers import Samples, given
from benchmarks.verifiers_cost import COST
from benchmarks.verifiers_scores import KEPT, POOLS, Kept, largest
from flyweight import models, strategies, tasks
from flyweight.api import Session
from flyweight.optimal import calibration, evidence, fit, planner, recorded, speed
from flyweight.optimal.calibration import Calibration
from flyweight.optimal.evidence import SIZES, Evidence
from flyweight.optimal.work import SLOTS
from flyweight.report import Report, grader
from flyweight.report.pools import voted
from flyweight.stats import best_at_k, bootstrap_mean
from flyweight.store import RunInfo, Store
from flyweight.strategies import Value

PAGE = ROOT / "docs" / "plan.md"
RESULTS = ROOT / "results" / "planner.json"
SHIPPED = ROOT / "flyweight" / "optimal" / "measured.json"
ENGINE = ROOT / "results" / "engine" / "engine.json"
HEADLINE = ROOT / "results" / "headline" / "costs.json"
CALIBRATED = ROOT / "results" / "optimal" / "calibrations.jsonl.xz"
"""What the calibrations of the package were fitted on."""
SMALL, BIG = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
MADE_BY = "python -m benchmarks.planner --evidence"
JUDGES = ("arithmetic", "confidence", "p_true", "self", "tests")
"""Verifiers whose figures are shipped."""
SEED = 7
"""Other draws than those of the evidence."""


class Setting(NamedTuple):
    """What is run for real."""

    model: str
    strategy: str
    parameters: Mapping[str, Value]
    verifier: str | None

    @property
    def name(self) -> str:
        """Model, strategy and n."""
        n = f" n={self.parameters['n']}" if "n" in self.parameters else ""
        return f"{self.model} {self.strategy}{n}"


SETTINGS = (
    Setting(SMALL, "greedy", {}, None),
    Setting(SMALL, "best_of_n", {"n": 8}, "self"),
    Setting(SMALL, "best_of_n", {"n": 16}, "self"),
    Setting(SMALL, "beam_search", {"n": 16, "width": 4}, "arithmetic"),
    Setting(BIG, "greedy", {}, None),
)
QUESTIONS = 24
"""Per configuration, in the order of their ids' hash, as in the evidence."""
CONTEXT = 2048
EXAMPLE = ("plan", "--task", "gsm8k", "--memory", "2GB", "--latency", "20s")
WITHIN = {"seconds": 0.2, "memory": 0.1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evidence", action="store_true", help="make measured.json from the recordings")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    parser.add_argument("--only", default="", help="configurations whose name contains this")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of each configuration")
    parser.add_argument("--fresh", action="store_true", help="measure the machine anew")
    parser.add_argument("--runs", type=Path, default=Path("runs/planner"), help="folder of stores, for --evidence")
    arguments = parser.parse_args()
    if arguments.evidence:
        SHIPPED.write_text(collected(arguments.runs), "utf-8")
        for path in sorted(calibration.FOLDER.glob("*.json")):
            calibration.write(path, with_work(calibration.read(path), arguments.runs))
        return
    if not arguments.tables:
        compare(arguments)
    if arguments.tables or arguments.questions == QUESTIONS:
        text = compared(json.loads(RESULTS.read_text("utf-8")))
        publish(PAGE, "auto", automatic())
        picture = "![How often right against how long](plan.svg)"
        example = f"```text\n$ flyweight {' '.join(EXAMPLE)}\n{shown_example()}```\n\n{picture}"
        if not publish(PAGE, "planner", text) or not publish(PAGE, "example", example):
            raise SystemExit(f"{PAGE} has no <!-- planner --> or <!-- example --> to write between")


def shown_example() -> str:
    """What the command prints here; it draws docs/plan.svg."""
    figure = ("--figure", str(PAGE.with_suffix(".svg")))
    command = (sys.executable, "-m", "flyweight", *EXAMPLE, *figure, "--quiet")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# Predicted and measured -----------------------------------------------------------------------------------------------


def compare(arguments: argparse.Namespace) -> None:
    """Predict and run each configuration."""
    if arguments.fresh:
        speed.forget()
    rows = []
    for setting in SETTINGS:
        if arguments.only not in setting.name:
            continue
        found = predicted(setting, arguments.questions)
        with Child(real, *setting, arguments.questions, found["slots"], found["weights"]) as child:
            child.next()
            figures = child.next()
            figures["memory"] = child.close() * 1e6
        rows.append({"name": setting.name, "predicted": found, "measured": figures})
        print(compared({"machine": machine(), "questions": arguments.questions, "rows": rows[-1:]}), flush=True)
    if arguments.questions == QUESTIONS:
        known = {row["name"]: row for row in json.loads(RESULTS.read_text("utf-8"))["rows"]} if RESULTS.exists() else {}
        known |= {row["name"]: row for row in rows}
        kept = [known[setting.name] for setting in SETTINGS if setting.name in known]
        facts = {"machine": machine(), "questions": QUESTIONS, "rows": kept}
        RESULTS.write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def predicted(setting: Setting, questions: int) -> Figures:
    """What the planner says of a configuration, after so many questions."""
    options = planner.Options(
        task="gsm8k", context=CONTEXT, questions=questions, only=(setting.model,), weights="packed"
    )
    choices = planner.choices(options, tell=lambda line: print(line, flush=True))
    n = int(setting.parameters.get("n", 1))
    found = next(
        choice
        for choice in choices
        if (choice.model, choice.evidence.strategy, choice.evidence.n, choice.evidence.verifier)
        == (setting.model, setting.strategy, n, setting.verifier)
    )
    return {
        "seconds": found.seconds,
        "memory": found.memory,
        "tokens": found.work.generated,
        "slots": found.slots,
        "weights": found.weights,
    }


def real(
    model: str,
    strategy: str,
    parameters: Mapping[str, Value],
    verifier: str | None,
    questions: int,
    slots: int,
    weights: str,
) -> Iterator[Figures]:
    """A warm model; then one question after the other."""
    task = tasks.load("gsm8k", split="test")
    problems = tasks.pick(task.problems(), questions)
    judge = verifier or "confidence"
    with Session(
        model, verifier=judge, answers=task, context=CONTEXT, slots=slots, weights=weights, seed=SEED
    ) as session:
        next(iter(session.runner.run(problems[:1], strategies.bind("greedy"), in_flight=1)))
        yield {}
        began = time.perf_counter()
        results = list(session.runner.run(problems, strategies.bind(strategy, parameters), in_flight=1))
        seconds = time.perf_counter() - began
        usage = [result.usage for result in results]
        if errors := [result.error for result in results if result.error]:
            raise SystemExit(errors[0])
        yield {
            "seconds": seconds / questions,
            "tokens": sum(each.generated_tokens for each in usage) / questions,
            "kv": max(each.peak_kv_bytes for each in usage),
        }


def compared(facts: Figures) -> str:
    """The table: predicted, measured, and by how much the one missed the other."""
    amounts = ("predicted", "measured", "off")
    head = (
        "configuration",
        *(f"{unit} {what}" for unit in ("seconds", "MB") for what in amounts),
        "tokens said",
        "drawn",
        "seconds off for as many",
    )
    lines = []
    for row in facts["rows"]:
        said, was = row["predicted"], row["measured"]
        cells = [row["name"]]
        for key, unit, digits in (("seconds", 1, 1), ("memory", 1e6, 0)):
            off = said[key] / was[key] - 1
            mark = "" if abs(off) <= WITHIN[key] else " (missed)"
            cells += [f"{said[key] / unit:,.{digits}f}", f"{was[key] / unit:,.{digits}f}", f"{100 * off:+.0f} %{mark}"]
        longer = was["tokens"] / said["tokens"]
        for_these = 100 * (longer * said["seconds"] / was["seconds"] - 1)
        lines.append([*cells, f"{said['tokens']:,.0f}", f"{was['tokens']:,.0f}", f"{for_these:+.0f} %"])
    about = facts["machine"]
    return (
        f"{table(head, lines)}\n\nMeans over {facts['questions']} GSM8K test questions, one after the other on a warm "
        f"model ({about['cpu']}, {about['cpus']} CPUs, llama-cpp-python {about['llama_cpp']}); memory is the peak of "
        "the process. Off by more than 20 % of the seconds or 10 % of the memory counts as "
        "missed. Last: the same for as many tokens as these "
        "questions happened to take."
    )


def automatic() -> str:
    """How many times as long as the first answer `auto` takes with many questions in flight: predicted, measured."""
    rates: dict[tuple[int, int], list[float]] = {}
    for key, row in json.loads(ENGINE.read_text("utf-8"))["rows"].items():
        if key.startswith("widths/"):
            _, width, front = key.split("/")
            rates[int(width), int(front)] = row["engine"]["rate"]
    points = tuple((rows, float(front), rows / median(rate)) for (rows, front), rate in sorted(rates.items()))
    its = speed.Speed(models.catalog()[SMALL].parameters, 0.0, points, (0.0, 0.0), ())
    rows = evidence.from_calibrations(calibration.shipped(), "")
    works = {row.task: row.work for row in rows if row.parameters["budget_tokens"] == 4000}
    first = {row.task: row.work for row in evidence.shipped() if (row.model, row.strategy) == (SMALL, "greedy")}
    lines = []
    for task, took in json.loads(HEADLINE.read_text("utf-8"))["tasks"].items():
        auto, greedy = works.get(task), first[task]
        if auto is None or greedy is None:
            continue
        cost = evidence.shipped_costs()["self"]
        said = planner.together(auto, its, cost, SLOTS) / planner.together(greedy, its, evidence.Cost(0, 0), SLOTS)
        was = took["0.5B, auto"]["seconds"] / took["0.5B, greedy"]["seconds"]
        steps = sum(auto.steps.values()) / sum(greedy.steps.values())
        numbers = (auto.generated / greedy.generated, steps, said, was)
        off = said / was - 1
        mark = "" if abs(off) <= WITHIN["seconds"] else " (missed)"
        lines.append([task, *(f"{number:.1f}" for number in numbers), f"{100 * off:+.0f} %{mark}"])
    head = ["task", "tokens", "steps alone", "time in company, predicted", "measured", "off"]
    return (
        f"{table(head, lines)}\n\n`auto` with 4,000 tokens over the first answer of {SMALL}. Predicted: its rounds on "
        "the calibration questions, times the speed in results/engine, prompts left out. Measured: 32 test questions "
        "in flight (results/headline/costs.json)."
    )


# The evidence ---------------------------------------------------------------------------------------------------------


def collected(folder: Path) -> str:
    """`measured.json`: accuracy of every configuration on record, and the work it takes."""
    rows: list[Evidence] = []
    for pool in sorted(POOLS.glob("*.jsonl.xz")):
        with held(pool, folder) as store:
            rows += of_pool(store, pool.name.removesuffix(".jsonl.xz"))
    return written(rows)


@contextmanager
def held(pool: Path, folder: Path) -> Iterator[Store]:
    """The store of a recording."""
    path = folder / pool.name.removesuffix(".jsonl.xz") / "flyweight.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_mtime < pool.stat().st_mtime:
        path.unlink()  # made of a pool that was widened since
    new = not path.exists()
    with Store(path) as store:
        if new:
            store.load(pool)
        yield store


def with_work(calibrations: Sequence[Calibration], folder: Path) -> list[Calibration]:
    """The calibrations, every row with the work it makes on the questions they were fitted on."""
    found = []
    with held(CALIBRATED, folder) as store:
        for each in calibrations:
            assert each.task is not None
            runs = [info for info in store.runs() if info.configuration["task"] == each.task]
            # How answers are told apart does not depend on the split.
            table = fit.Table(recorded.questions(store, runs, tasks.load(each.task)), each.verifier)
            found.append(replace(each, rows=tuple(replace(row, work=fit.work(table, row)) for row in each.rows)))
    return found


def written(rows: Sequence[Evidence]) -> str:
    """The file: works once each, since searches that draw alike share theirs."""
    names: dict[str, str] = {}
    lines = []
    for row in rows:
        facts = row.as_dict()
        work = json.dumps(None if row.work is None else row.work.as_dict())
        facts["work"] = None if row.work is None else names.setdefault(work, f"{row.task} {row.model} {row.label}")
        lines.append(f"  {json.dumps(facts)}")
    works = [f"  {json.dumps(name)}: {work}" for work, name in names.items()]
    head = {"version": evidence.VERSION, "made_by": MADE_BY, "machine": machine(), "verifiers": costs()}
    top = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    parts = [*top, ' "works": {\n' + ",\n".join(works) + "\n }", ' "rows": [\n' + ",\n".join(lines) + "\n ]"]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def of_pool(store: Store, name: str) -> list[Evidence]:
    """The runs of a store that were drawn for their answers, and verifiers that scored its samples afterwards."""
    wanted = [
        info.id
        for info in store.runs()
        if info.finished is not None and info.configuration["seed"] == 0 and not info.configuration.get("budget")
    ]
    report = Report.of(store, wanted, lambda store, info: grader(store, info, keep=False))
    note = f"{MADE_BY} (results/pools/{name}.jsonl.xz)"
    found = [
        row
        for row in evidence.from_report(store, report, note)
        if row.verifier in (None, *JUDGES) and row.parameters.get("aggregation", "last") == "last"
    ]
    have = {row.verifier for row in found}
    path = KEPT / f"{name}.json.gz"
    if not path.exists():
        return found
    kept = Kept(path)
    run = largest(store)
    note = f"{MADE_BY} (results/verifiers/{path.name})"
    for judge in JUDGES:
        if judge in kept.whole and judge not in have:
            found += of_scores(store, run, kept, judge, note)
    return found


def of_scores(store: Store, run: RunInfo, kept: Kept, judge: str, note: str) -> Iterator[Evidence]:
    """best_of_n and weighted_best_of_n with a verifier whose scores are on record beside the pool."""
    samples = Samples.of(kept)
    scores = [question["scores"][judge] for question in kept.questions.values()]
    draws = [given(own, values) for own, values in zip(samples.draws, scores, strict=True)]
    votes = [voted(own, number) for number, own in enumerate(draws)]
    about = kept.about
    for k in SIZES:
        if not 1 < k <= samples.n:
            continue
        best = []
        for own in draws:
            keys = sorted({(draw.score, draw.logprob) for draw in own if draw.score is not None})
            ranks = [-1.0 if d.score is None else float(keys.index((d.score, d.logprob))) for d in own]
            best.append(best_at_k(ranks, [d.right and d.score is not None for d in own], k))
        work = replace(evidence.samples(store, run.id, k), scored=float(k), verified=0.0)
        for strategy, values in (("best_of_n", best), ("weighted_best_of_n", [vote[k - 1] for vote in votes])):
            yield Evidence(
                about["task"],
                about["model"],
                strategy,
                {"n": k, "temperature": about["temperature"]},
                judge,
                bootstrap_mean(values),
                len(values),
                "measured",
                note,
                work,
                run.configuration["sampling"]["max_tokens"],
            )


def costs() -> Figures:
    """What verifiers take per path beside tokens, out of results/verifiers/cost.json."""
    measured = json.loads(COST.read_text("utf-8"))["rows"]
    found = {}
    for judge in JUDGES:
        row = next((row for key, row in measured.items() if key.split(" ", 1)[1] == judge), None)
        if row is not None:
            # Tokens are priced by the machine at hand; what remains is arithmetic in Python.
            found[judge] = {"ms": 0.0 if row["tokens"] else round(row["ms"], 2), "mb": round(row.get("mb", 0.0), 1)}
    return found


if __name__ == "__main__":
    main()
