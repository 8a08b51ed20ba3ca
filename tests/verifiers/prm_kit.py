"""Tiny random reward models in folders, as transformers writes them. Import only where torch is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

torch.set_num_threads(1)  # a tiny model gains nothing from two, and loses much beside another process

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start|>assistant<|end|>\n\n' }}{% endif %}"
)
CORPUS = [
    *["user assistant system Is step 1 2 3 4 correct? (yes/no) yes no Question Answer"] * 20,
    *["x +", "x -", "+ -", "yes", "no", "one ки\ntwo ки\n", "end \n\n\n\n\n", "a.\n\n", "\n"] * 20,
    *["Tom has 3 + 4 = 7 apples and gives 2 away, so 7 - 2 = 5 are left. The answer is 5."] * 20,
    "абвгдежзийклмнопрстуфхцчшщъыьэюя",
]

WORDS = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
"""Where Qwen and Llama 3 cut a text: line breaks in a row stay together whatever follows."""


def bytes_tokenizer(template: str = CHATML, *specials: str, bos: str | None = None) -> Any:
    """Byte-level BPE as of Qwen and Llama 3."""
    names = ["<|endoftext|>", *specials]
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(WORDS, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=480, special_tokens=names, initial_alphabet=alphabet, show_progress=False),
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|endoftext|>", bos_token=bos, chat_template=template
    )


def pieces_tokenizer() -> Any:
    """SentencePiece-like BPE as of Llama 2 and Mistral: a space before a text, `<s>` in front of it."""
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("▁", "merged_with_next"), pre_tokenizers.Split("\n", "isolated")]
    )
    made.train_from_iterator(
        [line for line in CORPUS if "\n" not in line] + ["ки"] * 50,
        trainers.BpeTrainer(vocab_size=600, special_tokens=specials, show_progress=False),
    )
    made.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def config(family: str, vocabulary: int, **more: Any) -> Any:
    """Two layers, 32 wide."""
    kinds = {
        "qwen2": transformers.Qwen2Config,
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
    }
    return kinds[family](
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.4,
        **more,
    )


def save(path: Path, tokenizer: Any, model: Any, extra: dict[str, Any] | None = None) -> Path:
    """A folder with both; `extra` tensors are put beside the model's."""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    if extra:
        file = path / "model.safetensors"
        save_file({**load_file(file), **extra}, file, {"format": "pt"})
    return path


def causal(path: Path, family: str, tokenizer: Any, *, seed: int = 0) -> Path:
    """A language model."""
    torch.manual_seed(seed)
    made = config(family, len(tokenizer))
    kind = {
        "qwen2": transformers.Qwen2ForCausalLM,
        "llama": transformers.LlamaForCausalLM,
        "mistral": transformers.MistralForCausalLM,
    }[family]
    return save(path, tokenizer, kind(made))


def headed(path: Path, family: str, tokenizer: Any, widths: dict[str, tuple[int, int]], *, seed: int = 0) -> Path:
    """A transformer with linear layers by name: (outputs, inputs) each."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config(family, len(tokenizer)))
    extra = {}
    for name, (outputs, inputs) in widths.items():
        extra[f"{name}.weight"] = torch.randn(outputs, inputs) * 0.3
        extra[f"{name}.bias"] = torch.randn(outputs) * 0.3
    return save(path, tokenizer, model, extra)
