"""Questions over workers: nothing lost, nothing doubled, whatever becomes of them, and the record of one machine."""

from __future__ import annotations

import itertools
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from random import Random
from typing import Any

import pytest

from flyweight import bench, distributed
from flyweight.distributed import Coordinator, Lost, Order, Searcher, Status
from flyweight.errors import BackendError, ConfigError, ModelError, StoreError
from flyweight.protocols import Policy
from flyweight.store import Store
from flyweight.testing import ToyPolicy
from tests.bench.kit import questions, said
from tests.cli.conftest import flyweight
from tests.cli_kit import Command

__all__ = ["flyweight"]

IDS = [f"q{number}" for number in range(40)]


class Fake:
    """A worker whose futures a test resolves."""

    def __init__(self, name: str, room: int = 3) -> None:
        self.name, self.room = name, room
        self.asked: dict[str, Future[bytes]] = {}
        self.most = 0
        self.open = self.loaded = True

    def ready(self) -> bool:
        return self.loaded

    def submit(self, question: str) -> Future[bytes]:
        assert question not in self.asked
        if not self.open:
            raise Lost("it was gone")
        self.asked[question] = Future()
        self.most = max(self.most, sum(not future.done() for future in self.asked.values()))
        return self.asked[question]

    def close(self) -> None:
        self.open = False

    def answer(self) -> None:
        """Send one back, the latest asked first."""
        for question, future in reversed(self.asked.items()):
            if not future.done():
                future.set_result(f"{question} by {self.name}".encode())
                return

    def die(self) -> None:
        for future in self.asked.values():
            if not future.done():
                future.set_exception(Lost("killed"))


def moving(step: Callable[[], None]) -> Callable[[Iterable[Future[bytes]], float], Iterable[Future[bytes]]]:
    """A wait in which something happens."""

    def wait(flying: Iterable[Future[bytes]], seconds: float) -> list[Future[bytes]]:
        step()
        return [future for future in flying if future.done()]

    return wait


@pytest.mark.parametrize("seed", range(8))
def test_every_question_comes_back_once_whatever_becomes_of_workers(seed: int) -> None:
    random, numbers = Random(seed), itertools.count()
    everyone: list[Fake] = []

    def another(lost: object = None) -> Fake:
        everyone.append(Fake(f"w{next(numbers)}", room=random.randint(1, 4)))
        return everyone[-1]

    alive = [another() for _ in range(3)]
    deaths = iter([True] * 2)

    def step() -> None:
        worker = random.choice([each for each in everyone if each.open])
        if random.random() < 0.15 and next(deaths, False):
            worker.die()
        else:
            worker.answer()

    coordinator = Coordinator(alive, another=another, wait=moving(step))
    done = list(coordinator.run(iter(IDS)))
    assert sorted(each.question for each in done) == sorted(IDS)
    assert all(each.parcel == f"{each.question} by {each.worker}".encode() for each in done)
    assert coordinator.lost == 2 - len(list(deaths))
    assert all(worker.most <= worker.room for worker in everyone)


def test_questions_are_taken_only_for_workers_with_room() -> None:
    taken: list[str] = []

    def source() -> Iterator[str]:
        for question in IDS:
            taken.append(question)
            yield question

    workers = [Fake("a", 3), Fake("b", 2), Fake("c", 9)]
    workers[2].loaded = False
    coordinator = Coordinator(workers, wait=moving(workers[0].answer))
    running = coordinator.run(source())
    next(running)
    assert len(taken) == 5 and not workers[2].asked  # it is still loading
    workers[2].loaded = True
    next(running)
    assert len(taken) == 6 + 9
    assert [len(each.asked) for each in workers] == [4, 2, 9]


def test_a_worker_that_never_gets_ready_keeps_nobody_waiting() -> None:
    here, pending = Fake("a"), Fake("b")
    pending.loaded = False
    looks = iter(range(1000))
    coordinator = Coordinator([here, pending], wait=moving(here.answer), tick=lambda: next(looks) < 999)
    assert len(list(coordinator.run(IDS))) == len(IDS) and not pending.asked
    assert next(looks) < 900, "it went on after everything was done"
    here.loaded = False
    began: list[int] = []

    def load() -> None:
        began.append(len(here.asked))
        here.loaded = len(began) > 3
        here.answer()

    late = Coordinator([here], wait=moving(load))
    assert len(list(late.run(["x", "y"]))) == 2 and len(began) > 3


def test_a_question_that_costs_every_worker_ends_the_run() -> None:
    workers = [Fake("w0", 1)]

    def another(lost: object) -> Fake:
        workers.append(Fake(f"w{len(workers)}", 1))
        return workers[-1]

    coordinator = Coordinator(workers[:1], another=another, wait=moving(lambda: workers[-1].die()))
    with pytest.raises(BackendError, match="3 workers were lost, each while it searched 'q0': killed"):
        list(coordinator.run(IDS))
    assert len(workers) == 3


def test_no_worker_left_is_an_error_and_so_is_what_one_raises() -> None:
    gone = Fake("a")
    gone.open = False
    with pytest.raises(BackendError, match="every worker is lost, the last with: it was gone"):
        list(Coordinator([gone]).run(IDS))
    broken = Fake("b")

    def fail() -> None:
        broken.asked["q0"].set_exception(ModelError("no such model"))

    with pytest.raises(ModelError, match="no such model"):
        list(Coordinator([broken], wait=moving(fail)).run(IDS))


def test_it_ends_when_told() -> None:
    worker, ticks = Fake("a"), iter([True, True, False])
    done = list(Coordinator([worker], wait=moving(worker.answer), tick=lambda: next(ticks)).run(IDS))
    assert len(done) == 2


# Workers in this process ---------------------------------------------------------------------------------------


class Threads:
    """A cluster of threads. `kill` loses the oldest worker once it has sent something back."""

    def __init__(self, count: int = 2, load: Any = None) -> None:
        self.count = count
        self.made: list[Thread] = []
        self.load = load

    def worker(self, order: Order, room: int) -> Thread:
        self.made.append(Thread(f"thread {len(self.made)}", order, room, self.load))
        return self.made[-1]


class Thread:
    def __init__(self, name: str, order: Order, room: int, load: Any) -> None:
        self.name, self.room = name, room
        self.order = order
        self.searcher = Searcher(order, load)
        self.given: list[Future[bytes]] = []
        self.dead = False

    def identity(self) -> str | None:
        return self.searcher.identity.result() if self.searcher.identity.done() else None

    def ready(self) -> bool:
        return self.searcher.identity.done()

    def status(self) -> Status:
        return self.searcher.status

    def ask(self) -> Future[Status]:
        future = Future[Status]()
        future.set_result(self.searcher.status)
        return future

    def submit(self, question: str) -> Future[bytes]:
        if self.dead:
            raise Lost("killed")
        inner, outer = self.searcher.submit(question), Future[bytes]()

        def told(done: Future[bytes]) -> None:
            if outer.done():
                return
            error = done.exception()
            if error is None:
                outer.set_result(done.result())
            else:
                outer.set_exception(error)

        self.given.append(outer)
        inner.add_done_callback(told)
        return outer

    def kill(self) -> None:
        """Gone with whatever it has not sent back."""
        self.dead = True
        self.searcher.close = lambda: None  # type: ignore[method-assign]
        for future in self.given:
            if not future.done():
                future.set_exception(Lost("killed"))

    def close(self) -> None:
        self.searcher.close()


def slow(model: str, context: int, weights: str) -> Callable[[], Policy]:
    return lambda: ToyPolicy(delay=0.0002)


def plans(tmp_path: Path, rows: int = 24, strategy: str = "self_consistency", **more: Any) -> list[bench.Plan]:
    return [bench.Plan("jsonl", data=questions(tmp_path, rows), model="toy", strategy=strategy, **more)]


def spread(path: Path, plans: list[bench.Plan], cluster: Any, **options: Any) -> list[bench.Summary]:
    on_progress = options.pop("on_progress", lambda progress: None)
    options = {"limits": bench.Limits(), "in_flight": 2, **options}
    with Store(path) as store:
        return list(distributed.summaries(store, bench.check(plans), cluster, on_progress=on_progress, **options))


@pytest.mark.parametrize(
    ("strategy", "verifier"), [("self_consistency", None), ("beam_search", "arithmetic"), ("best_of_n", "p_true")]
)
def test_the_record_is_that_of_one_machine(tmp_path: Path, strategy: str, verifier: str | None) -> None:
    wanted = plans(tmp_path, strategy=strategy, verifier=verifier)
    with Store(tmp_path / "one.db") as store:
        [alone] = bench.execute(store, wanted)
    cluster = Threads(3)
    [summary] = spread(tmp_path / "many.db", wanted, cluster)
    assert said(tmp_path / "many.db") == said(tmp_path / "one.db")
    assert (summary.ending, summary.tally.accuracy) == ("finished", alone.tally.accuracy)
    assert summary.generated == alone.generated == summary.tally.tokens
    assert (summary.calls, summary.readings) == (alone.calls, alone.readings)
    assert (alone.readings > 0) == (verifier == "p_true")
    assert all(worker.given for worker in cluster.made) and len(cluster.made) == 3
    # Nothing is left to do, here or elsewhere.
    [again] = spread(tmp_path / "many.db", wanted, Threads())
    assert (again.ending, again.calls) == ("finished", 0)


def test_a_worker_killed_midway_changes_nothing(tmp_path: Path) -> None:
    wanted = plans(tmp_path)
    with Store(tmp_path / "one.db") as store:
        bench.execute(store, wanted)
    cluster = Threads(2, slow)

    def kill(progress: bench.Progress) -> None:
        if progress.tally.searched == 5 and len(cluster.made) == 2:
            cluster.made[0].kill()

    [summary] = spread(tmp_path / "many.db", wanted, cluster, on_progress=kill)
    assert len(cluster.made) == 3 and summary.ending == "finished"
    assert said(tmp_path / "many.db") == said(tmp_path / "one.db")


def test_at_the_end_all_that_have_begun_are_asked_at_once_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flyweight.distributed.spread.SETTLE_SECONDS", 3600.0)
    cluster = Threads(3)
    asked: dict[str, Future[Status]] = {}

    class Slow(Thread):
        """One says how far it is only once the other has been asked; the third never loads."""

        def ready(self) -> bool:
            return self.name != "thread 2" and super().ready()

        def ask(self) -> Future[Status]:
            assert self.name != "thread 2"
            asked[self.name] = Future()
            if len(asked) == 2:
                for future in asked.values():
                    future.set_result(self.searcher.status)
            return asked[self.name]

    def worker(order: Order, room: int) -> Thread:
        cluster.made.append(Slow(f"thread {len(cluster.made)}", order, room, None))
        return cluster.made[-1]

    def wait(progress: bench.Progress) -> None:  # both have begun before the end
        if len(cluster.made) == 3:
            cluster.made[1].searcher.identity.result(30)

    monkeypatch.setattr(cluster, "worker", worker)
    [summary] = spread(tmp_path / "runs.db", plans(tmp_path), cluster, on_progress=wait)
    assert summary.ending == "finished" and sorted(asked) == ["thread 0", "thread 1"]


def test_what_was_drawn_before_is_not_drawn_again_and_comes_back_for_later(tmp_path: Path) -> None:
    few, many = (plans(tmp_path, parameters={"n": n}) for n in (2, 6))
    with Store(tmp_path / "runs.db") as store:
        bench.execute(store, few)
    [wider] = spread(tmp_path / "runs.db", many, Threads())
    assert wider.calls == 24 * 4
    with Store(tmp_path / "runs.db") as store:  # on this machine again: every draw of the workers is there
        [narrower] = bench.execute(store, plans(tmp_path, parameters={"n": 5}))
    assert narrower.calls == 0


def test_a_limit_ends_it_and_it_goes_on_on_one_machine(tmp_path: Path) -> None:
    wanted = plans(tmp_path)
    with Store(tmp_path / "one.db") as store:
        bench.execute(store, wanted)
    [part] = spread(tmp_path / "many.db", wanted, Threads(2, slow), limits=bench.Limits(tokens=2000))
    assert part.ending == "tokens" and 0 < part.tally.searched < 24
    with Store(tmp_path / "many.db") as store:
        [rest] = bench.execute(store, wanted)
    assert rest.ending == "finished"
    assert said(tmp_path / "many.db") == said(tmp_path / "one.db")


def test_a_model_that_cannot_be_loaded_there_is_said_here(tmp_path: Path) -> None:
    def broken(model: str, context: int, weights: str) -> Callable[[], Policy]:
        raise ModelError("no such model there")

    with pytest.raises(ModelError, match="no such model there"):
        spread(tmp_path / "runs.db", plans(tmp_path), Threads(2, broken))


def test_workers_that_see_another_file_refuse(tmp_path: Path) -> None:
    wanted = plans(tmp_path)
    jobs = bench.check(wanted)
    questions(tmp_path, 25)
    with Store(tmp_path / "runs.db") as store, pytest.raises(ConfigError, match="not the same on this worker"):
        list(
            distributed.summaries(
                store, jobs, Threads(), on_progress=lambda progress: None, limits=bench.Limits(), in_flight=2
            )
        )


def test_parcels_arrive_whole_or_not_at_all(tmp_path: Path) -> None:
    [job] = bench.check(plans(tmp_path, rows=2))
    searcher = Searcher(Order(job.configuration, b"", None, 2))
    first, second = (searcher.submit(problem.id).result(30) for problem in job.problems)
    searcher.close()
    with pytest.raises(BackendError, match="the worker was closed"):
        searcher.submit(job.problems[0].id).result(30)
    with Store(tmp_path / "runs.db") as store:
        run = store.run(job.configuration, models={"toy": "toy"})
        for broken in (b"", first[:-9], first[:40] + b"\0" + first[41:]):
            with pytest.raises(StoreError, match="what a worker sent"):
                store.take(run.id, broken)
        with pytest.raises(StoreError, match="of another run"):
            store.take("0123456789abcdef", first)
        assert Counter(store.take(run.id, each)[0] for each in (first, second, first)) == {
            job.problems[0].id: 2,
            job.problems[1].id: 1,
        }
        assert len(list(store.results(run.id))) == 2


# Ray -----------------------------------------------------------------------------------------------------------


def test_without_ray_it_says_how_to_get_it(flyweight: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    command = ["bench", "run", "jsonl", "--data", questions(tmp_path), "-m", "toy", "--out", str(tmp_path / "runs")]
    done = flyweight(*command, "--ray")
    assert done.code == 2 and "pip install 'flyweight[ray]'" in done.err
    hidden = flyweight(*command, "--ray", "--strategies=sample:n=99")
    assert hidden.code == 2 and "unknown parameter of sample 'n'" in hidden.err
    assert flyweight(*command, "--workers", "2").code == 2
    assert flyweight(*command, "--ray", "--workers", "0").code == 2


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_real_workers_one_of_them_killed_midway(tmp_path: Path) -> None:
    """Processes of their own on a local cluster; the one killed gets SIGKILL while it searches."""
    ray = pytest.importorskip("ray")
    from flyweight.distributed.on_ray import RayCluster, RayWorker

    wanted = plans(tmp_path, rows=60)
    with Store(tmp_path / "one.db") as store:
        bench.execute(store, wanted)
    cluster = RayCluster(workers=2)
    made: list[RayWorker] = []
    hire = cluster.worker
    killed: list[int] = []

    def worker(order: Order, room: int) -> RayWorker:
        made.append(hire(order, room))
        return made[-1]

    def kill(progress: bench.Progress) -> None:
        if progress.tally.searched >= 3 and not killed:
            killed.append(ray.get(made[0]._actor.__ray_call__.remote(lambda actor: os.getpid())))
            os.kill(killed[0], signal.SIGKILL)

    cluster.worker = worker  # type: ignore[method-assign]
    try:
        [summary] = spread(tmp_path / "many.db", wanted, cluster, on_progress=kill)
    finally:
        cluster.close()
    assert killed and len(made) == 3
    assert summary.ending == "finished" and summary.tally.searched == 60
    assert said(tmp_path / "many.db") == said(tmp_path / "one.db")
    assert not ray.is_initialized()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_command_line_spreads_and_says_what_is_wrong(flyweight: Command, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = ["bench", "run", "jsonl", "--data", questions(tmp_path), "-m", "toy", "--out", str(tmp_path / "runs")]
    done = flyweight(*command, "-s", "greedy", "--ray", "--workers", "2", "--json")
    assert done.code == 0 and done.json["searched"] == 6 and done.json["ending"] == "finished", done.err
    away = flyweight(*command, "-s", "sample", "--ray", "127.0.0.1:9")
    assert away.code == 3 and "no Ray cluster at 127.0.0.1:9" in away.err
    wrong = flyweight(*command, "-s", "sample", "--ray", "https://x")
    assert wrong.code == 2 and "is no address" in wrong.err
