"""One sandbox while it lives: started, watched, fed, and ended with every process in it."""

from __future__ import annotations

import contextlib
import functools
import os
import py_compile
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from flyweight.errors import ConfigError, SandboxError
from flyweight.sandbox import bubblewrap, seccomp

__all__ = ["Cell", "Ended", "allowed", "mechanism", "private_memory", "processes_below", "working"]

Ended = Literal["exited", "timeout", "memory", "output", "killed"]

OUTPUT = 64_000
"""Bytes of stdout and stderr together that are kept; a program that writes more is ended."""
MESSAGE = 200_000
"""Bytes of one message from inside; more ends the sandbox."""
PROCESSES = 32
"""Processes and threads."""
FILES = 4_000
"""Files and folders in the place to write to: each takes kernel memory that no other limit counts."""
INSIDE = "/inside.pyc"
LOOK = 0.02
"""Most seconds between two looks at the memory; fewer the less is left of it."""
FILL = 4e9
"""Bytes that programs may fill in a second, for how soon to look again."""
START = 10.0
"""Seconds a sandbox may take to start, apart from the program's own."""


def allowed(*, seconds: float = 1.0, memory_mb: int = 512) -> None:
    """ConfigError unless 0 < seconds <= 86,400 and 16 <= memory_mb <= 1,048,576.

    The kernel takes a negative limit for none, and cannot be given an endless one.
    """
    if not 0 < seconds <= 86_400:
        raise ConfigError(f"seconds {seconds:g} is not allowed: a number above 0, up to 86400")
    if not 16 <= memory_mb <= 2**20:
        raise ConfigError(f"memory_mb {memory_mb} is not allowed: a number from 16 to {2**20}")


class Cell:
    """A sandbox with `inside.py` in it, doing one of its jobs.

    A context manager: leaving it ends every process inside. Raises SandboxError when there is no sandbox.
    """

    def __init__(
        self,
        mode: str,
        *,
        code: bytes | None = None,
        channel: bool = False,
        words: Sequence[str] = (),
        stdin: bytes = b"",
        cpu: float,
        memory_mb: int,
        binary: str = "",
        visible: Sequence[str] = (),
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """`mode` and `code` as inside.py has them; `words` a command; `files` are shown inside, read-only."""
        self.ended: Ended | None = None
        self.stdout, self.stderr = b"", b""
        self.status: int | None = None
        self.memory_mb = memory_mb
        self.messages: list[tuple[str, bytes]] = []
        self._incoming, self._outgoing = b"", b""
        self._stack = contextlib.ExitStack()
        try:
            self._start(binary or working(), mode, code, channel, words, stdin, cpu, visible, files or {})
        except BaseException as error:
            self._stack.close()
            if isinstance(error, OSError):
                reason = f"generated code runs only in a sandbox, and none can be made here ({error})"
                raise SandboxError(f"{reason}: {bubblewrap.cure()}") from error
            raise

    def _start(
        self,
        binary: str,
        mode: str,
        code: bytes | None,
        channel: bool,
        words: Sequence[str],
        stdin: bytes,
        cpu: float,
        visible: Sequence[str],
        files: Mapping[str, bytes],
    ) -> None:
        uid = self._stack.enter_context(bubblewrap.user())
        given = [self._given("filter", seccomp.program())]
        copies = {path: self._given("file", data) for path, data in {**files, INSIDE: _inside()}.items()}
        given += copies.values()
        self._ready, ready_inside = os.pipe()
        self._stack.callback(os.close, self._ready)
        given.append(ready_inside)
        rest = list(words)
        if code is not None:
            given.append(self._given("code", code))
            rest.append(str(given[-1]))
        self._selector = self._stack.enter_context(selectors.DefaultSelector())
        theirs = None
        if channel:
            self._channel, theirs = socket.socketpair()
            self._stack.enter_context(self._channel)
            self._channel.setblocking(False)
            self._selector.register(self._channel, selectors.EVENT_READ, "channel")
            given.append(theirs.fileno())
            rest.append(str(theirs.fileno()))
        command = bubblewrap.command(binary, uid, given[0], visible=visible, files=copies, programs=mode == "command")
        limits = [uid, self.memory_mb * 2**20, int(cpu) + 2, PROCESSES, bubblewrap.DISK, ready_inside]
        python = [bubblewrap.interpreter(), "-s", "-S", "-P", "-B", "-X", "utf8", INSIDE, mode]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "0"}
        if mode == "command":
            environment["PATH"] = f"{os.path.join(sys.prefix, 'bin')}:/usr/local/bin:/usr/bin:/bin"
        try:
            self._process = subprocess.Popen(
                [*command, *python, *map(str, limits), *rest],
                stdin=self._given("stdin", stdin),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=given,
                env=environment,
                cwd="/",
                bufsize=0,
            )
        finally:
            os.close(ready_inside)
            if theirs is not None:
                theirs.close()
        self._stack.callback(self._end)
        for stream, name in ((self._process.stdout, "stdout"), (self._process.stderr, "stderr")):
            assert stream is not None
            self._stack.enter_context(stream)
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ, name)
        alive = os.pidfd_open(self._process.pid)
        self._stack.callback(os.close, alive)
        self._selector.register(alive, selectors.EVENT_READ, "process")
        if not select.select([self._ready], [], [], START)[0] or not os.read(self._ready, 1):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)  # it may still be saying why
            self._end()
            said = (self._process.stderr.read() or b"") if self._process.stderr else b""
            last = said.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it did not start"]
            raise SandboxError(
                f"generated code runs only in a sandbox, and bubblewrap does not work here ({last[0][:200]}): "
                f"{bubblewrap.cure()}"
            )
        self._look = time.monotonic() + LOOK

    def _given(self, name: str, data: bytes) -> int:
        fd = bubblewrap.sealed(name, data)
        self._stack.callback(os.close, fd)
        return fd

    def close(self) -> None:
        """End every process inside."""
        self._stack.close()
        self.ended = self.ended or "killed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _end(self) -> None:
        """Kill what is left: when the first process inside dies, the kernel ends all others, and bubblewrap leaves."""
        if self._process.poll() is None:
            for pid in _children(self._process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        self._process.kill()  # its own children die with it
        self._process.wait()

    def send(self, kind: str, payload: bytes, seconds: float | None = None) -> None:
        """Queue a message for inside; `wait` delivers it."""
        words = [kind, str(len(payload))] + ([] if seconds is None else [f"{seconds:.3f}"])
        self._outgoing += " ".join(words).encode() + b"\n" + payload
        self._selector.modify(self._channel, selectors.EVENT_READ | selectors.EVENT_WRITE, "channel")

    def wait(self, deadline: float, messages: bool = False) -> bool:
        """Go on until the sandbox has ended, the deadline passed (which ends it) or, if wanted, a message came.

        Returns whether there is a message.
        """
        while self.ended is None and not (messages and self.messages):
            self._turn(deadline)
        return bool(self.messages)

    def _turn(self, deadline: float) -> None:
        now = time.monotonic()
        if now >= deadline:
            return self._stop("timeout")
        if now >= self._look:
            left = self._memory_left()
            if left < 0:
                return self._stop("memory")
            self._look = now + min(LOOK, max(0.001, left / FILL))
        for key, events in self._selector.select(max(0.0, min(self._look, deadline) - now)):
            if key.data == "channel":
                self._talk(events)
            elif key.data == "process":
                self._finish()
            else:
                self._read(key)
            if self.ended is not None:
                return None
        return None

    def _read(self, key: selectors.SelectorKey) -> bool:
        """Keep what a stream has; whether it goes on."""
        try:
            part = os.read(key.fd, 65_536)
        except BlockingIOError:
            return False
        if not part:
            self._selector.unregister(key.fileobj)
            return False
        room = max(0, OUTPUT - len(self.stdout) - len(self.stderr))
        if key.data == "stdout":
            self.stdout += part[:room]
        else:
            self.stderr += part[:room]
        if len(part) > room:
            self._stop("output")
            return False
        return True

    def _talk(self, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._outgoing = self._outgoing[self._channel.send(self._outgoing) :]
                if not self._outgoing:
                    self._selector.modify(self._channel, selectors.EVENT_READ, "channel")
            if events & selectors.EVENT_READ:
                part = self._channel.recv(65_536)
                if not part:
                    return self._stop("killed")
                self._incoming += part
                self._take()
        except BlockingIOError:
            pass
        except OSError:
            self._stop("killed")
        return None

    def _take(self) -> None:
        """Cut what came into messages; nonsense ends the sandbox."""
        while b"\n" in self._incoming:
            line, _, rest = self._incoming.partition(b"\n")
            words = line.split(b" ")
            if len(words) != 2 or words[0] not in (b"V", b"X", b"T", b"C") or not words[1].isdigit():
                return self._stop("killed")
            length = int(words[1][:9])
            if len(rest) < length:
                break
            self.messages.append((words[0].decode(), rest[:length]))
            self._incoming = rest[length:]
        if len(self._incoming) > MESSAGE:
            self._stop("killed")
        return None

    def _finish(self) -> None:
        """The sandbox ended by itself: take what it left in the pipes."""
        self.status = self._process.wait()
        out_of_memory = select.select([self._ready], [], [], 0)[0] and os.read(self._ready, 1) == b"M"
        for key in [key for key in self._selector.get_map().values() if key.data in ("stdout", "stderr")]:
            while self._read(key):
                pass
        if self.ended is None:
            self.ended = "memory" if out_of_memory else "exited"

    def _stop(self, why: Ended) -> None:
        self.ended = why
        self._end()

    def _memory_left(self) -> int:
        """Bytes still allowed to the processes inside and the files they wrote; negative when it is too much."""
        inside = processes_below(self._process.pid)
        used = sum(map(private_memory, inside))
        for pid in reversed(inside):
            with contextlib.suppress(OSError):
                disk = os.statvfs(Path("/proc", str(pid), "root", "tmp"))
                if disk.f_blocks * disk.f_frsize == bubblewrap.DISK:  # the sandbox's own: it has been built
                    if disk.f_files - disk.f_ffree > FILES:
                        return -1
                    used += (disk.f_blocks - disk.f_bfree) * disk.f_frsize
                    break
        return self.memory_mb * 2**20 - used


def processes_below(pid: int) -> list[int]:
    """Every process under this one."""
    found = [pid]
    for parent in found:
        found += _children(parent)
    return found[1:]


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text("ascii").split())
    return found


def private_memory(pid: int) -> int:
    """Bytes of memory that a process does not share with a file; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return 0
    _, found, rest = text.partition("RssAnon:")
    return int(rest.split(maxsplit=1)[0]) * 1024 if found else 0


@functools.cache
def _inside() -> bytes:
    """inside.py, compiled once: compiling it anew would cost every sandbox milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = Path(folder, "inside.pyc")
        source = Path(__file__).with_name("inside.py")
        py_compile.compile(str(source), str(compiled), "<sandbox>", doraise=True)
        return compiled.read_bytes()


_lock = threading.Lock()
_working = ""


def working() -> str:
    """Path of a bubblewrap that works here. Tried once; SandboxError, with how to get one, when there is none."""
    global _working
    with _lock:
        failure: SandboxError | None = None
        for binary in () if _working else bubblewrap.binaries():
            try:
                with Cell("run", code=b"", cpu=START, memory_mb=256, binary=binary) as cell:
                    cell.wait(time.monotonic() + START)
                _working = binary
                break
            except SandboxError as error:
                failure = error
        if not _working:
            assert failure is not None
            raise failure
        return _working


def mechanism() -> str:
    """What contains programs here, for a record: bubblewrap's version and path, namespaces, filter, fixed limits.

    SandboxError as in `working`.
    """
    binary = working()
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=START, check=False).stdout
    with bubblewrap.user() as uid:
        users = "users of their own" if uid else "user namespace"
    return (
        f"{said.strip() or 'bubblewrap'} ({binary}); process, network, IPC, host name and mount namespaces, {users}; "
        f"seccomp; {PROCESSES} processes, {bubblewrap.DISK >> 20} MB and {FILES} files to write, "
        f"{OUTPUT} bytes of output"
    )
