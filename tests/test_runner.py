"""The runner on the toy policy: budgets, seeds, company, errors, accounts."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace

import pytest

from flyweight import strategies
from flyweight.errors import BackendError, ConfigError
from flyweight.live import Live
from flyweight.protocols import Models, Request, Response, Search, Strategy
from flyweight.runner import Runner
from flyweight.select import majority
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import Budget, Event, Finish, Message, Node, Problem, Result, Sampling, Score, Stopped

SUM = Problem("sum", "Add 3 and 4 and 5.", answer="12")


def runner(policy: ToyPolicy | None = None, **settings: object) -> Runner:
    verifiers = {"rule": RuleVerifier(lambda question, solution: 0.5)}
    return Runner(policy or ToyPolicy(), verifiers, answers=BoxedAnswers(), **settings)  # type: ignore[arg-type]


def say(*texts: str) -> ToyPolicy:
    """A policy whose k-th request says the k-th text, whatever it is asked."""
    supply = itertools.cycle(texts)

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(next(supply))

    return ToyPolicy(write)


def voting(n: int) -> Strategy:
    return strategies.bind("self_consistency", {"n": n})


# Budgets


@pytest.mark.parametrize("tokens", [1, 10, 39, 40, 41, 200, 399, 400, 10_000])
@pytest.mark.parametrize("slots", [1, 3, 32])
def test_token_budget_is_never_exceeded_and_independent_of_slots(tokens: int, slots: int) -> None:
    def drawn(slots: int) -> list[tuple[str, Finish | None]]:
        run = runner(ToyPolicy(slots=slots), sampling=Sampling(max_tokens=100))
        result = run.solve(SUM, voting(8), Budget(tokens=tokens))
        assert result.error is None
        assert result.usage.generated_tokens <= tokens
        spent_all = sum(c.node.drawn for c in result.candidates) > tokens - 100
        assert (result.stopped is Stopped.BUDGET) <= spent_all
        return [(c.node.solution, c.node.finish) for c in result.candidates]

    assert drawn(slots) == drawn(32)


def test_token_budget_returns_a_whole_candidate_rather_than_many_halves() -> None:
    # Each answer takes 20 characters and the end: a budget of 50 pays for two and a cut one.
    run = runner(say("the answer \\boxed{7}"), sampling=Sampling(max_tokens=25))
    result = run.solve(SUM, voting(8), Budget(tokens=50))
    assert [c.node.finish for c in result.candidates] == [Finish.END, Finish.END, Finish.LENGTH]
    assert result.answer == "7" and result.stopped is Stopped.BUDGET
    assert result.usage.generated_tokens == 21 + 21 + 8


def test_spent_budget_ends_a_tree_search_with_its_best_complete_candidate() -> None:
    async def search_twice(search: Search) -> Node | None:
        await search.complete([search.root], 1)
        await search.complete([search.root], 1)
        raise AssertionError("the budget does not reach this far")

    run = runner(say("so \\boxed{7}"), sampling=Sampling(max_tokens=13))
    result = run.solve(SUM, search_twice, Budget(tokens=13))
    assert (result.answer, result.stopped, result.error) == ("7", Stopped.BUDGET, None)


def test_verification_budget_scores_what_it_can() -> None:
    judge = RuleVerifier(lambda question, solution: 0.9 if "\\boxed{2}" in solution else 0.1)
    run = Runner(say("\\boxed{1}", "\\boxed{2}", "\\boxed{3}"), {"rule": judge}, answers=BoxedAnswers())
    result = run.solve(SUM, strategies.bind("best_of_n", {"n": 3}), Budget(verifications=2))
    assert (result.answer, result.usage.verifier_calls, result.stopped) == ("2", 2, Stopped.BUDGET)
    assert len(judge.scored) == 2


def test_deadline_returns_the_best_so_far_and_cancels_the_rest() -> None:
    now = itertools.count()
    policy = say("\\boxed{1}", "\\boxed{1}" + "x" * 500)
    run = runner(policy, clock=lambda: float(next(now)))
    result = run.solve(SUM, voting(2), Budget(seconds=100))
    assert (result.answer, result.stopped) == ("1", Stopped.DEADLINE)
    assert len(result.candidates) == 1
    assert policy.counters.generated_tokens == result.usage.generated_tokens, "the cancelled row is charged"
    assert policy.step() == []


def test_confidence_stops_as_soon_as_the_leader_is_sure() -> None:
    policy = ToyPolicy(lambda q, s, rng, sampling: Draft("\\boxed{1}"), slots=1)
    result = runner(policy).solve(SUM, voting(64), Budget(confidence=0.95))
    # Four of four: P(lead) = 1 - 2**-5 = 0.969; three of three: 0.9375.
    assert (len(result.candidates), result.stopped, result.answer) == (4, Stopped.CONFIDENT, "1")
    assert result.confidence == 1 - 2**-5


def test_interrupt_returns_what_is_known() -> None:
    run: Runner

    def interrupt(event: Event) -> None:
        if event.kind == "node":
            run.interrupt()

    run = runner(say("\\boxed{1}", "\\boxed{1}" + "x" * 500), on_event=interrupt)
    result = run.solve(SUM, voting(2))
    assert (result.answer, result.stopped) == ("1", Stopped.INTERRUPTED)
    assert runner(say("\\boxed{2}")).solve(SUM, voting(2)).stopped is Stopped.DONE


# Seeds and company


def test_a_seed_depends_on_run_problem_path_and_draw_only() -> None:
    seeds: list[int] = []

    class Spy(ToyPolicy):
        def add(self, request: Request) -> None:
            seeds.append(request.seed)
            super().add(request)

    def drawn(n: int, seed: int = 0, problem: Problem = SUM) -> list[int]:
        seeds.clear()
        runner(Spy(), seed=seed).solve(problem, voting(n))
        return list(seeds)

    assert drawn(8)[:4] == drawn(4), "the first samples of a larger pool are the smaller pool"
    assert len(set(drawn(64))) == 64
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert not set(drawn(8, seed=1)) & set(drawn(8))
    assert not set(drawn(8, problem=Problem("other", SUM.prompt))) & set(drawn(8))


def test_branches_keep_their_draws_however_they_interleave() -> None:
    async def two_branches(search: Search, first_waits: bool) -> Node | None:
        async def branch(waits: bool) -> str:
            if waits:
                await search.extend([search.root], 1)
            [node] = await search.complete([search.root], 1)
            return node.key

        keys = await search.parallel(branch(first_waits), branch(False))
        search.note(keys=" ".join(keys))
        return None

    def keys(first_waits: bool) -> list[str]:
        notes: list[str] = []

        def listen(event: Event) -> None:
            if event.kind == "note":
                notes.extend(str(event.facts["keys"]).split())

        runner(on_event=listen).solve(SUM, functools.partial(two_branches, first_waits=first_waits))
        return notes

    waited, second = keys(True)
    straight, same = keys(False)
    assert second == same, "what one branch draws does not change another's draws"
    assert waited != straight and straight != same


@pytest.mark.parametrize("name", strategies.names())
def test_results_do_not_depend_on_what_else_is_in_flight(name: str) -> None:
    problems = [Problem(f"p{i}", f"Add {i} and {i * i} and 7.") for i in range(50)]
    strategy = strategies.bind(name)

    def told(in_flight: int, slots: int) -> dict[str, tuple[str, int]]:
        judge = RuleVerifier(lambda question, solution: 1 / (1 + len(solution)))
        run = Runner(ToyPolicy(slots=slots), {"rule": judge}, answers=BoxedAnswers())
        results = run.run(problems, strategy, in_flight=in_flight)
        return {r.problem.id: (r.text, r.usage.generated_tokens) for r in results}

    assert told(1, 32) == told(50, 7) == told(50, 64)


def test_every_sample_belongs_to_its_question() -> None:
    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(question + "." * rng.randrange(20) + "\\boxed{1}")

    problems = [Problem(f"p{i}", f"question {i};") for i in range(100)]
    run = runner(ToyPolicy(write, slots=13))
    results = list(run.run(problems, voting(8), in_flight=100))
    assert len(results) == 100
    for result in results:
        assert len(result.candidates) == 8
        assert all(c.node.solution.startswith(result.problem.prompt) for c in result.candidates)


def test_problems_are_taken_one_by_one_and_closing_cancels() -> None:
    taken = 0

    def endless() -> Iterator[Problem]:
        nonlocal taken
        for taken in itertools.count(1):
            yield Problem(f"p{taken}", "Add 1 and 2.")

    policy = ToyPolicy()
    results = runner(policy).run(endless(), voting(2), in_flight=5)
    for _ in range(20):
        next(results)
    assert taken <= 30
    results.close()  # type: ignore[attr-defined]
    generated = policy.counters.generated_tokens
    assert policy.step() == [] and policy.counters.generated_tokens == generated


# Errors


def failing(error: Exception) -> Strategy:
    async def strategy(search: Search) -> Node | None:
        await search.complete([search.root], 2)
        raise error

    return strategy


def test_one_failing_problem_leaves_the_others_alone() -> None:
    def fault(request: Request) -> str | None:
        return "prompt has 9000 tokens" if "bad" in request.node.root.messages[-1].content else None

    problems = [Problem("good", "Add 1 and 2."), Problem("bad", "bad"), Problem("fine", "Add 3 and 4.")]
    results = {r.problem.id: r for r in runner(ToyPolicy(fault=fault)).run(problems, voting(4))}
    assert results["bad"].error == "prompt has 9000 tokens"
    assert (results["bad"].stopped, results["bad"].best) == (Stopped.ERROR, None)
    assert results["good"].error is None and results["fine"].error is None


def test_a_raising_strategy_keeps_its_candidates_but_answers_nothing() -> None:
    result = runner().solve(SUM, failing(ValueError("no\nluck")))
    assert result.error == "ValueError: no luck"
    assert result.best is None and result.answer is None and len(result.candidates) == 2
    assert result.usage.generated_tokens > 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_scores_outside_the_unit_interval_are_errors(value: float) -> None:
    judge = RuleVerifier(lambda question, solution: value)
    run = Runner(ToyPolicy(), {"rule": judge}, answers=BoxedAnswers())
    result = run.solve(SUM, strategies.bind("best_of_n", {"n": 2}))
    assert result.error is not None and "scores must lie in [0, 1]" in result.error


def test_a_missing_score_is_an_error() -> None:
    class Lazy(RuleVerifier):
        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
            return list(await super().score(problem, nodes, models))[1:]

    run = Runner(ToyPolicy(), {"lazy": Lazy(lambda q, s: 0.5, "lazy")}, answers=BoxedAnswers())
    result = run.solve(SUM, strategies.bind("best_of_n", {"n": 3}))
    assert result.error == "verifier lazy returned 2 scores for 3 candidates"


def test_a_policy_that_crashes_ends_its_problems_only() -> None:
    class Crashing(ToyPolicy):
        def step(self) -> list[Response]:
            if self.counters.generated_tokens > 20:
                raise RuntimeError("out of memory")
            return super().step()

        def cancel(self, id: int) -> Response:
            raise BackendError(f"request {id} is not in flight")

    results = list(runner(Crashing()).run([SUM, Problem("b", "Add 1 and 2.")], voting(4)))
    assert {r.error for r in results} == {"policy toy failed: RuntimeError: out of memory"}


def test_awaiting_anything_else_is_refused() -> None:
    class Foreign:
        def __await__(self) -> Generator[str, None, None]:
            yield "sleep"

    async def strategy(search: Search) -> Node | None:
        await Foreign()
        return None

    result = runner().solve(SUM, strategy)
    assert result.error == "a strategy may only await the verbs of Search, not str"


def test_a_failing_branch_cancels_its_siblings() -> None:
    async def strategy(search: Search) -> Node | None:
        async def fails() -> None:
            await search.extend([search.root], 1)
            raise ValueError("branch")

        async def long() -> None:
            await search.complete([search.root], 8)

        try:
            await search.parallel(fails(), long())
        except Exception as error:
            search.note(seen=str(error))
        return (await search.complete([search.root], 1))[0]

    policy = ToyPolicy()
    notes: list[object] = []
    run = runner(policy, on_event=lambda e: notes.append(e.facts.get("seen")) if e.kind == "note" else None)
    result = run.solve(SUM, strategy)
    assert notes == ["ValueError: branch"]
    assert result.error is None and result.best is not None
    assert result.usage.generated_tokens == policy.counters.generated_tokens


def test_unknown_names_and_missing_verifiers_say_what_to_do() -> None:
    async def elsewhere(search: Search) -> Node | None:
        return (await search.complete([search.root], 1, policy="tpy"))[0]

    result = runner().solve(SUM, elsewhere)
    assert result.error == "unknown policy 'tpy'; did you mean 'toy'? (one of: toy)"
    bare = Runner(ToyPolicy(), answers=BoxedAnswers())
    result = bare.solve(SUM, strategies.bind("best_of_n", {"n": 2}))
    assert result.error is not None and "pass --verifier, or use self_consistency" in result.error


# What is seen, what is counted


def test_the_answer_reaches_nobody_but_the_oracle() -> None:
    shown: dict[str, str | None] = {}

    class Peek(RuleVerifier):
        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
            shown[self.name] = problem.answer
            return await super().score(problem, nodes, models)

    async def strategy(search: Search) -> Node | None:
        shown["strategy"] = search.problem.answer
        nodes = await search.complete([search.root], 1)
        await search.score(nodes, verifier="honest")
        return (await search.score(nodes, verifier="oracle"))[0]

    judges = {
        "honest": Peek(lambda q, s: 0.5, "honest"),
        "oracle": Peek(lambda q, s: 0.5, "oracle", sees_answer=True),
    }
    result = Runner(ToyPolicy(), judges, answers=BoxedAnswers()).solve(SUM, strategy)
    assert shown == {"strategy": None, "honest": None, "oracle": "12"}
    assert result.problem.answer == "12", "the result carries it for grading"


def test_what_a_verifier_reads_is_verifier_tokens() -> None:
    class Reader(RuleVerifier):
        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
            read = await models.read(nodes, " right?", ("yes", "no"))
            asked = await models.ask([Message("user", "Add 1 and 1.")], 1)
            assert len(asked) == 1
            return [Score(math.exp(yes)) for yes, _ in read]

    policy = say("\\boxed{1}", "\\boxed{2}", "\\boxed{3}", "\\boxed{4}", "yes")
    judge = Reader(lambda q, s: 0.5, "reader")
    run = Runner(policy, {"reader": judge}, answers=BoxedAnswers())
    result = run.solve(SUM, strategies.bind("best_of_n", {"n": 4}))
    assert result.error is None
    usage, counters = result.usage, policy.counters
    # Four times " right?" after a resident path; then a prompt of 19 of which "user: Add " is resident, "yes", the end.
    assert usage.verifier_tokens == 4 * 7 + (19 - 10) + 4
    assert usage.prompt_tokens + usage.verifier_tokens + usage.generated_tokens == (
        counters.prompt_tokens + counters.generated_tokens
    )
    assert usage.cached_tokens == counters.cached_tokens
    assert usage.flops == 2.0 * policy.params * (counters.prompt_tokens + counters.generated_tokens)
    assert (usage.policy_calls, usage.verifier_calls) == (4, 4)
    assert usage.peak_kv_bytes == counters.peak_kv_bytes or usage.peak_kv_bytes > 0


def test_compare_uses_scores_unless_the_verifier_compares() -> None:
    async def strategy(search: Search, out: list[float]) -> Node | None:
        a, b = await search.complete([search.root], 2)
        out.append(await search.compare(a, b))
        return a

    by_length = RuleVerifier(lambda q, s: 0.9 if "1" in s else 0.5)
    out: list[float] = []
    run = Runner(say("\\boxed{1}", "\\boxed{2}"), {"rule": by_length}, answers=BoxedAnswers())
    assert run.solve(SUM, functools.partial(strategy, out=out)).error is None
    assert out == [pytest.approx(0.9)]  # odds 9:1 against odds 1:1

    class Pairwise(RuleVerifier):
        async def compare(self, problem: Problem, a: Node, b: Node, models: Models) -> float:
            return 0.25

    out.clear()
    run = Runner(say("x"), {"pair": Pairwise(lambda q, s: 0.5, "pair")}, answers=BoxedAnswers())
    assert run.solve(SUM, functools.partial(strategy, out=out)).usage.verifier_calls == 2
    assert out == [0.25]


def test_events_tell_the_whole_story_in_order() -> None:
    events: list[Event] = []
    run = runner(on_event=events.append)
    result = run.solve(SUM, strategies.bind("best_of_n", {"n": 3}))
    kinds = [event.kind for event in events if event.kind != "progress"]
    assert kinds == ["start", "node", "node", "node", "score", "score", "score", "end"]
    assert [e.at for e in events] == sorted(e.at for e in events)
    ends: list[Result] = [e.facts["result"] for e in events if e.kind == "end"]  # type: ignore[misc]
    assert ends == [result]
    tokens = sum(len(e.node.tokens or ()) for e in events if e.kind == "node" and e.node)
    assert result.usage.generated_tokens == tokens + 3, "each answer's end is a drawn token too"


def test_truncated_and_answerless_candidates_are_shown_but_do_not_vote() -> None:
    policy = say("\\boxed{1}", "no idea", "\\boxed{2}" * 99)
    result = runner(policy, sampling=Sampling(max_tokens=40)).solve(SUM, voting(3))
    assert result.answer == "1"
    assert [(c.answer, c.answer_class) for c in result.candidates] == [("1", 0), (None, None), (None, None)]


def test_without_any_answer_the_most_confident_text_comes_back() -> None:
    drafts = iter([Draft("a haiku", -0.9), Draft("a better haiku", -0.1)])
    policy = ToyPolicy(lambda q, s, rng, sampling: next(drafts))
    result = runner(policy).solve(SUM, voting(2))
    assert (result.text, result.answer, result.confidence) == ("a better haiku", None, None)


def test_a_candidate_that_was_continued_is_no_longer_one() -> None:
    def cut(stop: str) -> Callable[[object], bool]:
        return lambda growth: stop in growth.text  # type: ignore[attr-defined]

    async def strategy(search: Search) -> Node | None:
        [thought] = await search.complete([search.root], 1, until=cut("hmm"))
        assert thought.finish is Finish.CUT
        [answer] = await search.complete([search.append(thought, " So")], 1)
        return answer

    result = runner(say("hmm, well, hmm", " \\boxed{9}")).solve(SUM, strategy)
    assert [c.node.solution for c in result.candidates] == ["hmm So \\boxed{9}"]
    assert result.answer == "9"


def test_bad_parameters_are_found_when_binding() -> None:
    with pytest.raises(ConfigError, match="did you mean 'width'"):
        strategies.bind("beam_search", {"widht": 4})
    assert majority([]) is None


# One by one, beside others under way


def finish(run: Runner, *searches: Live) -> list[Result]:
    """Drive the runner until these searches have ended."""
    while any(search.result is None for search in searches):
        run.step()
    return [search.result for search in searches if search.result is not None]


def test_a_submitted_search_is_what_it_is_alone() -> None:
    other = Problem("other", "Add 1 and 2 and 3 and 4.")
    [alone] = runner().run([SUM], voting(5))
    run = runner()
    first = run.submit(other, voting(9))
    for _ in range(7):
        run.step()
    second = run.submit(SUM, voting(5))
    [_, beside] = finish(run, first, second)
    assert (beside.text, beside.usage.generated_tokens) == (alone.text, alone.usage.generated_tokens)
    assert run.step() == []


def test_each_ended_search_is_returned_once() -> None:
    run = runner()
    searches = [run.submit(replace(SUM, id=str(i)), voting(i + 1)) for i in range(4)]
    ended: list[Live] = []
    while len(ended) < len(searches):
        ended += run.step()
    assert sorted(map(id, ended)) == sorted(map(id, searches))


def test_a_cancelled_search_frees_its_rows_and_is_charged() -> None:
    policy = say("\\boxed{1}" + "x" * 500)
    run = runner(policy)
    search, kept = run.submit(SUM, voting(4)), run.submit(replace(SUM, id="kept"), voting(1))
    for _ in range(10):
        run.step()
    run.cancel(search)
    assert search.usage.generated_tokens == 40 and search.result is None
    run.cancel(kept)
    assert policy.step() == [] and run.step() == []
    run.cancel(search)
    assert search.usage.generated_tokens == 40, "cancelling twice costs nothing"
    assert search.usage.generated_tokens + kept.usage.generated_tokens == policy.counters.generated_tokens


def test_searches_differ_in_seed_sampling_and_verifier() -> None:
    run = runner(ToyPolicy(slots=3))
    seeded = replace(run.setting, seed=7, sampling=Sampling(max_tokens=30))
    searches = [run.submit(SUM, voting(6)), run.submit(SUM, voting(6), setting=seeded)]
    usual, changed = finish(run, *searches)
    assert usual.text == runner().solve(SUM, voting(6)).text
    assert changed.text == runner(seed=7, sampling=Sampling(max_tokens=30)).solve(SUM, voting(6)).text
    assert max(c.node.drawn for c in changed.candidates) <= 30 < max(c.node.drawn for c in usual.candidates)


def test_the_form_of_an_answer_binds_nothing_else() -> None:
    asked: list[Sampling] = []

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        asked.append(sampling)
        return Draft("{}")

    async def search(search: Search) -> Node | None:
        [whole] = await search.complete([search.root])
        await search.complete([search.append(whole, " so")])
        await search.ask([Message("user", "Is it?")])
        return whole

    run = runner(ToyPolicy(write), sampling=Sampling(stop=("END",), grammar='root ::= "{}"'))
    assert run.solve(SUM, search).error is None
    assert [(s.stop, bool(s.grammar)) for s in asked] == [(("END",), True), (("END",), False), ((), False)]


def test_what_needs_whole_answers_refuses_steps() -> None:
    run = runner()
    search = run.submit(SUM, strategies.bind("beam_search"), setting=replace(run.setting, whole="tools"))
    [result] = finish(run, search)
    assert isinstance(search.failure, ConfigError) and "step by step" in (result.error or "")
    assert result.usage.generated_tokens == 0


def test_work_done_elsewhere_runs_beside_the_policy() -> None:
    future: Future[float] = Future()

    class Remote(RuleVerifier):
        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
            value = await models.wait(future)
            return [Score(value, kind=self.name) for _ in nodes]

    policy = ToyPolicy()
    run = Runner(policy, {"remote": Remote(lambda q, s: 0.0)}, answers=BoxedAnswers())
    waiting = run.submit(SUM, strategies.bind("best_of_n", {"n": 1}))
    while not waiting.outside:
        run.step()
    before = policy.counters.generated_tokens
    finish(run, run.submit(replace(SUM, id="other"), voting(2)))
    assert policy.counters.generated_tokens > before and waiting.result is None
    future.set_result(0.25)
    [result] = finish(run, waiting)
    assert result.best is not None and result.best.score == Score(0.25, kind="rule")


@pytest.mark.parametrize("cancelled", [True, False])
def test_work_done_elsewhere_that_fails_or_is_not_wanted_any_more(cancelled: bool) -> None:
    future: Future[float] = Future()

    class Remote(RuleVerifier):
        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
            await models.wait(future)
            return []

    run = Runner(ToyPolicy(), {"remote": Remote(lambda q, s: 0.0)}, answers=BoxedAnswers())
    search = run.submit(SUM, strategies.bind("best_of_n", {"n": 1}))
    while not search.outside:
        run.step()
    if cancelled:
        run.cancel(search)
        assert future.cancelled() and run.step() == []
    else:
        future.set_exception(OSError("connection reset"))
        [result] = finish(run, search)
        assert result.error == "OSError: connection reset"


def test_comparing_answers_may_fail_and_fails_its_search_alone() -> None:
    class Broken(BoxedAnswers):
        def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
            if problem.id == "broken" and answers:
                raise RuntimeError("no comparing")
            return super().classes(answers, problem)

    run = Runner(ToyPolicy(), answers=Broken())
    searches = [run.submit(replace(SUM, id=id), voting(3), Budget(confidence=0.99)) for id in ("broken", "sound")]
    broken, sound = finish(run, *searches)
    assert broken.error == "RuntimeError: no comparing" and sound.error is None and sound.best is not None


def test_an_answer_made_of_steps_is_no_longer_than_allowed() -> None:
    run = runner(say(*["step\n\n"] * 100))
    endless = strategies.bind("beam_search", {"n": 2, "width": 2, "step_tokens": 50})
    [result] = finish(run, run.submit(SUM, endless, setting=replace(run.setting, longest=20)))
    # Six tokens a step: three whole ones, and what is left of the fourth.
    assert {c.node.drawn for c in result.candidates} == {20} and result.best is None


# Hidden states -------------------------------------------------------------------------------------------------------


class WithStates(ToyPolicy):
    """States for every request that asks for them."""

    def step(self) -> list[Response]:
        return [replace(each, hidden=[0.5]) for each in super().step()]


class Reads(RuleVerifier):
    """A verifier that finds states on every node it is asked about."""

    reads_states = True

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        assert all(step.hidden is not None for node in nodes for step in node.steps)
        return await super().score(problem, nodes, models)


def test_states_are_there_for_a_verifier_and_gone_with_the_search() -> None:
    for asked in (False, True):
        judged = {"rule": Reads(lambda question, solution: 0.5)}
        search = Runner(WithStates(), judged, answers=BoxedAnswers(), hidden=asked)
        result = search.solve(SUM, strategies.bind("beam_search", {"n": 4, "width": 2}))
        assert result.error is None and result.best is not None
        nodes = [each.node for each in result.candidates]
        steps = [step for node in nodes for step in node.steps]
        assert all((step.hidden is not None) == asked for step in steps)
        assert result.best in nodes, "the chosen one is one of them"
        assert len(set(steps)) == len({step.key for step in steps}) < len(steps), "what paths share stays shared"
