"""The command `flyweight report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flyweight.cli.main import run
from flyweight.report import plots
from flyweight.store import Store
from tests.report.report_kit import Found, Said, opened, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of a task of one's own, not graded yet."""
    data = tmp_path / "questions.jsonl"
    data.write_text('{"prompt": "Capital of Peru?", "answer": "Lima", "checker": "text"}\n', "utf-8")
    asked: dict[str, Any] = {"task": "jsonl", "data": str(data), "split": None}
    with opened(tmp_path) as store:
        write(store, "greedy", {"p": Found([Said("Lima")])}, problems_sha256="a", **asked)
        write(store, "sample", {"p": Found([Said("Quito")])}, problems_sha256="a", **asked)
    return tmp_path


def ids(folder: Path) -> list[str]:
    with Store(folder / "flyweight.db", readonly=True) as store:
        return [info.id for info in store.runs()]


def answered(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run(["report", "--runs", str(folder), *arguments])
    return code, *capsys.readouterr()


def rows(out: str) -> list[str]:
    return [row["strategy"] for section in json.loads(out)["sections"] for row in section["rows"]]


def test_every_run_in_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The known answer is not that of the file: what a run recorded is graded."""
    code, out, err = answered(folder, capsys)
    assert (code, err) == (0, "") and "jsonl: 1 problem" in out
    assert "greedy" in out and "sample" in out


def test_some_runs_by_prefix_and_last(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    greedy, sample = ids(folder)
    assert rows(answered(folder, capsys, "last", "--json")[1]) == ["sample"]
    assert rows(answered(folder, capsys, greedy[:5], "--json")[1]) == ["greedy"]
    both = json.loads(answered(folder, capsys, greedy, "--baseline", sample[:6], "--json")[1])
    assert [entry["baseline"] for entry in both["sections"][0]["differences"]] == [sample]


@pytest.mark.parametrize("ending", [".md", ".html", ".json"])
def test_a_file(folder: Path, capsys: pytest.CaptureFixture[str], ending: str) -> None:
    file = folder / f"out{ending}"
    assert answered(folder, capsys, "-o", str(file)) == (0, "", f"Wrote {file}.\n")
    text = file.read_text("utf-8")
    assert {".md": "# Report", ".html": "<!doctype html>", ".json": '{"runs"'}[ending] in text[:20]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zzzz"], "run 'zzzz': there is none (latest: "),
        (["abc"], "run 'abc': write 4 characters or more"),
        (["-o", "x.pdf"], "-o x.pdf: the ending must be one of .html, .json, .md, .png, .svg"),
        (["-o", "x.md", "--json"], "--json prints"),
        (["-o", "..md/.md"], "the ending must be one of"),
        (["--runs", "nowhere"], "nowhere/flyweight.db does not exist: record runs with flyweight bench"),
        (["-o", "x.svg"], "nothing to draw" if plots.available() else "pip install 'flyweight[plots]'"),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    code, out, err = answered(folder, capsys, *arguments)
    assert (code, out) == (2, "") and err.startswith("Error: ") and message in err


def test_a_file_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answered(folder, capsys, "-o", "no/such/folder.md")
    assert (code, out, err) == (3, "", "Error: cannot write no/such/folder.md: No such file or directory\n")
    (folder / "folder.md").mkdir()
    assert answered(folder, capsys, "-o", str(folder / "folder.md"))[0] == 3


def test_a_narrow_terminal(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = answered(folder, capsys)[1]
    prose = [line for line in out.splitlines() if line.endswith((".", ",")) or "interval" in line]
    assert len(prose) > 5 and max(map(len, prose)) <= 60


def test_grades_that_cannot_be_made(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "questions.jsonl").unlink()
    code, out, err = answered(folder, capsys)
    assert (code, out) == (2, "") and err.startswith(f"Error: run {min(ids(folder))} has no grades yet, and its task")


def test_a_run_that_is_no_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path) as store:
        store.run({"name": "something else"})
    code, _, err = answered(tmp_path, capsys)
    assert code == 2 and "is no benchmark: its configuration lacks model, strategy, task" in err


def test_while_another_process_writes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Grades are made, and kept afterwards: then the questions are needed no more."""
    with opened(folder):
        expected = answered(folder, capsys)
    assert expected[0] == 0
    assert answered(folder, capsys) == expected
    (folder / "questions.jsonl").unlink()
    assert answered(folder, capsys) == expected
    with opened(folder):
        assert answered(folder, capsys) == expected
