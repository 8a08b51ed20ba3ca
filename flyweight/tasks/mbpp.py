"""MBPP: short Python functions from one sentence and one test."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from pathlib import Path

from flyweight.errors import ConfigError
from flyweight.tasks import code, files
from flyweight.types import Message, Problem

__all__ = ["DATA", "MBPP", "split_of"]

DATA = files.Bundled("mbpp.jsonl.gz", 974, "ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f")

RANGES = {"prompt": range(1, 11), "test": range(11, 511), "validation": range(511, 601)}
REPEATED = {602: 217, 704: 248, 872: 216}
"""Questions for training that stand word for word among the test questions."""


class MBPP(code.Code):
    """Short Python functions, each from a sentence and one public test; the other tests grade.

    Splits, by the source's numbers: prompt (1-10), test (11-510, the default), validation (511-600); 601-974 are by the
    hash of their text (files.hash_split) train, calibration and development, without three that repeat a test question.

    Prompt: the text and `test_list[0]`, asked for the code in a block. Answer: the last block of code. Checker: the
    rest of `test_list` and `challenge_test_list`, in the sandbox; those that repeat the public test are left out, save
    for problem 37, which has one test three times. A test's set-up runs after the code, since it may need its
    classes. Licence: CC BY 4.0.

    Source: Austin et al. 2021, Program Synthesis with Large Language Models (2108.07732).
    """

    name = "mbpp"
    splits = (*RANGES, *files.TRAINING)

    def __init__(self, *, data: Path | None = None, split: str | None = None) -> None:
        """ConfigError if the file cannot be read, is not what it should be, or has no question of the split."""
        files.check_split(self.name, split, self.splits)
        wanted = split or "test"
        if data is None:
            found = (
                row for row in files.bundled(DATA) if split_of(int(str(row["task_id"])), str(row["text"])) == wanted
            )
            kept = [_row(row)[1] for row in found]
        else:
            what = 'an MBPP row, with "task_id", "text", "code", "test_list" and "challenge_test_list"'
            rows = files.parsed(Path(data), what, _row).values()
            kept = [row for row in rows if row[0].meta["split"] == wanted]
        if not kept:
            raise ConfigError(f"{data} holds no question of the split {wanted!r}")
        super().__init__((problem for problem, _ in kept), {problem.id: reference for problem, reference in kept})


def split_of(number: int, text: str) -> str | None:
    """The split of the question with that number; None for one that is in none."""
    named = next((name for name, numbers in RANGES.items() if number in numbers), None)
    return named or (None if number in REPEATED else files.hash_split(text))


def _row(row: Mapping[str, object]) -> tuple[str, tuple[Problem, str]]:
    """(id, (problem, reference solution))."""
    number, text, reference = row["task_id"], row["text"], row["code"]
    if not (isinstance(number, int) and isinstance(text, str) and isinstance(reference, str)):
        raise TypeError("task_id is a number, text and code are strings")
    public, *hidden = [*_strings(row["test_list"]), *_strings(row["challenge_test_list"])]
    if not hidden:
        raise ValueError("no test is left to grade with")
    hidden = [test for test in hidden if _plain(test) != _plain(public)] or hidden[:1]
    setup = str(row.get("test_setup_code") or "").replace("\r\n", "\n").strip()
    shown = "\n".join(part for part in (setup, public) if part)
    ask = f"{text.strip()} {code.REPLY} It has to pass this test:\n\n```python\n{shown}\n```"
    meta = {"split": split_of(number, text), "entry": _entry(public), "public": (public,), "after": setup}
    id = f"mbpp-{number}"
    problem = Problem(id, f"{text.strip()}\n\n{shown}", (Message("user", ask),), "\n".join(hidden), meta)
    return id, (problem, reference.replace("\r\n", "\n"))


def _strings(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("test_list and challenge_test_list are lists of strings")
    return [item.strip() for item in value]


def _plain(test: str) -> str:
    return ast.unparse(ast.parse(test))


def _entry(test: str) -> str:
    """The first function the test calls that Python does not have itself."""
    called = [node.func for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
    return next((f.id for f in called if isinstance(f, ast.Name) and not hasattr(builtins, f.id)), "")
