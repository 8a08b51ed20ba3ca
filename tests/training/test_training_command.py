"""`flyweight train-verifier`: which questions it takes, and what it says where they teach nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from flyweight import api
from flyweight.cli import train
from flyweight.errors import ConfigError
from flyweight.testing import ToyPolicy
from flyweight.training import combine, pool
from flyweight.training.combine import Scored
from flyweight.types import Problem

FILES = {"a": "one", "b": "two"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a.jsonl and b.jsonl, 100 questions each."""
    for name, prompt in FILES.items():
        rows = [{"id": f"{name}{i}", "prompt": f"{prompt} {i}", "answer": "4"} for i in range(100)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("split", ["train", "calibration"])
@pytest.mark.parametrize("source", ["humaneval", "aime24=a.jsonl"])
def test_nothing_is_fitted_on_test_questions(source: str, split: str) -> None:
    name = source.partition("=")[0]
    with pytest.raises(ConfigError, match=f"^{name} has no split {split}, and nothing is fitted on test questions"):
        train._chosen([source], split, 8)


@pytest.mark.usefixtures("folder")
def test_one_file_serves_training_and_combining() -> None:
    found = [
        {
            problem.id
            for _, problems in train._chosen(["jsonl=a.jsonl", "jsonl=b.jsonl"], split, 100)
            for problem in problems
        }
        for split in ("train", "calibration")
    ]
    assert not found[0] & found[1] and all(id[0] in FILES for id in found[0] | found[1])
    assert {id[0] for id in found[0]} == {id[0] for id in found[1]} == set(FILES)


@pytest.mark.usefixtures("folder")
def test_an_id_that_stands_in_two_files_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ids of jsonl stand in two of its files, such as 'a\d+'"):
        train._chosen(["jsonl=a.jsonl", "jsonl=a.jsonl"], "train", 20)


def test_all_files_of_a_task_are_trained_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder / "model.gguf"
    model.write_bytes(b"GGUF" + bytes(2000))
    given: dict[str, list[Path]] = {}

    def draw(model: str, task: object, problems: Sequence[Problem], folder: Path, **more: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for problem in problems:
            (folder / f"{problem.id}.npz").touch()

    monkeypatch.setattr(train, "_libraries", lambda lora: None)
    monkeypatch.setattr(train, "_draw", draw)
    monkeypatch.setattr(train, "_head", lambda sha256, files, out, curve, seed: given.update(files))
    train.train_verifier(["jsonl=a.jsonl", "jsonl=b.jsonl"], model=str(model), questions=10)
    assert sorted(path.stem[0] for path in given["jsonl"]) == ["a"] * 10 + ["b"] * 10


def test_combined_is_what_was_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 questions of another file are on record, with the same parts."""
    record = [Scored(f"other{i}", "maths", {"arithmetic": [0.1, 0.9]}, [False, True]) for i in range(60)]
    drawn: list[str] = []
    used: list[str] = []

    def collect(
        policy: object, task: object, problems: Sequence[Problem], *rest: object, **more: object
    ) -> Iterator[None]:
        for problem in problems:
            if problem.id not in {each.id for each in record}:
                drawn.append(problem.id)
                record.append(Scored(problem.id, "maths", {"arithmetic": [0.1, 0.9]}, [False, True]))
                yield None

    def fit(questions: Sequence[Scored], **more: object) -> combine.Fitted:
        used[:] = [each.id for each in questions]
        return combine.Fitted({"arithmetic": 1.0}, 0.0, {"auc_within": 1.0})

    monkeypatch.setattr(api, "find_policy", lambda model: lambda: ToyPolicy())
    monkeypatch.setattr(combine, "load", lambda file: list(record))
    monkeypatch.setattr(combine, "collect", collect)
    monkeypatch.setattr(combine, "fit", fit)

    def asked(questions: int) -> list[str]:
        source = ["jsonl=b.jsonl"]
        train._combination("toy", "", source, questions, "arithmetic", folder, None, n=2, max_tokens=9, seed=0)
        return [problem.id for problem in train._chosen(source, "calibration", questions)[0][1]]

    many = asked(20)
    assert len(many) == 20 and sorted(used) == sorted(drawn) == sorted(many)
    few = asked(10)
    assert len(few) == 10 and sorted(used) == sorted(few) and len(drawn) == 20  # nothing more was drawn


def question(id: str, *right: bool) -> pool.Question:
    rng = np.random.default_rng(len(id))

    def chain(right: bool) -> pool.Chain:
        states = (rng.standard_normal((6, 1, 2)) + (1 if right else -1)).astype(np.float16)
        return pool.Chain(states, np.zeros(6, np.float32), np.ones(6, np.float32), right, (6,), (-1.0,))

    return pool.Question(id, np.zeros((2, 1, 2), np.float16), tuple(map(chain, right)))


@pytest.mark.torch
@pytest.mark.parametrize("questions", [[], [question("a")], [question("a"), question("b", True, True)]])
def test_a_head_of_answers_that_teach_nothing(questions: list[pool.Question], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from flyweight.training import head

    with pytest.raises(ValueError, match=f"^{pool.NOTHING}$"):
        head.fit(questions, "a" * 64)
    files = [Path(each.id) for each in questions]
    monkeypatch.setattr(pool, "load", dict(zip(files, questions, strict=True)).__getitem__)
    for curve in (False, True):
        with pytest.raises(ConfigError, match=f"^{len(files)} questions: {pool.NOTHING}"):
            train._head("a" * 64, {"task": files}, Path("h.npz"), curve, 0)


@pytest.mark.torch
def test_points_of_a_curve_that_cannot_be_fitted_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of six questions an eighth is none, a quarter one without wrong answers; a half and all have both."""
    pytest.importorskip("torch")
    from flyweight.verifiers.probe import Head

    questions = [question("q", True, True), *(question("q" * n, True, False, True) for n in range(2, 7))]
    files = [Path(each.id) for each in questions]
    monkeypatch.setattr(pool, "load", dict(zip(files, questions, strict=True)).__getitem__)
    train._head("a" * 64, {"task": files}, tmp_path / "h.npz", True, 0)
    points: Any = Head.load(tmp_path / "h.npz").facts["curve"]
    assert [point["questions"] for point in points] == [3, 6]
    err = capsys.readouterr().err
    assert "0 questions: no question has" in err and "1 questions: no question has" in err


@pytest.mark.torch
def test_an_adapter_is_not_trained_where_nothing_can_be_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("transformers")
    questions = [question("q"), *(question("q" * n, True, False) for n in range(2, 9))]
    files = [Path(each.id) for each in questions]
    monkeypatch.setattr(pool, "load", dict(zip(files, questions, strict=True)).__getitem__)
    with pytest.raises(ConfigError, match=f"^1 held-out questions: {pool.NOTHING}"):
        train._adapter(tmp_path / "none.gguf", "a" * 64, {"task": files}, tmp_path, tmp_path / "a.gguf", 1, 0)
