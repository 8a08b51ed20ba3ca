"""Rules about the text alone: free, deterministic, linear in the text, and they never fail on one.

Each is weak by itself and easy to satisfy by a text that is made to: they say what an answer must have, not that it is
right. `all` and `weighted` combine them with others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache

from flyweight.answers import extract
from flyweight.errors import ConfigError, unknown
from flyweight.protocols import Models
from flyweight.types import Node, Problem, Score
from flyweight.verifiers import content

__all__ = ["Form", "Length", "Regex", "Repetition", "Rule", "matcher", "plain"]

LONGEST = 1_000_000
"""Characters of a text that a rule reads."""


class Rule(ABC):
    """A verifier that is a function of the problem and the candidate's text."""

    name = ""
    params = 0
    sees_answer = False

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node; costs no tokens."""
        return [Score(self.value(problem, node.solution[:LONGEST]), (), self.name) for node in nodes]

    @abstractmethod
    def value(self, problem: Problem, text: str) -> float:
        """In [0, 1]."""


class Form(Rule):
    """1 where an answer of the wanted kind is stated, else 0: a number or formula, a letter, an object, a program.

    An echo of the question, stock phrases ("Solution:", "Let's solve this step by step."), a refusal or one thing said
    over and over states none.

    Source: Format rewards, as in DeepSeek-AI 2025, DeepSeek-R1 (2501.12948); stock phrases: 2507.08794.
    """

    name = "form"

    def __init__(self, *, kind: str = "math", least: int = content.LEAST) -> None:
        """`kind` of answer, as for `--kind`; `least` different words of its own make a text an answer (kind text)."""
        self.kind, self.least = checked_kind(kind), least

    def value(self, problem: Problem, text: str) -> float:
        return float(not content.vacuous(text, problem.prompt, self.kind, self.least))


class Regex(Rule):
    """1 where a regular expression matches anywhere in the text, or in the extracted answer (of=answer), else 0.

    In the syntax of Rust's regex crate, which takes time linear in the text whatever the pattern: as Python's, without
    look-around and back-references. ^ and $ mean the ends of the text.

    Source: Verifiable rewards by rule, as in Lambert et al. 2024, Tulu 3 (2411.15124).
    """

    name = "regex"

    def __init__(self, *, pattern: str = "", of: str = "text", kind: str = "math") -> None:
        """`kind` says how the answer is read. ConfigError for a pattern that is not valid."""
        if not pattern:
            raise ConfigError(r"regex needs a pattern: regex:pattern=\d+ euros")
        if of not in ("text", "answer"):
            raise unknown("part of a solution", of, ("text", "answer"))
        matcher(pattern)
        self.pattern, self.of, self.kind = pattern, of, checked_kind(kind)

    def value(self, problem: Problem, text: str) -> float:
        read = text if self.of == "text" else extract(text, self.kind)
        return float(read is not None and matcher(self.pattern)(read))


class Length(Rule):
    """1 for a text of `least` to `most` words; outside, the ratio between its length and the nearer limit.

    Source: Length constraints, as in Zhou et al. 2023, IFEval (2311.07911), made gradual.
    """

    name = "length"

    def __init__(self, *, least: int = 1, most: int | None = None, unit: str = "words") -> None:
        """`unit`: words, characters or sentences. A character of a script without spaces is a word."""
        if unit not in UNITS:
            raise unknown("unit of length", unit, UNITS)
        if least < 0 or (most is not None and most < max(least, 1)):
            raise ConfigError(f"least={least} and most={most} are not allowed: 0 <= least <= most")
        self.least, self.most, self.unit = least, most, unit

    def value(self, problem: Problem, text: str) -> float:
        count = UNITS[self.unit](text)
        if count < self.least:
            return count / self.least
        return 1.0 if self.most is None or count <= self.most else self.most / count


class Repetition(Rule):
    """1 minus the share of runs of `size` words that have occurred before in the text: a loop scores near 0.

    A text of fewer words scores 1.

    Source: seq-rep-n of Welleck et al. 2019, Neural Text Generation with Unlikelihood Training (1908.04319).
    """

    name = "repetition"

    def __init__(self, *, size: int = 4) -> None:
        """`size` in words, signs counting as words."""
        if not 1 <= size <= 20:
            raise ConfigError(f"size={size} is not allowed: a whole number from 1 to 20")
        self.size = size

    def value(self, problem: Problem, text: str) -> float:
        return 1 - content.repeated(text, self.size)


def plain(text: str) -> str:
    """The text without lone surrogates, which no other program reads."""
    return text.encode("utf-8", "replace").decode("utf-8")


@lru_cache(maxsize=256)
def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a text holds a match of the pattern, in linear time. ConfigError for a pattern that is not valid."""
    from typing import Annotated

    from pydantic import StringConstraints, TypeAdapter, ValidationError
    from pydantic_core import SchemaError

    try:
        # Python's re takes exponential time for some patterns; this engine never does, and is a dependency already.
        adapter = TypeAdapter(Annotated[str, StringConstraints(pattern=plain(pattern))])
    except SchemaError as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.startswith("error:")), str(error))
        raise ConfigError(f"the pattern {pattern!r} cannot be used: {' '.join(reason.split())}") from None

    def matches(text: str) -> bool:
        try:
            adapter.validate_python(plain(text))
        except ValidationError:
            return False
        return True

    return matches


def checked_kind(kind: str) -> str:
    """The kind; ConfigError for an unknown one."""
    extract("", kind)
    return kind


UNITS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(content.words(text)),
    "characters": len,
    "sentences": content.sentences,
}
