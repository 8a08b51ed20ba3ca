"""Many clients: places, queues, hanging up, coming twice, keepalives, the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from flyweight import api
from flyweight.server import app as application
from flyweight.server.desk import Desk
from flyweight.server.errors import ApiError
from flyweight.server.job import Failed, Finished, Job, Piece, Plan, Reply, Seen
from flyweight.server.watch import Room, Watch
from flyweight.testing import BoxedAnswers, ToyPolicy
from flyweight.types import Budget, Event, Sampling
from tests.server.kit import Running, endless, events, running


@pytest.fixture
def slow() -> Iterator[Running]:
    with running(endless(), running=2, queued=2, max_tokens=50_000) as found:
        yield found


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["toy", "toy@self_consistency:n=8"])
def test_a_client_that_hangs_up_frees_the_engine(slow: Running, stream: bool, model: str) -> None:
    with slow.held({"model": model, "stream": stream}):
        slow.until(lambda: slow.policy.counters.generated_tokens > 20)
    slow.until(lambda: not slow.server.desk.running and not slow.server.engine._works)
    before = slow.policy.counters.generated_tokens
    assert slow.policy.step() == [] and slow.policy.counters.generated_tokens == before


def test_a_client_that_hangs_up_while_waiting_leaves_the_queue(slow: Running) -> None:
    desk = slow.server.desk
    with slow.held({}, key="1"), slow.held({}, key="2"):
        slow.until(lambda: len(desk.running) == 2)
        with slow.held({}, key="3"):
            slow.until(lambda: len(desk.queue) == 1)
        slow.until(lambda: not desk.queue)
        assert len(desk.running) == 2
    slow.until(lambda: not desk.running)


def test_beyond_the_queue_clients_are_sent_away_and_told_when_to_come_back(slow: Running) -> None:
    desk = slow.server.desk
    with contextlib.ExitStack() as clients:
        for number in range(4):
            clients.enter_context(slow.held({}, key=str(number)))
        slow.until(lambda: len(desk.running) == 2 and len(desk.queue) == 2)
        refused = slow.ask({"seed": 99})
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert "flyweight_queued 2.0" in slow.get("/metrics").text
    slow.until(lambda: not desk.running and not desk.queue)
    assert slow.ask({"max_tokens": 5}).status_code == 200, "there is a place again"
    figures = slow.get("/metrics").text
    assert 'flyweight_requests_total{what="rejected"} 1.0' in figures
    assert 'flyweight_requests_total{what="cancelled"} 4.0' in figures


def test_the_same_request_three_times_is_searched_once() -> None:
    with running(ToyPolicy(delay=0.01)) as own, ThreadPoolExecutor(6) as pool:
        body = {"model": "toy@best_of_n:n=4"}
        answers = list(pool.map(lambda _: own.ask(body).json(), range(3)))
        assert len({answer["id"] for answer in answers}) == 1 and len({json.dumps(a) for a in answers}) == 1
        calls = answers[0]["flyweight"]["calls"]
        assert calls == 4 and own.policy.counters.generated_tokens == answers[0]["usage"]["completion_tokens"]
        apart = {**body, "flyweight": {"coalesce": False}}
        assert len({answer["id"] for answer in pool.map(lambda _: own.ask(apart).json(), range(3))}) == 3
        streams = list(pool.map(lambda _: own.ask({**body, "stream": True}).text, range(2)))
        assert streams[0].split("data: ")[-3:] == streams[1].split("data: ")[-3:]
        keyed = pool.map(lambda key: own.ask(body, headers={"Idempotency-Key": key}).json()["id"], "aab")
        assert len(set(keyed)) == 2, "with keys it is the key that tells requests apart"


def test_one_of_two_who_wait_for_the_same_may_go(slow: Running) -> None:
    with ThreadPoolExecutor(1) as pool:
        with slow.held({"max_tokens": 400}, key="same"):
            slow.until(lambda: bool(slow.server.desk.running))
            other = pool.submit(slow.ask, {"max_tokens": 400}, headers={"Idempotency-Key": "same"})
            slow.until(lambda: any(job.waiters == 2 for job in slow.server.desk.running))
        assert other.result().json()["usage"]["completion_tokens"] == 400
    assert slow.policy.counters.generated_tokens == 400


def test_a_key_never_gets_the_answer_to_another_request(slow: Running) -> None:
    with slow.held({}, key="one"):
        slow.until(lambda: bool(slow.server.desk.running))
        others = [slow.ask({"seed": 1}, headers={"Idempotency-Key": "one"})]
        others += [slow.ask({}, headers={"Idempotency-Key": "one", "X-Flyweight-Budget": "100"})]
        for other in others:
            assert (other.status_code, other.headers["x-should-retry"]) == (422, "false")
            assert other.json()["error"]["code"] == "idempotency_key_reused"
    slow.until(lambda: not slow.server.desk.running)
    assert slow.ask({"max_tokens": 5}, headers={"Idempotency-Key": "one"}).status_code == 200


def test_a_silent_search_is_kept_alive() -> None:
    with running(ToyPolicy(delay=0.05)) as own:
        own.server.keepalive = 0.1
        response = own.ask({"model": "toy@greedy", "stream": True, "flyweight": {"progress": False}})
    assert response.text.count(": keepalive\n\n") >= 2
    assert events(response)[-1] == "[DONE]"


def test_draining_finishes_what_is_under_way_and_refuses_the_rest() -> None:
    with running(ToyPolicy(delay=0.01)) as own, ThreadPoolExecutor(2) as pool:
        under_way = pool.submit(own.ask, {})
        own.until(lambda: bool(own.server.desk.running))
        done = asyncio.run_coroutine_threadsafe(own.server.desk.drain(5), own.server.engine._loop)  # type: ignore[arg-type]
        own.until(lambda: own.server.desk.draining)
        refused, health = own.ask({"seed": 1}), own.get("/health")
        assert refused.status_code == 503 and refused.headers["retry-after"] and health.status_code == 503
        assert done.result() and under_way.result().status_code == 200


def test_what_does_not_end_in_time_is_told_that_the_server_stops(slow: Running) -> None:
    with ThreadPoolExecutor(2) as pool:
        whole, stream = pool.submit(slow.ask, {}), pool.submit(slow.ask, {"stream": True})
        slow.until(lambda: len(slow.server.desk.running) == 2)
        loop = slow.server.engine._loop
        assert loop is not None
        assert not asyncio.run_coroutine_threadsafe(slow.server.desk.drain(0.05), loop).result()
        loop.call_soon_threadsafe(slow.server.desk.abort)
        assert whole.result().status_code == 503
        assert events(stream.result())[-1]["error"]["code"] == "shutting_down"
        slow.until(lambda: not slow.server.engine._works)


def test_a_search_with_more_events_than_are_kept_still_shows_its_end() -> None:
    def watched(room: Room) -> tuple[list[dict[str, Any]], int]:
        pieces: list[Piece] = []
        happened: list[Event] = []
        watch = Watch(pieces.append, BoxedAnswers(), number=0, thoughts=False, room=room)

        def both(event: Event) -> None:
            happened.append(event)
            watch(event)

        question = "Add 1 and 2 and 3 and 4 and 5 and 6."
        with api.Session(ToyPolicy(), verifier="arithmetic", on_event=both) as session:
            session.solve(question, strategy="beam_search", n=8, width=4)
        lines = [json.loads(piece.line) for piece in pieces if isinstance(piece, Seen)]
        return lines, sum(event.kind != "progress" for event in happened)

    whole, total = watched(Room())
    assert "left_out" not in whole[-1]
    few, _ = watched(Room(3000))
    told = [line for line in few if line["kind"] != "progress"]
    assert few[-1]["kind"] == "end" and few[-1]["left_out"] == total - len(told) > 20
    assert len(json.dumps(told[:-2])) < 3000, "all but the one that filled it"
    built: dict[str, str] = {}

    def build(node: dict[str, Any]) -> str:
        for above in node.get("path", ()):
            build(above)
        if node["key"] not in built:
            built[node["key"]] = built.get(node.get("parent", ""), "") + node.get("text", "")
        return built[node["key"]]

    def answers(lines: list[dict[str, Any]]) -> list[str]:
        built.clear()
        for line in lines:
            if "node" in line:
                build(line["node"])
        result = lines[-1]["result"]
        return [build(node) for node in (result["best"], *(candidate["node"] for candidate in result["candidates"]))]

    assert answers(few) == answers(whole) and len(answers(few)) > 1


# The desk alone


class Hands:
    """A worker that only notes what it is given."""

    def __init__(self) -> None:
        self.given: list[Job] = []
        self.dropped: list[Job] = []

    def submit(self, job: Job) -> None:
        self.given.append(job)

    def cancel(self, job: Job) -> None:
        self.dropped.append(job)


def plan(deadline: float = 100.0) -> Plan:
    from flyweight.server.choosing import Wanted

    budget = Budget(seconds=deadline)
    return Plan("m", True, (), Wanted(), None, {}, budget, deadline, Sampling(), 0, BoxedAnswers(), "")


END = Finished(Reply([], {}, {}))


def test_places_are_given_in_order_and_waiting_counts_against_the_deadline() -> None:
    async def act() -> None:
        now = itertools.count(step=10)
        hands = Hands()
        desk = Desk(hands, running=1, queued=3, clock=lambda: float(next(now)))
        jobs = [desk.take(plan(), "", ""), desk.take(plan(), "", ""), desk.take(plan(15), "", "")]
        assert hands.given == jobs[:1]
        jobs[0].tell(END)
        assert hands.given == jobs[:2]
        waited = jobs[1].queued_seconds
        assert waited > 0 and jobs[1].plan.budget.seconds == 100 - waited
        desk.leave(jobs[1])
        assert hands.dropped == [jobs[1]] and hands.given == jobs[:2], "the third one came too late"
        assert not desk.running and not desk.queue and jobs[2].end is not None

    asyncio.run(act())


def test_who_waits_is_told_when_the_deadline_passes_and_not_when_a_place_is_free() -> None:
    async def act() -> None:
        desk = Desk(Hands(), running=1, queued=1)
        desk.take(plan(), "", "")
        late = desk.take(plan(0.01), "", "")
        end = await late.wait()
        assert isinstance(end, Failed) and end.error.status == 504
        assert len(desk.running) == 1 and not desk.queue and not desk._late
        desk.take(plan(), "", "")  # there is room for another

    asyncio.run(act())


def test_any_number_may_have_waited_too_long() -> None:
    async def act() -> None:
        now = 0.0
        hands = Hands()
        desk = Desk(hands, running=1, queued=2001, clock=lambda: now)
        first, *late, last = [desk.take(plan(), "", "") for _ in range(2000)] + [desk.take(plan(500), "", "")]
        now = 101.0
        first.tell(END)
        assert all(isinstance(job.end, Failed) for job in late) and hands.given == [first, last]
        last.tell(END)
        assert not desk._arrived and not desk._late and desk._idle.is_set()

    asyncio.run(act())


def test_a_full_desk_says_how_long_to_wait() -> None:
    async def act() -> None:
        desk = Desk(Hands(), running=1, queued=1)
        desk.take(plan(), "", ""), desk.take(plan(), "", "")
        with pytest.raises(ApiError) as refused:
            desk.take(plan(), "", "")
        assert refused.value.status == 429 and 1 <= int(refused.value.headers["Retry-After"]) <= 60

    asyncio.run(act())


def test_runs_are_forgotten_once_there_are_many() -> None:
    async def act() -> None:
        desk = Desk(Hands(), running=1000, queued=0)
        jobs = [desk.take(plan(), "me", "") for _ in range(100)]
        for job in jobs[:90]:
            job.tell(END)
        desk.take(plan(), "me", "")
        assert len(desk.runs("me")) == 64 and desk.find(jobs[-1].id, "me") and not desk.find(jobs[-1].id, "you")

    asyncio.run(act())


def test_who_comes_late_hears_everything() -> None:
    from flyweight.server.job import Delta, Thought

    async def act() -> None:
        job = Job(plan(), "")
        heard: list[list[object]] = [[], []]

        async def listen(to: list[object]) -> None:
            async for piece in job.pieces():
                to.append(piece)

        first = asyncio.create_task(listen(heard[0]))
        job.tell(Delta(0, "a"))
        await asyncio.sleep(0)
        second = asyncio.create_task(listen(heard[1]))
        job.tell(Thought("b"))
        job.tell(END)
        job.tell(Delta(0, "after the end"))
        await asyncio.gather(first, second)
        assert heard[0] == heard[1] == [Delta(0, "a"), Thought("b"), END]
        assert replace(Delta(0, "a"), index=1).index == 1

    asyncio.run(act())


def test_an_answer_that_is_never_read_is_not_kept_for_ever() -> None:
    with running() as own:
        for seed in range(70):
            own.ask({"seed": seed, "max_tokens": 2})
        assert len(own.get("/runs").json()["data"]) <= 65
        assert not own.server.desk._same and not own.server.desk._arrived and not own.server.engine._owners
        assert isinstance(own.server, application.Server)
