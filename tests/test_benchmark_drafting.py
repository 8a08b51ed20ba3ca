"""The drafting benchmark against steps counted by hand and a naive search."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from benchmarks import drafting
from benchmarks.drafting import Count, Question


def test_own_text_by_hand() -> None:
    # [] -> 1 | 1 was followed by 2 3: both kept, then 1 | again 2 3: 2 kept, 9 drawn
    assert drafting.walk(Question([1, 2, 3], [[1, 2, 3, 1, 2, 9]]), "own", 1, 2) == Count(3, 6, 4, 3)
    # Two tokens are looked up: 2 3 was never followed by anything, 3 1 neither, then 1 2 by 3 1: refused.
    assert drafting.walk(Question([1, 2, 3], [[1, 2, 9]]), "own", 2, 2) == Count(3, 3, 2, 0)


def test_own_text_forgets_the_other_samples() -> None:
    question = Question([7], [[1, 2, 3, 4], [1, 2, 3, 4]])
    assert drafting.walk(question, "own", 1, 2) == Count(8, 8, 0, 0)


def test_earlier_samples_by_hand() -> None:
    # The first sample costs four steps. The second: 7 -> 1 2 kept, 3 | 3 -> 4 kept, and nothing comes after the end.
    question = Question([7], [[1, 2, 3, 4], [1, 2, 3, 4]])
    assert drafting.walk(question, "earlier", 1, 2) == Count(6, 8, 3, 3)
    # A sample repeating only itself has nothing to look up.
    assert drafting.walk(Question([1, 2], [[1, 2, 1, 2]]), "earlier", 1, 2) == Count(4, 4, 0, 0)


def test_abreast_sees_only_what_earlier_steps_drew() -> None:
    # Third step: the second sample follows the first, 1 -> 2, which had not drawn its 3 before this step.
    question = Question([7], [[1, 2, 3], [5, 1, 2, 3]])
    assert drafting.walk(question, "abreast", 1, 2) == Count(6, 7, 1, 1)


@pytest.mark.parametrize("source", drafting.SOURCES)
def test_every_token_is_drawn_once(source: str) -> None:
    draws = random.Random(0)
    samples = [[draws.randrange(3) for _ in range(draws.randrange(30))] for _ in range(5)]
    found = drafting.walk(Question([0, 1, 2, 0], [s for s in samples if s]), source, 2, 4)
    assert found.tokens == sum(map(len, samples)) and found.kept > 0
    # A step yields what it keeps and one token more, except where a sample ends with a kept one.
    assert 0 <= found.steps + found.kept - found.tokens <= len(samples)


@pytest.mark.parametrize(("k", "d"), [(1, 2), (2, 4), (3, 8)])
def test_own_text_against_a_naive_search(k: int, d: int) -> None:
    draws = random.Random(k)
    prompt, sample = ([draws.randrange(3) for _ in range(n)] for n in (20, 200))
    known, count = list(prompt), Count()
    while len(known) < 220:
        begins = [i for i in range(len(known) - k) if known[i : i + k] == known[-k:]]
        proposed = known[begins[-1] + k :][:d] if begins else []
        coming = sample[len(known) - 20 :]
        kept = max(n for n in range(len(proposed) + 1) if proposed[:n] == coming[:n])
        drawn = coming[: kept + 1]
        count = count.plus(Count(1, len(drawn), len(proposed), kept))
        known += drawn
    assert count.kept > 20
    assert drafting.walk(Question(prompt, [sample]), "own", k, d) == count


def test_seconds_follow_straight_lines() -> None:
    rates = {1: 10.0, 5: 25.0, 9: 30.0}  # steps of 0.1, 0.2 and 0.3 s
    assert [drafting.seconds(rows, rates) for rows in (1, 3, 5, 9, 13)] == pytest.approx([0.1, 0.15, 0.2, 0.3, 0.4])
    # Two tokens a step for 1.5 times the time; no gain once a row costs what a token does.
    assert drafting.speedup(2.0, 3.0, 1, rates) == pytest.approx(2 / 1.5)
    assert drafting.speedup(2.0, 2.0, 4, {1: 10.0, 2: 10.0}) == pytest.approx(1.0)


def test_rates_are_those_of_the_longest_context(tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    assert drafting.measured(path) == (drafting.RATES, "RATES")
    engine = {"widths/1/30": 9, "widths/1/400": 7, "widths/8/30": 50, "widths/8/400": 40, "extras/8": 0}
    rows = {name: {"engine": {"rate": [rate - 1, rate, rate + 5]}} for name, rate in engine.items()}
    path.write_text(json.dumps({"rows": rows}))
    assert drafting.measured(path) == ({1: 7, 8: 40}, "engine.json")
