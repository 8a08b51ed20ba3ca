"""What is measured against what: generator functions for `rig.Child`, each one way to generate tokens.

`bare` is llama.cpp's C API and nothing else, `engine` the engine under the runner, `server` llama.cpp's HTTP server.
All three draw from the same prompt, which is computed before the clock starts.
"""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp as llama

from benchmarks.llama_server import LlamaServer
from benchmarks.rig import Figures
from flyweight import strategies, tasks, verifiers
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.policies.llamacpp.context import Batch, Context, Model
from flyweight.policies.llamacpp.machine import default_threads
from flyweight.policies.llamacpp.tokens import Tokens
from flyweight.policies.llamacpp.weights import encoded
from flyweight.protocols import Response, Search
from flyweight.runner import Runner
from flyweight.strategies import Value
from flyweight.tasks import files, gsm8k
from flyweight.types import Message, Problem, Sampling

__all__ = ["Load", "Step", "Window", "bare", "completions", "engine", "prepare", "room", "search", "server", "window"]

ASK = "Write twenty long word problems, each with its solution."
"""Nobody is done with this before the clock stops: an answer that ends would leave a row empty."""
TIMEOUT = 600


def room(prompt: int, steps: int) -> int:
    """Context for a prompt and `steps` tokens after it: a multiple of 256, as llama.cpp would round it."""
    return -(-(prompt + steps + 2) // 256) * 256


def prepare(path: Path, weights: str, widths: Sequence[int], lengths: Sequence[int]) -> Iterator[Figures]:
    """Prompts of about the given numbers of tokens, and the encoding that `weights` means at each width."""
    model = Model(path)
    tokens = Tokens(model, "")
    words = "\n\n".join(f"{row['question']}\n{row['solution']}" for row in files.bundled(gsm8k.DEV)).split(" ")
    prompts = []
    for length in lengths:
        low, high = 0, len(words)
        while low < high:  # the most words that fit
            middle = (low + high + 1) // 2
            fits = len(tokens.prompt(_user(_prompt(words[:middle])))) <= length
            low, high = (middle, high) if fits else (low, middle - 1)
        text = _prompt(words[:low])
        prompts.append({"text": text, "ids": list(tokens.prompt(_user(text)))})
    model.close()
    threads = default_threads()
    kinds = [encoded(path, weights, slots=width, threads=threads, cache_dir=None) for width in widths]
    yield {"prompts": prompts, "encodings": [{"kind": kind.kind, "path": str(kind.path)} for kind in kinds]}


def _prompt(words: Sequence[str]) -> str:
    return "\n\n".join(filter(None, [" ".join(words), ASK]))


def _user(text: str) -> tuple[Message, ...]:
    return (Message("user", text),)


# The bare loop ---------------------------------------------------------------------------------------------------


def bare(path: Path, weights: str, ids: Sequence[int], width: int, steps: int) -> Iterator[Figures]:
    """Rounds of `llama_decode` over `width` rows and llama.cpp's own samplers: no bookkeeping, no texts, no ends."""
    threads = default_threads()
    form = encoded(path, weights, slots=width, threads=threads, cache_dir=None)
    model = Model(form.path, packed=form.kind == "packed")
    context = Context(
        model, streams=width, length=room(len(ids), steps), threads=threads, kv_type="f16", flash_attention=True
    )
    last = len(ids) - 1
    for begin in range(0, last, 512):
        part = range(begin, min(begin + 512, last))
        context.decode(ids[part.start : part.stop], part, [0] * len(part), outputs=False, hidden=False)
    memory = llama.llama_get_memory(context.pointer)
    for row in range(1, width):
        llama.llama_memory_seq_cp(memory, 0, row, -1, -1)
    batch = Batch(width)
    batch.streams[:] = range(width)
    batch.wanted[:] = 1
    batch.struct.n_tokens = width
    chains = list(enumerate(_chain(seed) for seed in range(width)))

    def generate(steps: int) -> Figures:
        for row in range(width):
            context.truncate(row, last)
        batch.tokens[:] = ids[last]
        decoding = 0.0
        started = time.perf_counter()
        for position in range(last, last + steps):
            batch.positions[:] = position
            begun = time.perf_counter()
            if llama.llama_decode(context.pointer, batch.struct) != 0:
                raise SystemExit("llama_decode failed")
            llama.llama_synchronize(context.pointer)
            decoding += time.perf_counter() - begun
            batch.tokens[:] = [llama.llama_sampler_sample(chain, context.pointer, row) for row, chain in chains]
        seconds = time.perf_counter() - started
        return {"rate": width * steps / seconds, "drawing": 1 - decoding / seconds}

    generate(2)
    yield {}
    while True:
        yield generate(steps)


def _chain(seed: int) -> Any:
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    for sampler in (
        llama.llama_sampler_init_top_k(40),
        llama.llama_sampler_init_temp(0.7),
        llama.llama_sampler_init_dist(seed),
    ):
        llama.llama_sampler_chain_add(chain, sampler)
    return chain


# The engine ------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """One step of the engine, seconds of a clock."""

    began: float
    ended: float
    generated: int
    prefilled: int
    """Prompt tokens, computed or copied."""


class Window(NamedTuple):
    """The part of a run in which every row drew a token in every step."""

    tokens: int
    inside: float
    """Seconds in the engine's steps."""
    wall: float
    """Seconds in all, from the end of the step before."""


def window(steps: Sequence[Step], width: int) -> Window:
    """The full steps of a run, without those that also prefilled; SystemExit if there are fewer than two steps."""
    full = [i for i, step in enumerate(steps) if i > 0 and step.generated == width and not step.prefilled]
    if not full:
        raise SystemExit(f"no step in which all {width} rows drew a token")
    part = steps[full[0] : full[-1] + 1]
    inside = sum(step.ended - step.began for step in part)
    return Window(sum(step.generated for step in part), inside, part[-1].ended - steps[full[0] - 1].ended)


class Watched(LlamaCpp):
    """The engine with a stopwatch on every step."""

    def __init__(self, path: Path, *, weights: str, slots: int, context: int) -> None:
        super().__init__(path, weights=weights, slots=slots, context=context)
        self.watched: list[Step] = []

    def step(self) -> list[Response]:
        before, began = self.counters, time.perf_counter()
        finished = super().step()
        ended, after = time.perf_counter(), self.counters
        prompt = after.prompt_tokens + after.cached_tokens - before.prompt_tokens - before.cached_tokens
        self.watched.append(Step(began, ended, after.generated_tokens - before.generated_tokens, prompt))
        return finished


async def samples(search: Search, *, n: int) -> None:
    """`n` completions, and no more."""
    await search.complete([search.root], n)


def engine(path: Path, weights: str, text: str, length: int, width: int, steps: int, hidden: bool) -> Iterator[Figures]:
    """Rounds of one problem with `width` samples under the runner: tokens/s in all, and within the engine's steps."""
    policy = Watched(path, weights=weights, slots=width, context=room(length, steps))
    seeds = iter(range(1 << 30))

    def generate(steps: int) -> Figures:
        policy.watched.clear()
        before = policy.profile
        runner = Runner(
            policy,
            answers=tasks.load("gsm8k"),
            sampling=Sampling(max_tokens=steps + 1),
            seed=next(seeds),
            hidden=hidden,
        )
        result = runner.solve(Problem("prompt", text), lambda search: samples(search, n=width))
        if result.error is not None:
            raise SystemExit(result.error)
        tokens, inside, wall = window(policy.watched, width)
        after = policy.profile
        drawing = (after.sampling_seconds - before.sampling_seconds) / (after.step_seconds - before.step_seconds)
        return {"rate": tokens / wall, "inside": tokens / inside, "runner": 1 - inside / wall, "drawing": drawing}

    generate(2)
    yield {}
    while True:
        yield generate(steps)


# The server ------------------------------------------------------------------------------------------------------


def server(path: Path, ids: Sequence[int], width: int, steps: int) -> Iterator[Figures]:
    """Rounds of `width` requests to as many slots, by the server's own clocks, which leave out the prompt."""
    _as_it_comes()
    with LlamaServer(path, slots=width, context=room(len(ids), steps)) as running, ThreadPoolExecutor(width) as pool:
        body = {"prompt": ids, "ignore_eos": True, "cache_prompt": True}
        _post(running, {**body, "n_predict": 1, "n_cmpl": width})  # one prefill serves all slots
        yield {}
        while True:
            bodies = [{**body, "n_predict": steps + 1, "seed": seed} for seed in range(width)]
            replies = list(pool.map(lambda body: _post(running, body), bodies))
            # The clock of a slot starts with its first token.
            rates = [1e3 * (r["timings"]["predicted_n"] - 1) / r["timings"]["predicted_ms"] for r in replies]
            yield {"rate": sum(rates)}


def _as_it_comes() -> None:
    """Keep from the server what importing the engine has set for this process."""
    os.environ.pop("GOMP_SPINCOUNT", None)


def _post(running: LlamaServer, body: Mapping[str, object]) -> Any:
    request = urllib.request.Request(
        f"{running.url}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        return json.load(response)


# From a prompt to all its completions ----------------------------------------------------------------------------


def completions(
    path: Path, who: str, weights: str, prompts: Sequence[Figures], n: int, tokens: int
) -> Iterator[Figures]:
    """Rounds of a new prompt each, `n` completions of `tokens` tokens, in seconds by our own clock.

    `who` is "engine", "requests" (to the server, one for each completion) or "n_cmpl" (one request for all).
    """
    context = room(max(len(prompt["ids"]) for prompt in prompts), tokens)
    if who == "engine":
        policy = LlamaCpp(path, weights=weights, slots=n, context=context)
        runner = Runner(policy, answers=tasks.load("gsm8k"), sampling=Sampling(max_tokens=tokens))
        yield {}
        for prompt in prompts:
            before, started = policy.counters.generated_tokens, time.perf_counter()
            runner.solve(Problem("prompt", prompt["text"]), lambda search: samples(search, n=n))
            seconds = time.perf_counter() - started
            yield {"seconds": seconds, "rate": (policy.counters.generated_tokens - before) / seconds}
        return
    _as_it_comes()
    with LlamaServer(path, slots=n, context=context) as running, ThreadPoolExecutor(n) as pool:
        yield {}
        for prompt in prompts:
            body = {"prompt": prompt["ids"], "n_predict": tokens, "ignore_eos": True}
            bodies = [{**body, "n_cmpl": n}] if who == "n_cmpl" else [{**body, "seed": seed} for seed in range(n)]
            started = time.perf_counter()
            list(pool.map(lambda body: _post(running, body), bodies))
            seconds = time.perf_counter() - started
            yield {"seconds": seconds, "rate": n * tokens / seconds}


# Whole searches --------------------------------------------------------------------------------------------------


class Load(NamedTuple):
    """Searches over development questions, and the engine they run on."""

    strategy: str
    parameters: Mapping[str, Value]
    questions: int
    in_flight: int = 64
    max_tokens: int = 512
    slots: int = 32
    context: int = 1024
    parked_mb: int = 288
    """The engine's default."""


def search(path: Path, weights: str, load: Load) -> Iterator[Figures]:
    """One run: tokens by kind, occupancy of the rows, and where the seconds went."""
    policy = LlamaCpp(path, weights=weights, slots=load.slots, context=load.context, parked_mb=load.parked_mb)
    task = tasks.load("gsm8k")
    judges = {"arithmetic": verifiers.load("arithmetic")}
    runner = Runner(policy, judges, answers=task, sampling=Sampling(max_tokens=load.max_tokens))
    yield {}
    strategy = strategies.bind(load.strategy, load.parameters)
    started = time.perf_counter()
    for result in runner.run(task.problems()[: load.questions], strategy, in_flight=load.in_flight):
        if result.error is not None:
            raise SystemExit(f"{load.strategy}, {result.problem.id}: {result.error}")
    wall = time.perf_counter() - started
    spent, profile = policy.counters, policy.profile
    yield {
        "prompt": spent.prompt_tokens,
        "cached": spent.cached_tokens,
        "generated": spent.generated_tokens,
        "recomputed": spent.recomputed_tokens,
        "occupancy": profile.row_steps / max(1, load.slots * profile.steps),
        "wall": wall,
        "prefill": profile.prefill_seconds,
        "decode": profile.decode_seconds,
        "sampling": profile.sampling_seconds,
        "python": wall - profile.prefill_seconds - profile.decode_seconds - profile.sampling_seconds,
        "runner": 1 - profile.step_seconds / wall,
        "rate": spent.generated_tokens / wall,
    }
