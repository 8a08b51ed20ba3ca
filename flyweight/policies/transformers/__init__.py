"""Any causal language model of a Hugging Face folder or repository, run by transformers and torch.

policy.py      Transformers: queue, prefill, one token for every row, finish
network.py     the model over padded rows, with KV or without
resident.py    KV of paths that were computed, kept to be continued
vocabulary.py  the tokenizer as the engine's Tokens want it

What is not about torch is shared with the embedded engine: who has a slot, whose path is computed next, chat templates,
tokens of a path, sampling.
"""

from __future__ import annotations

from flyweight.errors import ConfigError, unknown
from flyweight.protocols import Policy

__all__ = ["PRECISIONS", "load"]

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def load(reference: str = "", *, context: int = 2048, slots: int = 32) -> Policy:
    """Any causal language model of a folder or repository, safetensors only: the numerical reference.

    Returns the policy of `transformers:FOLDER`, `transformers:org/repo[@revision]`, either with #float32, #bfloat16 or
    #float16 behind it; without, weights are run in the precision of their files. Raises ConfigError for a name that is
    none, ModelError for a folder that holds no such model.

    Source: Wolf et al. 2020, Transformers (1910.03771); --model transformers:FOLDER or transformers:org/repo.
    """
    from flyweight.policies.transformers.policy import Transformers

    name, mark, precision = reference.partition("#")
    if not name:
        raise ConfigError("transformers: names no model: write transformers:FOLDER or transformers:org/repo")
    if mark and precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    return Transformers(name, precision=precision or "auto", context=context, slots=slots)
