"""Selection on recorded candidates gives the figures their makers published, sample for sample."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence

import pytest

from flyweight import strategies
from flyweight.runner import Runner
from flyweight.select import aggregate, lead, majority, top, weighted_vote
from flyweight.types import Node, Problem, Score
from tests.recorded import FIXTURES, NormalAnswers, Replay, boxed, groups, load, nodes, normal, stated

Pick = Callable[[Sequence[Node]], Node | None]

PICKS: dict[str, Pick] = {
    "naive": lambda candidates: top(candidates, 1)[0],
    "maj": lambda candidates: majority(groups(candidates)),
    "weighted": lambda candidates: weighted_vote(groups(candidates)),
}

BEAM16 = "sal/llama3.2-3b_beam_n16_q100"
BON4 = "sal/llama3.2-3b_bon_n4_q10_valid"
BEAM4 = "sal/qwen2.5-math-7b_beam_n4_q100"
SHUFFLED = "sal/llama3.2-3b_bon_n16_q100"
POOL_3B = "pools/math500first100_llama3.2-3b_n16"
POOL_8B = "pools/math500first100_llama3.1-8b_n16"
POOL_256 = "pools/math500first10_llama3.2-3b_n256"
COTTS = "pools/cotts_qwen2.5-1.5b_bon_math-shepherd"

# Search and learn: predictions at every n


def picked(name: str, how: str, k: int) -> list[str]:
    """Our answer per question from its first k candidates."""
    answers = []
    for row in load(name):
        texts = [stated(text) or "none" for text in row["completions"][:k]]
        best = PICKS[how](nodes(texts, row["scores"][:k]))
        assert best is not None
        answers.append(normal(best.text))
    return answers


def right(name: str, answers: Sequence[str]) -> int:
    return sum(answer == normal(row["answer"]) for answer, row in zip(answers, load(name), strict=True))


PUBLISHED = [
    (BEAM16, "weighted", 16, 61),
    (BEAM16, "maj", 16, 61),
    (BEAM16, "naive", 16, 56),
    (BEAM16, "weighted", 4, 59),
    (BEAM16, "weighted", 1, 54),
    (BEAM16, "maj", 1, 54),
    (BEAM16, "naive", 1, 54),
    (BON4, "weighted", 4, 8),
    (BON4, "maj", 4, 7),
    (BON4, "naive", 4, 7),
]


@pytest.mark.parametrize(("name", "how", "k", "published"), PUBLISHED)
def test_selection_answers_as_many_questions_as_published(name: str, how: str, k: int, published: int) -> None:
    filed = [normal(boxed(row[f"pred_{how}@{k}"])) for row in load(name)]
    assert right(name, filed) == published, "the fixture or the normaliser is not the one the figure was made with"
    assert right(name, picked(name, how, k)) == published


LOST = {
    BEAM16: {("maj", 8, "\\cotx")},  # the recorder found cos x / sin x equal to cot x at 4 candidates, not at 8
    BON4: {(how, 1, "2p+\\frac{1}{2}q-\\frac{11}{3}") for how in PICKS}
    | {("maj", 2, "2p+\\frac{1}{2}q-\\frac{11}{3}"), ("maj", 4, "2p+\\frac{1}{2}q-\\frac{11}{3}")},
    BEAM4: {("weighted", 4, "east"), ("naive", 4, "east")},
}
"""Where the recorder's own reading of an answer failed; everything else must agree question by question."""


@pytest.mark.parametrize("how", list(PICKS))
@pytest.mark.parametrize(("name", "k"), [(n, k) for n, most in ((BEAM16, 16), (BON4, 4), (BEAM4, 4)) for k in
                                         (1, 2, 4, 8, 16) if k <= most])  # fmt: skip
def test_selection_agrees_with_the_recorded_choice_on_every_question(name: str, k: int, how: str) -> None:
    ours = picked(name, how, k)
    filed = [normal(boxed(row[f"pred_{how}@{k}"])) for row in load(name)]
    different = {(how, k, a) for a, b in zip(ours, filed, strict=True) if a != b}
    assert different == {case for case in LOST[name] if case[:2] == (how, k)}


@pytest.mark.parametrize("name", [BEAM16, BON4, BEAM4])
def test_the_recorded_aggregate_is_the_last_step(name: str) -> None:
    for row in load(name):
        assert row["agg_scores"] == [aggregate(Score(0.0, tuple(steps)), "last") for steps in row["scores"]]


def test_coverage_of_the_recorded_beams() -> None:
    rows = load(BEAM16)
    assert sum(normal(row["answer"]) in {normal(boxed(text)) for text in row["completions"]} for row in rows) == 69


# Every sample belongs to its question


def regrouped() -> list[list[str]]:
    """The shuffled file put right: each batch of 25 questions was written out sample by sample."""
    flat = [text for row in load(SHUFFLED) for text in row["completions"]]
    rows = [[""] * 16 for _ in range(100)]
    for i, text in enumerate(flat):
        batch, place = divmod(i, 25 * 16)
        rows[batch * 25 + place % 25][place // 25] = text
    return rows


def accuracy(samples: Sequence[Sequence[str]]) -> float:
    """Percentage of right samples, each judged as an answer to the question it is filed under."""
    known = [
        {row["answer"]} | {a for a, ok in zip(row["answers"], row["correct"], strict=True) if ok}
        for row in load(POOL_3B)
    ]
    known = [{normal(answer) for answer in answers} for answers in known]
    hits = [normal(boxed(text)) in answers for row, answers in zip(samples, known, strict=True) for text in row]
    return round(100 * sum(hits) / len(hits), 1)


def test_the_shuffled_fixture_is_what_it_is_said_to_be() -> None:
    assert accuracy([row["completions"] for row in load(SHUFFLED)]) == 2.6
    assert accuracy(regrouped()) == 44.6


@pytest.mark.parametrize("at_once", [1, 25, 1600])
def test_a_hundred_questions_in_flight_keep_their_samples(at_once: int) -> None:
    samples = {row["problem"]: texts for row, texts in zip(load(SHUFFLED), regrouped(), strict=True)}
    assert len(samples) == 100
    problems = [Problem(f"p{i}", question) for i, question in enumerate(samples)]
    runner = Runner(Replay(samples, at_once=at_once, seed=at_once), answers=NormalAnswers())
    results = {r.problem.prompt: r for r in runner.run(problems, strategies.bind("self_consistency"), in_flight=100)}
    returned = [[c.node.solution for c in results[question].candidates] for question in samples]
    assert returned == list(samples.values()), "a sample came back under another question, or out of draw order"
    assert accuracy(returned) == 44.6


# Pools: coverage, majority, stopping early


def coverage(name: str, k: int) -> float:
    """Unbiased pass@k in percent (Chen et al. 2021, 2107.03374)."""
    rows = load(name)
    miss = [math.comb(len(r["correct"]) - sum(r["correct"]), k) / math.comb(len(r["correct"]), k) for r in rows]
    return round(100 * (1 - math.fsum(miss) / len(rows)), 1)


def test_pool_coverage() -> None:
    assert [coverage(POOL_3B, k) for k in (1, 2, 4, 8, 16)] == [44.6, 55.9, 64.8, 73.0, 81.0]
    assert [coverage(POOL_8B, k) for k in (1, 16)] == [44.3, 84.0]
    assert [coverage(POOL_256, k) for k in (1, 4, 16, 64, 256)] == [51.6, 71.8, 85.6, 96.7, 100.0]


def vote(row: dict[str, list[str]], order: Sequence[int]) -> bool:
    """Whether a majority over these samples, drawn in this order, is right; nothing to vote on is wrong."""
    best = majority(groups(nodes([row["answers"][i] for i in order])))
    return best is not None and bool(row["correct"][order[best.draw]])


@pytest.mark.parametrize(("name", "percent"), [(POOL_3B, 58.0), (POOL_256, 80.0)])
def test_majority_over_the_whole_pool(name: str, percent: float) -> None:
    rows = load(name)
    assert 100 * sum(vote(row, range(len(row["answers"]))) for row in rows) / len(rows) == percent


def orders(count: int) -> list[list[int]]:
    rng = random.Random(0)
    return [rng.sample(range(16), 16) for _ in range(count)]


def test_majority_grows_with_the_sample_as_published() -> None:
    """The published curve is a mean over 20 shuffles nobody kept; ours over 20 others agrees within the noise."""
    curve = [(POOL_3B, 1, 44.9), (POOL_3B, 2, 46.6), (POOL_3B, 4, 52.4), (POOL_3B, 8, 56.6), (POOL_8B, 16, 60.0)]
    for name, k, published in curve:
        mean = sum(vote(row, order[:k]) for row in load(name) for order in orders(20)) / 20
        assert abs(mean - published) < 0.6, (name, k, mean)


def test_adaptive_consistency_as_published() -> None:
    """Beta criterion at 0.95, asked after every sample: 57.55 % with 11.4 of 16 samples over 20 lost shuffles."""
    rows = load(POOL_3B)
    used = hits = 0
    for order in orders(20):
        for row in rows:
            counts: dict[str, int] = {}
            taken = 0
            for taken, i in enumerate(order, 1):  # noqa: B007 (used after the loop)
                answer = row["answers"][i]
                counts[answer] = counts.get(answer, 0) + bool(answer)
                first, second = [*sorted(counts.values(), reverse=True), 0][:2]
                if lead(first, second) >= 0.95:
                    break
            used += taken
            hits += vote(row, order[:taken])
    assert abs(hits / 20 - 57.55) < 0.6
    assert abs(used / 20 / len(rows) - 11.4) < 0.15


# Step scores of a process reward model


def cotts() -> list[list[dict[str, object]]]:
    """Two samples per question, 500 questions."""
    by_question: dict[int, list[dict[str, object]]] = {}
    for row in load(COTTS):
        by_question.setdefault(row["q"], []).append(row)
    return list(by_question.values())


def steps(row: dict[str, object]) -> Score:
    values = row["value"]
    assert isinstance(values, list)
    return Score(values[-1], tuple(values))


def test_two_samples_single_and_oracle() -> None:
    pairs = cotts()
    assert len(pairs) == 500 and all(len(pair) == 2 for pair in pairs)
    assert sum(bool(row["correct"]) for pair in pairs for row in pair) == 495
    assert sum(any(row["correct"] for row in pair) for pair in pairs) == 307


@pytest.mark.parametrize(("how", "percent"), [("min", 54.6), ("last", 55.0), ("mean", 53.8), ("prod", 52.4)])
def test_best_of_two_under_every_aggregation(how: str, percent: float) -> None:
    hits = 0
    for pair in cotts():
        best = top(nodes(["a", "b"], [steps(row).steps for row in pair]), 1, aggregation=how)[0]
        hits += bool(pair[best.draw]["correct"])
    assert hits / 5 == percent


@pytest.mark.parametrize(("how", "published"), [("min", 0.8625), ("last", 0.860), ("mean", 0.860), ("prod", 0.821)])
def test_area_under_the_curve_of_every_aggregation(how: str, published: float) -> None:
    """Probability that a right sample outscores a wrong one, ties half (Mann-Whitney)."""
    scored = [(aggregate(steps(row), how), bool(row["correct"])) for pair in cotts() for row in pair]
    good = [score for score, ok in scored if ok]
    bad = [score for score, ok in scored if not ok]
    wins = sum((g > b) + (g == b) / 2 for g in good for b in bad)
    assert wins / len(good) / len(bad) == pytest.approx(published, abs=5e-4)


def test_recorded_beam_of_four() -> None:
    """The first record of a question counts; a hundred were run twice."""
    first = {row["q"]: row for row in reversed(load("pools/cotts_qwen2.5-1.5b_beam4_math-shepherd"))}
    assert len(first) == 500
    assert sum(row["correct"] for row in first.values()) / 5 == 58.4
    assert sum(row["tokens"] for row in first.values()) / 500 == 2715.15


def test_outcome_reward_model() -> None:
    rows = load("qwen_rm/math_cot_100")
    best = majorities = 0
    for row in rows:
        scores = [[1 / (1 + math.exp(-score))] for (score,) in row["pred_score"]]
        candidates = nodes(row["pred"], scores)
        best += row["score"][top(candidates, 1)[0].draw]
        voted = majority(groups(candidates))
        majorities += voted is not None and row["score"][voted.draw]
    assert (best, majorities, sum(any(row["score"]) for row in rows)) == (94, 93, 96)
    assert sum(sum(row["score"]) for row in rows) / 8 == 91.0


def test_product_over_step_probabilities() -> None:
    """A neutral step counts as right: one minus the probability of the label -1."""
    example = json.loads((FIXTURES / "prm800k" / "rm_scored_example.json").read_text("utf-8"))
    score = Score(0.0, tuple(1 - step["-1"] for step in example["rating_probs"]))
    assert aggregate(score, "prod") == pytest.approx(0.0915755, abs=5e-8)
    assert aggregate(score, "prod") == pytest.approx(example["prm_score"], rel=1e-12)
