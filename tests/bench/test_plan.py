"""What is to be run: problems selected, combinations, what a strategy asks for, mistakes named before anything runs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import sandbox, strategies, tasks, types
from flyweight.bench import Job, Plan, check, grid, identity, plan_of
from flyweight.bench.plan import Shape, select, shape
from flyweight.errors import ConfigError, SandboxError
from flyweight.types import Budget, Problem
from tests.bench.kit import questions

PROBLEMS = [Problem(f"p{number:02}", f"Add {number} and 1.", meta={"level": number % 3}) for number in range(30)]
ORDER = [problem.id for problem in tasks.pick(PROBLEMS, 30)]


def chosen(**settings: object) -> list[str]:
    return [problem.id for problem in select(PROBLEMS, Plan("mine", **settings))]  # type: ignore[arg-type]


# Which problems ----------------------------------------------------------------------------------------------------


def test_a_limit_takes_from_the_order_nobody_chose() -> None:
    assert chosen() == [problem.id for problem in PROBLEMS]
    assert chosen(limit="5") == ORDER[:5]
    assert chosen(limit="10-20") == ORDER[9:20]
    assert chosen(limit="7-7") == [ORDER[6]]
    assert chosen(limit="0.1") == ORDER[:3]
    assert chosen(limit="0.001") == ORDER[:1]
    assert chosen(limit="1.0") == ORDER


def test_by_lets_the_values_take_turns() -> None:
    level = {problem.id: problem.meta["level"] for problem in PROBLEMS}
    assert Counter(level[id] for id in chosen(limit="6", by="level")) == {0: 2, 1: 2, 2: 2}
    assert chosen(limit="6", by="level")[3:] == chosen(limit="4-6", by="level")


def test_a_shuffle_is_another_order_of_the_same_problems() -> None:
    orders = [chosen(shuffle=seed) for seed in (0, 1)]
    assert orders[0] != orders[1] != ORDER != orders[0]
    assert all(sorted(order) == sorted(ORDER) for order in orders)
    assert chosen(shuffle=1, limit="4") == orders[1][:4]
    assert select(PROBLEMS, Plan("mine", shuffle=1))[0] in PROBLEMS  # not a renamed copy


def test_ids_are_exactly_those_each_once() -> None:
    assert chosen(ids=("p07", "p03", "p07")) == ["p07", "p03"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"limit": "31"}, "--limit 31 is out of range: there are 30 problems"),
        ({"limit": "25-31"}, "out of range"),
        *(
            ({"limit": limit}, f"--limit {limit} is not allowed")
            for limit in ("0", "-3", "9-3", "x", "0.0", "1.1", "", "1.", " 3", "1_0", "٣", "nan")
        ),
        ({"ids": ("p3",)}, "unknown problem 'p3'; did you mean"),
        ({"ids": ("p03",), "shuffle": 0}, "drop --limit"),
        ({"ids": ()}, "--ids names no problem"),
        ({"ids": ("p03",), "limit": "5"}, "drop --limit"),
        ({"by": "level"}, "add --limit"),
        ({"limit": "5", "by": "nothing"}, "not every problem has 'nothing'"),
    ],
)
def test_a_selection_that_cannot_be(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(**settings)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_two_problems_of_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match="two problems of one id"):
        select([PROBLEMS[0], PROBLEMS[0]], Plan("mine"))


# What a strategy asks for ------------------------------------------------------------------------------------------


def test_the_shape_of_every_strategy() -> None:
    shapes = {name: shape(name, {}) for name in strategies.names()}
    assert shapes["greedy"] == shapes["sample"] == Shape(1, 1, False, False)
    assert shapes["self_consistency"] == Shape(16, 16, False, False)
    assert shapes["adaptive_consistency"] == Shape(4, 16, False, False)
    assert shapes["best_of_n"] == shapes["weighted_best_of_n"] == Shape(16, 16, True, False)
    assert shapes["beam_search"].verifies and shapes["beam_search"].steps
    assert shapes["dvts"].verifies and shapes["dvts"].steps
    assert {name for name, each in shapes.items() if each.fixed} == {
        "greedy",
        "sample",
        "self_consistency",
        "best_of_n",
        "weighted_best_of_n",
        "tournament",
        "medoid",
    }


def test_a_grid_multiplies_only_what_a_strategy_has() -> None:
    plans = grid(Plan("gsm8k"), ["greedy", "self_consistency", "best_of_n"], ["arithmetic", "confidence"], [2, 4])
    assert [(plan.strategy, plan.verifier, plan.parameters.get("n")) for plan in plans] == [
        ("greedy", None, None),
        ("self_consistency", None, 2),
        ("self_consistency", None, 4),
        ("best_of_n", "arithmetic", 2),
        ("best_of_n", "confidence", 2),
        ("best_of_n", "arithmetic", 4),
        ("best_of_n", "confidence", 4),
    ]
    common = grid(Plan("gsm8k", parameters={"temperature": 0.5}), ["greedy", "sample"])
    assert [plan.parameters for plan in common] == [{}, {"temperature": 0.5}]


@pytest.mark.parametrize(
    ("plan", "names", "judges", "budgets", "says"),
    [
        (Plan("gsm8k", parameters={"widht": 4}), ["beam_search"], [], [], "did you mean 'width'"),
        (Plan("gsm8k"), ["greedy"], [], [4], "unknown parameter of greedy 'n'"),
        (Plan("gsm8k"), ["greedy"], ["arithmetik"], [], "unknown verifier 'arithmetik'"),
        (Plan("gsm8k"), ["best_of_n"], ["oracle"], [], "the verifier oracle sees the answers"),
        (Plan("gsm8k"), ["greedi"], [], [], "unknown strategy 'greedi'"),
    ],
)
def test_a_grid_that_cannot_be(plan: Plan, names: list[str], judges: list[str], budgets: list[int], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        grid(plan, names, judges, budgets)
    assert says in str(caught.value)


# Checked plans -----------------------------------------------------------------------------------------------------


def test_a_configuration_says_everything_and_nothing_else(tmp_path: Path) -> None:
    data = questions(tmp_path)
    plan = Plan(
        "jsonl",
        "best_of_n",
        {"n": 4},
        data=data,
        settings={"checker": "math"},
        limit="3",
        budget=Budget(tokens=99),
        model="toy",
        seed=7,
    )
    (job,) = check([plan])
    digest = job.configuration["problems_sha256"]
    assert len(job.problems) == 3 and len(digest) == 64
    assert job.configuration == {
        "task": "jsonl",
        "split": None,
        "data": data,
        "problems_sha256": digest,
        "settings": {"checker": "math"},
        "select": {"limit": "3", "by": None, "ids": None, "shuffle": None},
        "model": "toy",
        "strategy": "best_of_n",
        "parameters": {"n": 4, "temperature": 0.7, "aggregation": "last"},
        "verifier": "self",
        "sampling": {"temperature": 0.7, "max_tokens": 512},
        "context": 2048,
        "budget": {"tokens": 99},
        "seed": 7,
    }


def test_a_checker_that_rows_name_is_part_of_the_run(tmp_path: Path) -> None:
    """Said by one row it holds for all: with another one, grades and runs are others."""
    file = tmp_path / "mine.jsonl"

    def job(said: str) -> Job:
        file.write_text(f'{{"prompt": "A?", "answer": "B", "checker": "{said}"}}\n{{"prompt": "C?", "answer": "D"}}\n')
        return check([Plan("jsonl", data=str(file))])[0]

    text, choice = job("text"), job("choice")
    assert text.configuration["settings"] == {"checker": "text"}
    assert identity(text.configuration) != identity(choice.configuration)
    assert check([plan_of(choice.configuration)])[0].configuration == choice.configuration


def test_a_plan_comes_back_from_the_record(tmp_path: Path) -> None:
    plan = Plan("jsonl", "beam_search", {"n": 8}, data=questions(tmp_path), shuffle=3, ids=("a",), model="toy")
    plan = replace(plan, ids=None, budget=Budget(seconds=2.5, confidence=0.9), temperature=0.4)
    (job,) = check([plan])
    recorded = json.loads(json.dumps(job.configuration))
    assert check([plan_of(recorded)])[0].configuration == job.configuration == recorded
    picked = replace(plan, shuffle=None, ids=(job.problems[0].id,))
    (job,) = check([picked])
    assert plan_of(json.loads(json.dumps(job.configuration))).ids == picked.ids


def test_the_digest_is_of_the_problems_not_of_their_order(tmp_path: Path) -> None:
    data = questions(tmp_path)

    def digest(plan: Plan) -> str:
        return str(check([plan])[0].configuration["problems_sha256"])

    before = digest(Plan("jsonl", data=data))
    assert digest(Plan("jsonl", data=data, shuffle=1)) == before
    assert digest(Plan("jsonl", data=data, limit="2")) != before
    Path(data).write_text(Path(data).read_text("utf-8").replace('"answer": 4', '"answer": 5'), "utf-8")
    assert digest(Plan("jsonl", data=data)) != before


def test_what_a_user_s_rows_hold_beside_the_question_is_part_of_the_run(tmp_path: Path) -> None:
    """Public tests decide votes and scores. Of bundled problems the digest is that under which runs are on record."""

    def digest(**row: object) -> str:
        data = questions(tmp_path, 1, **row)
        return str(check([Plan("jsonl", data=data, settings={"checker": "math"})])[0].configuration["problems_sha256"])

    digests = [digest(), digest(public=["f(1) == 2"]), digest(public=["g(7) == 99"]), digest(entry="f"), digest(note=1)]
    assert len(set(digests)) == 5 and digest(public=["f(1) == 2"]) == digests[1]
    (bundled,) = check([Plan("humaneval", limit="1")])
    (problem,) = bundled.problems
    parts = [problem.id, problem.prompt, problem.answer, "user", problem.conversation[-1].content]
    assert problem.meta and bundled.configuration["problems_sha256"] == types.digest(*parts)


def test_countdown_s_prompts_say_what_its_meta_holds(tmp_path: Path) -> None:
    """So its digest has none, in a file as without one: results/ holds runs filed like that."""
    file = tmp_path / "countdown.jsonl"
    file.write_text('{"numbers": [2, 3], "target": 5}\n', "utf-8")
    (job,) = check([Plan("countdown", data=str(file))], grade=False)
    (problem,) = job.problems
    turns = [part for turn in problem.conversation for part in (turn.role, turn.content)]
    expected = types.digest(problem.id, problem.prompt, problem.answer, *turns)
    assert problem.meta and job.configuration["problems_sha256"] == expected


def test_a_job_twice_is_one_job(tmp_path: Path) -> None:
    plan = Plan("jsonl", data=questions(tmp_path))
    assert len(check([plan, replace(plan, parameters={"n": 16}), replace(plan, parameters={"n": 4})])) == 2
    assert len(check([replace(plan, strategy="greedy", verifier=name) for name in (None, "confidence")])) == 1


def test_code_is_verified_by_its_public_tests_unless_told_otherwise(tmp_path: Path) -> None:
    data = questions(tmp_path, public=["assert f(1) == 2"])
    plan = Plan("jsonl", "best_of_n", data=data)
    assert [job.configuration["verifier"] for job in check([plan, replace(plan, verifier="confidence")])] == [
        "tests",
        "confidence",
    ]
    data = questions(tmp_path, public=[])
    assert check([replace(plan, data=data)])[0].configuration["verifier"] == "confidence"


def test_the_verifier_that_is_asked_where_none_is_named_is_the_one_the_page_names(tmp_path: Path) -> None:
    (job,) = check([Plan("jsonl", "best_of_n", data=questions(tmp_path))])
    page = (Path(__file__).parents[2] / "docs" / "bench.md").read_text("utf-8")
    assert f"verifier is `{job.configuration['verifier']}` unless told otherwise" in page


def test_a_callable_is_known_by_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = tmp_path / "judges_of_mine.py"
    module.write_text("def half(question, solution):\n    return 0.5\n")
    plan = Plan("jsonl", "best_of_n", data=questions(tmp_path), verifier="judges_of_mine:half")
    before = check([plan])[0].identity
    assert before and check([plan])[0].identity == before
    module.write_text("def half(question, solution):\n    return 0.25\n")
    assert check([plan])[0].identity != before


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        (Plan("gsm9k"), "unknown task 'gsm9k'; did you mean 'gsm8k'"),
        (Plan("gsm8k", split="tset"), "unknown split of gsm8k 'tset'; did you mean 'test'"),
        (Plan("gsm8k", settings={"hard": 1}), "unknown setting of task gsm8k 'hard'"),
        (Plan("gsm8k", data="nowhere.jsonl"), "cannot read nowhere.jsonl"),
        (Plan("gsm8k", strategy="best"), "unknown strategy 'best'"),
        (Plan("gsm8k", parameters={"n": 0}), "n=0 is not allowed"),
        (Plan("gsm8k", strategy="beam_search", parameters={"n": 2}), "n=2 is not a multiple of width=4"),
        (Plan("gsm8k", strategy="best_of_n", verifier="oracle"), "sees the answers"),
        (Plan("gsm8k", max_tokens=0), "--max-tokens 0 is not allowed"),
        (Plan("gsm8k", context=0), "--context 0 is not allowed"),
        (Plan("gsm8k", temperature=-1), "--temperature -1 is not allowed"),
    ],
)
def test_a_plan_that_cannot_be(plan: Plan, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check([plan])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_questions_without_answers_can_be_run_but_not_graded(tmp_path: Path) -> None:
    file = tmp_path / "open.jsonl"
    file.write_text('{"prompt": "Why?", "id": "why"}\n')
    with pytest.raises(ConfigError, match="'why' has no known answer"):
        check([Plan("jsonl", data=str(file))])
    assert len(check([Plan("jsonl", data=str(file))], grade=False)) == 1


@pytest.mark.parametrize("grade", [True, False])
def test_a_job_whose_answers_are_code_is_ready_where_there_is_a_sandbox(
    grade: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object, **settings: object) -> object:
        raise SandboxError("no sandbox")

    monkeypatch.setattr(sandbox, "check", missing)
    monkeypatch.setattr(sandbox, "working", missing)
    file = tmp_path / "code.jsonl"
    row = {"prompt": "Write f.", "answer": "assert f(1) == 2", "public": ["assert f(2) == 3"]}
    file.write_text(json.dumps(row), "utf-8")
    (job,) = check([Plan("jsonl", data=str(file), settings={"checker": "tests"})], grade=grade)
    with pytest.raises(SandboxError):
        job.ready(grade)
    check([Plan("jsonl", data=questions(tmp_path))])[0].ready(grade)


def test_a_verifier_s_file_is_part_of_what_its_scores_are_filed_under(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    plan = Plan("gsm8k", strategy="best_of_n", verifier=f"schema:file={file}", limit="1")
    seen = set()
    for schema in ('{"type": "object"}', '{"type": "array"}'):
        file.write_text(schema)
        seen |= {check([plan])[0].identity, check([plan])[0].identity}
    assert len(seen) == 2
