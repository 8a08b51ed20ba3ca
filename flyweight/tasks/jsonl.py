"""Your own questions: any file of prompts and answers, with a named checker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flyweight.errors import ConfigError, unknown
from flyweight.tasks import code, files
from flyweight.types import BOXED, Grade, Message, Problem

__all__ = ["CHECKERS", "JSONL"]

CHECKERS = ("choice", "json", "json:FIELD", "math", "tests", "text")


class JSONL:
    """Your own questions: a file with a prompt and an answer on each line, and a named checker.

    Rows: {"prompt": ..., "answer": ...} (question and problem are read as prompt), optionally "id"; other fields
    become `meta`, which verifiers see. `checker` says how answers are read and compared, for the whole file; rows may
    say it instead, all the same. math (the default; asks for a boxed answer), choice (A to J), json, json:FIELD, text:
    as in docs/answers.md. tests: the answer is Python code and "answer" holds asserts that it must pass in the sandbox.
    Splits, by the hash of the prompt (files.hash_split): train, calibration and development; without one all rows.
    Licence: yours.

    Source: your file.
    """

    name = "jsonl"
    splits = files.TRAINING

    def __init__(self, *, data: Path | None = None, split: str | None = None, checker: str | None = None) -> None:
        """ConfigError without a file, for one that cannot be used or an unknown checker."""
        files.check_split(self.name, split, self.splits)
        if data is None:
            raise ConfigError('jsonl needs a file: pass data=PATH (--data), with rows {"prompt": ..., "answer": ...}')
        path = Path(data)
        what = 'a row of the task jsonl, which is {"prompt": ..., "answer": ...}'
        found = list(files.parsed(path, what, _row).values())
        said = sorted({str(problem.meta["checker"]) for problem in found if "checker" in problem.meta})
        if checker is None and len(said) > 1:
            raise ConfigError(f"{path}: the rows name several checkers ({', '.join(said)}); a file has one")
        self.checker = checker or (said[0] if said else "math")
        if self.checker.partition(":")[0] not in {known.partition(":")[0] for known in CHECKERS}:
            raise unknown("checker", self.checker, CHECKERS)
        self._code = code.Code((), {}) if self.checker == "tests" else None
        chosen = files.chosen(found, split, lambda problem: files.hash_split(problem.prompt), path)
        self._problems = tuple(map(self._asked, chosen))
        self.extract("")  # a wrong form of the checker's name is noticed now

    def _asked(self, problem: Problem) -> Problem:
        system = {"math": BOXED, "tests": code.REPLY}.get(self.checker)
        turns = (Message("system", system),) if system else ()
        return replace(problem, messages=(*turns, Message("user", problem.prompt)))

    @property
    def effective_settings(self) -> Mapping[str, str]:
        """What the settings came to, whoever said so: grades depend on nothing else beside the problem."""
        return {"checker": self.checker}

    def problems(self) -> Sequence[Problem]:
        """Every problem, in the file's order."""
        return self._problems

    def extract(self, text: str) -> str | None:
        """The answer a solution states, or None."""
        from flyweight import answers

        return self._code.extract(text) if self._code else answers.extract(text, self.checker)

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        """Indices grouped by equal answers, largest group first; None in no class."""
        from flyweight.answers import classes

        return self._code.classes(answers, problem) if self._code else classes(answers, self.checker)

    def grade(self, problem: Problem, text: str) -> Grade:
        """Grade a solution against the known answer; ConfigError if there is none, or if the tests are no Python."""
        from flyweight import answers

        if self._code:
            return self._code.grade(problem, text)
        if problem.answer is None:
            raise ConfigError(f"problem {problem.id!r} has no known answer to grade against")
        return answers.grade(self.extract(text), problem.answer, self.checker)


def _row(row: Mapping[str, object]) -> tuple[str, Problem]:
    """(id, problem)."""
    key = next((key for key in ("prompt", "question", "problem") if key in row), "prompt")
    prompt, answer = row[key], row.get("answer")
    if not isinstance(prompt, str) or not prompt.strip():
        raise TypeError("prompt is a string")
    if isinstance(answer, bool) or not isinstance(answer, int | float | str | None):
        raise TypeError("answer is a string or a number")
    id = row.get("id", f"jsonl-{files.sha(prompt)[:12]}")
    if not isinstance(id, int | str):
        raise TypeError("id is a string or a number")
    meta = {name: value for name, value in row.items() if name not in (key, "answer", "id")}
    return str(id), Problem(str(id), prompt, (), None if answer is None else str(answer), meta)
