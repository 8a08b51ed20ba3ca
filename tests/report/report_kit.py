"""What the tests of the report share: runs written down draw by draw, and graded by what their texts say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flyweight.report import Report
from flyweight.store import Grader, RunInfo, Store
from flyweight.types import (
    Candidate,
    Event,
    Finish,
    Grade,
    Message,
    Node,
    Problem,
    Result,
    Score,
    Stopped,
    Usage,
)

__all__ = ["Found", "Said", "configuration", "grade", "grader", "opened", "report", "small", "spent", "write"]

MODELS = {"m": "sha256:" + "ab" * 32 + " file", "big": "sha256:" + "cd" * 32 + " bf16"}


class Said(NamedTuple):
    """A candidate: graded by its first letter, R(ight), W(rong) or U(ndecided); truncated with a T after it."""

    text: str
    group: int | None = 0
    score: float | None = None
    logprob: float = -1.0


class Found(NamedTuple):
    """A search: its candidates, which of them was selected, and what it cost."""

    said: Sequence[Said]
    best: int | None = 0
    usage: Usage = Usage()
    confidence: float | None = None
    stopped: Stopped = Stopped.DONE


def grade(problem: Problem, text: str) -> Grade:
    """By its first letter."""
    return Grade({"R": "correct", "W": "wrong", "U": "undecided"}[text[0]])  # type: ignore[arg-type]


def grader(store: Store, info: RunInfo) -> Grader:
    """Of every run of these tests."""
    return store.grader(grade, "letters")


def configuration(strategy: str, **changes: Any) -> dict[str, Any]:
    """All keys of a run's configuration."""
    asked: dict[str, Any] = {"task": "letters", "split": "test", "data": None, "problems_sha256": "0" * 64}
    asked |= {"settings": {}, "select": {"limit": None, "by": None, "ids": None, "shuffle": None}, "model": "m"}
    asked |= {"strategy": strategy, "parameters": {}, "verifier": None, "context": 2048, "budget": {}, "seed": 0}
    return asked | {"sampling": {"temperature": 0.7, "max_tokens": 512}} | changes


def write(
    store: Store,
    strategy: str,
    found: Mapping[str, Found],
    *,
    n: int | None = None,
    meta: Mapping[str, Mapping[str, object]] | None = None,
    finish: bool = True,
    drawn: bool = True,
    **changes: Any,
) -> str:
    """Put a run into the store; its id. `drawn`: it did not find its samples there, and took its usages' seconds."""
    parameters = {"parameters": {} if n is None else {"n": n}}
    asked = configuration(strategy, **(parameters | changes))
    generated = sum(search.usage.generated_tokens for search in found.values())
    seconds = sum(search.usage.seconds for search in found.values())
    facts = {"generated_tokens": str(generated), "seconds": str(seconds)} if drawn else {}
    run = store.run(asked, models={asked["model"]: MODELS.get(asked["model"], "unknown")}, versions=facts)
    for id, search in found.items():
        problem = Problem(id, f"Question {id}", answer="R", meta=(meta or {}).get(id, {}))
        run(Event(id, "start", 0.0))
        run(Event(id, "end", 1.0, facts={"result": _result(problem, search)}))
    if finish:
        run.finish()
    return run.id


def _result(problem: Problem, search: Found) -> Result:
    root = Node(messages=(Message("user", problem.prompt),), key=f"root {problem.id}")
    candidates = []
    for draw, said in enumerate(search.said):
        truncated = said.text.endswith("T")
        node = Node(
            root,
            said.text,
            (1, 2),
            (said.logprob, said.logprob),
            finish=Finish.LENGTH if truncated else Finish.END,
            score=None if said.score is None else Score(said.score, kind="v"),
            key=f"{problem.id} {draw}",
            draw=draw,
            policy="m",
        )
        candidates.append(Candidate(node, None if truncated else said.text, None if truncated else said.group))
    best = None if search.best is None else candidates[search.best]
    return Result(
        problem,
        None if best is None else best.node,
        None if best is None else best.answer,
        tuple(candidates),
        search.usage,
        search.stopped,
        search.confidence,
    )


def report(store: Store, *ids: str, baseline: str | None = None) -> Report:
    """The report of these runs, or of all."""
    return Report.of(store, ids or [info.id for info in store.runs()], grader, baseline=baseline)


@contextmanager
def opened(folder: Path) -> Iterator[Store]:
    """The store of a folder of runs."""
    with Store(folder / "flyweight.db") as store:
        yield store


def spent(params: int, prompt: int, generated: int, seconds: float, verifier: int = 0, calls: int = 1) -> Usage:
    """A usage whose operations are those of so many parameters."""
    return Usage(
        prompt_tokens=prompt,
        generated_tokens=generated,
        verifier_tokens=verifier,
        policy_calls=calls,
        verifier_calls=calls if verifier else 0,
        seconds=seconds,
        flops=2.0 * params * (prompt + generated + verifier),
        peak_kv_bytes=4000,
    )


def small(store: Store, *, backwards: bool = False) -> dict[str, str]:
    """Four problems, two samples each, all figures to be worked out by hand; run ids by what they are.

    a: right, right. b: right, wrong. c: wrong, wrong. d: right, truncated. The verifier prefers the wrong one of b.
    """
    meta = {"a": {"level": 2}, "b": {"level": 2}, "c": {"level": 10}, "d": {"level": 10}}
    greedy, bigger, drawn, judged = (
        spent(1000, 10, 20, 0.5),
        spent(4000, 10, 20, 2.0),
        spent(1000, 10, 40, 2.0, calls=2),
        spent(1000, 10, 40, 0.25, 30, calls=2),
    )
    pool = {
        "a": (Said("R1", 0, 0.9), Said("R2", 0, 0.8)),
        "b": (Said("R1", 0, 0.3), Said("W2", 1, 0.6)),
        "c": (Said("W1", 0, 0.5), Said("W2", 0, 0.4)),
        "d": (Said("R1", 0, 0.7), Said("W2T", None, None)),
    }
    bare = {id: [said._replace(score=None) for said in candidates] for id, candidates in pool.items()}
    sure = {"a": 0.9, "b": 0.5, "c": 0.8, "d": None}
    runs = {
        "greedy": lambda: write(
            store,
            "greedy",
            {id: Found([Said(text)], usage=greedy) for id, text in zip("abcd", ("R", "W", "W", "R"), strict=True)},
            meta=meta,
        ),
        "big": lambda: write(
            store,
            "greedy",
            {id: Found([Said(text)], usage=bigger) for id, text in zip("abcd", ("R", "R", "R", "W"), strict=True)},
            meta=meta,
            model="big",
        ),
        "majority": lambda: write(
            store,
            "self_consistency",
            {id: Found(said, usage=drawn, confidence=sure[id]) for id, said in bare.items()},
            n=2,
            meta=meta,
        ),
        "best": lambda: write(
            store,
            "best_of_n",
            {id: Found(said, best=1 if id == "b" else 0, usage=judged) for id, said in pool.items()},
            n=2,
            meta=meta,
            verifier="v",
            drawn=False,
        ),
    }
    return {name: runs[name]() for name in (reversed(runs) if backwards else runs)}
