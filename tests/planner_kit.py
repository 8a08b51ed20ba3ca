"""A machine made of round numbers, and evidence to go with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flyweight.optimal import calibration, evidence, planner, speed, told
from flyweight.optimal.evidence import Evidence, Known
from flyweight.optimal.planner import Choice, Options
from flyweight.optimal.speed import Speed
from flyweight.optimal.work import Work
from flyweight.stats import Interval

__all__ = ["SPEED", "choice", "machine", "options", "said"]

SPEED = Speed(
    parameters=1e9,
    kv_bytes=1000.0,
    points=((1, 100, 0.01), (1, 500, 0.01), (4, 100, 0.02), (4, 500, 0.04), (32, 100, 0.08), (32, 500, 0.16)),
    prefill=(0.5, 0.001),
    memory=((2, 1000, 1e9 + 2e6 + 2e6), (32, 1000, 1e9 + 32e6 + 32e6)),
)
"""A GB of weights and a MB per slot beside its KV."""


def said(
    model: str = "small",
    strategy: str = "greedy",
    n: int | None = None,
    right: tuple[float, float, float] = (0.3, 0.4, 0.5),
    verifier: str | None = None,
    **more: Any,
) -> Evidence:
    """Evidence of 100 questions: 10 tokens of prompt, 100 an answer."""
    facts: dict[str, Any] = {"questions": 100, "source": "measured", "note": "counted"}
    work = Work(10.0, 100.0 * (n or 1), 0.0, 0.0 if verifier is None else float(n or 1), 100.0, {n or 1: 100.0})
    parameters = {} if n is None else {"n": n}
    return Evidence(
        **{
            "task": "gsm8k",
            "model": model,
            "strategy": strategy,
            "parameters": parameters,
            "verifier": verifier,
            "accuracy": Interval(*right),
            "work": work,
            **facts,
            **more,
        }
    )


def choice(
    row: Evidence, seconds: float, memory: float = 1e9, flops: float = 1e12, dollars: float | None = None, **known: Any
) -> Choice:
    """A choice with these costs."""
    facts = Known(row.model, **{"parameters": 1e9, **known})
    assert row.work is not None
    costs = (seconds, memory, 1e6, 1, 2048, flops, seconds / 2, dollars)
    return Choice(row.model, "file", row, facts, row.work, *costs, answer=100.0)


def machine(monkeypatch: pytest.MonkeyPatch, rows: list[Evidence], here: dict[str, Speed], listed: list[Known]) -> None:
    """Nothing is known but this: `here` are the models with a file, in one form of their weights."""
    monkeypatch.setattr(evidence, "shipped", lambda: rows)
    monkeypatch.setattr(calibration, "shipped", lambda: ())
    monkeypatch.setattr(told, "published", lambda: tuple(listed))
    monkeypatch.setattr(speed, "forms", lambda: ("file",))
    monkeypatch.setattr(speed, "known", lambda path, form: here.get(path.stem))
    monkeypatch.setattr(planner, "_path", lambda known, failures: Path(known.name) if known.name in here else None)


def options(**more: Any) -> Options:
    """For gsm8k."""
    return Options(**{"task": "gsm8k", **more})
