"""The part of vLLM's interface that search-and-learn calls, answered by a llama.cpp server.

Its code runs unmodified with this module in the place of `vllm`. Standard library only: it runs in the peers'
environment. One request a prompt, as vLLM would schedule them; the server's slots and caches do the rest.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams", "Tokenizer", "body", "output", "post"]

FLIGHT = 64
"""Requests under way at once: more than any server here has slots."""


@dataclass
class SamplingParams:
    """vLLM's names and defaults: the whole distribution unless told otherwise."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 16
    stop: Sequence[str] | None = None
    include_stop_str_in_output: bool = False


@dataclass
class CompletionOutput:
    text: str
    stop_reason: str | None
    """The stop string that was met; None at the end of the answer and at the limit, as in vLLM."""


@dataclass
class RequestOutput:
    prompt: str
    outputs: list[CompletionOutput] = field(default_factory=list)


def body(prompt: str, params: SamplingParams, left: int) -> dict[str, Any]:
    """What /completion is asked for; `left` is what the answer's limit leaves of its tokens."""
    if params.n != 1:
        raise ValueError(f"n={params.n}: search-and-learn draws one completion a prompt")
    return {
        "prompt": prompt,
        "n_predict": min(params.max_tokens, left),
        "temperature": params.temperature,
        "top_p": params.top_p,
        # The server's defaults for these two would cut the distribution, vLLM's do not.
        "top_k": 0,
        "min_p": 0.0,
        "stop": list(params.stop or ()),
    }


def output(response: Mapping[str, Any], params: SamplingParams) -> CompletionOutput:
    """vLLM's view of a /completion response."""
    met = response["stopping_word"] if response["stop_type"] == "word" else None
    kept = met if met and params.include_stop_str_in_output else ""
    return CompletionOutput(response["content"] + kept, met)


class LLM:
    """`generate` and the tokenizer. `max_tokens` limits a whole answer, over all its steps, as max_model_len does."""

    def __init__(self, url: str, *, max_tokens: int) -> None:
        self._url = url
        self._max_tokens = max_tokens
        self._drawn: dict[str, int] = {}
        self._lock = threading.Lock()
        self._tokenizer = Tokenizer(url)

    def get_tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def generate(
        self, prompts: Sequence[str], sampling_params: SamplingParams, use_tqdm: bool = True
    ) -> list[RequestOutput]:
        """One completion a prompt, in order."""
        with ThreadPoolExecutor(FLIGHT) as pool:
            return list(pool.map(lambda prompt: self._one(prompt, sampling_params), prompts))

    def _one(self, prompt: str, params: SamplingParams) -> RequestOutput:
        drawn = self._drawn.get(prompt, 0)
        if drawn >= self._max_tokens:
            return RequestOutput(prompt, [CompletionOutput("", None)])
        response = post(f"{self._url}/completion", body(prompt, params, self._max_tokens - drawn))
        result = output(response, params)
        with self._lock:
            self._drawn[prompt + result.text] = drawn + response["tokens_predicted"]
        return RequestOutput(prompt, [result])


class Tokenizer:
    """Writes conversations in the chat template of the model file, as the server applies it."""

    chat_template: str | None = None

    def __init__(self, url: str) -> None:
        self._url = url
        self._written: dict[str, str] = {}

    def apply_chat_template(
        self,
        conversations: Sequence[Sequence[Mapping[str, str]]],
        *,
        add_generation_prompt: bool,
        continue_final_message: bool,
        tokenize: bool,
    ) -> list[str]:
        """Each conversation as text that goes on where its last answer stopped."""
        return [self._write(conversation) for conversation in conversations]

    def _write(self, conversation: Sequence[Mapping[str, str]]) -> str:
        turns = [turn for turn in conversation if turn["role"] != "assistant"]
        begun = "".join(turn["content"] for turn in conversation if turn["role"] == "assistant")
        key = json.dumps(turns)
        if key not in self._written:
            self._written[key] = post(f"{self._url}/apply-template", {"messages": turns})["prompt"]
        return self._written[key] + begun


def post(url: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON that comes back; urllib's HTTPError for a refusal."""
    request = urllib.request.Request(url, json.dumps(data).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        return dict(json.load(response))
