"""The killable worker: limits, restarts, threads, event loops, forks, and life without the library."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flyweight.answers import client, compare, grade, warm
from flyweight.answers.compare import decide
from flyweight.answers.forms import read
from flyweight.types import Verdict

PAIRS = [
    ("(x+1)^2", "x^2+2x+1"), (r"\frac{x+2}{7}", r"\frac{x}{7}+\frac{2}{7}"), (r"\sec^2 y", r"\tan^2(y)+1"),
    ("x>2", "2<x"), ("-x>-1", "x<1"), ("x^2-1", "(x-1)(x+1)"), ("(x+1)^2", "x^2+1"), ("-2<x<7", "(-2,7)"),
]  # fmt: skip

pytestmark = pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="needs math-verify")


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    client._settled.clear()
    yield


def ask(gold: str, answer: str) -> Verdict:
    """Straight to the worker, past every filter."""
    return client.symbolic(gold, answer, True, time.monotonic() + client.LIMIT_SECONDS)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def zombies() -> list[str]:
    mine = [Path(f"/proc/{child}/stat").read_text() for child in children(os.getpid())]
    return [stat for stat in mine if stat.rpartition(")")[2].split()[0] == "Z"]


def test_a_hang_is_killed_and_the_next_comparison_works() -> None:
    warm(wait=True)
    start = time.monotonic()
    verdict = ask(r"9^{9^{9^{9}}}", r"\int_0^1 x^{x^{x}} dx")
    assert verdict.value == "undecided" and verdict.reason and verdict.retry
    assert time.monotonic() - start < 2.5
    start = time.monotonic()
    assert ask(*PAIRS[0]).value == "equal"
    assert time.monotonic() - start < 1.5
    assert not zombies()


def test_a_worker_that_stops_answering_is_replaced() -> None:
    warm(wait=True)
    process = client._worker.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)  # not even the supervisor can reply
    verdict = ask(*PAIRS[0])
    assert "killed" in verdict.reason and verdict.retry
    assert process.returncode == -signal.SIGKILL
    assert ask(*PAIRS[0]).value == "equal"
    assert not zombies()


@pytest.mark.slow
def test_a_worker_killed_from_outside_is_replaced() -> None:
    warm(wait=True)
    process = client._worker.process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    assert ask(*PAIRS[0]).value == "undecided"
    assert ask(*PAIRS[0]).value == "equal"


@pytest.mark.parametrize(("group", "late"), [("({}, {})", "x"), ("({}, {})", "y"), (r"\{{{}, {}\}}", "x")])
def test_a_group_of_which_a_part_was_late_is_worth_a_retry(group: str, late: str) -> None:
    def ask(gold: str, answer: str) -> Verdict:
        return Verdict("undecided", "late", retry=True) if late in gold else Verdict("undecided", "by nature")

    gold, answer = group.format("(x+1)^2", "(y+1)^2"), group.format("x^2+2x+1", "y^2+2y+1")
    assert decide(read(gold), read(answer), ask) == Verdict("undecided", "late", retry=True)


def test_what_is_undecided_by_its_nature_is_not() -> None:
    verdict = compare(r"x^{x^{x^{2}}}", r"\int_0^1 x dx")
    assert verdict.value == "undecided" and not verdict.retry
    verdict = ask("]+)", "x")
    assert verdict.value == "undecided" and not verdict.retry


def test_memory_is_limited() -> None:
    warm(wait=True)
    ask(*PAIRS[0])
    process = client._worker.process
    assert process is not None
    (child,) = children(process.pid)
    limits = Path(f"/proc/{child}/limits").read_text()
    space = next(line for line in limits.splitlines() if line.startswith("Max address space"))
    size = int(Path(f"/proc/{child}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    assert int(space.split()[3]) <= size + 2**30
    assert "Max core file size        0" in limits


def test_same_verdicts_from_threads_and_event_loop() -> None:
    wanted = [compare(a, b) for a, b in PAIRS]
    assert [v.value for v in wanted] == ["equal"] * 6 + ["different", "equal"]
    client._settled.clear()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda pair: compare(*pair), PAIRS)) == wanted
    client._settled.clear()

    async def inside_a_loop() -> list[Verdict]:
        return [compare(*pair) for pair in PAIRS[:4]] + list(
            await asyncio.gather(*(asyncio.to_thread(compare, *pair) for pair in PAIRS[4:]))
        )

    assert asyncio.run(inside_a_loop()) == wanted


@pytest.mark.slow
def test_the_thread_that_started_the_worker_may_end() -> None:
    client.stop()
    thread = threading.Thread(target=warm, kwargs={"wait": True})
    thread.start()
    thread.join()
    assert ask(*PAIRS[0]).value == "equal"


RUN = "import os, sys, time\nfrom flyweight.answers import client, compare, warm\n"


def python(code: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-c", RUN + code], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_worker_dies_with_its_parent() -> None:
    code = "warm(wait=True); compare('(x+1)^2', 'x^2+2x+1'); print(client._worker.process.pid, flush=True); os._exit(1)"
    worker = int(python(code).stdout)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{worker}/cmdline").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":  # dead; reaping it is for whoever adopts orphans here
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{worker}/cmdline").exists()


@pytest.mark.slow
def test_a_forked_process_uses_its_own_worker() -> None:
    code = """
pair = ('(x+1)^2', 'x^2+2x+1')
assert compare(*pair).value == 'equal'
mine = client._worker.process.pid
child = os.fork()
if child == 0:
    client._settled.clear()
    ok = compare(*pair).value == 'equal' and client._worker.process.pid != mine
    client.stop()
    os._exit(0 if ok else 1)
assert os.waitpid(child, 0)[1] == 0
client._settled.clear()
assert compare(*pair).value == 'equal' and client._worker.process.pid == mine
"""
    result = python(code, "-W", "ignore::DeprecationWarning")
    assert result.returncode == 0, result.stderr


def test_the_parent_never_imports_sympy_and_leaves_nothing_on_its_streams() -> None:
    code = "compare('(x+1)^2', 'x^2+2x+1'); assert not {'sympy', 'math_verify', 'numpy'} & set(sys.modules)"
    result = python(code)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_without_the_library_only_algebra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    client.stop()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    try:
        assert compare("1/2", "0.5").value == "equal"
        assert compare("1/2", "0.6").value == "different"
        assert compare("x+1", "x+2").value == "different"
        verdict = compare("(x+1)^2", "x^2+2x+1")
        assert verdict.value == "undecided"
        assert "pip install 'flyweight[math]'" in verdict.reason and verdict.retry
        assert grade("(x-1)(x+1)", "x^2-1").retry, "correct once it is installed"
        assert not warm()
    finally:
        client.stop()
