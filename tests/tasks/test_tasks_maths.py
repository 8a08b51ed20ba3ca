"""MATH-500 and the competitions: bundled data, splits, gold answers, and files that are not what they should be."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from flyweight import tasks
from flyweight.errors import ConfigError
from flyweight.tasks import files, math500
from flyweight.types import BOXED


def write(folder: Path, rows: list[dict[str, object]], name: str = "rows.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_math500_has_its_levels_and_subjects() -> None:
    problems = tasks.load("math500").problems()
    assert len({p.id for p in problems}) == 500
    assert Counter(p.meta["level"] for p in problems) == {1: 43, 2: 90, 3: 105, 4: 128, 5: 134}
    subjects = Counter(p.meta["subject"] for p in problems)
    assert len(subjects) == 7 and subjects["Algebra"] == 124 and subjects["Precalculus"] == 56
    first = problems[0]
    assert first.id == "math-test-precalculus-807" and first.answer == "\\left( 3, \\frac{\\pi}{2} \\right)"
    assert [(m.role, m.content) for m in first.messages] == [("system", BOXED), ("user", first.prompt)]
    assert all(set(p.meta) == {"level", "subject"} for p in problems)  # no solution where a verifier could read it


def test_every_gold_answer_of_math500_grades_as_correct() -> None:
    task = tasks.load("math500")
    odd = [p.id for p in task.problems() if task.grade(p, f"Hence \\boxed{{{p.answer}}}.").value != "correct"]
    assert not odd
    golds = [p.answer for p in task.problems()]
    crossed = [task.grade(p, f"\\boxed{{{golds[i - 1]}}}").value for i, p in enumerate(task.problems()[:60])]
    assert crossed.count("correct") < 5  # neighbours whose answers happen to be equal


def test_math_files_take_the_answer_from_the_solution_and_split_by_hash(tmp_path: Path) -> None:
    known = tasks.load("math500").problems()[0]
    rows: list[dict[str, object]] = [
        {"problem": f"Find {i}.", "level": "Level 3", "type": "Algebra", "solution": f"It is $\\boxed{{{i}}}$."}
        for i in range(60)
    ]
    rows.append({"problem": known.prompt, "level": "Level ?", "type": "Algebra", "solution": "\\boxed{1}"})
    file = write(tmp_path, rows)
    everything = tasks.load("math500", file).problems()
    assert [p.answer for p in everything] == [str(i) for i in range(60)] + ["1"]
    assert everything[-1].meta == {"level": 0, "subject": "Algebra"}
    parts = {split: tasks.load("math500", file, split).problems() for split in math500.MATH500.splits}
    assert [p.prompt for p in parts["test"]] == [known.prompt]
    for split in files.TRAINING:
        assert parts[split] and all(files.hash_split(p.prompt) == split for p in parts[split])
    assert sum(map(len, parts.values())) == 61
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert tasks.load("math500", packed).problems() == everything
    with pytest.raises(ConfigError, match="calibration questions of math500 are not bundled"):
        tasks.load("math500", split="calibration")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "?", "level": "Level 1", "type": "Algebra", "solution": "no answer at all"}, "not a MATH row"),
        ({"problem": "?", "level": "Level 1", "solution": "\\boxed{1}"}, "needs a problem, a subject or type"),
        ({"problem": "?", "type": "Algebra", "solution": "\\boxed{1}"}, "KeyError: 'level'"),
    ],
)
def test_rows_that_are_not_math(tmp_path: Path, row: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        tasks.load("math500", write(tmp_path, [row]))
    assert "line 1" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "rows"), [("aime24", 30), ("aime25", 30), ("amc23", 40)])
def test_competitions(tmp_path: Path, name: str, rows: int) -> None:
    with pytest.raises(ConfigError, match=f"{name} are not bundled: pass data=PATH"):
        tasks.load(name)
    made: list[dict[str, object]] = [{"problem": f"Find {i}.", "answer": str(7 * i)} for i in range(rows)]
    made[1] = {"prompt": f"Find 1.\n{BOXED}", "answer": 7.0}
    task = tasks.load(name, write(tmp_path, made))
    assert [p.answer for p in task.problems()] == [str(7 * i) for i in range(rows)]
    assert task.problems()[1].prompt == "Find 1." and task.problems()[1].id == f"{name}-{files.sha('Find 1.')[:8]}"
    assert task.grade(task.problems()[2], "So \\boxed{014}.").value == "correct"
    assert task.grade(task.problems()[2], "So \\boxed{15}.").value == "wrong"
    with pytest.raises(ConfigError, match=f"{rows - 1} questions; {name} has {rows}"):
        tasks.load(name, write(tmp_path, made[1:]))
    for answer in (10**400, 1e999, 0.5, 10**5, "x", None):
        with pytest.raises(ConfigError, match=f"line 1: not a row of {name}"):
            tasks.load(name, write(tmp_path, [{"problem": "?", "answer": answer}]))
    for answer in ("0.5", "1/2", -20_000, True, None):
        made[0] = {"problem": "Find 0.", "answer": answer}
        with pytest.raises(ConfigError, match="line 1: not a row of"):
            tasks.load(name, write(tmp_path, made))


def test_a_damaged_bundle_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(math500, "TEST", math500.TEST._replace(rows=501))
    with pytest.raises(ConfigError, match=r"math500.jsonl.gz was changed: 500 rows .* expected 501 .*: reinstall"):
        tasks.load("math500")


def test_enormous_files_are_refused_while_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = tmp_path / "bomb.jsonl.gz"
    bomb.write_bytes(gzip.compress(b"0" * (files.MAX_LINE + 10)))
    with pytest.raises(ConfigError, match="line 1: a line over 1 MB is not read"):
        tasks.load("math500", bomb)
    monkeypatch.setattr(files, "MAX_FILE", 1000)
    rows: list[dict[str, object]] = [
        {"problem": f"{i}?", "level": "Level 1", "type": "Algebra", "answer": "1"} for i in range(40)
    ]
    with pytest.raises(ConfigError, match="over 0 MB unpacked"):
        tasks.load("math500", write(tmp_path, rows))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"problem": 1}\n' * 1000)[:-20])
    with pytest.raises(ConfigError) as caught:
        tasks.load("math500", cut)
    assert "\n" not in str(caught.value)
