"""What is kept once it exists: generations, readings, scores. A unit is in the store whole or not at all.

A unit's key says exactly what was asked, so that the same question finds the same answer in any later run. Rows carry
a checksum over everything in them; a row that does not match is as good as absent. Numbers are little-endian: token
ids int32, log-probabilities and certainties float32, scores and readings float64.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from functools import lru_cache
from typing import Literal, NamedTuple

from flyweight.protocols import Request
from flyweight.store.database import Batch, Database
from flyweight.types import Message, Node, Problem, Sampling, ToolMessage

__all__ = ["Content", "Kind", "Paths", "Unit", "Units", "fingerprint", "halves", "mark", "pack", "unpack"]

KEYS = 1
"""Version of how keys are made; another one finds nothing of what was stored under this one."""
TOGETHER = 500
"""Contents asked for in one query."""
REMEMBERED = 4096
"""Paths whose hashes are kept."""

Kind = Literal["generation", "reading", "score", "judgement", "comparison", "dropped", "grade"]
"""judgement: a score for which the verifier asked the models. dropped: the cost of a request called off midway. grade:
what a task said of a text; its content holds the reason."""


class Content(NamedTuple):
    """What was written: the bulk of a node, stored once however many units and searches refer to it."""

    text: bytes
    tokens: bytes
    logprobs: bytes
    certainty: bytes

    @classmethod
    def of(cls, text: str, tokens: Sequence[int], logprobs: Sequence[float], certainty: Sequence[float]) -> Content:
        """Packed."""
        return cls(text.encode("utf-8", "surrogatepass"), pack("i", tokens), pack("f", logprobs), pack("f", certainty))

    @classmethod
    def intact(cls, sum: object, columns: Sequence[object]) -> Content | None:
        """What a row holds, if that is what was written."""
        parts = [part for part in columns if isinstance(part, bytes)]
        content = cls(*parts) if len(parts) == len(columns) else None
        return content if content is not None and content.sum == sum else None

    @property
    def sum(self) -> bytes:
        """Names the content, and tells whether it is intact."""
        return fingerprint(*self)[:16]

    @property
    def string(self) -> str:
        """The text."""
        return self.text.decode("utf-8", "surrogatepass")


class Unit(NamedTuple):
    """A row of `units`."""

    key: bytes
    kind: Kind
    moment: int
    """Which step of an engine it came of; later steps have greater numbers."""
    label: str = ""
    """A generation's Finish; a score's kind; a grade's value, `retry` where that is to be made again."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    content: bytes = b""
    """Sum of a generation's or a grade's Content."""
    numbers: bytes = b""
    """A reading's log-probabilities; a score's value and steps; where each token of a cut text ends."""


class Units:
    """The table of units and that of contents."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._repairs: list[Batch] = []
        self.moment = 1
        """The next step's number."""
        self.refresh()
        self.damaged = 0
        """Rows met so far that were not what had been written; they count as absent and are replaced."""

    def refresh(self) -> None:
        """Count steps from the last one on record."""
        last = self._database.one("SELECT max(moment) FROM units")
        moment = 0 if last is None or last[0] is None else last[0]
        if not isinstance(moment, int) or not 0 <= moment < 1 << 62:
            raise self._database.damaged(f"a unit of step {moment!r}")
        self.moment = moment + 1

    @property
    def writable(self) -> bool:
        """Whether the store was opened for more than reading."""
        return not self._database.readonly

    def get(self, key: bytes) -> Unit | None:
        """The unit of that key; None if there is none, or none intact."""
        row = self._database.one(
            "SELECT key, kind, moment, label, prompt_tokens, cached_tokens, generated_tokens, content, numbers, mark"
            " FROM units WHERE key = ?",
            (key,),
        )
        if row is None:
            return None
        if mark(*row[:-1]) == row[-1]:
            return Unit(*row[:-1])
        self._lost("units", "key", key)
        return None

    def contents(self, sums: Sequence[bytes]) -> dict[bytes, Content]:
        """The contents of those sums, as far as they are there and intact."""
        found = {}
        for start in range(0, len(sums), TOGETHER):
            some = sums[start : start + TOGETHER]
            places = ", ".join("?" * len(some))
            query = f"SELECT sum, text, tokens, logprobs, certainty FROM contents WHERE sum IN ({places})"
            for sum, *columns in self._database.read(query, some):
                content = Content.intact(sum, columns)
                if content is None:
                    self._lost("contents", "sum", sum)
                else:
                    found[sum] = content
        return found

    def generation(self, key: bytes) -> tuple[Unit, Content] | None:
        """The generation (or grade) of that key with what it says; None unless both are intact."""
        unit = self.get(key)
        if unit is None:
            return None
        content = self.contents([unit.content]).get(unit.content)
        if content is None:
            self._lost("units", "key", key)
            return None
        return unit, content

    def check(self) -> None:
        """Raise what ended the writing, if anything did."""
        if self._database.error is not None:
            raise self._database.error

    def put(self, units: Iterable[Unit], contents: Iterable[Content] = (), also: Iterable[Batch] = ()) -> None:
        """Write what came of one step, in one transaction. What is there already stays, but for costs and grades."""
        repairs, self._repairs = self._repairs, []
        units = list(units)
        kept = [unit for unit in units if unit.kind not in ("dropped", "grade")]
        replaced = [unit for unit in units if unit.kind in ("dropped", "grade")]
        insert = "INTO units (key, kind, moment, label, prompt_tokens, cached_tokens, generated_tokens, content,"
        insert += " numbers, mark) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._database.write(
            [
                *repairs,
                (
                    "INSERT OR IGNORE INTO contents (sum, text, tokens, logprobs, certainty) VALUES (?, ?, ?, ?, ?)",
                    [(content.sum, *content) for content in contents],
                ),
                ("INSERT OR IGNORE " + insert, [(*unit, mark(*unit)) for unit in kept]),
                # What calling a request off had cost is known best by who did it last; so is a grade, made only once
                # but where it could not be decided the first time.
                ("INSERT OR REPLACE " + insert, [(*unit, mark(*unit)) for unit in replaced]),
                *also,
            ]
        )
        self.moment += 1

    def _lost(self, table: str, column: str, value: bytes) -> None:
        self.damaged += 1
        self._repairs.append((f"DELETE FROM {table} WHERE {column} = ?", [(value,)]))


class Paths:
    """Keys of what is asked about a path. Remembers the paths' hashes, since many requests share them."""

    def __init__(self) -> None:
        self._known: dict[Node, bytes] = {}

    def request(self, model: str, request: Request) -> bytes:
        """Key of a generation or a reading.

        A generation is what was said so far, how it goes on, and the seed, which stands for run seed, problem, path
        and draw index. A reading has no seed: the node's own key keeps equal texts of different draws apart, so that
        each has the cost it had. Whether an `until` watches is part of the key, which one is not (see `replay`).
        """
        path = self._path(request.node)
        sampling = _sampling(request.sampling)
        if request.choices:
            choices = [choice.encode("utf-8", "surrogatepass") for choice in request.choices]
            return fingerprint(b"reading", _bytes(KEYS, model, request.node.key), path, sampling, *choices)
        watched = request.until is not None
        return fingerprint(b"generation", _bytes(KEYS, model, request.seed, watched), path, sampling)

    def score(self, verifier: str, problem: Problem, *nodes: Node) -> bytes:
        """Key of a score, or of the comparison of two nodes: everything the verifier is shown."""
        meta = json.dumps(dict(problem.meta), sort_keys=True, default=repr)
        shown = _bytes(KEYS, verifier, problem.id, problem.prompt, problem.answer, meta)
        parts = [part for node in nodes for part in (node.key.encode(), self._path(node))]
        return fingerprint(b"score" if len(nodes) == 1 else b"comparison", shown, *parts)

    def _path(self, node: Node) -> bytes:
        above = []
        step: Node | None = node
        while step is not None and step not in self._known:
            above.append(step)
            step = step.parent
        hashed = self._known[step] if step is not None else b""
        if len(self._known) + len(above) > REMEMBERED:
            self._known.clear()
        for step in reversed(above):
            hashed = self._known[step] = fingerprint(hashed, *_said(step))
        return hashed


def _said(node: Node) -> tuple[bytes, ...]:
    """Everything a model or a verifier can see of one node."""
    turns = tuple(part for turn in node.messages for part in _turn(turn))
    tokens = b"forced" if node.tokens is None else pack("i", node.tokens)
    finish = str(node.finish or "").encode()
    # As coarse as the coarsest form in which a store travels, so that what is asked about a path is found there too.
    drawn = (_text(node.text), tokens, halves(node.logprobs), halves(node.certainty))
    return (finish, _text(node.policy), *drawn, *turns)


def _turn(turn: Message) -> tuple[bytes, ...]:
    said = (turn.role.encode(), _text(turn.content))
    if isinstance(turn, ToolMessage) and (turn.tools or turn.calls):
        return (b"tools", *said, _text(turn.tools), _text(turn.calls))  # no role is called that
    return said


@lru_cache(maxsize=256)
def _sampling(sampling: Sampling) -> bytes:
    return _bytes(*(float(value) if isinstance(value, float | int) else value for value in astuple(sampling)))


def pack(kind: Literal["i", "f", "d"], numbers: Sequence[float]) -> bytes:
    """Little-endian int32, float32 or float64."""
    packed: array[float] = array(kind, numbers)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack(kind: Literal["i", "f", "d"], data: bytes) -> tuple[float, ...]:
    """What `pack` packed; with "i", whole numbers."""
    packed: array[float] = array(kind)
    packed.frombytes(data)
    if sys.byteorder == "big":
        packed.byteswap()
    return tuple(packed)


def halves(numbers: Sequence[float]) -> bytes:
    """Little-endian float16; infinite where that is too small."""
    try:
        return struct.pack(f"<{len(numbers)}e", *numbers)
    except OverflowError:
        return halves([math.copysign(math.inf, x) if abs(x) >= 65520 else x for x in numbers])


def mark(*values: object) -> bytes:
    """Checksum of a row."""
    return fingerprint(*(value if isinstance(value, bytes) else repr(value).encode() for value in values))[:8]


def fingerprint(*parts: bytes) -> bytes:
    """SHA-256 over the parts, unambiguous about where one ends and the next begins."""
    lengths = struct.pack(f"<{len(parts) + 1}q", len(parts), *map(len, parts))
    return hashlib.sha256(b"".join((lengths, *parts))).digest()


def _bytes(*values: object) -> bytes:
    return repr(values).encode("utf-8", "surrogatepass")


def _text(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
