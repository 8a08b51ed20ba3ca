"""What a verifier may ask of the models: `Models`, bound to one search."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, TypeVar, cast

from flyweight.calls import Outside, ask
from flyweight.live import Live, forced, rooted
from flyweight.protocols import Hidden, Models, Policy, Verifier
from flyweight.types import Finish, Message, Node, Usage

__all__ = ["Reader"]

T = TypeVar("T")


class Reader(Models):
    """A verifier's own access to the models; everything it spends is verifier tokens."""

    def __init__(self, live: Live, verifier: Verifier) -> None:
        self._live = live
        self._verifier = verifier

    async def read(
        self, nodes: Sequence[Node], text: str, choices: Sequence[str], *, policy: str | None = None
    ) -> list[tuple[float, ...]]:
        paths = [forced(node, text) if text else node for node in nodes]
        read = await self._live.read(paths, self._live.setting.policy(policy), choices=tuple(choices))
        return [response.choices for response in read]

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
        setting = self._live.setting
        sampling = setting.sampling_with(temperature, None, stop, max_tokens)
        return await self._live.draw(nodes, n, sampling, setting.policy(policy), whole=True, verifying=True)

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
        root = rooted(messages)
        return await self.complete([root], n, temperature=temperature, stop=stop, max_tokens=max_tokens, policy=policy)

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        live = self._live
        reader = live.setting.policy(policy)
        kept = [_joined(node, reader) or live.reread.get((node.key, reader.name)) for node in nodes]
        missing = [node for node, hidden in zip(nodes, kept, strict=True) if hidden is None]
        said = await live.read(missing, reader, reread=True)
        again = [Hidden(each.hidden, each.prompt_tokens, each.ends) for each in said]
        for node, hidden in zip(missing, again, strict=True):
            live.reread[node.key, reader.name] = hidden._replace(tokens=0)
        rest = iter(again)
        return [hidden or next(rest) for hidden in kept]

    def weights(self, policy: str | None = None) -> str:
        return self._live.setting.weights(policy)

    async def wait(self, future: Future[T]) -> T:
        return cast(T, await ask(Outside(future)))

    def spent(self, tokens: int) -> None:
        if tokens:  # a verifier that computes nothing need not know its size
            self._live.spend(Usage(verifier_tokens=tokens, flops=2.0 * self._verifier.params * tokens))

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
