"""Adversarial answers: nothing hangs, crashes, leaks processes or is called correct."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from answers_poison import FAMILIES, Poison, poison
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.answers import canonical, classes, client, compare, extract, grade, warm
from flyweight.types import Grade, Verdict

ALL = len(FAMILIES) * 40


def judge(item: Poison) -> Grade:
    return grade(extract(item.text), item.gold)


def run(items: list[Poison]) -> list[tuple[Poison, Grade, float]]:
    warm(wait=True)
    out = []
    for item in items:
        start = time.perf_counter()
        verdict = judge(item)
        out.append((item, verdict, time.perf_counter() - start))
    return out


def check(results: list[tuple[Poison, Grade, float]]) -> None:
    assert not [i.family for i, g, _ in results if g.value == "correct" and not i.may_be_correct]
    assert not [i.family for i, g, _ in results if g.value == "undecided" and not g.reason]
    slowest = max(results, key=lambda result: result[2])
    assert slowest[2] <= 2.0, (slowest[0].family, slowest[2])


def test_a_sample_of_poison() -> None:
    assert len(FAMILIES) == 25
    check(run(poison()[::10]))


@pytest.mark.slow
def test_all_poison() -> None:
    results = run(poison())
    assert len(results) == ALL == 1_000
    check(results)
    assert sorted(seconds for *_, seconds in results)[950] <= 0.1


@pytest.mark.slow
def test_all_poison_from_threads_gives_the_same_grades() -> None:
    items = poison()
    wanted = [judge(item) for item in items]
    client._settled.clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(judge, items)) == wanted


PIECES = (
    "1 2 10 0.5 .25 1,000 x y \\frac{1}{2} \\frac \\sqrt{ \\sqrt2 } { ( ) [ ] + - * / ^ ^2 _ _1 = < \\le , ; : $ % \\% "
    "\\pi \\text{ \\text{cm} and or \\pm \\cup \\infty \\{ \\} \\left( \\right) dollars Paris | ! \\sin \\log . \u00b0 \u2212 \\\\ & "
    "\\begin{pmatrix} \\end{pmatrix} \\boxed{ e i 9^9 \\in \\approx \n"
).split(" ")
TEXTS = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=14).map("".join))


def total(a: str, b: str) -> None:
    """No exception, a verdict that is symmetric and reflexive, keys that imply equality."""
    first = compare(a, b)
    assert isinstance(first, Verdict)
    assert first.value == compare(b, a).value
    assert compare(a, a).value == "equal"
    if canonical(a) == canonical(b):
        assert first.value == "equal"
    extract(a + b)
    grade(a, b)
    classes([a, b, None])


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(TEXTS, TEXTS)
def test_random_pairs(a: str, b: str) -> None:
    total(a, b)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=10_000, deadline=None, derandomize=True, database=None)
@given(TEXTS, TEXTS)
def test_many_random_pairs(a: str, b: str) -> None:
    total(a, b)


def test_spacing_dollars_and_boxes_never_change_a_key() -> None:
    chooser = random.Random(3)
    for _ in range(300):
        value = f"{chooser.randint(-999, 999)}/{chooser.randint(1, 99)}"
        for dressed in (f"${value}$", f" {value} ", f"\\boxed{{{value}}}", f"({value})", f"x = {value}", f"{value}."):
            assert canonical(dressed) == canonical(value)
