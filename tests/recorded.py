"""Recorded candidates for tests: where they lie, a small answer normaliser, and a policy that replays them."""

from __future__ import annotations

import functools
import gzip
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flyweight.protocols import Counters, Models, Request, Response
from flyweight.types import Finish, Node, Problem, Score

FIXTURES = Path(__file__).parent / "data" / "fixtures"

SAME = {
    "\\frac{\\cosx}{\\sinx}": "\\cotx",
    "(5/2)+(i\\sqrt{2})": "\\frac{5}{2}+i\\sqrt{2}",
    "4^{1.5}": "4^(3/2)",
    "03": "3",
}
"""Answers of the recordings that are equal only to someone who can do algebra."""


@functools.cache
def load(name: str) -> list[dict[str, Any]]:
    """The rows of a fixture, in the order recorded."""
    with gzip.open(FIXTURES / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def boxed(text: str) -> str | None:
    """Content of the last \\boxed{...}, braces balanced; None without one."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for end in range(start + len("\\boxed"), len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[start + len("\\boxed{") : end]
    return None


def stated(text: str) -> str:
    """The answer a solution states: the boxed one, else what follows "answer is", else its last number."""
    answer = boxed(text)
    if answer is not None:
        return answer
    announced = re.findall(r"(?:he|final) answer is(.*)", text, re.DOTALL)
    if announced:
        return str(announced[-1]).strip()
    numbers = re.findall(r"-?\d*\.?\d+", text.replace(",", ""))
    return str(numbers[-1]) if numbers else ""


def normal(answer: str | None) -> str:
    """An answer as a string that most equal answers of the recordings share."""
    text = unicodedata.normalize("NFKC", answer or "").strip().strip(":")
    text = re.sub(r"\\(?:text|mathrm|mbox)\{([^{}]*)\}", r"\1", text)
    for noise in ("\\left", "\\right", "\\!", "^{\\circ}", "^\\circ", "\\$", "$", "\\%", "%"):
        text = text.replace(noise, "")
    text = text.replace("tfrac", "frac").replace("dfrac", "frac")
    text = re.sub(r"(?<!\\)\\ |\\,|\\;|\s", "", text).rstrip(".")
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    return SAME.get(text, text)


class NormalAnswers:
    """The answer layer of these tests: boxed answers, equal when `normal` makes them so. Empty ones do not vote."""

    def extract(self, text: str) -> str | None:
        return boxed(text) or None

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        groups: dict[str, list[int]] = {}
        for index, answer in enumerate(answers):
            if answer:
                groups.setdefault(normal(answer), []).append(index)
        return sorted(groups.values(), key=lambda group: (-len(group), group[0]))


def nodes(texts: Sequence[str], steps: Sequence[Sequence[float]] | None = None) -> list[Node]:
    """Complete candidates in draw order, with their step scores if given."""
    root = Node(key="root")
    return [
        Node(
            root,
            text,
            (0,),
            finish=Finish.END,
            key=f"{i:03}",
            draw=i,
            score=None if steps is None else Score(steps[i][-1], tuple(steps[i])),
        )
        for i, text in enumerate(texts)
    ]


def groups(candidates: Sequence[Node]) -> list[list[Node]]:
    """Candidates by equal answer, as `Search.classes` returns them, their whole text being the answer."""
    found: dict[str, list[Node]] = {}
    for node in candidates:
        if node.text:
            found.setdefault(normal(node.text), []).append(node)
    return sorted(found.values(), key=lambda group: (-len(group), group[0].draw))


class Replay:
    """A policy that answers the k-th request for a question with its k-th recorded sample.

    What is ready comes back a few at a time and in a shuffled order, as from a busy server.
    """

    name = "replay"
    params = 0
    boundary: tuple[str, ...] = ("\n\n",)

    def __init__(self, samples: Mapping[str, Sequence[str]], *, at_once: int = 64, seed: int = 0) -> None:
        self._samples = samples
        self._at_once = at_once
        self._rng = random.Random(seed)
        self._asked: Counter[str] = Counter()
        self._ready: list[Response] = []
        self._served = 0

    def add(self, request: Request) -> None:
        question = request.node.root.messages[-1].content
        text = self._samples[question][self._asked[question]]
        self._asked[question] += 1
        self._ready.append(Response(request.id, text, (0,), finish=Finish.END, generated_tokens=1))

    def step(self) -> list[Response]:
        self._rng.shuffle(self._ready)
        out, self._ready = self._ready[: self._at_once], self._ready[self._at_once :]
        self._served += len(out)
        return out

    def cancel(self, id: int) -> Response:
        self._ready = [response for response in self._ready if response.id != id]
        return Response(id, finish=Finish.CUT)

    @property
    def counters(self) -> Counters:
        return Counters(generated_tokens=self._served)

    def close(self) -> None:
        self._ready.clear()


class Recorded:
    """A verifier that looks the step scores of a solution up."""

    name = "recorded"
    params = 0
    sees_answer = False

    def __init__(self, steps: Mapping[str, Sequence[float]]) -> None:
        self._steps = steps

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
        return [Score(self._steps[node.solution][-1], tuple(self._steps[node.solution])) for node in nodes]
