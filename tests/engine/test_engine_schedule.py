"""Whole searches on a simulated model: how much is computed twice, how full the batches are, whose turn it is.

Real are the runner, the strategies, the scheduling and the bookkeeping of streams; simulated are the KV and the logits,
so that every count is exact and the lengths are those of grade-school questions. All at a quarter of the usual size: 8
slots, 72 MB for paths put aside.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flyweight import strategies, verifiers
from flyweight.policies.llamacpp import LlamaCpp, Profile
from flyweight.policies.llamacpp import policy as policy_module
from flyweight.policies.llamacpp.context import Model
from flyweight.policies.llamacpp.schedule import Queue
from flyweight.protocols import Models, Strategy, Verifier
from flyweight.runner import Runner
from flyweight.types import Node, Problem, Result, Sampling, Score
from tests import tiny
from tests.engine_kit import Engines, child, draw, prompt, run

SLOTS, PARKED_MB = 8, 72
TOKEN_BYTES = 12288
"""Of Qwen2.5 0.5B at f16."""
BOUNDARY = tiny.VOCABULARY.index("ĊĊ")
LETTERS = range(97, 123)
Kv = tuple[list[int], list[int]]


class Simulated:
    """KV that remembers its tokens, and logits that make steps of 20 to 60 tokens and answers of about 250."""

    def __init__(self, model: Model, *, streams: int, **_: object) -> None:
        self.content: list[list[int]] = [[] for _ in range(streams)]
        self.paths: list[list[int]] = [[] for _ in range(streams)]
        """Per token of `content`, a hash of everything up to it."""
        self.computed: set[int] = set()
        self.again = self.steps = self.rows = self.torn = 0
        self._vocabulary = model.n_vocab
        self._table: dict[tuple[int, int], NDArray[np.float32]] = {}

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], streams: Sequence[int], *, outputs: bool, hidden: bool
    ) -> None:
        for token, position, stream in zip(tokens, positions, streams, strict=True):
            content, paths = self.content[stream], self.paths[stream]
            assert position == len(content)
            path = hash((paths[-1] if paths else 0, token))
            self.again += path in self.computed
            self.computed.add(path)
            content.append(token)
            paths.append(path)
        if outputs:
            self.steps += 1
            self.rows += len(tokens)
            self.torn += list(streams) != list(range(streams[0], streams[0] + len(streams)))
            self._logits = np.stack([self._row(self.content[stream]) for stream in streams])

    def _row(self, content: list[int]) -> NDArray[np.float32]:
        since = 0
        while since < 60 and content[-1 - since] not in (10, BOUNDARY):  # the prompt ends with a newline
            since += 1
        key = since, max(0, len(content) - 110) // 50 * 50
        if key not in self._table:
            stop = 0.0 if since < 20 else 1 / (61 - since)
            end = stop * (0.0 if key[1] < 100 else 0.5 if key[1] < 250 else 1.0)
            logits = np.full(self._vocabulary, -70, np.float32)
            for token, share in ((BOUNDARY, stop - end), (tiny.END, end)):
                logits[token] = math.log(max(share, 1e-30))
            logits[LETTERS] = math.log(max(1 - stop, 1e-30) / len(LETTERS))
            self._table[key] = logits
        return self._table[key]

    def logits(self) -> NDArray[np.float32]:
        return self._logits

    def save(self, stream: int) -> Kv:
        return list(self.content[stream]), list(self.paths[stream])

    def load(self, stream: int, blob: Kv) -> None:
        self.content[stream], self.paths[stream] = list(blob[0]), list(blob[1])

    def truncate(self, stream: int, length: int) -> None:
        del self.content[stream][length:], self.paths[stream][length:]

    def close(self) -> None:
        pass


class Whim:
    """Scores that depend on nothing but the path."""

    name = "whim"
    params = 0
    sees_answer = False

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        return [Score(hashlib.sha256(node.key.encode()).digest()[0] / 255) for node in nodes]


class Letter:
    """The first letter is the answer."""

    def extract(self, text: str) -> str | None:
        return text[:1]

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        return [[i for i, a in enumerate(answers) if a == letter] for letter in sorted({a for a in answers if a})]


Simulation = Callable[..., tuple[LlamaCpp, Simulated, dict[str, Result]]]


@pytest.fixture
def simulate(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulation]:
    """Run a strategy over problems that are all in flight together."""
    monkeypatch.setattr(policy_module, "Context", Simulated)
    monkeypatch.setattr(Model, "kv_bytes", lambda *_: TOKEN_BYTES)
    made: list[LlamaCpp] = []

    def go(
        strategy: Strategy, *, problems: int, parked_mb: int = PARKED_MB, verifier: Verifier | None = None
    ) -> tuple[LlamaCpp, Simulated, dict[str, Result]]:
        engine = LlamaCpp(tiny_path, weights="file", slots=SLOTS, context=512, threads=1, parked_mb=parked_mb)
        made.append(engine)
        rng = random.Random(0)
        asked = [Problem(f"p{i}", "".join(rng.choices("abcdefghij ", k=60))) for i in range(problems)]
        runner = Runner(engine, {"v": verifier or Whim()}, answers=Letter(), sampling=Sampling(1.0, max_tokens=400))
        results = {result.problem.id: result for result in runner.run(asked, strategy, in_flight=problems)}
        assert not [r.error for r in results.values() if r.error]
        simulated = engine._context
        assert isinstance(simulated, Simulated)
        return engine, simulated, results

    yield go
    for engine in made:
        engine.close()


def search(name: str) -> Strategy:
    return strategies.bind(name, {"n": SLOTS, "width": 4, "temperature": 1.0})


@pytest.mark.parametrize("name", ["beam_search", "dvts"])
def test_searches_recompute_little_and_fill_the_batch(name: str, simulate: Simulation) -> None:
    engine, simulated, _ = simulate(search(name), problems=10)
    counters = engine.counters
    assert counters.generated_tokens > 10 * SLOTS * 60
    assert counters.recomputed_tokens <= 0.05 * counters.generated_tokens
    # Also counted by the KV itself: the last token of a resident path, computed again for its logits, included.
    assert counters.recomputed_tokens <= simulated.again <= 0.05 * counters.generated_tokens
    assert simulated.rows >= 0.85 * SLOTS * simulated.steps
    assert simulated.torn == 0
    assert counters.peak_kv_bytes <= SLOTS * 512 * TOKEN_BYTES + (PARKED_MB << 20)


def test_reading_the_paths_of_a_search_recomputes_little(simulate: Simulation) -> None:
    judge = verifiers.load("p_true", question="\n\nRight?", partial="\n\nSo far?")
    engine, simulated, _ = simulate(search("beam_search"), problems=8, verifier=judge)
    assert engine.counters.recomputed_tokens <= 0.05 * engine.counters.generated_tokens
    assert simulated.rows >= 0.85 * SLOTS * simulated.steps


def test_samples_fill_the_batch(simulate: Simulation) -> None:
    engine, simulated, _ = simulate(strategies.bind("best_of_n", {"n": 6, "temperature": 1.0}), problems=16)
    assert engine.counters.recomputed_tokens <= 0.001 * engine.counters.generated_tokens
    assert simulated.rows >= 0.85 * SLOTS * simulated.steps


def test_less_memory_costs_gradually_and_changes_no_text(simulate: Simulation) -> None:
    shares: list[float] = []
    texts: list[list[str]] = []
    for parked_mb in (0, 16, 32, 96):
        engine, _, results = simulate(search("beam_search"), problems=4, parked_mb=parked_mb)
        counters = engine.counters
        shares.append(counters.recomputed_tokens / counters.generated_tokens)
        texts.append([results[id].text for id in sorted(results)])
    assert all(text == texts[0] for text in texts)
    assert shares == sorted(shares, reverse=True)
    assert 1 > shares[0] > shares[1] > 0.0 == shares[-1]


def test_the_oldest_problem_goes_first() -> None:
    a, b = prompt("a"), prompt("b")
    queue = Queue()
    assert [queue.add(draw(i, node)) for i, node in ((1, a), (2, b), (3, a), (4, b))] == [True, True, False, False]
    assert [queue.pop().id, queue.pop().id] == [1, 3]
    late = Node(parent=a, text="more")
    assert not queue.add(draw(5, late))
    assert queue.remove(2) and not queue.remove(2) and not queue.remove(1)
    assert len(queue) == 2
    assert [queue.pop().id, queue.pop().id] == [5, 4]


def test_what_an_old_problem_asks_elsewhere_goes_with_it() -> None:
    old, young, judge = prompt("old"), prompt("young"), prompt("which is better?")
    queue = Queue()
    for request in (draw(1, old), draw(2, young), draw(3, judge, problem=old), draw(4, judge, problem=young)):
        queue.add(request)
    assert [queue.pop().id for _ in range(4)] == [1, 3, 2, 4]


def test_a_problem_keeps_its_place_between_rounds() -> None:
    a, b = prompt("a"), prompt("b")
    queue = Queue()
    queue.add(draw(1, a))
    queue.add(draw(2, b))
    first = queue.pop()
    queue.put(first)
    assert queue.pop() is first
    queue.answered(1)
    assert queue.add(draw(3, Node(parent=a, text="next")))
    assert queue.pop().id == 3


def test_an_old_problem_s_next_round_overtakes_what_waits(engines: Engines) -> None:
    engine = engines(slots=1)
    old, young = prompt("old"), prompt("young")
    (first,) = run(engine, [draw(0, old, max_tokens=4)])
    for i in (1, 2, 3):
        engine.add(draw(i, young, max_tokens=4))
    engine.add(draw(4, child(old, first, engine), max_tokens=4))
    order: list[int] = []
    while len(order) < 4:
        order += [response.id for response in engine.step()]
    assert order == [4, 1, 2, 3]


def test_the_profile_counts_what_was_decoded(engines: Engines) -> None:
    engine = engines(slots=2)
    assert engine.profile == Profile()
    responses = run(engine, [draw(i, prompt(f"number {i}"), max_tokens=5) for i in range(3)])
    profile = engine.profile
    # Each of these rows is decoded once for every token it draws.
    assert profile.row_steps == sum(response.generated_tokens for response in responses)
    assert profile.row_steps / 2 <= profile.steps <= profile.row_steps
    parts = (profile.prefill_seconds, profile.decode_seconds, profile.sampling_seconds)
    assert all(part > 0 for part in parts) and sum(parts) < profile.step_seconds
