"""Workers as actors of a Ray cluster, each with its own engine or endpoints.

Ray has no authentication by design: whoever reaches its ports runs code. Keep them inside a network you trust; a local
cluster made here listens on 127.0.0.1 alone, without a dashboard.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import os
import socket
from concurrent.futures import Future
from typing import Any

from flyweight.distributed.coordinator import Lost
from flyweight.distributed.searcher import Order, Searcher, Status
from flyweight.errors import BackendError, ConfigError, FlyweightError

__all__ = ["RayCluster"]

REACH_SECONDS = 5.0
LOCAL = "local"
"""The address that stands for a cluster of this machine alone."""


class RayCluster:
    """A Ray cluster, joined or made when the first worker is wanted: workers spread over its machines."""

    def __init__(self, address: str = LOCAL, workers: int | None = None) -> None:
        """`address`: of a cluster (HOST:PORT, ray://HOST:PORT, or auto), or "local" for one of this machine.

        workers: how many; None is one per GPU, or one per machine where there are none. ConfigError where Ray is not
        installed or `workers` is not a whole number from 1.
        """
        if workers is not None and workers < 1:
            raise ConfigError(f"--workers {workers} is not allowed: a whole number from 1")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do anyway, without its warning
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            import ray
        except ImportError as missing:
            raise ConfigError("--ray needs Ray: pip install 'flyweight[ray]'") from missing
        self._ray: Any = ray
        self._address, self._workers = address, workers
        self._joined = self._mine = False
        self._numbers = itertools.count(1)

    @functools.cached_property
    def count(self) -> int:
        """Workers wanted. BackendError where the cluster cannot be reached."""
        self._join()
        machines = sum(1 for node in self._ray.nodes() if node["Alive"])
        return self._workers or self._gpus or machines

    @property
    def _gpus(self) -> int:
        return int(self._ray.cluster_resources().get("GPU", 0))

    def worker(self, order: Order, room: int) -> RayWorker:
        """A new actor, wherever the cluster has room for it. BackendError where the cluster cannot be reached."""
        self._join()
        return RayWorker(self._ray, f"worker {next(self._numbers)}", order, room, gpu=bool(self._gpus))

    def close(self) -> None:
        """Leave the cluster; one that was made here ends."""
        if self._mine:
            self._ray.shutdown()
        self._joined = self._mine = False

    def _join(self) -> None:
        if self._joined:
            return
        self._mine = not self._ray.is_initialized()
        if self._mine and self._address not in (LOCAL, "auto"):
            _reach(self._address)
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self._mine and self._address == LOCAL:
                cpus = max(os.cpu_count() or 1, self._workers or 1)
                alone = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
                self._ray.init(address=LOCAL, num_cpus=cpus, **alone, **quiet)
            elif self._mine:
                self._ray.init(address=self._address, **quiet)
        except Exception as error:  # Ray's own classes, the network's, and ValueError for an address that is none
            raise BackendError(f"no Ray cluster at {self._address}: {' '.join(str(error).split())[:200]}") from error
        self._joined = True


def _reach(address: str) -> None:
    """Raise now what Ray would say after minutes: ConfigError for no address, BackendError where nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"--ray {address} is no address: write HOST:PORT, ray://HOST:PORT, auto, or --ray alone")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise BackendError(f"no Ray cluster at {address}: {error}") from error


class RayWorker:
    """An actor that searches. It is not restarted: the coordinator sees to what it had."""

    def __init__(self, ray: Any, name: str, order: Order, room: int, *, gpu: bool) -> None:
        self.name, self.room = name, room
        self._ray = ray
        made = ray.remote(_Actor).options(
            num_cpus=1,
            num_gpus=1 if gpu else 0,
            max_restarts=0,
            max_concurrency=room + 8,
            scheduling_strategy="SPREAD",
        )
        self._actor = made.remote(order)
        self._identity: Future[str] = self._call("identity")
        self._asked: Future[Status] = self._call("status")
        self._known = Status()

    def identity(self) -> str | None:
        """What it draws from; None while it loads. Raises what loading raised, BackendError if it is gone."""
        if not self._identity.done():
            return None
        try:
            return self._identity.result()
        except Lost as error:
            raise BackendError(f"{self.name} is lost: {error}") from error

    def ready(self) -> bool:
        """Whether its model is loaded, or something has gone wrong, which the next question says."""
        return self._identity.done()

    def submit(self, question: str) -> Future[bytes]:
        """See `Worker`."""
        return self._call("search", question)

    def ask(self) -> Future[Status]:
        """See `Hand`."""
        self._asked = self._call("status")
        return self._asked

    def status(self) -> Status:
        """The latest it has said."""
        if self._asked.done():
            if self._asked.exception() is None:
                self._known = self._asked.result()
            self._asked = self._call("status")
        return self._known

    def close(self) -> None:
        """End its process."""
        self._ray.kill(self._actor)

    def _call(self, method: str, *arguments: object) -> Future[Any]:
        """A method of the actor, errors as they were raised there, Lost for those that only Ray can raise."""
        answer: Future[Any] = Future()

        def told(done: Future[Any]) -> None:
            error = done.exception()
            cause = getattr(error, "cause", None)
            if error is None:
                answer.set_result(done.result())
            elif isinstance(cause, FlyweightError):
                answer.set_exception(cause)
            elif isinstance(error, self._ray.exceptions.RayTaskError):
                answer.set_exception(BackendError(f"{self.name}: {' '.join(str(cause or error).split())[:300]}"))
            else:
                answer.set_exception(Lost(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))

        getattr(self._actor, method).remote(*arguments).future().add_done_callback(told)
        return answer


class _Actor:
    """What lives in the worker's process. Its methods wait without a thread each."""

    def __init__(self, order: Order) -> None:
        self._searcher = Searcher(order)

    async def identity(self) -> str:
        return await asyncio.wrap_future(self._searcher.identity)

    async def search(self, question: str) -> bytes:
        return await asyncio.wrap_future(self._searcher.submit(question))

    async def status(self) -> Status:
        return self._searcher.status
