"""The commands that read runs: what they say of hand-made ones, and what they refuse."""

from __future__ import annotations

import gzip
import json
import random
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import typer

from flyweight import strategies
from flyweight.bench import counted, graded
from flyweight.cli import main, runs
from flyweight.protocols import Answers
from flyweight.runner import Runner
from flyweight.store import Store
from flyweight.store.units import mark as checksum
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Grade, Problem, Sampling
from tests.cli_kit import Done

Bench = Callable[..., Done]
LONG = "." * 60 + "\\boxed{7}"
"""Cut by max_tokens before its answer."""
PROBLEMS = {
    "p0": (Problem("p0", "Zero?", answer="7", meta={"level": 1}), ["7", "7", "8"]),
    "p1": (Problem("p1", "One?", answer="7", meta={"level": 1}), ["8", "8", "7"]),
    "p2": (Problem("p2", "Two?", answer="7", meta={"level": 2}), [LONG, LONG, LONG]),
    "p3": (Problem("p3", "Three?", answer="7", meta={"level": 2}), ["6", "x", "6"]),
}
"""With what is drawn for them. By majority: right, wrong, nothing selected, undecided (6 and x are)."""


def grade(problem: Problem, text: str) -> Grade:
    said = BoxedAnswers().extract(text)
    if said in ("6", "x"):
        return Grade("undecided", "too hard")
    return Grade("correct") if said == problem.answer else Grade("wrong", f"not {problem.answer}")


def boxed(said: str) -> str:
    return said if "." in said else f"\\boxed{{{said}}}"


def configuration(name: str = "self_consistency", n: int = 3, **more: object) -> dict[str, object]:
    same: dict[str, object] = {
        "task": "sums",
        "split": None,
        "data": None,
        "settings": {},
        "model": "toy",
        "verifier": "rule",
        "seed": 0,
    }
    return {**same, "strategy": name, "parameters": {"n": n}, **more}


def record(
    store: Store,
    asked: dict[str, tuple[Problem, list[str]]] = PROBLEMS,
    *,
    done: bool = True,
    score: Callable[[str, str], float] = lambda question, text: 0.25,
    answers: Answers | None = None,
    **more: object,
) -> str:
    """Write a run down; its id."""
    drafts = {problem.prompt: iter(said) for problem, said in asked.values()}

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(boxed(next(drafts[question])), -0.5)

    made = configuration(**more)  # type: ignore[arg-type]
    run = store.run(made, models={"toy": "sha256:0 file"})
    runner = Runner(
        ToyPolicy(write, slots=1),
        {"rule": RuleVerifier(score, "rule")},
        answers=answers or BoxedAnswers(),
        sampling=Sampling(max_tokens=40),
        on_event=run,
    )
    strategy = strategies.bind(str(made["strategy"]), made["parameters"])  # type: ignore[arg-type]
    for result in runner.run([problem for problem, _ in asked.values()], strategy):
        assert result.error is None
    if done:
        run.finish()
    return run.id


def mark(store: Store, run: str) -> None:
    """Grade everything."""
    info = next(info for info in store.runs() if info.id == run)
    assert list(graded.read(store, run, store.grader(grade, graded.identity(info.configuration))))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def bench(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Runs one of the commands on the folder."""
    group = typer.Typer(rich_markup_mode=None)
    runs.register(group)
    monkeypatch.setattr(main, "app", group)

    def command(*arguments: str, runs: Path | None = folder) -> Done:
        where = [] if runs is None else ["--runs", str(runs)]
        code = main.run([*arguments, *where])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return command


def store_in(folder: Path) -> Store:
    return Store(folder / "flyweight.db")


@pytest.fixture
def run(folder: Path) -> str:
    """A finished and graded run over the four problems."""
    with store_in(folder) as store:
        id = record(store)
        mark(store, id)
    return id


# ls, show


def test_a_run_counted_by_hand(folder: Path, run: str) -> None:
    """1 of 4 right; 3 of 12 candidates right: 2, 1, 0, 0 of 3; 2 of 4 problems covered."""
    with store_in(folder) as store:
        (info,) = store.runs()
        asked = counted.Counted.of(store, info)
    assert asked.missing == asked.interrupted == 0
    assert [question.grade.value for question in asked.questions] == ["correct", "wrong", "wrong", "undecided"]
    accuracy, covered = counted.accuracy(asked.questions), counted.coverage(asked.questions)
    assert accuracy is not None and covered is not None
    assert accuracy == pytest.approx((0.0456, 0.25, 0.6994), abs=1e-4)  # Wilson's interval of 1 in 4
    assert covered == pytest.approx((0.15, 0.5, 0.85), abs=1e-4)
    chance = counted.random_choice(asked.questions)
    # Sums of (value - 1/4) by question: 5/4, 1/4, -3/4, -3/4; variance 4/3 / 12^2 x 2.75.
    half = 1.959964 * (4 / 3 * 2.75) ** 0.5 / 12
    assert chance == pytest.approx((max(0, 0.25 - half), 0.25, 0.25 + half), abs=1e-6)
    levels = {level: [q.problem.id for q in group] for level, group in asked.strata()["level"].items()}
    assert levels == {"1": ["p0", "p1"], "2": ["p2", "p3"]} and "subject" not in asked.strata()
    assert counted.random_choice(asked.questions[:1]) == pytest.approx((0.2077, 2 / 3, 0.9385), abs=1e-4)
    assert counted.accuracy([]) is counted.coverage([]) is counted.random_choice([]) is None


def test_show_says_what_a_run_was_and_came_to(bench: Bench, run: str) -> None:
    done = bench("show", "last")
    assert done.code == 0 and done.err == ""
    lines = {line[:16].strip(): line[16:] for line in done.out.splitlines()}
    assert lines["Run"] == f"{run}, finished"
    assert (lines["Task"], lines["Model"], lines["Verifier"]) == ("sums", "toy", "rule")
    assert (lines["Strategy"], lines["Parameters"]) == ("self_consistency", "n=3")
    assert lines["Drawn from"] == "toy: sha256:0 file"
    assert lines["Problems"] == "4" and "flyweight=" in lines["With"]
    assert lines["Accuracy"] == "25.0 % (4.6–69.9)"
    assert lines["Random choice"].startswith("25.0 % (0.0–56.3)")
    assert lines["Coverage"] == "50.0 % (15.0–85.0): pass@3, some candidate is right"
    assert lines["Undecided"] == "1 of 4 selected, 3 of 12 candidates"
    assert lines["Truncated"] == "3 of 12 candidates"
    assert lines["Tokens"].startswith(f"{9 * 9 + 3 * 40 + 9:,} generated, ")  # \boxed{7} and the end: ten; cut: 40
    assert re.search(r"^1 +2 +50\.0 % \(9\.5–90\.5\)\n2 +2 +0\.0 % \(0\.0–65\.8\)$", done.out, re.MULTILINE)
    assert "p0" not in done.out


def test_show_json_has_the_same_numbers(bench: Bench, run: str) -> None:
    facts = bench("show", run[:4], "--json", "--problems").json
    assert (facts["run"], facts["state"], facts["problems"], facts["graded"]) == (run, "finished", 4, True)
    assert facts["configuration"] == configuration() and facts["models"] == {"toy": "sha256:0 file"}
    assert facts["accuracy"]["value"] == facts["random_choice"]["value"] == 0.25
    assert (facts["coverage"]["value"], facts["undecided"], facts["undecided_candidates"]) == (0.5, 1, 3)
    assert (facts["candidates"], facts["candidates_each"], facts["truncated_candidates"]) == (12, "3", 3)
    assert facts["by"]["level"]["1"]["accuracy"]["value"] == 0.5
    assert [(each["problem_id"], each["grade"], each["right_candidates"]) for each in facts["each"]] == [
        ("p0", "correct", 2),
        ("p1", "wrong", 1),
        ("p2", "wrong", 0),
        ("p3", "undecided", 0),
    ]
    assert "each" not in bench("show", run, "--json").json


def test_show_lists_problems(bench: Bench, run: str) -> None:
    lines = bench("show", "last", "--problems").out.split("\n\n")[-1].splitlines()
    assert lines[0].split() == ["problem", "grade", "answer", "known", "stopped", "right", "tokens"]
    assert [line.split()[:6] for line in lines[1:]] == [
        ["p0", "correct", "7", "7", "done", "2/3"],
        ["p1", "wrong", "8", "7", "done", "1/3"],
        ["p2", "wrong", "none", "7", "done", "0/3"],
        ["p3", "undecided", "6", "7", "done", "0/3"],
    ]


def test_ls_lists_every_run(bench: Bench, folder: Path, run: str) -> None:
    with store_in(folder) as store:
        other = record(store, done=False, n=2, verifier=None, settings={"other": 1})
    listed = bench("ls").out.splitlines()
    said = f"{run} sums self_consistency n=3 rule toy finished 4 25.0 % (4.6–69.9)"
    assert listed[1].split() == said.split()
    said = f"{other} sums self_consistency n=2 - toy unfinished 4 -"
    assert listed[2].split() == said.split()
    facts = bench("ls", "--json").json
    assert [(each["run"], each["state"], each["graded"]) for each in facts] == [
        (run, "finished", True),
        (other, "unfinished", False),
    ]
    assert facts[0]["accuracy"]["value"] == 0.25 and facts[1]["accuracy"] is None


def test_what_is_not_graded_says_how_to(bench: Bench, folder: Path) -> None:
    with store_in(folder) as store:
        id = record(store)
        hint = f"not graded: flyweight bench grade {id}"
        assert hint in bench("show", id).out and "Coverage" not in bench("show", id).out
        assert bench("show", id, "--json").json["accuracy"] is None
        assert hint in bench("show", id, "p0").out and bench("show", id, "p0", "--json").json["grade"] is None
        rows = [json.loads(line) for line in bench("export", id, "--jsonl", "-").out.splitlines()]
        assert [row["grade"] for row in rows[6:9]] == ["wrong"] * 3, "truncated needs no grading"
        assert {row["grade"] for row in [*rows[:6], *rows[9:]]} == {None}
        mark(store, id)
        assert hint not in bench("show", id).out


def test_interrupted_searches_are_not_counted(bench: Bench, folder: Path) -> None:
    with store_in(folder) as store:
        run = store.run(configuration())
        runner = Runner(ToyPolicy(lambda *asked: Draft(boxed("7"))), {}, answers=BoxedAnswers(), on_event=run)
        for _ in runner.run([problem for problem, _ in PROBLEMS.values()], strategies.bind("greedy"), in_flight=1):
            runner.interrupt()
        mark_only = store.grader(grade, graded.identity(configuration()))
        for result in store.results(run.id):
            if result.best is not None and result.stopped == "done":
                mark_only.grades(result.problem, [result.best])
    facts = bench("show", "last", "--json").json
    assert (facts["problems"], facts["state"], facts["graded"]) == (1, "unfinished", True)
    assert facts["accuracy"]["value"] == 1


def test_the_search_of_a_problem(bench: Bench, folder: Path, run: str) -> None:
    done = bench("show", "last", "p0")
    head, rows, table, text = done.out.strip().split("\n\n")
    assert (head, text) == ("Zero?", "\\boxed{7}")
    said = {line[:14].strip(): line[14:] for line in rows.splitlines()}
    assert (said["Problem"], said["Known answer"], said["Selected"], said["Grade"]) == ("p0", "7", "7", "correct")
    assert said["Votes"] == "7: 2 of 3, 8: 1"
    assert [line.split() for line in table.splitlines()[1:]] == [
        ["*0", "7", "0", "correct", "end", "9", "-0.500"],
        ["1", "7", "0", "correct", "end", "9", "-0.500"],
        ["2", "8", "1", "wrong", "end", "9", "-0.500"],
    ]
    assert "Grade         undecided: too hard" in bench("show", "last", "p3").out
    assert "Selected      none" in bench("show", "last", "p2").out
    facts = bench("show", "last", "p0", "--json").json
    assert (facts["grade"], facts["known"], facts["meta"]) == ("correct", "7", {"level": 1})
    assert [each["grade"] for each in facts["candidates"]] == ["correct", "correct", "wrong"]
    assert [node["selected"] for node in facts["tree"]] == [False, True, False, False]


def test_a_tree_is_shown_step_by_step(bench: Bench, folder: Path) -> None:
    with store_in(folder) as store:
        run = store.run(configuration("beam_search", 2))
        judge = RuleVerifier(lambda question, text: 0.25 + len(text) / 1000, "rule")
        runner = Runner(ToyPolicy(), {"rule": judge}, answers=BoxedAnswers(), on_event=run)
        result = runner.solve(
            Problem("p", "Add 1 and 2.", answer="3"), strategies.bind("beam_search", {"n": 2, "width": 2})
        )
        assert result.best is not None
    shown = bench("show", "last", "p").out
    steps = re.findall(r"^([* ]) ( *)(\d+) (0\.\d{3}) (stop|end): (.*)$", shown, re.MULTILINE)
    assert [mark for mark, *_ in steps].count("*") == len(result.best.steps) == 2
    assert {(len(indent), finish) for _, indent, _, _, finish, _ in steps} == {(0, "stop"), (2, "end")}
    assert all(
        f"{0.25 + len('1 + 2 = 3') / 1000 + 0.002:.3f}" == score for _, i, _, score, _, t in steps if t == "1 + 2 = 3"
    )


# diff


def others(**said: list[str]) -> dict[str, tuple[Problem, list[str]]]:
    return {id: (PROBLEMS[id][0], texts) for id, texts in said.items()}


def test_two_runs_compared_by_hand(bench: Bench, folder: Path, run: str) -> None:
    """Of p1, p2, p3 the other gets all right and the first none; p0 only the first has. McNemar: 2 / 2^3."""
    right = others(p1=["7"] * 2, p2=["7"] * 2, p3=["7"] * 2)
    with store_in(folder) as store:
        extra = {"p9": (Problem("p9", "Nine?", answer="1"), ["1", "1"])}
        id = record(store, right | extra, n=2)
        mark(store, id)
    facts = bench("diff", run, id, "--json").json
    assert (facts["problems"], facts["only_in_a"], facts["only_in_b"], facts["changed"]) == (3, 1, 1, 0)
    assert (facts["accuracy_a"]["value"], facts["accuracy_b"]["value"]) == (0, 1)
    assert facts["difference"] == {"low": 1, "value": 1, "high": 1} and facts["p"] == 0.25
    assert facts["right_in_a_only"] == []
    assert [row["problem_id"] for row in facts["right_in_b_only"]] == ["p1", "p2", "p3"]
    assert facts["right_in_b_only"][0] == {"problem_id": "p1", "a": "8", "b": "7", "known": "7"}
    text = bench("diff", run, id).out
    assert "B − A: +100.0 points (+100.0 to +100.0), McNemar p = 0.25\n" in text
    assert "Over 3 problems, without 1 problems that only A has, 1 that only B has." in text
    assert "right in B only: 3" in text and "in A only" not in text
    mirrored = bench("diff", id, run, "--json").json
    assert mirrored["difference"]["value"] == -1 and len(mirrored["right_in_a_only"]) == 3
    same = bench("diff", run, run).out
    assert "B − A: +0.0 points (+0.0 to +0.0), McNemar p = 1; the interval holds 0" in same


def test_problems_that_changed_are_not_compared(bench: Bench, folder: Path, run: str) -> None:
    changed = {"p0": (Problem("p0", "Zero?", answer="8"), ["7", "7"]), **others(p1=["7", "7"])}
    with store_in(folder) as store:
        id = record(store, changed, n=2)
        mark(store, id)
        apart = record(store, {"p0": changed["p0"]}, n=2, seed=1)
        mark(store, apart)
        ungraded = record(store, others(p1=["7", "7"]), n=2, settings={"other": 1})
    facts = bench("diff", run, id, "--json").json
    assert (facts["problems"], facts["changed"], facts["only_in_a"]) == (1, 1, 2)
    done = bench("diff", run, apart)
    assert (done.code, done.err) == (2, "Error: the runs have no problem in common\n")
    done = bench("diff", run, ungraded)
    assert done.code == 2 and f"run {ungraded} is not graded: flyweight bench grade {ungraded}" in done.err


# export

PIECES = ["\0", "\ud800", "\udfff", "\x1b[31m", "\u202e", "\U0001d518", "\r\n", "\u2028", "\x85", '"', "\\", "é", " "]
PIECES += ["e\u0301", "\ufeff", "\uffff", "\U0010ffff", "<b>", "{}", "null", "\t", "'", ",", "\x7f", "日本", "א", "a"]


def hostile(count: int) -> list[str]:
    """Texts that writers and readers trip over; none has two halves of a surrogate pair side by side."""
    chance = random.Random(3)
    found: list[str] = []
    while len(found) < count:
        text = "".join(chance.choices(PIECES, k=chance.randrange(9)))
        if not re.search("[\ud800-\udbff][\udc00-\udfff]", text):
            found.append(text)
    return found


class Whole:
    """Every text is its own answer."""

    def extract(self, text: str) -> str | None:
        return text

    def classes(self, answers: Sequence[str | None], problem: Problem | None = None) -> list[list[int]]:
        return [[index] for index in range(len(answers))]


def test_hostile_texts_survive_the_export(bench: Bench, folder: Path, tmp_path: Path) -> None:
    """P8: 200 texts from the store to JSON lines and back, 0 lost, in every field that holds one."""
    texts = hostile(200)
    asked = {}
    for number, text in enumerate(texts):
        id = f"p{number:03}{text}"
        asked[id] = Problem(id, f"Q{number}{text}", answer=text, meta={"level": text}), text
    with store_in(folder) as store:
        run = store.run(configuration("greedy"))
        for problem, text in asked.values():
            policy = ToyPolicy(lambda *_, text=text: Draft(text))
            runner = Runner(policy, {}, answers=Whole(), on_event=run, sampling=Sampling(max_tokens=99))
            runner.solve(problem, strategies.bind("greedy"))
        run.finish()
        grader = store.grader(lambda problem, text: Grade("undecided", text), graded.identity(configuration()))
        list(graded.read(store, run.id, grader))
    for name in ("x.jsonl", "x.jsonl.gz"):
        assert (
            bench("export", "last", "--jsonl", str(tmp_path / name)).err == f"Wrote 200 samples to {tmp_path / name}.\n"
        )
    content = (tmp_path / "x.jsonl").read_bytes()
    assert gzip.decompress((tmp_path / "x.jsonl.gz").read_bytes()) == content
    assert bench("export", "last", "--jsonl", "-").out.encode() == content
    assert content.isascii() and content.count(b"\n") == 200
    rows = {row["problem_id"]: row for row in map(json.loads, content.splitlines())}
    assert rows.keys() == asked.keys()
    for number, (problem, text) in enumerate(asked.values()):
        row = rows[problem.id]
        assert [row[name] for name in ("text", "answer", "reason", "known", "level")] == [text] * 5, repr(text)
        assert row["prompt"] == f"Q{number}{text}" and (row["tokens"], row["finish"]) == (len(text), "end")


def test_a_row_holds_everything_about_a_sample(bench: Bench, folder: Path) -> None:
    with store_in(folder) as store:
        id = record(store, name="best_of_n", score=lambda question, text: 0.75 if "8" in text else 0.25)
        mark(store, id)
    rows = [json.loads(line) for line in bench("export", id, "--jsonl", "-").out.splitlines()]
    assert [(row["problem_id"], row["sample"]) for row in rows] == [(f"p{p}", s) for p in range(4) for s in range(3)]
    assert rows[2] == {
        "run": id,
        "problem_id": "p0",
        "sample": 2,
        "text": "\\boxed{8}",
        "answer": "8",
        "answer_class": 1,
        "grade": "wrong",
        "reason": "not 7",
        "finish": "end",
        "tokens": 9,
        "mean_logprob": -0.5,
        "selected": True,
        "scores": {"rule": 0.75},
        "prompt": "Zero?",
        "known": "7",
        "level": 1,
    }
    assert [(row["finish"], row["answer"], row["reason"], row["selected"]) for row in rows[6:9]] == [
        ("length", None, "truncated", False)
    ] * 3


def test_an_export_is_whole_or_not_there(
    bench: Bench, folder: Path, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("old")
    done = bench("export", run, "--jsonl", str(tmp_path / "no" / "x.jsonl"))
    assert done.code == 3 and re.fullmatch(r"Error: cannot write .*x\.jsonl: No such file or directory\n", done.err)
    with closing(sqlite3.connect(folder / "flyweight.db")) as connection:
        connection.execute("UPDATE searches SET stopped = 'budget' WHERE id = 3")
        connection.commit()
    done = bench("export", run, "--jsonl", str(path))
    assert done.code == 3 and "1 searches of run" in done.err and done.err.count("\n") == 1
    assert path.read_text() == "old" and sorted(file.name for file in tmp_path.iterdir()) == ["runs", "x.jsonl"]


def test_what_must_not_be_written_over(bench: Bench, folder: Path, run: str, tmp_path: Path) -> None:
    """The store itself, by any name; what is no file. A link stays one."""
    before = bench("show", run)
    (tmp_path / "link").symlink_to(folder / "flyweight.db")
    for name in (folder / "flyweight.db", tmp_path / "link", folder / "flyweight.db-wal", folder / "flyweight.db.lock"):
        for command in (["export", run, "--jsonl"], ["pack"]):
            done = bench(*command, str(name))
            assert (done.code, done.err) == (2, f"Error: {name} is the store itself: name another file\n")
    for place, why in ((tmp_path, "Is a directory"), (Path(), "Is a directory"), ("/dev/null", "not a regular file")):
        done = bench("export", run, "--jsonl", str(place))
        assert (done.code, done.err) == (3, f"Error: cannot write {place}: {why}\n")
    (tmp_path / "samples").symlink_to(tmp_path / "there")
    assert bench("export", run, "--jsonl", str(tmp_path / "samples")).code == 0
    assert (tmp_path / "samples").is_symlink() and (tmp_path / "there").read_text().count("\n") == 12
    assert bench("show", run) == before


# pack, unpack


def test_a_store_packed_and_unpacked_says_the_same(bench: Bench, folder: Path, run: str, tmp_path: Path) -> None:
    path, there = tmp_path / "runs.jsonl.gz", tmp_path / "a" / "b"
    done = bench("pack", str(path))
    assert (done.code, done.out) == (0, "") and done.err.startswith("Wrote 1 runs, 4 searches, ")
    done = bench("unpack", str(path), runs=there)
    assert done.code == 0 and done.err.startswith("Took 1 runs, 4 searches, ")
    assert bench("unpack", str(path), runs=there).err.startswith("Took 0 runs, 0 searches, 0 units ")
    for command in (["ls"], ["show", "last", "--problems"], ["show", run, "p0"], ["export", run, "--jsonl", "-"]):
        assert bench(*command, runs=there) == bench(*command)
    assert bench("pack", str(tmp_path / "again.gz"), runs=there).code == 0
    assert (tmp_path / "again.gz").read_bytes() == path.read_bytes()


def test_what_cannot_be_packed_or_unpacked(bench: Bench, folder: Path, run: str, tmp_path: Path) -> None:
    done = bench("pack", str(tmp_path / "x"), "--precision", "float61")
    assert done.code == 2 and "did you mean 'float16'" in done.err
    (tmp_path / "x").write_text("not one")
    done = bench("unpack", str(tmp_path / "x"), runs=tmp_path / "new")
    assert done.code == 2 and re.fullmatch("Error: cannot read .*: Not a gzipped file .*\n", done.err)
    assert list((tmp_path / "new").iterdir()) == []
    before = bench("ls")
    assert bench("unpack", str(tmp_path / "x")).code == 2 and bench("ls") == before
    assert bench("unpack", str(tmp_path / "x"), runs=tmp_path / "x").code == 3
    with store_in(folder):
        done = bench("unpack", str(tmp_path / "x"))
        assert done.code == 2 and "already open for writing" in done.err


def test_a_failed_unpack_takes_nothing_of_others_away(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process begins a store between the look whether there is one and the opening."""
    (tmp_path / "x").write_text("not one")
    path = tmp_path / "new" / "flyweight.db"

    def late(folder: Path) -> Path:
        class Late(type(path)):  # type: ignore[misc]
            def exists(self, **how: bool) -> bool:
                there = super().exists(**how)
                if not there and self.name == path.name:
                    with store_in(folder) as store:
                        record(store)
                return bool(there)

        folder.mkdir()
        return Late(path)

    monkeypatch.setattr(runs, "made", late)
    assert bench("unpack", str(tmp_path / "x"), runs=path.parent).code == 2
    with Store(path, readonly=True) as store:
        assert len(list(store.results(store.runs()[0].id))) == 4


# What is not there, and what is not right


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["show", "90f"], "run '90f': write 4 characters or more"),
        (["show", "zzzz"], "run 'zzzz': there is none (latest: "),
        (["show", "last", "p9"], "holds no search of problem 'p9'; did you mean 'p"),
        (["diff", "last", "nope"], "run 'nope': there is none"),
        (["export", "\x1b[2J!", "--jsonl", "-"], "run '\\x1b[2J!': there is none"),
    ],
)
def test_unknown_runs_and_problems(bench: Bench, run: str, command: list[str], said: str) -> None:
    done = bench(*command)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert said in done.err and "\x1b" not in done.err


def test_no_store_and_no_runs(bench: Bench, folder: Path, tmp_path: Path) -> None:
    for command in (
        ["ls"],
        ["show", "last"],
        ["diff", "last", "last"],
        ["export", "last", "--jsonl", "-"],
        ["pack", "x"],
    ):
        done = bench(*command, runs=tmp_path / "nowhere")
        assert (
            done.code == 2 and "nowhere/flyweight.db does not exist: record runs with flyweight bench run" in done.err
        )
    store_in(folder).close()
    assert bench("ls").out == f"{folder} holds no runs.\n" and bench("ls", "--json").json == []
    assert (
        bench("show", "last").err
        == f"Error: {folder / 'flyweight.db'} holds no runs: record some with flyweight bench run\n"
    )
    assert not (tmp_path / "nowhere").exists()


def test_a_beginning_must_be_unique(bench: Bench, folder: Path) -> None:
    with store_in(folder) as store:
        ids = [store.run({"n": number}).id for number in range(3)]
    with closing(sqlite3.connect(folder / "flyweight.db")) as connection:
        for id, other in zip(ids[:2], ("abcd0", "abcd1"), strict=True):
            columns = "configuration, models, versions, started, finished, problems"
            row = connection.execute(f"SELECT {columns} FROM runs WHERE run = ?", (id,)).fetchone()
            new = (other, checksum(other, *row), id)
            connection.execute("UPDATE runs SET run = ?, mark = ? WHERE run = ?", new)
        connection.commit()
    assert "run 'abcd': 2 begin so" in bench("show", "abcd").err
    assert "abcd0, unfinished" in bench("show", "abcd0").out
    assert f"{ids[2]}, unfinished" in bench("show", "last").out


def test_a_damaged_store_ends_in_one_line(bench: Bench, folder: Path, run: str) -> None:
    path = folder / "flyweight.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + bytes(len(whole) - 4096))
    for command in (["ls"], ["show", "last"], ["pack", str(folder / "x")]):
        done = bench(*command)
        assert done.code == 3 and done.err.count("\n") == 1 and str(path) in done.err
    path.write_bytes(b"no database")
    assert bench("ls").code == 3 and bench("ls").err.count("\n") == 1
    path.write_bytes(b"")
    assert bench("ls").err == f"Error: {path} is empty: nothing has been recorded in it\n"


def test_nothing_reaches_the_terminal_unfiltered(bench: Bench, folder: Path) -> None:
    bad = "\x1b[31m\x07\u202e\ud800\r"
    problem = Problem(f"p{bad}", f"Ask {bad}", answer=bad, meta={"level": bad, "subject": bad})
    with store_in(folder) as store:
        run = store.run(
            configuration("greedy", task=bad, model=bad, verifier=bad) | {"strategy": bad, bad: bad}, models={"m": bad}
        )
        policy = ToyPolicy(lambda *_: Draft(bad))
        runner = Runner(policy, {}, answers=Whole(), on_event=run)
        runner.solve(problem, strategies.bind("self_consistency", {"n": 2}))
        info = store.runs()[0]
        grader = store.grader(lambda problem, text: Grade("wrong", bad), graded.identity(info.configuration))
        list(graded.read(store, run.id, grader))
    for command in (["ls"], ["show", "last", "--problems"], ["show", "last", problem.id], ["diff", "last", "last"]):
        done = bench(*command)
        assert done.code == 0, done.err
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", done.out), command
        assert "\\x1b" in done.out
        if command[0] != "diff":
            assert json.loads(bench(*command, "--json").out) is not None


def test_reading_changes_nothing_and_waits_for_nobody(bench: Bench, folder: Path, run: str) -> None:
    before = (folder / "flyweight.db").read_bytes()
    with store_in(folder):
        for command in (["ls"], ["show", "last", "p0"], ["diff", "last", "last"], ["export", "last", "--jsonl", "-"]):
            assert bench(*command).code == 0
    for command in (["ls"], ["show", "last"], ["pack", str(folder / "x")]):
        assert bench(*command).code == 0
    with Store(folder / "flyweight.db", readonly=True) as store:
        assert [info.id for info in store.runs()] == [run]
    (folder / "x").unlink()
    assert sorted(file.name for file in folder.iterdir()) == ["flyweight.db", "flyweight.db.lock"]
    assert (folder / "flyweight.db").read_bytes()[100:] == before[100:]
