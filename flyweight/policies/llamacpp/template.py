"""Chat templates from model files: Jinja source we do not trust, rendered in a sandbox with a budget.

On top of jinja2's ImmutableSandboxedEnvironment: the source, every string made by an operator, and the output have a
largest size, and loop rounds and calls are counted, so that a hostile template ends in one line instead of a hang.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

from jinja2 import TemplateError, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context as JinjaContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flyweight.errors import ModelError
from flyweight.types import Message, ToolMessage

__all__ = ["ChatTemplate", "in_words"]

LONGEST_SOURCE = 1 << 16
LONGEST_TEXT = 1 << 20
"""Characters a template may produce, in all or in one string."""
WORK = 50_000
"""Loop rounds plus calls of one rendering."""
FILTERS = """
abs capitalize count default d dictsort first float int items join last length list lower map max min reject rejectattr
replace reverse round safe select selectattr sort string sum title trim unique upper
"""
"""Filters templates use; others, which can blow up a string, are unknown to them."""
WIDENING = {"format", "format_map", "center", "ljust", "rjust", "zfill", "expandtabs", "translate"}
"""String methods that make long strings out of short ones."""
TOOLS = """You may call functions. Those you have, as JSON:
{tools}
To call one, answer with its name and arguments as a JSON object between tags, once for each call:
<tool_call>
{{"name": "NAME", "arguments": {{}}}}
</tool_call>"""
"""Said to models whose own template knows nothing of tools."""


class ChatTemplate:
    """Turns messages into the text a model was trained to continue.

    Without a template in the model file (base models): the contents, each followed by a blank line. Tools, calls and
    what they gave back are put into words where the template has no place for them.
    """

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Compile `source`. One that is too large or not valid Jinja is a ModelError; an empty one is the fallback."""
        self._facts = {"bos_token": bos, "eos_token": eos, "add_generation_prompt": True}
        self._environment = _Sandbox()
        self._template = None
        self._has_tools = "tools" in source
        if not source:
            return
        if len(source) > LONGEST_SOURCE:
            raise ModelError(f"chat template of {len(source)} characters; at most {LONGEST_SOURCE} are accepted")
        try:
            tree = self._environment.parse(source)
            _meter(tree)
            self._template = self._environment.from_string(tree)
        except (TemplateError, RecursionError, SyntaxError, MemoryError) as error:
            raise ModelError(f"chat template does not compile: {_line(error)}") from None

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt up to where the assistant speaks; a template that refuses these messages is a ModelError."""
        if not self._has_tools:
            messages = in_words(messages)
        if self._template is None:
            return "".join(f"{message.content}\n\n" for message in messages)
        tools = next((json.loads(m.tools) for m in messages if isinstance(m, ToolMessage) and m.tools), None)
        self._environment.begin()
        try:
            return self._template.render(messages=[_turn(message) for message in messages], tools=tools, **self._facts)
        except Exception as error:  # template code may raise whatever Python can
            raise ModelError(f"chat template failed: {_line(error)}") from None


def _turn(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if isinstance(message, ToolMessage) and message.calls:
        turn["tool_calls"] = [{"type": "function", "function": call} for call in json.loads(message.calls)]
    return turn


def in_words(messages: Sequence[Message]) -> list[Message]:
    """The same conversation for a model that was never told of tools."""
    turns: list[Message] = []
    for message in messages:
        if isinstance(message, ToolMessage) and message.tools:
            offer = TOOLS.format(tools="\n".join(_json(tool) for tool in json.loads(message.tools)))
            own = f"{message.content}\n\n{offer}".strip() if message.role == "system" else offer
            turns.append(Message("system", own))
            if message.role == "system":
                continue
        if isinstance(message, ToolMessage) and message.calls:
            calls = [f"<tool_call>\n{_json(call)}\n</tool_call>" for call in json.loads(message.calls)]
            turns.append(Message("assistant", "\n".join([message.content, *calls]).strip()))
        elif message.role == "tool":
            turns.append(Message("user", f"<tool_response>\n{message.content}\n</tool_response>"))
        else:
            turns.append(Message(message.role, message.content))
    return turns


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Counts work and bounds strings. Filters take the context so that none is evaluated while compiling."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        self.filters = {name: self.filters[name] for name in FILTERS.split()}
        self.filters.update(
            concatenated=self._concatenated,
            emitted=self._emitted,
            join=self._join,
            list=self._list,
            metered=self._metered,
            replace=self._replace,
            string=_text,
            tojson=self._to_json,
        )
        self.globals = {
            "range": self.globals["range"],
            "namespace": self.globals["namespace"],
            "dict": dict,
            "raise_exception": _raise,
            "strftime_now": _now,
        }
        self.begin()

    def begin(self) -> None:
        """Start a rendering with a fresh budget."""
        self._work = self._written = 0

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        """Refused aloud: Jinja would write nothing in its place."""
        raise SecurityError(f"access to {attribute!r} of {type(obj).__name__} is not available to chat templates")

    def _spend(self) -> None:
        self._work += 1
        if self._work > WORK:
            raise SecurityError(f"more than {WORK} loop rounds and calls")

    def _write(self, text: str) -> str:
        self._written += len(text)
        if self._written > LONGEST_TEXT:
            raise SecurityError(f"more than {LONGEST_TEXT} characters written")
        return text

    def call(__self, __context: JinjaContext, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self._spend()
        name = getattr(__obj, "__name__", "")
        if name in WIDENING:
            raise SecurityError(f"{name} is not available to chat templates")
        if isinstance(text := getattr(__obj, "__self__", None), str):
            if name == "replace":
                return __self._replace(__context, text, *args, **kwargs)
            if name == "join":
                return __self._join(__context, args[0], text)
        return _bounded(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: JinjaContext, operator: str, left: Any, right: Any) -> Any:
        self._spend()
        if operator == "+":
            _bounded(left, right)
        elif operator == "*":
            for sized, times in ((left, right), (right, left)):
                if hasattr(sized, "__len__") and isinstance(times, int) and len(sized) * times > LONGEST_TEXT:
                    raise SecurityError("string too long")
            if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > 256:
                raise SecurityError("number too large")
        elif operator == "**" or (operator == "%" and isinstance(left, str)):
            raise SecurityError(f"operator {operator} is not available to chat templates")
        return super().call_binop(context, operator, left, right)

    @pass_context
    def _metered(self, _: JinjaContext, items: Iterable[Any]) -> Iterator[Any]:
        for item in () if isinstance(items, Undefined) else items:
            self._spend()
            yield item

    @pass_context
    def _emitted(self, _: JinjaContext, value: Any) -> str:
        return self._write(_text(value))

    @pass_context
    def _concatenated(self, _: JinjaContext, items: Sequence[Any]) -> str:
        self._spend()
        parts = [_text(item) for item in items]
        _bounded("", *parts)
        return "".join(parts)

    @pass_context
    def _list(self, context: JinjaContext, items: Iterable[Any]) -> list[Any]:
        return list(self._metered(context, items))

    @pass_context
    def _replace(self, _: JinjaContext, text: Any, old: str, new: str, count: int = -1) -> str:
        self._spend()
        whole = _text(text)
        if (whole.count(old) if old else len(whole) + 1) * len(new) > LONGEST_TEXT:
            raise SecurityError("string too long")
        return whole.replace(old, new, count)

    @pass_context
    def _join(
        self, context: JinjaContext, items: Iterable[Any], separator: str = "", attribute: str | None = None
    ) -> str:
        parts = [
            _text(item if attribute is None else self.getitem(item, attribute))
            for item in self._metered(context, items)
        ]
        _bounded("", *parts)
        if len(separator) * len(parts) > LONGEST_TEXT:
            raise SecurityError("string too long")
        return separator.join(parts)

    @pass_context
    def _to_json(self, _: JinjaContext, value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
        encoder = json.JSONEncoder(indent=indent, ensure_ascii=ensure_ascii)
        # Piece by piece: a small value that holds itself many times over is written exponentially long.
        return "".join(self._write(part) for part in encoder.iterencode(value))


def _meter(tree: nodes.Template) -> None:
    """Route every loop through `metered`, every `~` through `concatenated`, everything written through `emitted`."""
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise SecurityError("recursive loops are not available to chat templates")
        loop.iter = _filter(cast(nodes.Expr, loop.iter), "metered")
    for parent in [tree, *tree.find_all(nodes.Node)]:
        for name, child in parent.iter_fields():
            if isinstance(child, nodes.Concat):
                setattr(parent, name, _filter(nodes.List(child.nodes, lineno=child.lineno), "concatenated"))
            elif isinstance(child, list):
                child[:] = [
                    _filter(nodes.List(item.nodes, lineno=item.lineno), "concatenated")
                    if isinstance(item, nodes.Concat)
                    else item
                    for item in child
                ]

    for output in tree.find_all(nodes.Output):
        output.nodes = [_filter(node, "emitted") for node in output.nodes]


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _text(value: Any) -> str:
    if isinstance(value, list | tuple | dict | set):
        raise SecurityError("lists and mappings can only be written with tojson")
    return str(value)


def _bounded(*values: Any) -> Any:
    """The first of `values`, which together are not too long."""
    if sum(len(value) for value in values if isinstance(value, str | list | tuple)) > LONGEST_TEXT:
        raise SecurityError("string too long")
    return values[0]


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(form: str) -> str:
    return time.strftime(str(form)[:200])


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
