"""Messages, forced text and drawn tokens become one path of token ids."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from flyweight.errors import ConfigError
from flyweight.policies.llamacpp.template import ChatTemplate
from flyweight.types import Message, Node, ToolMessage

__all__ = ["Tokens", "Vocabulary"]

KEPT, KEPT_TOKENS = 1024, 1 << 19
"""Prompts and forced texts whose tokens are remembered, and how many tokens these may have: some 20 MB."""


class Vocabulary(Protocol):
    """What is asked of a model's tokenizer, whichever library holds it."""

    @property
    def n_vocab(self) -> int: ...
    @property
    def bos(self) -> int:
        """Id of the token a text begins with; -1 for none."""

    @property
    def eos(self) -> int:
        """Id of the token that ends a text; -1 for none."""

    @property
    def add_bos(self) -> bool:
        """Whether the tokenizer puts `bos` in front of a text."""

    @property
    def spm(self) -> bool:
        """Whether it puts a space there, as SentencePiece does."""

    @property
    def chat_template(self) -> str:
        """Jinja source, empty if there is none."""

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Ids of `text`, nothing added; special-token strings become those tokens only if `special`."""

    def piece(self, token: int) -> bytes:
        """Bytes a token stands for; control tokens stand for none."""

    def spelling(self, token: int) -> str:
        """How the vocabulary writes a token."""

    def is_control(self, token: int) -> bool:
        """Whether text must never be able to forge it."""


class Tokens:
    """Tokenisation for one model under one policy name."""

    def __init__(self, model: Vocabulary, name: str) -> None:
        self._model = model
        self._name = name
        self._pieces: dict[int, bytes] = {}
        self._kept: OrderedDict[object, tuple[int, ...]] = OrderedDict()
        self._held = 0
        """Tokens in there."""
        specials = {model.spelling(t) for t in range(model.n_vocab) if model.is_control(t)} - {""}
        self._special = re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True))) or r"(?!)")
        self._bos = model.spelling(model.bos) if model.bos >= 0 else ""
        eos = model.eos
        self._template = ChatTemplate(model.chat_template, bos=self._bos, eos=model.spelling(eos) if eos >= 0 else "")

    def path(self, node: Node) -> list[int]:
        """Token ids of the whole path: the rendered prompt, then every step.

        A step this policy drew keeps its own tokens; any other text is tokenised, special-token strings in it staying
        plain text.
        """
        path: list[int] = []
        steps = node.steps
        path.extend(self.prompt(steps[0].root.messages if steps else node.messages))
        for step in steps:
            path.extend(self.step(step))
        return path

    def step(self, node: Node) -> Sequence[int]:
        """Token ids of what a node adds to its parent's path."""
        return node.tokens if node.tokens is not None and self.drew(node) else self.text(node.text)

    def drew(self, node: Node) -> bool:
        """Whether a step's tokens are this policy's own."""
        return node.tokens is not None and node.policy == self._name

    def prompt(self, messages: tuple[Message, ...]) -> tuple[int, ...]:
        """Token ids of a conversation up to where the assistant goes on; a last assistant message is continued."""
        return self._remember(messages, lambda: self._prompt(messages))

    def text(self, text: str) -> tuple[int, ...]:
        """Token ids of text that continues a path. Special-token strings stay plain text."""
        return self._remember(text, lambda: self._continuation(text))

    def piece(self, token: int) -> bytes:
        """Bytes a token stands for."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._model.piece(token)
        return piece

    def _remember(self, key: object, make: Callable[[], Sequence[int]]) -> tuple[int, ...]:
        tokens = self._kept.get(key)
        if tokens is None:
            tokens = self._kept[key] = tuple(make())
            self._held += len(tokens)
            while len(self._kept) > KEPT or self._held > KEPT_TOKENS:
                self._held -= len(self._kept.popitem(last=False)[1])
        else:
            self._kept.move_to_end(key)
        return tokens

    def _prompt(self, messages: tuple[Message, ...]) -> list[int]:
        continued = ""
        if messages and messages[0].role == "text":
            tokens = list(self._continuation(messages[0].content))
            return [self._model.bos, *tokens] if self._model.add_bos else tokens
        if messages and messages[-1].role == "assistant":
            continued = messages[-1].content
            messages = messages[:-1]
        tokens = self._rendered(messages)
        if self._model.add_bos and tokens[:1] != [self._model.bos]:
            tokens.insert(0, self._model.bos)
        return tokens + self._continuation(continued) if continued else tokens

    def _rendered(self, messages: Sequence[Message]) -> list[int]:
        """Only the template's own special tokens count: those spelled in a content are put aside while rendering."""
        messages = [_plain(message) for message in messages]
        texts = [text for message in messages for text in _texts(message)]
        forged = [special for text in texts for special in self._special.findall(text)]
        if not forged:
            return self._model.tokenize(self._template.render(messages), special=True)
        mark = _absent("".join(texts))
        counter = iter(range(len(forged)))

        def marked(text: str) -> str:
            return self._special.sub(lambda _: f"{mark}{next(counter)}{mark}", text)

        put_aside = [_rewritten(message, marked) for message in messages]
        tokens: list[int] = []
        pieces = re.split(f"{mark}([0-9]+){mark}", self._template.render(put_aside))
        for index, piece in enumerate(pieces):
            own = index % 2 == 0
            tokens += self._model.tokenize(piece if own else forged[int(piece)], special=own)
        return tokens

    def _continuation(self, text: str) -> list[int]:
        if not self._model.spm:
            return self._model.tokenize(text, special=False)
        # SentencePiece puts a space before a text; behind a newline it does not.
        newline = self._model.tokenize("\n", special=False)
        return self._model.tokenize("\n" + text, special=False)[len(newline) :]


def _texts(message: Message) -> list[str]:
    """Everything somebody else may have written into a turn."""
    return [message.content, *([message.tools, message.calls] if isinstance(message, ToolMessage) else [])]


def _rewritten(message: Message, change: Callable[[str], str]) -> Message:
    """The turn with its texts changed, in the order of `_texts`."""
    if isinstance(message, ToolMessage):
        return ToolMessage(message.role, change(message.content), change(message.tools), change(message.calls))
    return Message(message.role, change(message.content))


def _plain(message: Message) -> Message:
    """A turn whose JSON spells every character as itself: an escaped special token could not be seen."""
    if not isinstance(message, ToolMessage):
        return message
    return replace(message, tools=_spelled(message.tools), calls=_spelled(message.calls))


def _spelled(text: str) -> str:
    return json.dumps(json.loads(text), ensure_ascii=False) if text else ""


def _absent(text: str) -> str:
    """A private-use character that `text` does not contain. ConfigError where it has all 6400."""
    if (found := next((c for c in map(chr, range(0xE000, 0xF900)) if c not in text), None)) is None:
        raise ConfigError(
            "a text with special tokens also has every private-use character: leave one of U+E000..F8FF out"
        )
    return found
