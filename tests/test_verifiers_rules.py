"""The rules by hand, what says nothing, and hostile text: never an error, never long."""

from __future__ import annotations

import json
import math
import re
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight import verifiers
from flyweight.errors import BackendError, ConfigError
from flyweight.testing import check_verifier
from flyweight.types import Node, Problem
from flyweight.verifiers import content, language, rules, schema, spec, units
from flyweight.verifiers import instructions as instructions_module
from tests.test_verifiers import score

SHOP = Problem("shop", "A shop sells 12 pens for 3 dollars each. How many dollars does it take in a day?")
POEM = Problem("poem", "Write a short poem about the sea at night, for children.")
INSTRUCTIONS = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
RULES: dict[str, dict[str, object]] = {
    "form": {},
    "units": {},
    "regex": {"pattern": r"\d+"},
    "schema": {},
    "length": {"least": 3, "most": 9},
    "repetition": {},
    "instructions": {},
    "all": {"parts": ["form", "repetition"]},
    "weighted": {"parts": [("form", 2), ("arithmetic", 1)]},
}


def value(name: str, text: str, problem: Problem = SHOP, **settings: object) -> float:
    [got] = score(verifiers.load(name, **settings), Node(Node(), text), problem=problem)
    assert got.kind == name.partition(":")[0] and got.steps == ()
    return got.value


# --- what says nothing

QUESTION_ECHOES = ["QUESTION", "QUESTION\nSolution:", "The question is: QUESTION Let's think step by step."]
VACUOUS = [
    ":", ".", ",", " ", "", "\n\n", "!", "...", "---", "####", "**", "Solution", "Solution:", "Answer:",
    "Final answer:",
    "Thought process:", "Let's solve this step by step.", "Let's think about this problem carefully, step by step.",
    "かいせつ", "解", "答案", "解答:", "Respuesta", "Réponse :", "Lösung", "I can't", "I cannot answer that.",
    "I'm sorry, but I can't help with that.", "correct " * 1250, "The answer is correct. " * 450, "The answer is",
    "Sure, here is the solution:", "Therefore the final answer is as follows:", "\\boxed{}", "\\boxed{ }",
    "\\boxed{correct}", "\\boxed{\\text{solution}}",
    "As an AI language model, I cannot do this.",
    "Yes, this is correct.", "<|im_end|>", "```\n```", "{}", *QUESTION_ECHOES,
]  # fmt: skip
KINDS = ("math", "text", "choice", "code", "json")
ASKED = [
    *(f"What is {a} times {a + 3}, as a single number?" for a in range(3, 10)),
    *(f"Write {n} lines about {what} for a friend who is ill." for n, what in enumerate(("rain", "tea", "cats"), 2)),
    *(f"A train covers {60 * n} miles in {n} hours. How fast is it? Put the answer in a box." for n in range(2, 6)),
    *(f"Return the {what} of a list of numbers, in Python." for what in ("sum", "mean", "largest", "smallest")),
    "Which planet is red: (A) Venus (B) Mars (C) Saturn?",
    'Answer with {"city": ...}: where is the Louvre?',
]


@pytest.mark.parametrize("kind", KINDS)
def test_vacuous_answers_are_accepted_by_no_kind(kind: str) -> None:
    assert len(VACUOUS) >= 30 and len(ASKED) == 20
    form = verifiers.load("form", kind=kind)
    for question in ASKED:
        texts = [text.replace("QUESTION", question) for text in VACUOUS]
        problem = Problem("p", question)
        got = score(form, *(Node(Node(), text) for text in texts), problem=problem)
        accepted = [text[:40] for text, one in zip(texts, got, strict=True) if one.value]
        assert not accepted, question


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("math", "36"), ("math", "12 * 3 = 36, so \\boxed{36}."), ("math", "The answer is 36 dollars"),
        ("math", "x = 5"), ("math", "\\boxed{\\text{east}}"), ("math", "\\boxed{yes}"), ("math", "π"),
        ("math", "\\boxed{\\infty}"),
        ("math", "\\boxed{北}"), ("math", "A shop sells 12 pens for 3 dollars each, which makes 36"),
        ("choice", "The answer is (B)."), ("choice", "C"), ("json", 'so {"a": 1}'),
        ("code", "```python\nx = 1\n```"),
        ("text", "Dark waves hum softly, and the moon keeps watch."), ("text", "海は静かに光る"),
        ("text", "I cannot sleep tonight: the sea walks past the house."),
        ("text", "I can't count the stars above the black water, but every small boat has one of its own tonight."),
    ],
)  # fmt: skip
def test_real_answers_are_accepted(kind: str, text: str) -> None:
    assert value("form", text, SHOP, kind=kind) == 1


def test_a_short_text_counts_when_told_so() -> None:
    assert value("form", "Canberra", POEM, kind="text") == 0
    assert value("form", "Canberra", POEM, kind="text", least=1) == 1
    assert value("form", "Solution: okay", POEM, kind="text", least=1) == 0


def test_a_loop_states_nothing_even_with_a_number_in_it() -> None:
    assert value("form", "The answer is 36. " * 100) == 0
    assert "over and over" in content.vacuous("The answer is 36. " * 100, "", "math")


# --- length, repetition, regex


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("", "words", 0.0),
        ("one two", "words", 0.5),
        ("one two three four", "words", 1.0),
        ("one two three four five six seven eight", "words", 0.75),
        ("ab", "characters", 0.5),
        ("日本語で", "words", 1.0),
        ("One. Two. Three. Four. Five. Six. Seven. Eight.", "sentences", 0.75),
        ("1. One.\n2. Two.\n", "sentences", 0.5),
        ("It was 42. Then 43.", "sentences", 0.5),
    ],
)
def test_length_is_a_ratio_outside_its_limits(text: str, unit: str, expected: float) -> None:
    assert value("length", text, least=4, most=6, unit=unit) == expected


def test_repetition_counts_runs() -> None:
    assert value("repetition", "a b a b a b", size=2) == pytest.approx(2 / 5)  # ab ba ab ba ab: two different of five
    assert value("repetition", "a b c d e") == 1
    assert value("repetition", "a b") == 1
    assert value("repetition", "na " * 1000) < 0.01
    assert value("repetition", "a" * 30_000) < 0.01 and value("repetition", "!" * 1000) < 0.01


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 5))
def test_repetition_agrees_with_its_definition(words: list[str], size: int) -> None:
    runs = [words[i : i + size] for i in range(len(words) - size + 1)]
    new = sum(run not in runs[:i] for i, run in enumerate(runs))
    assert value("repetition", " ".join(words), size=size) == pytest.approx(new / len(runs) if runs else 1)


def test_regex_reads_the_text_or_the_answer() -> None:
    assert value("regex", "it costs 36 euros", pattern=r"\d+ euros") == 1
    assert value("regex", "it costs 36 pounds", pattern=r"\d+ euros") == 0
    assert value("regex", "3 pens, so \\boxed{36}", pattern=r"^36$", of="answer") == 1
    assert value("regex", "3 pens, so \\boxed{36}", pattern=r"^3$", of="answer") == 0
    assert value("regex", "", pattern="a*", of="answer") == 0, "no answer, no match"
    assert value("regex:pattern=^(?:a|b){2}$", "ab") == 1, "colons in a pattern stay in it"
    assert value("regex", "\ud800x", pattern="x$") == 1


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|a)*b", r"(.*)(.*)(.*)(.*)x", r"a*a*a*a*a*a*b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    """A backtracking engine needs minutes to ages for these."""
    began = time.perf_counter()
    value("regex", "a" * 50_000 + "c", pattern=pattern)
    assert time.perf_counter() - began < 10


# --- units


@pytest.mark.parametrize(
    ("question", "unit"),
    [
        ("How long is it in square feet?", "ft^2"), ("How many hours does it take?", "h"),
        ("... in miles per hour?", "mi/h"),
        ("What is the area, in cm^2?", "cm^2"), ("Find the angle in degrees.", "degree"), ("How many apples?", None),
        ("What is it in degrees Celsius?", "°C"),
        ("In 3 minutes he ran. How far, in kilometres?", "km"), ("In all?", None),
    ],
)  # fmt: skip
def test_the_unit_a_question_asks_for(question: str, unit: str | None) -> None:
    assert units.asked(question) == unit
    assert units.asked("x" * 200_000 + " " + question) == unit


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (r"\boxed{12\text{ cm}^2}", "cm^2"), ("The answer is 12 hours.", "h"), ("The answer is $12$ hours.", "h"),
        (r"so \boxed{12} cm", "cm"), (r"\boxed{\$12}", "$"), ("The answer is $12.", "$"), (r"It costs \$15.", "$"),
        (r"\boxed{45^\circ}", "degree"), (r"\boxed{12}", None), ("the answer is 12 miles per hour", "mi/h"),
        (r"\boxed{60 \text{ km/h}}", "km/h"), ("#### 18", None), (r"The total is \( 5 \) dollars", "$"),
        ("the answer is 7 apples", None), ("**12 m**", "m"), ("answer: €5", "€"), ("The answer is 25%.", "%"),
        ("12 square feet", "ft^2"), (r"\boxed{3/4 \text{ cup}}", "cup"), ("$12$", None),
        ("$$12$$", None), ("USD 7", "$"),
        ("", None),
    ],
)  # fmt: skip
def test_the_unit_an_answer_has(text: str, unit: str | None) -> None:
    assert units.stated(text) == unit


def test_units_score() -> None:
    assert value("units", "The answer is $36.") == 1
    assert value("units", "The answer is 36.") == 0.5
    assert value("units", "The answer is 36 hours.") == 0
    assert value("units", "No idea") == 0
    assert value("units", "The answer is 36 hours.", unit="hr") == 1
    assert value("units", "The answer is 36 hours.", Problem("p", "?", meta={"unit": "hours"})) == 1
    assert value("units", "The answer is 36 hours.", Problem("p", "How many?")) == 0.5


# --- schema

PERSON = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": {"type": "string", "pattern": "^[A-Z]"}, "age": {"type": "integer", "minimum": 0}},
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ('{"name": "Ada", "age": 36}', 1), ('Here:\n```json\n{"name": "Ada"}\n```', 1), ('It is {"name": "Ada"}.', 1),
        ('{"name": "ada"}', 0), ('{"age": 3}', 0), ('{"name": "Ada", "age": -1}', 0),
        ('{"name": "Ada", "age": 1.5}', 0),
        ('{"name": "Ada", "age": true}', 0), ('{"name": "Ada", "x": 1}', 0), ("[]", 0), ("Ada", 0), ("", 0),
        ("{" * 9000, 0),
        ('{"name": "Ada", "age": 36.0}', 1), ('{"name": "Ada", "age": NaN}', 0), ("9" * 6000, 0), ("[" * 90_000, 0),
    ],
)  # fmt: skip
def test_schema_accepts_what_fits(text: str, fits: int) -> None:
    assert value("schema", text, Problem("p", "?", meta={"schema": PERSON})) == fits


@pytest.mark.parametrize(
    ("wanted", "good", "bad"),
    [
        ({"type": ["string", "null"]}, [None, ""], [1, [], False]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"enum": [1, "a", [1, {"b": 2}]]}, [1.0, "a", [1, {"b": 2.0}]], [True, "b", [1]]),
        ({"const": 0}, [0, 0.0], [False, None]),
        ({"items": {"type": "integer"}, "minItems": 1, "maxItems": 2, "uniqueItems": True},
         [[1], "x"], [[], [1, 1.0], [1, 2, 3]]),
        ({"minLength": 2, "maxLength": 3}, ["ab", "abc", 1], ["a", "abcd"]),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 3}, [2, 1.1, "x"], [1, 3]),
        ({"maximum": 3, "multipleOf": 0.1}, [0.3, 1, 2.7], [3.1, 0.25]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["a", 5, None], [4]),
        ({"oneOf": [{"type": "integer"}, {"minimum": 5}]}, [4, 5.5], [6, 1.5]),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}], "not": {"const": 2}}, [1, 1.5], [0, 2, 3]),
        ({"properties": {"a": False}, "additionalProperties": {"type": "null"}}, [{}, {"b": None}],
         [{"a": 1}, {"b": 1}]),
        (True, [1, None], []),
        (False, [], [1, None]),
        ({"type": "array", "items": {"$ref": "#"}}, [[], [[[]], []]], [1, [[1]]]),
        ({"$defs": {"day": {"format": "date"}}, "$ref": "#/$defs/day"}, ["2024-02-29", 3], ["2023-02-29"]),
        ({"pattern": "^(a+)+$"}, ["a" * 5_000], ["a" * 5_000 + "!", "\ud800"]),
        ({"format": "of-our-own", "title": "T", "default": {"typ": 1}}, [3], []),
    ],
)  # fmt: skip
def test_schema_keywords(wanted: object, good: list[object], bad: list[object]) -> None:
    fits = schema.fits(json.dumps(wanted))
    assert [fits(one) for one in good] == [True] * len(good)
    assert [fits(one) for one in bad] == [False] * len(bad)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"typ": "object"}, "'typ' was unexpected"),
        ({"$defs": {"a": {"items": {"not": {"typ": 1}}}}}, "at $defs/a/items/not: Unevaluated"),
        ({"type": "int"}, 'at type: "int" is not valid'),
        ({"$ref": "#/x"}, "'/x' does not exist"),
        ({"pattern": "("}, "at pattern"),
        ({"pattern": "(?=a)"}, "at pattern"),
        ({"properties": {"a": {"pattern": "(?:a{1000}){1000}"}}}, "at properties/a/pattern"),
        ({"anyOf": []}, "at anyOf"),
        ({"multipleOf": 0}, "at multipleOf"),
        ({"required": [1]}, "at required/0"),
        ([], "is not of types"),
    ],
)
def test_schemas_that_would_not_be_checked_are_refused(wrong: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(wrong))
    with pytest.raises(ConfigError) as caught:
        verifiers.load(f"schema:file={file}")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        value("schema", "{}", Problem("p", "?", meta={"schema": wrong}))


def test_a_schema_leads_to_no_other_document(tmp_path: Path) -> None:
    """What a problem's meta refers to is neither fetched nor read, though it may well be there."""
    file = tmp_path / "there.json"
    file.write_text("true")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        for reference in (f"http://127.0.0.1:{server.getsockname()[1]}/a.json", file.as_uri()):
            for wanted in ({"$ref": reference}, {"$id": reference, "items": {"$ref": "b.json"}}):
                with pytest.raises(ConfigError, match="cannot fetch"):
                    schema.fits(json.dumps(wanted))
        with pytest.raises(TimeoutError):
            server.accept()


def test_schema_from_a_file_or_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(PERSON))
    assert value(f"schema:file={file}", '{"name": "Ada"}') == 1
    with pytest.raises(BackendError, match="'shop' has none"):
        value("schema", "{}")


# --- settings on a command line


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("length:least=2:most=7", {"least": 2, "most": 7, "unit": "words"}),
        ("length:unit=characters", {"least": 1, "most": None, "unit": "characters"}),
        (r"regex:pattern=a:b|(?:c), d=\d:of=answer", {"pattern": r"a:b|(?:c), d=\d", "of": "answer", "kind": "math"}),
        ("instructions:loose=true", {"instructions": "", "loose": True}),
        ("self-certainty:scale=2.5", {"scale": 2.5}),
        ("confidence-window:window=7", {"window": 7}),
    ],
)
def test_settings_stand_behind_the_name(name: str, settings: dict[str, object]) -> None:
    assert vars(verifiers.load(name)) == settings


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("length:least=many", "verifier length: least='many' is not allowed: a whole number"),
        ("length:least=1:least=2", "least is given twice"),
        ("length:lest=1", "did you mean 'least'"),
        ("length:least=5:most=3", "least=5 and most=3"),
        ("lngth:least=5", "cannot import 'lngth'"),
        ("instructions:loose=maybe", "true or false"),
        ("regex", "regex needs a pattern"),
        ("regex:pattern=(?=a)", "look-around"),
        ("regex:pattern=(", "unclosed group"),
        ("form:kind=maths", "maths"),
        ("units:unit=apples", "unit='apples' is not known"),
        ("length:unit=pages", "unknown unit of length 'pages'"),
        ("repetition:size=0", "size=0 is not allowed"),
        ("schema:file=nosuch.json", "cannot read nosuch.json"),
        ("self-certainty:scale=x", "a number"),
    ],
)
def test_wrong_settings_give_one_line(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        verifiers.load(name)
    assert message in str(caught.value) and "\n" not in str(caught.value)


# --- hostile text

HOSTILE = [
    "", " " * 10_000, "\n" * 10_000, "a" * 10_000, "1" * 10_000, "." * 10_000, "*" * 10_000, "[" * 10_000, "<" * 10_000,
    "{" * 10_000, '{"a":' * 2_000, "\\boxed{" * 1_500, "\\" * 10_000, "```\n" * 2_000, "- " * 5_000, "* a\n" * 2_000,
    "Section 1" * 1_000, "***" * 3_000, "$" * 10_000, "1 cm " * 2_000, "^2" * 5_000, "per " * 2_000, "Mr. " * 2_000,
    "\x00\x1b[31m\ud800\u202e", "\udfff" * 2_000, "é" * 10_000, "語" * 10_000, "I'm sorry " * 1_000, "#" * 10_000,
    "#\n" * 5_000, "How many " * 1_000, "in in in " * 1_000, "in " + " " * 10_000, "<<a" * 3_000, "**a" * 3_000,
    "'" * 10_000, "x.\"'" * 2_000, "?!" * 5_000, "。" * 10_000, "प्र" * 3_000, "-1e999", "9" * 1_000 + "cm",
]  # fmt: skip


@pytest.mark.parametrize("name", RULES)
def test_hostile_text_gives_a_score_and_soon(name: str) -> None:
    verifier = verifiers.load(name, **RULES[name])
    meta = {**INSTRUCTIONS, "schema": PERSON}
    asked = [("How many dollars is it in all, and in cm?", text) for text in HOSTILE]
    for question, text in [*asked, *((text, text) for text in HOSTILE[-8:])]:
        began = time.perf_counter()
        [got] = score(verifier, Node(Node(), text), problem=Problem("p", question, meta=meta))
        assert 0 <= got.value <= 1 and math.isfinite(got.value)
        assert time.perf_counter() - began < 5, text[:10]


@settings(max_examples=40)
@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_gives_the_same_score_twice(question: str, text: str) -> None:
    problem = Problem("p", question, meta={**INSTRUCTIONS, "schema": PERSON})
    for name, given_settings in RULES.items():
        first, again = (
            score(verifiers.load(name, **given_settings), Node(Node(), text), problem=problem)[0] for _ in range(2)
        )
        assert first == again and 0 <= first.value <= 1


def test_every_pattern_is_fast_on_hostile_text() -> None:
    """Promised: 10 ms each on 10 kB; this guards against hangs, in the process's own time."""
    modules = (content, instructions_module, language, rules, spec, units)
    found = [p for module in modules for p in vars(module).values() if isinstance(p, re.Pattern)]
    found += instructions_module.POSTSCRIPTS.values()
    assert len(found) > 18
    for pattern in found:
        for text in HOSTILE:
            began = time.process_time()
            pattern.sub("", text + "\x01")
            assert time.process_time() - began < 2, (pattern.pattern[:40], text[:10])


@pytest.mark.parametrize("name", ["form", "units", "regex", "length", "repetition", "all", "weighted"])
def test_rules_keep_the_contract(name: str) -> None:
    check_verifier(verifiers.load(name, **RULES[name]))
