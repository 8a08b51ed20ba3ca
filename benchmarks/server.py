"""The server measured: throughput, what it adds to the engine, overload, clients that leave, wait or attack, its end.

python -m benchmarks.server             all of it on the toy policy; throughput and restarts on the default model
python -m benchmarks.server overload disconnect    some of it
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx2

from benchmarks.rig import machine
from benchmarks.server_kit import (
    Figures,
    answers,
    chat,
    client,
    cpu_seconds,
    endless,
    engine,
    free_port,
    quantile,
    rss,
    served,
)
from benchmarks.server_silence import silence
from benchmarks.server_templates import templates
from flyweight import api
from flyweight.protocols import Policy, Request
from flyweight.testing import ToyPolicy
from flyweight.types import Message, Node, Sampling

OUT = Path(__file__).resolve().parent.parent / "results" / "server.json"
PAGE = OUT.parent.parent / "docs" / "security.md"
BEGIN, END = "<!-- figures -->", "<!-- end -->"
QUESTIONS = [
    f"Tom has {a} apples and buys {b} bags with {c} apples in each. He eats {d}. How many are left?"
    for a, b, c, d in [(i + 3, i % 5 + 2, i % 7 + 4, i % 3 + 1) for i in range(16)]
]


def throughput(model: str) -> Figures:
    """16 clients that each want the best of 8: one after the other, then all at once."""
    policy = engine(model)

    def ask(http: httpx2.Client, i: int) -> int:
        body = chat(f"{policy.name}@best_of_n:n=8", QUESTIONS[i], max_tokens=200, seed=i)
        answer = http.post("/v1/chat/completions", json=body).raise_for_status().json()
        return int(answer["usage"]["completion_tokens"])

    with served(policy) as (url, _), client(url) as http:
        http.post("/v1/chat/completions", json=chat(policy.name, "Warm up.", max_tokens=8)).raise_for_status()
        began = time.perf_counter()
        tokens = sum(ask(http, i) for i in range(16))
        alone = time.perf_counter() - began
        began = time.perf_counter()
        with ThreadPoolExecutor(16) as pool:
            together_tokens = sum(pool.map(lambda i: ask(http, i), range(16)))
        together = time.perf_counter() - began
    few, many = _rate(policy, 8), _rate(policy, 32)
    policy.close()
    return {
        "one_after_another_seconds": round(alone, 1),
        "at_once_seconds": round(together, 1),
        "times_faster": round(alone / together, 2),
        "tokens": [tokens, together_tokens],
        "bare_engine_tokens_per_second_8_and_32_rows": [round(few), round(many)],
        "target": ">= 3",
        "met": alone >= 3 * together,
    }


def _rate(policy: Policy, rows: int) -> float:
    """Tokens a second of the bare engine with so many answers side by side: what a server can gain by batching."""
    for row in range(rows):
        root = Node(messages=(Message("user", QUESTIONS[row % 16]),), key=f"question {row % 16}")
        policy.add(Request(10**9 + row, root, Sampling(max_tokens=200), row))
    before, began, answered = policy.counters.generated_tokens, time.perf_counter(), 0
    while answered < rows:
        answered += len(policy.step())
    return (policy.counters.generated_tokens - before) / (time.perf_counter() - began)


def added(model: str) -> Figures:
    """What HTTP, checks and threads add to a short answer of the bare engine, in turns."""
    policy = engine(model) if model != "toy" else ToyPolicy()
    root = Node(messages=(Message("user", "Say hello."),), key="root")
    bare: list[float] = []
    over: list[float] = []
    with served(policy) as (url, server), client(url) as http:
        runner = server.engine  # the bare engine is only driven while no request is under way
        for i in range(60):
            began = time.perf_counter()
            answer = http.post("/v1/chat/completions", json=chat(policy.name, "Say hello.", max_tokens=4, seed=i))
            over.append(time.perf_counter() - began)
            assert answer.status_code == 200 and not runner._works
            began = time.perf_counter()
            policy.add(Request(10**9 + i, root, Sampling(max_tokens=4), i))
            while not policy.step():
                pass
            bare.append(time.perf_counter() - began)
    policy.close()
    p50 = 1000 * (statistics.median(over[10:]) - statistics.median(bare[10:]))
    alone = 1000 * statistics.median(bare[10:])
    return {"added_ms_p50": round(p50, 2), "bare_ms_p50": round(alone, 2), "target": "<= 10", "met": p50 <= 10}


def overload(model: str) -> Figures:
    """R11: 200 clients at once where 32 may run and 64 wait, five times; the server in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "flyweight", "serve", "--model", model, "--quiet", "--port", str(port)]
    process = subprocess.Popen(command)

    def bodies(rush: int) -> list[bytes]:
        """The third client of every four streams."""
        asked = (
            chat(f"{model}@best_of_n:n=4", QUESTIONS[i % 16], max_tokens=24, seed=200 * rush + i, stream=i % 4 == 2)
            for i in range(200)
        )
        return [json.dumps(body).encode() for body in asked]

    try:
        with client(f"http://127.0.0.1:{port}") as http:
            while not answers(http):
                time.sleep(0.05)
            _rush(port, bodies(0))  # the engine takes its memory with the first full batch
            idle, before = _latency(http, model), rss(process.pid)
            rushes = [_rush(port, bodies(rush)) for rush in range(1, 6)]
            grown = rss(process.pid) - before
            time.sleep(5)
            after = _latency(http, model)
    finally:
        process.terminate()
        process.wait()
    answered = [sum(status == 200 for status, _, _ in rush) for rush in rushes]
    refused = [[seconds for status, seconds, told in rush if status == 429 and told] for rush in rushes]
    p99 = [round(1000 * quantile(rush, 0.99), 1) for rush in refused if rush]
    whole = all(yes >= 96 and yes + len(no) == 200 for yes, no in zip(answered, refused, strict=True))
    return {
        "answered": answered,
        "refused_with_retry_after": list(map(len, refused)),
        "refusal_ms_p99": p99,
        "rss_mb": round(grown, 1),
        "latency_before_and_5s_after_ms": [round(1000 * idle, 2), round(1000 * after, 2)],
        "target": "96 or more answered, 200 in all, p99 <= 100 ms, <= 150 MB",
        "met": whole and max(p99) <= 100 and grown <= 150,
    }


def _rush(port: int, bodies: Sequence[bytes]) -> list[tuple[int, float, bool]]:
    """All bodies sent at once, each by a client of its own: statuses, seconds, whether told when to come again.

    Plain sockets in one thread: a client in asyncio takes longer for a refusal than the server does.
    """
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    found: list[tuple[int, float, bool]] = []
    with selectors.DefaultSelector() as waiting:
        for body in bodies:
            connection = socket.create_connection(("127.0.0.1", port))
            waiting.register(connection, selectors.EVENT_READ, (body, []))
        began = time.perf_counter()
        for key in list(waiting.get_map().values()):
            length = f"Content-Length: {len(key.data[0])}\r\nConnection: close\r\n\r\n"
            cast(socket.socket, key.fileobj).sendall(f"{head}{length}".encode() + key.data[0])
        while waiting.get_map():
            for key, _ in waiting.select():
                connection = cast(socket.socket, key.fileobj)
                if part := connection.recv(65536):
                    key.data[1].append(part)
                    continue
                seconds = time.perf_counter() - began
                answer = b"".join(key.data[1])
                found.append((int(answer.split()[1]), seconds, b"retry-after: " in answer.lower()))
                waiting.unregister(connection)
                connection.close()
    return found


def _latency(http: httpx2.Client, model: str) -> float:
    times = []
    for i in range(40):
        began = time.perf_counter()
        http.post("/v1/chat/completions", json=chat(model, "Add 1 and 2.", max_tokens=1, seed=i)).raise_for_status()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def disconnect(model: str) -> Figures:
    """R12: 100 streaming and 100 other clients hang up in the middle of a search."""
    policy = endless(0.002)
    with served(policy, running=256, queued=0, max_tokens=100_000) as (url, server):
        loop = server.engine._loop
        assert loop is not None
        tasks = [len(asyncio.all_tasks(loop))]
        host, port = url.removeprefix("http://").split(":")
        connections = []
        for i in range(200):
            body = json.dumps(chat("toy", "Go on.", stream=i % 2 == 0, seed=i)).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            connection = socket.create_connection((host, int(port)))
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            connections.append(connection)
        while len(server.engine._works) < 200:
            time.sleep(0.01)
        began = time.perf_counter()
        for connection in connections:
            connection.close()
        while server.engine._works or server.desk.running:
            time.sleep(0.001)
        seconds = time.perf_counter() - began
        time.sleep(0.3)
        tasks.append(len(asyncio.all_tasks(loop)))
    return {
        "all_200_gone_ms": round(1000 * seconds),
        "tasks_before_and_after": tasks,
        "target": "<= 500 ms, no task more than before",
        "met": seconds <= 0.5 and tasks[1] <= tasks[0],
    }


def hostile(model: str) -> Figures:
    """S1: bodies that are too large or wrong, one after the other; how late the event loop is meanwhile."""
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    bodies = [
        json.dumps(chat("toy", "x" * 4_000_000)).encode(),
        json.dumps(chat("toy", "x", n=10**9)).encode(),
        json.dumps(chat("toy", "x", tools=[{"type": "function", "function": {"name": "f"}}] * 5000)).encode(),
        json.dumps({"messages": [{"role": "user", "content": "x"}] * 9000, "model": "toy"}).encode(),
        json.dumps(chat("toy", "x", metadata={str(i): i for i in range(100_000)})).encode(),
        json.dumps(chat("toy", "x", stop=["y"] * 100_000)).encode(),
        json.dumps(chat("toy", "x", logit_bias={str(i): 1 for i in range(50_000)})).encode(),
        json.dumps(chat("toy", "x", metadata=deep)).encode(),
        b"[" * 4_000_000,
        b'{"a":' + b"1," * 1_500_000,
        b"\x00" * 4_000_000,
        b'{"model":"toy","temperature":1e999,"messages":[]}',
        json.dumps(chat("toy@" + "(" * 400, "x")).encode(),
        json.dumps(chat("toy", "x", flyweight={"strategy": "mcts", "n": 4096, "branch": 64})).encode(),
    ]
    lags: list[float] = []
    with served(ToyPolicy()) as (url, server), client(url) as http:
        server.service = replace(server.service, context=4096)  # the toy alone has no limit of its own

        async def tick() -> None:
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.005)
                lags.append(time.perf_counter() - began - 0.005)

        loop = server.engine._loop
        assert loop is not None
        ticking = asyncio.run_coroutine_threadsafe(tick(), loop)
        headers = {"Content-Type": "application/json"}
        http.post("/v1/chat/completions", content=b"{}", headers=headers)
        before, times, statuses = rss(), [], set()
        for body in bodies * 10:
            began = time.perf_counter()
            statuses.add(http.post("/v1/chat/completions", content=body, headers=headers).status_code)
            times.append(time.perf_counter() - began)
        grown = rss() - before
        ticking.cancel()
    return {
        "requests": len(times),
        "statuses": sorted(statuses),
        "ms_p50_max": [round(1000 * statistics.median(times), 1), round(1000 * max(times), 1)],
        "loop_lag_ms_max": round(1000 * max(lags), 1),
        "rss_mb": round(grown, 1),
        "target": "4xx, <= 50 ms, lag <= 50 ms, <= 20 MB",
        "met": all(400 <= s < 500 for s in statuses) and max(*times, *lags) <= 0.05 and grown <= 20,
    }


def soak(model: str, seconds: float = 180) -> Figures:
    """R15: 30 short requests a second."""
    statuses: dict[int, int] = {}
    marks: list[tuple[float, float, int]] = []
    with served(ToyPolicy()) as (url, _):
        before = _descriptors()
        with client(url) as http, ThreadPoolExecutor(16) as pool:

            def ask(i: int) -> None:
                body = chat("toy@best_of_n:n=2" if i % 2 else "toy", "Add 1 and 2.", max_tokens=20, stream=i % 3 == 0)
                status = http.post("/v1/chat/completions", json=body).status_code
                statuses[status] = statuses.get(status, 0) + 1

            began = time.perf_counter()
            for i in range(int(30 * seconds)):
                pool.submit(ask, i)
                if i % 300 == 0:
                    marks.append((time.perf_counter() - began, rss(), _descriptors()))
                time.sleep(max(0.0, began + (i + 1) / 30 - time.perf_counter()))
        time.sleep(1)  # both ends of every connection are in this process, and have gone by now
        after = _descriptors()
    warm = [mark for mark in marks if mark[0] > seconds / 3]
    slope = 60 * statistics.linear_regression([t for t, _, _ in warm], [mb for _, mb, _ in warm]).slope
    descriptors = [before, max(count for _, _, count in marks), after]
    return {
        "seconds": seconds,
        "statuses": statuses,
        "rss_mb_per_minute": round(slope, 3),
        "fds_before_most_after": descriptors,
        "target": "< 1 MB/min, descriptors afterwards within 5, no 5xx",
        "met": slope < 1 and after - before <= 5 and max(statuses) < 500,
    }


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def restart(model: str) -> Figures:
    """S11: from start to ready, kill -9 and ready again, SIGTERM with a request under way; in other processes."""
    port = free_port()
    command = [sys.executable, "-m", "flyweight", "serve", "--model", model, "--port", str(port), "--quiet"]
    url = f"http://127.0.0.1:{port}"
    ready, cpu = [], []
    with client(url) as http:
        for end in ("kill", "kill", "drain"):
            began = time.perf_counter()
            process = subprocess.Popen(command)
            while not answers(http):
                time.sleep(0.02)
                assert process.poll() is None and time.perf_counter() - began < 120, "the server did not start"
            ready.append(round(time.perf_counter() - began, 2))
            cpu.append(round(cpu_seconds(process.pid), 2))
            if end == "kill":
                process.kill()
                process.wait()
                continue
            body = chat(f"{model}@best_of_n:n=4", QUESTIONS[0], max_tokens=60)
            with ThreadPoolExecutor(1) as pool:
                under_way = pool.submit(http.post, "/v1/chat/completions", json=body)
                time.sleep(1.0)
                process.send_signal(signal.SIGTERM)
                began = time.perf_counter()
                time.sleep(0.1)
                refused = _status(url, model)
                code = process.wait()
                drained = time.perf_counter() - began
                status = under_way.result().status_code
    return {
        "ready_seconds": ready,
        "of_them_cpu": cpu,
        "drained_seconds": round(drained, 2),
        "exit_code": code,
        "request_under_way": status,
        "new_request_meanwhile": refused,
        "target": "drain <= 10 s, ready <= 3 s",
        "met": drained <= 10 and max(ready) <= 3 and code == 0 and status == 200,
    }


def _status(url: str, model: str) -> int | str:
    try:
        with client(url) as http:
            return http.post("/v1/chat/completions", json=chat(model, "x")).status_code
    except httpx2.HTTPError as error:
        return type(error).__name__


def keep(name: str, found: Figures) -> None:
    """Add figures to the file, and write all of them into docs/security.md."""
    kept = {**(json.loads(OUT.read_text()) if OUT.exists() else {}), name: {**found, "machine": machine()}}
    OUT.write_text(json.dumps(kept, indent=2) + "\n")
    before, mark, rest = PAGE.read_text("utf-8").partition(BEGIN)
    said = ("target", "met", "machine")
    rows = [
        f"| {part} | {', '.join(f'{k}: {_shown(v)}' for k, v in figures.items() if k not in said)} "
        f"| {figures['target'].replace('<', '&lt;')} | {'yes' if figures['met'] else '**no**'} |"
        for part, figures in kept.items()
    ]
    machines = [figures["machine"] for figures in kept.values()]
    table = "\n".join(["| part | measured | target | met |", "|---|---|---|---|", *rows])
    cpus = sorted({f"{on['cpus']} cores of {on['cpu']}, family {on['family']}" for on in machines})
    where = f"Measured on {' and '.join(cpus)}."
    PAGE.write_text(f"{before}{mark}\n{table}\n\n{where}\n{END}{rest.partition(END)[2]}", "utf-8")


def _shown(value: Any) -> str:
    return json.dumps(value).replace('"', "").replace("_", " ")


PARTS: dict[str, Callable[[str], Figures]] = {
    "throughput": throughput,
    "added": added,
    "overload": overload,
    "disconnect": disconnect,
    "hostile": hostile,
    "soak": soak,
    "silence": silence,
    "templates": templates,
    "restart": restart,
}


def main() -> None:
    """Measure and add what was found to results/server.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--model", default=api.DEFAULT_MODEL)
    parser.add_argument("--no-save", action="store_true", help="only print")
    options = parser.parse_args()
    for name in options.parts or PARTS:
        if name not in PARTS:
            parser.error(f"no part {name!r}: choose from {', '.join(PARTS)}")
        print(f"{name}: {(PARTS[name].__doc__ or '').strip()}", flush=True)
        found = PARTS[name](options.model)
        print(json.dumps(found, indent=2), flush=True)
        if not options.no_save:
            keep(name, found)


if __name__ == "__main__":
    main()
