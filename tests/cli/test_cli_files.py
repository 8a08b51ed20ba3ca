"""Many questions in one call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyweight.testing import ToyPolicy
from tests.cli_kit import KEYS, QUESTION, Command, UsePolicy, adds_up, solve


def test_a_file_of_questions_gives_a_line_each_in_its_order(
    flyweight: Command, tmp_path: Path, policy: UsePolicy
) -> None:
    policy(ToyPolicy(adds_up))
    path = tmp_path / "questions.txt"
    # The first takes longest, so completion order is not the file's.
    path.write_text("Add 1 and 2 and 3 and 4 and 5 and 6.\n\nAdd 7 and 8.\r\nAdd 7 and 8.\nAdd 2 and 2.\n", "utf-8")
    done = flyweight(*solve("--file", str(path), "-s", "greedy", "--json"))
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0
    assert [list(row) for row in rows] == [["id", "question", *KEYS]] * 4
    assert [row["question"] for row in rows][1:] == ["Add 7 and 8.", "Add 7 and 8.", "Add 2 and 2."]
    assert len({row["id"] for row in rows}) == 4
    assert [row["answer"] for row in rows] == ["21", "15", "15", "4"]
    text = flyweight(*solve("--file", str(path), "-s", "greedy"))
    assert [line for line in text.out.splitlines() if line.startswith("[")] == [
        f"[{i}] {row['question']}" for i, row in enumerate(rows, 1)
    ]
    assert flyweight(*solve("--file", str(path), "-s", "greedy", "-q")).out.split() == [row["answer"] for row in rows]


def test_answers_in_a_file_reach_the_oracle_and_nobody_else(flyweight: Command, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [{"id": "x", "question": QUESTION, "answer": 12}, {"prompt": "Add 1 and 1.", "answer": "3"}]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    done = flyweight(*solve("--file", str(path), "-s", "best_of_n", "-n", "4", "--verifier", "oracle", "--json"))
    right, wrong = map(json.loads, done.out.splitlines())
    assert right["id"] == "x" and right["answer"] == "12"
    assert {c["score"] for c in right["candidates"]} <= {0.0, 1.0}
    assert all(c["score"] == 0 for c in wrong["candidates"] if c["answer"] == "2")
    assert "ANALYSIS ONLY" in done.err


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "holds no questions"),
        (b"\n  \n", "holds no questions"),
        (b"caf\xe9 1\n", "is not UTF-8 text: invalid continuation byte at byte 3"),
        (b'{"question": "a"}\nplain\n', "line 2: not a JSON object"),
        (b'{"question": "a"}\n\n{"ask": "b"}\n', 'line 3: needs "question"'),
        (b'{"question": ""}\n', 'line 1: needs "question"'),
        (b'{"question": "a", "id": 1}\n{"question": "b", "id": "1"}\n', "line 2: the id '1' is already taken"),
    ],
)
def test_a_file_that_cannot_be_used_names_the_line(flyweight: Command, tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(text)
    done = flyweight(*solve("--file", str(path)))
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1


def test_one_failing_question_does_not_spoil_the_others(flyweight: Command, tmp_path: Path, policy: UsePolicy) -> None:
    path = tmp_path / "q.txt"
    path.write_text("Add 1 and 1.\nAdd 2 and 2.\nAdd 3 and 3.\n")
    policy(
        ToyPolicy(adds_up, fault=lambda request: "no" if "2 and 2" in request.node.root.messages[-1].content else None)
    )
    done = flyweight(*solve("--file", str(path), "-s", "greedy", "--json"))
    assert done.code == 3 and done.err == "Error: no\n"
    assert [json.loads(line)["answer"] for line in done.out.splitlines()] == ["2", None, "6"]
