"""What a test is, and tests read from Python source and from files.

What is expected must not be shown to the program: a test is a `Call` when its expression holds nothing of that and the
value can be compared outside, and `Statements` otherwise.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyweight import textfile
from flyweight.errors import ConfigError

__all__ = ["Call", "Statements", "Stdin", "Test", "asserts", "read_tests"]

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
BUILTINS = frozenset(dir(builtins))
UNSEEN = (ast.Compare, ast.BoolOp, ast.NamedExpr)
"""Expressions holding these could carry what is expected; they are not shown to the program."""


@dataclass(frozen=True, slots=True)
class Call:
    """The expression, evaluated where the program was run, gives this value."""

    expression: str
    expected: object
    """Plain data."""


@dataclass(frozen=True, slots=True)
class Stdin:
    """The program prints this when it reads that. Spaces at line ends and empty lines at the end do not count."""

    stdin: str
    expected: str


@dataclass(frozen=True, slots=True)
class Statements:
    """Python statements that raise nothing. Names they do not define themselves are the program's functions."""

    source: str
    names: tuple[tuple[str, str], ...]
    """(name in the statements, name in the program) of every function they may call."""


Test = Call | Stdin | Statements


def asserts(source: str, *, entry: str = "") -> list[Test]:
    """The tests in Python source: every top-level `assert`, or those in a function `check(candidate)`.

    `entry` is what the program calls the function under test where the source says `candidate`. Statements before an
    assert (imports, variables, helpers) belong to it; a loop or block with asserts in it is one test. ConfigError when
    the source is no Python or holds no assert.
    """
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ConfigError(f"the tests are not Python: {error}") from error
    alias = ""
    for statement in body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "check" and statement.args.args:
            if not entry:
                raise ConfigError("tests in a function check(candidate) need the name of the function they test")
            alias = statement.args.args[0].arg
            body = [other for other in body if other is not statement] + statement.body
            break
    tests: list[Test] = []
    setup: list[ast.stmt] = []
    for statement in body:
        if isinstance(statement, FUNCTION | ast.ClassDef) or not any(
            isinstance(node, ast.Assert) for node in ast.walk(statement)
        ):
            setup.append(statement)
            continue
        defined = _defined(setup)
        simple = _simple(statement, defined, alias, entry) if isinstance(statement, ast.Assert) else None
        tests.append(simple or _statements([*setup, statement], alias, entry))
    if not tests:
        raise ConfigError("the tests hold no assert")
    return tests


def _simple(statement: ast.Assert, defined: set[str], alias: str, entry: str) -> Call | None:
    """The assert as a call and a literal, if that is all it is."""
    tested = statement.test
    value: object
    if isinstance(tested, ast.Compare):
        if len(tested.ops) != 1 or not isinstance(tested.ops[0], ast.Eq | ast.Is):
            return None
        sides = [tested.left, tested.comparators[0]]
        literals = [_literal(side) for side in sides]
        if (literals[0] is None) == (literals[1] is None):
            return None
        at = 0 if literals[0] is not None else 1
        [value] = literals[at] or [None]
        if isinstance(tested.ops[0], ast.Is) and isinstance(value, bool):
            return None  # 1 is not True, but equals it
        called = sides[1 - at]
        wrap = "{}"
    else:
        negated = isinstance(tested, ast.UnaryOp) and isinstance(tested.op, ast.Not)
        called = tested.operand if isinstance(tested, ast.UnaryOp) and negated else tested
        value = not negated
        wrap = "bool({})"
    nodes = list(ast.walk(called))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    if not any(isinstance(node, ast.Call) for node in nodes) or any(isinstance(node, UNSEEN) for node in nodes):
        return None
    if names & defined or "*" in defined:
        return None
    if isinstance(value, bool) and not _own(called, entry) and not _bare(called):
        return None  # whoever evaluates all(...) or math.isclose(...) decides the test
    return Call(wrap.format(ast.unparse(_renamed(called, alias, entry))), value)


def _own(node: ast.expr, entry: str) -> bool:
    """Whether it is a call of one of the program's functions, or of a method of what such a call made."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Name):
        return called.id == entry or called.id not in BUILTINS
    while isinstance(called, ast.Attribute):
        called = called.value
    if isinstance(called, ast.Name):
        return called.id not in BUILTINS | sys.stdlib_module_names
    return _own(called, entry)


def _bare(node: ast.expr) -> bool:
    """Whether a name of the program is used other than by calling it, such as a class in isinstance(f(1), Shape)."""
    called = {id(part.func) for part in ast.walk(node) if isinstance(part, ast.Call)}
    known = BUILTINS | sys.stdlib_module_names | _defined([ast.Expr(node)])
    return any(
        isinstance(part, ast.Name) and id(part) not in called and part.id not in known for part in ast.walk(node)
    )


def _literal(node: ast.expr) -> list[object] | None:
    """The value in a list, or None when it is not a literal."""
    try:
        return [ast.literal_eval(node)]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


class _Rename(ast.NodeTransformer):
    def __init__(self, alias: str, entry: str) -> None:
        self.alias, self.entry = alias, entry

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.entry, node.ctx) if node.id == self.alias else node


def _renamed(node: ast.expr, alias: str, entry: str) -> ast.AST:
    return _Rename(alias, entry).visit(ast.parse(ast.unparse(node), mode="eval").body) if alias else node


def _statements(body: Sequence[ast.stmt], alias: str, entry: str) -> Statements:
    """The statements as one test, with the names it takes from the program."""
    nodes = [node for statement in body for node in ast.walk(statement)]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    free = used - _defined(body) - (BUILTINS - {entry})
    modules = (free & sys.stdlib_module_names) - called  # left to the program's imports by those who wrote the test
    names = tuple((name, entry if name == alias else name) for name in sorted(free - modules))
    return Statements("\n".join([*(f"import {name}" for name in sorted(modules)), *map(ast.unparse, body)]), names)


def _defined(body: Sequence[ast.stmt]) -> set[str]:
    """Every name the statements bind, at any depth."""
    names: set[str] = set()
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                names.add(node.id)
            elif isinstance(node, FUNCTION | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.alias):
                names.add((node.asname or node.name).partition(".")[0])
    return names


def read_tests(path: Path) -> list[Test]:
    """The tests in a file: Python asserts, or JSON lines with "stdin" and "expected".

    ConfigError names the file, and the line where there is one, that cannot be used.
    """
    text = textfile.read(path)
    if not text.strip():
        raise ConfigError(f"{path} holds no tests")
    if text.lstrip().startswith("{"):
        return [_pair(path, number, row) for number, row in textfile.rows(path, text)]
    try:
        return asserts(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _pair(path: Path, number: int, row: Mapping[str, object]) -> Stdin:
    stdin, expected = row.get("stdin", ""), row.get("expected")
    if not isinstance(stdin, str) or not isinstance(expected, str):
        raise ConfigError(f'{path}, line {number}: needs "expected", and may have "stdin", both text')
    return Stdin(stdin, expected)
