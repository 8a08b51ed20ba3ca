"""From a checked request to a plan. Everything that can be found wrong is found here, before anything is drawn."""

from __future__ import annotations

import functools
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from flyweight import api, strategies
from flyweight.errors import ConfigError, FlyweightError
from flyweight.protocols import Answers, Policy, Strategy
from flyweight.server import grammar, tools
from flyweight.server.choosing import Menu, Wanted
from flyweight.server.errors import ApiError
from flyweight.server.job import Plan
from flyweight.server.limits import Limits, generations
from flyweight.server.schema import ChatRequest, CompletionRequest, Request
from flyweight.server.tokens import Pieces
from flyweight.types import Budget, Message, Problem, Sampling, ToolMessage, digest
from flyweight.verifiers.schema import fits

__all__ = ["Service"]

LONGEST_GRAMMAR = 60_000
CHARACTERS_PER_TOKEN = 16
"""A prompt with more than this many per token of the context cannot fit, and is not looked at any further."""

Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Service:
    """What requests are answered with."""

    menu: Menu
    policy: Policy
    answers: Answers
    kind: str
    """How `answers` reads them."""
    verifiers: Sequence[str]
    """The default one first."""
    limits: Limits
    context: int
    max_tokens: int = 512
    """Of an answer, unless the request says otherwise."""
    temperature: float = 0.7
    deadline: float = 300.0
    """Seconds, unless the request says otherwise."""
    system: str = ""
    """Put in front of what is searched for, unless there is a system turn."""

    def chat(self, asked: ChatRequest, headers: Headers) -> Plan:
        """The plan of a chat completion. ApiError 400 or 404."""
        wanted = self.menu.wanted(asked.model, asked.flyweight, headers)
        offered = [] if asked.tool_choice == "none" else list(asked.tools or ())
        names = tuple(tool.function.name for tool in offered)
        if len(set(names)) < len(names):
            raise ApiError(400, "tools: two functions have the same name", param="tools", code="invalid_value")
        described = [tool.model_dump(exclude_none=True) for tool in offered]
        turns = tools.conversation(asked.messages, described, self._system(wanted, bool(offered)))
        if not any(turn.content.strip() for turn in turns):
            raise ApiError(400, "messages: there is no text in them", param="messages", code="invalid_value")
        self._check_size([text for turn in turns for text in _texts(turn)], "messages")
        form = self._form(asked, names)
        answers: Answers | None = None
        if names:
            answers = tools.CallAnswers(names, one=asked.parallel_tool_calls is False)
        elif form.schema:
            answers = api.AnswersOf("json")
        if (asked.top_logprobs or 0) > 0 and not asked.logprobs:
            raise ApiError(400, "top_logprobs: needs logprobs to be true", param="top_logprobs", code="invalid_value")
        asked_last = next((turn.content for turn in reversed(turns) if turn.role == "user"), turns[-1].content)
        return self._plan(
            asked,
            wanted,
            [Problem(digest(turns)[:16], asked_last, tuple(turns), meta=_meta(form.schema))],
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            answers=answers,
            form=form,
            tools=names,
            logprobs=bool(asked.logprobs),
            top_logprobs=asked.top_logprobs or 0,
        )

    def completion(self, asked: CompletionRequest, headers: Headers) -> Plan:
        """The plan of a text completion. ApiError 400 or 404."""
        wanted = self.menu.wanted(asked.model, asked.flyweight, headers)
        if asked.echo:
            raise ApiError(400, "echo: not supported", param="echo", code="unsupported")
        if asked.suffix:
            raise ApiError(400, "suffix: not supported", param="suffix", code="unsupported")
        if asked.best_of is not None and asked.best_of > (asked.n or 1):
            raise ApiError(
                400, f"best_of: ask for the model {self.menu.model}@best_of_n", param="best_of", code="unsupported"
            )
        for prompt in asked.prompts:
            if not prompt.strip():
                raise ApiError(400, "prompt: it is empty", param="prompt", code="invalid_value")
        self._check_size(asked.prompts, "prompt")
        problems = [
            Problem(digest("text", number, prompt)[:16], prompt, (Message("text", prompt),))
            for number, prompt in enumerate(asked.prompts)
        ]
        return self._plan(
            asked,
            wanted,
            problems,
            max_tokens=asked.max_tokens or min(16, self.max_tokens) if not wanted.strategy else asked.max_tokens,
            answers=None,
            form=_Form(),
            logprobs=asked.logprobs is not None,
            top_logprobs=asked.logprobs or 0,
        )

    def _plan(
        self,
        asked: Request,
        wanted: Wanted,
        problems: Sequence[Problem],
        *,
        max_tokens: int | None,
        answers: Answers | None,
        form: _Form,
        tools: tuple[str, ...] = (),
        logprobs: bool,
        top_logprobs: int,
    ) -> Plan:
        for name in ("presence_penalty", "frequency_penalty", "logit_bias"):
            if getattr(asked, name):
                raise ApiError(400, f"{name}: not supported, leave it out or 0", param=name, code="unsupported")
        if logprobs and not Pieces(self.policy).known:
            raise ApiError(400, "logprobs: this model does not tell its tokens", param="logprobs", code="unsupported")
        ignored = [name for name in asked.model_extra or () if getattr(asked, name, None) is not None]
        ignored += [name for name in ("reasoning_effort",) if getattr(asked, name, None) is not None]
        whole = "tools" if tools else "response_format" if form.schema else "stop" if asked.stops else ""
        kind = wanted.kind or self.kind
        strategy, parameters = self._strategy(asked, wanted, whole or kind, len(problems), ignored)
        longest = min(max_tokens or self.max_tokens, self.context)
        cap = self.limits.tokens
        budget = min(wanted.budget or cap, cap)
        sampling = Sampling(
            temperature=self.temperature if asked.temperature is None else asked.temperature,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            max_tokens=min(longest, budget),
            stop=asked.stops,
            grammar=form.grammar,
        )
        field = asked.flyweight
        if answers is None:
            answers = self.answers if kind == self.kind else api.AnswersOf(kind)
        stream = bool(asked.stream)
        return Plan(
            model=asked.model,
            chat=isinstance(asked, ChatRequest),
            problems=tuple(problems),
            wanted=wanted,
            strategy=strategy,
            parameters=parameters,
            budget=Budget(
                tokens=budget,
                seconds=wanted.deadline or self.deadline,
                verifications=self.limits.verifications,
                confidence=wanted.confidence,
            ),
            deadline=wanted.deadline or self.deadline,
            sampling=sampling,
            seed=secrets.randbits(31) if asked.seed is None else asked.seed,
            answers=answers,
            verifier=(wanted.verifier or self.verifiers[0]) if strategy is not None and self.verifiers else "",
            n=asked.n or 1,
            whole=whole,
            tools=tools,
            one_call=isinstance(asked, ChatRequest) and asked.parallel_tool_calls is False,
            schema=form.schema,
            logprobs=logprobs,
            top_logprobs=top_logprobs,
            stream=stream,
            include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
            progress=stream and strategy is not None and (field is None or field.progress is not False),
            coalesce=field is None or field.coalesce is not False,
            ignored=tuple(sorted(ignored)),
        )

    def _strategy(
        self, asked: Request, wanted: Wanted, kind: str, prompts: int, ignored: list[str]
    ) -> tuple[Strategy | None, Mapping[str, Any]]:
        """The strategy bound to its parameters, None for the model alone. ApiError 400 for more than is allowed.

        `kind` is that of answers, or what they have that no calibration knows of.
        """
        n, most = asked.n or 1, self.limits.generations
        if not wanted.strategy:
            if n * prompts > most:
                raise ApiError(
                    400, f"n: {n * prompts} answers asked for, at most {most}", param="n", code="invalid_value"
                )
            return None, {}
        name = wanted.strategy
        parameters = dict(api.for_kind(name, wanted.parameters, kind, public=False))
        known = {parameter.name for parameter in strategies.describe(name).parameters}
        if asked.temperature is not None and "temperature" in known and "temperature" not in parameters:
            if asked.temperature > 0:
                parameters["temperature"] = asked.temperature
            else:
                ignored.append("temperature")  # n times the same answer is no search: the strategy's own is taken
        elif asked.temperature is not None:
            ignored.append("temperature")
        wanted_draws = generations(name, parameters) * prompts
        if wanted_draws > most:
            raise ApiError(
                400,
                f"{name} would draw {wanted_draws} answers with these parameters; at most {most} are allowed",
                param="flyweight.parameters",
                code="too_many_generations",
            )
        try:
            bound = strategies.bind(name, parameters)
        except FlyweightError as error:
            raise ApiError(400, str(error), param="flyweight", code="invalid_search") from None
        values = cast("functools.partial[object]", bound).keywords
        if n > int(values.get("n", 1)):
            raise ApiError(
                400, f"n: {n} choices of the {values.get('n', 1)} answers that {name} draws", param="n",
                code="invalid_value",
            )  # fmt: skip
        return bound, {key: value for key, value in values.items() if value != ""}

    def _system(self, wanted: Wanted, has_tools: bool) -> str | None:
        """The system prompt a request without one gets: none where the model is asked as it is."""
        if wanted.system is not None:
            return wanted.system
        same = wanted.kind in (None, self.kind)
        return self.system if wanted.strategy and same and not has_tools else None

    def _check_size(self, texts: Sequence[str], param: str) -> None:
        most = CHARACTERS_PER_TOKEN * self.context
        if (size := sum(map(len, texts))) > most * (len(texts) if param == "prompt" else 1):
            raise ApiError(
                400,
                f"{param}: {size} characters cannot fit the context of {self.context} tokens",
                param=param,
                code="context_length_exceeded",
            )

    def _form(self, asked: ChatRequest, names: Sequence[str]) -> _Form:
        """The form an answer must have. ApiError 400 for one that cannot be kept."""
        forced = tools.forced(asked.tool_choice)
        asked_format = asked.response_format
        wants_json = asked_format is not None and asked_format.type != "text"
        if forced is None and not wants_json:
            return _Form()
        where = "response_format" if wants_json else "tool_choice"
        if not getattr(self.policy, "grammars", False):
            raise ApiError(400, f"{where}: this model cannot be held to a form", param=where, code="unsupported")
        try:
            if forced is not None:
                if wants_json:
                    raise ConfigError("an answer cannot be a call and have a form of its own; leave one of them out")
                calls = [tool.function for tool in asked.tools or () if forced in ("", tool.function.name)]
                if not calls or not names:
                    raise ConfigError(
                        f"there is no function {forced!r} among the tools" if forced else "no tools given"
                    )
                for call in calls:
                    _schema(call.parameters or {})
                text = grammar.one_of(
                    [(call.name, call.parameters) for call in calls],
                    opening=tools.OPENING,
                    closing=tools.CLOSING,
                    several=asked.parallel_tool_calls is not False and not forced,
                )
                return _checked(_Form(grammar=text))
            assert asked_format is not None
            if asked_format.type == "json_object":
                return _Form(grammar.json_object(), '{"type": "object"}')
            if asked_format.json_schema is None:
                raise ConfigError("json_schema is missing")
            schema = _schema(asked_format.json_schema.json_schema)
            return _checked(_Form(grammar.from_schema(asked_format.json_schema.json_schema), schema))
        except FlyweightError as error:
            raise ApiError(400, f"{where}: {error}", param=where, code="invalid_schema") from None


@dataclass(frozen=True)
class _Form:
    """What an answer must look like."""

    grammar: str = ""
    schema: str = ""


def _schema(given: Mapping[str, Any]) -> str:
    """A schema as JSON. ConfigError for one that is none, or too large: those that were read are remembered."""
    text = json.dumps(given)
    if len(text) > LONGEST_GRAMMAR:
        raise ConfigError(f"the schema has {len(text)} characters; at most {LONGEST_GRAMMAR} are allowed")
    fits(text)
    return text


def _checked(form: _Form) -> _Form:
    if len(form.grammar) > LONGEST_GRAMMAR:
        raise ConfigError("the schema is too large to be kept while writing")
    return form


def _texts(turn: Message) -> tuple[str, ...]:
    """Everything of a turn that becomes part of the prompt."""
    return (turn.content, turn.tools, turn.calls) if isinstance(turn, ToolMessage) else (turn.content,)


def _meta(schema: str) -> dict[str, object]:
    return {"schema": json.loads(schema)} if schema else {}
