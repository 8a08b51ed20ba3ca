"""Tests that a model writes: which lines count, what they are worth, what they cost, what never reaches them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from flyweight import sandbox, verifiers
from flyweight.answers.behaviour import Behaviour
from flyweight.errors import BackendError, ConfigError, SandboxError
from flyweight.protocols import Search
from flyweight.runner import Runner
from flyweight.store import Store
from flyweight.strategies import bind
from flyweight.testing import Draft, ToyPolicy, check_verifier
from flyweight.types import Event, Node, Problem, Result, Sampling
from flyweight.verifiers.written import WrittenTests, asked, read_asserts, results, write_tests

DOUBLE = Problem("double", "Write double(x), which returns 2 x.", answer="assert double(41) == 82")
RIGHT, SQUARE, SIX = (f"```python\ndef double(x):\n    return {body}\n```" for body in ("x + x", "x * x", "6"))
BEGUN = "```python\nassert double"
"""What is put into the mouth of the model."""
WRITTEN = f"{BEGUN}(2) == 4\nassert double(3) == 6\nassert double(0) == 0\nassert double(1) == 3\n```"
"""The last one is wrong. Right: 3/4. A square: 2, 0. Always six: 3."""


class Writer(ToyPolicy):
    """Writes the given programs one after the other, and tests whenever asked for some."""

    def __init__(self, *programs: str, tests: str = WRITTEN) -> None:
        self.asked: list[str] = []
        """Every prompt for tests."""
        self.tests = tests
        drafts = list(programs)

        def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
            if "Do not write" in question:
                self.asked.append(question + so_far)
                return Draft(self.tests.removeprefix(so_far))
            return Draft(drafts.pop(0))

        super().__init__(write, slots=1)


def solved(writer: Writer, n: int, problem: Problem = DOUBLE, verifier: WrittenTests | None = None) -> Result:
    judge = verifier or WrittenTests()
    return Runner(writer, {judge.name: judge}, answers=Behaviour()).solve(problem, bind("best_of_n", {"n": n}))


def scores(result: Result) -> list[float | None]:
    assert result.error is None, result.error
    return [each.node.score.value if each.node.score else None for each in result.candidates]


# Which lines are tests


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("assert double(2) == 4", "assert double(2) == 4"),
        ("   assert double( 2 )==4  # doubled", "assert double(2) == 4"),
        ("assert double(2) == 4, 'message'", "assert double(2) == 4"),
        ("assert 4 == double(2)", "assert 4 == double(2)"),
        ("assert double(2) is None", "assert double(2) is None"),
        ("assert not double(0)", "assert not double(0)"),
        ("assert len(double([1])) == 2", "assert len(double([1])) == 2"),
        ("assert double('\\d') == 1", "assert double('\\\\d') == 1"),
        ("double(2) == 4", None),
        ("- assert double(2) == 4", None),
        ("assert double", None),
        ("assert 4 == 4", None),
        ("assert triple(2) == 6", None),
        ("assert double(x) == 4", None),
        ("assert double(triple(2)) == 4", None),
        ("assert s.double(2) == 4", None),
        ("assert double(2) == double(2)", None),
        ("assert double(2) == 4 or True", None),
        ("assert double(2) != 4", None),
        ("assert double(2) == 4; import os", None),
        ("assert double(2 == 4", None),
        ("assert double(" + "-" * 450 + "1) == 2", None),
        ("assert double(" + "[" * 200 + "]" * 200 + ") == 2", None),
        ("assert double('" + "a" * 500 + "') == 2", None),
    ],
)
def test_a_test_is_one_line_about_the_function_asked_for(line: str, read: str | None) -> None:
    assert read_asserts(f"Sure:\n{line}\nI hope it helps.", DOUBLE) == ([read] if read else [])


def test_the_first_of_each_call_counts_and_none_that_a_public_test_contradicts() -> None:
    text = "assert f(1) == 1\nassert f(1) == 2\nassert f( 1)==1\nassert f(2) == 5\nassert f(3)\nassert not f(3)"
    assert read_asserts(text, Problem("p", "Write f(x).")) == ["assert f(1) == 1", "assert f(2) == 5", "assert f(3)"]
    public = Problem("p", "", meta={"entry": "f", "public": ("assert f(1) == 2.0", "assert f(3) == False")})
    assert read_asserts(text, public) == ["assert f(1) == 2", "assert f(2) == 5", "assert not f(3)"]


@pytest.mark.parametrize(
    ("prompt", "meta", "entry"),
    [
        ("def helper(x): ...", {"entry": "main"}, "main"),
        ("import math\n\ndef helper(x):\n    return 1\n\ndef area(r):\n    '''area(1)'''", {}, "area"),
        ("Sort it.", {"public": ("assert sorted(order([2, 1])) == [1, 2]",)}, "order"),
        ("Write double(x) with print(x), not triple(x).", {}, "double"),
        ("What is (1 + 2)? Is it, if(so), print(so) or order(so)?", {}, "order"),
        ("Write a program that adds.", {}, ""),
    ],
)
def test_the_function_asked_for(prompt: str, meta: dict[str, object], entry: str) -> None:
    assert asked(Problem("p", prompt, meta=meta)) == entry


# What they are worth


def test_scores_are_the_share_that_passes() -> None:
    writer = Writer(RIGHT, SQUARE, SIX, "I do not know.")
    result = solved(writer, 4)
    assert scores(result) == [0.75, 0.5, 0.25, 0.0] and "x + x" in result.text
    [prompt] = writer.asked
    assert prompt.startswith(DOUBLE.prompt) and "Write 8 different tests" in prompt and "assert double(...)" in prompt


def test_the_tests_are_paid_for_as_verifier_tokens_in_every_search_alike() -> None:
    judge = WrittenTests()
    usages = []
    for _ in range(2):
        writer = Writer(RIGHT, SQUARE)
        usage = solved(writer, 2, verifier=judge).usage
        counters = writer.counters
        assert usage.generated_tokens == len(RIGHT) + len(SQUARE) + 2
        assert usage.verifier_tokens > len(WRITTEN)
        computed = counters.prompt_tokens + counters.generated_tokens
        assert usage.prompt_tokens + usage.generated_tokens + usage.verifier_tokens == computed
        usages.append((usage.prompt_tokens, usage.generated_tokens, usage.verifier_tokens, usage.verifier_calls))
    assert usages[0] == usages[1], "what was searched before must not make it cheaper"


def test_they_are_written_once_a_search_and_no_batch_changes_a_score() -> None:
    drawn = (RIGHT, SQUARE, SIX, RIGHT, "Nothing.", SQUARE)
    writer = Writer(*drawn)
    found: dict[int, float] = {}

    async def in_batches(search: Search) -> Node | None:
        nodes = await search.complete([search.root], len(drawn))
        for batch in ([4], [0, 3], [5, 1, 2], [2, 0], [3, 4, 5, 1]):
            for node in await search.score([nodes[i] for i in batch]):
                assert node.score is not None
                assert found.setdefault(node.draw, node.score.value) == node.score.value
        return None

    judge = WrittenTests(n=4)
    result = Runner(writer, {judge.name: judge}, answers=Behaviour()).solve(DOUBLE, in_batches)
    assert result.error is None and len(writer.asked) == 1
    assert [found[i] for i in range(len(drawn))] == [0.75, 0.5, 0.25, 0.75, 0.0, 0.5]


def test_a_test_cut_at_the_limit_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `== 12` the last line has kept the 1."""
    text = f"{BEGUN}(3) == 6  # yes!\nassert double(6) == 12"
    assert len(text) == len(BEGUN) + 39
    for room in (19, 18, 30):
        monkeypatch.setattr("flyweight.verifiers.written.TOKENS", room)
        assert scores(solved(Writer(RIGHT, SQUARE, tests=text), 2, verifier=WrittenTests(n=2))) == [1.0, 0.0]
    assert scores(solved(Writer(RIGHT, tests=text + "0"), 1, verifier=WrittenTests(n=2))) == [0.5]


def test_the_first_test_is_begun_for_the_model_which_may_begin_anew() -> None:
    writer = Writer(RIGHT, SQUARE)
    assert scores(solved(writer, 2)) == [0.75, 0.5] and writer.asked[0].endswith(f"assert double(...) == ...{BEGUN}")
    anew = "assert double(3) == 6\nassert double(2) == 4\n```\nassert double(5) == 25"
    assert scores(solved(Writer(RIGHT, SQUARE, tests=anew), 2)) == [1.0, 0.5]


@pytest.mark.parametrize("tests", ["", "I cannot.", "assert triple(1) == 3\n" * 5, "\x00\ud800", "assert " * 50])
def test_nothing_readable_is_neutral_and_said_so(tests: str) -> None:
    events: list[Event] = []
    writer = Writer(RIGHT, SQUARE, "No.", tests=tests)
    runner = Runner(writer, {"w": WrittenTests()}, answers=Behaviour(), on_event=events.append)
    assert scores(runner.solve(DOUBLE, bind("best_of_n", {"n": 3}))) == [0.5, 0.5, 0.0]
    written, said = (event.facts for event in events if event.kind == "note")
    assert written == {"verifier": "written-tests", "tests": []}
    assert list(said["failures"].values()) == [(), (), None]  # type: ignore[attr-defined]


def test_nothing_is_asked_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = Writer("No.", "No code.")
    assert scores(solved(writer, 2)) == [0.0, 0.0] and writer.asked == []
    writer = Writer(RIGHT)
    assert scores(solved(writer, 1, Problem("p", "Write something that doubles."))) == [0.5] and writer.asked == []

    def missing() -> None:
        raise SandboxError("no sandbox")

    monkeypatch.setattr(sandbox, "working", missing)
    writer = Writer(RIGHT)
    judge = WrittenTests()
    with pytest.raises(SandboxError):
        Runner(writer, {judge.name: judge}, answers=Behaviour()).solve(DOUBLE, bind("best_of_n", {"n": 1}))
    assert writer.asked == []


def test_neither_candidates_nor_what_grades_reach_the_writer() -> None:
    marked = [f"```python\ndef double(x):\n    return x + x  # CANARY {i}\n```" for i in range(3)]
    writer = Writer(*marked)
    solved(writer, 3)
    other = Writer(SQUARE, SIX, "none")
    solved(other, 3)
    assert writer.asked == other.asked and not any(word in writer.asked[0] for word in ("CANARY", "41", "82"))


def test_a_problem_that_still_holds_what_grades_it_is_refused() -> None:
    for name in ("tests", "written-tests"):
        scoring = verifiers.load(name).score(DOUBLE, [Node(Node(), RIGHT)], None)  # type: ignore[arg-type]
        with pytest.raises(BackendError, match=f"{name} was shown the answer to problem 'double'"):
            scoring.send(None)


# For strategies


def test_a_strategy_can_have_tests_written_and_see_each_result() -> None:
    table: list[list[bool]] = []

    async def strategy(search: Search) -> Node | None:
        nodes = await search.complete([search.root], 3)
        tests = await write_tests(search.problem, search, n=4)
        assert tests == WRITTEN.split("\n")[1:-1]
        table.extend(results(search.problem, node, tests) for node in nodes)
        return nodes[0]

    writer = Writer(RIGHT, SQUARE, "none")
    result = Runner(writer, answers=Behaviour()).solve(DOUBLE, strategy)
    assert result.error is None and len(writer.asked) == 1
    assert table == [[True, True, True, False], [True, False, True, False], [False] * 4]
    assert result.usage.verifier_tokens == 0 and result.usage.generated_tokens > len(WRITTEN)
    assert results(DOUBLE, Node(Node(), RIGHT), []) == []


# The contract


def test_it_is_a_verifier() -> None:
    check_verifier(verifiers.load("written-tests:n=3"))
    both = verifiers.load("weighted:tests=3:written-tests(n=4)=1")
    problem = Problem("double", DOUBLE.prompt, meta={"public": ("assert double(2) == 4", "assert double(1) == 2")})
    writer = Writer(RIGHT, SQUARE)
    result = Runner(writer, {both.name: both}, answers=Behaviour()).solve(problem, bind("best_of_n", {"n": 2}))
    # double(1) == 3 is contradicted: right ones pass 3 of 3, squares 2 of 3 and 1 of 2 public ones.
    assert scores(result) == pytest.approx([1.0, (3 * 0.5 + 2 / 3) / 4])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("n=0", "n=0 is not allowed: a whole number from 1 to 100"),
        ("n=101", "n=101 is not allowed"),
        ("temperature=nan", "temperature=nan is not allowed: a number from 0 to 2"),
        ("temperature=-1", "temperature=-1.0 is not allowed"),
        ("seconds=0", "seconds 0 is not allowed"),
    ],
)
def test_mistakes_give_one_line(settings: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        verifiers.load(f"written-tests:{settings}")


def test_scores_in_a_store_follow_the_model_that_writes_the_tests(tmp_path: Path) -> None:
    """Also those for which the tests were at hand: asked for later, they were written by a model all the same."""

    async def one_by_one(search: Search) -> Node | None:
        for text in (RIGHT, SQUARE):
            await search.score([search.append(search.root, text)])
        return None

    found = []
    with Store(tmp_path / "flyweight.db") as store:
        for tests in (f"{BEGUN}(3) == 6", f"{BEGUN}(3) == 9"):
            judge = store.verifier(WrittenTests())
            seen: list[float] = []
            runner = Runner(
                Writer(tests=tests),
                {judge.name: judge},
                answers=Behaviour(),
                on_event=lambda event, seen=seen: (  # type: ignore[misc]
                    seen.append(event.node.score.value) if event.kind == "score" else None
                ),
            )
            assert runner.solve(DOUBLE, one_by_one).error is None
            found.append(seen)
    assert found == [[1.0, 0.0], [0.0, 1.0]]
