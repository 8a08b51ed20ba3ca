"""Countdown: the checker against brute force and by hand, and problems that are the same everywhere."""

from __future__ import annotations

import json
import random
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight import tasks
from flyweight.errors import ConfigError
from flyweight.tasks import files
from flyweight.tasks.countdown import Countdown, evaluate
from flyweight.types import Problem

CASE = Problem("p", "?", meta={"numbers": (2, 3, 25, 25), "target": 56})


@pytest.mark.parametrize(
    ("text", "value", "reason"),
    [
        ("so \\boxed{25 + 25 + 2 * 3}", "correct", ""),
        ("so \\boxed{(25+25)+3\\times 2 = 56}.", "correct", ""),
        ("so \\boxed{56 = 2 \\cdot \\left(25 + 3\\right)}", "correct", ""),
        ("First 25+25 = 50.\nThen (25 + 3) × 2 = 56", "correct", ""),
        ("\\boxed{\\frac{25+25}{2}+25+3}", "wrong", "uses 25 more often"),
        ("\\boxed{25*2+3+3}", "wrong", "uses 3 more often"),
        ("\\boxed{7*8}", "wrong", "uses 7, 8 more often"),
        ("\\boxed{25+25}", "wrong", "gives 50"),
        ("\\boxed{25/2*3}", "wrong", "25 / 2 is not a whole number"),
        ("\\boxed{25/(2-3+25-25+1)}", "wrong", "more often|not a whole number"),
        ("\\boxed{25/(25-25)}", "wrong", "25 / 0 is not a whole number"),
        ("\\boxed{56}", "wrong", "uses 56"),
        ("\\boxed{25 plus 25}", "wrong", "not an expression"),
        ("\\boxed{2**25}", "wrong", "a number is missing"),
        ("\\boxed{(25+25}", "wrong", "not closed"),
        ("\\boxed{25+25)}", "wrong", "stops at '\\)'"),
        ("\\boxed{2(25+3)}", "wrong", "stops at '\\('"),
        ("\\boxed{__import__('os').getpid()}", "wrong", "not an expression"),
        ("I cannot do it.", "wrong", "no expression"),
        ("It is 56.", "wrong", "no expression"),
    ],
)
def test_grading_by_hand(text: str, value: str, reason: str) -> None:
    grade = Countdown(count=1).grade(CASE, text)
    assert grade.value == value, grade
    assert re.search(reason, grade.reason)


def expressions(rng: random.Random, depth: int) -> tuple[str, Fraction | None, list[int]]:
    """A random expression with its value (None when a division leaves a remainder) and its numbers."""
    if depth == 0 or rng.random() < 0.2:
        number = rng.randint(0, 12)
        return str(number), Fraction(number), [number]
    a, x, used = expressions(rng, depth - 1)
    b, y, more = expressions(rng, depth - 1)
    sign = rng.choice("+-*/")
    value: Fraction | None = None
    if x is not None and y is not None and (sign != "/" or y):
        value = {"+": x + y, "-": x - y, "*": x * y}.get(sign, x / y if y else None)
        value = value if value is not None and value.denominator == 1 else None
    return f"({a} {sign} {b})", value, used + more


@given(st.integers(0, 10**9))
def test_evaluation_equals_exact_fractions(seed: int) -> None:
    text, value, used = expressions(random.Random(seed), 4)
    if value is None:
        with pytest.raises(ValueError, match="is not a whole number"):
            evaluate(text)
    else:
        assert evaluate(text) == (int(value), tuple(sorted(used)))


def test_precedence_and_sides() -> None:
    assert evaluate("2 + 3 * 4 - 6 / 3").value == 12
    assert evaluate("10 - 3 - 2").value == 5 and evaluate("24 / 4 / 2").value == 3
    assert evaluate("-3 + 5") == (2, (3, 5)) and evaluate("2 * -3").value == -6
    assert evaluate("20 = 4 * 5 = 20").value == 20
    assert evaluate("\\frac{6}{2}+\\frac{8}{\\frac{4}{2}}").value == 7
    for text in (
        "(" * 60 + "1" + ")" * 60,
        "-" * 60 + "1",
        "1+" * 300 + "1",
        "1" * 13,
        "",
        "1.5 + 2",
        "\uff11 + 1",
        "\u0663+\u0661",
    ):
        with pytest.raises(ValueError):
            evaluate(text)


def test_classes_are_right_or_wrong_together() -> None:
    answers = ["25+25+2*3", "3*2+(25+25)", "2*(25+3)", "50+6", None, "nonsense", "25+25+6"]
    assert Countdown(count=1).classes(answers, Problem("p", "?")) == [[0, 1], [2], [3], [6]]


@pytest.mark.parametrize("numbers", [2, 3, 6])
@pytest.mark.parametrize("operations", ["+-*/", "+", "*-"])
def test_problems_are_solvable_and_the_same_for_the_same_seed(numbers: int, operations: str) -> None:
    settings: dict[str, Any] = {"numbers": numbers, "operations": operations, "count": 15, "seed": 3}
    task = tasks.load("countdown", **settings)
    problems = task.problems()
    assert len({p.id for p in problems}) == len({p.prompt for p in problems}) == 15
    for problem in problems:
        assert files.hash_split(problem.prompt) == "development"
        answer = problem.answer or ""
        assert task.grade(problem, f"\\boxed{{{answer}}}").value == "correct"
        assert evaluate(answer).used == problem.meta["numbers"] and len(evaluate(answer).used) == numbers
        assert set(answer) & set("+-*/") <= set(operations)
    assert tasks.load("countdown", **settings).problems() == problems
    assert tasks.load("countdown", **{**settings, "count": 5}).problems() == problems[:5]
    assert tasks.load("countdown", **{**settings, "seed": 4}).problems() != problems


def test_the_default_problems_never_change() -> None:
    first = tasks.load("countdown", count=1).problems()[0]
    assert (first.id, first.answer) == ("countdown-9f5b330efff5", "23 + ((25 - 7) - 2)")
    assert first.meta == {"numbers": (2, 7, 23, 25), "target": 39}
    assert "2, 7, 23 and 25, each at most once, to make 39" in first.prompt


def test_splits_share_no_question() -> None:
    prompts = [
        {p.prompt for p in tasks.load("countdown", split=split, count=200).problems()} for split in files.TRAINING
    ]
    assert len(set.union(*prompts)) == 600
    assert all(
        files.hash_split(prompt) == split
        for split, some in zip(files.TRAINING, prompts, strict=True)
        for prompt in some
    )


def test_files_and_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"nums": [3, 7, 25], "target": 46}) + "\n")
    [problem] = tasks.load("countdown", file).problems()
    assert problem.meta == {"numbers": (3, 7, 25), "target": 46}
    assert tasks.load("countdown", file).grade(problem, "\\boxed{3*7+25}").value == "correct"
    for row in ('{"numbers": [1], "target": 2}', '{"numbers": [1, 2.5], "target": 2}', '{"numbers": [1, 2]}', "[]"):
        file.write_text(row)
        with pytest.raises(ConfigError, match="line 1: not a Countdown row"):
            tasks.load("countdown", file)
    for setting in (
        {"numbers": 1},
        {"numbers": 9},
        {"largest": 5},
        {"count": 0},
        {"operations": "-/"},
        {"operations": "^"},
    ):
        with pytest.raises(ConfigError, match=r"countdown: .*need"):
            tasks.load("countdown", **setting)
    with pytest.raises(ConfigError, match=r"only [0-9]+ different problems"):
        tasks.load("countdown", numbers=2, largest=10, operations="+", count=500)
    with pytest.raises(ConfigError, match="unknown setting of task countdown 'number'; did you mean 'numbers'"):
        tasks.load("countdown", number=3)
    with pytest.raises(ConfigError, match="unknown split of countdown 'test'"):
        tasks.load("countdown", split="test")
