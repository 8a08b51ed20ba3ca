"""A tiny random-weight model for tests: 2 layers, 64 wide, fp32, qwen2 architecture, one token per byte.

`make(path)` writes it as a GGUF file in a fraction of a second; `Reference` runs the same weights naively in numpy:
no cache, no batch, nothing shared with the engine.
"""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Literal, NamedTuple

import gguf
import numpy as np
from numpy.typing import NDArray

LAYERS, WIDTH, HEADS, KV_HEADS, FEED = 2, 64, 4, 2, 128
HEAD = WIDTH // HEADS
QWEN3_HEAD = 128
CONTEXT = 512
THETA, EPSILON = 10000.0, 1e-6
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (("Ċ", "Ċ"), ("t", "h"))
"""Two merged tokens, so that a stop string can be one token or two: a blank line, and `th`."""
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
Array = NDArray[np.float32]


def byte_letters() -> list[str]:
    """GPT-2's printable letter for every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(extra)) for b in range(256)]


VOCABULARY = (*byte_letters(), *("".join(pair) for pair in MERGES), *SPECIALS)
END = VOCABULARY.index("<|im_end|>")
START = VOCABULARY.index("<|im_start|>")


def _legible(token: int) -> bool:
    """ASCII, the merged tokens, the end, and a few bytes of two-byte characters (so that some get broken)."""
    return 32 <= token < 127 or token in (10, 0xC3, 0xA8, 0xA9, END) or VOCABULARY[token] in ("ĊĊ", "th")


def weights(seed: int) -> dict[str, Array]:
    """Random tensors by their GGUF names, rows = outputs."""
    rng = np.random.default_rng(seed)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> Array:
        return (rng.standard_normal((rows, columns)) * gain / math.sqrt(columns)).astype(np.float32)

    embedding = matrix(len(VOCABULARY), WIDTH, gain=8.0)
    head = matrix(len(VOCABULARY), WIDTH, gain=3.0)
    # Dimension 0 says "there is a token here" throughout; the head uses it to make other than legible tokens rare.
    embedding[:, 0] = 8.0
    head[:, 0] = [0.0 if _legible(token) else -2.0 for token in range(len(VOCABULARY))]
    head[END, 0] = 0.4
    tensors = {
        "token_embd.weight": embedding,
        "output_norm.weight": np.ones(WIDTH, np.float32),
        "output.weight": head,
    }
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (KV_HEADS * HEAD, WIDTH),
            "attn_v": (KV_HEADS * HEAD, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (FEED, WIDTH),
            "ffn_up": (FEED, WIDTH),
            "ffn_down": (WIDTH, FEED),
        }
        for name, (rows, columns) in shapes.items():
            tensors[f"blk.{layer}.{name}.weight"] = matrix(rows, columns, gain=1.5)
        for name in ("attn_q", "attn_k", "attn_v"):
            rows = shapes[name][0]
            tensors[f"blk.{layer}.{name}.bias"] = (rng.standard_normal(rows) * 0.1).astype(np.float32)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = np.ones(WIDTH, np.float32)
    return tensors


def as_qwen3(tensors: dict[str, Array]) -> dict[str, Array]:
    """The same layers with heads of 128, the size transformers takes for granted, and norms in place of biases."""

    def larger(matrix: Array, axis: int) -> Array:
        return np.repeat(matrix, QWEN3_HEAD // HEAD, axis) * np.float32(HEAD / QWEN3_HEAD)

    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(".bias")}
    for layer in range(LAYERS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            key = f"blk.{layer}.{name}.weight"
            found[key] = larger(found[key], int(name == "attn_output"))
        for name in ("attn_q_norm", "attn_k_norm"):
            found[f"blk.{layer}.{name}.weight"] = np.ones(QWEN3_HEAD, np.float32)
    return found


def make(
    path: Path, *, seed: int = 0, template: str | None = TEMPLATE, architecture: Literal["qwen2", "qwen3"] = "qwen2"
) -> Path:
    """Write the model of `seed` to `path`; `template=None` leaves the chat template out. Returns `path`."""
    writer = gguf.GGUFWriter(path, architecture)
    tensors = weights(seed)
    if architecture == "qwen3":
        tensors = as_qwen3(tensors)
        writer.add_key_length(QWEN3_HEAD)
        writer.add_value_length(QWEN3_HEAD)
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_freq_base(THETA)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(VOCABULARY))
    normal = len(VOCABULARY) - len(SPECIALS)
    writer.add_token_types([gguf.TokenType.NORMAL] * normal + [gguf.TokenType.CONTROL] * len(SPECIALS))
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class Reference:
    """The same weights, computed the obvious way."""

    def __init__(self, seed: int = 0) -> None:
        self.w = weights(seed)

    def states(self, tokens: list[int]) -> Array:
        """What the output head reads at every position, [T, width]."""
        return _norm(self.layers(self.w["token_embd.weight"][tokens], range(LAYERS)), self.w["output_norm.weight"])

    def inner(self, tokens: list[int], layer: int = 0) -> Array:
        """What a layer hands on at every position, [T, width]."""
        return self.layers(self.w["token_embd.weight"][tokens], range(layer + 1))

    def layers(self, x: Array, layers: range) -> Array:
        """States at consecutive positions, [T, width], after some layers."""
        w = self.w
        angles = np.arange(len(x))[:, None] * THETA ** (-np.arange(0, HEAD, 2) / HEAD)
        cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
        causal = np.triu(np.full((len(x), len(x)), -np.inf), 1)
        for layer in layers:

            def linear(name: str, inputs: Array, layer: int = layer) -> Array:
                return inputs @ w[f"blk.{layer}.{name}.weight"].T + w.get(f"blk.{layer}.{name}.bias", 0)

            def rotate(heads: Array) -> Array:
                a, b = heads[..., : HEAD // 2], heads[..., HEAD // 2 :]
                return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

            h = _norm(x, w[f"blk.{layer}.attn_norm.weight"])
            q = rotate(linear("attn_q", h).reshape(-1, HEADS, HEAD))
            k = rotate(linear("attn_k", h).reshape(-1, KV_HEADS, HEAD)).repeat(HEADS // KV_HEADS, axis=1)
            v = linear("attn_v", h).reshape(-1, KV_HEADS, HEAD).repeat(HEADS // KV_HEADS, axis=1)
            attention = np.einsum("qhd,khd->hqk", q, k) / math.sqrt(HEAD) + causal
            attention = np.exp(attention - attention.max(axis=-1, keepdims=True))
            attention /= attention.sum(axis=-1, keepdims=True)
            x = x + linear("attn_output", np.einsum("hqk,khd->qhd", attention, v).reshape(-1, WIDTH))
            h = _norm(x, w[f"blk.{layer}.ffn_norm.weight"])
            gate = linear("ffn_gate", h)
            x = x + linear("ffn_down", gate / (1 + np.exp(-gate)) * linear("ffn_up", h))
        return x

    def logp(self, tokens: list[int]) -> NDArray[np.float64]:
        """Log-probabilities of the token that follows, [vocab]."""
        logits = (self.states(tokens)[-1] @ self.w["output.weight"].T).astype(np.float64)
        shifted = logits - logits.max()
        return np.asarray(shifted - math.log(np.exp(shifted).sum()))

    def sample(self, tokens: list[int], n: int, *, temperature: float, seed: int, top_p: float = 1.0) -> Sample:
        """`n` tokens drawn after `tokens`, or up to the end token: one uniform number each, by inverting the CDF."""
        rng = random.Random(seed)
        drawn: list[int] = []
        logprobs: list[float] = []
        certainty: list[float] = []
        for _ in range(n):
            logp = self.logp(tokens + drawn)
            u = rng.random()
            if temperature == 0:
                token = int(logp.argmax())
            else:
                p = np.exp(logp / temperature)
                p /= p.sum()
                order = np.arange(p.size)
                if top_p < 1:
                    order = np.argsort(-p, kind="stable")
                    order = order[: int(np.searchsorted(p[order].cumsum(), top_p)) + 1]
                mass = p[order].cumsum()
                token = int(order[np.searchsorted(mass, u * mass[-1], side="right")])
            if VOCABULARY[token] in ("<|endoftext|>", "<|im_end|>"):
                break
            drawn.append(token)
            logprobs.append(float(logp[token]))
            certainty.append(float(-logp.mean() - math.log(logp.size)))
        return Sample(drawn, logprobs, certainty)


class Sample(NamedTuple):
    """Drawn tokens and what the model thought of each."""

    tokens: list[int]
    logprobs: list[float]
    certainty: list[float]


def _norm(x: Array, weight: Array) -> Array:
    scale: Array = 1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPSILON)
    return x * scale * weight
