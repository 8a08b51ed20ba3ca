"""Rated steps: rows of PRM800K into paths, files told apart by what they hold, figures by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import verifiers_ratings as ratings
from benchmarks import verifiers_rows, verifiers_steps
from benchmarks.verifiers_rows import PRM800K, PROCESSBENCH, file, read, stored, take
from benchmarks.verifiers_scores import Kept
from flyweight import models
from flyweight.errors import ConfigError
from flyweight.protocols import Models
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, ToyPolicy
from flyweight.types import Node, Problem, Sampling, Score
from flyweight.verifiers.self_verifier import combination

Row = dict[str, Any]


def step(*completions: tuple[str, int | None], chosen: int | None = 0, human: str | None = None) -> Row:
    return {
        "completions": [{"text": text, "rating": rating, "flagged": False} for text, rating in completions] or None,
        "human_completion": None if human is None else {"text": human, "rating": None, "source": "human"},
        "chosen_completion": chosen,
    }


def row(*steps: Row, question: str = "Add.") -> Row:
    return {"labeler": "x", "question": {"problem": question}, "label": {"steps": steps, "finish_reason": "solution"}}


# Rows -----------------------------------------------------------------------------------------------------------------

HAND = row(
    step(("a", 1)),
    step(("b", -1), ("c", 0), ("d", None), ("e", 1), chosen=2),
    step(("f", -1), ("f", -1), chosen=None, human="g"),
    step(("h", 1), chosen=None),
    step(("i", 1)),  # the path to it is not known
)
PATHS = [("a",), ("a", "b"), ("a", "c"), ("a", "e"), *[("a", "d", "f")] * 2, ("a", "d", "g", "h")]


def test_paths_by_hand() -> None:
    found = ratings.rated(HAND)
    assert list(found.paths) == PATHS
    assert found.ratings == (1, -1, 0, 1, -1, -1, 1)
    assert found.problem.prompt == "Add." and found.problem.answer is None
    assert ratings.rated(row(step(chosen=None))).paths == ()
    # The same question, rated again, is a row of its own.
    assert ratings.rated(row(step(("a", 1)))).problem.id != ratings.rated(row(step(("a", -1)))).problem.id


class Recorder:
    """Says of a path's steps how long each is, in tenths, or only how many there are."""

    name = "recorder"
    params = 0
    sees_answer = False

    def __init__(self, steps: bool) -> None:
        self.steps = steps
        self.paths: list[str] = []

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        self.paths += [node.solution for node in nodes]
        values = [tuple(len(step.text.strip()) / 10 for step in node.steps) for node in nodes]
        return [Score(len(each) / 10, each if self.steps else (), self.name) for each in values]


@pytest.mark.parametrize("steps", [True, False])
def test_a_completion_is_scored_as_the_path_that_ends_in_it(steps: bool) -> None:
    judge = Recorder(steps)
    long = ratings.rated(row(step(("a", 1)), step(("bb", -1), ("ccc", 1), chosen=1), step(("d\n\ne", 0))))
    none = ratings.rated(row(step(chosen=None)))
    branches = ratings.Branches({each.problem.id: each for each in (long, none)})
    runner = Runner(ToyPolicy(), {"recorder": judge}, answers=BoxedAnswers(), sampling=Sampling())
    assert all(result.error is None for result in runner.run([long.problem, none.problem], branches, in_flight=1))
    assert judge.paths == ["a", "a\n\nbb", "a\n\nccc", "a\n\nccc\n\nd\n\ne"]
    assert branches.values == {
        long.problem.id: [0.1, 0.2, 0.3, 0.4] if steps else [0.1, 0.2, 0.2, 0.3],
        none.problem.id: [],
    }


# Files ----------------------------------------------------------------------------------------------------------------

MARKED = {"id": "m-1", "generator": "x", "problem": "Add.", "steps": ["one", "two"], "label": 1}


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(each, ensure_ascii=False) for each in rows) + "\n", "utf-8")
    return path


def test_files_are_told_apart_by_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = row(step(("a\u2028b\u0085c", 1)))  # ends no line of JSON
    first, second = write(tmp_path / "a.json", odd, HAND), write(tmp_path / "b.json", HAND)
    lists = write(tmp_path / "maths.jsonl", [MARKED, {**MARKED, "id": "m-2", "label": -1}])
    kept = tmp_path / "kept"
    assert take([first, lists, second], kept) == {PRM800K: 2, PROCESSBENCH: 2}
    with gzip.open(file(PRM800K, kept), "rt", encoding="utf-8", newline="\n") as lines:
        assert [json.loads(line) for line in lines] == json.loads(json.dumps([odd, HAND]))
    with gzip.open(file(PROCESSBENCH, kept), "rt", encoding="utf-8") as lines:
        marked = [json.loads(line) for line in lines]
    assert sorted(each["id"] for each in marked) == ["m-1", "m-2"] and {each["subset"] for each in marked} == {"maths"}
    before = file(PROCESSBENCH, kept).read_bytes()
    assert take([second], kept) == {PRM800K: 1}
    assert file(PROCESSBENCH, kept).read_bytes() == before  # of no concern to a file of the other
    monkeypatch.setattr(verifiers_rows, "EACH", 1)
    assert take([lists], kept) == {PROCESSBENCH: 1}


BAD = {
    "": "has no rows",
    "[]": "has no rows",
    "version https://git-lfs.github.com/spec/v1\noid sha256:1\n": "git lfs pull",
    "hello": "line 1 is not JSON",
    "[1": "is not JSON",
    "[" * 100_000: "is not JSON",
    "[1]": "row 1: no such row",
    "3": "line 1: no such row",
    json.dumps(MARKED): "line 1: no such row",
    json.dumps([HAND]): "row 1: no such row",
    json.dumps([{**MARKED, "label": 2}]): 'row 1: "label" is 2, of 2 steps',
    json.dumps([{**MARKED, "steps": ["one", 2]}]): "a step is no text",
    json.dumps([{**MARKED, "steps": ["\ud800"]}]): "is not JSON",
    json.dumps(HAND) + "\n" + json.dumps(HAND)[:-5]: "line 2 is not JSON",
    json.dumps(row(step(("a", 1)), step(("b", 2)))): 'line 1: step 2: a completion lacks its "text" or its "rating"',
    json.dumps(row(step(("a", 1), chosen=1))): '"chosen_completion" is 1, of 1',
    json.dumps(row(step(("a", 1), chosen=-1))): '"chosen_completion" is -1, of 1',
    json.dumps(row({**step(("a", 1)), "human_completion": "b"})): '"human_completion" has no "text"',
    json.dumps(row({"chosen_completion": None})): 'step 1: no "completions"',
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_bad_file_is_one_line_and_changes_nothing(text: str, tmp_path: Path) -> None:
    good, bad = write(tmp_path / "good", HAND), tmp_path / "bad"
    bad.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as said:
        take([good, bad], tmp_path / "kept")
    assert BAD[text] in str(said.value) and str(bad) in str(said.value) and "\n" not in str(said.value)
    assert not (tmp_path / "kept").exists()


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for name in ("missing", "binary"):
        monkeypatch.setattr("sys.argv", ["verifiers_steps", str(tmp_path / name)])
        with pytest.raises(SystemExit, match=f"^Error: .*{name} cannot be read"):
            verifiers_steps.main()


def test_published_rows_are_what_they_should_be(tmp_path: Path) -> None:
    rows = stored(PRM800K)
    given = [rating for each in rows for rating in ratings.rated(each).ratings]
    assert len(rows) == 6 and [given.count(rating) for rating in (1, -1, 0)] == [55, 15, 3]
    assert len(read(write(tmp_path / "again", *rows)).lines) == 6


# Figures --------------------------------------------------------------------------------------------------------------


def question(name: str, values: Sequence[float], marks: Sequence[int]) -> Row:
    return {"draws": name, "question": name, "ratings": list(marks), "scores": {"v": list(values)}}


def test_auc_by_hand() -> None:
    rows = [
        question("p", [0.9, 0.3, 0.1], [1, -1, 0]),
        question("q", [0.2, 0.3, 0.99], [1, 1, 0]),
        question("p", [0.6], [-1]),
    ]
    found = ratings.measured(rows, "v")
    # +1: 0.9, 0.2, 0.3; -1: 0.3, 0.6. The first beats both, the second none, the third ties with one.
    assert found is not None and found.value == pytest.approx(2.5 / 6)
    # Problems are drawn: p alone gives 1, both 2.5 / 6, and q alone, which has no -1, is no draw.
    assert (found.low, found.high) == pytest.approx((2.5 / 6, 1))
    alone = ratings.measured([rows[0], rows[2]], "v")
    assert alone == (1, 1, 1)  # two rows about one problem are drawn together: nothing varies
    assert ratings.measured([rows[1]], "v") is None and ratings.measured([], "v") is None


def page(folder: Path, monkeypatch: pytest.MonkeyPatch, rows: Sequence[Row]) -> str:
    kept = Kept(folder / "scores.json.gz")
    kept.questions = {str(n): each for n, each in enumerate(rows)}
    kept.write()
    monkeypatch.setattr(ratings, "SCORES", folder / "scores.json.gz")
    return ratings.section()


def test_page_counts_and_says_when_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert page(tmp_path, monkeypatch, []) == ""
    rows = [question(f"p{n}", [0.9, 0.3, 0.1], [1, -1, 0]) for n in range(ratings.FEW)]
    text = page(tmp_path, monkeypatch, [*rows[1:], rows[1], question("none", [0.5], [0])])
    assert f"**{ratings.FEW - 1} problems are a check of the plumbing" in text
    few = ratings.FEW - 1
    assert f"| `v` | {few} | {few + 1} | {few + 1} | {few + 2} | 1.000 (1.000–1.000) |" in text
    assert "plumbing" not in page(tmp_path, monkeypatch, rows)
    assert page(tmp_path, monkeypatch, [question("p", [0.5], [1])]).endswith("| 1 | 1 | 0 | 0 | – |\n")


def test_kept_scores_are_what_verifiers_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = Kept(ratings.SCORES)
    assert published.whole == ["arithmetic", "probe", "self"]
    monkeypatch.setattr(ratings, "SCORES", tmp_path / "scores.json.gz")
    monkeypatch.setattr("flyweight.api.find_policy", lambda *_, **__: pytest.fail("a model was loaded"))
    ratings.score(["arithmetic"], tmp_path)
    again = Kept(tmp_path / "scores.json.gz")
    whole = combination(models.catalog()["qwen2.5-coder-0.5b"].sha256)["maths"]
    assert again.questions.keys() == published.questions.keys()
    for id, known in published.questions.items():
        assert again.questions[id]["scores"] == {"arithmetic": known["scores"]["arithmetic"]}
        assert {**again.questions[id], "scores": 0} == {**known, "scores": 0}
        said = zip(*(known["scores"][part] for part in whole.weights), strict=True)
        assert known["scores"]["self"] == pytest.approx([whole.value(each) for each in said], abs=1e-8)


def test_what_is_scored_is_not_scored_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [HAND, row(step(("j", 1)), question="Again.")]
    judge = Recorder(steps=True)
    monkeypatch.setattr(ratings, "SCORES", tmp_path / "scores.json.gz")
    monkeypatch.setattr(ratings, "stored", lambda _: rows)
    monkeypatch.setattr("flyweight.verifiers.load", lambda _: judge)
    ratings.score(["recorder"], tmp_path)
    assert len(judge.paths) == len(PATHS) + 1
    rows.append(row(step(("k", -1)), question="Again."))
    ratings.score(["recorder"], tmp_path)
    assert judge.paths[len(PATHS) + 1 :] == ["k"]
    found = Kept(tmp_path / "scores.json.gz")
    assert found.whole == ["recorder"]
    assert (
        len({each["question"] for each in found.questions.values()}) == 2
    )  # three rows, two of them about one problem
