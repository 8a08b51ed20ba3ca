"""A Hugging Face tokenizer, asked the way the engine's Tokens ask llama.cpp's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["HuggingFace"]

ENDS = {
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<turn|>",
    "<EOT>",
}
"""Control tokens that end a text in every model that has them, as llama.cpp knows too: a base model's configuration
often names only one of several."""
BYTE = re.compile("<0x([0-9A-F]{2})>")


class HuggingFace:
    """A fast tokenizer, its special tokens and its chat template."""

    def __init__(self, tokenizer: Any, *, size: int, ends: Iterable[int]) -> None:
        """`size`: rows of the model's logits, often more than there are tokens. `ends`: ids that end a text."""
        self._fast = tokenizer.backend_tokenizer
        self.n_vocab = size
        self.bos = -1 if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)
        self.eos = -1 if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
        self.add_bos = self.bos >= 0 and list(tokenizer("")["input_ids"][:1]) == [self.bos]
        template = tokenizer.chat_template
        self.chat_template: str = (template.get("default", "") if isinstance(template, dict) else template) or ""
        added = {int(id): token for id, token in tokenizer.added_tokens_decoder.items()}
        named = set(tokenizer.all_special_tokens)
        self._control = {id for id, token in added.items() if token.special or token.content in named}
        self._plain = {id: token.content for id, token in added.items() if id not in self._control}
        ended = {id for id in self._control if added[id].content in ENDS}
        self.ending = frozenset({int(id) for id in ends} | ended | ({self.eos} - {-1}))
        """Ids that end a generation."""
        self._letters = _byte_letters() if "ByteLevel" in json.dumps(_decoders(self._fast)) else None
        first = self.tokenize("a", special=False)[:1]
        self.spm = bool(first) and self._letters is None and self.piece(first[0])[:1] == b" "

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Ids of `text`, nothing added. Special-token strings become those tokens only if `special`."""
        self._fast.encode_special_tokens = not special
        # Lone surrogates, which Python strings may hold, are no text to the tokenizer.
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._fast.encode(clean, add_special_tokens=False).ids
        return ids

    def piece(self, token: int) -> bytes:
        """Bytes a token stands for; control tokens stand for none."""
        if token in self._control:
            return b""
        if token in self._plain:
            plain: str = self._plain[token]
            return plain.encode()
        said = self.spelling(token)
        if self._letters is not None:
            return bytes(self._letters[letter] for letter in said if letter in self._letters)
        if byte := BYTE.fullmatch(said):
            return bytes([int(byte[1], 16)])
        return said.replace("▁", " ").encode()

    def spelling(self, token: int) -> str:
        """How the vocabulary writes a token, special ones included; empty where the model has more rows than that."""
        return self._fast.id_to_token(token) or ""

    def is_control(self, token: int) -> bool:
        """Whether a token is a control token, which text must never be able to forge."""
        return token in self._control

    def ends(self, token: int) -> bool:
        """Whether a token ends the generation."""
        return token in self.ending


def _decoders(fast: Any) -> object:
    """What the tokenizer says of turning tokens into text."""
    return json.loads(fast.to_str())["decoder"]


def _byte_letters() -> dict[str, int]:
    """The printable letter that stands for every byte in a byte-level vocabulary (GPT-2's), and back."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return {chr(byte) if byte in plain else chr(next(extra)): byte for byte in range(256)}
