"""What the engine asks of the machine it runs on, and the folder where it keeps what it made for it."""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["cache_folder", "cpu_flags", "cpu_name", "default_threads", "free_memory", "locked"]


def default_threads() -> int:
    """CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int:
    """Bytes the system could hand out now; very many where it does not say."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 1 << 62


def cpu_name() -> str:
    """The processor's model."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Instruction sets of the processor, in /proc/cpuinfo's spelling; empty where there is none."""
    return frozenset(_cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith(key):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def cache_folder() -> Path:
    """Where re-encoded weights, built kernels and measurements are kept.

    $FLYWEIGHT_HOME/derived, else flyweight/derived in the user's cache folder.
    """
    if home := os.environ.get("FLYWEIGHT_HOME"):
        return Path(home) / "derived"
    cache_home = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache_home) if cache_home else Path("~/.cache").expanduser()) / "flyweight" / "derived"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the kernel drops the lock of one that dies. Raises OSError where none can be had."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
