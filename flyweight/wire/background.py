"""The one thread in which everything on the wire goes on, shared by all policies and verifiers of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["Background", "lease"]

T = TypeVar("T")

_LOCK = threading.Lock()
_shared: Background | None = None


class Background:
    """An event loop in a thread of its own, and a bell that rings when something has come back.

    The bell wakes whoever waits for any answer: a policy's `step` also ends early when a verifier's scores are there.
    """

    def __init__(self) -> None:
        """Starts the thread; use `lease`, so that there is only one."""
        self.users = 0
        self._loop = asyncio.new_event_loop()
        self._bell = threading.Condition()
        self._rung = 0
        self._thread = threading.Thread(target=self._run, name="flyweight-wire", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        for task in (left := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin a coroutine; the bell rings at its end. Cancelling the future cancels the coroutine."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.add_done_callback(lambda _: self.ring())
        return future

    def call(self, function: Callable[[], object]) -> None:
        """Have a function called in the thread soon."""
        self._loop.call_soon_threadsafe(function)

    def ring(self) -> None:
        """Wake everybody who waits."""
        with self._bell:
            self._rung += 1
            self._bell.notify_all()

    def wait(self, rung: int, seconds: float) -> int:
        """Until the bell has rung more often than `rung`, at most so many seconds; how often it has now."""
        with self._bell:
            self._bell.wait_for(lambda: self._rung != rung, seconds)
            return self._rung

    def leave(self, closing: Coroutine[Any, Any, None]) -> None:
        """One user less, once its `closing` is done; the last one ends the thread."""
        future = asyncio.run_coroutine_threadsafe(closing, self._loop)
        if threading.current_thread() is self._thread:  # garbage may be collected anywhere: here nothing can be awaited
            future.add_done_callback(lambda _: self._left())
        else:
            future.result()
            self._left()

    def _left(self) -> None:
        global _shared
        with _LOCK:
            self.users -= 1
            if self.users:
                return
            _shared = None
        self._loop.call_soon_threadsafe(self._loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()


def lease() -> Background:
    """The thread, started if it is not running; every user calls `leave` once."""
    global _shared
    with _LOCK:
        if _shared is None:
            _shared = Background()
        _shared.users += 1
        return _shared
