"""How single values stand in a store's file: texts, numbers, names as JSON, and back; ValueError for what is none."""

from __future__ import annotations

import json
import math
import struct
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import Any, Literal, get_args

from flyweight.store.units import Kind, pack, unpack
from flyweight.types import Finish

__all__ = [
    "LARGEST",
    "Json",
    "Precision",
    "floats_bytes",
    "floats_value",
    "json_line",
    "moment",
    "name_bytes",
    "number_value",
    "numbers_bytes",
    "string",
    "text_bytes",
    "text_value",
    "whole",
]

Precision = Literal["none", "float16", "float32"]
"""How exact log-probabilities and certainties are in a file; with "none" there are none."""
Json = dict[str, Any]

LARGEST = 1 << 63
GRADES = ("correct", "wrong", "undecided", "retry")


def json_line(row: Json) -> bytes:
    return json.dumps(row, separators=(",", ":")).encode("ascii") + b"\n"


def text_value(data: bytes) -> str | Json:
    """A text; as base64 where JSON would not give the same bytes back (two halves of a surrogate pair side by side)."""
    with suppress(UnicodeDecodeError):
        text = data.decode("utf-8", "surrogatepass")
        if json.loads(json.dumps(text)) == text:
            return text
    return {"base64": b64encode(data).decode("ascii")}


def text_bytes(text: str | Json) -> bytes:
    """What `text_value` wrote."""
    return b64decode(text["base64"], validate=True) if isinstance(text, dict) else text.encode("utf-8", "surrogatepass")


def floats_value(data: bytes, precision: Precision) -> str:
    """Packed float32 as `precision`, or as they are if one is too large for it."""
    width = 4
    if precision == "float16":
        with suppress(OverflowError):
            data, width = struct.pack(f"<{len(data) // 4}e", *unpack("f", data)), 2
    planes = b"".join(data[place::width] for place in reversed(range(width)))
    return f"float{8 * width} {b64encode(planes).decode('ascii')}"


def floats_bytes(written: str) -> bytes:
    """Packed float32."""
    precision, _, coded = written.partition(" ")
    planes = b64decode(coded, validate=True)
    width, letter = {"float16": (2, "e"), "float32": (4, "f")}[precision]
    count = len(planes) // width
    if count * width != len(planes):
        raise ValueError("half a number")
    data = bytearray(len(planes))
    for number, place in enumerate(reversed(range(width))):
        data[place::width] = planes[number * count : (number + 1) * count]
    return bytes(data) if width == 4 else pack("f", struct.unpack(f"<{count}{letter}", data))


def number_value(value: float) -> float | str:
    """JSON has no infinities."""
    return value if math.isfinite(value) else repr(value)


def numbers_bytes(kind: str, label: str, numbers: list[Any]) -> bytes:
    """A unit's numbers, packed; ValueError for what no unit of that kind has."""
    if kind not in get_args(Kind):
        raise ValueError(f"{kind!r} is no unit")
    if kind == "generation":
        Finish(label)
        return pack("i", numbers)
    if kind == "reading":
        Finish(label)
    elif kind == "grade" and label not in GRADES:
        raise ValueError(f"{label!r} is no grade")
    values = [float(number) for number in numbers]
    if kind in ("score", "judgement", "comparison") and not (values and all(0 <= value <= 1 for value in values)):
        raise ValueError("scores lie between 0 and 1")
    return pack("d", values)


def name_bytes(written: str, size: int) -> bytes:
    """A key or a sum."""
    name = bytes.fromhex(written)
    if len(name) != size:
        raise ValueError(f"{written!r} is not {size} bytes")
    return name


def whole(value: object, limit: int = LARGEST) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise ValueError(f"{value!r} is no count")
    return value


def moment(value: Any) -> float:
    """Seconds since 1970."""
    if not math.isfinite(value):
        raise ValueError(f"{value!r} is no time")
    return float(value)


def string(value: object) -> str:
    """A text that SQLite takes as one."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    value.encode()
    return value
