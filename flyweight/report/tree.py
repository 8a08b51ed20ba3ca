"""One search as a tree: what was drawn from what, how it was scored, what was selected, how the answers were voted on.

Folded from the events of a search, without its texts but for their beginnings: small enough to be kept beside a page.
`branches` draws it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from flyweight.select import aggregate
from flyweight.types import Event, Node, Result

__all__ = ["Step", "Tree", "Votes"]

Votes = Literal["", "counted", "weighted"]
"""Not at all, by how many say the same, or by the sum of what they are worth."""

LONGEST = 140
"""Characters of a step that are kept."""
MEASURES = ("standing", "likeness", "least", "agreement")
"""Notes that give candidates a worth of another kind than a score, and what it is called."""
CALLED = {"standing": "mean win", "likeness": "likeness", "least": "certainty", "agreement": "agreement"}


@dataclass(frozen=True, slots=True)
class Step:
    """What one draw added, or a strategy's own text."""

    parent: int
    """Place of the step it follows; -1 for the prompt."""
    text: str
    """Its beginning."""
    tokens: int
    """Drawn; 0 for forced text."""
    score: float | None = None
    """In [0, 1]; of a verifier of steps, the last one's."""
    finish: str = ""
    answer: str | None = None
    """Of a candidate."""
    group: int | None = None
    """Its answer class, the largest being 0."""
    candidate: bool = False
    right: bool = False
    """Whether it is correct, where the answer is known."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A search as it is drawn."""

    title: str
    steps: tuple[Step, ...]
    """In the order in which they ended, each behind the one it follows."""
    chosen: int
    """Place of what was selected; -1 where nothing was."""
    measure: str = ""
    """Name of the worths; empty for scores."""
    worths: Mapping[int, float] = field(default_factory=dict)
    visits: Mapping[int, int] = field(default_factory=dict)
    """How often a search came by, where it counts that."""
    floor: float = 0.0
    """Least worth with which a candidate has a vote."""
    votes: Votes = ""
    """How the answers were voted on, if they were."""
    most: int = 0
    """How many candidates vote at most, those of the best scores; 0 for all."""
    notes: Sequence[str] = ()
    """What the strategy put on record beside that, for people."""

    @classmethod
    def of(
        cls,
        events: Iterable[Event],
        title: str,
        votes: Votes = "",
        most: int = 0,
        right: Callable[[str], bool] = lambda solution: False,
    ) -> Self:
        """The tree of one finished search; `right` tells whether a solution is correct."""
        fold = _Fold()
        for event in events:
            fold.take(event)
        return cls(
            title,
            tuple(fold.steps(right)),
            fold.place(fold.best),
            fold.measure,
            {fold.place(key): value for key, value in fold.worths.items()},
            {fold.place(key): count for key, count in fold.visits.items() if key in fold.places},
            fold.floor,
            votes,
            most,
            tuple(fold.notes),
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON's own types; `read` makes the same tree of it."""
        plain = asdict(self)
        plain["steps"] = [
            {name: value for name, value in step.items() if value is not None and value is not False and value != ""}
            for step in plain["steps"]
        ]
        plain["worths"], plain["visits"] = (
            {str(at): value for at, value in plain[name].items()} for name in ("worths", "visits")
        )
        return plain

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """The tree that `as_dict` wrote."""
        steps = tuple(Step(**{"text": "", **step}) for step in data["steps"])
        worths, visits = ({int(at): value for at, value in data[name].items()} for name in ("worths", "visits"))
        plain = {name: data[name] for name in ("title", "chosen", "measure", "floor", "votes", "most")}
        return cls(**plain, steps=steps, worths=worths, visits=visits, notes=tuple(data["notes"]))


class _Fold:
    """Takes in events one by one."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.nodes: list[Node] = []
        self.above: list[int] = []
        self.best = ""
        self.measure = ""
        self.worths: dict[str, float] = {}
        self.visits: Counter[str] = Counter()
        self.floor = 0.0
        self.notes: list[str] = []
        self._result: Result | None = None
        self._root = ""

    def take(self, event: Event) -> None:
        """One event."""
        if event.kind == "start" and event.node is not None:
            self._root = event.node.key
        elif event.kind == "node" and event.node is not None:
            self._add(event.node)
        elif event.kind == "score" and event.node is not None and event.node.key in self.places:
            self.nodes[self.places[event.node.key]] = event.node
        elif event.kind == "note":
            self._note(event.facts)
        elif event.kind == "end" and isinstance(event.facts.get("result"), Result):
            self._result = event.facts["result"]  # type: ignore[assignment]
            self.best = "" if self._result is None or self._result.best is None else self._result.best.key

    def place(self, key: str) -> int:
        """Where a node stands; -1 for one that is not drawn."""
        return self.places.get(key, -1)

    def steps(self, right: Callable[[str], bool]) -> Iterable[Step]:
        """Every step with what became of it."""
        found = {} if self._result is None else {c.node.key: c for c in self._result.candidates}
        for node, above in zip(self.nodes, self.above, strict=True):
            candidate = found.get(node.key)
            yield Step(
                parent=above,
                text=" ".join(node.text.split())[:LONGEST],
                tokens=len(node.tokens or ()),
                score=None if node.score is None else round(aggregate(node.score), 4),
                finish="" if node.finish is None else node.finish.value,
                answer=None if candidate is None else candidate.answer,
                group=None if candidate is None else candidate.answer_class,
                candidate=candidate is not None,
                right=candidate is not None and candidate.answer is not None and right(node.solution),
            )

    def _add(self, node: Node) -> int:
        """The node's place, its forced ancestors having theirs before it."""
        if node.key in self.places:
            return self.places[node.key]
        if node.parent is None:
            return self._asked_behind(node)
        above = self._add(node.parent)
        self.places[node.key] = len(self.nodes)
        self.nodes.append(node)
        self.above.append(above)
        return self.places[node.key]

    def _asked_behind(self, root: Node) -> int:
        """A prompt of the strategy's own goes on from the answer it shows last; the problem's from nothing."""
        if root.key == self._root:
            return -1
        shown = [turn.content for turn in root.messages if turn.role == "assistant"]
        places = range(len(self.nodes) - 1, -1, -1)
        return next((i for i in places if shown and self.nodes[i].solution == shown[-1]), -1)

    def _note(self, facts: Mapping[str, object]) -> None:
        for name, value in facts.items():
            if name in MEASURES and isinstance(value, Mapping):
                self.measure = CALLED[name]
                self.worths |= {str(key): float(worth) for key, worth in value.items()}
            elif name == "reached" and isinstance(value, str):
                at = self.places.get(value)
                while at is not None and at >= 0:
                    self.visits[self.nodes[at].key] += 1
                    at = self.above[at]
            elif name == "bar" and isinstance(value, float):
                self.floor = value
                self.notes.append(f"bar: {value:.2f}")
            elif isinstance(value, bool | int | str) and name != "worth":
                self.notes.append(f"{name.replace('_', ' ')}: {value}")
            elif isinstance(value, float) and name not in ("worth", "effective"):
                self.notes.append(f"{name.replace('_', ' ')}: {value:.3g}")
