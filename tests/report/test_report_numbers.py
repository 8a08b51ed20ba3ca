"""What a report computes, against figures worked out by hand, brute force, recordings and the strategies themselves."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flyweight import select, strategies
from flyweight.bench import counted
from flyweight.bench.graded import identity
from flyweight.report import Report
from flyweight.report.numbers import Section
from flyweight.report.pools import Curve, votes
from flyweight.report.records import Draw, Outcome, Recorded, names, natural, speed
from flyweight.runner import Runner
from flyweight.stats import bootstrap_mean
from flyweight.store import Grader, RunInfo, Store
from flyweight.testing import RuleVerifier, ToyPolicy
from flyweight.types import Grade, Node, Problem, Score, Stopped, Usage
from tests.recorded import NormalAnswers, load, normal
from tests.report.report_kit import Found, Said, configuration, grade, opened, report, small, spent, write
from tests.store_child import rule


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path) as store:
        yield store


def only(made: Report) -> Section:
    (section,) = made.sections
    return section


def curve(section: Section, kind: str, verifier: str | None = None) -> Curve:
    (pool,) = section.pools
    return next(found for found in pool.curves if (found.kind, found.verifier) == (kind, verifier))


def along(found: Curve) -> list[float]:
    return [point.accuracy.value for point in found.points]


# By hand


def test_rows(store: Store) -> None:
    """Wilson of 2 and 3 of 4. Random choice: (2 + 1 + 0 + 1) / 8, groups off by 1, 0, -1, 0 from their mean, so
    1.96 sqrt(4/3 * 2) / 8 = 0.400 around it. FLOPs: 2 P (prompt + generated + verifier). Seconds of what found its
    samples in the store: 40 tokens at the model's (4 * 20 + 4 * 40) / (4 * 0.5 + 4 * 2) = 24 a second."""
    ids = small(store)
    section = only(report(store))
    assert [row.run for row in section.rows] == [ids[name] for name in ("big", "greedy", "majority", "best")]
    majority, best, greedy = (section.row(ids[name]) for name in ("majority", "best", "greedy"))
    assert majority.accuracy == pytest.approx((0.3006, 0.75, 0.9544), abs=1e-4)
    assert best.accuracy == pytest.approx((0.15, 0.5, 0.85), abs=1e-4)
    assert majority.random == best.random == pytest.approx((0.0999, 0.5, 0.9001), abs=1e-4)
    assert majority.coverage == majority.accuracy
    assert greedy.random is greedy.coverage is None
    assert (best.generated_tokens, best.prompt_tokens, best.verifier_tokens) == (40, 10, 30)
    assert (best.flops, best.policy_calls, best.verifier_calls) == (160_000, 2, 2)
    assert (greedy.seconds, majority.seconds) == (0.5, 2)
    assert best.seconds == pytest.approx(40 / 24)
    assert (best.peak_kv_bytes, best.candidates, best.undecided, best.truncated) == (4000, 8, 0, 1)
    assert greedy.parameters == 1000 and section.row(ids["big"]).parameters == 4000
    assert [(entry.model, entry.runs) for entry in section.bigger] == [("m", (ids["big"],))]


def test_differences(store: Store) -> None:
    """Majority alone has b: +1/4. Of 4 draws from (0, 1, 0, 0), none or one has mean 1 in 0.4 % and 3/4 in 4.7 %, so
    the upper 2.5 % begin at 3/4. sd 1/2: 2.8016 / 2 / sqrt(4) visible, (2.8016 * 2)^2 = 31.4 problems needed."""
    ids = small(store)
    first, second = only(report(store)).differences
    assert (first.run, first.baseline, first.problems) == (ids["majority"], ids["greedy"], 4)
    assert tuple(first.difference) == (0, 0.25, 0.75)
    assert (first.only_run, first.only_baseline, first.p, first.holm) == (1, 0, 1, 1)
    assert first.visible == pytest.approx(2.8016 / 4, abs=1e-4) and first.needed == 32
    assert second.run == ids["best"] and tuple(second.difference) == (0, 0, 0) and second.needed is None


def test_holm_counts_the_rows(store: Store) -> None:
    """Six problems that one run alone gets right: p = 2 / 64; a second row doubles the smaller p."""
    wrong = {f"p{i}": Found([Said("W")]) for i in range(6)}
    right = {f"p{i}": Found([Said("R")]) for i in range(6)}
    ids = [write(store, "greedy", wrong), write(store, "dvts", right), write(store, "beam_search", wrong)]
    found = {entry.run: entry for entry in only(report(store)).differences}
    assert found.keys() == set(ids[1:])
    assert (found[ids[1]].p, found[ids[1]].holm) == (2 / 64, 4 / 64)
    assert (found[ids[2]].p, found[ids[2]].holm) == (1, 1)


def test_another_baseline(store: Store) -> None:
    ids = small(store)
    section = only(report(store, baseline=ids["best"]))
    assert {entry.run for entry in section.differences} == {ids["greedy"], ids["big"], ids["majority"]}
    assert {entry.baseline for entry in section.differences} == {ids["best"]}
    assert {entry.baseline for entry in section.greedy} == {ids["greedy"]}, "losing to greedy is said all the same"
    assert only(report(store, ids["greedy"], baseline=ids["best"])).rows[1].run == ids["best"]


def test_without_greedy_the_first_row_of_the_model_is_the_baseline(store: Store) -> None:
    ids = small(store)
    section = only(report(store, ids["majority"], ids["best"], ids["big"]))
    assert [(entry.run, entry.baseline) for entry in section.differences] == [(ids["best"], ids["majority"])]


def test_curves(store: Store) -> None:
    """At 2: coverage a, b, d; majority shares the tie in b, and d's truncated sample does not vote; the verifier
    takes b's wrong one."""
    ids = small(store)
    section = only(report(store))
    (pool,) = section.pools
    assert (pool.n, pool.problems, set(pool.runs)) == (2, 4, {ids["majority"], ids["best"]})
    assert along(curve(section, "random")) == [0.5, 0.5]
    assert along(curve(section, "coverage")) == [0.5, 0.75]
    assert along(curve(section, "majority")) == [0.5, 0.625]
    assert along(curve(section, "best", "v")) == along(curve(section, "vote", "v")) == [0.5, 0.5]
    assert curve(section, "majority").values == ((1, 0.5, 0, 0.5), (1, 0.5, 0, 1))


def test_cost_along_curves(store: Store) -> None:
    """2 P (prompt + k generated / n + k verifier / n); seconds at the speed of the run, or else of the model."""
    small(store)
    section = only(report(store))
    for kind, verifier, flops, rate in (
        ("majority", None, (60_000, 100_000), 20),
        ("best", "v", (90_000, 160_000), 24),
    ):
        points = curve(section, kind, verifier).points
        assert tuple(point.flops for point in points) == pytest.approx(flops)
        assert [point.tokens for point in points] == [20, 40]
        assert [point.seconds for point in points] == pytest.approx([20 / rate, 40 / rate])


@pytest.mark.parametrize("size", [0, 14_000])
@pytest.mark.parametrize("judged", [1, 3])
def test_a_verifier_of_another_size_is_charged_apart(store: Store, size: int, judged: int) -> None:
    """1,000 parameters, 10 prompt and 40 generated tokens: 2,000 (10 + 20 k), whichever run is the larger; the 30
    tokens of the verifier cost 30 x size for each of two samples. A model of 3,000 parameters is the bigger one."""
    alone = spent(1000, 10, 40, 1.0)
    asked = replace(spent(1000, 10, 40, 1.0, 30), flops=alone.flops + 2 * size * 30)
    said = [Said("R", 0, 0.5), Said("W", 1, 0.5)]
    for name, count, usage, verifier in (("self_consistency", 2, alone, None), ("best_of_n", judged, asked, "v")):
        found = {f"p{i}": Found(said, usage=usage) for i in range(count)}
        write(store, name, found, n=2, verifier=verifier)
    big = write(store, "greedy", {"p0": Found([Said("R")], usage=spent(3000, 10, 20, 1.0))}, model="big")
    section = only(report(store))
    for kind in ("random", "coverage", "majority"):
        assert [point.flops for point in curve(section, kind).points] == pytest.approx([60_000, 100_000])
    by_verifier = [60_000 + 30 * size, 100_000 + 60 * size]
    assert [point.flops for point in curve(section, "best", "v").points] == pytest.approx(by_verifier)
    assert [(entry.model, entry.runs) for entry in section.bigger] == [("m", (big,))]
    assert {row.parameters for row in section.rows} == {1000, 3000}


def test_seconds_are_those_of_the_same_strategy_if_any(store: Store) -> None:
    usage = spent(1000, 10, 100, 2.0)
    drew = write(store, "dvts", {"a": Found([Said("R")], usage=usage)}, n=4, seed=1)
    write(store, "greedy", {"a": Found([Said("R")], usage=spent(1000, 10, 100, 1.0))})
    found = write(store, "dvts", {"a": Found([Said("R")], usage=usage)}, n=4, drawn=False)
    assert only(report(store, found)).row(found).seconds == only(report(store, drew)).row(drew).seconds == 2.0


def test_no_seconds_where_nothing_was_drawn(store: Store) -> None:
    run = write(store, "greedy", {"a": Found([Said("R")], usage=spent(1000, 10, 100, 2.0))}, drawn=False)
    made = report(store)
    assert only(made).row(run).seconds is None
    assert "| – | 1 | 0 | 4 kB |" in made.markdown()


def test_score_of_the_chosen(store: Store) -> None:
    """One of a: (.9 + .8) / 2, b .45, c .45, d .7 / 2 as an unscored one counts 0; of two the higher each."""
    small(store)
    first, second = curve(only(report(store)), "best", "v").points
    assert first.score == pytest.approx(0.525) and second.score == pytest.approx(0.675)


def test_points_lie_within_bootstrap_intervals_over_problems(store: Store) -> None:
    small(store)
    found = curve(only(report(store)), "coverage")
    assert found.points[1].accuracy == bootstrap_mean([1, 1, 0, 1], resamples=2000)


def test_strata_and_their_order(store: Store) -> None:
    ids = small(store)
    section = only(report(store))
    assert section.strata.keys() == {"level"}
    mine = [entry for entry in section.strata["level"] if entry.run == ids["majority"]]
    assert [(entry.value, entry.problems, entry.accuracy.value) for entry in mine] == [("2", 2, 1), ("10", 2, 0.5)]
    assert sorted(["10", "9", "a10", "a9", "Level ?"], key=natural) == ["9", "10", "Level ?", "a9", "a10"]


def test_abstention(store: Store) -> None:
    """Confidence .9 right, .8 wrong, .5 right, and one that never answers."""
    ids = small(store)
    found = only(report(store)).abstention
    assert {entry.run for entry in found} == {ids["majority"]}
    assert [(entry.wanted, entry.answered) for entry in found] == [(0.25, 1), (0.5, 2), (0.75, 3), (1, 3)]
    assert [entry.accuracy.value for entry in found] == pytest.approx([1, 1 / 2, 2 / 3, 2 / 3])


# Which runs belong together


SPREAD = {f"p{i}": Found([Said(f"{'RW'[(i + j) % 2]}{j}", j % 2) for j in range(4)]) for i in range(3)}


def shifted(n: int, text: str = "") -> dict[str, Found]:
    return {
        id: Found([said._replace(text=said.text + text, score=0.5) for said in found.said[:n]])
        for id, found in SPREAD.items()
    }


def test_runs_that_share_draws_are_one_pool_whatever_their_n(store: Store) -> None:
    large = write(store, "self_consistency", SPREAD, n=4)
    small = write(store, "best_of_n", shifted(2), n=2, verifier="v")
    section = only(report(store))
    (pool,) = section.pools
    assert pool.runs == (large, small) and pool.n == 4
    assert len(curve(section, "majority").points) == 4 and len(curve(section, "best", "v").points) == 2


def test_equal_keys_with_other_texts_are_other_draws(store: Store) -> None:
    """A key is a place in the search: another seed or temperature draws another text there."""
    large = write(store, "self_consistency", SPREAD, n=4)
    write(store, "best_of_n", shifted(2, "!"), n=2, verifier="v")
    (pool,) = only(report(store)).pools
    assert pool.runs == (large,) and len(pool.curves) == 3


def test_a_run_with_a_budget_is_no_pool(store: Store) -> None:
    write(store, "self_consistency", SPREAD, n=4, budget={"tokens": 100})
    section = only(report(store))
    assert section.pools == () and section.rows[0].label == "self_consistency n=4, 100 tokens"


def test_a_failed_search_leaves_the_pool_and_stays_in_the_row(store: Store) -> None:
    failed = {**SPREAD, "p1": Found([], None, stopped=Stopped.ERROR)}
    run = write(store, "self_consistency", failed, n=4)
    section = only(report(store))
    assert section.pools[0].problems == 2
    row = section.row(run)
    assert (row.problems, row.failed, row.candidates) == (3, 1, 8)
    assert row.accuracy.value == pytest.approx(2 / 3), "p0 and p2 begin with a right one, p1 failed"
    assert row.random is not None and row.random.value == 0.5


def test_an_interrupted_search_is_as_good_as_not_begun(store: Store) -> None:
    run = write(store, "self_consistency", {**SPREAD, "p1": SPREAD["p1"]._replace(stopped=Stopped.INTERRUPTED)}, n=4)
    section = only(report(store))
    assert (section.problems, section.row(run).problems, section.row(run).candidates) == (2, 2, 8)


def test_counted_as_the_other_commands_count(store: Store) -> None:
    """`bench show` and the report say the same of a run with all kinds of searches."""
    found = {
        **SPREAD,
        "p3": Found([], None, stopped=Stopped.ERROR),
        "p4": SPREAD["p1"]._replace(stopped=Stopped.INTERRUPTED),
        "p5": Found([Said("U0"), Said("R1T", None)]),
    }
    run = write(store, "self_consistency", found, n=4)
    row = only(report(store)).row(run)
    grades = store.grader(grade, identity({"task": "letters"}))
    for search in store.searches(run):
        grades.grades(search.result.problem, [c.node for c in search.result.candidates if c.answer is not None])
    (info,) = store.runs()
    questions = counted.Counted.of(store, info).questions
    assert row.problems == len(questions) == 5
    assert row.accuracy == counted.accuracy(questions) and row.coverage == counted.coverage(questions)
    assert row.random == counted.random_choice(questions)


def test_sections_by_task_and_problems(store: Store) -> None:
    for sha in "ab":
        for task in ("one", "two"):
            write(store, "greedy", SPREAD, task=task, problems_sha256=sha)
    found = [(section.task, section.problems_sha256) for section in report(store).sections]
    assert found == [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")]


def test_runs_of_one_name_are_told_apart_by_what_differs(store: Store) -> None:
    for temperature in (0.7, 1.0):
        write(store, "self_consistency", SPREAD, parameters={"n": 4, "temperature": temperature})
    write(store, "dvts", SPREAD)
    labels = {row.label for row in only(report(store)).rows}
    assert labels == {"self_consistency n=4, temperature=0.7", "self_consistency n=4, temperature=1.0", "dvts"}


def test_models_of_one_name_are_told_apart_by_their_weights() -> None:
    def info(model: str, weights: str) -> RunInfo:
        return RunInfo("", {"model": model}, {model: weights}, (), 0.0, None, None)

    found = names([info("a/x.gguf", "sha256:1234567890 file"), info("b/x.gguf", "sha256:abcdefabcd file")])
    assert sorted(found.values()) == ["x.gguf (12345678 file)", "x.gguf (abcdefab file)"]
    alike = names([info("a/x.gguf", "sha256:1 file"), info("b/x.gguf", "sha256:1 file"), info("hf:o/r/y.gguf", "")])
    assert sorted(alike.values()) == ["hf:o/r/y.gguf", "x.gguf"]


def test_a_failed_search_does_not_part_runs_that_share_the_others(store: Store) -> None:
    large = write(store, "self_consistency", {**SPREAD, "p1": Found([], None, stopped=Stopped.ERROR)}, n=4)
    small = write(store, "best_of_n", shifted(2), n=2, verifier="v")
    (pool,) = only(report(store)).pools
    assert pool.runs == (large, small) and pool.problems == 2


def test_a_run_that_has_only_begun_does_not_shrink_the_pool(store: Store) -> None:
    large = write(store, "self_consistency", SPREAD, n=4)
    for verifier, problems in (("half", 2), ("begun", 1)):
        found = dict(list(shifted(4).items())[:problems])
        write(store, "best_of_n", found, n=4, verifier=verifier, finish=False)
    longer = {"p0": Found([*SPREAD["p0"].said, Said("R4")])}
    write(store, "self_consistency", longer, n=5, finish=False)
    (pool,) = only(report(store)).pools
    assert (pool.n, pool.problems, pool.runs[0]) == (4, 2, large)
    assert {found.verifier for found in pool.curves} == {None, "half"}


def test_what_has_no_score_is_never_chosen(store: Store) -> None:
    """One right sample without a score, one wrong with: nobody is right, whichever is drawn."""
    write(store, "best_of_n", {"p": Found([Said("R", 0), Said("W", 1, 0.1)], best=1)}, n=2, verifier="v")
    section = only(report(store))
    assert along(curve(section, "best", "v")) == along(curve(section, "vote", "v")) == [0, 0]


def test_a_model_of_the_same_size_is_no_bigger_one(store: Store) -> None:
    found = {"p": Found([Said("R")], usage=spent(1000, 1, 1, 1.0))}
    write(store, "dvts", found)
    write(store, "greedy", found, model="big")
    assert [(entry.model, entry.runs) for entry in only(report(store)).bigger] == [("m", ())]


def test_a_smaller_model_is_no_bigger_one(store: Store) -> None:
    ids = small(store)
    write(store, "best_of_n", {"a": Found([Said("R")], usage=spent(4000, 1, 1, 1.0))}, n=1, model="big", verifier="v")
    found = only(report(store)).bigger
    assert [(entry.model, entry.runs) for entry in found] == [("m", (ids["big"],))]
    assert [entry.runs for entry in only(report(store, ids["greedy"], ids["majority"])).bigger] == [()]


# Against brute force, the strategies and recordings


def drawn(rng: random.Random, n: int) -> list[Draw]:
    """Draws with many ties in score and confidence; some without an answer or a score."""
    return [
        Draw(
            str(i),
            rng.random() < 0.5,
            False,
            False,
            rng.choice((None, 0, 1, 1, 2)),
            rng.choice((None, 0.0, 0.5, 0.5, 1.0)),
            rng.choice((-1.0, -2.0)),
        )
        for i in range(n)
    ]


def test_a_vote_chooses_as_the_strategy_does_in_every_order() -> None:
    rng = random.Random(1)
    for _ in range(20):
        draws = drawn(rng, 5)
        orders = np.asarray(list(itertools.permutations(range(5))))
        found = votes(draws, orders)
        nodes = [
            Node(Node(), "x", (1,), (draw.logprob,), score=None if draw.score is None else Score(draw.score), draw=i)
            for i, draw in enumerate(draws)
        ]
        for row, order in enumerate(orders):
            for k in (1, 2, 3, 5):
                groups: dict[int, list[Node]] = {}
                for i in sorted(order[:k]):
                    group = draws[i].group
                    if group is not None and draws[i].score is not None:
                        groups.setdefault(group, []).append(nodes[i])
                best = select.weighted_vote(list(groups.values()))
                assert found[row, k - 1] == (best is not None and draws[nodes.index(best)].right)


def test_at_all_samples_the_curves_are_the_strategies(tmp_path: Path) -> None:
    """The toy model, a verifier that errs: what best_of_n and weighted_best_of_n chose is the end of their curves."""
    problems = [Problem(f"p{i}", f"Add {i} and {i + 2} and {3 * i}.", answer=str(5 * i + 2)) for i in range(12)]
    with opened(tmp_path) as store:
        for name in ("self_consistency", "best_of_n", "weighted_best_of_n"):
            bound = strategies.bind(name, {"n": 6})
            verifier = None if name == "self_consistency" else "rule"
            run = store.run(configuration(name, parameters={"n": 6}, verifier=verifier, task="jsonl"))
            judge = store.verifier(RuleVerifier(rule), identity="rule")
            policy = store.policy(ToyPolicy())
            list(Runner(policy, {"rule": judge}, answers=NormalAnswers(), on_event=run).run(problems, bound))
            run.finish()

        def grading(store: Store, info: RunInfo) -> Grader:
            return store.grader(
                lambda problem, text: Grade("correct" if f"{{{problem.answer}}}" in text else "wrong"), "sums"
            )

        section = only(Report.of(store, [info.id for info in store.runs()], grading))
    accuracy = {row.strategy: row.accuracy.value for row in section.rows}
    assert 0 < accuracy["best_of_n"] != accuracy["weighted_best_of_n"] < 1
    assert along(curve(section, "best", "rule"))[-1] == pytest.approx(accuracy["best_of_n"])
    assert along(curve(section, "vote", "rule"))[-1] == pytest.approx(accuracy["weighted_best_of_n"])
    coverage = section.row(section.pools[0].runs[0]).coverage
    assert coverage is not None and along(curve(section, "coverage"))[-1] == pytest.approx(coverage.value)


def recorded_pool(name: str, most: int = 100) -> Report:
    outcomes = {}
    for number, row in enumerate(load(name)[:most]):
        classes: dict[str, int] = {}
        draws = []
        for i, (answer, right) in enumerate(zip(row["answers"], row["correct"], strict=True)):
            said = normal(answer) if answer else ""
            group = classes.setdefault(said, len(classes)) if said else None
            draws.append(Draw(f"{number} {i}", right, False, False, group, None, 0.0))
        outcomes[f"{number:03}"] = Outcome(draws[0].right, False, True, None, Usage(), tuple(draws), {})
    n = len(draws)
    info = RunInfo("r", configuration("self_consistency", parameters={"n": n}), {}, (), 0.0, 1.0, len(outcomes))
    return Report.made([Recorded(info, "m", outcomes, None)])


def test_curves_of_a_recorded_pool_are_as_published() -> None:
    """pass@k exactly, as printed by who recorded them; majority within their 20 shuffles; 44.6 % of 1,600 right."""
    section = only(recorded_pool("pools/math500first100_llama3.2-3b_n16"))
    coverage, majority = along(curve(section, "coverage")), along(curve(section, "majority"))
    assert [round(100 * coverage[k - 1], 1) for k in (1, 2, 4, 8, 16)] == [44.6, 55.9, 64.8, 73.0, 81.0]
    for k, published in ((1, 44.9), (2, 46.6), (4, 52.4), (8, 56.6), (16, 58.0)):
        assert abs(100 * majority[k - 1] - published) < 0.6
    assert along(curve(section, "random")) == pytest.approx([0.44625] * 16)
    random_choice = section.rows[0].random
    assert random_choice is not None and random_choice.value == pytest.approx(0.44625)
    assert len(coverage) == 16 and section.rows[0].coverage is not None
    assert section.rows[0].coverage.value == pytest.approx(0.81)


def test_points_of_a_large_pool_thin_out() -> None:
    section = only(recorded_pool("pools/math500first10_llama3.2-3b_n256", 2))
    ks = [point.k for point in curve(section, "coverage").points]
    assert ks[:32] == list(range(1, 33)) and ks[-1] == 256 and len(ks) == 44
    assert {64, 128} <= set(ks) and all(math.isclose(b / a, 2**0.25, rel_tol=0.02) for a, b in
                                        itertools.pairwise(ks[31:]))  # fmt: skip


def test_json_holds_what_was_computed(store: Store) -> None:
    ids = small(store)
    read = json.loads(report(store).json(), parse_constant=lambda name: pytest.fail(name))
    (section,) = read["sections"]
    assert {row["run"]: row["accuracy"]["value"] for row in section["rows"]}[ids["majority"]] == 0.75
    assert [point["k"] for point in section["pools"][0]["curves"][0]["points"]] == [1, 2]
    assert read["runs"][0]["models"] == {"m": "sha256:" + "ab" * 32 + " file"}
    assert read["runs"][0]["repeat"] == f"flyweight bench resume {read['runs'][0]['id']}"


def test_a_run_that_found_everything_recorded_tells_no_speed() -> None:
    """Its seconds went into reading for a verifier: the other's 90 tokens took 3 s."""

    def run(tokens: int, seconds: float) -> RunInfo:
        facts = ({"generated_tokens": str(tokens), "seconds": str(seconds)},)
        return RunInfo("", {"model": "m", "strategy": "greedy"}, {"m": "w"}, facts, 0.0, None, None)

    again, drawn = run(0, 540.0), run(90, 3.0)
    assert speed(again, 90, [again]) is None
    assert speed(again, 90, [again, drawn]) == pytest.approx(90 / 3)
