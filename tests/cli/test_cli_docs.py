"""The reference page says what the commands say; examples in help texts parse; the examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flyweight.cli.docs import page
from flyweight.store import Store
from tests.cli_kit import Command

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"## (flyweight[^\n]*)\n\n```text\n(.*?)\n```", page(), re.DOTALL)


def test_the_page_is_up_to_date() -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    assert text == page(), "run: python -m flyweight.cli.docs > docs/cli.md"


@pytest.mark.parametrize(("path", "block"), BLOCKS, ids=[path for path, _ in BLOCKS])
def test_a_block_is_the_real_help(path: str, block: str, flyweight: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = flyweight(*path.split()[1:], "--help")
    assert done.code == 0
    assert [line.rstrip() for line in done.out.splitlines()] == block.splitlines()


def test_every_command_is_on_the_page() -> None:
    paths = {path for path, _ in BLOCKS}
    assert paths == {
        "flyweight",
        *(f"flyweight {name}" for name in ("solve", "compare", "chat", "serve", "demo", "report")),
        *(f"flyweight {name}" for name in ("view", "train-verifier", "calibrate", "plan", "list", "models", "doctor")),
        *(f"flyweight models {name}" for name in ("ls", "pull", "path", "rm")),
        "flyweight bench",
        *(f"flyweight bench {name}" for name in ("run", "resume", "retry", "grade")),
        *(f"flyweight bench {name}" for name in ("ls", "show", "diff", "export", "pack", "unpack", "calibrate")),
    }


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("path", "block"), BLOCKS, ids=[path for path, _ in BLOCKS])
def test_every_help_has_three_examples_with_options_that_exist(path: str, block: str, flyweight: Command) -> None:
    examples = block[block.index("Examples:") :].split("\n\n")[0].splitlines()[1:]
    assert len(examples) == 3
    for example in examples:
        for option in re.findall(r"(?<= )--?[a-z][a-z-]*(?= |$)", re.split(r"flyweight ", example)[-1]):
            name = shlex.split(example[example.index("flyweight") :].split("|")[0].strip(' )"'))[1:3]
            texts = "\n".join(text for where, text in BLOCKS if where.split()[1:] in ([name[0]], name))
            assert re.search(rf"^ +(?:-\w, )?{option}\b", texts, re.MULTILINE), f"{option} in {example}"


def test_json_that_is_an_array_is_said_to_be_one(flyweight: Command, tmp_path: Path) -> None:
    Store(tmp_path / "flyweight.db").close()
    for command in (["models", "ls"], ["bench", "ls", "--runs", str(tmp_path)]):
        block = dict(BLOCKS)[" ".join(["flyweight", *command[:2]])]
        assert isinstance(flyweight(*command, "--json").json, list) and "one array of objects" in block


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("hello.py", ["12: ", " of 5 samples agree", " tokens in "]),
        ("compare_strategies.py", ["greedy ", "beam_search ", " of 4 right "]),
    ],
)
def test_an_example_runs(name: str, lines: list[str]) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / name), "toy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for line in lines:
        assert line in done.stdout
