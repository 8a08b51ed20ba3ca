"""What `self` is worth inside a search: searches by steps against choosing among whole answers, on the same questions.

    flyweight calibrate --task gsm8k --data train.jsonl --questions 101-250 -n 16 \\
        --searches beam_search:n=8:width=4 --out gsm8k.json --runs runs/optimal      # fifty minutes
    python -m benchmarks.verifiers_beam --runs runs/optimal   # takes what that recorded into results/strategies

The other searches are those of `python -m benchmarks.strategies --draw`. Of whole answers the first `N` count.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from benchmarks.rig import table
from benchmarks.strategies import BASELINE, FOLDER, OUTCOMES, Kept
from flyweight import bench, stats
from flyweight.abstain import Sample
from flyweight.bench.graded import Recorded
from flyweight.cli.bench_calibrate import samples
from flyweight.report.words import between, difference
from flyweight.store import Store

__all__ = ["Searched", "section", "taken"]

CALIBRATION = FOLDER / "calibration.json"
SEARCHES = ("beam_search", "dvts")
VOTE = "self_consistency"
N = 8
INTRODUCTION = """### Beam gain

What scores are worth when they decide which steps go on, rather than which answer is taken: searches by `self`
against its best of {n} and against majority of {n}, on the same questions at about as many tokens. In points, question
by question, with 95 % intervals by paired bootstrap. Development and test: docs/strategies.md; calibration: what
`flyweight calibrate` recorded (benchmarks/verifiers_beam.py). Where they disagree, the larger sample weighs more.
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


class Searched(NamedTuple):
    """What one strategy came to on one question."""

    right: bool
    tokens: int
    """Generated."""


By = Mapping[str, Mapping[str, Searched]]
"""Strategy -> question -> outcome."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/optimal"), help="folder of the calibration's store")
    with Store(parser.parse_args().runs / "flyweight.db", readonly=True) as store:
        found = taken(store)
    CALIBRATION.write_text(json.dumps(found, sort_keys=True, separators=(",", ":")) + "\n", "utf-8")


def taken(store: Store) -> dict[str, dict[str, Searched]]:
    """Searches on record, and what choosing among the first `N` samples of the same questions comes to."""
    found: dict[str, dict[str, Searched]] = {}
    for info in store.runs():
        name = str(info.configuration["strategy"])
        if name not in (BASELINE, *SEARCHES):
            continue
        for search in bench.read(store, info.id, Recorded(store, info.configuration)):
            id, result = search.result.problem.id, search.result
            if name == BASELINE:
                drawn = samples(search)[:N]
                tokens = sum(each.node.drawn for each in result.candidates[:N])
                found.setdefault(BASELINE, {})[id] = Searched(_best(drawn), tokens)
                found.setdefault(VOTE, {})[id] = Searched(_majority(drawn), tokens)
            else:
                right = search.grade.value == "correct"
                found.setdefault(name, {})[id] = Searched(right, result.usage.generated_tokens)
    return found


def _best(drawn: list[Sample]) -> bool:
    able = [each for each in drawn if each.group is not None]
    return bool(able) and max(able, key=lambda each: (each.score, each.logprob)).right


def _majority(drawn: list[Sample]) -> bool:
    """Of equally large classes the one drawn first."""
    groups = [each.group for each in drawn if each.group is not None]
    return bool(groups) and next(each.right for each in drawn if each.group == max(groups, key=groups.count))


def section() -> str:
    """The table; nothing as long as no search is on record."""
    kept = Kept(OUTCOMES)
    lines = _rows("GSM8K, development", _kept(kept, "gsm8k"))
    if CALIBRATION.exists():
        read = json.loads(CALIBRATION.read_text("utf-8"))
        found = {name: {id: Searched(*row) for id, row in rows.items()} for name, rows in read.items()}
        lines += _rows("GSM8K, calibration", found)
    lines += _rows("GSM8K, test", _kept(kept, "final"))
    return INTRODUCTION.format(n=N) + "\n" + table(HEAD, lines) + "\n" if lines else ""


def _kept(kept: Kept, part: str) -> By:
    return {
        name: {id: Searched(one.right, one.tokens) for id, one in kept.outcomes(part, name).items()}
        for name in (BASELINE, VOTE, *SEARCHES)
    }


def _rows(words: str, found: By) -> list[list[str]]:
    lines = []
    for name in SEARCHES:
        ours = found.get(name, {})
        best, vote = found.get(BASELINE, {}), found.get(VOTE, {})
        if ours and best.keys() >= ours.keys():
            right = between(stats.wilson(sum(one.right for one in ours.values()), len(ours)))
            tokens = [f"{fmean(each[id].tokens for id in ours):,.0f}" for each in (ours, best)]
            gains = [_gain(ours, each) if each.keys() >= ours.keys() else "–" for each in (best, vote)]
            lines.append([f"{len(ours)} of {words}", f"`{name}`", right, *gains, *tokens])
    return lines


def _gain(ours: Mapping[str, Searched], theirs: Mapping[str, Searched]) -> str:
    return difference(
        stats.paired_bootstrap([float(one.right) for one in ours.values()], [float(theirs[id].right) for id in ours])
    )


if __name__ == "__main__":
    main()
