"""The command line as a process: signals, closed pipes, terminals, and how fast it answers."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flyweight import api

GUARD = 30.0
"""Seconds after which something hangs."""
SCRIPT = """
import sys, time
from flyweight import api
from flyweight.testing import ToyPolicy
class Stuck(ToyPolicy):
    def step(self):
        {before}
        time.sleep({stuck})
        return super().step()
api.find_policy = lambda model, **settings: lambda: ({loading}, Stuck(delay={delay}))[1]
from flyweight.cli.main import main
main()
"""


def slow(
    *arguments: str, delay: float = 0.005, before: str = "pass", stuck: float = 0.0, loading: str = "None"
) -> list[str]:
    """A command line whose policy takes its time."""
    return [
        sys.executable,
        "-c",
        SCRIPT.format(delay=delay, before=before, stuck=stuck, loading=loading),
        *arguments,
    ]


def start(command: list[str]) -> subprocess.Popen[str]:
    # In a session of its own: a signal meant for it reaches nobody else.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(path: Path, text: str) -> None:
    """Until the trace holds a text."""
    deadline = time.monotonic() + GUARD
    while not (path.exists() and text in path.read_text("utf-8")):
        assert time.monotonic() < deadline, "the search did not begin"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_search_with_what_is_known(number: int, code: int, tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    arguments = ["solve", "Add 1 and 2.", "--model", "toy", "-n", "512", "--json", "--trace", str(trace)]
    child = start(slow(*arguments))
    wait_for(trace, '"kind": "node"')
    child.send_signal(number)
    out, err = child.communicate(timeout=GUARD)
    assert child.returncode == code, err
    facts = json.loads(out)
    assert facts["stopped"] == "interrupted" and facts["answer"] is not None
    assert 0 < len(facts["candidates"]) < 512
    assert "Traceback" not in err
    assert '"kind": "end"' in trace.read_text("utf-8").splitlines()[-1]


def test_the_second_signal_ends_a_stuck_policy_at_once(tmp_path: Path) -> None:
    ready = tmp_path / "stuck"
    before = f"open({str(ready)!r}, 'w').write('stuck')"
    child = start(slow("solve", "Add 1 and 2.", "--model", "toy", before=before, stuck=600))
    wait_for(ready, "stuck")
    child.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.3)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=GUARD) == -signal.SIGINT
    child.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_loading_needs_no_second(number: int, code: int, tmp_path: Path) -> None:
    ready = tmp_path / "loading"
    loading = f"open({str(ready)!r}, 'w').write('loading') and time.sleep(600)"
    child = start(slow("solve", "Add 1 and 2.", "--model", "toy", loading=loading))
    wait_for(ready, "loading")
    child.send_signal(number)
    out, err = child.communicate(timeout=GUARD)
    assert (child.returncode, out, err) == (code, "", "")


def test_a_signal_leaves_questions_in_flight_interrupted_and_prints_them_all(tmp_path: Path) -> None:
    trace, questions = tmp_path / "t.jsonl", tmp_path / "q.txt"
    questions.write_text(f"Add 1 and 2.\nAdd {' and '.join(map(str, range(40)))}.\n")
    arguments = ["solve", "--file", str(questions), "--model", "toy", "-s", "greedy", "--json", "--trace", str(trace)]
    child = start(slow(*arguments))
    wait_for(trace, '"kind": "end"')
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=GUARD)
    assert child.returncode == 130
    assert [json.loads(line)["stopped"] for line in out.splitlines()] == ["done", "interrupted"]


def test_chat_survives_a_signal_during_a_search(tmp_path: Path) -> None:
    trace = tmp_path / "t.jsonl"
    child = subprocess.Popen(
        slow("chat", "--model", "toy", "-n", "512", "--trace", str(trace)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert child.stdin is not None
    child.stdin.write("Add 1 and 2.\n")
    child.stdin.flush()
    wait_for(trace, '"kind": "node"')
    child.send_signal(signal.SIGINT)
    out, err = child.communicate("/n 1\nAdd 2 and 2.\n/usage\n", timeout=GUARD)
    assert child.returncode == 0, err
    assert "interrupted" in err and "2 turns: " in out


@pytest.mark.parametrize("arguments", [("list",), ("solve", "--help")])
def test_a_reader_that_goes_away_is_no_traceback(arguments: tuple[str, ...]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "flyweight", *arguments]
    with os.fdopen(writer, "w") as stdout:
        done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=GUARD, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def ran(line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of shell, in which $fw is the command."""
    env = {**os.environ, "fw": f"{sys.executable} -m flyweight", **more}
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=GUARD, check=False, env=env)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("$fw --version >&-", 0, ""),
        ("$fw --version 2>&-", 0, ""),
        ("$fw solve <&-", 2, "Error: the question is empty: pass some text\n"),
        ("$fw chat -m toy --quiet <&-", 0, ""),
    ],
)
def test_a_closed_stream_is_empty(line: str, code: int, said: str) -> None:
    done = ran(line)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("line", ["$fw list", "$fw --version", "$fw solve 'Add 1 and 2.' -m toy -q"])
def test_a_full_disk_behind_stdout_is_one_line(line: str) -> None:
    done = ran(f"{line} > /dev/full")
    assert (done.returncode, done.stderr) == (3, "Error: the output cannot be written: No space left on device\n")


def test_a_stream_that_is_only_ascii_gets_escapes() -> None:
    command = [sys.executable, "-m", "flyweight", "chat", "--model", "toy"]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        command, input="Add 1 and 2.\n", capture_output=True, encoding="ascii", timeout=GUARD, check=False, env=env
    )
    assert done.returncode == 0 and "n=16 \\xb7 " in done.stderr


def test_a_terminal_sees_a_live_line_and_keeps_only_the_result() -> None:
    leader, follower = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    command = slow("solve", "Add 1 and 2 and 3.", "--model", "toy", "-n", "4")
    child = subprocess.Popen(command, stdin=follower, stdout=subprocess.PIPE, stderr=follower, env=env)
    os.close(follower)
    seen = b""
    deadline = time.monotonic() + GUARD
    while time.monotonic() < deadline:
        ready, _, _ = select.select([leader], [], [], 0.1)
        if ready:
            try:
                part = os.read(leader, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            seen += part
        elif child.poll() is not None:
            break
    assert child.stdout is not None
    out = child.stdout.read().decode()
    child.stdout.close()
    os.close(leader)
    assert child.wait(timeout=GUARD) == 0
    shown = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).decode()
    assert api.DEFAULT_STRATEGY in shown and "tokens" in shown
    assert b"\x1b[?25l" in seen and seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l"), "the cursor comes back"
    assert "Answer      6" in out and "\x1b" not in out


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom flyweight.cli.main import run\nassert run(['solve', '--help']) == 0\n"
        "print([m for m in ('numpy', 'llama_cpp', 'rich', 'sympy', 'httpx2', 'jinja2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=GUARD, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
