"""Everything that was ever drawn, kept: one SQLite file from which runs resume and reports are made.

```python
with Store("runs.db") as store:
    policy = store.policy(LlamaCpp(path), model="sha256:1d96… bf16")
    run = store.run({"task": "gsm8k", "strategy": "best_of_n", "n": 16})
    runner = Runner(policy, {"arithmetic": store.verifier(Arithmetic())}, answers=answers, on_event=run)
    for result in runner.run((p for p in problems if p.id not in run.done), strategy):
        ...
    run.finish()
```

Stopped at any point, by whatever, the same program goes on where it was. See docs/store.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from flyweight.errors import ConfigError, StoreError
from flyweight.protocols import Policy, Verifier
from flyweight.store.database import Database
from flyweight.store.grades import Grader
from flyweight.store.judgements import StoredVerifier, identify, stored_verifier
from flyweight.store.parcel import Parcels, copy, take
from flyweight.store.portable import dump, load
from flyweight.store.replay import Fresh, StoredPolicy
from flyweight.store.runs import (
    Run,
    RunInfo,
    known_run,
    list_runs,
    read_outlines,
    read_problems,
    read_search,
    start_run,
)
from flyweight.store.salvage import Salvaged, salvage
from flyweight.store.searches import Outline, Sample, Search
from flyweight.store.units import Units, mark
from flyweight.store.values import Precision
from flyweight.types import Event, Grade, Node, Problem, Result, Stopped

__all__ = [
    "Fresh",
    "Grader",
    "Outline",
    "Parcels",
    "Repeats",
    "Run",
    "RunInfo",
    "Salvaged",
    "Sample",
    "Search",
    "Store",
    "StoreError",
    "salvage",
]


class Repeats(NamedTuple):
    """How often independent draws came out the same: near 1, the backend ignores seeds."""

    draws: int
    """Nodes drawn beside at least one other from the same parent."""
    repeated: int
    """Those of them whose tokens an earlier one had already."""


class Store:
    """Generations, scores and runs in one file. One process writes; others may read meanwhile."""

    def __init__(self, path: str | Path, durable: bool = False, *, readonly: bool = False) -> None:
        """Open the store, creating the file (not its folder) or migrating an old one, of which a copy is kept.

        `durable` also survives a power cut, at a fraction of the commits per second. Raises ConfigError if another
        process writes it or it is no store, StoreError if it cannot be used.
        """
        self._database = Database(Path(path), durable=durable, readonly=readonly)
        try:
            self._units = Units(self._database)
        except StoreError:
            self._database.close()
            raise

    @property
    def path(self) -> Path:
        """The file."""
        return self._database.path

    @property
    def error(self) -> StoreError | None:
        """What ended the work (a full disk, a deleted folder, damage); None while all is well."""
        return self._database.error

    @property
    def backup(self) -> Path | None:
        """Copy of the store as it was before opening it migrated it."""
        return self._database.backup

    @property
    def took_over(self) -> bool:
        """Whether the last writer died without closing the store."""
        return self._database.took_over

    @property
    def damaged(self) -> int:
        """Units met so far whose checksum was wrong: they count as absent and are drawn again."""
        return self._units.damaged

    # Drawing and scoring ---------------------------------------------------------------------------------------

    def policy(self, policy: Policy, *, model: str = "") -> StoredPolicy:
        """A policy that answers from the store what it can and keeps what `policy` returns for the rest.

        `model` says what is drawn from, weights and encoding included; two that differ in their output must not share
        it. It defaults to the policy's name.
        """
        model = model or policy.name
        self._know(model, policy)
        return StoredPolicy(self._units, model, policy.name, policy.params, policy.boundary, lambda: policy)

    def deferred(self, model: str, make: Callable[[], Policy]) -> StoredPolicy:
        """The same for a policy that is made only when something is missing; at once for a model not seen yet."""
        row = self._database.one("SELECT model, name, params, boundary, mark FROM models WHERE model = ?", (model,))
        if row is None or mark(*row[:-1]) != row[-1]:
            return self.policy(make(), model=model)
        _, name, params, boundary, _ = row
        return StoredPolicy(self._units, model, name, params, tuple(json.loads(boundary)), make)

    def verifier(self, verifier: Verifier, *, identity: str = "") -> StoredVerifier:
        """A verifier that is asked only for scores the store lacks.

        `identity` must change whenever its scores may; by default class, name and settings make it. ConfigError if
        these include something that does not say what it does, such as a function.
        """
        return stored_verifier(self._units, verifier, identity or identify(verifier))

    def grader(self, grade: Callable[[Problem, str], Grade], identity: str) -> Grader:
        """Grading (a task's `grade`) that is done once for every text of every problem, and kept.

        `identity` must change whenever the grades may: the task, its settings, the version of its grading.
        """
        return Grader(self._units, grade, identity)

    # Runs ------------------------------------------------------------------------------------------------------

    def run(
        self,
        configuration: Mapping[str, Any],
        *,
        models: Mapping[str, str] | None = None,
        versions: Mapping[str, str] | None = None,
    ) -> Run:
        """Begin the run of this configuration (anything JSON can hold), or go on with it: its id is its hash.

        `models` says what is run, by name (a file's SHA-256); with others the run cannot go on (ConfigError).
        `versions` of Flyweight, Python and SQLite are kept anyway; add those of the engine.
        """
        return start_run(self._database, self._units, configuration, models or {}, versions or {})

    def runs(self) -> list[RunInfo]:
        """Every run, oldest first."""
        return list_runs(self._database)

    def results(self, run: str) -> Iterator[Result]:
        """The result of every search of a run, by problem id, one in memory at a time.

        ConfigError for an unknown run. StoreError, after the last intact one, if others are damaged: running it again
        repairs that.
        """
        return (search.result for search in self.searches(run))

    def samples(self, run: str) -> Iterator[Sample]:
        """Every candidate of a run with its scores, by problem id and draw; errors as of `results`."""
        return (sample for search in self.searches(run) for sample in search.samples)

    def searches(self, run: str) -> Iterator[Search]:
        """Every search of a run, whole, by problem id, one in memory at a time; errors as of `results`."""
        damaged = 0
        for problem in read_problems(self._database, run):
            search = read_search(self._database, self._units, run, problem)
            if search is None:
                damaged += 1
            else:
                yield search
        if damaged:
            raise StoreError(f"{self.path}: {damaged} searches of run {run} are damaged: run it again")

    def problems(self, run: str) -> list[str]:
        """Ids of the problems a run has searched, sorted. Errors as of `results`."""
        return [problem.decode("utf-8", "surrogatepass") for problem in read_problems(self._database, run)]

    def outlines(self, run: str) -> Iterator[Outline]:
        """Every search of a run that is intact, without the texts that were not selected: far faster than `searches`.

        In no particular order. ConfigError for an unknown run.
        """
        return read_outlines(self._database, self._units, run)

    def search(self, run: str, problem_id: str) -> Search:
        """The search of one problem; ConfigError if the run holds none, StoreError if it is damaged."""
        known_run(self._database, run)
        problem = problem_id.encode("utf-8", "surrogatepass")
        if not self._database.one("SELECT 1 FROM searches WHERE run = ? AND problem = ?", (run, problem)):
            raise ConfigError(f"run {run} holds no search of problem {problem_id!r}")
        search = read_search(self._database, self._units, run, problem)
        if search is None:
            raise StoreError(f"{self.path}: the search of {problem_id!r} in run {run} is damaged: run it again")
        return search

    def tree(self, run: str, problem_id: str) -> list[Node]:
        """Every node of a search in the order drawn, each with its last score; errors as of `results`."""
        return self.search(run, problem_id).tree

    def events(self, run: str, problem_id: str) -> list[Event]:
        """The events of a search as they happened, but for progress; errors as of `results`."""
        return self.search(run, problem_id).events

    def repeats(self, run: str) -> Repeats:
        """How often the run's draws from the same path were the same; errors as of `results`."""
        draws = repeated = 0
        for search in self.searches(run):
            seen: dict[tuple[str, str], list[tuple[int, ...]]] = {}
            for node in search.tree:
                if node.parent is not None and node.tokens:
                    seen.setdefault((node.parent.key, node.policy), []).append(node.tokens)
            for drawn in seen.values():
                if len(drawn) > 1:
                    draws += len(drawn)
                    repeated += len(drawn) - len(set(drawn))
        return Repeats(draws, repeated)

    # Carrying -------------------------------------------------------------------------------------------------

    def dump(self, path: str | Path, precision: Precision = "float16") -> dict[str, int]:
        """Write everything in the store to one compressed file of JSON lines; how many rows of each table it has.

        A name that ends in .xz makes it a third smaller than gzip does, in some more seconds. Equal stores give equal
        bytes. With "float16" log-probabilities and certainties keep three significant digits (so does their mean):
        about 6 bytes a token gzipped, and every key still finds what it found; "float32" is exact; with "none" a text
        keeps only the mean of its log-probabilities, a quarter of the size: searches with their texts, scores and
        grades can be read, but not drawn from or scored again. The file is written whole or not at all. StoreError if
        it cannot be, or if the store is damaged.
        """
        return dump(self._database, Path(path), precision)

    def load(self, path: str | Path) -> dict[str, int]:
        """Take in what `dump` wrote; how many rows of each table were new.

        What is in the store stays as it is, but for searches that were interrupted or failed. Everything is checked,
        and taken in whole or not at all. ConfigError for a file that cannot be read or is not what was dumped, and
        for models or runs that differ from those of the store under the same name.
        """
        return load(self._database, self._units, Path(path))

    def copy(self) -> bytes:
        """A store of everything drawn so far, as the bytes of its file: what a worker elsewhere begins with."""
        return copy(self._database)

    def parcels(self, run: str) -> Parcels:
        """What this store gains from now on, to be packed search by search and taken in by the store it is a copy of.

        `Parcels.pack(problem_id)` is called once for each search when it has ended.
        """
        return Parcels(self._database, run)

    def take(self, run: str, parcel: bytes) -> tuple[str, Stopped]:
        """Write down a search that was made elsewhere and what was drawn for it: the problem, and how it ended.

        Of two searches of a problem the first stays, unless it was interrupted or failed. StoreError for a parcel that
        was damaged on its way, after which nothing of it is kept.
        """
        return take(self._database, self._units, run, parcel)

    def close(self) -> None:
        """Give the store up to the next writer."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Inside ------------------------------------------------------------------------------------------------------

    def _know(self, model: str, policy: Policy) -> None:
        """Keep what a replay has to know of a model; refuse two different ones under one name."""
        row = (model, policy.name, policy.params, json.dumps(policy.boundary))
        known = self._database.one("SELECT model, name, params, boundary, mark FROM models WHERE model = ?", (model,))
        if known is not None and mark(*known[:-1]) == known[-1]:
            if known[2] != policy.params:
                raise ConfigError(
                    f"model {model!r} was recorded with {known[2]} parameters and now has {policy.params}: "
                    "give each its own name with model="
                )
            if known[:-1] == row:
                return
        statement = "INSERT OR REPLACE INTO models (model, name, params, boundary, mark) VALUES (?, ?, ?, ?, ?)"
        self._database.write([(statement, [(*row, mark(*row))])])
