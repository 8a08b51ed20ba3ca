"""What a policy, a verifier and a strategy promise, as functions that check it."""

from __future__ import annotations

import math
import re
import time

from flyweight.protocols import Policy, Request, Response, Search, Strategy, Verifier
from flyweight.runner import Runner
from flyweight.testing.fakes import BoxedAnswers, RuleVerifier
from flyweight.testing.toy import ToyPolicy
from flyweight.types import Budget, Finish, Message, Node, Problem, Result, Sampling

__all__ = ["check_policy", "check_strategy", "check_verifier"]


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
