"""Keys, verdicts and grades against published vectors, a hand-checked golden set and everyday GSM8K answers."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from flyweight.answers import canonical, compare, extract, grade

pytest.importorskip("math_verify")
DATA = Path(__file__).parents[1] / "data" / "grading"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is equal does not hang on how busy the machine is."""
    monkeypatch.setattr(sys.modules["flyweight.answers.compare"], "LIMIT_SECONDS", 20.0)


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


UNSUPPORTED = {
    ("$f(x)$", "$f(y)$", True): "strict=False: we never rename variables",
    (r"$(\begin{pmatrix}\frac{1}{3}\\ \frac{1}{5} \end{pmatrix})$", r"$\begin{pmatrix}0.33\\0.2 \end{pmatrix}$", True):
        "precision=2: a decimal needs four places to stand for a fraction",
    (r"$\\boxed{35 cm} ++++++ \\boxed{4}$", "${35 cm,4}$", True): "boxes joined by plus signs are no list",
}  # fmt: skip


def test_math_verify_vectors() -> None:
    vectors = rows("math_verify_vectors.jsonl")
    wrong = []
    for row in vectors:
        gold, answer = extract(row["gold"]), extract(row["pred"])
        assert gold is not None
        correct = grade(answer, gold).value == "correct"
        if correct != row["equal"] and (row["gold"], row["pred"], row["equal"]) not in UNSUPPORTED:
            wrong.append((row["gold"], row["pred"][-80:], row["equal"]))
    assert len(vectors) == 160
    assert not wrong


def test_misc_vectors() -> None:
    vectors = rows("misc_equality_vectors.jsonl")
    wrong = [(r["gold"], r["pred"]) for r in vectors if (grade(r["pred"], r["gold"]).value == "correct") != r["equal"]]
    assert len(vectors) == 15
    # That template wants no arithmetic done for the answer; Math-Verify's own vectors want (9+1) to be 10.
    assert wrong == [("3245/5", "649")]


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_golden_pairs_both_ways(step: int) -> None:
    pairs = rows("golden_pairs.jsonl")[::step]
    verdicts = [(row, compare(row["a"], row["b"]).value) for row in pairs]
    false_positives = [row for row, value in verdicts if value == "equal" and not row["equal"]]
    false_negatives = [row for row, value in verdicts if value != "equal" and row["equal"]]
    assert len(pairs) * step >= 500
    assert len(false_positives) <= 0.002 * sum(not row["equal"] for row in pairs), false_positives
    assert len(false_negatives) <= 0.02 * sum(row["equal"] for row in pairs), false_negatives
    for row, value in verdicts[::10]:
        assert compare(row["b"], row["a"]).value == value


METAMORPHIC = [
    ["1/2", "0.5", ".5", r"\frac12", r"\frac{1}{2}", r"\dfrac{1}{2}", r"50\%", "50%", "50 percent", "$1/2$",
     r"\boxed{0.5}"],
    ["1800", "1,800", "1,800.00", "$1,800", "1800 dollars", "1{,}800", "1800.", "x = 1800", "+1800", "1 800"],
    ["-7/4", "-1.75", r"-\frac{7}{4}", r"\frac{-7}{4}", "-7/4 m", "x=-7/4", "7/(-4)", "-1.750"],
    ["(1, 2/3)", r"(1,\frac{2}{3})", r"\left(1, \frac23\right)", "( 1.0 , 2/3 )", "(x,y)=(1,2/3)"],
    ["2x+3", "3+2x", "2x + 3", "x*2+3", "3+2*x", "y = 2x+3", "$2x+3$"],
    ["{1, 2, 3}", r"\{3,2,1\}", "1, 2, 3", "3, 1 and 2", "1, 2, and 3", "1,2,3,3"],
    ["Paris", "paris", r"\text{Paris}", "PARIS", " Paris. ", r"\textbf{paris}"],
    ["0.25", "1/4", "25%", r"25\%", "0.250", r"\frac{25}{100}", "2/8", "$0.25", "0.25 dollars", r"\tfrac14"],
]  # fmt: skip


def test_metamorphic_keys() -> None:
    """Every spelling of one value shares its key: over 200 unordered pairs, compared both ways."""
    seen = 0
    for group in METAMORPHIC:
        assert len({canonical(answer) for answer in group}) == 1, {a: canonical(a) for a in group}
        for a, b in combinations(group, 2):
            assert compare(a, b).value == compare(b, a).value == "equal"
            seen += 2
    assert seen >= 300
    keys = [canonical(group[0]) for group in METAMORPHIC]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("answer", "gold", "value"),
    [
        ("18 dollars", "18", "correct"), ("$18.00", "18", "correct"), ("18.0", "18", "correct"),
        ("1,800", "1800", "correct"), ("1800", "1,800", "correct"), ("$1,800.00", "1,800", "correct"),
        ("5 hours", "5", "correct"), ("50%", "50", "correct"), ("50 percent", "50", "correct"),
        ("50%", "0.5", "correct"), ("28", r"28\%", "correct"), ("-3", "-3", "correct"), ("18.50", "18.5", "correct"),
        ("12 cookies per day", "12", "correct"), ("2 dozen", "24", "correct"), ("2 dozen", "2", "correct"),
        ("1.5 million", "1,500,000", "correct"), ("4", "4 million", "wrong"), ("4 thousand", "4 million", "wrong"),
        ("5:30 PM", "5:30", "correct"), ("8", r"8\text{ p.m.}", "correct"), ("8 am", "8 p.m.", "wrong"),
        (r"\text{10 pm}", "10", "correct"), ("10 degrees below zero", "10", "wrong"),
        ("81", "18", "wrong"), ("18.01", "18", "wrong"), ("1.8", "18", "wrong"), ("180", "18", "wrong"),
        ("-18", "18", "wrong"), ("5%", "50", "wrong"), ("18 or 20", "18", "wrong"), (None, "18", "wrong"),
        ("eighteen", "18", "wrong"), ("$1,800", "1.8", "wrong"), ("500%", "50", "wrong"),
    ],
)  # fmt: skip
def test_everyday_answers(answer: str | None, gold: str, value: str) -> None:
    assert grade(answer, gold).value == value


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        (r"\sqrt[3]{-8}", "-2", "equal"), (r"\sqrt[3]{-2}", r"-\sqrt[3]{2}", "equal"),
        (r"\sqrt[3]{-x}", r"-\sqrt[3]{x}", "equal"), (r"\sqrt[5]{-\frac{1}{32}}", "-1/2", "equal"),
        (r"\sqrt[3]{x-5}", "(x-5)^{1/3}", "equal"), (r"\sqrt[3]{8x-40}", "2(x-5)^{1/3}", "equal"),
        (r"\sqrt[3]{-8}", "2", "different"), (r"\sqrt[3]{-8}", r"1+i\sqrt{3}", "different"),
        (r"\sqrt[4]{-16}", "-2", "different"), (r"\sqrt[3]{x-5}", r"\sqrt[3]{5-x}", "different"),
    ],
)  # fmt: skip
def test_odd_roots_are_real(a: str, b: str, value: str) -> None:
    assert compare(a, b).value == compare(b, a).value == value


def test_what_only_algebra_could_say_of_odd_roots_is_not_different() -> None:
    assert compare(r"\sqrt[3]{x-5}", r"-\sqrt[3]{5-x}").value != "different"
    assert compare(r"\sqrt[3]{2+\sqrt{5}}+\sqrt[3]{2-\sqrt{5}}", "1").value != "different"


def test_words_that_change_a_value_are_no_units() -> None:
    apart = ["10", "10 pm", "10 am", "3:30 am", r"3:30\text{ p.m.}", "-10", "10 less", "10 negative"]
    apart += ["10 degrees below zero", "10.5 degrees below zero"]
    assert len({canonical(answer) for answer in apart}) == len(apart)
    assert all(compare(a, b).value == "different" for a, b in combinations(apart, 2))
    assert canonical("10 pm") == canonical("10 P.M.") == canonical(r"10\text{ p.m.}")


def test_direction_of_grading_and_symmetry_of_comparing() -> None:
    inequality, interval = r"-2 \le x \le 7", r"x \in [-2,7]"
    assert grade(interval, inequality).value == "correct"
    assert grade(inequality, interval).value == "wrong"
    assert compare(inequality, interval).value == compare(interval, inequality).value == "equal"


def test_other_kinds() -> None:
    assert compare("(b)", "B", "choice").value == "equal"
    assert compare("a", "B", "choice").value == "different"
    assert compare('{"a": 1, "b": 2}', '{"b":2,"a":1}', "json").value == "equal"
    assert compare('{"a": 1}', '{"a": 2}', "json").value == "different"
    assert compare("0.50", "1/2", "json:price").value == "equal"
    assert compare("Hello  World", "hello world", "text").value == "equal"
    assert compare("x = 1 ", "x = 1", "code").value == "equal"
    assert compare("x = 1", "x = 2", "code").value == "undecided"
    assert grade("b", "B", "choice").value == "correct"


def test_rounding_needs_enough_places() -> None:
    assert compare("0.33", "1/3").value == "different"
    assert compare("0.3333", "1/3").value == "equal"
    assert compare("0.0001", "1/12000").value == "different"
    assert compare("3.1416", r"\pi").value == "different"
    assert compare("3.141593", r"\pi").value == "equal"
    assert compare("1.2346", "1.23456").value == "different"
