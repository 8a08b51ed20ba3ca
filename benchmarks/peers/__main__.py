"""Flyweight beside other systems: same questions, model file, n, width, temperature, limits, verifier and machine.

    python -m benchmarks.peers.setup            # once: the peers' own environment
    python -m benchmarks.peers                  # hours: every row is written to results/peers as it is measured
    python -m benchmarks.peers --only its_hub   # rows whose name contains this

The peers run their published code on llama.cpp's server (stock build of the wheel, prompt caching and continuous
batching on, as many slots as Flyweight has); a fresh server for every row. search-and-learn scores with Flyweight's
arithmetic verifier through its PRM interface, its_hub through its reward model interface; optillm's best-of-n has its
own model judge its samples, and its self-consistency groups whole answers by likeness.

Wall time is that of all questions, from the first request to the last answer, models loaded before. Peers run as
their authors run them (drive.py). Computed, cached and recomputed prompt tokens: account.py; Flyweight's are its
engine's counters, where recomputed means evicted and computed again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.llama_server import PYTHON, LlamaServer, require_environment
from benchmarks.peers.account import Tokens, totals
from benchmarks.peers.recorder import Recorder
from benchmarks.peers.rows import OURS, Row, load, save, table
from benchmarks.peers.setup import SAL
from flyweight import models, tasks
from flyweight.api import Session
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.types import BOXED, Budget, Problem

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "performance.md"
MODEL = "qwen2.5-coder-0.5b"
WIDTH = 4
ONE = f"{OURS}, one at a time"
PLANS = [
    *((system, strategy) for strategy in ("beam_search", "dvts") for system in (OURS, ONE, "search-and-learn")),
    *((system, s) for s in ("self_consistency", "best_of_n") for system in (OURS, ONE, "its_hub", "optillm")),
]
"""What is compared, next to what."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="only rows whose name contains this")
    parser.add_argument("--again", action="store_true", help="measure anew what is on file")
    parser.add_argument("--n", type=int, nargs="+", default=[16, 32])
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--questions", type=int, default=10)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--max-tokens", type=int, default=512, help="of a whole answer")
    parser.add_argument("--context", type=int, default=1024, help="tokens a slot: prompt and answer")
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--limit", type=float, default=900, help="seconds a row may take")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "peers")
    parser.add_argument("--sal", default=os.environ.get("SAL_SOURCE", str(SAL)), help="checkout of search-and-learn")
    options = parser.parse_args()
    require_environment()
    settings = {key: getattr(options, key) for key in ("model", "temperature", "max_tokens", "context", "slots")}
    rows = []
    for n in options.n:
        for system, strategy in PLANS:
            width = options.width if strategy in ("beam_search", "dvts") else 0
            blank = Row(system, strategy, n, width, settings, options.questions, 0, 0, 0, 0, 0, 0, 0)
            row = load(blank, options.out)
            if options.only in blank.name and (row is None or options.again):
                print(f"{blank.name} ...", file=sys.stderr, flush=True)
                row = ours(blank, options) if system in (OURS, ONE) else theirs(blank, options)
                save(row, options.out)
            if row is not None:
                rows.append(row)
    print(table(rows))
    publish(table(rows))


def publish(text: str) -> None:
    """Put the table between the markers of the page, if it has them."""
    page = PAGE.read_text() if PAGE.exists() else ""
    pattern = re.compile("(<!-- peers -->\n).*?(<!-- /peers -->)", re.DOTALL)
    if pattern.search(page):
        PAGE.write_text(pattern.sub(lambda match: f"{match[1]}{text}\n{match[2]}", page))


def ours(row: Row, options: argparse.Namespace) -> Row:
    """Flyweight on its own engine."""
    problems = tasks.load("gsm8k").problems()[: row.questions]
    parameters = {"n": row.n, "temperature": options.temperature}
    if row.width:
        # A step may be as long as the answer may be, as it may for the peers.
        parameters |= {"width": row.width, "step_tokens": options.max_tokens}
    texts: dict[str, str] = {}
    errors = []
    policy = LlamaCpp(models.resolve(options.model), name=options.model, slots=options.slots, context=options.context)
    with Session(policy, max_tokens=options.max_tokens) as session:
        before = session.policy.counters
        began = time.monotonic()
        groups: list[Sequence[Problem]] = [problems] if row.system == OURS else [[problem] for problem in problems]
        for group in groups:
            left = options.limit - (time.monotonic() - began)
            if left <= 0:
                break
            for result in session.run(group, strategy=row.strategy, budget=Budget(seconds=left), **parameters):
                if result.error:
                    errors.append(f"{result.problem.id}: {result.error}")
                else:
                    texts[result.problem.id] = result.text
        seconds = time.monotonic() - began
        after = session.policy.counters
    tokens = Tokens(
        after.prompt_tokens - before.prompt_tokens,
        after.cached_tokens - before.cached_tokens,
        after.recomputed_tokens - before.recomputed_tokens,
        after.generated_tokens - before.generated_tokens,
    )
    return measured(row, problems, texts, errors, seconds, tokens, cut=seconds >= options.limit)


def theirs(row: Row, options: argparse.Namespace) -> Row:
    """A peer in its own environment, on a server of its own."""
    if row.system == "search-and-learn" and not (Path(options.sal) / "src" / "sal").is_dir():
        raise SystemExit(f"no search-and-learn at {options.sal}: run `python -m benchmarks.peers.setup`, or --sal PATH")
    problems = tasks.load("gsm8k").problems()[: row.questions]
    texts: dict[str, str] = {}
    errors = []
    path = models.resolve(options.model)
    with (
        LlamaServer(path, slots=options.slots, context=options.context) as server,
        Recorder(server.url, temperature=options.temperature, slots=options.slots) as recorder,
    ):
        job = {
            "system": row.system, "strategy": row.strategy, "url": recorder.url, "sal": options.sal,
            "questions": [(problem.id, problem.prompt) for problem in problems], "prompt": BOXED, "n": row.n,
            "width": row.width, "temperature": options.temperature, "max_tokens": options.max_tokens,
        }  # fmt: skip
        began = ended = None
        cut = False
        for at, fact in child([PYTHON, "-m", "benchmarks.peers.drive", json.dumps(job)], options.limit):
            if "ready" in fact:
                began = at
            elif "text" in fact:
                texts[str(fact["id"])] = str(fact["text"])
            elif "id" in fact:
                errors.append(f"{fact['id']}: {fact['error']}")
            elif "failed" in fact:
                errors.append(str(fact["failed"]))
            cut = "cut" in fact
            ended = at
        seconds = ended - began if began is not None and ended is not None else 0.0
        tokens = totals(recorder.served(), counter(server, "prompt_tokens"), counter(server, "tokens_predicted"))
    row = replace(row, build=server.system_info.strip(" |"))
    return measured(row, problems, texts, errors, seconds, tokens, cut=cut)


def child(command: Sequence[str | Path], limit: float) -> Iterator[tuple[float, dict[str, object]]]:
    """What drive.py says, with the time; ended `limit` seconds after it was ready. A crash becomes {"failed"}."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        said: list[str] = []
        listener = threading.Thread(target=said.extend, args=(process.stderr,))
        listener.start()
        cut = threading.Event()

        def end() -> None:
            cut.set()
            process.kill()

        timer = threading.Timer(limit, end)
        timer.start()
        done = False
        try:
            for line in process.stdout:
                fact = json.loads(line) if line.startswith("{") else {}
                if "ready" in fact:
                    timer.cancel()
                    timer = threading.Timer(limit, end)
                    timer.start()
                done = done or "done" in fact
                yield time.monotonic(), fact
            code = process.wait()
        finally:
            timer.cancel()
            process.kill()
            listener.join()
        if not done:
            last = said[-1].strip() if said else f"exit code {code}"
            yield time.monotonic(), {"cut": True} if cut.is_set() else {"failed": last}


def counter(server: LlamaServer, name: str) -> int:
    """One of the server's totals, as of the last finished request."""
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        found = re.search(rf"^llamacpp:{name}_total (\d+)", response.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def measured(
    row: Row, problems: Sequence[Problem], texts: dict[str, str], errors: list[str], seconds: float, tokens: Tokens,
    *, cut: bool,
) -> Row:  # fmt: skip
    """The row with its numbers, graded."""
    task = tasks.load("gsm8k")
    right = sum(task.grade(p, texts[p.id]).value == "correct" for p in problems if p.id in texts)
    return replace(
        row, answered=len(texts), right=right, seconds=round(seconds, 2), computed=tokens.computed,
        cached=tokens.cached, recomputed=tokens.recomputed, generated=tokens.generated, cut=cut, errors=tuple(errors),
    )  # fmt: skip


if __name__ == "__main__":
    main()
