"""What the competition tasks share: a file of the user's, whole-number answers, and a count that must be right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from flyweight.errors import ConfigError
from flyweight.tasks import files, maths
from flyweight.types import BOXED, Problem

__all__ = ["Competition"]


class Competition(maths.Maths):
    """A competition's questions, which are not ours to pass on."""

    splits: tuple[str, ...] = ("test",)
    rows: int
    """Questions the competition had."""
    allowed: range
    """Answers it can have."""

    def __init__(self, *, data: Path | None = None, split: str | None = None) -> None:
        """ConfigError without a file, or if it cannot be read or is not that competition's."""
        files.check_split(self.name, split, self.splits)
        if data is None:
            raise files.needs_data(self.name, "test", f'{self.rows} lines of {{"problem": ..., "answer": 42}}')
        path = Path(data)
        problems = files.parsed(path, f'a row of {self.name}, which is {{"problem": ..., "answer": 42}}', self._row)
        if len(problems) != self.rows:
            raise ConfigError(f"{path}: {len(problems)} questions; {self.name} has {self.rows}")
        super().__init__(problems.values())

    def _row(self, row: Mapping[str, object]) -> tuple[str, Problem]:
        question = next((row[key] for key in ("problem", "question", "prompt") if key in row), None)
        answer = next((row[key] for key in ("answer", "extracted_groundtruth") if key in row), None)
        if not isinstance(question, str) or isinstance(answer, bool) or not isinstance(answer, int | float | str):
            raise TypeError("needs a problem and an answer")
        value = float(answer)
        if not value.is_integer() or int(value) not in self.allowed:
            raise ValueError(f"answer {answer}: a whole number from {self.allowed[0]} to {self.allowed[-1]}")
        question = question.removesuffix(BOXED).strip()  # some files end every question with it
        id = f"{self.name}-{files.sha(question)[:8]}"
        return id, maths.problem(id, question, str(int(value)), {})
