"""What a fit plays on recorded samples is what `auto` does with them: the same choice, tokens and answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import strategies
from flyweight.optimal import calibration
from flyweight.optimal.calibration import Row
from flyweight.optimal.difficulty import FEATURES, Estimator
from flyweight.optimal.pools import Play, Question, Sample, Searched
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, RuleVerifier
from flyweight.types import Budget, Problem, Result
from tests.strategies.registry_kit import Instant
from tests.test_optimal_auto import SHA
from tests.test_optimal_fit import made

PROBLEM = Problem("q", "a question")
LONGEST = 512
WORDS = [
    "sample",
    "self_consistency:n=2",
    "self_consistency:n=16:lead=0.8",
    "weighted_best_of_n:n=8",
    "weighted_best_of_n:n=16:lead=0.95",
    "weighted_best_of_n:n=4:verifier=other",
    "best_of_n:n=4",
    "best_of_n:n=16:enough=0.8",
    "best_of_n:n=16:enough=0.9:verifier=other",
]


def score_of(text: str) -> float:
    return random.Random(len(text)).randrange(11) / 10


def other_score(text: str) -> float:
    return random.Random(-len(text)).randrange(11) / 10


def texts(rng: random.Random, count: int) -> list[str]:
    """Answers 0 to 3, each text of a length of its own; some state none, some are cut short."""
    found = []
    for i in range(count):
        says = f"\\boxed{{{min(rng.randrange(4), rng.randrange(4))}}}" if rng.random() < 0.7 else ""
        length = LONGEST + i if rng.random() < 0.15 else 20 * i + 1
        found.append("x" * length + says)
    return found


class Given(Instant):
    """Answers with these texts in turn."""

    sha256 = SHA

    def __init__(self, given: Sequence[str]) -> None:
        left = iter(given)
        super().__init__(lambda request: next(left))


def solve(word: str, given: Sequence[str], budget: int | None = None, **parameters: strategies.Value) -> Result:
    judges = {
        name: RuleVerifier(lambda question, solution, score=score: score(solution), name=name)  # type: ignore[misc]
        for name, score in (("rule", score_of), ("other", other_score))
    }
    runner = Runner(Given(given), judges, answers=BoxedAnswers())
    return runner.solve(PROBLEM, strategies.bind(word, parameters), Budget(tokens=budget))


def sample(text: str) -> Sample:
    """As a run of it would have been read."""
    [read] = solve("sample", [text]).candidates
    whole = read.node.complete
    scores = {"rule": score_of(text), "other": other_score(text)} if whole else {}
    answer = None if read.answer is None else int(read.answer)
    return Sample(answer, answer == 0, read.node.mean_logprob, read.node.drawn + whole, scores)


def row_of(rng: random.Random, words: Sequence[str], greedy: bool) -> Row:
    base = made(SHA).rows[0]
    weights = tuple(rng.uniform(-1, 1) for _ in FEATURES)
    estimator = Estimator(rng.choice((1, 2, 4, 8)), (0.3,) * len(FEATURES), (1.0,) * len(FEATURES), weights, 0.0)
    cells = tuple(replace(base.cells[0], strategy=word) for word in words)
    edges = tuple(sorted(rng.uniform(0.2, 0.8) for _ in cells[1:]))
    return replace(base, greedy=greedy, estimator=estimator, edges=edges, cells=cells)


def play_of(rng: random.Random, greedy: bool) -> tuple[Play, list[str]]:
    """A play of a random question, and the texts in the order it has them."""
    first, *pool = texts(rng, 17)
    made_of = {text: sample(text) for text in (first, *pool)}
    known = {id(each): text for text, each in made_of.items()}  # the play hands out the same objects
    question = Question("q", len(PROBLEM.prompt), made_of[first], {0.7: tuple(made_of[text] for text in pool)})
    play = Play(question, 0.7, greedy, 0, "rule")
    return play, [known[id(each)] for each in play.samples]


@pytest.mark.parametrize("seed", range(60))
def test_auto_chooses_spends_and_answers_as_played(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    greedy = rng.random() < 0.5
    row = row_of(rng, rng.sample(WORDS, 3), greedy)
    play, given = play_of(rng, greedy)
    path = tmp_path / "c.json"
    calibration.write(path, [replace(made(SHA, verifier="rule"), rows=(row,))])
    passed = row.estimator(play.features(row.estimator.k))
    word = row.cell(passed).strategy
    result = solve("auto", given, calibration=str(path), n=16)
    told = play.outcome(word, row.estimator.k, 10**9)
    assert result.error is None
    assert result.explained["difficulty"] == pytest.approx(passed, abs=1e-4)
    assert str(result.explained["chosen"]).startswith(word.split(":")[0])
    assert (result.usage.generated_tokens, result.answer == "0") == (told.tokens, told.right), word
    assert play.work(word, row.estimator.k, 10**9).generated == result.usage.generated_tokens


@pytest.mark.parametrize("seed", range(60))
def test_within_a_budget_too(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    greedy = rng.random() < 0.5
    word = rng.choice(WORDS)
    row = row_of(rng, [word], greedy)
    play, given = play_of(rng, greedy)
    path = tmp_path / "c.json"
    calibration.write(path, [replace(made(SHA, verifier="rule"), rows=(row,))])
    budget = rng.randint(1, 3000)
    result = solve("auto", given, budget, calibration=str(path), n=16)
    told = play.outcome(word, row.estimator.k, budget)
    assert result.error is None
    assert (result.usage.generated_tokens, result.answer == "0") == (told.tokens, told.right), word
    assert play.work(word, row.estimator.k, budget).generated == told.tokens


def test_a_search_for_whole_answers_begins_with_the_samples_of_the_probe(tmp_path: Path) -> None:
    """But for the most likely answer, which its recording did not have."""
    for seed in range(20):
        rng = random.Random(seed)
        greedy = rng.random() < 0.5
        row = row_of(rng, ["medoid"], greedy)
        play, given = play_of(rng, greedy)
        alone = solve("medoid", given[greedy:])
        kept = Searched((), alone.answer == "0", alone.usage.generated_tokens, 0, 8)
        question = replace(play.question, searches={0.7: {"medoid": kept}})
        path = tmp_path / "c.json"
        calibration.write(path, [replace(made(SHA, verifier="rule"), rows=(row,))])
        result = solve("auto", given, calibration=str(path), n=16)
        told = Play(question, 0.7, greedy, 0, "rule").outcome("medoid", row.estimator.k, 10**9)
        assert result.usage.generated_tokens == told.tokens, seed
        if alone.answer is not None:
            assert result.answer == alone.answer and told.right == (result.answer == "0"), seed
