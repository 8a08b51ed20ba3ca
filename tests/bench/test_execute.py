"""Plans carried out: nothing twice, nothing lost, graded, stopped where a limit says so, and what went wrong said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight import bench, policies, verifiers
from flyweight.bench import Limits, Plan, Progress, Summary
from flyweight.bench.estimate import estimate, measured
from flyweight.errors import BackendError, ConfigError, ModelError, SandboxError, StoreError
from flyweight.protocols import Models, Policy, Request, Verifier
from flyweight.store import Store
from flyweight.tasks.countdown import Countdown
from flyweight.testing import RuleVerifier, ToyPolicy
from flyweight.types import Grade, Node, Problem, Score
from tests.bench.kit import questions, said


class Counting:
    """Loads a toy policy and counts what is asked of it."""

    def __init__(self, fault: Callable[[Request], str | None] = lambda request: None, slots: int = 32) -> None:
        self.loads = self.calls = 0
        self.weights: list[str] = []
        self._fault, self._slots = fault, slots

    def __call__(self, model: str, context: int, weights: str) -> Callable[[], Policy]:
        self.weights.append(weights)

        def load() -> Policy:
            self.loads += 1
            return ToyPolicy(fault=self._asked, slots=self._slots)

        return load

    def _asked(self, request: Request) -> str | None:
        self.calls += 1
        return self._fault(request)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan("jsonl", "self_consistency", {"n": 4}, data=questions(tmp_path), model="toy")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "flyweight.db") as store:
        yield store


def only(summaries: list[Summary]) -> Summary:
    (summary,) = summaries
    return summary


# Nothing twice -----------------------------------------------------------------------------------------------------


def test_a_finished_run_loads_nothing_and_says_the_same(store: Store, plan: Plan) -> None:
    load = Counting()
    first = only(bench.execute(store, [plan], load=load))
    assert (load.loads, load.calls, first.calls, first.ending) == (1, 24, 24, "finished")
    assert first.tally.searched == 6 and first.tally.candidates == 24 and first.generated == first.tally.tokens
    again = only(bench.execute(store, [plan], load=load))
    assert (load.loads, load.calls, again.calls, again.generated) == (1, 24, 0, 0)
    assert again.tally == first.tally and again.run == first.run


def test_a_finished_run_needs_no_sandbox(store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    only(bench.execute(store, [plan], load=Counting()))
    monkeypatch.setattr(bench.Job, "ready", lambda job, grade: pytest.fail("asked"))
    only(bench.execute(store, [plan], load=Counting()))


def test_a_larger_n_draws_only_what_is_new_and_a_smaller_one_nothing(store: Store, plan: Plan) -> None:
    calls = []
    for n in (4, 16, 2, 8):
        load = Counting()
        summary = only(bench.execute(store, [replace(plan, parameters={"n": n})], load=load))
        assert summary.calls == load.calls
        calls.append((load.loads, load.calls))
    assert calls == [(1, 24), (1, 72), (0, 0), (0, 0)]


def test_strategies_share_what_they_would_draw_alike(store: Store, plan: Plan) -> None:
    load = Counting()
    plans = bench.grid(plan, ["self_consistency", "best_of_n"], ["arithmetic", "confidence"])
    assert [summary.calls for summary in bench.execute(store, plans, load=load)] == [24, 0, 0]
    assert load.calls == 24


def test_another_context_is_another_draw(store: Store, plan: Plan) -> None:
    load = Counting()
    bench.execute(store, [plan, replace(plan, context=64)], load=load)
    assert (load.loads, load.calls) == (2, 48)


def test_what_a_run_costs_does_not_depend_on_what_ran_before(plan: Plan, tmp_path: Path) -> None:
    costs = []
    for name, plans in (("alone", [replace(plan, seed=1)]), ("after", [plan, replace(plan, seed=1)])):
        with Store(tmp_path / f"{name}.db") as store:
            run = bench.execute(store, plans, load=Counting())[-1].run
            costs.append([replace(result.usage, seconds=0) for result in store.results(run)])
    assert costs[0] == costs[1] and any(usage.prompt_tokens > 20 for usage in costs[0])


def test_a_policy_of_a_third_party_is_known_by_what_it_was_asked_for_as(
    store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "plugin", lambda model, **_: ToyPolicy if model.startswith("mine") else None)
    plans = [replace(plan, model=model) for model in ("mine:big", "mine:small", "mine:big")]
    assert [summary.calls for summary in bench.execute(store, plans)] == [24, 24]
    assert [run.models for run in store.runs()] == [
        {"mine:big": "mine:big (toy)"},
        {"mine:small": "mine:small (toy)"},
    ]


def test_an_earlier_run_decides_the_encoding(store: Store, plan: Plan, tmp_path: Path) -> None:
    class Encoded(ToyPolicy):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.weights = type("Encoded", (), {"kind": kind, "note": "no memory"})

    asked: list[str] = []

    def load(model: str, context: int, weights: str) -> Callable[[], Policy]:
        asked.append(weights)
        return lambda: Encoded("packed" if weights == "auto" else kind)

    kind = "packed"
    model = tmp_path / "tiny.gguf"
    model.write_bytes(b"GGUF and more")
    plan = replace(plan, model=str(model))
    summary = only(bench.execute(store, [plan], load=load))
    wide = replace(plan, parameters={"n": 8})
    kind = "file"
    with pytest.raises(
        ModelError, match=r"is on record as sha256:\w{8}… packed and runs here as .* file \(no memory\)"
    ):
        bench.execute(store, [wide], load=load)
    (info,) = [run for run in store.runs() if run.id == summary.run]
    assert list(info.models) == [str(model)] and next(iter(info.models.values())).endswith(" packed")
    kind = "packed"
    assert only(bench.execute(store, [wide], load=load)).calls == 24
    assert asked == ["auto", "packed", "packed"]
    assert all(not result.error for run in store.runs() for result in store.results(run.id))
    model.write_bytes(b"GGUF and something else")
    with pytest.raises(ConfigError, match="is another file now"):
        bench.execute(store, [wide], load=load)
    model.unlink()
    assert only(bench.execute(store, [wide], load=load)).calls == 0


def test_a_model_that_cannot_be_loaded_leaves_no_results(store: Store, plan: Plan) -> None:
    bench.execute(store, [plan], load=Counting())

    def load(model: str, context: int, weights: str) -> Callable[[], Policy]:
        def fail() -> Policy:
            raise ModelError("no memory")

        return fail

    wide = replace(plan, parameters={"n": 8})
    with pytest.raises(ModelError, match="no memory"):
        bench.execute(store, [wide], load=load)
    assert sum(1 for run in store.runs() for _ in store.results(run.id)) == 6
    assert only(bench.execute(store, [wide], load=Counting())).ending == "finished"


def test_one_verifier_is_loaded_at_a_time_and_none_is_left(
    store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[str] = []
    most = []

    class Heavy(RuleVerifier):
        """Holds its weights from its first score until it is closed."""

        def __init__(self, name: str) -> None:
            super().__init__(lambda question, solution: 0.5, name=name)
            self.identity = name

        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
            if self.name not in held:
                held.append(self.name)
                most.append(len(held))
            return await super().score(problem, nodes, models)

        def close(self) -> None:
            if self.name in held:
                held.remove(self.name)

    usual = verifiers.load

    def heavy(name: str) -> Verifier:
        return Heavy(name) if name.startswith("heavy") else usual(name)

    monkeypatch.setattr(verifiers, "load", heavy)
    plans = bench.grid(plan, ["best_of_n"], ["heavy1", "heavy2"], [2, 4])
    assert len(bench.execute(store, plans, load=Counting())) == 4
    assert most == [1, 1, 1, 1] and not held


# Grades ------------------------------------------------------------------------------------------------------------


def test_the_tally_is_what_the_record_adds_up_to(store: Store, plan: Plan, tmp_path: Path) -> None:
    summary = only(bench.execute(store, [plan], load=Counting()))
    grades = []
    for result in store.results(summary.run):
        right = result.answer == result.problem.answer
        grades.append(right)
    assert summary.tally.correct == sum(grades) and 0 < sum(grades) <= 6
    assert summary.tally.wrong == 6 - sum(grades)
    assert summary.tally.accuracy is not None and summary.tally.accuracy.value == sum(grades) / 6


def test_grades_left_out_are_made_later(store: Store, plan: Plan) -> None:
    summary = only(bench.execute(store, [plan], load=Counting(), grade=False))
    assert summary.tally.accuracy is None and summary.ending == "finished"
    (job,) = bench.check([plan])
    later = bench.regrade(store, job)
    assert later.tally.accuracy is not None and later.run == summary.run
    graded = only(bench.execute(store, [plan], load=Counting()))
    assert graded.tally == later.tally


@pytest.mark.parametrize("again", ["run", "grade"])
def test_what_ran_out_of_time_is_graded_again(
    again: str, store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a finished run too: grades must not depend on how busy the machine was."""

    def late(self: object, problem: Problem, text: str) -> Grade:
        return Grade("undecided", "no result within 1.5 s", retry=True)

    with monkeypatch.context() as busy:
        busy.setattr("flyweight.tasks.jsonl.JSONL.grade", late)
        first = only(bench.execute(store, [plan], load=Counting()))
    assert first.ending == "finished" and first.tally.undecided == 6
    (job,) = bench.check([plan])
    second = bench.regrade(store, job) if again == "grade" else only(bench.execute(store, [plan], load=Counting()))
    assert second.tally.undecided == 0 and second.tally.correct + second.tally.wrong == 6


def test_every_candidate_is_graded_once(store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    lock = threading.Lock()

    def grade(task: object, problem: Problem, text: str) -> Grade:
        with lock:
            asked.append((problem.id, text))
        return Grade("correct")

    monkeypatch.setattr("flyweight.tasks.jsonl.JSONL.grade", grade)
    plans = [plan, replace(plan, strategy="best_of_n", parameters={"n": 8})]
    bench.execute(store, plans, load=Counting())
    trial = [each for each in asked if "pass" in each[1]]
    assert len(trial) == 2 and len(set(asked)) == len(asked) - 1  # the trial of each run is the same
    texts = {
        (r.problem.id, c.node.solution) for run in store.runs() for r in store.results(run.id) for c in r.candidates
    }
    assert set(asked) - set(trial) == texts


def test_problems_read_back_are_graded_as_the_task_made_them(store: Store) -> None:
    plan = Plan("countdown", "greedy", model="toy", settings={"count": 3, "numbers": 2})
    bench.execute(store, [plan], load=Counting(), grade=False)
    (job,) = bench.check([plan])
    assert isinstance(job.task, Countdown)
    assert bench.regrade(store, job).tally.searched == 3


@pytest.mark.parametrize("error", [SandboxError("no sandbox any more"), RuntimeError("a bug")])
def test_what_grading_raises_ends_the_run_and_the_next_one_goes_on(
    error: Exception, store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench.Job.ready

    def grade(task: object, problem: Problem, text: str) -> Grade:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(bench.Job, "ready", lambda job, grade: None)
        patch.setattr("flyweight.tasks.jsonl.JSONL.grade", grade)
        expected = type(error) if isinstance(error, SandboxError) else BackendError
        with pytest.raises(expected, match=str(error)):
            bench.execute(store, [plan], load=Counting())
    assert bench.Job.ready is whole
    load = Counting()
    summary = only(bench.execute(store, [plan], load=load))
    assert summary.ending == "finished" and summary.tally.searched == 6
    assert load.calls < 24


def test_no_thread_is_left_behind(store: Store, plan: Plan) -> None:
    before = set(threading.enumerate())
    bench.execute(store, [plan], load=Counting())
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=30)
        assert not thread.is_alive()


# Limits ------------------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_to_the_same_end(plan: Plan, tmp_path: Path) -> None:
    paths = [tmp_path / "straight.db", tmp_path / "stopped.db"]
    plans = [plan, replace(plan, strategy="beam_search", parameters={"n": 4})]
    with Store(paths[0]) as store:
        bench.execute(store, plans, load=Counting())
    state: list[Progress] = []

    def stop_at(call: int) -> Counting:
        def fault(request: Request) -> None:
            if load.calls == call and state[-1].runner is not None:
                state[-1].runner.interrupt()

        load = Counting(fault, slots=3)
        return load

    endings = []
    with Store(paths[1]) as store:
        for call in (5, 11, 9, 40, 10_000):
            done = bench.execute(store, plans, load=stop_at(call), in_flight=2, on_progress=state.append)
            endings.append([summary.ending for summary in done])
    assert endings[0] == ["interrupted"] and ["finished", "interrupted"] in endings
    assert endings[-1] == ["finished", "finished"]
    assert said(paths[0]) == said(paths[1])


def test_tokens_end_it_where_it_can_go_on(store: Store, plan: Plan) -> None:
    plans = [plan, replace(plan, seed=1)]
    summaries = bench.execute(store, plans, load=Counting(slots=2), in_flight=2, limits=Limits(tokens=140))
    summary = only(summaries)
    assert summary.ending == "tokens"
    assert 140 <= summary.generated <= 150  # it is looked at when a search ends, and now and then
    assert summary.tally.searched < 6
    rest = bench.execute(store, plans, load=Counting())
    assert [each.ending for each in rest] == ["finished", "finished"]


def test_seconds_end_it(store: Store, plan: Plan) -> None:
    assert only(bench.execute(store, [plan], load=Counting(), limits=Limits(seconds=1e-9))).ending == "seconds"
    assert only(bench.execute(store, [plan], load=Counting())).tally.searched == 6


def test_too_many_errors_end_it_and_are_searched_again_only_when_asked(store: Store, tmp_path: Path) -> None:
    plan = Plan("jsonl", "greedy", data=questions(tmp_path, 60), model="toy")
    broken = Counting(fault=lambda request: "broken" if "7" in request.node.root.messages[-1].content else None)
    summary = only(bench.execute(store, [plan], load=broken, limits=Limits(errors=0.05), in_flight=1))
    assert summary.ending == "errors" and summary.tally.error == "broken"
    assert 20 <= summary.tally.searched < 60 and summary.tally.errors == 2
    load = Counting()
    goes_on = only(bench.execute(store, [plan], load=load))
    assert (goes_on.tally.searched, goes_on.tally.errors, load.calls) == (60, 2, 60 - summary.tally.searched)
    load = Counting()
    again = only(bench.execute(store, [plan], load=load, retry=True))
    assert (again.tally.searched, again.tally.errors, load.calls) == (60, 0, 2)


def test_a_few_searches_that_all_fail_are_a_failure(store: Store, plan: Plan) -> None:
    load = Counting(fault=lambda request: "broken")
    assert only(bench.execute(store, [plan], load=load, limits=Limits(errors=0.5))).ending == "errors"


def test_a_store_that_fails_ends_it(store: Store, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    error = StoreError("the disk is full")
    put, puts = store._units.put, iter(range(100))

    def fail(*rows: object) -> None:
        if next(puts) > 5:
            store._database.error = error
            raise error
        put(*rows)  # type: ignore[arg-type]

    monkeypatch.setattr(store._units, "put", fail)
    with pytest.raises(StoreError, match="the disk is full"):
        bench.execute(store, [plan], load=Counting(slots=2))


def test_problems_are_taken_as_they_are_needed(store: Store, tmp_path: Path) -> None:
    plan = Plan("jsonl", "greedy", data=questions(tmp_path, 40), model="toy")
    done = most = 0
    begun: set[str] = set()

    def asked(request: Request) -> None:
        nonlocal most
        begun.add(request.node.root.key)
        most = max(most, len(begun) - done)

    def watch(progress: Progress) -> None:
        nonlocal done
        done = progress.tally.searched

    bench.execute(store, [plan], load=Counting(fault=asked), in_flight=3, on_progress=watch, grade=False)
    assert (most, done, len(begun)) == (3, 40, 40)


# What it would take ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["greedy", "self_consistency", "best_of_n", "adaptive_consistency", "beam_search"])
def test_an_estimate_of_draws_is_exact_where_it_says_so(name: str, store: Store, plan: Plan) -> None:
    bench.execute(store, [plan], load=Counting())
    (wide,) = bench.grid(replace(plan, parameters={}), [name], (), [8] if name != "greedy" else [])
    (job,) = bench.check([wide])
    before = estimate(store, job)
    assert (before.problems, before.on_record) == (6, 0)
    made = only(bench.execute(store, [wide], load=Counting()))
    if before.exact:
        assert before.draws - before.stored == made.calls
        assert before.stored == (0 if name == "greedy" else 24)
        assert 0.8 < before.tokens / made.generated < 1.2
    assert before.exact == (name in ("greedy", "self_consistency", "best_of_n"))
    assert before.reread == (24 if name == "best_of_n" else 0), "by self, which goes by hidden states"
    after = estimate(store, job)
    assert after.on_record == 6 and after.draws == 0 and after.exact


def test_what_a_verifier_reads_is_no_draw(store: Store, plan: Plan) -> None:
    """And the seconds of a run that only reads say nothing of how fast the model draws."""
    judged = replace(plan, strategy="best_of_n", verifier="p_true")
    first = only(bench.execute(store, [judged]))
    assert (first.calls, first.readings, first.tally.candidates) == (24, 24, 24)
    (wide,) = bench.check([replace(plan, parameters={"n": 8})])
    speed = measured(store, wide)
    assert speed.tokens == first.generated / 24
    again = only(bench.execute(store, [replace(judged, verifier="p_true:question=Right?")]))
    assert (again.calls, again.readings, again.generated) == (0, 24, 0)
    facts = [each for info in store.runs() for each in info.versions if "seconds" in each]
    assert sorted(each["samples"] for each in facts) == ["0", "24"]
    assert measured(store, wide) == speed


def test_an_estimate_writes_nothing_and_needs_no_store(plan: Plan, tmp_path: Path) -> None:
    (job,) = bench.check([plan])
    first = estimate(None, job)
    assert (first.draws, first.stored, first.exact) == (24, 0, True)
    assert measured(None, job).basis.startswith("assumed")
    path = tmp_path / "flyweight.db"
    with Store(path) as store:
        bench.execute(store, [plan], load=Counting())
    content = path.read_bytes()
    (wide,) = bench.check([replace(plan, parameters={"n": 8})])
    with Store(path, readonly=True) as store:
        assert estimate(store, wide).stored == 24
        speed = measured(store, wide)
        tokens = sum(result.usage.generated_tokens for run in store.runs() for result in store.results(run.id))
    assert path.read_bytes() == content
    assert speed.basis.startswith("measured") and speed.tokens == tokens / 24


def test_a_damaged_search_is_searched_again(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "flyweight.db"
    with Store(path) as store:
        bench.execute(store, [plan], load=Counting())
        before = said_of(store)
        (row,) = store._database.read("SELECT problem FROM searches LIMIT 1")
        store._database.write([("UPDATE searches SET record = x'00' WHERE problem = ?", [row])])
    with Store(path) as store:
        load = Counting()
        assert only(bench.execute(store, [plan], load=load)).tally.searched == 6
        assert load.calls == 0 and said_of(store) == before


def said_of(store: Store) -> list[tuple[str, str | None]]:
    return [(result.problem.id, result.answer) for run in store.runs() for result in store.results(run.id)]
