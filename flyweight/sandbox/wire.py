"""What comes out of a sandbox, plain data and printed text, and when two pieces of it are the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

__all__ = ["Iterated", "Malformed", "canonical", "decode", "printed", "same"]


class Malformed(ValueError):
    """What came is no value."""


class Iterated(list[object]):
    """What an iterator gave; equal to nothing but another one's."""


def decode(text: str | bytes) -> object:
    """The value that `inside.py` spelled as JSON. Malformed for everything else: a program may write what it likes."""
    try:
        return _plain(json.loads(text))
    except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError) as error:
        raise Malformed(f"not a value: {type(error).__name__}") from error


def _plain(value: object) -> object:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    [(kind, inner)] = value.items()
    if kind == "b":
        return bytes.fromhex(inner)
    if kind == "d":
        return {_plain(pair["t"][0]): _plain(pair["t"][1]) for pair in inner}
    makers: dict[str, Callable[[Iterable[object]], object]] = {"t": tuple, "s": frozenset, "g": Iterated}
    if kind == "c":
        real, imaginary = inner
        return complex(real, imaginary)
    return makers[kind]([_plain(item) for item in inner])


def printed(text: str) -> list[str]:
    """What counts of an output: its lines without spaces at their ends, and no empty ones at the end."""
    return [line.rstrip() for line in text.rstrip().split("\n")]


def same(value: object, expected: object) -> bool:
    """Whether two pieces of plain data are equal, as Python's own `==` has it.

    So lists and tuples differ, a whole float equals the int, and False equals 0: benchmarks grade by `==`, and data of
    plain types has no `==` of its own to cheat with. An iterator equals another one that gives the same.
    """
    if isinstance(value, int | float | complex) and isinstance(expected, int | float | complex):
        return value == expected
    if isinstance(value, set | frozenset) and isinstance(expected, set | frozenset):
        return value == expected
    if type(value) is not type(expected):
        return False
    if isinstance(value, list | tuple):
        assert isinstance(expected, list | tuple)
        return len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(value, dict):
        assert isinstance(expected, dict)
        return value.keys() == expected.keys() and all(same(item, expected[key]) for key, item in value.items())
    return value == expected


def canonical(value: object) -> str:
    """A spelling that is equal for values that are the same, fractions to ten digits. For what `decode` gives, whose
    whole numbers have 4,300 digits at most.
    """
    if isinstance(value, complex) and value.imag == 0:
        return canonical(value.real)
    if isinstance(value, complex):
        return f"complex({canonical(value.real)},{canonical(value.imag)})"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return f"{type(value).__name__}({','.join(map(canonical, value))})"
    if isinstance(value, set | frozenset):
        return f"set({','.join(sorted(map(canonical, value)))})"
    if isinstance(value, dict):
        return f"dict({','.join(sorted(f'{canonical(key)}:{canonical(item)}' for key, item in value.items()))})"
    return repr(value)
