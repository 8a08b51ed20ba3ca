"""The verifiers' benchmark against hand-computed tables, the strategies themselves, and interruptions."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import default_strategy, verifiers, verifiers_cost, verifiers_scores, verifiers_steps
from benchmarks.verifiers import Samples, best, given, measured, voted
from benchmarks.verifiers_scores import Kept, Source, opened
from flyweight import bench, select
from flyweight.protocols import Models
from flyweight.report.records import Draw
from flyweight.store import Store
from flyweight.testing import BoxedAnswers, ToyPolicy
from flyweight.types import Finish, Node, Problem, Sampling, Score
from tests.bench.kit import questions

# Samples: what is chosen and what it is worth -------------------------------------------------------------------------


def draws(rows: Sequence[tuple[bool, int | None, float]]) -> list[Draw]:
    """(right, answer class, log-probability) of every sample."""
    return [Draw(str(i), right, False, False, group, None, logprob) for i, (right, group, logprob) in enumerate(rows)]


HAND = Samples(
    [
        draws([(True, 0, -0.5), (False, 1, -0.1), (False, 1, -0.2), (False, None, -0.3)]),
        draws([(True, 0, -0.4), (True, 0, -0.3), (False, 1, -0.2), (False, 2, -0.1)]),
        draws([(False, 0, -0.1)] * 4),
    ],
    4,
)
SCORES: list[list[float | None]] = [[0.9, 0.3, 0.4, 0.95], [0.2, 0.8, 0.9, None], [0.5, 0.5, 0.5, 0.5]]


def test_choices_by_hand() -> None:
    assert HAND.random == [0.25, 0.5, 0.0]
    assert HAND.covered == [1, 1, 0]
    assert HAND.majority == [0, 1, 0]
    found = measured(HAND, SCORES)
    # The best-scored sample of the first question states no answer, of the second is wrong.
    assert found.best == [0, 0, 0]
    # 0.9 against 0.3 + 0.4, and 0.2 + 0.8 against 0.9: both right.
    assert found.vote == [1, 1, 0]


def test_auc_and_calibration_by_hand() -> None:
    found = measured(HAND, SCORES)
    # First: 0.9 above 0.3 and 0.4, below 0.95. Second: 0.2 and 0.8 below 0.9. The third has no right sample.
    assert found.within.value == pytest.approx((2 / 3 + 0) / 2)
    # Overall: right 0.9, 0.2, 0.8; wrong 0.3, 0.4, 0.95, 0.9, and four of 0.5.
    assert found.overall.value == pytest.approx((6 + 0.5 + 0 + 6) / 24)
    assert found.brier == pytest.approx((0.01 + 0.09 + 0.16 + 0.9025 + 0.64 + 0.04 + 0.81 + 4 * 0.25) / 11)
    # Bins: {0.3, 0.2 right}, {0.4, four of 0.5}, {0.9 right, 0.95, 0.8 right, 0.9}.
    assert found.ece == pytest.approx((abs(0.5 - 1) + 2.4 + abs(3.55 - 2)) / 11)
    said = [score for own in SCORES for score in own if score is not None]
    assert found.reference.brier.value == pytest.approx(sum(p * (1 - p) for p in said) / 11, abs=0.01)


def test_the_oracle_reaches_coverage_and_a_constant_is_chance() -> None:
    oracle = measured(HAND, [[float(draw.right) for draw in own] for own in HAND.draws])
    assert oracle.best == oracle.vote == HAND.covered and oracle.within.value == oracle.overall.value == 1
    blind = measured(HAND, [[0.5] * 4] * 3)
    assert blind.vote == HAND.majority and blind.within.value == blind.overall.value == 0.5


def test_choices_are_those_of_the_strategies() -> None:
    chance = random.Random(1)
    root = Node(key="root")
    for _ in range(300):
        n = chance.randrange(1, 7)
        nodes, rows, scores = [], [], []
        for i in range(n):
            logprob = chance.choice([-0.1, -0.2, -0.3])
            finish = chance.choice([Finish.END, Finish.END, Finish.END, Finish.LENGTH])
            score = chance.choice([0.0, 0.25, 0.5, 1.0])
            node = Node(root, str(i), (1,), (logprob,), (), finish, Score(score), key=f"{i}", draw=i)
            group = None if finish is Finish.LENGTH else chance.choice([None, 0, 1, 2])
            nodes.append(node)
            rows.append((group is not None and chance.random() < 0.5, group, logprob))
            scores.append(None if finish is Finish.LENGTH else score)
        right = {node.key: row[0] for node, row in zip(nodes, rows, strict=True)}
        groups = [[node for node, row in zip(nodes, rows, strict=True) if row[1] == group] for group in range(3)]
        groups = [group for group in groups if group]
        held = given(draws(rows), scores)
        tops = select.top(select.finished(nodes), 1)
        assert best(held) == float(bool(tops) and right[tops[0].key])
        heaviest = select.weighted_vote(groups)
        assert voted(held) == float(heaviest is not None and right[heaviest.key])
        most = select.majority(groups)
        assert Samples([draws(rows)], n).majority == [float(most is not None and right[most.key])]


# Scores: made once and kept -------------------------------------------------------------------------------------------


class Fussy:
    """Scores by length, until it has been asked too often."""

    name = "fussy"
    params = 0
    sees_answer = False
    asked = 0
    patience = 1000

    def __init__(self) -> None:
        self.seen: list[str] = []  # no store can tell what this does, so none remembers its scores

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        Fussy.asked += 1
        if Fussy.asked > Fussy.patience:
            raise KeyboardInterrupt
        return [Score(1 / (1 + len(node.solution)), (), self.name) for node in nodes]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of six questions, and the pool "mine" made of it."""
    folder = tmp_path_factory.mktemp("drawn")
    plan = bench.Plan("jsonl", data=questions(folder), model="toy")
    with Store(folder / "drawn.db") as store:
        more = ["self_consistency", "best_of_n", "weighted_best_of_n"]
        bench.execute(store, [*bench.grid(plan, more, ["arithmetic"], [5]), replace(plan, strategy="greedy")])
        store.dump(folder / "mine.jsonl.xz")
    return folder


@pytest.fixture
def pool(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what is made of the pool. Nothing may be drawn again."""
    monkeypatch.setattr(verifiers_scores, "POOLS", drawn)
    monkeypatch.setattr(verifiers, "KEPT", tmp_path)
    monkeypatch.setattr(default_strategy, "SMALL", "toy")
    monkeypatch.setattr(Fussy, "asked", 0)
    monkeypatch.setattr("flyweight.api.find_policy", lambda *_, **__: pytest.fail("a model was loaded"))
    return tmp_path


def test_scored_pool_gives_what_the_recorded_runs_selected(pool: Path, drawn: Path) -> None:
    verifiers.scored("mine", [], pool / "runs")
    kept = Kept(pool / "mine.json.gz")
    assert kept.about["n"] == 5 and kept.about["task"] == "jsonl" and len(kept.questions) == 6
    assert kept.whole == list(verifiers_scores.MATHS) and not kept.parts
    samples = Samples.of(kept)
    found = measured(samples, [question["scores"]["arithmetic"] for question in kept.questions.values()])
    with Store(drawn / "drawn.db", readonly=True) as store:
        right = {}
        for info in store.runs():
            grades = bench.graded.Recorded(store, info.configuration)
            searches = {search.result.problem.id: search for search in bench.read(store, info.id, grades)}
            right[info.configuration["strategy"]] = [
                float(searches[id].grade.value == "correct") for id in kept.questions
            ]
    assert found.best == right["best_of_n"]
    assert found.vote == right["weighted_best_of_n"]
    assert samples.majority == right["self_consistency"]
    assert 0 < sum(samples.random) < 6  # or none of this could fail


def test_scoring_goes_on_where_it_was_stopped(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyweight.verifiers.load", lambda name: Fussy())
    monkeypatch.setattr(Fussy, "patience", 4)
    monkeypatch.setattr(verifiers_scores, "IN_FLIGHT", 1)
    with opened("mine", pool / "runs", draw=False) as source:
        kept = Kept(pool / "mine.json.gz")
        kept.take(source.about, source.facts())
        with pytest.raises(KeyboardInterrupt):
            verifiers_scores.score(kept, source, "fussy")
        begun = Kept(pool / "mine.json.gz")
        assert begun.parts == {"fussy": 4} and not begun.whole
        monkeypatch.setattr(Fussy, "patience", 1000)
        assert verifiers_scores.score(begun, source, "fussy") == ""
    assert Fussy.asked == 5 + 2
    assert Kept(pool / "mine.json.gz").whole == ["fussy"]


def test_what_cannot_score_is_said_and_leaves_the_rest(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    verifiers.scored("mine", ["tests", "confidence"], pool / "runs")
    assert "tests left out: " in capsys.readouterr().out
    assert Kept(pool / "mine.json.gz").whole == ["confidence"]


def test_what_is_not_on_record_is_read_from_the_model_once(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="lacks draws"), opened("mine", pool / "runs", draw=False) as source:
        scored(source, "p_true", pool)
    loaded = []

    def find(*_: object, **__: object) -> Callable[[], ToyPolicy]:
        return lambda: loaded.append(1) or ToyPolicy()  # type: ignore[func-returns-value]

    monkeypatch.setattr("flyweight.api.find_policy", find)
    for _ in range(2):  # the second time from the store, though the scores are lost
        with opened("mine", pool / "runs", draw=True) as source:
            assert scored(source, "p_true", pool).whole == ["p_true"]
    assert len(loaded) == 1


def scored(source: Source, name: str, folder: Path) -> Kept:
    kept = Kept(folder / "lost.json.gz")
    kept.take(source.about, source.facts())
    for question in kept.questions.values():
        question["scores"].clear()
    assert verifiers_scores.score(kept, source, name) == ""
    return kept


def test_cost_is_counted_on_candidates_just_drawn(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ToyPolicy] = []

    def find(*_: object, **__: object) -> Callable[[], ToyPolicy]:
        return lambda: made.append(ToyPolicy()) or made[-1]  # type: ignore[func-returns-value]

    monkeypatch.setattr("flyweight.api.find_policy", find)
    ready, figures = verifiers_cost.scored("mine", "p_true", True, pool / "runs")
    asked = len(verifiers_scores.verifiers.load("p_true").question)  # type: ignore[attr-defined]
    assert ready == {} and figures["candidates"] == verifiers_cost.QUESTIONS * 5
    # A character is a token, and equal candidates are read once: nothing of a candidate is read again.
    assert 0 < figures["tokens"] <= asked
    (policy,) = made
    assert policy.closed and policy.counters.generated_tokens > 0
    _, figures = verifiers_cost.scored("mine", "arithmetic", False, pool / "runs")
    assert (figures["tokens"], figures["candidates"]) == (0, verifiers_cost.QUESTIONS * 5) and figures["ms"] > 0
    _, figures = verifiers_cost.scored("mine", "", True, pool / "runs")
    assert (figures["tokens"], figures["candidates"], figures["ms"]) == (0, 0, 0)


def test_other_samples_lose_their_scores(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "a.json.gz")
    kept.take({"n": 1}, {"a": {"draws": "x"}, "b": {"draws": "y"}, "c": {"draws": "z"}})
    for question in kept.questions.values():
        question["scores"]["v"] = [0.5]
    kept.take({"n": 1}, {"b": {"draws": "other"}, "a": {"draws": "x"}, "d": {"draws": "z"}})
    assert list(kept.questions) == ["a", "b", "d"] and kept.parts == {"v": 1}
    kept.write()
    before = (tmp_path / "a.json.gz").read_bytes()
    again = Kept(tmp_path / "a.json.gz")
    again.write()
    assert (tmp_path / "a.json.gz").read_bytes() == before and again.questions == kept.questions


def test_page_shows_every_verifier_and_what_it_costs(pool: Path) -> None:
    verifiers.scored("mine", ["arithmetic", "confidence"], pool / "runs")
    kept = Kept(pool / "mine.json.gz")
    text = verifiers.section("mine", kept, {"mine arithmetic": {"tokens": 12.4, "ms": 3.21, "mb": 0.2}})
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows][2:] == ["oracle"] and len(rows) == 3
    assert next(row for row in rows if "arithmetic" in row).endswith("| 12 | 3.21 | 0 |")
    assert verifiers.paid({"tokens": 0.0, "ms": 140.2, "mb": 1.6}) == ["0", "140", "2"]
    assert next(row for row in rows if "confidence" in row).endswith("| – | – | – |")
    assert "6 questions x 5 samples" in text and "Begun" not in text


# Steps ----------------------------------------------------------------------------------------------------------------


def test_first_wrong_step_by_hand() -> None:
    assert verifiers_steps.located([0.9, 0.4, 0.2], 0.5) == 1
    assert verifiers_steps.located([0.9, 0.5], 0.5) == -1
    # Erroneous: found, missed, at the wrong step. Correct: passed, accused. F1 of 1/3 and 1/2.
    scores = [[0.9, 0.1], [0.9, 0.9], [0.1, 0.9], [0.9], [0.1]]
    found = verifiers_steps.found(scores, [1, 0, 1, -1, -1], 0.5)
    assert (found.on_erroneous, found.on_correct, found.f1.value) == pytest.approx((1 / 3, 1 / 2, 0.4))
    assert found.f1.low <= 0.4 <= found.f1.high
    # Lowest scores 0.9 and 0.1 of the correct against 0.1, 0.9 and 0.1.
    assert found.auc == pytest.approx((2 + 0.5 + 2 * 0.5) / 6)
    assert verifiers_steps.f1(0, 0) == 0 and verifiers_steps.f1(0.5, 0) == 0


def test_threshold_is_the_best_of_all() -> None:
    chance = random.Random(3)
    for _ in range(50):
        scores = [[chance.randrange(8) / 8 for _ in range(chance.randrange(1, 4))] for _ in range(12)]
        wrong = [True, False, *(chance.random() < 0.5 for _ in range(10))]
        limit = verifiers_steps.threshold(scores, wrong)

        def worth(value: float, scores: list[list[float]] = scores, wrong: list[bool] = wrong) -> float:
            flagged = [any(score < value for score in own) for own in scores]
            hits = [flag for flag, bad in zip(flagged, wrong, strict=True) if bad]
            passes = [not flag for flag, bad in zip(flagged, wrong, strict=True) if not bad]
            a, b = sum(hits) / len(hits), sum(passes) / len(passes)
            return 2 * a * b / (a + b) if a + b else 0.0

        assert worth(limit) == max(worth(number / 16) for number in range(18))


class Stepwise:
    """Says of a path how many steps it has, one value per step or only the last."""

    name = "stepwise"
    params = 0
    sees_answer = False

    def __init__(self, steps: bool) -> None:
        self.steps = steps
        self.paths: list[str] = []

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        self.paths += [node.solution for node in nodes]
        values = [tuple((i + 1) / 10 for i in range(len(node.steps))) for node in nodes]
        return [Score(each[-1], each if self.steps else (), self.name) for each in values]


@pytest.mark.parametrize("steps", [True, False])
def test_steps_are_scored_as_paths_where_a_verifier_gives_one_value(steps: bool) -> None:
    from flyweight.runner import Runner

    judge = Stepwise(steps)
    solution = verifiers_steps.Solution(Problem("p", "Add."), "mine", ("one", "two", "three"), 1)
    walk = verifiers_steps.Walk({"p": solution})
    runner = Runner(ToyPolicy(), {"stepwise": judge}, answers=BoxedAnswers(), sampling=Sampling())
    assert runner.solve(solution.problem, walk).error is None
    assert walk.values == {"p": [0.1, 0.2, 0.3]}
    whole = "one\n\ntwo\n\nthree"
    assert judge.paths == ([whole] if steps else [whole, "one\n\n", "one\n\ntwo\n\n"])


def test_rows_of_processbench_are_what_they_should_be() -> None:
    with gzip.open(verifiers_steps.ROWS, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    assert {row["subset"] for row in rows} == {"gsm8k", "math"} and len({row["id"] for row in rows}) == len(rows) == 200
    assert all(-1 <= row["label"] < len(row["steps"]) for row in rows)
    solutions = verifiers_steps.marked()
    assert [solution.wrong for solution in solutions] == [row["label"] for row in rows]
    assert all(solution.problem.answer is None for solution in solutions)
