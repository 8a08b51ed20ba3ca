"""GSM8K: grade-school maths word problems with whole-number answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flyweight.tasks import files, maths
from flyweight.types import Problem

__all__ = ["DEV", "GSM8K", "TEST", "split_answer"]

DEV = files.Bundled("gsm8k_dev.jsonl", 200, "3d38f8fcc4f71ab55cdac1460c904a085d3393a6564d45248b6375097ec5a3e0")
"""Made by scripts/make_gsm8k_dev.py; see data/README.md."""
TEST = files.Bundled("gsm8k_test.jsonl.gz", 1319, "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14")
"""The original test.jsonl."""


class GSM8K(maths.Maths):
    """Grade-school maths word problems; without a file, 200 development questions of the train split, or the test set.

    Splits: test (1,319 questions), and by the hash of the question (files.hash_split) train, calibration and
    development. The bundled development questions are the first 200 by sha256: never picked, and never part of the
    test set. `data` names an original train.jsonl or test.jsonl, whose answers follow `####`; without a split all its
    questions are taken. A test question stays one in whatever file it stands.

    Prompt: the question, asked to reason step by step and box the answer. Answer: a number, compared as mathematics.
    Licence: MIT.

    Source: Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems (2110.14168).
    """

    name = "gsm8k"
    splits = ("test", *files.TRAINING)

    def __init__(self, *, data: Path | None = None, split: str | None = None) -> None:
        """ConfigError if the file cannot be read, is not what it should be, or has no question of the split."""
        files.check_split(self.name, split, self.splits)
        if data is not None:
            found = _original(Path(data))
            rows = files.chosen(found, split, lambda p: files.split_beside(TEST, "question", p.prompt), Path(data))
        elif split == "test":
            rows = [_row("gsm8k-test", row)[1] for row in files.bundled(TEST)]
        elif split in (None, "development"):
            rows = [maths.problem(str(r["id"]), str(r["question"]), str(r["answer"]), {}) for r in files.bundled(DEV)]
        else:
            raise files.needs_data(self.name, str(split), "train.jsonl of openai/grade-school-math")
        super().__init__(rows)


def split_answer(text: str) -> tuple[str, str]:
    """Worked solution and final answer of an original `answer` field; commas are kept. ValueError without `####`."""
    solution, mark, answer = text.rpartition("####")
    if not mark or not answer.strip():
        raise ValueError("no '####' before the final answer")
    return solution.strip(), answer.strip()


def _row(prefix: str, row: Mapping[str, object]) -> tuple[str, Problem]:
    """(id, problem) of an original row."""
    question, answer = row["question"], row["answer"]
    if not isinstance(question, str) or not isinstance(answer, str):
        raise TypeError("question and answer are strings")
    _, final = split_answer(answer)
    id = f"{prefix}-{files.sha(question)[:8]}"
    return id, maths.problem(id, question, final, {})


def _original(path: Path) -> list[Problem]:
    """Problems of an original file. Ids hold the split (from the file's name) and the question's hash."""
    stem = path.name.partition(".")[0]
    prefix = f"gsm8k-{stem.removeprefix('gsm8k').strip('-_')}"
    what = 'a GSM8K row, which is {"question": ..., "answer": "... #### 42"}'
    return list(files.parsed(path, what, lambda row: _row(prefix, row)).values())
