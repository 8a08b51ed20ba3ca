"""What an endpoint can do, found out by asking it a few short things.

About nine requests of at most eight tokens. A server that refuses a parameter is asked again without it; whether one
that accepts it also heeds it is read off what comes back, never off the server's name.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from flyweight.errors import FlyweightError
from flyweight.policies.openai import asking
from flyweight.policies.openai.abilities import Abilities
from flyweight.policies.openai.asking import conversation
from flyweight.policies.openai.prompt import Template
from flyweight.policies.openai.reply import choices, listed
from flyweight.policies.openai.spec import Spec
from flyweight.types import Message, Node, Sampling
from flyweight.wire.client import Client, Failure

__all__ = ["probe", "served", "size"]

Json = dict[str, Any]
T = TypeVar("T")

TALK = (Message("user", "Write ten random English words."),)
WORDS = "alpha bravo charlie delta"
LINE = (Message("user", f"Repeat this line exactly: {WORDS} echo foxtrot golf hotel"),)
NEXT = "echo"
CANNOT = (
    "{url} cannot continue a text in the middle of an answer, which searches by steps need: use a strategy of whole "
    "answers (self_consistency, best_of_n), a server that can (vLLM, SGLang, llama-server), or {way}"
)
SIZE = re.compile(r"(?<![\w.])(\d{1,6}(?:\.\d{1,6})?)(?:x(\d{1,6}(?:\.\d{1,6})?))?([bm])(?![a-z])", re.IGNORECASE)
BROKEN = 500
"""HTTP status of a fault, or of something that this server can never do: only asking again tells them apart."""
ODD = Sampling(temperature=0.9, top_p=0.9, max_tokens=1, stop=("\n\n",))
"""Nothing a server has by default."""


async def probe(client: Client, spec: Spec) -> Abilities:
    """The findings. Failure if it does not answer, has no such model, or serves neither chat nor completions."""
    able = await served(client, spec)
    chat = await _chat(client, able)
    if chat is not None:
        able, asked = chat
        able = replace(able, seed=await _seeded(client, able))
        if spec.continues in ("auto", "chat"):
            able = await _continuing(client, able, asked, forced=spec.continues == "chat")
    if chat is None or (spec.continues == "completions") or (spec.continues == "auto" and _wanting(able)):
        able = await _completions(client, able, spec, base=chat is None)
    return await _drawing(client, able)


def _wanting(able: Abilities) -> bool:
    return not able.continues or able.trims


# The model -------------------------------------------------------------------------------------------------------


async def served(client: Client, spec: Spec) -> Abilities:
    """Which model it is, and what the list of models says about it: one request. Failure as of `probe`."""
    try:
        said = await client.get("/models")
    except Failure as failure:
        if failure.status is None or failure.status in (401, 403) or not spec.model:
            raise
        said = {}
    table = said.get("data") if isinstance(said, dict) else None
    models = [entry for entry in table or () if isinstance(entry, dict) and isinstance(entry.get("id"), str)]
    names = [entry["id"] for entry in models]
    if not spec.model and not names:
        raise Failure(f"{client.url} lists no model: name one, as in openai:{client.url}#NAME", retry=False)
    name = spec.model or names[0]
    if names and name not in names:
        known = ", ".join(map(client.shown, names[:8])) + (", ..." if len(names) > 8 else "")
        raise Failure(f"{client.url} serves no model {name!r} (it has: {known})", retry=False, misplaced=True)
    entry: Json = next((entry for entry in models if entry["id"] == name), {})
    meta = entry["meta"] if isinstance(entry.get("meta"), dict) else {}
    return Abilities(
        model=name,
        kind=client.shown(str(entry.get("owned_by", "")), 40),
        params=int(spec.params) or _whole(meta.get("n_params")) or size(name),
        vocabulary=_whole(meta.get("n_vocab")) or Abilities.vocabulary,
        context=_whole(entry.get("max_model_len")) or _whole(meta.get("n_ctx")),
    )


def _whole(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < 10**15 else 0


def size(name: str) -> int:
    """Parameters as a model's name tells them, such as 0.5B, 135M or 8x7B; 0 if it does not."""
    found = SIZE.search(name)
    if found is None:
        return 0
    times = float(found[2]) if found[2] else 1.0
    return int(float(found[1]) * times * (1e9 if found[3] in "bB" else 1e6))


# Chat ------------------------------------------------------------------------------------------------------------


async def _chat(client: Client, able: Abilities) -> tuple[Abilities, int] | None:
    """Which parameters its chat takes, and how many tokens a prompt had; None where there is no chat.

    Parameters it refuses are left out one after the other, the one it names first.
    """
    extra: Json = {"temperature": 1.0, "logprobs": True, "top_logprobs": 2, "n": 2, "seed": 7}
    extra["timings_per_token"] = True
    spared = extra.keys() & set(asking.SPARED)
    limit = "max_tokens"
    for _ in range(8):
        try:
            said = await _ask(client, able, TALK, limit=limit, tokens=2, **extra)
            break
        except Failure as failure:
            if failure.status in (404, 405, 501):
                return None
            if failure.status not in (400, 422):
                raise
            if "max_completion_tokens" in str(failure) and limit == "max_tokens":
                limit = "max_completion_tokens"
                continue
            if not extra:
                raise
            named = [name for name in extra if re.search(rf"\b{name}\b", str(failure))]
            for name in named or list(extra)[-1:]:
                del extra[name]
    else:
        raise Failure(f"{client.url} refuses the simplest chat requests", retry=False)
    several = said.get("choices") or [{}]
    first = several[0] if isinstance(several[0], dict) else {}
    found = replace(
        able,
        limit=limit,
        n="n" in extra and len(several) == 2,
        logprobs="logprobs" in extra and _lists(first),
        seed="seed" in extra,
        usage=_tokens(said) > 0,
        tells_stop="stop_reason" in first or "matched_stop" in first,
        extras="timings_per_token" in extra,
        refused=frozenset(spared - extra.keys()),
    )
    return found, _tokens(said)


async def _seeded(client: Client, able: Abilities) -> bool:
    """Whether the same seed draws the same."""
    if not able.seed:
        return False
    draws = [_ask(client, able, TALK, tokens=8, limit=able.limit, temperature=1.0, seed=11) for _ in range(2)]
    first, second = await asyncio.gather(*draws)
    return _text(first) == _text(second)


async def _continuing(client: Client, able: Abilities, asked: int, *, forced: bool) -> Abilities:
    """Whether it goes on in the middle of the assistant's last turn, and keeps the blanks before that.

    A turn that was closed, with a new one begun, has tokens around it: with the text twice as long they do not double.
    Where the server does not count, it must have gone on with the line it was given the beginning of.
    """
    way = "give its chat template as template=FILE" if able.extras else "another one"
    cannot = replace(able, why=CANNOT.format(url=client.url, way=way))

    async def tell(said: str, tokens: int = 1) -> Json:
        extra = {"continue_final_message": True, "add_generation_prompt": False} if able.extras else {}
        return await _ask(client, able, LINE, said=said, tokens=tokens, limit=able.limit, temperature=0, **extra)

    try:
        plain, once, twice, blank = await asyncio.gather(
            _ask(client, able, LINE, tokens=1, limit=able.limit, temperature=0),
            _surely(lambda: tell(WORDS, 8)),
            _surely(lambda: tell(f"{WORDS} {WORDS}")),
            _surely(lambda: tell(f"{WORDS}\n\n")),
        )
    except Failure as failure:
        if failure.status in (400, 422, BROKEN, 501) and not forced:
            return cannot
        raise
    base, short, long, blanks = map(_tokens, (plain, once, twice, blank))
    counts = base < short < long
    around = 2 * (short - base) - (long - base)
    goes_on = _text(once).lstrip().startswith(NEXT) or (counts and around <= 0)
    if not (goes_on or forced):
        return cannot
    return replace(able, continues=True, trims=counts and blanks <= short)


# Completions -----------------------------------------------------------------------------------------------------


async def _completions(client: Client, able: Abilities, spec: Spec, *, base: bool) -> Abilities:
    """Completions instead of chat, where they are served and the model's template is known.

    `base`: there is no chat; then contents are joined if no template is known, as for a base model.
    """
    template = await _template(client, spec)
    if template is None and not base:
        return able
    body: Json = {"model": able.model, "prompt": WORDS, "max_tokens": 2, "temperature": 1.0, "logprobs": 2}
    if able.extras:
        body["timings_per_token"] = True
    said: Json = {}
    for drop in ("", "logprobs", "timings_per_token"):
        body.pop(drop, None)
        try:
            said = await _surely(lambda: client.post("/completions", body))
            break
        except Failure as failure:
            if failure.status in (400, 422) and drop != "timings_per_token":
                continue
            if base or _passing(failure):
                raise
            return able
    first = _first(said)
    found = replace(
        able,
        api="completions",
        continues=spec.continues != "no",
        trims=False,
        template=template,
        limit="max_tokens",
        logprobs="logprobs" in body and _lists(first),
        extras="timings_per_token" in body,
        tells_stop="stop_reason" in first or "matched_stop" in first,
        usage=_tokens(said) > 0,
        why=CANNOT.format(url=client.url, way="leave out continues=no"),
    )
    if base:
        draws = [client.post("/completions", {**body, "max_tokens": 8, "seed": 11}) for _ in range(2)]
        one, two = await asyncio.gather(*draws)
        found = replace(found, seed=_text(one) == _text(two))
    return found


async def _template(client: Client, spec: Spec) -> Template | None:
    """The model's chat template: from the file named, or as llama-server tells it."""
    if spec.template:
        return Template.read(Path(spec.template))
    try:
        said = await _surely(lambda: client.get("/props", root=True))
    except Failure as failure:
        if _passing(failure):
            raise
        return None
    source = said.get("chat_template") if isinstance(said, dict) else None
    if not isinstance(source, str) or not source:
        return None
    try:
        return Template(source, eos=str(said.get("eos_token", "")))
    except FlyweightError:
        return None


# Drawing ---------------------------------------------------------------------------------------------------------


async def _drawing(client: Client, able: Abilities) -> Abilities:
    """What it takes of a request that draws: one is streamed, and what it refuses is left out, one after the other.

    Which parameter that is the server says, or it is found by leaving out what is least missed.
    """
    root = Node(messages=TALK, key="probe")
    while True:
        body = asking.body(able, root, ODD, seed=7)
        try:
            async with aclosing(client.events(asking.path(able), body)) as events:
                async for event in events:
                    if choices(event, 1):
                        return able
            raise Failure(f"{client.url} streams no choices: is it an OpenAI-compatible server?", retry=False)
        except Failure as failure:
            if failure.status not in (400, 422):
                raise
            less = _less(able, body, str(failure))
            if less is None:
                raise
            able = less


def _less(able: Abilities, body: Json, said: str) -> Abilities | None:
    """The same with one thing less in its requests: what the server names, else what is least missed; None without."""

    def named(*parameters: str) -> bool:
        return any(re.search(rf"\b{name}\b", said) for name in parameters)

    ways: list[tuple[bool, bool, Abilities]] = [
        (able.extras, named(*asking.EXTRAS), replace(able, extras=False)),
        ("stop" in body, named("stop", "include_stop_str_in_output", "no_stop_trim"), replace(able, tells_stop=False)),
        (able.logprobs, named("logprobs", "top_logprobs"), replace(able, logprobs=False)),
    ]
    for name in asking.SPARED:
        less = replace(able, refused=able.refused | {name}, seed=able.seed and name != "seed")
        ways.append((name in body, named(name), less))
    there = [(hit, less) for sent, hit, less in ways if sent]
    return next((less for hit, less in there if hit), there[0][1] if there else None)


# Asking ----------------------------------------------------------------------------------------------------------


async def _ask(
    client: Client,
    able: Abilities,
    messages: tuple[Message, ...],
    *,
    said: str = "",
    tokens: int,
    limit: str,
    **extra: object,
) -> Json:
    """An answer in one piece. Failure if it has none of the form of a chat's."""
    body = {"model": able.model, "messages": conversation(messages, said), limit: tokens, **extra}
    body = {name: value for name, value in body.items() if name not in able.refused}
    answer = await client.post("/chat/completions", body)
    if not isinstance(answer, dict) or not choices(answer, 2):
        raise Failure(f"{client.url} answers a chat without choices: is it an OpenAI-compatible server?", retry=False)
    return answer


async def _surely(ask: Callable[[], Awaitable[T]]) -> T:
    """What is answered; what the server breaks at is asked three times before it is believed that it always does."""
    for _ in range(2):
        try:
            return await ask()
        except Failure as failure:
            if failure.status != BROKEN:
                raise
    return await ask()


def _passing(failure: Failure) -> bool:
    """Whether a failure says nothing about what the server can do."""
    return failure.retry and failure.status != BROKEN


def _first(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    found = choices(answer, 2)
    return found[0][1] if found else {}


def _lists(choice: Mapping[str, Any]) -> bool:
    """Whether a choice has log-probabilities that can be used."""
    try:
        return bool(listed(choice.get("logprobs")))
    except Failure:
        return False


def _text(answer: Mapping[str, Any]) -> str:
    first = _first(answer)
    message = first.get("message")
    said = message.get("content") if isinstance(message, dict) else first.get("text")
    return said if isinstance(said, str) else ""


def _tokens(answer: Mapping[str, Any]) -> int:
    """Tokens of the prompt, 0 where they are not told."""
    usage = answer.get("usage")
    return _whole(usage.get("prompt_tokens")) if isinstance(usage, dict) else 0
