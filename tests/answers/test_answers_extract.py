"""Finding the answer in a solution."""

from __future__ import annotations

import time

import pytest

from flyweight import answers
from flyweight.answers import extract
from flyweight.errors import ConfigError

MATH = [
    (r"So \boxed{18}.", "18"),
    (r"\boxed{\frac{1}{2}} and done", r"\frac{1}{2}"),
    (r"\boxed{Paris}", "Paris"),
    (r"first \boxed{3}, no: \boxed{4}. Then \boxed{5", "4"),
    (r"\fbox{7}", "7"),
    (r"\boxed{1} and \boxed{-2}", "1, -2"),
    (r"\boxed{5} \boxed{5}", "5"),
    (r"\boxed 9", "9"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    ("The final answer is 12,000,023. I hope it is correct.", "12,000,023"),
    ("The answer is $\\frac{3}{4}$. I hope it is correct.", "\\frac{3}{4}"),
    ("Final Answer: Jane started 3 hours ago. I hope so.", "3"),
    ("Final Answer: The largest $n$ is 34.", "34"),
    ("Answer: x = 5", "x = 5"),
    ("The answer is Paris.", "Paris"),
    ("**Answer:** 42", "42"),
    ("She pays 3 * 6 = 18. The answer is 3 * 6 = 18 dollars.", "18"),
    ("the answer was 5\n#### 3200", "3200"),
    ("She earns $5 for eggs and $6 for milk, so $11 in all", "$11"),
    ("It costs 1,800 dollars", "1,800"),
    ("It is 50 percent", "50 percent"),
    ("the ratio is 3/4 overall", "3/4"),
    ("Soucis : 2,74 $ a..", "2.74"),
    ("Answer: 5:30 PM", "5:30"),
    ("The answer is 5 million.", "5 million"),
    ("The answer is $1.5 million or $2 million.", "$1.5 million, $2 million"),
    ("The answer is $5$ million.", "5 million"),
    ("The answer is 5 millionths", "5"),
    ("The answer is 5 1/2 feet", "5 1/2"),
    ("The answer is 5 1/2/2020 at the latest", "5, 1"),
    ("The solution is x = 2 or x = -3.", "x = 2, x = -3"),
    ("The answer is x = 2 feet and y = 1,300 feet.", "x = 2, y = 1,300"),
    (r"The solution is x = \sqrt{2} or x = -\sqrt{2}.", r"x = \sqrt{2}, x = -\sqrt{2}"),
    ("The answer is 3 + 4 = 7 and 7 * 2 = 14 dollars.", "14"),
    ("The answer is the point (2,3).", "(2,3)"),
    ("The answer is the points (1, 2) and (3, 4).", "(1, 2), (3, 4)"),
    ("The answer is the interval [0, 5).", "[0, 5)"),
    ("The answer is the distance from (0,0) to (3,4), 5 units.", "5"),
    ("The answer is one thousand two hundred (1,200) dollars.", "1,200"),
    ("The answer is a price of 2,74 euros", "2.74"),
    ("x^2+1", "x^2+1"),
    ("Therefore $x < 5$ is the solution.", "x < 5"),
    ("10-5 apples left: 5", "5"),
    ("temperature fell to -5 yesterday", "-5"),
    ("nothing to see here", None),
    ("", None),
    (r"\boxed{}", None),
]


@pytest.mark.parametrize(("text", "wanted"), MATH)
def test_math(text: str, wanted: str | None) -> None:
    assert extract(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The answer is (B).", "B"),
        ("**C**", "C"),
        ("d", "D"),
        (r"so \boxed{\text{(E)}}", "E"),
        ("A cat sat. I think option D is right", "D"),
        ("Answer: A) because B is wrong", "A"),
        ("The correct choice: (C) 12", "C"),
        ("So the answer is C. Option A fails.", "C"),
        ("The best option is B. Option A fails.", "B"),
        ("The answer is A. But no, final answer B", "B"),
        ("The answer is I believe (B).", "B"),
        ("The answer is a bit tricky. (C)", "C"),
        ("The answer is A because B is wrong", "A"),
        ("The answer is a", "A"),
        ("The answer is I.", "I"),
        ("no letters here", None),
    ],
)
def test_choice(text: str, wanted: str | None) -> None:
    assert extract(text, "choice") == wanted


def test_json() -> None:
    text = 'Thinking {not json} then {"b": 1, "a": {"x": [1, 2]}} done'
    assert extract(text, "json") == '{"a":{"x":[1,2]},"b":1}'
    assert extract(text, "json:b") == "1"
    assert extract(text + ' {"c": "yes "}', "json:c") == "yes"
    assert extract(text, "json:zzz") is None
    assert extract('{"a": NaN}', "json") is None
    assert extract('{"a":' * 5_000, "json") is None


def test_code_and_text() -> None:
    text = "Here:\n```python\ndef f():\n    return 1\n```\nor\n```python\ndef g():\n    return 2\n```\nbye"
    assert extract(text, "code") == "def g():\n    return 2"
    assert extract("def f():\n    return 1\n", "code") == "def f():\n    return 1"
    assert extract("```\nx = 1", "code") == "x = 1"
    assert extract(text.replace("\n", "\r\n"), "code") == "def g():\r\n    return 2"
    assert extract("I cannot", "code") is None
    assert extract("  any words \n", "text") == "any words"
    assert extract("  ", "text") is None


@pytest.mark.parametrize("kind", ["maths", "json:", "math:x", ""])
def test_unknown_kind_is_one_line(kind: str) -> None:
    with pytest.raises(ConfigError, match="unknown answer kind") as error:
        extract("1", kind)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "seed", [r"\boxed{", "{", "}", "$", "1,", "1", "-", "the answer is ", "#### ", "\\[", "```\n", '{"a":', "(A) "]
)
def test_long_hostile_text_is_read_once(seed: str) -> None:
    text = seed * (1_000_000 // len(seed))
    for kind in ("math", "choice", "json", "code"):
        start = time.perf_counter()
        extract(text, kind)
        assert time.perf_counter() - start < 2.0  # a hang guard: quadratic code needs minutes


def test_public_names_are_exact() -> None:
    assert answers.__all__ == sorted(answers.__all__)
    assert answers.__all__ == ["canonical", "classes", "compare", "extract", "grade", "warm"]
