"""What happens in a search, for those who watch: every event as JSON, and how it goes in one line."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from flyweight.protocols import Answers
from flyweight.select import aggregate
from flyweight.server.job import Piece, Seen, Thought
from flyweight.types import Event, Finish
from flyweight.viewer.searches import lean

__all__ = ["Room", "Watch"]

EVERY = 0.5
"""Seconds between lines, and between progress events."""
MOST_SEEN = 2 << 20
"""Bytes of nodes, scores and notes told of one request; as many again may be progress."""


@dataclass
class Room:
    """What is left of them, for all searches of the request."""

    bytes: int = MOST_SEEN


class Watch:
    """Called with the events of one search, on the engine's thread; tells pieces.

    Once there is no more room, nodes, scores and notes are left out. How far the search is, is still told, and how it
    ends: with every candidate in full and how many events are missing, as `left_out`.
    """

    def __init__(
        self, tell: Callable[[Piece], None], answers: Answers, *, number: int, thoughts: bool, room: Room | None = None
    ) -> None:
        """`number` is the search's place among those of the request. `thoughts`: tell lines for people too."""
        self._tell = tell
        self._answers = answers
        self._number = number
        self._thoughts = thoughts
        self._room = room or Room()
        self._left_out = 0
        self._known: set[str] = set()
        self._began: float | None = None
        self._progressed = self._thought = float("-inf")
        self._said: Counter[str] = Counter()
        self._ended = 0
        self._best: float | None = None

    def __call__(self, event: Event) -> None:
        """Take in an event whose time is the runner's clock."""
        now = time.monotonic()
        if self._began is None:
            self._began = event.at
        if event.kind == "progress":
            if now - self._progressed < EVERY:
                return
            self._progressed = now
        drawn = event.node if event.kind == "node" else None
        answer = self._answers.extract(drawn.solution) if drawn is not None and drawn.complete else None
        if event.kind == "end" or self._room.bytes > (-MOST_SEEN if event.kind == "progress" else 0):
            self._see(event, answer)
        else:
            self._left_out += 1  # and not known: what the end needs of it, the end brings along
        if self._thoughts:
            self._think(event, answer, now)

    def _see(self, event: Event, answer: str | None) -> None:
        record = lean(event, self._known)
        record["at"] = round(event.at - (self._began or 0.0), 4)
        record["search"] = self._number
        record.pop("problem_id")
        if event.kind == "node" and event.node is not None and event.node.complete:
            record["answer"] = answer
        if event.kind == "end" and self._left_out:
            record["left_out"] = self._left_out
        line = json.dumps(record).encode()
        self._room.bytes -= len(line)
        self._tell(Seen(line))

    def _think(self, event: Event, answer: str | None, now: float) -> None:
        if event.kind == "node" and event.node is not None and event.node.finish is not Finish.STOP:
            self._ended += 1
            if answer is not None:
                self._said[answer] += 1
        if event.kind == "score" and event.node is not None and event.node.score is not None:
            self._best = max(self._best or 0.0, aggregate(event.node.score))
        begun = self._ended or event.facts.get("generated_tokens")
        if begun and event.kind in ("progress", "score", "node") and now - self._thought >= EVERY:
            self._thought = now
            self._tell(Thought(self._line(event)))

    def _line(self, event: Event) -> str:
        parts = [f"{self._ended} answer{'' if self._ended == 1 else 's'} so far"]
        if self._said:
            answer, votes = self._said.most_common(1)[0]
            parts.append(f"{votes} say {' '.join(answer.split())[:60]}")
        if self._best is not None:
            parts.append(f"best score {self._best:.2f}")
        if (tokens := event.facts.get("generated_tokens")) is not None:
            parts.append(f"{tokens:,} tokens")
        return ", ".join(parts) + "\n"
