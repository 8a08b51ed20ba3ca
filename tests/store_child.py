"""What the tests of the store do in processes of their own, because it ends them: python -m tests.store_child COMMAND.

Each command prints one JSON object with what it counted. `finished`, `kills` and `races` also serve to measure (see
docs/store.md).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

from flyweight import strategies
from flyweight.errors import FlyweightError
from flyweight.protocols import Counters, Request, Response
from flyweight.runner import Runner
from flyweight.store import Store
from flyweight.store.units import Paths
from flyweight.testing import BoxedAnswers, RuleVerifier
from flyweight.types import Finish, Problem, Result, digest

PROMPT_TOKENS = 10
CLOCKS = {"seconds", "peak_kv_bytes"}
"""Parts of a Usage that belong to the machine and the moment."""


class Scripted:
    """A policy whose answers follow from the seed and whose costs do not depend on company, so that runs compare.

    Every step it finishes up to `slots` requests, in an order drawn from `shuffle`.
    """

    name = "scripted"
    params = 1000
    boundary: tuple[str, ...] = ("\n\n",)

    def __init__(
        self,
        slots: int = 8,
        *,
        delay: float = 0.0,
        shuffle: int | None = None,
        length: int = 8,
        seen: Callable[[Request], None] = lambda request: None,
    ) -> None:
        self.calls = 0
        self.totals = Counters()
        self._queue: list[Request] = []
        self._slots, self._delay, self._length, self._seen = slots, delay, length, seen
        self._random = None if shuffle is None else random.Random(shuffle)

    def add(self, request: Request) -> None:
        self._queue.append(request)

    def step(self) -> list[Response]:
        if self._delay:
            time.sleep(self._delay)
        if self._random is not None:
            self._random.shuffle(self._queue)
        served, self._queue = self._queue[: self._slots], self._queue[self._slots :]
        return [self._serve(request) for request in served]

    def cancel(self, id: int) -> Response:
        self._queue = [request for request in self._queue if request.id != id]
        return Response(id, finish=Finish.CUT)

    @property
    def counters(self) -> Counters:
        return self.totals

    def close(self) -> None:
        pass

    def _serve(self, request: Request) -> Response:
        self.calls += 1
        self._seen(request)
        drawn = digest(request.seed, request.node.key)
        noise = (drawn * (self._length // len(drawn) + 1))[: self._length]
        text = f"{noise} \\boxed{{{int(drawn[:2], 16) % 3}}}"
        tokens = tuple(map(ord, text))
        logprobs = tuple(-1 / (1 + token) for token in tokens)
        self.totals = Counters(
            self.totals.prompt_tokens + PROMPT_TOKENS, 0, self.totals.generated_tokens + len(tokens) + 1
        )
        return Response(
            request.id,
            text,
            tokens,
            logprobs,
            logprobs[::-1],
            prompt_tokens=PROMPT_TOKENS,
            generated_tokens=len(text) + 1,
        )


def rule(question: str, solution: str) -> float:
    """A score that differs from text to text."""
    return int(digest(question, solution)[:4], 16) / 0xFFFF


def problems(count: int) -> list[Problem]:
    return [Problem(f"p{number:04}", f"Question {number}?", answer="1") for number in range(count)]


def solve(
    store: Store, policy: Scripted, asked: Iterable[Problem], n: int = 8, strategy: str = "best_of_n", **run: object
) -> list[Result]:
    """Go on with the run over these problems until it is finished."""
    record = store.run({"strategy": strategy, "n": n, **run})
    judge = store.verifier(RuleVerifier(rule), identity="rule 1")
    runner = Runner(store.policy(policy), {"rule": judge}, answers=BoxedAnswers(), on_event=record)
    results = []
    for result in runner.run((p for p in asked if p.id not in record.done), strategies.bind(strategy, {"n": n})):
        results.append(result)
        if record.error is not None:
            raise record.error
    record.finish()
    return results


def report(store: Store) -> str:
    """Everything the store says of its runs, without what clocks said."""
    said: list[object] = []
    for run in store.runs():
        for result in store.results(run.id):
            usage = {name: value for name, value in asdict(result.usage).items() if name not in CLOCKS}
            candidates = [
                (c.node.key, c.node.text, c.node.logprobs, c.answer, c.answer_class) for c in result.candidates
            ]
            said.append((run.configuration, result.problem.id, result.answer, result.stopped, usage, candidates))
            tree = store.tree(run.id, result.problem.id)
            said.append([(node.key, node.text, node.draw, node.score and asdict(node.score)) for node in tree])
        said.append([(s.problem_id, s.sample, [asdict(score) for score in s.scores]) for s in store.samples(run.id)])
    return json.dumps(said, default=list)


# Commands ------------------------------------------------------------------------------------------------------


def kills(path: Path, count: int, asked: int, n: int) -> dict[str, object]:
    """R1: a run killed `count` times at random moments and taken up again each time."""
    log = path.with_name(path.name + ".calls")
    chance = random.Random(1)
    called = kept = lost_calls = 0
    bad: list[str] = []
    resumed = []

    def work() -> None:
        paths = Paths()
        lines = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        keys: list[str] = []

        def seen(request: Request) -> None:
            os.write(lines, f"called {paths.request('scripted', request).hex()} {time.time()}\n".encode())
            keys.append(paths.request("scripted", request).hex())

        policy = Scripted(16, delay=0.002, seen=seen)
        with Store(path) as store:
            put = store._units.put

            def putting(*rows: object) -> None:
                put(*rows)  # type: ignore[arg-type]
                os.write(lines, "".join(f"kept {key} 0\n" for key in keys).encode())
                keys.clear()

            store._units.put = putting  # type: ignore[method-assign,assignment]
            solve(store, policy, problems(asked), n)

    killed = 0
    while True:
        log.write_bytes(b"")
        born = time.time()
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            finally:
                os._exit(1)
        if killed < count:
            time.sleep(chance.uniform(0.002, 0.06))
            os.kill(child, signal.SIGKILL)
            killed += 1
        _, status = os.waitpid(child, 0)
        lines = [line.split() for line in log.read_text().splitlines()]
        calls = [line for line in lines if line[0] == "called"]
        durable = {line[1] for line in lines if line[0] == "kept"}
        if calls:
            resumed.append(float(calls[0][2]) - born)
        called, kept, lost_calls = called + len(calls), kept + len(durable), lost_calls + len(calls) - len(durable)
        if path.exists():
            bad += look(path, durable)
        if killed >= count and os.WIFEXITED(status):
            bad += [] if status == 0 else [f"the last child ended with {status}"]
            break
    with Store(path, readonly=True) as store:
        mine = report(store)
    with Store(path.with_name("straight.db")) as store:
        solve(store, Scripted(16), problems(asked), n)
        straight = report(store)
    with closing(sqlite3.connect(path)) as connection:
        units = connection.execute(
            "SELECT count(*), count(DISTINCT key) FROM units WHERE kind = 'generation'"
        ).fetchone()
    return {
        "kills": killed,
        "bad": bad,
        "units": units[0],
        "distinct": units[1],
        "calls": called,
        "in_flight_at_kills": lost_calls,
        "same_report": mine == straight,
        "slowest_resume_seconds": round(max(resumed), 3),
    }


def look(path: Path, durable: set[str]) -> list[str]:
    """What is wrong with a store whose writer was killed: units that had been committed must be there."""
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if not tables:
            return [] if not durable else ["no tables"]
        keys = {key.hex() for (key,) in connection.execute("SELECT key FROM units")}
    bad = [] if found == "ok" else [f"integrity: {found}"]
    return bad + [f"lost unit {key}" for key in durable - keys]


def races(path: Path, count: int) -> dict[str, object]:
    """R4: twice the same run at once, `count` times; then the same after the owner was killed."""
    refused = finished = 0
    slowest = takeover = 0.0
    lines: list[str] = []

    def contender(store_path: Path, gate: int, out: int) -> None:
        os.read(gate, 1)
        began = time.perf_counter()
        try:
            with Store(store_path) as store:
                solve(store, Scripted(4, delay=0.001), problems(8), 4)
            message = "finished"
        except FlyweightError as error:
            message = f"refused {time.perf_counter() - began} {error}"
        os.write(out, message.encode() + b"\n")

    units = duplicates = 0
    for number in range(count):
        store_path = path.with_name(f"race{number}.db")
        gate, opened = os.pipe()
        out, end = os.pipe()
        children = [fork(partial(contender, store_path, gate, end)) for _ in range(2)]
        os.write(opened, b"12")
        for child in children:
            os.waitpid(child, 0)
        os.close(end)
        with os.fdopen(out) as said:
            for line in said:
                lines.append(line.strip())
        for descriptor in (gate, opened):
            os.close(descriptor)
        with closing(sqlite3.connect(store_path)) as connection:
            total, distinct = connection.execute("SELECT count(*), count(DISTINCT key) FROM units").fetchone()
        units, duplicates = units + total, duplicates + total - distinct
    for line in lines:
        kind, _, rest = line.partition(" ")
        finished += kind == "finished"
        if kind == "refused":
            refused += 1
            slowest = max(slowest, float(rest.split()[0]))
    # The owner dies holding the lock.
    ready, told = os.pipe()

    def owner() -> None:
        Store(path)
        os.write(told, b"1")
        time.sleep(60)

    child = fork(owner)
    os.read(ready, 1)
    os.kill(child, signal.SIGKILL)
    began = time.perf_counter()
    os.waitpid(child, 0)
    with Store(path) as store:
        takeover, took_over = time.perf_counter() - began, store.took_over
    return {
        "lines": sorted({line.split(" ", 2)[2] for line in lines if line.startswith("refused")})[:1],
        "refused": refused,
        "finished": finished,
        "units": units,
        "duplicates": duplicates,
        "took_over": took_over,
        "slowest_refusal_seconds": round(slowest, 4),
        "takeover_seconds": round(takeover, 4),
    }


def fork(work: Callable[[], None]) -> int:
    """A child that does this and nothing else."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def full(folder: Path, tmpfs: bool) -> dict[str, object]:
    """R3: the disk fills up, is made larger, and becomes read-only."""
    path = folder / "full.db"
    if tmpfs:  # in a mount namespace of its own: gone with this process
        mount("-t", "tmpfs", "-o", "size=4m", "none", str(folder))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    said: dict[str, object] = {}
    said["full"] = attempt(path)
    with Store(path, readonly=True) as store:
        runs = [run.id for run in store.runs()]
        said["readable"] = sum(1 for run in runs for _ in store.results(run))
    if tmpfs:
        mount("-o", "remount,size=64m", str(folder))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    said["resumed"] = attempt(path)
    with Store(path, readonly=True) as store:
        runs = [run.id for run in store.runs()]
        said["results"] = sum(1 for run in runs for _ in store.results(run))
    if tmpfs:
        mount("-o", "remount,ro", str(folder))
        said["readonly"] = attempt(path)
        with Store(path, readonly=True) as store:
            said["still_readable"] = sum(1 for _ in store.results(runs[0]))
    return said


def attempt(path: Path) -> str:
    """The one line with which a run ends; empty if it finished."""
    try:
        with Store(path) as store:
            solve(store, Scripted(64, length=4000), problems(50), 4)
    except FlyweightError as error:
        return str(error)
    return ""


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def straight(path: Path, order: int) -> dict[str, object]:
    """D2: a run over the problems in another order; interrupted once if the order is odd."""
    asked = problems(12)
    random.Random(order).shuffle(asked)
    with Store(path) as store:
        if order % 2:
            record = store.run({"strategy": "best_of_n", "n": 4})
            judge = store.verifier(RuleVerifier(rule), identity="rule 1")
            runner = Runner(store.policy(Scripted(3)), {"rule": judge}, answers=BoxedAnswers(), on_event=record)
            for _ in runner.run(asked, strategies.bind("best_of_n", {"n": 4}), in_flight=2):
                break
        solve(store, Scripted(5, shuffle=order), asked, 4)
        return {"report": digest(report(store))}


def finished(path: Path, asked: int, n: int) -> dict[str, object]:
    """R5: how long it takes to draw, to ask again, to read back, to vote again over the same pool."""
    seconds: dict[str, float] = {}
    policy = Scripted(256, length=200)

    def timed(name: str, work: Callable[[], object]) -> None:
        began = time.perf_counter()
        work()
        seconds[name] = round(time.perf_counter() - began, 2)

    def go_on(strategy: str, width: int) -> None:
        with Store(path) as store:
            solve(store, policy, problems(asked), width, strategy)

    def read() -> None:
        with Store(path, readonly=True) as store:
            for run in store.runs():
                for _ in store.results(run.id):
                    pass

    timed("drawn", lambda: go_on("self_consistency", n))
    calls = policy.calls
    timed("asked_again", lambda: go_on("self_consistency", n))
    timed("read_back", read)
    timed("replayed_with_another_selector", lambda: go_on("best_of_n", n))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {
        "calls": calls,
        "calls_afterwards": policy.calls - calls,
        "seconds": seconds,
        "peak_mb": peak,
        "file_mb": path.stat().st_size >> 20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["finished", "full", "kills", "races", "straight"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tmpfs", action="store_true")
    options = parser.parse_args()
    path = options.path
    said = {
        "kills": lambda: kills(path, options.count, options.problems, options.samples),
        "finished": lambda: finished(path, options.problems, options.samples),
        "races": lambda: races(path, options.count),
        "full": lambda: full(path, options.tmpfs),
        "straight": lambda: straight(path, options.count),
    }[options.command]()
    json.dump(said, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
