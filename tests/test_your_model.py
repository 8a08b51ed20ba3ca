"""docs/your-model.md, run as it is written: its commands in their order, on a tiny model and few questions."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from flyweight.cli.main import run
from flyweight.optimal import speed
from flyweight.policies.llamacpp import policy
from tests import tiny

PAGE = Path(__file__).resolve().parent.parent / "docs" / "your-model.md"
SCALE = {"--questions": "20", "-n": "4", "--max-tokens": "40", "--context": "256", "--budgets": "80,160"}
"""What is smaller here than on the page."""
MORE = {"calibrate": ["--searches", ""], "plan": ["--weights", "file", "--json"], "train-verifier": ["--rollouts", "0"]}
QUESTIONS = 20


def commands() -> list[list[str]]:
    """The page's commands, with the numbers of `SCALE`."""
    found = []
    for line in re.findall(r"^```sh\n(.*?)\n```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        name, *words = shlex.split(line)
        assert name == "flyweight"
        for option, value in SCALE.items():
            if option in words:
                words[words.index(option) + 1] = value
        found.append([*words, *MORE.get(words[0], [])])
    return found


def inclined(weights: Callable[[int], dict[str, tiny.Array]]) -> Callable[[int], dict[str, tiny.Array]]:
    """Random weights that like to write A and B, and to end: some of what they say is an answer, and right."""

    def made(seed: int) -> dict[str, tiny.Array]:
        tensors = weights(seed)
        for token, liking in ((tiny.END, 2.0), *((tiny.VOCABULARY.index(letter), 1.6) for letter in "AB")):
            tensors["output.weight"][token, 0] = liking
        return tensors

    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files: mine.gguf, mine.jsonl and train.jsonl."""
    monkeypatch.setattr(tiny, "CONTEXT", 2048)
    monkeypatch.setattr(tiny, "weights", inclined(tiny.weights))
    monkeypatch.setattr(policy, "default_threads", lambda: 1)  # two would wait for each other longer than they work
    tiny.make(tmp_path / "mine.gguf")
    for name in ("mine", "train"):
        rows = [
            {"prompt": f"{name} {number}", "answer": "AB"[number % 2], "checker": "choice"}
            for number in range(QUESTIONS)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(speed, "_file", lambda: tmp_path / "speed.json")
    monkeypatch.setattr(speed, "SECONDS", 0.05)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return tmp_path


@pytest.mark.timeout(300)
def test_the_page_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = commands()
    assert [words[0] for words in steps] == ["models", "train-verifier", "bench", "calibrate", "plan", "solve"]
    for words in steps:
        code = run(words)
        out, err = capsys.readouterr()
        if words[0] == "train-verifier":
            if importlib.util.find_spec("torch") is None:
                assert code == 2 and "training needs torch: pip install 'flyweight[train]'" in err
                continue
            assert (folder / "head.npz").is_file(), err
        assert code == 0, (words, err)
        if words[0] == "plan":
            facts = json.loads(out)
            searches = {choice["strategy"] for choice in facts["frontier"]}
            assert facts["recommendation"]["model"] == "./mine.gguf" and searches
            assert facts["considered"] >= 5  # greedy, a vote, a best-of-n, a weighted vote, and auto
        if words[0] == "solve":
            assert "auto" in out
    assert (folder / "mine.json").is_file() and (folder / "runs" / "flyweight.db").is_file()
