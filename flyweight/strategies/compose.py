"""What any strategy may be given besides its own parameters: another verifier or model, a sub-search, a stop rule.

Each is a `Search` that stands between the strategy and the real one and changes what is asked for on the way, so no
strategy knows of it. A strategy is spelled as one word: `best_of_n:n=8:verifier=judge(criteria=writing)`,
`self_consistency:n=5:of=beam_search(n=4:width=2)`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

from flyweight.errors import BudgetSpent, ConfigError
from flyweight.protocols import Search, Strategy
from flyweight.select import aggregate, confidence, finished, majority, top, voter, weighted_vote
from flyweight.spelling import SETTING, opened, parts
from flyweight.types import Message, Node

__all__ = [
    "PARAMETERS",
    "Function",
    "Remembering",
    "Value",
    "compose",
    "inner",
    "named",
    "opened",
    "parts",
    "spell",
    "spelled",
]

FIRST = 4
"""Samples drawn before a stop rule is asked; then as many again as there are."""

Value = int | float | str | bool


PARAMETERS: Mapping[str, tuple[type, str]] = {
    "verifier": (str, "the verifier that scores and compares, instead of the run's"),
    "policy": (str, "the model that writes, instead of the run's"),
    "of": (str, "a strategy, or several joined by + that take turns: what it returns is a whole answer here"),
    "lead": (float, "ends once the leading answer is the likeliest to be drawn with this probability"),
    "enough": (float, "ends once the verifier gives a candidate this score"),
}
"""Kind and meaning of each, by name."""

Function = Callable[..., Coroutine[object, object, Node | None]]


def spelled(text: str) -> tuple[str, dict[str, Value]]:
    """`best_of_n:n=8:verifier=judge(criteria=writing)` as its name and settings.

    A colon that no KEY= follows belongs to the value before it, as in `verifier=prm:math-shepherd@FOLDER`, and so does
    everything in parentheses. ConfigError for what is no setting, one given twice, or parentheses that do not close.
    """
    name, *rest = parts(text, ":")
    settings: list[str] = []
    for part in rest:
        if SETTING.match(part):
            settings.append(part)
        elif settings:
            settings[-1] += f":{part}"
        else:
            raise ConfigError(f"{text!r}: {part!r} is no parameter; write name:key=value")
    found: dict[str, Value] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key in found:
            raise ConfigError(f"{key} is given twice: {found[key]} and {value}")
        found[key] = value.strip()
    return name.strip(), found


def spell(name: str, settings: Mapping[str, Value]) -> str:
    """The word that `spelled` reads as this name with these settings."""
    values = {key: str(value) for key, value in settings.items()}
    shielded = {key: f"({value})" if len(parts(value, ":")) > 1 else value for key, value in values.items()}
    return ":".join([name, *(f"{key}={value}" for key, value in shielded.items())])


def named(settings: Mapping[str, Value], what: str) -> list[str]:
    """What the settings name as `what` ("verifier" or "policy"), and those of the sub-searches in them."""
    own = [opened(str(settings[what]))] if settings.get(what) else []
    return [*own, *(each for part in inner(settings) for each in named(spelled(part)[1], what))]


def inner(settings: Mapping[str, Value]) -> list[str]:
    """The strategies that `of` names."""
    return [opened(part) for part in parts(str(settings["of"]), "+")] if settings.get("of") else []


def compose(strategy: Function, found_by: Sequence[Strategy]) -> Function:
    """The strategy with `PARAMETERS` beside its own; `found_by` are those that `of` names, in its order."""

    async def composed(
        search: Search,
        *,
        verifier: str = "",
        policy: str = "",
        of: str = "",
        lead: float = 0.0,
        enough: float = 0.0,
        **own: object,
    ) -> Node | None:
        if verifier or policy:
            search = cast(Search, _Using(search, opened(verifier) or None, opened(policy) or None))
        if found_by:
            search = cast(Search, _Nested(search, found_by))
        ruled = _Ruled(search, lead, enough, str(own.get("aggregation", "last")))
        try:
            return await strategy(cast(Search, ruled) if lead or enough else search, **own)
        except _Enough:
            return await ruled.best()
        except _Nothing:
            return None

    return composed


class _Through:
    """A search that hands everything on to another one."""

    def __init__(self, search: Search) -> None:
        self._search = search

    def __getattr__(self, verb: str) -> Any:
        return getattr(self._search, verb)


class Remembering(_Through):
    """What was scored is not scored again."""

    def __init__(self, search: Search) -> None:
        """Nothing is scored yet."""
        super().__init__(search)
        self._scores: dict[tuple[str, str | None], Node] = {}
        """By key and verifier."""

    async def score(self, nodes: Sequence[Node], *, verifier: str | None = None) -> list[Node]:
        """The nodes with their scores, as far as the budget goes. BudgetSpent where it leaves none of them."""
        missing = [node for node in nodes if (node.key, verifier) not in self._scores]
        try:
            for node in await self._search.score(missing, verifier=verifier) if missing else []:
                self._scores[node.key, verifier] = node
        except BudgetSpent:
            if len(missing) == len(nodes):
                raise
        return [self._scores[node.key, verifier] for node in nodes if (node.key, verifier) in self._scores]


class _Using(_Through):
    """Another verifier, another model, wherever the strategy names none itself."""

    def __init__(self, search: Search, verifier: str | None, policy: str | None) -> None:
        super().__init__(search)
        self._verifier, self._policy = verifier, policy

    async def extend(self, nodes: Sequence[Node], n: int = 1, *, policy: str | None = None, **how: Any) -> list[Node]:
        return await self._search.extend(nodes, n, policy=policy or self._policy, **how)

    async def complete(self, nodes: Sequence[Node], n: int = 1, *, policy: str | None = None, **how: Any) -> list[Node]:
        return await self._search.complete(nodes, n, policy=policy or self._policy, **how)

    async def ask(
        self, messages: Sequence[Message], n: int = 1, *, policy: str | None = None, **how: Any
    ) -> list[Node]:
        return await self._search.ask(messages, n, policy=policy or self._policy, **how)

    async def score(self, nodes: Sequence[Node], *, verifier: str | None = None) -> list[Node]:
        return await self._search.score(nodes, verifier=verifier or self._verifier)

    async def compare(self, a: Node, b: Node, *, verifier: str | None = None) -> float:
        return await self._search.compare(a, b, verifier=verifier or self._verifier)

    def weights(self, policy: str | None = None) -> str:
        return self._search.weights(policy or self._policy)


class _Nothing(BudgetSpent):
    """No sub-search has found anything: a strategy ends as it would with a spent budget, but none is spent."""


class _Nested(_Through):
    """Whole answers are what sub-searches return, in turn as they are asked for.

    They use the verifier and the model of this search, and draw at their own temperature.
    """

    def __init__(self, search: Search, inner: Sequence[Strategy]) -> None:
        super().__init__(search)
        self._next = itertools.cycle(inner)

    async def complete(self, nodes: Sequence[Node], n: int = 1, **how: Any) -> list[Node]:
        if any(node is not self._search.root for node in nodes):
            return await self._search.complete(nodes, n, **how)
        searches = [next(self._next)(self._search) for _ in range(n * len(nodes))]
        found = [node for node in await self._search.parallel(*searches) if node is not None]
        if not found:
            raise _Nothing("no sub-search found an answer")
        return found

    async def extend(self, nodes: Sequence[Node], n: int = 1, **how: Any) -> list[Node]:
        if any(node is self._search.root for node in nodes):
            raise ConfigError("of= finds whole answers, and this strategy begins with a step: drop of=")
        return await self._search.extend(nodes, n, **how)


class _Enough(BudgetSpent):
    """The stop rule holds: nothing more is drawn."""


class _Ruled(Remembering):
    """Draws in growing portions, and no more once the rule holds: then fewer come back, as from a spent budget."""

    def __init__(self, search: Search, lead: float, enough: float, aggregation: str) -> None:
        super().__init__(search)
        self._lead, self._enough, self._aggregation = lead, enough, aggregation
        self._over = False
        self._candidates: dict[str, Node] = {}

    async def extend(self, nodes: Sequence[Node], n: int = 1, **how: Any) -> list[Node]:
        return await self._drawn(self._search.extend, nodes, n, how, lambda node: node.complete)

    async def complete(self, nodes: Sequence[Node], n: int = 1, **how: Any) -> list[Node]:
        return await self._drawn(self._search.complete, nodes, n, how, lambda node: True)

    async def ask(self, messages: Sequence[Message], n: int = 1, **how: Any) -> list[Node]:
        if self._over:
            raise _Enough("the stop rule holds")
        return await self._search.ask(messages, n, **how)

    async def score(self, nodes: Sequence[Node], *, verifier: str | None = None) -> list[Node]:
        scored = await super().score(nodes, verifier=verifier)
        await self._look([node for node in scored if node.complete])
        return scored

    async def classes(self, nodes: Sequence[Node]) -> list[list[Node]]:
        await self._look(nodes)
        return await self._search.classes(nodes)

    async def best(self) -> Node | None:
        """The choice where the strategy was not left to make it: by score for `enough`, else by vote."""
        candidates = list(self._candidates.values())
        scored = [self._scores[node.key, None] for node in candidates if (node.key, None) in self._scores]
        if self._enough:
            return next(iter(top(scored, 1, aggregation=self._aggregation)), None)
        if scored:
            return weighted_vote(await self._search.classes(scored), aggregation=self._aggregation)
        return majority(await self._search.classes(candidates))

    async def _drawn(
        self,
        draw: Callable[..., Coroutine[object, object, list[Node]]],
        nodes: Sequence[Node],
        n: int,
        how: Mapping[str, Any],
        ends: Callable[[Node], bool],
    ) -> list[Node]:
        if self._over:
            raise _Enough("the stop rule holds")
        found: list[Node] = []
        asked = 0
        while asked < n and not self._over:
            # A round of a tree is a portion as it is; the draws of one node come in rounds that double.
            portion = n if len(nodes) > 1 else min(n, max(FIRST, 2 * asked)) - asked
            try:
                new = await draw(nodes, portion, **how)
            except BudgetSpent:
                if not found:
                    raise
                break
            found += new
            asked += portion
            await self._look([node for node in new if ends(node)])
        return found

    async def _look(self, nodes: Sequence[Node]) -> None:
        """Take in candidates, and see whether the rule holds."""
        new = list({node.key: node for node in map(voter, finished(nodes))}.values())
        self._candidates.update((node.key, node) for node in new)
        if self._enough and new:
            with suppress(BudgetSpent):
                scored = await super().score(new)
                values = [aggregate(node.score, self._aggregation) for node in scored]
                self._over = self._over or any(value >= self._enough for value in values)
        if self._lead and new:
            groups = await self._search.classes(list(self._candidates.values()))
            sure = confidence(groups, groups[0][0]) if groups else None
            self._over = self._over or (sure is not None and sure >= self._lead)
