"""Where no sandbox can be made nothing runs, and one line says what would help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight import sandbox
from flyweight.errors import SandboxError
from flyweight.sandbox import bubblewrap, cell
from tests.sandbox_blocked import CASES, NOT_HERE

ROOT = Path(__file__).resolve().parents[2]
SAID = {
    "missing": "bubblewrap is missing: apt install bubblewrap, or pip install 'flyweight[sandbox]'",
    "no user namespaces": "(ENOSPC)): allow user namespaces: sysctl -w user.max_user_namespaces=10000",
    "no seccomp": "prctl(PR_SET_SECCOMP)",
    "docker": f"a container needs {bubblewrap.CONTAINER}",
    "mounts refused": "Failed to make / slave: Operation not permitted): it needs user namespaces, or root,",
    "memfd_create refused": "none can be made here ([Errno 1] Operation not permitted): it needs user namespaces",
    "pidfd_open refused": "none can be made here ([Errno 1] Operation not permitted): it needs user namespaces",
}
"""Part of what is said: the kernel's own reason as bubblewrap words it, or the cure."""


@pytest.mark.parametrize("case", CASES)
def test_the_command_line_refuses_with_exit_4(case: str, tmp_path: Path) -> None:
    """The kernel refuses in earnest (tests/sandbox_blocked.py); a candidate that ran outside would leave a file."""
    sign = tmp_path / "ran"
    words = ["solve", "Double it.", "--model", "toy", "-n", "2", "--quiet", "--check", f"/bin/touch {sign}"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sandbox_blocked", case, *words],
        cwd=ROOT,
        env={**os.environ, "FLYWEIGHT_ALLOW_UNSAFE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode == NOT_HERE:
        pytest.skip(f"this machine cannot be made one with {case}")
    assert not sign.exists()
    if case == "nothing":
        assert (done.returncode, done.stderr) == (0, "")
        return
    assert done.returncode == 4, done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("Error: generated code runs only in a sandbox, and ")
    assert SAID[case] in done.stderr


@pytest.mark.parametrize(
    "reason",
    [
        "bwrap: No permissions to create new namespace, likely because the kernel does not allow non-privileged user "
        "namespaces.",
        "bwrap: setting up uid map: Permission denied",
        "bwrap: Can't mount tmpfs on /newroot: Operation not permitted",
    ],
)
def test_a_bubblewrap_that_fails_is_quoted(reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As Debian's switch, Ubuntu's AppArmor profile and a container's make it fail: these are played by a script."""
    fake = tmp_path / "bwrap"
    monkeypatch.setattr(cell, "_working", "")
    monkeypatch.setattr(bubblewrap, "binaries", lambda: [str(fake)])
    fake.write_text(f'#!/bin/sh\necho "{reason}" >&2\nexit 1\n')
    fake.chmod(0o755)
    for attempt in (
        lambda: sandbox.run(f"open({str(tmp_path / 'ran')!r}, 'w')"),
        lambda: sandbox.check("x = 1", [sandbox.Call("x", 1)]),
        lambda: sandbox.execute(["touch", str(tmp_path / "ran")]),
        sandbox.mechanism,
    ):
        with pytest.raises(SandboxError) as caught:
            attempt()
        assert f"bubblewrap does not work here ({reason}): " in str(caught.value)
    fake.unlink()
    with pytest.raises(SandboxError, match=r"none can be made here .*No such file"):
        sandbox.run("x = 1")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"kernel.unprivileged_userns_clone": "0"}, "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            {"kernel.apparmor_restrict_unprivileged_userns": "1", "user.max_user_namespaces": "0"},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 user.max_user_namespaces=10000",
        ),
        ({"kernel.apparmor_restrict_unprivileged_userns": "0"}, "a container needs --cap-add SYS_ADMIN"),
    ],
)
def test_the_setting_in_the_way_is_named(settings: dict[str, str], cure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bubblewrap, "_setting", lambda name: settings.get(name, ""))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cure in bubblewrap.cure()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(bubblewrap, "_real_root", lambda: True)
    assert "sysctl" not in bubblewrap.cure(), "root needs no user namespaces"


def test_the_mechanism_is_on_record() -> None:
    said = sandbox.mechanism()
    version = subprocess.run([sandbox.working(), "--version"], capture_output=True, text=True).stdout.strip()
    assert said.startswith(f"{version} ({sandbox.working()}); process, network,") and "\n" not in said
    assert ("users of their own" if os.geteuid() == 0 else "user namespace") in said
    assert said.endswith("; seccomp; 32 processes, 16 MB and 4000 files to write, 64000 bytes of output")
