"""The nouns: what is solved, what is drawn, what it scored, what it cost. Frozen, standard library only."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Literal, Self

__all__ = [
    "BOXED",
    "Budget",
    "Candidate",
    "Event",
    "Finish",
    "Grade",
    "Message",
    "Node",
    "Problem",
    "Result",
    "Sampling",
    "Score",
    "Stopped",
    "ToolMessage",
    "Usage",
    "Verdict",
    "digest",
]


BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
"""The usual system prompt for maths, after Qwen2.5-Math; a boxed answer is what `answers.extract` looks for first."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool", "text"]
    """`tool`: what a tool call gave back. `text` stands alone: text to go on with as it is, without a chat template."""
    content: str


@dataclass(frozen=True, slots=True)
class ToolMessage(Message):
    """A turn that has to do with tools."""

    tools: str = ""
    """The functions on offer, a JSON list in OpenAI's form; on the first turn of a conversation."""
    calls: str = ""
    """The calls an assistant made, a JSON list of objects with `name` and `arguments`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What to solve. `answer` is for grading: the runner strips it before any policy or verifier sees the problem."""

    id: str
    """Unique within a run; part of every derived seed."""
    prompt: str
    """The question as the user asked it, without system prompt or template."""
    messages: tuple[Message, ...] = ()
    """The conversation sent to the policy; empty means a single user turn holding `prompt`."""
    answer: str | None = None
    meta: Mapping[str, object] = field(default_factory=dict)

    @property
    def conversation(self) -> tuple[Message, ...]:
        """The turns a policy continues."""
        return self.messages or (Message("user", self.prompt),)


class Finish(StrEnum):
    """Why the text of a node ends where it does."""

    END = "end"
    """The model ended its answer: the path is a complete solution."""
    STOP = "stop"
    """A stop string was reached (for `extend`: a step boundary, kept in the text)."""
    LENGTH = "length"
    """max_tokens or the context window cut it: truncated, never voted on."""
    CUT = "cut"
    """An `until` predicate ended it."""
    FORCED = "forced"
    """Text put there by the strategy, not drawn."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a verifier said about one path."""

    value: float
    """In [0, 1], higher is better."""
    steps: tuple[float, ...] = ()
    """One value in [0, 1] per step, for process verifiers; aggregating them is `select.aggregate`'s job."""
    kind: str = ""
    """Name of the verifier."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A partial solution: the path from the root that ends here. Stores only the step it adds; forking is free.

    Immutable and compared by identity; `key` identifies it across runs. It holds no KV handle: an engine finds
    the resident prefix itself.
    """

    parent: Node | None = None
    text: str = ""
    """What this step adds to its parent's text."""
    tokens: tuple[int, ...] | None = ()
    """Token ids of `text` as drawn by `policy`; None where no policy drew it (forced text)."""
    logprobs: tuple[float, ...] = ()
    """Natural-log probability of each drawn token under the untempered model, <= 0."""
    certainty: tuple[float, ...] = ()
    """Per drawn token: self-certainty, KL(uniform || model) in nats, >= 0 (Kang et al. 2025, arXiv 2502.18581)."""
    finish: Finish | None = None
    score: Score | None = None
    key: str = ""
    """Hash of the path and the draw index: names this node in seeds, traces and stores."""
    draw: int = 0
    """How many draws from the same parent came before this one."""
    policy: str = ""
    """Name of the policy that drew it; another policy re-tokenises `text`."""
    messages: tuple[Message, ...] = ()
    """The prompt; only on a root."""
    hidden: object | None = field(default=None, repr=False)
    """Hidden states, float16 [T, layers, width], where the policy was asked to keep them: for each drawn token those at
    the position before it, from which it was drawn; where the model ended its answer, those it did so from too."""

    alternatives: tuple[tuple[tuple[int, float], ...], ...] = field(default=(), repr=False)
    """Where asked for, per drawn token the likeliest ones at its position, with natural-log probabilities."""

    @property
    def root(self) -> Node:
        """The node holding the prompt."""
        node = self
        while node.parent is not None:
            node = node.parent
        return node

    @property
    def steps(self) -> tuple[Node, ...]:
        """The path below the root, in order."""
        path: list[Node] = []
        node = self
        while node.parent is not None:
            path.append(node)
            node = node.parent
        return tuple(reversed(path))

    @property
    def solution(self) -> str:
        """Text of the whole path, without the prompt."""
        return "".join(step.text for step in self.steps)

    @property
    def drawn(self) -> int:
        """Tokens the policy sampled along the path."""
        return sum(len(step.tokens or ()) for step in self.steps)

    @property
    def mean_logprob(self) -> float:
        """Mean natural-log probability of the drawn tokens along the path, <= 0; 0 if nothing was drawn."""
        steps = self.steps
        count = sum(len(step.logprobs) for step in steps)
        return math.fsum(lp for step in steps for lp in step.logprobs) / count if count else 0.0

    @property
    def order(self) -> tuple[int, ...]:
        """Draw indices along the path: sorts nodes of one search by when they were drawn."""
        return tuple(step.draw for step in self.steps)

    @property
    def complete(self) -> bool:
        """Whether the model itself ended the answer here."""
        return self.finish is Finish.END


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one completion is drawn."""

    temperature: float = 0.7
    """0 takes the most likely token."""
    top_p: float = 1.0
    """Nucleus: smallest set of tokens with this probability mass, in (0, 1]."""
    max_tokens: int = 1024
    stop: tuple[str, ...] = ()
    """Generation ends with the token that completes one of these strings; that token is kept whole."""
    grammar: str = ""
    """GBNF grammar the text must follow; empty for none."""


@dataclass(frozen=True, slots=True)
class Budget:
    """The dial. None means unlimited."""

    tokens: int | None = None
    """Generated tokens per problem; never exceeded."""
    seconds: float | None = None
    """Wall time per problem, counted from its first request."""
    verifications: int | None = None
    """Candidates (or partial paths) scored per problem; never exceeded."""
    confidence: float | None = None
    """Stop as soon as `Result.confidence` would reach this, in (0, 1]; a search that ends below it is not `sure`."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was spent, complete for every strategy; sums equal the engine's own counters exactly."""

    prompt_tokens: int = 0
    """Policy tokens computed in prefill (also when re-computed after eviction)."""
    cached_tokens: int = 0
    """Prompt tokens served from the KV cache."""
    generated_tokens: int = 0
    """Tokens sampled, including those of cut or abandoned candidates."""
    verifier_tokens: int = 0
    """Tokens a verifier computed."""
    policy_calls: int = 0
    """Completions or steps requested from a policy."""
    verifier_calls: int = 0
    """Paths scored."""
    seconds: float = 0.0
    """Wall time from the problem's first request to its end."""
    flops: float = 0.0
    """2 x parameters x (prompt + generated) for the policy plus 2 x parameters x tokens for the verifier."""
    peak_kv_bytes: int = 0
    """Largest KV memory held for live sequences while this problem was running (engine-wide)."""

    def __add__(self, other: Self) -> Usage:
        """Sum of two usages; `peak_kv_bytes` takes the larger."""
        total = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        total["peak_kv_bytes"] = max(self.peak_kv_bytes, other.peak_kv_bytes)
        return Usage(**total)


class Stopped(StrEnum):
    """Why a search ended."""

    DONE = "done"
    """The strategy ran to its end."""
    BUDGET = "budget"
    """Tokens or verifications ran out."""
    DEADLINE = "deadline"
    """Seconds ran out."""
    CONFIDENT = "confident"
    """`Budget.confidence` was reached."""
    INTERRUPTED = "interrupted"
    """The user asked to stop."""
    ERROR = "error"
    """The strategy, a policy or a verifier failed; see `Result.error`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A finished or truncated solution with the answer read from it."""

    node: Node
    answer: str | None
    """Extracted answer; None when there is none or the text was truncated."""
    answer_class: int | None
    """Index of the equivalence class it voted in; None when it could not vote."""


@dataclass(frozen=True, slots=True)
class Result:
    """Outcome of one search. Always returned, never raised."""

    problem: Problem
    best: Node | None
    """The selected solution; None when nothing complete was found. A strategy that draws one line and does not choose
    (`greedy`, `sample`, `budget_forcing`) returns that, even truncated."""
    answer: str | None
    candidates: tuple[Candidate, ...] = ()
    """Every candidate: one continuation after another in the order drawn. Those of separate prompts (`ask`) or branches
    (`parallel`) count their draws separately; where these are equal the order is fixed, but means nothing."""
    usage: Usage = Usage()
    stopped: Stopped = Stopped.DONE
    confidence: float | None = None
    """In [0, 1], None with fewer than two voters. Where `calibrated`: probability that the selected answer is right.
    Elsewhere: posterior probability that it is drawn more often than the strongest other one (`select.lead`)."""
    calibrated: bool = False
    """Whether a confidence map (`flyweight.abstain`) holds for this model, kind of answer and strategy."""
    sure: bool = True
    """False where `Budget.confidence` was asked for and `confidence` is below it, or None."""
    explained: Mapping[str, object] = field(default_factory=dict)
    """What the strategy said last of a choice of its own (`search.note(explained=...)`); empty where it made none."""
    error: str | None = None

    @property
    def text(self) -> str:
        """The selected solution's full text, empty when there is none."""
        return self.best.solution if self.best is not None else ""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        from flyweight.viewer.drawing import result

        return result(self)


@dataclass(frozen=True, slots=True)
class Event:
    """One fact of a run. Progress bars, traces, streams, trees and plots are folds over these."""

    problem_id: str
    kind: Literal["start", "node", "score", "note", "progress", "end"]
    at: float
    """Seconds since the run began."""
    node: Node | None = None
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of comparing two answers."""

    value: Literal["equal", "different", "undecided"]
    reason: str = ""
    retry: bool = False
    """Undecided for a reason that may pass: time ran out, a package is missing."""


@dataclass(frozen=True, slots=True)
class Grade:
    """Outcome of grading a solution against the known answer."""

    value: Literal["correct", "wrong", "undecided"]
    reason: str = ""
    retry: bool = False
    """Undecided for a reason that may pass, as `Verdict.retry`."""


def digest(*parts: object) -> str:
    """Hex SHA-256 over the parts, unambiguous about where one ends and the next begins."""
    h = hashlib.sha256()
    for part in parts:
        data = str(part).encode("utf-8", "surrogatepass")
        h.update(len(data).to_bytes(8, "big") + data)
    return h.hexdigest()
