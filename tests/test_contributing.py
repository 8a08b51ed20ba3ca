"""CONTRIBUTING's strategy is applied as it is shown, one file and one line, and does what is said of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Adding a strategy")[2]
LAST = re.compile(r'( +"\w+": "flyweight[\w.]+:\w+",\n)(    \},\n)')
"""The last line of the table, and what closes it."""


def shown(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def applied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, changed as the guide shows: links, but for the folder of the strategies."""
    folder = tmp_path_factory.mktemp("applied")
    package = folder / "flyweight"
    package.mkdir()
    for entry in (ROOT / "flyweight").iterdir():
        if entry.name not in ("strategies", "__pycache__"):
            (package / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "flyweight" / "strategies", package / "strategies")
    named = re.search(r"`flyweight/(strategies/\w+\.py)`:\n\n```python", GUIDE)
    assert named is not None
    (package / named[1]).write_text(shown("python"), "utf-8")
    [line] = shown("diff").splitlines()
    assert line.startswith("+"), "one line, and it is added"
    table = package / "strategies" / "__init__.py"
    before = table.read_text("utf-8")
    after = LAST.sub(lambda match: f"{match[1]}{line[1:]}\n{match[2]}", before)
    assert len(after.splitlines()) == len(before.splitlines()) + 1
    table.write_text(after, "utf-8")
    return folder


def run(applied: Path, *command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(applied)}
    done = subprocess.run(
        [sys.executable, *command], cwd=applied, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_fifteen_lines() -> None:
    assert len(shown("python").splitlines()) + len(shown("diff").splitlines()) == 15


def test_it_keeps_the_contract_and_chooses_the_shortest(applied: Path) -> None:
    said = run(
        applied,
        "-c",
        "import flyweight\n"
        "from flyweight import strategies\n"
        "from flyweight.testing import check_strategy\n"
        "check_strategy(strategies.bind('shortest'))\n"
        "found = flyweight.solve('Add 17 and 25 and 8.', model='toy', strategy='shortest', n=8)\n"
        "drawn = [c.node.drawn for c in found.candidates if c.answer_class is not None]\n"
        "print(flyweight.__file__, len(found.candidates), found.best.drawn == min(drawn))",
    )
    assert said.split()[1:] == ["8", "True"]
    assert said.startswith(str(applied)), "the changed package"


def test_the_command_line_knows_it(applied: Path) -> None:
    listed = json.loads(run(applied, "-m", "flyweight", "list", "strategies", "--json"))["strategies"]
    mine = next(row for row in listed if row["name"] == "shortest")
    assert mine["cost"] == "n completions." and mine["summary"].endswith(".")
    assert [parameter["name"] for parameter in mine["parameters"]] == ["n", "temperature"]
    question = ("Add 17 and 25 and 8.", "--model", "toy", "--strategy", "shortest", "--set", "n=8", "--json")
    solved = json.loads(run(applied, "-m", "flyweight", "solve", *question))
    assert len(solved["candidates"]) == 8 and solved["error"] is None
