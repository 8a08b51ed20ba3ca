"""Every "a op b = c" a language model writes, judged exactly.

A recursive-descent parser over fractions. Whatever cannot be read with certainty (variables, functions,
clock times, magnitudes in words) is left unjudged: a verifier built on this should never call a right line
wrong. Time is linear in the text.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from flyweight.verifiers.tokens import CENTS, MAX_UNIT_WORDS, Kind, Token, tokenise

__all__ = ["Equation", "equations"]

MAX_DEPTH = 8
"""Nested parentheses read; a bound on backtracking as much as on recursion."""
MAX_BITS = 512
"""Numerators and denominators beyond this are left unjudged, so no text can buy a big computation."""

_MAGNITUDES = frozenset(
    {"hundred", "thousand", "million", "billion", "trillion", "dozen", "dozens", "remainder", "pair", "pairs", "couple"}
)
"""Words that change a number's size, or a quotient's meaning: such lines are left unjudged."""
_RATE_WORDS = frozenset({"of", "at", "with", "each", "per", "for", "by"})


class Equation(NamedTuple):
    """One judged link of a chain `left = right`."""

    left: Fraction
    right: Fraction
    holds: bool
    """Whether the right side is the left one's value, rounded to the decimals it is written with."""


class _Part(NamedTuple):
    """A parsed expression."""

    value: Fraction
    end: int
    """Index of the first token after it."""
    percent: bool = False
    operations: int = 0
    decimals: int | None = None
    """Digits after the point if this is a single literal number."""


def equations(text: str) -> list[Equation]:
    """Every equation of the text whose left side holds an operation, in order; a chain gives one per link.

    The right side may be rounded to the decimals it shows (`10 / 3 = 3.33`); a whole number must be exact
    unless it is a percentage. With percentages and cents a factor of 100 is forgiven (`15 / 60 = 25%`,
    `4 * 25 cents = $1`).
    """
    if "=" not in text and "equals" not in text:
        return []
    tokens = tokenise(text)
    reader = _Reader(tokens)
    found: list[Equation] = []
    at = 0
    while at < len(tokens):
        left = reader.expression(at)
        if left is None:
            at += 1
            continue
        start, at = at, left.end
        if not reader.free_before(start):
            continue
        while (equals := reader.after_units(left.end)) < len(tokens) and tokens[equals].kind is Kind.EQUALS:
            right = reader.expression(equals + 1)
            at = equals + 1
            if right is None:
                break
            at = right.end
            if not reader.free_after(right.end):
                break
            words = {t.text.lower() for t in tokens[start : reader.after_units(right.end)] if t.kind is Kind.WORD}
            holds = _holds(left, right, words)
            if left.operations and holds is not None:
                found.append(Equation(left.value, right.value, holds))
            start, left = equals + 1, right
    return found


def _holds(left: _Part, right: _Part, words: set[str]) -> bool | None:
    """Whether the values agree; None where the words make them impossible to compare."""
    if words & _MAGNITUDES:
        return None
    cents = bool(words & CENTS)
    percent = left.percent or right.percent
    scales = (Fraction(1), Fraction(100), Fraction(1, 100)) if cents or percent else (Fraction(1),)
    slack = Fraction(0)
    if right.decimals is not None and (right.decimals or right.percent):
        slack = Fraction(1, 2 * 10**right.decimals) / (100 if right.percent else 1)
    agree = any(abs(left.value - right.value * scale) <= slack * scale for scale in scales)
    return agree if agree or not cents else None


class _Reader:
    """Recursive descent over a list of tokens. Every method takes the index to read at."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens

    def kind(self, at: int) -> Kind:
        return self.tokens[at].kind if 0 <= at < len(self.tokens) else Kind.BREAK

    def tight(self, at: int) -> bool:
        """Whether no space stands between this token and the one before."""
        return 0 < at < len(self.tokens) and self.tokens[at - 1].end == self.tokens[at].start

    def after_units(self, at: int) -> int:
        """Index after the unit that follows a number: words, `hours/day`."""
        for _ in range(MAX_UNIT_WORDS):
            if self.kind(at) is Kind.WORD:
                at += 1
            elif self.unit_slash(at):
                at += 2
            else:
                break
        return at

    def unit_slash(self, at: int) -> bool:
        """Whether this is the slash of a rate such as `$15/hour`."""
        return self.operator(at, "/") and self.kind(at + 1) is Kind.WORD and self.tight(at + 1)

    def operator(self, at: int, symbols: str) -> bool:
        return self.kind(at) is Kind.OPERATOR and self.tokens[at].text in symbols

    def free_before(self, at: int) -> bool:
        """Whether an expression that begins here is whole: nothing before it belongs to it."""
        before = self.kind(at - 1)
        if before in (Kind.OPERATOR, Kind.OPAQUE, Kind.NUMBER, Kind.CLOSE, Kind.PERCENT, Kind.FRACTION):
            return False
        if before is not Kind.WORD:
            return True
        if self.kind(at) is Kind.OPEN and self.tight(at):
            return False  # a function's argument
        if self.tokens[at - 1].text in _RATE_WORDS:
            # "4 packs of 6 + 2": the number before the words belongs to the calculation.
            back = at - 1
            while at - back <= MAX_UNIT_WORDS and self.kind(back) is Kind.WORD:
                back -= 1
            return self.kind(back) is not Kind.NUMBER
        return True

    def free_after(self, at: int) -> bool:
        """Whether an expression that ends before this token is whole."""
        kind = self.kind(at)
        if kind in (Kind.OPAQUE, Kind.NUMBER, Kind.FRACTION) or (kind is Kind.OPEN and self.tight(at)):
            return False
        at = self.after_units(at)
        if self.kind(at) is not Kind.OPERATOR:
            return True
        return self.tokens[at].text == "-" and self.kind(at + 1) is Kind.WORD  # a dash, not a minus

    def expression(self, at: int, depth: int = 0) -> _Part | None:
        """Sum of terms, as far as it can be read."""
        part = self.term(at, depth)
        while part is not None:
            sign = self.after_units(part.end)
            if not self.operator(sign, "+-"):
                break
            term = self.term(sign + 1, depth)
            if term is None or term.percent is not part.percent:
                break  # 50 + 20% has no agreed meaning
            value = part.value + term.value if self.tokens[sign].text == "+" else part.value - term.value
            if not _small(value):
                break
            part = _Part(value, term.end, part.percent, part.operations + term.operations + 1)
        return part

    def term(self, at: int, depth: int) -> _Part | None:
        """Product of factors; `5(12)` is one too."""
        part = self.factor(at, depth)
        while part is not None:
            sign = self.after_units(part.end)
            if self.operator(sign, "*/") and not self.unit_slash(sign):
                divide = self.tokens[sign].text == "/"
                factor = self.factor(sign + 1, depth)
            elif self.kind(part.end) is Kind.OPEN and self.tight(part.end):
                divide = False
                factor = self.factor(part.end, depth)
            else:
                break
            if factor is None or (divide and not factor.value):
                break
            value = part.value / factor.value if divide else part.value * factor.value
            if not _small(value):
                break
            percent = part.percent and divide and not factor.percent  # 80% / 2; but 20% of 50 is a plain number
            part = _Part(value, factor.end, percent, part.operations + factor.operations + 1)
        return part

    def factor(self, at: int, depth: int) -> _Part | None:
        """Signed power, or percentage. A minus sign must touch its operand and follow no letter."""
        if self.operator(at, "-") and self.tight(at + 1) and self.kind(at - 1) is not Kind.OPAQUE:
            part = self.power(at + 1, depth)
            return part and part._replace(value=-part.value)
        return self.power(at, depth)

    def power(self, at: int, depth: int) -> _Part | None:
        part = self.atom(at, depth)
        if part is None:
            return None
        if self.operator(part.end, "^"):
            exponent = self.atom(part.end + 1, depth)
            if exponent is None or exponent.value.denominator != 1 or not 0 <= exponent.value <= 20:
                return None
            bits = max(part.value.numerator.bit_length(), part.value.denominator.bit_length())
            if bits * int(exponent.value) > MAX_BITS:
                return None
            part = _Part(part.value ** int(exponent.value), exponent.end, False, part.operations + 1)
        if self.kind(part.end) is Kind.PERCENT:
            part = part._replace(value=part.value / 100, end=part.end + 1, percent=True)
        return part

    def atom(self, at: int, depth: int) -> _Part | None:
        """Number, mixed number, group or LaTeX fraction."""
        kind = self.kind(at)
        if kind is Kind.NUMBER:
            literal = self.tokens[at].text
            whole = _Part(Fraction(literal), at + 1, decimals=len(literal.partition(".")[2]))
            return self.mixed(whole, depth) or whole
        if kind is Kind.OPEN and depth < MAX_DEPTH:
            inner = self.expression(at + 1, depth + 1)
            close = len(self.tokens) if inner is None else self.after_units(inner.end)
            if inner is None or self.kind(close) is not Kind.CLOSE:
                return None
            return inner._replace(end=close + 1)
        if kind is Kind.FRACTION and depth < MAX_DEPTH:
            top = self.atom(at + 1, depth + 1)
            bottom = top and self.atom(top.end, depth + 1)
            if not top or not bottom or not bottom.value:
                return None
            return _Part(top.value / bottom.value, bottom.end, operations=top.operations + bottom.operations + 1)
        return None

    def mixed(self, whole: _Part, depth: int) -> _Part | None:
        """`2 1/2` or `2\\frac{1}{2}`, if that is what follows the whole number."""
        at = whole.end
        if whole.decimals or self.kind(at) not in (Kind.NUMBER, Kind.FRACTION):
            return None
        if self.kind(at) is Kind.FRACTION:
            part = self.atom(at, depth)
        elif self.operator(at + 1, "/") and self.kind(at + 2) is Kind.NUMBER:
            top, bottom = (Fraction(self.tokens[i].text) for i in (at, at + 2))
            part = _Part(top / bottom, at + 3) if bottom else None
        else:
            return None
        return part and (_Part(whole.value + part.value, part.end) if part.value < 1 else None)


def _small(value: Fraction) -> bool:
    return value.numerator.bit_length() <= MAX_BITS and value.denominator.bit_length() <= MAX_BITS
