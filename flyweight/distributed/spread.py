"""The driver's side: `bench.execute` with the searches made by workers. One store, which only the driver writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from typing import NamedTuple, Protocol

from flyweight.bench.engine import recorded
from flyweight.bench.execute import Bench, carried_out
from flyweight.bench.plan import Job
from flyweight.bench.tally import Interruptible, Limits, Progress, Summary
from flyweight.distributed.coordinator import Coordinator, Worker
from flyweight.distributed.searcher import Order, Status
from flyweight.protocols import Strategy
from flyweight.store import Fresh, Run, Store
from flyweight.types import Budget, Event, Problem, Result

__all__ = ["Cluster", "Hand", "summaries"]

AHEAD = 1
"""Questions a worker holds beyond those it searches: enough for it not to wait for the driver, and few are stuck behind
others at the end."""
SETTLE_SECONDS = 5.0
PAUSE = 0.2
"""Seconds between two looks at whether a worker has loaded its model."""


class Hand(Worker, Protocol):
    """A worker that searches for an order."""

    def identity(self) -> str | None:
        """What it draws from; None while it is loading. Raises what loading raised."""

    def status(self) -> Status:
        """How far it is, as far as is known."""

    def ask(self) -> Future[Status]:
        """Have it say how far it is, once its model is loaded; `status` knows when it has."""


class Cluster(Protocol):
    """Where workers come from."""

    @property
    def count(self) -> int:
        """Workers wanted."""

    def worker(self, order: Order, room: int) -> Hand:
        """A new one, which begins to load its model."""


def summaries(
    store: Store,
    jobs: Sequence[Job],
    cluster: Cluster,
    *,
    on_progress: Callable[[Progress], None],
    grade: bool = True,
    retry: bool = False,
    limits: Limits,
    in_flight: int = 64,
) -> Iterator[Summary]:
    """`bench.summaries` with the searches made by the workers of a cluster, `in_flight` questions on each.

    A worker that is lost loses what it was searching, which others search again, and is replaced. BackendError when
    none is left; else errors as of `bench.execute`. The report is that of a run on one machine, save for what clocks
    and caches say.
    """
    yield from carried_out(_Spread(cluster, store, on_progress, grade, retry, limits, in_flight), jobs)


class _Count(NamedTuple):
    """Stands for the store's policy, which searches nothing here."""

    fresh: Fresh


class _Elsewhere:
    """The workers of one job, in the place of its engine."""

    def __init__(self, cluster: Cluster, store: Store, job: Job, in_flight: int, tell: Callable[[bool], None]) -> None:
        known = recorded(store, job.configuration)
        self._cluster, self._room = cluster, in_flight + AHEAD
        self._order = Order(job.configuration, store.copy(), known, in_flight)
        self._left = Status()
        """Of workers that are gone."""
        self.seconds = 0.0
        self.recomputed = 0
        tell(True)
        began = time.perf_counter()
        self.hands = [self._hire()]
        try:
            while (identity := self.hands[0].identity()) is None:
                time.sleep(PAUSE)
                tell(True)
        except BaseException:
            self.close()
            raise
        self.identity = identity
        self._order = Order(job.configuration, self._order.drawn, identity, in_flight)
        self.hands += [self._hire() for _ in range(cluster.count - 1)]
        self.seconds = time.perf_counter() - began
        tell(False)

    def _hire(self) -> Hand:
        return self._cluster.worker(self._order, self._room)

    def another(self, lost: Worker) -> Worker:
        """A worker in the place of a lost one, whose counts are kept."""
        place = next(place for place, hand in enumerate(self.hands) if hand is lost)
        self._left = _sum([self._left, self.hands[place].status()])
        self.hands[place] = new = self._hire()
        return new

    @property
    def generated(self) -> int:
        """Tokens drawn by all workers, as far as they have said so."""
        return self._total.generated

    @property
    def stored(self) -> _Count:
        """What all of them drew and read."""
        total = self._total
        return _Count(Fresh(total.calls, readings=total.readings))

    @property
    def _total(self) -> Status:
        return _sum([self._left, *(hand.status() for hand in self.hands)])

    def settle(self) -> None:
        """Have every worker that has begun say how far it is now, all of them within a few seconds."""
        futures.wait([hand.ask() for hand in self.hands if hand.ready()], SETTLE_SECONDS)

    def close(self) -> None:
        """Give the workers up, keeping their counts."""
        self._left = self._total
        for hand in self.hands:
            with suppress(Exception):  # it may be gone already
                hand.close()
        self.hands = []


class _Runner:
    """What `bench.execute` takes for a runner."""

    def __init__(self, store: Store, record: Run, elsewhere: _Elsewhere, watch: Callable[[Event], None]) -> None:
        self.interrupted = False
        self._store, self._record, self._elsewhere, self._watch = store, record, elsewhere, watch

    def interrupt(self) -> None:
        """End at the next look; what workers have not sent back is lost to them."""
        self.interrupted = True

    def release(self) -> None:
        """Nothing: what verifiers load is the workers'."""

    def run(
        self, problems: Iterable[Problem], strategy: Strategy, budget: Budget | None = None, *, in_flight: int = 64
    ) -> Iterator[Result]:
        """Results as they come in; strategy, budget and company are part of the workers' order."""
        elsewhere = self._elsewhere
        coordinator = Coordinator(elsewhere.hands, another=elsewhere.another, tick=self._look)
        for done in coordinator.run(problem.id for problem in problems):
            problem, stopped = self._store.take(self._record.id, done.parcel)
            self._record.stopped[problem] = stopped
            yield self._store.search(self._record.id, problem).result
        elsewhere.settle()

    def _look(self) -> bool:
        self._watch(Event("", "progress", 0.0))
        return not self.interrupted


class _Spread(Bench):
    """One invocation whose engine is elsewhere."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        on_progress: Callable[[Progress], None],
        grade: bool,
        retry: bool,
        limits: Limits,
        in_flight: int,
    ) -> None:
        super().__init__(store, on_progress, grade, retry, limits, in_flight, None)
        self._cluster = cluster

    def _engine_for(self, job: Job) -> _Elsewhere:  # type: ignore[override]
        self._release()
        made = _Elsewhere(self._cluster, self.store, job, self.in_flight, self._loading)
        self._engine = made  # type: ignore[assignment]
        return made

    def _searches(  # type: ignore[override]
        self, job: Job, record: Run, engine: _Elsewhere, watch: Callable[[Event], None]
    ) -> Interruptible:
        return _Runner(self.store, record, engine, watch)


def _sum(all_of: Sequence[Status]) -> Status:
    return Status(*(sum(parts) for parts in zip(*all_of, strict=True)))
