"""Every compiled pattern of the package stays linear on 50 kB of text made to upset it."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from types import ModuleType

import pytest

import flyweight
import flyweight.answers

SIZE = 50_000
LIMIT_SECONDS = 0.2
"""A hang guard: measured under 0.05 s on a quiet machine, where a quadratic pattern needs many seconds."""
SEEDS = [
    "a", "A", "1", " ", "\n", ".", ",", "-", "$", "{", "}", "(", "[", "\\", "^", "=", "*", "_", "`", "#", "<", "&",
    "1,", "1,234", "1.", "1 ", "1 234", "a ", "a1", "ab ", "word ", "$ ", "$a", "1$", "\\boxed{", "\\boxed ", "\\frac",
    "\\frac{1}", "\\text{", "\\text{a", "\\text{ and }", "\\text{cm}/", "\\left(", "\\sum", "\\sum_{", "\\sum=^", "^{",
    "^{a{", "^(", "^ ", "answer is ", "answer: ", "answer", "Answer (", "#### ", "```\n", "```", "\n```python\n",
    "\\[", "\\(", "\\[\\", "(A) ", "**A", "and ", "or ", ", and ", "1 and ", "1/", "1/1", "1e", "1%", "\\%", "10 m",
    "a/b ", "a-", "_{", "_{a}", "\\begin{pmatrix}", "matrix}^", "{,}", "\\! ", "1\\!", "\\quad", "x_", "import", "__",
    "lambda ", "0,", "00", "-1", "--", "\u2212", "\u20ac1", "is ", " is", "about ", "http://", "a.b",
    "a@", "%", ":", ";",
]  # fmt: skip


def patterns(package: ModuleType) -> dict[str, re.Pattern[str]]:
    """Compiled text patterns found at module level anywhere in a package."""
    found: dict[str, re.Pattern[str]] = {}
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("__main__"):
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ImportError:  # an extra that is not installed
            continue
        for name, value in vars(loaded).items():
            for at, item in enumerate(value if isinstance(value, (tuple, list)) else [value]):
                for part in item if isinstance(item, tuple) else (item,):
                    if isinstance(part, re.Pattern) and isinstance(part.pattern, str):
                        found[f"{module.name}.{name}[{at}]"] = part
    return found


def slow_patterns(package: ModuleType, seeds: list[str]) -> list[tuple[str, str, float]]:
    """Patterns that need longer than the limit on some text, with the text's seed and the quickest of three runs."""
    texts = [(seed, (seed * (SIZE // len(seed) + 1))[:SIZE] + "\x01") for seed in seeds]
    slow = []
    for name, pattern in patterns(package).items():
        for seed, text in texts:
            best = 1.0
            for _ in range(3):
                start = time.perf_counter()
                pattern.sub("", text)  # finds every match without Python's cost per match
                pattern.fullmatch(text)
                best = min(best, time.perf_counter() - start)
                if best <= LIMIT_SECONDS:
                    break
            if best > LIMIT_SECONDS:
                slow.append((name, seed, round(best, 3)))
    return slow


def test_every_pattern_is_linear() -> None:
    assert len(patterns(flyweight.answers)) > 40
    assert slow_patterns(flyweight, [" ", "1", *SEEDS[::8]]) == []


@pytest.mark.slow
def test_every_pattern_is_linear_on_every_text() -> None:
    assert slow_patterns(flyweight, SEEDS) == []
