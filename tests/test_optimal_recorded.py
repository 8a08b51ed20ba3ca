"""Questions read from a store: which runs are pools, which are searches, and what verifiers compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import bench
from flyweight.optimal import record
from flyweight.optimal.pools import Question, Verifying
from flyweight.optimal.recorded import questions, verifying, word
from flyweight.store import Store
from tests.bench.kit import questions as file_of_questions


def recorded(folder: Path, wanted: record.Wanted) -> list[Question]:
    jobs = bench.check(record.plans(wanted))
    with Store(folder / "flyweight.db") as store:
        runs = {each.run for each in bench.execute(store, record.plans(wanted))}
        return questions(store, [info for info in store.runs() if info.id in runs], jobs[0].task)


@pytest.fixture
def wanted(tmp_path: Path) -> record.Wanted:
    return record.Wanted(
        "jsonl",
        data=file_of_questions(tmp_path, rows=20),
        model="toy",
        verifiers=("arithmetic",),
        n=8,
        temperatures=(0.4, 0.8),
        searches=("medoid:n=4", "beam_search:n=4:width=2"),
    )


def test_searches_for_whole_answers_are_recorded_at_every_temperature(wanted: record.Wanted, tmp_path: Path) -> None:
    asked = [(each.strategy, each.parameters.get("temperature")) for each in record.plans(wanted)]
    assert [each for each in asked if each[0] == "medoid"] == [("medoid", 0.4), ("medoid", 0.8)]
    found = recorded(tmp_path, wanted)
    assert len(found) == 20
    for each in found:
        assert each.greedy is not None and sorted(each.pools) == [0.4, 0.8]
        for temperature, pool in each.pools.items():
            kept = each.searches[temperature]
            assert len(pool) == 8 and set(kept) == {"medoid:n=4", "beam_search:n=4:width=2"}
            # Its samples are the first of the pool: nothing was drawn for it.
            assert kept["medoid:n=4"].generated == sum(sample.tokens for sample in pool[:4])
            assert kept["medoid:n=4"].samples == 4 and not kept["medoid:n=4"].leaves
            assert len(kept["beam_search:n=4:width=2"].leaves) <= 4


def test_a_map_is_fitted_but_on_code(wanted: record.Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_of_questions(tmp_path, rows=40)
    wanted = replace(wanted, data=data, n=4, temperatures=(0.8,), budgets=(100,), searches=())
    with Store(tmp_path / "flyweight.db") as store:
        runs = [each.run for each in bench.execute(store, record.plans(wanted))]
        maths = record.calibrate(store, wanted, runs)
        assert maths.confidence is not None and maths.confidence_map() is not None
        monkeypatch.setattr(record, "kind_of", lambda problem: "code")
        code = record.calibrate(store, wanted, runs)
    assert code == replace(maths, kind="code", confidence=None)


def test_what_several_runs_draw_alike_is_counted_once(wanted: record.Wanted) -> None:
    jobs = bench.check(record.plans(replace(wanted, verifiers=("arithmetic", "form"))))
    drawn = [(job.plan.strategy, others) for job, others in zip(jobs, record.shared(jobs), strict=True)]
    assert drawn == [
        ("greedy:enough=1", 0),
        ("greedy:enough=1", 20),
        ("best_of_n", 0),
        ("best_of_n", 160),
        ("best_of_n", 0),
        ("best_of_n", 160),
        ("medoid", 80),
        ("medoid", 80),
        ("beam_search", 0),
    ]


def test_what_is_computed_once_a_question_is_not_counted_for_every_sample() -> None:
    """Tests are written once; a question about every sample is asked of each."""
    assert verifying({1: 310, 16: 310}) == Verifying(310.0, 0.0)
    assert verifying({1: 20, 16: 320}) == Verifying(0.0, 20.0)
    assert verifying({1: 330, 11: 530}) == Verifying(310.0, 20.0)
    assert verifying({4: 100}) == Verifying(0.0, 25.0)
    assert verifying({1: 50, 2: 10}) == Verifying(10.0, 0.0), "fewer for more: no sample costs less than nothing"
    assert (Verifying(310.0, 20.0).tokens(0), Verifying(310.0, 20.0).tokens(2)) == (0.0, 350.0)


def test_a_word_says_what_is_not_usual() -> None:
    assert word("beam_search", {"n": 8, "width": 4, "temperature": 0.8}) == "beam_search:n=8"
    assert word("beam_search", {"n": 8, "lead": "0.8"}) == "beam_search:n=8:lead=0.8"
