"""Countdown: reach a number from given numbers with + - * /, generated here and checked exactly."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, cast

from flyweight.errors import ConfigError
from flyweight.tasks import files, maths
from flyweight.types import Grade, Problem

__all__ = ["Countdown", "Value", "evaluate"]

MAX_TEXT = 100_000
MAX_EXPRESSION = 500
MAX_DEPTH = 50
MAX_DIGITS = 12

TOKEN = re.compile(r"\s{0,100}(?:([0-9]+)|([-+*/()]))")
PLAIN = re.compile(r"[0-9(][0-9+\-*/() ×÷·−]{2,500}")
OPERATOR = re.compile(r"[0-9)] *[-+*/×÷·−]")
SIGNS = {
    **{"×": "*", "·": "*", "÷": "/", "−": "-", "[": "(", "]": ")", "$": "", "\\,": "", "\\;": "", "\\!": ""},
    **{"\\times": "*", "\\cdot": "*", "\\div": "/", "\\left": "", "\\right": "", "\\(": "", "\\)": ""},
}
FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")


class Value(NamedTuple):
    """What an expression comes to."""

    value: int
    used: tuple[int, ...]
    """The numbers in it, sorted."""


class Countdown:
    """Reach a target from given numbers, each used at most once; made by the package, as many as wanted.

    Every problem has a solution that uses all its numbers. `numbers` (2 to 8) sets the difficulty, with `operations`
    (some of +-*/) and `largest`, the largest number given; the same settings and `seed` give the same problems.
    Splits, by the hash of the question (files.hash_split): train, calibration and development (the default); `count`
    problems of the split are made. `data` names a file of rows with numbers and target instead.

    Prompt: numbers and target, asked to reason step by step and box an expression. Answer: an expression of whole
    numbers, + - * / and parentheses (LaTeX's signs are read too). Checker: exact integer arithmetic; every number at
    most once, every division without remainder. Licence: generated, the package's own.

    Source: the game of the television programme Countdown (Des chiffres et des lettres, 1972); as a task for language
    models Gandhi et al. 2024, Stream of Search (2404.03683).
    """

    name = "countdown"
    splits = files.TRAINING

    def __init__(
        self,
        *,
        data: Path | None = None,
        split: str | None = None,
        count: int = 100,
        numbers: int = 4,
        operations: str = "+-*/",
        largest: int = 50,
        seed: int = 0,
    ) -> None:
        """ConfigError for a setting outside its range or a file that cannot be used."""
        files.check_split(self.name, split, self.splits)
        if data is not None:
            what = 'a Countdown row, which is {"numbers": [3, 7, 25], "target": 46}'
            rows = list(files.parsed(Path(data), what, _row).values())
            problems = files.chosen(rows, split, lambda problem: files.hash_split(problem.prompt), Path(data))
        else:
            if not (2 <= numbers <= 8 and 10 <= largest <= 1000 and 1 <= count <= 100_000):
                raise ConfigError(
                    f"countdown: numbers={numbers}, largest={largest}, count={count}; "
                    "need 2 to 8 numbers, largest 10 to 1000, count 1 to 100000"
                )
            if not operations or set(operations) - set("+-*/") or not set(operations) & set("+*"):
                raise ConfigError(f"countdown: operations={operations!r}; need some of +-*/, with + or * among them")
            made = _generated(f"{seed} {numbers} {operations} {largest}", numbers, operations, largest)
            wanted = (problem for problem in made if files.hash_split(problem.prompt) == (split or "development"))
            problems = list(islice(wanted, count))
            if len(problems) < count:
                raise ConfigError(f"countdown: only {len(problems)} different problems with these settings")
        self._problems = tuple(problems)

    def problems(self) -> Sequence[Problem]:
        """Every problem, in the order made."""
        return self._problems

    def extract(self, text: str) -> str | None:
        """The boxed expression, or the last one in plain text; None without one."""
        from flyweight import answers

        text = text[-MAX_TEXT:]
        if "\\boxed" in text or "\\fbox" in text:
            return answers.extract(text, "math")
        found = [match.group().strip() for match in PLAIN.finditer(text) if OPERATOR.search(match.group())]
        return found[-1] if found else None

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        """Indices grouped by equal value from equal numbers, largest group first; None and what is no expression in
        no class. Two answers of a class are right or wrong together.
        """
        groups: dict[Value, list[int]] = {}
        for index, answer in enumerate(answers):
            if answer is not None:
                try:
                    groups.setdefault(evaluate(answer), []).append(index)
                except ValueError:
                    continue
        return sorted(groups.values(), key=lambda group: (-len(group), group[0]))

    def grade(self, problem: Problem, text: str) -> Grade:
        """Whether the expression is allowed and gives the target; never undecided."""
        numbers = cast("Sequence[int]", problem.meta["numbers"])  # a list, once it has been through a store
        target = problem.meta["target"]
        answer = self.extract(text)
        if answer is None:
            return Grade("wrong", "no expression in the answer")
        try:
            value, used = evaluate(answer)
        except ValueError as error:
            return Grade("wrong", str(error))
        excess = Counter(used) - Counter(numbers)
        if excess:
            return Grade("wrong", f"uses {', '.join(map(str, sorted(excess.elements())))} more often than given")
        return Grade("correct") if value == target else Grade("wrong", f"gives {value}")


def evaluate(expression: str) -> Value:
    """Value and numbers of an expression of whole numbers, + - * / and parentheses; "= 24" beside it is ignored.

    ValueError, with the reason, for anything else: a division with a remainder or by zero, more than 500 characters,
    50 levels or 12 digits.
    """
    text = expression
    for sign, plain in SIGNS.items():
        text = text.replace(sign, plain)
    while (simpler := FRACTION.sub(r"((\1)/(\2))", text)) != text:
        text = simpler
        if len(text) > MAX_EXPRESSION:
            break
    sides = [side for side in text.split("=") if OPERATOR.search(side)] or [text]
    if len(sides[0]) > MAX_EXPRESSION:
        raise ValueError(f"an expression longer than {MAX_EXPRESSION} characters")
    return _Parser(sides[0]).whole()


class _Parser:
    """Recursive descent: sum = product (+- product)*, product = atom (*/ atom)*, atom = number | -atom | (sum)."""

    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text.strip()))
        self.at = self.depth = 0
        self.used: list[int] = []

    def whole(self) -> Value:
        value = self.sum()
        if self.at < len(self.tokens):
            raise ValueError(f"not an expression: stops at {self.tokens[self.at]!r}")
        return Value(value, tuple(sorted(self.used)))

    def next(self, *allowed: str) -> str | None:
        """The next token if it is one of these."""
        if self.at < len(self.tokens) and self.tokens[self.at] in allowed:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def sum(self) -> int:
        value = self.product()
        while sign := self.next("+", "-"):
            other = self.product()
            value = value + other if sign == "+" else value - other
        return value

    def product(self) -> int:
        value = self.atom()
        while sign := self.next("*", "/"):
            other = self.atom()
            if sign == "*":
                value *= other
            elif other == 0 or value % other:
                raise ValueError(f"{value} / {other} is not a whole number")
            else:
                value //= other
        return value

    def atom(self) -> int:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        try:
            if self.next("-"):
                return -self.atom()
            if self.next("("):
                value = self.sum()
                if not self.next(")"):
                    raise ValueError("not an expression: a parenthesis is not closed")
                return value
            if self.at < len(self.tokens) and self.tokens[self.at].isdigit():
                self.at += 1
                self.used.append(int(self.tokens[self.at - 1]))
                return self.used[-1]
        finally:
            self.depth -= 1
        raise ValueError("not an expression: a number is missing")


def _tokens(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"not an expression: {text[at : at + 20].strip()!r}")
        if len(match.group(1) or "") > MAX_DIGITS:
            raise ValueError(f"a number of more than {MAX_DIGITS} digits")
        at = match.end()
        yield match.group(1) or match.group(2)


def _generated(seed: str, count: int, operations: str, largest: int) -> Iterator[Problem]:
    """Different problems without end; it ends when new ones can no longer be found."""
    rng = random.Random(seed)  # a string seed is hashed with sha512, the same everywhere
    seen: set[tuple[tuple[int, ...], int]] = set()
    misses = 0
    while misses < 10_000:
        numbers = sorted(rng.randint(1, largest) for _ in range(count))
        found = _solution(rng, numbers, operations)
        misses += 1
        if found is None:
            continue
        target, solution = found
        key = (tuple(numbers), target)
        if target in numbers or not 10 <= target <= 20 * largest or key in seen:
            continue
        seen.add(key)
        misses = 0
        yield _problem(numbers, target, solution)


def _solution(rng: random.Random, numbers: Sequence[int], operations: str) -> tuple[int, str] | None:
    """(value, expression) of a random tree over all the numbers; None when a step is not allowed or adds nothing."""
    parts = [(number, str(number)) for number in numbers]
    while len(parts) > 1:
        a, b = (parts.pop(rng.randrange(len(parts))) for _ in range(2))
        sign = rng.choice(operations)
        if a[0] < b[0]:
            a, b = b, a
        if sign == "-" and a[0] == b[0]:
            return None
        if (sign in "*/" and b[0] == 1) or (sign == "/" and a[0] % b[0]):
            return None
        value = {"+": a[0] + b[0], "-": a[0] - b[0], "*": a[0] * b[0]}.get(sign, a[0] // b[0])
        parts.append((value, f"({a[1]} {sign} {b[1]})"))
    value, expression = parts[0]
    return value, expression[1:-1]


def _problem(numbers: Sequence[int], target: int, solution: str | None) -> Problem:
    given = f"{', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    question = (
        f"Use the numbers {given}, each at most once, to make {target}. You may add, subtract, multiply, divide where "
        "nothing is left over, and use parentheses. The answer is the expression alone, without an equals sign."
    )
    meta = {"numbers": tuple(numbers), "target": target}
    return maths.problem(f"countdown-{files.sha(question)[:12]}", question, solution or "", meta)


def _row(row: Mapping[str, object]) -> tuple[str, Problem]:
    """(id, problem)."""
    numbers, target = row.get("numbers", row.get("nums")), row["target"]
    if not isinstance(numbers, list) or len(numbers) < 2 or not all(type(n) is int and 0 <= n < 10**9 for n in numbers):
        raise TypeError("numbers is a list of at least two whole numbers")
    if type(target) is not int:
        raise TypeError("target is a whole number")
    problem = _problem(numbers, target, None)
    return problem.id, problem
