"""Traces: what is written comes back the same, whatever the strings and whenever the writer died."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight import strategies, trace
from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Search
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Budget, Event, Message, Node, Problem, Result, ToolMessage

QUESTION = Problem("p1", "Add 3 and 4 and 5.", answer="12", meta={"level": 2})
HOSTILE = "\ud800 \x1b[31mred\x1b[0m \x00 \u202e \x85 NaN </script> \u2028 🐦 \\boxed{1}"


def essence(result: Result) -> object:
    """Everything a Result says, in values that can be compared (nodes are compared by identity)."""

    def of(node: Node | None) -> object:
        if node is None:
            return None
        return [
            (n.key, n.text, n.tokens, n.logprobs, n.certainty, n.finish, n.draw, n.policy, n.messages)
            for n in (node.root, *node.steps)
        ], node.score

    candidates = [(of(c.node), c.answer, c.answer_class) for c in result.candidates]
    facts = (result.answer, result.usage, result.stopped, result.confidence, result.error)
    return (result.problem, of(result.best), candidates, facts)


def recorded(
    path: Path, strategy: object, problems: Sequence[Problem] = (QUESTION,), **settings: object
) -> list[Result]:
    """Results of a run whose events were written to `path`."""
    policy = settings.pop("policy", None) or ToyPolicy()
    budget = settings.pop("budget", None)
    verifier = RuleVerifier(lambda question, solution: [len(step) % 7 / 7 for step in solution.split("\n\n")])
    with trace.Writer(path) as writer:
        runner = Runner(policy, {"rule": verifier}, answers=BoxedAnswers(), on_event=writer)  # type: ignore[arg-type]
        return list(runner.run(problems, strategy, budget))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", strategies.names())
def test_a_replayed_search_gives_the_same_result(name: str, tmp_path: Path) -> None:
    given = {p.name: p.default for p in strategies.describe(name).parameters} | ({"n": 4} if name != "greedy" else {})
    given = {
        key: value for key, value in given.items() if key in {p.name for p in strategies.describe(name).parameters}
    }
    results = recorded(tmp_path / "t.jsonl", strategies.bind(name, given))
    assert results[0].error is None
    assert [essence(result) for result in trace.read(tmp_path / "t.jsonl")] == [essence(r) for r in results]


def test_many_questions_budgets_and_errors_come_back_too(tmp_path: Path) -> None:
    problems = [Problem(str(i), f"Add {i} and 4.") for i in range(6)]
    policy = ToyPolicy(
        fault=lambda request: "out of order" if "Add 3" in request.node.root.messages[-1].content else None
    )
    path = tmp_path / "t.jsonl"
    results = recorded(path, strategies.bind("beam_search", {"n": 4, "width": 2}), problems, policy=policy)
    assert {result.stopped.value for result in results} == {"done", "error"}
    assert [essence(result) for result in trace.read(path)] == [essence(result) for result in results]
    results = recorded(path, strategies.bind("self_consistency", {"n": 8}), problems, budget=Budget(tokens=60))
    assert {result.stopped.value for result in results} == {"budget"}
    assert [essence(result) for result in trace.read(path)] == [essence(result) for result in results]


def test_forced_text_and_fresh_prompts_are_part_of_the_record(tmp_path: Path) -> None:
    async def revise(search: Search) -> Node | None:
        [draft] = await search.complete([search.root], temperature=0)
        pushed = search.append(search.append(draft, "\n\nWait, "), "again: ")
        search.note(pushed=pushed, seen={"a": (1, math.inf)}, what=object)
        [retry] = await search.complete([pushed])
        fresh = await search.ask([Message("user", f"Add 1 and 2. {HOSTILE}")], 2)
        return (await search.score([retry, *fresh]))[0]

    path = tmp_path / "t.jsonl"
    results = recorded(path, revise)
    assert results[0].error is None
    assert [essence(result) for result in trace.read(path)] == [essence(result) for result in results]


def test_the_same_question_searched_twice_in_one_trace_stays_apart(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    results = []
    with trace.Writer(path) as writer:
        for name in ("self_consistency", "beam_search"):
            verifier = RuleVerifier(lambda question, solution: 0.5)
            runner = Runner(ToyPolicy(), {"rule": verifier}, answers=BoxedAnswers(), on_event=writer)
            results.append(runner.solve(QUESTION, strategies.bind(name, {"n": 4})))
    assert [essence(result) for result in trace.read(path)] == [essence(result) for result in results]


@given(text=st.text(st.characters(exclude_categories=()), max_size=30))
def test_any_text_survives_but_surrogates_that_form_a_pair(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    policy = ToyPolicy(lambda question, so_far, rng, sampling: Draft(text))
    results = recorded(path, strategies.bind("greedy"), [Problem("p" + text, text)], policy=policy)
    paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    [back] = trace.read(path)
    assert back.text == paired and back.problem.prompt == paired
    if text == paired:
        assert essence(back) == essence(results[0])


def test_what_was_said_of_tools_is_read_back(tmp_path: Path) -> None:
    asked: tuple[Message, ...] = (
        ToolMessage("user", "Add 1 and 2.", tools="[{}]"),
        ToolMessage("assistant", "", calls="[1]"),
        Message("tool", "3"),
    )
    problem = Problem("t", "Add 1 and 2.", asked)
    path = tmp_path / "t.jsonl"
    recorded(path, strategies.bind("greedy"), [problem])
    [back] = trace.read(path)
    assert back.problem.messages == asked and back.best is not None and back.best.root.messages == asked


def test_a_line_stands_on_its_own_and_is_valid_json() -> None:
    root = Node(messages=(Message("user", HOSTILE),), key="r")
    forced = Node(root, " so", None, key="f")
    node = Node(forced, HOSTILE, (1,), (-math.inf,), (math.nan,), key="n", policy="toy")
    record = trace.write(Event("p", "node", 0.5, node))
    line = json.dumps(record, allow_nan=False)
    assert json.loads(line) == record
    assert [ancestor["key"] for ancestor in record["node"]["path"]] == ["r", "f"]
    assert record["node"]["logprobs"] == ["-inf"] and record["node"]["certainty"] == ["nan"]


def test_every_event_is_on_disk_when_the_writer_returns(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    sizes: list[int] = []
    with trace.Writer(path) as writer:

        def watch(event: Event) -> None:
            writer(event)
            text = path.read_text("utf-8")
            assert text.endswith("\n") and json.loads(text.splitlines()[-1])["kind"] == event.kind
            sizes.append(len(text))

        runner = Runner(ToyPolicy(), {}, answers=BoxedAnswers(), on_event=watch)
        runner.solve(QUESTION, strategies.bind("self_consistency", {"n": 3}))
    assert len(sizes) >= 5 and sizes == sorted(set(sizes))


def test_a_trace_cut_anywhere_gives_the_searches_that_had_ended(tmp_path: Path) -> None:
    path, cut = tmp_path / "t.jsonl", tmp_path / "cut.jsonl"
    problems = [Problem("a", "Add 1 and 2."), Problem("b", "Add 1 and 2 and 3 and 4.")]
    results = recorded(path, strategies.bind("self_consistency", {"n": 2}), problems)
    whole = path.read_bytes()
    ends = [end for end in range(len(whole)) if whole[end : end + 1] == b"\n"]
    ended = [b'"kind": "end"' in line for line in whole.splitlines()]
    for size in range(0, len(whole), 97):
        cut.write_bytes(whole[:size])
        wanted = sum(done for done, end in zip(ended, ends, strict=True) if end <= size)
        assert [r.problem.id for r in trace.read(cut)] == [r.problem.id for r in results[:wanted]], size


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"problem_id": "a", "kind": "node", "node": {"key": "x"}}'])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    recorded(path, strategies.bind("greedy"))
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    number = path.read_text().split("\n").index(line) + 1
    with pytest.raises(ConfigError, match=f"line {number}: not a line of a trace"):
        trace.read(path)


def test_a_place_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write the trace .*no/t\.jsonl"):
        trace.Writer(tmp_path / "no" / "t.jsonl")
    with pytest.raises(ConfigError, match="cannot read the trace"):
        trace.read(tmp_path / "none.jsonl")


def test_a_store_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path)) as store:
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("CREATE TABLE rows (row)")
        for name in (path, tmp_path / "runs.db-wal"):
            before = name.read_bytes()
            with pytest.raises(ConfigError, match="is a store: name another file for the trace"):
                trace.Writer(name)
            assert before and name.read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_ends_the_record_and_not_the_search() -> None:
    results: list[Result] = []
    with pytest.raises(BackendError, match="is incomplete: No space left"), trace.Writer(Path("/dev/full")) as writer:
        runner = Runner(ToyPolicy(), {}, answers=BoxedAnswers(), on_event=writer)
        results.append(runner.solve(QUESTION, strategies.bind("greedy")))
    assert results[0].error is None and results[0].answer is not None
