"""What every registered verifier is held to: vacuous answers, injections, broken models, order and batches.

A new verifier is among them by its line in the registry; one that cannot do without settings gets them in `NEEDED`.
"""

from __future__ import annotations

import functools
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from flyweight import sandbox, select, strategies, verifiers
from flyweight.protocols import Hidden, Models, Verifier
from flyweight.runner import Runner
from flyweight.testing import BoxedAnswers, Draft, NoModels, RuleVerifier, ToyPolicy, drive
from flyweight.types import Finish, Message, Node, Problem, Score
from flyweight.verifiers.compose import All
from flyweight.verifiers.probe import SCALARS, Head
from tests import tiny
from tests.test_verifiers_judge import ATTACKS
from tests.test_verifiers_rules import ASKED, VACUOUS

NEEDED = {
    "regex": ":pattern=boxed",
    "length": ":least=3:most=60",
    "all": ":form:repetition",
    "weighted": ":form=1:repetition=2",
    "prm": ":{folder}/prm.toml@{folder}/tiny.gguf:context=512",
    "reward": ":chat@{folder}/reward",
    "probe": ":head={folder}/probe.npz",
    "lora": ":adapter={folder}/lora.gguf:model={folder}/tiny.gguf",
}
HERE = [name for name in verifiers.names() if name != "remote"]
"""All but the one whose model is elsewhere: tests/test_remote_verifiers.py has a server for it."""
ACCEPTS_EMPTY_WORDS = {
    *("confidence", "confidence-window", "self-certainty", "p_true"),  # how sure the model was, whatever it said
    *("regex", "length", "repetition", "instructions", "weighted"),  # the form they were told to look for
}
"""Those that may like an answer that says nothing, as reward models may: `all:form:` is for standing before them."""

META: dict[str, object] = {
    "entry": "double",
    "public": ("assert double(2) == 4", "assert double(0) == 0"),
    "schema": {"type": "object", "minProperties": 1},
    "instruction_id_list": ["punctuation:no_comma"],
    "kwargs": [{}],
}
PROBLEM = Problem("p", "Write double(x), which returns 2 x, and say what double(6) is.", answer="12", meta=META)
GOOD = "12, as 6 + 6 = 12, so \\boxed{12}.\n\n```python\ndef double(x):\n    return x + x\n```"
TEXTS = (
    GOOD,
    "It is 13, as 6 + 6 = 13, so \\boxed{13}.\n\n```python\ndef double(x):\n    return x * x\n```",
    "Nobody knows what double(6) is, and nobody will.",
    "",
    "```python\ndef double(x):\n    return 0\n```\n\nso double(6) is \\boxed{0}",
    "6 + 6 = 12\n\n6 + 6 = 12\n\n6 + 6 = 12\n\nwhich is \\boxed{12} dollars",
)
WIDTH = tiny.WIDTH
WEIGHTS = "of the tiny model"
SAID = "assert double(3) == 6\nassert double(1) == 1\nIt could be shorter."
"""What a model says when a verifier asks it for anything."""


TORCH = [
    pytest.mark.torch,
    *(pytest.mark.filterwarnings(f"ignore::{kind}Warning") for kind in ("Deprecation", "Future")),
]
each_verifier = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=TORCH if name == "reward" else []) for name in HERE]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where tiny models with random weights are."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def programs_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sandbox gives the same each time; here it is what is asked of it that counts."""
    known: dict[str, sandbox.Checked] = {}

    def check(program: str, tests: Sequence[sandbox.Test], **limits: float) -> sandbox.Checked:
        key = repr((program, tests, limits))
        known[key] = known.get(key) or real(program, tests, **limits)  # type: ignore[arg-type]
        return known[key]

    real = sandbox.check
    monkeypatch.setattr(sandbox, "check", check)


Make = Callable[[str], Verifier]


@pytest.fixture
def made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Makes the verifier of a name; it is closed after the test."""
    monkeypatch.setattr("flyweight.verifiers.lora.cache_folder", lambda: folder / "cache")
    open_ones: list[Any] = []

    def one(name: str) -> Verifier:
        if name in TINY:
            TINY[name](folder)
        open_ones.append(verifiers.load(name + NEEDED.get(name, "").format(folder=folder)))
        found: Verifier = open_ones[-1]
        return found

    yield one
    for verifier in open_ones:
        getattr(verifier, "close", lambda: None)()


def tiny_prm(folder: Path) -> None:
    """A recipe and a language model for it."""
    recipe = {"prompt": "{question} ", "step": "{step} #\\n", "tag": "#", "head": "causal", "good": "+", "bad": "-"}
    (folder / "prm.toml").write_text("".join(f'{key} = "{value}"\n' for key, value in recipe.items()), "utf-8")
    if not (folder / "tiny.gguf").exists():
        tiny.make(folder / "tiny.gguf")


def tiny_reward(folder: Path) -> None:
    """A sequence classifier."""
    if (folder / "reward").exists():
        return
    transformers = pytest.importorskip("transformers")
    from tests.verifiers import prm_kit as kit

    tokenizer = kit.bytes_tokenizer(kit.CHATML, "<|im_start|>", "<|im_end|>")
    model = transformers.Qwen2ForSequenceClassification(kit.config("qwen2", len(tokenizer), num_labels=1))
    kit.save(folder / "reward", tokenizer, model)


def tiny_probe(folder: Path) -> None:
    """A head for the states of the spy."""
    rng = np.random.default_rng(0)
    shapes = {"mean": [WIDTH], "scale": [WIDTH], "reward": [2, WIDTH], "gate": [2, WIDTH], "bias": [2, 2]}
    shapes |= {"average": [WIDTH], "last": [WIDTH], "scalar": [3, len(SCALARS)], "channel": [2]}
    arrays: dict[str, Any] = {name: rng.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}
    Head(**arrays, offset=0.0, sha256=WEIGHTS).save(folder / "probe.npz")


def tiny_lora(folder: Path) -> None:
    """An adapter for the upper one of two layers."""
    tiny_prm(folder)  # for the model
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(folder / "lora.gguf", "qwen2")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    writer.add_array("flyweight.heads", [float(x) for x in rng.standard_normal(2 * WIDTH) / 4])
    writer.add_float32("flyweight.offset", 0.0)
    writer.add_uint32("flyweight.layer", 1)
    writer.add_string("flyweight.sha256", WEIGHTS)
    writer.add_string("flyweight.facts", "{}")
    for side, shape in (("a", [4, WIDTH]), ("b", [WIDTH, 4])):
        writer.add_tensor(f"blk.0.attn_q.weight.lora_{side}", rng.standard_normal(shape).astype(np.float32) / 8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


TINY: dict[str, Callable[[Path], None]] = {
    "prm": tiny_prm,
    "reward": tiny_reward,
    "probe": tiny_probe,
    "lora": tiny_lora,
}
"""Those that were trained: what they read is made here, with random weights, so they have an opinion of every text."""


def asked_of(problem: Problem, verifier: Verifier) -> Problem:
    """The problem as a search shows it."""
    return problem if verifier.sees_answer else replace(problem, answer=None)


ROOT = Node(messages=PROBLEM.conversation, key="root")


@functools.cache
def node(text: str, draw: int = 0) -> Node:
    """A finished candidate, on record like one that a policy drew."""
    rng = random.Random(text)
    drawn = tuple(map(ord, text))
    logprobs, certainty = tuple(-rng.random() for _ in text), tuple(60 * rng.random() for _ in text)
    return Node(ROOT, text, drawn, logprobs, certainty, Finish.END, key=f"{draw} {text}", draw=draw)


def shown(node: Node) -> str:
    """All that a model sees of a path."""
    return "\n".join(f"{m.role}: {m.content}" for m in node.root.messages) + node.solution


@dataclass
class Spy(NoModels):
    """Models that answer the same to the same, and keep what they were shown beside the candidates themselves."""

    own: list[str] = field(default_factory=list)

    async def read(
        self, nodes: Sequence[Node], text: str, choices: Sequence[str], *, policy: str | None = None
    ) -> list[tuple[float, ...]]:
        self._look(nodes)
        return [tuple(-3 * random.Random(shown(node) + text + choice).random() for choice in choices) for node in nodes]

    async def complete(self, nodes: Sequence[Node], n: int = 1, **settings: Any) -> list[Node]:
        self._look(nodes)
        return [Node(node, SAID, finish=Finish.END) for node in nodes for _ in range(n)]

    async def ask(self, messages: Sequence[Message], n: int = 1, **settings: Any) -> list[Node]:
        return await self.complete([Node(messages=tuple(messages))], n)

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        found = []
        for node in nodes:
            rng = np.random.default_rng(len(shown(node)) + sum(map(ord, node.solution)))
            count = node.drawn if node.parent else 9
            found.append(Hidden(rng.standard_normal((count, 1, WIDTH)).astype(np.float16) if count else None))
        return found

    def weights(self, policy: str | None = None) -> str:
        return WEIGHTS

    def spent(self, tokens: int) -> None:
        pass

    def _look(self, nodes: Sequence[Node]) -> None:
        self.own += [shown(node) for node in nodes if node.root is not ROOT]


def scored(verifier: Verifier, problem: Problem, nodes: Sequence[Node], models: Models | None = None) -> list[Score]:
    """A proper score per node."""

    async def scores() -> Sequence[Score]:
        return await verifier.score(asked_of(problem, verifier), nodes, models or Spy())

    got = list(drive(scores()))
    assert len(got) == len(nodes)
    assert all(0 <= value <= 1 for score in got for value in (score.value, *score.steps))
    return got


# Answers that say nothing

NOTHING = [(question, [text.replace("QUESTION", question) for text in VACUOUS]) for question in ASKED]


def test_whatever_stands_behind_form_is_not_asked_about_answers_that_say_nothing() -> None:
    assert len(VACUOUS) >= 30 and len(ASKED) == 20
    judge = RuleVerifier(lambda question, solution: 1)
    for question, texts in NOTHING:
        scores = scored(All(parts=["form", judge]), Problem("p", question), [node(text) for text in texts])
        assert {score.value for score in scores} == {0}
    assert judge.scored == []


@pytest.mark.parametrize("name", [name for name in HERE if name not in TINY])
def test_answers_that_say_nothing_are_accepted_by_none_that_claims_to_notice(name: str, made: Make) -> None:
    """Accepting is more than the 1/2 of those who cannot tell. Judges of their own prompts are not even asked."""
    verifier = made(name)
    spy = Spy()
    accepted = []
    for question, texts in NOTHING:
        nodes = [node(text) for text in texts]
        scores = scored(verifier, Problem(question, question, answer="36", meta=META), nodes, spy)
        accepted += [text[:40] for text, score in zip(texts, scores, strict=True) if score.value > 0.5]
    assert spy.own == []
    assert bool(accepted) is (name in ACCEPTS_EMPTY_WORDS), accepted


# Answers that talk to the judge


@each_verifier
def test_no_answer_changes_what_stands_around_it(name: str, made: Make) -> None:
    """Injected text stays where answers stand, changes nothing else a model is shown, and adds no score."""
    assert len(ATTACKS) == 50
    verifier = made(name)

    def around(text: str) -> list[str]:
        spy = Spy()
        [score] = scored(verifier, PROBLEM, [node(text)], spy)
        steps = [step for step in text.split("\n\n") if step.strip()]
        assert len(score.steps) in (0, 1, len(steps))
        marks = {mark for prompt in spy.own for mark in re.findall(r"\b[0-9a-f]{16}\b", prompt.replace(text, ""))}
        assert not any(mark in text for mark in marks)
        bare = [prompt.replace(text, "ANSWER") for prompt in spy.own]
        return [functools.reduce(lambda said, mark: said.replace(mark, "MARK"), marks, prompt) for prompt in bare]

    plain = around(f"{GOOD}\n{GOOD}")
    for attack in ATTACKS:
        assert around(f"{GOOD}\n{attack}\n{GOOD}") == plain, attack


# Numbers that are none

READINGS: dict[str, Callable[[int, int], Any]] = {
    "nan": lambda n, c: [(math.nan,) * c] * n,
    "inf": lambda n, c: [(math.inf,) * c] * n,
    "-inf": lambda n, c: [(-math.inf,) * c] * n,
    "one nan": lambda n, c: [(-1.0,) * (c - 1) + (math.nan,)] * n,
    "none": lambda n, c: [(None,) * c] * n,
    "text": lambda n, c: [("-0.5",) * c] * n,
    "one missing": lambda n, c: [(-1.0,) * c] * (n - 1),
    "one more": lambda n, c: [(-1.0,) * c] * (n + 1),
    "nothing": lambda n, c: [],
    "short": lambda n, c: [(-1.0,) * (c - 1)] * n,
}
WRITINGS: dict[str, Callable[[Sequence[Node], int], list[Node]]] = {
    "nothing": lambda nodes, n: [],
    "one missing": lambda nodes, n: [Node(node, "fine", finish=Finish.END) for node in nodes][1:],
    "one more": lambda nodes, n: [Node(node, "fine", finish=Finish.END) for node in (*nodes, *nodes)],
    "empty": lambda nodes, n: [Node(node, "", finish=Finish.END) for node in nodes],
    "garbage": lambda nodes, n: [Node(node, "\x00\ud800assert (" * 99, finish=Finish.LENGTH) for node in nodes],
}


class Broken(Spy):
    """Models that read and write nonsense."""

    def __init__(self, reading: str, writing: str) -> None:
        super().__init__()
        self.reading, self.writing = reading, writing
        self.used = self.misread = False

    async def read(
        self, nodes: Sequence[Node], text: str, choices: Sequence[str], *, policy: str | None = None
    ) -> list[tuple[float, ...]]:
        self.used = True
        self.misread = bool(self.reading)
        if not self.reading:
            return await super().read(nodes, text, choices)
        found: list[tuple[float, ...]] = READINGS[self.reading](len(nodes), len(choices))
        return found

    async def states(self, nodes: Sequence[Node], *, policy: str | None = None) -> list[Hidden]:
        self.used = True
        found = await super().states(nodes)
        if self.reading in ("nan", "inf"):
            self.misread = True
            return [Hidden(np.full((9, 1, WIDTH), float(self.reading), np.float16)) for _ in nodes]
        if self.reading in ("one missing", "nothing"):
            self.misread = True
            return found[1:]
        return found

    async def complete(self, nodes: Sequence[Node], n: int = 1, **settings: Any) -> list[Node]:
        self.used = True
        return WRITINGS[self.writing](nodes, n) if self.writing else await super().complete(nodes, n)


@each_verifier
def test_broken_models_end_in_an_error_or_in_proper_scores(name: str, made: Make) -> None:
    verifier: Verifier
    told: Broken

    class Through(RuleVerifier):
        async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> Sequence[Score]:
            return await verifier.score(asked_of(problem, verifier), nodes, told)

    for reading, writing in [*((reading, "") for reading in READINGS), *(("", writing) for writing in WRITINGS)]:
        drafts = [text for text in TEXTS if text][:3]
        policy = ToyPolicy(lambda *given, drafts=drafts: Draft(drafts.pop()), slots=1)
        verifier, told = made(name), Broken(reading, writing)  # one that remembers nothing broken
        judge = Through(lambda question, solution: 1, verifier.name, sees_answer=verifier.sees_answer)
        runner = Runner(policy, {judge.name: judge}, answers=BoxedAnswers())
        result = runner.solve(PROBLEM, strategies.bind("best_of_n", {"n": 3}))
        if result.error is None:
            assert not told.misread or reading == "-inf", f"{reading} passed for probabilities"
            assert result.best is not None and result.best.score is not None
            assert all(c.node.score and 0 <= c.node.score.value <= 1 for c in result.candidates), (reading, writing)
        else:
            assert result.best is None and result.answer is None
            assert reading not in ("", "-inf") or writing, "impossible choices are no error"
        if not told.used:
            break  # models are nothing to it


SCORES: dict[str, Callable[[list[Score]], Any]] = {
    "nan": lambda scores: [*scores[1:], Score(math.nan)],
    "inf": lambda scores: [Score(math.inf), *scores[1:]],
    "-inf": lambda scores: [*scores[1:], Score(-math.inf)],
    "none": lambda scores: [Score(None), *scores[1:]],  # type: ignore[arg-type]
    "text": lambda scores: [Score("0.9"), *scores[1:]],  # type: ignore[arg-type]
    "too high": lambda scores: [*scores[1:], Score(1.001)],
    "too low": lambda scores: [*scores[1:], Score(-0.001)],
    "a step": lambda scores: [*scores[1:], Score(0.5, (0.5, math.nan))],
    "no score": lambda scores: [*scores[1:], None],
    "numbers": lambda scores: [0.5 for _ in scores],
    "one missing": lambda scores: scores[1:],
    "one more": lambda scores: [*scores, Score(1.0)],
    "nothing": lambda scores: None,
}


@pytest.mark.parametrize("name", strategies.names())
def test_bad_scores_are_errors_to_every_strategy(name: str) -> None:
    small = {"n": 4, "width": 2, "max_steps": 3, "iterations": 2, "branch": 2}
    wanted = {p.name: small[p.name] for p in strategies.describe(name).parameters if p.name in small}
    for bad, change in SCORES.items():

        class Bad(RuleVerifier):
            async def score(
                self,
                problem: Problem,
                nodes: Sequence[Node],
                models: Models,
                change: Callable[[list[Score]], Any] = change,
            ) -> Sequence[Score]:
                said: Sequence[Score] = change(list(await super().score(problem, nodes, models)))
                return said

        judge = Bad(lambda question, solution: 0.5)
        runner = Runner(ToyPolicy(), {"bad": judge}, answers=BoxedAnswers())
        result = runner.solve(Problem("p", "Add 3 and 4 and 5."), strategies.bind(name, wanted))
        if judge.scored:
            assert result.error is not None and result.best is None and result.answer is None, bad
            assert not any(candidate.node.score for candidate in result.candidates)
        else:
            assert result.error is None, result.error


# Order and company


@each_verifier
def test_neither_order_nor_batches_change_scores_or_choice(name: str, made: Make) -> None:
    nodes = [node(text, draw) for draw, text in enumerate(TEXTS)]
    verifier = made(name)
    tolerance = 5e-3 if name in TINY else 0  # their arithmetic depends on the shape of a batch
    expected = {each.key: score for each, score in zip(nodes, scored(verifier, PROBLEM, nodes), strict=True)}
    chosen = {choice(nodes, expected)}
    rng = random.Random(name)
    for turn in range(100):
        if turn % 10 == 0 and not tolerance:
            verifier = made(name)  # nothing that it remembers may matter either
        shuffled = rng.sample(nodes, len(nodes))
        found: dict[str, Score] = {}
        while shuffled:
            batch = [shuffled.pop() for _ in range(rng.randint(1, len(shuffled)))]
            found |= {each.key: score for each, score in zip(batch, scored(verifier, PROBLEM, batch), strict=True)}
        for key, score in found.items():
            assert score.value == pytest.approx(expected[key].value, abs=tolerance)
            assert score.steps == pytest.approx(expected[key].steps, abs=tolerance)
        chosen.add(choice(rng.sample(nodes, len(nodes)), found))
    assert len(chosen) == 1


def choice(nodes: Sequence[Node], scores: dict[str, Score]) -> tuple[str, str]:
    """What best_of_n and weighted_best_of_n would take."""
    rated = sorted((replace(node, score=scores[node.key]) for node in nodes), key=lambda node: node.order)
    answers = BoxedAnswers()
    groups = [[rated[i] for i in group] for group in answers.classes([answers.extract(n.text) for n in rated], PROBLEM)]
    best, voted = select.top([replace(n, score=scores[n.key]) for n in nodes], 1)[0], select.weighted_vote(groups)
    assert voted is not None
    return best.text, voted.text


def test_two_answers_compare_the_same_whichever_comes_first(made: Make) -> None:
    a, b = node(TEXTS[0]), node(TEXTS[1], 1)
    comparing = [v for name in HERE if name not in TINY and hasattr(v := made(name), "compare")]
    assert comparing
    for verifier in comparing:
        compare: Any = verifier.compare
        assert drive(compare(PROBLEM, a, b, Spy())) == pytest.approx(1 - drive(compare(PROBLEM, b, a, Spy())))
