"""Small words for tests that drive a policy by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flyweight.protocols import Counters, Policy, Request, Response
from flyweight.types import Finish, Message, Node, Sampling

if TYPE_CHECKING:
    from flyweight.policies.llamacpp import LlamaCpp

Engines = Callable[..., "LlamaCpp"]
"""Makes an engine on the tiny model; keywords are the engine's options."""


def prompt(*contents: str) -> Node:
    """A root with user and assistant turns in turn."""
    roles = ("user", "assistant")
    return Node(messages=tuple(Message(roles[i % 2], text) for i, text in enumerate(contents)))  # type: ignore[arg-type]


def draw(id: int, node: Node, *, max_tokens: int = 24, temperature: float = 1.0, **more: Any) -> Request:
    """A request whose seed is its id."""
    fields = {"top_p", "stop", "grammar"}
    sampling = {key: more.pop(key) for key in fields & more.keys()}
    return Request(
        id,
        node,
        Sampling(temperature=temperature, max_tokens=max_tokens, **sampling),
        **{"seed": id, **more},
    )


def finish(policy: Policy, want: int, steps: int = 20_000) -> list[Response]:
    """Step until `want` responses are back, in order of id."""
    out: list[Response] = []
    while len(out) < want:
        assert (steps := steps - 1) > 0, "the policy does not finish"
        out += policy.step()
    assert len(out) == want
    return sorted(out, key=lambda response: response.id)


def run(policy: Policy, requests: Iterable[Request]) -> list[Response]:
    """All responses to requests that are added at once, in order of id."""
    requests = list(requests)
    for request in requests:
        policy.add(request)
    return finish(policy, len(requests))


def child(node: Node, response: Response, policy: Policy) -> Node:
    """The node a runner would make of a response."""
    return Node(
        parent=node,
        text=response.text,
        tokens=response.tokens,
        logprobs=response.logprobs,
        finish=response.finish,
        policy=policy.name,
    )


def forced(node: Node, text: str) -> Node:
    """The node followed by text no policy drew."""
    return Node(parent=node, text=text, tokens=None, finish=Finish.FORCED)


def cost(responses: Iterable[Response]) -> tuple[int, int, int]:
    """Sums of prompt, cached and generated tokens."""
    all_of = list(responses)
    return (
        sum(r.prompt_tokens for r in all_of),
        sum(r.cached_tokens for r in all_of),
        sum(r.generated_tokens for r in all_of),
    )


def drawn(response: Response) -> tuple[str, tuple[int, ...], Finish, str | None]:
    """What must not depend on company, memory or order."""
    return response.text, response.tokens, response.finish, response.error


def totals(counters: Counters) -> tuple[int, int, int]:
    """The part of the counters that responses add up to."""
    return counters.prompt_tokens, counters.cached_tokens, counters.generated_tokens
