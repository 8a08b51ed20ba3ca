"""Every recipe carried out as it is written, on tiny models of the same families and heads: only weights lack."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight.cli.main import run
from flyweight.store import Store
from flyweight.types import Stopped
from recipes.__main__ import main
from recipes.plan import GPUS, Recipe, find, names, need

RECIPES = names()
SMALL = {
    "budgets": "4",
    "beam_budgets": "4",
    "short": "6",
    "middle": "12",
    "full": "24",
    "max_tokens": "20",
    "context": "480",
}
"""Of everything a trial makes smaller."""


def test_there_is_one_for_every_claim() -> None:
    assert RECIPES == [
        "llama-1b-over-8b",
        "llama-3b-over-405b",
        "llama-3b-over-70b",
        "qwen-0.5b-over-gpt-4o",
        "r1-1.5b-over-o1-preview",
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_commands_are_complete_and_checked_before_anything_is_loaded(name: str, tmp_path: Path) -> None:
    recipe = find(name)
    aime = _aime(tmp_path)
    for command in recipe.commands(aime24=str(aime), out=str(tmp_path / "runs")):
        assert command[:3] == ["flyweight", "bench", "run"] and not re.search(r"[{}]", shlex.join(command))
        # A dry run checks task, strategies, parameters and the spelling of verifiers and models.
        assert run([*command[1:], "--dry-run", "--model", "toy"]) == 0


def test_nothing_is_carried_out_without_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--run"])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "") and "--run needs the name of a recipe: one of llama-1b-over-8b" in err


@pytest.mark.parametrize("name", RECIPES)
def test_what_it_takes_is_arithmetic(name: str) -> None:
    recipe = find(name)
    a100, h100 = need(recipe, GPUS["a100"]), need(recipe, GPUS["h100"], price=0.0)
    assert 0 < h100.hours < a100.hours and h100.cost == 0 and a100.cost == pytest.approx(2 * a100.hours)
    assert a100.memory <= GPUS["a100"].memory
    for row, template in zip(recipe.work, recipe.templates, strict=True):
        counts = [int(n) for key in ("budgets", "beam_budgets") for n in _values(recipe, template, key)]
        if counts:  # samples and DVTS's trees of a larger n hold those of a smaller one; beams are drawn anew
            assert int(row["samples"]) >= max(counts)
        guided = sum(counts) if "beam_search" in template else max(counts) if "dvts" in template else 0
        assert row.get("guided", 0) == guided


def test_a_prediction_by_hand() -> None:
    recipe = Recipe(
        "r",
        "",
        "",
        "",
        "p",
        (),
        {},
        ("x",),
        (),
        ({"parameters": 1e9, "kv_bytes": 1e4}, {"parameters": 4e9}),
        ({"questions": 100, "samples": 10, "tokens": 700},),
    )
    found = need(recipe, GPUS["a100"])
    assert found.rows == 256 and found.memory == 2e9 + 8e9 + 256 * 1000 * 1e4 + 6e9
    step = (2e9 + 256 * 650 * 1e4) / 2.039e12 / 0.6
    assert found.policy_hours == pytest.approx(700_000 / (256 / step) / 3600)
    assert found.verifier_hours == pytest.approx(700_000 * 8e9 / (312e12 * 0.4) / 3600)


def test_what_a_verifier_guides_is_drawn_for_each_of_them_and_read_by_its_own() -> None:
    def made(verifiers: int, guided: int) -> Recipe:
        models = ({"parameters": 1e9, "kv_bytes": 1e4}, *({"parameters": 4e9},) * verifiers)
        row = {"questions": 100, "samples": 10, "guided": guided, "tokens": 700}
        return Recipe("r", "", "", "", "p", (), {}, ("x",), (), models, (row,))

    one, three, shared = (need(made(*each), GPUS["a100"]) for each in ((1, 4), (3, 4), (3, 0)))
    assert one.policy_hours == shared.policy_hours  # 10 samples, whoever scores them
    assert three.policy_hours == pytest.approx(one.policy_hours * (6 + 3 * 4) / 10)
    assert three.verifier_hours == shared.verifier_hours == pytest.approx(3 * one.verifier_hours)


def test_the_list_and_one_recipe_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert main(["llama-3b-over-70b", "--gpu", "h100", "--price", "1", "--", "--ray", "--workers", "8"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in RECIPES) and "H100" in said
    assert said.count("--ray --workers 8") == 3
    with pytest.raises(SystemExit):
        main(["llama-3b-over-70b", "--set", "nonsense=1"])


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", RECIPES)
def test_it_runs_from_end_to_end_on_tiny_models(name: str, tmp_path: Path, tiny: Callable[[str], str]) -> None:
    recipe = find(name)
    family = "llama" if "llama" in name else "qwen2"
    others = {key: value for key, value in SMALL.items() if key in recipe.scale}
    if "aime24" in recipe.scale:
        others["aime24"] = str(_aime(tmp_path))
    out = tmp_path / "runs"
    given = [f"{key}={value}" for key, value in {**others, "out": str(out)}.items()]
    given += [f"policy=transformers:{tiny(family)}", f"verifiers={','.join(map(tiny, recipe.verifiers))}"]
    sets = [part for pair in given for part in ("--set", pair)]
    assert main([name, "--run", *sets, "--", "--limit", "1", "--quiet"]) == 0
    with Store(out / "flyweight.db", readonly=True) as store:
        runs = store.runs()
        assert {run.configuration["verifier"] for run in runs} - {None} == set(map(tiny, recipe.verifiers))
        for info in runs:
            assert info.finished is not None
            for result in store.results(info.id):
                assert result.stopped is Stopped.DONE, result.error
                if info.configuration["strategy"].startswith(("beam_search", "dvts")):
                    assert result.usage.verifier_calls and result.usage.verifier_tokens
                for candidate in result.candidates:
                    assert candidate.node.score is None or 0 <= candidate.node.score.value <= 1


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A tiny model in the place of a family or of a verifier of a recipe, made once."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.verifiers import prm_kit as kit

    root = tmp_path_factory.mktemp("tiny")
    chatml = kit.bytes_tokenizer(kit.CHATML, "<|im_start|>", "<|im_end|>", "<extra_0>")
    llama3 = kit.bytes_tokenizer(kit.LLAMA3, "<|start|>", "<|end|>", "<|eot|>", "<|begin|>", bos="<|begin|>")
    made: dict[str, str] = {}

    def make(wanted: str) -> str:
        path = root / str(len(made))
        if wanted in ("llama", "qwen2"):
            return str(kit.causal(path, wanted, llama3 if wanted == "llama" else chatml))
        if wanted.startswith("prm:rlhflow@"):
            return f"prm:rlhflow@{kit.causal(path, 'llama', llama3)}"
        if wanted.startswith("prm:skywork-o1@"):
            plain = kit.bytes_tokenizer(kit.CHATML, bos="<|endoftext|>")
            return f"prm:skywork-o1@{kit.headed(path, 'qwen2', plain, {'v_head.summary': (1, 32)})}"
        if wanted.startswith("prm:qwen2.5-math-prm@"):
            heads = {"score.0": (32, 32), "score.2": (2, 32)}
            return f"prm:qwen2.5-math-prm@{kit.headed(path, 'qwen2', chatml, heads)}"
        assert ":" not in wanted, wanted  # a verifier without weights of its own
        return wanted

    def once(wanted: str) -> str:
        if wanted not in made:
            made[wanted] = make(wanted)
        return made[wanted]

    return once


def _aime(folder: Path) -> Path:
    path = folder / "aime24.jsonl"
    rows = [{"problem": f"What is {number} + {number}?", "answer": 2 * number} for number in range(30)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def _values(recipe: Recipe, template: str, key: str) -> list[str]:
    return recipe.scale[key].split(",") if f"{{{key}}}" in template else []
