"""Which language a text is in, as far as its script and its commonest words tell."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

__all__ = ["LANGUAGES", "language"]

SCRIPTS = {
    "latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "cyrillic": "\u0400-\u04ff",
    "devanagari": "\u0900-\u0963\u0966-\u097f",
    "arabic": "\u0620-\u065f\u066e-\u06d3\u06d5-\u06ff\u0750-\u077f",
    "bengali": "\u0980-\u09ff",
    "gurmukhi": "\u0a00-\u0a7f",
    "gujarati": "\u0a80-\u0aff",
    "tamil": "\u0b80-\u0bff",
    "telugu": "\u0c00-\u0c7f",
    "kannada": "\u0c80-\u0cff",
    "malayalam": "\u0d00-\u0d7f",
    "thai": "\u0e00-\u0e7f",
    "hangul": "\u1100-\u11ff\uac00-\ud7af",
    "kana": "\u3040-\u30ff",
    "han": "\u3400-\u4dbf\u4e00-\u9fff",
    "greek": "\u0370-\u03ff",
    "hebrew": "\u0590-\u05ff",
}
LETTERS = {name: re.compile(f"[{chars}]") for name, chars in SCRIPTS.items()}
WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0900-\u0963\u064b-\u0652\u200c]){0,29}")
"""A run of letters, with the vowel signs that Python does not take for letters."""

ALONE = {
    "bengali": "bn",
    "gurmukhi": "pa",
    "gujarati": "gu",
    "tamil": "ta",
    "telugu": "te",  # codespell:ignore te
    "kannada": "kn",
    "malayalam": "ml",
    "thai": "th",
    "hangul": "ko",
    "greek": "el",
    "hebrew": "he",
}
"""Scripts of one language (of those told apart here)."""

LANGUAGES = (
    "ar", "bg", "bn", "de", "el", "en", "es", "fa", "fi", "fr", "gu", "he", "hi", "id", "it", "ja", "kn", "ko", "ml",
    "mr", "ne", "nl", "pa", "pl", "pt", "ru", "sv", "sw", "ta", "th", "tr", "uk", "ur", "vi", "zh",
    "te",  # codespell:ignore te
)  # fmt: skip
"""Two-letter codes of the languages that are told apart."""


@cache
def _common() -> dict[str, dict[str, frozenset[str]]]:
    """Script -> language -> its commonest words, for scripts of several languages."""
    file = Path(__file__).parent / "data" / "common_words.json"
    listed = json.loads(file.read_text("utf-8"))
    return {
        script: {code: frozenset(text.split()) for code, text in languages.items()}
        for script, languages in listed.items()
    }


def language(text: str) -> str | None:
    """The two-letter code of the text's language; None where there are no letters, or no words to tell it by.

    The script with most letters decides, then, among languages that share it, whose commonest words are most of the
    words. Far from a trained detector on a few words; sure enough on a paragraph.
    """
    counts = {script: len(pattern.findall(text)) for script, pattern in LETTERS.items()}
    script = max(counts, key=counts.__getitem__)
    if not counts[script]:
        return None
    if script in ("kana", "han"):  # Japanese is written in both, a tenth of kana is enough
        return "ja" if counts["kana"] * 10 > counts["han"] else "zh"
    if script in ALONE:
        return ALONE[script]
    said = Counter(WORD.findall(text.lower()))
    hits = {code: sum(said[word] for word in common) for code, common in _common()[script].items()}
    best = max(hits, key=hits.__getitem__)
    return best if hits[best] else None
