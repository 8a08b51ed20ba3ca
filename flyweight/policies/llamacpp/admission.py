"""From a request to a row in a slot: checked, tokenised, with its own random numbers. And out of the slot again."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from flyweight.errors import BackendError
from flyweight.policies.llamacpp.row import Row, Writer, reason, unfinished_bytes
from flyweight.policies.llamacpp.tokens import Tokens
from flyweight.protocols import Request, Response
from flyweight.types import Finish, Sampling

if TYPE_CHECKING:
    from flyweight.policies.llamacpp.context import Model
    from flyweight.policies.llamacpp.grammar import Grammar

__all__ = ["admit", "admitted", "leave"]


def admit(
    waiting: Iterator[Request],
    rows: list[Row],
    slots: int,
    *,
    model: Model | None,
    tokens: Tokens,
    context: int,
    twins: bool = True,
) -> list[Response]:
    """Fill `rows` up to `slots`, taking no more from `waiting` than that needs; what of it has ended already.

    Consecutive requests for one node become twins of the first, unless what was computed cannot be shared (`twins`).
    """
    ended: list[Response] = []
    leader: Row | None = None
    while len(rows) < slots and (request := next(waiting, None)) is not None:
        same = twins and leader is not None and request.node is leader.request.node
        twin_of = leader if same and not request.reread else None
        try:
            path = tokens.path(request.node) if twin_of is None else twin_of.path
            row = admitted(request, path, model=model, tokens=tokens, context=context)
        except Exception as error:  # what a tokenizer or a chat template raises fails its own request only
            ended.append(Response(request.id, error=reason(error)))
            continue
        if row is None:  # its path had already grown to the end of the context
            ended.append(Response(request.id, finish=Finish.LENGTH))
            continue
        rows.append(row)
        if twin_of is not None:
            row.leader = twin_of
            twin_of.twins.append(row)
        elif row.reread is None:
            leader = row
    return ended


def leave(row: Row, rows: list[Row]) -> list[Request]:
    """Free a row's slot. Twins that still wait for it lose theirs: their requests, to be queued again."""
    rows.remove(row)
    if row.leader is not None:
        row.leader.twins.remove(row)
    for twin in row.twins:
        rows.remove(twin)
        twin.close()
    return [twin.request for twin in row.twins]


def admitted(request: Request, path: list[int], *, model: Model | None, tokens: Tokens, context: int) -> Row | None:
    """A row for a request whose path has the given token ids; None if the path has grown to the end of the context.

    A BackendError in one line for a prompt that does not fit and for values outside their range.
    """
    sampling = request.sampling
    if not (request.choices or request.reread):
        _check(sampling)
    if not path:
        raise BackendError("the prompt is empty")
    room = context if request.choices or request.reread else context - 1
    if len(path) > room:
        fits = len(tokens.prompt(request.node.root.messages)) <= room
        if fits and not request.reread:
            return None
        raise BackendError(
            f"the {'path' if fits else 'prompt'} has {len(path)} tokens, the context only {context}: "
            f"raise context={1 << len(path).bit_length()}"
        )
    choices = [tokens.text(choice)[:1] for choice in request.choices]
    if not all(choices):
        raise BackendError("choices holds an empty string")
    reread = _positions(request, path, tokens) if request.reread else None
    return Row(
        request,
        path,
        Writer(sampling.stop, _broken_off(request, path, tokens)),
        random.Random(request.seed),
        choices=[first for (first,) in choices],
        grammar=_grammar(model, sampling.grammar) if sampling.grammar and not choices else None,
        reread=reread,
        ends=_ends(request, len(reread), tokens) if reread is not None else (),
    )


def _positions(request: Request, path: list[int], tokens: Tokens) -> range:
    """Where the states of a path stand: from its prompt's last token on; of a root, before that."""
    node = request.node
    if node.parent is None:
        return range(max(1, len(path) - 1))
    start = len(tokens.prompt(node.root.messages)) - 1
    return range(start, max(start + 1, len(path) if node.complete else len(path) - 1))


def _ends(request: Request, states: int, tokens: Tokens) -> tuple[int, ...]:
    """How many of a path's states there are up to the end of each of its steps."""
    steps = request.node.steps
    return (*accumulate(len(tokens.step(step)) for step in steps[:-1]), states) if steps else ()


def _check(sampling: Sampling) -> None:
    if not (math.isfinite(sampling.temperature) and sampling.temperature >= 0):
        raise BackendError(f"temperature={sampling.temperature}: must be 0 or more")
    if not 0 < sampling.top_p <= 1:
        raise BackendError(f"top_p={sampling.top_p}: must be above 0 and at most 1")
    if sampling.max_tokens < 1:
        raise BackendError(f"max_tokens={sampling.max_tokens}: must be at least 1")
    if not all(sampling.stop):
        raise BackendError("stop holds an empty string")


def _grammar(model: Model | None, gbnf: str) -> Grammar:
    if model is None:
        raise BackendError("a grammar constrains the embedded engine only: use a GGUF model")
    from flyweight.policies.llamacpp.grammar import Grammar

    return Grammar(model, gbnf)


def _broken_off(request: Request, path: list[int], tokens: Tokens) -> bytes:
    """The beginning of a character in which the drawn step before this one was cut off."""
    node = request.node
    if node.finish not in (Finish.LENGTH, Finish.CUT) or not tokens.drew(node):
        return b""
    return unfinished_bytes(b"".join(map(tokens.piece, path[-4:])))
