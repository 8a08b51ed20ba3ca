"""HumanEval: Python functions to complete from a signature and a docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from flyweight.tasks import code, files
from flyweight.types import Message, Problem

__all__ = ["DATA", "HumanEval", "Overlap", "examples"]

DATA = files.Bundled("humaneval.jsonl.gz", 164, "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2")

GIVES = re.compile(r"\s{0,20}(?:#\s{0,20})?(?:==>|=>|➞|->|==|=|returns|should return)\s{0,20}")
LITERAL = {"true": "True", "false": "False"}
MAX_CALL = 2_000


class Overlap(NamedTuple):
    """How much of the grading a reader of the prompts has seen."""

    examples: int
    """Examples found in the prompts: the public tests."""
    graded: int
    """Tests that grade."""
    shared: int
    """Graded tests that repeat an example of their prompt: the same call, the same value."""
    problems: int
    """Problems with such a test."""


class HumanEval(code.Code):
    """Python functions to complete; 164, with the examples of their docstrings as public tests.

    Split: test. Prompt: signature and docstring, asked for the whole function in a block. Answer: the last block of
    code (or the function's body, indented), put after the prompt. Checker: the source's own tests, in the sandbox;
    they are hidden, but part of them repeats the docstring: see `overlap`. `data` names a file in the original form.
    Licence: MIT.

    Source: Chen et al. 2021, Evaluating Large Language Models Trained on Code (2107.03374).
    """

    name = "humaneval"
    splits = ("test",)

    def __init__(self, *, data: Path | None = None, split: str | None = None) -> None:
        """ConfigError if the file cannot be read or is not what it should be."""
        files.check_split(self.name, split, self.splits)
        if data is None:
            rows = [_row(row)[1] for row in files.bundled(DATA)]
        else:
            what = 'a HumanEval row, with "task_id", "prompt", "entry_point", "canonical_solution" and "test"'
            rows = list(files.parsed(Path(data), what, _row).values())
        super().__init__((problem for problem, _ in rows), {problem.id: reference for problem, reference in rows})

    @property
    def overlap(self) -> Overlap:
        """Counts over all problems; 0.2 seconds."""
        from flyweight import sandbox

        totals = [0, 0, 0, 0]
        for problem in self.problems():
            entry, public = str(problem.meta["entry"]), problem.meta["public"]
            assert isinstance(public, tuple)
            known = {repr(test) for test in (sandbox.asserts("\n".join(public)) if public else ())}
            graded = re.sub(r" is (True|False)\b", r" == \1", problem.answer or "")  # 72's, as its examples have it
            tests = sandbox.asserts(graded, entry=entry)
            shared = sum(repr(test) in known for test in tests)
            for i, count in enumerate((len(public), len(tests), shared, int(shared > 0))):
                totals[i] += count
        return Overlap(*totals)


def examples(prompt: str, entry: str) -> list[str]:
    """The examples in a docstring as asserts, in order and without repeats: calls of `entry` with literal arguments
    and a literal value, written as a doctest or with a sign such as `==`, `=>`, `➞` or "returns" between them.
    """
    try:
        functions = [node for node in ast.parse(prompt).body if isinstance(node, ast.FunctionDef)]
    except (SyntaxError, ValueError):
        return []
    found = [ast.get_docstring(node) or "" for node in functions if node.name == entry]
    return list(dict.fromkeys(_examples(found[-1], entry))) if found else []


def _examples(text: str, entry: str) -> Iterator[str]:
    lines = text.splitlines()
    for i, line in enumerate(lines):
        for start in re.finditer(rf"\b{re.escape(entry)}\(", line):
            call = _call(line[start.start() :])
            if call is None:
                continue
            rest = line[start.start() + len(call) :]
            gives = GIVES.match(rest)
            if line.lstrip().startswith(">>>") and not rest.strip():
                value = _value(lines[i + 1] if i + 1 < len(lines) else "")
            else:
                value = _value(rest[gives.end() :]) if gives else None
            if value is not None:
                yield f"assert {ast.unparse(ast.parse(call))} == {value}"


def _call(text: str) -> str | None:
    """The call with literal arguments that the text begins with."""
    for close in re.finditer(r"\)", text[:MAX_CALL]):
        try:
            parsed = ast.parse(text[: close.end()], mode="eval").body
        except (SyntaxError, ValueError):
            continue
        arguments = [*parsed.args, *(k.value for k in parsed.keywords)] if isinstance(parsed, ast.Call) else []
        return text[: close.end()] if arguments and all(_literal(ast.unparse(a)) for a in arguments) else None
    return None


def _value(text: str) -> str | None:
    """The literal that the rest of a line is, without a comment or full stop; of "1 + 9 = 10" the last part."""
    for candidate in (text, text.partition(" #")[0], text.partition(" (")[0], text.rpartition(" = ")[2]):
        candidate = candidate.strip().removesuffix(".")
        literal = _literal(LITERAL.get(candidate, candidate))
        if literal is not None:
            return literal
    return None


def _literal(text: str) -> str | None:
    """How Python writes the value, or None when the text is no literal."""
    try:
        return repr(ast.literal_eval(text))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _row(row: Mapping[str, object]) -> tuple[str, tuple[Problem, str]]:
    """(id, (problem, reference solution))."""
    prompt, entry, test, solution = (row[key] for key in ("prompt", "entry_point", "test", "canonical_solution"))
    if not (isinstance(prompt, str) and isinstance(entry, str) and isinstance(test, str) and isinstance(solution, str)):
        raise TypeError("every field is a string")
    id = str(row["task_id"]).lower().replace("/", "-")
    ask = f"Complete this Python function. {code.REPLY}\n\n```python\n{prompt.rstrip()}\n```"
    meta = {"entry": entry, "public": tuple(examples(prompt, entry)), "before": prompt.rstrip()}
    return id, (Problem(id, prompt, (Message("user", ask),), test, meta), prompt + solution)
