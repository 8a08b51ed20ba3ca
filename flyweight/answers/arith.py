"""A small reader of arithmetic and algebra: exact rationals, a canonical spelling, and values at fixed points.

It never needs a computer algebra system: what two formulas give at a few fixed points tells nearly all different
answers apart, so that only formulas agreeing everywhere go to the symbolic worker.
"""

from __future__ import annotations

import cmath
import math
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

__all__ = ["Tree", "Unreadable", "exact", "parse", "sample", "spell"]

Tree = tuple[Any, ...]
"""("num", Fraction), ("var" | "const", name), ("+" | "*", trees), ("^", base, power), (function, tree)."""

MAX_BITS = 14_000
"""Bits of an exact integer; 4,300 decimal digits is where Python stops converting."""
POINTS = (0.7310585786, 1.6180339887, 2.2360679775)
"""Base values of the first variable at each point; others are derived from the variable's name."""
FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "sinh": cmath.sinh, "cosh": cmath.cosh,
    "tanh": cmath.tanh, "ln": cmath.log, "exp": cmath.exp, "arcsin": cmath.asin, "arccos": cmath.acos,
    "arctan": cmath.atan, "sqrt": cmath.sqrt, "abs": lambda z: complex(abs(z)),
    "sec": lambda z: 1 / cmath.cos(z), "csc": lambda z: 1 / cmath.sin(z), "cot": lambda z: 1 / cmath.tan(z),
}  # fmt: skip
GREEK = frozenset(
    re.findall(
        r"\w+",
        "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho "
        "sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega ell hbar ",
    )
)
TOKEN = re.compile(r"\\[A-Za-z]{1,20}|[0-9]+(?:\.[0-9]+)?|\.[0-9]+|[A-Za-z]|[-+*/^_!(){}\[\]|]| ")
PLAIN = re.compile(
    r"(?<![A-Za-z\\])(arcsin|arccos|arctan|sqrt|sinh|cosh|tanh|sin|cos|tan|sec|csc|cot|exp|ln|pi)(?![A-Za-z])"
)
"""Function names written without a backslash."""


class Unreadable(ValueError):
    """The text is not arithmetic this reader knows."""


def parse(text: str) -> Tree:
    """Syntax tree of cleaned LaTeX or plain arithmetic. Raises Unreadable."""
    tokens: list[str] = []
    at = 0
    text = PLAIN.sub(r"\\\1", text)
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            raise Unreadable(text[at])
        tokens.append(match.group())
        at = match.end()
    reader = _Reader(tokens)
    tree = reader.sum()
    if reader.peek() != "":
        raise Unreadable(reader.peek())
    return tree


class _Reader:
    """Recursive descent over tokens; depth is bounded because nesting was checked before."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.bars = 0

    def peek(self) -> str:
        while self.at < len(self.tokens) and self.tokens[self.at] == " ":
            self.at += 1
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise Unreadable(f"{wanted or 'something'} expected, got {token or 'the end'}")
        self.at += 1
        return token

    def sum(self) -> Tree:
        terms = [self.product()]
        while (sign := self.peek()) in ("+", "-"):
            self.take()
            term = self.product()
            terms.append(term if sign == "+" else ("*", [("num", Fraction(-1)), term]))
        return terms[0] if len(terms) == 1 else ("+", terms)

    def product(self, stop_at_function: bool = False) -> Tree:
        factors = [self.signed()]
        while True:
            token = self.peek()
            if token == "*":
                self.take()
                factors.append(self.signed())
            elif token == "/":
                self.take()
                factors.append(("^", self.signed(), ("num", Fraction(-1))))
            elif self.starts_atom(token) and not (stop_at_function and token[1:] in FUNCTIONS):
                if token[0].isdigit() or token[0] == ".":  # "2 3" is no product
                    raise Unreadable("two numbers side by side")
                if token == r"\frac" and factors[-1][0] == "num":
                    factors[-1] = self.mixed(factors[-1])
                else:
                    factors.append(self.power())
            else:
                return factors[0] if len(factors) == 1 else ("*", factors)

    def mixed(self, whole: Tree) -> Tree:
        """3\\frac{1}{2} is three and a half; with letters or an improper fraction it is a product."""
        part = self.power()
        value = exact(part)
        if value is not None and 0 < value < 1 and whole[1].denominator == 1:
            return ("num", whole[1] + value)
        return ("*", [whole, part])

    def starts_atom(self, token: str) -> bool:
        if token == "|":
            return self.bars == 0
        return bool(token) and (token[0].isalnum() or token[0] in "\\.({[")

    def signed(self) -> Tree:
        if self.peek() == "-":
            self.take()
            return ("*", [("num", Fraction(-1)), self.signed()])
        if self.peek() == "+":
            self.take()
            return self.signed()
        return self.power()

    def power(self) -> Tree:
        base = self.atom()
        while self.peek() in ("^", "!"):
            if self.take() == "!":
                base = ("!", base)
            else:
                base = ("^", base, self.exponent())
                if self.peek() == "^":  # a^b^c has no agreed meaning in LaTeX
                    raise Unreadable("two exponents")
        return base

    def exponent(self) -> Tree:
        if self.peek() == "-":
            self.take()
            return ("*", [("num", Fraction(-1)), self.exponent()])
        return self.atom()

    def argument(self) -> Tree:
        """The argument of \\frac or \\sqrt: a group, or a single character."""
        token = self.peek()
        if token and token[0].isdigit() and len(token) > 1:
            self.take()
            self.tokens.insert(self.at, token[1:])
            if token[1] == ".":
                raise Unreadable("a decimal without braces")
            return ("num", Fraction(token[0]))
        return self.atom()

    def group(self, close: str) -> Tree:
        bars, self.bars = self.bars, 0
        inner = self.sum()
        self.take(close)
        self.bars = bars
        return inner

    def atom(self) -> Tree:
        token = self.take()
        if token[0].isdigit() or token[0] == ".":
            if len(token) > 4_300:
                raise Unreadable("too many digits")
            if self.peek() == "_":  # a numeral in another base
                raise Unreadable("a subscript on a number")
            return ("num", Fraction(token))
        if token in "([{" and token:
            return self.group({"(": ")", "[": "]", "{": "}"}[token])
        if token == "|":
            self.bars += 1
            inner = self.sum()
            self.take("|")
            self.bars -= 1
            return ("abs", inner)
        if token == r"\frac":
            top = self.argument()
            return ("*", [top, ("^", self.argument(), ("num", Fraction(-1)))])
        if token == r"\sqrt":
            return self.root()
        if token == r"\binom":
            return ("binom", self.argument(), self.argument())
        if token == r"\pi":
            return ("const", "pi")
        if token[0] == "\\" and token[1:] in FUNCTIONS:
            return self.function(token[1:])
        if token[0] == "\\" and token[1:] not in GREEK:
            raise Unreadable(token)
        if token.isalpha() or token[0] == "\\":
            name = token + self.subscript()
            return ("const", name) if name in ("e", "i") else ("var", name)
        raise Unreadable(token)

    def subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.take()
        if self.peek() != "{":
            return "_" + self.take()
        self.take()
        name = "_"
        while self.peek() != "}":
            if self.peek() == "{":
                raise Unreadable("nested subscript")
            name += self.take()
        self.take()
        return name

    def root(self) -> Tree:
        degree = Fraction(2)
        if self.peek() == "[":
            self.take()
            value = exact(self.group("]"))
            if value is None or value <= 0:
                raise Unreadable("degree of a root")
            degree = value
        token = self.peek()
        if token and token[0].isdigit() and len(token) > 1:  # \sqrt19: nineteen to people, one to TeX
            raise Unreadable("a root without braces")
        inner = self.atom()
        if degree == 2:
            return ("sqrt", inner)
        if degree.denominator == 1 and degree.numerator % 2 and _negative(inner):
            minus = ("num", Fraction(-1))
            return ("*", [minus, ("^", ("*", [minus, inner]), ("num", 1 / degree))])
        return ("^", inner, ("num", 1 / degree))

    def function(self, name: str) -> Tree:
        raised: Tree | None = None
        if self.peek() == "^":
            self.take()
            raised = self.exponent()
            if exact(raised) is None or exact(raised) == -1:
                raise Unreadable("an inverse function")
        inner = self.atom() if self.peek() in ("(", "{", "[") else self.product(stop_at_function=True)
        tree: Tree = (name, inner)
        return tree if raised is None else ("^", tree, raised)


def exact(tree: Tree) -> Fraction | None:
    """Rational value, or None when it has none, is too large, or holds a letter. Never slow."""
    kind = tree[0]
    if kind == "num":
        return Fraction(tree[1])
    if kind in ("const", "var"):
        return None
    if kind in "+*":
        total = Fraction(0 if kind == "+" else 1)
        for part in tree[1]:
            value = exact(part)
            if value is None:
                return None
            total = total + value if kind == "+" else total * value
            if total.numerator.bit_length() + total.denominator.bit_length() > MAX_BITS:
                return None
        return total
    value = exact(tree[1])
    if value is None:
        return None
    if kind == "^":
        power = exact(tree[2])
        return None if power is None else _power(value, power)
    if kind == "sqrt":
        return _power(value, Fraction(1, 2))
    if kind == "binom":
        chosen = exact(tree[2])
        if chosen is None or value.denominator != 1 or chosen.denominator != 1 or not 0 <= chosen <= value <= 1_000:
            return None
        return Fraction(math.comb(int(value), int(chosen)))
    if kind == "abs":
        return abs(value)
    if kind == "!" and value.denominator == 1 and 0 <= value <= 1_000:
        return Fraction(math.factorial(int(value)))
    return None


def _power(base: Fraction, power: Fraction) -> Fraction | None:
    """Exact power where it is rational and small."""
    if base == 0:
        return Fraction(0) if power > 0 else None
    if power.denominator != 1:
        top, bottom = (_whole_root(part, power.denominator) for part in (base.numerator, base.denominator))
        if top is None or bottom is None:
            return None
        base, power = Fraction(top, bottom), Fraction(power.numerator)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if bits * abs(power.numerator) > MAX_BITS and abs(base) != 1:
        return None
    return Fraction(base ** (power.numerator if abs(base) != 1 else power.numerator % 2))


def _whole_root(value: int, degree: int) -> int | None:
    """The root of a number that is a power, None for any other; beyond squares, of numbers up to 1,000 bits."""
    if value <= 0 or (degree > 2 and value.bit_length() > 1_000):
        return None
    root = math.isqrt(value) if degree == 2 else round(value ** (1 / degree))
    return root if root**degree == value else None


def _negative(tree: Tree) -> bool:
    """Whether this is a negative constant, or a product with a negative number."""
    if tree[0] == "*":
        numbers = [value for part in _flat(tree) if (value := exact(part)) is not None]
        if sum(value < 0 for value in numbers) % 2:
            return True
    found = None if _has_variable(tree) else sample(tree)
    return found is not None and found[0][0].real < 0 and abs(found[0][0].imag) < 1e-12


def spell(tree: Tree) -> str:
    """Canonical spelling: rational parts evaluated, sums and products flattened and sorted."""
    value = exact(tree)
    if value is not None:
        return str(value)
    kind = tree[0]
    if kind in ("const", "var"):
        return str(tree[1])
    if kind in "+*":
        constant = Fraction(0 if kind == "+" else 1)
        names = []
        for part in _flat(tree):
            number = exact(part)
            if number is None:
                names.append(spell(part))
            else:
                constant = constant + number if kind == "+" else constant * number
        names.sort()
        if constant != (0 if kind == "+" else 1):
            names.append(str(constant))
        return names[0] if len(names) == 1 else f"{kind}({','.join(names)})"
    return f"{kind}({','.join(spell(part) for part in tree[1:])})"


def _flat(tree: Tree) -> list[Tree]:
    out: list[Tree] = []
    for part in tree[1]:
        out.extend(_flat(part) if part[0] == tree[0] else [part])
    return out


def sample(tree: Tree) -> tuple[tuple[complex, ...], float] | None:
    """Values at the fixed points (one when there is no variable) and the relative error to allow for.

    None where a value is undefined, infinite or beyond floating point at any point.
    """
    points = POINTS if _has_variable(tree) else POINTS[:1]
    values, error = [], 1e-9
    for point in points:
        peak = [1e-12]
        try:
            value = _value(tree, point, peak)
        except (ArithmeticError, ValueError):
            return None
        if not cmath.isfinite(value):
            return None
        # Cancellation: 1e8 + 1 - 1e8 keeps few digits of its last term, and the tolerance must say so.
        error = max(error, 1e-13 * peak[0] / max(abs(value), 1e-12))
        values.append(value)
    return (tuple(values), error) if error < 1e-3 else None


def _has_variable(tree: Tree) -> bool:
    if tree[0] == "var":
        return True
    if tree[0] in ("num", "const"):
        return False
    parts = tree[1] if tree[0] in "+*" else tree[1:]
    return any(_has_variable(part) for part in parts)


def _value(tree: Tree, point: float, peak: list[float]) -> complex:
    kind = tree[0]
    if kind == "num":
        value = complex(float(tree[1]))
    elif kind == "const":
        value = {"pi": complex(math.pi), "e": complex(math.e), "i": 1j}[tree[1]]
    elif kind == "var":
        seed = 0
        for char in tree[1]:
            seed = (seed * 131 + ord(char)) % 9973
        value = complex(point * (0.5 + seed / 9973))
    elif kind == "+":
        value = sum((_value(part, point, peak) for part in tree[1]), 0j)
    elif kind == "*":
        value = 1 + 0j
        for part in tree[1]:
            value *= _value(part, point, peak)
    elif kind == "^":
        base, power = _value(tree[1], point, peak), _value(tree[2], point, peak)
        value = base**power
        if base.real < 0 and abs(base.imag) < 1e-12 and _has_variable(tree[1]):
            degree = exact(tree[2])  # odd roots of what holds a letter are real, as \sqrt[3] and as a power alike
            if degree is not None and degree.denominator > 1 and degree.denominator % 2:
                value = (-1) ** degree.numerator * (-base) ** power
    elif kind == "binom":
        raise ValueError("only with numbers")
    elif kind == "!":
        argument = _value(tree[1], point, peak)
        value = complex(math.gamma(argument.real + 1))
    else:
        value = FUNCTIONS[kind](_value(tree[1], point, peak))
    peak[0] = max(peak[0], abs(value))
    return value
