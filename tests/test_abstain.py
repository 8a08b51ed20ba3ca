"""Confidence maps: fitted against brute force, held to what a map is, used by searches, and refused where they lie."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight import abstain, api, models, select, strategies, trace
from flyweight.abstain import ConfidenceMap, Sample, Vote
from flyweight.errors import ConfigError
from flyweight.runner import Runner
from flyweight.select import lead
from flyweight.store import Store
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Budget, Node, Problem, Result, Sampling, Score, Stopped

MAP = ConfidenceMap(
    model="toy",
    sha256="",
    kind="math",
    strategies=("self_consistency", "adaptive_consistency"),
    parameters={"temperature": 0.7},
    verifier="",
    fitted_on="jsonl, calibration",
    questions=100,
    weights=(1.0, 4.0, 0.0),
)
QUESTION = Problem("q", "Say a number.")


def says(*answers: str) -> ToyPolicy:
    """A policy whose draws state these answers, in this order."""
    left = list(answers)

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(f"So \\boxed{{{left.pop(0)}}}", -0.5)

    return ToyPolicy(write, slots=1)


def solve(
    policy: ToyPolicy,
    name: str = "self_consistency",
    budget: Budget | None = None,
    maps: Sequence[ConfidenceMap] = (MAP,),
    judge: RuleVerifier | None = None,
    **parameters: int | float,
) -> Result:
    judges = {} if judge is None else {judge.name: judge}
    runner = Runner(policy, judges, answers=BoxedAnswers(), maps=maps)
    return runner.solve(QUESTION, strategies.bind(name, {"n": 4, **parameters}), budget)


# The map -------------------------------------------------------------------------------------------------------------


def test_the_formula_by_hand() -> None:
    curve = replace(MAP, weights=(0.5, 2.0, 0.25))
    # ln 3/4 twice, a quarter of -ln 1/4.
    z = 0.5 + 2 * math.log(0.75) + 0.25 * math.log(4)
    assert curve(0.75) == pytest.approx(1 / (1 + math.exp(-z)), abs=1e-12)
    assert 0 < curve(0) < curve(1) < 1, "the ends are numbers too"


@given(st.floats(-5, 5), st.floats(0, 8), st.floats(0, 2), st.floats(0, 1), st.floats(0, 1))
def test_it_never_falls(a: float, b: float, c: float, one: float, other: float) -> None:
    curve = replace(MAP, weights=(a, b, c))
    low, high = sorted((one, other))
    assert 0 < curve(low) <= curve(high) <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"weights": (1.0, -0.1, 0.0)},
        {"weights": (1.0, math.nan, 0.0)},
        {"weights": (1.0, 2.0)},
        {"questions": 29},
        {"strategies": ()},
        {"sha256": "abc"},
        {"model": ""},
    ],
)
def test_what_cannot_be_a_map_is_none(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        replace(MAP, **wrong)  # type: ignore[arg-type]


# Fitting -------------------------------------------------------------------------------------------------------------


def drawn(curve: Callable[[float], float], count: int, seed: int = 0) -> list[list[Vote]]:
    """Questions with one vote each, right as often as the curve says."""
    rng = random.Random(seed)
    leads = [lead(rng.randint(1, 16), rng.randint(0, 3)) for _ in range(count)]
    return [[Vote(each, rng.random() < curve(each))] for each in leads]


def loss(weights: tuple[float, float, float], questions: Sequence[Sequence[Vote]]) -> float:
    """What `fit` makes small, written down as it reads."""
    curve = replace(MAP, weights=weights)
    yes = math.fsum(sum(vote.right for vote in votes) / len(votes) for votes in questions)
    targets = {True: (yes + 1) / (yes + 2), False: 1 / (len(questions) - yes + 2)}
    total = 0.0
    for votes in questions:
        for vote in votes:
            p, target = curve(vote.lead), targets[vote.right]
            total -= (target * math.log(p) + (1 - target) * math.log(1 - p)) / len(votes)
    return total


@pytest.mark.parametrize("truth", [(0.0, 3.0, 0.2), (1.0, 0.0, 0.0), (-1.0, 0.0, 0.5), (2.0, 6.0, 0.0)])
def test_no_weights_nearby_are_better(truth: tuple[float, float, float]) -> None:
    questions = drawn(replace(MAP, weights=truth), 60)
    a, b, c = abstain.fit(questions)
    assert b >= 0 and c >= 0
    best = loss((a, b, c), questions)
    rng = random.Random(1)
    for size in (1e-3, 0.03, 0.5) * 40:
        near = (a + rng.gauss(0, size), abs(b + rng.gauss(0, size)), abs(c + rng.gauss(0, size)))
        assert loss(near, questions) >= best - 1e-5, near


def test_the_truth_is_found_with_enough_questions() -> None:
    truth = replace(MAP, weights=(0.3, 3.0, 0.15))
    found = replace(MAP, weights=abstain.fit(drawn(truth, 20_000)))
    for votes, other in ((1, 1), (2, 0), (3, 1), (5, 3), (8, 0), (16, 0)):
        assert found(lead(votes, other)) == pytest.approx(truth(lead(votes, other)), abs=0.03)


def test_leads_that_mean_nothing_get_the_share_of_right_answers() -> None:
    questions = [[Vote(0.9, i < 20), Vote(0.6, i < 20)] for i in range(40)]
    curve = replace(MAP, weights=abstain.fit(questions))
    assert curve(0.6) == pytest.approx(0.5, abs=0.01) and curve(0.9) == pytest.approx(0.5, abs=0.01)


def test_a_lead_that_misleads_is_not_turned_round() -> None:
    """The surer, the more often wrong: the best map that does not fall is level."""
    questions = [[Vote(0.9, i < 10)] for i in range(40)] + [[Vote(0.6, i < 30)] for i in range(40)]
    _, b, c = abstain.fit(questions)
    assert (b, c) == (0, 0)


@pytest.mark.parametrize("right", [True, False])
def test_no_number_of_questions_makes_certain(right: bool) -> None:
    curve = replace(MAP, weights=abstain.fit([[Vote(0.99, right)] for _ in range(40)]))
    assert curve(0.99) == pytest.approx(41 / 42 if right else 1 / 42, abs=1e-3)


def test_questions_count_once_however_many_votes_and_in_whatever_order() -> None:
    questions = drawn(replace(MAP, weights=(0.0, 3.0, 0.1)), 60)
    once = abstain.fit(questions)
    again = [votes * (1 + i % 5) for i, votes in enumerate(questions)]
    random.Random(3).shuffle(again)
    assert abstain.fit(again) == pytest.approx(once, abs=1e-6)


def test_too_few_questions_are_refused() -> None:
    with pytest.raises(ConfigError, match="29 questions with two votes or more: a map needs 30"):
        abstain.fit([[Vote(0.9, True)]] * 29 + [[]] * 10)


# What votes are made of ----------------------------------------------------------------------------------------------


def nodes(samples: Sequence[Sample]) -> list[list[Node]]:
    """The same samples as a search has them: nodes by class."""
    groups: dict[int, list[Node]] = {}
    for i, (group, _, score, logprob) in enumerate(samples):
        if group is not None:
            node = Node(text=str(i), key=str(i), logprobs=(logprob,), score=Score(score), parent=Node(), draw=i)
            groups.setdefault(group, []).append(node)
    return list(groups.values())


SAMPLES = st.lists(
    st.builds(
        Sample,
        st.sampled_from([None, 0, 1, 2]),
        st.booleans(),
        st.sampled_from([1.0, 0.5, 0.25]),
        st.floats(-2, -0.1),
    ),
    max_size=9,
)


@given(SAMPLES)
def test_the_last_vote_is_what_a_search_selects(samples: list[Sample]) -> None:
    found = abstain.votes(samples)
    groups = nodes(samples)
    able = sum(map(len, groups))
    assert len(found) == (abstain.ORDERS * (able - 1) if able > 1 else 0)
    chosen = select.weighted_vote(groups)
    if not found or len({sample.logprob for sample in samples}) < len(samples):
        return  # ties that only the order of draws breaks
    assert chosen is not None
    for last in found[able - 2 :: able - 1]:
        assert last == (select.confidence(groups, chosen), samples[int(chosen.key)].right)


def test_votes_grow_by_one_sample() -> None:
    found = abstain.votes([Sample(0, True)] * 3 + [Sample(None, False)])
    assert found == [Vote(lead(2, 0), True), Vote(lead(3, 0), True)] * abstain.ORDERS


def test_small_votes_stand_for_all_subsets() -> None:
    """Two right and two wrong of one class each: a third of the pairs agree, and half of those are right."""
    samples = [Sample(0, True), Sample(0, True), Sample(1, False), Sample(1, False)]
    pairs = [vote for seed in range(200) for vote in abstain.votes(samples, seed)[::3]]
    agreeing = [vote for vote in pairs if vote.lead == lead(2, 0)]
    assert len(agreeing) / len(pairs) == pytest.approx(1 / 3, abs=0.03)
    assert sum(vote.right for vote in agreeing) / len(agreeing) == pytest.approx(1 / 2, abs=0.05)


# In a search ---------------------------------------------------------------------------------------------------------


def test_a_vote_gets_the_probability_of_its_map() -> None:
    result = solve(says("7", "7", "8", "7"))
    assert (result.answer, result.calibrated, result.sure) == ("7", True, True)
    assert result.confidence == MAP(lead(3, 1))


@pytest.mark.parametrize(
    ("name", "maps", "parameters"),
    [
        ("self_consistency", [], {}),
        ("self_consistency", [MAP], {"temperature": 1.0}),
        ("best_of_n", [MAP], {}),
        ("weighted_best_of_n", [MAP], {}),
    ],
)
def test_elsewhere_the_lead_stays(name: str, maps: list[ConfidenceMap], parameters: dict[str, float]) -> None:
    judge = RuleVerifier(lambda question, solution: [0.5])
    result = solve(says("7", "7", "8", "7"), name, None, maps, judge, **parameters)
    assert (result.confidence, result.calibrated) == (lead(3, 1), False)


def test_an_own_strategy_of_the_same_name_is_another_one() -> None:
    async def self_consistency(search: object) -> None:
        return None

    assert not MAP.holds(self_consistency, "")
    assert MAP.holds(strategies.bind("adaptive_consistency", {"n": 8}), "whatever")
    assert not MAP.holds(strategies.bind("self_consistency", {"policy": "bigger"}), ""), "another model's samples"
    assert not MAP.holds(strategies.bind("self_consistency", {"of": "beam_search"}), ""), "what is no sample at all"


def test_scores_count_for_the_map_of_their_verifier_alone() -> None:
    judge = RuleVerifier(lambda question, solution: [0.9 if "8" in solution else 0.1])
    weighted = replace(MAP, strategies=("weighted_best_of_n",), verifier=judge.name, parameters={"aggregation": "last"})
    result = solve(says("7", "7", "8", "7"), "weighted_best_of_n", maps=[weighted], judge=judge)
    assert (result.answer, result.calibrated) == ("8", True)
    assert result.confidence == MAP(lead(1, 3)), "chosen by its score, it trails the vote"
    other = replace(weighted, verifier="another")
    result = solve(says("7", "7", "8", "7"), "weighted_best_of_n", maps=[other], judge=judge)
    assert (result.confidence, result.calibrated) == (lead(1, 3), False)


def test_the_dial_is_the_probability() -> None:
    wanted = MAP(lead(3, 0))
    result = solve(says(*"7777777"), budget=Budget(confidence=wanted))
    assert (len(result.candidates), result.stopped) == (3, Stopped.CONFIDENT)
    assert (result.confidence, result.calibrated, result.sure) == (wanted, True, True)
    raw = solve(says(*"7777777"), budget=Budget(confidence=wanted), maps=())
    assert len(raw.candidates) == 2 and raw.confidence == lead(2, 0), "the lead is sure sooner"


def test_a_search_that_ends_below_the_dial_is_not_sure() -> None:
    result = solve(says(*"7878"), budget=Budget(confidence=0.5))
    assert (result.stopped, result.answer, result.sure) == (Stopped.DONE, "7", False)
    assert result.confidence == MAP(lead(2, 2)) < 0.5
    alone = solve(says("7"), n=1, budget=Budget(confidence=0.5))
    assert (alone.confidence, alone.sure) == (None, False)
    assert solve(says(*"7878")).sure, "nothing was asked for"


def test_votes_not_yet_weighed_do_not_stop_a_search() -> None:
    judge = RuleVerifier(lambda question, solution: [0.9])
    weighted = replace(MAP, strategies=("weighted_best_of_n",), verifier=judge.name, parameters={})
    result = solve(says(*"7777"), "weighted_best_of_n", Budget(confidence=0.5), [weighted], judge)
    assert (len(result.candidates), result.calibrated, result.sure) == (4, True, True)


# On record -----------------------------------------------------------------------------------------------------------


def test_traces_and_stores_keep_it(tmp_path: Path) -> None:
    strategy, budget = strategies.bind("self_consistency", {"n": 4}), Budget(confidence=0.9)
    with Store(tmp_path / "runs.db") as store, trace.Writer(tmp_path / "trace.jsonl") as writer:
        run = store.run({"of": "this test"})

        def watch(event: object) -> None:
            run(event)  # type: ignore[arg-type]
            writer(event)  # type: ignore[arg-type]

        runner = Runner(says(*"7878"), answers=BoxedAnswers(), maps=[MAP], on_event=watch)
        result = runner.solve(QUESTION, strategy, budget)
        run.finish()
        (kept,) = (search.result for search in store.searches(run.id))
    (traced,) = trace.read(tmp_path / "trace.jsonl")
    assert (result.calibrated, result.sure) == (True, False)
    for back in (kept, traced):
        assert (back.confidence, back.calibrated, back.sure) == (result.confidence, True, False)


def test_records_of_before_read_as_not_calibrated(tmp_path: Path) -> None:
    with trace.Writer(tmp_path / "trace.jsonl") as writer:
        Runner(says(*"7878"), answers=BoxedAnswers(), on_event=writer).solve(
            QUESTION, strategies.bind("self_consistency", {"n": 4})
        )
    lines = (tmp_path / "trace.jsonl").read_text("utf-8")
    assert "calibrated" not in lines and "sure" not in lines, "nothing is written that was not known then"
    (back,) = trace.read(tmp_path / "trace.jsonl")
    assert (back.calibrated, back.sure) == (False, True)


# Files ---------------------------------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    maps = (MAP, replace(MAP, model="other", sha256="ab" * 32, weights=(0.1, 1 / 3, 2e-9)))
    abstain.write(tmp_path / "a.json", maps)
    assert abstain.read(tmp_path / "a.json") == maps


def test_files_that_are_none_say_so_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    abstain.write(path, [MAP])
    whole = path.read_text("utf-8")
    row = json.loads(whole)["maps"][0]
    broken = [
        "",
        "[]",
        "[" * 100_000,
        whole[: len(whole) // 2],
        whole.replace('"format": 1', '"format": 2'),
        whole.replace("4.0", "NaN"),
        whole.replace("4.0", "-4.0"),
        whole.replace("4.0", '"4.0"'),
        whole.replace('"questions"', '"question"'),
        *(json.dumps({"format": 1, "maps": [{**row, name: 7}]}) for name in row if name not in ("questions",)),
        *(json.dumps({"format": 1, "maps": [{k: v for k, v in row.items() if k != name}]}) for name in row),
        json.dumps({"format": 1, "maps": 3}),
    ]
    for text in broken:
        path.write_text(text, "utf-8")
        with pytest.raises(ConfigError) as failure:
            abstain.read(path)
        assert "\n" not in str(failure.value) and "a.json holds no confidence maps" in str(failure.value), text
    with pytest.raises(ConfigError, match=r"cannot read .*No such file"):
        abstain.read(tmp_path / "missing.json")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="holds no confidence maps"):
        abstain.read(path)


def test_the_map_of_the_package_is_of_the_default_model() -> None:
    (shipped,) = abstain.shipped()
    assert (shipped.model, shipped.sha256) == (api.DEFAULT_MODEL, models.default().sha256)
    found = api.find_maps(api.DEFAULT_MODEL, "math")
    assert found[0] == shipped and all(each.strategies == ("auto",) for each in found[1:])
    bound = strategies.bind(api.DEFAULT_STRATEGY)
    assert any(each.holds(bound, api.DEFAULT_VERIFIER) for each in found), "the default says how sure it is"
    assert api.find_maps(api.DEFAULT_MODEL, "choice") == api.find_maps("toy", "math") == ()
    assert api.find_maps("qwen2.5-coder-1.5b", "math") == (), "another file"


def test_a_file_of_the_users_own_is_known_by_its_hash(tmp_path: Path) -> None:
    model, file = tmp_path / "m.gguf", tmp_path / "a.json"
    model.write_bytes(b"GGUF" + bytes(2000))
    own = replace(MAP, model="wherever it was", sha256=hashlib.sha256(model.read_bytes()).hexdigest())
    abstain.write(file, [own])
    assert api.find_maps(str(model), "math", file) == (own,)
    assert api.find_maps(str(model), "math") == (), "none comes with the package"
    model.write_bytes(b"GGUF" + bytes(2001))
    with pytest.raises(ConfigError, match=r"holds for wherever it was \(math\), not for .*m\.gguf"):
        api.find_maps(str(model), "math", file)


def test_a_map_of_another_model_or_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    abstain.write(path, [MAP])
    assert api.find_maps("toy", "math", path) == api.find_maps(ToyPolicy(), "math", path) == (MAP,)
    with pytest.raises(ConfigError, match=r"a\.json holds for toy \(math\), not for toy \(choice\): fit one with"):
        api.find_maps("toy", "choice", path)
    with pytest.raises(ConfigError, match=r"not for qwen2.5-coder-0.5b \(math\)"):
        api.find_maps(api.DEFAULT_MODEL, "math", path)
    abstain.write(path, [replace(MAP, model=api.DEFAULT_MODEL)])
    with pytest.raises(ConfigError, match=r"not for qwen2\.5-coder-0\.5b"):
        api.find_maps(api.DEFAULT_MODEL, "math", path)
    abstain.write(path, [replace(MAP, sha256="ab" * 32)])
    with pytest.raises(ConfigError, match="not for toy"):
        api.find_maps("toy", "math", path)
