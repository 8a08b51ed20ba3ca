"""Would drafting by lookup pay? Tokens a verification step would have yielded, counted on recorded samples.

    python -m benchmarks.drafting                               # 20 seconds; of the model only its vocabulary
    python -m benchmarks.drafting --rates 1:60,8:140,32:231     # tokens/s of plain generation by rows
    python -m benchmarks.drafting --measure                     # two minutes more: the engine with drafts and without

A step looks the last k tokens up in what is known already, proposes the up to d tokens that followed there, and
computes them as further rows beside the row it would have computed anyway. A proposed token is kept while it equals the
token drawn at its place, so a step yields the tokens kept and the one drawn after them. The draws do not depend on the
proposals; counting on recorded samples is therefore exact, not an estimate. Looked up is the latest occurrence in

own       the prompt and the sample's own text
earlier   the samples of the same question drawn before, as if complete
abreast   the prompt and all 16 samples of the question, as far as each is when all are drawn together

The end of an answer is a token like others. Samples: 60 questions x 16 of Qwen2.5-Coder-0.5B at temperature 0.7
(results/dev60). The speed-up is predicted from plain generation: a step of R rows takes R / tokens/s(R) seconds,
straight lines between the measured row counts and beyond them; `mean` rows a step, and at `worst` all 1 + d.
Tokens/s come from results/engine/engine.json (`python -m benchmarks.engine --only widths`), its longest context,
or constants as long as it is missing. The result goes to results/engine/drafting.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.cassette import Cassette, Recorded
from benchmarks.default_strategy import MAX_TOKENS, QUESTIONS, RECORDINGS, SMALL
from benchmarks.rig import ROOT, table
from flyweight import models, strategies, tasks
from flyweight.runner import Runner
from flyweight.types import Finish, Sampling

MEASURED = ROOT / "results" / "engine" / "engine.json"
OUT = ROOT / "results" / "engine" / "drafting.json"
SOURCES = ("own", "earlier", "abreast")
GRAMS = (1, 2, 3)
DRAFTS = (2, 4, 8)
WIDTHS = (1, 2, 4, 8, 16, 32)
SAMPLES = 16
MEASURED_QUESTIONS = 10
RATES = {1: 60.0, 8: 140.0, 32: 231.0}
"""Tokens/s by rows before the engine had kernels of its own; only used without engine.json."""

Tokens = Sequence[int]
Table = dict[tuple[int, ...], tuple[list[int], int]]
"""The last k tokens, and where they were followed by something: a growing text and a position in it."""


class Count(NamedTuple):
    """What the steps of some samples added up to."""

    steps: int = 0
    tokens: int = 0
    """Drawn; without drafts there would be as many steps."""
    proposed: int = 0
    kept: int = 0

    def plus(self, other: Count) -> Count:
        return Count(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def yielded(self) -> float:
        """Tokens a step."""
        return self.tokens / self.steps

    @property
    def rows(self) -> float:
        """Rows a step, 1 + the tokens proposed."""
        return 1 + self.proposed / self.steps


class Question(NamedTuple):
    prompt: Tokens
    samples: list[Tokens]
    """In the order drawn, each with the token that ended it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=_rates, help="ROWS:TOKENS_PER_SECOND,... instead of engine.json")
    parser.add_argument("--measure", action="store_true", help="also run the engine with drafts and without")
    arguments = parser.parse_args()
    speeds, origin = measured(MEASURED) if arguments.rates is None else (arguments.rates, "--rates")
    recorded = questions()
    counts = {(source, k, d): count(recorded, source, k, d) for source in SOURCES for k in GRAMS for d in DRAFTS}
    print(report(counts, speeds))
    given = ", ".join(f"{rows}: {rate:.0f}" for rows, rate in speeds.items())
    print(f"\nTokens/s of plain generation by rows, from {origin}: {given}")
    rows = []
    for (source, k, d), c in counts.items():
        row = {"source": source, "k": k, "d": d, **c._asdict()}
        for name, wide in (("speedup", c.rows), ("speedup_worst", 1.0 + d)):
            row[name] = {str(w): round(speedup(c.yielded, wide, w, speeds), 3) for w in widths(source)}
        rows.append(row)
    result: dict[str, object] = {"rates": speeds, "rates_from": origin, "rows": rows}
    if arguments.measure:
        result["measured"] = taken = measure()
        print("\n" + table(list(taken[0]), [[str(value) for value in row.values()] for row in taken]))
    elif OUT.exists() and "measured" in (before := json.loads(OUT.read_text())):
        result["measured"] = before["measured"]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n")


def questions() -> list[Question]:
    """The recorded samples as token ids."""
    from flyweight.policies.llamacpp.context import Model
    from flyweight.policies.llamacpp.tokens import Tokens as Tokenizer

    model = Model(models.resolve(SMALL))
    tokenizer = Tokenizer(model, SMALL)
    task = tasks.load("gsm8k")
    policy = Recorded(SMALL, 0, Cassette(RECORDINGS / f"{SMALL}-pool.jsonl.xz"))
    runner = Runner(policy, answers=task, sampling=Sampling(max_tokens=MAX_TOKENS))
    found = []
    for result in runner.run(task.problems()[:QUESTIONS], strategies.bind("self_consistency", {"n": SAMPLES})):
        nodes = sorted((candidate.node for candidate in result.candidates), key=lambda node: node.draw)
        if result.error is not None or len(nodes) != SAMPLES:
            raise SystemExit(f"{result.problem.id}: {result.error or f'{len(nodes)} samples'}")
        ends = [(model.eos,) if node.finish is Finish.END else () for node in nodes]
        texts: list[Tokens] = [(*(node.tokens or ()), *end) for node, end in zip(nodes, ends, strict=True)]
        found.append(Question(tokenizer.prompt(nodes[0].root.messages), texts))
    model.close()
    return found


# Counting --------------------------------------------------------------------------------------------------------


def count(recorded: Sequence[Question], source: str, k: int, d: int) -> Count:
    total = Count()
    for question in recorded:
        total = total.plus(walk(question, source, k, d))
    return total


def walk(question: Question, source: str, k: int, d: int) -> Count:
    """Draw all samples of a question again, with drafts of up to `d` tokens that follow the last `k`."""
    total = Count()
    table: Table = {}
    start = len(question.prompt)
    rows = [(list(question.prompt), sample) for sample in question.samples]
    for wave in [rows] if source == "abreast" else [[row] for row in rows]:
        if source == "own":
            table = {}
        if source != "earlier":
            learn(table, wave[0][0], k, k)
        going = wave
        while going:
            # All drafts first: no row may see what another draws in the same step.
            drafts = [draft(table, known, k, d) for known, _ in going]
            for (known, sample), proposed in zip(going, drafts, strict=True):
                length = len(known)
                coming = sample[length - start :]
                kept = agreeing(proposed, coming)
                known += coming[: kept + 1]  # nothing is drawn after the end
                total = total.plus(Count(1, len(known) - length, len(proposed), kept))
                if source != "earlier":
                    learn(table, known, length, k)
            going = [(known, sample) for known, sample in going if len(known) < start + len(sample)]
        if source == "earlier":
            learn(table, wave[0][0], start, k)
    return total


def learn(table: Table, known: list[int], begin: int, k: int) -> None:
    """Enter what was followed by the tokens from `begin` on."""
    for position in range(max(begin, k), len(known)):
        table[tuple(known[position - k : position])] = known, position


def draft(table: Table, known: list[int], k: int, d: int) -> list[int]:
    """Up to `d` tokens that followed the last `k` when they were last seen."""
    if tuple(known[-k:]) not in table:
        return []
    text, position = table[tuple(known[-k:])]
    return text[position : position + d]


def agreeing(proposed: Tokens, coming: Tokens) -> int:
    """How many tokens both begin with."""
    pairs = enumerate(zip(proposed, coming, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(proposed), len(coming)))


# Measuring -------------------------------------------------------------------------------------------------------


def measure() -> list[dict[str, object]]:
    """The engine on MEASURED_QUESTIONS questions one at a time: tokens/s of one and of two rows, drafts on and off."""
    from flyweight.policies.llamacpp import LlamaCpp

    task = tasks.load("gsm8k")
    path = models.resolve(SMALL)
    engines = {on: LlamaCpp(path, slots=4, context=1024, weights="packed", drafting=on) for on in (False, True)}
    found: list[dict[str, object]] = []
    for rows, strategy, parameters in (
        (1, "greedy", {}),
        (1, "self_consistency", {"n": 1}),
        (2, "self_consistency", {"n": 2}),
    ):
        spent = {on: [0.0, 0.0] for on in engines}
        texts: dict[bool, list[str]] = {on: [] for on in engines}
        for number, problem in enumerate(task.problems()[:MEASURED_QUESTIONS]):
            for on in (False, True) if number % 2 else (True, False):
                runner = Runner(engines[on], answers=task, sampling=Sampling(max_tokens=MAX_TOKENS))
                began = time.perf_counter()
                result = runner.solve(problem, strategies.bind(strategy, parameters))
                spent[on][0] += result.usage.generated_tokens
                spent[on][1] += time.perf_counter() - began
                texts[on] += [candidate.node.solution for candidate in result.candidates]
        if texts[True] != texts[False]:
            raise SystemExit("a text depends on the drafts")
        plain, drafted = (tokens / seconds for tokens, seconds in (spent[False], spent[True]))
        row = {"rows": rows, "drawn by": strategy, "tokens": int(spent[True][0])}
        found.append(row | {"tokens/s": round(plain), "with drafts": round(drafted), "x": round(drafted / plain, 2)})
    for engine in engines.values():
        engine.close()
    return found


# Predicting ------------------------------------------------------------------------------------------------------


def seconds(rows: float, rates: Mapping[int, float]) -> float:
    """Of a step with so many rows, from tokens/s by rows."""
    points = sorted((float(r), r / rate) for r, rate in rates.items())
    pairs = list(pairwise(points))
    (x0, y0), (x1, y1) = pairs[min(max(bisect_left(points, (rows,)) - 1, 0), len(pairs) - 1)]
    return y0 + (rows - x0) * (y1 - y0) / (x1 - x0)


def speedup(yielded: float, rows: float, width: int, rates: Mapping[int, float]) -> float:
    """Tokens/s with drafts by tokens/s without, `width` samples together."""
    return yielded * seconds(width, rates) / seconds(width * rows, rates)


def measured(path: Path) -> tuple[dict[int, float], str]:
    """Median tokens/s of the engine by rows, at the longest context of the file, and where they come from."""
    rows = json.loads(path.read_text())["rows"] if path.exists() else {}
    names = sorted(tuple(map(int, name.split("/")[1:])) for name in rows if name.startswith("widths/"))
    longest = max((context for _, context in names), default=0)
    found = {
        width: statistics.median(rows[f"widths/{width}/{context}"]["engine"]["rate"])
        for width, context in names
        if context == longest
    }
    return (found, path.name) if len(found) > 1 else (RATES, "RATES")


def widths(source: str) -> list[int]:
    """Where a source can be had: 16 samples abreast need 16 rows."""
    return [width for width in WIDTHS if source != "abreast" or width >= SAMPLES]


def report(counts: Mapping[tuple[str, int, int], Count], rates: Mapping[int, float]) -> str:
    head = ["looked up in", "k", "d", "kept, %", "tokens a step", "rows a step"]
    lines = [[*head, *(f"{w} wide: mean (worst)" for w in WIDTHS)], ["---"] * (len(head) + len(WIDTHS))]
    for (source, k, d), c in counts.items():
        kept = f"{100 * c.kept / c.proposed:.0f}" if c.proposed else "-"
        lines.append([source, str(k), str(d), kept, f"{c.yielded:.2f}", f"{c.rows:.2f}"])
        for w in WIDTHS:
            mean, worst = (speedup(c.yielded, rows, w, rates) for rows in (c.rows, 1 + d))
            lines[-1].append(f"{mean:.2f} ({worst:.2f})" if w in widths(source) else "-")
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _rates(text: str) -> dict[int, float]:
    return {int(rows): float(rate) for rows, rate in (pair.split(":") for pair in text.split(","))}


if __name__ == "__main__":
    main()
