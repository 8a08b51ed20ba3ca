"""Sixty programs that try to get out of the sandbox, take more than their share, or outlive it.

Each is Python source in which CANARY is the path of a file anybody on the machine may write, and PORT, UDP, SOCKET and
ABSTRACT are places somebody listens at. A program that reaches something prints ESCAPED.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from flyweight import sandbox
from flyweight.sandbox import SandboxResult

__all__ = ["ABUSES", "Host", "Seen", "attack", "escapes"]

TRY = """
try:
    {}
    print('ESCAPED')
except (OSError, ImportError, ValueError, AttributeError) as error:
    print(error)
"""
LIBC = "import ctypes; libc = ctypes.CDLL(None, use_errno=True)\n"


def attempt(code: str, before: str = "import os, sys, socket, signal, resource") -> str:
    """A program that says ESCAPED when the statement works."""
    return before + TRY.format(code)


def call(condition: str) -> str:
    """A program that says ESCAPED when a call of the C library returns what it should not."""
    return f"import os\n{LIBC}print('ESCAPED' if {condition} else 'refused')\n"


def numbered(number: int, *arguments: str) -> str:
    """A program that makes a system call by number, x86-64's, and says ESCAPED when it works."""
    return (
        "import platform\n"
        + LIBC
        + f"if platform.machine() == 'x86_64' and libc.syscall({', '.join([str(number), *arguments])}) >= 0:\n"
        + "    print('ESCAPED')\n"
    )


ABUSES: dict[str, str] = {
    # more than its share: processes, memory, disk, time, output
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "fork bomb that counts": (
        "import os, time\nn = 0\n"
        "for _ in range(300):\n    try:\n        if os.fork() == 0: time.sleep(60)\n        n += 1\n"
        "    except OSError: break\nprint('ESCAPED' if n > 64 else n)"
    ),
    "thread bomb": (
        "import threading, time\nn = 0\n"
        "try:\n    while True:\n        threading.Thread(target=time.sleep, args=(60,), daemon=True).start(); n += 1\n"
        "except RuntimeError: pass\nprint('ESCAPED' if n > 64 else n)\nimport os; os._exit(0)"
    ),
    "memory bomb": "x = []\nwhile True: x.append(bytearray(10**6))",
    "one huge allocation": "x = bytearray(10**10)",
    "memory bomb of many processes": (
        "import os\nfor _ in range(4): os.fork()\nx = []\n"
        "while True:\n    try: x.append(bytearray(10**6))\n    except MemoryError: pass"
    ),
    "mapped memory": attempt("mmap.mmap(-1, 10**9, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)", "import mmap"),
    "shared mapping": attempt("mmap.mmap(-1, 4096, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)", "import mmap"),
    "memfd": attempt("os.memfd_create('x')"),
    "system V memory": call("libc.shmget(0, 4096, 0o1600) >= 0"),
    "tmpfs fill": (
        "import os\nn = 0\ntry:\n    while True:\n        with open(f'{n}', 'wb') as f: f.write(bytes(10**6))\n"
        "        n += 1\nexcept OSError: pass\nprint('ESCAPED' if n > 20 else n)"
    ),
    "inode bomb": "n = 0\nwhile True:\n    open(f'{n}', 'w').close(); n += 1",
    "one large file": attempt("f = open('x', 'wb'); f.truncate(10**9)"),
    "descriptor bomb": attempt("x = [open('/dev/null') for _ in range(1000)]"),
    "pipe memory": "import os\nx = []\nwhile True:\n    x.append(os.pipe()); os.write(x[-1][1], bytes(65536))",
    "output flood": "while True: print('x' * 10000)",
    "stderr flood": "import sys\nwhile True: sys.stderr.write('x' * 10000)",
    "one line of 50 MB": "print('x' * 50_000_000)",
    "endless loop": "while True: pass",
    "sleep": "import time; time.sleep(3600)",
    "deaf to signals": (
        "import signal, time\n"
        "for s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
        "time.sleep(3600)"
    ),
    "waits on stdin": "import sys\nwhile True: sys.stdin.read()",
    "raises its limits": attempt(
        "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"
    ),
    "raises its process limit": attempt("resource.setrlimit(resource.RLIMIT_NPROC, (10000, 10000))"),
    "realtime priority": attempt("os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))"),
    "negative nice": attempt("os.setpriority(os.PRIO_PROCESS, 0, -20)"),
    "huge integer": "x = 9 ** 9 ** 9",
    "endless recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
    # outliving it
    "daemon": "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(3600)",
    "double fork": (
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        for fd in range(3): os.close(fd)\n"
        "        time.sleep(3600)"
    ),
    "at exit": "import atexit, time\natexit.register(time.sleep, 3600)",
    "destructor": "import time\nclass C:\n    def __del__(self): time.sleep(3600)\nc = C()",
    # other processes
    "kill everything": "import os, signal\ntry: os.kill(-1, signal.SIGKILL)\nexcept OSError: pass",
    "kill the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(1, signal.SIGKILL)",
    "signal the host's first process": attempt("os.kill(1, 0) if os.readlink('/proc/1/exe') else None"),
    "proc walk": attempt("print([os.readlink(f'/proc/{p}/exe') for p in os.listdir('/proc')])"),
    "ptrace": call("libc.ptrace(0, 0, 0, 0) >= 0"),
    "another's memory": numbered(310, "1", "0", "0", "0", "0", "0"),
    # new namespaces, mounts, roots, rights
    "unshare": call("libc.unshare(0x10000000) == 0"),
    "clone into a user namespace": numbered(56, "0x10000011", "0", "0", "0", "0"),
    "clone3": numbered(435, "0", "0"),
    "mount": call("libc.mount(b'none', b'/tmp', b'tmpfs', 0, 0) == 0"),
    "chroot": attempt("os.chroot('/tmp')"),
    "become root": attempt("os.setuid(0) if os.getuid() else os.setgid(1)"),
    "set-user-id file": (
        "import os, shutil\ntry:\n    shutil.copy('/usr/bin/env', './env'); os.chmod('./env', 0o4755)\n"
        "    os.execv('./env', ['env', 'sh', '-c', 'test $(id -u) = 0 && echo ESCAPED'])\nexcept OSError: pass"
    ),
    "device": attempt("os.mknod('sda', 0o60666, os.makedev(8, 0))"),
    "keys": numbered(250, "0", "-3", "0"),
    "io_uring": numbered(425, "8", "0"),
    "bpf": numbered(321, "0", "0", "0"),
    "core dump": (
        "import os, resource\nprint('ESCAPED' if resource.getrlimit(resource.RLIMIT_CORE)[1] else 0)\nos.abort()"
    ),
    # files of the host
    "read the canary": attempt("open('CANARY').read()"),
    "write the canary": attempt("open('CANARY', 'w').write('gone')"),
    "link to the canary": (
        "import os\nos.symlink('CANARY', 'link')\n" + TRY.format("open('link', 'w').write('gone')")
    ),
    "hard link": attempt("os.link('CANARY', 'link'); open('link', 'w').write('gone')"),
    "secrets": (
        "import glob, os\n"
        "places = ('/etc/passwd', '/etc/shadow', '/etc/ssh', '/home', '/proc/1/environ')\n"
        "found = [path for path in places if os.path.exists(path)]\n"
        "print('ESCAPED' if found or 'FLYWEIGHT_SECRET' in os.environ or glob.glob('/home/*') else 0)"
    ),
    "write to the system": attempt("open('/usr/lib/x', 'w')"),
    "plant a module": attempt("open(os.path.join(os.path.dirname(os.__file__), 'sitecustomize.py'), 'w')"),
    # the network and who listens on this machine
    "loopback and beyond": (
        "import socket\n"
        "for address in (('127.0.0.1', PORT), ('8.8.8.8', 53)):" + TRY.replace("\n", "\n    ").format(
            "socket.create_connection(address, timeout=0.2)"
        )
    ),
    "udp": attempt("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', UDP))"),
    "unix sockets": (
        "import socket\n"
        "for address in ('SOCKET', '\\0ABSTRACT'):" + TRY.replace("\n", "\n    ").format(
            "socket.socket(socket.AF_UNIX).connect(address)"
        )
    ),
}  # fmt: skip


class Seen(NamedTuple):
    """What came of one program."""

    result: SandboxResult
    wall: float
    """Seconds."""


class Host:
    """A machine to be attacked: a file, four listeners, a secret in the environment."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.folder.chmod(0o777)
        self.canary = self.folder / "canary"
        self.canary.write_text("alive")
        self.canary.chmod(0o666)
        self.listeners = [self.stack.enter_context(made) for made in self._listeners()]
        self.before = escapes()
        os.environ["FLYWEIGHT_SECRET"] = "secret"

    def _listeners(self) -> Iterator[socket.socket]:
        tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for each in (tcp, udp):
            each.bind(("127.0.0.1", 0))
        path, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        path.bind(str(self.folder / "socket"))
        (self.folder / "socket").chmod(0o777)
        self.abstract = f"flyweight-canary-{os.getpid()}"
        abstract.bind(f"\0{self.abstract}")
        self.names = {
            "CANARY": str(self.canary),
            "PORT": str(tcp.getsockname()[1]),
            "UDP": str(udp.getsockname()[1]),
            "SOCKET": str(self.folder / "socket"),
            "ABSTRACT": self.abstract,
        }
        for each in (tcp, path, abstract):
            each.listen()
        yield from (tcp, udp, path, abstract)

    def aim(self, program: str) -> str:
        """The program with the places of this machine in it."""
        for name, value in self.names.items():
            program = program.replace(name, value)
        return program

    def harm(self) -> list[str]:
        """What the attacks did to the machine; waits up to a second for processes to be gone."""
        done = [] if self.canary.read_text() == "alive" else ["the canary is dead"]
        if select.select(self.listeners, [], [], 0)[0]:
            done.append("somebody was at a listener")
        until = time.monotonic() + 1
        while (left := escapes() - self.before) and time.monotonic() < until:
            time.sleep(0.02)
        return done + [f"process {pid} is alive" for pid in left]

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *error: object) -> None:
        os.environ.pop("FLYWEIGHT_SECRET", None)
        self.stack.close()


def escapes() -> set[int]:
    """Processes of sandboxes: those in a process namespace that is not ours."""
    ours = os.readlink("/proc/self/ns/pid")
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            state = (path.parents[1] / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
            if state not in "ZX" and os.readlink(path) != ours:  # a zombie runs nothing; its parent will collect it
                found.add(int(path.parts[2]))
        except OSError:
            pass
    return found


def attack(host: Host, seconds: float, memory_mb: int, workers: int) -> dict[str, Seen]:
    """What came of every program."""

    def one(program: str) -> Seen:
        begun = time.monotonic()
        result = sandbox.run(host.aim(program), seconds=seconds, memory_mb=memory_mb)
        return Seen(result, time.monotonic() - begun)

    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(ABUSES, pool.map(one, ABUSES.values()), strict=True))


def main() -> None:
    """Attack, as whoever runs this; one line per program that was not contained."""
    seconds, memory_mb, workers = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    with Host() as host:
        for name, seen in attack(host, seconds, memory_mb, workers).items():
            if "ESCAPED" in seen.result.stdout or len(seen.result.stdout) + len(seen.result.stderr) > 64_000:
                print(f"{name}: {seen.result}")
        print("\n".join(host.harm()))


if __name__ == "__main__":
    main()
