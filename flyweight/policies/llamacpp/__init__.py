"""The embedded engine: many sequences of one small model in one llama.cpp context (see docs/engine.md).

policy.py    LlamaCpp: queue, paths, one token for every row, finish
schedule.py  whose turn it is
admission.py a request is checked, tokenised and becomes a row in a slot
prefill.py   whose paths are computed next, and how much of them
profile.py   where the time goes
row.py       one request while it is served: text, stop strings, cost
seats.py     which row stands on which stream
streams.py   which stream holds which tokens; prefixes found, forked, parked, evicted
history.py   paths that were resident once
context.py   the thin layer over llama.cpp's C API
buffers.py   host memory for copies of streams
kernels/     our own CPU kernels, in C++
depths.py    which layers hidden states are taken of
taps.py      those states, copied while llama.cpp computes
layers.py    the upper layers as a model of their own
machine.py   what the engine asks of the machine
sampler.py   from logits to a drawn token, its log-probability and certainty
drawing.py   what a decode computes ahead for its rows, and what it gives to each
lookup.py    tokens that are likely to come next
grammar.py   GBNF constraints
template.py  chat templates from model files, rendered in a sandbox
tokens.py    messages, forced text and drawn tokens become one path of token ids
weights.py   which encoding of the weights is fastest here

llama.cpp is loaded with `LlamaCpp`, not before: templates and prefixes serve where it is not installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyweight.policies.llamacpp.policy import LlamaCpp
    from flyweight.policies.llamacpp.profile import Profile

__all__ = ["LlamaCpp", "Profile"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flyweight.policies.llamacpp import policy

    return getattr(policy, name)
