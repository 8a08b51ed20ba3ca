"""`flyweight bench` as a process: signals, kills, and what is left to do after them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from flyweight.store import Store
from flyweight.types import Stopped
from tests.bench.kit import Arguments, rows, said
from tests.cli_kit import Command

OUTS = ("killed", "straight")
GUARD = 30.0
"""Seconds after which something hangs."""
SCRIPT = """
import sys, time
from flyweight import api
from flyweight.testing import ToyPolicy
class Stuck(ToyPolicy):
    def step(self):
        if {stuck}:
            print("stuck", flush=True)
            time.sleep({stuck})
        return super().step()
api.find_policy = lambda model, **settings: lambda: Stuck(delay={delay}, slots=4)
from flyweight.cli.main import main
main()
"""


def start(arguments: list[str], delay: float = 0.003, stuck: float = 0) -> subprocess.Popen[str]:
    # In a session of its own: a signal meant for it reaches nobody else.
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(delay=delay, stuck=stuck), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(folder: Path, table: str, count: int) -> None:
    """Until the store holds so many rows."""
    deadline = time.monotonic() + GUARD
    while True:
        assert time.monotonic() < deadline, f"no {count} {table}"
        try:
            with closing(sqlite3.connect(f"file:{folder / 'flyweight.db'}?mode=ro", uri=True)) as connection:
                if connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] >= count:
                    return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.005)


def alone(child: subprocess.Popen[str]) -> bool:
    """Whether nobody is left in the child's session."""
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_commits_and_the_same_command_goes_on(
    number: int, code: int, arguments: Arguments, flyweight: Command, tmp_path: Path
) -> None:
    more = ("-s", "self_consistency,best_of_n", "-n", "4", "--concurrency", "2")
    child = start(arguments(*more, out="stopped"), delay=0.02)
    wait_for(tmp_path / "stopped", "searches", 2)
    child.send_signal(number)
    out, err = child.communicate(timeout=GUARD)
    assert child.returncode == code
    assert "Traceback" not in err and "interrupted, 1 of 2 runs not begun: the same command goes on" in err
    assert 2 <= int(rows(out)[0][4]) < 6 and rows(out)[0][5:7] == ["of", "6"] and alone(child)
    with Store(tmp_path / "stopped" / "flyweight.db", readonly=True) as store:
        (info,) = store.runs()
        ends = [result.stopped for result in store.results(info.id)]
    assert info.finished is None and Stopped.INTERRUPTED in ends and Stopped.DONE in ends
    assert flyweight(*arguments(*more, out="stopped")).code == 0
    assert flyweight(*arguments(*more, out="straight")).code == 0
    assert said(tmp_path / "stopped" / "flyweight.db") == said(tmp_path / "straight" / "flyweight.db")


def test_the_second_signal_ends_it_at_once(arguments: Arguments) -> None:
    child = start(arguments("-s", "greedy"), stuck=600)
    assert child.stdout is not None and child.stdout.readline() == "stuck\n"
    child.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.2)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=GUARD) == -signal.SIGINT
    child.communicate()
    assert alone(child)


def test_killed_and_taken_up_again_it_loses_nothing(arguments: Arguments, flyweight: Command, tmp_path: Path) -> None:
    more = ("-s", "self_consistency,beam_search", "-n", "4", "--concurrency", "3")
    path = tmp_path / "killed" / "flyweight.db"
    durable: set[bytes] = set()
    for table, count in (("searches", 2), ("searches", 8)):
        child = start(arguments(*more, out="killed"))
        wait_for(path.parent, table, count)
        child.kill()
        child.communicate()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            found = {key for (key,) in connection.execute("SELECT key FROM units")}
        assert durable <= found and alone(child)
        durable = found
    assert flyweight(*arguments(*more, out="killed")).code == 0
    assert flyweight(*arguments(*more, out="straight")).code == 0
    with closing(sqlite3.connect(path)) as connection:
        found = {key for (key,) in connection.execute("SELECT key FROM units")}
    assert durable <= found
    with Store(path, readonly=True) as store:
        ids = [info.id for info in store.runs()]
    for id in ids:
        exports = [flyweight("bench", "export", id, "--jsonl", "-", "--runs", str(tmp_path / out)) for out in OUTS]
        assert exports[0] == exports[1] and exports[0].out.count("\n") == 24
    assert said(path) == said(tmp_path / "straight" / "flyweight.db")
