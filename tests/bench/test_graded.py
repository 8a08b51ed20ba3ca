"""Grades kept by the store, and runs read back with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flyweight import sandbox, strategies, tasks
from flyweight.bench import graded
from flyweight.errors import BackendError, ConfigError, SandboxError
from flyweight.runner import Runner
from flyweight.store import Grader, Store
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Finish, Grade, Message, Node, Problem, Sampling
from tests.store_child import rule

HOSTILE = "\0 \ud800 é \x1b[31m \u202e \U0001d518"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "flyweight.db") as store:
        yield store


class Judge:
    """Grades by equality with the answer, and counts how often it was asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.error = error

    def __call__(self, problem: Problem, text: str) -> Grade:
        if self.error is not None and text == "fails":
            raise self.error
        self.asked.append((problem.id, text))
        return Grade("correct") if text == problem.answer else Grade("wrong", f"not {problem.answer}")


def texts(*said: str) -> list[Node]:
    return [Node(parent=Node(), text=text) for text in said]


PROBLEM = Problem("p", "What?", (Message("user", "What?"),), "7", {"level": 3, "public": ("a", "b")})
RIGHT, WRONG = Grade("correct"), Grade("wrong", "not 7")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gsm8k", "\\boxed{7}"),
        ("math500", "\\boxed{7}"),
        ("countdown", "\\boxed{2 + 3}"),
        ("countdown", "\\boxed{SOLUTION}"),
        ("humaneval", "```python\npass\n```"),
        ("mbpp", "```python\npass\n```"),
    ],
)
def test_a_task_grades_what_the_store_gives_back(
    name: str, text: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tuples have become lists there."""
    run: list[tuple[object, ...]] = []

    def check(*asked: object) -> sandbox.Checked:
        run.append(asked)
        return sandbox.Checked(("wrong",))

    monkeypatch.setattr(sandbox, "check", check)
    task = tasks.load(name)
    problem = task.problems()[0]
    text = text.replace("SOLUTION", problem.answer or "")
    record = store.run({"task": name})
    Runner(ToyPolicy(), {}, answers=BoxedAnswers(), on_event=record).solve(problem, strategies.bind("greedy"))
    (result,) = store.results(record.id)
    assert task.grade(result.problem, text) == task.grade(problem, text)
    assert run[:1] == run[1:]


def test_a_task_that_fails_is_named() -> None:
    class Broken:
        name = "mine"

        def grade(self, problem: Problem, text: str) -> Grade:
            return {"7": RIGHT}[text]

    assert graded.graded_by(Broken(), PROBLEM, "7") == RIGHT  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="the task mine cannot grade p: KeyError: '8'"):
        graded.graded_by(Broken(), PROBLEM, "8")  # type: ignore[arg-type]


def test_a_text_is_graded_once_and_for_all(store: Store) -> None:
    """The second asking, a store opened anew and the same text elsewhere on the tree ask nobody."""
    first, second, third = Judge(), Judge(), Judge()
    assert store.grader(first, "t 1").grades(PROBLEM, texts("7", "8", "7")) == [RIGHT, WRONG, RIGHT]
    assert first.asked == [("p", "7"), ("p", "8")]
    assert store.grader(second, "t 1").known(PROBLEM, texts("8", "9")) == [WRONG, None]
    assert store.grader(second, "t 1").grades(PROBLEM, texts("8", "9")) == [WRONG, WRONG]
    assert second.asked == [("p", "9")]
    store.close()
    with Store(store.path, readonly=True) as again:
        split = Node(parent=Node(parent=Node(), text="8"), text="")
        assert again.grader(third, "t 1").grades(PROBLEM, [split]) == [WRONG]
        with pytest.raises(ConfigError, match="reading only"):
            again.grader(third, "t 1").grades(PROBLEM, texts("10"))


@pytest.mark.parametrize(
    "other",
    [
        Problem("q", PROBLEM.prompt, PROBLEM.messages, "7", PROBLEM.meta),
        Problem("p", "Who?", PROBLEM.messages, "7", PROBLEM.meta),
        Problem("p", PROBLEM.prompt, (), "7", PROBLEM.meta),
        Problem("p", PROBLEM.prompt, PROBLEM.messages, "8", PROBLEM.meta),
        Problem("p", PROBLEM.prompt, PROBLEM.messages, None, PROBLEM.meta),
        Problem("p", PROBLEM.prompt, PROBLEM.messages, "7", {"level": 3, "public": ("a", "c")}),
    ],
)
def test_another_problem_or_answer_is_graded_anew(store: Store, other: Problem) -> None:
    store.grader(Judge(), "t 1").grades(PROBLEM, texts("7"))
    assert store.grader(Judge(), "t 1").known(other, texts("7")) == [None]
    assert store.grader(Judge(), "t 2").known(PROBLEM, texts("7")) == [None]


def test_a_problem_read_back_from_a_run_has_the_same_grades(store: Store) -> None:
    """Its tuples are lists by then."""
    record = store.run({"task": "t"})
    problem = Problem("p", "Add 3 and 4.", answer="7", meta={"public": ("a", ("b",)), "x": float("inf"), HOSTILE: 1})
    runner = Runner(store.policy(ToyPolicy()), {}, answers=BoxedAnswers(), on_event=record)
    asked = runner.solve(problem, strategies.bind("greedy"))
    assert asked.best is not None
    store.grader(Judge(), "t 1").grades(problem, [asked.best])
    (back,) = store.results(record.id)
    assert back.best is not None and back.problem.meta != problem.meta
    assert store.grader(Judge(), "t 1").known(back.problem, [back.best]) != [None]


def test_what_grading_raises_passes_through_and_keeps_nothing(store: Store) -> None:
    failing = store.grader(Judge(SandboxError("no sandbox")), "t 1")
    with pytest.raises(SandboxError, match="no sandbox"):
        failing.grades(PROBLEM, texts("7", "fails", "8"))
    assert failing.known(PROBLEM, texts("7", "fails", "8")) == [RIGHT, None, None]
    assert store.error is None


LATE = Grade("undecided", "too late", retry=True)


def later(store: Store, *said: Grade) -> tuple[Grader, list[str]]:
    """A grader that says this in turn, and the texts it was asked about."""
    asked: list[str] = []

    def grade(problem: Problem, text: str) -> Grade:
        asked.append(text)
        return said[len(asked) - 1]

    return store.grader(grade, "t 1"), asked


def test_what_could_not_be_decided_for_a_while_is_graded_again(store: Store) -> None:
    """Once by each grader, until it is decided; what is undecided by its nature stays."""
    grader, asked = later(store, LATE, Grade("undecided", "no formula"))
    assert grader.grades(PROBLEM, texts("7", "x", "7")) == [LATE, Grade("undecided", "no formula"), LATE]
    assert asked == ["7", "x"], "what took all its time is not asked twice"
    grader, asked = later(store, Grade("undecided", "too late again", retry=True))
    assert grader.known(PROBLEM, texts("7")) == [LATE], "whoever only looks sees what is on record"
    grader.grades(PROBLEM, texts("7", "x", "7"))
    assert asked == ["7"]
    grader, asked = later(store, RIGHT)
    assert grader.grades(PROBLEM, texts("7", "x")) == [RIGHT, Grade("undecided", "no formula")]
    grader, asked = later(store)
    assert grader.grades(PROBLEM, texts("7")) == [RIGHT] and not asked


def test_a_grade_that_cannot_be_made_again_stands(store: Store, tmp_path: Path) -> None:
    """Not in a store that is only to be read, nor once the task cannot be loaded; it travels as it is."""
    later(store, LATE)[0].grades(PROBLEM, texts("7"))
    store.dump(tmp_path / "packed.xz", "none")
    failing = store.grader(Judge(ConfigError("the file is gone")), "t 1")
    with pytest.raises(ConfigError):
        failing.grades(PROBLEM, texts("fails"))
    later(store, LATE)[0].grades(PROBLEM, texts("fails"))
    assert failing.grades(PROBLEM, texts("fails")) == [LATE]
    store.close()
    with Store(store.path, readonly=True) as again, Store(tmp_path / "other.db") as other:
        assert later(again)[0].grades(PROBLEM, texts("7")) == [LATE]
        other.load(tmp_path / "packed.xz")
        assert later(other, WRONG)[0].grades(PROBLEM, texts("7")) == [WRONG]


def test_hostile_reasons_and_texts_come_back(store: Store) -> None:
    def grade(problem: Problem, text: str) -> Grade:
        return Grade("undecided", text)

    nodes = texts(HOSTILE, "", "\ud800", "\udfff\ud800")
    store.grader(grade, HOSTILE).grades(PROBLEM, nodes)
    assert store.grader(Judge(), HOSTILE).grades(PROBLEM, nodes) == [Grade("undecided", n.text) for n in nodes]


# Runs read back with grades


def draft(text: str) -> Callable[..., Draft]:
    return lambda question, so_far, rng, sampling: Draft(text)


def test_a_run_is_read_back_with_the_grade_of_everything(store: Store) -> None:
    """Two of four right, one truncated, one silent; the last two never reach the grader."""
    drafts = iter(["\\boxed{7}", "\\boxed{8}", "x" * 20 + "\\boxed{7}", "none"])

    def write(question: str, so_far: str, rng: object, sampling: Sampling) -> Draft:
        return Draft(next(drafts))

    record = store.run({"task": "t"})
    runner = Runner(
        ToyPolicy(write),
        {"rule": store.verifier(RuleVerifier(rule), identity="rule 1")},
        answers=BoxedAnswers(),
        on_event=record,
        sampling=Sampling(max_tokens=12),
    )
    runner.solve(Problem("p", "What?", answer="\\boxed{7}"), strategies.bind("best_of_n", {"n": 4}))
    judge = Judge()
    (search,) = graded.read(store, record.id, store.grader(judge, "t 1"))
    assert [sample.node.finish for sample, _ in search.samples] == [Finish.END, Finish.END, Finish.LENGTH, Finish.END]
    assert [(grade.value, grade.reason) for _, grade in search.samples] == [
        ("correct", ""),
        ("wrong", "not \\boxed{7}"),
        ("wrong", "truncated"),
        ("wrong", "no answer"),
    ]
    assert sorted(text for _, text in judge.asked) == ["\\boxed{7}", "\\boxed{8}"]
    assert search.result.best is not None
    assert search.grade == next(g for s, g in search.samples if s.node.key == search.result.best.key)
    assert all(sample.scores for sample, _ in search.samples if sample.answer is not None)


def test_nothing_selected_is_wrong(store: Store) -> None:
    record = store.run({"task": "t"})
    runner = Runner(
        ToyPolicy(draft("much too long")), {}, answers=BoxedAnswers(), on_event=record, sampling=Sampling(max_tokens=3)
    )
    runner.solve(PROBLEM, strategies.bind("self_consistency", {"n": 2}))
    (search,) = graded.read(store, record.id, store.grader(Judge(), "t 1"))
    assert search.result.best is None
    assert search.grade == Grade("wrong", "no answer")
    assert [grade for _, grade in search.samples] == [Grade("wrong", "truncated")] * 2


def test_problems_come_one_at_a_time_by_id(store: Store) -> None:
    record = store.run({"task": "t"})
    runner = Runner(store.policy(ToyPolicy()), {}, answers=BoxedAnswers(), on_event=record)
    list(runner.run([Problem(f"p{i}", f"Add {i} and 1.", answer="1") for i in (2, 0, 1)], strategies.bind("greedy")))
    judge = Judge()
    searches = graded.read(store, record.id, store.grader(judge, "t 1"))
    assert next(searches).result.problem.id == "p0"
    assert {id for id, _ in judge.asked} == {"p0"}
    assert [search.result.problem.id for search in searches] == ["p1", "p2"]


def test_identity_of_grades() -> None:
    plain = graded.identity({"task": "gsm8k", "seed": 1})
    assert plain == graded.identity({"task": "gsm8k", "settings": {}, "seed": 2})
    text = graded.identity({"task": "gsm8k", "settings": {"checker": "text"}})
    assert len({plain, text, graded.identity({"task": "math500"})}) == 3
