"""GSM8K: the bundled split, original files, and recorded solutions whose statistics are known."""

from __future__ import annotations

import gzip
import hashlib
import json
import runpy
from pathlib import Path

import pytest

from flyweight import tasks
from flyweight.errors import ConfigError
from flyweight.tasks import files, gsm8k
from flyweight.types import BOXED, Problem

DATA = Path(__file__).parent.parent / "data"
SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "make_gsm8k_dev.py"
RECORDED = DATA / "fixtures" / "gsm8k_verifier" / "example_model_solutions.jsonl.gz"


def test_the_bundled_problems_are_the_development_split_in_hash_order() -> None:
    problems = tasks.load("gsm8k").problems()
    assert len(problems) == 200
    hashes = [hashlib.sha256(problem.prompt.encode()).hexdigest() for problem in problems]
    assert all(int(sha, 16) % 10 == 9 for sha in hashes)
    assert hashes == sorted(hashes)
    assert [problem.id for problem in problems] == [f"gsm8k-train-{sha[:8]}" for sha in hashes]
    first = problems[0]
    assert first.answer == "80" and first.prompt.startswith("The new pad of paper has 120 pages.")
    assert [(m.role, m.content) for m in first.messages] == [("system", BOXED), ("user", first.prompt)]
    assert "\\boxed{}" in BOXED


def test_reference_solutions_grade_as_correct_and_others_as_wrong() -> None:
    task = tasks.load("gsm8k")
    for problem in task.problems()[:40]:
        assert task.grade(problem, f"So it is \\boxed{{{problem.answer}}}.").value == "correct"
        assert task.grade(problem, f"So it is \\boxed{{{problem.answer}1}}.").value == "wrong"
    assert task.grade(task.problems()[0], "I cannot say.").value == "wrong"
    assert task.extract("so \\boxed{1,000}") is not None
    groups = task.classes(["5", "6", None, "5.0", "6", "5"], task.problems()[0])
    assert [sorted(group) for group in groups] == [[0, 3, 5], [1, 4]]
    with pytest.raises(ConfigError, match="no known answer"):
        task.grade(Problem("p", "?"), "4")


@pytest.mark.parametrize(
    ("model", "percent"),
    [("6b_finetuning", 21.68), ("6b_verification", 39.04), ("175b_finetuning", 34.72), ("175b_verification", 56.25)],
)
def test_recorded_solutions_give_the_published_accuracy(model: str, percent: float) -> None:
    """Cobbe et al. 2021: every one of the 1,319 recorded verdicts, by our extraction and grading."""
    task = tasks.load("gsm8k")
    with gzip.open(RECORDED, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) == 1319
    correct = 0
    for row in rows:
        problem = Problem("p", row["question"], answer=row["ground_truth"].rpartition("A: ")[2].strip())
        grade = task.grade(problem, row[model]["solution"])
        assert (grade.value == "correct") is row[model]["is_correct"], row[model]["solution"]
        correct += grade.value == "correct"
    assert round(100 * correct / len(rows), 2) == percent


def test_the_test_set_comes_along_and_grades_as_known() -> None:
    task = tasks.load("gsm8k", split="test")
    assert len(task.problems()) == 1319
    assert task.problems()[0].id.startswith("gsm8k-test-") and task.problems()[0].answer == "18"
    wrong = [p.id for p in task.problems() if task.grade(p, f"It is \\boxed{{{p.answer}}}").value != "correct"]
    assert not wrong
    development = {p.prompt for p in tasks.load("gsm8k").problems()}
    assert not development & {p.prompt for p in task.problems()}


def test_splits_of_a_file_follow_the_hash_and_keep_test_questions_out(tmp_path: Path) -> None:
    test = tasks.load("gsm8k", split="test").problems()[0]
    rows = [{"question": f"What is {i} plus 1?", "answer": f"#### {i + 1}"} for i in range(200)]
    file = _write(tmp_path, {"question": test.prompt, "answer": "#### 18"}, *rows)
    found = {s: [p.prompt for p in tasks.load("gsm8k", file, s).problems()] for s in gsm8k.GSM8K.splits}
    assert found.pop("test") == [test.prompt]
    for split, residues in (("train", range(6)), ("calibration", range(6, 9)), ("development", [9])):
        expected = [r["question"] for r in rows if _residue(r["question"]) in residues]
        assert found[split] == expected and expected
    assert len(tasks.load("gsm8k", file).problems()) == 201
    with pytest.raises(ConfigError, match="train questions of gsm8k are not bundled: pass data=PATH"):
        tasks.load("gsm8k", split="train")
    with pytest.raises(ConfigError, match="unknown split of gsm8k 'tset'; did you mean 'test'"):
        tasks.load("gsm8k", split="tset")
    alone = tmp_path / "alone.jsonl"
    alone.write_text(json.dumps({"question": test.prompt, "answer": "#### 18"}))
    with pytest.raises(ConfigError, match="holds no question of the split 'train'"):
        tasks.load("gsm8k", alone, "train")


def _residue(question: str) -> int:
    return int(hashlib.sha256(question.encode()).hexdigest(), 16) % 10


def original() -> list[dict[str, str]]:
    """The bundled questions as the source has them."""
    rows = files.bundled(gsm8k.DEV)
    return [{"question": str(r["question"]), "answer": f"{r['solution']}\n#### {r['answer']}"} for r in rows]


def _write(folder: Path, *rows: object, name: str = "train.jsonl") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


def test_original_files_load_with_the_same_ids(tmp_path: Path) -> None:
    bundled, rows = tasks.load("gsm8k").problems()[:3], original()[:3]
    for name in ("train.jsonl", "gsm8k_train.jsonl"):
        assert tuple(tasks.load("gsm8k", _write(tmp_path, *rows, name=name)).problems()) == tuple(bundled)
    odd = {"question": "A line\u2028separator?", "answer": "1 #### of\n#### 1,234"}
    [problem] = tasks.load("gsm8k", _write(tmp_path, odd, name="test.jsonl")).problems()
    assert (problem.answer, problem.prompt) == ("1,234", odd["question"]) and problem.id.startswith("gsm8k-test-")


def test_the_script_makes_the_bundled_rows() -> None:
    development = runpy.run_path(str(SCRIPT))["development"]
    others = [{"question": f"Not in the split {i}", "answer": "#### 1"} for i in range(50)]
    others = [row for row in others if int(hashlib.sha256(row["question"].encode()).hexdigest(), 16) % 10 != 9]
    made = development(others + original()[::-1])
    file = Path(gsm8k.__file__).parent / "data" / gsm8k.DEV.name
    assert made == [json.loads(line) for line in file.read_bytes().splitlines()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no problems"),
        ("{", "line 1: not a GSM8K row"),
        ('{"question": "a?", "answer": "5"}', "line 1: not a GSM8K row"),
        ('{"question": "a?", "answer": "#### "}', "no '####' before the final answer"),
        ('{"question": 5, "answer": "#### 5"}', "line 1: not a GSM8K row"),
        ('["question"]', "line 1: not a GSM8K row"),
        ("[" * 100_000, "line 1: not a GSM8K row"),
        ('{"question": "\\ud800", "answer": "#### 5"}', "line 1: not a GSM8K row"),
        (
            '{"question": "a?", "answer": "#### 5"}\n\n{"question": "a?", "answer": "#### 5"}',
            "line 3: the same question",
        ),
    ],
)
def test_bad_files_give_one_line(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "train.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        tasks.load("gsm8k", file)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_unreadable_files_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b"\xff\xfe")
    for name, said in (
        ("nosuch.jsonl", "cannot read PATH: No such file or directory"),
        ("latin.jsonl", "PATH is not UTF-8 text: invalid start byte"),
        (".", "cannot read PATH: Is a directory"),
    ):
        with pytest.raises(ConfigError) as caught:
            tasks.load("gsm8k", tmp_path / name)
        assert str(caught.value) == said.replace("PATH", str(tmp_path / name))


def test_a_changed_bundle_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gsm8k, "DEV", gsm8k.DEV._replace(sha256="0" * 64))
    with pytest.raises(ConfigError, match=r"gsm8k_dev.jsonl was changed: 200 rows .*: reinstall flyweight"):
        tasks.load("gsm8k")
    monkeypatch.setattr(gsm8k, "DEV", gsm8k.DEV._replace(name="nosuch.jsonl"))
    with pytest.raises(ConfigError, match="is missing or damaged: reinstall"):
        tasks.load("gsm8k")
