"""The only process that imports sympy: compares formulas with Math-Verify and can be killed at any moment.

Run as `python -m flyweight.answers.worker`. The first process imports the library once and then only supervises: it
forks a child that does the comparing, kills it when a comparison takes too long, and forks the next one in
milliseconds. Requests and replies are JSON lines on stdin and stdout:

    {"gold": str, "answer": str, "both": bool, "seconds": float}  ->  {"value": str, "reason": str}

The value is "equal", "different", "undecided", or "killed" for a comparison that was ended before it could tell. The
first line written is {"value": "ready"} or {"value": "absent", "reason": why}.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import logging
import os
import resource
import select
import signal
import sys
from typing import Any

MEMORY = 700 * 2**20
"""Bytes of address space a comparison may add to what the imported library takes."""
CPU_SECONDS = 20
"""CPU time after which a child is replaced anyway."""
RETIRE_KIB = 300_000
"""Resident size at which a child retires after its reply: sympy's caches only grow."""
RETIRED = 3
"""Exit status of a child that retired."""
PR_SET_PDEATHSIG = 1


def main() -> int:
    """Supervise until stdin closes or the parent process is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes our stdin
    parent = os.getppid()
    replies = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing a library prints reaches the protocol
    try:
        importlib.import_module("math_verify")

        logging.disable(logging.CRITICAL)
    except ImportError as error:
        return _reply(replies, {"value": "absent", "reason": str(error)})
    _warm_up()
    _reply(replies, {"value": "ready"})
    child = _Child()
    buffer = b""
    while True:
        while b"\n" not in buffer:
            if not select.select([0], [], [], 1.0)[0]:
                if os.getppid() != parent:
                    child.kill()
                    return 0
                continue
            chunk = os.read(0, 65_536)
            if not chunk:
                child.kill()
                return 0
            buffer += chunk
        line, _, buffer = buffer.partition(b"\n")
        _reply(replies, child.ask(line + b"\n", float(json.loads(line)["seconds"])))


def _reply(stream: Any, message: dict[str, str]) -> int:
    with contextlib.suppress(BrokenPipeError):
        stream.write(json.dumps(message) + "\n")
        stream.flush()
    return 0


class _Child:
    """A forked process that compares, replaced whenever it dies."""

    def __init__(self) -> None:
        self.pid = 0
        self.requests = self.results = -1

    def _start(self) -> None:
        read_request, self.requests = os.pipe()
        self.results, write_result = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.requests)
            os.close(self.results)
            _serve(read_request, write_result)
        os.close(read_request)
        os.close(write_result)

    def kill(self) -> int:
        """End the child, reap it and return its exit status, negative for a signal."""
        status = 0
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
            os.close(self.requests)
            os.close(self.results)
            self.pid = 0
        return status

    def ask(self, line: bytes, seconds: float) -> dict[str, str]:
        """The child's reply, or "killed" when it is killed for taking longer or dies."""
        if not self.pid:
            self._start()
        with contextlib.suppress(BrokenPipeError):  # it retired; seen below
            os.write(self.requests, line)
        if not select.select([self.results], [], [], seconds)[0]:
            self.kill()
            return {"value": "killed", "reason": f"symbolic comparison took longer than {seconds:.1f} s"}
        data = os.read(self.results, 65_536)  # replies are shorter than PIPE_BUF: one write, one read
        if not data:
            if self.kill() == RETIRED:
                return self.ask(line, seconds)
            return {"value": "killed", "reason": "symbolic comparison ran out of memory or crashed"}
        reply: dict[str, str] = json.loads(data)
        return reply


def _serve(requests: int, results: int) -> None:
    """The child's life: read, compare, answer. Leaves only by os._exit."""
    try:
        _confine()
        source = os.fdopen(requests, "rb")
        for line in source:
            request = json.loads(line)
            reply = _compare(request["gold"], request["answer"], request["both"])
            os.write(results, json.dumps(reply).encode() + b"\n")
            used = resource.getrusage(resource.RUSAGE_SELF)
            if used.ru_utime + used.ru_stime > CPU_SECONDS / 2 or used.ru_maxrss > RETIRE_KIB:
                os._exit(RETIRED)
    finally:
        os._exit(0)


def _confine() -> None:
    """Limits on what hostile text can make the library do: memory, CPU, files; death with the supervisor."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        with open("/proc/self/statm", encoding="ascii") as statm:
            baseline = int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (baseline + MEMORY, baseline + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _parse(text: str) -> list[Any]:
    """What Math-Verify reads in the text, without its fall-back to plain strings."""
    return list(
        importlib.import_module("math_verify").parse(f"${text}$", fallback_mode="no_fallback", parsing_timeout=None)
    )


def _compare(gold: str, answer: str, both: bool) -> dict[str, str]:
    verify = importlib.import_module("math_verify").verify
    try:
        left, right = _parse(gold), _parse(answer)
        if not left or not right:
            which = "either" if not left and not right else "one"
            return {"value": "undecided", "reason": f"Math-Verify cannot read {which} of the answers"}
        if verify(left, right, timeout_seconds=None) or (both and verify(right, left, timeout_seconds=None)):
            return {"value": "equal", "reason": "equal by algebra"}
    except MemoryError:
        return {"value": "undecided", "reason": "symbolic comparison ran out of memory"}
    except (Exception, RecursionError) as error:
        return {"value": "undecided", "reason": f"symbolic comparison failed ({type(error).__name__})"}
    return {"value": "different", "reason": "not equal by algebra"}


def _warm_up() -> None:
    """First calls build parsers and caches that every fork then shares."""
    _compare("x^2+\\frac{1}{2}", "\\sqrt{x}+(0,1]", True)
    _compare("(x+1)^2", "x^2+2x+1", True)


if __name__ == "__main__":
    sys.exit(main())
