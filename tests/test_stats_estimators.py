"""Estimates at k samples, comparisons, abstention and power against scipy, brute force and simulation."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.errors import ConfigError
from flyweight.stats import (
    RiskPoint,
    best_at_k,
    clustered_mean,
    holm,
    maj_at_k,
    mcnemar,
    pass_at_k,
    problems_needed,
    problems_needed_paired,
    resampled_at_k,
    risk_coverage,
    wilson,
)

scipy_stats = pytest.importorskip("scipy.stats")

Answers = list[str | None]

# Majority and best of n at k


def vote(answers: Sequence[str | None], correct: Sequence[bool], order: Sequence[int]) -> bool:
    """A majority over these samples in this order: the first drawn of the largest classes, its first member graded."""
    counts = Counter(answers[i] for i in order if answers[i] is not None)
    if not counts:
        return False
    winner = max(counts, key=counts.__getitem__)  # the first drawn among equals
    return correct[next(i for i in order if answers[i] == winner)]


def best(scores: Sequence[float], correct: Sequence[bool], order: Sequence[int]) -> bool:
    return correct[max(order, key=scores.__getitem__)]  # the first drawn among equals


def mean_over_all(value: Callable[[Sequence[int]], bool], n: int, k: int) -> float:
    return float(np.mean([value(order) for order in itertools.permutations(range(n), k)]))


pools = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "d", None]), st.booleans()), min_size=1, max_size=6)


@given(pools, st.data())
def test_majority_at_k_equals_every_ordered_draw(pool: list[tuple[str | None, bool]], data: st.DataObject) -> None:
    answers, correct = [a for a, _ in pool], [ok for _, ok in pool]
    k = data.draw(st.integers(1, len(pool)))
    expected = mean_over_all(lambda order: vote(answers, correct, order), len(pool), k)
    assert maj_at_k(answers, correct, k) == pytest.approx(expected, abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=6), st.data())
def test_best_at_k_equals_every_ordered_draw(pool: list[tuple[int, bool]], data: st.DataObject) -> None:
    scores, correct = [float(s) for s, _ in pool], [ok for _, ok in pool]
    k = data.draw(st.integers(1, len(pool)))
    expected = mean_over_all(lambda order: best(scores, correct, order), len(pool), k)
    assert best_at_k(scores, correct, k) == pytest.approx(expected, abs=1e-9)


def test_majority_at_k_by_hand() -> None:
    answers: Answers = ["a", "a", "b", "b", "c"]
    correct = [True, True, False, False, False]
    # Pairs: aa wins (1 of 10), ab is shared (4), ac is shared (2): 1 + 6/2 of 10.
    assert maj_at_k(answers, correct, 2) == pytest.approx(0.4, abs=1e-15)
    assert maj_at_k(answers, correct, 5) == 0.5
    assert maj_at_k([None, None], [True, True], 1) == 0.0
    assert maj_at_k([None, "a"], [False, True], 2) == 1.0


def test_larger_classes_at_k() -> None:
    """Nine samples in classes of 4, 3 and 2: every subset of k, ties shared."""
    answers: Answers = [*"aaaa", *"bbb", *"cc"]
    correct = [a == "b" for a in answers]
    for k in range(1, 10):
        shares = []
        for subset in itertools.combinations(answers, k):
            counts = Counter(subset)
            leaders = [a for a in counts if counts[a] == max(counts.values())]
            shares.append(("b" in leaders) / len(leaders))
        assert maj_at_k(answers, correct, k) == pytest.approx(sum(shares) / len(shares), abs=1e-12)


def test_ends_of_the_curves() -> None:
    rng = random.Random(1)
    correct = [rng.random() < 0.4 for _ in range(256)]
    answers: Answers = ["right" if ok else str(rng.randrange(40)) for ok in correct]
    scores = [rng.random() + ok for ok in correct]  # every right sample outscores every wrong one
    assert maj_at_k(answers, correct, 1) == best_at_k(scores, correct, 1) == pytest.approx(sum(correct) / 256)
    assert maj_at_k(answers, correct, 256) == 1.0
    for k in (2, 16, 128):
        assert best_at_k(scores, correct, k) == pytest.approx(pass_at_k(256, sum(correct), k), abs=1e-12)
        assert 0 <= maj_at_k(answers, correct, k) <= pass_at_k(256, sum(correct), k)


def test_estimates_are_unbiased() -> None:
    """Pools of 8 from a known distribution; the truth at 3 from all 4^3 draws. |z| < 3 over 2,000 pools."""
    chance = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}
    score = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.0}

    def truth(value: Callable[[Sequence[str]], float]) -> float:
        draws = itertools.product(chance, repeat=3)
        return math.fsum(math.prod(chance[x] for x in draw) * value(draw) for draw in draws)

    majority = truth(lambda draw: vote(draw, [x == "a" for x in draw], range(3)))
    top = truth(lambda draw: max(draw, key=score.__getitem__) == "c")
    rng = random.Random(0)
    voted, chosen = [], []
    for _ in range(2000):
        pool = rng.choices(list(chance), list(chance.values()), k=8)
        voted.append(maj_at_k(pool, [x == "a" for x in pool], 3))
        chosen.append(best_at_k([score[x] for x in pool], [x == "c" for x in pool], 3))
    for found, expected in ((voted, majority), (chosen, top)):
        z = (np.mean(found) - expected) / (np.std(found, ddof=1) / math.sqrt(len(found)))
        assert abs(z) < 3


def test_resampling_agrees_with_counting() -> None:
    answers: Answers = [*"aaabbccd", None]
    correct = [a in ("a", "d") for a in answers]
    for k in (1, 4, 9):
        counted = maj_at_k(answers, correct, k)
        drawn = resampled_at_k(lambda order: vote(answers, correct, order), 9, k, resamples=4000, seed=2)
        assert abs(drawn - counted) < 4 * 0.5 / math.sqrt(4000)
    seen: list[tuple[int, ...]] = []

    def watch(order: Sequence[int]) -> float:
        seen.append(tuple(order))
        return 0.0

    resampled_at_k(watch, 9, 4, resamples=50, seed=3)
    resampled_at_k(watch, 9, 4, resamples=50, seed=3)
    assert seen[:50] == seen[50:] and len(seen) == 100
    assert all(len(set(order)) == 4 and set(order) <= set(range(9)) for order in seen)
    assert any(list(order) != sorted(order) for order in seen)


# Intervals


def test_clustered_mean_equals_the_double_sum() -> None:
    """Miller's form: the naive variance plus the covariances of values in the same group."""
    rng = np.random.default_rng(0)
    groups = [list(rng.normal(rng.normal(), 1, size=size)) for size in (4, 1, 7, 3, 3, 2)]
    values = [x for group in groups for x in group]
    n, mean = len(values), float(np.mean(values))
    variance = sum((x - mean) ** 2 for x in values) / n**2
    variance += (
        sum((x - mean) * (y - mean) for g in groups for i, x in enumerate(g) for j, y in enumerate(g) if i != j) / n**2
    )
    half = 1.959963984540054 * math.sqrt(variance * 6 / 5)
    assert clustered_mean(groups) == pytest.approx((mean - half, mean, mean + half), abs=1e-9)


def test_clusters_of_one_give_the_usual_error() -> None:
    values = list(np.random.default_rng(1).normal(size=40))
    error = float(scipy_stats.sem(values))
    low, high = scipy_stats.norm.interval(0.9, loc=np.mean(values), scale=error)
    got = clustered_mean([[x] for x in values], 0.9)
    assert got == pytest.approx((float(low), float(np.mean(values)), float(high)), abs=1e-9)
    # Repeating every sample adds nothing: the interval must not shrink.
    assert clustered_mean([[x] * 8 for x in values], 0.9) == pytest.approx(got, abs=1e-12)


def test_coverage_of_wilson_and_of_clusters() -> None:
    """1,000 benchmarks of 100 problems; with 8 samples each, pretending they are independent covers far too little."""
    rng = np.random.default_rng(4)
    single = rng.binomial(100, 0.6, size=1000)
    held = sum(got.low <= 0.6 <= got.high for got in (wilson(int(c), 100) for c in single))
    assert 930 <= held <= 970
    chances = rng.beta(0.6, 0.4, size=(1000, 100))
    right = rng.binomial(8, chances)
    clustered = naive = 0
    for row in right:
        got = clustered_mean([[1.0] * c + [0.0] * (8 - c) for c in row.tolist()])
        clustered += got.low <= 0.6 <= got.high
        alone = wilson(int(row.sum()), 800)
        naive += alone.low <= 0.6 <= alone.high
    assert 930 <= clustered <= 970
    assert naive < 800


# Comparisons


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_mcnemar_equals_scipy(pairs: list[tuple[bool, bool]]) -> None:
    a, b = [x for x, _ in pairs], [y for _, y in pairs]
    got = mcnemar(a, b)
    only_a, only_b = sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs)
    assert (got.only_a, got.only_b) == (only_a, only_b)
    expected = scipy_stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert got.p == pytest.approx(float(expected), abs=1e-9)
    assert mcnemar(b, a) == (only_b, only_a, got.p)


def test_mcnemar_by_hand_and_far_out() -> None:
    assert mcnemar([True] * 6, [False] * 6) == (6, 0, 2 / 64)
    assert mcnemar([True, False], [False, True]).p == 1.0
    far = mcnemar([True] * 3000, [False] * 3000)
    assert far.p == pytest.approx(2.0**-2999) and mcnemar([], []) == (0, 0, 1.0)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_equals_its_definition(ps: list[float]) -> None:
    """Step down: at any level the adjusted values reject what the procedure rejects."""
    adjusted = holm(ps)
    for level in (0.01, 0.05, 0.3, *(p for p in adjusted if p < 1)):
        rejected = set()
        for done, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
            if (len(ps) - done) * ps[index] > level:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02], abs=1e-15)
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


# Abstention


def test_risk_coverage_by_hand() -> None:
    confidence = [0.9, 0.5, None, 0.9, 0.7]
    correct = [True, False, True, False, True]
    assert risk_coverage(confidence, correct) == [
        RiskPoint(0.9, 0.4, 1 / 2),
        RiskPoint(0.7, 0.6, 1 / 3),
        RiskPoint(0.5, 0.8, 2 / 4),
    ]
    assert risk_coverage([], []) == risk_coverage([None], [True]) == []


@given(st.lists(st.tuples(st.sampled_from([None, 0.1, 0.5, 0.9]), st.booleans()), max_size=12))
def test_risk_coverage_equals_asking_at_every_threshold(rows: list[tuple[float | None, bool]]) -> None:
    points = risk_coverage([c for c, _ in rows], [ok for _, ok in rows])
    assert [p.threshold for p in points] == sorted({c for c, _ in rows if c is not None}, reverse=True)
    for point in points:
        given_ = [ok for c, ok in rows if c is not None and c >= point.threshold]
        assert point.coverage == pytest.approx(len(given_) / len(rows))
        assert point.risk == pytest.approx(given_.count(False) / len(given_))


# Power


def test_problems_needed_gives_the_power_it_promises() -> None:
    """Simulated: the z test of two proportions, and that of paired differences, reject 80 +- 3 % of the time."""
    rng = np.random.default_rng(7)
    n = problems_needed(0.55, 0.45)
    a, b = rng.binomial(n, 0.55, size=4000) / n, rng.binomial(n, 0.45, size=4000) / n
    pooled = (a + b) / 2
    assert np.mean(np.abs(a - b) / np.sqrt(2 * pooled * (1 - pooled) / n) > 1.959964) == pytest.approx(0.8, abs=0.03)

    # Disagreement on 20 % of the problems, 12 % against 8 %.
    paired = problems_needed_paired(0.04, math.sqrt(0.2 - 0.04**2))
    wins, losses, _ = rng.multinomial(paired, [0.12, 0.08, 0.8], size=4000).T
    mean = (wins - losses) / paired
    error = np.sqrt(((wins + losses) / paired - mean**2) / (paired - 1))
    assert np.mean(np.abs(mean) / error > 1.959964) == pytest.approx(0.8, abs=0.03)


def test_problems_needed_by_hand() -> None:
    z, power = 1.959963984540054, 0.8416212335729143
    unpaired = ((z * math.sqrt(2 * 0.515 * 0.485) + power * math.sqrt(0.53 * 0.47 + 0.25)) / 0.03) ** 2
    assert problems_needed(0.50, 0.53) == problems_needed(0.53, 0.50) == math.ceil(unpaired) == 4356
    assert problems_needed_paired(0.03, 0.5) == problems_needed_paired(-0.03, 0.5) == 2181
    assert problems_needed_paired(1.0, 0.0) == 2
    # Chance alone claims a difference in 5 of 100 tests: a power below that takes no problems, and never more than it.
    assert [problems_needed(0.5, 0.6, power=power) for power in (0.02, 1e-9)] == [1, 1]
    assert [problems_needed_paired(0.01, 0.5, power=power) for power in (0.02, 1e-9)] == [2, 2]
    assert problems_needed(0.5, 0.53, power=0.9) > 4356 > problems_needed(0.5, 0.53, level=0.9)


def test_mistakes_give_one_line() -> None:
    mistakes: list[Callable[[], object]] = [
        lambda: clustered_mean([[1.0]]),
        lambda: clustered_mean([[1.0], []]),
        lambda: clustered_mean([[1.0], [math.inf]]),
        lambda: mcnemar([True], []),
        lambda: holm([0.5, 1.5]),
        lambda: holm([math.nan]),
        lambda: maj_at_k(["a"], [True], 2),
        lambda: maj_at_k(["a"], [True], 0),
        lambda: maj_at_k(["a"], [True, False], 1),
        lambda: best_at_k([1.0, math.nan], [True, True], 1),
        lambda: best_at_k([], [], 1),
        lambda: resampled_at_k(lambda order: 1.0, 3, 4),
        lambda: resampled_at_k(lambda order: 1.0, 3, 2, resamples=0),
        lambda: risk_coverage([math.nan], [True]),
        lambda: risk_coverage([0.5], []),
        lambda: problems_needed(0.5, 0.5),
        lambda: problems_needed(0.5, 1.2),
        lambda: problems_needed(0.5, 0.6, power=1.0),
        lambda: problems_needed(0.5, 0.6, level=0.0),
        lambda: problems_needed_paired(0.0, 0.5),
        lambda: problems_needed_paired(0.1, -0.5),
        lambda: problems_needed_paired(math.nan, 0.5),
    ]
    for mistake in mistakes:
        with pytest.raises(ConfigError) as caught:
            mistake()
        assert "\n" not in str(caught.value)
