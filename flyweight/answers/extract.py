"""Finding the answer in a solution. One pass, linear in the length; only the last 100,000 characters are read."""

from __future__ import annotations

import json
import re

from flyweight.answers import limits
from flyweight.answers.canonical import check_kind, dump_json
from flyweight.answers.forms import NAME
from flyweight.answers.latex import split

__all__ = ["extract"]

BOX = re.compile(r"\\(?:boxed|fbox)(?: ?\{| (?=[0-9A-Za-z]))")
EMPTY_BOX = re.compile(r"\\(?:boxed|fbox) ?\{\s{0,20}\}")
BETWEEN = re.compile(
    r"(?:[\s,;$&]|\\[()\[\],;: ]|\\q?quad|\\text\{[^{}]{0,40}?(?:and|or)[^{}a-z]{0,4}\}|(?:and|or)(?![a-z])){0,40}"
)
"""What may stand between boxes that together are one answer."""
PHRASE = re.compile(r"(?:final answer|answer|result|solution)(?: (?:is|was|would be|equals|:)|\**:)[ *:=\"]{0,8}", re.I)
HASHES = re.compile(r"####[ \t]{0,8}([^\n]{1,500})")
SENTENCE = re.compile(r"\n|[.!?](?=\s|\Z)|<\|")
SPAN = re.compile(
    r"\$\$([^$]{1,2000})\$\$|\\\[((?:[^\\]|\\(?![\[\]])){1,2000})\\\]|\\\(((?:[^\\]|\\(?![()])){1,2000})\\\)"
    r"|(?<![\\$0-9A-Za-z])\$((?:[^$\\\n]|\\.){1,2000})\$(?![0-9])"
)
WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
LONG_WORD = re.compile(r"(?<![\\A-Za-z])(?!sin|cos|tan|log|exp|sqrt|and|or)[A-Za-z]{3,}")
SENTENCE_WORD = re.compile(r"(?<![\\A-Za-z])(?!sinh?|cosh?|tanh?|sqrt)[A-Za-z]{4,}")
SILENT = re.compile(r"\\(?:text|math|m|begin|end|operatorname)[a-z]{0,12}\{[^{}]{0,500}\}|_\{[^{}]{0,100}\}")
"""Parts of a formula whose letters are not a sentence."""
_SCALE = r"\s(?:hundred|thousand|million|billion|trillion|dozen)s?(?![A-Za-z])"
NUMBER = re.compile(
    r"(?<![0-9A-Za-z_.,])(?:(?<![0-9)]\s)(?<![0-9)])[-\u2212])?[$€£]?(?:(?<=[$€£])-)?"
    r"(?:[0-9]{1,3}(?:,[0-9]{3}){1,20}(?![0-9])(?:\.[0-9]{1,400})?"
    r"|[0-9]{1,5000}(?: [0-9]{1,30}(?=/[0-9]{1,30}(?![0-9/.]))|[.,][0-9]{1,400}(?![0-9,]))?|\.[0-9]{1,400})"
    r"(?:[eE][+-]?[0-9]{1,3}(?![0-9A-Za-z]))?(?:/[0-9]{1,30}(?![0-9/.]))?(?:\s?\\?%|\s(?:percent|pct)"
    rf"|{_SCALE})?"
)
SCALE = re.compile(_SCALE)
GROUP = re.compile(
    r"(?<![0-9A-Za-z_)])(?!\([$€£]?[1-9][0-9]{0,2}(?:,[0-9]{3}){1,20}\))"
    r"(?:[(\[][^()\[\]]{0,200},[^()\[\]]{0,200}[)\]]|\\?\{[^{}]{0,200},[^{}]{0,200}\})"
)
"""A pair, an interval or a set in plain text; (1,200) after words repeats a number."""
CLOCK = re.compile(r"(?<![0-9:.])[0-9]{1,6} ?: ?[0-9]{1,6}(?![0-9])")
"""A time of day or a ratio."""
DECIMAL_COMMA = re.compile(
    r"[-\u2212$€£]{0,2}(?:[0-9]{4,400},[0-9]{1,400}|0,[0-9]{1,400}|[0-9]{1,3},(?:[0-9]{1,2}|[0-9]{4,400}))\D{0,10}"
)
SERIES = re.compile(r"(?:,\s?(?:and|or)?|and|or)?\s?")
SHORT = 300
"""A text up to this long without words is itself the answer."""
FENCE = re.compile(r"^[ \t]{0,3}```([^\n`]{0,40})\n", re.MULTILINE)
FENCE_END = re.compile(r"^[ \t]{0,3}```[ \t]{0,40}\r?$", re.MULTILINE)
CODE = re.compile(
    r"^(?:def |class |import |from \w{1,60} import|#include|public |fn |func |function |const |let |var |print\()",
    re.MULTILINE,
)
_STATED = r"(?:answer(?:\s(?:is|would be|:))?|(?:choice|option)(?:\s(?:is|would be)|[\s*]{0,3}:))"
_LETTER = (
    r"[:\s*]{0,6}(?:option|choice)?\s?\\?[(\[{\"'*]{0,3}"
    r"((?-i:[aiI](?!\s[a-z])|[A-Hb-hJj]))(?![A-Za-z'])"
)
CHOICE_PHRASES = (re.compile(_STATED + _LETTER, re.I), re.compile(r"(?:choice|option)" + _LETTER, re.I))
"""What states an answer, then what may only speak of one. "I" and a small "a" before a small word are words."""
CHOICE = re.compile(
    r"(?<![A-Za-z0-9])(?:\(([A-J])\)|\*{2}([A-J])\*{2}|([B-HJ]|A(?!\s[a-z])|I(?!\s[a-z]|'))(?![A-Za-z0-9']))"
)
BOXED_CHOICE = re.compile(r"(?:\\[a-z]{1,12}\{)?[\s(\[*]{0,4}([A-Ja-j])(?:[)\].:*}\s].*)?\}?", re.DOTALL)
JSON_TRIES = 200
JSON_TEXT = 20_000


def extract(text: str, kind: str = "math") -> str | None:
    """The answer a solution gives, or None when it gives none.

    math: the last \\boxed or \\fbox that closes (boxes joined by "and" or commas are one answer), else what follows
    "answer is", "answer:" or ####, whichever comes last, else a text that is nothing but a formula, else the last
    formula or number. choice: the letter A to J. json: the last JSON object, keys sorted; json:FIELD: that field of
    it. code: the last fenced block, else the text when it looks like code. text: all of it, stripped.
    Raises ConfigError for an unknown kind.
    """
    name = check_kind(kind)
    if name == "text":
        return text.strip() or None
    text = text[-limits.MAX_TEXT :]
    if name == "choice":
        return _choice(text)
    if name == "code":
        return _code(text)
    if name == "json":
        return _json(text, kind.partition(":")[2])
    answer = _math(text)
    return answer.strip() or None if answer else None


def _math(text: str) -> str | None:
    boxed = _boxed(text)
    if boxed is not None:
        return boxed
    phrase = _final(PHRASE, text)
    hashes = _final(HASHES, text)
    if hashes is not None and (phrase is None or hashes.start() > phrase.start()):
        return hashes.group(1)
    if phrase is not None and (said := _said(text[phrase.end() : phrase.end() + 2_000])):
        return said
    stripped = EMPTY_BOX.sub("", text).strip()
    if 0 < len(stripped) <= SHORT and "\n\n" not in stripped and not LONG_WORD.search(stripped.replace("\\text", "")):
        return _decimal_comma(stripped)
    return _last(text)


def _final(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last match."""
    found = None
    for match in pattern.finditer(text):
        found = match
    return found


def _boxed(text: str) -> str | None:
    """Content of the last box that closes, joined with the boxes right before it. Brackets are matched once."""
    starts = list(BOX.finditer(text))
    if not starts:
        return None
    closes = _closing(text, starts[0].start())
    boxes: list[tuple[int, int, str]] = []
    for match in starts:
        if match.group().endswith("{"):
            end = closes.get(match.end() - 1)
            if end is not None and (not boxes or match.start() >= boxes[-1][1]):
                boxes.append((match.start(), end + 1, text[match.end() : end]))
        elif not boxes or match.start() >= boxes[-1][1]:
            word = re.match(r"[0-9A-Za-z.,]{1,100}", text[match.end() : match.end() + 100])
            content = word.group().rstrip(".,") if word else ""
            boxes.append((match.start(), match.end() + len(content), content))
    boxes = [box for box in boxes if box[2].strip()]
    if not boxes:
        return None
    answer = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        gap = text[box[1] : answer[-1][0]]
        if len(answer) >= 50 or len(gap) > 80 or not BETWEEN.fullmatch(gap) or "\n\n" in gap:
            break
        answer.append(box)
    contents = [box[2].strip() for box in reversed(answer)]
    return contents[0] if len(set(contents)) == 1 else ", ".join(contents)


def _closing(text: str, start: int) -> dict[int, int]:
    """Position of the closing brace for every opening brace that has one; escaped braces do not count."""
    stack: list[int] = []
    pairs: dict[int, int] = {}
    for match in re.finditer(r"\\.|[{}]", text[start:], re.DOTALL):
        brace, at = match.group(), match.start() + start
        if brace == "{":
            stack.append(at)
        elif brace == "}" and stack:
            pairs[stack.pop()] = at
    return pairs


def _said(rest: str) -> str | None:
    """The answer in what follows "the answer is"."""
    rest = rest.lstrip(" \n\t*:=")
    spans = list(SPAN.finditer(rest))
    end = SENTENCE.search(rest)
    while end is not None and any(s.start() < end.start() < s.end() for s in spans):
        end = SENTENCE.search(rest, end.end())
    sentence = rest[: end.start()] if end else rest
    spans = [s for s in spans if s.end() <= len(sentence) + 1 and _formula(s)]
    verb = sentence.rfind(" is ")
    if verb >= 0 and any(char.isdigit() or char in "$\\" for char in sentence[verb:]):
        return _said(sentence[verb + 4 :])
    if spans:
        return _series(sentence, spans)
    sentence = sentence.strip(" *\"'`,;:")
    if "=" in sentence and WORD.search(sentence):
        if (given := _given(sentence)) is not None:
            return given
        sentence = sentence.rpartition("=")[2].strip()
    if not sentence:
        return None
    if not WORD.search(sentence):
        return _decimal_comma(sentence.replace("*", ""))
    clock = CLOCK.search(sentence)
    if clock is not None:
        return clock.group()
    numbers = list(NUMBER.finditer(sentence))
    if numbers and numbers[0].start() == 0:
        return _series(sentence, numbers)
    groups = [group for group in GROUP.finditer(sentence) if not WORD.search(group.group())]
    if numbers and groups and groups[-1].start() < numbers[-1].start() < groups[-1].end():
        return _series(sentence, groups)
    if numbers:
        return _tidy(numbers[-1].group())
    return sentence if len(sentence.split()) <= 8 else None


def _given(sentence: str) -> str | None:
    """Several values given to names, as in "x = 2 or x = -3 feet"; None when there are not several."""
    given = []
    for piece in split(sentence, (", ", " and ", " or ")):
        name, _, value = (part.strip() for part in piece.partition("="))
        number = NUMBER.match(value)
        if WORD.search(name) or not NAME.fullmatch(name) or not value or (WORD.search(value) and not number):
            break
        given.append(f"{name} = {_tidy(number.group()) if number and WORD.search(value) else value}")
    return ", ".join(given) if len(given) > 1 else None


def _series(sentence: str, found: list[re.Match[str]]) -> str:
    """The first formula or number, with those joined to it by commas, "and" or "or"."""
    last = 0
    while last + 1 < len(found) and SERIES.fullmatch(
        sentence[found[last].end() : found[last + 1].start()].strip(" \"'")
    ):
        last += 1
    return ", ".join(_content(m) for m in found[: last + 1])


def _content(match: re.Match[str]) -> str:
    if match.re is SPAN:
        scale = SCALE.match(match.string, match.end())
        formula = next(group for group in match.groups() if group is not None).strip()
        return formula + scale.group() if scale else formula
    return match.group() if match.re is GROUP else _tidy(match.group())


def _formula(match: re.Match[str]) -> bool:
    """Whether dollars enclose mathematics: "$5 for the book and $" is money."""
    content = match.group(4)
    return content is None or not SENTENCE_WORD.search(SILENT.sub("", content))


def _last(text: str) -> str | None:
    """The formula or number that ends last."""
    number = span = None
    tail = text[-20_000:]
    for match in SPAN.finditer(tail):
        if _formula(match):
            span = match
    for match in NUMBER.finditer(tail):
        number = match
    if span is not None and (number is None or number.start() < span.end()):
        return _content(span)
    return _tidy(number.group()) if number is not None else None


def _tidy(number: str) -> str:
    return _decimal_comma(number.strip())


def _decimal_comma(text: str) -> str:
    """2,74 -> 2.74 for a text that is one number: a comma not followed by exactly three digits."""
    match = DECIMAL_COMMA.fullmatch(text)
    return text.replace(",", ".") if match else text


def _choice(text: str) -> str | None:
    boxed = _boxed(text)
    if boxed is not None:
        letter = BOXED_CHOICE.fullmatch(boxed.strip()[:200])
        if letter:
            return letter.group(1).upper()
    for phrase in CHOICE_PHRASES:
        found = _final(phrase, text)
        if found is not None and (found.group(1).isupper() or len(text) < 40):
            return found.group(1).upper()
    if re.fullmatch(r"\s{0,20}\(?([A-Ja-j])\)?[.:]?\s{0,20}", text[:60]) and len(text) <= 60:
        return text.strip(" ().:\n\t\r").upper()[:1]
    letters = [next(group for group in groups if group) for groups in CHOICE.findall(text)]
    return letters[-1] if letters else None


def _code(text: str) -> str | None:
    block = None
    at = 0
    while (opening := FENCE.search(text, at)) is not None:
        closing = FENCE_END.search(text, opening.end())
        block = text[opening.end() : closing.start() if closing else len(text)]
        at = closing.end() if closing else len(text)
    if block is not None:
        return block.rstrip() or None
    return text.strip() if CODE.search(text) else None


def _json(text: str, field: str) -> str | None:
    """The last object; with a field, the last object that has it."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    tail = text[-JSON_TEXT:]
    found: object = None
    at = tail.find("{")
    for _ in range(JSON_TRIES):
        if at < 0:
            break
        try:
            value, at = decoder.raw_decode(tail, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            if isinstance(value, dict) and (not field or field in value):
                found = value
        at = tail.find("{", at)
    if not isinstance(found, dict):
        return None
    if not field:
        return dump_json(found)
    value = found[field]
    return value.strip() if isinstance(value, str) else dump_json(value)


def _refuse(constant: str) -> object:
    raise ValueError(constant)
