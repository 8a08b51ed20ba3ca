"""Playing recorded samples against the real strategies, and the choice among them where the best one is known."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyweight import strategies
from flyweight.errors import ConfigError
from flyweight.optimal import calibration, fit
from flyweight.optimal.calibration import Calibration, Cell, Row, Source, Span
from flyweight.optimal.difficulty import FEATURES, Estimator
from flyweight.optimal.pools import Play, Question, Sample, Searched
from flyweight.runner import Runner
from flyweight.strategies import Value
from flyweight.testing import BoxedAnswers, RuleVerifier
from flyweight.types import Problem, Result
from tests.strategies.registry_kit import Instant

WORDS = [
    "sample",
    "self_consistency:n=2",
    "self_consistency:n=8",
    "self_consistency:n=16:lead=0.8",
    "weighted_best_of_n:n=8",
    "weighted_best_of_n:n=16:lead=0.95",
    "best_of_n:n=4",
    "best_of_n:n=16:enough=0.8",
]


def texts(rng: random.Random, count: int) -> list[str]:
    """Answers 0 to 3, each text of a length of its own; some state none."""
    return [
        "x" * (20 * i + 1) + (f"\\boxed{{{min(rng.randrange(4), rng.randrange(4))}}}" if rng.random() < 0.9 else "")
        for i in range(count)
    ]


def score_of(text: str) -> float:
    return random.Random(len(text)).randrange(11) / 10


def recorded(pool: list[str]) -> Question:
    """The pool as a run of it would have been read; a token more than a text has ends it."""
    found = search("best_of_n", iter(pool), {"n": len(pool)})
    samples = {
        each.node.text: Sample(
            None if each.answer is None else int(each.answer),
            each.answer == "0",
            each.node.mean_logprob,
            each.node.drawn + 1,
            {"rule": score_of(each.node.text)},
        )
        for each in found.candidates
    }
    return Question("q", 10, None, {0.7: tuple(samples[text] for text in pool)})


def search(word: str, drawn: Iterator[str], parameters: Mapping[str, Value] | None = None) -> Result:
    """A strategy whose samples are these."""
    runner = Runner(
        Instant(lambda request: next(drawn)),
        {"rule": RuleVerifier(lambda question, solution: score_of(solution))},
        answers=BoxedAnswers(),
    )
    return runner.solve(Problem("q", "a question"), strategies.bind(word, parameters))


@pytest.mark.parametrize("word", WORDS)
def test_a_play_is_what_the_strategy_would_have_done(word: str) -> None:
    for seed in range(25):
        rng = random.Random(f"{word} {seed}")
        pool = texts(rng, 16)
        question = recorded(pool)
        play = Play(question, 0.7, False, seed, "rule")
        by_tokens = {sample.tokens: text for sample, text in zip(question.pools[0.7], pool, strict=True)}
        result = search(word, iter([by_tokens[sample.tokens] for sample in play.samples]))
        told = play.outcome(word, 0, 10**9)
        assert (told.right, told.tokens) == (result.answer == "0", result.usage.generated_tokens), seed


def test_what_a_budget_cuts_is_paid_for_and_does_not_vote() -> None:
    samples = tuple(Sample(group, group == 0, -0.1, 100) for group in (1, 0, 0))
    play = Play(Question("q", 1, samples[0], {0.7: samples[1:]}), 0.7, True, 0, "v")
    assert play.outcome("self_consistency:n=2", 1, 1000) == (False, 200)
    assert play.outcome("self_consistency:n=3", 1, 1000) == (True, 300)
    assert play.outcome("self_consistency:n=3", 1, 250) == (False, 250)
    assert play.outcome("self_consistency:n=3", 1, 99) == (False, 99)


def test_a_probe_that_is_larger_than_the_choice_is_paid_for() -> None:
    samples = tuple(Sample(0, True, -0.1, 100) for _ in range(4))
    play = Play(Question("q", 1, None, {0.7: samples}), 0.7, False, 0, "v")
    assert play.outcome("self_consistency:n=2", 4, 1000) == (True, 400)
    assert play.outcome("self_consistency:n=2", 4, 350) == (True, 350)


def test_what_is_drawn_side_by_side_by_hand() -> None:
    samples = tuple(Sample(number, False, -0.1, 100 + number, {"v": 0.1}) for number in range(17))
    play = Play(Question("q", 1, samples[0], {0.7: samples[1:]}, in_front=50.0), 0.7, True, 0, "v")
    lengths = [sample.tokens for sample in play.samples]
    # The most likely answer, then samples up to 4, 8 and 16 in all: each portion waits for the one before it.
    grown = play.rounds("best_of_n:n=16:enough=0.5", 1, 10**9)
    assert grown == [lengths[:1], lengths[1:4], lengths[4:8], lengths[8:16]]
    assert play.rounds("best_of_n:n=16", 2, 10**9) == [lengths[:1], lengths[1:2], lengths[2:16]]
    assert play.rounds("self_consistency:n=2", 8, 10**9) == [lengths[:1], lengths[1:8]]
    assert play.rounds("best_of_n:n=16:enough=0.5", 1, 250) == [[100], [lengths[1], 150 - lengths[1]]]
    found = play.work("best_of_n:n=16:enough=0.5", 1, 10**9)
    assert sum(found.steps.values()) == sum(map(max, grown)) and max(found.steps) == 8
    assert (found.prompt, found.generated, found.verified, found.scored) == (50.0, sum(lengths[:16]), 0.0, 16)
    assert play.work("sample", 1, 10**9).steps == {1: 100.0}


def test_the_rounds_of_a_search_come_after_those_of_the_probe() -> None:
    probe = tuple(Sample(0, True, -0.1, 100) for _ in range(3))
    kept = {
        "dvts:n=8": Searched((), True, 90, rounds=((20, 30), (40,))),
        "medoid:n=4": Searched((), True, 400, 0, 4, ((100, 100, 100, 100),)),
    }
    play = Play(Question("q", 1, None, {0.7: probe}, {0.7: kept}), 0.7, False, 0, "v")
    assert play.rounds("dvts:n=8", 2, 10**9) == [[100, 100], [20, 30], [40]]
    assert play.rounds("medoid:n=4", 2, 10**9) == [[100, 100], [100, 100]]  # it begins with those of the probe


def test_the_leaves_of_a_search_vote_with_the_probe() -> None:
    probe = (Sample(0, True, -0.1, 100, {"v": 0.9}), Sample(0, True, -0.2, 100, {"v": 0.9}))
    tree = Searched((Sample(1, False, -0.1, 50, {"v": 0.8}),), False, 500)
    question = Question("q", 1, None, {0.7: probe}, {0.7: {"dvts:n=8": tree}})
    play = Play(question, 0.7, False, 0, "v")
    assert play.outcome("dvts:n=8", 2, 1000) == (True, 700)  # 1.8 against 0.8
    assert play.outcome("dvts:n=8", 2, 600) == (True, 600)  # the probe is left
    alone = replace(
        question, searches={0.7: {"dvts:n=8": tree._replace(leaves=(tree.leaves[0]._replace(scores={"v": 1.0}),) * 2)}}
    )
    assert not Play(alone, 0.7, False, 0, "v").outcome("dvts:n=8", 2, 1000).right  # 1.8 against 2.0


# Choosing ------------------------------------------------------------------------------------------------------------


def questions(count: int, make: Callable[[random.Random, int], list[Sample]]) -> list[Question]:
    return [Question(f"q{i}", 50, None, {0.7: tuple(make(random.Random(f"fit {i}"), i))}) for i in range(count)]


def two_kinds(rng: random.Random, i: int) -> list[Sample]:
    """Even questions: most samples agree and are right, and the verifier likes the others. Odd ones: samples differ,
    and the verifier knows the right one."""
    if i % 2 == 0:
        rights = [True] * 11 + [False] * 5
        return [
            Sample(0 if right else 1 + place % 4, right, -0.1, 100, {"v": 0.05 if right else 0.95})
            for place, right in enumerate(rights)
        ]
    rights = [True] * 4 + [False] * 12
    return [
        Sample(0 if right else 1 + place % 3, right, -0.9, 100, {"v": 0.9 if right else 0.1})
        for place, right in enumerate(rights)
    ]


def test_the_best_choice_per_difficulty_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "PROBES", (4,))
    table = fit.Table(questions(48, two_kinds), "v", orders=4)
    row = fit.fit(table, 1600)
    hard, easy = row.cell(0.25), row.cell(0.68)
    assert hard.strategy.startswith("best_of_n") and hard.accuracy.value > 0.95
    assert easy.strategy.startswith("self_consistency") and easy.accuracy.value > 0.85
    assert row.gain.low > 0.1 and row.held_out.value > 0.9


def test_nothing_is_gained_where_there_is_nothing_to_gain() -> None:
    def noise(rng: random.Random, i: int) -> list[Sample]:
        return [
            Sample(rng.randrange(3), rng.random() < 0.4, -rng.random(), rng.randint(50, 150), {"v": rng.random()})
            for _ in range(8)
        ]

    table = fit.Table(questions(50, noise), "v", orders=4)
    row = fit.fit(table, 800)
    assert row.gain.low <= 0 <= row.gain.high + 0.02
    assert abs(row.held_out.value - 0.4) < 0.12, "no better than a sample on questions set aside"


def test_of_equals_the_cheapest_is_taken() -> None:
    def sure(rng: random.Random, i: int) -> list[Sample]:
        return [Sample(0, True, -0.1, 100, {"v": 0.9}) for _ in range(8)]

    row = fit.fit(fit.Table(questions(30, sure), "v", orders=2), 10_000)
    assert [cell.strategy for cell in row.cells] == ["sample"]
    assert (row.held_out.value, row.held_out_tokens) == (1.0, 100.0)
    assert row.estimator.k == 1, "a larger probe would cost more and tell nothing"


def test_a_fit_is_repeatable() -> None:
    found = questions(24, two_kinds)
    assert fit.fit(fit.Table(found, "v", orders=2), 400) == fit.fit(fit.Table(found, "v", orders=2), 400)


def test_difficulty_is_told_on_questions_set_aside() -> None:
    table = fit.Table(questions(40, two_kinds), "v", orders=4)
    told = fit.report(table, fit.Drawing(False, 0.7), 4)
    assert told["spearman"] > 0.6 and sum(map(sum, told["bands"])) == pytest.approx(40, abs=0.5)


def test_few_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match="19 questions: a calibration needs 20"):
        fit.Table(questions(19, two_kinds), "v")


# The file ------------------------------------------------------------------------------------------------------------


def made(sha256: str = "a" * 64, **changes: Any) -> Calibration:
    count = len(FEATURES)
    cell = Cell("weighted_best_of_n:n=8:lead=0.95", Span(0.1, 0.2, 0.3), 900.5, 20.0)
    row = Row(
        budget=1000,
        temperature=0.7,
        greedy=False,
        estimator=Estimator(4, (0.0,) * count, (1.0,) * count, (0.5,) * count, -0.1),
        edges=(0.25,),
        cells=(cell, replace(cell, strategy="sample")),
        fixed=cell,
        held_out=Span(0.1, 0.2, 0.3),
        held_out_tokens=800.0,
        gain=Span(-0.1, 0.0, 0.1),
    )
    whole: dict[str, Any] = {
        "model": "m",
        "sha256": sha256,
        "verifier": "self",
        "judge": changes.get("verifier", "self"),
        "kind": "maths",
        "sources": (Source("gsm8k", "calibration", 150, 16, "d" * 64),),
        "rows": (row, replace(row, budget=4000)),
        "confidence": (0.0, 1.0, 0.5),
        "report": {"difficulty": []},
    }
    return Calibration(**{**whole, **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    both = (made(), made(kind="code", confidence=None))
    calibration.write(path, both)
    assert calibration.read(path) == both
    first = path.read_bytes()
    calibration.write(path, calibration.read(path))
    assert path.read_bytes() == first


def test_the_row_is_that_of_the_largest_budget_covered() -> None:
    found = made()
    assert [found.row(tokens).budget for tokens in (1, 1000, 3999, 4000, 10**6)] == [1000, 1000, 1000, 4000, 4000]
    assert [found.rows[0].cell(p).strategy for p in (0.0, 0.24, 0.25, 1.0)] == [
        "weighted_best_of_n:n=8:lead=0.95",
        "weighted_best_of_n:n=8:lead=0.95",
        "sample",
        "sample",
    ]


def damaged(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        calibration.write(path, [made()])
        whole = json.loads(path.read_text("utf-8"))
        change(whole)
        path.write_text(json.dumps(whole), "utf-8")

    return write


DAMAGE: Mapping[str, Callable[[Path], object]] = {
    "there is no file": lambda path: None,
    "no JSON": lambda path: path.write_text("{", "utf-8"),
    "a list": lambda path: path.write_text("[]", "utf-8"),
    "another format": damaged(lambda whole: whole.update(format=99)),
    "empty": damaged(lambda whole: whole.update(calibrations=[])),
    "an unknown strategy": damaged(
        lambda whole: whole["calibrations"][0]["rows"][0]["cells"][0].update(strategy="best_of_m")
    ),
    "a cell too few": damaged(lambda whole: whole["calibrations"][0]["rows"][0]["cells"].pop()),
    "rows out of order": damaged(lambda whole: whole["calibrations"][0]["rows"].reverse()),
    "no rows": damaged(lambda whole: whole["calibrations"][0]["rows"].clear()),
    "a hash that is none": damaged(lambda whole: whole["calibrations"][0].update(sha256="abc")),
    "an unknown kind": damaged(lambda whole: whole["calibrations"][0].update(kind="poems")),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_gets_one_line_that_names_it(what: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    DAMAGE[what](path)
    with pytest.raises(ConfigError) as caught:
        calibration.read(path)
    assert "c.json" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "hard", "medium", "easy"),
    [
        (3.1e9, "beam_search", "beam_search", "best_of_n"),
        (7.6e9, "beam_search", "dvts", "dvts"),
        (32.8e9, "beam_search", "dvts", "dvts"),
        (72.7e9, "best_of_n", "best_of_n", "best_of_n"),
    ],
)
def test_what_is_published_is_lius(params: float, hard: str, medium: str, easy: str) -> None:
    said = [calibration.published(params, True, band) for band in ("hard", "medium", "easy")]
    assert said == [hard, medium, easy]
    assert calibration.published(params, False, "hard") == "weighted_best_of_n"


def test_what_is_shipped_can_be_read() -> None:
    for each in calibration.shipped():
        assert each.questions >= (150 if each.kind == "maths" else 100)
        for row in each.rows:
            assert row.held_out.low <= row.held_out.value <= row.held_out.high


def test_hopeless_questions_are_not_worth_many_tokens() -> None:
    """Three in four are never right; on the others the eighth sample is still worth its tokens."""

    def make(rng: random.Random, i: int) -> list[Sample]:
        if rng.random() < 0.75:
            return [Sample(place, False, -1.0, 100, {"v": 0.1}) for place in range(8)]
        rights = [place < 4 for place in range(8)]
        return [Sample(0 if right else 1 + place, right, -0.1, 100, {"v": 0.6}) for place, right in enumerate(rights)]

    row = fit.fit(fit.Table(questions(50, make), "v", orders=8), 800)
    assert row.held_out.value > 0.9 * row.fixed.accuracy.value and row.held_out_tokens < 0.5 * row.fixed.tokens
    assert row.cells[0].tokens < row.cells[-1].tokens
