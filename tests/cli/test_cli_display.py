"""What a terminal gets to see."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.cli import demo, render
from flyweight.testing import Draft, ToyPolicy
from flyweight.types import Grade, Node, Problem, Result
from tests.cli_kit import QUESTION, Command, UsePolicy, solve

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202egnp.exe\r\x00\ud800 \\boxed{7\x1b[8m}"


def test_no_escape_reaches_the_terminal_and_json_loses_nothing(
    flyweight: Command, policy: UsePolicy, tmp_path: Path
) -> None:
    policy(ToyPolicy(lambda question, so_far, rng, sampling: Draft(ESCAPES)))
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"question": "a\x1b[2Jb", "id": "x\x1b"}), "ascii")
    for arguments in (
        solve("hi"),
        solve("-q", "hi"),
        solve("--file", str(path)),
        ["compare", "--model", "toy", "hi"],
        ["chat", "--model", "toy"],
        ["demo", "--model", "toy"],
        ["solve", "--model", "toy", "-s", "a\x1b[2Jb", "hi"],
    ):
        done = flyweight(*arguments, stdin="hi\n")
        unsafe = {c for c in done.out + done.err if c != "\n" and (not c.isprintable() and not c.isspace())}
        assert not unsafe and "\r" not in done.out + done.err, (arguments, unsafe)
    facts = flyweight(*solve("hi", "--json"))
    assert facts.out.isascii() and facts.json["text"] == ESCAPES


@given(st.text(st.characters(exclude_categories=())))
def test_cleaned_text_can_be_printed_and_is_cleaned_for_good(text: str) -> None:
    cleaned = render.clean(text)
    cleaned.encode("utf-8")
    assert render.clean(cleaned) == cleaned
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in cleaned)


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colour_is_for_terminals_that_take_it(
    environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm"} | environment).items():
        monkeypatch.setenv(name, value)
    said = demo._mark(Result(Problem("q", "?"), Node(), "1", ()), Grade("wrong"))
    assert said == ("\x1b[31mwrong\x1b[0m" if coloured else "wrong")


def test_figures_json_lacks_become_null() -> None:
    assert json.loads(render.dumps({"a": [float("nan"), float("inf"), 1.5]})) == {"a": [None, None, 1.5]}


@pytest.mark.parametrize(("share", "said"), [(1.0, "100 %"), (0.999, "99 %"), (0.5, "50 %"), (0.0, "0 %")])
def test_certainty_is_never_rounded_up_to(share: float, said: str) -> None:
    assert render.percent(share) == said


def test_a_long_search_says_where_it_is(flyweight: Command, policy: UsePolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    from flyweight.cli import progress

    monkeypatch.setattr(progress, "SPARSE", 0.0)
    policy(ToyPolicy(slots=2))
    err = flyweight(*solve(QUESTION, "-n", "4")).err
    assert "self_consistency: 2/4 samples" in err and "leading 12 (" in err and err.endswith("\n")
    beams = flyweight(*solve(QUESTION, "-s", "beam_search", "-n", "4", "--set", "width=2")).err
    assert "beam_search: step 2 (" in beams and "scored" in beams
    assert flyweight(*solve(QUESTION, "-n", "4", "-q")).err == ""
