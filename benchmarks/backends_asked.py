"""The token ids that every backend is asked, each by its own tokenizer and template.

As a program: ids of the conversations on standard input, by the tokenizer that vLLM loads from a folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2

from flyweight.policies.llamacpp.tokens import Tokens
from flyweight.policies.openai.asking import body
from flyweight.policies.openai.policy import OpenAI
from flyweight.policies.transformers.vocabulary import HuggingFace
from flyweight.types import Message, Node, Sampling

__all__ = ["Asked", "Conversation", "of_file", "of_folder", "of_server", "of_vllm", "said", "understood"]

Conversation = tuple[Message, ...]
Asked = Callable[[Sequence[Conversation]], list[list[int]]]
"""The ids of each conversation, up to where the assistant speaks."""


def of_file(path: Path) -> Asked:
    """As the embedded engine reads a GGUF file."""

    def ids(asked: Sequence[Conversation]) -> list[list[int]]:
        from flyweight.policies.llamacpp.context import Model  # vLLM's environment has no llama.cpp

        model = Model(path)
        try:
            tokens = Tokens(model, "")
            return [list(tokens.prompt(conversation)) for conversation in asked]
        finally:
            model.close()

    return ids


def of_folder(folder: Path) -> Asked:
    """As transformers reads a folder."""

    def ids(asked: Sequence[Conversation]) -> list[list[int]]:
        from transformers import AutoTokenizer

        return _told(AutoTokenizer.from_pretrained(folder, local_files_only=True), asked)

    return ids


def of_vllm(folder: Path) -> Asked:
    """As vLLM reads a folder, which must be installed here."""

    def ids(asked: Sequence[Conversation]) -> list[list[int]]:
        from vllm.tokenizers import get_tokenizer

        return _told(get_tokenizer(str(folder)), asked)

    return ids


def _told(tokenizer: Any, asked: Sequence[Conversation]) -> list[list[int]]:
    """Both policies read a tokenizer in this way."""
    tokens = Tokens(HuggingFace(tokenizer, size=len(tokenizer), ends=()), "")
    return [list(tokens.prompt(conversation)) for conversation in asked]


def of_server(url: str) -> Asked:
    """As llama-server reads the very request it is sent: its own template where that is a chat's."""

    def ids(asked: Sequence[Conversation]) -> list[list[int]]:
        with closing(OpenAI(f"openai:{url}")) as policy, httpx2.Client(base_url=url, timeout=60) as client:

            def post(path: str, sent: Mapping[str, object]) -> Any:
                return client.post(path, json=sent).raise_for_status().json()

            found = []
            for conversation in asked:
                sent = body(policy.abilities, Node(messages=conversation), Sampling(), seed=0)
                text = sent["prompt"] if "prompt" in sent else post("/apply-template", sent)["prompt"]
                read = post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
                found.append(list(read["tokens"]))
            return found

    return ids


def said(asked: Sequence[Conversation]) -> str:
    """Conversations as JSON."""
    return json.dumps([[[message.role, message.content] for message in conversation] for conversation in asked])


def understood(text: str) -> list[Conversation]:
    """And back."""
    return [tuple(Message(role, content) for role, content in conversation) for conversation in json.loads(text)]


if __name__ == "__main__":
    print(json.dumps(of_vllm(Path(sys.argv[1]))(understood(sys.stdin.read()))))
