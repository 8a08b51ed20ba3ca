"""Every warning of a report fires where it should, and is silent where it should not."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from flyweight.report.warnings import about, across
from flyweight.store import Store
from flyweight.types import Stopped
from tests.report.report_kit import Found, Said, opened, report, write


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path) as store:
        yield store


def single(letters: str) -> dict[str, Found]:
    """One candidate for each problem."""
    return {f"p{i:02}": Found([Said(letter)]) for i, letter in enumerate(letters)}


def said(store: Store, kind: str, **settings: str) -> list[str]:
    """The warnings of a kind."""
    made = report(store, **settings)
    found = [*across(made.sections), *(warned for section in made.sections for warned in about(section))]
    return [warned.text for warned in found if warned.kind == kind]


# Search against greedy


def test_search_that_loses_to_greedy(store: Store) -> None:
    """20 problems, 10 lost: -50 points, of which the bootstrap's interval is far from 0."""
    write(store, "greedy", single("R" * 20))
    lost = write(store, "dvts", single("RW" * 10), parameters={"n": 4})
    (text,) = said(store, "loses")
    assert text.startswith("dvts n=4 loses to greedy by 50.0 points (") and text.endswith(").")
    assert said(store, "below") == [] == said(store, "small")
    assert said(store, "loses", baseline=lost) == [text], "whatever the baseline"


def test_search_below_greedy_by_what_may_be_chance(store: Store) -> None:
    write(store, "greedy", single("R" * 19 + "W"))
    write(store, "dvts", single("W" + "R" * 17 + "WR"))
    assert said(store, "below") == ["dvts is 5.0 points below greedy, a difference that may be chance."]
    assert said(store, "loses") == []


def test_search_that_wins_or_ties_loses_nothing(store: Store) -> None:
    write(store, "greedy", single("W" * 10 + "R" * 10))
    write(store, "dvts", single("R" * 20))
    write(store, "beam_search", single("R" * 10 + "W" * 10))
    assert said(store, "loses") == said(store, "below") == []


def test_greedy_of_another_model_is_no_search(store: Store) -> None:
    write(store, "greedy", single("R" * 20))
    write(store, "greedy", single("W" * 20), model="big")
    assert said(store, "loses") == []


# Too few problems


def test_too_few_problems_for_the_difference(store: Store) -> None:
    """Of 20 one is won: sd sqrt(0.05 - 0.05^2 ) sqrt(20/19) = 0.2236; 2.8016 * 0.2236 / sqrt(20) = 14.0 points are
    seen, and 5 would take (2.8016 * 0.2236 / 0.05)^2 = 157."""
    write(store, "greedy", single("R" * 10 + "W" * 10))
    write(store, "dvts", single("R" * 11 + "W" * 9))
    (text,) = said(store, "small")
    assert (
        text == "dvts against greedy: 20 problems see differences of 14.0 points; this is 5.0. To see that takes 157."
    )


def test_a_clear_difference_is_not_too_small(store: Store) -> None:
    write(store, "greedy", single("W" * 20))
    write(store, "dvts", single("R" * 10 + "W" * 10))
    write(store, "beam_search", single("W" * 20))
    assert said(store, "small") == [], "half won is seen; no difference claims nothing"


def test_a_difference_that_was_seen_is_not_too_small(store: Store) -> None:
    """A quarter lost of 20: it would take 25 to see that with a chance of 80 %, but it was seen."""
    write(store, "greedy", single("R" * 20))
    write(store, "dvts", single("W" * 5 + "R" * 15))
    assert len(said(store, "loses")) == 1 and said(store, "small") == []
    assert report(store).sections[0].differences[0].needed == 25


# Over-optimisation


def judged(scores: Sequence[float], problems: int = 30) -> dict[str, Found]:
    """Four samples each, the first one wrong and the others right, with these scores."""
    letters = ("W", "R", "R", "R")
    pool = [Said(letter, int(letter == "R"), score) for letter, score in zip(letters, scores, strict=True)]
    best = max(range(4), key=scores.__getitem__)
    return {f"p{i:02}": Found(pool, best=best) for i in range(problems)}


def test_a_verifier_that_likes_the_wrong_ones(store: Store) -> None:
    """The best of 1 is right in 3/4 with a mean score of .6, the best of 4 always wrong with .9."""
    write(store, "best_of_n", judged((0.9, 0.5, 0.5, 0.5)), n=4, verifier="v")
    assert said(store, "optimised") == [
        "the verifier v is over-optimised: from the best of 1 to the best of 4 its score of the chosen rises from "
        "0.60 to 0.90, and accuracy falls from 75.0 % to 0.0 %."
    ]


@pytest.mark.parametrize("scores", [(0.1, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)])
def test_a_verifier_that_helps_or_does_nothing(store: Store, scores: Sequence[float]) -> None:
    write(store, "best_of_n", judged(scores), n=4, verifier="v")
    assert said(store, "optimised") == []


def gamed(seed: int) -> Found:
    """256 samples, 24 of them right. The verifier tells these from the rest, but likes four wrong ones best of all."""
    pool = [Said("W", 1, 0.9 + i / 1000) for i in range(4)] + [Said("R", 0, 0.6 + i / 100) for i in range(24)]
    pool += [Said("W", 2, i / 500) for i in range(256 - len(pool))]
    random.Random(seed).shuffle(pool)
    return Found(pool, best=max(range(256), key=lambda i: pool[i].score or 0))


def test_a_best_of_n_that_peaks_at_16_is_flagged_at_64_and_256(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best of k is right where none of the four is among them and one of the 24 is."""
    monkeypatch.setattr("flyweight.report.pools.SHUFFLES", 1)
    write(store, "best_of_n", {f"p{i}": gamed(i) for i in range(3)}, n=256, verifier="v")
    (pool,) = report(store).sections[0].pools
    curves = {curve.kind: {point.k: point.accuracy.value for point in curve.points} for curve in pool.curves}
    assert curves.keys() == {"random", "coverage", "majority", "best", "vote"}
    for k in (1, 4, 16, 64, 256):
        right = math.comb(252, k) - math.comb(228, k)
        assert curves["best"][k] == pytest.approx(right / math.comb(256, k))
        assert curves["coverage"][k] == pytest.approx(1 - math.comb(232, k) / math.comb(256, k))
    at = {2**i: curves["best"][2**i] for i in range(9)}
    assert max(at, key=at.__getitem__) == 16 and at[64] < at[16] and at[256] == curves["majority"][256] == 0
    (text,) = said(store, "optimised")
    assert text.startswith("the verifier v is over-optimised: from the best of 16 to the best of 256 its score")
    falls = f"accuracy falls from {at[16]:.1%} to {at[64]:.1%} (best of 64), then 0.0%."
    assert text.endswith(falls.replace("%", " %"))


def test_a_fall_that_may_be_chance_is_no_over_optimisation(store: Store) -> None:
    """One problem of two loses: the interval over problems holds 0."""
    good = judged((0.1, 0.5, 0.5, 0.5), 10)
    write(store, "best_of_n", {**good, **judged((0.9, 0.5, 0.5, 0.5), 2)}, n=4, verifier="v")
    assert said(store, "optimised") == []


# Candidates without a verdict or an end


@pytest.mark.parametrize(("letters", "fires"), [("U" + "R" * 49, False), ("UU" + "R" * 48, True)])
def test_undecided_candidates(store: Store, letters: str, fires: bool) -> None:
    """2 % are let pass, 4 % not."""
    write(store, "sample", single(letters))
    text = "sample: 2 of 50 candidates could not be graded and count as wrong."
    assert said(store, "undecided") == ([text] if fires else [])


@pytest.mark.parametrize("cut", [1, 2])
def test_truncated_candidates(store: Store, cut: int) -> None:
    """5 % are let pass, 10 % not."""
    found = single("R" * 20) | {f"p{i:02}": Found([Said("RT", None)], best=None) for i in range(cut)}
    write(store, "sample", found)
    assert len(said(store, "truncated")) == cut - 1


# Runs that do not fit together


def test_different_selections_of_one_task(store: Store) -> None:
    write(store, "greedy", single("RR"), problems_sha256="a")
    assert said(store, "problems") == []
    write(store, "greedy", single("RW"), problems_sha256="b", task="other")
    assert said(store, "problems") == [], "another task is another matter"
    write(store, "greedy", single("RW"), problems_sha256="b")
    (text,) = said(store, "problems")
    assert text.startswith("letters: 2 different selections of problems")


def test_fewer_problems_than_the_others(store: Store) -> None:
    write(store, "greedy", single("RRRR"))
    run = write(store, "sample", single("RR"), finish=False)
    assert said(store, "problems") == ["sample has 2 of the 4 problems; differences use the common ones."]
    assert said(store, "unfinished") == [f"sample is unfinished. Go on with: flyweight bench resume {run}"]
    assert report(store).sections[0].differences[0].problems == 2


@pytest.mark.parametrize("stopped", list(Stopped))
def test_failed_searches(store: Store, stopped: Stopped) -> None:
    run = write(store, "sample", single("RR") | {"p02": Found([], None, stopped=stopped)})
    expected = f"sample: 1 of 3 searches ended in an error and count as wrong. Again: flyweight bench retry {run}"
    assert said(store, "failed") == ([expected] if stopped is Stopped.ERROR else [])
    assert said(store, "unfinished") == []


def test_a_warning_names_the_model_where_there_are_several(store: Store) -> None:
    write(store, "sample", single("UU"))
    assert said(store, "undecided")[0].startswith("sample: ")
    write(store, "sample", single("RR"), model="big")
    assert said(store, "undecided")[0].startswith("m sample: ")
