"""A worker's side: questions of one job, searched together in this process, what came of each as a parcel."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from flyweight import bench
from flyweight.bench.engine import CannotLoad, Engine, Load
from flyweight.bench.execute import searching
from flyweight.errors import BackendError, ConfigError
from flyweight.live import Live
from flyweight.store import Store

__all__ = ["Order", "Searcher", "Status"]


@dataclass(frozen=True)
class Order:
    """What a worker is to do, as it travels."""

    configuration: Mapping[str, Any]
    """Of the run: everything a plan is made of. Files it names lie where the worker is, too."""
    drawn: bytes
    """`Store.copy`: what need not be drawn again."""
    identity: str | None
    """What the run is drawn from, weights and encoding included; None lets the first worker decide."""
    in_flight: int
    """Questions searched together."""


class Status(NamedTuple):
    """How far a worker is."""

    generated: int = 0
    """Tokens its engine has drawn."""
    calls: int = 0
    """Draws its engine was asked for."""
    readings: int = 0
    """What its engine read without drawing."""
    searching: int = 0


class Searcher:
    """An engine and a store of its own, on a thread of its own: SQLite and engines want to stay on one.

    Nothing raises here but through futures: `identity` says whether the model could be loaded.
    """

    def __init__(self, order: Order, load: Load | None = None) -> None:
        """`load` replaces `api.find_policy`."""
        self.identity: Future[str] = Future()
        self.status = Status()
        self._order, self._load = order, load
        self._asked: queue.SimpleQueue[tuple[str, Future[bytes]] | None] = queue.SimpleQueue()
        self._under_way: dict[str, Future[bytes]] = {}
        self._closed = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="flyweight-searcher", daemon=True)
        self._thread.start()

    def submit(self, question: str) -> Future[bytes]:
        """Have a question of the job searched, by its id: the parcel."""
        future: Future[bytes] = Future()
        self._asked.put((question, future))
        if self._error is not None:
            self._drain(self._error)
        return future

    def close(self) -> None:
        """Give up what is under way and release the engine."""
        self._closed.set()
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        try:
            with TemporaryDirectory(prefix="flyweight-worker-") as folder:
                path = Path(folder) / "worker.db"
                if self._order.drawn:
                    path.write_bytes(self._order.drawn)
                with Store(path) as store:
                    self._search(store)
        except CannotLoad as failure:
            self._error = failure.error
        except BaseException as error:
            self._error = error
        if self._error is None:
            self._error = BackendError("the worker was closed")
        if not self.identity.done():
            self.identity.set_exception(self._error)
        for future in self._under_way.values():
            future.set_exception(self._error)
        self._drain(self._error)

    def _drain(self, error: BaseException) -> None:
        """Tell those whose questions were never begun."""
        with suppress(queue.Empty):
            while True:
                asked = self._asked.get_nowait()
                if asked is not None:
                    asked[1].set_exception(error)

    def _search(self, store: Store) -> None:
        order = self._order
        (job,) = bench.check([bench.plan_of(order.configuration)], grade=False)
        if job.configuration != order.configuration:
            raise ConfigError(f"{job.plan.task} is not the same on this worker: copy its files, or share a folder")
        job.ready(False)
        problems = {problem.id: problem for problem in job.problems}
        with ExitStack() as ends:
            engine = Engine(store, job.plan.model, job.plan.context, order.identity, load=self._load)
            ends.callback(engine.close)
            record = store.run(job.configuration, models={job.plan.model: engine.identity})
            runner = searching(store, job, engine.stored, record)
            ends.callback(runner.release)
            parcels = store.parcels(record.id)
            self.identity.set_result(engine.identity)
            live: list[Live] = []
            while not self._closed.is_set():
                for question in self._taken(order.in_flight - len(live), wait=not live):
                    live.append(runner.submit(problems[question], job.strategy, job.plan.budget))
                ended = runner.step()
                live = [search for search in live if search not in ended]
                # Before what ended is sent: whoever has all of it must not see an older one.
                fresh = engine.stored.fresh
                self.status = Status(engine.generated, fresh.calls, fresh.readings, len(live))
                for search in ended:
                    if search.broken is not None:
                        raise search.broken
                    if record.error is not None:
                        raise record.error
                    id = search.original.id
                    self._under_way.pop(id).set_result(parcels.pack(id))

    def _taken(self, most: int, *, wait: bool) -> list[str]:
        """Questions to begin with now, `most` at most; with `wait`, not before there is one."""
        taken: list[str] = []
        while len(taken) < most and not self._closed.is_set():
            try:
                asked = self._asked.get(block=wait and not taken)
            except queue.Empty:
                break
            if asked is not None:
                question, self._under_way[asked[0]] = asked
                taken.append(question)
        return taken
