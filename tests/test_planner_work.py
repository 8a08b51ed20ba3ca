"""What a search makes an engine do: schedules against a naive simulation, recorded runs, the shipped figures."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import bench
from flyweight.errors import ConfigError
from flyweight.optimal import calibration, evidence, told
from flyweight.optimal.work import Work, mean, of_search, rounds, schedule, verifier_of
from flyweight.stats import wilson
from flyweight.store import Store
from flyweight.types import Finish, Node, Usage
from tests.bench.kit import questions


def simulated(lengths: list[int], slots: int) -> dict[int, int]:
    """Step by step: every row draws a token, an ended one makes room for the next."""
    waiting = list(lengths)
    rows: list[int] = []
    found: dict[int, int] = {}
    while waiting or rows:
        while waiting and len(rows) < slots:
            rows.append(waiting.pop(0))
        rows = [left for left in rows if left > 0]
        if rows:
            found[len(rows)] = found.get(len(rows), 0) + 1
            rows = [left - 1 for left in rows if left > 1]
    return found


def test_three_draws_by_hand() -> None:
    assert schedule([3, 5, 2]) == {3: 2, 2: 1, 1: 2}
    assert schedule([3, 5, 2], slots=2) == {2: 5}  # the third begins when the first has ended


@pytest.mark.parametrize("slots", [1, 2, 5, 32])
def test_schedules_are_those_of_a_naive_simulation(slots: int) -> None:
    rng = random.Random(slots)
    for _ in range(30):
        lengths = [rng.randint(1, 12) for _ in range(rng.randint(1, 14))]
        found = schedule(lengths, slots)
        assert found == simulated(lengths, slots)
        assert sum(rows * steps for rows, steps in found.items()) == sum(lengths)


def tree() -> list[Node]:
    """Two first steps, one of them continued twice; one child ends its answer."""
    root = Node()
    first = Node(root, "a", (1, 2, 3), finish=Finish.STOP)
    second = Node(root, "b", (1,), finish=Finish.STOP, draw=1)
    forced = Node(first, "!", None, finish=Finish.FORCED)
    last = Node(forced, "c", (1, 2), finish=Finish.STOP)
    end = Node(forced, "d", (1, 2, 3, 4), finish=Finish.END, draw=1)
    return [root, first, second, forced, last, end]


def test_each_depth_waits_for_the_one_before() -> None:
    assert rounds(tree()) == [[3, 1], [2, 5]]  # the token that ends an answer is drawn, too
    usage = Usage(prompt_tokens=10, cached_tokens=30, generated_tokens=11, policy_calls=4, verifier_calls=4)
    work = of_search(tree(), usage)
    assert work.steps == {2: 1 + 2, 1: 2 + 3}
    assert work.behind == pytest.approx(10 + (9 + 1 + 4 + 25) / 2 / 11)
    reading = Usage(10, 30 + 2 * 3, 11, verifier_tokens=8, policy_calls=4, verifier_calls=2)
    assert of_search(tree(), reading).behind < work.behind  # paths a verifier found again are in front of no row


def test_means_and_what_is_written() -> None:
    a = Work(10.0, 100.0, 0.0, 1.0, 50.0, {1: 100.0})
    b = Work(20.0, 300.0, 6.0, 3.0, 90.0, {2: 100.0, 1: 100.0})
    both = mean([a, b])
    assert (both.prompt, both.generated, both.verified, both.behind) == (15.0, 200.0, 3.0, 80.0)
    assert both.steps == {1: 100.0, 2: 50.0}
    assert Work.from_dict(both.as_dict()) == both


def test_the_size_of_a_verifier_follows_from_what_it_cost() -> None:
    """2 x (policy x tokens of prompts and draws + verifier x its tokens)."""

    def run(policy: float, verifier: float) -> list[Usage]:
        tokens = [(10, 400, 410), (20, 300, 640), (15, 90, 100)]
        return [Usage(p, 0, g, v, flops=2 * (policy * (p + g) + verifier * v)) for p, g, v in tokens]

    assert verifier_of(run(1.5e9, 7e9)) == pytest.approx(7e9)
    assert verifier_of(run(1.5e9, 1e8)) == pytest.approx(1e8)
    assert verifier_of(run(1.5e9, 1.5e9)) == 0.0  # it reads with the policy
    assert verifier_of(run(1.5e9, 7e9)[:1]) == 0.0  # one search cannot tell
    assert verifier_of([Usage(10, 0, 40, flops=2e9 * 50), Usage(9, 0, 50, flops=2e9 * 59)]) == 0.0
    own = Work(10.0, 100.0, 8.0, 1.0, 50.0, {1: 100.0}, verifier=7e9)
    assert mean([own, own]) == own == Work.from_dict(own.as_dict())


# Recorded runs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Twelve questions, four samples each, and greedy."""
    (tmp_path / "runs").mkdir()
    base = bench.Plan("jsonl", data=questions(tmp_path, rows=12), model="toy")
    plans = bench.grid(base, ["greedy", "self_consistency", "best_of_n"], ["length"], [4])
    store = Store(tmp_path / "runs" / "flyweight.db")
    for _ in bench.execute(store, plans):
        pass
    return store


def test_the_users_runs_are_evidence(store: Store) -> None:
    with store:
        found = {row.label: row for row in evidence.from_store(store, "mine")}
        assert set(found) == {
            "greedy",
            *(f"self_consistency n={n}" for n in (2, 4)),
            *(f"{name} n={n} (length)" for n in (2, 4) for name in ("best_of_n", "weighted_best_of_n")),
        }
        run = next(info for info in store.runs() if info.configuration["strategy"] == "self_consistency")
        searches = list(store.searches(run.id))
    vote = found["self_consistency n=4"]
    right = sum(search.result.answer == search.result.problem.answer for search in searches)
    assert vote.accuracy == pytest.approx(wilson(right, 12)) and (vote.task, vote.model) == ("jsonl", "toy")
    assert vote.work is not None and vote.note == "mine"
    drawn = sum(search.result.usage.generated_tokens for search in searches) / 12
    assert vote.work.generated == pytest.approx(drawn)
    assert sum(rows * steps for rows, steps in vote.work.steps.items()) == pytest.approx(drawn)
    half = found["self_consistency n=2"].work
    assert half is not None and max(half.steps) == 2 and half.generated == pytest.approx(drawn / 2)


def test_draws_that_wait_for_a_look_at_others_are_rounds_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    base = bench.Plan("jsonl", data=questions(tmp_path, rows=12), model="toy", verifier="length")
    names = ("adaptive_consistency:threshold=0.999", "self_consistency:lead=0.9999", "auto")
    plans = [replace(base, strategy=name, parameters={"n": 8}) for name in names]
    with Store(tmp_path / "runs" / "flyweight.db") as store:
        for _ in bench.execute(store, plans):
            pass
        found = {row.strategy: row.work for row in evidence.from_store(store, "mine")}
        drawn = {run.configuration["strategy"]: list(store.searches(run.id)) for run in store.runs()}
    for name, work in found.items():
        assert work is not None
        for search in drawn[name]:
            assert len(rounds(search.tree)) == 1  # of depth alone
        counts = {search.result.usage.policy_calls for search in drawn[name]}
        assert counts & {8} and max(work.steps) == 4, name  # 4 and another 4, never 8 at a time


def test_a_store_without_runs(tmp_path: Path) -> None:
    with Store(tmp_path / "flyweight.db") as store, pytest.raises(ConfigError, match="holds no finished run to plan"):
        evidence.from_store(store, "mine")


# What comes with the package ------------------------------------------------------------------------------------------


def test_shipped_figures_hold_together() -> None:
    rows = evidence.shipped()
    assert {row.task for row in rows} == {"gsm8k", "math500", "humaneval", "mbpp"}
    assert len({row.key for row in rows}) == len(rows)
    for row in rows:
        low, value, high = row.accuracy
        assert 0 <= low <= value <= high <= 1 and row.questions >= 60 and row.note.startswith("python -m benchmarks.")
        assert row.work is not None
        drawn = sum(rows * steps for rows, steps in row.work.steps.items())
        assert drawn == pytest.approx(row.work.generated, rel=0.005)
        assert max(row.work.steps) <= row.n
    for row in rows:
        if row.strategy == "greedy":  # counted, one outcome a question
            right = round(row.accuracy.value * row.questions)
            assert row.accuracy == pytest.approx(wilson(right, row.questions), abs=1e-4)
    assert {row.model for row in rows if row.strategy == "greedy" and row.task == "gsm8k"} >= {
        "qwen2.5-coder-0.5b",
        "qwen2.5-coder-1.5b",
    }
    assert {"arithmetic", "confidence", "self", "p_true"} <= evidence.shipped_costs().keys()


def test_published_figures_name_their_source() -> None:
    assert all(row.note and row.source == "published" for known in told.published() for row in known.results)
    assert all(known.pretraining_tokens > 1e12 and known.kv_bytes > 0 for known in told.published())


def test_a_calibration_of_several_tasks_is_evidence_for_none() -> None:
    one = next(each for each in calibration.shipped() if each.task == "gsm8k")
    [source] = one.sources
    twice = replace(one, sources=(source, replace(source, split="other", questions=50)))
    mixed = replace(one, sources=(source, replace(source, task="math500")))
    assert (one.task, twice.task, mixed.task) == ("gsm8k", "gsm8k", None)
    assert {row.questions for row in evidence.from_calibrations([twice], "")} == {source.questions + 50}
    assert evidence.from_calibrations([mixed], "") == []


def test_a_calibration_is_evidence_for_auto() -> None:
    found = evidence.from_calibrations(calibration.shipped(), "shipped")
    assert all(row.strategy == "auto" and row.work is not None and row.parameters["budget_tokens"] for row in found)
    for row in found:
        assert row.work is not None and not row.assumed
        drawn = sum(rows * steps for rows, steps in row.work.steps.items())
        assert drawn == pytest.approx(row.work.generated, rel=0.005)
    assert len({row.label for row in found}) == len({(row.task, row.label) for row in found}) or len(found) > 1
    works = {(row.task, row.parameters["budget_tokens"]): row.work for row in found}
    # Answers of GSM8K have 300 tokens: the first one, then samples up to 4, 8 and 16, wait for each other.
    assert sum(works["gsm8k", 4000].steps.values()) > 3 * 300  # type: ignore[union-attr]


def test_without_its_rounds_auto_is_taken_to_be_slow() -> None:
    [one] = [each for each in calibration.shipped() if each.task == "gsm8k"]
    bare = replace(one, rows=tuple(replace(row, work=None) for row in one.rows))
    assert repr(bare) == repr(one)  # what identifies runs of auto does not change with what it costs
    for row, kept in zip(evidence.from_calibrations([bare], ""), one.rows, strict=True):
        assert row.work is not None and row.work.steps == {1: kept.held_out_tokens}
        assert "not on record" in row.assumed
