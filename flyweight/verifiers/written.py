"""Tests that the model writes for a programming problem itself, and the share of them that a candidate's code passes.

They are written from what the problem says, never from a candidate, and read strictly: a test is one line that compares
a call of the function asked for with a literal. `write_tests` and `results` are for strategies of one's own.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import warnings
from collections.abc import Sequence
from typing import Protocol

from flyweight import sandbox
from flyweight.answers import extract
from flyweight.errors import ConfigError
from flyweight.protocols import Models
from flyweight.types import Finish, Message, Node, Problem, Score, digest
from flyweight.verifiers.execution import failures, shares, unseen

__all__ = ["Writes", "WrittenTests", "asked", "read_asserts", "results", "write_tests"]

MOST = 100
LINE = 500
"""Characters of a line that is read as a test."""
TOKENS = 40
"""Room for one test; a completion may have this many for each."""
END = "\n```"
"""Where a completion stops: the end of the block that was begun for it."""
REMEMBERED = 1_000
"""Searches whose tests are kept at a time."""
BUILTINS = frozenset(dir(builtins))
DEFINED = re.compile(r"^[ \t]*def[ \t]+([A-Za-z_]\w{0,99})[ \t]*\(", re.MULTILINE)
CALLED = re.compile(r"\b([A-Za-z_]\w{0,99})\(")


class Writes(Protocol):
    """What writes: the `Models` of a verifier, or the `Search` of a strategy."""

    async def complete(
        self,
        nodes: Sequence[Node],
        n: int = 1,
        *,
        temperature: float | None = None,
        stop: tuple[str, ...] | None = None,
        max_tokens: int | None = None,
    ) -> list[Node]:
        """`n` continuations of each node to the end."""


class WrittenTests:
    """Share of the tests the model writes for the problem that the candidate's code passes, run in the sandbox.

    The tests are written once a search, from the problem alone; they may be wrong. One that contradicts a public test
    is dropped, public tests are not otherwise looked at: `weighted:tests=3:written-tests=1` has both. Text without
    code scores 0, and the model is not asked for its sake. Where no test could be read all code scores 0.5. The tests,
    and what each said, are noted. Each candidate is scored by itself, so neither company nor order matters: the
    agreement of candidates, the other half of CodeT, is for a strategy. Costs the tokens of the tests once a search.

    Source: Chen et al. 2022, CodeT (2207.10397), tests; Li et al. 2022, AlphaCode (2203.07814).
    """

    name = "written-tests"
    params = 0
    sees_answer = False
    __slots__ = ("__dict__", "_written")
    # Its settings are in __dict__, where a store reads what scores depend on; the tests are not.

    def __init__(self, *, n: int = 8, temperature: float = 0.0, seconds: float = 5.0) -> None:
        """`n` tests are asked for; `seconds` is per test. At a `temperature` above 0 the tests of a search whose
        branches score side by side may depend on which comes first.

        ConfigError for numbers that make no sense, and as in `sandbox.allowed`.
        """
        _whole(n)
        if not 0 <= temperature <= 2:
            raise ConfigError(f"temperature={temperature!r} is not allowed: a number from 0 to 2")
        sandbox.allowed(seconds=seconds)
        self.n, self.temperature, self.seconds = n, temperature, seconds
        self._written: dict[int, tuple[Problem, list[str]]] = {}

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node. SandboxError when there is no sandbox, before anything is asked."""
        unseen(self.name, problem)
        if all(extract(node.solution, "code") is None for node in nodes):
            return [Score(0.0, (), self.name) for _ in nodes]
        sandbox.working()
        tests = await self.tests(problem, models)
        return await shares(self.name, problem, nodes, _tests(problem, tests), models, seconds=self.seconds)

    async def tests(self, problem: Problem, models: Models) -> list[str]:
        """The tests that candidates of this problem are scored by, as asserts; written when first asked for."""
        # A search has a problem object of its own, and pays for its tests whatever was searched before it.
        kept = self._written.get(id(problem))
        if kept is not None:
            await models.complete([])  # draws nothing; a store learns that the model has a say
            return kept[1]
        found = await write_tests(problem, models, n=self.n, temperature=self.temperature)
        models.note(verifier=self.name, tests=found)
        while len(self._written) >= REMEMBERED:
            del self._written[next(iter(self._written))]
        return self._written.setdefault(id(problem), (problem, found))[1]


async def write_tests(problem: Problem, models: Writes, *, n: int = 8, temperature: float = 0.0) -> list[str]:
    """At most `n` different asserts, in the order written: what `read_asserts` finds in one completion.

    None where nothing says which function is asked for; then nothing is drawn. Costs the prompt and at most 40 n
    tokens: verifier tokens for `Models`, generated ones for `Search`.
    """
    _whole(n)
    if not asked(problem):
        return []
    begun, room = _begun(problem, n), TOKENS * n
    drawn = await models.complete([begun], temperature=temperature, stop=(END,), max_tokens=room)
    text = drawn[0].text if drawn else ""
    if drawn and drawn[0].finish is Finish.LENGTH:  # of 12 the last line may have kept the 1
        text = text.rpartition("\n")[0]
    first = text.partition("\n")[0]  # what was begun for it goes on here; but a policy may begin anew
    return read_asserts(f"{begun.text}{first}\n{text}", problem)[:n]


def results(problem: Problem, node: Node, tests: Sequence[str], *, seconds: float = 5.0) -> list[bool]:
    """For each of the asserts, whether the node's code passes it in the sandbox; all false without code."""
    found = failures(problem, node, _tests(problem, tests), seconds=seconds)
    return [False] * len(tests) if found is None else [not why for why in found]


def asked(problem: Problem) -> str:
    """The function that is asked for: `entry` of the meta, else the last one defined in the prompt, else the first one
    called in a public test or the prompt; empty where there is none."""
    entry = problem.meta.get("entry")
    if isinstance(entry, str) and entry:
        return entry
    defined = DEFINED.findall(problem.prompt)
    if defined:
        return str(defined[-1])
    given = problem.meta.get("public")
    public = [given] if isinstance(given, str) else given if isinstance(given, Sequence) else []
    called = CALLED.findall("\n".join([*(line for line in public if isinstance(line, str)), problem.prompt]))
    return next((name for name in called if name not in BUILTINS and not keyword.iskeyword(name)), "")


def read_asserts(text: str, problem: Problem) -> list[str]:
    """The lines that are a test of the function asked for, without repeats and messages.

    That is `assert CALL == LITERAL` (or `is`), or a bare or negated call, with no names but the function's and Python's
    own. Of two tests with the same call the first counts, and none that a public test contradicts.
    """
    entry = asked(problem)
    settled = {_called(test): test for test in sandbox.public(problem.meta) if isinstance(test, sandbox.Call)}
    found: dict[str, str] = {}
    for line in text.splitlines():
        test = _read(line.strip(), entry)
        if test is None:
            continue
        call, source = _called(test[0]), test[1]
        if call in settled and sandbox.canonical(settled[call].expected) != sandbox.canonical(test[0].expected):
            continue
        found.setdefault(call, source)
    return list(found.values())


def _read(line: str, entry: str) -> tuple[sandbox.Call, str] | None:
    """The test a line is, and how it is spelled; None for every other line."""
    if not line.startswith("assert") or len(line) > LINE:
        return None
    try:
        with warnings.catch_warnings():  # Python has opinions on what models write, such as "\d"
            warnings.simplefilter("ignore")
            [statement] = ast.parse(line).body
            [test] = sandbox.asserts(line, entry=entry)
            if not isinstance(statement, ast.Assert) or not isinstance(test, sandbox.Call):
                return None
            nodes = list(ast.walk(ast.parse(test.expression)))
            source = ast.unparse(ast.Assert(statement.test, None))
    except (SyntaxError, ValueError, RecursionError, MemoryError, ConfigError):
        return None
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    return (test, source) if entry in called and names <= BUILTINS | {entry} else None


def _called(test: sandbox.Call) -> str:
    """What is evaluated, whether or not only its truth is asked for."""
    expression = test.expression
    return expression[5:-1] if expression.startswith("bool(") and expression.endswith(")") else expression


def _tests(problem: Problem, tests: Sequence[str]) -> list[sandbox.Test]:
    entry = asked(problem)
    return [test for source in tests for test in sandbox.asserts(source, entry=entry)]


def _begun(problem: Problem, n: int) -> Node:
    """The request for tests, and the beginning of the first: left to themselves, small models write the function."""
    entry = asked(problem)
    task = (
        f"Do not write {entry}. Write {n} different tests of it, for usual and for unusual arguments. Each is one line "
        f"of this form, with both values written out:\nassert {entry}(...) == ..."
    )
    messages = (Message("user", f"{problem.prompt.strip()}\n\n{task}"),)
    root = Node(messages=messages, key=digest("tests", messages)[:32])
    begun = f"```python\nassert {entry}"  # a vocabulary may have tokens that begin with the parenthesis
    return Node(root, begun, None, finish=Finish.FORCED, key=digest(root.key, begun)[:32])


def _whole(n: int) -> None:
    if not isinstance(n, int) or not 1 <= n <= MOST:
        raise ConfigError(f"n={n!r} is not allowed: a whole number from 1 to {MOST}")
