"""A store as one file and back: nothing lost, nothing asked again, nothing half taken in."""

from __future__ import annotations

import gzip
import json
import lzma
import math
import random
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flyweight import strategies, verifiers
from flyweight.errors import ConfigError, StoreError
from flyweight.runner import Runner
from flyweight.store import Store, portable, values
from flyweight.store.units import Content, halves, pack, unpack
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy, arithmetic
from flyweight.types import Grade, Problem, Result, Sampling, Stopped
from tests.store_child import Scripted, problems, report, rule, solve

SUMS = [Problem(f"p{i}", f"Add {i} and {i + 2} and {3 * i}.", answer=str(5 * i + 2)) for i in range(4)]
TABLES = ("models", "runs", "units", "searches", "contents")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "a.db") as store:
        yield store


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "b.db") as store:
        yield store


def run(store: Store, name: str, n: int, verifier: str = "p_true") -> tuple[list[Result], int]:
    """A run on the toy; its results, and the calls that the engine and the verifier had."""
    policy = store.policy(ToyPolicy(arithmetic, read=lambda text, choice: -len(text) / 1000 - len(choice) / 7))
    judge = RuleVerifier(rule) if verifier == "rule" else verifiers.load(verifier)
    stored = store.verifier(judge, identity=verifier)
    record = store.run(
        {"task": "sums", "strategy": name, "n": n, "verifier": verifier}, models={"toy": "sha256:0 file"}
    )
    runner = Runner(policy, {verifier: stored}, answers=BoxedAnswers(), on_event=record)
    bound = strategies.bind(name, {"n": n} if name != "greedy" else {})
    results = list(runner.run(SUMS, bound))
    record.finish()
    return results, policy.fresh.calls + policy.fresh.readings + (stored.fresh.calls if verifier == "rule" else 0)


def by_id(results: list[Result]) -> list[Result]:
    return sorted(results, key=lambda result: result.problem.id)


def rows(store: Store) -> dict[str, int]:
    with closing(sqlite3.connect(store.path)) as connection:
        return {t: connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in TABLES}


def lines(path: Path) -> list[Any]:
    with gzip.open(path) as file:
        return [json.loads(line) for line in file]


def write(path: Path, said: list[Any]) -> Path:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in said).encode()))
    return path


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A small store with every kind of row, packed."""
    path = tmp_path / "packed.jsonl.gz"
    with Store(tmp_path / "packed.db") as store:
        run(store, "best_of_n", 2)
        run(store, "best_of_n", 2, "rule")
        store.grader(lambda problem, text: Grade("wrong", "no"), "t").grades(
            SUMS[0], store.tree(store.runs()[0].id, "p0")
        )
        store.dump(path)
    return path


# There and back


def test_float32_loses_nothing(store: Store, other: Store, tmp_path: Path) -> None:
    solve(store, Scripted(), problems(4), 4)
    run(store, "beam_search", 4)
    counts = store.dump(tmp_path / "x.gz", "float32")
    assert other.load(tmp_path / "x.gz") == counts == rows(store) == rows(other)
    assert report(other) == report(store)
    assert [(r.id, r.models, r.versions, r.started, r.finished, r.problems) for r in other.runs()] == [
        (r.id, r.models, r.versions, r.started, r.finished, r.problems) for r in store.runs()
    ]
    assert other.load(tmp_path / "x.gz") == {}, "everything is there already"


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_what_was_loaded_is_never_asked_again(store: Store, other: Store, tmp_path: Path, precision: Any) -> None:
    """Also by other selectors, by smaller n, and where a verifier reads or a beam goes on from rounded paths."""
    asked = [("best_of_n", 8), ("beam_search", 4), ("dvts", 4), ("greedy", 1)]
    recorded = [run(store, name, n)[0] for name, n in asked]
    assert run(store, "best_of_n", 8, "rule")[1] == 8 * len(SUMS)
    store.dump(tmp_path / "x.gz", precision)
    other.load(tmp_path / "x.gz")
    for (name, n), results in zip(asked, recorded, strict=True):
        again, calls = run(other, name, n)
        assert calls == 0
        for one, two in zip(by_id(results), by_id(again), strict=True):
            assert (one.text, one.answer, one.usage.generated_tokens) == (
                two.text,
                two.answer,
                two.usage.generated_tokens,
            )
    for name, n, verifier in (
        ("self_consistency", 8, "rule"),
        ("self_consistency", 3, "rule"),
        ("best_of_n", 5, "rule"),
        ("weighted_best_of_n", 8, "p_true"),
    ):
        assert run(other, name, n, verifier)[1] == 0
    assert run(other, "self_consistency", 9)[1] == len(SUMS), "and what is missing is drawn"


def test_float16_keeps_three_digits(store: Store, other: Store, tmp_path: Path) -> None:
    run(store, "best_of_n", 8)
    store.dump(tmp_path / "x.gz")
    other.load(tmp_path / "x.gz")
    (id,) = [run.id for run in store.runs()]
    for was, now in zip(store.samples(id), other.samples(id), strict=True):
        assert was.scores == now.scores and was.node.text == now.node.text and was.node.tokens == now.node.tokens
        assert was.node.mean_logprob != 0
        assert now.node.mean_logprob == pytest.approx(was.node.mean_logprob, rel=5e-4)
        assert now.node.certainty == pytest.approx(was.node.certainty, rel=5e-4)


def test_without_log_probabilities_a_store_is_to_read(store: Store, other: Store, tmp_path: Path) -> None:
    """Searches, texts, scores, grades and means come along; no draw is taken for one that has lost its numbers."""
    run(store, "best_of_n", 4, "rule")
    (id,) = [run.id for run in store.runs()]
    grader = store.grader(lambda problem, text: Grade("wrong", "no"), "t")
    grader.grades(SUMS[0], [sample.node for sample in store.samples(id)])
    store.dump(tmp_path / "x.gz", "none")
    other.load(tmp_path / "x.gz")
    for was, now in zip(store.samples(id), other.samples(id), strict=True):
        assert (was.node.text, was.node.tokens, was.scores) == (now.node.text, now.node.tokens, now.scores)
        assert was.node.certainty and not now.node.certainty
        assert now.node.mean_logprob == pytest.approx(was.node.mean_logprob, rel=1e-6), "ties are broken as before"
    results = [[(search.result.answer, search.result.usage) for search in each.searches(id)] for each in (store, other)]
    assert results[0] == results[1]
    other.dump(tmp_path / "again.gz", "none")
    assert (tmp_path / "again.gz").read_bytes() == (tmp_path / "x.gz").read_bytes()
    known = other.grader(lambda problem, text: Grade("undecided"), "t")
    assert {grade.value for grade in known.grades(SUMS[0], [sample.node for sample in other.samples(id)])} == {"wrong"}
    assert run(other, "self_consistency", 4)[1] == 4 * len(SUMS), "drawn anew"


def test_without_log_probabilities_their_mean_stays() -> None:
    written = Content.of("ab", (1, 2, 3), (-1.0, -3.0, -5.0), (4.0, 5.0, 6.0))
    assert portable._level(written) == Content.of("", (), (-3.0, -3.0, -3.0), ()).logprobs
    assert portable._level(Content.of("ab", (1, 2), (-1.0,), ())) == b"", "a token has none: no mean to tell"


def test_equal_stores_give_equal_bytes(tmp_path: Path) -> None:
    """Whatever the order in which rows came, and also once rounded."""
    files = []
    for number in range(2):
        with Store(tmp_path / f"{number}.db") as store:
            solve(store, Scripted(), problems(6)[3 * number : 3 * number + 3], 4, seed=number)
            files.append(tmp_path / f"{number}.gz")
            store.dump(files[-1])
    dumped = set()
    for number, order in enumerate((files, files[::-1], [*files, *files])):
        with Store(tmp_path / f"both{number}.db") as store:
            for file in order:
                store.load(file)
            store.dump(tmp_path / f"both{number}.gz")
            store.dump(tmp_path / f"other name{number}")
        dumped |= {(tmp_path / f"both{number}.gz").read_bytes(), (tmp_path / f"other name{number}").read_bytes()}
    assert len(dumped) == 1
    assert b"both" not in dumped.pop()[:40], "neither the file's name nor the time is in it"


def test_the_file_can_be_read_by_eye(packed: Path) -> None:
    said = lines(packed)
    assert said[0] == {"flyweight": "store", "format": 1, "precision": "float16"}
    assert said[-1] == {"end": len(said) - 2}
    assert [next(iter(row)) for row in said[1:-1]] == sorted(
        (next(iter(row)) for row in said[1:-1]), key=["model", "run", "unit", "search", "content"].index
    )
    content = next(row for row in said if "text" in row and "boxed" in row["text"])
    assert content["text"] == "".join(map(chr, content["tokens"]))  # the toy's tokens are characters
    precision, _, coded = content["logprobs"].partition(" ")
    assert precision == "float16" and len(coded) == 4 * math.ceil(2 * len(content["tokens"]) / 3)
    kinds = {row["kind"] for row in said if "unit" in row}
    assert kinds == {"generation", "reading", "judgement", "score", "grade"}


HOSTILE = ["\0", "\ud800", "\udfff\ud800", "\ud83d\ude00", "\U0001f600", "a\ud83d\ude00\udc00", "\r\n\u2028", "é", ""]


def test_hostile_texts_and_numbers(store: Store, other: Store, tmp_path: Path) -> None:
    """Also two halves of a surrogate pair side by side, which JSON cannot tell from the character they make."""
    drafts = iter(HOSTILE)

    def text(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(next(drafts), -1e9)  # too large for float16

    record = store.run({"text": "\ud83d\ude00 \ud800"})
    policy = store.policy(ToyPolicy(text, slots=1))
    runner = Runner(policy, {}, answers=BoxedAnswers(), on_event=record)
    problem = Problem("p\0\ud83d\ude00", "ask \ud800", meta={"why": "\udc00"})
    runner.solve(problem, strategies.bind("self_consistency", {"n": len(HOSTILE)}))
    numbers = (float("inf"), float("nan"), -0.0, 1e-30, 65519.0)
    content = Content.of("odd", (1, -2), numbers, numbers)
    store._units.put([], [content])
    store.dump(tmp_path / "x.gz")
    other.load(tmp_path / "x.gz")
    for there in (store, other):
        (result,) = there.results(record.id)
        assert [candidate.node.text for candidate in result.candidates] == HOSTILE
        assert {value for c in result.candidates for value in c.node.logprobs} <= {-1e9}
    other.dump(tmp_path / "y.gz")
    assert (tmp_path / "x.gz").read_bytes() == (tmp_path / "y.gz").read_bytes()
    assert rows(other)["contents"] == rows(store)["contents"] - 1, "what nothing refers to stays behind"


def test_numbers_in_planes() -> None:
    """-0.5 is 0xb800 as float16 and 0xbf000000 as float32; 1.0 is 0x3c00 and 0x3f800000: high bytes first."""
    data = pack("f", (-0.5, 1.0))
    assert values.floats_value(data, "float16") == "float16 uDwAAA=="
    assert values.floats_value(data, "float32") == "float32 vz8AgAAAAAA="
    for precision in ("float16", "float32"):
        assert values.floats_bytes(values.floats_value(data, precision)) == data
    large = pack("f", (70000.0, -0.1))
    assert values.floats_bytes(values.floats_value(large, "float16")) == large


def test_paths_are_told_apart_as_coarsely_as_float16() -> None:
    odd = (0.1, -1e-12, -1e6, 65519.99, 65520.0, float("-inf"), float("nan"))
    once = halves(odd)
    rounded = unpack("f", pack("f", odd))
    assert halves(rounded) == once and len(once) == 2 * len(odd)
    assert halves((-1e6, 65520.0)) == halves((float("-inf"), float("inf")))
    assert halves((0.1,)) != halves((0.1001,))


# Merging


def test_what_is_there_stays(store: Store, other: Store, tmp_path: Path) -> None:
    """The exact numbers of the store are not replaced by the rounded ones of the file."""
    run(store, "best_of_n", 4)
    before = report(store)
    store.dump(tmp_path / "x.gz")
    assert store.load(tmp_path / "x.gz") == {}
    assert report(store) == before
    run(other, "best_of_n", 2)
    other.load(tmp_path / "x.gz")
    assert len(other.runs()) == 2
    assert run(other, "best_of_n", 4)[1] == 0


def test_interrupted_searches_are_replaced_and_only_they(store: Store, other: Store, tmp_path: Path) -> None:
    def record(store: Store, fault: bool, asked: list[Problem]) -> None:
        event = store.run({"run": 1})
        policy = ToyPolicy(fault=lambda request: "no" if fault else None)
        runner = Runner(policy, {}, answers=BoxedAnswers(), on_event=event)
        list(runner.run(asked, strategies.bind("greedy")))

    record(store, True, SUMS[:2])
    record(other, False, SUMS[:1])
    store.dump(tmp_path / "failed.gz")
    other.dump(tmp_path / "done.gz")
    assert store.load(tmp_path / "done.gz")["searches"] == 1
    assert store.run({"run": 1}).stopped == {"p0": Stopped.DONE, "p1": Stopped.ERROR}
    assert other.load(tmp_path / "failed.gz")["searches"] == 1
    assert other.run({"run": 1}).stopped == {"p0": Stopped.DONE, "p1": Stopped.ERROR}


def test_steps_go_on_after_those_loaded(store: Store, other: Store, tmp_path: Path) -> None:
    solve(store, Scripted(1), problems(3), 4)
    store.dump(tmp_path / "x.gz")
    other.load(tmp_path / "x.gz")
    assert other._units.moment >= store._units.moment - 1 > 10


def test_other_models_and_parameters_are_refused(store: Store, other: Store, tmp_path: Path) -> None:
    store.run({"n": 1}, models={"toy": "one"})
    other.run({"n": 1}, models={"toy": "two"})
    store.dump(tmp_path / "x.gz")
    with pytest.raises(ConfigError, match="was made with the models"):
        other.load(tmp_path / "x.gz")
    store.policy(ToyPolicy(params=7))
    store.dump(tmp_path / "y.gz")
    with Store(tmp_path / "c.db") as third:
        third.policy(ToyPolicy(params=8))
        with pytest.raises(ConfigError, match="7 parameters for the model 'toy', the store 8"):
            third.load(tmp_path / "y.gz")
        assert third.runs() == []


# What is not right is refused whole


def refused(store: Store, path: Path, match: str | None = None) -> str:
    """The one line with which a file is refused; the store stays empty and works on."""
    with pytest.raises(ConfigError, match=match) as error:
        store.load(path)
    assert str(path) in str(error.value) or "run " in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    assert rows(store) == dict.fromkeys(TABLES, 0) and store.error is None
    return str(error.value)


def test_files_that_are_something_else(other: Store, tmp_path: Path, packed: Path) -> None:
    path = tmp_path / "x"
    refused(other, path, "No such file")
    refused(other, tmp_path, "Is a directory")
    for content, match in (
        (b"", "cut short"),
        (b"text", "Not a gzipped file"),
        (gzip.compress(b"text\n"), "line 1: not a line of a packed store"),
        (gzip.compress(b'{"text": 1}\n'), "line 1: not a line"),
        (gzip.compress(b"[]\n"), "line 1: not a line"),
        (gzip.compress(b'{"flyweight": "store", "format": 2}\n'), "has format 2, this Flyweight knows 1"),
        (gzip.compress(b"[" * 100_000), "RecursionError"),
        (packed.read_bytes() + b"more", "Not a gzipped file|trailing|cannot read"),
    ):
        path.write_bytes(content)
        refused(other, path, match)


def test_files_cut_anywhere(other: Store, tmp_path: Path, packed: Path) -> None:
    whole = packed.read_bytes()
    path = tmp_path / "cut.gz"
    for end in sorted({*range(0, len(whole), len(whole) // 40), len(whole) - 1, len(whole) - 9}):
        path.write_bytes(whole[:end])
        refused(other, path)
    said = lines(packed)
    for end in range(1, len(said), 5):
        refused(other, write(path, said[:end]), "cut short")
        refused(other, write(path, [*said[:end], *said[end + 1 :]]))


def test_xz_holds_the_same_rows(store: Store, other: Store, tmp_path: Path) -> None:
    run(store, "best_of_n", 8)
    store.dump(tmp_path / "x.gz")
    assert other.load(tmp_path / "x.gz") == store.dump(tmp_path / "x.xz")
    assert lzma.decompress((tmp_path / "x.xz").read_bytes()) == gzip.decompress((tmp_path / "x.gz").read_bytes())
    (tmp_path / "renamed").write_bytes((tmp_path / "x.xz").read_bytes())
    assert other.load(tmp_path / "renamed") == {}


def test_an_xz_file_cut_anywhere(store: Store, other: Store, tmp_path: Path) -> None:
    run(store, "best_of_n", 8)
    store.dump(tmp_path / "x.xz")
    whole = (tmp_path / "x.xz").read_bytes()
    for end in (3, 5, 20, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.xz").write_bytes(whole[:end])
        refused(other, tmp_path / "cut.xz")


def test_bytes_flipped_anywhere(other: Store, tmp_path: Path, packed: Path) -> None:
    whole = bytearray(packed.read_bytes())
    path = tmp_path / "flipped.gz"
    chance = random.Random(1)
    for _ in range(60):
        place = chance.randrange(10, len(whole))
        flipped = whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :]
        path.write_bytes(flipped)
        refused(other, path)


WRONG: list[Any] = [None, True, -1, 1.5, 10**400, "", "x", "\ud800", [], ["x"], {}, {"x": 1}, float("nan")]


def variants(row: Any, chance: random.Random) -> Iterator[Any]:
    """The row without each of its fields, and with each of them wrong."""
    for key in row:
        yield {name: value for name, value in row.items() if name != key}
        for wrong in chance.sample(WRONG, 5):
            if wrong != row[key]:
                yield {**row, key: wrong}


def test_fields_that_are_wrong(other: Store, tmp_path: Path, packed: Path) -> None:
    """Refused, or a change that means something else and can be read: never a traceback, never half."""
    said = lines(packed)
    path = tmp_path / "wrong.gz"
    chance = random.Random(2)
    kinds: dict[str, int] = {}
    for number, row in enumerate(said):
        kind = next(iter(row)) + row.get("kind", "")
        kinds[kind] = kinds.get(kind, 0) + 1
        if kinds[kind] > 1:
            continue
        for wrong in variants(row, chance):
            write(path, [*said[:number], wrong, *said[number + 1 :]])
            try:
                other.load(path)
            except ConfigError as error:
                assert "\n" not in str(error) and other.error is None
                assert rows(other) == dict.fromkeys(TABLES, 0)
                continue
            for info in other.runs():
                for search in other.searches(info.id):
                    assert list(search.samples) and search.tree and search.events
            assert other.damaged == 0
            with closing(sqlite3.connect(other.path)) as connection:
                for table in TABLES:
                    connection.execute(f"DELETE FROM {table}")
                connection.commit()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda record: record["nodes"].clear(), "cannot be read"),
        (lambda record: record["result"].pop("usage"), "cannot be read"),
        (lambda record: record["result"]["problem"].update(id="p9"), "of another problem"),
        (lambda record: record["log"].append(["score", 0, "nobody", [1, [], ""], None]), "cannot be read"),
        (lambda record: record["log"].append(1), "cannot be read"),
        (lambda record: next(iter(record["nodes"].values())).update(content="00" * 16), "refers to texts"),
        (lambda record: next(iter(record["nodes"].values())).update(content="zz"), "not a line"),
    ],
)
def test_searches_that_cannot_be_read(
    other: Store, tmp_path: Path, packed: Path, change: Callable[[Any], object], match: str
) -> None:
    said = lines(packed)
    change(next(row for row in said if "search" in row)["record"])
    refused(other, write(tmp_path / "x.gz", said), match)


def test_a_text_that_is_not_what_its_sum_says(other: Store, tmp_path: Path, packed: Path) -> None:
    said = lines(packed)
    next(row for row in said if "content" in row and "text" in row)["text"] += "!"
    refused(other, write(tmp_path / "x.gz", said), "not what its sum says")


# Writing


def test_a_damaged_store_is_not_packed(store: Store, tmp_path: Path) -> None:
    run(store, "best_of_n", 2)
    (tmp_path / "x.gz").write_bytes(b"old")
    for change in (
        "UPDATE contents SET text = 'x' WHERE id = 3",
        "UPDATE units SET moment = 77 WHERE id = 2",
        "UPDATE searches SET stopped = 'budget' WHERE id = 1",
        "UPDATE runs SET started = 1",
        "UPDATE models SET params = 3",
    ):
        with closing(sqlite3.connect(tmp_path / "damaged.db")) as connection:
            store._database.connection.backup(connection)
            connection.execute("UPDATE contents SET text = CAST(text AS BLOB)")
            connection.execute(change.replace("'x'", "CAST('x' AS BLOB)"))
            connection.commit()
        with Store(tmp_path / "damaged.db", readonly=True) as damaged, pytest.raises(StoreError, match="salvage"):
            damaged.dump(tmp_path / "x.gz")
    assert (tmp_path / "x.gz").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir() if "part" in path.name) == []


def test_a_file_that_cannot_be_written(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreError, match=r"cannot write .*: No such file or directory"):
        store.dump(tmp_path / "no" / "x.gz")
    with pytest.raises(StoreError, match=r"cannot write .*: Is a directory"):
        store.dump(tmp_path)
    with pytest.raises(ConfigError, match="is the store itself"):
        store.dump(store.path)
    with pytest.raises(ConfigError, match="unknown precision 'float8'"):
        store.dump(tmp_path / "x.gz", "float8")  # type: ignore[arg-type]

    def full(self: object, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    (tmp_path / "x.gz").write_bytes(b"old")
    monkeypatch.setattr(gzip.GzipFile, "write", full)
    with pytest.raises(StoreError, match=r"cannot write .*x.gz: No space left"):
        store.dump(tmp_path / "x.gz")
    assert (tmp_path / "x.gz").read_bytes() == b"old" and not list(tmp_path.glob(".*part"))


def test_a_reader_packs_what_one_moment_holds(store: Store, other: Store, tmp_path: Path) -> None:
    """While another connection goes on writing."""
    solve(store, Scripted(), problems(2), 4)
    with Store(store.path, readonly=True) as reader:
        work = portable._Dump(reader._database, "float16")
        with portable._snapshot(reader._database):
            found = work.rows()
            first = [next(found)]
            solve(store, Scripted(), problems(4), 6)
            first += found
        assert sum(table == "searches" for table, _ in first) == 2
        assert sum(table == "units" for table, _ in first) == 2 * 4 * 2
        reader.dump(tmp_path / "x.gz", "float32")
    other.load(tmp_path / "x.gz")
    assert report(other) == report(store)


def test_little_is_written_but_texts_and_their_numbers(store: Store, tmp_path: Path) -> None:
    """Of 4 x 8 samples, each with a score and its place in a search: under 256 bytes a sample."""
    solve(store, Scripted(length=400), problems(4), 8)
    store.dump(tmp_path / "x.gz")
    bulk = "".join(json.dumps(row) for row in lines(tmp_path / "x.gz") if "text" in row)
    assert (tmp_path / "x.gz").stat().st_size < len(zlib.compress(bulk.encode(), 9)) + 256 * 4 * 8
