"""From results to OpenAI's objects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flyweight import select
from flyweight.errors import ConfigError, SandboxError
from flyweight.server import tools
from flyweight.server.errors import ApiError, failed
from flyweight.server.job import Choice, Finished, Job, Plan, Reply
from flyweight.server.tokens import Pieces, cut
from flyweight.types import Finish, Node, Result, Stopped, Usage
from flyweight.verifiers.schema import fits

__all__ = ["chat", "completion", "facts", "old_logprobs", "reply", "trouble"]

MOST_VOTES = 16
"""Answers listed with their votes."""


def reply(
    job_id: str, plan: Plan, results: Sequence[Result], drawn: Sequence[Mapping[int, Node]], pieces: Pieces
) -> Reply:
    """The answer of a request, from its searches in order. `drawn` are the choices where nothing is selected.

    Each has the number its text was told under, so there may be gaps. ApiError where one of them has no answer.
    """
    choices: list[Choice] = []
    for number, (result, own) in enumerate(zip(results, drawn, strict=True)):
        nodes = dict(enumerate(_ranked(result, plan)[: plan.n])) if plan.strategy is not None else own
        if not nodes:
            raise _no_answer(result)
        choices += [_choice(plan, node, number * plan.n + i, pieces) for i, node in sorted(nodes.items())]
    usage = sum((result.usage for result in results), Usage())
    selected = sum(choice.tokens for choice in choices)
    return Reply(choices, _usage(usage, selected), _facts(job_id, plan, results, usage, selected))


def _ranked(result: Result, plan: Plan) -> list[Node]:
    """The selected solution, then the others, best first: by score, by votes, by likelihood; truncated ones last.

    Where a form was asked for, only those that have it.
    """
    fitting = fits(plan.schema) if plan.schema else None
    nodes = {candidate.node.key: candidate.node for candidate in result.candidates}
    votes = Counter(c.answer_class for c in result.candidates if c.answer_class is not None)
    voted = {c.node.key: votes[c.answer_class] for c in result.candidates if c.answer_class is not None}

    def worth(node: Node) -> tuple[float, ...]:
        best = result.best is not None and node.key == result.best.key
        score = select.aggregate(node.score) if node.score is not None else -1.0
        ended = node.finish not in (Finish.LENGTH, Finish.CUT)
        return (-best, -ended, -score, -voted.get(node.key, 0), -node.mean_logprob)

    ranked = sorted(nodes.values(), key=lambda node: (*worth(node), node.order, node.key))
    if fitting is None:
        return ranked
    return [node for node in ranked if node.finish is Finish.LENGTH or fitting(_json(node.solution))]


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _choice(plan: Plan, node: Node, index: int, pieces: Pieces) -> Choice:
    text, stopped = cut(node.solution, plan.sampling.stop)
    reason = "stop" if stopped or node.finish not in (Finish.LENGTH, Finish.CUT) else "length"
    calls: tuple[dict[str, Any], ...] = ()
    logprobs = pieces.of(node, text) if plan.logprobs else None
    if plan.tools and reason == "stop":
        found = tools.find(text, plan.tools, one=plan.one_call)
        if found.calls:
            text, reason = found.text, "tool_calls"
            calls = tuple(_call(node, i, name, arguments) for i, (name, arguments) in enumerate(found.calls))
    tokens = node.drawn + (node.finish is Finish.END)
    return Choice(index, text, reason, tokens, logprobs, calls)


def _call(node: Node, index: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": f"call_{node.key[:20]}{index:02d}", "type": "function", "function": function}


def _usage(usage: Usage, selected: int) -> dict[str, Any]:
    """All tokens of the request, whoever computed them: the choices', those of every other candidate, verifiers'."""
    prompt = usage.prompt_tokens + usage.cached_tokens + usage.verifier_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.generated_tokens,
        "total_tokens": prompt + usage.generated_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": max(0, usage.generated_tokens - selected),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _facts(job_id: str, plan: Plan, results: Sequence[Result], usage: Usage, selected: int) -> dict[str, Any]:
    result = results[0]
    found: dict[str, Any] = {
        "run_id": job_id,
        "strategy": plan.wanted.strategy or None,
        "parameters": dict(plan.parameters),
        "verifier": plan.verifier or None,
        "budget": plan.budget.tokens,
        "deadline": plan.deadline,
        "seed": plan.seed,
        "calls": usage.policy_calls,
        "verifier_calls": usage.verifier_calls,
        "candidates": sum(len(each.candidates) for each in results),
        "selected_tokens": selected,
        "stopped": result.stopped.value,
        "latency_ms": round(1000 * usage.seconds),
        "usage": asdict(usage),
        "ignored": list(plan.ignored),
    }
    if plan.wanted.strategy:
        found |= _verdict(result)
    return found


def _verdict(result: Result) -> dict[str, Any]:
    """How the candidates voted and scored, and how sure the choice is."""
    votes: dict[int, list[Any]] = {}
    for candidate in result.candidates:
        if candidate.answer_class is not None:
            votes.setdefault(candidate.answer_class, [candidate.answer, 0])[1] += 1
    ordered = sorted(votes.values(), key=lambda vote: -vote[1])
    best = None if result.best is None else result.best.key
    at = next((i for i, candidate in enumerate(result.candidates) if candidate.node.key == best), None)
    scores = [None if c.node.score is None else select.aggregate(c.node.score) for c in result.candidates]
    return {
        "answer": result.answer,
        "votes": [{"answer": answer, "votes": count} for answer, count in ordered[:MOST_VOTES]],
        "scores": scores if any(score is not None for score in scores) else None,
        "selected_index": at,
        "undecided": sum(candidate.answer_class is None for candidate in result.candidates),
        "confidence": result.confidence,
        "calibrated": result.calibrated,
        "sure": result.sure,
        **({"explained": dict(result.explained)} if result.explained else {}),
    }


def _no_answer(result: Result) -> ApiError:
    retry = {"x-should-retry": "false"}
    if result.stopped is Stopped.DEADLINE:
        return ApiError(504, "the deadline passed before there was an answer", code="deadline", headers=retry)
    if result.stopped is Stopped.BUDGET:
        message = "the budget was spent before there was an answer: raise budget or lower max_tokens"
        return ApiError(400, message, code="budget_spent", param="flyweight.budget", headers=retry)
    return ApiError(500, "no candidate has the form that was asked for", code="no_answer", headers=retry)


def trouble(job_id: str, plan: Plan, result: Result, failure: Exception | None) -> ApiError | None:
    """What to tell the client of a search that went wrong; None for one that did not."""
    if result.error is None:
        return None
    if isinstance(failure, ConfigError):
        name = plan.wanted.strategy or plan.model
        return ApiError(400, f"{name}: {failure}", param="flyweight.strategy", code="unsupported")
    if isinstance(failure, SandboxError):
        return ApiError(503, "answers that are code need a sandbox, and this server has none", code="no_sandbox")
    return failed(job_id)


def chat(job: Job, end: Finished) -> dict[str, Any]:
    """A chat completion."""
    choices = []
    for choice in end.reply.choices:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        if choice.calls:
            message |= {"content": choice.text or None, "tool_calls": list(choice.calls)}
        logprobs = None if choice.logprobs is None else {"content": choice.logprobs, "refusal": None}
        choices.append(
            {
                "index": choice.index,
                "message": message,
                "logprobs": logprobs,
                "finish_reason": choice.finish_reason,
            }
        )
    return {**_head(job, "chatcmpl-", "chat.completion"), "choices": choices, **_tail(job, end)}


def completion(job: Job, end: Finished) -> dict[str, Any]:
    """A text completion."""
    choices = [
        {
            "index": choice.index,
            "text": choice.text,
            "logprobs": None if choice.logprobs is None else old_logprobs(choice.logprobs),
            "finish_reason": choice.finish_reason,
        }
        for choice in end.reply.choices
    ]
    return {**_head(job, "cmpl-", "text_completion"), "choices": choices, **_tail(job, end)}


def _head(job: Job, prefix: str, kind: str) -> dict[str, Any]:
    return {"id": f"{prefix}{job.id}", "object": kind, "created": int(job.created), "model": job.plan.model}


def _tail(job: Job, end: Finished) -> dict[str, Any]:
    return {"usage": end.reply.usage, "system_fingerprint": None, "flyweight": facts(job, end)}


def facts(job: Job, end: Finished) -> dict[str, Any]:
    """The object `flyweight` of a response."""
    return {**end.reply.facts, "queued_ms": round(1000 * job.queued_seconds)}


def old_logprobs(entries: Iterable[dict[str, Any]], start: int = 0) -> dict[str, Any]:
    """Log-probabilities as the completions endpoint has them. `start` is where the first token stands in the text."""
    tokens: list[str] = []
    offsets: list[int] = []
    values: list[float] = []
    top: list[dict[str, float]] = []
    for entry in entries:
        offsets.append(start)
        tokens.append(entry["token"])
        values.append(entry["logprob"])
        top.append({each["token"]: each["logprob"] for each in entry["top_logprobs"]})
        start += len(entry["token"])
    return {
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": top if any(top) else None,
        "text_offset": offsets,
    }
