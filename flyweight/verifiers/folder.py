"""Reward models in Hugging Face folders, with the vocabulary their recipes speak."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from flyweight import huggingface
from flyweight.verifiers.recipes import Vocabulary

__all__ = ["Loaded", "load"]


class Loaded(NamedTuple):
    """A model's parts."""

    model: Any
    tokenizer: Any
    vocabulary: Vocabulary
    device: Any


def load(path: Path, kind: str) -> Loaded:
    """The model in a folder as transformers' `kind`; see `huggingface.load`."""
    model, tokenizer, device = huggingface.load(path, kind)
    return Loaded(model, tokenizer, _vocabulary(tokenizer), device)


def _vocabulary(tokenizer: Any) -> Vocabulary:
    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    bos = None if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id), str(tokenizer.bos_token))
    template = tokenizer.chat_template
    return Vocabulary(
        encode,
        size=len(tokenizer),
        specials={*tokenizer.get_added_vocab(), *tokenizer.all_special_tokens},
        template=template.get("default", "") if isinstance(template, dict) else template or "",
        bos=bos,
        eos=tokenizer.eos_token or "",
        begins=bos is not None and tokenizer("")["input_ids"][:1] == [bos[0]],
    )
