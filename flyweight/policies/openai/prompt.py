"""Paths as conversations, or as text in the model's own template."""

from __future__ import annotations

import json
import re
from pathlib import Path

from flyweight import textfile
from flyweight.errors import ConfigError
from flyweight.policies.llamacpp.template import ChatTemplate, in_words
from flyweight.types import Message, Node, digest

__all__ = ["SPECIAL", "Template", "begun", "plain", "turns"]

SPECIAL = re.compile(r"<\|[^<>|\s]{1,48}\|>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>|\[/?INST\]|<<?/?SYS>>?")
"""Strings that some model takes for a token of its own."""


class Template:
    """A chat template from a server or a file: untrusted, and rendered in the sandbox of the embedded engine."""

    def __init__(self, source: str, *, eos: str = "") -> None:
        """ModelError for one that does not compile. Servers put the first token of a text there themselves."""
        self._template = ChatTemplate(source, eos=eos)
        self.sha256 = digest(source, eos)
        """Of all that a prompt follows from."""

    def render(self, messages: tuple[Message, ...]) -> str:
        """The prompt up to where the assistant speaks. Contents cannot forge a special token of the usual spellings."""
        return self._template.render([Message(m.role, SPECIAL.sub(_broken, plain(m.content))) for m in messages])

    @classmethod
    def read(cls, path: Path) -> Template:
        """From a Jinja file or a tokenizer_config.json. ConfigError for a file that holds neither."""
        source = textfile.read(path)
        if path.suffix != ".json":
            return cls(source)
        try:
            table = json.loads(source)
            found = table["chat_template"]
            eos = table.get("eos_token") or ""
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ConfigError(f"template={path}: no chat_template in it; name a tokenizer_config.json") from None
        if not isinstance(found, str):
            raise ConfigError(f"template={path}: it holds several templates; name a Jinja file")
        return cls(found, eos=str(eos.get("content", "")) if isinstance(eos, dict) else str(eos))


def begun(node: Node) -> str:
    """What the assistant has said so far: of the last message, and along the path."""
    messages = node.root.messages
    said = messages[-1].content if messages and messages[-1].role == "assistant" else ""
    return plain(said + node.solution)


def turns(node: Node) -> tuple[Message, ...]:
    """The conversation before that; tools, their calls and results are put into words, which every server takes."""
    messages = node.root.messages
    return tuple(in_words(messages[:-1] if messages and messages[-1].role == "assistant" else messages))


def plain(text: str) -> str:
    """The text without lone surrogates, which UTF-8 cannot hold: each becomes U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _broken(found: re.Match[str]) -> str:
    return f"{found[0][0]} {found[0][1:]}"
