"""What a verifier is trained on: answers to train questions with hidden states, outcomes and values of steps.

Of every question, `n` chains are drawn step by step, and one of their steps, picked at random, is continued
`rollouts` times on the KV it left. Every finished text carries its outcome, by the task's own grading; every step that
several texts go through, their share that is right, its Monte-Carlo value.

Source: Wang et al. 2024, Math-Shepherd (2312.08935), section 3.3; soft estimation.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.protocols import Models, Policy, Search, Task
from flyweight.runner import Runner
from flyweight.types import Event, Finish, Node, Problem, Result, Sampling, Score, digest

__all__ = ["NOTHING", "Chain", "Question", "collect", "load", "recorded"]

NOTHING = "no question has right and wrong answers: nothing to learn from"
"""Said of questions of which none is mixed."""
VERSION = 1
IN_FLIGHT = 8


@dataclass(frozen=True, slots=True)
class Chain:
    """One text with what was recorded while it was drawn."""

    states: NDArray[np.float16]
    """[T, layers, width]"""
    logprobs: NDArray[np.float32]
    certainty: NDArray[np.float32]
    right: bool
    ends: tuple[int, ...]
    """States before the end of each step, ascending; the last is T."""
    values: tuple[float, ...]
    """Of each step, the share of texts through it that are right; -1 where this is the only one."""


@dataclass(frozen=True, slots=True)
class Question:
    """A train question: its prompt and its chains."""

    id: str
    prompt: NDArray[np.float16]
    """States of the prompt without its last token, [P - 1, layers, width]"""
    chains: tuple[Chain, ...]

    @property
    def mixed(self) -> bool:
        """Whether it has right and wrong chains, which is what telling them apart is learnt from."""
        return len({chain.right for chain in self.chains}) == 2


def collect(
    policy: Policy,
    task: Task,
    problems: Sequence[Problem],
    folder: Path,
    *,
    n: int = 8,
    rollouts: int = 4,
    temperature: float = 0.7,
    max_tokens: int = 512,
    seed: int = 0,
) -> Iterator[Result]:
    """Draw what is missing in `folder`, one file a question, and hand on the results as they are written."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = _Prompts()
    leaves: dict[str, list[Node]] = {}

    def ended(event: Event) -> None:
        if event.node is not None and event.kind == "node" and event.node.complete:
            leaves.setdefault(event.problem_id, []).append(event.node)

    runner = Runner(
        policy,
        {prompts.name: prompts},
        answers=task,
        sampling=Sampling(temperature, max_tokens=max_tokens),
        seed=seed,
        hidden=True,
        on_event=ended,
    )

    async def chains(search: Search) -> Node | None:
        async def chain() -> Node:
            node = search.root
            while True:
                grown = await search.extend([node], max_tokens=max_tokens - node.drawn)
                node = grown[0]
                if node.finish is not Finish.STOP or node.drawn >= max_tokens:
                    return node

        await search.score([search.root])
        leaves = await search.parallel(*(chain() for _ in range(n)))
        inner = [step for leaf in leaves for step in leaf.steps[:-1] if step.finish is Finish.STOP]
        if inner and rollouts:
            fork = search.rng.choice(inner)
            await search.complete([fork], rollouts, max_tokens=max_tokens - fork.drawn)
        return None

    missing = [problem for problem in problems if not _file(folder, problem.id).is_file()]
    for result in runner.run(missing, chains, in_flight=IN_FLIGHT):
        drawn = sorted(leaves.pop(result.problem.id, []), key=lambda leaf: (leaf.order, leaf.key))
        if result.error is None:
            _write(folder, result, drawn, task, prompts.states.pop(result.problem.id))
        yield result


class _Prompts:
    """Not a judge: looks at the hidden states of each question's prompt, which only verifiers may ask for."""

    name = "prompts"
    params = 0
    sees_answer = False

    def __init__(self) -> None:
        self.states: dict[str, Any] = {}

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        [hidden] = await models.states(nodes)
        self.states[problem.id] = hidden.states
        return [Score(0.5, (), self.name)]


def recorded(folder: Path, problems: Sequence[Problem]) -> list[Path]:
    """The files of those problems that are there."""
    return [path for problem in problems if (path := _file(folder, problem.id)).is_file()]


def _file(folder: Path, id: str) -> Path:
    """Named after the id, or its hash where an id could lead elsewhere or be too long; no plain id begins with "="."""
    plain = re.fullmatch(r"[\w .,:;+@#()-]{1,200}", id, re.ASCII)
    return folder / f"{id if plain else f'={digest(id)}'}.npz"


def _write(folder: Path, result: Result, leaves: Sequence[Node], task: Task, prompt: NDArray[np.float16]) -> None:
    """One question's chains in one file, which appears when it is complete."""
    right = {leaf.key: task.grade(result.problem, leaf.solution).value == "correct" for leaf in leaves}
    through: dict[str, list[bool]] = {}
    for leaf in leaves:
        for step in leaf.steps:
            through.setdefault(step.key, []).append(right[leaf.key])
    facts = []
    for leaf in leaves:
        lengths = [len(_states(step)) for step in leaf.steps]
        values = [float(np.mean(below)) if len(below := through[step.key]) > 1 else -1.0 for step in leaf.steps]
        ends = [int(end) for end in np.cumsum(lengths)]
        facts.append({"right": right[leaf.key], "ends": ends, "values": values, "text": leaf.solution})
    steps = [step for leaf in leaves for step in leaf.steps]
    arrays: dict[str, Any] = {
        "prompt": prompt,
        "states": np.concatenate([_states(step) for step in steps]) if steps else prompt[:0],
        "logprobs": np.array([lp for step in steps for lp in step.logprobs], np.float32),
        "certainty": np.array([c for step in steps for c in step.certainty], np.float32),
        "facts": np.array(json.dumps({"version": VERSION, "id": result.problem.id, "chains": facts})),
        "drawn": np.array([leaf.drawn for leaf in leaves], np.int64),
    }
    partial = _file(folder, result.problem.id).with_suffix(".partial")
    with partial.open("wb") as stream:
        np.savez(stream, **arrays)
    os.replace(partial, _file(folder, result.problem.id))


def _states(step: Node) -> NDArray[np.float16]:
    states: NDArray[np.float16] = np.asarray(step.hidden)
    return states


def load(path: Path) -> Question:
    """A question as it was written. ValueError for a file of another version."""
    with np.load(path, allow_pickle=False) as data:
        facts = json.loads(str(data["facts"]))
        if facts["version"] != VERSION:
            raise ValueError(f"{path.name} was written by another version: remove the folder and draw again")
        states, logprobs, certainty = data["states"], data["logprobs"], data["certainty"]
        chains = []
        at = drawn = 0
        for chain, tokens in zip(facts["chains"], data["drawn"], strict=True):
            end, last = at + chain["ends"][-1], drawn + int(tokens)
            chains.append(
                Chain(
                    states[at:end],
                    logprobs[drawn:last],
                    certainty[drawn:last],
                    bool(chain["right"]),
                    tuple(chain["ends"]),
                    tuple(chain["values"]),
                )
            )
            at, drawn = end, last
        return Question(str(facts["id"]), data["prompt"], tuple(chains))
