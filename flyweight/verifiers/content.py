"""What a text says once an echo of the question and stock phrases are taken away, and whether that is anything.

Judges built on language models accept texts that say nothing (Zhao et al. 2025, One Token to Fool LLM-as-a-Judge,
2507.08794): they are turned away here, before a judge is asked. Time is linear in the text. What is caught is listed
below and no more: a fluent text about something else is a judge's work.
"""

from __future__ import annotations

import re
import unicodedata

from flyweight.answers import extract

__all__ = ["LEAST", "LONGEST", "given", "repeated", "sentences", "vacuous", "words"]

LONGEST = 100_000
"""Characters read, counted from the end, as for answers."""
LEAST = 3
"""Different words of its own that a free text needs to count as an answer."""
ECHO = 8
"""Words in a row that also stand in a row in the question are an echo of it."""
LOOP = 0.9
"""Share of repeated 4-grams from which a text of more than LOOP_WORDS words is a loop."""
LOOP_WORDS = 50
SHORT_REFUSAL = 12
"""A text of at most this many words that begins with a refusal is one."""

IDEOGRAPH = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
"""Scripts written without spaces, or with few: a character counts as a word."""
WORD = re.compile(rf"[{IDEOGRAPH}]|[^\W{IDEOGRAPH}]{{1,30}}")
PIECE = re.compile(rf"[{IDEOGRAPH}]|[^\W{IDEOGRAPH}]{{1,30}}|[^\w\s]")
LATIN = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{1,30}")
COMMAND = re.compile(r"\\(?!text|math|boxed|fbox|q?quad|left|right|[bB]igg?|begin|end|d?frac)[a-z]{2,20}")
"""A LaTeX command that stands for something, such as \\infty."""
COMMENT = re.compile(r"^[ \t]{0,200}(?:#|//|\"\"\"|'''|pass$|\.\.\.).{0,2000}$", re.MULTILINE)
REFUSAL = re.compile(
    r"\W{0,20}(?:(?:i['’]?m |i am )?(?:very |so )?sorry\b"
    r"|i (?:can ?not|can['’]?t|could not|could ?n['’]?t|won['’]?t)"
    r"(?=\W{0,9}\Z|\W{1,3}(?:answer|assist|complete|comply|create|determine|discuss|do|fulfil|generate|give|help|make"
    r"|produce|provide|respond|say|solve|tell|write)\b)"  # not every "I cannot": poems have it too
    r"|i (?:don['’]?t know|do not know|am (?:not able|unable)|refuse)\b|i['’]m (?:not able|unable)\b"
    r"|as an? (?:ai|language model)\b|unfortunately,? i\b|no idea\b)",
    re.IGNORECASE,
)

END = re.compile(r"(?<![.!?\u0964\u06d4])[.!?\u0964\u06d4]++[\"'\u2019\u201d)\]*_]{0,3}(?=\s|\Z)|[\u3002\uff01\uff1f]")
"""Where a sentence may end."""
ABBREVIATIONS = frozenset(
    {"mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "etc", "e.g", "i.e", "cf", "approx", "no", "vol", "inc",
     "ltd", "co", "u.s", "u.k", "a.m", "p.m"}
)  # fmt: skip

STOCK = frozenset(
    """
    a about above absolutely again all also an and any approach are as asked at be been begin below but by can
    carefully certainly check clear complete completely conclusion consider correct correctly definitely detail
    details do done each exactly explain explanation final finally find first follow following follows for from
    give given good great have help here how however i if in indeed is it its let look me must my need next no
    not now of ok okay on one or our out output perfect perfectly please problem process provide question
    reasoning reply request response result right s score see should simply so solution solve some start step
    steps such sure that the their then there therefore these they think thinking this thought thoughts thus to
    true understand us use very want was we well what when which will with would yes you your answer answers
    assistant user grade
    antwort lösung réponse respuesta solución resposta risposta soluzione risultato odpowiedź ответ решение cevap çözüm
    الجواب الإجابة الحل उत्तर हल jawaban solusi
    """.split()  # noqa: SIM905
)
"""Words that may frame an answer and are none."""
BOXED = frozenset({"false", "first", "no", "none", "one", "right", "true", "yes"})
"""Stock words that are an answer once they stand in a box."""
STOCK_PHRASES = re.compile(
    "かいせつ|かいとう|回答|解答|解説|答え|こたえ|答案|解决方案|解法|思考过程|让我们一步一步|一步一步|最终答案|解|答|정답|해설|풀이|คำตอบ"
)


def words(text: str) -> list[str]:
    """The words of a text in lower case; a character of a script without spaces is one, a long run several."""
    return WORD.findall(text.casefold())


def sentences(text: str) -> int:
    """Sentences in a text, as punctuation shows them; what follows the last of it counts as one."""
    count = after = 0
    for end in END.finditer(text):
        before = text[max(after, end.start() - 10) : end.start()].split()
        last = before[-1].casefold().lstrip("(\"'") if before else ""
        if end.group()[0] == "." and (last in ABBREVIATIONS or (len(last) == 1 and last.isalpha() and last != "i")):
            continue
        said = text[after : end.start()]
        if said.strip().isdigit():  # the number of an item in a list
            continue
        if any(char.isalnum() for char in said):
            count += 1
        after = end.end()
    return count + any(char.isalnum() for char in text[after:])


def repeated(text: str, size: int = 4) -> float:
    """Share, in [0, 1), of the runs of `size` words or signs that have occurred before; 0 for a shorter text."""
    pieces = PIECE.findall(text.casefold())
    runs = [tuple(pieces[i : i + size]) for i in range(len(pieces) - size + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def given(text: str, question: str, kind: str) -> str | None:
    """The answer of that kind that the text states, or None: an echo of the question or a stock phrase is none.

    Kinds are those of `flyweight.answers.extract`; for text it is all that is left without the echo.
    """
    left = _without_echo(text[-LONGEST:], question)
    answer = extract(left, kind)
    if answer is None or kind == "choice":
        return answer
    if kind == "code":
        return answer if any(char.isalnum() for char in COMMENT.sub("", answer)) else None
    if kind.partition(":")[0] == "json":
        return answer if any(char.isalnum() for char in answer) else None
    if kind == "text":
        return answer if any(char.isalnum() for char in answer) else None
    return answer if _mathematical(answer, boxed="boxed" in left) else None


def vacuous(text: str, question: str, kind: str = "text", least: int = LEAST) -> str:
    """Why the text is no answer to be judged, or "" when it may be one.

    Every kind: it repeats itself throughout, or states no answer of the kind. text: fewer than `least` different words
    of its own beside stock phrases, or a short refusal.
    """
    text = text[-LONGEST:]
    all_words = words(text)
    if len(all_words) > LOOP_WORDS and repeated(text) > LOOP:
        return "it says one thing over and over"
    if given(text, question, kind) is None:
        return "it states no answer" if kind != "text" else "it says nothing of its own"
    if kind == "text":
        if REFUSAL.match(text) and len(all_words) <= SHORT_REFUSAL:
            return "it refuses"
        own = set(words(STOCK_PHRASES.sub(" ", _without_echo(text, question)))) - STOCK
        if len(own) < least:
            return f"it has fewer than {least} words of its own"
    return ""


def _without_echo(text: str, question: str) -> str:
    """The text without the passages it shares, word for word, with the question."""
    asked = words(question[-LONGEST:])
    found = [(match.start(), match.end()) for match in WORD.finditer(text)]
    said = [text[start:end].casefold() for start, end in found]
    size = min(ECHO, len(asked))
    if size < 3:
        return "" if said == asked else text
    known = {tuple(asked[i : i + size]) for i in range(len(asked) - size + 1)}
    kept = []
    after = 0  # where the text goes on behind the last echo
    for i in range(len(said) - size + 1):
        if tuple(said[i : i + size]) in known:
            start, end = found[i][0], found[i + size - 1][1]
            if start > after:
                kept.append(text[after:start])
            after = max(after, end)
    return "\n".join([*kept, text[after:]]) if after else text


def _mathematical(answer: str, *, boxed: bool) -> bool:
    """Whether an extracted answer could be a mathematical one: a number, a symbol, or words that are not stock."""
    if any(char.isdigit() for char in answer) or COMMAND.search(answer):
        return True
    if any(
        (unicodedata.category(char) == "Sm" and char not in "+<=>|~") or "\u0370" <= char <= "\u03ff" for char in answer
    ):
        return True
    own = {word for word in LATIN.findall(answer.casefold()) if word not in STOCK or len(word) == 1}
    if own or (boxed and not BOXED.isdisjoint(LATIN.findall(answer.casefold()))):
        return True
    rest = set(words(STOCK_PHRASES.sub(" ", answer))) - STOCK
    return boxed and any(not word.isascii() for word in rest)
