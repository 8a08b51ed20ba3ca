"""Grading programs by tests without showing them what is expected.

A program's sandbox gets its code and one input at a time, a call or a stdin, and hands back plain data; expected values
stay in this process, which does the comparing. Test statements that are more than "call equals literal" run in a second
sandbox, in which each call of the program is a message to the first.
"""

from __future__ import annotations

import ast
import builtins
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flyweight import textfile
from flyweight.errors import ConfigError
from flyweight.sandbox import wire
from flyweight.sandbox.cell import Cell, allowed

__all__ = ["Call", "Checked", "Outcome", "Statements", "Stdin", "Test", "asserts", "check", "evaluate", "read_tests"]

GRACE = 1.0
"""Seconds beyond a test's own that the sandbox has to say that the time is up."""
PATIENCE = 2
"""Tests that may run out of time; a program's remaining ones then count as out of time without being run."""
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one input gave."""

    kind: Literal["value", "error", "timeout", "memory"]
    value: object = None
    """Plain data for a call, the text on stdout for a stdin."""
    error: str = ""
    """Why there is no value; empty where there is one. Untrusted text."""


@dataclass(frozen=True, slots=True)
class Checked:
    """How a program fared."""

    failures: tuple[str, ...]
    """One entry per test: empty when it passed, else why not. May quote the program: untrusted text."""

    @property
    def share(self) -> float:
        """Tests passed, in [0, 1]."""
        return self.failures.count("") / len(self.failures)

    @property
    def passed(self) -> bool:
        """Whether all passed."""
        return not any(self.failures)


def check(program: str, tests: Sequence[Test], *, seconds: float = 5, memory_mb: int = 512) -> Checked:
    """Run the program on every test. `seconds` is wall time per test; after two tests that ran out of it the
    remaining ones are not run. ConfigError without tests and as in `allowed`; SandboxError when there is no sandbox.
    """
    if not tests:
        raise ConfigError("there are no tests to check against")
    with _Bench(program, seconds, memory_mb) as bench:
        return Checked(tuple(bench.failure(test) for test in tests))


def evaluate(
    program: str, inputs: Sequence[Call | Stdin], *, seconds: float = 5, memory_mb: int = 512
) -> list[Outcome]:
    """What the program makes of every input; nothing is compared. Limits and errors as in `check`."""
    with _Bench(program, seconds, memory_mb) as bench:
        return [bench.outcome(given) for given in inputs]


class _Bench(ExitStack):
    """A program in its sandbox, and beside it the sandbox of tests that are statements."""

    def __init__(self, program: str, seconds: float, memory_mb: int) -> None:
        super().__init__()
        allowed(seconds=seconds, memory_mb=memory_mb)
        self.code = program.encode("utf-8", "surrogatepass")
        self.seconds, self.memory_mb = seconds, memory_mb
        self.late = 0
        self.payload = b""
        """The last reply as it came."""
        self.program = self._cell("serve", self.code)
        self.judge: Cell | None = None

    def _cell(self, mode: str, code: bytes | None = None) -> Cell:
        return self.enter_context(Cell(mode, code=code, channel=True, cpu=1e6, memory_mb=self.memory_mb))

    def outcome(self, given: Call | Stdin) -> Outcome:
        """What came back for one input."""
        if self.late >= PATIENCE:
            return Outcome("timeout", error="out of time")
        kind, text = ("E", given.expression) if isinstance(given, Call) else ("S", given.stdin)
        outcome = self._ask(kind, text, self.seconds)
        self.late += outcome.kind == "timeout"
        return outcome

    def _ask(self, kind: str, text: str, seconds: float) -> Outcome:
        if self.program.ended is not None:  # an earlier input broke it
            self.program = self._cell("serve", self.code)
        cell = self.program
        cell.send(kind, text.encode("utf-8", "surrogatepass"), seconds)
        if not cell.wait(time.monotonic() + seconds + GRACE, messages=True):
            if cell.ended == "timeout":
                return Outcome("timeout", error="out of time")
            if cell.ended == "memory":
                return Outcome("memory", error="memory limit")
            return Outcome("error", error="the sandbox ended")
        found, payload = cell.messages.pop(0)
        self.payload = payload
        if found == "T":
            return Outcome("timeout", error="out of time")
        if found != "V":
            # The program may have sent this itself, and an empty reason would stand for a test that passed.
            return Outcome("error", error=payload.decode("utf-8", "replace") or "an error")
        if kind == "S":
            return Outcome("value", payload.decode("utf-8", "replace"))
        try:
            return Outcome("value", wire.decode(payload))
        except wire.Malformed as error:
            return Outcome("error", error=str(error))

    def failure(self, test: Test) -> str:
        """Why the test failed; empty when it passed."""
        if isinstance(test, Statements):
            return self._judged(test)
        outcome = self.outcome(test)
        if outcome.kind != "value":
            return outcome.error
        if isinstance(test, Stdin):
            right = wire.printed(str(outcome.value)) == wire.printed(test.expected)
        else:
            right = wire.same(outcome.value, test.expected)
        return "" if right else f"another value: {repr(outcome.value)[:200]}"

    def _judged(self, test: Statements) -> str:
        if self.late >= PATIENCE:
            return "out of time"
        if self.judge is None or self.judge.ended is not None:
            self.judge = self._cell("judge")
        judge, until = self.judge, time.monotonic() + self.seconds
        header = " ".join(f"{own}={theirs}" for own, theirs in test.names)
        judge.send("J", f"{header}\n{test.source}".encode("utf-8", "surrogatepass"), self.seconds)
        while judge.wait(until + GRACE, messages=True):
            kind, payload = judge.messages.pop(0)
            if kind == "V":
                return ""
            if kind == "T":
                self.late += 1
                judge.close()  # an answer to its last question may still be on the way
                return "out of time"
            if kind == "X":
                return payload.decode("utf-8", "replace") or "an error"
            left = max(0.001, until - time.monotonic())  # the test's time, not as much again for each of its calls
            outcome = self._ask("E", payload.decode("utf-8", "surrogatepass"), left)
            if outcome.kind == "value":
                judge.send("V", self.payload)
            else:
                judge.send("X", outcome.error.encode("utf-8", "replace"))
        self.late += judge.ended == "timeout"
        return "out of time" if judge.ended == "timeout" else "the tests' sandbox ended"


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
            elif isinstance(node, ast.ExceptHandler) and node.name:
                names.add(node.name)
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
