"""How a benchmark's questions fill a cluster: recorded durations replayed through the real coordinator.

    python -m benchmarks.cluster

Workers are simulated: each searches `--seats` questions at a time, and each takes as long as one that was recorded
(beam search and DVTS with 16 samples on GSM8K, results/pools). Everything else is the real thing: the coordinator hands
out and collects, and the time it needs by the real clock is added to the simulated one, as is what taking a search of
that size into a real store costs. Some workers are lost on the way, with `--lost`.

Efficiency is the work done over the workers' time until the last question is in. Prints a table, writes
results/cluster.json.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import lzma
import random
import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from flyweight import bench
from flyweight.cli import render
from flyweight.distributed import Coordinator, Lost, Order, Searcher, Worker
from flyweight.distributed.spread import AHEAD
from flyweight.protocols import Policy
from flyweight.store import Store
from flyweight.testing import Draft, ToyPolicy
from flyweight.types import Sampling

__all__ = ["Cluster", "Replay", "durations", "replayed"]

ROOT = Path(__file__).resolve().parent.parent
POOL = ROOT / "results" / "pools" / "gsm8k.jsonl.xz"
RESULT = ROOT / "results" / "cluster.json"
WORKERS = (1, 2, 4, 8, 16, 32, 64)
QUESTIONS = 1319
"""As many as GSM8K's test set has."""
SEATS = 4
TOKENS = 330
"""Of each of the 16 samples in the search whose cost to the store is measured: the recorded ones' mean."""


def durations(pool: Path) -> list[float]:
    """Seconds of every recorded search of beam search and DVTS, those of a few questions left out."""
    wanted: set[str] = set()
    found: list[float] = []
    with lzma.open(pool) as lines:
        for line in lines:
            if line.startswith(b'{"run"'):
                row = json.loads(line)
                if row["configuration"]["strategy"] in ("beam_search", "dvts") and row["problems"] >= 60:
                    wanted.add(row["run"])
            elif line.startswith(b'{"search"'):
                row = json.loads(line)
                if row["search"] in wanted:
                    found.append(float(row["record"]["result"]["usage"]["seconds"]))
            elif line.startswith(b'{"content"'):
                break
    return found


@dataclass
class Replay:
    """What became of a job."""

    workers: int
    seconds: float
    """Until the last question was in, by the simulated clock."""
    work: float
    """Seconds of searching that were wanted."""
    seats: int
    driver: float
    """Seconds the driver was busy."""
    lost: int

    @property
    def efficiency(self) -> float:
        """Share of the seats' time in which something wanted was searched."""
        return self.work / (self.seconds * self.workers * self.seats)


class Cluster:
    """Simulated workers on one simulated clock."""

    def __init__(self, seconds: dict[str, float], seats: int, taking: float) -> None:
        """`seconds` of every question; `taking`: what each costs the driver beside the coordinator's own work."""
        self.now = 0.0
        self.driver = 0.0
        self.seconds, self.seats = seconds, seats
        self._taking = taking
        self._events: list[tuple[float, int, Seat, str]] = []
        self._resumed = time.perf_counter()
        self._order = itertools.count()
        self._made = 0

    def worker(self, lost: Worker | None = None) -> Seat:
        """A new one."""
        self._made += 1
        return Seat(f"worker {self._made}", self)

    def begin(self, worker: Seat, question: str) -> None:
        """A question is being searched from now on."""
        heapq.heappush(self._events, (self.now + self.seconds[question], next(self._order), worker, question))

    def kill(self, worker: Seat) -> None:
        """A worker is gone."""
        self._events = [event for event in self._events if event[2] is not worker]
        heapq.heapify(self._events)
        worker.die()

    def wait(self, flying: Iterable[Future[bytes]], most: float) -> list[Future[bytes]]:
        """`Coordinator`'s wait: charges what the driver needed since the last one, then lets time pass."""
        busy = time.perf_counter() - self._resumed
        self.now += busy
        self.driver += busy
        waiting = list(flying)
        done = [future for future in waiting if future.done()]
        if not done:
            while self._events:
                at, _, worker, question = heapq.heappop(self._events)
                self.now = max(self.now, at)
                worker.end(question)
                if not self._events or self._events[0][0] > self.now:
                    break
            done = [future for future in waiting if future.done()]
        self.now += self._taking * len(done)
        self.driver += self._taking * len(done)
        self._resumed = time.perf_counter()
        return done


class Seat:
    """A simulated worker: `seats` questions at a time, the others wait."""

    def __init__(self, name: str, cluster: Cluster) -> None:
        self.name, self.room = name, cluster.seats + AHEAD
        self._cluster = cluster
        self._queue: deque[str] = deque()
        self._searching: set[str] = set()
        self._asked: dict[str, Future[bytes]] = {}

    def ready(self) -> bool:
        """Always."""
        return True

    def submit(self, question: str) -> Future[bytes]:
        """Search it when there is a seat."""
        self._asked[question] = Future()
        self._queue.append(question)
        self._fill()
        return self._asked[question]

    def end(self, question: str) -> None:
        """A question is done."""
        self._searching.remove(question)
        self._asked.pop(question).set_result(b"")
        self._fill()

    def die(self) -> None:
        """Lose everything."""
        for future in self._asked.values():
            future.set_exception(Lost("killed"))

    def close(self) -> None:
        """Nothing is held."""

    def _fill(self) -> None:
        while self._queue and len(self._searching) < self._cluster.seats:
            question = self._queue.popleft()
            self._searching.add(question)
            self._cluster.begin(self, question)


def replayed(seconds: dict[str, float], workers: int, *, seats: int, taking: float, lost: int = 0) -> Replay:
    """The job on so many workers, of which `lost` are killed at even intervals and replaced."""
    cluster = Cluster(seconds, seats, taking)
    coordinator = Coordinator([cluster.worker() for _ in range(workers)], another=cluster.worker, wait=cluster.wait)
    deaths = [len(seconds) * (number + 1) // (lost + 1) for number in range(lost)]
    done: set[str] = set()
    for each in coordinator.run(iter(seconds)):
        assert each.question not in done, "a question came back twice"
        done.add(each.question)
        if deaths and len(done) >= deaths[0]:
            deaths.pop(0)
            victim = coordinator.workers[0]
            assert isinstance(victim, Seat)
            cluster.kill(victim)
    assert done == set(seconds), "a question was lost"
    return Replay(workers, cluster.now, sum(seconds.values()), seats, cluster.driver, coordinator.lost)


def taking(folder: Path, questions: int = 24) -> float:
    """Seconds to take a search of 16 samples into a real store and to read it back, the mean over some."""
    data = folder / "questions.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"{i} and 4", "answer": i}) + "\n" for i in range(questions)))

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        words = " ".join(str(rng.random()) for _ in range(TOKENS // 20))
        return Draft(f"{words[:TOKENS]} \\boxed{{{rng.randint(0, 3)}}}")

    def load(model: str, context: int, weights: str) -> Policy | object:
        return lambda: ToyPolicy(write)

    [job] = bench.check([bench.Plan("jsonl", data=str(data), model="toy", parameters={"n": 16})])
    searcher = Searcher(Order(job.configuration, b"", None, 8), load)  # type: ignore[arg-type]
    parcels = [searcher.submit(problem.id).result() for problem in job.problems]
    searcher.close()
    with Store(folder / "runs.db") as store:
        run = store.run(job.configuration, models={"toy": "toy"})
        began = time.perf_counter()
        for parcel in parcels:
            problem, _ = store.take(run.id, parcel)
            store.search(run.id, problem)
        return (time.perf_counter() - began) / len(parcels)


def rows(recorded: list[float], options: argparse.Namespace) -> Iterator[Replay]:
    """The job on every number of workers."""
    rng = random.Random(0)
    seconds = {f"q{number}": rng.choice(recorded) for number in range(options.questions)}
    with TemporaryDirectory() as folder:
        each = taking(Path(folder))
    for workers in WORKERS:
        lost = options.lost if workers > 1 else 0
        yield replayed(seconds, workers, seats=options.seats, taking=each, lost=lost)


def main() -> None:
    parser = argparse.ArgumentParser(description="Efficiency of a simulated cluster.")
    parser.add_argument("--questions", type=int, default=QUESTIONS)
    parser.add_argument("--seats", type=int, default=SEATS, help="questions a worker searches at a time")
    parser.add_argument("--lost", type=int, default=0, help="workers killed on the way")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    recorded = durations(POOL)
    print(
        f"{options.questions} questions, {len(recorded)} recorded durations: mean {statistics.mean(recorded):.1f} s, "
        f"longest {max(recorded):.1f} s; {options.seats} at a time on each worker, {options.lost} workers lost"
    )
    found = list(rows(recorded, options))
    head = ("workers", "hours", "speed-up", "efficiency", "driver busy", "lost")
    table = [
        (
            str(each.workers),
            f"{each.seconds / 3600:.2f}",
            f"{found[0].seconds / each.seconds:.1f}",
            f"{100 * each.efficiency:.1f} %",
            f"{100 * each.driver / each.seconds:.2f} %",
            str(each.lost),
        )
        for each in found
    ]
    print(render.table(head, table, right=6))
    facts = {"questions": options.questions, "seats": options.seats, "killed": options.lost}
    listed = [vars(each) | {"efficiency": round(each.efficiency, 4)} for each in found]
    options.out.write_text(json.dumps({**facts, "rows": listed}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
