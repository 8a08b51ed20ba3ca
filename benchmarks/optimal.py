"""Compute-optimal scaling: what `auto` saves and gains on test questions, from recorded samples.

    python -m benchmarks.optimal           # docs/compute-optimal.md from results/optimal: no model, two minutes
    python -m benchmarks.optimal --draw    # score the most likely answers first: results/pools lacks them; five minutes

Samples, grades and scores are those of results/pools and results/verifiers; the calibration is the one that comes with
the package, fitted on other questions (`flyweight calibrate`). Targets, margin and bands were fixed beforehand, in
docs/protocol-headline.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import picture
from benchmarks.optimal_counts import Curve, automatic, fixed, growing, oracle, ordered, ratio, reached
from benchmarks.optimal_headline import front, headline
from benchmarks.results import POOLS, SMALL, show
from benchmarks.rig import ROOT, publish, table
from flyweight import bench, models, stats
from flyweight.bench import Plan
from flyweight.optimal import calibration, fit
from flyweight.optimal.calibration import Calibration
from flyweight.optimal.difficulty import BANDS, band, spearman
from flyweight.optimal.pools import Question, Sample
from flyweight.optimal.record import GREEDY
from flyweight.optimal.recorded import questions
from flyweight.report.words import between, difference, share
from flyweight.store import Store
from flyweight.strategies import compose

FOLDER = ROOT / "results" / "optimal"
SCORES = ROOT / "results" / "verifiers"
PAGE = ROOT / "docs" / "compute-optimal.md"
FIGURE = "compute-optimal.svg"
VERIFIER = "self"
TEMPERATURE = 0.7
ORDERS = 32
MARGIN = 0.05
COLOURS = {"auto": "#d4554d", "majority": "#3b82c8", "best of n": "#c9771e", "weighted best of n": "#2f9e62"}


class Part(NamedTuple):
    """Test questions with recorded samples."""

    name: str
    plan: Plan
    n: int
    targets: tuple[float, ...]


PARTS = (
    Part("gsm8k", Plan("gsm8k", split="test", limit="150", model=SMALL), 16, (0.34, 0.38, 0.42)),
    Part("math500", Plan("math500", limit="60", by="level", max_tokens=1024, model=SMALL), 8, (0.07, 0.09, 0.11)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draw", action="store_true", help="run the model for what is not on record")
    parser.add_argument("--runs", type=Path, default=Path("runs/optimal-test"), help="folder of the stores")
    arguments = parser.parse_args()
    if arguments.draw:
        for part in PARTS:
            keep(part, arguments.runs)
    found = calibration.find(calibration.shipped(), models.catalog()[SMALL].sha256, "maths")
    PAGE.write_text(written(found), "utf-8")
    publish(ROOT / "README.md", "headline", front())


# What is on record ---------------------------------------------------------------------------------------------------


def keep(part: Part, folder: Path) -> None:
    """Write down what the samples of a part are, with the score of every one."""
    path = folder / part.name / "flyweight.db"
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    plans = [
        replace(part.plan, strategy=GREEDY, verifier=VERIFIER),
        replace(part.plan, strategy="self_consistency", parameters={"n": part.n}),
    ]
    with Store(path) as store:
        if new:
            store.load(POOLS / f"{part.name}.jsonl.xz")
        runs = {each.run for each in bench.execute(store, plans, on_progress=show, in_flight=8)}
        print()
        [job] = bench.check(plans[:1])
        found = questions(store, [info for info in store.runs() if info.id in runs], job.task)
    with gzip.open(SCORES / f"{part.name}.json.gz", "rt", encoding="utf-8") as file:
        scores = {id: row["scores"][VERIFIER] for id, row in json.load(file)["questions"].items()}
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows = [packed(each, scores[each.id]) for each in found]
    text = json.dumps({"task": part.name, "temperature": TEMPERATURE, "questions": rows}, separators=(",", ":"))
    with (FOLDER / f"{part.name}.json.gz").open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write(text.encode())


def packed(question: Question, scores: Sequence[float | None]) -> dict[str, Any]:
    """A question with its samples, scored by what is on record of them."""
    pool = question.pools[TEMPERATURE]
    assert question.greedy is not None and len(scores) == len(pool)
    rows = [(*each[:4], score) for each, score in zip(pool, scores, strict=True)]
    return {
        "id": question.id,
        "prompt": question.prompt,
        "greedy": [*question.greedy[:4], question.greedy.scores.get(VERIFIER)],
        "pool": rows,
    }


def recorded(part: Part) -> list[Question]:
    """The questions of a part. SystemExit where they were not kept."""
    path = FOLDER / f"{part.name}.json.gz"
    if not path.exists():
        raise SystemExit(f"{path.relative_to(ROOT)} is missing: run with --draw")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = json.load(file)["questions"]
    return [
        Question(row["id"], row["prompt"], sample(row["greedy"]), {TEMPERATURE: tuple(map(sample, row["pool"]))})
        for row in rows
    ]


def sample(row: Sequence[Any]) -> Sample:
    """A sample as `packed` wrote it."""
    group, right, logprob, tokens, score = row
    return Sample(group, bool(right), logprob, tokens, {} if score is None else {VERIFIER: score})


# The page ------------------------------------------------------------------------------------------------------------


class Played(NamedTuple):
    """A part, played in every way."""

    part: Part
    questions: Sequence[Question]
    auto: Curve
    others: Sequence[Curve]


def written(found: Calibration | None) -> str:
    """The whole page; without a calibration what it is about."""
    if found is None:
        return "\n".join([introduction(), f"No calibration of {SMALL} on maths comes with the package.\n", headline()])
    rows = [row for row in found.rows if row.temperature == TEMPERATURE and playable(row)]
    if not rows:
        raise SystemExit("the calibration draws in ways that results/pools has not recorded")
    played = []
    for part in PARTS:
        held = recorded(part)
        auto = automatic(rows, held, ORDERS, VERIFIER)
        played.append(Played(part, held, auto, growing(held, TEMPERATURE, ORDERS, VERIFIER)))
    draw(played)
    pieces = [introduction(), headline(), fitted(), f"![Accuracy against tokens by difficulty]({FIGURE})\n"]
    for each in played:
        pieces += [f"## {each.part.name}: {len(each.questions)} test questions\n", saved(each), by_band(each)]
        pieces += [inferior(each, rows), told(each, rows)]
    return "\n".join(pieces)


def playable(row: calibration.Row) -> bool:
    """Whether every cell chooses among samples: trees cannot be read off a pool."""
    names = {compose.spelled(cell.strategy)[0] for cell in (*row.cells, row.fixed)}
    return names <= {"greedy", "sample", "self_consistency", "best_of_n", "weighted_best_of_n"}


def introduction() -> str:
    return f"""# Compute-optimal scaling

Made by `python -m benchmarks.optimal` from committed recordings; no model is needed. What `auto` does:

1. **Difficulty.** A few samples, the probe, are drawn; how far they agree, what the verifier says, how sure the model
   was and how long they and the question are become an estimate of pass@1 by a logistic regression
   (`optimal/difficulty.py`). Oracle difficulty, for the tables below, is pass@1 of all recorded samples: in Liu's bands
   (hard below 10 %, medium below 50 %, easy) or Snell's quintiles.
2. **Fit.** `flyweight calibrate` records samples and searches of calibration questions once, plays every strategy with
   every parameter on them, and takes the best per difficulty and budget, by cross-validation; all of that is repeated
   without each fifth of the questions, and measured there (`optimal/fit.py`).
3. **Control.** `auto` looks up what was best for such a question at such a budget, and runs it on the probe's samples:
   none is drawn twice. It stops as soon as its answer is sure enough and goes on, if asked for, when it is not
   (`optimal/controller.py`).

    flyweight solve "What is 12 * 17 - 4?"                          # auto, by the calibration that comes along
    flyweight solve "..." --quality fast                            # or balanced, max: says how long it takes
    flyweight solve "..." --confidence 0.8 --set bigger=qwen2.5-coder-1.5b
    flyweight calibrate --task jsonl --data mine.jsonl --out mine.json
    flyweight solve "..." --set calibration=mine.json

Without a calibration of the model and verifier it does what Liu et al. (2502.06703) found best for most models, and
says so. Test questions were never used to fit or choose. Replays give every figure as its mean over {ORDERS} orders of
a question's samples; intervals are 95 %, by bootstrap over questions.
"""


MADE_BY = """The calibrations that come with the package (`--dry-run` says how long it takes; `train.jsonl` is that of
openai/grade-school-math, MIT, MBPP's problems come along):

    flyweight calibrate --task gsm8k --data train.jsonl --questions 101-250 -n 16 \\
        --searches beam_search:n=8:width=4 --budgets 256,384,512,768,1k,1536,2k,3k,4k,16k --out CALIBRATION
    flyweight calibrate --task mbpp -n 16 --temperatures 0.4,0.8 --also weighted:tests=3:written-tests=1 \\
        --searches code_agreement:n=16 --budgets 256,512,1k,2k,4k,16k --out CALIBRATION
"""


def fitted() -> str:
    """The calibrations that come with the package."""
    pieces = [
        "## What was fitted\n",
        MADE_BY,
        "Scores by `self` are in sample here where its parts were combined on the same questions: three weights, on\n"
        "up to 100 calibration questions of each task (docs/train-verifier.md). No test question is among them.\n",
    ]
    for each in calibration.shipped():
        source = ", ".join(f"{s.questions} questions of {s.task} ({s.split}) x {s.samples}" for s in each.sources)
        pieces.append(f"{each.model}, {each.kind}, verifier `{each.verifier}`: {source}.\n")
        lines = []
        for row in each.rows:
            cells = "; ".join(f"{low}: `{cell.strategy}`" for low, cell in zip(edges(row), row.cells, strict=True))
            first = "greedy first, " if row.greedy else ""
            lines.append(
                [
                    f"{row.budget:,}",
                    f"{first}k={row.estimator.k}, T={row.temperature:g}",
                    cells,
                    between(stats.Interval(*row.held_out)),
                    f"{row.held_out_tokens:,.0f}",
                    difference(stats.Interval(*row.gain)),
                ]
            )
        head = ["budget", "probe", "from estimated pass@1", "right, set aside", "tokens", "minus the best single one"]
        pieces.append(table(head, lines) + "\n")
        pieces.append(estimated(each))
    return "\n".join(pieces)


def edges(row: calibration.Row) -> Iterator[str]:
    """The lower end of every bin."""
    return (f"{low:.2f}" for low in (0.0, *row.edges))


def estimated(found: Calibration) -> str:
    """How difficulty was told on calibration questions set aside."""
    lines = [
        [str(each["k"]), f"{each['spearman']:.2f}", share(each["within"]), *(str(row) for row in each["bands"])]
        for each in found.report["difficulty"]
    ]
    head = [
        "k",
        "rank correlation",
        "in the right band",
        *(f"truly {name} (told hard, medium, easy)" for name in BANDS),
    ]
    return (
        f"Difficulty on calibration questions set aside, against samples outside the probe:\n\n{table(head, lines)}\n"
    )


def saved(played: Played) -> str:
    """Tokens to the targets."""
    lines = []
    for target in played.part.targets:
        mine = reached(played.auto, target)
        for curve in played.others:
            found, theirs = ratio(curve, played.auto, target), reached(curve, target)
            most = curve.labels[-1]
            lines.append(
                [
                    share(target),
                    "not reached" if mine is None else f"{mine.tokens:,.0f}",
                    f"{curve.name}, " + (f"not by {most}" if theirs is None else curve.labels[theirs.place]),
                    "-" if theirs is None else f"{theirs.tokens:,.0f}",
                    "-" if found is None else f"{found.value:.2f} ({found.low:.2f}–{found.high:.2f})",
                    "-" if found is None else share(found.both),
                ]
            )
    head = ["accuracy", "tokens of auto", "beside, smallest n", "its tokens", "ratio", "resamples with both"]
    return (
        "Tokens a question, to reach accuracies fixed beforehand. A ratio above 1: `auto` needs fewer. Snell's figure "
        f"is 4.\n\n{table(head, lines)}\n"
    )


def by_band(played: Played) -> str:
    """Accuracy and tokens by oracle difficulty, where auto spends most and where the others have all samples."""
    groups = bands(played)
    lines = []
    for name, places in groups.items():
        if places:
            cells = []
            for curve in (played.auto, *played.others):
                right, tokens = curve.right[-1, places], curve.tokens[-1, places].mean()
                cells.append(f"{share(float(right.mean()))}, {tokens:,.0f}")
            lines.append([name, str(len(places)), *cells])
    last = played.auto.labels[-1]
    head = ["difficulty", "questions", f"auto, budget {last}", *(f"{c.name}, {c.labels[-1]}" for c in played.others)]
    return f"By oracle difficulty: accuracy, tokens.\n\n{table(head, lines)}\n"


def bands(played: Played) -> dict[str, list[int]]:
    """Places of the questions by Liu's band, the hardest first."""
    groups: dict[str, list[int]] = {name: [] for name in BANDS}
    for place, each in enumerate(played.questions):
        groups[band(each.passed(TEMPERATURE))].append(place)
    return groups


def inferior(played: Played, rows: Sequence[calibration.Row]) -> str:
    """Beside the best single strategy at the same budget, and the choice of one who knows the answers."""
    words = fit.choices(played.questions, VERIFIER)
    lines = []
    for row in rows:
        auto = automatic([row], played.questions, ORDERS, VERIFIER)
        right, tokens = fixed(row, row.fixed.strategy, played.questions, ORDERS, VERIFIER)
        known = oracle(row, words, played.questions, ORDERS, VERIFIER)
        apart = stats.paired_bootstrap(auto.right[0].tolist(), right.tolist())
        gap = stats.paired_bootstrap(known.tolist(), auto.right[0].tolist())
        lines.append(
            [
                f"{row.budget:,}",
                f"{share(float(auto.right[0].mean()))}, {auto.tokens[0].mean():,.0f}",
                f"`{row.fixed.strategy}`",
                f"{share(float(right.mean()))}, {tokens.mean():,.0f}",
                difference(apart),
                "yes" if apart.low > -MARGIN else "not shown",
                difference(gap),
            ]
        )
    head = [
        "budget",
        "auto",
        "best single strategy",
        "its",
        "auto minus it",
        "no worse by 5 points",
        "left to the oracle",
    ]
    return (
        "At the same budget: accuracy, tokens. The best single strategy is that of the calibration questions; the "
        f"oracle picks for each question the choice that is right most often there.\n\n{table(head, lines)}\n"
    )


def told(played: Played, rows: Sequence[calibration.Row]) -> str:
    """How well difficulty was estimated."""
    row = rows[-1]
    truth = [each.passed(TEMPERATURE) for each in played.questions]
    ranks = []
    counts = np.zeros((3, 3))
    for order in range(8):
        guesses = []
        for each in played.questions:
            play = ordered(row, each, order + 1, VERIFIER)[order]
            guesses.append(row.estimator(play.features(row.estimator.k)))
        ranks.append(spearman(guesses, truth))
        for mine, theirs in zip(truth, guesses, strict=True):
            counts[BANDS.index(band(mine)), BANDS.index(band(theirs))] += 1 / 8
    right = float(np.trace(counts) / counts.sum())
    lines = [[f"truly {name}", *(f"{value:.1f}" for value in line)] for name, line in zip(BANDS, counts, strict=True)]
    return (
        f"Difficulty, estimated from {row.estimator.k} samples: rank correlation {np.mean(ranks):.2f} with pass@1, "
        f"{share(right)} in the right band.\n\n"
        f"{table(['questions', *(f'told {name}' for name in BANDS)], lines)}\n"
    )


def draw(played: Sequence[Played]) -> None:
    """Frontiers per difficulty."""
    figure, axes = picture.figure(len(played), 3, size=(11, 3.4 * len(played)))
    for panels, each in zip(axes.reshape(len(played), 3), played, strict=True):
        for panel, (name, places) in zip(panels, bands(each).items(), strict=True):
            panel.set_title(f"{each.part.name}, {name}: {len(places)} questions", fontsize=9)
            panel.set_xscale("log")
            panel.set_xlabel("tokens a question")
            panel.set_ylabel("right, %")
            for curve in (*each.others, each.auto) if places else ():
                tokens = curve.tokens[:, places].mean(axis=1)
                right = 100 * curve.right[:, places].mean(axis=1)
                panel.plot(tokens, right, marker=".", color=COLOURS[curve.name], label=curve.name, linewidth=1.2)
    named = next(panel for panel in axes.reshape(-1) if panel.lines)
    named.legend(fontsize=7)
    picture.save(figure, FIGURE)


if __name__ == "__main__":
    main()
