"""Who is served now, who waits, who is sent away; and requests that are the same, answered once."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Protocol

from flyweight.server.errors import overdue, reused, stopping, too_much
from flyweight.server.job import Failed, Job, Plan

__all__ = ["Desk", "Worker"]

REMEMBERED = 64
"""Runs whose events can still be read after they ended."""
REMEMBERED_SECONDS = 600.0


class Worker(Protocol):
    """What does the work; `engine.Engine`."""

    def submit(self, job: Job) -> None: ...
    def cancel(self, job: Job) -> None: ...


class Desk:
    """Admission. Used on the event loop alone."""

    def __init__(
        self,
        worker: Worker,
        *,
        running: int = 32,
        queued: int = 64,
        clock: Callable[[], float] = time.monotonic,
        count: Callable[[str], None] = lambda what: None,
    ) -> None:
        """At most `running` jobs are with the worker and `queued` wait for their turn, first come first served.

        `count` hears of `rejected`, `coalesced` and `cancelled` requests.
        """
        self.most_running = running
        self.most_queued = queued
        self.draining = False
        self.running: set[Job] = set()
        self.queue: deque[Job] = deque()
        self._worker = worker
        self._clock = clock
        self._count = count
        self._arrived: dict[Job, float] = {}
        self._late: dict[Job, asyncio.TimerHandle] = {}
        """When those who wait have waited too long."""
        self._same: dict[str, Job] = {}
        self._runs: OrderedDict[str, Job] = OrderedDict()
        self._seconds = 2.0
        """How long a job takes, as a moving average."""
        self._began: dict[Job, float] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    def hurry(self, key: str) -> None:
        """ApiError 429 now rather than after the work of reading the request, where there will be no place for it."""
        if key not in self._same and self._full and not self.draining:
            self._count("rejected")
            raise too_much(self.patience())

    def take(self, plan: Plan, owner: str, key: str, said: str = "") -> Job:
        """The job that answers a request: a new one, or that of an identical request under way.

        `leave` it in any case. ApiError 503 while draining, 429 where there is no place left, 422 where what was `said`
        with the key is not what was said with it before.
        """
        if self.draining:
            raise stopping()
        same = self._same.get(key) if key else None
        if same is not None and same.said != said:
            raise reused()
        if same is not None:
            self._count("coalesced")
            same.waiters += 1
            return same
        if self._full:
            self._count("rejected")
            raise too_much(self.patience())
        job = Job(plan, owner, key, said, waiters=1)
        if key:
            self._same[key] = job
        job.on_end = self._ended
        self._arrived[job] = self._clock()
        self._idle.clear()
        self._runs[job.id] = job
        self.queue.append(job)
        self._next()
        if job in self.queue:
            self._late[job] = asyncio.get_running_loop().call_later(plan.deadline, self._give_up, job)
        self._forget()
        return job

    def leave(self, job: Job) -> None:
        """One who waited for a job has what he wanted, or has gone. A job nobody waits for is cancelled."""
        job.waiters -= 1
        if job.waiters or job.over:
            return
        self._count("cancelled")
        if job in self.running:
            self._worker.cancel(job)
        else:
            self.queue.remove(job)
        job.drop()

    def find(self, id: str, owner: str) -> Job | None:
        """A run of this owner's."""
        job = self._runs.get(id)
        return job if job is not None and job.owner == owner else None

    def runs(self, owner: str) -> list[Job]:
        """The runs of an owner, the newest first."""
        return [job for job in reversed(self._runs.values()) if job.owner == owner]

    def patience(self) -> int:
        """Seconds after which a place may be free."""
        ahead = (len(self.queue) + 1) / max(1, self.most_running)
        return max(1, min(60, math.ceil(self._seconds * ahead)))

    async def drain(self, seconds: float) -> bool:
        """Take no more requests and wait for those there are; whether all have ended in time."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def abort(self) -> None:
        """End everything: those who wait are told that the server stops."""
        for job in [*self.queue, *self.running]:
            if job in self.running:
                self._worker.cancel(job)
            else:
                self.queue.remove(job)
            job.tell(Failed(stopping()))

    @property
    def _full(self) -> bool:
        return len(self.running) >= self.most_running and len(self.queue) >= self.most_queued

    def _next(self) -> None:
        late: list[Job] = []
        while self.queue and len(self.running) < self.most_running:
            job = self.queue.popleft()
            now = self._clock()
            waited = now - self._arrived[job]
            if waited >= job.plan.deadline:  # a busy loop is late with its timers
                late.append(job)
                continue
            self._wait_no_more(job)
            job.begin(waited)
            self.running.add(job)
            self._began[job] = now
            self._worker.submit(job)
        for job in late:  # only now: each that ends calls this again
            job.tell(Failed(overdue()))

    def _give_up(self, job: Job) -> None:
        """The deadline of a job that still waits has passed."""
        self.queue.remove(job)
        job.tell(Failed(overdue()))

    def _wait_no_more(self, job: Job) -> None:
        if (timer := self._late.pop(job, None)) is not None:
            timer.cancel()

    def _ended(self, job: Job) -> None:
        """A job has come to its end, or was dropped."""
        self._same.pop(job.key, None)
        self._arrived.pop(job, None)
        self._wait_no_more(job)
        if job in self.running:
            self.running.remove(job)
            self._seconds += 0.2 * (self._clock() - self._began.pop(job) - self._seconds)
        self._next()
        if not self.running and not self.queue:
            self._idle.set()

    def _forget(self) -> None:
        """Drop what was remembered of old runs."""
        now = time.time()
        for id, job in list(self._runs.items()):
            old = len(self._runs) > REMEMBERED or now - job.created > REMEMBERED_SECONDS
            if job.over and old:
                del self._runs[id]
