"""IFEval's instructions: a text that follows each and one that does not, judged by hand; every setting in its data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from flyweight import verifiers
from flyweight.errors import BackendError, ConfigError
from flyweight.testing import drive
from flyweight.types import Node, Problem
from flyweight.verifiers.instructions import RULES, Instructions, follows
from flyweight.verifiers.language import LANGUAGES, language
from tests.test_verifiers import FakeModels

DATA = Path(__file__).parent / "data" / "verifiers" / "ifeval_settings.jsonl"
"""Every combination of settings in the data of Zhou et al. 2023 (google-research, Apache-2.0); texts once a shape."""

CASES: list[tuple[str, dict[str, object], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["Mom", "tea"]}, ["mom drinks TEA", "steamy moment: tea, mom"], ["mom", "tee"]),
    (
        "keywords:frequency",
        {"keyword": "war", "frequency": 2, "relation": "at least"},
        ["War and war", "towards warm"],
        ["war"],
    ),
    (
        "keywords:frequency",
        {"keyword": "war", "frequency": 2, "relation": "less than"},
        ["war", "peace"],
        ["war war"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["rock", "no"]},
        ["rocky nothing", "rock_star", "knowledge"],
        ["We ROCK!", "so, no", "no"],
    ),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": "at least"}, ["Qq"], ["q"]),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": "less than"}, ["# a"], ["##"]),
    ("language:response_language", {"language": "fr"}, ["Le chien est dans la maison."], ["This is the dog."]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        ["One. Two! Three?", "Dr. Who came. He sat. Fine", "In 3.5 days. Yes. No."],
        ["Mr. Smith, e.g. the U.S. man, left. He did.", "a...!? b."],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 4, "relation": "less than"},
        ["one two three"],
        ["one two three four"],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["a\n***\nb", "***a***b***", "a *** b"],
        ["a", "a***b***c", "a*** ***b"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Summary"},
        ["a\n\nsummary, then", 'a b\n\n"Summary, no', "a\n\nSummary"],
        ["a\n\nThe summary", "summary\n\na", "a\n\nb\n\nsummary", "a\n\nsummary\nb\n\nc"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] and [b c]"], ["[a]", "[a", "[a\n][b"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["x\nP.P.S more", "p. p. s"], ["P.S. x", "pps"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\np. s. more", "P.S. x"], ["PS x", "psst"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n - b", "x\n* a\n* b"], ["* a", "** a\n* b"]),
    ("detectable_format:constrained_response", {}, ["Well: My answer is maybe."], ["My answer is perhaps.", "yes"]),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and **b**", "*a* *b*"],
        ["*a*", "** **", "a*b", "*a\nb*"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        ["Section 1\na\nSection 2\nb", "Section1 Section2"],
        ["Section 1", "Section one Section two", "section 1 section 2"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', '```json\n{"a": [1]}\n```', "3"],
        ["{a: 1}", 'x {"a": 1}', "```"],
    ),
    ("detectable_format:title", {}, ["<<A title>>\ntext", "x <<y>>"], ["<<>>", "<<a\nb>>", "<a>", "<< >>"]),
    ("combination:two_responses", {}, ["a ****** b", "******a******b"], ["a ****** a", "a", "a******b******c"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi. "}, ["say HI. Hi!"], ["Hi. Say hi."]),
    ("startend:end_checker", {"end_phrase": "Peace!"}, ["x PEACE!", '"x peace!"\n'], ["Peace! x"]),
    ("startend:quotation", {}, ['"a"', ' "a b"\n'], ['"a', 'a"', '"', "'a'"]),
    (
        "change_case:english_capital",
        {},
        ["THIS IS THE END", "OK 7"],
        ["THIS is THE END", "LE CHIEN EST DANS LA MAISON", "7"],
    ),
    ("change_case:english_lowercase", {}, ["this is the end"], ["This is the end", "le chien est dans la maison", "7"]),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 2},
        ["I AM here", "WELL-KNOWN and A1"],
        ["WELL-KNOWN", "Am i"],
    ),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]


@pytest.mark.parametrize(("instruction", "settings", "good", "bad"), CASES, ids=[case[0] for case in CASES])
def test_a_text_follows_or_not(
    instruction: str, settings: Mapping[str, object], good: list[str], bad: list[str]
) -> None:
    for text in good:
        assert follows(text, instruction, settings), text
    for text in [*bad, "", " \n "]:
        assert not follows(text, instruction, settings), text


def test_all_types_are_covered_and_all_settings_in_the_data_are_understood() -> None:
    assert len(RULES) == 25 and {case[0] for case in CASES} == RULES.keys()
    rows = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]
    assert {name for name, _ in rows} == RULES.keys() and len(rows) == 207
    for name, settings in rows:
        assert follows("Some text.", name, settings) in (True, False)


@pytest.mark.parametrize(
    ("row", "text", "share"),
    [  # five rows of that data, with answers of ours
        (
            {
                "prompt": "Write two jokes about rockets. Do not contain commas in your response. Separate the two "
                "jokes with 6 asterisk symbols: ******.",
                "instruction_id_list": ["punctuation:no_comma", "combination:two_responses"],
                "kwargs": [{}, {}],
            },
            "Why did the rocket quit? It was fired.\n******\nWhat do rockets eat? Launch, mostly.",
            0.5,
        ),
        (
            {
                "prompt": "make a tweet for playboy's twitter account without using capital letters. Include at least "
                "4 hashtags, starting with '#'",
                "instruction_id_list": ["change_case:english_lowercase", "keywords:letter_frequency"],
                "kwargs": [{}, {"let_relation": "at least", "letter": "#", "let_frequency": 4}],
            },
            "the new issue is out and it is warm #read #night #style #you",
            1.0,
        ),
        (
            {
                "prompt": "Are hamburgers sandwiches? Please respond using only the Kannada language, no other "
                "language is allowed.",
                "instruction_id_list": ["language:response_language"],
                "kwargs": [{"language": "kn"}],
            },
            "Yes, they are sandwiches.",
            0.0,
        ),
        (
            {
                "prompt": "Are the weather conditions in the Arctic very cold most of the year? Do not say 'yes' or "
                "'no' throughout your entire response.",
                "instruction_id_list": ["keywords:forbidden_words"],
                "kwargs": [{"forbidden_words": ["yes", "no"]}],
            },
            "They are; nothing there is warm for long.",
            1.0,
        ),
        (
            {
                "prompt": "Write a 4 section resume for professional clown Phil Larkin. Each section should be "
                "explicitly noted as Section X.",
                "instruction_id_list": ["detectable_format:multiple_sections"],
                "kwargs": [{"section_spliter": "Section", "num_sections": 4, "num_words": None}],
            },
            "Section 1\nPhil\nSection 2\nJuggling",
            0.0,
        ),
    ],
)
def test_rows_as_the_data_has_them(row: dict[str, object], text: str, share: float) -> None:
    assert Instructions().value(Problem("p", str(row["prompt"]), meta=row), text) == share


def test_loose_reading_forgives_a_first_line_and_asterisks() -> None:
    meta = {"instruction_id_list": ["startend:quotation", "change_case:english_lowercase"]}
    problem = Problem("p", "?", meta=meta)
    text = 'Sure, here it is:\n**"all is well"**'
    assert Instructions().value(problem, text) == 0
    assert Instructions(loose=True).value(problem, text) == 1


def test_instructions_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "wanted.json"
    listed = [
        {"instruction": "punctuation:no_comma"},
        {"instruction": "length_constraints:number_words", "relation": "at least", "num_words": 3},
    ]
    file.write_text(json.dumps(listed))
    verifier = verifiers.load(f"instructions:file={file}")
    node = Node(Node(), "a, b")
    [score] = drive(verifier.score(Problem("p", "?"), [node], FakeModels()))
    assert score.value == 0 and score.kind == "instructions"
    for wrong in ("{", "[]", "[1]", '[{"instruction": "punctuation:no_coma"}]', '[{"no": 1}]', "3"):
        file.write_text(wrong)
        with pytest.raises(ConfigError):
            verifiers.load(f"instructions:file={file}")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("punctuation:no_comas", {}, "did you mean 'punctuation:no_comma'"),
        ("punctuation:no_comma", {"letter": "a"}, "unknown setting of punctuation:no_comma 'letter'"),
        ("length_constraints:number_words", {"num_words": 3}, "relation=None is not allowed: at least or less than"),
        ("length_constraints:number_words", {"num_words": "3", "relation": "at least"}, "num_words='3' is not allowed"),
        ("length_constraints:number_words", {"num_words": True, "relation": "at least"}, "a whole number"),
        ("keywords:existence", {"keywords": "word"}, "a list of texts"),
        ("keywords:existence", {"keywords": [""]}, "a list of texts"),
        ("language:response_language", {"language": "xx"}, "unknown language 'xx'"),
    ],
)
def test_what_cannot_be_checked_is_refused(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        follows("text", name, settings)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({}, "'p' has none"),
        ({"instruction_id_list": []}, "'p' has none"),
        ({"instruction_id_list": "punctuation:no_comma"}, "'p' has none"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}, "one for every instruction"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [3]}, "one for every instruction"),
    ],
)
def test_a_problem_without_instructions_is_an_error(meta: dict[str, object], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Instructions().value(Problem("p", "?", meta=meta), "text")


SAID = json.loads((DATA.parent / "languages.json").read_text("utf-8"))


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_sentence_tells_its_language(code: str) -> None:
    assert language(SAID[code]) == code
    assert language(SAID[code].upper()) == code


def test_no_letters_or_no_known_words_tell_nothing() -> None:
    assert language("12 + 7 = 19 !!") is None and language("") is None and language("Xyzzy") is None
