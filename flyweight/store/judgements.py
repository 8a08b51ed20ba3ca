"""Verifiers that remember: a score in the store is taken from it, the rest are asked for and kept."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar, cast

from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Hidden, Models, Verifier
from flyweight.store.replay import Fresh
from flyweight.store.units import Kind, Paths, Unit, Units, pack, unpack
from flyweight.types import Message, Node, Problem, Score

__all__ = ["StoredVerifier", "identify", "stored_verifier"]

T = TypeVar("T")


class _Watched:
    """A verifier's access to the models that notes whether it was used."""

    def __init__(self, models: Models) -> None:
        self.used = False
        self.tokens = 0
        """What the verifier computed itself."""
        self._models = models

    async def read(
        self, nodes: Sequence[Node], text: str, choices: Sequence[str], *, policy: str | None = None
    ) -> list[tuple[float, ...]]:
        self.used = True
        return await self._models.read(nodes, text, choices, policy=policy)

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
        self.used = True
        return await self._models.complete(
            nodes, n, temperature=temperature, stop=stop, max_tokens=max_tokens, policy=policy
        )

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
        self.used = True
        return await self._models.ask(
            messages, n, temperature=temperature, stop=stop, max_tokens=max_tokens, policy=policy
        )

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        # What was read again does not come back from the store: the score is kept instead, with its cost.
        found = await self._models.states(nodes, policy=policy)
        self.tokens += sum(hidden.tokens for hidden in found)
        return found

    def weights(self, policy: str | None = None) -> str:
        return self._models.weights(policy)

    async def wait(self, future: Future[T]) -> T:
        return await self._models.wait(future)

    def spent(self, tokens: int) -> None:
        self.tokens += tokens
        self._models.spent(tokens)

    def note(self, **facts: object) -> None:
        self._models.note(**facts)


class StoredVerifier:
    """A verifier behind the store. See `Store.verifier`.

    A verifier that asks the models is asked again on replay, and what it reads comes from the store at its recorded
    cost: so its scores follow the model that is used now, and its tokens are charged as they were. What a verifier
    computed itself is charged to every search that uses the score it was for, once.
    """

    def __init__(self, units: Units, verifier: Verifier, identity: str) -> None:
        self.name = verifier.name
        self.params = verifier.params
        self.sees_answer = verifier.sees_answer
        self.reads_states = getattr(verifier, "reads_states", False)
        self.fresh = Fresh()
        self._units = units
        self._verifier = verifier
        self._identity = identity
        self._paths = Paths()
        self._charged: set[tuple[Node, bytes]] = set()
        """Roots of searches with the keys of the scores whose cost they were charged."""

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node; the verifier sees only those that are not stored."""
        keys = [self._paths.score(self._identity, problem, node) for node in nodes]
        units = [self._units.get(key) for key in keys]
        scores = [None if unit is None or unit.kind != "score" else _score(unit) for unit in units]
        uses = [(node.root, key) for node, key in zip(nodes, keys, strict=True)]
        stored = {
            use: unit.prompt_tokens
            for use, unit in zip(uses, units, strict=True)
            if unit is not None and unit.kind == "score"
        }
        models.spent(sum(tokens for use, tokens in stored.items() if use not in self._charged))
        self._charged.update(uses)
        wanted = [i for i, score in enumerate(scores) if score is None]
        if wanted:
            watched = _Watched(models)
            asked = [nodes[i] for i in wanted]
            said = await self._verifier.score(problem, asked, watched)
            self.fresh = self.fresh._replace(calls=self.fresh.calls + len(asked))
            if len(said) != len(asked):
                raise BackendError(f"verifier {self.name} returned {len(said)} scores for {len(asked)} candidates")
            kind: Kind = "judgement" if watched.used else "score"
            moment = self._units.moment
            new = []
            for i, score in zip(wanted, said, strict=True):
                scores[i] = score
                if units[i] is None and all(0 <= value <= 1 for value in (score.value, *score.steps)):
                    numbers = pack("d", (score.value, *score.steps))
                    new.append(Unit(keys[i], kind, moment, score.kind, numbers=numbers))
            if new:
                each, rest = divmod(watched.tokens if kind == "score" else 0, len(new))
                new = [unit._replace(prompt_tokens=each + (i < rest)) for i, unit in enumerate(new)]
                self._units.put(new)
        return [score for score in scores if score is not None]


class _StoredComparer(StoredVerifier):
    """A stored verifier that also compares two candidates."""

    async def compare(self, problem: Problem, a: Node, b: Node, models: Models) -> float:
        """Probability in [0, 1] that `a` is better than `b`."""
        key = self._paths.score(self._identity, problem, a, b)
        unit = self._units.get(key)
        if unit is not None and unit.kind == "comparison":
            return unpack("d", unit.numbers)[0]
        watched = _Watched(models)
        compare = cast("Callable[..., Awaitable[float]]", self._verifier.compare)  # type: ignore[attr-defined]
        preference = float(await compare(problem, a, b, watched))
        self.fresh = self.fresh._replace(calls=self.fresh.calls + 2)
        if unit is None and 0 <= preference <= 1:
            kind: Kind = "judgement" if watched.used else "comparison"
            self._units.put([Unit(key, kind, self._units.moment, self.name, numbers=pack("d", (preference,)))])
        return preference


def stored_verifier(units: Units, verifier: Verifier, identity: str) -> StoredVerifier:
    """The verifier behind the store, able to compare if it is."""
    kind = _StoredComparer if hasattr(verifier, "compare") else StoredVerifier
    return kind(units, verifier, identity)


def identify(verifier: Verifier) -> str:
    """What a verifier's scores are filed under: its `identity` if it has one, else class, name and settings.

    ConfigError if it holds something whose meaning cannot be read off, such as a function: two of a name would then
    be taken for one another.
    """
    if isinstance(own := getattr(verifier, "identity", None), str):
        return own  # it depends on more than its settings
    settings = dict(getattr(verifier, "__dict__", {}))
    for setting, value in settings.items():
        if not _plain(value):
            raise ConfigError(
                f"verifier {verifier.name!r} holds {setting}={type(value).__name__}, which does not say what it does: "
                "pass identity= with something that changes whenever its scores may"
            )
    kind = type(verifier)
    return repr((kind.__module__, kind.__qualname__, verifier.name, sorted(settings.items())))


def _plain(value: object) -> bool:
    if isinstance(value, tuple):
        return all(_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _score(unit: Unit) -> Score:
    value, *steps = unpack("d", unit.numbers)
    return Score(value, tuple(steps), unit.label)
