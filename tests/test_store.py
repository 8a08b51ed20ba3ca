"""The store in one process: what is replayed and at what cost, what is drawn again, what is read back."""

from __future__ import annotations

import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from flyweight import strategies
from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Growth, Models, Policy, Request, Response, Search, Strategy, Until, Verifier
from flyweight.runner import Runner
from flyweight.store import Fresh, Repeats, Store
from flyweight.store.units import Content, Paths, pack, unpack
from flyweight.testing import BoxedAnswers, Draft, RuleVerifier, ToyPolicy
from flyweight.types import (
    Budget,
    Event,
    Finish,
    Message,
    Node,
    Problem,
    Result,
    Sampling,
    Score,
    Stopped,
    ToolMessage,
    Usage,
)
from tests.store_child import CLOCKS, Scripted, problems, report, rule, solve

SUMS = [Problem(f"p{i}", f"Add {i} and {i + 2} and {3 * i}.", answer=str(5 * i + 2)) for i in range(6)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "runs.db") as store:
        yield store


def spent(usage: Usage) -> dict[str, float]:
    return {name: value for name, value in asdict(usage).items() if name not in CLOCKS}


def texts(result: Result) -> list[str]:
    return [candidate.node.text for candidate in result.candidates]


def scores(results: Sequence[Result]) -> dict[str, list[Score | None]]:
    return {result.problem.id: [candidate.node.score for candidate in result.candidates] for result in results}


def told(results: Sequence[Result]) -> dict[str, object]:
    """All of the results that a replay must reproduce."""
    return {
        r.problem.id: (
            r.text,
            r.answer,
            r.stopped,
            r.confidence,
            r.error,
            spent(r.usage),
            [c.node.text for c in r.candidates],
        )
        for r in results
    }


def run(
    policy: Policy,
    strategy: Strategy,
    *,
    judge: Verifier | None = None,
    budget: Budget | None = None,
    asked: Sequence[Problem] = SUMS,
    on_event: Callable[[Event], None] | None = None,
    **settings: object,
) -> list[Result]:
    verifiers = {} if judge is None else {"judge": judge}
    runner = Runner(policy, verifiers, answers=BoxedAnswers(), on_event=on_event, **settings)  # type: ignore[arg-type]
    return list(runner.run(asked, strategy, budget))


def judge_of(store: Store) -> Verifier:
    return store.verifier(RuleVerifier(rule), identity="rule 1")


# Replay


@pytest.mark.parametrize("name", strategies.names())
def test_every_strategy_replays_with_the_usage_it_had(store: Store, name: str) -> None:
    """R5, D5: a finished search asked again makes no call; its Usage equals the recorded one."""
    first, again = store.policy(ToyPolicy()), store.policy(ToyPolicy())
    recorded = run(first, strategies.bind(name), judge=judge_of(store))
    replayed = run(again, strategies.bind(name), judge=judge_of(store))
    assert told(replayed) == told(recorded) == told(run(ToyPolicy(), strategies.bind(name), judge=RuleVerifier(rule)))
    assert first.fresh.calls > 0 and again.fresh == Fresh()
    for counted in (first.counters, again.counters):
        assert counted.prompt_tokens == sum(r.usage.prompt_tokens for r in recorded)
        assert counted.generated_tokens == sum(r.usage.generated_tokens for r in recorded)


def test_usage_on_record_is_the_backends_own_count(store: Store) -> None:
    """D5: the sum over the results in the store equals what the backend counted, exactly."""
    policy = ToyPolicy()
    record = store.run({"name": "sums"})
    run(store.policy(policy), strategies.bind("beam_search"), judge=judge_of(store), on_event=record)
    usage = [result.usage for result in store.results(record.id)]
    assert sum(u.prompt_tokens for u in usage) == policy.counters.prompt_tokens > 0
    assert sum(u.cached_tokens for u in usage) == policy.counters.cached_tokens > 0
    assert sum(u.generated_tokens for u in usage) == policy.counters.generated_tokens > 0


def test_widening_draws_only_what_is_missing(store: Store) -> None:
    """R5: widening n from 16 to 64 makes 48 calls per problem, exactly."""
    calls = []
    for n in (16, 64, 64, 32):
        policy = Scripted()
        solve(store, policy, problems(3), n, strategy="self_consistency")
        calls.append(policy.calls)
    assert calls == [3 * 16, 3 * 48, 0, 0]


def test_another_strategy_uses_the_same_pool(store: Store) -> None:
    solve(store, Scripted(), problems(3), 8, strategy="self_consistency")
    other = Scripted()
    solve(store, other, problems(3), 8, strategy="best_of_n")
    assert other.calls == 0


def test_finished_problems_are_known_without_any_work(store: Store, tmp_path: Path) -> None:
    """R5: a run on record says which problems need nothing."""
    solve(store, Scripted(), problems(5))
    again = store.run({"strategy": "best_of_n", "n": 8})
    assert again.done == {p.id for p in problems(5)}
    assert solve(store, Scripted(), problems(5)) == []


def test_a_model_is_made_only_when_something_is_missing(store: Store) -> None:
    made: list[str] = []

    def make() -> ToyPolicy:
        made.append("made")
        return ToyPolicy()

    for expected in (1, 1):
        policy = store.deferred("toy", make)
        results = run(policy, strategies.bind("sample"))
        assert (policy.name, policy.params, policy.boundary) == ("toy", 1000, ("\n\n",))
        assert len(made) == expected and all(result.error is None for result in results)
        policy.close()
    run(store.deferred("toy", make), strategies.bind("self_consistency", {"n": 3}))
    assert len(made) == 2


def test_nobody_waits_for_another_machine_while_there_is_work_here(store: Store) -> None:
    class Elsewhere(ToyPolicy):
        """A model on another machine: to step is to wait for it."""

        waits = 0

        def step(self) -> list[Response]:
            self.waits += 1
            return self.poll()

        def poll(self) -> list[Response]:
            return ToyPolicy.step(self)

    async def each(search: Search) -> Node:
        return (await search.complete([search.root], policy=str(search.problem.meta["where"])))[0]

    here, there = ToyPolicy(name="here"), Elsewhere(name="there")
    behind = store.policy(there)
    asked = [replace(problem, meta={"where": ("here", "there")[i % 2]}) for i, problem in enumerate(SUMS)]
    runner = Runner({"there": behind, "here": here}, answers=BoxedAnswers())
    assert all(result.error is None for result in runner.run(asked, each))
    assert there.counters.generated_tokens > 20, "many polls"
    assert there.waits == 1, "the first step, before which nobody knows what the model is"
    assert store.policy(here).poll is None


def test_models_do_not_mix(store: Store) -> None:
    def saying(text: str) -> ToyPolicy:
        return ToyPolicy(lambda q, s, rng, sampling: Draft(text))

    one = run(store.policy(saying("a \\boxed{1}"), model="toy q4"), strategies.bind("sample"))
    two = run(store.policy(saying("b \\boxed{2}"), model="toy q8"), strategies.bind("sample"))
    assert {r.answer for r in one} == {"1"} and {r.answer for r in two} == {"2"}
    with pytest.raises(ConfigError, match="recorded with 1000 parameters and now has 2000"):
        store.policy(ToyPolicy(params=2000), model="toy q4")


def key(request: Request, model: str = "m") -> bytes:
    return Paths().request(model, request)


def test_a_key_is_everything_that_was_asked_and_nothing_else() -> None:
    root = Node(messages=(Message("user", "q"),), key="root")
    step = Node(root, "ab", (1, 2), (-0.5, -0.25), (1.0, 2.0), Finish.STOP, key="step", policy="p")
    base = Request(1, step, Sampling(), 7)
    other = [
        Request(1, root, Sampling(), 7),
        Request(1, step, Sampling(), 8),
        Request(1, step, Sampling(temperature=0.8), 7),
        Request(1, step, Sampling(top_p=0.9), 7),
        Request(1, step, Sampling(max_tokens=9), 7),
        Request(1, step, Sampling(stop=("a", "b")), 7),
        Request(1, step, Sampling(stop=("ab",)), 7),
        Request(1, step, Sampling(grammar="g"), 7),
        Request(1, step, Sampling(), 7, until=lambda growth: False),
        Request(1, step, Sampling(), 7, choices=("yes", "no")),
        Request(1, step, Sampling(), 7, choices=("yesno",)),
        Request(1, replace(step, tokens=(12,)), Sampling(), 7),
        Request(1, replace(step, finish=Finish.END), Sampling(), 7),
        Request(1, replace(step, policy="q"), Sampling(), 7),
        Request(1, Node(root, "ab", None, finish=Finish.FORCED, key="step"), Sampling(), 7),
        Request(1, Node(Node(messages=(Message("system", "q"),)), "ab", (1, 2), key="step"), Sampling(), 7),
    ]
    keys = [key(base), key(base, "other model"), *map(key, other)]
    assert len(set(keys)) == len(keys)
    twin = replace(step, parent=Node(messages=(Message("user", "q"),), key="else"), key="else", draw=3)
    same = Request(99, twin, Sampling(temperature=0.7), 7, hidden=True)
    assert key(base) == key(same)
    # Fixed values: a change of how keys are made orphans every store and must come with a new version.
    assert key(base).hex() == "01c609f0e9094ddcce0e21eda0b75a839fafc2ce212a49343b85bf0c9976ea33"
    assert key(other[0]).hex() == "ccc82cfe993e895337b309d0ad7e2b301e95bcfe506cfa9136b171d6d7ac8e9f"


def test_a_deep_path_needs_no_deep_recursion() -> None:
    node = Node(messages=(Message("user", "q"),), key="root")
    for _ in range(20_000):
        node = Node(node, "a", (1,), key="x")
    paths = Paths()
    assert paths.request("m", Request(1, node, Sampling(), 1)) == paths.request("m", Request(2, node, Sampling(), 1))


# Early ends


def test_stopping_at_a_confidence_is_replayed_to_the_token(store: Store) -> None:
    """What was called off midway is charged again as it was, though its text is nowhere."""

    def write(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft("." * rng.randrange(60) + f"\\boxed{{{rng.choice('1112')}}}")

    strategy = strategies.bind("self_consistency", {"n": 24})
    budget = Budget(confidence=0.9)
    recorded = run(store.policy(ToyPolicy(write, slots=64)), strategy, budget=budget)
    again = store.policy(ToyPolicy(write, slots=64))
    replayed = run(again, strategy, budget=budget)
    assert {r.stopped for r in recorded} == {Stopped.CONFIDENT}
    assert told(replayed) == told(recorded) and again.fresh.calls == 0
    # What had been called off is drawn when it is wanted.
    whole = store.policy(ToyPolicy(write, slots=64))
    results = run(whole, strategy)
    assert all(len(r.candidates) == 24 for r in results)
    assert whole.fresh.calls == 6 * 24 - sum(len(r.candidates) for r in recorded)
    assert told(run(store.policy(ToyPolicy(write)), strategy, budget=budget)) == told(recorded)


def until_length(length: int) -> Until:
    return lambda growth: len(growth.tokens) >= length


async def cut(search: Search, until: Until) -> Node | None:
    return (await search.complete([search.root], 1, until=until))[0]


def cut_at(store: Store, until: Until) -> tuple[str, int, int]:
    """Text, tokens charged and calls made under a predicate."""
    policy = store.policy(ToyPolicy(lambda q, s, rng, sampling: Draft("abcdefghij")))
    [result] = run(policy, functools.partial(cut, until=until), asked=SUMS[:1])
    assert result.best is not None or result.error is None
    [candidate] = result.candidates
    assert len(candidate.node.logprobs) == len(candidate.node.text)
    return candidate.node.text, result.usage.generated_tokens, policy.fresh.calls


def test_one_recording_answers_every_predicate_that_cuts_no_later(store: Store) -> None:
    assert cut_at(store, until_length(6)) == ("abcdef", 6, 1)
    assert cut_at(store, until_length(6)) == ("abcdef", 6, 0)
    assert cut_at(store, until_length(3)) == ("abc", 3, 0)
    assert cut_at(store, lambda growth: growth.text.endswith("e")) == ("abcde", 5, 0)
    assert cut_at(store, until_length(8)) == ("abcdefgh", 8, 1), "what was not recorded is drawn"
    assert cut_at(store, until_length(7)) == ("abcdefg", 7, 0)
    assert cut_at(store, until_length(6)) == ("abcdef", 6, 0), "and hides nothing of the first"
    assert cut_at(store, until_length(99)) == ("abcdefghij", 11, 1)
    assert cut_at(store, lambda growth: False) == ("abcdefghij", 11, 0)
    assert cut_at(store, until_length(10)) == ("abcdefghij", 10, 0)


def test_a_failing_predicate_fails_as_it_did(store: Store) -> None:
    cut_at(store, until_length(6))

    def broken(growth: Growth) -> bool:
        raise ValueError("no")

    [result] = run(store.policy(ToyPolicy()), functools.partial(cut, until=broken), asked=SUMS[:1])
    assert result.error == "policy toy failed: ValueError: no"


def test_an_interrupted_run_goes_on(store: Store) -> None:
    """R6: what Ctrl-C leaves is on record as interrupted, and searched again."""
    record = store.run({"n": 8})
    runner: Runner

    def stop(event: Event) -> None:
        record(event)
        if event.kind == "end":
            runner.interrupt()

    runner = Runner(store.policy(ToyPolicy(slots=8)), answers=BoxedAnswers(), on_event=stop)
    first = list(runner.run(SUMS, strategies.bind("self_consistency", {"n": 8}), in_flight=2))
    assert {r.stopped for r in first} == {Stopped.DONE, Stopped.INTERRUPTED}
    again = store.run({"n": 8})
    assert again.id == record.id and len(again.done) == sum(r.stopped is Stopped.DONE for r in first)
    rest = [p for p in SUMS if p.id not in again.done]
    run(store.policy(ToyPolicy(slots=8)), strategies.bind("self_consistency", {"n": 8}), asked=rest, on_event=again)
    assert again.done == {p.id for p in SUMS}
    assert {r.stopped for r in store.results(again.id)} == {Stopped.DONE}


def test_errors_are_not_kept_and_hidden_states_come_without(store: Store) -> None:
    faults = iter(["out of memory"])
    policy = ToyPolicy(fault=lambda request: next(faults, None))
    strategy = strategies.bind("sample")
    [failed] = run(store.policy(policy), strategy, asked=SUMS[:1])
    [worked] = run(store.policy(policy), strategy, asked=SUMS[:1])
    assert failed.error == "out of memory" and worked.error is None
    # Hidden states are not kept either: what is replayed comes without them, and nothing is drawn anew for them.
    hungry = store.policy(ToyPolicy())
    [replayed] = run(hungry, strategy, asked=SUMS[:1], hidden=True)
    assert hungry.fresh.calls == 0 and replayed.best is not None and replayed.best.hidden is None


# Scores


class Counting(RuleVerifier):
    """Reads the policy for every score."""

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        await super().score(problem, nodes, models)
        read = await models.read(nodes, " right?", ("yes", "no"))
        return [Score(len(node.text) / 1000, (0.25, 0.5), self.name) for node, _ in zip(nodes, read, strict=True)]


def test_scores_are_kept(store: Store) -> None:
    first, again, other = RuleVerifier(rule), RuleVerifier(rule), RuleVerifier(rule)
    strategy = strategies.bind("best_of_n", {"n": 4})
    policy = store.policy(ToyPolicy())
    recorded = run(policy, strategy, judge=store.verifier(first, identity="a"))
    replayed = run(policy, strategy, judge=store.verifier(again, identity="a"))
    assert told(recorded) == told(replayed)
    assert scores(recorded) == scores(replayed)
    run(policy, strategy, judge=store.verifier(other, identity="b"))
    assert (len(first.scored), len(again.scored), len(other.scored)) == (24, 0, 24)


def test_what_a_verifier_reads_is_replayed_at_its_cost(store: Store) -> None:
    strategy = strategies.bind("best_of_n", {"n": 4})
    recorded, replayed = store.policy(ToyPolicy()), store.policy(ToyPolicy())
    first = run(recorded, strategy, judge=store.verifier(Counting(rule), identity="reader"))
    second = run(replayed, strategy, judge=store.verifier(Counting(rule), identity="reader"))
    assert told(first) == told(second) and replayed.fresh == Fresh()
    assert told(first) == told(run(ToyPolicy(), strategy, judge=Counting(rule)))
    assert all(r.usage.verifier_tokens > 0 for r in second)
    assert scores(first) == scores(second)


class Reading(RuleVerifier):
    """Wants the hidden states of every path, which the store does not keep."""

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        await models.states(nodes)
        return await super().score(problem, nodes, models)


@pytest.mark.parametrize("judge", [Counting(rule), Reading(rule)])
def test_readings_are_no_draws(store: Store, judge: Verifier) -> None:
    """Six problems, four draws each, and each of them read once, also where it is a stored one."""
    drawn, found = store.policy(ToyPolicy()), store.policy(ToyPolicy())
    run(drawn, strategies.bind("best_of_n", {"n": 2}), judge=store.verifier(judge, identity="reader"))
    assert (drawn.fresh.calls, drawn.fresh.readings) == (12, 12)
    run(found, strategies.bind("best_of_n", {"n": 2}), judge=store.verifier(judge, identity="another"))
    assert found.fresh.calls == 0 and found.fresh.readings == (12 if isinstance(judge, Reading) else 0)


def test_every_search_is_charged_for_the_scores_it_uses(store: Store) -> None:
    """4 samples at 10 tokens each are 40, whichever search of a runner comes first; twice in one search is once."""

    class Costly(RuleVerifier):
        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
            models.spent(10 * len(nodes))
            return await super().score(problem, nodes, models)

    async def twice(search: Search) -> Node | None:
        nodes = await search.complete([search.root], 4)
        await search.score(nodes)
        return (await search.score(nodes))[0]

    judge = store.verifier(Costly(rule), identity="costly")
    runner = Runner(store.policy(ToyPolicy()), {"judge": judge}, answers=BoxedAnswers())
    names = ("best_of_n", "best_of_n", "weighted_best_of_n")
    searches = [*(strategies.bind(name, {"n": 4}) for name in names), twice]
    usages = [runner.solve(SUMS[0], strategy).usage for strategy in searches]
    assert [usage.verifier_tokens for usage in usages] == [40] * 4
    assert spent(usages[0]) == spent(usages[1]) == spent(usages[2])
    assert judge.fresh.calls == 4


def test_comparisons_are_kept(store: Store) -> None:
    asked: list[str] = []

    class Pairwise(RuleVerifier):
        async def compare(self, problem: Problem, a: Node, b: Node, models: Models) -> float:
            asked.append(a.key + b.key)
            return 0.25

    async def strategy(search: Search) -> Node | None:
        a, b = await search.complete([search.root], 2)
        assert await search.compare(a, b) == 0.25
        return a

    for _ in range(2):
        results = run(store.policy(ToyPolicy()), strategy, judge=store.verifier(Pairwise(rule), identity="pair"))
        assert {r.error for r in results} == {None}
    assert len(asked) == len(SUMS)
    assert not hasattr(judge_of(store), "compare")


@pytest.mark.parametrize("value", [float("nan"), 1.5])
def test_invalid_scores_are_errors_every_time(store: Store, value: float) -> None:
    for _ in range(2):
        judge = store.verifier(RuleVerifier(lambda q, s: value), identity="bad")
        [result] = run(store.policy(ToyPolicy()), strategies.bind("best_of_n", {"n": 2}), judge=judge, asked=SUMS[:1])
        assert result.error is not None and "scores must lie in [0, 1]" in result.error


def test_verifiers_are_told_apart_by_their_settings(store: Store) -> None:
    from flyweight.verifiers.confidence import Confidence, ConfidenceWindow

    strategy = strategies.bind("best_of_n", {"n": 2})
    fresh = []
    for verifier in (Confidence(), ConfidenceWindow(window=4), ConfidenceWindow(window=9), ConfidenceWindow(window=4)):
        judge = store.verifier(verifier)
        run(store.policy(ToyPolicy()), strategy, judge=judge)
        fresh.append(judge.fresh.calls)
    assert fresh == [12, 12, 12, 0]
    with pytest.raises(ConfigError, match="pass identity="):
        store.verifier(RuleVerifier(rule))


# Tools


def test_prompts_with_other_tools_or_calls_have_other_keys() -> None:
    """A turn without either keeps the key it has as a plain one."""

    def key(turn: Message) -> bytes:
        return Paths().request("m", Request(0, Node(messages=(turn,)), Sampling(), 1))

    turns = [Message("user", "hi"), *(ToolMessage("user", "hi", tools=tools) for tools in ("[a]", "[b]"))]
    turns += [ToolMessage("user", "hi", calls="[a]"), ToolMessage("user", "hi", "[a]", "[a]")]
    assert len({key(turn) for turn in turns}) == 5
    assert key(ToolMessage("user", "hi")) == key(turns[0])


def test_what_was_said_of_tools_is_read_back(store: Store) -> None:
    asked: tuple[Message, ...] = (
        ToolMessage("user", "Add 1 and 2.", tools="[{}]"),
        ToolMessage("assistant", "", calls="[1]"),
        Message("tool", "3"),
    )
    record = store.run({"tools": True})
    problem = Problem("t", "Add 1 and 2.", asked)
    run(store.policy(ToyPolicy()), strategies.bind("greedy"), asked=[problem], on_event=record)
    [back] = store.results(record.id)
    assert back.problem.messages == asked and back.best is not None and back.best.root.messages == asked


# Runs, trees, samples


def test_a_search_is_read_back_as_it_was(store: Store) -> None:
    events: list[Event] = []
    record = store.run({"strategy": "beam_search"})

    def listen(event: Event) -> None:
        record(event)
        events.append(event)

    results = run(store.policy(ToyPolicy()), strategies.bind("beam_search"), judge=judge_of(store), on_event=listen)
    by_id = {r.problem.id: r for r in results}
    read = list(store.results(record.id))
    assert [r.problem.id for r in read] == sorted(by_id)
    for result in read:
        was = by_id[result.problem.id]
        assert (result.problem, result.answer, result.usage) == (was.problem, was.answer, was.usage)
        assert result.text == was.text and result.best is not None and was.best is not None
        assert (result.best.score, result.best.order) == (was.best.score, was.best.order)
        assert [(c.node.key, c.answer, c.answer_class) for c in result.candidates] == [
            (c.node.key, c.answer, c.answer_class) for c in was.candidates
        ]
        mine = [e for e in events if e.problem_id == result.problem.id and e.kind != "progress"]
        back = store.events(record.id, result.problem.id)
        assert [(e.kind, e.node and (e.node.key, e.node.score)) for e in back] == [
            (e.kind, e.node and (e.node.key, e.node.score)) for e in mine
        ]
        drawn = {e.node.key: e.node for e in mine if e.node is not None}
        tree = store.tree(record.id, result.problem.id)
        assert {node.key for node in tree} == drawn.keys()
        for node in tree:
            for name in ("text", "tokens", "finish", "draw", "policy", "score", "messages"):
                assert getattr(node, name) == getattr(drawn[node.key], name), name
            assert node.logprobs == tuple(unpack("f", pack("f", drawn[node.key].logprobs)))
            assert (node.parent and node.parent.key) == ((p := drawn[node.key].parent) and p.key)


def test_hostile_text_survives(store: Store) -> None:
    """P8: NUL, lone surrogates, escapes and emptiness come back as they were."""
    text = "\0 \ud800 \udfff é \x1b[31m \u202e \U0001d518 \n\\boxed{1}"
    problem = Problem("p\0\ud800", "ask \ud800", meta={"level": 3, "why": "\udc00"})

    async def strategy(search: Search) -> Node | None:
        [node] = await search.complete([search.root], 1)
        empty = search.append(node, "")
        search.note(text=text, number=float("inf"), node=empty)
        return (await search.complete([search.append(empty, text)], 1))[0]

    for _ in range(2):
        record = store.run({"text": text})
        policy = store.policy(ToyPolicy(lambda q, s, rng, sampling: Draft(text)))
        [result] = run(policy, strategy, asked=[problem], on_event=record)
        [read] = store.results(record.id)
        assert read.text == result.text == text * 3 and read.problem == problem
        assert [n.text for n in store.tree(record.id, problem.id)] == ["", text, "", text, text]
    assert policy.fresh.calls == 0


def test_forced_text_is_told_from_drawn_text(store: Store) -> None:
    async def strategy(search: Search) -> Node | None:
        forced = search.append(search.root, "So: ")
        return (await search.complete([forced], 1))[0]

    record = store.run({})
    run(store.policy(ToyPolicy()), strategy, asked=SUMS[:1], on_event=record)
    root, forced, drawn = store.tree(record.id, "p0")
    assert (root.parent, forced.parent, drawn.parent) == (None, root, forced)
    assert (forced.tokens, forced.text, forced.finish) == (None, "So: ", Finish.FORCED)
    assert drawn.tokens and root.messages == SUMS[0].conversation


def test_samples_carry_every_score(store: Store) -> None:
    async def strategy(search: Search) -> Node | None:
        nodes = await search.complete([search.root], 3)
        nodes = await search.score(nodes, verifier="one")
        return (await search.score(nodes[:1], verifier="two"))[0]

    record = store.run({})
    judges = {name: store.verifier(RuleVerifier(rule, name), identity=name) for name in ("one", "two")}
    runner = Runner(store.policy(ToyPolicy()), judges, answers=BoxedAnswers(), on_event=record)
    list(runner.run(SUMS[:2], strategy))
    samples = list(store.samples(record.id))
    assert [(s.problem_id, s.sample) for s in samples] == [(p, n) for p in ("p0", "p1") for n in range(3)]
    assert [[score.kind for score in s.scores] for s in samples] == [["one", "two"], ["one"], ["one"]] * 2
    assert samples[0].answer is not None and samples[0].node.drawn > 0


def test_runs_say_what_they_were(store: Store) -> None:
    record = store.run({"n": 4, "task": "sums"}, models={"toy": "abc"}, versions={"engine": "1"})
    assert store.run({"task": "sums", "n": 4}, models={"toy": "abc"}, versions={"engine": "1"}).id == record.id
    assert store.run({"task": "sums", "n": 4}, models={"toy": "abc"}, versions={"engine": "2"}).id == record.id
    assert store.run({"task": "sums", "n": 5}).id != record.id
    [info, _] = store.runs()
    assert (info.id, info.configuration, info.models) == (record.id, {"n": 4, "task": "sums"}, {"toy": "abc"})
    assert [version["engine"] for version in info.versions] == ["1", "2"]
    assert info.finished is None
    run(store.policy(ToyPolicy()), strategies.bind("sample"), on_event=record)
    record.finish()
    [info, _] = store.runs()
    assert info.finished is not None and info.problems == len(SUMS)
    with pytest.raises(ConfigError, match="was made with the models"):
        store.run({"n": 4, "task": "sums"}, models={"toy": "xyz"})
    with pytest.raises(ConfigError, match="must be JSON"):
        store.run({"n": object()})
    with pytest.raises(ConfigError, match="holds no run 'nope'"):
        list(store.results("nope"))
    with pytest.raises(ConfigError, match="no search of problem 'p99'"):
        store.tree(record.id, "p99")


def test_a_result_on_record_is_not_replaced_by_its_replay(store: Store) -> None:
    clock = itertools.count()
    seconds = []
    for _ in range(2):
        record = store.run({})
        policy = store.policy(ToyPolicy())
        run(policy, strategies.bind("sample"), asked=SUMS[:1], on_event=record, clock=lambda: float(next(clock)))
        seconds += [result.usage.seconds for result in store.results(record.id)]
    assert seconds[0] == seconds[1] > 1


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_neither_concurrency_nor_delays_show_in_the_report(tmp_path: Path, concurrency: int) -> None:
    """D1: the same seed at concurrency 1, 4 and 16 with responses in random order: 20 of 20 reports identical."""

    def reported(name: str, slots: int, shuffle: int | None) -> str:
        with Store(tmp_path / name) as store:
            solve(store, Scripted(slots, shuffle=shuffle), problems(4), 4)
            return report(store)

    straight = reported("straight.db", 8, None)
    rounds = range({1: 6, 4: 7, 16: 7}[concurrency])
    assert {reported(f"{number}.db", concurrency, number) for number in rounds} == {straight}


def test_a_backend_that_ignores_seeds_is_noticed(store: Store) -> None:
    """D3: equal draws from different seeds are counted."""

    def seeded(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
        return Draft(f"{rng.random()} \\boxed{{1}}")

    for deaf, expected in ((False, Repeats(24, 0)), (True, Repeats(24, 18))):
        record = store.run({"deaf": deaf})
        policy = ToyPolicy((lambda q, s, rng, sampling: Draft("\\boxed{1}")) if deaf else seeded)
        run(store.policy(policy, model=f"deaf {deaf}"), strategies.bind("self_consistency", {"n": 4}), on_event=record)
        assert store.repeats(record.id) == expected


def test_numbers_are_stored_as_they_come_back() -> None:
    """What the engine said is rounded before anyone sees it, so that recording and replay choose alike."""
    numbers = (-0.1, -1e-12, -1e6, float("-inf"), -0.0)
    once = unpack("f", pack("f", numbers))
    assert unpack("f", pack("f", once)) == once and once[3] == float("-inf")
    assert pack("f", (-0.5,)) == b"\x00\x00\x00\xbf" and pack("i", (258,)) == b"\x02\x01\x00\x00"
    content = Content.of("é", (7,), (-0.1,), (0.2,))
    assert content.string == "é" and content.sum != Content.of("é", (7,), (-0.1,), (0.3,)).sum


def test_a_clock_that_jumps_changes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: a day forwards and backwards between commits."""
    now = time.time()
    days = itertools.cycle((0, 86_400, -86_400))
    monkeypatch.setattr(time, "time", lambda: now + next(days))
    solve(store, Scripted(), problems(4), 4)
    again = Scripted()
    solve(store, again, problems(4), 4, seed="again")
    assert again.calls == 0 and len(list(store.results(store.runs()[0].id))) == 4


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    """Results are read one problem at a time."""
    import tracemalloc

    with Store(tmp_path / "runs.db") as store:
        solve(store, Scripted(64, length=2000), problems(12), 4)
        run_id = store.runs()[0].id
        tracemalloc.start()
        try:
            for result in store.results(run_id):
                assert len(result.candidates) == 4
                del result
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 12 * 4 * 2000 * 24, "all of them at once would hold 72 bytes per token"


def test_a_store_that_cannot_be_read_stops_the_work(store: Store) -> None:
    """Neither drawn again as if it were absent, nor put down as a result, nor raised in the middle of the runner."""
    engine, record = ToyPolicy(), store.run({})
    policy = store.policy(engine)
    store._database.connection.close()
    results = run(policy, strategies.bind("sample"), on_event=record)
    assert engine.counters.generated_tokens == 0 and record.error is not None
    assert all(result.stopped is Stopped.ERROR and str(store.path) in str(result.error) for result in results)
    assert record.stopped == {}


def test_a_policy_without_the_store_can_still_be_recorded(store: Store) -> None:
    record = store.run({})
    [result] = run(ToyPolicy(), strategies.bind("sample"), asked=SUMS[:1], on_event=record)
    [read] = store.results(record.id)
    assert read.text == result.text


def test_dropping_what_is_not_there_is_an_error(store: Store) -> None:
    with pytest.raises(BackendError, match="request 5 is not in flight"):
        store.policy(ToyPolicy()).cancel(5)
