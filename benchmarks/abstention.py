"""Answering only when sure: how good the confidence of a vote is, on test questions that no map has seen.

    python -m benchmarks.abstention         # docs/abstention.md from results/pools: no model, no sandbox, half a minute
    python -m benchmarks.abstention --fit   # flyweight/abstain.json from results/dev60 first: seconds

Questions: what results/pools holds of every task. The maps are those that come with the package. Nothing is fitted or
chosen here on test questions; --fit reads development questions alone, and so does the comparison of maps.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import default_strategy, optimal_headline, picture
from benchmarks.cassette import Cassette, Recorded
from benchmarks.results import POOLS, SMALL
from benchmarks.rig import ROOT, publish, table
from flyweight import abstain, bench, models, stats, strategies, tasks
from flyweight.abstain import ConfidenceMap, Sample
from flyweight.bench import graded
from flyweight.cli.bench_calibrate import samples
from flyweight.report.words import between, share
from flyweight.runner import Runner
from flyweight.select import lead
from flyweight.store import Store
from flyweight.types import Sampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

PAGE = ROOT / "docs" / "abstention.md"
SHIPPED = ROOT / "flyweight" / "abstain.json"
TASKS = {"gsm8k": "GSM8K", "math500": "MATH-500", "humaneval": "HumanEval", "mbpp": "MBPP"}
MAPPED = ("gsm8k", "math500")
"""Those whose answers are of a kind that a map exists for."""
SURE, SURER = 0.8, 0.9
"""What counts as sure among the claims of the map that code had."""
RISKS = (0.3, 0.2, 0.1)
DIALS = (0.4, 0.5, 0.6, 0.7)
FOLDS = 10
RESAMPLES = 1000


class Question(NamedTuple):
    """A question of a pool and how its vote ended."""

    id: str
    samples: list[Sample]
    """In the order drawn."""
    lead: float | None
    """`Result.confidence` on record, which is not calibrated."""
    right: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the map of the package first")
    parser.add_argument("--runs", type=Path, default=Path("runs/results"), help="folder of the stores")
    arguments = parser.parse_args()
    known = development()
    if arguments.fit:
        abstain.write(SHIPPED, [fitted(known)])
    (curve,) = (each for each in abstain.read(SHIPPED) if each.of(SMALL, models.catalog()[SMALL].sha256, "math"))
    pools = {name: recorded(arguments.runs, name) for name in TASKS}
    plot(pools, curve)
    text = "\n".join([*forms(known), *ranking(pools), *reliability(pools, curve), *dial(pools, curve), *values(curve)])
    if not publish(PAGE, "claims", "\n".join(claims(pools, curve))) or not publish(PAGE, "measured", text):
        raise SystemExit(f"{PAGE} lacks its marks")


# Where the questions come from ---------------------------------------------------------------------------------------


def development() -> list[Question]:
    """The development questions of results/dev60 with their 16 samples, replayed."""
    task = tasks.load("gsm8k")
    tape = Cassette(default_strategy.RECORDINGS / f"{SMALL}-pool.jsonl.xz")
    policy = Recorded(SMALL, models.catalog()[SMALL].parameters, tape)
    runner = Runner(policy, answers=task, sampling=Sampling(max_tokens=default_strategy.MAX_TOKENS))
    problems = task.problems()[: default_strategy.QUESTIONS]
    found = []
    for result in runner.run(problems, strategies.bind("self_consistency", {"n": 16})):
        if result.error is not None:
            raise SystemExit(f"{result.problem.id}: {result.error}")
        texts = [result.text, *(each.node.solution for each in result.candidates)]
        chosen, *right = (task.grade(result.problem, text).value == "correct" for text in texts)
        drawn = [
            Sample(each.answer_class, ok, 1.0, each.node.mean_logprob)
            for each, ok in zip(result.candidates, right, strict=True)
        ]
        found.append(Question(result.problem.id, drawn, result.confidence, chosen))
    return sorted(found)


def fitted(known: Sequence[Question]) -> ConfidenceMap:
    """The map of the package."""
    return ConfidenceMap(
        model=SMALL,
        sha256=models.catalog()[SMALL].sha256,
        kind="math",
        strategies=abstain.FAMILIES["self_consistency"],
        parameters={"temperature": 0.7},
        verifier="",
        fitted_on="gsm8k, development",
        questions=len(known),
        weights=abstain.fit([abstain.votes(each.samples, each.id) for each in known]),
    )


def recorded(folder: Path, name: str) -> list[Question]:
    """The questions of a pool: of its largest vote of the small model."""
    path = folder / name / "flyweight.db"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with Store(path) as store:
            store.load(POOLS / f"{name}.jsonl.xz")
    with Store(path, readonly=True) as store:
        plans = {info.id: bench.plan_of(info.configuration) for info in store.runs()}
        votes = [id for id, plan in plans.items() if plan.strategy == "self_consistency" and plan.model == SMALL]
        infos = {info.id: info for info in store.runs()}
        run = max(votes, key=lambda id: (infos[id].problems or 0, int(plans[id].parameters["n"])))
        found = []
        for search in bench.read(store, run, graded.Recorded(store, infos[run].configuration)):
            right = search.grade.value == "correct"
            found.append(Question(search.result.problem.id, samples(search), search.result.confidence, right))
    return found


# Which form the map has ----------------------------------------------------------------------------------------------


def forms(known: Sequence[Question]) -> list[str]:
    """Forms of a map, each on development questions that were set aside while it was fitted."""
    import numpy as np

    votes = [abstain.votes(each.samples, each.id) for each in known]
    able = [sum(sample.group is not None for sample in each.samples) for each in known]
    question = np.repeat(np.arange(len(known)), [len(each) for each in votes])
    leads = np.asarray([vote.lead for each in votes for vote in each])
    right = np.asarray([vote.right for each in votes for vote in each], dtype=np.float64)
    voters = np.asarray([2 + i % (n - 1) for n, each in zip(able, votes, strict=True) for i in range(len(each))])
    weight = np.asarray([1 / len(each) for each in votes for _ in each])
    inside = np.clip(leads, abstain.EDGE, 1 - abstain.EDGE)
    low, high = np.log(inside), -np.log1p(-inside)
    ours = "beta: a + b ln(lead) − c ln(1 − lead), b, c ≥ 0"
    predicted: dict[str, Floats] = {
        "the lead itself": leads,
        "share of right answers": aside(logistic(np.zeros((len(leads), 0))), question, right, weight),
        "Platt: a + b logit(lead)": aside(logistic((low + high)[:, None]), question, right, weight),
        ours: np.zeros(len(leads)),
        "beta, and d ln(votes)": aside(
            logistic(np.stack([low, high, np.log(voters)], axis=1)), question, right, weight
        ),
        "isotonic": aside(isotonic(leads), question, right, weight),
    }
    for fold in range(FOLDS):
        mine = question % FOLDS == fold
        weights = abstain.fit([each for i, each in enumerate(votes) if i % FOLDS != fold])
        curve = ConfidenceMap("m", "", "math", ("s",), {}, "", "", abstain.LEAST, weights)
        predicted[ours][mine] = [curve(each) for each in leads[mine]]
    lines = []
    for name, p in predicted.items():
        safe = np.clip(p, 1e-3, 1 - 1e-3)
        losses = -(right * np.log(safe) + (1 - right) * np.log(1 - safe))
        squares = (p - right) ** 2
        both = [np.bincount(question, weight * each) for each in (losses, squares)]
        lines.append([name, *(f"{each.mean():.3f}" for each in both)])
    head = ["form", "log loss", "Brier score"]
    return [
        "### Which form the map has\n",
        f"{len(known)} development questions, each tenth set aside in turn while the form is fitted on the rest; votes "
        "of 2 to 16 samples. Lower is better.\n",
        table(head, lines) + "\n",
    ]


Fit = Callable[["NDArray[np.bool_]", "Floats", "Floats"], "Floats"]
"""(rows to fit on, right, weight) -> probability of every row."""


def aside(fit: Fit, question: NDArray[np.int64], right: Floats, weight: Floats) -> Floats:
    """What each question gets from a fit without its fold."""
    found = right * 0
    for fold in range(FOLDS):
        mine = question % FOLDS == fold
        found[mine] = fit(~mine, right, weight)[mine]
    return found


def logistic(features: Floats) -> Fit:
    """Logistic regression, with a trace of a ridge."""
    import numpy as np

    x = np.column_stack([np.ones(len(features)), features])

    def fit(rows: NDArray[np.bool_], right: Floats, weight: Floats) -> Floats:
        beta = np.zeros(x.shape[1])
        for _ in range(50):
            p = 1 / (1 + np.exp(-(x[rows] @ beta)))
            curvature = (x[rows] * (weight[rows] * p * (1 - p))[:, None]).T @ x[rows] + 1e-3 * np.eye(len(beta))
            beta = beta + np.linalg.solve(curvature, x[rows].T @ (weight[rows] * (right[rows] - p)) - 1e-3 * beta)
        return np.asarray(1 / (1 + np.exp(-(x @ beta))))

    return fit


def isotonic(leads: Floats) -> Fit:
    """The best rising step function, by pooling of adjacent violators; between steps a line."""
    import numpy as np

    def fit(rows: NDArray[np.bool_], right: Floats, weight: Floats) -> Floats:
        places, which = np.unique(leads[rows], return_inverse=True)
        blocks: list[list[float]] = []  # of each: right, weight, how many places
        for hits, mass in zip(
            np.bincount(which, (weight * right)[rows]), np.bincount(which, weight[rows]), strict=True
        ):
            blocks.append([float(hits), float(mass), 1])
            while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
                last = blocks.pop()
                blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
        steps = np.concatenate([np.full(int(count), hits / mass) for hits, mass, count in blocks])
        found: Floats = np.interp(leads, places, steps)
        return found

    return fit


# Coverage and risk ---------------------------------------------------------------------------------------------------


def ranking(pools: dict[str, list[Question]]) -> list[str]:
    """The table of what can be answered at which risk."""
    lines = []
    for name, questions in pools.items():
        confidence, right = [each.lead for each in questions], [each.right for each in questions]
        points = stats.risk_coverage(confidence, right)
        cells = []
        for risk in RISKS:
            reached = [point for point in points if point.risk <= risk]
            cells.append(share(max(point.coverage for point in reached)) if reached else "–")

        def area_of(rows: Sequence[int], own: Sequence[Question] = questions) -> float:
            return aurc([own[i].lead for i in rows], [own[i].right for i in rows])

        area = bootstrap(area_of, len(right))
        wrong = 1 - sum(right) / len(right)
        best = aurc([float(ok) for ok in right], right)
        accuracy = between(stats.wilson(sum(right), len(right)))
        lines.append(
            [
                TASKS[name],
                str(len(questions)),
                accuracy,
                *cells,
                f"{area[1]:.3f} ({area[0]:.3f}–{area[2]:.3f})",
                f"{wrong:.3f}",
                f"{best:.3f}",
            ]
        )
    head = [
        "task",
        "questions",
        "right when all are answered",
        *(f"coverage at risk ≤ {100 * risk:.0f} %" for risk in RISKS),
    ]
    return [
        "### How much can be answered at which risk\n",
        "![Coverage and risk; claimed and true](abstention.svg)\n",
        "Answers in the order of their confidence, the surest first: coverage is the share of questions answered, risk "
        "the share of those that are wrong; the coverage at a risk is the best threshold in hindsight. AURC is the "
        "mean risk over all coverages (lower is better), beside that of a random order and of one that knows. A "
        "map changes no order, so this is the vote's own merit.\n",
        table([*head, "AURC", "random", "oracle"], lines) + "\n",
    ]


def aurc(confidence: Sequence[float | None], right: Sequence[bool]) -> float:
    """Area under the risk-coverage curve: the mean of the risks at 1, 2, ... all answers, in [0, 1].

    Equal confidences come in a random order, and None comes last: what stands here is the expectation. Source: Geifman,
    Uziel and El-Yaniv 2019 (1805.08206).
    """
    pairs = sorted(((-math.inf if c is None else c, ok) for c, ok in zip(confidence, right, strict=True)), reverse=True)
    risks, answered, wrong = [], 0, 0.0
    for _, group in groupby(pairs, key=lambda pair: pair[0]):
        marks = [ok for _, ok in group]
        misses = len(marks) - sum(marks)
        risks += [(wrong + misses * i / len(marks)) / (answered + i) for i in range(1, len(marks) + 1)]
        answered, wrong = answered + len(marks), wrong + misses
    return math.fsum(risks) / len(risks)


def bootstrap(value: Callable[[Sequence[int]], float], count: int) -> stats.Interval:
    """A figure of the questions 0 .. count - 1 with its percentile interval over resampled questions.

    NaN stands for questions that have no such figure.
    """
    import numpy as np

    generator = np.random.default_rng(0)
    drawn = [value([int(i) for i in generator.integers(0, count, count)]) for _ in range(RESAMPLES)]
    low, high = np.percentile([each for each in drawn if not math.isnan(each)] or [math.nan], [2.5, 97.5])
    return stats.Interval(float(low), value(range(count)), float(high))


# Claimed and true ----------------------------------------------------------------------------------------------------


def reliability(pools: dict[str, list[Question]], curve: ConfidenceMap) -> list[str]:
    """The table of what a confidence claims and what is true."""
    lines = []
    for name in MAPPED:
        before, right = led(pools[name])
        after = [curve(each) for each in before]
        for label, claimed in (("the lead", before), ("the map", after)):
            lines.append([TASKS[name], label, *scored(claimed, right)])
        squares = [[(p - ok) ** 2 for p, ok in zip(claimed, right, strict=True)] for claimed in (after, before)]
        apart = stats.paired_bootstrap(*squares)
        said = f"{apart.value:+.3f} ({apart.low:+.3f} to {apart.high:+.3f})".replace("-", "−")
        lines.append([TASKS[name], "map − lead", "", "", said, "", "", ""])
    for name, label, claimed, right in automatic():
        lines.append([TASKS[name], f"{label} ({len(claimed)} questions)", *scored(claimed, right)])
    head = [
        "task",
        "confidence",
        "claimed",
        "true",
        "Brier",
        "if it were right",
        "ECE, 5 bins",
        "if it were right",
    ]
    return [
        "### What it claims and what is true\n",
        'Test questions with two votes or more, all samples voting. "If it were right": what the same values would get '
        "if every one were true. The searches by `auto` are those of [compute-optimal.md](compute-optimal.md).\n",
        table(head, lines) + "\n",
    ]


def led(questions: Sequence[Question]) -> tuple[list[float], list[bool]]:
    """The leads of the votes of two and more, and whether they were right."""
    voted = [(each.lead, each.right) for each in questions if each.lead is not None]
    return [lead for lead, _ in voted], [right for _, right in voted]


def automatic() -> Iterator[tuple[str, str, list[float], list[bool]]]:
    """By task, what `auto` claimed of the headline's test questions by which map, and whether it was right."""
    for name in TASKS:
        if told := probabilities(name):
            label = "`auto`, its own map" if name in MAPPED else "`auto`, a map since withdrawn"
            yield name, label, [float(each["confidence"]) for each in told], [bool(each["right"]) for each in told]


def probabilities(name: str) -> list[dict[str, Any]]:
    """The headline's questions that `auto` claimed a probability of; none before they were run."""
    rows = optimal_headline.read(name)
    found = [] if rows is None else list(rows[optimal_headline.A]["questions"].values())
    return [each for each in found if each.get("confidence") is not None and each.get("calibrated", True)]


def claims(pools: dict[str, list[Question]], curve: ConfidenceMap) -> list[str]:
    """What the maps claim too much or too little, a line each, and how right code's surest answers are."""
    lines = []
    for name in MAPPED:
        leads, right = led(pools[name])
        lines.append(f"- **{TASKS[name]}, the map:** {verdict([curve(lead) for lead in leads], right)}")
    lines += [f"- **{TASKS[name]}, {label}:** {verdict(claimed, right)}" for name, label, claimed, right in automatic()]
    code = [each for name in TASKS if name not in MAPPED for each in probabilities(name)]
    return [*lines, f"- **Code, where that map was surest:** {surest(code)}"] if code else lines


def verdict(claimed: Sequence[float], right: Sequence[bool]) -> str:
    """How far what is claimed is from what is true, on average, and whether chance could have done it."""
    apart = 100 * (math.fsum(claimed) - sum(right)) / len(claimed)
    error, most = stats.ece(claimed, right), stats.calibrated(claimed).ece.high
    return (
        f"{abs(apart):.0f} points too {'much' if apart > 0 else 'little'} "
        f"({share(math.fsum(claimed) / len(claimed))} claimed, {share(sum(right) / len(right))} true); "
        f"ECE {error:.3f}, {'above' if error > most else 'within'} the {most:.3f} that chance gives a right map."
    )


def surest(told: Sequence[dict[str, Any]]) -> str:
    """How many of the answers claimed to be sure are right, and of the surer ones have no right sample."""
    sure, surer = ([each for each in told if each["confidence"] >= least] for least in (SURE, SURER))
    return (
        f"{sum(each['right'] for each in sure)} of the {len(sure)} answers claimed at {100 * SURE:.0f} % or more are "
        f"right; {sum(not any(each['samples']) for each in surer)} of the {len(surer)} at {100 * SURER:.0f} % or more "
        "had no right sample."
    )


def scored(claimed: Sequence[float], right: Sequence[bool]) -> list[str]:
    """The cells of one kind of confidence."""
    ideal = stats.calibrated(claimed)
    return [
        share(math.fsum(claimed) / len(claimed)),
        share(sum(right) / len(right)),
        f"{stats.brier(claimed, right):.3f}",
        f"{ideal.brier.value:.3f}",
        f"{stats.ece(claimed, right):.3f}",
        f"{ideal.ece.value:.3f} (to {ideal.ece.high:.3f})",
    ]


# The dial ------------------------------------------------------------------------------------------------------------


def dial(pools: dict[str, list[Question]], curve: ConfidenceMap) -> list[str]:
    """The table of what `--confidence` does."""
    lines = []
    for name in MAPPED:
        for wanted in DIALS:
            per = [searched(each, curve, wanted) for each in pools[name]]
            n = max(len(each.samples) for each in pools[name])

            sure = stats.bootstrap_mean([each[0] for each in per], resamples=RESAMPLES)
            claimed = ratio(per, 2, 0).value
            true, wrong = ratio(per, 1, 0), ratio(per, 3, 4)
            drawn = math.fsum(each[5] for each in per) / len(per)
            lines.append(
                [
                    TASKS[name],
                    f"{wanted:.1f}",
                    between(sure),
                    "–" if math.isnan(claimed) else share(claimed),
                    *("–" if math.isnan(each.value) else between(each) for each in (true, wrong)),
                    f"{drawn:.1f} of {n}",
                ]
            )
    head = [
        "task",
        "--confidence",
        "sure",
        "claimed when sure",
        "right when sure",
        "right when not sure",
        "samples",
    ]
    return [
        "### What the dial does\n",
        "The same samples, drawn one by one in random orders until the confidence is reached or none is left.\n",
        table(head, lines) + "\n",
    ]


def ratio(rows: Sequence[tuple[float, ...]], top: int, bottom: int) -> stats.Interval:
    """Sum of one column over that of another, with its interval over resampled rows; NaN where nothing is below."""

    def value(which: Sequence[int]) -> float:
        under = math.fsum(rows[i][bottom] for i in which)
        return math.fsum(rows[i][top] for i in which) / under if under else math.nan

    return bootstrap(value, len(rows))


def searched(question: Question, curve: ConfidenceMap, wanted: float) -> tuple[float, ...]:
    """Means over orders: sure, sure and right, confidence when sure, right when not sure, not sure, samples drawn."""
    found = []
    able = sum(sample.group is not None for sample in question.samples)
    votes = abstain.votes(question.samples, question.id)
    for start in range(0, len(votes), max(1, able - 1)):
        series = votes[start : start + able - 1]
        stop = next((i for i, vote in enumerate(series) if curve(vote.lead) >= wanted), None)
        last = series[-1 if stop is None else stop]
        # Those that cannot vote come in between, evenly.
        drawn = len(question.samples) if stop is None else (stop + 2) * (len(question.samples) + 1) / (able + 1)
        sure = float(stop is not None)
        found.append((sure, sure * last.right, sure * curve(last.lead), (1 - sure) * last.right, 1 - sure, drawn))
    if not found:
        return 0.0, 0.0, 0.0, float(question.right), 1.0, float(len(question.samples))
    return tuple(math.fsum(column) / len(found) for column in zip(*found, strict=True))


def values(curve: ConfidenceMap) -> list[str]:
    """What the map says."""
    lines = [
        [f"{votes} : {other}", share(lead(votes, other)), share(curve(lead(votes, other)))]
        for votes, other in ((2, 0), (2, 1), (3, 1), (4, 0), (4, 2), (6, 2), (8, 0), (8, 4), (12, 4), (16, 0))
    ]
    return [
        "### What the map says\n",
        f"Fitted on {curve.questions} questions ({curve.fitted_on}).\n",
        table(["votes : strongest other answer", "leads", "is right"], lines),
    ]


# The picture ---------------------------------------------------------------------------------------------------------

BELOW: dict[str, Any] = {"fontsize": 8, "ncols": 2, "loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
"""Where names stand."""
COLOURS = {"gsm8k": "tab:blue", "math500": "tab:red", "humaneval": "tab:green", "mbpp": "tab:purple"}


def plot(pools: dict[str, list[Question]], curve: ConfidenceMap) -> None:
    """Coverage against risk, and claimed against true."""
    figure, (left, right) = picture.figure(1, 2, size=(9, 4.4))
    for name, questions in pools.items():
        points = stats.risk_coverage([each.lead for each in questions], [each.right for each in questions])
        xs, ys = [100 * point.coverage for point in points], [100 * point.risk for point in points]
        left.plot(xs, ys, color=COLOURS[name], marker="o", ms=3, label=f"{TASKS[name]}, {len(questions)} questions")
        wrong = 100 * (1 - sum(each.right for each in questions) / len(questions))
        left.axhline(wrong, color=COLOURS[name], ls=":", lw=0.8)
    left.set(xlim=(0, 100), ylim=(0, 100), xlabel="coverage: questions answered, %", ylabel="risk: of those wrong, %")
    left.set_title("The surest answers first (dotted: a random order)", fontsize=10)
    left.legend(**BELOW)
    voted = sorted((each.lead, each.right) for each in pools["gsm8k"] if each.lead is not None)
    parts = [voted[len(voted) * i // 5 : len(voted) * (i + 1) // 5] for i in range(5)]
    for label, change, colour in (("the lead of the vote", None, "tab:gray"), ("the map", curve, "tab:blue")):
        claimed = [100 * math.fsum(change(c) if change else c for c, _ in part) / len(part) for part in parts]
        spans = [stats.wilson(sum(ok for _, ok in part), len(part)) for part in parts]
        errors = [[100 * (s.value - s.low) for s in spans], [100 * (s.high - s.value) for s in spans]]
        right.errorbar(
            claimed, [100 * s.value for s in spans], errors, label=label, marker="o", color=colour, capsize=2
        )
    right.plot([0, 100], [0, 100], color="black", lw=0.8, ls=":")
    right.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence claimed, %", ylabel="right, %")
    right.set_title("GSM8K: claimed and true, a fifth of the questions each", fontsize=10)
    right.legend(**BELOW)
    picture.save(figure, "abstention.svg")


if __name__ == "__main__":
    main()
