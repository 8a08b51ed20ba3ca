"""Who searches which question: workers behind a plain protocol, fed as they come along, replaced when they are lost."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from typing import NamedTuple, Protocol

from flyweight.errors import BackendError

__all__ = ["Coordinator", "Done", "Lost", "Worker"]

LOSSES = 3
"""Workers that may be lost while they search a question, before it is held responsible."""
TICK = 0.5
"""Seconds between two looks at everything else while nothing comes back."""

Wait = Callable[[Collection[Future[bytes]], float], Iterable[Future[bytes]]]
"""(futures, most seconds) -> those that are done, at least one unless the time is up."""


class Lost(Exception):
    """A worker is gone, with everything it had been given and not sent back."""


class Done(NamedTuple):
    """A question that was searched."""

    worker: str
    question: str
    parcel: bytes


class Worker(Protocol):
    """Something that searches questions, many at a time, elsewhere."""

    name: str
    room: int
    """Questions it may have at a time: those it searches together, and a few that follow."""

    def ready(self) -> bool:
        """Whether it can be given questions yet."""

    def submit(self, question: str) -> Future[bytes]:
        """Have a question searched; what comes back is taken in by whoever asked. Lost if the worker is gone."""

    def close(self) -> None:
        """Give it up, with whatever it is still searching."""


def waited(flying: Collection[Future[bytes]], seconds: float) -> Iterable[Future[bytes]]:
    """`Wait` by the clock of the world; with no future there is only the time to wait for."""
    if not flying:
        time.sleep(seconds)
    return futures.wait(flying, seconds, futures.FIRST_COMPLETED).done


class Coordinator:
    """Hands out questions and collects what comes of them, each exactly once whatever happens to workers.

    The next question goes to the worker with the most room left, so none runs dry and none hoards. Nothing is handed
    out while whoever iterates is busy with what came back: at most the sum of all rooms is ever on its way. What a lost
    worker had comes first in the queue of the others and of the worker that takes its place.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        *,
        another: Callable[[Worker], Worker | None] = lambda lost: None,
        wait: Wait = waited,
        tick: Callable[[], bool] = lambda: True,
    ) -> None:
        """`another` makes a worker in place of a lost one. `tick` is called at least twice a second; false ends it."""
        self.workers = list(workers)
        self.lost = 0
        """Workers lost so far."""
        self._another, self._wait, self._tick = another, wait, tick
        self._load: Counter[str] = Counter()
        self._flying: dict[Future[bytes], tuple[Worker, str]] = {}
        self._again: deque[str] = deque()
        self._losses: Counter[str] = Counter()

    def run(self, questions: Iterable[str]) -> Iterator[Done]:
        """What comes of every question, in the order of completion, until all are done or `tick` says to end.

        Questions are taken from the iterable only when a worker has room. BackendError when no worker is left, or when
        a question has cost three workers; what a worker raises otherwise is raised as it is.
        """
        waiting = iter(questions)
        while self._tick():
            if self._hand_out(waiting) and not self._flying:
                return  # whoever is still loading has come too late
            for future in list(self._wait(list(self._flying), TICK)):
                if future not in self._flying:  # of a worker that another of its futures has shown to be lost
                    continue
                worker, question = self._flying[future]
                error = future.exception()
                if isinstance(error, Lost):
                    self._replace(worker, error)
                elif error is not None:
                    raise error
                else:
                    del self._flying[future]
                    self._load[worker.name] -= 1
                    yield Done(worker.name, question, future.result())

    def _hand_out(self, waiting: Iterator[str]) -> bool:
        """Give every worker what it has room for; whether there was not enough for that."""
        while True:
            free = [each for each in self.workers if each.ready() and self._load[each.name] < each.room]
            if not free:
                return False
            worker = max(free, key=lambda each: (each.room - self._load[each.name]) / each.room)
            question = self._again.popleft() if self._again else next(waiting, None)
            if question is None:
                return True
            self._load[worker.name] += 1
            try:
                self._flying[worker.submit(question)] = (worker, question)
            except Lost as error:
                self._flying[_failed(error)] = (worker, question)

    def _replace(self, worker: Worker, error: Lost) -> None:
        """Forget a worker; what it had is handed out again."""
        had = [future for future, (whose, _) in self._flying.items() if whose is worker]
        questions = [self._flying.pop(future)[1] for future in had]
        self.lost += 1
        self.workers.remove(worker)
        del self._load[worker.name]
        worker.close()
        self._losses.update(questions)
        blamed = [question for question in questions if self._losses[question] >= LOSSES]
        if blamed:
            raise BackendError(f"{LOSSES} workers were lost, each while it searched {blamed[0]!r}: {error}")
        self._again.extend(questions)
        new = self._another(worker)
        if new is not None:
            self.workers.append(new)
        if not self.workers:
            raise BackendError(f"every worker is lost, the last with: {error}")


def _failed(error: Lost) -> Future[bytes]:
    future: Future[bytes] = Future()
    future.set_exception(error)
    return future
