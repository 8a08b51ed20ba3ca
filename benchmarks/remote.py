"""Models over the wire: what caps, faults and outages do to many calls. Everything runs against the tests' own server.

    python -m benchmarks.remote              # 2,000 calls a row, about two minutes on two cores
    python -m benchmarks.remote --calls 10000

Server and client share one process and its interpreter lock: calls a second are a floor, the other figures exact.
"""

from __future__ import annotations

import argparse
import logging
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from flyweight import strategies
from flyweight.policies.openai.policy import OpenAI
from flyweight.protocols import Request, Response
from flyweight.runner import Runner
from flyweight.tasks import load as task
from flyweight.testing import BoxedAnswers
from flyweight.types import Message, Node, Problem, Sampling
from flyweight.verifiers.remote import Remote
from flyweight.wire.backoff import Backoff
from tests.fake_endpoint import Call, Endpoint, Json, drawing

MIX = {"429 1": 10, "503": 5, "reset": 2, "hang": 1, "badjson": 1, "truncated": 1, "empty": 1, "choices": 1}
"""How many of a hundred requests meet it at their first try."""
WINDOW = 0.05


def main() -> None:
    """Print every row as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000, help="requests in a row")
    parser.add_argument("--questions", type=int, default=50, help="questions of GSM8K for policy and verifier together")
    options = parser.parse_args()
    logging.getLogger("flyweight").setLevel(logging.ERROR)
    for name, said in rows(options.calls, options.questions):
        print(f"{name:<10} {said}", flush=True)


def rows(calls: int, questions: int) -> Iterator[tuple[str, str]]:
    """Name and figures of each measurement."""
    yield "caps", caps(calls)
    yield "faults", faults(calls)
    yield "retries", retries()
    yield "outage", outage()
    yield "overlap", overlap(questions)


def caps(calls: int) -> str:
    """Many calls at 16 in flight: the most that were, and the memory they took."""
    with Endpoint() as server:
        policy = OpenAI(f"openai:{server.url}:in_flight=16")
        before, began = _memory(), time.perf_counter()
        responses = _serve(policy, calls)
        seconds = time.perf_counter() - began
        policy.close()
        failed = sum(response.error is not None for response in responses)
        return (
            f"{calls} calls, {calls / seconds:.0f} a second, {failed} failed; at most {server.peak} in flight of 16; "
            f"{(_memory() - before) / 1024:.0f} MB more"
        )


def faults(calls: int) -> str:
    """A fifth of the calls meets a fault first."""
    kinds = [kind for kind, share in MIX.items() for _ in range(share)]
    planned = {seed: kinds[seed * 37 % 100] for seed in range(calls) if seed * 37 % 100 < len(kinds)}
    seen: Counter[int] = Counter()

    def fault(number: int, path: str, body: Json) -> str | None:
        if not drawing(body):
            return None
        seen[body["seed"]] += 1
        return planned.get(body["seed"]) if seen[body["seed"]] == 1 else None

    with Endpoint(fault=fault) as server:
        policy = OpenAI(f"openai:{server.url}:first=5:in_flight=16")
        responses = _serve(policy, calls)
        policy.close()
    good: dict[int, Call] = {call.body["seed"]: call for call in server.drawn() if call.fault is None}
    told = [call for call in server.drawn() if call.fault == "429 1"]
    early = sum(good[call.body["seed"]].began - call.ended < 1.0 for call in told)
    failed = sum(response.error is not None for response in responses)
    return (
        f"{calls} requests, {len(planned)} met a fault; {failed} failed, {len(server.drawn()) / calls:.3f} calls a "
        f"request; {early} of {len(told)} came back before their Retry-After"
    )


def retries() -> str:
    """A hundred requests that fail together: the largest share of their retries within 50 ms."""
    crowds = []
    for _ in range(100):
        backoff = Backoff()
        delays = [backoff.delay(1) for _ in range(100)]
        crowds.append(max(sum(begin <= other < begin + WINDOW for other in delays) for begin in delays))
    return f"100 failures together: at most {max(crowds)} % of their retries within 50 ms"


def outage() -> str:
    """A server that goes away: when the last of what waits is told so."""
    with Endpoint() as server:
        policy = OpenAI(f"openai:{server.url}")
        _serve(policy, 1)
    began = time.perf_counter()
    responses = _serve(policy, 200)
    seconds = time.perf_counter() - began
    policy.close()
    failed = sum(response.error is not None for response in responses)
    return f"200 requests to a server that has gone: {failed} failed within {seconds:.0f} s"


def overlap(questions: int) -> str:
    """Policy and verifier at two URLs, both slow: how many of the verifier's calls ran beside the policy's."""

    def scored(body: Json) -> object:
        said = body["text_2"]
        return {"data": [{"index": i, "score": 0.2 if "answer is 12" in text else 0.8} for i, text in enumerate(said)]}

    problems: Sequence[Problem] = task("gsm8k").problems()[:questions]
    delay = 0.05
    with Endpoint(delay=lambda: delay) as writing, Endpoint(routes={"/score": scored}, delay=lambda: delay) as judging:
        policy, verifier = OpenAI(f"openai:{writing.url}"), Remote(judging.url, api="score")
        runner = Runner(policy, {verifier.name: verifier}, answers=BoxedAnswers())
        results = list(runner.run(problems, strategies.bind("best_of_n", {"n": 4}), in_flight=16))
        runner.close()
        verifier.close()
    drawn = [(call.began, call.ended) for call in writing.drawn()]
    told = [(call.began, call.ended) for call in judging.calls if call.path == "/score"]
    beside = sum(any(begin < end_ and begin_ < end for begin_, end_ in drawn) for begin, end in told)
    failed = sum(result.error is not None for result in results)
    return f"{len(results)} questions of GSM8K, {failed} failed; {beside} of {len(told)} scorings ran beside drawing"


def _serve(policy: OpenAI, count: int) -> list[Response]:
    root = Node(messages=(Message("user", "Add 3 and 4 and 5."),), key="root")
    for seed in range(count):
        policy.add(Request(seed + 1, root, Sampling(max_tokens=64), seed))
    found: list[Response] = []
    while len(found) < count:
        found += policy.step()
    return found


def _memory() -> int:
    """The most memory this process has held, in kB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
