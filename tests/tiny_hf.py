"""The tiny model of `tests.tiny` as a Hugging Face folder: the same weights, the same vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests import tiny

torch.set_num_threads(1)  # a tiny model gains nothing from two

NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def make(path: Path, *, seed: int = 0) -> Path:
    """Write the model of `seed` into the folder `path`. Returns `path`."""
    tensors = {}
    for name, tensor in tiny.weights(seed).items():
        *layer, part, kind = name.split(".")
        own = f"model.layers.{layer[1]}.{NAMES[part]}" if layer else TOP[part]
        tensors[f"{own}.{kind}"] = torch.from_numpy(tensor.copy())
    config = transformers.Qwen2Config(
        vocab_size=len(tiny.VOCABULARY),
        hidden_size=tiny.WIDTH,
        intermediate_size=tiny.FEED,
        num_hidden_layers=tiny.LAYERS,
        num_attention_heads=tiny.HEADS,
        num_key_value_heads=tiny.KV_HEADS,
        max_position_embeddings=tiny.CONTEXT,
        rms_norm_eps=tiny.EPSILON,
        rope_theta=tiny.THETA,
        tie_word_embeddings=False,
        eos_token_id=tiny.END,
        dtype="float32",
        architectures=["Qwen2ForCausalLM"],
    )
    path.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(path)
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    tokenizer().save_pretrained(path)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [tiny.END]}), "utf-8")
    return path


def wide(path: Path, tokenizer: transformers.PreTrainedTokenizerFast) -> Path:
    """Write a random model whose attention heads are wide enough for vLLM's CPU kernels. Returns `path`."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        initializer_range=0.3,
        eos_token_id=tokenizer.eos_token_id,
        tie_word_embeddings=False,
        dtype="float32",
    )
    transformers.Qwen2ForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def tokenizer() -> transformers.PreTrainedTokenizerFast:
    """Byte-level BPE with the tiny model's tokens."""
    plain = tiny.VOCABULARY[: -len(tiny.SPECIALS)]
    made = Tokenizer(models.BPE({token: id for id, token in enumerate(plain)}, list(tiny.MERGES)))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(list(tiny.SPECIALS))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        extra_special_tokens=list(tiny.SPECIALS),
        chat_template=tiny.TEMPLATE,
    )
