"""Write tests/golden: one search per strategy on the toy policy, as its trace tells it. Run after a wanted change.

    python scripts/make_golden.py

The tests compare what a search does today with these files, so a change of behaviour shows as a diff to be read.
Left out of a trace: clock times, and what a toy token carries (ids, log-probabilities, certainties).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from flyweight import strategies, trace
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, RuleVerifier, ToyPolicy
from flyweight.types import Event, Problem

GOLDEN = Path(__file__).resolve().parent.parent / "tests" / "golden"
PROBLEM = Problem("sum", "Add 17 and 25 and 8.", answer="50")
SMALL = {"n": 4, "width": 2}
"""As far as a strategy has these parameters."""


def right_sums(question: str, solution: str) -> Sequence[float]:
    """Per step 0.9 for a right sum, 0.2 for a wrong one, and 0.5 where nothing is added."""
    steps = [step for step in solution.split("\n\n") if step]
    found = [re.search(r"(\d+) \+ (\d+) = (\d+)", step) for step in steps]
    return [0.5 if m is None else 0.9 if int(m[1]) + int(m[2]) == int(m[3]) else 0.2 for m in found]


def search(name: str) -> str:
    """The trace of a strategy, one JSON object a line, the same on every machine."""
    events: list[Event] = []
    known = {parameter.name for parameter in strategies.describe(name).parameters}
    strategy = strategies.bind(name, {key: value for key, value in SMALL.items() if key in known})
    judge = RuleVerifier(right_sums)
    runner = Runner(ToyPolicy(), {judge.name: judge}, answers=BoxedAnswers(), on_event=events.append)
    runner.solve(PROBLEM, strategy)
    seen: set[str] = set()
    lines = [trace.write(event, seen) for event in events if event.kind != "progress"]
    return "".join(json.dumps(_timeless(line), sort_keys=True) + "\n" for line in lines)


def _timeless(value: object) -> object:
    """Without times and the particulars of toy tokens, at any depth."""
    if isinstance(value, dict):
        left_out = {"at", "seconds", "tokens", "logprobs", "certainty"}
        return {key: _timeless(item) for key, item in value.items() if key not in left_out}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name in strategies.names():
        (GOLDEN / f"{name}.jsonl").write_text(search(name), "utf-8")
        print(f"{name}.jsonl")
