"""What a strategy may say: `Search`, bound to one search."""

from __future__ import annotations

import math
import random
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar, cast

from flyweight import select
from flyweight.calls import Fork, Outside, ask
from flyweight.errors import BackendError, BudgetSpent, ConfigError
from flyweight.live import Live, forced, rooted
from flyweight.protocols import Search, Until, Verifier
from flyweight.reader import Reader
from flyweight.types import Budget, Message, Node, Problem, Score, Usage

__all__ = ["Vocabulary"]

T = TypeVar("T")


class Vocabulary(Search):
    """The verbs of `Search`; what each does to the search's books is in `Live`."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._ranked: dict[tuple[str, str], float] = {}
        """Scores of what was compared by a verifier that only scores, by path and verifier: once is enough."""
        self._ranking: dict[tuple[str, str], Future[None]] = {}
        """Those that are being scored; done once a branch has them, or never will."""

    @property
    def problem(self) -> Problem:
        return self._live.problem

    @property
    def root(self) -> Node:
        return self._live.root

    @property
    def rng(self) -> random.Random:
        return self._live.branch.rng

    @property
    def budget(self) -> Budget:
        return self._live.budget

    @property
    def usage(self) -> Usage:
        return self._live.usage

    async def extend(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        until: Until | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        setting = self._live.setting
        if setting.whole and stop is None:
            raise ConfigError(f"it searches step by step, which does not go with {setting.whole}")
        writer = setting.policy(policy)
        sampling = setting.sampling_with(temperature, top_p, writer.boundary if stop is None else stop, max_tokens)
        return await self._live.draw(nodes, n, sampling, writer, until=until)

    async def complete(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        until: Until | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        setting = self._live.setting
        own = all(node.root is self.root for node in nodes)
        sampling = setting.sampling_with(temperature, top_p, stop, max_tokens, own=own)
        if sampling.grammar and any(node.parent is not None for node in nodes):
            sampling = replace(sampling, grammar="")  # it is a grammar of whole answers
        return await self._live.draw(nodes, n, sampling, setting.policy(policy), until=until, whole=True)

    async def ask(
        self,
        messages: Sequence[Message],
        n: int = 1,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        until: Until | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        setting = self._live.setting
        sampling = setting.sampling_with(temperature, top_p, stop, max_tokens)
        return await self._live.draw([rooted(messages)], n, sampling, setting.policy(policy), until=until, whole=True)

    def append(self, node: Node, text: str) -> Node:
        return forced(node, text)

    async def score(self, nodes: Sequence[Node], *, verifier: str | None = None) -> list[Node]:
        live = self._live
        judge = live.setting.verifier(verifier)
        chosen = list(nodes[: live.verifications(len(nodes))])
        if not chosen:
            return []
        problem = live.original if judge.sees_answer else live.problem
        live.spend(Usage(verifier_calls=len(chosen)))
        scores = await judge.score(problem, chosen, Reader(live, judge))
        _check(judge, scores, chosen)
        scored = [replace(node, score=score) for node, score in zip(chosen, scores, strict=True)]
        for node in scored:
            if node in live.candidates or node.complete:
                live.candidates.keep(node)
            live.emit("score", node=node)
        return scored

    async def compare(self, a: Node, b: Node, *, verifier: str | None = None) -> float:
        live = self._live
        judge = live.setting.verifier(verifier)
        pairwise = getattr(judge, "compare", None)
        if pairwise is None:
            while missing := [node for node in (a, b) if (node.key, judge.name) not in self._ranked]:
                if fresh := [node for node in missing if (node.key, judge.name) not in self._ranking]:
                    await self._rank(fresh, judge, verifier)
                else:
                    await self.wait(self._ranking[missing[0].key, judge.name])
            return select.preference(*(self._ranked[node.key, judge.name] for node in (a, b)))
        if live.verifications(2) < 2:
            raise BudgetSpent("the verification budget does not cover both candidates")
        live.spend(Usage(verifier_calls=2))
        preference = float(await pairwise(live.problem, a, b, Reader(live, judge)))
        if not 0 <= preference <= 1:
            raise BackendError(f"verifier {judge.name} compared two candidates as {preference}; must lie in [0, 1]")
        return preference

    async def _rank(self, nodes: Sequence[Node], judge: Verifier, verifier: str | None) -> None:
        """Have all of the nodes scored, for `compare`. BudgetSpent where that is too many."""
        done: Future[None] = Future()
        done.set_running_or_notify_cancel()  # several may wait for it: whoever is cancelled does not take it from them
        places = [(node.key, judge.name) for node in nodes]
        self._ranking.update(dict.fromkeys(places, done))
        try:
            for node in await self.score(nodes, verifier=verifier):
                self._ranked[node.key, judge.name] = select.aggregate(node.score)
        finally:
            for place in places:
                self._ranking.pop(place, None)
            done.set_result(None)
        if any(place not in self._ranked for place in places):
            raise BudgetSpent("the verification budget does not cover both candidates")

    async def classes(self, nodes: Sequence[Node]) -> list[list[Node]]:
        candidates = self._live.candidates
        for node in nodes:
            if node not in candidates:
                candidates.keep(node)
        return candidates.groups(nodes)

    async def parallel(self, *searches: Coroutine[object, object, T]) -> list[T]:
        if not searches:
            return []
        return cast("list[T]", await ask(Fork(searches)))

    async def wait(self, future: Future[T]) -> T:
        return cast(T, await ask(Outside(future)))

    def weights(self, policy: str | None = None) -> str:
        return self._live.setting.weights(policy)

    def note(self, **facts: object) -> None:
        self._live.note(**facts)


def _check(verifier: Verifier, scores: Sequence[Score], nodes: Sequence[Node]) -> None:
    """BackendError unless there is one score per node, finite and in [0, 1]."""
    if len(scores) != len(nodes):
        raise BackendError(f"verifier {verifier.name} returned {len(scores)} scores for {len(nodes)} candidates")
    for score in scores:
        for value in (score.value, *score.steps):
            if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1):
                raise BackendError(f"verifier {verifier.name} gave the score {value}; scores must lie in [0, 1]")
