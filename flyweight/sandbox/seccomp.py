"""The system calls a sandboxed program may not make, as a filter the kernel understands.

Namespaces and limits do the containing; the filter takes away what could reach around them: other processes' memory,
new namespaces and mounts, kernel subsystems with a history of holes, and memory that no limit counts (memfd, System V
shared memory, shared anonymous mappings).
"""

from __future__ import annotations

import errno
import platform
import struct

__all__ = ["program"]

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
COMMON = (
    *(424, 425, 426, 427),  # pidfd_send_signal, io_uring_setup, io_uring_enter, io_uring_register
    *(428, 429, 430, 431, 432, 433),  # open_tree, move_mount, fsopen, fsconfig, fsmount, fspick
    *(434, 438, 440, 442, 447),  # pidfd_open, pidfd_getfd, process_madvise, mount_setattr, memfd_secret
)
DENIED = {
    "x86_64": (
        *(29, 64, 68, 240),  # shmget, semget, msgget, mq_open
        *(101, 310, 311, 312),  # ptrace, process_vm_readv, process_vm_writev, kcmp
        *(103, 135, 163, 169, 179),  # syslog, personality, acct, reboot, quotactl
        *(155, 161, 165, 166, 167, 168),  # pivot_root, chroot, mount, umount2, swapon, swapoff
        *(175, 176, 246, 313, 320),  # init_module, delete_module, kexec_load, finit_module, kexec_file_load
        *(248, 249, 250),  # add_key, request_key, keyctl
        *(272, 303, 304, 308),  # unshare, name_to_handle_at, open_by_handle_at, setns
        *(298, 319, 321, 323),  # perf_event_open, memfd_create, bpf, userfaultfd
    ),
    "aarch64": (
        *(194, 190, 186, 180),
        *(117, 270, 271, 272),
        *(116, 92, 89, 142, 60),
        *(41, 51, 40, 39, 224, 225),
        *(105, 106, 104, 273, 294),
        *(217, 218, 219),
        *(97, 264, 265, 268),
        *(241, 279, 280, 282),
    ),
}
SOCKET = {"x86_64": 41, "aarch64": 198}
CLONE = {"x86_64": 56, "aarch64": 220}
MMAP = {"x86_64": 9, "aarch64": 222}
CLONE3 = 435
X32 = 0x40000000
"""Bit of the calls of x86-64's second, rarely used interface."""
NEW_NAMESPACES = 0x7E020000
SHARED_ANONYMOUS = 0x21
AF_UNIX = 1

LOAD, JUMP_EQUAL, JUMP_FROM, JUMP_ANY_BIT, AND, RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCH, ARGUMENTS = 0, 4, 16
"""Offsets into what the filter is shown of a call; the lower half of argument k is at ARGUMENTS + 8 k."""


def program() -> bytes:
    """The filter for this machine; empty where there is none (other processors than x86-64 and 64-bit Arm)."""
    machine = platform.machine()
    if machine not in AUDIT_ARCH:
        return b""
    refuse = _step(RETURN, ERRNO | errno.EPERM)
    absent = _step(RETURN, ERRNO | errno.ENOSYS)  # glibc then uses the older call, whose flags can be looked at
    number = _step(LOAD, NUMBER)
    steps = [_step(LOAD, ARCH), _step(JUMP_EQUAL, AUDIT_ARCH[machine], 1, 0), _step(RETURN, KILL), number]
    if machine == "x86_64":
        steps += [_step(JUMP_FROM, X32, 0, 1), absent]
    steps += [_step(JUMP_EQUAL, CLONE3, 0, 1), absent]
    for denied in (*COMMON, *DENIED[machine]):
        steps += [_step(JUMP_EQUAL, denied, 0, 1), refuse]
    clone = [_step(LOAD, ARGUMENTS), _step(JUMP_ANY_BIT, NEW_NAMESPACES, 0, 1), refuse]
    socket = [_step(LOAD, ARGUMENTS), _step(JUMP_EQUAL, AF_UNIX, 1, 0), refuse]
    mmap = [_step(LOAD, ARGUMENTS + 8 * 3), _step(AND, SHARED_ANONYMOUS), _step(JUMP_EQUAL, SHARED_ANONYMOUS, 0, 1)]
    for call, checks in ((CLONE, clone), (SOCKET, socket), (MMAP, [*mmap, refuse])):
        steps += [number, _step(JUMP_EQUAL, call[machine], 0, len(checks)), *checks]
    return b"".join([*steps, _step(RETURN, ALLOW)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
