"""Whether two answers are the same: exact reading first, the symbolic worker only for what is left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from fractions import Fraction

from flyweight.answers import limits
from flyweight.answers.canonical import canonical, check_kind
from flyweight.answers.client import LIMIT_SECONDS, symbolic
from flyweight.answers.forms import Form, read
from flyweight.answers.latex import restore
from flyweight.types import Grade, Verdict

__all__ = ["cheap", "compare", "decide", "grade"]

EQUAL = Verdict("equal")
ROUNDED_PLACES = 4
"""A decimal with this many places and digits stands for the fraction it is the rounding of."""
IRRATIONAL_PLACES = 6
"""Places asked for when the other value is irrational, or a longer decimal."""

HALF_OF_DAY = re.compile(r"[ ~]?\\text\{[ ~]?[ap]\.?m\.?\}\s{0,3}\Z|[ ~][ap]\.?m\.?(?=\}?\s{0,3}\Z)", re.I)
"""What tells morning from evening."""

Ask = Callable[[str, str], Verdict]


def compare(a: str, b: str, kind: str = "math") -> Verdict:
    """Equal, different, or undecided with a reason; the same for (a, b) and (b, a).

    Only math goes beyond canonical keys. Undecided means nobody could tell within the limits (1.5 s, see
    `flyweight.answers.limits`). Programs that differ in text are undecided: they are compared by running them.
    Raises ConfigError for an unknown kind.
    """
    name = check_kind(kind)
    if canonical(a, kind) == canonical(b, kind):
        return EQUAL
    if name == "code":
        return Verdict("undecided", "different programs are compared by running them")
    if name != "math":
        return Verdict("different", "canonical forms differ")
    # A fixed order makes the verdict symmetric although the worker's two directions are asked in turn.
    first, second = sorted((read(a), read(b)), key=lambda form: (form.key, form.text))
    return decide(first, second, _asker(both=True))


def grade(answer: str | None, gold: str, kind: str = "math") -> Grade:
    """Correct, wrong, or undecided with a reason.

    Symbolic comparison runs from gold to answer only, as Math-Verify documents (an inequality as gold accepts an
    interval, not the reverse). A percent sign on one side only is read either way: 50% is right for 50 and for 0.5.
    So is a word such as million in the answer alone, where the question may have said it; am or pm on one side only is
    dropped. No answer is wrong. Raises ConfigError for an unknown kind.
    """
    name = check_kind(kind)
    if answer is None:
        return Grade("wrong", "no answer")
    if name != "math":
        verdict = compare(answer, gold, kind)
    else:
        halves = [HALF_OF_DAY.sub("", side) for side in (gold, answer)]
        if (halves[0] == gold) != (halves[1] == answer):
            gold, answer = halves
        wanted, given = read(gold), read(answer)
        verdict = EQUAL if _slip(wanted, given) else decide(wanted, given, _asker(both=False))
    if verdict.value == "equal":
        return Grade("correct", verdict.reason)
    return Grade("wrong" if verdict.value == "different" else "undecided", verdict.reason, verdict.retry)


def _slip(gold: Form, answer: Form) -> bool:
    """28% against 28, or 4 million against 4: the number is right and only the sign or the word is missing."""
    if gold.value is None or answer.value is None:
        return False
    if gold.scale == 1 != answer.scale and answer.value == gold.value * answer.scale:
        return True
    if gold.percent == answer.percent:
        return False
    with_sign, without = (gold.value, answer.value) if gold.percent else (answer.value, gold.value)
    return with_sign * 100 == without


def _asker(both: bool) -> Ask:
    """Asks the worker, in one or both directions, within the time of a single comparison."""
    deadline = time.monotonic() + LIMIT_SECONDS

    def ask(gold: str, answer: str) -> Verdict:
        for text in (gold, answer):
            reason = limits.worker_refusal(text)
            if reason:
                return Verdict("undecided", reason)
        return symbolic(gold, answer, both, deadline)

    return ask


def decide(gold: Form, answer: Form, ask: Ask) -> Verdict:
    """Verdict on two forms; `ask` is called only when reading them exactly is not enough."""
    verdict = cheap(gold, answer)
    if verdict is not None:
        return verdict
    if gold.kind == "group" and answer.kind == "group" and _pairable(gold, answer):
        return _members(gold, answer, ask)
    verdict = ask(restore(gold.text), restore(answer.text))
    if verdict.value == "different" and _agree(gold, answer):
        return Verdict("undecided", "numerically equal but not proved")
    return verdict


def cheap(a: Form, b: Form) -> Verdict | None:
    """Verdict without algebra, or None when only algebra can tell."""
    if a.key == b.key:
        return EQUAL
    for form in (a, b):
        if form.kind == "refused":
            return Verdict("undecided", form.text)
    if all(form.kind == "number" or (form.kind == "expression" and form.point) for form in (a, b)):
        return _values(a, b)
    if {a.kind, b.kind} <= {"number", "words"} or (a.kind == b.kind == "words"):
        return Verdict("different", "not the same value" if a.kind != b.kind else "not the same words")
    if "group" in (a.kind, b.kind) and {a.kind, b.kind} <= {"number", "words", "group"}:
        return _shapes(a, b)
    return None


def _values(a: Form, b: Form) -> Verdict | None:
    if _rounding(a, b) or _rounding(b, a):
        return Verdict("equal", "equal to the decimals written")
    if a.kind == b.kind == "number":
        return Verdict("different", "different numbers")
    if not a.point or not b.point:
        return None
    return None if _agree(a, b) else Verdict("different", "different values")


def _agree(a: Form, b: Form) -> bool:
    """Whether the values at the fixed points agree within rounding error."""
    if not a.point or not b.point:
        return False
    longest = max(len(a.point), len(b.point))
    left, right = (form.point * longest if len(form.point) == 1 else form.point for form in (a, b))
    slack = a.error + b.error + 1e-9
    return all(
        abs(x - y) <= slack * max(abs(x), abs(y), 1e-9) for x, y in zip(left[:longest], right[:longest], strict=True)
    )


def _rounding(decimal: Form, other: Form) -> bool:
    """Whether `decimal` is the rounding of `other` to the places written, with enough of them to be no accident."""
    if not decimal.places or decimal.value is None or len(other.point) > 1:
        return False
    needed = ROUNDED_PLACES if other.value is not None and not other.places else IRRATIONAL_PLACES
    digits = len(str(abs(decimal.value.numerator * 10**decimal.places // decimal.value.denominator)))
    if decimal.places < needed or digits < ROUNDED_PLACES or (other.places and other.places < decimal.places):
        return False
    half = Fraction(1, 2 * 10**decimal.places)
    if other.value is not None:
        return abs(decimal.value - other.value) <= half
    if not other.point or abs(other.point[0].imag) > 1e-12 or abs(other.point[0].real) > 1e8:
        return False
    return abs(float(decimal.value) - other.point[0].real) <= float(half) * (1 + 1e-6)


def _shapes(a: Form, b: Form) -> Verdict | None:
    """Different for groups that cannot match; None when their members must be compared."""
    if a.kind != b.kind:
        many = a if a.kind == "group" else b
        # A union of intervals or a set of pairs is never a number; members with letters may coincide.
        if any(part.kind not in ("number", "words", "group") for part in many.parts):
            return None
        return Verdict("different", "one value against several")
    if not _pairable(a, b):
        if "\\cup" in (a.shape, b.shape):
            return None
        return Verdict("different", "different kinds or sizes of collection")
    return None


def _pairable(a: Form, b: Form) -> bool:
    """Whether two groups can be compared member by member."""
    same = a.shape == b.shape or ("=" in (a.shape, b.shape) and "\\cup" not in (a.shape, b.shape))
    return same and len(a.parts) == len(b.parts)


def _members(gold: Form, answer: Form, ask: Ask) -> Verdict:
    """Member by member: in order for ordered groups, best match first for unordered ones."""
    if gold.shape == answer.shape == "=":
        if gold.names == answer.names:
            return _ordered(gold.parts, answer.parts, ask)
        return ask(restore(gold.text), restore(answer.text))
    if gold.shape not in ("{}", "\\cup"):
        return _ordered(gold.parts, answer.parts, ask)
    left = [p for p in gold.parts if all(p.key != q.key for q in answer.parts)]
    right = [q for q in answer.parts if all(p.key != q.key for p in gold.parts)]
    if "=" in (gold.shape, answer.shape):
        left, right = list(gold.parts), list(answer.parts)
    doubt: Verdict | None = None
    for member in left:
        for other in right:
            verdict = decide(member, other, ask)
            if verdict.value == "equal":
                right.remove(other)
                break
            if verdict.value == "undecided":
                doubt = _doubt(doubt, verdict)
        else:
            return doubt or Verdict("different", "different members")
    return EQUAL


def _ordered(left: tuple[Form, ...], right: tuple[Form, ...], ask: Ask) -> Verdict:
    doubt: Verdict | None = None
    waiting: list[tuple[Form, Form]] = []
    for p, q in zip(left, right, strict=True):
        verdict = cheap(p, q)
        if verdict is None:
            waiting.append((p, q))
        elif verdict.value == "different":
            return verdict
        elif verdict.value == "undecided":
            doubt = _doubt(doubt, verdict)
    for p, q in waiting:
        verdict = decide(p, q, ask)
        if verdict.value == "different":
            return verdict
        if verdict.value == "undecided":
            doubt = _doubt(doubt, verdict)
    return doubt or EQUAL


def _doubt(before: Verdict | None, verdict: Verdict) -> Verdict:
    """Which of two undecided members speaks for the whole: the first, unless only the other is worth a retry."""
    return verdict if before is None or (verdict.retry and not before.retry) else before
