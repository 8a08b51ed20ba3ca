"""What `flyweight doctor --model openai:URL` says of an endpoint: what it can do, and how to get what it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from flyweight.errors import FlyweightError

if TYPE_CHECKING:
    from flyweight.policies.openai.abilities import Abilities

__all__ = ["Finding", "findings"]


class Finding(NamedTuple):
    """One line of the report."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    fix: str = ""


def findings(model: str) -> Iterator[Finding]:
    """What every endpoint of `openai:URL[,URL...]` can do. ConfigError for a model written with mistakes."""
    from dataclasses import replace

    from flyweight.policies.openai.policy import OpenAI
    from flyweight.policies.openai.spec import parse

    spec = parse(model)
    for url in spec.urls:
        try:
            policy = OpenAI(replace(spec, urls=(url,)))
        except FlyweightError as error:
            fix = "start the server, check the URL, or set OPENAI_API_KEY to its key"
            yield Finding("endpoint", "fail", str(error), fix)
            continue
        policy.close()
        yield from _abilities(url, policy.abilities)


def _abilities(url: str, able: Abilities) -> Iterator[Finding]:
    size = f", {able.params / 1e9:.3g}B parameters" if able.params else ""
    room = f", context {able.context}" if able.context else ""
    kind = f" ({able.kind})" if able.kind else ""
    yield Finding("endpoint", "ok", f"{url}{kind} serves {able.model}{size}{room} by {able.api}")
    yield Finding("n", "ok", "several samples in one request" if able.n else "one at a time: samples are fanned out")
    if not able.continues:
        fix = "serve it with vLLM, SGLang or llama-server, or give its chat template: --model openai:URL:template=FILE"
        detail = "it cannot go on in the middle of an answer: no searches by steps, no p_true, no critique"
        yield Finding("prefix", "warn", detail, fix)
    elif able.trims:
        detail = "paths are continued, without the blanks between steps, which are put back here"
        yield Finding("prefix", "ok", detail)
    else:
        how = "its own chat" if able.api == "chat" else "completions with the model's template"
        yield Finding("prefix", "ok", f"paths are continued by {how}")
    if able.logprobs:
        yield Finding("logprobs", "ok", "log-probabilities of the likeliest tokens")
    else:
        detail = "none: no confidence, confidence_filtered or p_true; a judge's grade is read off its reply"
        yield Finding("logprobs", "warn", detail, "use a server that gives them: vLLM, SGLang, llama-server")
    if able.seed:
        yield Finding("seed", "ok", "the same seed draws the same")
    else:
        detail = "seeds count for nothing: a run cannot be repeated exactly"
        yield Finding("seed", "warn", detail, "use a server that honours seed: vLLM, SGLang, llama-server")
    if able.usage:
        yield Finding("usage", "ok", "it counts tokens")
    else:
        detail = "it does not count tokens: prompts are estimated, answers counted here"
        yield Finding("usage", "warn", detail, "use a server whose answers have usage")
