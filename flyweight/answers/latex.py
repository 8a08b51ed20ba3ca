"""LaTeX and plain-text notation brought to one spelling, and splitting that respects brackets. Linear time."""

from __future__ import annotations

import re

__all__ = ["ROW", "clean", "enclosed", "restore", "split"]

SYMBOLS = str.maketrans(
    {
        "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "*", "\u22c5": "*", "\u00b7": "*",
        "\u00f7": "/", "\u2215": "/", "\u2044": "/", "\u221a": r"\sqrt ", "\u03c0": r"\pi ",
        "\u221e": r"\infty ", "\u2264": r"\le ", "\u2265": r"\ge ", "\u2260": r"\ne ",
        "\u2248": r"\approx ", "\u00b1": r"\pm ", "\u222a": r"\cup ", "\u2205": r"\emptyset ",
        "\u2208": r"\in ", "\u00b0": r"^\circ ", "\u00bd": r"\frac{1}{2}", "\u00bc": r"\frac{1}{4}",
        "\u00be": r"\frac{3}{4}", "\u2153": r"\frac{1}{3}", "\u2154": r"\frac{2}{3}", "\u03b8": r"\theta ",
        "\u00b2": "^2", "\u00b3": "^3", "\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"',
    }
)  # fmt: skip
SYMBOLS.update({code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)})  # full-width forms of ASCII
INVISIBLE = re.compile("[\u200b-\u200f\u2060-\u2064\u00ad\ufeff]")
SPACE = re.compile(r"\\[,;:> ]|~|\\q?quad(?:(?=x)|(?![a-z]))|\s")
SPACES = re.compile(r" {2,}")
SIZED = re.compile(r"\\(?:left|right|middle|[bB]ig{1,2}[lrm]?|displaystyle|limits|mathstrut)(?![A-Za-z])\.?")
BOX = re.compile(r"\\f?box(?:ed)?\s?\{")
FRAC = re.compile(r"\\[dtc]frac(?![A-Za-z])")
TEXT = re.compile(
    r"\\(?:text(?:bf|it|rm|normal|tt|sf)?|math(?:rm|bf|it|sf|tt|bb)|mbox|hbox|operatorname\*?|boldsymbol)\s?\{"
)
RELATIONS = (
    (re.compile(r"\\(?:lt)(?![A-Za-z])"), "<"),
    (re.compile(r"\\(?:gt)(?![A-Za-z])"), ">"),
    (re.compile(r"\\(?:leq|leqslant|leqq)(?![A-Za-z])|<="), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant|geqq)(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\(?:neq|not\s?=)(?![A-Za-z])|!="), r"\\ne "),
    (re.compile(r"\\(?:cdot|times|ast)(?![A-Za-z])"), "*"),
    (re.compile(r"\\div(?![A-Za-z])"), "/"),
    (re.compile(r"\\(?:approx|simeq|thickapprox)(?![A-Za-z])"), r"\\approx "),
    (re.compile(r"\\(?:varnothing|empty)(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\\(?:degree|degrees)(?![A-Za-z])|\^\s?\{?\\circ\s?\}?"), r"^\\circ "),
    (re.compile(r"\\(?:lbrace|\{)"), "\u27e6"),
    (re.compile(r"\\(?:rbrace|\})"), "\u27e7"),
)
GROUPED = re.compile(r"(?<=[0-9])(?:\{ ?, ?\}|,? ?\\!(?: ?,)? ?|\\,)(?=[0-9]{3})")
"""Thousands separators that only LaTeX writes: 14{,}916, 32,\\!349, 12\\,000."""
LEADING_DOT = re.compile(r"\A\.(?![0-9])\s{0,3}")
PUNCTUATION = " .,;:\n\t"
ROW = "\u23ce"
"""Stands for the \\\\ that ends a matrix row."""
DOUBLED = re.compile(r"\\\\(?=[A-Za-z(){}\[\]])")

OPEN, CLOSE = "([{\u27e6", ")]}\u27e7"


def clean(answer: str) -> str:
    """The answer on one line in one spelling.

    Braces of sets come back as U+27E6 and U+27E7, so that a plain brace is always grouping. Font commands become
    \\text{...}; sizes, spacing, dollar signs and surrounding emphasis are gone.
    """
    text = INVISIBLE.sub("", answer).translate(SYMBOLS)
    rows = "\\begin" in text
    text = text.replace("\\\\", ROW) if rows else DOUBLED.sub(lambda _: "\\", text).replace("\\\\", " ")
    text = GROUPED.sub("", text).replace("\\!", "").replace("\\%", "%").replace("\\$", "$")
    for mark in ("$", "\\(", "\\)", "\\[", "\\]"):
        text = text.replace(mark, " ")
    text = SIZED.sub(" ", text)
    text = FRAC.sub(lambda _: r"\frac", text)
    text = BOX.sub("{", text).strip()
    if text.startswith("{") and text.count("{") > text.count("}"):  # a box that never closes
        text = text[1:]
    text = TEXT.sub(lambda _: r"\text{", text)
    text = SPACE.sub(" ", text)
    for pattern, spelling in RELATIONS:
        text = pattern.sub(spelling, text)
    text = text.replace("**", "^") if not text.strip().startswith("**") else text.replace("**", "")
    text = SPACES.sub(" ", text).rstrip(PUNCTUATION + "\"'`_\\")
    return LEADING_DOT.sub("", text.lstrip(" ,;:\"'`_"))


def restore(text: str) -> str:
    """Cleaned text as LaTeX again."""
    return text.replace("\u27e6", "\\{").replace("\u27e7", "\\}").replace(ROW, "\\\\")


def split(text: str, separators: tuple[str, ...]) -> list[str]:
    """Pieces between the separators that stand outside every bracket; brackets may close each other freely.

    ")" closes "[" because half-open intervals do. A text with unbalanced brackets comes back whole.
    """
    pieces: list[str] = []
    depth = start = at = 0
    while at < len(text):
        char = text[at]
        if char in OPEN:
            depth += 1
        elif char in CLOSE:
            depth -= 1
            if depth < 0:
                return [text]
        elif depth == 0:
            found = next((s for s in separators if text.startswith(s, at)), None)
            if found is not None:
                pieces.append(text[start:at])
                at = start = at + len(found)
                continue
        at += 1
    return [*pieces, text[start:]] if depth == 0 else [text]


def enclosed(text: str) -> bool:
    """Whether the first character is a bracket that the last character closes."""
    if len(text) < 2 or text[0] not in OPEN or text[-1] not in CLOSE:
        return False
    depth = 0
    for at, char in enumerate(text):
        if char in OPEN:
            depth += 1
        elif char in CLOSE:
            depth -= 1
            if depth == 0:
                return at == len(text) - 1
    return False
