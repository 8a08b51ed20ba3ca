"""GSM8K: grade-school maths word problems with whole-number answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from flyweight.errors import ConfigError
from flyweight.types import BOXED, Grade, Message, Problem

__all__ = ["DEV", "GSM8K", "Bundled", "split_answer"]


class Bundled(NamedTuple):
    """A data file of the package, and what it must be."""

    name: str
    rows: int
    sha256: str


DEV = Bundled("gsm8k_dev.jsonl", 200, "3d38f8fcc4f71ab55cdac1460c904a085d3393a6564d45248b6375097ec5a3e0")
"""Made by scripts/make_gsm8k_dev.py; see data/README.md."""


class GSM8K:
    """Grade-school maths word problems; without a file, 200 development questions of the train split.

    The bundled questions are the first 200 by sha256 of those whose hash is 9 mod 10: never picked, and never part
    of the test set. `data` names an original train.jsonl or test.jsonl, whose answers follow `####`.

    Source: Cobbe et al. 2021, Training Verifiers to Solve Math Word Problems (2110.14168).
    """

    name = "gsm8k"

    def __init__(self, *, data: Path | None = None) -> None:
        """ConfigError if the file cannot be read, or is not what it should be."""
        rows = _bundled() if data is None else _original(Path(data))
        self._problems = tuple(
            Problem(
                id=row["id"],
                prompt=row["question"],
                messages=(Message("system", BOXED), Message("user", row["question"])),
                answer=row["answer"],
                meta={"solution": row["solution"]},
            )
            for row in rows
        )

    def problems(self) -> Sequence[Problem]:
        """Every problem, in the file's order."""
        return self._problems

    def extract(self, text: str) -> str | None:
        """The answer a solution states, or None."""
        from flyweight import answers

        return answers.extract(text, "math")

    def classes(self, answers: Sequence[str | None]) -> list[list[int]]:
        """Indices grouped by equal answers, largest group first; None in no class."""
        from flyweight.answers import classes

        return classes(answers)

    def grade(self, problem: Problem, text: str) -> Grade:
        """Grade a solution against the problem's known answer; ConfigError if it has none."""
        from flyweight import answers

        if problem.answer is None:
            raise ConfigError(f"problem {problem.id!r} has no known answer to grade against")
        return answers.grade(self.extract(text), problem.answer, "math")


def split_answer(text: str) -> tuple[str, str]:
    """Worked solution and final answer of an original `answer` field; commas are kept. ValueError without `####`."""
    solution, mark, answer = text.rpartition("####")
    if not mark or not answer.strip():
        raise ValueError("no '####' before the final answer")
    return solution.strip(), answer.strip()


def _bundled() -> list[Mapping[str, str]]:
    file = resources.files("flyweight.tasks") / "data" / DEV.name
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"the bundled {DEV.name} is missing: reinstall flyweight ({error.strerror})") from error
    lines = content.splitlines()
    found = hashlib.sha256(content).hexdigest()
    if found != DEV.sha256 or len(lines) != DEV.rows:
        raise ConfigError(
            f"the bundled {DEV.name} was changed: {len(lines)} rows with sha256 {found[:12]}..., expected {DEV.rows} "
            f"with {DEV.sha256[:12]}...: reinstall flyweight"
        )
    return [json.loads(line) for line in lines]


def _original(path: Path) -> list[Mapping[str, str]]:
    """Rows of an original file. Ids hold the split (from the file's name) and the question's hash."""
    prefix = f"gsm8k-{path.stem.removeprefix('gsm8k').strip('-_')}"
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    rows: dict[str, Mapping[str, str]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            question, (solution, answer) = row["question"], split_answer(row["answer"])
            sha = hashlib.sha256(question.encode()).hexdigest()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(
                f"{path}, line {number}: not a GSM8K row, which is "
                f'{{"question": ..., "answer": "... #### 42"}} ({type(error).__name__}: {error})'
            ) from error
        id = f"{prefix}-{sha[:8]}"
        if id in rows:
            raise ConfigError(f"{path}, line {number}: the same question stands there twice")
        rows[id] = {"id": id, "question": question, "answer": answer, "solution": solution}
    if not rows:
        raise ConfigError(f"{path} holds no problems")
    return list(rows.values())
