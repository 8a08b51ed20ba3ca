"""Verifiers that run the candidate: the share of public tests its code passes, or a command that accepts it."""

from __future__ import annotations

import os
import shlex
import shutil
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from flyweight import sandbox
from flyweight.answers import extract
from flyweight.errors import BackendError, ConfigError
from flyweight.protocols import Models, Search
from flyweight.types import Node, Problem, Score

__all__ = ["NEUTRAL", "Command", "Tests", "beside", "failures", "shares", "unseen"]

NEUTRAL = 0.5
"""Score of all code where there is no test to tell it apart by."""

T = TypeVar("T")
R = TypeVar("R")

TEXT = "/candidate/text"
"""Where a command finds the candidate's whole text."""
QUESTION = "/candidate/question"


class Tests:
    """Share of the public tests that the candidate's code passes, run in the sandbox.

    The tests are those of the setting `file`, or of the problem itself (`public` in its meta); the tests that grade a
    benchmark are never among them. What each one said is noted. Text without code scores 0. Where a programming problem
    shows no test (24 of HumanEval's do not), all code scores 0.5: nothing tells it apart. Costs no tokens.

    Source: Chen et al. 2022, CodeT (2207.10397), with given tests; Li et al. 2022, AlphaCode (2203.07814), filtering.
    """

    name = "tests"
    params = 0
    sees_answer = False

    def __init__(self, *, file: str = "", seconds: float = 5.0) -> None:
        """`file` holds Python asserts, or JSON lines with "stdin" and "expected"; `seconds` is per test.

        ConfigError for a file that cannot be used, and as in `sandbox.allowed`.
        """
        sandbox.allowed(seconds=seconds)
        self.tests = tuple(sandbox.read_tests(Path(file))) if file else ()
        self.seconds = seconds

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node. BackendError for a problem that is none of programming, where no tests are given;
        SandboxError when there is no sandbox."""
        unseen(self.name, problem)
        tests = self.tests or sandbox.public(problem.meta)
        if not tests and "public" not in problem.meta:
            raise BackendError(f"the verifier tests needs public tests, and problem {problem.id!r} has none")
        return await shares(self.name, problem, nodes, tests, models, seconds=self.seconds)


def unseen(name: str, problem: Problem) -> None:
    """BackendError for a problem that still holds what grades it: tests that score must not be those."""
    if problem.answer is not None:
        raise BackendError(
            f"the verifier {name} was shown the answer to problem {problem.id!r}: strip it before scoring"
        )


def failures(
    problem: Problem, node: Node, tests: Sequence[sandbox.Test], *, seconds: float = 5.0
) -> tuple[str, ...] | None:
    """Why the node's code failed each test, empty where it passed; None where there is no code.

    What is said of a failure may quote the program: untrusted text. `seconds` is per test; SandboxError when there is
    no sandbox.
    """
    code = extract(node.solution, "code")
    if code is None or not tests:
        return None if code is None else ()
    return sandbox.check(sandbox.program(problem.meta, code), tests, seconds=seconds).failures


async def shares(
    name: str, problem: Problem, nodes: Sequence[Node], tests: Sequence[sandbox.Test], models: Models, *, seconds: float
) -> list[Score]:
    """One Score per node, of the verifier called `name`: the share of the tests that its code passes, 0 without code,
    NEUTRAL for all code where there are no tests. Equal programs run once. What each test said is put on the record.
    As in `failures`."""
    codes = [extract(node.solution, "code") for node in nodes]
    different = dict(zip(codes, nodes, strict=True))
    said = await beside(lambda node: failures(problem, node, tests, seconds=seconds), different.values(), models)
    of_code = dict(zip(different, said, strict=True))
    found = [of_code[code] for code in codes]
    models.note(verifier=name, failures={node.key: each for node, each in zip(nodes, found, strict=True)})
    values = (0.0 if each is None else each.count("") / len(each) if each else NEUTRAL for each in found)
    return [Score(value, (), name) for value in values]


class Command:
    """1 where a command accepts the candidate with exit status 0, else 0. It runs in the sandbox.

    It reads the candidate's answer on stdin; its whole text is in the file /candidate/text, the question in
    /candidate/question. It sees the system's programs, this Python with its packages and the files and folders that
    its own words name, all read-only, and no network.
    """

    name = "check"
    params = 0
    sees_answer = False

    def __init__(self, command: str, *, kind: str = "math", seconds: float = 10.0) -> None:
        """`command` is split into words as a shell does, but no shell runs it; `kind` says how answers are read.

        ConfigError for a command that is not there, and as in `sandbox.allowed`.
        """
        sandbox.allowed(seconds=seconds)
        try:
            words = shlex.split(command)
        except ValueError as error:
            raise ConfigError(f"the check {command!r} cannot be read: {error}") from error
        if not words:
            raise ConfigError("the check is empty: give a command, for example 'python check.py'")
        self.visible = tuple(dict.fromkeys(os.path.abspath(word) for word in words if _shown(word)))
        if "/" in words[0] and not os.path.isfile(words[0]):
            raise ConfigError(f"the check {command!r}: there is no file {words[0]!r}")
        if "/" not in words[0] and shutil.which(words[0]) is None:
            raise ConfigError(f"the check {command!r}: there is no command {words[0]!r}")
        self.words = [os.path.abspath(word) if _shown(word) else word for word in words]
        self.kind, self.seconds = kind, seconds

    async def score(self, problem: Problem, nodes: Sequence[Node], models: Models) -> list[Score]:
        """One Score per node. SandboxError when there is no sandbox, BackendError when the command cannot start."""

        def accepted(node: Node) -> float:
            answer = extract(node.solution, self.kind)
            if answer is None:
                return 0.0
            files = {TEXT: node.solution, QUESTION: problem.prompt}
            done = sandbox.execute(self.words, stdin=answer, files=files, visible=self.visible, seconds=self.seconds)
            if done.status == sandbox.CANNOT_START:
                raise BackendError(f"the check {shlex.join(self.words)!r} cannot be started in the sandbox")
            return float(done.status == 0)

        return [Score(value, (), self.name) for value in await beside(accepted, nodes, models)]


def _shown(word: str) -> bool:
    """Whether a word of the command names something that it should see; what holds the home folder is too much."""
    home = Path(os.path.realpath(os.path.expanduser("~")))
    return os.path.exists(word) and not word.startswith("-") and not home.is_relative_to(os.path.realpath(word))


async def beside(run: Callable[[T], R], given: Collection[T], searching: Models | Search) -> list[R]:
    """`run` of each on other threads, as many at a time as there are processors, while everything else goes on.

    A search that ends meanwhile leaves those that are under way to themselves; the others are not begun.
    """
    started = [Future[R]() for _ in given]
    for future, each in zip(started, given, strict=True):
        _waiting().put((future, partial(run, each)))
    try:
        return [future.result() if future.done() else await searching.wait(future) for future in started]
    finally:
        for future in started:
            future.cancel()


@cache
def _waiting() -> SimpleQueue[tuple[Future[Any], Callable[[], Any]]]:
    """What is to be run by the threads of all searches: a program may take half a gigabyte.

    They are daemons, which no end of the process waits for; the programs end with it.
    """
    found: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
    for _ in range(os.cpu_count() or 1):
        threading.Thread(target=_work, args=(found,), name="flyweight-programs", daemon=True).start()
    return found


def _work(waiting: SimpleQueue[tuple[Future[Any], Callable[[], Any]]]) -> None:
    while True:
        future, run = waiting.get()
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(run())
            except Exception as error:
                future.set_exception(error)
