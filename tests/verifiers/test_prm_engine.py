"""Causal reward models as GGUF files, against the same weights computed naively in numpy."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flyweight.errors import BackendError, ModelError
from flyweight.policies.llamacpp import LlamaCpp
from flyweight.protocols import Search
from flyweight.runner import Runner
from flyweight.store import Store
from flyweight.testing import BoxedAnswers, ToyPolicy, check_verifier
from flyweight.types import Node, Problem
from flyweight.verifiers.engine import share
from flyweight.verifiers.prm import Prm
from flyweight.verifiers.recipes import Recipe, shipped
from tests import tiny

QUESTION = "What is 3 + 4?"
STEPS = ("I add 3 and 4.", "3 + 4 = 7", "So it is 7.")


def recipe(name: str, **changes: object) -> dict[str, Any]:
    """The shipped recipe's table, with two tokens that the tiny model knows and does not always choose alike."""
    return {**shipped(Recipe)[name], "model": "", "good": "s", "bad": "r", **changes}


RECIPES = {name: recipe(name) for name, table in shipped(Recipe).items() if table["head"] == "causal"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model of seed 0."""
    return tiny.make(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def make(model: Path, tmp_path: Path) -> Iterator[Any]:
    """Makes verifiers on the tiny model that are closed after the test."""
    made: list[Prm] = []

    def one(name: str, **settings: int) -> Prm:
        file = written_down(tmp_path / f"{name}.toml", RECIPES[name])
        made.append(Prm(str(file), str(model), **{"batch": 4, "context": 512, **settings}))
        return made[-1]

    yield one
    for verifier in made:
        verifier.close()


def written_down(file: Path, table: dict[str, Any]) -> Path:
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()), "utf-8")
    return file


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """KV in 32 bits."""
    make = LlamaCpp.__init__

    def precise(self: LlamaCpp, *arguments: Any, **settings: Any) -> None:
        make(self, *arguments, **settings, kv_type="f32", flash_attention=False)

    monkeypatch.setattr(LlamaCpp, "__init__", precise)


def ids(text: str) -> list[int]:
    """One token per byte, the special strings and the merged pairs apart."""
    found: list[int] = []
    merged = {special: (special,) for special in (*tiny.SPECIALS, "th")}
    while text:
        for special, tokens in {**merged, "\n" * 5: ("ĊĊ", "ĊĊ", "Ċ")}.items():
            if text.startswith(special):
                found += map(tiny.VOCABULARY.index, tokens)
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
    if name == "math-shepherd":
        return f"{question} " + " ки\n".join(steps) + " ки"
    if name == "math-psa":
        return f"{question} " + "".join(f"{step} \n\n\n\n\n" for step in steps)
    if name == "token-yes-no":
        asked = f"Is step {len(steps)} correct? (yes/no)"
        turns = [("user", question), ("assistant", "\n\n".join(steps)), ("user", asked)]
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
def test_scores_are_those_of_the_naive_way(name: str, exact: None, make: Any) -> None:
    [rated] = make(name).rate(QUESTION, ["\n\n".join(STEPS) + "\n\n"])
    assert rated.steps == pytest.approx(naive(name, STEPS), abs=1e-5) and len(rated.steps) == 3
    assert max(rated.steps) - min(rated.steps) > 0.3, "scores that are all alike would show nothing"


@pytest.mark.parametrize("name", RECIPES)
def test_so_they_are_with_the_usual_kv(name: str, make: Any) -> None:
    [rated] = make(name).rate(QUESTION, ["\n\n".join(STEPS)])
    got, expected = (
        [math.log(score / (1 - score)) for score in scores] for scores in (rated.steps, naive(name, STEPS))
    )
    assert got == pytest.approx(expected, abs=0.05), "log-odds; it has 16 bits"


@pytest.mark.parametrize("name", RECIPES)
def test_grown_step_by_step_in_any_company_they_are_the_same(name: str, exact: None, make: Any) -> None:
    rng = random.Random(name)
    said = ["So 3 + 4 = 7.", "Then 7 - 2\n= 5.", "+", "x" * 40, "ки", "<|im_end|>"]
    grown = [[rng.choice(said) for _ in range(4)] for _ in range(6)]
    together, alone = make(name, batch=3), make(name, batch=1)
    for count in (1, 2, 4):
        rated = together.rate(QUESTION, ["\n\n".join(steps[:count]) for steps in grown])
    alone._loaded()
    for steps, each in zip(grown, rated, strict=True):
        alone._known.clear()
        [anew] = alone.rate(QUESTION, ["\n\n".join(steps)])
        assert each.steps == pytest.approx(anew.steps, abs=1e-5) and len(each.steps) == 4


@pytest.mark.parametrize("name", RECIPES)
def test_there_are_as_many_scores_as_steps(name: str, make: Any) -> None:
    """A thousand random texts over all recipes, made of what recipes are made of."""
    rng = random.Random(name)
    parts = ["ки", "+", "<|im_end|>", "\n", "\n\n", "\n\n\n\n\n", " ", "{step}", "2 = 2.", "\u200b", "{{ 7 }}", "中"]
    solutions = ["".join(rng.choice(parts) for _ in range(rng.randint(0, 9))) for _ in range(250)]
    for solution, rated in zip(solutions, make(name, batch=32).rate("Q", solutions), strict=True):
        assert len(rated.steps) == len([piece for piece in solution.split("\n\n") if piece.strip()])
        assert all(0 <= score <= 1 for score in rated.steps)


@pytest.mark.parametrize("name", RECIPES)
def test_a_new_step_costs_its_own_tokens(name: str, make: Any) -> None:
    prm = make(name)
    prm._loaded()
    lengths = [len(ids(written(name, "Q" + QUESTION, STEPS[:count]))) for count in (1, 2, 3)]
    spent = [prm.rate("Q" + QUESTION, ["\n\n".join(STEPS[:count])])[0].tokens for count in (1, 2, 3)]
    begun = lengths[0] - spent[0]  # what the recipe's example left: the template's first tokens
    assert 0 <= begun <= len(ids("<|im_start|>user\n"))
    if name == "token-yes-no":
        assert spent[2] < lengths[2] - len(ids(written(name, "Q" + QUESTION, STEPS[:1]))) + 55
    else:
        assert spent[1:] == [lengths[1] - lengths[0], lengths[2] - lengths[1]]
    assert prm.rate("Q" + QUESTION, ["\n\n".join(STEPS)])[0].tokens == 0
    backend = prm._backend
    assert backend.counters.generated_tokens == 0


def test_company_and_order_change_no_score(make: Any) -> None:
    solutions = ["\n\n".join(STEPS[:count]) for count in (3, 1, 2, 3)] + ["th\n\n" * 6, "", "x" * 90]
    together = make("rlhflow").rate(QUESTION, solutions)
    backward = make("rlhflow").rate(QUESTION, solutions[::-1])[::-1]
    for solution, one, other in zip(solutions, together, backward, strict=True):
        [alone] = make("rlhflow", batch=1).rate(QUESTION, [solution])
        assert one.steps == pytest.approx(alone.steps, abs=5e-3)
        assert other.steps == pytest.approx(alone.steps, abs=5e-3)


def test_no_text_becomes_a_special_token(make: Any) -> None:
    prm = make("rlhflow")
    vocabulary = prm._loaded().vocabulary
    for text in ("<|im_end|>", "a<|im_start|>assistant\n+", "<<|im_end|>|im_end|>"):
        found = prm.recipe.ids(vocabulary, text, [text])
        assert found.count(tiny.START) == 2 and found.count(tiny.END) == 1
        assert len(prm.rate(QUESTION, [text])[0].steps) == 1


def test_what_cannot_be_read_is_an_error(make: Any, model: Path, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="the context only 512"):
        make("math-shepherd").rate(QUESTION, ["x" * 600])
    for good, message in (("good", "'good' is 4 tokens to this model, not one"), ("+", "'\\+' and 12 are one token")):
        table = recipe("math-shepherd", good=good, bad=tiny.VOCABULARY.index("+"))
        message = message.replace("12", str(table["bad"]))
        file = written_down(tmp_path / "own.toml", table)
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
    check_verifier(make("rlhflow"), tolerance=5e-3)


PROBLEM = Problem("p", QUESTION, answer="7")


async def one_step(search: Search) -> Node | None:
    """Scores a path of two steps, then the same path with a third."""
    node = search.append(search.append(search.root, STEPS[0] + "\n\n"), STEPS[1] + "\n\n")
    [scored] = await search.score([node])
    assert scored.score is not None and len(scored.score.steps) == 2
    [longer] = await search.score([search.append(node, STEPS[2])])
    assert longer.score is not None and longer.score.steps[:2] == scored.score.steps
    assert longer.score.value == longer.score.steps[-1] and longer.score.kind == "prm:math-shepherd"
    return longer


def test_tokens_and_flops_are_booked_and_booked_again_on_replay(make: Any, tmp_path: Path) -> None:
    prm = make("math-shepherd")
    prm._loaded()
    before = prm._backend.counters.prompt_tokens
    result = Runner(ToyPolicy(), {prm.name: prm}, answers=BoxedAnswers()).solve(PROBLEM, one_step)
    assert result.error is None
    computed = prm._backend.counters.prompt_tokens - before
    assert result.usage.verifier_tokens == computed > 0
    assert result.usage.flops == 2 * prm.params * computed and result.usage.verifier_calls == 2
    assert prm.params == prm._backend.params

    prm = make("math-shepherd")
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
