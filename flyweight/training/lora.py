"""Fine-tuning the policy's own upper layers as a verifier: a LoRA that reads where the policy left off.

The lower layers are not computed again: the states that the first tapped layer handed on while the policy wrote are the
input, and only the layers above it are run, with low-rank changes to their weights and one number read at the end.
Training is cheaper by the same factor. The chains of a question are one batch, each behind the prompt: in one sequence
that shares it, the masked attention costs what the prompts save.

What is read off a solution is linear in its last state and in the mean of its states. It is fitted before the layers
are changed: without that, a few hundred questions teach them less than a head learns.

Loss: cross-entropy of the outcome at the last token and, weighted by `steps`, at the ends of inner steps (their
Monte-Carlo value where there is one, else the outcome); and `ranking` times the logistic loss of right-wrong pairs.

Sources: Cobbe et al. 2021, Training Verifiers (2110.14168), section 4.2, for scoring every token with the outcome;
Hu et al. 2021, LoRA (2106.09685); Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features (2202.10054), for the
fit beforehand; Wang et al. 2024, Math-Shepherd (2312.08935).
"""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import peft
import torch
import transformers
from torch import Tensor, nn

from flyweight import stats
from flyweight.errors import ModelError
from flyweight.policies.llamacpp.taps import tapped
from flyweight.training.calibrate import platt
from flyweight.training.pool import Question, load

__all__ = ["Plan", "Verifier", "export", "train"]

ARCHITECTURES = ("qwen2", "qwen3")
"""Whose GGUF tensors are those of the transformers model, row for row."""
TARGETS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """How the adapter is trained."""

    rank: int = 16
    rate: float = 2e-4
    """Of the adapter; the reading, which is fitted beforehand, moves a tenth as fast."""
    epochs: int = 1
    first: int = 90
    """Questions the reading is fitted to beforehand."""
    held_down: float = 0.5
    """What half its squared weights cost there, on states of unit variance."""
    each: int = 3
    """Right and wrong chains of a question, at most."""
    ranking: float = 1.0
    steps: float = 0.3
    warmup: float = 0.05
    """Share of the steps in which the rate rises; then it falls to nothing as a cosine."""
    decay: float = 0.01
    seed: int = 0


class Verifier(nn.Module):  # type: ignore[misc]  # torch may be absent
    """The upper layers with their adapter, and the number read off the last state."""

    def __init__(self, file: Path, plan: Plan) -> None:
        """Load the upper layers of a GGUF model. ModelError for an architecture that is not supported."""
        super().__init__()
        kind = gguf.GGUFReader(file).get_field("general.architecture")
        architecture = str(kind.contents()) if kind is not None else ""
        if architecture not in ARCHITECTURES:
            raise ModelError(f"{file.name} is {architecture}: an adapter can be trained for {', '.join(ARCHITECTURES)}")
        self.architecture = architecture
        whole = transformers.AutoModelForCausalLM.from_pretrained(
            str(file.parent), gguf_file=file.name, dtype=torch.float32
        )
        upper = whole.model
        self.first = tapped(len(upper.layers))[0] + 1
        upper.layers = upper.layers[self.first :]
        upper.config.num_hidden_layers = len(upper.layers)
        for index, layer in enumerate(upper.layers):
            layer.self_attn.layer_idx = index
        upper.embed_tokens = nn.Embedding(1, upper.config.hidden_size)
        torch.manual_seed(plan.seed)
        config = peft.LoraConfig(
            r=plan.rank, lora_alpha=2 * plan.rank, target_modules=[t.split(".")[1] for t in TARGETS]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # between peft and transformers
            self.upper = peft.get_peft_model(upper.to(torch.bfloat16), config)
        size = 2 * upper.config.hidden_size
        self.read = nn.Linear(size, 1)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    def forward(self, pack: Pack) -> Tensor:
        """The logit of "right" at each of the pack's readings."""
        return self.say(self.features(pack))

    def features(self, pack: Pack) -> Tensor:
        """[readings, 2 width] the state at each reading, and the mean of the chain's up to there."""
        out = self.upper(inputs_embeds=pack.states.to(torch.bfloat16), attention_mask=pack.present, use_cache=False)
        states = out.last_hidden_state.float()
        drawn = pack.at - pack.prompt + 1
        means = states[:, pack.prompt :].cumsum(1)[pack.row, drawn - 1] / drawn.unsqueeze(1)
        return torch.cat([states[pack.row, pack.at], means], dim=1)

    def say(self, features: Tensor) -> Tensor:
        """Their logits."""
        logits: Tensor = self.read((features - self.mean) / self.spread).squeeze(-1)
        return logits

    def head(self) -> tuple[Tensor, float]:
        """What is read off the states as they are: weights [2 width], offset."""
        weights = (self.read.weight[0] / self.spread).detach()
        return weights, float(self.read.bias[0].detach() - weights @ self.mean)

    def trained(self) -> dict[str, Tensor]:
        """What training changes, by name."""
        changed = {name: weights for name, weights in self.named_parameters() if weights.requires_grad}
        return {**changed, "mean": self.mean, "spread": self.spread}


class Pack(NamedTuple):
    """Chains of one question, each behind the prompt, padded to S states; and where they are read."""

    states: Tensor
    """[B, S, width]"""
    present: Tensor
    """[B, S] 1 for a state, 0 for padding"""
    prompt: int
    """States of the prompt, at the beginning of each row."""
    row: Tensor
    at: Tensor
    """(row, at) of each reading"""
    label: Tensor
    whole: Tensor


def pack(question: Question, chosen: Sequence[int]) -> Pack:
    """Some chains of a question for one pass."""
    prompt = question.prompt[:, 0]
    chains = [question.chains[i] for i in chosen]
    longest = len(prompt) + max(len(chain.states) for chain in chains)
    states = np.zeros((len(chains), longest, prompt.shape[1]), np.float32)
    present = np.zeros((len(chains), longest), np.int64)
    row, at, label, whole = [], [], [], []
    for index, chain in enumerate(chains):
        length = len(prompt) + len(chain.states)
        states[index, :length] = np.concatenate([prompt, chain.states[:, 0]])
        present[index, :length] = 1
        for end, value in zip(chain.ends, chain.values, strict=True):
            last = end == chain.ends[-1]
            row.append(index)
            at.append(len(prompt) + end - 1)
            label.append(float(chain.right) if last or value < 0 else value)
            whole.append(last)
    return Pack(
        torch.from_numpy(states),
        torch.from_numpy(present),
        len(prompt),
        torch.tensor(row),
        torch.tensor(at),
        torch.tensor(label),
        torch.tensor(whole),
    )


def picked(question: Question, each: int, rng: np.random.Generator) -> list[int]:
    """Up to `each` right and as many wrong chains of a question; of one that has a single kind, one."""
    order = rng.permutation(len(question.chains))
    right = [int(i) for i in order if question.chains[i].right]
    wrong = [int(i) for i in order if not question.chains[i].right]
    count = min(each, len(right), len(wrong))
    return right[: max(count, 1)] + wrong[: max(count, 1)] if count else (right + wrong)[:1]


def loss(logits: Tensor, pack: Pack, plan: Plan) -> Tensor:
    """Of one question."""
    each = nn.functional.binary_cross_entropy_with_logits(logits, pack.label, reduction="none")
    outcome = each[pack.whole].mean()
    inner = each[~pack.whole].mean() if (~pack.whole).any() else torch.zeros(())
    final, label = logits[pack.whole], pack.label[pack.whole]
    right, wrong = final[label == 1], final[label == 0]
    pairs = nn.functional.softplus(wrong - right.unsqueeze(1)).mean() if len(right) and len(wrong) else torch.zeros(())
    return outcome + plan.steps * inner + plan.ranking * pairs


class Progress(NamedTuple):
    """Where training stands."""

    done: int
    of: int
    """Questions, over all epochs."""
    loss: float
    """Mean of the last 50 questions."""
    seconds: float
    """Predicted for the rest."""


def fit_reading(verifier: Verifier, files: Sequence[Path], plan: Plan) -> None:
    """Fit what is read off the layers as they are, by the same loss, to some questions."""
    found = []
    with torch.no_grad():
        for path in files:
            question = load(path)
            if question.chains:
                packed = pack(question, picked(question, plan.each + 1, np.random.default_rng(plan.seed)))
                found.append((verifier.features(packed), packed))
    everything = torch.cat([features for features, _ in found])
    verifier.mean, verifier.spread = everything.mean(0), everything.std(0) + 1e-3
    optimiser = torch.optim.LBFGS(verifier.read.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        cost = sum(loss(verifier.say(features), packed, plan) for features, packed in found) / len(found)
        cost = cost + plan.held_down * verifier.read.weight.square().sum() / 2
        cost.backward()
        return cost

    optimiser.step(closure)


def train(
    verifier: Verifier, files: Sequence[Path], checkpoint: Path, plan: Plan, *, every: float = 120.0
) -> Iterator[Progress]:
    """Train, a question a step, going on from `checkpoint` if it is there; it is written every so many seconds and at
    the end."""
    order = [index for epoch in range(plan.epochs) for index in _shuffled(len(files), plan.seed + epoch)]
    reading = list(verifier.read.parameters())
    adapter = [weights for weights in verifier.upper.parameters() if weights.requires_grad]
    groups = [{"params": adapter, "full": plan.rate}, {"params": reading, "full": plan.rate / 10}]
    optimiser = torch.optim.AdamW(groups, lr=plan.rate, weight_decay=plan.decay)
    begun = _resume(verifier, optimiser, checkpoint, plan, len(files))
    if begun == 0:
        fit_reading(verifier, [files[index] for index in order[: plan.first]], plan)
    recent: list[float] = []
    since = saved = time.monotonic()
    for step in range(begun, len(order)):
        question = load(files[order[step]])
        if question.chains:
            for group in optimiser.param_groups:
                group["lr"] = group["full"] * _schedule(step / len(order), plan.warmup)
            packed = pack(question, picked(question, plan.each, np.random.default_rng([plan.seed, step])))
            cost = loss(verifier(packed), packed, plan)
            optimiser.zero_grad()
            cost.backward()
            nn.utils.clip_grad_norm_([*adapter, *reading], 1.0)
            optimiser.step()
            recent = [*recent[-49:], float(cost.detach())]
        now = time.monotonic()
        if now - saved > every or step + 1 == len(order):
            _save(verifier, optimiser, checkpoint, plan, len(files), step + 1)
            saved = time.monotonic()
        rate = (now - since) / (step + 1 - begun)
        yield Progress(step + 1, len(order), float(np.mean(recent or [0.0])), rate * (len(order) - step - 1))


def _shuffled(count: int, seed: int) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).permutation(count)]


def _schedule(share: float, warmup: float) -> float:
    return min(1.0, (share + 1e-3) / warmup) * (1 + math.cos(math.pi * share)) / 2


def _save(verifier: Verifier, optimiser: Any, checkpoint: Path, plan: Plan, files: int, step: int) -> None:
    partial = checkpoint.with_suffix(".partial")
    state = {
        "of": json.dumps({**asdict(plan), "files": files}),
        "step": step,
        "weights": verifier.trained(),
        "optimiser": optimiser.state_dict(),
    }
    torch.save(state, partial)
    os.replace(partial, checkpoint)


def _resume(verifier: Verifier, optimiser: Any, checkpoint: Path, plan: Plan, files: int) -> int:
    """The step to go on with; 0 where there is nothing to go on from."""
    if not checkpoint.is_file():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    if state["of"] != json.dumps({**asdict(plan), "files": files}):
        return 0
    with torch.no_grad():
        for name, weights in verifier.trained().items():
            weights.copy_(state["weights"][name])
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"])


def scores(verifier: Verifier, files: Sequence[Path]) -> Iterator[tuple[Path, list[float], list[bool]]]:
    """Of each question, the logits of its chains and which are right."""
    with torch.inference_mode():
        for path in files:
            question = load(path)
            if question.chains:
                packed = pack(question, range(len(question.chains)))
                logits = verifier(packed)[packed.whole]
                yield path, logits.tolist(), [chain.right for chain in question.chains]


def export(verifier: Verifier, path: Path, held: Sequence[Path], *, sha256: str, questions: int) -> dict[str, object]:
    """Write the adapter as llama.cpp reads it, half precision, its head and calibration among the metadata; the facts.

    Calibrated on `held`, questions that training has not seen; the facts say how well it does there.
    """
    marks = list(scores(verifier, held))
    logits, right = [x for _, row, _ in marks for x in row], [y for _, _, row in marks for y in row]
    slope, shift = platt(logits, right)
    facts: dict[str, object] = {
        "questions": questions,
        "held_out": len(marks),
        "auc": round(stats.auc(logits, right), 4),
        "auc_within": round(stats.auc_within([row for _, row, _ in marks], [row for _, _, row in marks]).value, 4),
    }
    config = verifier.upper.peft_config["default"]
    writer = gguf.GGUFWriter(path.with_suffix(".partial"), verifier.architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(config.lora_alpha))
    weights, offset = verifier.head()
    writer.add_array("flyweight.heads", [float(x) for x in weights * slope])
    writer.add_float32("flyweight.offset", slope * offset + shift)
    writer.add_uint32("flyweight.layer", verifier.first)
    writer.add_string("flyweight.sha256", sha256)
    writer.add_string("flyweight.facts", json.dumps(facts))
    changes = {name: weights for name, weights in verifier.trained().items() if ".lora_" in name}
    for name, weights in changes.items():
        layer = name.split(".layers.")[1].split(".")[0]
        target = next(ours for theirs, ours in TARGETS.items() if f".{theirs}." in name)
        side = "lora_a" if ".lora_A." in name else "lora_b"
        writer.add_tensor(f"blk.{layer}.{target}.weight.{side}", weights.detach().numpy().astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(path.with_suffix(".partial"), path)
    return facts
