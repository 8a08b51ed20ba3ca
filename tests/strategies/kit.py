"""A scripted model, and everything a search did with it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flyweight import strategies
from flyweight.protocols import Answers, Strategy, Verifier
from flyweight.runner import Runner
from flyweight.strategies import Value
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Budget, Event, Node, Problem, Result, Sampling, digest

Q = Problem("q", "a question")


def box(answer: object, before: str = "") -> str:
    return f"{before}\\boxed{{{answer}}}"


class InTurn:
    """Says one text after another, whatever is asked; a request too many fails."""

    def __init__(self, *texts: str | Draft) -> None:
        self.texts = list(texts)
        self.samplings: list[Sampling] = []

    def __call__(self, question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        said = self.texts[len(self.samplings)]
        self.samplings.append(sampling)
        return said if isinstance(said, Draft) else Draft(said)


@dataclass
class Played:
    """A search that went without an error."""

    result: Result
    judge: RuleVerifier
    drawn: list[Node] = field(default_factory=list)
    """Every node drawn by the strategy, in the order in which they ended."""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def talks(self) -> list[list[str]]:
        """What each of the drawn nodes answered: the turns of its prompt."""
        return [[message.content for message in node.root.messages] for node in self.drawn]


def play(
    strategy: str | Strategy,
    write: Callable[[str, str, random.Random, Sampling], Draft] | None = None,
    scores: Mapping[str, float] | Callable[[str, str], float | Sequence[float]] | None = None,
    *,
    budget: Budget | None = None,
    max_tokens: int = 1024,
    problem: Problem = Q,
    verifier: Verifier | None = None,
    verifiers: Mapping[str, Verifier] | None = None,
    policies: Mapping[str, ToyPolicy] | None = None,
    answers: Answers | None = None,
    seed: int = 0,
    stopped: Callable[[Event], bool] | None = None,
    **parameters: Value,
) -> Played:
    """Search one problem; a mapping of scores knows exactly the texts in it. `stopped` interrupts at an event."""
    if isinstance(scores, Mapping):
        known = scores
        judge = RuleVerifier(lambda question, solution: known[solution])
    else:
        judge = RuleVerifier(scores or (lambda question, solution: 0.5))
    drawn: list[Node] = []
    notes: dict[str, Any] = {}

    def watch(event: Event) -> None:
        if event.kind == "node" and event.node is not None:
            drawn.append(event.node)
        if event.kind == "note":
            notes.update(event.facts)
        if stopped is not None and stopped(event):
            runner.interrupt()

    policy = ToyPolicy(write) if write is not None else ToyPolicy()
    used = dict(policies or {policy.name: policy})
    runner = Runner(
        used,
        verifiers or {"judge": verifier or judge},
        answers=answers or BoxedAnswers(),
        sampling=Sampling(max_tokens=max_tokens),
        seed=seed,
        on_event=watch,
    )
    bound = strategies.bind(strategy, parameters) if isinstance(strategy, str) else strategy
    result = runner.solve(problem, bound, budget)
    assert result.error is None, result.error
    assert result.usage.generated_tokens == sum(each.counters.generated_tokens for each in used.values())
    return Played(result, judge, drawn, notes)


def by_hash(question: str, solution: str) -> float:
    """A score in [0, 1] that depends on the text alone."""
    return int(digest(solution)[:8], 16) / 16**8


def interrupted(played: Callable[[Callable[[Event], bool]], Played], *kinds: str) -> list[Played]:
    """The search as it is, then interrupted at its 1st, 2nd, ... event of these kinds."""
    count = 0

    def at(number: int) -> Callable[[Event], bool]:
        def stopped(event: Event) -> bool:
            nonlocal count
            count += event.kind in kinds
            return event.kind in kinds and count == number

        return stopped

    found = [played(at(0))]
    for number in range(1, count + 1):
        count = 0
        found.append(played(at(number)))
    return found
