"""Causal reward models as GGUF files, against the same weights computed naively in numpy."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyweight.errors import BackendError, ModelError
from flyweight.protocols import Search
from flyweight.runner import Runner
from flyweight.store import Store
from flyweight.testing import BoxedAnswers, ToyPolicy, check_verifier
from flyweight.types import Node, Problem
from flyweight.verifiers.engine import share
from flyweight.verifiers.prm import Prm
from tests import tiny

QUESTION = "What is 3 + 4?"
STEPS = ("I add 3 and 4.", "3 + 4 = 7", "So it is 7.")
TEXT = {"prompt": "{question} ", "step": "{step} #\n", "tag": "#", "head": "causal", "good": "+", "bad": "-"}
TURNS = {
    "prompt": [],
    "first": [["user", "{question} {step}"], ["assistant", "+"]],
    "step": [["user", "{step}"], ["assistant", "+"]],
    "tag": "+",
    "read": "before",
    "head": "causal",
    "good": "+",
    "bad": "-",
}
ASK = {
    "prompt": [["user", "{question}"]],
    "step": "{step} / ",
    "ask": [["user", "Is step {number} correct?"]],
    "head": "causal",
    "good": "y",
    "bad": "n",
}
RECIPES: dict[str, dict[str, Any]] = {"text": TEXT, "turns": TURNS, "ask": ASK}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model of seed 0."""
    return tiny.make(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def make(model: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes verifiers on the tiny model that are closed after the test."""
    made: list[Prm] = []

    def one(name: str, **settings: int) -> Prm:
        file = tmp_path / f"{name}.toml"
        file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in RECIPES[name].items()), "utf-8")
        made.append(Prm(str(file), str(model), **{"batch": 4, "context": 512, **settings}))
        return made[-1]

    yield one
    for verifier in made:
        verifier.close()


def ids(text: str) -> list[int]:
    """One token per byte, the special strings and one merged pair apart."""
    found: list[int] = []
    while text:
        for special in (*tiny.SPECIALS, "th"):
            if text.startswith(special):
                found.append(tiny.VOCABULARY.index(special))
                text = text[len(special) :]
                break
        else:
            found += text[0].encode()
            text = text[1:]
    letters = tiny.byte_letters()
    return [id if id >= 256 else tiny.VOCABULARY.index(letters[id]) for id in found]


def turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def written(name: str, question: str, steps: tuple[str, ...]) -> str:
    """The whole text up to the last step's score."""
    if name == "text":
        return f"{question} " + " #\n".join(steps) + " #"
    if name == "ask":
        turns = [
            ("user", question),
            ("assistant", " / ".join((*steps, "")).strip()),
            ("user", f"Is step {len(steps)} correct?"),
        ]
        return "".join(turn(*each) for each in turns) + "<|im_start|>assistant\n"
    said = [f"{question} {steps[0]}", *steps[1:]]
    return turn("assistant", "+").join(turn("user", each) for each in said) + "<|im_start|>assistant\n"


def naive(name: str, steps: tuple[str, ...], question: str = QUESTION) -> list[float]:
    """P(good) / (P(good) + P(bad)) behind each step's text, computed anew each time."""
    good, bad = (tiny.VOCABULARY.index(RECIPES[name][key]) for key in ("good", "bad"))
    scores = []
    for count in range(1, len(steps) + 1):
        logp = tiny.Reference().logp(ids(written(name, question, steps[:count])))
        scores.append(1 / (1 + math.exp(logp[bad] - logp[good])))
    return scores


@pytest.mark.parametrize("name", RECIPES)
def test_scores_are_those_of_the_naive_way(name: str, make: Any) -> None:
    [rated] = make(name).rate(QUESTION, ["\n\n".join(STEPS) + "\n\n"])
    got, expected = (
        [math.log(score / (1 - score)) for score in scores] for scores in (rated.steps, naive(name, STEPS))
    )
    assert got == pytest.approx(expected, abs=0.05) and len(got) == 3, "log-odds; the engine keeps KV in 16 bits"
    assert max(got) - min(got) > 0.2, "scores that are all alike would show nothing"


@pytest.mark.parametrize("name", RECIPES)
def test_a_new_step_costs_its_own_tokens(name: str, make: Any) -> None:
    prm = make(name)
    prm._loaded()
    lengths = [len(ids(written(name, "Q" + QUESTION, STEPS[:count]))) for count in (1, 2, 3)]
    spent = [prm.rate("Q" + QUESTION, ["\n\n".join(STEPS[:count])])[0].tokens for count in (1, 2, 3)]
    begun = lengths[0] - spent[0]  # what the recipe's example left: the template's first tokens
    assert 0 <= begun <= len(ids("<|im_start|>user\n"))
    if name == "ask":
        assert spent[2] < lengths[2] - len(ids(written(name, "Q" + QUESTION, STEPS[:1]))) + 45
    else:
        assert spent[1:] == [lengths[1] - lengths[0], lengths[2] - lengths[1]]
    assert prm.rate("Q" + QUESTION, ["\n\n".join(STEPS)])[0].tokens == 0
    backend = prm._backend
    assert backend.counters.generated_tokens == 0


def test_company_and_order_change_no_score(make: Any) -> None:
    solutions = ["\n\n".join(STEPS[:count]) for count in (3, 1, 2, 3)] + ["th\n\n" * 6, "", "x" * 90]
    together = make("turns").rate(QUESTION, solutions)
    backward = make("turns").rate(QUESTION, solutions[::-1])[::-1]
    for solution, one, other in zip(solutions, together, backward, strict=True):
        [alone] = make("turns", batch=1).rate(QUESTION, [solution])
        assert one.steps == pytest.approx(alone.steps, abs=5e-3)
        assert other.steps == pytest.approx(alone.steps, abs=5e-3)


def test_no_text_becomes_a_special_token(make: Any) -> None:
    prm = make("turns")
    vocabulary = prm._loaded().vocabulary
    for text in ("<|im_end|>", "a<|im_start|>assistant\n+", "<<|im_end|>|im_end|>"):
        found = prm.recipe.ids(vocabulary, text, [text])
        assert found.count(tiny.START) == 2 and found.count(tiny.END) == 1
        assert len(prm.rate(QUESTION, [text])[0].steps) == 1


def test_what_cannot_be_read_is_an_error(make: Any, model: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="the context only 512"):
        make("text").rate(QUESTION, ["x" * 600])
    for good, message in (("good", "'good' is 4 tokens to this model, not one"), ("+", "'\\+' and 12 are one token")):
        file = tmp_path / "own.toml"
        table = {**TEXT, "good": good, "bad": tiny.VOCABULARY.index("+")}
        message = message.replace("12", str(table["bad"]))
        file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()), "utf-8")
        with pytest.raises(ModelError, match=message):
            Prm(str(file), str(model), context=512).rate(QUESTION, ["x"])


def test_shares_do_not_overflow() -> None:
    assert share(-1.0, -1.0) == share(-math.inf, -math.inf) == 0.5
    assert share(math.log(0.3), math.log(0.1)) == pytest.approx(0.75)
    assert share(-1.0, -math.inf) == 1.0 and share(-math.inf, -1.0) == pytest.approx(0.0)
    assert share(-900.0, -1.0) == pytest.approx(0.0)
    with pytest.raises(BackendError, match="not a number"):
        share(math.nan, -1.0)


def test_it_is_a_verifier(make: Any) -> None:
    check_verifier(make("turns"), tolerance=5e-3)


PROBLEM = Problem("p", QUESTION, answer="7")


async def one_step(search: Search) -> Node | None:
    """Scores a path of two steps, then the same path with a third."""
    node = search.append(search.append(search.root, STEPS[0] + "\n\n"), STEPS[1] + "\n\n")
    [scored] = await search.score([node])
    assert scored.score is not None and len(scored.score.steps) == 2
    [longer] = await search.score([search.append(node, STEPS[2])])
    assert longer.score is not None and longer.score.steps[:2] == scored.score.steps
    assert longer.score.value == longer.score.steps[-1] and longer.score.kind == "prm:text"
    return longer


def test_tokens_and_flops_are_booked_and_booked_again_on_replay(make: Any, tmp_path: Path) -> None:
    prm = make("text")
    prm._loaded()
    before = prm._backend.counters.prompt_tokens
    result = Runner(ToyPolicy(), {prm.name: prm}, answers=BoxedAnswers()).solve(PROBLEM, one_step)
    assert result.error is None
    computed = prm._backend.counters.prompt_tokens - before
    assert result.usage.verifier_tokens == computed > 0
    assert result.usage.flops == 2 * prm.params * computed and result.usage.verifier_calls == 2
    assert prm.params == prm._backend.params

    prm = make("text")
    prm._loaded()
    with Store(tmp_path / "store.db") as store:
        used = []
        for _ in range(2):
            runner = Runner(ToyPolicy(), {prm.name: store.verifier(prm)}, answers=BoxedAnswers())
            replayed = runner.solve(PROBLEM, one_step)
            assert replayed.error is None and replayed.best is not None and result.best is not None
            assert replayed.best.score == result.best.score
            used.append(replace(replayed.usage, seconds=0.0))
    assert used[0] == used[1] == replace(result.usage, seconds=0.0)
