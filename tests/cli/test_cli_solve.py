"""`flyweight solve`: what is printed where."""

from __future__ import annotations

from pathlib import Path

import pytest

from flyweight import trace
from flyweight.cli import docs
from flyweight.types import Usage
from tests.cli_kit import KEYS, QUESTION, Command, solve


def test_solve_prints_the_solution_who_voted_and_the_cost(flyweight: Command) -> None:
    done = flyweight(*solve(QUESTION, "-n", "8"))
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "3 + 4 = 7"
    facts = {line[:11].strip(): line[12:] for line in lines[lines.index("") :] if line[:1].isupper()}
    assert facts["Answer"] == "12"
    assert facts["Votes"].startswith("12: ") and " of 8" in facts["Votes"]
    assert facts["Search"] == "self_consistency n=8, toy"
    assert "8 candidates" in facts["Cost"] and "tokens" in facts["Cost"]
    assert "Stopped" not in facts


def test_quiet_prints_the_answer_alone(flyweight: Command) -> None:
    assert flyweight(*solve(QUESTION, "--quiet")) == (0, "12\n", "")


def test_json_holds_exactly_what_is_promised(flyweight: Command) -> None:
    done = flyweight(
        *solve(QUESTION, "-s", "best_of_n", "-n", "3", "--verifier", "arithmetic", "--seed", "7", "--json")
    )
    assert done.code == 0 and done.out.count("\n") == 1
    facts = done.json
    assert list(facts) == KEYS
    assert facts["parameters"] == {"n": 3, "temperature": 0.7, "aggregation": "last"}
    assert (facts["strategy"], facts["model"], facts["verifier"], facts["seed"]) == (
        "best_of_n",
        "toy",
        "arithmetic",
        7,
    )
    assert (facts["stopped"], facts["error"]) == ("done", None)
    assert set(facts["usage"]) == set(Usage.__dataclass_fields__)
    assert len(facts["candidates"]) == 3
    for candidate in facts["candidates"]:
        assert list(candidate) == ["text", "answer", "score", "tokens", "logprob", "class", "selected"]
        assert candidate["tokens"] == len(candidate["text"]) and candidate["logprob"] < 0
    [best] = [candidate for candidate in facts["candidates"] if candidate["selected"]]
    assert (best["text"], best["answer"]) == (facts["text"], facts["answer"])
    assert best["score"] == max(candidate["score"] for candidate in facts["candidates"])
    assert facts["usage"]["generated_tokens"] == sum(c["tokens"] + 1 for c in facts["candidates"])


def test_classes_are_counted_from_the_largest(flyweight: Command) -> None:
    candidates = flyweight(*solve(QUESTION, "-n", "16", "--json")).json["candidates"]
    by_class = [sum(c["class"] == k for c in candidates) for k in range(max(c["class"] for c in candidates) + 1)]
    assert by_class == sorted(by_class, reverse=True)
    assert all(len({c["answer"] for c in candidates if c["class"] == k}) == 1 for k in range(len(by_class)))


@pytest.mark.parametrize("arguments", [("-",), ()])
def test_the_question_may_come_from_a_pipe(flyweight: Command, arguments: tuple[str, ...]) -> None:
    assert flyweight(*solve("--quiet", *arguments), stdin=f"  {QUESTION}\n\n").out == "12\n"


def test_options_come_from_the_environment_too(flyweight: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "MODEL": "toy",
        "STRATEGY": "best_of_n",
        "N": "2",
        "VERIFIER": "confidence",
        "SEED": "3",
    }.items():
        monkeypatch.setenv(f"FLYWEIGHT_{name}", value)
    facts = flyweight("solve", QUESTION, "--json").json
    assert (facts["strategy"], facts["parameters"]["n"], facts["verifier"], facts["seed"]) == (
        "best_of_n",
        2,
        "confidence",
        3,
    )
    assert flyweight("solve", QUESTION, "--json", "--seed", "5").json["seed"] == 5


def test_the_seed_decides_and_nothing_else_does(flyweight: Command) -> None:
    def texts(seed: str) -> list[str]:
        done = flyweight(*solve(QUESTION, "-n", "8", "--json", "--seed", seed))
        return [candidate["text"] for candidate in done.json["candidates"]]

    assert texts("1") == texts("1") != texts("2")


def test_system_prompt_reaches_the_model_or_not(flyweight: Command, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for option, roles in (
        ((), ["system", "user"]),
        (("--system", "Be brief."), ["system", "user"]),
        (("--system", ""), ["user"]),
    ):
        assert flyweight(*solve(QUESTION, "-s", "greedy", "--trace", str(path), *option)).code == 0
        [result] = trace.read(path)
        assert [message.role for message in result.problem.messages] == roles


def test_a_verifier_nobody_asks_is_recorded(flyweight: Command) -> None:
    facts = flyweight(*solve(QUESTION, "-s", "greedy", "--verifier", "arithmetic", "--json")).json
    assert facts["verifier"] == "arithmetic" and facts["usage"]["verifier_calls"] == 0


def test_auto_says_what_it_goes_by(flyweight: Command) -> None:
    done = flyweight(*solve(QUESTION, "-s", "auto", "--json"))
    assert done.code == 0 and done.json["strategy"] == "auto" and done.json["answer"] == "12"
    assert list(done.json) == [*KEYS[:-2], "chosen", "difficulty", "line", *KEYS[-2:]]
    assert all(f"`{key}`" in docs.INTRODUCTION for key in done.json)
    assert "published defaults" in done.json["line"] and 0 < done.json["difficulty"] <= 1
    shown = flyweight(*solve(QUESTION, "-s", "auto", "-n", "4")).out
    assert "Search      auto n=4, toy\nBecause     easy (" in shown
