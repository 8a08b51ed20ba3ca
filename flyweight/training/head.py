"""Fitting a probe: gated mean of token rewards, by gradient descent, its strength chosen across questions.

Loss: cross-entropy of the outcome over whole solutions, plus, weighted by `rank`, of which of two solutions of the same
question is right. Inner steps that several texts go through count with their Monte-Carlo value. How strongly weights
are held down, and how long to train, is chosen by cross-validation whose folds keep the chains of a question together;
the same held-out scores give the calibration (Platt's two numbers) and the figures in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flyweight import stats
from flyweight.training.calibrate import platt
from flyweight.training.pool import NOTHING, Question
from flyweight.verifiers.probe import SCALARS, Head, numbers

__all__ = ["Fitted", "Plan", "fit"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a head is fitted."""

    channels: int = 4
    decays: tuple[float, ...] = (10.0, 100.0, 1000.0)
    """Tried: what half the squared weights cost, divided by the number of questions."""
    epochs: int = 4
    rate: float = 1e-3
    batch: int = 16
    """Questions."""
    folds: int = 3
    rank: float = 1.0
    steps: float = 0.3
    """Weight of inner steps."""
    seed: int = 0


class Fitted(NamedTuple):
    """A head, and what cross-validation says about it."""

    head: Head
    logits: list[list[float]]
    """Held-out, of each chain of each question, after calibration."""


class _Heads(nn.Module):  # type: ignore[misc]  # torch may be absent
    """M heads side by side: one pass over the tokens serves all of them."""

    def __init__(self, models: int, size: int, channels: int, seed: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=random) * 0.02 / math.sqrt(size))

        self.models, self.channels = models, channels
        self.reward, self.gate = drawn(models * channels, size), drawn(models * channels, size)
        self.reward_bias, self.gate_bias = nn.Parameter(torch.zeros(models * channels)), drawn(models * channels)
        self.average, self.last = nn.Parameter(torch.zeros(models, size)), nn.Parameter(torch.zeros(models, size))
        self.scalar = nn.Parameter(torch.zeros(models, len(SCALARS)))
        self.channel = nn.Parameter(torch.ones(models, channels))
        self.offset = nn.Parameter(torch.zeros(models))

    def sizes(self) -> Tensor:
        """[M] half the squared length of each head's weights on hidden states."""
        wide = torch.cat([self.reward, self.gate], dim=1).square().sum(1).view(self.models, self.channels).sum(1)
        return (wide + self.average.square().sum(1) + self.last.square().sum(1)) / 2

    def forward(self, x: Tensor, numbers: Tensor, chain: Tensor, end: Tensor) -> Tensor:
        """Logits [prefixes, M] of the prefixes of tokens x [T, D]: prefix p is x[chain[p] : end[p]]."""
        columns = torch.cat([self.reward, self.gate, self.average, self.last])
        read = x @ columns.T
        wide = self.models * self.channels
        said, gate = read[:, :wide] + self.reward_bias, torch.sigmoid(read[:, wide : 2 * wide] + self.gate_bias)
        plain, last = read[:, 2 * wide :].split(self.models, dim=1)
        sums = torch.cat([gate * said, gate, plain], dim=1).double().cumsum(0)
        sums = torch.cat([torch.zeros_like(sums[:1]), sums])
        part = (sums[end] - sums[chain]).float()
        pooled = (part[:, :wide] / part[:, wide : 2 * wide]).view(-1, self.models, self.channels)
        mean = part[:, 2 * wide :] / (end - chain).unsqueeze(1)
        return (pooled * self.channel).sum(-1) + mean + last[end - 1] + numbers @ self.scalar.T + self.offset


class _Batch(NamedTuple):
    """Prefixes of the chains of several questions, whole chains first within each question."""

    x: Tensor
    numbers: Tensor
    chain: Tensor
    end: Tensor
    label: Tensor
    """Outcome, or value."""
    whole: Tensor
    question: Tensor


class _Data:
    """The pool, standardised when it is asked for."""

    def __init__(self, questions: Sequence[Question], use: slice) -> None:
        self.questions = [q for q in questions if q.chains]
        self.use = use
        total, square, count = 0.0, 0.0, 0
        for question in self.questions:
            for chain in question.chains:
                x = self._flat(chain.states)
                total = total + x.sum(0, dtype=np.float64)
                square = square + (x.astype(np.float64) ** 2).sum(0)
                count += len(x)
        mean = np.asarray(total / count)
        self.mean = mean.astype(np.float32)
        self.scale = (1 / np.sqrt(np.maximum(square / count - mean**2, 1e-6))).astype(np.float32)
        known = np.stack([numbers(c.logprobs, c.certainty, c.ends[-1]) for q in self.questions for c in q.chains])
        self.scalar_mean = known.mean(0)
        self.scalar_scale = 1 / np.maximum(known.std(0), 1e-3)

    @property
    def size(self) -> int:
        return len(self.mean)

    def _flat(self, states: NDArray[np.float16]) -> Floats:
        return states[:, self.use].reshape(len(states), -1).astype(np.float32)

    def batch(self, chosen: Sequence[int], *, inner: bool) -> _Batch:
        x, known, chain, end, label, whole, question = [], [], [], [], [], [], []
        at = 0
        for index in chosen:
            for each in self.questions[index].chains:
                x.append((self._flat(each.states) - self.mean) * self.scale)
                ends = list(zip(each.ends, each.values, strict=True))
                prefixes = [(each.ends[-1], float(each.right), True)]
                prefixes += [(stop, value, False) for stop, value in ends[:-1] if inner and value >= 0]
                for stop, value, is_whole in prefixes:
                    known.append(numbers(each.logprobs, each.certainty, stop))
                    chain.append(at)
                    end.append(at + stop)
                    label.append(value)
                    whole.append(is_whole)
                    question.append(index)
                at += len(each.states)
        scalars = (np.stack(known) - self.scalar_mean) * self.scalar_scale
        return _Batch(
            torch.from_numpy(np.concatenate(x)),
            torch.from_numpy(scalars.astype(np.float32)),
            torch.tensor(chain),
            torch.tensor(end),
            torch.tensor(label),
            torch.tensor(whole),
            torch.tensor(question),
        )


def fit(
    questions: Sequence[Question],
    sha256: str,
    plan: Plan | None = None,
    *,
    layers: slice = slice(None),
    say: Callable[[str], None] = lambda line: None,
) -> Fitted:
    """A calibrated head from recorded questions. ValueError where no question has both right and wrong chains."""
    plan = plan or Plan()
    if not any(question.mixed for question in questions):
        raise ValueError(NOTHING)
    data = _Data(questions, layers)
    torch.manual_seed(plan.seed)
    fold = np.random.default_rng(plan.seed).permutation(len(data.questions)) % plan.folds
    cells = [(decay, held) for decay in plan.decays for held in range(plan.folds)]
    tracked: dict[tuple[float, int], list[list[float]]] = {}
    for epoch, heads in _trained(data, plan, [decay for decay, _ in cells], [held for _, held in cells], fold):
        scores = _scores(heads, data)
        for decay in plan.decays:
            held_out = [[row[cells.index((decay, int(fold[i])))] for row in rows] for i, rows in enumerate(scores)]
            tracked[decay, epoch] = held_out
            say(f"decay {decay:g} epoch {epoch}: AUC within {_within(data, held_out):.3f}")
    decay, epochs = max(tracked, key=lambda key: _within(data, tracked[key]))
    held_out = tracked[decay, epochs]
    rows = [
        (logit, chain.right)
        for question, row in zip(data.questions, held_out, strict=True)
        for logit, chain in zip(row, question.chains, strict=True)
    ]
    slope, shift = platt([x for x, _ in rows], [right for _, right in rows])
    final = None
    for _, final in _trained(data, replace(plan, epochs=epochs), [decay], [-1], fold):  # noqa: B007
        pass
    assert final is not None
    calibrated = [[slope * logit + shift for logit in row] for row in held_out]
    facts: dict[str, object] = {
        "questions": len(data.questions),
        "chains": len(rows),
        "decay": decay,
        "epochs": epochs,
        "auc": round(stats.auc([x for x, _ in rows], [right for _, right in rows]), 4),
        "auc_within": round(_within(data, held_out), 4),
    }
    return Fitted(_head(final, data, slope, shift, sha256, facts), calibrated)


def _trained(
    data: _Data, plan: Plan, decays: Sequence[float], held: Sequence[int], fold: NDArray[np.int64]
) -> Iterator[tuple[int, _Heads]]:
    """One head for each decay, its fold held out, after each epoch; fold -1 holds out nothing."""
    heads = _Heads(len(decays), data.size, plan.channels, plan.seed)
    optimiser = torch.optim.Adam(heads.parameters(), lr=plan.rate)
    strength, out = torch.tensor(decays), torch.tensor(held)
    rng = np.random.default_rng(plan.seed)
    for epoch in range(1, plan.epochs + 1):
        order = rng.permutation(len(data.questions))
        for start in range(0, len(order), plan.batch):
            batch = data.batch([int(i) for i in order[start : start + plan.batch]], inner=plan.steps > 0)
            logits = heads(batch.x, batch.numbers, batch.chain, batch.end)
            used = (torch.from_numpy(fold)[batch.question].unsqueeze(1) != out).float()
            loss = _outcomes(logits, batch, used, plan.steps) + plan.rank * _ranking(logits, batch, used)
            loss = loss + (strength * heads.sizes()).sum() / len(order)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        yield epoch, heads


def _outcomes(logits: Tensor, batch: _Batch, used: Tensor, steps: float) -> Tensor:
    """Cross-entropy, summed over heads."""
    label = batch.label.unsqueeze(1).expand_as(logits)
    each = nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="none")
    weight = used * torch.where(batch.whole, 1.0, steps).unsqueeze(1)
    return ((each * weight).sum(0) / weight.sum(0).clamp(min=1)).sum()


def _ranking(logits: Tensor, batch: _Batch, used: Tensor) -> Tensor:
    """Logistic loss of every right-wrong pair within a question, a question counting once; summed over heads."""
    total = torch.zeros(logits.shape[1])
    weight = torch.zeros(logits.shape[1])
    for question in batch.question.unique():
        mine = batch.whole & (batch.question == question)
        right, wrong = (mine & (batch.label == 1)).nonzero()[:, 0], (mine & (batch.label == 0)).nonzero()[:, 0]
        if len(right) and len(wrong):
            gap = logits[right].unsqueeze(1) - logits[wrong]
            total = total + used[right[0]] * nn.functional.softplus(-gap).mean((0, 1))
            weight = weight + used[right[0]]
    return (total / weight.clamp(min=1)).sum()


def _scores(heads: _Heads, data: _Data) -> list[list[list[float]]]:
    """Of each chain of each question, the logit of every head."""
    found = []
    with torch.inference_mode():
        for index in range(len(data.questions)):
            batch = data.batch([index], inner=False)
            found.append(heads(batch.x, batch.numbers, batch.chain, batch.end).tolist())
    return found


def _within(data: _Data, logits: Sequence[Sequence[float]]) -> float:
    """Mean AUC of the questions that have right and wrong chains."""
    right = [[chain.right for chain in question.chains] for question in data.questions]
    values = [stats.auc(row, marks) for row, marks in zip(logits, right, strict=True) if any(marks) and not all(marks)]
    return float(np.mean(values))


def _head(heads: _Heads, data: _Data, slope: float, shift: float, sha256: str, facts: dict[str, object]) -> Head:
    """The only head of `heads`, with the calibration folded into its weights."""

    def plain(weights: Tensor) -> Floats:
        return np.asarray(weights.detach().numpy(), np.float32)

    scalar = np.stack([data.scalar_mean, data.scalar_scale, slope * plain(heads.scalar)[0]])
    return Head(
        mean=data.mean,
        scale=data.scale,
        reward=plain(heads.reward),
        gate=plain(heads.gate),
        bias=np.stack([plain(heads.reward_bias), plain(heads.gate_bias)]),
        average=slope * plain(heads.average)[0],
        last=slope * plain(heads.last)[0],
        scalar=scalar.astype(np.float32),
        channel=slope * plain(heads.channel)[0],
        offset=slope * float(heads.offset[0].detach()) + shift,
        sha256=sha256,
        facts=facts,
    )
