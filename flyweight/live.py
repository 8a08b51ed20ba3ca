"""One problem being searched: its coroutines, what they have drawn and spent, and its result.

Nothing here drives anything; `runner.Runner` does. What its strategy may say is in `vocabulary`, what its verifiers may
ask in `reader`: both come down to `Live.draw` and `Live.read`, whose `await` yields a `Draw` up to the runner.
"""

from __future__ import annotations

import itertools
import numbers
import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flyweight.calls import Branch, Draw, Outside, ask
from flyweight.candidates import Candidates
from flyweight.errors import BudgetSpent, ConfigError, SandboxError
from flyweight.protocols import Hidden, Policy, Request, Response, Search, Strategy, Until
from flyweight.setting import Setting
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
    Stopped,
    Usage,
    digest,
)

__all__ = ["Live", "forced", "rooted"]

_request_ids = itertools.count(1)


class Live:
    """One problem in flight, from `begin` to its `result`."""

    main: Branch
    """The strategy's own coroutine, once begun."""
    branch: Branch
    """The one whose code is running now."""

    def __init__(self, problem: Problem, strategy: Strategy, budget: Budget, setting: Setting) -> None:
        """Raises ConfigError for a budget that nothing can keep to."""
        self.original = problem
        self.problem = replace(problem, answer=None)
        self.budget = _possible(budget)
        self.usage = Usage()
        self.setting = setting
        self.root = rooted(problem.conversation)
        self.queue: deque[tuple[Branch, Draw, int]] = deque()
        """Single continuations not handed to a policy yet, first asked first."""
        self.flying: dict[int, tuple[Branch, Draw, int]] = {}
        """Request id -> whose it is."""
        self.outside: list[tuple[Branch, Outside]] = []
        """Work done elsewhere that branches are waiting for."""
        self.reserved = 0
        """Most tokens the ones in flight may still generate."""
        self.reread: dict[tuple[str, str], Hidden] = {}
        """Hidden states that were read again, by path and policy: several verifiers may want them."""
        self.explained: Mapping[str, object] = {}
        self.refused = False
        """Whether the budget turned a call away."""
        self.started = setting.clock()
        aggregation = getattr(strategy, "keywords", {}).get("aggregation", "last")
        self.candidates = Candidates(self.problem, setting.answers, setting.map(strategy), aggregation)
        self.result: Result | None = None
        self.failure: Exception | None = None
        """What `Result.error` is about, where an exception was raised."""
        self.broken: SandboxError | None = None
        """The same where it is the sandbox, without which no other problem fares better."""
        self._strategy = strategy

    def begin(self, search: Search) -> None:
        """Make the strategy, speaking to `search`, the coroutine to be run. ConfigError where it makes none."""
        coroutine = self._strategy(search)
        if not hasattr(coroutine, "send"):
            function = getattr(self._strategy, "func", self._strategy)  # a partial says what it is of
            name = getattr(function, "__name__", repr(function))
            raise ConfigError(f"the strategy {name} is no coroutine function: write it as async def")
        self.main = self.branch = Branch(coroutine, self.random(()))
        self.emit("start", node=self.root, facts={"prompt": self.original.prompt, "answer": self.original.answer})

    # Drawing ----------------------------------------------------------------------------------------------

    async def draw(
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
        """`n` continuations of each node; fewer where the token budget ran out. Flags as in `Draw`."""
        branch = self.branch
        requests: list[Request] = []
        blanks: list[Node | None] = []
        longest = self.setting.longest if not verifying else None
        for node in nodes:
            drawn_with = sampling
            if longest is not None and node.root is self.root:
                room = max(1, longest - node.drawn)
                drawn_with = replace(sampling, max_tokens=min(sampling.max_tokens, room))
            for _ in range(n):
                draw = branch.draws[node.key] = branch.draws.get(node.key, -1) + 1
                key = digest(node.key, branch.place, draw)[:32]
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

    async def read(
        self, nodes: Sequence[Node], policy: Policy, *, choices: tuple[str, ...] = (), reread: bool = False
    ) -> list[Response]:
        """What the policy makes of each path, for a verifier and without drawing: see `Request`."""
        sampling = Sampling(temperature=0, max_tokens=1)
        requests = [Request(next(_request_ids), node, sampling, 0, choices=choices, reread=reread) for node in nodes]
        if not requests:
            return []
        reading = Draw(requests, policy, True, [None] * len(requests))
        await ask(reading)
        return [response for response in reading.responses if response is not None]

    def random(self, place: tuple[int, ...]) -> random.Random:
        """Random numbers of the branch there."""
        return random.Random(digest("rng", self.setting.seed, self.original.id, place))

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
            self.candidates.keep(node)
        if not draw.verifying:
            self.emit("node", node=node, facts={"seconds": response.seconds} if response.seconds else None)

    # Spending ---------------------------------------------------------------------------------------------

    def charge(self, draw: Draw, response: Response) -> None:
        """Book what a response cost, kept or not."""
        flops = 2.0 * draw.policy.params * (response.prompt_tokens + response.generated_tokens)
        if draw.verifying:
            tokens = response.prompt_tokens + response.generated_tokens
            self.spend(Usage(verifier_tokens=tokens, cached_tokens=response.cached_tokens, flops=flops))
        else:
            self.spend(
                Usage(
                    prompt_tokens=response.prompt_tokens,
                    cached_tokens=response.cached_tokens,
                    generated_tokens=response.generated_tokens,
                    policy_calls=1,
                    flops=flops,
                )
            )

    def spend(self, usage: Usage) -> None:
        """Book what something cost."""
        self.usage = self.usage + usage

    def seen(self, kv_bytes: int) -> None:
        """Note the engine's KV memory in use."""
        if kv_bytes > self.usage.peak_kv_bytes:
            self.spend(Usage(peak_kv_bytes=kv_bytes))

    # Limits -----------------------------------------------------------------------------------------------

    def tokens_left(self, draw: Draw) -> int | None:
        """What the token budget still allows a draw, those in flight counted at their most; None without limit."""
        if self.budget.tokens is None or draw.verifying:
            return None
        return self.budget.tokens - self.usage.generated_tokens - self.reserved

    def verifications(self, wanted: int) -> int:
        """How many of the wanted verifications the budget still allows. BudgetSpent if none."""
        limit = self.budget.verifications
        if limit is None:
            return wanted
        left = limit - self.usage.verifier_calls
        if left < wanted:
            self.refused = True
        if left <= 0 < wanted:
            raise BudgetSpent(f"all {limit} verifications are spent")
        return min(wanted, left)

    def late(self) -> bool:
        """Whether the seconds are spent."""
        seconds = self.budget.seconds
        return seconds is not None and self.setting.clock() - self.started >= seconds

    def sure(self) -> bool:
        """Whether the leading answer has reached `Budget.confidence`."""
        wanted = self.budget.confidence
        return wanted is not None and self.candidates.sure(wanted)

    # Record and result ------------------------------------------------------------------------------------

    def note(self, **facts: object) -> None:
        """Put facts on the record; `explained` is what the result says of itself."""
        if isinstance(explained := facts.get("explained"), Mapping):
            self.explained = explained
        self.emit("note", facts=facts)

    def emit(self, kind: Any, node: Node | None = None, facts: Mapping[str, object] | None = None) -> None:
        """Tell watchers that something happened."""
        self.setting.emit(Event(self.problem.id, kind, self.setting.clock(), node, facts or {}))

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
        self.emit("progress", facts=facts)

    def blame(self, failure: Exception) -> None:
        """Keep what went wrong."""
        self.failure = failure
        if isinstance(failure, SandboxError):
            self.broken = failure
            self.candidates.clear()  # without a sandbox their answers cannot be told apart

    def finish(self, best: Node | None, stopped: Stopped, error: str | None = None) -> Result:
        """Close the books."""
        candidates = self.candidates
        if error is None and best is None:
            best = candidates.best()
        if best is not None:
            best = candidates.settle(best)
        nodes = candidates.ends(best)
        groups = candidates.groups(nodes) if nodes else []
        index = {node.key: i for i, group in enumerate(groups) for node in group}
        if self.setting.hidden and not self.setting.keeps_states:
            made: dict[Node, Node] = {}
            nodes = [_without_states(node, made) for node in nodes]
            best = None if best is None else _without_states(best, made)
        self.spend(Usage(seconds=self.setting.clock() - self.started))
        confidence, calibrated = candidates.confidence(groups, best) if best is not None else (None, False)
        wanted = self.budget.confidence
        self.result = Result(
            problem=self.original,
            best=best,
            answer=candidates.answer(best) if best is not None else None,
            candidates=tuple(Candidate(node, candidates.answer(node), index.get(node.key)) for node in nodes),
            usage=self.usage,
            stopped=stopped,
            confidence=confidence,
            calibrated=calibrated,
            sure=wanted is None or (confidence is not None and confidence >= wanted),
            explained=self.explained,
            error=error,
        )
        self.emit("end", facts={"result": self.result})
        return self.result


def _possible(budget: Budget) -> Budget:
    """The budget. ConfigError for a limit that is none: not a number, negative, or a confidence outside (0, 1]."""
    for name, kind, allowed in (
        ("tokens", numbers.Integral, "a whole number from 0"),
        ("verifications", numbers.Integral, "a whole number from 0"),
        ("seconds", numbers.Real, "seconds from 0"),
        ("confidence", numbers.Real, "a probability above 0, at most 1"),
    ):
        value = getattr(budget, name)
        number = isinstance(value, kind)
        if value is not None and not (number and (0 < value <= 1 if name == "confidence" else value >= 0)):
            raise ConfigError(f"Budget({name}={value!r}) is not allowed: {allowed}, or None for no limit")
    return budget


def rooted(messages: Sequence[Message]) -> Node:
    """The node holding a prompt."""
    return Node(messages=tuple(messages), key=digest("root", tuple(messages))[:32])


def forced(node: Node, text: str) -> Node:
    """The node followed by a text that nobody drew."""
    return Node(parent=node, text=text, tokens=None, finish=Finish.FORCED, key=digest(node.key, "append", text)[:32])


def _without_states(node: Node, made: dict[Node, Node]) -> Node:
    """The node and those before it without hidden states; what is shared stays shared through `made`."""
    bare = None
    for step in (node.root, *node.steps):
        if step not in made:
            made[step] = replace(step, parent=bare, hidden=None)
        bare = made[step]
    return made[node]
