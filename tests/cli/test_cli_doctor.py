"""`flyweight doctor --verifier`: a reward model tells the right solution of its recipe's example from the wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyweight.cli import doctor
from tests import tiny
from tests.cli_kit import Command

RECIPE = {"prompt": "{question} ", "step": "{step} #\n", "tag": "#", "head": "causal"}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other check is made."""
    for name in ("packages", "engine", "kernels", "cpu", "compiler", "memory", "store", "worker", "sandbox"):
        monkeypatch.setattr(doctor, f"_{name}", lambda: iter(()))


def test_both_orders_of_a_reward_model_are_said(alone: None, flyweight: Command, tmp_path: Path) -> None:
    model = tiny.make(tmp_path / "tiny.gguf")
    said = {}
    for good, bad in ("+-", "-+"):
        file = tmp_path / "own.toml"
        table = {**RECIPE, "good": good, "bad": bad}
        file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()), "utf-8")
        done = flyweight("doctor", "--verifier", f"prm:{file}@{model}:context=512", "--json")
        assert done.json["able"] is True, "the main job needs no reward model"
        [check] = [check for check in done.json["checks"] if check["name"] == "verifier"]
        said[done.code] = check
    assert (said[0]["status"], said[3]["status"]) == ("ok", "fail"), "with the tokens exchanged so is the order"
    first, second = (float(number) for number in said[0]["detail"].split() if number.startswith("0."))
    assert first > second and f"a right solution {first:.3f} > a wrong one {second:.3f}" in said[0]["detail"]
    assert "prm:own has it the wrong way round: a right solution 0." in said[3]["detail"] and said[3]["fix"]


def test_a_verifier_that_cannot_be_tried(alone: None, flyweight: Command, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF")
    done = flyweight("doctor", "--verifier", f"prm:math-shepherd@{broken}")
    assert done.code == 3 and "prm:math-shepherd cannot be tried: ModelError" in done.out
    for name, message in (("arithmetic", "has no model of its own"), ("prm:nosuch", "unknown recipe 'nosuch'")):
        done = flyweight("doctor", "--verifier", name)
        assert done.code == 2 and message in done.err
