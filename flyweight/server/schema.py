"""What a request may hold. Values are taken as they are written: "5" is no number, 1.0 no whole one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flyweight.server.errors import ApiError

__all__ = ["ChatRequest", "CompletionRequest", "Request", "SearchField", "ToolChoice", "checked"]

MESSAGES, PARTS, TOOLS, STOPS, PROMPTS = 1024, 256, 128, 16, 16
"""The most of each; parts are those of one message's content, prompts those of one completions request."""
NAME = r"^[a-zA-Z0-9_-]{1,64}$"
Text = Annotated[str, Field(max_length=4 << 20)]
Word = Annotated[str, Field(max_length=512)]
Stop = Annotated[str, Field(min_length=1, max_length=256)]
Kind = TypeVar("Kind", bound=BaseModel)


class Strict(BaseModel):
    """No conversions; what is not known is looked at by whoever asks."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Part(Strict):
    """A piece of a message. Only text is understood."""

    type: Literal["text"]
    text: Text


class FunctionCall(Strict):
    """A function called, its arguments as JSON text."""

    name: Annotated[str, Field(pattern=NAME)]
    arguments: Text = "{}"


class ToolCall(Strict):
    """A call an assistant made."""

    id: Word = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class Turn(Strict):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | Annotated[list[Part], Field(max_length=PARTS)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=TOOLS)] | None = None
    tool_call_id: Word | None = None

    @property
    def text(self) -> str:
        """The content in one piece."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class Function(Strict):
    """A function on offer."""

    name: Annotated[str, Field(pattern=NAME)]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool on offer."""

    type: Literal["function"]
    function: Function


class Named(Strict):
    """The name of a function."""

    name: Annotated[str, Field(pattern=NAME)]


class ToolChoice(Strict):
    """The one function that must be called."""

    type: Literal["function"]
    function: Named


class Schema(Strict):
    """A JSON schema with a name."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, populate_by_name=True)
    name: Annotated[str, Field(pattern=NAME)]
    json_schema: Annotated[dict[str, Any], Field(alias="schema")] = {}
    strict: bool | None = None


class ResponseFormat(Strict):
    """The form an answer must have."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None


class StreamOptions(Strict):
    """What a stream holds besides the answer."""

    include_usage: bool | None = None


class SearchField(BaseModel):
    """The field `flyweight`: how the answer is searched for. Further keys are parameters of the strategy."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
    strategy: Word | None = None
    """A name, with settings if you like: `best_of_n:n=8`."""
    parameters: Annotated[dict[str, int | float | bool | Word], Field(max_length=32)] = {}
    budget: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Most tokens generated."""
    deadline: Annotated[float, Field(gt=0, le=86_400)] | None = None
    """Seconds, waiting included."""
    confidence: Annotated[float, Field(gt=0, le=1)] | None = None
    """Stop as soon as the answer is this sure."""
    verifier: Word | None = None
    kind: Word | None = None
    """How answers are read: math, choice, json, json:FIELD, code or text."""
    progress: bool | None = None
    """Whether a stream tells how the search goes, as reasoning."""
    coalesce: bool | None = None
    """False: never share the answer of an identical request that is under way."""


class Request(Strict):
    """What both kinds of request have."""

    model: Annotated[str, Field(min_length=1, max_length=512)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=4096)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=1024)] | None = None
    user: Word | None = None
    metadata: dict[str, Any] | None = None
    flyweight: SearchField | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings, in any case a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatRequest(Request):
    """`POST /v1/chat/completions`"""

    messages: Annotated[list[Turn], Field(min_length=1, max_length=MESSAGES)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=10**9)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(max_length=TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Word | None = None


class CompletionRequest(Request):
    """`POST /v1/completions`"""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=PROMPTS)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool | None = None
    suffix: Text | None = None
    best_of: Annotated[int, Field(ge=1, le=4096)] | None = None

    @property
    def prompts(self) -> list[str]:
        """The prompts, in any case a list."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


def checked(kind: type[Kind], found: dict[str, Any]) -> Kind:
    """The request of that kind. ApiError 400 naming the first field that is wrong, and what it may be."""
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        # Of the members of a union, the one that came furthest is the one that was meant.
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        first = max(errors, key=lambda each: len(each["loc"]))
        # Members of unions are told apart by made-up names, which mean nothing to a client.
        path = [str(part) for part in first["loc"] if not isinstance(part, str) or part.isidentifier()]
        where = ".".join(path) or "body"
        more = error.error_count() - 1
        tail = f" ({more} more)" if more else ""
        raise ApiError(400, f"{where}: {first['msg'][:300]}{tail}", param=where, code="invalid_value") from None
