"""Voting over code by what it does: programs that give the same outputs on the same inputs are one answer."""

from __future__ import annotations

import ast
import builtins
import os
import random
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from flyweight import sandbox
from flyweight.answers.canonical import canonical
from flyweight.answers.extract import extract
from flyweight.sandbox import Call, Outcome, Statements, Stdin, Test
from flyweight.sandbox.wire import printed
from flyweight.select import alike
from flyweight.types import Problem, digest

__all__ = ["Behaviour", "inputs"]

INPUTS = 24
"""Inputs that programs are compared on, the examples among them."""
TRIES = 20
"""Mutations tried for every input wanted."""
SECONDS = 2.0
"""Wall time of a program on one input; what takes longer is an output too: none in time."""

WHOLE = re.compile(r"-?[0-9]{1,1000}")
"""Numbers that are mutated; Python refuses to read or write those of more than 4,300 digits."""
REMEMBERED = 50_000
"""Programs whose outputs are remembered; then it begins anew."""

Input = Call | Stdin


class Behaviour:
    """How code votes: `protocols.Answers` over programs.

    Every program runs on the inputs of the public examples and on mutations of them (`inputs`), in the sandbox. Same
    outputs on all inputs make a class, so classes are transitive and independent of order. Any error is one output, any
    lack of time or memory another; a program that gives no value at all is in no class. A program that is the only one
    is not run. Without a usable input, equal source makes a class. What an example expects is not looked at.

    Cost: one sandbox per distinct program of a problem, however often it is asked about. Source: Li et al. 2022,
    AlphaCode (2203.07814), section 4.6, clustering.
    """

    def __init__(self, examples: Sequence[Test] = ()) -> None:
        """`examples` are public tests for whatever is asked; without them each problem's own (`sandbox.public`)."""
        self._examples = tuple(examples)
        self._inputs: dict[str, list[Input]] = {}
        self._seen: dict[tuple[str, str], str | None] = {}

    def extract(self, text: str) -> str | None:
        """The last fenced block, else the whole text when it is a program, else None."""
        found = extract(text, "code")
        if found is not None and found != text.strip():
            return found
        return text.strip() if _is_program(text) else None

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        """Indices of programs that behave the same, largest class first.

        SandboxError when there is no sandbox to run the inputs in, even for no answers.
        """
        setting = digest(*(problem.meta.get(key) for key in ("public", "entry", "before", "after")))
        if setting not in self._inputs:
            self._inputs[setting] = inputs(self._examples or sandbox.public(problem.meta))
        given = self._inputs[setting]
        if given:
            sandbox.working()
        if len(set(answers) - {None}) == 1:  # nothing to tell it apart from: not worth a sandbox
            return [[index for index, code in enumerate(answers) if code is not None]]
        if len(self._seen) > REMEMBERED:
            self._seen.clear()
        codes = [code for code in dict.fromkeys(answers) if code is not None and (setting, code) not in self._seen]
        with ThreadPoolExecutor(min(len(codes), os.cpu_count() or 1) or 1) as pool:
            signatures = pool.map(lambda code: _signature(problem, code, given), codes)
            self._seen.update(zip(((setting, code) for code in codes), signatures, strict=True))
        return alike([None if code is None else self._seen[setting, code] for code in answers])


def _signature(problem: Problem, code: str, given: Sequence[Input]) -> str | None:
    """Digest of the program's outputs, equal for programs that behave the same; None when it never gave any."""
    if not given:
        return canonical(code, "code")
    outcomes = sandbox.evaluate(sandbox.program(problem.meta, code), given, seconds=SECONDS)
    if all(outcome.kind != "value" for outcome in outcomes):
        return None
    return digest(*map(_output, outcomes))


def _output(outcome: Outcome) -> str:
    if outcome.kind != "value":
        return outcome.kind
    if isinstance(outcome.value, str):
        return "value " + repr(printed(outcome.value))
    return "value " + sandbox.canonical(outcome.value)


def _is_program(text: str) -> bool:
    try:
        with warnings.catch_warnings():  # Python has opinions on what models write, such as "\d"
            warnings.simplefilter("ignore")
            body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(statement, ast.Expr) or isinstance(statement.value, ast.Call) for statement in body)


def inputs(examples: Sequence[Test]) -> list[Input]:
    """At most `INPUTS` different inputs: those of the examples in order, then mutations of them, always the same ones.

    A mutation keeps types, signs, alphabets and non-emptiness, and the length of whatever an argument is the length of:
    it should be an input that the problem is about.
    """
    found: dict[Input, None] = {}
    calls: list[tuple[str, list[object]]] = []
    stdins = [test.stdin for test in examples if isinstance(test, Stdin)]
    for test in examples:
        if isinstance(test, Stdin):
            found[Stdin(test.stdin, "")] = None
            continue
        if isinstance(test, Call):
            found[Call(test.expression, None)] = None
        for name, arguments in _calls(test):
            found[Call(_written(name, arguments), None)] = None
            calls.append((name, arguments))
    rng = random.Random(digest(*(_written(*call) for call in calls), *stdins))
    for _ in range(TRIES * INPUTS if calls or stdins else 0):
        if len(found) >= INPUTS:
            break
        if calls:
            name, arguments = rng.choice(calls)
            found[Call(_written(name, _mutated_arguments(arguments, rng)), None)] = None
        else:
            found[Stdin(_mutated_lines(rng.choice(stdins), rng), "")] = None
    return list(found)[:INPUTS]


def _written(name: str, arguments: Sequence[object]) -> str:
    return f"{name}({', '.join(map(_spelled, arguments))})"


def _spelled(value: object) -> str:
    """The literal, sets in a fixed order: that of their own spelling changes from one process to the next."""
    if isinstance(value, set) and value:
        return f"{{{', '.join(sorted(map(_spelled, value)))}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_spelled, value))}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_spelled(key)}: {_spelled(item)}' for key, item in value.items())}}}"
    return repr(value)


def _calls(test: Call | Statements) -> Iterator[tuple[str, list[object]]]:
    """Calls of the program with nothing but literals for arguments."""
    names = dict(test.names) if isinstance(test, Statements) else None
    for node in ast.walk(ast.parse(test.expression if isinstance(test, Call) else test.source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.keywords or not node.args:
            continue
        name = node.func.id
        if hasattr(builtins, name) if names is None else name not in names:
            continue
        try:
            yield (names or {}).get(name, name), [ast.literal_eval(argument) for argument in node.args]
        except (ValueError, TypeError, SyntaxError):
            continue


def _mutated_arguments(arguments: Sequence[object], rng: random.Random) -> list[object]:
    """One or more arguments changed; an argument that is another's length stays, and so does that length."""
    lengths = {len(a) for a in arguments if isinstance(a, str | list | tuple)}
    counts = {a for a in arguments if type(a) is int and a in lengths}
    free = [i for i, a in enumerate(arguments) if not (type(a) is int and a in counts)]
    chosen = set(rng.sample(free, rng.randint(1, len(free)))) if free else set()
    return [_mutated(a, rng, bool(counts)) if i in chosen else a for i, a in enumerate(arguments)]


def _mutated(value: object, rng: random.Random, same_length: bool = False) -> object:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return _number(value, rng)
    if isinstance(value, float):
        return round(value * rng.choice((0.5, 1.5, 2.0)) + rng.choice((0, 0.25)), 6)
    if isinstance(value, str):
        return "".join(map(str, _series(list(value), rng, same_length, lambda c: rng.choice(value))))
    if isinstance(value, list | tuple):
        changed = _series(list(value), rng, same_length, lambda item: _mutated(item, rng, same_length))
        return type(value)(changed)
    if isinstance(value, set):
        items = _series(sorted(value, key=repr), rng, False, lambda item: _mutated(item, rng))
        return type(value)(items)
    if isinstance(value, dict):
        return {key: _mutated(item, rng) if rng.random() < 0.5 else item for key, item in value.items()}
    return value


def _number(value: int, rng: random.Random) -> int:
    """A whole number of the same sign."""
    step = rng.randint(1, max(2, abs(value) // 2))
    size = rng.choice((abs(value) + step, max(1, abs(value) - step), abs(value) * 2, abs(value) + 1))
    return -size if value < 0 else size


def _series(
    items: list[object], rng: random.Random, same_length: bool, change: Callable[[object], object]
) -> list[object]:
    """The items with one changed, or in another order, or one more or one fewer, but never none of some."""
    if not items:
        return items
    at = rng.randrange(len(items))
    how = rng.choice(
        ("change", "change", "shuffle") if same_length else ("change", "change", "shuffle", "more", "fewer")
    )
    if how == "shuffle":
        return rng.sample(items, len(items))
    if how == "more":
        return [*items[:at], change(items[at]), *items[at:]]
    if how == "fewer" and len(items) > 1:
        return items[:at] + items[at + 1 :]
    return [change(item) if i == at else item for i, item in enumerate(items)]


def _mutated_lines(text: str, rng: random.Random) -> str:
    """The stdin with one or two of its whole numbers changed, but for those that count the lines or numbers after them;
    without numbers, with the letters of a line in another order.
    """
    lines = [line.split(" ") for line in text.split("\n")]
    places = [(i, j) for i, line in enumerate(lines) for j, word in enumerate(line) if WHOLE.fullmatch(word)]
    counts = {len(line) for line in lines} | {len([line for line in lines if line != [""]]) - 1}
    free = [
        (i, j) for i, j in places if not (len(lines[i]) == 1 and int(lines[i][0]) in counts and i + 1 < len(places))
    ]
    for i, j in rng.sample(free, min(len(free), rng.randint(1, 2))):
        lines[i][j] = str(_number(int(lines[i][j]), rng))
    if not places:
        i = rng.randrange(len(lines))
        word = " ".join(lines[i])
        lines[i] = ["".join(rng.sample(word, len(word)))]
    return "\n".join(" ".join(line) for line in lines)
