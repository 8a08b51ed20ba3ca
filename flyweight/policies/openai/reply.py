"""A choice of an answer as it comes in: untrusted pieces become text, tokens and the reason for their end."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flyweight.protocols import Growth, Until
from flyweight.types import Finish, Sampling
from flyweight.wire.client import Failure, finite

__all__ = ["Reply", "Token", "chances", "choices", "listed"]

LONGEST_TOKEN = 256
"""Characters; a server that exceeds this on average ignores max_tokens."""
ENDS = {
    "stop": Finish.END,
    "eos": Finish.END,
    "eos_token": Finish.END,
    "tool_calls": Finish.END,
    "function_call": Finish.END,
    "length": Finish.LENGTH,
    "content_filter": Finish.LENGTH,
}
"""What servers give as the reason for an end; a filtered text is a truncated one."""
TINY = 1e-9
"""Probability left for all other tokens, at least, where the likely ones already add up to 1."""


class Token(NamedTuple):
    """A drawn token as the server tells of it."""

    text: str
    logprob: float | None = None
    likely: tuple[tuple[str, float], ...] = ()
    """The most likely tokens in its place with their log-probabilities."""


class Reply:
    """What one choice has come to so far."""

    def __init__(
        self,
        sampling: Sampling,
        until: Until | None = None,
        *,
        vocabulary: int = 1 << 17,
        skip_blanks: bool = False,
        stops: Sequence[str] = (),
    ) -> None:
        """`skip_blanks`: those at the beginning are there already. `stops`: the stop strings the server knows of."""
        self.text = ""
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.certainty: list[float] = []
        self.finish: Finish | None = None
        self.ended = False
        """Whether the server has said so itself: a count that it gives from now on is complete."""
        self.thoughts = 0
        """Pieces of hidden reasoning: counted as tokens, not part of the text."""
        self.first: Token | None = None
        self._sampling = sampling
        self._until = until
        self._vocabulary = vocabulary
        self._skip = skip_blanks
        self._stops = stops
        self._longest = max(map(len, sampling.stop), default=0)
        self._searched = 0

    @property
    def seen(self) -> int:
        """Pieces of text and of hidden reasoning so far."""
        return len(self.tokens) + self.thoughts

    @property
    def empty(self) -> bool:
        """Whether the server had nothing to say: no text, no thought, and nothing was cut off."""
        return not self.text and not self.thoughts and self.finish is not Finish.LENGTH

    @property
    def counted(self) -> int:
        """Tokens seen, that which ended the answer among them; never more than were asked for."""
        return min(self.seen + (self.finish is Finish.END), self._sampling.max_tokens)

    @property
    def done(self) -> bool:
        """Whether nothing more is wanted; an end that the server knows of too is waited for, with its count."""
        return self.finish is not None and (self.ended or not self._left_to_server)

    @property
    def _left_to_server(self) -> bool:
        return self.finish is Finish.STOP and any(stop in self.text for stop in self._stops)

    def take(self, choice: Mapping[str, Any]) -> None:
        """Another piece. Failure for one that makes no sense."""
        delta = choice.get("delta", choice.get("message"))
        inside = delta if isinstance(delta, dict) else choice
        content = inside.get("content" if inside is delta else "text") or ""
        if not isinstance(content, str):
            raise Failure("the server sent content that is not text", retry=False)
        thought = bool(inside.get("reasoning_content") or inside.get("reasoning"))
        self.thoughts += thought
        reason = choice.get("finish_reason")
        # What is listed of a piece without text is the reasoning's, or the token that ended the answer.
        pieces = _tokens(content, choice.get("logprobs")) if content or not (thought or reason is not None) else ()
        for token in pieces:
            if self.finish is None:
                self._write(token)
        if self.thoughts > self._sampling.max_tokens:
            self.finish = self.finish or Finish.LENGTH
        if reason is not None:
            self._end(reason, choice.get("stop_reason", choice.get("matched_stop")))

    def _end(self, reason: object, stop: object) -> None:
        self.ended = True
        if not isinstance(reason, str) or reason not in ENDS:
            said = reason if isinstance(reason, str) and re.fullmatch(r"[a-z_]{1,40}", reason) else "another reason"
            raise Failure(f"the server broke off with {said!r}", sick=True)
        if self.finish is not None:
            return
        self.finish = ENDS[reason]
        if isinstance(stop, str) and stop in self._sampling.stop:
            self.text += stop  # one that leaves it out although it was asked to keep it
            self.finish = Finish.STOP

    def _write(self, token: Token) -> None:
        sampling = self._sampling
        if len(self.tokens) >= sampling.max_tokens:
            self.finish = Finish.LENGTH
            return
        self.first = self.first or token
        self.text += token.text
        if self._skip:
            self.text = self.text.lstrip()
            self._skip = not self.text
        self.tokens.append(zlib.crc32(token.text.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF)
        if token.logprob is not None:
            self.logprobs.append(token.logprob)
        if token.likely:
            self.certainty.append(_certainty(token.likely, self._vocabulary))
        begin = max(0, self._searched - self._longest + 1)
        self._searched = len(self.text)
        ends = [at + len(stop) for stop in sampling.stop if (at := self.text.find(stop, begin)) >= 0]
        if ends:
            self.finish = Finish.STOP
            # Not with the whole token, as embedded engines do: servers that look for stop strings cut them off here,
            # and in a piece of several tokens what stands behind depends on how the stream was cut up.
            self.text = self.text[: min(ends)]
        elif self._until is not None and self._until(
            Growth(self.text, self.tokens, self._per_token(self.logprobs), self._per_token(self.certainty))
        ):
            self.finish = Finish.CUT
        elif len(self.text) > LONGEST_TOKEN * sampling.max_tokens:
            self.text = self.text[: LONGEST_TOKEN * sampling.max_tokens]
            self.finish = Finish.LENGTH

    def _per_token(self, numbers: Sequence[float]) -> Sequence[float]:
        """Numbers that there is one of for every token, or none."""
        return numbers if len(numbers) == len(self.tokens) else ()

    def numbers(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Log-probabilities and certainties of all tokens; empty where the server left any out."""
        return tuple(self._per_token(self.logprobs)), tuple(self._per_token(self.certainty))


def choices(event: object, n: int) -> list[tuple[int, Mapping[str, Any]]]:
    """The choices of an event with their indices. Failure for one that was not asked for."""
    listed = event.get("choices", ()) if isinstance(event, dict) else None
    if not isinstance(listed, list | tuple):
        raise Failure("the server sent an event without choices", retry=False)
    found = []
    for choice in listed:
        index = choice.get("index", 0) if isinstance(choice, dict) else None
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < n:
            raise Failure(f"the server sent a choice that is none of the {n} asked for")
        found.append((index, choice))
    return found


def chances(token: Token, wanted: Sequence[str]) -> tuple[float, ...]:
    """Log-probability of each wanted text's first token; -inf where it is not among the likely ones.

    A text's first token is the longest of the likely ones that it begins with; blanks at the ends do not count where
    nothing fits with them.
    """
    return tuple(max(_chance(token, text), -math.inf) for text in wanted)


def _chance(token: Token, text: str) -> float:
    for clean in (str, str.strip):
        fitting = [
            (len(clean(said)), lp) for said, lp in token.likely if clean(said) and clean(text).startswith(clean(said))
        ]
        if fitting:
            return max(fitting)[1]
    return -math.inf


def _tokens(content: str, said: object) -> list[Token]:
    """The tokens of a piece; the whole of it where the server lists none."""
    found = listed(said)
    if found and "".join(token.text for token in found) != content:
        # Parts of characters, or text that was cut inside a token: the text counts.
        *others, last = found
        return [*(each._replace(text="") for each in others), last._replace(text=content)]
    return found or ([Token(content)] if content else [])


def listed(said: object) -> list[Token]:
    """Tokens from the log-probabilities of a chat's or a completion's choice."""
    if not isinstance(said, dict):
        return []
    likely = "top_logprobs"
    try:
        if isinstance(entries := said.get("content"), list):
            return [
                Token(
                    _text(entry["token"]),
                    _logprob(entry["logprob"]),
                    tuple(
                        (_text(each["token"]), _logprob(each["logprob"])) for each in entry.get("top_logprobs") or ()
                    ),
                )
                for entry in entries
            ]
        names, numbers = said.get("tokens") or [], said.get("token_logprobs") or []
        tops = said.get(likely) or [None] * len(names)
        return [
            Token(_text(name), _logprob(number), tuple((t, _logprob(lp)) for t, lp in (each or {}).items()))
            for name, number, each in zip(names, numbers, tops, strict=True)
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Failure("the server sent log-probabilities in a form nobody knows", retry=False) from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _logprob(value: object) -> float:
    number = finite(value)
    if number is None or number > 1e-3:
        what = value if isinstance(value, float) else type(value).__name__
        raise Failure(f"the server sent {what} for a log-probability", retry=False)
    return min(0.0, number)


def _certainty(likely: Sequence[tuple[str, float]], vocabulary: int) -> float:
    """KL(uniform || model) in nats, at least: what is known of the likely tokens, the others sharing the rest evenly.

    Even shares make the sum over the others' log-probabilities as large as it can be, so the truth is never lower.
    """
    others = max(1, vocabulary - len(likely))
    rest = max(TINY, 1 - math.fsum(math.exp(lp) for _, lp in likely))
    total = math.fsum(lp for _, lp in likely) + others * math.log(rest / others)
    return max(0.0, -total / (others + len(likely)) - math.log(others + len(likely)))
