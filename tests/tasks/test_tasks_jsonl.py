"""Files of the user's own, the registry, and picking problems."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from flyweight import sandbox, tasks
from flyweight.errors import ConfigError, SandboxError
from flyweight.tasks import files
from flyweight.tasks.jsonl import JSONL
from flyweight.types import BOXED, Problem


def write(folder: Path, *rows: object) -> Path:
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_prompts_answers_and_other_fields(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        {"prompt": "1 + 1?", "answer": 2, "level": "easy"},
        {"question": "Half of 3?", "answer": "1.5", "id": "half"},
        {"problem": "Why?"},
    )
    task = tasks.load("jsonl", file)
    first, half, open_ = task.problems()
    assert first.id == f"jsonl-{files.sha('1 + 1?')[:12]}" and (first.answer, first.meta) == ("2", {"level": "easy"})
    assert (half.id, half.prompt, half.answer) == ("half", "Half of 3?", "1.5")
    assert [m.content for m in first.messages] == [BOXED, "1 + 1?"]
    assert task.grade(half, "It is \\boxed{\\frac32}").value == "correct"
    assert task.classes(["2", "3", "2.0", None], half) == [[0, 2], [1]]
    with pytest.raises(ConfigError, match="no known answer"):
        task.grade(open_, "42")


@pytest.mark.parametrize(
    ("checker", "answer", "right", "wrong"),
    [
        ("choice", "B", "The answer is (B).", "The answer is (C)."),
        ("json", '{"a": 1, "b": [2]}', 'So {"b": [2], "a": 1}', '{"a": 1}'),
        ("json:total", "7", 'I get {"total": 7.0}', '{"total": 8}'),
        ("text", "New York", "  new york ", "York"),
        ("math", "1/2", "\\boxed{0.5}", "\\boxed{2}"),
    ],
)
def test_checkers(tmp_path: Path, checker: str, answer: str, right: str, wrong: str) -> None:
    by_setting = tasks.load("jsonl", write(tmp_path, {"prompt": "?", "answer": answer}), checker=checker)
    by_row = tasks.load("jsonl", write(tmp_path, {"prompt": "?", "answer": answer, "checker": checker}))
    for task in (by_setting, by_row):
        [problem] = task.problems()
        assert isinstance(task, JSONL) and task.checker == checker
        assert task.grade(problem, right).value == "correct"
        assert task.grade(problem, wrong).value == "wrong"
        assert [m.role for m in problem.messages] == (["system", "user"] if checker == "math" else ["user"])


def test_tests_as_answers(tmp_path: Path) -> None:
    file = write(tmp_path, {"prompt": "Write double(x).", "answer": "assert double(4) == 8\nassert double(0) == 0"})
    task = tasks.load("jsonl", file, checker="tests")
    [problem] = task.problems()
    assert "assert" not in problem.messages[0].content + problem.messages[1].content
    assert task.grade(problem, "No.").reason == "no code in the answer"
    assert task.classes(["a", "a", None], problem) == [[0, 1]]
    try:
        sandbox.working()
    except SandboxError as error:
        pytest.skip(str(error))
    assert task.grade(problem, "```python\ndef double(x):\n    return 2 * x\n```").value == "correct"
    assert task.grade(problem, "```python\ndef double(x):\n    return 8\n```").value == "wrong"


def test_splits_by_hash(tmp_path: Path) -> None:
    file = write(tmp_path, *({"prompt": f"{i}?", "answer": i} for i in range(100)))
    parts = {split: tasks.load("jsonl", file, split).problems() for split in files.TRAINING}
    assert sum(map(len, parts.values())) == 100 == len(tasks.load("jsonl", file).problems())
    assert all(files.hash_split(p.prompt) == split for split, some in parts.items() for p in some)


def test_the_hash_rule() -> None:
    """sha256("abc") = ba7816bf...15ad, a number that is 3 mod 10 as Python and as long division have it."""
    digits = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    remainder = 0
    for digit in digits:
        remainder = (remainder * 16 + int(digit, 16)) % 10
    assert files.sha("abc") == digits
    assert files.hash_split("abc") == {9: "development"}.get(remainder, "calibration" if remainder > 5 else "train")
    shares = Counter(files.hash_split(str(i)) for i in range(10_000))
    assert [round(shares[split] / 1000) for split in files.TRAINING] == [6, 3, 1]


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"prompt": "?"}], {"checker": "maths"}, "unknown checker 'maths'; did you mean 'math'"),
        ([{"prompt": "?"}], {"checker": "json:"}, "unknown answer kind 'json:'"),
        ([{"prompt": "?"}], {"checker": "code"}, "unknown checker 'code'"),
        ([{"prompt": "?", "checker": "math"}, {"prompt": "!", "checker": "text"}], {}, "several checkers"),
        ([{"prompt": ""}], {}, "line 1: not a row of the task jsonl"),
        ([{"answer": "5"}], {}, "line 1: not a row of the task jsonl"),
        ([{"prompt": "?", "answer": [1]}], {}, "answer is a string or a number"),
        ([{"prompt": "?", "answer": True}], {}, "answer is a string or a number"),
        ([{"prompt": "?", "id": [1]}], {}, "id is a string or a number"),
        ([{"prompt": "?"}, {"prompt": "?"}], {}, "line 2: the same question"),
        ([{"prompt": "?", "id": 1}, {"prompt": "!", "id": "1"}], {}, "line 2: the same question"),
        ([], {}, "holds no problems"),
        (["x"], {}, "line 1: not a row"),
        ([{"prompt": "\ud800"}], {}, "line 1: not a row"),
        ([{"prompt": "?", "answer": "\ud800"}], {}, "line 1: not a row"),
        ([{"prompt": "?", "id": "\ud800"}], {}, "line 1: not a row"),
        ([{"prompt": "?", "note": ["\ud800"]}], {}, "line 1: not a row"),
    ],
)
def test_mistakes_give_one_line(tmp_path: Path, rows: list[object], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        tasks.load("jsonl", write(tmp_path, *rows), **settings)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_is_needed() -> None:
    with pytest.raises(ConfigError, match="jsonl needs a file"):
        tasks.load("jsonl")


# The registry


def test_registry() -> None:
    ours = ["gsm8k", "math500", "aime24", "aime25", "amc23", "humaneval", "mbpp", "countdown", "jsonl"]
    assert tasks.names() == ours
    rows = tasks.describe()
    assert [row.name for row in rows] == ours and all(row.summary and row.source for row in rows)
    assert "2110.14168" in rows[0].source
    with pytest.raises(ConfigError, match="unknown task 'gsm8'; did you mean 'gsm8k'"):
        tasks.load("gsm8")
    with pytest.raises(ConfigError, match="unknown setting of task gsm8k 'seed'"):
        tasks.load("gsm8k", seed=1)


def test_every_task_says_what_it_must() -> None:
    from flyweight.registry import Registry

    registry: Registry = tasks._REGISTRY
    for name in tasks.names():
        text = registry.factory(name).__doc__ or ""
        for word in ("Licence:", "Source:", "Answer:" if name != "jsonl" else "checker", "Split"):
            assert word in text, (name, word)


# Picking


def test_picking_is_by_hash_and_nested() -> None:
    problems = [Problem(f"p{i}", "?", meta={"level": i % 5}) for i in range(50)]
    some = tasks.pick(problems, 10)
    assert some == tasks.pick(problems[::-1], 10) == tasks.pick(problems, 30)[:10] != problems[:10]
    assert [files.sha(p.id) for p in some] == sorted(files.sha(p.id) for p in problems)[:10]
    assert tasks.pick(problems, 50) != problems and set(map(id, tasks.pick(problems, 50))) == set(map(id, problems))
    with pytest.raises(ConfigError, match="51 problems wanted of 50"):
        tasks.pick(problems, 51)


def test_picking_by_level_keeps_the_proportions() -> None:
    problems = tasks.load("math500").problems()
    levels = Counter(p.meta["level"] for p in tasks.pick(problems, 60, by="level"))
    # 60/500 of 43, 90, 105, 128 and 134 is 5.2, 10.8, 12.6, 15.4 and 16.1.
    assert all(abs(levels[level] - 0.12 * n) < 1 for level, n in {1: 43, 2: 90, 3: 105, 4: 128, 5: 134}.items())
    assert tasks.pick(problems, 60, by="level")[:20] == tasks.pick(problems, 20, by="level")
    with pytest.raises(ConfigError, match="not every problem has 'topic'"):
        tasks.pick(problems, 5, by="topic")
