"""docs/strategies.md: what each strategy is for, one search by each as a picture, and all of them compared."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import strategies as measured
from benchmarks import strategies_pictures as pictures
from benchmarks.results import BIG, SMALL
from benchmarks.rig import ROOT, table
from benchmarks.strategies import BASELINE, Kept, Outcome
from flyweight import stats, strategies
from flyweight.report.words import between, count, difference, operations, share
from flyweight.stats import Interval

__all__ = ["tables", "write"]

PAGE = ROOT / "docs" / "strategies.md"
PARTS = {"gsm8k": "GSM8K", "countdown": "Countdown"}

INTRODUCTION = """# Strategies

Made by `python -m benchmarks.strategies` from the strategies' own docstrings and from recorded runs. Which to take:

- **Answers that can be equal** (numbers, choices): `self_consistency`; `weighted_best_of_n` with a verifier.
- **One right answer among many, and a verifier that knows it** (tests, a reward model): `best_of_n`.
- **Long solutions in steps, and a verifier of steps**: `beam_search`, `dvts` and their kin.
- **Free text**: `medoid` without a judge, `tournament` with one. **Programs**: `code_agreement`
  (on the questions below it has no programs to run, and is `self_consistency`).

Every strategy stops at once where a budget of tokens or seconds is spent, and at its next request for a score where one
of verifications is; it returns the best it has found. Any of them may be given another verifier, a sub-search or a stop
rule by name ([compose.md](compose.md)). The same seed draws the same under a token budget too, save where searches side
by side (`dvts`, `hybrid`, `of=`) share it: whoever asks first is served first, which depends on speed and on `--slots`.
Parameters with their ranges: `flyweight list strategies`. Adding one: [CONTRIBUTING.md](../CONTRIBUTING.md).

"""

KINDS: Sequence[tuple[str, Sequence[str]]] = (
    ("One answer", ("greedy", "sample", "budget_forcing")),
    (
        "Many answers, one chosen",
        (
            "self_consistency",
            "adaptive_consistency",
            "best_of_n",
            "weighted_best_of_n",
            "confidence_filtered",
            "medoid",
            "tournament",
            "code_agreement",
        ),
    ),
    (
        "Step by step",
        (
            "beam_search",
            "dvts",
            "lookahead_search",
            "rebase",
            "particle_filter",
            "particle_gibbs",
            "mcts",
        ),
    ),
    ("Answers made from answers", ("sequential_revision", "hybrid", "self_refine")),
    ("One that chooses among the others", ("auto",)),
)


def write(kept: Kept) -> None:
    """The page, and the pictures it shows."""
    pieces = [INTRODUCTION, "## All of them\n\n", overview(), "\n", pictures.section(kinds())]
    if found := tables(kept):
        pieces += ["## Compared\n\n", found]
    PAGE.write_text("".join(pieces), "utf-8")


def kinds() -> list[tuple[str, list[str]]]:
    """Names by kind; what has no kind here comes last."""
    known = {name for _, group in KINDS for name in group}
    others = [name for name in strategies.names() if name not in known]
    return [(kind, list(group)) for kind, group in KINDS] + ([("Others", others)] if others else [])


def overview() -> str:
    """Name, idea, use, cost, paper and file of each, from the docstrings."""
    rows = []
    for _, group in kinds():
        for name in group:
            about = strategies.describe(name)
            path = Path(inspect.getfile(inspect.unwrap(strategies.load(name)))).relative_to(ROOT)
            links = ", ".join(
                f"[{year_of(about.source, at)}](https://arxiv.org/abs/{paper})"
                for at, paper in ((m.start(), m[1]) for m in re.finditer(r"arXiv (\d{4}\.\d{4,5})", about.source))
            )
            cells = [f"[`{name}`](#{name})", about.summary, about.use, about.cost]
            named = year_of(about.source, len(about.source)) if about.source else "–"
            rows.append([*map(plain, cells), links or named, f"[{path.name}](../{path})"])
    return table(["name", "idea", "when to use it", "cost", "paper", "file"], rows) + "\n"


def year_of(source: str, before: int) -> str:
    """Whose paper an arXiv number is: the last author and year before it."""
    found = re.findall(r"([A-ZÀ-Ž][\w-]+)(?: et al\.|(?:, [A-Z]\w+)*)? (\d{4})", source[:before])
    return " ".join(found[-1]) if found else "paper"


def plain(text: str) -> str:
    """A cell: nothing in it ends it."""
    return text.replace("|", "\\|")


# Compared ----------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """A strategy on all questions of both tasks, costs being means a question."""

    name: str
    right: dict[str, list[bool]]
    """By part, in the order of the questions' ids."""
    apart: Interval | None
    """Accuracy minus the baseline's on the same questions, paired; None of the baseline."""
    tokens: float
    verifier_tokens: float
    flops: float
    seconds: float
    recomputed: float | None


def tables(kept: Kept) -> str:
    """The comparison on development questions and, once it has been run, on test questions."""
    rows = [row for name in measured.names() if (row := _row(kept, name, tuple(PARTS)))]
    if not any(row.name == BASELINE for row in rows):
        return ""
    pieces = [_setting(rows), _table(kept, rows, PARTS), "\n", _verdicts(rows), _difficulties(kept, rows)]
    final = [row for name in measured.names() if (row := _row(kept, name, ("final",)))]
    if any(row.name == BASELINE for row in final):
        pieces += [
            "### On test questions\n\n",
            f"The two strategies that got most of the questions above right, and `{BASELINE}`, on the first "
            f"{len(final[0].right['final'])} test questions of GSM8K by the hash of their ids, with the same settings. "
            "Which two was written down (results/strategies/final.json) before any of these was asked.\n\n",
            _table(kept, final, {"final": "GSM8K, test"}),
            "\n",
            _verdicts(final),
        ]
    return "".join(pieces)


def _row(kept: Kept, name: str, parts: Sequence[str], model: str = SMALL) -> Row | None:
    """Only of questions that the baseline has searched too; None where any part has none."""
    found = {part: kept.outcomes(part, name, model) for part in parts}
    if not all(found.values()):
        return None
    base = {part: kept.outcomes(part, BASELINE) for part in parts}
    ids = {part: sorted(found[part].keys() & base[part].keys()) for part in parts}
    mine = [found[part][id] for part in parts for id in ids[part]]
    theirs = [base[part][id] for part in parts for id in ids[part]]
    if not mine:
        return None
    own = name == BASELINE and model == SMALL
    questions = sum(map(len, found.values()))
    seconds, recomputed = (
        [kept.total(part, name, fact, model) for part in parts] for fact in ("seconds", "recomputed")
    )
    return Row(
        name if model == SMALL else model,
        {part: [found[part][id].right for id in ids[part]] for part in parts},
        None if own else stats.paired_bootstrap([float(o.right) for o in mine], [float(o.right) for o in theirs]),
        _mean([o.tokens for o in mine]),
        _mean([o.verifier_tokens for o in mine]),
        _mean([o.flops for o in mine]),
        sum(each or 0.0 for each in seconds) / questions,
        None if None in recomputed else sum(each or 0.0 for each in recomputed) / questions,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _setting(rows: Sequence[Row]) -> str:
    sizes = {part: max(len(row.right[part]) for row in rows) for part in PARTS}
    return (
        f"Qwen2.5-Coder-0.5B with the verifier `self`, at settings meant to take about 2,000 generated "
        f"tokens a question (the column says what they took): "
        f"{sizes['gsm8k']} questions of GSM8K's development split (train questions, nobody picked them) and "
        f"{sizes['countdown']} Countdown puzzles of 3, 4 and 5 numbers. Settings were fixed beforehand "
        f"(`SETTINGS` in benchmarks/strategies.py), and no search takes more than {measured.LIMIT.tokens:,} tokens; "
        "parameters not named have their defaults. Those without recomputed "
        "tokens choose among the very samples that `best_of_n` drew. In brackets 95 % intervals: Wilson's, and of "
        "differences the paired bootstrap over questions. FLOPs count the model and the verifier; seconds are the "
        "machine's (two cores) with 20 questions in flight, verifying included. Recomputed: prompt tokens computed "
        "again because their KV had been evicted.\n\n"
    )


def _table(kept: Kept, rows: Sequence[Row], parts: dict[str, str]) -> str:
    """Rows by how much they got right, between what needs no choosing."""
    several = len(parts) > 1
    head = ["strategy", *parts.values(), *(["all"] if several else []), f"minus `{BASELINE}`, points"]
    head += ["tokens", "verifier tokens", "FLOPs", "seconds", "recomputed tokens"]
    lines = []
    for row in sorted(rows, key=lambda row: (-_right(row), row.flops)):
        lines.append([f"`{row.name}`{_settings(row.name)}", *_cells(row, parts)])
    pool = [each for part in parts for each in kept.outcomes(part, BASELINE).values()]
    by_part = {part: list(kept.outcomes(part, BASELINE).values()) for part in parts}
    for name, interval in (("random choice among the samples", _random), ("a right one among them", _coverage)):
        groups = [*by_part.values(), *([pool] if several else [])]
        lines.append([f"*{name}*", *(between(interval(group)) for group in groups), *[""] * 6])
    big = _row(kept, "greedy", tuple(parts), BIG)
    if big is not None:
        lines.append([f"*{BIG}, greedy*", *_cells(big, parts)])
    return table(head, lines) + "\n"


def _cells(row: Row, parts: dict[str, str]) -> list[str]:
    groups = [row.right[part] for part in parts]
    if len(parts) > 1:
        groups.append([right for group in groups for right in group])
    return [
        *(between(stats.wilson(sum(group), len(group))) for group in groups),
        "" if row.apart is None else difference(row.apart),
        count(round(row.tokens)),
        count(round(row.verifier_tokens)),
        operations(row.flops),
        f"{row.seconds:.1f}",
        "" if row.recomputed is None else count(round(row.recomputed)),
    ]


def _right(row: Row) -> int:
    return sum(sum(group) for group in row.right.values())


def _settings(name: str) -> str:
    given = measured.SETTINGS.get(name, {})
    return "".join(f" {key}={str(value).lower()}" for key, value in given.items())


def _random(outcomes: Sequence[Outcome]) -> Interval:
    groups = [[1.0] * o.right_candidates + [0.0] * (o.candidates - o.right_candidates) for o in outcomes]
    low, value, high = stats.clustered_mean([group for group in groups if group])
    return Interval(max(0.0, low), value, min(1.0, high))


def _coverage(outcomes: Sequence[Outcome]) -> Interval:
    return stats.wilson(sum(o.right_candidates > 0 for o in outcomes), len(outcomes))


def _verdicts(rows: Sequence[Row]) -> str:
    """What the table says, in words."""
    base = next(row for row in rows if row.name == BASELINE)
    others = [(row, row.apart) for row in rows if row.apart is not None]
    groups = (
        ("Better than", [row for row, apart in others if apart.low > 0]),
        ("Worse than", [row for row, apart in others if apart.high < 0]),
        ("Not told apart from", [row for row, apart in others if apart.low <= 0 <= apart.high]),
    )
    lines = [f"- **{verdict} `{BASELINE}`** by these questions: {_named(found)}." for verdict, found in groups]
    dear = [row for row, apart in others if apart.low <= 0 and row.flops > 1.1 * base.flops]
    lines.append(f"- **Not worth their cost here**, over a tenth more FLOPs without being better: {_named(dear)}.")
    widths = [apart.high - apart.low for _, apart in others]
    lines.append(
        f"- An interval here is {share(sum(widths) / max(1, len(widths)))[:-2]} points wide on average, so differences "
        f"below half of that stay unseen; where nothing differs, {len(others) / 20:.1f} of {len(others)} intervals "
        "leave out zero by chance."
    )
    return "\n".join(lines) + "\n\n"


def _named(rows: Sequence[Row]) -> str:
    return ", ".join(f"`{row.name}`" for row in rows) or "none"


def _difficulties(kept: Kept, rows: Sequence[Row]) -> str:
    """Countdown by how many numbers are given."""
    numbers = pictures.countdown_numbers()
    head = ["strategy", *(f"{n} numbers" for n in measured.DIFFICULTIES)]
    lines = []
    for row in sorted(rows, key=lambda row: (-_right(row), row.flops)):
        found = kept.outcomes("countdown", row.name)
        groups = [[o.right for id, o in found.items() if numbers[id] == n] for n in measured.DIFFICULTIES]
        lines.append([f"`{row.name}`", *(f"{sum(group)} of {len(group)}" for group in groups)])
    return f"### Countdown by difficulty\n\n{table(head, lines)}\n\n"
