"""The planner's arithmetic by hand: what a choice takes, which are kept, which one is recommended and why."""

from __future__ import annotations

import functools
import math
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import models, strategies
from flyweight.errors import ConfigError, ModelError
from flyweight.optimal import bigger, evidence, planner, speed, told, verdict
from flyweight.optimal.evidence import Known
from flyweight.optimal.speed import Speed, scaled
from flyweight.optimal.units import bytes_of, count, dollars, duration, seconds_of, size
from flyweight.optimal.work import Work
from flyweight.stats import wilson
from tests.planner_kit import SPEED, choice, machine, options, said

LISTED = [Known("small", parameters=1e9), Known("big", parameters=3e9, kv_bytes=2000.0)]
ROWS = [
    said(),
    said(strategy="self_consistency", n=4, right=(0.4, 0.5, 0.6)),
    said(strategy="self_consistency", n=32, right=(0.5, 0.6, 0.7)),
    said("big", right=(0.45, 0.55, 0.65)),
]


# Amounts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bytes"),
    [("2GB", 2e9), ("500 MB", 5e8), ("1.5gb", 1.5e9), (" 2 GiB ", 2 << 30), ("1,000kb", 1e6), (".5GB", 5e8)],
)
def test_sizes_are_read_as_people_write_them(text: str, bytes: float) -> None:
    assert bytes_of(text) == bytes


def test_times_and_counts() -> None:
    assert [seconds_of(text) for text in ("10s", "2min", "500ms", "1 h", "3")] == [10, 120, 0.5, 3600, 3]
    assert [count(text, "--n") for text in ("20k", "5M", "1.5 B", "12", "1_000")] == [2e4, 5e6, 1.5e9, 12, 1000]


@pytest.mark.parametrize("text", ["2XB", "2", "", "GB", "-1GB", "0GB", "1e3GB", "nanGB", "infGB", "2 GB RAM"])
def test_anything_else_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError, match="--memory") as caught:
        bytes_of(text)
    assert "\n" not in str(caught.value)


def test_a_comma_is_no_decimal_sign() -> None:
    assert (bytes_of("1,500GB"), bytes_of("12,345,678b")) == (1.5e12, 12345678)
    for text in ("1,5GB", "1,50GB", "0,500GB", "1,2345GB", "1,000,5GB", ",5GB"):
        with pytest.raises(ConfigError, match=r"^--memory '.*' is not understood: .*; the decimal sign is a point$"):
            bytes_of(text)


def test_amounts_are_written_shortly() -> None:
    assert [size(1.234e9), size(5e7)] == ["1.23 GB", "50 MB"]
    amounts = ["50 ms", "10.0 s", "99.0 s", "130 s", "12 min", "2.0 h"]
    assert [duration(s) for s in (0.05, 9.96, 99, 130, 720, 7200)] == amounts
    assert [dollars(x) for x in (0.0000231, 0.5, 3, 1234.5)] == ["$0.000023", "$0.50", "$3.00", "$1,234"]


# What a choice takes --------------------------------------------------------------------------------------------------


def test_seconds_and_bytes_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ROWS[:2], {"small": SPEED}, LISTED)
    greedy, vote = planner.choices(options(context=1000, questions=11, hour=3.6))
    assert greedy.evidence.label == "greedy"
    # 0.5 s and 10 ms for the prompt, 100 steps of one row at 10 ms; four rows at 20 ms.
    assert greedy.seconds == pytest.approx(0.51 + 1.0) and vote.seconds == pytest.approx(0.51 + 2.0)
    # A GB, a MB for each of two slots (the fewest measured), 1,000 tokens of KV at 1,000 bytes, and ten earlier
    # questions of 110 tokens.
    assert greedy.memory == pytest.approx(1e9 + 2e6 + 1e6 + 10 * 110 * 1000)
    assert vote.memory == pytest.approx(1e9 + 4e6 + 4e6 + 10 * 410 * 1000)
    assert (vote.slots, vote.kv, vote.flops) == (4, 4e6, 2 * 1e9 * 410)
    assert vote.dollars == pytest.approx(vote.seconds * 3.6 / 3600)
    # In company every step has 32 rows: 400 tokens at 80 ms for 32 of them.
    assert vote.together == pytest.approx(10 * 0.001 + 400 * 0.08 / 32)
    assert "--slots 4 --context 1000" in replace(vote, known=Known("small", path="a.gguf")).command


def test_the_models_of_the_catalog_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """KV: layers x heads x width x 2 (keys and values) x 2 bytes, of each of 4 slots of 2,048 tokens."""
    known = {each.name: each for each in told.published()}
    shapes = {"qwen2.5-coder-0.5b": (24, 2, 64), "qwen2.5-coder-1.5b": (28, 2, 128)}
    rows = [said(name, "self_consistency", 4) for name in shapes]
    here = {"qwen2.5-coder-0.5b": replace(SPEED, kv_bytes=12_288.0)}
    machine(monkeypatch, rows, here, [known[name] for name in shapes])
    monkeypatch.setattr(
        planner, "_path", lambda known, failures: Path("qwen2.5-coder-0.5b.gguf") if "0.5b" in known.name else None
    )
    monkeypatch.setattr(speed, "known", lambda path, form: here["qwen2.5-coder-0.5b"])
    found = {each.model: each for each in planner.choices(options())}
    for name, (layers, heads, width) in shapes.items():
        assert found[name].kv == 4 * 2048 * layers * heads * width * 2 * 2
        assert found[name].flops == 2 * models.catalog()[name].parameters * 410
    assert {found[name].kv for name in shapes} == {100_663_296, 234_881_024}
    assert found["qwen2.5-coder-0.5b"].flops == 405_106_869_760


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (said(), "--strategy greedy"),
        (said(strategy="best_of_n", n=4, verifier="self"), "--strategy best_of_n -n 4 --verifier self"),
        (
            said(
                strategy="beam_search", verifier="all:form:arithmetic", parameters={"n": 8, "width": 2, "unique": True}
            ),
            "--strategy beam_search -n 8 --set width=2 --set unique=True --verifier all:form:arithmetic",
        ),
        (
            said(strategy="beam_search", parameters={"n": 8, "width": 4, "temperature": 0.8}),
            "--strategy beam_search -n 8",
        ),
        (
            said(strategy="self_consistency", parameters={"n": 8, "aggregation": "last"}),
            "--strategy self_consistency -n 8",
        ),
        (
            said(strategy="auto", parameters={"budget_tokens": 4000, "calibration": "my own.json"}, max_tokens=1024),
            "--strategy auto --budget-tokens 4000 --set 'calibration=my own.json' --max-tokens 1024",
        ),
    ],
)
def test_the_command_runs_what_was_counted(row: evidence.Evidence, words: str) -> None:
    command = replace(choice(row, 1.0), known=Known("small", path="my models/a.gguf")).command
    given = shlex.split(command)
    assert command.startswith(f"flyweight solve QUESTION --model 'my models/a.gguf' {words} --weights file --slots 1 ")
    settings = dict(given[place + 1].split("=") for place, word in enumerate(given) if word == "--set")
    strategy = strategies.bind(row.strategy, {**settings, **({"n": row.n} if "-n" in given else {})})
    assert isinstance(strategy, functools.partial)
    bound = strategy.keywords
    assert all(bound[key] == value for key, value in row.parameters.items() if key in bound)


def test_a_command_for_programs_and_for_a_model_that_is_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [said(task="mbpp"), said("big", task="mbpp"), said(strategy="best_of_n", n=4, task="mbpp", verifier="tests")]
    listed = [replace(each, path=f"{each.name}.gguf") for each in LISTED]
    machine(monkeypatch, rows, {"small": SPEED}, listed)
    found = {each.label: each.command for each in planner.choices(options(task="mbpp"))}
    assert all("--tests FILE" in command for command in found.values())
    assert found["big file greedy"].startswith("flyweight models pull big.gguf && flyweight solve QUESTION --model big")
    assert found["small file greedy"].startswith("flyweight solve QUESTION")


def test_other_settings_are_other_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [said(strategy="best_of_n", parameters={"n": 8, "temperature": heat}) for heat in (0.7, 1.0)]
    machine(monkeypatch, rows, {"small": SPEED}, LISTED)
    labels = [each.evidence.label for each in planner.choices(options())]
    assert labels == ["best_of_n n=8", "best_of_n n=8 temperature=1.0"]


def test_a_context_that_holds_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ROWS, {"small": SPEED}, LISTED)
    assert planner.choices(options(context=110))
    with pytest.raises(
        ConfigError, match="--context 109 is too short: a question of gsm8k and one answer take 110 tok"
    ):
        planner.choices(options(context=109))


def test_a_model_that_cannot_be_measured_is_not_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(path: Path, form: str, tell: object) -> Speed:
        if path.stem == "broken":
            raise ModelError("broken.gguf does not load")
        return SPEED

    machine(monkeypatch, ROWS, {}, LISTED)
    there = [models.Installed(name, Path(f"{name}.gguf"), 1, "") for name in ("broken", "other")]
    monkeypatch.setattr(models, "installed", lambda: there)
    monkeypatch.setattr(speed, "measure", measured)
    assert all("estimated from other" in each.notes[0] for each in planner.choices(options()))
    monkeypatch.setattr(models, "installed", lambda: there[:1])
    with pytest.raises(ModelError, match=r"measure this machine with \(broken file: broken.gguf does not load\)"):
        planner.choices(options())


def test_what_is_kept_of_earlier_questions_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ROWS[:1], {"small": SPEED}, LISTED)
    (greedy,) = planner.choices(options(questions=10**6))
    assert greedy.parked == 288 << 20


def test_a_model_that_is_not_here_is_estimated_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ROWS, {"small": SPEED}, LISTED)
    big = next(c for c in planner.choices(options()) if c.model == "big")
    small = next(c for c in planner.choices(options()) if c.model == "small" and c.evidence.strategy == "greedy")
    assert big.seconds == pytest.approx(0.5 + 3 * (small.seconds - 0.5))
    assert "estimated from small" in big.notes[0] and not small.notes
    assert scaled(SPEED, 1e9, 1000.0, 0.0, "itself").resident(4, 1000) == pytest.approx(SPEED.resident(4, 1000))


def test_a_verifier_takes_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [said(strategy="best_of_n", n=4), said(strategy="best_of_n", n=4, verifier="slow")]
    machine(monkeypatch, rows, {"small": SPEED}, LISTED)
    monkeypatch.setattr(evidence, "shipped_costs", lambda: {"slow": evidence.Cost(0.25, 5e6)})
    free, slow = planner.choices(options())
    assert slow.seconds - free.seconds == pytest.approx(4 * 0.25)
    assert slow.memory - free.memory == pytest.approx(5e6)
    assert not slow.notes
    monkeypatch.setattr(evidence, "shipped_costs", dict)
    notes = {each.evidence.verifier: each.notes for each in planner.choices(options())}
    assert notes == {None: (), "slow": ("slow takes time and memory of its own, which nobody has measured",)}


def test_a_verifier_with_a_model_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(10.0, 400.0, 500.0, 4.0, 100.0, {4: 100.0})
    rows = [
        said(strategy="best_of_n", n=4, verifier="prm:big", work=replace(work, verifier=7e9)),
        said(strategy="best_of_n", n=4, verifier="p_true", work=work),
    ]
    machine(monkeypatch, rows, {"small": SPEED}, LISTED)
    found = {each.evidence.verifier: each for each in planner.choices(options())}
    prm, own = found["prm:big"], found["p_true"]
    assert own.flops == 2 * 1e9 * 910 and prm.flops == 2 * (1e9 * 410 + 7e9 * 500)
    # 500 tokens at a millisecond each on the policy, seven times that on a model seven times as large.
    assert prm.seconds - own.seconds == pytest.approx(6 * 500 * 0.001, abs=0.01)
    assert prm.together - own.together == pytest.approx(6 * 500 * 0.001, abs=0.01)
    assert prm.memory >= 2 * 7e9 > own.memory
    assert "7.0e+09 parameters, 2 bytes each" in prm.notes[0]
    assert verdict.judge(options(memory=2e9), list(found.values())).recommendation is own


def test_what_keeps_up_is_what_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots, memory, throughput, price and command are of one process."""
    machine(monkeypatch, ROWS[:1], {"small": replace(SPEED, points=(*SPEED.points, (2, 100, 0.01)))}, LISTED)
    (alone,) = planner.choices(options(hour=3.6))
    assert alone.slots == 1 and alone.dollars == pytest.approx(alone.seconds * 3.6 / 3600)
    # 10 ms of prompt and 1 s of steps in one slot, half of that in two: 100,000 answers a day need two.
    (few,) = planner.choices(options(hour=3.6, tokens_per_day=100 * 100_000))
    assert few.slots == 2 and few.together == pytest.approx(0.01 + 0.5)
    (one,) = planner.choices(options(tokens_per_day=100 * 85_000))
    assert one.slots == 1 and one.together == pytest.approx(0.01 + 1.0)
    assert few.memory - alone.memory == pytest.approx(2048 * 1000)  # two slots are the fewest measured
    assert few.kv == 2 * 2048 * 1000 and "--slots 2 " in replace(few, known=Known("small", path="a.gguf")).command
    assert few.dollars == pytest.approx(few.together * 3.6 / 3600)
    found = verdict.judge(options(hour=3.6, tokens_per_day=100 * 100_000), [few])
    assert any("one question among many" in line for line in found.assumptions)
    (none,) = planner.choices(options(tokens_per_day=1e12))
    assert none.slots == 32


def test_a_machine_that_must_not_be_measured_and_was_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, ROWS, {}, LISTED)
    monkeypatch.setattr(models, "installed", list)
    monkeypatch.setattr(planner, "_path", lambda known, failures: tmp_path / known.name)  # there, and not known
    with pytest.raises(ConfigError, match="was not measured with any of these models yet: drop --no-measure"):
        planner.choices(options(measure=False))


def test_nothing_here_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ROWS, {}, LISTED)
    monkeypatch.setattr(models, "installed", list)
    with pytest.raises(ModelError, match=r"no model is here to measure this machine with.*models pull"):
        planner.choices(options())


def test_names_and_tasks_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ROWS, {"small": SPEED}, LISTED)
    with pytest.raises(ConfigError, match=r"unknown model 'smol'; did you mean 'small'\?"):
        planner.choices(options(only=("smol",)))
    with pytest.raises(
        ConfigError, match=r"nothing is known of a/b\.gguf: record a run with flyweight bench run --mod"
    ):
        planner.choices(options(only=("a/b.gguf",)))
    with pytest.raises(ConfigError, match=r"nothing is known about aime24 \(measured: gsm8k\): record a run"):
        planner.choices(options(task="aime24"))
    with pytest.raises(ConfigError, match=r"nothing is known of smollm2-135m about gsm8k \(measured: big, small\)"):
        planner.choices(options(only=("smollm2-135m",)))


def test_a_model_of_which_only_the_accuracy_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ROWS, {"small": SPEED}, [*LISTED, Known("mine", results=(said("mine"),))])
    # Whatever is installed here must not be measured by a test.
    monkeypatch.setattr(models, "installed", lambda: [models.Installed("small", Path("small.gguf"), 1, "")])
    with pytest.raises(ConfigError, match="no model of mine can be run or estimated here: say a path or parameters"):
        planner.choices(options(only=("mine",)))


def test_published_figures_stand_back(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = said("small", right=(0.8, 0.9, 1.0), source="published", note="a paper")
    other = said("big", right=(0.8, 0.9, 1.0), source="published", note="a paper")
    listed = [replace(LISTED[0], results=(paper,)), replace(LISTED[1], results=(other,))]
    machine(monkeypatch, [said()], {"small": SPEED}, listed)
    found = planner.choices(options())
    assert {(c.model, c.published) for c in found} == {("small", False), ("big", True)}
    assert verdict.judge(options(), found).recommendation.model == "small"
    assert verdict.judge(options(accuracy=0.7), found).recommendation.published


def test_the_users_figures_stand_before_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, ROWS[:1], {"small": SPEED}, LISTED)
    (mine,) = planner.choices(options(evidence=(said(right=(0.8, 0.9, 1.0)),)))
    assert mine.accuracy == 0.9


# The frontier and the recommendation ----------------------------------------------------------------------------------

SLOW = choice(said(strategy="best_of_n", n=16, right=(0.55, 0.6, 0.65)), 10.0, 2e9)
NEAR = choice(said(strategy="best_of_n", n=8, right=(0.53, 0.58, 0.63)), 5.0, 1.5e9)
FAST = choice(said(right=(0.35, 0.4, 0.45)), 1.0)
WORSE = choice(said(strategy="best_of_n", n=4, right=(0.33, 0.38, 0.43)), 3.0)
ALMOST = choice(said(strategy="self_consistency", n=8, right=(0.53, 0.58, 0.63)), 5.2, 1.46e9)
CHOICES = [SLOW, NEAR, FAST, WORSE, ALMOST]


def test_what_is_beaten_is_not_on_the_frontier() -> None:
    assert verdict.frontier(CHOICES) == [FAST, NEAR, SLOW]  # ALMOST differs from NEAR by less than 5 %
    assert verdict.frontier([*CHOICES, choice(said("tiny", right=(0.3, 0.31, 0.4)), 3.0, 1e8)])[1].model == ("tiny")


def test_the_fastest_within_a_standard_error_of_the_best() -> None:
    found = verdict.judge(options(), CHOICES)
    assert found.recommendation is NEAR
    assert "within one standard error (2.6 points) of the most accurate, small file best_of_n n=16" in found.reason


def test_limits_are_kept() -> None:
    assert verdict.judge(options(memory=1.2e9), CHOICES).recommendation is FAST
    assert verdict.judge(options(latency=4.0), CHOICES).recommendation is FAST
    reached = verdict.judge(options(accuracy=0.55), CHOICES)
    assert reached.recommendation is NEAR
    assert reached.reason.startswith("the fastest of 3 that reach 55.0 %; its interval begins at 53.0 %")
    assert "likely" not in verdict.judge(options(accuracy=0.5), CHOICES).reason


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"memory": 1e8}, "nothing fits --memory 100 MB: the smallest, small file .*, needs 1.00 GB, of it 1 MB"),
        ({"latency": 0.1}, "nothing answers within --latency 0.1 s: the fastest, small file greedy, takes 1.0 s"),
        ({"accuracy": 0.9}, r"nothing is known to reach --accuracy 0.9: .* n=16, is right on 60.0 % \(55-65\)"),
        ({"accuracy": 0.5, "latency": 2.0}, "nothing keeps --latency and --accuracy together: .*give up one of them"),
        (
            {"tokens_per_day": 1e12},
            "cannot write --tokens-per-day 1,000,000,000,000: even small file greedy would keep 5.79e.04",
        ),
    ],
)
def test_impossible_limits_say_what_is_needed(limits: dict[str, float], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        verdict.judge(options(**limits), CHOICES)
    assert "\n" not in str(caught.value)


def changed(line: str) -> tuple[dict[str, float], str]:
    """A line about what would change the verdict: the limit it names, and what it says comes then."""
    match = re.match(r"with --(\w+) (of|above|below) ([\d.]+) ?(%|s|GB): (.*?) \(", line)
    assert match is not None, line
    name, side, amount, unit, label = match.groups()
    value = float(amount) * {"%": 0.01, "s": 1.0, "GB": 1e9}[unit]
    return {name: value * {"of": 1.0, "above": 1.0001, "below": 0.9999}[side]}, label


@pytest.mark.parametrize("limits", [{}, {"memory": 1.2e9}, {"latency": 4.0}, {"accuracy": 0.5}])
def test_what_would_change_the_verdict(limits: dict[str, float]) -> None:
    lines = verdict.judge(options(**limits), CHOICES).changes
    assert lines
    for line in lines:
        limit, label = changed(line)
        assert verdict.judge(options(**{**limits, **limit}), CHOICES).recommendation.label == label, line


def test_the_nearest_limit_is_named() -> None:
    lines = verdict.judge(options(memory=1.2e9), CHOICES).changes
    assert lines[0] == "with --memory of 1.46 GB: small file self_consistency n=8 (58.0 %, 5.2 s, 1.46 GB)"
    assert not any("n=16" in line for line in verdict.judge(options(latency=4.0, memory=1.2e9), CHOICES).changes)


def test_nothing_may_change_the_verdict() -> None:
    (line,) = verdict.judge(options(), [FAST]).changes
    assert line == "no limit alone: nothing else on record would then be recommended"


def test_nothing_is_recommended_that_another_one_beats() -> None:
    hardly = choice(said(strategy="best_of_n", n=9, right=(0.54, 0.59, 0.64)), 5.1, 1.5e9)
    found = verdict.judge(options(), [*CHOICES, hardly])  # 2 % slower than NEAR, and more often right
    assert found.recommendation is hardly and hardly in found.frontier and NEAR not in found.frontier
    held = verdict.judge(options(latency=5.0), [*CHOICES, hardly])
    assert held.recommendation is NEAR and NEAR in held.frontier  # what would beat it breaks the limit


def test_equal_choices_are_one_on_the_frontier() -> None:
    twin = choice(said(strategy="medoid", n=4, right=(0.35, 0.4, 0.45)), 1.0)
    assert verdict.frontier([FAST, twin]) == [FAST] and verdict.frontier([twin, FAST]) == [twin]
    paper = choice(said("paper", right=(0.3, 0.9, 1.0), source="published"), 0.5)
    assert verdict.frontier([FAST, paper]) == [paper, FAST]  # somebody else's figure beats no measured one
    worse = choice(said("paper", right=(0.3, 0.35, 1.0), source="published"), 1.5)
    assert verdict.frontier([worse, FAST]) == [FAST]


def test_a_day_of_the_machine() -> None:
    # 86,400 s at half a second each: 172,800 answers of 100 tokens.
    assert verdict.judge(options(tokens_per_day=17.2e6), [FAST]).recommendation is FAST
    with pytest.raises(ConfigError, match=r"would keep 1\.01 such machines busy"):
        verdict.judge(options(tokens_per_day=17.4e6), [FAST])


def test_auto_draws_more_than_is_read() -> None:
    nine = said(strategy="auto", work=Work(10.0, 900.0, 0.0, 9.0, 100.0, {9: 100.0}))
    drawn = choice(nine, 1.0)
    # Half a second for the 100 tokens that are read, whatever was drawn for them.
    assert verdict.judge(options(tokens_per_day=17.2e6), [drawn]).recommendation is drawn
    with pytest.raises(ConfigError, match=r"would keep 1\.01 such machines busy"):
        verdict.judge(options(tokens_per_day=17.4e6), [drawn])


def test_dollars_decide_where_everything_has_a_price() -> None:
    here = choice(said(right=(0.5, 0.6, 0.7)), 2.0, dollars=0.002)
    far = choice(said("api", right=(0.5, 0.62, 0.7)), 9.0, memory=0.0, dollars=0.001, price=(1.0, 2.0))
    found = verdict.judge(options(), [here, far])
    assert found.recommendation is far and "the cheapest" in found.reason
    free = choice(said(right=(0.5, 0.6, 0.7)), 2.0)
    assert verdict.judge(options(), [free, far]).recommendation is free
    (line,) = [x for x in verdict.judge(options(), [free, far]).changes if "an hour of this machine" in x]
    assert line.startswith("an hour of this machine above $1.80")  # 0.001 / 2 s


# Small and big --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.16, 1.0, 22.0])
@pytest.mark.parametrize("larger", [1.0, 3.0, 14.0])
def test_equal_flops_are_equal(ratio: float, larger: float) -> None:
    """6 N D + 2 N k D' = M (6 N D + 2 N D') with D' = R D."""
    n, d = 5e8, 1e12
    small = 6 * n * d + 2 * n * bigger.times(ratio, larger) * ratio * d
    assert small == pytest.approx(larger * (6 * n * d + 2 * n * ratio * d))
    assert bigger.times(math.inf, larger) == larger


def test_models_that_read_unlike_amounts() -> None:
    """6 N D + 2 N k D' = M (6 N D_big + 2 N D'), the bigger one having read five times as much."""
    n, d, ratio, larger = 5e8, 1e12, 0.5, 3.0
    allowed = bigger.times(ratio, larger, 5.0)
    assert 6 * n * d + 2 * n * allowed * ratio * d == pytest.approx(larger * (6 * n * 5 * d + 2 * n * ratio * d))
    assert bigger.times(0.1, 3.0, 0.01) == 0.0  # its own pretraining took more than all of the bigger one's
    read = {"small": 1e12, "big": 5e12}
    both = [replace(each, known=replace(each.known, pretraining_tokens=read[each.model])) for each in pair()]
    assert bigger.exchanges(options(), both)[1].times == pytest.approx(3 + 3 * 14 / 0.79)


def pair() -> list[planner.Choice]:
    return [
        choice(said(right=(0.3, 0.4, 0.5)), 1.0, flops=1e12),
        choice(said(strategy="best_of_n", n=4, right=(0.4, 0.5, 0.6)), 2.0, flops=4e12),
        choice(said(strategy="best_of_n", n=8, right=(0.5, 0.6, 0.7)), 3.0, flops=8e12),
        choice(said("big", right=(0.45, 0.55, 0.65)), 2.5, flops=6e12, parameters=3e9),
    ]


def test_break_even_by_hand() -> None:
    (even,) = bigger.break_even(pair())
    assert (even.model, even.bigger, even.accuracy, even.most) == ("small", "big file greedy", 8, 8)
    assert even.flops == pytest.approx(6.0) and even.seconds == pytest.approx(6.0)
    (never,) = bigger.break_even([*pair()[:3], faster_big()])
    assert never.seconds == pytest.approx(4 * 0.5 / 2.0) and never.accuracy is None


def faster_big() -> planner.Choice:
    return choice(said("big", right=(0.8, 0.9, 1.0)), 0.5, flops=1e14, parameters=3e9)


def test_the_best_within_equal_flops() -> None:
    found = {each.ratio: each for each in bigger.exchanges(options(), pair())}
    # Only inference paid: three times the 1,000 tokens of the big one, so 6e12 operations of the small one's.
    paid = found[math.inf]
    assert paid.choice is not None and (paid.times, paid.choice.evidence.n) == (3.0, 4)
    assert found[0.16].choice is not None and found[0.16].choice.evidence.n == 8
    traffic = [replace(c, known=replace(c.known, pretraining_tokens=1e12)) for c in pair()]
    ratios = [each.ratio for each in bigger.exchanges(options(tokens_per_day=1e9, days=100.0), traffic)]
    assert ratios == [0.1, math.inf]


# The user's models ----------------------------------------------------------------------------------------------------

API = """
[[model]]
name = "far"
price = [1.0, 4.0]
seconds = 2.5
parameters = 8e9

[[model.result]]
task = "gsm8k"
accuracy = 0.9
questions = 50
generated = 200
prompt = 100
"""


def test_a_model_behind_an_interface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(API)
    (far,) = told.read_models(tmp_path / "mine.toml")
    machine(monkeypatch, ROWS[:1], {"small": SPEED}, LISTED)
    found = next(c for c in planner.choices(options(models=(far,))) if c.model == "far")
    assert (found.seconds, found.memory, found.command) == (2.5, 0.0, "")
    assert found.dollars == pytest.approx(100e-6 + 800e-6)
    assert found.evidence.accuracy == pytest.approx(wilson(45, 50)) and found.flops == 2 * 8e9 * 300


def test_what_the_user_says_of_a_known_model_is_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = '[[model]]\nname = "qwen2.5-coder-0.5b"\n[[model.result]]\ntask = "gsm8k"\nn = 64\naccuracy = 0.5\n'
    (tmp_path / "mine.toml").write_text(text)
    known, rows = planner.collected(options(models=tuple(told.read_models(tmp_path / "mine.toml"))))
    assert next(each for each in known if each.name == "qwen2.5-coder-0.5b").parameters == 494_032_768
    (mine,) = [row for row in rows if row.source == "given"]
    assert (mine.n, mine.strategy, mine.accuracy) == (64, "best_of_n", (0.0, 0.5, 1.0))


RESULT = '[[model]]\nname = "a"\n[[model.result]]\ntask = "gsm8k"\naccuracy = 0.5\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[models]]", "unknown key 'models' .one of: model"),
        ('[[model]]\nname = "a"\n[[model]]\nname = "a"', "a is there twice"),
        ('[[model]]\nname = "a"\npath = 3', "path 3 is not a text"),
        ('[[model]]\nname = "a"\nquantisation = ""', "quantisation '' is not a text"),
        ('[[model]]\nname = "a"\n[[model.result]]\ntask = "gsm9k"\naccuracy = 0.5', "unknown task 'gsm9k'; did you"),
        (RESULT + 'strategy = "best_of_m"', "unknown strategy 'best_of_m'; did you mean 'best_of_n'"),
        (RESULT + 'strategy = "greedy"\nn = 4', "unknown parameter of greedy 'n'"),
        (RESULT + 'strategy = "beam_search"\nn = 6', "n=6 is not a multiple of width=4"),
        (RESULT + "verifier = 3", "verifier 3 is not a text"),
        (RESULT + 'verifier = "slef"', "unknown verifier 'slef'; did you mean 'self'"),
        (RESULT + "questions = true", "questions True is not a whole number"),
        (RESULT + "prompt = 50", "has a prompt and no generated"),
        ("", r"holds no \[\[model\]\]"),
        ("name", "is not TOML"),
        ("model = 3", r"write each model as a table \[\[model\]\]"),
        ("[[model]]\nparameters = 3", r"a \[\[model\]\] has no name"),
        ('[[model]]\nname = "a"\nprize = 3', "unknown key 'prize' .one of: name, path"),
        ('[[model]]\nname = "a"\nprice = 3', r"price 3 is not \[US"),
        ('[[model]]\nname = "a"\nprice = [1, 2]', "has a price and no seconds"),
        ('[[model]]\nname = "a"\nparameters = "many"', "parameters 'many' is not a number above 0"),
        ('[[model]]\nname = "a"\n[[model.result]]\naccuracy = 0.5', "a result has no task"),
        ('[[model]]\nname = "a"\n[[model.result]]\ntask = "b"\naccuracy = 50', "accuracy 50 is not a share"),
        ('[[model]]\nname = "a"\n[[model.result]]\ntask = "b"\naccuracy = 0.5\nn = 0', "n 0 is not a whole number"),
        (
            '[[model]]\nname = "a"\n[[model.result]]\ntask = "gsm8k"\naccuracy = 0.5\nlow = 0.6',
            "low and high .0.6. do not",
        ),
        (
            '[[model]]\nname = "a"\n[[model.result]]\ntask = "gsm8k"\naccuracy = 0.5\ngenerated = "x"',
            "generated 'x' is not",
        ),
    ],
)
def test_a_file_of_models_that_is_none(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        told.read_models(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    with pytest.raises(ConfigError, match="No such file"):
        told.read_models(tmp_path / "other.toml")
