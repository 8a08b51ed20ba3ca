"""Hostile strings from the command line through the store and its exports to the viewer: none lost, none obeyed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from flyweight.cli.main import run
from flyweight.store import Store
from flyweight.types import Candidate, Finish, Node, Problem, Result
from flyweight.viewer import searches
from flyweight.viewer.page import dumps
from flyweight.viewer.site import Site
from tests import viewer_kit
from tests.viewer_payloads import hostile

WHOLE = [text for text in hostile() if text.strip()]
SPELLED = [text for text in WHOLE if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)]
"""Without halves of surrogate pairs, which a file of questions may not hold."""


def obeyed(text: str) -> set[str]:
    """Characters in it that a terminal would act on, line ends and tabs aside."""
    return {c for c in text if (ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 or c in "\u202e\u2066\u2069"}


def test_from_the_command_line_to_every_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions = tmp_path / "questions.jsonl"
    rows = [{"id": f"{i}", "prompt": text, "answer": text} for i, text in enumerate(SPELLED)]
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    folder = str(tmp_path / "runs")
    asked = ["bench", "run", "jsonl", "--data", str(questions), "--set-task", "checker=text", "--model", "toy"]
    assert run([*asked, "--out", folder, "--strategies", "sample"]) == 0
    said = capsys.readouterr()
    exported = tmp_path / "samples.jsonl.gz"
    assert run(["bench", "export", "last", "--jsonl", str(exported), "--out", folder]) == 0
    assert run(["bench", "show", "last", "--problems", "--out", folder]) == 0
    assert run(["bench", "ls", "--out", folder]) == 0
    assert run(["report", "--runs", folder]) == 0
    shown = capsys.readouterr()
    assert not obeyed(said.out + said.err + shown.out + shown.err)

    path = tmp_path / "runs" / "flyweight.db"
    with Store(path, readonly=True) as store:
        (info,) = store.runs()
        found = {search.result.problem.id: search.result for search in store.searches(info.id)}
    assert {id: result.problem.prompt for id, result in found.items()} == {row["id"]: row["prompt"] for row in rows}
    with gzip.open(exported, "rt", encoding="ascii") as file:
        texts = [json.loads(line) for line in file]
    assert {row["text"] for row in texts} == {result.text for result in found.values()}

    site = Site(path)
    for row in rows[:: len(rows) // 20]:
        reply = site.get(f"api/run/{info.id}/question/{searches.problem_key(row['id'])}")
        assert isinstance(reply.body, bytes)
        told = json.loads(reply.body)["events"][0]["facts"]
        assert told == {"prompt": row["prompt"], "answer": row["prompt"]}


def test_halves_of_characters_are_refused_where_they_cannot_be_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"prompt": "half \ud800", "answer": "1"}), "utf-8")
    assert run(["bench", "run", "jsonl", "--data", str(questions), "--model", "toy", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "surrogates not allowed" in error and error.count("\n") == 1


def test_everything_survives_the_store_and_the_page(tmp_path: Path) -> None:
    path = tmp_path / "flyweight.db"
    with Store(path) as store:
        run_id = viewer_kit.traps(store, WHOLE)
        store.dump(tmp_path / "packed.jsonl.gz")
    with Store(tmp_path / "again.db") as again:
        again.load(tmp_path / "packed.jsonl.gz")
    for file in (path, tmp_path / "again.db"):
        site = Site(file)
        reply = site.get(f"api/run/{run_id}")
        assert isinstance(reply.body, bytes) and reply.body.isascii()
        columns = json.loads(reply.body)["questions"]
        truths = dict(zip(columns["id"], columns["truth"], strict=True))
        for index, text in enumerate(WHOLE):
            assert truths[f"{index}: {text}"] == text
        for index in range(0, len(WHOLE), 20):
            text = WHOLE[index]
            told = site.get(f"api/run/{run_id}/question/{searches.problem_key(f'{index}: {text}')}")
            assert isinstance(told.body, bytes)
            nodes = [e["node"] for e in json.loads(told.body)["events"] if e["kind"] == "node"]
            assert nodes[0]["text"] == f"{text}\n\n" and text in nodes[1]["text"]


@pytest.mark.parametrize("text", hostile()[:30])
def test_notebooks_show_it_as_text(text: str) -> None:
    asked = Problem("x", text or "x")
    root = Node(messages=asked.conversation, key="root")
    node = Node(root, text, (1,), (), (), Finish.END, key="a")
    shown = Result(asked, node, text, (Candidate(node, text, 0), Candidate(node, text, 1)), error=text)._repr_html_()
    shown.encode()
    assert not obeyed(shown.replace("\r", "")) and "<script" not in shown and "\r\nSet-Cookie" not in shown
    assert dumps({"text": text}).isascii()
