"""What `self` is worth inside a search: beam search against choosing among whole answers, from results/strategies.

Nothing is drawn here: `python -m benchmarks.strategies --draw` made the searches.
"""

from __future__ import annotations

from statistics import fmean

from benchmarks.rig import table
from benchmarks.strategies import BASELINE, OUTCOMES, Kept, Outcome
from flyweight import stats
from flyweight.report.words import between, difference

__all__ = ["section"]

VOTE = "self_consistency"
SEARCHES = ("beam_search", "dvts")
PARTS = {"gsm8k": "GSM8K, development", "final": "GSM8K, test"}
INTRODUCTION = """### Beam gain

What scores are worth when they decide which steps go on, rather than which answer is taken: searches by `self`
against its best of n and against majority, on the same questions at about as many tokens (docs/strategies.md has every
setting). In points, question by question, with 95 % intervals by paired bootstrap. Twenty questions are a
first look, and a lucky one: on 150 questions recorded for a calibration (GSM8K's split `calibration`, 101 to 250,
`flyweight calibrate`) beam search n=8 had 34.7 %, best of 8 44.7 %, majority 34.0 %: 10.0 points below best of n.
"""
HEAD = (
    "questions",
    "search",
    "right",
    "minus best of n, points",
    "minus majority, points",
    "tokens",
    "those of best of n",
)


def section() -> str:
    """The table; nothing as long as no search is on record."""
    kept = Kept(OUTCOMES)
    lines = []
    for part, words in PARTS.items():
        best, vote = kept.outcomes(part, BASELINE), kept.outcomes(part, VOTE)
        for search in SEARCHES:
            ours = kept.outcomes(part, search)
            if ours and best.keys() >= ours.keys():
                lines.append([f"{len(ours)} of {words}", f"`{search}`", *_cells(ours, best, vote)])
    return INTRODUCTION + "\n" + table(HEAD, lines) + "\n" if lines else ""


def _cells(ours: dict[str, Outcome], best: dict[str, Outcome], vote: dict[str, Outcome]) -> list[str]:
    right = sum(one.right for one in ours.values())
    return [
        between(stats.wilson(right, len(ours))),
        _gain(ours, best),
        _gain(ours, vote) if vote.keys() >= ours.keys() else "–",
        f"{fmean(one.tokens for one in ours.values()):,.0f}",
        f"{fmean(best[id].tokens for id in ours):,.0f}",
    ]


def _gain(ours: dict[str, Outcome], theirs: dict[str, Outcome]) -> str:
    return difference(
        stats.paired_bootstrap([float(one.right) for one in ours.values()], [float(theirs[id].right) for id in ours])
    )
