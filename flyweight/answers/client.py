"""This process's side of the symbolic worker: one child process, started at first need, killed when it is late.

Nothing here uses signals or an event loop, so it works the same from the main thread, worker threads, asyncio and
forked children. One lock serialises comparisons.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from flyweight.types import Verdict

__all__ = ["LIMIT_SECONDS", "START_SECONDS", "stop", "symbolic", "warm"]

LIMIT_SECONDS = 1.5
"""Wall time of one comparison, counted from the moment the worker is free for it."""
START_SECONDS = 30.0
"""Wall time the worker may take to import its library; separate from the time of a comparison."""
GRACE_SECONDS = 0.25
"""How long after its limit a worker may still report that it killed the comparison itself."""
MEMORY = 10_000
"""Settled verdicts remembered."""
MISSING = "symbolic comparison needs math-verify: pip install 'flyweight[math]'"


class _Worker:
    """The worker process and what is known about it. Every method runs under `lock`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = False
        self.failure = ""
        self.buffer = b""

    def start(self) -> None:
        """Launch the process without waiting for it."""
        if self.process is not None or self.failure:
            return
        if os.name != "posix":
            self.failure = "symbolic comparison needs Linux or macOS"
            return
        if importlib.util.find_spec("math_verify") is None:
            self.failure = MISSING
            return
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        keep = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT", "VIRTUAL_ENV") if name in os.environ}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flyweight.answers.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=tempfile.gettempdir(),
                env={**keep, "PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "0"},
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            self.failure = f"the symbolic worker cannot start: {error}"

    def wait_ready(self) -> None:
        """Wait for the import to finish; sets `failure` when it does not."""
        self.start()
        if self.ready or self.failure:
            return
        reply = self.receive(time.monotonic() + START_SECONDS)
        if reply is None:
            self.kill()
            self.failure = f"the symbolic worker did not start within {START_SECONDS:.0f} s"
        elif reply["value"] != "ready":
            self.kill()
            self.failure = f"{MISSING} ({reply['reason']})"
        else:
            self.ready = True

    def receive(self, deadline: float) -> dict[str, str] | None:
        """One reply; None when none comes before the deadline or the process is gone."""
        assert self.process is not None and self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            poll = select.poll()  # unlike select(), not limited to the first 1,024 descriptors
            poll.register(pipe, select.POLLIN)
            if left <= 0 or not poll.poll(left * 1_000):
                return None
            chunk = os.read(pipe, 65_536)
            if not chunk:
                return None
            self.buffer += chunk
        line, _, self.buffer = self.buffer.partition(b"\n")
        reply: dict[str, str] = json.loads(line)
        return reply

    def ask(self, gold: str, answer: str, both: bool, deadline: float) -> Verdict:
        """Verdict of one comparison, never later than the deadline and a quarter of a second."""
        assert self.process is not None and self.process.stdin is not None
        left = deadline - time.monotonic()
        if left <= 0.01:
            return Verdict("undecided", f"no result within {LIMIT_SECONDS} s", retry=True)
        request = {"gold": gold, "answer": answer, "both": both, "seconds": round(left, 3)}
        reply: dict[str, str] | None = None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            reply = self.receive(deadline + GRACE_SECONDS)
        if reply is None:
            self.kill()
            self.start()  # the next comparison finds it warm, or waits for it
            reason = f"the symbolic worker gave no result within {LIMIT_SECONDS} s and was killed"
            return Verdict("undecided", reason, retry=True)
        value, reason = reply["value"], reply["reason"]
        if value in ("equal", "different"):
            return Verdict(value, reason)  # type: ignore[arg-type]
        return Verdict("undecided", reason, retry=value == "killed")

    def kill(self) -> None:
        """End the worker with everything it started, and reap it."""
        process, self.process = self.process, None
        self.ready, self.buffer = False, b""
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


_worker = _Worker()
_settled: dict[tuple[str, str, bool], Verdict] = {}
"""Verdicts the worker has reached; what was undecided for lack of time is asked again."""


def symbolic(gold: str, answer: str, both: bool, deadline: float) -> Verdict:
    """Verdict of Math-Verify on two formulas, from gold to answer or in either direction.

    The deadline moves by the time spent waiting for the worker to start or for other threads' comparisons: a
    verdict must not depend on how busy this process is.
    """
    before = time.monotonic()
    with _worker.lock:
        known = _settled.get((gold, answer, both))
        if known is not None:
            return known
        if not _worker.ready:
            _worker.wait_ready()
        if _worker.failure:
            return Verdict("undecided", _worker.failure, retry=True)
        verdict = _worker.ask(gold, answer, both, deadline + time.monotonic() - before)
        if verdict.value != "undecided":
            if len(_settled) >= MEMORY:
                _settled.clear()
            _settled[gold, answer, both] = verdict
        return verdict


def warm(wait: bool = False) -> bool:
    """Start the worker in the background; whether it can be used (with `wait`: is ready now)."""
    with _worker.lock:
        _worker.start()
        if wait:
            _worker.wait_ready()
        return not _worker.failure


def stop() -> None:
    """End the worker; the next symbolic comparison starts another."""
    with _worker.lock:
        _worker.kill()
        _worker.failure = ""


def _after_fork() -> None:
    """A forked child must not talk over its parent's pipes: forget them, without touching the process."""
    global _worker
    inherited = _worker.process
    if inherited is not None:
        inherited.returncode = 0  # not ours to reap; keeps Popen quiet when collected
        for pipe in (inherited.stdin, inherited.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
    _worker = _Worker()


atexit.register(stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
