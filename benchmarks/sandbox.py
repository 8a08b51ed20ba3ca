"""How well the sandbox contains, grades and keeps pace. Prints a table; nothing is written.

    python -m benchmarks.sandbox            # about two minutes on 2 cores
    python -m benchmarks.sandbox --quick    # fewer repeats

Contained: the 60 programs of tests/sandbox_abuse.py, three times. Memory: the most that the four programs after memory
held at any time, in all processes together, read every 5 ms. Hijacks: the 25 programs of tests/sandbox_hijacks.py.
Grading: the 50 tasks of tests/sandbox_programs.py, each with a right program, four mutants, and the right program made
slow, using 80 % of its time.
Company: eight sandboxes at once that write the same file and look for each other. Speed: checks of one call.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from flyweight import sandbox
from flyweight.sandbox import Call, cell
from tests.sandbox_abuse import ABUSES, Host, attack
from tests.sandbox_hijacks import HIJACKS, TESTS
from tests.sandbox_programs import PROGRAMS

MEMORY_MB = 128
HUNGRY = ("memory bomb", "memory bomb of many processes", "inode bomb", "tmpfs fill")
MEETING = """
import os, socket, sys, time
def alive(p):
    try: os.kill(p, 0)
    except OSError: return False
    return True
s = socket.socket(socket.AF_UNIX); s.bind('\\0meeting')
open('x', 'a').write(sys.stdin.read())
time.sleep(0.02)
print(open('x').read(), [p for p in range(3, 400) if alive(p)])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    quick = parser.parse_args().quick
    print(f"| what | figure |\n|---|---|\n| sandbox | {sandbox.mechanism()} |")
    measures: tuple[tuple[str, Callable[[], str]], ...] = (
        ("abusive programs contained", lambda: contained(1 if quick else 3)),
        ("most memory held at a limit of 128 MB", memory),
        ("hijackers that pass a test they cannot know", hijacked),
        ("right programs, mutants, slow right programs", lambda: graded(10 if quick else 50)),
        ("runs in company with an effect on each other", lambda: company(50 if quick else 500)),
        ("checks, one after the other", lambda: speed(1, 100 if quick else 300)),
        ("checks, as many at a time as processors", lambda: speed(os.cpu_count() or 1, 100 if quick else 300)),
    )
    for what, measure in measures:
        print(f"| {what} | {measure()} |", flush=True)


def contained(rounds: int) -> str:
    """How many of the abusive programs left no trace, over all rounds, and the longest beyond its limit."""
    bad, late = 0, 0.0
    for _ in range(rounds):
        with Host() as host:
            seen = attack(host, seconds=1.0, memory_mb=MEMORY_MB, workers=4)
            harm = host.harm()
        bad += len(harm) + sum("ESCAPED" in one.result.stdout for one in seen.values())
        late = max(late, *(one.wall - 1.0 for one in seen.values()))
    return f"{rounds * len(ABUSES) - bad} of {rounds * len(ABUSES)}; latest end {late:+.2f} s after its limit"


def memory() -> str:
    """The most memory that any of the hungry programs held."""
    peak, done = 0, threading.Event()
    ours = os.getpid()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            held = sum(cell.private_memory(pid) for pid in cell.processes_below(ours))
            peak = max(peak, held)

    watcher = threading.Thread(target=watch)
    watcher.start()
    for name in HUNGRY:
        sandbox.run(ABUSES[name], seconds=2, memory_mb=MEMORY_MB)
    done.set()
    watcher.join()
    return f"{peak / 2**20:.0f} MB"


def hijacked() -> str:
    """How many hijackers passed one of the tests whose outcome they cannot know."""
    tests = sandbox.asserts(TESTS)
    failures = [sandbox.check(program, tests, seconds=1).failures for program in HIJACKS.values()]
    return f"{sum(not all(failed[at] for at in (0, 1, 3, 4)) for failed in failures)} of {len(HIJACKS)}"


def graded(tasks: int) -> str:
    """Verdicts on programs whose verdict is known."""
    right = wrong = slow = 0
    for task in PROGRAMS[:tasks]:
        right += sandbox.check(task.right, task.tests).passed
        wrong += sum(not sandbox.check(mutant, task.tests).passed for mutant in task.mutants)
        lazy = f"import time\ntime.sleep(0.4)\n{task.right}"
        slow += sandbox.check(lazy, task.tests[:1], seconds=0.5).passed
    return f"{right} of {tasks} right, {wrong} of {4 * tasks} mutants found, {slow} of {tasks} slow ones right"


def company(runs: int) -> str:
    """How many of the runs saw something of the seven beside them."""
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda k: sandbox.run(MEETING, stdin=f"I{k}").stdout, range(runs)))
    return f"{sum(text != f'I{k} []' + chr(10) for k, text in enumerate(seen))} of {runs}"


def speed(workers: int, checks: int) -> str:
    """Checks a second and how long one takes."""
    tests: Sequence[Call] = [Call("f(2)", 4)]

    def one(_: int) -> float:
        begun = time.perf_counter()
        assert sandbox.check("def f(x): return 2 * x", tests).passed
        return time.perf_counter() - begun

    begun = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        took = sorted(pool.map(one, range(checks)))
    rate = checks / (time.perf_counter() - begun)
    half, most = (1000 * took[int(share * checks)] for share in (0.5, 0.95))
    return f"{rate:.0f}/s; median {half:.0f} ms, 95th percentile {most:.0f} ms"


if __name__ == "__main__":
    main()
