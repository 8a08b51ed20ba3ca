"""The comparison of the strategies: its questions, its settings, its books and its page, on a toy model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from benchmarks import strategies as benchmark
from benchmarks import strategies_page as page
from benchmarks import strategies_pictures as pictures
from benchmarks.results import BIG, SMALL
from flyweight import strategies, tasks
from flyweight.bench.plan import select
from flyweight.errors import ConfigError
from flyweight.protocols import Policy
from flyweight.report.branches import svg
from flyweight.report.tree import Tree
from flyweight.testing import Draft, ToyPolicy


def test_the_puzzles_are_those_of_the_generator() -> None:
    assert benchmark.PUZZLES.read_text("utf-8") == benchmark.puzzles()


@pytest.mark.parametrize("limit", [20, 40])
def test_fewer_questions_are_among_more_and_difficulties_take_turns(limit: int) -> None:
    asked: dict[str, list[str]] = {"gsm8k": [], "countdown": []}
    for block in benchmark.blocks(limit):
        plan = block.plan
        task = tasks.load(plan.task, data=Path(plan.data) if plan.data else None, split=plan.split)
        chosen = select(task.problems(), plan)
        assert len(chosen) == block.questions
        asked[block.part] += [problem.id for problem in chosen]
    for ids in asked.values():
        assert len(set(ids)) == len(ids) == limit
    sizes = pictures.countdown_numbers()
    turns = Counter(sizes[id] for id in asked["countdown"])
    assert set(turns) == {3, 4, 5} and max(turns.values()) - min(turns.values()) <= 1
    fewer = [block.name for block in benchmark.blocks(20)]
    assert [block.name for block in benchmark.blocks(limit)][: len(fewer)] == fewer


def test_every_setting_is_allowed_and_every_strategy_is_run() -> None:
    for name, parameters in benchmark.SETTINGS.items():
        strategies.bind(name, parameters)
    assert set(strategies.names()) <= set(benchmark.names()) and benchmark.names()[0] == benchmark.BASELINE
    for name, shown in pictures.SHOWN.items():
        strategies.bind(name, shown.parameters)


def outcome(right: bool, flops: float = 1e12, found: int = 0) -> list[object]:
    return [right, 8, found or int(right), 2000, 100, 50, flops]


def books(runs: Mapping[str, tuple[int, float]], parts: Mapping[str, int]) -> benchmark.Kept:
    """Of every part that many questions, of which each strategy gets the first so many right."""
    kept = benchmark.Kept(None)
    sizes = list(pictures.countdown_numbers())
    for part, questions in parts.items():
        ids = sizes[:questions] if part == "countdown" else [f"q{i:03}" for i in range(questions)]
        for name, (right, flops) in runs.items():
            model = BIG if name == BIG else SMALL
            run = {"parameters": {}, "seconds": 80.0, "recomputed": 400, "failed": 0, "machine": {}}
            rows = {id: outcome(i < right, flops) for i, id in enumerate(ids)}
            kept.runs[f"{part}|1-{questions}|{'greedy' if model == BIG else name}|{model}"] = {**run, "questions": rows}
    return kept


def test_the_page_says_who_is_told_apart_and_who_costs_more() -> None:
    runs = {name: (20, 1e12) for name in benchmark.names()} | {"beam_search": (35, 1e12), "mcts": (5, 1e12)}
    runs |= {"rebase": (21, 3e12), BIG: (30, 2e12)}
    written = page.tables(books(runs, {"gsm8k": 40, "countdown": 40}))
    lines = written.splitlines()
    verdicts = {line.split("**")[1]: line.split("**")[2] for line in lines if line.startswith("- **")}
    assert verdicts["Better than `best_of_n`"].endswith(": `beam_search`.")
    assert verdicts["Worse than `best_of_n`"].endswith(": `mcts`.")
    assert "`rebase`" in verdicts["Not told apart from `best_of_n`"]
    assert "`rebase`" in verdicts["Not worth their cost here"] and "`mcts`" not in verdicts["Not worth their cost here"]
    rows = [line for line in lines if line.startswith("| `") or line.startswith("| *")]
    assert rows[0].startswith("| `beam_search` n=8 width=4 max_steps=16 | 87.5 % (")
    assert "| +37.5 (" in rows[0] and "| 2,000 | 50 | 1.00e12 | 2.0 | 10 |" in rows[0]
    best = next(row for row in rows if row.startswith("| `best_of_n`"))
    assert best.split("|")[5].strip() == "", "nobody is compared with himself"
    assert "| *random choice among the samples* | 6.2 % (" in written, "20 questions with one right sample of eight"
    assert "| *a right one among them* | 50.0 % (" in written
    assert f"| *{BIG}, greedy* | 75.0 % (" in written
    assert "| `mcts` |" in written.partition("by difficulty")[2]


def test_nothing_is_claimed_before_the_baseline_has_run() -> None:
    assert page.tables(benchmark.Kept(None)) == ""
    assert page.tables(books({"mcts": (5, 1e12)}, {"gsm8k": 40, "countdown": 40})) == ""


def test_the_finalists_are_the_two_best_the_cheaper_of_equals_without_the_baseline() -> None:
    runs = {name: (20, 1e12) for name in benchmark.names()}
    runs |= {"dvts": (30, 2e12), "mcts": (25, 2e12), "rebase": (25, 1e12), benchmark.BASELINE: (39, 1e12)}
    assert benchmark.finalists(books(runs, {"gsm8k": 40, "countdown": 40})) == ["dvts", "rebase"]
    with pytest.raises(ConfigError, match="40 of 80 questions"):
        benchmark.finalists(books(runs, {"gsm8k": 20, "countdown": 20}))


def toy(model: str, context: int, weights: str) -> Callable[[], Policy]:
    return lambda: ToyPolicy(lambda question, so_far, rng, sampling: Draft(f"\\boxed{{{rng.randrange(3)}}}"))


def test_what_is_drawn_is_kept_and_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyweight.bench.engine._find", toy)
    monkeypatch.setattr("flyweight.bench.engine.file_of", lambda model: None)
    monkeypatch.setattr(benchmark, "machine", dict)
    monkeypatch.setattr(benchmark, "POOL_FILE", tmp_path / "none.jsonl.xz")
    kept = benchmark.Kept(tmp_path / "outcomes.json.gz")
    blocks = benchmark.blocks(2)
    wanted = list(benchmark.missing(kept, blocks, "consistency"))
    names = ["best_of_n", "self_consistency", "adaptive_consistency"]
    assert [(block.part, name) for block, name, _ in wanted] == [(p, n) for p in ("gsm8k", "countdown") for n in names]
    assert benchmark.predicted(kept, wanted) > 0
    for block, name, model in wanted[:3]:
        benchmark.draw(kept, block, name, model, tmp_path / "runs")
    again = benchmark.Kept(tmp_path / "outcomes.json.gz")
    assert again.runs == json.loads(json.dumps(kept.runs)) and len(again.runs) == 3
    assert [name for block, name, _ in benchmark.missing(again, blocks, "consistency")] == names, "Countdown is left"
    best = again.outcomes("gsm8k", "best_of_n")
    assert len(best) == 2 and all(one.candidates == 8 and one.tokens > 0 for one in best.values())
    assert again.total("gsm8k", "best_of_n", "recomputed") == 0
    assert again.total("gsm8k", "self_consistency", "recomputed") is None, "it chose among samples drawn before"
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["gsm8k-pool"], "all in one store"
    monkeypatch.setitem(benchmark.SETTINGS, "best_of_n", {"n": 4})
    assert again.known(blocks[0], "best_of_n") is None, "other settings are another run"


def test_the_overview_has_a_row_for_every_strategy_with_its_paper_and_file() -> None:
    rows = page.overview().splitlines()[2:]
    assert len(rows) == len(strategies.names())
    beam = next(row for row in rows if "`beam_search`" in row)
    assert "(https://arxiv.org/abs/2408.03314)" in beam and "[Snell 2024]" in beam
    assert "(../flyweight/strategies/beam_search.py)" in beam and strategies.describe("beam_search").use in beam
    assert all(strategies.describe(name).use for _, group in page.KINDS for name in group), "they say when to use them"


def test_the_pictures_on_the_page_are_those_of_the_recordings() -> None:
    traces = pictures._read()
    for name, trace in traces.items():
        drawn = svg(Tree.read(trace["tree"]))
        assert (pictures.PICTURES / f"{name}.svg").read_text("utf-8") == drawn
        assert len(drawn) < 40_000


def test_a_recorded_search_is_a_tree_with_its_answers() -> None:
    question = pictures.question("maths")
    policy = ToyPolicy(lambda question, so_far, rng, sampling: Draft(f"\\boxed{{{rng.choice([200, 100])}}}"))
    trace = pictures.traced("self_consistency", policy)
    tree = Tree.read(trace["tree"])
    assert len(tree.steps) == 6 and trace["right"] == question.problem.answer == "200"
    assert {(step.answer, step.right) for step in tree.steps} == {("200", True), ("100", False)}
    assert trace["tokens"] == sum(step.tokens + 1 for step in tree.steps), "and the end of each"
    assert tree.votes == "counted"
