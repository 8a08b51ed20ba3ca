"""Public fakes, and the contracts of policies, verifiers and strategies as functions that check them.

The fakes need no weights: `ToyPolicy` writes what a function tells it to, one character a token, and keeps exact
accounts. Use them to test a strategy of your own, and `check_policy`, `check_verifier`, `check_strategy` to hold a
plug-in to the contract. They raise AssertionError with what was expected.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from flyweight.errors import BackendError
from flyweight.protocols import Counters, Growth, Hidden, Models, Policy, Request, Response, Search, Strategy, Verifier
from flyweight.runner import Runner
from flyweight.types import Budget, Finish, Message, Node, Problem, Result, Sampling, Score

__all__ = [
    "BoxedAnswers",
    "Draft",
    "NoModels",
    "RuleVerifier",
    "ToyPolicy",
    "arithmetic",
    "check_policy",
    "check_strategy",
    "check_verifier",
    "drive",
]

T = TypeVar("T")

KV_BYTES_PER_TOKEN = 8


class Draft(NamedTuple):
    """What a toy policy is going to say."""

    text: str
    logprob: float = -0.5
    """Of every token, <= 0."""


Write = Callable[[str, str, random.Random, Sampling], Draft]
"""(question, solution so far, the request's own random numbers, sampling) -> the rest of the answer."""


def arithmetic(question: str, so_far: str, rng: random.Random, sampling: Sampling) -> Draft:
    """Adds up the whole numbers of the question, one step each, and slips in a fifth of the steps.

    A mistake shows in its step ("3 + 4 = 8"), so a verifier that checks steps can steer around it. At temperature 0
    the draw is the same every time.
    """
    numbers = [int(number) for number in re.findall(r"\d+", question)] or [0]
    if sampling.temperature == 0:
        rng = random.Random(question + so_far)
    done = re.findall(r"= (-?\d+)", so_far)
    total = int(done[-1]) if done else numbers[0]
    steps = []
    for number in numbers[1 + len(done) :]:
        right = total + number
        said = right + rng.choice((-1, 1, 10)) if rng.random() < 0.2 else right
        steps.append(f"{total} + {number} = {said}\n\n")
        total = said
    return Draft("".join(steps) + f"The answer is \\boxed{{{total}}}.", -0.2 - 0.2 * rng.random())


@dataclass(eq=False)
class _Row:
    request: Request
    draft: Draft
    prompt_tokens: int
    cached_tokens: int
    length: int
    """Tokens of the path so far, the prompt included."""
    written: int = 0


class ToyPolicy:
    """A policy without weights: deterministic, exact, instant unless told otherwise.

    Tokens are characters. Every step each of `slots` rows grows by one token. The KV cache never forgets.
    """

    def __init__(
        self,
        write: Write = arithmetic,
        *,
        name: str = "toy",
        params: int = 1000,
        boundary: tuple[str, ...] = ("\n\n",),
        slots: int = 32,
        delay: float = 0.0,
        fault: Callable[[Request], str | None] = lambda request: None,
        read: Callable[[str, str], float] = lambda text, choice: math.log(0.5),
    ) -> None:
        """`delay` is slept at every step, in seconds. `fault` may name an error for a request.

        `read(everything so far, choice)` is the log-probability given to a choice.
        """
        self.name = name
        self.params = params
        self.boundary = boundary
        self.closed = False
        self._write, self._slots, self._delay, self._fault, self._read = write, slots, delay, fault, read
        self._queue: list[Request] = []
        self._rows: list[_Row] = []
        self._resident: dict[str, object] = {}
        self._prompt = self._cached = self._generated = self._peak = 0

    def add(self, request: Request) -> None:
        self._queue.append(request)

    def step(self) -> list[Response]:
        if self._delay:
            time.sleep(self._delay)
        finished = []
        while self._queue and len(self._rows) < self._slots:
            request = self._queue.pop(0)
            error = self._fault(request)
            if error is not None:
                finished.append(Response(request.id, error=error))
            elif request.choices:
                finished.append(self._choose(request))
            else:
                self._rows.append(self._admit(request))
        for row in list(self._rows):
            finish = self._grow(row)
            if finish is not None:
                self._rows.remove(row)
                finished.append(self._response(row, finish))
        self._peak = max(self._peak, self._kv_bytes())
        return finished

    def cancel(self, id: int) -> Response:
        self._queue = [request for request in self._queue if request.id != id]
        for row in self._rows:
            if row.request.id == id:
                self._rows.remove(row)
                return self._response(row, Finish.CUT)
        return Response(id, finish=Finish.CUT)

    def piece(self, token: int) -> bytes:
        """The character a token stands for, in UTF-8."""
        return chr(token).encode("utf-8", "surrogatepass")

    @property
    def counters(self) -> Counters:
        return Counters(self._prompt, self._cached, self._generated, 0, self._kv_bytes(), self._peak)

    def close(self) -> None:
        self.closed = True

    def _admit(self, request: Request) -> _Row:
        everything = _everything(request.node)
        prompt, cached = self._prefill(everything)
        sampling = request.sampling
        question = request.node.root.messages[-1].content
        draft = self._write(question, request.node.solution, random.Random(request.seed), sampling)
        return _Row(request, draft, prompt, cached, len(everything))

    def _grow(self, row: _Row) -> Finish | None:
        """One more token; the reason if it was the last one."""
        sampling = row.request.sampling
        self._generated += 1
        if row.written == len(row.draft.text):
            row.written += 1  # the end-of-answer token is drawn like any other
            return Finish.END
        row.written += 1
        text = row.draft.text[: row.written]
        if any(text.endswith(stop) for stop in sampling.stop):
            return Finish.STOP
        if row.request.until is not None:
            logprobs = (row.draft.logprob,) * row.written
            growth = Growth(text, [ord(c) for c in text], logprobs, tuple(-value for value in logprobs))
            if row.request.until(growth):
                return Finish.CUT
        return Finish.LENGTH if row.written >= sampling.max_tokens else None

    def _response(self, row: _Row, finish: Finish) -> Response:
        text = row.draft.text[: row.written]
        self._prefill(_everything(row.request.node) + text, free=True)
        return Response(
            id=row.request.id,
            text=text,
            tokens=tuple(map(ord, text)),
            logprobs=(row.draft.logprob,) * len(text),
            certainty=(-row.draft.logprob,) * len(text),
            alternatives=tuple(_guesses(c, row.draft.logprob, row.request.alternatives) for c in text[: row.written])
            if row.request.alternatives
            else (),
            finish=finish,
            prompt_tokens=row.prompt_tokens,
            cached_tokens=row.cached_tokens,
            generated_tokens=row.written,
        )

    def _choose(self, request: Request) -> Response:
        everything = _everything(request.node)
        prompt, cached = self._prefill(everything)
        choices = tuple(self._read(everything, choice) for choice in request.choices)
        return Response(request.id, choices=choices, finish=Finish.STOP, prompt_tokens=prompt, cached_tokens=cached)

    def _prefill(self, text: str, free: bool = False) -> tuple[int, int]:
        """Make a text resident; tokens (computed, cached). The last one is always computed: its logits are wanted."""
        node, cached = self._resident, 0
        for depth, character in enumerate(text):
            child = node.get(character)
            if child is None:
                child = node[character] = {}
            elif cached == depth:
                cached += 1
            assert isinstance(child, dict)
            node = child
        cached = min(cached, len(text) - 1)
        if free:
            return 0, 0
        self._prompt += len(text) - cached
        self._cached += cached
        return len(text) - cached, cached

    def _kv_bytes(self) -> int:
        return KV_BYTES_PER_TOKEN * sum(row.length + row.written for row in self._rows)


def _guesses(character: str, logprob: float, count: int) -> tuple[tuple[int, float], ...]:
    """A character and others that the toy thinks less likely."""
    return tuple((ord(character) + i, logprob - i) for i in range(count))


def _everything(node: Node) -> str:
    return "".join(f"{m.role}: {m.content}\n" for m in node.root.messages) + node.solution


class NoModels(Models):
    """Models for a verifier that asks none; a test's own derive from it and override what is asked."""

    async def read(
        self, nodes: Sequence[Node], text: str, choices: Sequence[str], *, policy: str | None = None
    ) -> list[tuple[float, ...]]:
        """BackendError."""
        raise BackendError("the models were read, and there are none")

    async def complete(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        *,
        temperature: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        """BackendError."""
        raise BackendError("the models were asked, and there are none")

    async def ask(
        self,
        messages: Sequence[Message],
        n: int = 1,
        *,
        temperature: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
        policy: str | None = None,
    ) -> list[Node]:
        """BackendError."""
        raise BackendError("the models were asked, and there are none")

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        """BackendError."""
        raise BackendError("hidden states were asked for, and there are none")

    def weights(self, policy: str | None = None) -> str:
        """No file."""
        return ""

    async def wait(self, future: Future[T]) -> T:
        """Its result, which must be there."""
        return future.result(timeout=0)

    def spent(self, tokens: int) -> None:
        """Nothing is booked."""

    def note(self, **facts: object) -> None:
        """Nothing is kept."""


@dataclass
class RuleVerifier:
    """A verifier made of a function (question, solution) -> value in [0, 1] or one value per step."""

    rule: Callable[[str, str], float | Sequence[float]]
    name: str = "rule"
    params: int = 0
    sees_answer: bool = False
    scored: list[str] = field(default_factory=list)
    """Every solution it was shown, in order."""

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        scores = []
        for node in nodes:
            self.scored.append(node.solution)
            said = self.rule(problem.prompt, node.solution)
            if isinstance(said, int | float):
                scores.append(Score(float(said), kind=self.name))
            else:
                steps = tuple(said)
                scores.append(Score(math.fsum(steps) / len(steps), steps, self.name))
        return scores


class BoxedAnswers:
    """An answer layer for tests: the last boxed text, equal when the strings are."""

    def extract(self, text: str) -> str | None:
        found = re.findall(r"\\boxed\{([^{}]*)\}", text)
        return found[-1] if found else None

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            if answer is not None:
                groups.setdefault(answer, []).append(index)
        return sorted(groups.values(), key=lambda group: (-len(group), group[0]))


def drive(coroutine: Coroutine[object, object, T]) -> T:
    """Result of a coroutine that never waits for anything, such as a rule verifier's `score`."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the coroutine waited for a model")


# Contracts -----------------------------------------------------------------------------------------------------


def check_policy(policy: Policy, *, exact: bool = True, max_tokens: int = 24) -> None:
    """Hold a policy to the contract: lengths, finishes, seeds, company, continuation, cancelling, exact accounts.

    `exact` asks for the same tokens whatever else is in flight; a quantised model promises only the same random
    numbers. The policy must be idle.
    """
    before = policy.counters
    responses: list[Response] = []
    root = Node(messages=(Message("user", "Add 3 and 4 and 5."),), key="root")
    ids = iter(range(10**9, 2 * 10**9))

    def request(node: Node = root, seed: int = 1, **changes: object) -> Request:
        sampling = Sampling(**{"temperature": 1.0, "max_tokens": max_tokens, **changes})  # type: ignore[arg-type]
        return Request(next(ids), node, sampling, seed)

    def serve(*requests: Request) -> list[Response]:
        for one in requests:
            policy.add(one)
        wanted = {one.id for one in requests}
        came: dict[int, Response] = {}
        deadline = time.monotonic() + 300
        while wanted - came.keys():
            assert time.monotonic() < deadline, "a request did not come back within 300 s"
            for response in policy.step():
                assert response.id in wanted, f"response {response.id} was not asked for"
                assert response.id not in came, f"request {response.id} came back twice"
                came[response.id] = response
        responses.extend(came.values())
        return [came[one.id] for one in requests]

    [alone] = serve(request())
    assert alone.error is None, alone.error
    assert len(alone.tokens) == len(alone.logprobs) == len(alone.certainty), "one log-probability per token"
    assert all(lp <= 1e-6 and math.isfinite(lp) for lp in alone.logprobs), "log-probabilities are finite and <= 0"
    assert len(alone.tokens) <= alone.generated_tokens <= max_tokens, "max_tokens bounds what is drawn"
    assert alone.prompt_tokens + alone.cached_tokens > 0, "the prompt is accounted for"

    same, other, *_ = serve(request(), request(seed=2), request(seed=3), request(seed=4))
    if exact:
        assert same.tokens == alone.tokens, "company in flight changed what a seed draws"
    assert same.cached_tokens >= alone.prompt_tokens - 1, "a prompt just served is served from the cache"
    [again] = serve(request(seed=2))
    if exact:
        assert again.tokens == other.tokens, "the same seed drew something else"

    [short] = serve(request(max_tokens=1))
    assert short.generated_tokens == 1, "max_tokens=1 draws one token"
    assert short.finish in (Finish.LENGTH, Finish.END, Finish.STOP), f"cut at max_tokens, but {short.finish}"

    step = Node(root, short.text, short.tokens, finish=short.finish, key="step", policy=policy.name)
    forced = Node(step, " so", None, finish=Finish.FORCED, key="forced")
    [went_on, pushed] = serve(request(step), request(forced))
    assert went_on.error is None and pushed.error is None, "a path can be continued, forced text included"
    assert went_on.cached_tokens >= alone.prompt_tokens - 1, "continuing a path reuses its KV"

    reading = Request(next(ids), root, Sampling(max_tokens=1), 0, choices=("yes", "no"))
    [read] = serve(reading)
    assert len(read.choices) == 2 and all(value <= 1e-6 for value in read.choices), "a log-probability per choice"
    assert read.generated_tokens == 0, "reading draws nothing"

    dropped = request(max_tokens=max_tokens)
    policy.add(dropped)
    came = policy.step()  # a policy that works elsewhere may be done by now
    cut = came[0] if came else policy.cancel(dropped.id)
    assert cut.id == dropped.id, "cancel answers for the request it was given"
    responses.append(cut)
    assert serve(request())[0].error is None, "the policy still works after a cancel"

    after = policy.counters
    for name in ("prompt_tokens", "cached_tokens", "generated_tokens"):
        spent = getattr(after, name) - getattr(before, name)
        said = sum(getattr(response, name) for response in responses)
        assert spent == said, f"{name}: the engine counted {spent}, its responses say {said}"


def check_verifier(verifier: Verifier, *, policy: Policy | None = None, tolerance: float = 1e-3) -> None:
    """Hold a verifier to the contract: a valid score per node, nothing for nothing, order and company irrelevant.

    `tolerance` is how far a score may move with its company: a quantised model's logits shift with the batch shape.
    """
    texts = ("3 + 4 = 7\n\nThe answer is \\boxed{7}.", "3 + 4 = 8\n\nThe answer is \\boxed{8}.", "No idea", "")
    problem = Problem("check", "What is 3 + 4?", answer="7")
    found: dict[str, float] = {}

    async def strategy(search: Search) -> None:
        nodes = []
        for text in texts:
            logprobs = (-0.5,) * len(text)
            certainty = (0.5,) * len(text)
            nodes.append(Node(search.root, text, tuple(map(ord, text)), logprobs, certainty, Finish.END, key=text))
        assert await search.score([]) == [], "no nodes, no scores"
        for batch in (nodes, nodes[::-1], nodes[:1]):
            for node in await search.score(batch):
                assert node.score is not None
                value = found.setdefault(node.text, node.score.value)
                assert math.isclose(value, node.score.value, abs_tol=tolerance), "order or company changed a score"

    runner = Runner(policy or ToyPolicy(), {verifier.name: verifier}, answers=BoxedAnswers())
    result = runner.solve(problem, strategy)
    assert result.error is None, result.error


def check_strategy(strategy: Strategy, *, verifier: Verifier | None = None) -> None:
    """Hold a strategy to the contract on the toy policy: deterministic, alone as in company, within every budget.

    `verifier` defaults to one that likes right sums.
    """
    judge = verifier or RuleVerifier(_right_sums)
    problems = [Problem(f"p{i}", f"Add {i} and {i + 2} and {3 * i}.") for i in range(5)]

    def run(budget: Budget | None = None, in_flight: int = 64, seed: int = 0) -> dict[str, Result]:
        policy = ToyPolicy()
        runner = Runner(policy, {judge.name: judge}, answers=BoxedAnswers(), seed=seed)
        results = {result.problem.id: result for result in runner.run(problems, strategy, budget, in_flight=in_flight)}
        assert len(results) == len(problems), "a result per problem"
        counters = policy.counters
        usage = [result.usage for result in results.values()]
        generated = sum(u.generated_tokens for u in usage)
        computed = sum(u.prompt_tokens + u.verifier_tokens for u in usage) + generated
        assert counters.prompt_tokens + counters.generated_tokens == computed, "usage adds up to the engine's counters"
        assert counters.cached_tokens == sum(u.cached_tokens for u in usage), "cached tokens add up"
        return results

    def told(results: dict[str, Result]) -> dict[str, tuple[str, str | None, int]]:
        return {id: (r.text, r.answer, r.usage.generated_tokens) for id, r in results.items()}

    free = run()
    for result in free.values():
        assert result.error is None, result.error
        assert result.best is not None, "an easy problem finds a candidate"
        assert any(c.node.key == result.best.key for c in result.candidates), "the best is one of the candidates"
    assert told(run()) == told(free), "the same seed gave another result"
    assert told(run(in_flight=1)) == told(free), "company in flight changed a result"
    largest = max(result.usage.generated_tokens for result in free.values())
    for tokens in {1, largest // 4, largest // 2, largest, 2 * largest}:
        for result in run(Budget(tokens=tokens)).values():
            assert result.error is None, result.error
            assert result.usage.generated_tokens <= tokens, f"spent {result.usage.generated_tokens} of {tokens} tokens"
    for result in run(Budget(verifications=3)).values():
        assert result.error is None and result.usage.verifier_calls <= 3, "verifications over budget"


def _right_sums(question: str, solution: str) -> float:
    sums = re.findall(r"(\d+) \+ (\d+) = (\d+)", solution)
    right = sum(int(a) + int(b) == int(c) for a, b, c in sums)
    return (right + 1) / (len(sums) + 2)
