"""Instructions that a rule can check: the 25 types of IFEval, each with the settings that its data give.

As the published checker reads them (exceptions are noted), in linear time and without a model of language: sentences
end by punctuation, and languages are told by script and common words.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from flyweight import textfile
from flyweight.errors import BackendError, ConfigError, unknown
from flyweight.types import Problem
from flyweight.verifiers import content
from flyweight.verifiers.language import LANGUAGES, language
from flyweight.verifiers.rules import Rule

__all__ = ["RULES", "Instructions", "follows"]

Relation = Literal["at least", "less than"]
OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
HIGHLIGHT = re.compile(r"\*[^\n*]*\*")
BOLD = re.compile(r"\*\*[^\n*]*\*\*")
PLACEHOLDER = re.compile(r"\[[^\[\]\n]*\]")
TITLE = re.compile(r"<<[^<>\n]+>>")
CAPITAL = re.compile(r"[\w'\u2019-]{1,100}")
POSTSCRIPTS = {"P.S.": re.compile(r"p\.\s?s\."), "P.P.S": re.compile(r"p\.\s?p\.\s?s")}


class Instructions(Rule):
    """Share of the given instructions that the text follows: length, format, keywords, case, language and the like.

    The 25 types of IFEval. They stand in the problem's meta as in its file (`instruction_id_list` and `kwargs`), or in
    `file`: a JSON list of objects such as {"instruction": "length_constraints:number_words", "relation": "at least",
    "num_words": 300}. A blank text follows none. With `loose`, the best of eight readings counts: with and without
    the first line, the last line and asterisks.

    Source: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models (2311.07911).
    """

    name = "instructions"

    def __init__(self, *, file: str = "", loose: bool = False) -> None:
        """ConfigError for a file that does not hold such a list, or an instruction that is not one."""
        self.instructions = ""
        if file:
            try:
                listed = json.loads(textfile.read(Path(file)))
                given = [
                    (str(each["instruction"]), {k: v for k, v in each.items() if k != "instruction"}) for each in listed
                ]
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                raise ConfigError(f'{file}: not a JSON list of objects with "instruction"') from None
            if not given:
                raise ConfigError(f"{file} holds no instructions")
            for instruction, settings in given:
                follows("text", instruction, settings)
            self.instructions = json.dumps(given)
        self.loose = loose

    def value(self, problem: Problem, text: str) -> float:
        """BackendError for a problem without instructions, ConfigError for one that is not known."""
        given = json.loads(self.instructions) if self.instructions else _of(problem)
        texts = _loosened(text) if self.loose else [text]
        followed = sum(any(follows(each, name, settings) for each in texts) for name, settings in given)
        return followed / len(given)


def follows(text: str, instruction: str, settings: Mapping[str, object]) -> bool:
    """Whether the text follows one instruction. Settings that are None are left out.

    ConfigError for an unknown instruction, or settings that are not its own.
    """
    if instruction not in RULES:
        raise unknown("instruction", instruction, RULES)
    given = {name: value for name, value in settings.items() if value is not None}
    rule = RULES[instruction]
    wanted = inspect.signature(rule, eval_str=True).parameters
    for name in given:
        if name not in wanted:
            raise unknown(f"setting of {instruction}", name, [known for known in wanted if known != "text"])
    for name, parameter in wanted.items():
        if name != "text" and not _fits(given.get(name), parameter.annotation):
            raise ConfigError(
                f"{instruction}: {name}={given.get(name)!r} is not allowed: {_NAMES[parameter.annotation]}"
            )
    return bool(text.strip()) and rule(text, **given)


def _of(problem: Problem) -> list[tuple[str, Mapping[str, object]]]:
    """The instructions in a problem's meta, as IFEval's file has them."""
    names, settings = problem.meta.get("instruction_id_list"), problem.meta.get("kwargs")
    if not isinstance(names, Sequence) or isinstance(names, str) or not names:
        raise BackendError(f"the verifier instructions needs some, and problem {problem.id!r} has none")
    each = settings if isinstance(settings, Sequence) and not isinstance(settings, str) else [{}] * len(names)
    if len(each) != len(names) or not all(isinstance(one, Mapping) for one in each):
        raise BackendError(f"problem {problem.id!r}: kwargs must be a list of objects, one for every instruction")
    return [(str(name), one) for name, one in zip(names, each, strict=True)]


def _loosened(text: str) -> list[str]:
    lines = text.split("\n")
    cut = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*cut, *(each.replace("*", "") for each in cut)]


def _fits(value: object, wanted: object) -> bool:
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted is str:
        return isinstance(value, str) and bool(value)
    if wanted == Relation:
        return value in ("at least", "less than")
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, str) and each for each in value)


_NAMES: dict[object, str] = {int: "a whole number", str: "some text", Relation: "at least or less than"}
_NAMES[Sequence[str]] = "a list of texts"


def _relate(count: int, relation: Relation, limit: int) -> bool:
    return count >= limit if relation == "at least" else count < limit


# The rules ------------------------------------------------------------------------------------------------------


def _existence(text: str, keywords: Sequence[str]) -> bool:
    low = text.lower()
    return all(keyword.lower() in low for keyword in keywords)


def _frequency(text: str, keyword: str, frequency: int, relation: Relation) -> bool:
    return _relate(text.lower().count(keyword.strip().lower()), relation, frequency)


def _forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    low = text.lower()
    return not any(_whole(low, word.lower()) for word in forbidden_words)


def _whole(text: str, word: str) -> bool:
    """Whether the word occurs with no letter or digit beside it."""
    at = text.find(word)
    while at >= 0:
        end = at + len(word)
        if not _wordly(text[at - 1 : at] + word[:1]) and not _wordly(word[-1:] + text[end : end + 1]):
            return True
        at = text.find(word, at + 1)
    return False


def _wordly(pair: str) -> bool:
    """Whether two neighbours belong to one word."""
    return len(pair) == 2 and all(char.isalnum() or char == "_" for char in pair)


def _letter_frequency(text: str, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    return _relate(text.lower().count(letter.strip().lower()[:1]), let_relation, let_frequency)


def _language(text: str, language: str) -> bool:  # a text without words to tell it by passes, as in the original
    if language not in LANGUAGES:
        raise unknown("language", language, LANGUAGES)
    return _spoken(text) in (None, language)


def _sentences(text: str, num_sentences: int, relation: Relation) -> bool:
    return _relate(content.sentences(text), relation, num_sentences)


def _words(text: str, num_words: int, relation: Relation) -> bool:
    return _relate(len(re.findall(r"\w+", text)), relation, num_words)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    parts = [part.strip() for part in text.split("***")]
    parts = parts[not parts[0] :] if parts else parts
    parts = parts[:-1] if parts and not parts[-1] else parts
    return all(parts) and len(parts) == num_paragraphs


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    parts = [part.strip() for part in text.split("\n\n")]
    if sum(map(bool, parts)) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    start = " ".join(parts[nth_paragraph - 1].split(None, 1)[:1]).lstrip("'\"")
    return re.split(r"[.,?!'\"]", start, maxsplit=1)[0].lower() == first_word.lower()


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(PLACEHOLDER.findall(text)) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    pattern = POSTSCRIPTS.get(postscript_marker.strip())
    return bool(pattern.search(text.lower())) if pattern else postscript_marker.strip().lower() in text.lower()


def _bullets(text: str, num_bullets: int) -> bool:
    lines = [line.lstrip() for line in text.split("\n")]
    return sum(line[:1] == "-" or (line[:1] == "*" and line[1:2] not in ("", "*")) for line in lines) == num_bullets


def _options(text: str) -> bool:
    return any(option in text for option in OPTIONS)


def _highlights(text: str, num_highlights: int) -> bool:
    marked = [*HIGHLIGHT.findall(text), *BOLD.findall(text)]
    return sum(bool(each.strip("*").strip()) for each in marked) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    parts = text.split(section_spliter.strip())[1:]
    return sum(part[part[:1].isspace() :][:1].isdigit() for part in parts) >= num_sections


def _json(text: str) -> bool:
    bare = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        bare = bare.removeprefix(fence)
    try:
        json.loads(bare.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(title.strip("<> ") for title in TITLE.findall(text))


def _two_responses(text: str) -> bool:
    parts = [part.strip() for part in text.split("******")]
    said = [part for part in parts if part]
    return all(parts[1:-1]) and len(said) == 2 and said[0] != said[1]


def _repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(text: str) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


def _capital(text: str) -> bool:
    return text.isupper() and _spoken(text) in (None, "en")


def _lowercase(text: str) -> bool:
    return text.islower() and _spoken(text) in (None, "en")


def _capital_words(text: str, capital_relation: Relation, capital_frequency: int) -> bool:
    return _relate(sum(word.isupper() for word in CAPITAL.findall(text)), capital_relation, capital_frequency)


def _no_comma(text: str) -> bool:
    return "," not in text


_spoken = language  # `language` is also the name of a setting

RULES: dict[str, Callable[..., bool]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_words": _words,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _options,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end,
    "startend:quotation": _quotation,
    "change_case:english_capital": _capital,
    "change_case:english_lowercase": _lowercase,
    "change_case:capital_word_frequency": _capital_words,
    "punctuation:no_comma": _no_comma,
}
