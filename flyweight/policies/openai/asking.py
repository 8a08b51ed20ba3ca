"""The bodies of requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flyweight.errors import BackendError
from flyweight.policies.openai.abilities import Abilities
from flyweight.policies.openai.prompt import begun, plain, turns
from flyweight.types import Message, Node, Sampling

__all__ = ["DRAWN", "EXTRAS", "READ", "SPARED", "body", "conversation", "path", "server_stops"]

DRAWN = 5
"""Most likely tokens asked for along with each drawn one: enough to tell how sure the model was."""
READ = 20
"""The same where the next token is only read; the most that usual servers give."""
SPARED = ("stream_options", "seed", "top_p", "temperature")
"""What can be left out of a request that a server would refuse with it: without a count of tokens, without repeatable
draws, without cutting the tail, at the server's own temperature."""
EXTRAS = ("continuous_usage_stats", "timings_per_token")
"""Parameters that are not OpenAI's, sent for better counts."""
GRAMMARS = {"vllm": "structured_outputs", "llamacpp": "grammar", "sglang": "ebnf"}
"""What a server of this kind calls a grammar."""


def path(able: Abilities) -> str:
    """Below the base URL."""
    return "/chat/completions" if able.api == "chat" else "/completions"


def body(
    able: Abilities, node: Node, sampling: Sampling, *, seed: int, n: int = 1, top: int = DRAWN, lead: bool = True
) -> dict[str, Any]:
    """A streamed request for `n` continuations of a path. Without `lead` only of its prompt.

    BackendError for a path that this endpoint cannot continue, or a grammar it has no name for.
    """
    said = begun(node) if lead else ""
    if said and not able.continues:
        raise BackendError(able.why)
    made: dict[str, Any] = {
        "model": able.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        able.limit: sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed & 0x7FFFFFFF,  # the longest that every server takes
    }
    for name in able.refused:
        del made[name]
    if n > 1:
        made["n"] = n
    if able.extras and "stream_options" in made:
        made["stream_options"]["continuous_usage_stats"] = True
    if able.extras:
        made["timings_per_token"] = True
    if stops := server_stops(able, sampling):
        made |= {"stop": stops, "include_stop_str_in_output": True, "no_stop_trim": True}
    if sampling.grammar:
        made |= _grammar(able, sampling.grammar)
    messages = turns(node)
    bare = bool(messages) and messages[0].role == "text"
    if able.api == "chat":
        if bare:
            raise BackendError("this endpoint takes conversations only, not text to go on with: use /completions")
        made["messages"] = conversation(messages, said)
        if said and able.extras:
            made |= {"continue_final_message": True, "add_generation_prompt": False}
        if able.logprobs:
            made |= {"logprobs": True, "top_logprobs": top}
    else:
        if bare:
            prompt = plain(messages[0].content)
        elif able.template is not None:
            prompt = able.template.render(messages)
        else:
            prompt = "".join(f"{plain(message.content)}\n\n" for message in messages)
        made["prompt"] = prompt + said
        if able.logprobs:
            made["logprobs"] = top
    return made


def conversation(messages: Sequence[Message], said: str = "") -> list[dict[str, str]]:
    """Messages as they are sent, with what the assistant has begun to say as the last one."""
    sent = [{"role": message.role, "content": plain(message.content)} for message in messages]
    return [*sent, {"role": "assistant", "content": said}] if said else sent


def server_stops(able: Abilities, sampling: Sampling) -> list[str]:
    """Stop strings that are left to the server: those it names in its answer, of texts it does not trim."""
    return list(sampling.stop)[:16] if able.tells_stop and not able.trims else []


def _grammar(able: Abilities, grammar: str) -> dict[str, Any]:
    name = GRAMMARS.get(able.kind)
    if name is None:
        raise BackendError(
            f"this endpoint ({able.kind or 'of unknown kind'}) takes no grammar: use vLLM, SGLang, llama-server or "
            "the embedded engine"
        )
    return {name: {"grammar": grammar} if able.kind == "vllm" else grammar}
