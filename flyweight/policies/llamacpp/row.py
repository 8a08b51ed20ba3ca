"""One request while it is served: its path, its text so far, when it is finished, what it cost."""

from __future__ import annotations

import codecs
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from flyweight.errors import FlyweightError
from flyweight.policies.llamacpp.lookup import Lookup
from flyweight.policies.llamacpp.sampler import Drawn
from flyweight.protocols import Growth, Request, Response
from flyweight.types import Finish

if TYPE_CHECKING:
    from flyweight.policies.llamacpp.context import States
    from flyweight.policies.llamacpp.grammar import Grammar

__all__ = ["Row", "Writer", "reason", "unfinished_bytes"]

_DECODER = codecs.getincrementaldecoder("utf-8")


class Writer:
    """Text of a growing list of tokens, and whether it contains a stop string at its end."""

    def __init__(self, stop: tuple[str, ...], held: bytes = b"") -> None:
        """`held` is the beginning of a character the path before this text broke off in."""
        self.text = ""
        self._decoder = _DECODER(errors="replace")
        self._decoder.decode(held)
        self._stop = stop
        self._longest = max(map(len, stop), default=0)
        self._searched = 0

    def write(self, piece: bytes) -> bool:
        """Add a token's bytes; whether a stop string is complete and the text ends with a whole character."""
        self.text += self._decoder.decode(piece)
        if not self._longest or self._decoder.getstate()[0]:
            return False
        begin = max(0, self._searched - self._longest + 1)
        self._searched = len(self.text)
        return any(self.text.find(stop, begin) >= 0 for stop in self._stop)

    def close(self) -> None:
        """The text ends here for good: a broken character becomes U+FFFD."""
        self.text += self._decoder.decode(b"", True)


def unfinished_bytes(tail: bytes) -> bytes:
    """The bytes at the end of `tail` that begin a UTF-8 character without completing it."""
    decoder = _DECODER(errors="replace")
    decoder.decode(tail)
    return decoder.getstate()[0]


@dataclass(slots=True, eq=False)
class Row:
    """A request in a slot. `done` tokens of its path are in the KV of `stream`; `-1` is no stream yet."""

    request: Request
    path: list[int]
    writer: Writer
    rng: random.Random
    choices: list[int] = field(default_factory=list)
    grammar: Grammar | None = None
    stream: int = -1
    started: bool = False
    """Whether its stream has been made to hold the resident prefix."""
    done: int = 0
    twins: list[Row] = field(default_factory=list)
    """Requests with the same path that came together with this one: they share its first logits."""
    leader: Row | None = None
    """For a twin, the row whose first logits it waits for."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    certainty: list[float] = field(default_factory=list)
    hidden: list[States] = field(default_factory=list)
    alternatives: list[tuple[tuple[int, float], ...]] = field(default_factory=list)
    reread: range | None = None
    """The positions whose states are wanted, and nothing else."""
    ends: tuple[int, ...] = ()
    """How many of them there are up to the end of each step."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    _lookup: Lookup | None = None
    _uniforms: list[float] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether only the last token of its path is missing from the KV."""
        return self.reread is None and self.started and self.done == len(self.path) - 1 + len(self.tokens)

    @property
    def left(self) -> int:
        """Tokens of its path to be computed ahead of any drawing."""
        return (len(self.path) - 1 if self.reread is None else self.reread.stop) - self.done

    @property
    def reusable(self) -> int:
        """Tokens of its path that need not be computed if they are resident."""
        return len(self.path) - 1 if self.reread is None else self.reread.start

    @property
    def next_token(self) -> int:
        """The token the next decode computes."""
        return self.tokens[-1] if self.tokens else self.path[-1]

    def draft(self, most: int, context: int) -> list[int]:
        """Up to `most` tokens that may follow `next_token`, no more than can still be wanted."""
        room = min(self.request.sampling.max_tokens, context - len(self.path)) - len(self.tokens) - 1
        if self._lookup is None:
            self._lookup = Lookup(self.path)
        self._lookup.learn(self.tokens[len(self._lookup) - len(self.path) :])
        return self._lookup.draft(max(0, min(most, room)))

    def uniform(self, ahead: int = 0) -> float:
        """The number in [0, 1) that the next token, or one `ahead` of it, is drawn with."""
        while len(self._uniforms) <= ahead:
            self._uniforms.append(self.rng.random())
        return self._uniforms[ahead]

    def write(self, drawn: Drawn, piece: bytes, context: int) -> Finish | None:
        """Add a drawn token; how the text ends with it, if it does."""
        del self._uniforms[:1]
        self.tokens.append(drawn.token)
        self.logprobs.append(drawn.logprob)
        self.certainty.append(drawn.certainty)
        if self.writer.write(piece):
            return Finish.STOP
        request = self.request
        if request.until is not None and request.until(
            Growth(self.writer.text, self.tokens, self.logprobs, self.certainty)
        ):
            return Finish.CUT
        if len(self.tokens) >= request.sampling.max_tokens or len(self.path) + len(self.tokens) >= context:
            return Finish.LENGTH
        return None

    def close(self) -> None:
        """Release what the row holds outside Python."""
        if self.grammar is not None:
            self.grammar.close()

    def response(self, finish: Finish, *, choices: Sequence[float] = (), error: str | None = None) -> Response:
        """What goes back to the runner. With an error, only the cost."""
        self.close()
        cost = (self.prompt_tokens, self.cached_tokens, self.generated_tokens)
        if error is not None:
            return Response(
                self.request.id,
                prompt_tokens=cost[0],
                cached_tokens=cost[1],
                generated_tokens=cost[2],
                error=error,
            )
        if finish is Finish.END:
            self.writer.close()
        return Response(
            self.request.id,
            text=self.writer.text,
            tokens=tuple(self.tokens),
            logprobs=tuple(self.logprobs),
            certainty=tuple(self.certainty),
            finish=finish,
            hidden=np.concatenate(self.hidden) if self.hidden else None,
            alternatives=tuple(self.alternatives[: len(self.tokens)]),
            choices=tuple(choices),
            ends=self.ends,
            prompt_tokens=cost[0],
            cached_tokens=cost[1],
            generated_tokens=cost[2],
        )


def reason(error: Exception) -> str:
    """Why a request failed, on one line: our own words whole, of anybody else's 300 characters behind their type."""
    text = " ".join(str(error).split())
    return text if isinstance(error, FlyweightError) else f"{type(error).__name__}: {text[:300]}"
