"""R14: a search that says nothing for a minute, and four clients that wait for what it comes to.

python -m benchmarks.server silence
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import openai

from benchmarks.server_kit import Figures, chat, client, served
from flyweight.testing import Draft, ToyPolicy

__all__ = ["silence"]

SECONDS = 60
TEXT = "x" * (SECONDS - 10) + "\\boxed{12}"
"""One token a second."""


class Heard(NamedTuple):
    """What reached a client."""

    text: str
    comments: int = 0
    longest_gap: float = 0.0
    """Seconds in which no byte came."""
    seconds: float = 0.0


def silence(model: str) -> Figures:
    """R14: one token a second for a minute, nothing told before the end; comments, and who gets the answer."""
    policy = ToyPolicy(lambda *_: Draft(TEXT), delay=1.0)
    clients: list[Callable[[str], Heard]] = [curl, strict, openai_stream, openai_whole]
    with served(policy) as (url, _), ThreadPoolExecutor(len(clients)) as pool:
        heard = list(pool.map(lambda ask: ask(url), clients))
    counted = heard[:2]
    return {
        "silent_seconds": round(min(each.seconds for each in counted)),
        "comments": [each.comments for each in counted],
        "longest_gap_seconds": round(max(each.longest_gap for each in counted), 1),
        "answered": sum(each.text == TEXT for each in heard),
        "clients": ["curl -N", "strict SSE parser", f"openai-python {openai.__version__} stream", "and whole"],
        "target": "a comment every 15 s or more often, 4 answered",
        "met": max(each.longest_gap for each in counted) <= 15 and all(each.text == TEXT for each in heard),
    }


def _body(seed: int) -> dict[str, Any]:
    """A search with nothing to tell on its way. Different seeds, or all four would share one search."""
    return chat("toy@greedy", "Wait.", seed=seed, stream=True, flyweight={"progress": False})


def curl(url: str) -> Heard:
    """`curl -N`, read as it writes."""
    command = ["curl", "-sN", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json"]
    with subprocess.Popen([*command, "-d", json.dumps(_body(1))], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        return _heard(iter(process.stdout.readline, b""))


def strict(url: str) -> Heard:
    """Plain HTTP, and the event stream by the letter of its standard."""
    with client(url) as http, http.stream("POST", "/v1/chat/completions", json=_body(2)) as response:
        assert response.headers["content-type"].split(";")[0] == "text/event-stream"
        return _heard(_lines(response.iter_raw()))


def openai_stream(url: str) -> Heard:
    """openai-python, chunk by chunk."""
    body = {**_body(3), "stream": True, "extra_body": {"flyweight": {"progress": False}}}
    body.pop("flyweight")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as asking:
        chunks = asking.chat.completions.create(**body)
        return Heard("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))


def openai_whole(url: str) -> Heard:
    """openai-python, waiting for all of it."""
    body = {"model": "toy@greedy", "messages": [{"role": "user", "content": "Wait."}], "seed": 4}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as asking:
        answer = asking.chat.completions.create(**body)  # type: ignore[call-overload]
        return Heard(str(answer.choices[0].message.content))


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        yield from (line + b"\n" for line in whole)
    assert not rest, "the stream ends within a line"


def _heard(lines: Iterable[bytes]) -> Heard:
    """Events as the standard has them: fields `data` only, each event ended by an empty line, `[DONE]` the last."""
    began = last = time.monotonic()
    gap, comments, text = 0.0, 0, ""
    data: list[str] = []
    done = False
    for line in lines:
        now = time.monotonic()
        gap, last = max(gap, now - last), now
        assert (line.endswith(b"\n") and not done) or line == b"\n", line
        field, _, value = line.rstrip(b"\n").decode().partition(":")
        if field == "data":
            data.append(value.removeprefix(" "))
        elif field or value:
            assert field == "", f"a field the stream should not have: {field!r}"
            comments += 1
        elif data:
            event, data = "\n".join(data), []
            done = event == "[DONE]"
            for choice in () if done else json.loads(event)["choices"]:
                text += choice["delta"].get("content") or ""
    assert done and not data, "the stream ends before its end"
    return Heard(text, comments, gap, time.monotonic() - began)
