"""Functions a client offers: put to the model, found in what it writes, voted on."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flyweight.select import alike
from flyweight.server.errors import ApiError
from flyweight.server.schema import ToolChoice, Turn
from flyweight.types import Message, Problem, ToolMessage

__all__ = ["CallAnswers", "Calls", "conversation", "find"]

OPENING, CLOSING = "<tool_call>\n", "\n</tool_call>"
OPENS, CLOSES = re.compile(r"<tool_call>\s{0,20}"), re.compile(r"\s{0,20}(?:</tool_call>|\Z)")
MOST = 128
"""Places looked at in one answer: more calls nobody makes."""
FENCED = re.compile(r"\A\s{0,20}(?:```(?:json)?\s{0,20})?(\{.{0,20000}\})\s{0,20}(?:```)?\s{0,20}\Z", re.DOTALL)
"""A call without its tags, if it is all there is: small models forget them."""
NO_CALL = "no call"
DECODER = json.JSONDecoder()


class Calls(NamedTuple):
    """What an answer holds."""

    text: str
    """Without the calls."""
    calls: list[tuple[str, dict[str, Any]]]
    """Names and arguments."""


def find(text: str, names: Sequence[str], *, one: bool = False) -> Calls:
    """The calls of these functions in a text, with `one` the first alone. What is no call of one of them stays text."""
    found: list[tuple[str, dict[str, Any]]] = []
    left, done = "", 0
    for opening in itertools.islice(OPENS.finditer(text), MOST):
        read = _read(text, opening.end()) if opening.start() >= done else None
        if read is not None and (closing := CLOSES.match(text, read.end)) and (call := _call(read.value, names)):
            found.append(call)
            left, done = left + text[done : opening.start()], closing.end()
    if found:
        return Calls((left + text[done:]).strip(), found[:1] if one else found)
    whole = FENCED.match(text)
    read = _read(whole[1], 0) if whole else None
    if whole and read and read.end == len(whole[1]) and (call := _call(read.value, names)):
        return Calls("", [call])
    return Calls(text, [])


class _Read(NamedTuple):
    """A JSON value in a text, and where it ends there."""

    value: Any
    end: int


def _read(text: str, at: int) -> _Read | None:
    try:
        return _Read(*DECODER.raw_decode(text, at))
    except (ValueError, RecursionError):
        return None


def _call(value: Any, names: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    try:
        name, arguments = value["name"], value.get("arguments", value.get("parameters", {}))
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return (name, arguments) if name in names and isinstance(arguments, dict) else None


def canonical(calls: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Calls in a form that is equal when they are: keys sorted, one way to write a number, order kept."""
    plain = [{"name": name, "arguments": _plain(arguments)} for name, arguments in calls]
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


class CallAnswers:
    """How answers are compared where functions may be called: by the calls. All that call none are of one mind."""

    def __init__(self, names: Sequence[str], *, one: bool = False) -> None:
        self._names = names
        self._one = one

    def extract(self, text: str) -> str:
        """The calls in their canonical form; `no call` for a plain answer."""
        calls = find(text, self._names, one=self._one).calls
        return canonical(calls) if calls else NO_CALL

    def classes(self, answers: Sequence[str | None], problem: Problem) -> list[list[int]]:
        """Equal calls together, the largest class first."""
        return alike(answers)


def conversation(turns: Sequence[Turn], offered: Sequence[Mapping[str, Any]], system: str | None) -> list[Message]:
    """The turns as the models get them, `system` in front unless there is one. ApiError 400 for turns out of place.

    A developer's turn is a system's; several of these at the beginning are one.
    """
    messages: list[Message] = []
    open_calls: set[str] = set()
    for index, turn in enumerate(turns):
        where = f"messages.{index}"
        if turn.role in ("system", "developer"):
            if messages and messages[-1].role == "system" and len(messages) == 1:
                messages[0] = Message("system", f"{messages[0].content}\n\n{turn.text}")
            else:
                messages.append(Message("system", turn.text))
        elif turn.role == "tool":
            if turn.tool_call_id not in open_calls:
                raise ApiError(400, f"{where}: tool_call_id names no call made before", param=where)
            messages.append(Message("tool", turn.text))
        elif turn.role == "assistant" and turn.tool_calls:
            open_calls |= {call.id for call in turn.tool_calls}
            calls = [_made(call.function.name, call.function.arguments, where) for call in turn.tool_calls]
            messages.append(ToolMessage("assistant", turn.text, calls=json.dumps(calls, ensure_ascii=False)))
        else:
            if turn.content is None:
                raise ApiError(400, f"{where}: content is missing", param=f"{where}.content")
            messages.append(Message("assistant" if turn.role == "assistant" else "user", turn.text))
    if system and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    if offered:
        first = messages[0]
        tools = json.dumps(list(offered), ensure_ascii=False)
        calls_made = first.calls if isinstance(first, ToolMessage) else ""
        messages[0] = ToolMessage(first.role, first.content, tools=tools, calls=calls_made)
    return messages


def _made(name: str, arguments: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ApiError(400, f"{where}: the arguments of {name} are not a JSON object", param=f"{where}.tool_calls")
    return {"name": name, "arguments": value}


def forced(choice: str | ToolChoice | None) -> str | None:
    """The function that must be called: its name, "" for any, None where none must be."""
    if isinstance(choice, ToolChoice):
        return choice.function.name
    return "" if choice == "required" else None
