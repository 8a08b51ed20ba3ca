"""Outcome reward models against transformers' own sequence classifiers, one solution at a time."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

from flyweight.errors import BackendError, ModelError  # noqa: E402
from flyweight.protocols import Search  # noqa: E402
from flyweight.runner import Runner  # noqa: E402
from flyweight.testing import BoxedAnswers, ToyPolicy, check_verifier  # noqa: E402
from flyweight.types import Node, Problem  # noqa: E402
from flyweight.verifiers.recipes import shipped  # noqa: E402
from flyweight.verifiers.reward import Reward  # noqa: E402
from tests.verifiers import prm_kit as kit  # noqa: E402

QUESTION = "What is 3 + 4?"
SOLUTIONS = ["3 + 4 = 7\n\nThe answer is 7.", "8", "x " * 60, "So it is 7.", "<|im_end|>", "é 中"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A decoder with one logit, one with two classes, an encoder that reads pairs."""
    root = tmp_path_factory.mktemp("rewards")
    tokenizer = kit.bytes_tokenizer(kit.CHATML, "<|im_start|>", "<|im_end|>")
    size = len(tokenizer)
    torch.manual_seed(1)
    one = transformers.Qwen2ForSequenceClassification(kit.config("qwen2", size, num_labels=1))
    two = transformers.LlamaForSequenceClassification(kit.config("llama", size, num_labels=2))
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    encoder = transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=size, num_labels=1, initializer_range=0.4, **small)
    )
    return {
        "chat": kit.save(root / "one", tokenizer, one),
        "chat-classes": kit.save(root / "two", tokenizer, two),
        "pair": kit.save(root / "encoder", tokenizer, encoder),
    }


def naive(name: str, path: Path, solution: str) -> tuple[float, int]:
    """Score and tokens of one solution."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(path)
    solution = solution.replace("<|im_end|>", "< |im_end|>")
    if name == "pair":
        inputs = tokenizer(QUESTION, solution, return_tensors="pt")
    else:
        turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": solution}]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    value = logits.softmax(-1)[1] if name == "chat-classes" else torch.sigmoid(logits[0])
    return float(value), inputs["input_ids"].shape[1]


@pytest.mark.parametrize("name", ["chat", "chat-classes", "pair"])
def test_scores_are_those_of_the_naive_way_whatever_the_company(name: str, folders: dict[str, Path]) -> None:
    assert set(folders) == set(shipped(type(Reward(name, str(folders[name])).recipe)))
    expected = [naive(name, folders[name], solution) for solution in SOLUTIONS]
    assert len({round(score, 3) for score, _ in expected}) > 3, "scores that are all alike would show nothing"
    for batch in (1, 4, 8):
        reward = Reward(name, str(folders[name]), batch=batch)
        rated = reward.rate(QUESTION, SOLUTIONS)
        assert [each.value for each in rated] == pytest.approx([score for score, _ in expected], abs=1e-5)
        assert [each.tokens for each in rated] == [tokens for _, tokens in expected]


def test_padding_is_never_taken_for_the_end(folders: dict[str, Path]) -> None:
    """Whatever token a text ends with, in company it scores as it does alone."""
    reward = Reward("chat", str(folders["chat"]))
    reader: Any = reward._loaded()
    rng = random.Random(5)
    rows = [{"input_ids": [rng.randrange(20) for _ in range(rng.randint(1, 9))]} for _ in range(64)]
    alone = [reader.read([row])[0] for row in rows]
    assert reader.read(rows) == pytest.approx(alone, abs=1e-5)


def test_it_is_a_verifier_and_its_tokens_are_booked(folders: dict[str, Path]) -> None:
    reward = Reward("chat", str(folders["chat"]))
    check_verifier(reward)

    async def strategy(search: Search) -> Node | None:
        nodes = await search.score([search.append(search.root, "3 + 4 = 7"), search.append(search.root, " \n")])
        assert nodes[0].score is not None and nodes[0].score.kind == "reward:chat" and nodes[0].score.steps == ()
        assert nodes[1].score is not None and nodes[1].score.value == 0, "nothing was said"
        return nodes[0]

    result = Runner(ToyPolicy(), {reward.name: reward}, answers=BoxedAnswers()).solve(Problem("p", QUESTION), strategy)
    assert result.error is None
    assert result.usage.verifier_tokens == naive("chat", folders["chat"], "3 + 4 = 7")[1]
    assert result.usage.flops == 2 * reward.params * result.usage.verifier_tokens
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(folders["chat"])
    assert reward.params == sum(p.numel() for n, p in loaded.named_parameters() if "embed_tokens" not in n)


@pytest.mark.parametrize(
    ("table", "folder", "message"),
    [
        ({"squash": "sigmoid"}, "chat-classes", "has 2 classes, and a sigmoid is for one logit"),
        ({"squash": "softmax"}, "chat", "has 1 outputs and no class 1 to take"),
        ({"squash": "softmax", "label": 2}, "chat-classes", "has 2 outputs and no class 2 to take"),
    ],
)
def test_a_model_that_does_not_fit_its_recipe_is_refused(
    table: dict[str, object], folder: str, message: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "own.toml"
    keys = {"pair": ["{question}", "{solution}"], **table}
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items()), "utf-8")
    with pytest.raises(ModelError, match=message):
        Reward(str(file), str(folders[folder])).rate(QUESTION, ["7"])


def test_a_head_that_was_never_trained_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    """A language model's weights hold no classifier; transformers would make up a random one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["chat"])
    path = kit.causal(tmp_path, "qwen2", tokenizer)
    settings = json.loads((path / "config.json").read_text("utf-8"))
    (path / "config.json").write_text(json.dumps({**settings, "id2label": {"0": "LABEL_0"}}), "utf-8")
    with pytest.raises(ModelError, match=r"lacks 1 of the model's weights: score.weight"):
        Reward("chat", str(path)).rate(QUESTION, ["7"])


def test_too_long_and_the_example(folders: dict[str, Path]) -> None:
    reward = Reward("chat", str(folders["chat"]))
    with pytest.raises(BackendError, match=r"a solution of \d+ tokens is longer than the 1024 of the model"):
        reward.rate(QUESTION, ["one two three " * 400])
    example = reward.recipe.example
    rated = reward.rate(example.question, [example.good, example.bad])
    assert list(reward.example()) == [each.value for each in rated] and rated[0].value != rated[1].value
