"""How fast is the engine, beside a bare llama.cpp loop and llama.cpp's server, and where do a search's seconds go?

    python -m benchmarks.engine                    # everything, see the minutes of each part
    python -m benchmarks.engine --quick            # a look at every part, under two minutes; nothing is written
    python -m benchmarks.engine --only widths --widths 1,32

widths       tokens/s of generation at 1 to 64 rows, short prompts and 400-token contexts, peak memory (8 minutes)
completions  32 completions of one prompt of 128 tokens each, from the request to the last token (4 minutes)
extras       what confidences and hidden states cost (half a minute)
searches     beam search, DVTS and best-of-n over development questions: tokens, occupancy, seconds (20 minutes;
             --questions and --max-tokens make it shorter)

Rows go to results/engine/engine.json as they are measured: an interrupted run continues, --fresh starts over. The
tables go to docs/performance.md; those of another --model or --weights only to a file of their own. The server needs
`python -m benchmarks.peers.setup`; its columns stay empty without.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from benchmarks import contenders
from benchmarks.contenders import Load
from benchmarks.llama_server import PYTHON
from benchmarks.rig import ROOT, Child, Figures, Results, alternate, machine, publish, spread, table
from flyweight import models

PAGE = ROOT / "docs" / "performance.md"
PARTS = ("widths", "completions", "extras", "searches")
MODEL = "qwen2.5-coder-0.5b"
WIDTHS = (1, 2, 4, 8, 16, 32, 64)
CONTEXTS = (30, 400)
"""Tokens of the prompts; the first is the shortest the chat template allows."""
WIDE = 32


class Plan(NamedTuple):
    """How much is measured."""

    widths: tuple[int, ...] = WIDTHS
    rounds: int = 3
    tokens: int = 320
    """About this many a round, over all rows; 12 to 32 in each."""
    n: int = WIDE
    long: int = 128
    """Tokens of each of the `n` completions."""
    extras: int = 6
    """Rounds of the comparisons with and without."""
    questions: int = 20
    few: int = 8
    more_questions: int = 50
    """Searched with `n` = `few`."""
    max_tokens: int = 256
    max_steps: int = 40
    """Of a tree search."""

    def steps(self, width: int) -> int:
        """Tokens of each row in a round."""
        return min(32, max(12, self.tokens // width))


QUICK = Plan((1, 8), 1, 64, 8, 16, 1, 1, 4, 32, 2)


class Bench(NamedTuple):
    """What all parts need."""

    path: Path
    weights: str
    plan: Plan
    results: Results
    with_server: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS, help="some of the parts")
    parser.add_argument("--quick", action="store_true", help="little of everything, written nowhere")
    parser.add_argument("--widths", type=lambda text: tuple(map(int, text.split(","))), help="such as 1,8,32")
    parser.add_argument("--questions", type=int, help=f"of the tree searches (default {Plan().questions})")
    parser.add_argument("--max-tokens", type=int, help=f"of an answer, in searches (default {Plan().max_tokens})")
    common_options(parser)
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    asked = {name: getattr(arguments, name) for name in ("widths", "questions", "max_tokens")}
    plan = plan._replace(**{name: value for name, value in asked.items() if value is not None})
    path, results = begin("engine", arguments)
    bench = Bench(path, arguments.weights, plan, results, PYTHON.exists())
    if not bench.with_server:
        print("without llama-server: `python -m benchmarks.peers.setup` makes its environment", file=sys.stderr)
    for part, measure in zip(PARTS, (widths, completions, extras, searches), strict=True):
        if part in arguments.only:
            measure(bench)
    end("engine", report(results), arguments)


def common_options(parser: argparse.ArgumentParser) -> None:
    """What every benchmark of the engine can be told."""
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--fresh", action="store_true", help="measure everything anew")


def begin(name: str, arguments: argparse.Namespace) -> tuple[Path, Results]:
    """The model's file, and the results so far: of the default in NAME.json, of others beside it."""
    path = models.resolve(arguments.model)
    file = f"{name}.json" if is_default(arguments) else f"{name}-{path.stem}-{arguments.weights}.json"
    out = ROOT / "results" / "engine" / file
    if arguments.fresh:
        out.unlink(missing_ok=True)
    setting = {**machine(), "model": path.name, "weights": arguments.weights}
    return path, Results(None if arguments.quick else out, setting)


def end(mark: str, text: str, arguments: argparse.Namespace) -> None:
    """Print the tables; those of the default go to the docs."""
    print(text)
    if is_default(arguments) and not arguments.quick and not publish(PAGE, mark, text):
        print(f"{PAGE.name} has no place marked `{mark}`: nothing written there", file=sys.stderr)


def is_default(arguments: argparse.Namespace) -> bool:
    """Whether the docs speak of this model in these weights."""
    return bool(arguments.model == MODEL and arguments.weights == "auto")


def together(
    cast: Mapping[str, tuple[Callable[..., Iterator[Figures]], Sequence[object]]], rounds: int
) -> dict[str, tuple[list[Figures], float]]:
    """Rounds of several generator functions taking turns: the figures and the peak memory of each, in MB."""
    with ExitStack() as stack:
        children = {name: stack.enter_context(Child(function, *args)) for name, (function, args) in cast.items()}
        taken = alternate(children, rounds)
        return {name: (taken[name], child.close()) for name, child in children.items()}


def prepare(path: Path, weights: str, widths: Sequence[int], lengths: Sequence[int]) -> Figures:
    """Prompts of these lengths, and the encodings chosen for these widths."""
    with Child(contenders.prepare, path, weights, widths, lengths) as child:
        return child.next()


# The parts -------------------------------------------------------------------------------------------------------


def widths(bench: Bench) -> None:
    """Rows `widths/ROWS/CONTEXT`: by contender, its rates and its memory."""
    ready = prepare(bench.path, bench.weights, bench.plan.widths, CONTEXTS)
    for prompt in ready["prompts"]:
        for width, encoding in zip(bench.plan.widths, ready["encodings"], strict=True):
            name = f"widths/{width}/{len(prompt['ids'])}"
            bench.results.row(name, partial(_width, bench, width, encoding, prompt))


def _width(bench: Bench, width: int, encoding: Figures, prompt: Figures) -> Figures:
    steps, kind, ids = bench.plan.steps(width), encoding["kind"], prompt["ids"]
    cast: dict[str, tuple[Callable[..., Iterator[Figures]], Sequence[object]]] = {
        "bare": (contenders.bare, (bench.path, kind, ids, width, steps)),
        "engine": (contenders.engine, (bench.path, kind, prompt["text"], len(ids), width, steps, False)),
    }
    if bench.with_server:
        cast["stock"] = (contenders.server, (bench.path, ids, width, steps))
        if kind == "bf16":  # another plain file than the stock one
            cast["same"] = (contenders.server, (Path(encoding["path"]), ids, width, steps))
    taken = together(cast, bench.plan.rounds)
    row: Figures = {"kind": kind}
    for name, (rounds, peak) in taken.items():
        row[name] = {**{key: [figures[key] for figures in rounds] for key in rounds[0]}, "peak_mb": peak}
    return row


def completions(bench: Bench) -> None:
    """Rows `completions/CONTENDER`: seconds and tokens/s of every round."""
    plan = bench.plan
    rounds = min(2, plan.rounds)
    ready = prepare(bench.path, bench.weights, [plan.n], [100 + 10 * i for i in range(rounds)])
    kind = ready["encodings"][0]["kind"]
    contestants = {"engine": "engine", "stock, one request each": "requests", "stock, n_cmpl": "n_cmpl"}

    def measure() -> Figures:
        cast = {
            name: (contenders.completions, (bench.path, who, kind, ready["prompts"], plan.n, plan.long))
            for name, who in contestants.items()
            if who == "engine" or bench.with_server
        }
        taken = together(cast, rounds)
        return {name: {key: [f[key] for f in taken[name][0]] for key in ("seconds", "rate")} for name in taken}

    bench.results.row(f"completions/{plan.n} x {plan.long}", measure)


def extras(bench: Bench) -> None:
    """Row `extras/ROWS`: the engine with and without hidden states, and drawing with and without confidences."""
    width = bench.plan.n
    ready = prepare(bench.path, bench.weights, [width], CONTEXTS[:1])
    (prompt,), (encoding,) = ready["prompts"], ready["encodings"]
    kind, ids, steps = encoding["kind"], prompt["ids"], bench.plan.steps(width)

    def measure() -> Figures:
        taken = together(
            {
                "bare": (contenders.bare, (bench.path, kind, ids, width, steps)),
                "plain": (contenders.engine, (bench.path, kind, prompt["text"], len(ids), width, steps, False)),
                "hidden": (contenders.engine, (bench.path, kind, prompt["text"], len(ids), width, steps, True)),
            },
            bench.plan.extras,
        )
        rates = {name: [figures["rate"] for figures in rounds] for name, (rounds, _) in taken.items()}
        drawing = {name: [f["drawing"] / f["rate"] for f in rounds] for name, (rounds, _) in taken.items()}
        pairs = zip(rates["plain"], drawing["plain"], drawing["bare"], strict=True)
        return {
            "hidden": [1 - with_ / without for with_, without in zip(rates["hidden"], rates["plain"], strict=True)],
            # Seconds a token spent drawing, less those of llama.cpp's samplers, which give no confidences.
            "confidences": [rate * (ours - theirs) for rate, ours, theirs in pairs],
        }

    bench.results.row(f"extras/{width}", measure)


def searches(bench: Bench) -> None:
    """Rows `searches/STRATEGY`: one run each, all questions in flight together."""
    plan = bench.plan
    tree = {"n": plan.n, "width": 4, "max_steps": plan.max_steps}
    loads = {
        f"beam_search n={plan.n} width=4": Load("beam_search", tree, plan.questions, max_tokens=plan.max_tokens),
        f"dvts n={plan.n} width=4": Load("dvts", tree, plan.questions, max_tokens=plan.max_tokens),
    }
    few = {**tree, "n": plan.few}
    loads |= {
        f"{strategy} n={plan.few}": Load(strategy, parameters, plan.more_questions, max_tokens=plan.max_tokens)
        for strategy, parameters in (("beam_search", few), ("dvts", few), ("best_of_n", {"n": plan.few}))
    }
    (encoding,) = prepare(bench.path, bench.weights, [WIDE], ())["encodings"]
    for name, load in loads.items():
        measure = partial(run, bench.path, encoding["kind"], load)
        bench.results.row(f"searches/{name}, {load.questions} questions, {load.max_tokens} tokens", measure)


def run(path: Path, kind: str, load: Load) -> Figures:
    """A search run in a process of its own, with its peak memory."""
    with Child(contenders.search, path, kind, load) as child:
        child.next()
        return {**child.next(), "peak_mb": child.close()}


# The tables ------------------------------------------------------------------------------------------------------


def report(results: Results) -> str:
    """All tables for which there are rows."""
    tables = []
    if rows := results.named("widths/"):
        tables.append(widths_table(rows))
    if rows := results.named("completions/"):
        tables.append(completions_table(rows))
    if rows := results.named("extras/"):
        head = ("engine, rows", "confidences, % of the time", "hidden states, %")
        cells = [(name, share(row["confidences"]), share(row["hidden"])) for name, row in rows.items()]
        tables.append(table(head, cells))
    if rows := results.named("searches/"):
        tables.append(searches_table(rows))
    return "\n\n".join(tables)


def widths_table(rows: Mapping[str, Figures]) -> str:
    """Tokens/s as median (lowest-highest), and peak memory."""
    head = (
        "rows", "context", "weights", "bare loop", "of it drawing, %", "engine", "of bare, %", "inside steps",
        "runner, %", "server, stock file", "server, same weights", "MB: bare", "engine", "server",
    )  # fmt: skip
    lines = []
    for name, row in sorted(rows.items(), key=lambda item: [int(part) for part in reversed(item[0].split("/"))]):
        width, context = name.split("/")
        bare, engine, stock = row["bare"], row["engine"], row.get("stock")
        same = stock if row["kind"] == "file" else row.get("same")
        ratio = statistics.median(engine["rate"]) / statistics.median(bare["rate"])
        lines.append([
            width, context, row["kind"], rate(bare["rate"]), share(bare["drawing"]), rate(engine["rate"]),
            f"{100 * ratio:.0f}", rate(engine["inside"]), share(engine["runner"]),
            rate(stock["rate"]) if stock else "-", rate(same["rate"]) if same else "-",
            f"{bare['peak_mb']:.0f}", f"{engine['peak_mb']:.0f}", f"{stock['peak_mb']:.0f}" if stock else "-",
        ])  # fmt: skip
    return table(head, lines)


def completions_table(rows: Mapping[str, Figures]) -> str:
    """Seconds from the request to the last token; how many times the tokens/s of the stock server."""
    lines = []
    for what, row in rows.items():
        engine = statistics.median(row["engine"]["rate"])
        for name, figures in row.items():
            times = engine / statistics.median(figures["rate"])
            lines.append([what, name, rate(figures["seconds"], 1), rate(figures["rate"]), f"{times:.2f}"])
    return table(("completions x tokens", "by", "seconds", "tokens/s", "engine, times as fast"), lines)


def searches_table(rows: Mapping[str, Figures]) -> str:
    """Tokens by kind, occupancy of the slots, and shares of the wall time."""
    head = (
        "search", "prompt", "cached", "generated", "recomputed", "of generated, %", "occupancy, %", "tokens/s",
        "seconds", "prefill, %", "decode, %", "sampling, %", "Python, %", "of it runner, %", "MB",
    )  # fmt: skip
    lines = []
    for name, row in rows.items():
        shares = [row[part] / row["wall"] for part in ("prefill", "decode", "sampling", "python")]
        lines.append([
            name, *(f"{row[kind]}" for kind in ("prompt", "cached", "generated", "recomputed")),
            f"{100 * row['recomputed'] / row['generated']:.1f}", f"{100 * row['occupancy']:.0f}",
            f"{row['rate']:.0f}", f"{row['wall']:.0f}", *(f"{100 * part:.1f}" for part in shares),
            f"{100 * row['runner']:.1f}", f"{row['peak_mb']:.0f}",
        ])  # fmt: skip
    return table(head, lines)


def rate(values: Sequence[float], digits: int = 0) -> str:
    """Median (lowest-highest)."""
    median, low, high = spread(values)
    if len(values) == 1:
        return f"{median:.{digits}f}"
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def share(values: Sequence[float]) -> str:
    """The same in percent."""
    median, low, high = spread([100 * value for value in values])
    return f"{median:.1f}" if len(values) == 1 else f"{median:.1f} ({low:.1f} to {high:.1f})"


if __name__ == "__main__":
    main()
