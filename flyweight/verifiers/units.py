"""Whether an answer comes in the unit that was asked for."""

from __future__ import annotations

import re

from flyweight.answers import extract
from flyweight.errors import ConfigError
from flyweight.types import Problem
from flyweight.verifiers import content
from flyweight.verifiers.rules import Rule

__all__ = ["Units", "asked", "read", "stated"]

NAMES = {
    "mm": "millimeter millimetre", "cm": "centimeter centimetre", "m": "meter metre", "km": "kilometer kilometre",
    "inch": "inche", "ft": "foot feet", "yd": "yard", "mi": "mile",
    "mg": "milligram", "g": "gram", "kg": "kilogram kilo", "oz": "ounce", "lb": "pound lbs", "t": "ton tonne",
    "ms": "millisecond", "s": "second sec", "min": "minute", "h": "hour hr", "day": "", "week": "", "month": "",
    "year": "yr",
    "ml": "milliliter millilitre mL", "l": "liter litre L", "gal": "gallon", "qt": "quart", "pt": "pint", "cup": "",
    "$": "dollar buck USD", "cent": "\u00a2", "\u20ac": "euro EUR", "\u00a3": "GBP", "\u00a5": "yen JPY",
    "\u20b9": "rupee",
    "%": "percent percentage pct", "degree": "\u00b0 deg", "radian": "rad", "\u00b0C": "celsius", 
    "\u00b0F": "fahrenheit",
    "K": "kelvin", "J": "joule", "kJ": "kilojoule", "cal": "calorie", "kcal": "kilocalorie", "W": "watt",
    "kW": "kilowatt",
    "kWh": "", "V": "volt", "N": "newton", "Pa": "pascal", "Hz": "hertz", "acre": "", "ha": "hectare",
    "mi/h": "mph", "km/h": "kmh kph", "bit": "", "byte": "", "kB": "kilobyte KB", "MB": "megabyte",
    "GB": "gigabyte",
}  # fmt: skip
"""Unit -> other words for it in the singular. Single letters and signs count as they are written only."""
_KNOWN = {word: unit for unit, more in NAMES.items() for word in (unit, *more.split())}
_PLURAL = {f"{word}s": unit for word, unit in _KNOWN.items() if len(word) > 2 or word in ("lb", "yd", "hr")}
_WORDS = {**_PLURAL, **_KNOWN}
_LOW = {word.lower(): unit for word, unit in _WORDS.items() if len(word) > 2}

PIECE = re.compile(
    r"\s{0,4}(?:(?P<power>\^\{?\s{0,2}[23]\}?|\*\*[23]|\u00b2|\u00b3)|(?P<per>/|per\b|an?\b)|"
    r"(?P<shape>(?:square|sq\.?|cubic|cu\.?)(?=[\s-]))|(?P<word>[A-Za-z]{1,20}|[$%\u00a2\u00b0\u20ac\u00a3\u00a5\u20b9][CF]?))[.\-]?",
    re.IGNORECASE,
)
LATEX = re.compile(
    r"\\(?:text|mathrm|mbox|textbf|mathbf|rm)\s?\{?|\\[ ,;:!()\[\]]|\\\\?(?=[$%])|[{}~*`\"]|\\(?=degree)"
)
DEGREES = re.compile(r"\^\{?\\circ\}?|\\circ")
NUMBER = re.compile(r"[0-9][0-9.,]{0,40}")
ASKED = re.compile(
    r"\b(?:in|how many|how much|number of|unit:?)\s{1,4}(?:the )?(?=[A-Za-z$%\u20ac\u00a3\u00b0])", re.IGNORECASE
)
CLOSING = re.compile(r"^(?:\}|\\?\$(?!\d)|\\\)|\\\]|\*){1,4}")
"""What may end the formula or box that a number stands in."""
AROUND = 80
"""Characters before and behind an answer in which its unit is looked for."""


class Units(Rule):
    """1 where the answer stands with the wanted unit, 1/2 without a known unit, 0 with another or without an answer.

    The unit wanted is the setting `unit`, or `unit` in the problem's meta, or the last that the question asks for ("in
    square feet", "how many hours"). Where nothing is wanted a stated answer scores 1/2. Nothing is converted: 100 cm
    is another answer than 1 m where metres are wanted.

    Source: The units that Lewkowycz et al. 2022, Minerva (2206.14858) drop from answers; here they are checked.
    """

    name = "units"

    def __init__(self, *, unit: str = "") -> None:
        """ConfigError for a unit that is not known."""
        if unit and read(unit) is None:
            raise ConfigError(f"unit={unit!r} is not known; known are for example m, km/h, square feet, dollars, %")
        self.unit = unit

    def value(self, problem: Problem, text: str) -> float:
        text = text[-content.LONGEST :]
        if content.given(text, problem.prompt, "math") is None:
            return 0.0
        meta = problem.meta.get("unit")
        wanted = read(self.unit or (meta if isinstance(meta, str) else "")) or asked(problem.prompt)
        found = stated(text)
        if wanted is None or found is None:
            return 0.5
        return float(found == wanted)


def asked(question: str) -> str | None:
    """The last unit the question asks for, if any."""
    question = question[-content.LONGEST :]
    units = [read(question[match.end() : match.end() + AROUND]) for match in ASKED.finditer(question)]
    return next((unit for unit in reversed(units) if unit), None)


def stated(text: str) -> str | None:
    """The unit beside the answer that is read from a solution, if it is one that is known."""
    answer = extract(text, "math")
    if answer is None:
        return None
    for number in NUMBER.finditer(answer):
        if unit := _beside(answer, number.start(), number.end()):
            return unit
    at = text.rfind(answer)
    return _beside(text, at, at + len(answer)) if at >= 0 else None


def read(text: str) -> str | None:
    """The unit that a text begins with, in one spelling: `square feet` and `ft^2` are both ft^2."""
    text = DEGREES.sub("\u00b0", text[: 2 * AROUND])
    text = LATEX.sub(" ", text)[:AROUND]
    found: list[str] = []
    at, shape, joined = 0, "", False
    while (piece := PIECE.match(text, at)) is not None:
        kind, said = str(piece.lastgroup), piece.group(str(piece.lastgroup))
        if kind == "power" and found:
            found[-1] += "^3" if "3" in said or "\u00b3" in said else "^2"
        elif kind == "shape" and (not found or joined):
            shape = "^3" if said[0] in "cC" else "^2"
        elif kind == "per" and found and not joined:
            joined = True
            at = piece.end()
            continue
        elif kind == "word" and (not found or joined) and (unit := _WORDS.get(said) or _LOW.get(said.lower())):
            found.append(unit + shape)
            shape = ""
        elif kind == "word" and found == ["degree"] and said.lower() in ("celsius", "fahrenheit", "c", "f"):
            found = ["\u00b0" + said[0].upper()]
        else:
            break
        joined = False
        at = piece.end()
    return "/".join(found) or None


def _beside(text: str, start: int, end: int) -> str | None:
    """The unit behind a number, or the currency sign before it."""
    behind = text[end : end + AROUND]
    before = text[max(0, start - 12) : start].replace("\\boxed", "").replace("\\$", "USD")
    before = LATEX.sub("", before).rstrip()
    if before.endswith("USD"):
        return "$"
    if before.endswith("$") and not behind.lstrip().startswith(("$", "}$")):  # else the signs enclose mathematics
        return "$"
    if before[-1:] in "\u20ac\u00a3\u00a5\u20b9" and before:
        return before[-1]
    return read(CLOSING.sub("", behind, count=1))
