"""Tokens of arithmetic as language models write it: text, Markdown, LaTeX, calculator marks. Linear time."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import NamedTuple

__all__ = ["CENTS", "MAX_UNIT_WORDS", "Kind", "Token", "tokenise"]

MAX_DIGITS = 30
"""A longer number is opaque."""
MAX_UNIT_WORDS = 6
"""Words allowed between a number and the operator or equals sign after it: "3 boxes of crayons * 4"."""


class Kind(Enum):
    """What a token is, as far as arithmetic is concerned."""

    NUMBER = auto()
    OPERATOR = auto()
    OPEN = auto()
    CLOSE = auto()
    EQUALS = auto()
    WORD = auto()
    PERCENT = auto()
    FRACTION = auto()
    """LaTeX `\\frac`, to be followed by two groups."""
    OPAQUE = auto()
    """A variable, root, clock time...: whatever touches it is not judged."""
    BREAK = auto()
    """End of a sentence, line or list item."""


class Token(NamedTuple):
    """A token; `start` and `end` tell only whether it touches its neighbours."""

    kind: Kind
    text: str
    start: int
    end: int


_STYLE = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox|boxed)(?=\{)")
_CALCULATOR = re.compile(r"<<[^<>\n]*>>")
_BULLET = re.compile(r"^[ \t]*[-*+•][ \t]+", re.MULTILINE)
_POWER = re.compile(r"(?<=[\w)])\*\*(?=[\w(])")
_COMMANDS = {"times": "*", "cdot": "*", "ast": "*", "div": "/"}
_FRACTIONS = frozenset({"frac", "dfrac", "tfrac"})
_IGNORED = frozenset(
    {
        "left",
        "right",
        "quad",
        "qquad",
        "displaystyle",
        "text",
        "textbf",
        "textit",
        "mathrm",
        "mathbf",
        "mbox",
        "boxed",
        "bigl",
        "bigr",
        "big",
    }
)
_MINUS = "-\u2212\u2013"  # hyphen, minus, en dash
_TIMES = "*\u00d7\u2715\u00b7\u22c5"  # asterisk, times, x-shaped cross, middle dot, dot operator
_DIVIDE = "/\u00f7\u2215"  # slash, obelus, division slash
_APOSTROPHES = "'\u2019"
_SYMBOLS = {"+": "+", "^": "^"}
_SYMBOLS |= dict.fromkeys(_MINUS, "-") | dict.fromkeys(_TIMES, "*") | dict.fromkeys(_DIVIDE, "/")
_WORD_OPERATORS = {"x": "*", "X": "*", "times": "*", "plus": "+", "minus": "-", "of": "*"}
_LETTER_WORDS = frozenset("aAImgLlhs")
"""Articles and units; any other single letter is taken for a variable."""
_SHORT_UNITS = frozenset(
    {
        "m",
        "g",
        "L",
        "l",
        "h",
        "s",
        "kg",
        "mg",
        "cm",
        "mm",
        "km",
        "ml",
        "mL",
        "dl",
        "cl",
        "lb",
        "oz",
        "ft",
        "in",
        "yd",
        "mi",
        "hr",
        "GB",
        "MB",
        "KB",
        "TB",
        "am",
        "pm",
    }
)
"""One or two letters that may touch a number; any others are variables (`3ab`)."""
CENTS = frozenset({"cent", "cents", "¢", "penny", "pennies"})
_TOKEN = re.compile(
    rf"""(?P<opaque>\d+(?::\d+|(?:st|nd|rd|th)\b)|\.{{2,}}|…|\.(?=\\(?:overline|dot|bar)))
    |(?P<number>(?:\\?[$€£])?(?:\d+(?:,\d{{3}}(?!\d))*(?:\.\d+)?|\.\d+))
    |(?P<glue>(?<=\d)-(?=[^\W\d_]{{2}}))
    |(?P<command>\\[a-zA-Z]+(?:\[\w*\])?)
    |(?P<escape>\\.)
    |(?P<by>(?:multiplied|divided)\s{{1,3}}by\b)
    |(?P<cross>[xX](?=\s?\\?\$?[\d(.]))
    |(?P<square>[²³])
    |(?P<word>[^\W\d_]\w*(?:[{_APOSTROPHES}-][^\W\d_]\w*)*|¢)
    |(?P<space>\s+)
    |(?P<equals>=(?![=>])|==)
    |(?P<symbol>[{_MINUS}+{_TIMES}{_DIVIDE}^])
    |(?P<skip>[$€£&`"'\u201c\u201d\u2018\u2019])
    |(?P<open>[({{])|(?P<close>[)}}])
    |(?P<percent>%)
    |(?P<break>[.,;:?!\[\]|\#—•])
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def tokenise(text: str) -> list[Token]:
    """The tokens that matter; what cannot be read with certainty is one of kind OPAQUE."""
    text = _STYLE.sub("", _CALCULATOR.sub("", text)).replace("{,}", ",")
    text = _POWER.sub("^", _BULLET.sub("\n", text)).replace("**", " ")
    tokens: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind, symbol = _classify(match)
        if kind is not None:
            tokens.append(Token(kind, symbol, match.start(), match.end()))
        if match.lastgroup == "square":
            tokens.append(Token(Kind.NUMBER, "2" if match.group() == "²" else "3", match.end(), match.end()))
    return _resolve(tokens)


def _classify(match: re.Match[str]) -> tuple[Kind | None, str]:
    """Kind (None to skip it) and normalised text of one raw token."""
    text = match.group()
    match match.lastgroup:
        case "number":
            digits = text.lstrip("\\$€£").replace(",", "")
            return (Kind.NUMBER if len(digits) <= MAX_DIGITS else Kind.OPAQUE), digits
        case "symbol":
            return Kind.OPERATOR, _SYMBOLS[text]
        case "square":
            return Kind.OPERATOR, "^"
        case "by":
            return Kind.OPERATOR, "*" if text.startswith("m") else "/"
        case "equals":
            return Kind.EQUALS, "="
        case "open":
            return Kind.OPEN, "("
        case "close":
            return Kind.CLOSE, ")"
        case "percent":
            return Kind.PERCENT, "%"
        case "cross" | "word":
            if text == "equals":
                return Kind.EQUALS, "="
            letters = [part for part in re.split(f"[{_APOSTROPHES}-]", text) if part]
            variable = text not in _WORD_OPERATORS and text not in _LETTER_WORDS | CENTS
            variable = variable and (all(len(part) == 1 for part in letters) or any(c.isdecimal() for c in text))
            return (Kind.OPAQUE if variable else Kind.WORD), text
        case "command":
            name = text[1:]
            if name in _COMMANDS:
                return Kind.OPERATOR, _COMMANDS[name]
            if name in _FRACTIONS:
                return Kind.FRACTION, name
            return (None if name in _IGNORED else Kind.OPAQUE), text
        case "escape":
            if text == "\\%":
                return Kind.PERCENT, "%"
            return (Kind.BREAK if text in ("\\[", "\\]", "\\\\") else None), text
        case "space":
            return (Kind.BREAK if "\n" in text else None), text
        case "break":
            return Kind.BREAK, text
        case "skip" | "glue":
            return None, text
    return Kind.OPAQUE, text


def _resolve(raw: list[Token]) -> list[Token]:
    """Settle what only the neighbours decide: word operators, odd or wordy parentheses, wrapped lines."""
    partner: dict[int, int] = {}
    stack: list[int] = []
    for i, token in enumerate(raw):
        if token.kind is Kind.OPEN:
            stack.append(i)
        elif token.kind is Kind.CLOSE and stack:
            opened = stack.pop()
            partner[opened], partner[i] = i, opened
    tokens: list[Token] = []
    at = 0
    while at < len(raw):
        token = raw[at]
        after = raw[at + 1].kind if at + 1 < len(raw) else Kind.BREAK
        before = tokens[-1].kind if tokens else Kind.BREAK
        if token.kind in (Kind.OPEN, Kind.CLOSE) and at not in partner:
            token = token._replace(kind=Kind.BREAK)
        elif token.kind is Kind.OPEN and after is Kind.WORD:
            close = at + 1
            while raw[close].kind is Kind.WORD and len(raw[close].text) > 1 and close - at <= MAX_UNIT_WORDS:
                close += 1
            if close == partner[at]:  # "(Mondays)", "{hours}": part of the unit
                tokens += [raw[at + 1]._replace(start=token.start), *raw[at + 2 : close]]
                at = close + 1
                continue
        elif token.kind is Kind.BREAK and token.text.isspace() and after is Kind.EQUALS:
            at += 1
            continue
        elif token.kind is Kind.WORD and token.text in _WORD_OPERATORS:
            operand = after in (Kind.NUMBER, Kind.OPEN, Kind.FRACTION)
            counted = before in (Kind.NUMBER, Kind.CLOSE, Kind.PERCENT)
            if operand and (counted or (before is Kind.WORD and token.text != "of")):
                token = token._replace(kind=Kind.OPERATOR, text=_WORD_OPERATORS[token.text])
            elif len(token.text) == 1:
                token = token._replace(kind=Kind.OPAQUE)
        elif (
            token.kind is Kind.WORD
            and len(token.text) <= 2
            and token.text not in _SHORT_UNITS | CENTS
            and before is Kind.NUMBER
            and tokens[-1].end == token.start
        ):
            token = token._replace(kind=Kind.OPAQUE)
        tokens.append(token)
        at += 1
    return tokens
