"""An answer read once: number, expression, words, group, relation, or nothing this reader knows."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Literal

from flyweight.answers import arith, limits
from flyweight.answers.latex import CLOSE, OPEN, ROW, clean, enclosed, split

__all__ = ["Form", "read"]

Kind = Literal["number", "expression", "words", "group", "relation", "opaque", "refused"]


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer says, as far as it can be read without algebra."""

    kind: Kind
    key: str
    """Canonical key: two answers with the same key are equal."""
    text: str
    """Cleaned LaTeX for the symbolic worker; for a refusal, the reason."""
    value: Fraction | None = None
    """Exact value of a number."""
    point: tuple[complex, ...] = ()
    """Values at fixed points: one for a constant, several with variables, none when not computable."""
    error: float = 0.0
    """Relative error allowed when comparing points."""
    places: int = 0
    """Decimal places written, 0 for anything but a plain decimal."""
    percent: bool = False
    scale: int = 1
    """What a word after the number, such as million, multiplied it by."""
    parts: tuple[Form, ...] = ()
    """Members of a group, in the order written."""
    names: tuple[str, ...] = ()
    """Names the parts are given to, for shape "="."""
    shape: str = ""
    """Brackets and separator of a group ("(,)", "[,)", "matrix", ...); "{}" for unordered, "=" for named values."""


NUMBER = r"[0-9]{1,2000}(?:\.[0-9]{0,2000})?|\.[0-9]{1,2000}"
DECIMAL = re.compile(r"[+-]?(?<![0-9])[0-9]{0,2000}\.([0-9]{1,2000})")
THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3}){1,600}(?![0-9]|,[0-9])")
SPACED = re.compile(r"[+-]?[0-9]{1,3}(?: [0-9]{3}){1,600}(?:\.[0-9]{1,600})?")
SCIENTIFIC = re.compile(rf"([+-]?(?<![0-9.])(?:{NUMBER}))[eE]([+-]?[0-9]{{1,3}})")
MIXED = re.compile(r"([+-]?)([0-9]{1,30}) (?:and )?([0-9]{1,30}) ?/ ?([0-9]{1,30})")
WORDS = re.compile(r"\\text\{([^{}]*)\}")
CURRENCY = re.compile(r"[€£¥₹₽₩₿¢]|(?<![A-Za-z])(?:US|USD|CAD|AUD|EUR|GBP|Rs)(?![A-Za-z])\.?")
DEGREES = re.compile(
    r" ?\^\\circ ?(?:[CFK](?![A-Za-z])|\\text\{ ?[CFK] ?\})?"
    r"| (?:degrees?|deg)(?: (?:celsius|fahrenheit|kelvin))?\Z",
    re.I,
)
PERCENT = re.compile(r" ?(?:%|\\text\{ ?(?:percent|%|pct)\.? ?\}|percent|pct\.?|per cent)\Z", re.I)
SCALES = {
    "hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12
}  # fmt: skip
SCALE = re.compile(r"(?:\\text\{ ?| )(hundred|thousand|million|billion|trillion|dozen)s?(?: ?\}|(?![a-z]))", re.I)
_UNIT = r"\\text\{[^{}0-9]{1,60}\}(?: ?\^ ?(?:-?[0-9]|\{-?[0-9]\}))?"
UNIT_TEXT = re.compile(rf"(?<=[0-9)}}\]a-z!^]) ?(?:\* ?)?{_UNIT}(?: ?/ ?{_UNIT})?\Z")
"""A unit in a \\text{} after a value, with its power: 15\\text{ cm}^2."""
_POWER = r"(?: ?\^ ?\{?[0-9]\}?)?"
UNIT_WORDS = re.compile(
    r"(?<=[0-9)}\]]) ((?:per |a |an |of |/ ?)?[A-Za-z][A-Za-z'-]{1,30}\.?"
    rf"(?:[ /-]{{1,3}}[A-Za-z][A-Za-z'-]{{0,30}}\.?){{0,11}}){_POWER}\Z"
)
UNIT_SHORT = re.compile(
    r"(?<=[0-9]) ?(?:[kcm]m|kg|mg|[mM][lL]|hrs?|mins?|secs?|[kM]Wh?|mph|kph|(?:km|m|cm|mi) ?/ ?(?:h|hr|s)"
    rf"|lbs?|oz|ft|yd|in|sq ?[a-z]{{1,3}}|cents?){_POWER}\Z"
)
UNIT_METRE = re.compile(rf"(?<=[0-9]) m{_POWER}\Z")
NOT_UNITS = frozenset(
    re.findall(
        r"\w+",
        "sin cos tan cot sec csc log ln exp mod pi sqrt theta squared cubed factorial infinity choose over "
        "minus plus times and or to not point if is are when where for mod x y divided ",
    )
)
CHANGED = re.compile(
    r"(?<=[0-9)}\]])(?: ?\^\\circ ?[CF]?)?(?: ?\\text\{[^{}]{0,40}?| (?:[A-Za-z]{1,30} ){0,3})(?<![A-Za-z])"
    r"(?:[ap](?:\. ?)?m|below|negative|less)(?![A-Za-z])[^0-9]{0,40}\Z",
    re.I,
)
"""Words that make another value of the one before them: 10 pm, 10 degrees below zero."""
HALF = re.compile(r"([ap])\. ?m", re.I)
LEADING = re.compile(
    r"(?:approximately|about|around|exactly|roughly|only|is|equals|=|:|a total of)\s{0,3}(?=[-+0-9.\\(])",
    re.I,
)
WORDY = re.compile(
    r"[A-Za-z]{2,60}(?:[ '-]{1,3}[A-Za-z0-9'.,-]{1,60}){1,200}|[A-Z][a-z]{2,60}|[A-Za-z]{4,60}"
    r"|(?i:yes|no|dne|am|pm|tie|nan)"
)
SQUEEZE = re.compile(r"[^\w]+")
ENVIRONMENT = re.compile(
    r"\\begin ?\{([pbvBV]?matrix|array)\}(?:\{[^{}]{0,40}\})?((?:(?!\\begin|\\end).)*+)\\end ?\{\1\}", re.DOTALL
)
NAME = re.compile(
    r"(?:[A-Za-z:/()|', {}]|\\[A-Za-z]{1,12}(?![A-Za-z])|_(?:\{[^{}]{0,20}\}|[A-Za-z0-9])|[0-9](?=\))){1,80}"
)
"""What may stand left of "=" in an assignment: letters, subscripts and brackets, no arithmetic."""
NUMERAL = re.compile(r"\(?(?<![0-9A-Z])([0-9A-Z]{1,200})\)?_(?:\{([0-9]{1,3})\}|([0-9]))")
"""A numeral with its base, compared by spelling: Math-Verify takes 204_5 and 204_6 for equal."""
ONE_CHARACTER = re.compile(r"([_^])\{(\w)\}")
LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z]")
RELATION = ("\\le ", "\\ge ", "\\ne ", "<", ">", "\\le", "\\ge", "\\ne")
LIST = (
    ",",
    " and ",
    " or ",
    *(rf"\text{{{a}{w}{b}}}" for w in ("and", "or") for a in ("", " ") for b in ("", " ")),
    "&",
)
GLUED_OR = re.compile(r"(?<=[0-9])(or|and)(?=[A-Za-z]\()")
INFINITE = re.compile(r"[+-]? ?\\infty ?|[+-]?(?:inf|infinity|oo)", re.I)
MAX_PARTS = 200


def read(answer: str) -> Form:
    """The answer as a Form; texts beyond the limits come back refused, with the reason. Never raises."""
    reason = limits.refusal(answer)
    if reason:
        squeezed = " ".join(answer.split())
        name = hashlib.sha256(squeezed.encode("utf-8", "surrogatepass")).hexdigest()
        return Form("refused", "?" + name, reason)
    return _read(answer)


@lru_cache(maxsize=4096)
def _read(answer: str) -> Form:
    """The same for an answer within the limits: only short texts are kept."""
    text = GLUED_OR.sub(r" \1 ", clean(answer))
    if not text:
        return Form("words", "'" + answer.strip().casefold(), answer.strip())
    return _structure(text, 0)


def _structure(text: str, depth: int) -> Form:
    """Lists first, then relations, then brackets, then single values."""
    text = text.rstrip(" .,;:").lstrip(" ,;:")
    head, *rest = split(text, ("\\approx",))
    text = (head if head.strip(" =") else "".join(rest[:1])).strip(" =")
    text = _join_thousands(text)
    if depth > 12 or not text:
        return _opaque(text)
    worded = WORDS.fullmatch(text)
    if worded:
        inner = worded.group(1).strip(" .()")
        return _words(inner, text) if len(inner) > 1 and not inner[0].isdigit() else _structure(inner, depth + 1)
    if WORDY.fullmatch(text) and not _numeric_words(text):
        return _words(text, text)
    union = split(text, ("\\cup",))
    if len(union) > 1:
        return _group([_structure(piece, depth + 1) for piece in union[:MAX_PARTS]], "\\cup", text)
    environment = ENVIRONMENT.fullmatch(text)
    if environment:
        return _matrix(environment.group(2), text, depth)
    if "\\begin" in text and not text.startswith(("(", "[", "{", "\u27e6")):
        _, value = _assignment(text)
        return _structure(value, depth + 1) if value != text else _opaque(text)
    outer = split(text, (";",))
    pieces = [piece for piece in (outer if len(outer) > 1 else split(text, LIST)) if piece.strip()]
    if len(pieces) > 1:
        return _list(pieces, text, depth)
    return _single(text, depth)


def _list(pieces: list[str], text: str, depth: int) -> Form:
    """Several answers side by side: unordered, unless each is given to a name of its own."""
    if len(pieces) > MAX_PARTS:
        return _opaque(text)
    names = [_assignment(piece)[0] for piece in pieces]
    parts = [_structure(piece, depth + 1) for piece in pieces]
    if all(names) and len(set(names)) == len(names):
        key = ",".join(sorted(f"{name}={part.key}" for name, part in zip(names, parts, strict=True)))
        return Form("group", f"<{key}>", text, parts=tuple(parts), names=tuple(names), shape="=")
    return _group(parts, "{}", text)


def _single(text: str, depth: int) -> Form:
    name, value = _assignment(text)
    if name:
        return _structure(value, depth + 1)
    sides = split(text, ("=",))
    if len(sides) > 1 or len(split(text, RELATION)) > 1:
        return _relation(text)
    if "\\in " in text:
        left, *right = split(text, ("\\in ",))
        if len(right) == 1 and NAME.fullmatch(left.strip()):
            return _structure(right[0], depth + 1)
    if "\\pm" in text or "\\mp" in text:
        return _plus_minus(text, depth)
    if enclosed(text):
        return _bracketed(text, depth)
    if text[0] in OPEN and text[-1] in CLOSE and len(pieces := split(text[1:-1], (",",))) > 1:
        return _ordered(pieces, text[0] + "," + text[-1], text, depth)
    ratio = split(text, (":",))
    if len(ratio) > 1 and all(piece.strip() for piece in ratio):
        return _ordered(ratio, ":", text, depth)
    return _scalar(text)


def _bracketed(text: str, depth: int) -> Form:
    inner = text[1:-1].strip()
    pieces = [piece for piece in split(inner, (",", ";")) if piece.strip()]
    if text[0] == "\u27e6" or (text[0] == "{" and len(pieces) > 1):
        if "|" in inner or "\\mid" in inner or (":" in inner and len(pieces) < 2):
            return _opaque(text)
        if not inner:
            return Form("words", "\\emptyset", text)
        return _group([_structure(piece, depth + 1) for piece in pieces[:MAX_PARTS]], "{}", text)
    if len(pieces) > 1:
        return _ordered(pieces, text[0] + "," + text[-1], text, depth)
    if text[0] in "({[" and inner:
        return _structure(inner, depth + 1)
    return _opaque(text)


def _ordered(pieces: list[str], shape: str, text: str, depth: int) -> Form:
    parts = tuple(_structure(piece, depth + 1) for piece in pieces[:MAX_PARTS])
    marks = shape.split(",") if "," in shape else ["(:", ")"]
    return Form("group", marks[0] + ",".join(p.key for p in parts) + marks[-1], text, parts=parts, shape=shape)


def _group(parts: list[Form], shape: str, text: str) -> Form:
    """Unordered group: nested ones flattened, members with one key counted once, a single member is itself."""
    flat: dict[str, Form] = {}
    for part in parts:
        for member in part.parts if part.shape == shape else (part,):
            flat.setdefault(member.key, member)
    if len(flat) == 1:
        return next(iter(flat.values()))
    key = f"{shape}({','.join(sorted(flat))})"
    return Form("group", key, text, parts=tuple(flat.values()), shape=shape)


def _matrix(body: str, text: str, depth: int) -> Form:
    rows = [row for row in split(body, (ROW,)) if row.strip(" ")]
    cells = [[_structure(cell, depth + 1) for cell in split(row, ("&",))] for row in rows[:50]]
    parts = tuple(cell for row in cells for cell in row)
    key = ";".join(",".join(cell.key for cell in row) for row in cells)
    widths = "x".join(str(len(row)) for row in cells)
    if len(parts) == 1:
        return parts[0]
    return Form("group", f"matrix[{key}]", text, parts=parts, shape=f"matrix {widths}")


def _plus_minus(text: str, depth: int) -> Form:
    upper = text.replace("\\pm", "+").replace("\\mp", "-")
    lower = text.replace("\\pm", "-").replace("\\mp", "+")
    return _group([_structure(upper.strip(), depth + 1), _structure(lower, depth + 1)], "{}", text)


def _assignment(text: str) -> tuple[str, str]:
    """Name and value of "x = 5", "f(x) = ...", "a = b = 5"; empty name when it is an equation or no relation."""
    sides = split(text, ("=",))
    if len(sides) < 2 or len(split(text, RELATION)) > 1:
        return "", text
    left, right = sides[0].strip(), sides[-1].strip()
    if right and (len(sides) > 2 or NAME.fullmatch(left) or not LETTER.search(left + right)):
        return left.replace(" ", "") or "=", right
    return "", text


def _relation(text: str) -> Form:
    """Equations and inequalities; only the reading direction is normalised, the rest is the worker's."""
    squeezed = text
    for sign, flipped in (("\\ge", "\\le"), (">", "<")):
        sides = split(squeezed, (sign,))
        if len(sides) > 1 and not {"<", "\\le"} & set(re.findall(r"<|\\le", squeezed)):
            squeezed = flipped.join(reversed(sides))
    pieces = split(squeezed, ("=", *RELATION))
    signs = re.findall(r"\\(?:le|ne)(?![a-z])|[<=>]|\\ge(?![a-z])", squeezed)
    names = [_scalar(piece.strip()).key if piece.strip() else "" for piece in pieces]
    if len(signs) != len(names) - 1:
        return _opaque(text)
    if set(signs) <= {"=", "\\ne"} and len(names) == 2:
        names.sort()
    key = names[0] + "".join(sign + name for sign, name in zip(signs, names[1:], strict=True))
    return Form("relation", f"rel {key}", text)


def _words(inner: str, text: str) -> Form:
    """Words, compared without case, spacing and punctuation."""
    key = SQUEEZE.sub(" ", inner.casefold()).strip()
    return Form("words", key or inner, text)


def _opaque(text: str) -> Form:
    """What this reader does not know, keyed by its spelling: 52_{8} and 52_8 agree."""
    numeral = NUMERAL.fullmatch(text.replace(" ", ""))
    if numeral:
        return Form("words", f"{numeral[1]}_{numeral[2] or numeral[3]}", text)
    return Form("opaque", "~" + ONE_CHARACTER.sub(r"\1\2", text.replace(" ", "")), text)


def _numeric_words(text: str) -> bool:
    return bool(INFINITE.fullmatch(text)) or text in ("pi", "sqrt")


def _join_thousands(text: str) -> str:
    """1,800 -> 1800 outside brackets only: (1,200) is a pair."""
    if "," not in text or text[0] in OPEN:
        return text
    pieces = split(text, (",",))
    joined = THOUSANDS.sub(lambda m: m.group().replace(",", ""), text) if len(pieces) > 1 else text
    return joined


def _scalar(text: str) -> Form:
    """A number with whatever people put around it, an expression, words, or opaque."""
    source = text
    if SPACED.fullmatch(text):
        text = text.replace(" ", "")
    if changed := CHANGED.search(source):
        words = _words(HALF.sub(r"\1m", WORDS.sub(r" \1 ", changed.group())), "")
        return Form("words", f"{_scalar(source[: changed.start()]).key} {words.key}", source)
    if INFINITE.fullmatch(text):
        sign = "-" if text.startswith("-") else ""
        return Form("words", f"{sign}\\infty", source)
    text = LEADING.sub("", text, count=1) if not text[:1].isdigit() else text
    text = CURRENCY.sub("", text).strip()
    factor, times = Fraction(1), 1
    percent = PERCENT.search(text)
    if percent:
        text, factor = text[: percent.start()].strip(" \\"), Fraction(1, 100)
    scale = SCALE.search(text)
    if scale and text[: scale.start()].strip() and text[0] in "+-.0123456789":
        text, times = text[: scale.start()] + text[scale.end() :], SCALES[scale.group(1).lower()]
    text = _strip_unit(DEGREES.sub("", text).strip())
    form = _arithmetic(text, source, factor * times)
    if form is not None:
        return replace(form, percent=bool(percent), scale=times)
    plain = WORDS.sub(r" \1 ", source).strip()
    if WORDY.fullmatch(plain) or (len(plain) > 3 and not re.search(r"[\\^_=+*<>{}]", plain)):
        return _words(plain, source)
    return _opaque(source)


def _strip_unit(text: str) -> str:
    """The value without a unit written after it; function names and operators are not units."""
    text = UNIT_TEXT.sub("", text)
    words = UNIT_WORDS.search(text)
    if words and not NOT_UNITS & set(re.split(r"[ /-]", words.group(1).lower())):
        text = text[: words.start()]
    if text[:1] in "+-.0123456789\\" and len(text) < 60:
        text = UNIT_METRE.sub("", UNIT_SHORT.sub("", text))
    return text.strip()


def _arithmetic(text: str, source: str, factor: Fraction) -> Form | None:
    """Number or expression; None when the text is not arithmetic."""
    mixed = MIXED.fullmatch(text)
    if mixed:
        text = f"{mixed[1]}({mixed[2]}+{mixed[3]}/{mixed[4]})"
    scientific = SCIENTIFIC.fullmatch(text)
    if scientific:
        text = f"{scientific[1]}*10^({scientific[2]})"
    text = WORDS.sub(lambda m: m.group(1).strip() if len(m.group(1).strip()) == 1 else m.group(), text)
    try:
        tree = arith.parse(text)
    except (arith.Unreadable, RecursionError):
        return None
    if factor != 1:
        tree = ("*", [("num", factor), tree])
    value = arith.exact(tree)
    if value is not None:
        decimal = DECIMAL.fullmatch(text)
        point = arith.sample(("num", value))
        places = len(decimal.group(1)) + (2 if factor == Fraction(1, 100) else 0) if decimal else 0
        return Form("number", str(value), source, value, point[0] if point else (), places=places)
    sampled = arith.sample(tree)
    if sampled is None:
        return Form("expression", "=" + arith.spell(tree), source)
    return Form("expression", "=" + arith.spell(tree), source, point=sampled[0], error=sampled[1])
