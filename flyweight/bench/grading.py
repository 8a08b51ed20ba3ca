"""Grading beside the engine: a few threads grade, one thread speaks to the store."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

from flyweight.bench.graded import graded_by, identity
from flyweight.bench.plan import Job
from flyweight.store import Store
from flyweight.types import Grade, Node, Problem, Result

__all__ = ["Grading", "Workers"]

PATIENCE = 0.1
"""Seconds between two looks at whether to go on waiting for a grade."""
NO_ANSWER = Grade("wrong", "no answer")


class Grading:
    """Grades, made by a few threads while the engine goes on; the store is spoken to by this thread alone."""

    def __init__(self, store: Store, job: Job, workers: Workers) -> None:
        self._grader = store.grader(self._made, identity(job.configuration))
        self._job = job
        self._workers = workers
        self._problems: dict[str, Problem] = {problem.id: problem for problem in job.problems}
        self._waiting: deque[Result] = deque()
        self._under_way: dict[tuple[str, str], Future[Grade]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, result: Result) -> None:
        """Begin with the grades of a search."""
        nodes = _answered(result)
        for node, known in zip(nodes, self._grader.known(result.problem, nodes), strict=True):
            key = (result.problem.id, node.solution)
            if (known is None or known.retry) and key not in self._under_way:
                self._under_way[key] = self._workers.submit(partial(self._fresh, *key))
        self._waiting.append(result)

    def done(self, wait: int, stopped: Callable[[], bool] = lambda: False) -> Iterator[Grade]:
        """Of searches in the order added, the grade: whose is ready, and the first `wait` until `stopped`."""
        while self._waiting:
            late = self._under_way_of(self._waiting[0])
            if late and (wait <= 0 or stopped()):
                return
            if late:
                futures.wait(late, PATIENCE)
                continue
            wait -= 1
            result = self._waiting.popleft()
            yield self.now(result)

    def known(self, result: Result) -> Grade | None:
        """The grade on record of what a search selected; None if there is none that stays."""
        if result.best is None or result.answer is None:
            return NO_ANSWER
        (grade,) = self._grader.known(result.problem, [result.best])
        return None if grade is None or grade.retry else grade

    def now(self, result: Result) -> Grade:
        """The grade of what a search selected; those of all its candidates are on record then."""
        nodes = _answered(result)
        grades = dict(zip((node.key for node in nodes), self._grader.grades(result.problem, nodes), strict=True))
        for node in nodes:
            self._under_way.pop((result.problem.id, node.solution), None)
        if result.best is None or result.answer is None:
            return NO_ANSWER
        return grades[result.best.key]

    def _under_way_of(self, result: Result) -> list[Future[Grade]]:
        keys = ((result.problem.id, node.solution) for node in _answered(result))
        found = [self._under_way[key] for key in keys if key in self._under_way]
        return [future for future in found if not future.done()]

    def _made(self, problem: Problem, text: str) -> Grade:
        future = self._under_way.get((problem.id, text))
        return self._fresh(problem.id, text) if future is None else future.result()

    def _fresh(self, id: str, text: str) -> Grade:
        # The task's own problem: one read back from the store has lists where the task put tuples.
        return graded_by(self._job.task, self._problems[id], text)


class Workers:
    """A few threads that do not keep the process from ending."""

    def __init__(self) -> None:
        self._count = min(4, os.cpu_count() or 1)
        self._queue: SimpleQueue[tuple[Future[Grade], Callable[[], Grade]] | None] = SimpleQueue()
        self._started = False

    def submit(self, work: Callable[[], Grade]) -> Future[Grade]:
        """Have it done."""
        future: Future[Grade] = Future()
        self._queue.put((future, work))
        for _ in range(0 if self._started else self._count):
            threading.Thread(target=self._work, daemon=True).start()
        self._started = True
        return future

    def close(self) -> None:
        """Let the threads end once what is waiting is dropped."""
        with suppress(Empty):
            while True:
                self._queue.get_nowait()
        for _ in range(self._count):
            self._queue.put(None)

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            future, work = task
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)


def _answered(result: Result) -> list[Node]:
    """What is graded: every candidate that states an answer, and what was selected."""
    nodes = {candidate.node.key: candidate.node for candidate in result.candidates if candidate.answer is not None}
    if result.best is not None and result.answer is not None:
        nodes[result.best.key] = result.best
    return list(nodes.values())
