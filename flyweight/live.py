"""One problem being searched: its coroutines, its spending, and the `Search` its strategy speaks to.

Nothing here drives anything; `runner.Runner` does. A coroutine's `await` yields a `Draw` or a `Fork` up to it.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from flyweight import select
from flyweight.abstain import ConfidenceMap
from flyweight.calls import Draw, Fork, Outside, Task, ask
from flyweight.errors import BackendError, BudgetSpent, ConfigError, SandboxError, unknown
from flyweight.protocols import Answers, Hidden, Models, Policy, Request, Response, Strategy, Until, Verifier
from flyweight.types import (
    Budget,
    Candidate,
    Event,
    Finish,
    Message,
    Node,
    Problem,
    Result,
    Sampling,
    Score,
    Stopped,
    Usage,
    digest,
)

__all__ = ["Live", "Setting"]

T = TypeVar("T")

_request_ids = itertools.count(1)


@dataclass(frozen=True)
class Setting:
    """What a search works with; all of a runner's share the first of these unless told otherwise."""

    policies: Mapping[str, Policy]
    verifiers: Mapping[str, Verifier]
    answers: Answers
    sampling: Sampling
    seed: int
    hidden: bool
    emit: Callable[[Event], None]
    maps: Sequence[ConfidenceMap] = ()
    """Those of the model and the kind of answers at hand."""
    clock: Callable[[], float] = time.perf_counter
    whole: str = ""
    """What only answers drawn in one piece can have, such as "tools"; a strategy that searches by steps is refused."""
    alternatives: int = 0
    """How many of the likeliest tokens are told at every position of an answer."""
    longest: int | None = None
    """Most tokens of an answer made of steps; one that would grow beyond is cut there. None for no limit."""

    def policy(self, name: str | None) -> Policy:
        """The policy of that name; the first for None."""
        if name is None:
            return next(iter(self.policies.values()))
        if name not in self.policies:
            raise unknown("policy", name, self.policies)
        return self.policies[name]

    def verifier(self, name: str | None) -> Verifier:
        """The verifier of that name; the first for None."""
        if not self.verifiers:
            raise ConfigError("this strategy needs a verifier: pass --verifier, or use self_consistency")
        if name is None:
            return next(iter(self.verifiers.values()))
        if name not in self.verifiers:
            raise unknown("verifier", name, self.verifiers)
        return self.verifiers[name]

    def map(self, strategy: Strategy) -> ConfidenceMap | None:
        """The confidence map that holds for the strategy."""
        verifier = next(iter(self.verifiers), "")
        return next((each for each in self.maps if each.holds(strategy, verifier)), None)


class Live:
    """One problem in flight. Implements `Search` for its strategy and `Models` for its verifiers."""

    def __init__(self, problem: Problem, strategy: Strategy, budget: Budget, setting: Setting) -> None:
        self.original = problem
        self.problem = replace(problem, answer=None)
        self.budget = budget
        self.usage = Usage()
        self.setting = setting
        self.map = setting.map(strategy)
        self.root = Node(messages=problem.conversation, key=digest("root", problem.conversation)[:32])
        self.queue: deque[tuple[Task, Draw, int]] = deque()
        """Single continuations not handed to a policy yet, first asked first."""
        self.flying: dict[int, tuple[Task, Draw, int]] = {}
        """Request id -> whose it is."""
        self.outside: list[tuple[Task, Outside]] = []
        """Work done elsewhere that tasks are waiting for."""
        self.reserved = 0
        """Most tokens the ones in flight may still generate."""
        self.candidates: dict[str, Node] = {}
        self.extracted: dict[str, str | None] = {}
        self.reread: dict[tuple[str, str], Hidden] = {}
        """Hidden states that were read again, by path and policy: several verifiers may want them."""
        self.ranked: dict[tuple[str, str], float] = {}
        """Scores of what was compared by a verifier that only scores, by path and verifier: once is enough."""
        self.explained: Mapping[str, object] = {}
        self.refused = False
        """Whether the budget turned a call away."""
        self.started = setting.clock()
        setting.answers.classes((), self.problem)  # where answers cannot be told apart, nothing is spent on them
        self.result: Result | None = None
        self.failure: Exception | None = None
        """What `Result.error` is about, where an exception was raised."""
        self.broken: SandboxError | None = None
        """The same where it is the sandbox, without which no other problem fares better."""
        self.main = Task(strategy(self), self.random(()))
        self.task = self.main
        """The task whose code is running now."""
        self._emit("start", node=self.root, facts={"prompt": problem.prompt, "answer": problem.answer})

    # Search: what a strategy may say -------------------------------------------------------------------------

    @property
    def rng(self) -> random.Random:
        return self.task.rng

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
        if self.setting.whole and stop is None:
            raise ConfigError(f"it searches step by step, which does not go with {self.setting.whole}")
        writer = self.setting.policy(policy)
        boundary = writer.boundary if stop is None else stop
        sampling = self._sampling(temperature, top_p, boundary, max_tokens)
        return await self._draw(nodes, n, sampling, writer, until=until)

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
        own = all(node.root is self.root for node in nodes)
        sampling = self._sampling(temperature, top_p, stop, max_tokens, own=own)
        if sampling.grammar and any(node.parent is not None for node in nodes):
            sampling = replace(sampling, grammar="")  # it is a grammar of whole answers
        return await self._draw(nodes, n, sampling, self.setting.policy(policy), until=until, whole=True)

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
        sampling = self._sampling(temperature, top_p, stop, max_tokens)
        root = _prompt(messages)
        return await self._draw([root], n, sampling, self.setting.policy(policy), until=until, whole=True)

    def append(self, node: Node, text: str) -> Node:
        return Node(
            parent=node, text=text, tokens=None, finish=Finish.FORCED, key=digest(node.key, "append", text)[:32]
        )

    async def score(self, nodes: Sequence[Node], *, verifier: str | None = None) -> list[Node]:
        judge = self.setting.verifier(verifier)
        allowed = self._verifications(len(nodes))
        chosen = list(nodes[:allowed])
        if not chosen:
            return []
        problem = self.original if judge.sees_answer else self.problem
        self._spend(Usage(verifier_calls=len(chosen)))
        scores = await judge.score(problem, chosen, _Reader(self, judge))
        _check(judge, scores, chosen)
        scored = [replace(node, score=score) for node, score in zip(chosen, scores, strict=True)]
        for node in scored:
            if node.key in self.candidates or node.complete:
                self.candidates[node.key] = node
            self._emit("score", node=node)
        return scored

    async def compare(self, a: Node, b: Node, *, verifier: str | None = None) -> float:
        judge = self.setting.verifier(verifier)
        pairwise = getattr(judge, "compare", None)
        if pairwise is None:
            missing = [node for node in (a, b) if (node.key, judge.name) not in self.ranked]
            for node in await self.score(missing, verifier=verifier) if missing else []:
                self.ranked[node.key, judge.name] = select.aggregate(node.score)
            if any((node.key, judge.name) not in self.ranked for node in (a, b)):
                raise BudgetSpent("the verification budget does not cover both candidates")
            return select.preference(*(self.ranked[node.key, judge.name] for node in (a, b)))
        if self._verifications(2) < 2:
            raise BudgetSpent("the verification budget does not cover both candidates")
        self._spend(Usage(verifier_calls=2))
        preference = float(await pairwise(self.problem, a, b, _Reader(self, judge)))
        if not 0 <= preference <= 1:
            raise BackendError(f"verifier {judge.name} compared two candidates as {preference}; must lie in [0, 1]")
        return preference

    async def classes(self, nodes: Sequence[Node]) -> list[list[Node]]:
        for node in nodes:
            self.candidates.setdefault(node.key, node)
        return self.groups(nodes)

    async def parallel(self, *searches: Coroutine[object, object, T]) -> list[T]:
        if not searches:
            return []
        return cast("list[T]", await ask(Fork(searches)))

    def weights(self) -> str:
        return str(getattr(self.setting.policy(None), "sha256", ""))

    def note(self, **facts: object) -> None:
        if isinstance(explained := facts.get("explained"), Mapping):
            self.explained = explained
        self._emit("note", facts=facts)

    # What the runner needs ------------------------------------------------------------------------------------

    def groups(self, nodes: Sequence[Node]) -> list[list[Node]]:
        """Nodes by equal answer, largest group first, each in draw order; truncated and answerless ones left out."""
        ordered = sorted(nodes, key=lambda node: (node.order, node.key))
        groups = self.setting.answers.classes([self.answer(node) for node in ordered], self.problem)
        return [[ordered[i] for i in group] for group in groups]

    def answer(self, node: Node) -> str | None:
        """The answer a node states; None for truncated text."""
        if node.finish in (Finish.LENGTH, Finish.CUT):
            return None
        if node.key not in self.extracted:
            self.extracted[node.key] = self.setting.answers.extract(node.solution)
        return self.extracted[node.key]

    def random(self, branch: tuple[int, ...]) -> random.Random:
        """Random numbers of one branch."""
        return random.Random(digest("rng", self.setting.seed, self.original.id, branch))

    def tokens_left(self, draw: Draw) -> int | None:
        """What the token budget still allows a draw, those in flight counted at their most; None without limit."""
        if self.budget.tokens is None or draw.verifying:
            return None
        return self.budget.tokens - self.usage.generated_tokens - self.reserved

    def late(self) -> bool:
        """Whether the seconds are spent."""
        seconds = self.budget.seconds
        return seconds is not None and self.setting.clock() - self.started >= seconds

    def progress(self) -> None:
        """Tell watchers how far it is."""
        counters = [policy.counters for policy in self.setting.policies.values()]
        facts = {
            "in_flight": len(self.flying),
            "waiting": len(self.queue),
            "candidates": len(self.candidates),
            "generated_tokens": self.usage.generated_tokens,
            "prompt_tokens": self.usage.prompt_tokens,
            "cached_tokens": self.usage.cached_tokens,
            "engine_tokens": sum(c.generated_tokens for c in counters),
        }
        self._emit("progress", facts=facts)

    def charge(self, draw: Draw, response: Response) -> None:
        """Book what a response cost, kept or not."""
        flops = 2.0 * draw.policy.params * (response.prompt_tokens + response.generated_tokens)
        if draw.verifying:
            tokens = response.prompt_tokens + response.generated_tokens
            self._spend(Usage(verifier_tokens=tokens, cached_tokens=response.cached_tokens, flops=flops))
        else:
            self._spend(
                Usage(
                    prompt_tokens=response.prompt_tokens,
                    cached_tokens=response.cached_tokens,
                    generated_tokens=response.generated_tokens,
                    policy_calls=1,
                    flops=flops,
                )
            )

    def arrived(self, draw: Draw, index: int, response: Response) -> None:
        """Take in one response: its cost, and the node it makes."""
        self.charge(draw, response)
        draw.responses[index] = response
        draw.open -= 1
        draw.error = draw.error or response.error
        blank = draw.nodes[index]
        if blank is None or response.error is not None:
            return
        node = replace(
            blank,
            text=response.text,
            tokens=response.tokens,
            logprobs=response.logprobs,
            certainty=response.certainty,
            finish=response.finish,
            hidden=response.hidden,
            alternatives=response.alternatives,
        )
        draw.nodes[index] = node
        ended = node.finish is not Finish.STOP or draw.whole
        if ended and not draw.verifying and node.root is self.root:
            self.candidates[node.key] = node
        if not draw.verifying:
            self._emit("node", node=node, facts={"seconds": response.seconds} if response.seconds else None)

    def fallback(self) -> Node | None:
        """Best complete candidate so far: heaviest class by score, else by votes, else the most confident text."""
        complete = select.finished(list(self.candidates.values()))
        scored = [n for n in complete if n.score is not None]
        if scored:
            return select.weighted_vote(self.groups(scored)) or select.top(scored, 1)[0]
        return select.majority(self.groups(complete)) or max(complete, key=lambda n: n.mean_logprob, default=None)

    def confidence(self, groups: Sequence[Sequence[Node]], chosen: Node) -> tuple[float | None, bool]:
        """How sure `chosen` is, and whether that is calibrated: it is not where the map's verifier had no say."""
        value = select.confidence(groups, chosen)
        said = "" if chosen.score is None else chosen.score.kind
        if value is None or self.map is None or said != self.map.verifier:
            return value, False
        return self.map(value), True

    def sure(self) -> bool:
        """Whether the leading answer has reached `Budget.confidence`."""
        if self.budget.confidence is None:
            return False
        groups = self.groups(list(self.candidates.values()))
        value, calibrated = self.confidence(groups, groups[0][0]) if groups else (None, False)
        # Where a map holds, what it does not hold for yet is not compared with the dial.
        return value is not None and calibrated == (self.map is not None) and value >= self.budget.confidence

    def finish(self, best: Node | None, stopped: Stopped, error: str | None = None) -> Result:
        """Close the books."""
        if error is None and best is None:
            best = self.fallback()
        if best is not None and best.key not in self.candidates:
            self.candidates[best.key] = best
        if best is not None:
            best = best if best.score is not None else self.candidates[best.key]
        continued = {step.key for node in self.candidates.values() for step in node.steps[:-1]}
        chosen = best.key if best is not None else None  # a beam may end at a node that others went on from
        nodes = [node for key, node in self.candidates.items() if key == chosen or key not in continued]
        nodes.sort(key=lambda node: (node.order, node.key))
        groups = self.groups(nodes) if nodes else []
        index = {node.key: i for i, group in enumerate(groups) for node in group}
        self._spend(Usage(seconds=self.setting.clock() - self.started))
        confidence, calibrated = self.confidence(groups, best) if best is not None else (None, False)
        wanted = self.budget.confidence
        self.result = Result(
            problem=self.original,
            best=best,
            answer=self.answer(best) if best is not None else None,
            candidates=tuple(Candidate(node, self.answer(node), index.get(node.key)) for node in nodes),
            usage=self.usage,
            stopped=stopped,
            confidence=confidence,
            calibrated=calibrated,
            sure=wanted is None or (confidence is not None and confidence >= wanted),
            explained=self.explained,
            error=error,
        )
        self._emit("end", facts={"result": self.result})
        return self.result

    def blame(self, failure: Exception) -> None:
        """Keep what went wrong."""
        self.failure = failure
        if isinstance(failure, SandboxError):
            self.broken = failure
            self.candidates.clear()  # without a sandbox their answers cannot be told apart

    def seen(self, kv_bytes: int) -> None:
        """Note the engine's KV memory in use."""
        if kv_bytes > self.usage.peak_kv_bytes:
            self._spend(Usage(peak_kv_bytes=kv_bytes))

    # Inside ---------------------------------------------------------------------------------------------------

    def _sampling(
        self,
        temperature: float | None,
        top_p: float | None,
        stop: tuple[str, ...] | None,
        max_tokens: int | None,
        *,
        own: bool = False,
    ) -> Sampling:
        """The usual sampling with these changes. `own`: for an answer to the problem; its form binds nothing else."""
        usual = self.setting.sampling if own else replace(self.setting.sampling, stop=(), grammar="")
        return replace(
            usual,
            temperature=usual.temperature if temperature is None else temperature,
            top_p=usual.top_p if top_p is None else top_p,
            stop=usual.stop if stop is None else stop,
            max_tokens=usual.max_tokens if max_tokens is None else max_tokens,
        )

    async def _draw(
        self,
        nodes: Sequence[Node],
        n: int,
        sampling: Sampling,
        policy: Policy,
        *,
        until: Until | None = None,
        whole: bool = False,
        verifying: bool = False,
    ) -> list[Node]:
        task = self.task
        requests: list[Request] = []
        blanks: list[Node | None] = []
        longest = self.setting.longest if not verifying else None
        for node in nodes:
            drawn_with = sampling
            if longest is not None and node.root is self.root:
                room = max(1, longest - node.drawn)
                drawn_with = replace(sampling, max_tokens=min(sampling.max_tokens, room))
            for _ in range(n):
                draw = task.draws[node.key] = task.draws.get(node.key, -1) + 1
                key = digest(node.key, task.branch, draw)[:32]
                seed = int(digest(self.setting.seed, self.problem.id, key)[:16], 16) >> 1
                hidden = self.setting.hidden
                requests.append(
                    Request(
                        next(_request_ids),
                        node,
                        drawn_with,
                        seed,
                        until=until,
                        hidden=hidden,
                        alternatives=0 if verifying else self.setting.alternatives,
                        problem=self.root,
                    )
                )
                blanks.append(Node(parent=node, key=key, draw=draw, policy=policy.name))
        if not requests:
            return []
        drawn = Draw(requests, policy, verifying, blanks, whole=whole)
        await ask(drawn)
        return [node for node in drawn.nodes if node is not None]

    def _verifications(self, wanted: int) -> int:
        limit = self.budget.verifications
        if limit is None:
            return wanted
        left = limit - self.usage.verifier_calls
        if left < wanted:
            self.refused = True
        if left <= 0 < wanted:
            raise BudgetSpent(f"all {limit} verifications are spent")
        return min(wanted, left)

    def _spend(self, usage: Usage) -> None:
        self.usage = self.usage + usage

    def _emit(self, kind: Any, node: Node | None = None, facts: Mapping[str, object] | None = None) -> None:
        self.setting.emit(Event(self.problem.id, kind, self.setting.clock(), node, facts or {}))


class _Reader(Models):
    """A verifier's own access to the models; everything it spends is verifier tokens."""

    def __init__(self, live: Live, verifier: Verifier) -> None:
        self._live = live
        self._verifier = verifier

    async def read(
        self, nodes: Sequence[Node], text: str, choices: Sequence[str], *, policy: str | None = None
    ) -> list[tuple[float, ...]]:
        live = self._live
        reader = live.setting.policy(policy)
        forced = [live.append(node, text) if text else node for node in nodes]
        requests = [
            Request(next(_request_ids), node, Sampling(temperature=0, max_tokens=1), 0, choices=tuple(choices))
            for node in forced
        ]
        if not requests:
            return []
        draw = Draw(requests, reader, True, [None] * len(requests))
        await ask(draw)
        return [response.choices for response in draw.responses if response is not None]

    async def complete(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        *,
        temperature: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        live = self._live
        sampling = live._sampling(temperature, None, stop, max_tokens)
        return await live._draw(nodes, n, sampling, live.setting.policy(policy), whole=True, verifying=True)

    async def ask(
        self,
        messages: Sequence[Message],
        n: int = 1,
        *,
        temperature: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        root = _prompt(messages)
        return await self.complete([root], n, temperature=temperature, stop=stop, max_tokens=max_tokens, policy=policy)

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        live = self._live
        reader = live.setting.policy(policy)
        kept = [_joined(node, reader) or live.reread.get((node.key, reader.name)) for node in nodes]
        requests = [
            Request(next(_request_ids), node, Sampling(temperature=0, max_tokens=1), 0, reread=True)
            for node, hidden in zip(nodes, kept, strict=True)
            if hidden is None
        ]
        if not requests:
            return [hidden for hidden in kept if hidden is not None]
        draw = Draw(requests, reader, True, [None] * len(requests))
        await ask(draw)
        said = [each for each in draw.responses if each is not None]
        again = iter([Hidden(each.hidden, each.prompt_tokens, each.ends) for each in said])
        found = [hidden or next(again) for hidden in kept]
        for node, hidden in zip(nodes, found, strict=True):
            live.reread[node.key, reader.name] = hidden._replace(tokens=0)
        return found

    def weights(self, policy: str | None = None) -> str:
        return str(getattr(self._live.setting.policy(policy), "sha256", ""))

    async def wait(self, future: Future[T]) -> T:
        return cast(T, await ask(Outside(future)))

    def spent(self, tokens: int) -> None:
        if tokens:  # a verifier that computes nothing need not know its size
            self._live._spend(Usage(verifier_tokens=tokens, flops=2.0 * self._verifier.params * tokens))

    def note(self, **facts: object) -> None:
        self._live.note(**facts)


def _joined(node: Node, policy: Policy) -> Hidden | None:
    """Hidden states of a path from those of its steps; None where one has none, or another policy's."""
    steps = [step for step in node.steps if step.text or step.finish is Finish.END]
    if not steps or any(step.hidden is None or step.policy != policy.name for step in steps):
        return None
    import numpy as np  # late: most runs have no use for it here

    parts = [cast(Any, step.hidden) for step in steps]
    return Hidden(np.concatenate(parts), ends=tuple(itertools.accumulate(map(len, parts))))


def _prompt(messages: Sequence[Message]) -> Node:
    return Node(messages=tuple(messages), key=digest("root", tuple(messages))[:32])


def _check(verifier: Verifier, scores: Sequence[Score], nodes: Sequence[Node]) -> None:
    """BackendError unless there is one score per node, finite and in [0, 1]."""
    if len(scores) != len(nodes):
        raise BackendError(f"verifier {verifier.name} returned {len(scores)} scores for {len(nodes)} candidates")
    for score in scores:
        for value in (score.value, *score.steps):
            if not (isinstance(value, int | float) and math.isfinite(value) and 0 <= value <= 1):
                raise BackendError(f"verifier {verifier.name} gave the score {value}; scores must lie in [0, 1]")
