"""One program, one run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flyweight.sandbox.cell import Cell, Ended, allowed

__all__ = ["CANNOT_START", "SandboxResult", "execute", "run"]

CANNOT_START = 127
"""Exit status of a command that is not there or cannot run, as inside.py gives it."""


@dataclass(frozen=True, slots=True)
class SandboxResult:
    """What a program left behind. Its text is untrusted: it may hold escape codes."""

    stdout: str
    stderr: str
    """Together at most 64,000 bytes; what is not UTF-8 is replaced."""
    status: int | None
    """Exit status, 128 + the signal's number for a program ended by one; None when the sandbox ended it."""
    ended: Ended
    """exited by itself; or ended at the limit on time, memory or output; or killed for breaking the protocol."""
    seconds: float
    """Wall time, the start of the sandbox included."""


def run(program: str, *, stdin: str = "", seconds: float = 5, memory_mb: int = 512) -> SandboxResult:
    """Run Python source as `__main__`, with nothing of this machine but the standard library and 16 MB to write to.

    `seconds` is wall time, after which every process of the program is killed; `memory_mb` holds for each process and
    for all together. SandboxError when there is no sandbox: nothing runs without one; ConfigError as in `allowed`.
    """
    allowed(seconds=seconds, memory_mb=memory_mb)
    begun = time.monotonic()
    code, fed = (text.encode("utf-8", "surrogatepass") for text in (program, stdin))
    with Cell("run", code=code, stdin=fed, cpu=seconds, memory_mb=memory_mb) as cell:
        cell.wait(time.monotonic() + seconds)
    return _result(cell, begun)


def execute(
    words: Sequence[str],
    *,
    stdin: str = "",
    files: Mapping[str, str] | None = None,
    visible: Sequence[str] = (),
    seconds: float = 5,
    memory_mb: int = 512,
) -> SandboxResult:
    """Run a program of this machine. It sees the system's programs and libraries, this Python with its packages, the
    paths in `visible` at their own places, and `files` (path inside to text), all read-only. CANNOT_START is the status
    of a command that is not there. Limits and errors as in `run`.
    """
    allowed(seconds=seconds, memory_mb=memory_mb)
    begun = time.monotonic()
    given = {path: text.encode("utf-8", "surrogatepass") for path, text in (files or {}).items()}
    fed = stdin.encode("utf-8", "surrogatepass")
    with Cell(
        "command", words=words, stdin=fed, files=given, visible=visible, cpu=seconds, memory_mb=memory_mb
    ) as cell:
        cell.wait(time.monotonic() + seconds)
    return _result(cell, begun)


def _result(cell: Cell, begun: float) -> SandboxResult:
    assert cell.ended is not None
    stdout, stderr = (text.decode("utf-8", "replace") for text in (cell.stdout, cell.stderr))
    return SandboxResult(stdout, stderr, cell.status, cell.ended, time.monotonic() - begun)
