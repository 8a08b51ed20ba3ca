"""One small search by every strategy, recorded from the real model and drawn.

The recordings are results/strategies/traces.json.gz; the pictures, docs/strategies/NAME.svg, are made from them.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

from benchmarks import strategies as measured
from benchmarks.results import SMALL
from benchmarks.rig import ROOT
from flyweight import strategies, tasks
from flyweight.api import Session, find_policy
from flyweight.protocols import Policy, Task
from flyweight.report.branches import svg
from flyweight.report.tree import Tree, Votes
from flyweight.strategies import Value
from flyweight.types import Event, Problem

__all__ = ["SHOWN", "Shown", "countdown_numbers", "record", "section", "traced"]

TRACES = measured.FOLDER / "traces.json.gz"
PICTURES = ROOT / "docs" / "strategies"
PROMPTS = ROOT / "flyweight" / "tasks" / "data" / "writing.jsonl"

Traces = dict[str, dict[str, Any]]


class Shown(NamedTuple):
    """The search that stands for a strategy."""

    parameters: Mapping[str, Value] = {}
    votes: Votes = ""
    asked: str = "maths"
    verifier: str = "self"
    most: int = 0
    """Of the tree: how many vote."""


SHOWN: Mapping[str, Shown] = {
    "self_consistency": Shown({"n": 6}, "counted"),
    "adaptive_consistency": Shown({"n": 12}, "counted"),
    "best_of_n": Shown({"n": 6}),
    "weighted_best_of_n": Shown({"n": 6}, "weighted"),
    "beam_search": Shown({"n": 6, "width": 3}, "weighted", most=6),
    "dvts": Shown({"n": 6, "width": 3}, "weighted"),
    "lookahead_search": Shown({"n": 4, "width": 2}, "weighted", most=4),
    "rebase": Shown({"n": 6}, "weighted"),
    "particle_filter": Shown({"n": 6}, "weighted"),
    "particle_gibbs": Shown({"n": 4}, "weighted"),
    "mcts": Shown({"n": 4, "branch": 3}, "weighted"),
    "sequential_revision": Shown({"n": 4, "memory": 2}, "weighted"),
    "hybrid": Shown({"n": 6, "chains": 3, "memory": 2}, "weighted"),
    "self_refine": Shown({"rounds": 2}),
    "budget_forcing": Shown({"think_tokens": 400}),
    "confidence_filtered": Shown({"n": 8, "warmup": 4, "keep": 0.6}, "weighted"),
    "code_agreement": Shown({"n": 6, "tests": 4}, asked="code"),
    "tournament": Shown({"n": 5}, asked="text", verifier="judge"),
    "auto": Shown({"n": 6, "tokens": 1500}, "weighted"),
    "medoid": Shown({"n": 6}, asked="text"),
}
"""Small, to be seen at a glance; a strategy that is not named runs with its defaults."""


class _Question(NamedTuple):
    """What is asked, and how answers are read."""

    problem: Problem
    task: Task | None


def question(kind: str) -> _Question:
    """A short question of each kind, of development questions."""
    if kind == "text":
        row = json.loads(PROMPTS.read_text("utf-8").splitlines()[0])
        return _Question(Problem(row["id"], row["prompt"], meta=row), None)
    name, id = {"maths": ("gsm8k", "gsm8k-train-05019ac4"), "code": ("mbpp", "mbpp-268")}[kind]
    task = tasks.load(name)
    known = {problem.id: problem for problem in task.problems()}
    shortest = min(known.values(), key=lambda problem: (len(problem.prompt), problem.id))
    return _Question(known.get(id, shortest), task)


def record(only: str) -> None:
    """Search with every strategy that has no recording yet, or with those whose name contains `only`."""
    traces = _read()
    wanted = [name for name in strategies.names() if (only in name if only else name not in traces)]
    if not wanted:
        return
    policy = find_policy(SMALL)()
    try:
        for name in wanted:
            traces[name] = traced(name, policy)
            print(f"{name}: {len(traces[name]['tree']['steps'])} steps, {traces[name]['tokens']} tokens", flush=True)
            TRACES.parent.mkdir(parents=True, exist_ok=True)
            TRACES.write_bytes(gzip.compress(json.dumps(traces, sort_keys=True).encode(), mtime=0))
    finally:
        policy.close()


def traced(name: str, policy: Policy) -> dict[str, Any]:
    """One search by a strategy: its tree, and what stands beside the picture."""
    shown = SHOWN.get(name, Shown())
    asked = question(shown.asked)
    events: list[Event] = []
    session = Session(
        policy, verifier=shown.verifier, answers=asked.task, kind="text", max_tokens=400, on_event=events.append
    )
    result = session.runner.solve(asked.problem, strategies.bind(name, shown.parameters))
    if result.error is not None:
        raise SystemExit(f"{name}: {result.error}")
    settings = "".join(f" {key}={value}" for key, value in shown.parameters.items())

    def right(solution: str) -> bool:
        return asked.task is not None and asked.task.grade(asked.problem, solution).value == "correct"

    return {
        "tree": Tree.of(events, f"{name}{settings}", shown.votes, shown.most, right).as_dict(),
        "question": asked.problem.prompt,
        "right": asked.problem.answer if shown.asked == "maths" else None,
        "tokens": result.usage.generated_tokens,
    }


def section(kinds: Sequence[tuple[str, Sequence[str]]]) -> str:
    """The pictures with their questions, as a section of the page; written beside it."""
    traces = _read()
    pieces = [
        "## One search each\n\nReal searches of Qwen2.5-Coder-0.5B, small enough to be seen at a glance; what a step "
        "says is its tooltip where a picture is opened by itself. A line is a step, as long as its tokens; what is "
        "asked behind an answer goes on from it.\n\n"
    ]
    PICTURES.mkdir(parents=True, exist_ok=True)
    for kind, group in kinds:
        shown = [name for name in group if name in traces]
        if not shown:
            continue
        pieces.append(f"### {kind}\n\n")
        for name in shown:
            trace = traces[name]
            (PICTURES / f"{name}.svg").write_text(svg(Tree.read(trace["tree"])), "utf-8")
            right = f" (right: {trace['right']})" if trace["right"] else ""
            pieces.append(
                f"#### {name}\n\n{strategies.describe(name).summary}\n\n"
                f"![A search by {name}](strategies/{name}.svg)\n\n"
                f"*{' '.join(trace['question'].split())}*{right} {trace['tokens']:,} tokens were generated.\n\n"
            )
    return "".join(pieces) if len(pieces) > 1 else ""


def countdown_numbers() -> dict[str, int]:
    """How many numbers each puzzle gives, by its id."""
    found = tasks.load("countdown", data=measured.PUZZLES).problems()
    return {problem.id: len(cast("Sequence[int]", problem.meta["numbers"])) for problem in found}


def _read() -> Traces:
    if not TRACES.is_file():
        return {}
    found: Traces = json.loads(gzip.decompress(TRACES.read_bytes()))
    return found
