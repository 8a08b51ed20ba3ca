"""Questions from the command line, a pipe or a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from flyweight import api, textfile
from flyweight.errors import ConfigError
from flyweight.types import Problem

__all__ = ["question", "questions"]


def question(argument: str | None) -> str:
    """The question given: the argument itself, or stdin for `-` and for a pipe. ConfigError when there is none."""
    if argument is None and sys.stdin.isatty():
        raise ConfigError('no question: flyweight solve "What is 2 + 3?", or pipe it in, or use --file')
    if argument is None or argument == "-":
        try:
            argument = sys.stdin.read()
        except UnicodeDecodeError as error:
            raise ConfigError(f"stdin is not UTF-8 text: {error.reason} at byte {error.start}") from error
    if not argument.strip():
        raise ConfigError("the question is empty: pass some text")
    return argument.strip()


def questions(path: Path, system: str | None) -> list[Problem]:
    """One problem per line of a file: plain text, or JSON lines when the first is an object.

    An object has `question` (or `prompt`), and may have `id` and `answer`. Blank lines are skipped. A question that
    occurs again gets an id of its own. ConfigError names the line that cannot be used.
    """
    found: dict[str, Problem] = {}
    for number, problem, given in _problems(path, textfile.read(path), system):
        if given and problem.id in found:
            raise ConfigError(f"{path}, line {number}: the id {problem.id!r} is already taken")
        copy = 2
        while problem.id in found:
            problem, copy = replace(problem, id=f"{problem.id.partition('-')[0]}-{copy}"), copy + 1
        found[problem.id] = problem
    if not found:
        raise ConfigError(f"{path} holds no questions")
    return list(found.values())


def _problems(path: Path, text: str, system: str | None) -> Iterator[tuple[int, Problem, bool]]:
    """(line number, problem, whether its id was given)."""
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines or not _is_object(lines[0][1]):
        yield from ((number, api.problem(line, system), False) for number, line in lines)
        return
    for number, row in textfile.rows(path, text):
        asked = row.get("question", row.get("prompt"))
        if not isinstance(asked, str) or not asked.strip():
            raise ConfigError(f'{path}, line {number}: needs "question" (or "prompt") with some text')
        problem = api.problem(asked.strip(), system)
        answer, id = row.get("answer"), row.get("id")
        if answer is not None:
            problem = replace(problem, answer=str(answer))
        yield number, problem if id is None else replace(problem, id=str(id)), id is not None


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
