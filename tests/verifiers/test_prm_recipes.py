"""Recipes: what they may say, how they cut a solution into steps, which text they make. No weights, no torch."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from flyweight import verifiers
from flyweight.errors import ConfigError, ModelError
from flyweight.verifiers.prm import Prm
from flyweight.verifiers.recipes import Recipe, RewardRecipe, Vocabulary, find, shipped
from flyweight.verifiers.reward import Reward
from tests import tiny

PAGE = Path(__file__).parents[2] / "docs" / "prm.md"
CHATML = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
OWN: dict[str, object] = {
    "prompt": "{question}\n",
    "step": "{step} #\n",
    "tag": "#",
    "head": "causal",
    "good": "+",
    "bad": "-",
}


def letters(template: str = CHATML, *, begins: bool = False) -> Vocabulary:
    """One token per character; `</>` is special."""
    return Vocabulary(
        lambda text: [ord(c) for c in text],
        size=0x110000,
        specials={"</>", "", "<assistant>"},
        template=template,
        bos=(1, "\x01"),
        eos="",
        begins=begins,
    )


def text(name: str, *steps: str, question: str = "Q?", begins: bool = False) -> str:
    """What a shipped recipe reads up to the last step's score."""
    recipe = find(Recipe, name)
    ids = recipe.ids(letters(begins=begins), question, recipe.steps("\n\n".join(steps)))
    return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("name", "one", "two"),
    [
        ("math-shepherd", "Q? a ки", "Q? a ки\nb\nc ки"),
        ("rlhflow", "<user>Q? a</><assistant>", "<user>Q? a</><assistant>+</><user>b\nc</><assistant>"),
        ("skywork-o1", "\x01Q?\na\n", "\x01Q?\na\nb c\n"),
        ("qwen2.5-math-prm", "SYSTEMQ?</><assistant>a<extra_0>", "SYSTEMQ?</><assistant>a<extra_0>b\nc<extra_0>"),
        ("math-psa", "Q? a \n\n\n\n\n", "Q? a \n\n\n\n\nb\nc \n\n\n\n\n"),
        (
            "token-yes-no",
            "<user>Q?</><assistant>a</><user>Is step 1 correct? (yes/no)</><assistant>",
            "<user>Q?</><assistant>a\n\nb\nc</><user>Is step 2 correct? (yes/no)</><assistant>",
        ),
        ("trl", "\x01Q?a\n", "\x01Q?a\nb\nc\n"),
    ],
)
def test_what_each_shipped_recipe_reads(name: str, one: str, two: str) -> None:
    system = "<system>Please reason step by step, and put your final answer within \\boxed{}.</><user>"
    assert text(name, "a") == one.replace("SYSTEM", system)
    assert text(name, "a", " b\nc\n", "\n") == two.replace("SYSTEM", system)


def test_a_text_begins_with_bos_where_the_tokenizer_puts_it() -> None:
    assert text("math-shepherd", "a", begins=True) == "\x01Q? a ки"
    assert text("qwen2.5-math-prm", "a", begins=True).startswith("<system>"), "a template writes its own"


@pytest.mark.parametrize(
    ("solution", "steps"),
    [
        ("", ()),
        (" \n\n \n\n", ()),
        ("a", ("a",)),
        ("a\n\nb\n\n", ("a", "b")),
        ("\n\na\n\n\n\n\nb \n\n  \n\n", ("a", "b")),
        ("a\nb\n\nc", ("a\nb", "c")),
    ],
)
def test_blank_steps_are_none(solution: str, steps: tuple[str, ...]) -> None:
    assert find(Recipe, "math-shepherd").steps(solution) == steps
    assert find(Recipe, "skywork-o1").steps(solution) == tuple(step.replace("\n", " ") for step in steps)


def test_what_looks_like_a_place_or_a_token_in_a_step_is_text() -> None:
    assert text("math-shepherd", "{question}{step}{number} ки", "b") == "Q? {question}{step}{number} ки ки\nb ки"
    assert text("rlhflow", "</> <assistant></>") == "<user>Q? < /> < assistant>< /></><assistant>"
    assert text("rlhflow", "a", question="</>{step}") == "<user>< />{step} a</><assistant>"
    assert text("token-yes-no", "{{ 7 * 7 }}").startswith("<user>Q?</><assistant>{{ 7 * 7 }}</>")


def test_a_finished_conversation_has_no_turn_to_come() -> None:
    from flyweight.types import Message

    turns = [Message("user", "q"), Message("assistant", "a")]
    assert letters().chat(turns) == "<user>q</><assistant>a</><assistant>"
    assert letters().chat(turns, finished=True) == "<user>q</><assistant>a</>"
    with pytest.raises(ModelError, match="no chat template"):
        letters("").chat(turns)


def own(folder: Path, table: dict[str, object]) -> str:
    file = folder / "own.toml"
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in table.items() if not isinstance(value, dict)]
    for key, inner in table.items():
        if isinstance(inner, dict):
            lines += [f"[{key}]\n", *(f"{name} = {json.dumps(value)}\n" for name, value in inner.items())]
    file.write_text("".join(lines), "utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stepp": "x"}, "unknown key 'stepp'; did you mean 'step'?"),
        ({"head": "casual"}, "head: Input should be 'causal', 'token-classification' or 'value'"),
        ({"step": 3}, "step: Input should be"),
        ({"bad": "+"}, "needs the tokens good and bad, and they must differ"),
        ({"layers": ["score"]}, "a causal head has no layers"),
        ({"head": "value"}, "good and bad are for a causal head, and this one is value"),
        ({"prompt": "Q"}, "{question} must stand in prompt or first"),
        ({"step": "# "}, "{step} must stand in step"),
        ({"tag": "@"}, "the tag '@' must stand behind {step}"),
        ({"step": "# {step}"}, "the tag '#' must stand behind {step}"),
        ({"ask": [["user", "?"]], "tag": ""}, "a prompt of plain text goes with steps of plain text and no ask"),
        ({"prompt": [["user", "{question}"]], "ask": [["user", "?"]]}, "leave tag out"),
        ({"prompt": [["user", "{question}"]], "step": [["user", "{step}"]]}, "the tag is the assistant's last one"),
        ({"prompt": [["assistant", "{question}"]]}, "must be the user's"),
        ({"prompt": [["teacher", "{question}"]]}, "prompt: Input should be"),
        ({"first": [["user", "{step}"]]}, "first and step must both be text or both be turns"),
        ({"split": ""}, "split: String should have at least 1 character"),
        ({"label": -1}, "label: Input should be greater than or equal to 0"),
        ({"example": {"god": "x"}}, "unknown key 'god'"),
    ],
)
def test_mistakes_in_a_recipe_give_one_line(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    assert find(Recipe, own(tmp_path, OWN)).name == "own"
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        find(Recipe, own(tmp_path, {**OWN, **changes}))
    assert "\n" not in str(caught.value)


def test_a_score_can_be_read_before_its_tag(tmp_path: Path) -> None:
    for read, end in (("at", "b #"), ("before", "b ")):
        recipe = find(Recipe, own(tmp_path, {**OWN, "read": read}))
        assert "".join(map(chr, recipe.ids(letters(), "Q", ("a", "b")))) == f"Q\na #\n{end}"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"squash": "sigmoid"}, "give either turns or a pair"),
        ({"squash": "sigmoid", "pair": ["{question}", "a"]}, "{solution} must stand somewhere in it"),
        ({"squash": "tanh", "pair": ["{question}", "{solution}"]}, "squash: Input should be 'softmax' or 'sigmoid'"),
    ],
)
def test_mistakes_in_a_recipe_of_a_reward_model(table: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        find(RewardRecipe, own(tmp_path, table))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("prm", "prm needs a recipe and a model: prm:RECIPE@MODEL (recipes: math-shepherd, rlhflow"),
        ("prm:", "prm needs a recipe and a model"),
        ("prm:mathshepherd@x.gguf", "unknown recipe 'mathshepherd'; did you mean 'math-shepherd'?"),
        ("prm:token-yes-no", "prm:token-yes-no needs a model: prm:token-yes-no@FOLDER"),
        ("prm:nosuch.toml@x.gguf", "cannot read nosuch.toml"),
        ("prm:token-yes-no@nosuch", "unknown model 'nosuch'"),
        ("prm:math-shepherd:batch=0", "batch=0 is not allowed: a whole number from 1"),
        ("prm:math-shepherd:bath=2", "did you mean 'batch'?"),
        ("reward", "reward needs a recipe and a model: reward:RECIPE@MODEL"),
        ("reward:chat@x.gguf", "'x.gguf' is neither a folder nor hf:org/repo"),
        ("reward:chat-classes", "reward:chat-classes needs a model"),
    ],
)
def test_mistakes_on_the_command_line(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        verifiers.load(name)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("prompt = ", "utf-8")
    with pytest.raises(ConfigError, match=r"broken.toml is not TOML"):
        find(Recipe, str(broken))
    with pytest.raises(ModelError, match="No such file"):
        Prm("math-shepherd", str(tmp_path / "none.gguf"))
    with pytest.raises(ConfigError, match="reads a value head, which a GGUF file cannot hold"):
        Prm("skywork-o1", str(tiny.make(tmp_path / "tiny.gguf")))


def test_names_on_the_command_line_and_in_python_mean_the_same() -> None:
    named = verifiers.load("prm:rlhflow@hf:some/model@v2:batch=3:cache_mb=9")
    made = Prm("rlhflow", "hf:some/model@v2", batch=3, cache_mb=9)
    assert vars(named) == vars(made) and made.model == "hf:some/model@v2"
    assert verifiers.load("prm:rlhflow").name == "prm:rlhflow"
    assert vars(verifiers.load("reward:chat@hf:a/b")) == vars(Reward("chat", "hf:a/b"))


def test_settings_and_recipe_say_what_scores_depend_on() -> None:
    from flyweight.store.judgements import identify

    one, other = Prm("rlhflow", "hf:a/b"), Prm("rlhflow", "hf:a/c")
    assert identify(one) != identify(other) and identify(one) == identify(Prm("rlhflow", "hf:a/b"))
    assert "good='+'" in identify(one)


def test_the_page_lists_every_recipe_and_every_key() -> None:
    page = PAGE.read_text("utf-8")
    for kind in (Recipe, RewardRecipe):
        for name in shipped(kind):
            assert f"| `{name}` |" in page, name
        for key in kind.model_fields:
            assert f"| `{key}`" in page or f", `{key}`" in page, key


def test_the_example_of_the_page_is_a_recipe(tmp_path: Path) -> None:
    [block] = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(block.splitlines()) <= 10
    file = tmp_path / "mine.toml"
    file.write_text(block, "utf-8")
    recipe = find(Recipe, str(file))
    assert recipe.name == "mine" and recipe.steps("a\n\nb") == ("a", "b")
