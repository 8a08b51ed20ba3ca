"""An OpenAI-compatible server for tests, in a thread of its own: scripted answers, exact counts, faults on demand.

It speaks HTTP/1.1 over asyncio without a framework, so that a test can break any byte of it. What it says follows from
the prompt, the text begun and the seed alone (`flyweight.testing.arithmetic`), never from what else it is doing.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from flyweight.testing import arithmetic
from flyweight.types import Sampling

Json = dict[str, Any]
Fault = Callable[[int, str, Json], str | None]
Route = Callable[[Json], object]
PIECES = re.compile(r"\n\n|\n|[ ]?[^\s]+|[ ]")
PROBED = "Write ten random English words."
"""What endpoints are asked before anything else."""
AROUND = 3
"""Tokens around every turn."""
WORDS = ["river", "stone", "lamp", "violet", "copper", "thunder", "maple", "quartz", "ember", "willow"]


@dataclass
class Call:
    """One request as the server saw it; times of time.perf_counter."""

    path: str
    body: Json
    headers: Mapping[str, str]
    began: float
    ended: float = 0.0
    fault: str | None = None
    status: int = 200
    dropped: bool = False
    """Whether the client closed the connection before the end."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0


@dataclass
class Endpoint:
    """The server; `with Endpoint(...) as server:` runs it. The fields say what it can do."""

    model: str = "fake-0.5B"
    kind: str = "vllm"
    """As whom it signs; vllm also says which stop string ended a text."""
    n: bool = True
    continues: bool = True
    trims: bool = False
    logprobs: bool = True
    seeds: bool = True
    chat: bool = True
    strict: bool = False
    """Whether parameters that are not OpenAI's are refused."""
    refuses: tuple[str, ...] = ()
    """Further parameters that are."""
    vague: bool = False
    """Whether it refuses without saying what."""
    template: str = ""
    """What /props tells, as llama-server does."""
    context: int = 0
    """Longest prompt plus answer; a longer one is refused in vLLM's words. 0: any."""
    key: str = ""
    delay: Callable[[], float] = lambda: 0.0
    """Seconds before the first token of an answer."""
    pace: float = 0.0
    """Seconds between tokens."""
    fault: Fault = lambda number, path, body: None
    """(how many-th call, path, body) -> a fault's name."""
    routes: Mapping[str, Route] = field(default_factory=dict)
    """Further paths: body -> what is answered."""
    calls: list[Call] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def drawn(self) -> list[Call]:
        """The calls that drew text for somebody, those of probing left out."""
        return [call for call in self.calls if drawing(call.body)]

    def quiet(self) -> None:
        """Wait until nothing is under way here."""
        deadline = time.monotonic() + 10
        while self.in_flight:
            assert time.monotonic() < deadline, "the server is still at work"
            time.sleep(0.005)

    # Running -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._resident: list[list[str]] = []
        self._random = random.Random(5)
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)

        async def main() -> None:
            self._stop = asyncio.Event()
            server = await asyncio.start_server(self._connected, "127.0.0.1", getattr(self, "port", 0))
            self.port: int = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stop.wait()
            server.close()
            open = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in open:
                task.cancel()
            await asyncio.gather(*open, return_exceptions=True)

        self._loop.run_until_complete(main())
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (head := await self._head(reader)) is not None:
                method, path, headers = head
                content = await reader.readexactly(int(headers.get("content-length", "0")))
                call = Call(path, json.loads(content or b"{}"), headers, time.perf_counter())
                self.calls.append(call)
                self.in_flight += 1
                self.peak = max(self.peak, self.in_flight)
                watch = asyncio.ensure_future(_gone(reader))
                work = asyncio.ensure_future(self._answer(method, call, writer))
                try:
                    await asyncio.wait([work, watch], return_when=asyncio.FIRST_COMPLETED)
                    call.dropped = not work.done()
                    work.cancel()
                    [going_on] = await asyncio.gather(work, return_exceptions=True)
                    call.dropped |= isinstance(going_on, ConnectionError)
                finally:
                    self._ended(call)
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
                if going_on is not True:
                    return
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _ended(self, call: Call) -> None:
        """A call is over: noted before the client can know, or it would seem to have more under way than it has."""
        if not call.ended:
            call.ended = time.perf_counter()
            self.in_flight -= 1

    async def _head(self, reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]] | None:
        line = await reader.readline()
        if not line:
            return None
        method, path, _ = line.decode().split(" ", 2)
        headers = {}
        while (line := await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        return method, path, headers

    # Answering ---------------------------------------------------------------------------------------------------

    async def _answer(self, method: str, call: Call, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection can be used again."""
        call.fault = self.fault(len(self.calls), call.path, call.body)
        if self.key and call.headers.get("authorization") != f"Bearer {self.key}":
            return await self._json(writer, call, {"error": {"message": "wrong key"}}, 401)
        if call.fault in ("400", "401", "404", "500", "503"):
            return await self._json(writer, call, {"error": {"message": f"fault {call.fault}"}}, int(call.fault))
        if call.fault is not None and call.fault.startswith("429"):
            after = call.fault.partition(" ")[2]
            return await self._json(writer, call, {"error": {"message": "slow down"}}, 429, {"Retry-After": after})
        if call.fault is not None and call.fault.startswith("redirect "):
            return await self._json(writer, call, {}, 307, {"Location": call.fault.partition(" ")[2]})
        if call.fault == "reset":
            writer.transport.abort()
            return False
        if call.fault == "hang":
            await asyncio.sleep(3600)
        if call.path in self.routes:
            await asyncio.sleep(self.delay())
            return await self._json(writer, call, self.routes[call.path](call.body))
        if call.path == "/v1/models":
            entry: Json = {"id": self.model, "object": "model", "owned_by": self.kind}
            return await self._json(writer, call, {"object": "list", "data": [entry]})
        if call.path == "/props" and self.template:
            return await self._json(writer, call, {"chat_template": self.template, "eos_token": "</s>"})
        chat = call.path == "/v1/chat/completions" and self.chat
        if method == "POST" and (chat or call.path == "/v1/completions"):
            return await self._complete(writer, call, chat)
        return await self._json(writer, call, {"error": {"message": f"no {call.path}"}}, 404)

    async def _json(
        self,
        writer: asyncio.StreamWriter,
        call: Call,
        body: object,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> bool:
        call.status = status
        content = json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items() if value]
        self._ended(call)
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        await writer.drain()
        return True

    async def _complete(self, writer: asyncio.StreamWriter, call: Call, chat: bool) -> bool:
        body = call.body
        extras = {"continue_final_message", "timings_per_token", "include_stop_str_in_output"} & body.keys()
        if self.strict and extras:
            return await self._json(writer, call, {"error": {"message": f"unknown parameter {min(extras)}"}}, 400)
        if refused := sorted(body.keys() & set(self.refuses)):
            message = "bad request" if self.vague else f"Unsupported parameter: '{refused[0]}'"
            return await self._json(writer, call, {"error": {"message": message}}, 400)
        if not self.logprobs and body.get("logprobs"):
            return await self._json(writer, call, {"error": {"message": "logprobs are not supported"}}, 400)
        question, said, prompt = self._prompt(body, chat)
        if self.context and len(prompt) + body["max_tokens"] > self.context:
            message = (
                f"This model's maximum context length is {self.context} tokens and your request has {len(prompt)} "
                "input tokens"
            )
            return await self._json(writer, call, {"error": {"message": message}}, 400)
        call.prompt_tokens, call.cached_tokens = len(prompt), self._cached(prompt)
        await asyncio.sleep(self.delay())
        wanted = body.get("n", 1) if self.n else 1
        several = [self._write(body, question, said, i) for i in range(wanted)]
        if call.fault == "choices":
            several.append(several[0])
        if not body.get("stream"):
            listed = [self._choice(body, chat, i, pieces, end, stop) for i, (pieces, end, stop) in enumerate(several)]
            call.generated_tokens = sum(len(pieces) + (end == "stop") for pieces, end, _ in several)
            return await self._json(writer, call, {"choices": listed, "usage": self._usage(call)})
        return await self._stream(writer, call, chat, several)

    def _prompt(self, body: Json, chat: bool) -> tuple[str, str, list[str]]:
        """The question, what was said so far, and the tokens of it all."""
        if not chat:
            prompt = body["prompt"]
            question, _, said = prompt.rpartition("[assistant]")
            question = question.rpartition("[user]")[2] if question else prompt
            return question, said, PIECES.findall(prompt)
        messages = body["messages"]
        said = ""
        tokens: list[str] = []
        if messages[-1]["role"] == "assistant" and self.continues:
            said = messages[-1]["content"].rstrip() if self.trims else messages[-1]["content"]
            messages = messages[:-1]
        for message in messages:
            tokens += ["<turn>"] * AROUND + PIECES.findall(message["content"])
        question = next(message["content"] for message in reversed(messages) if message["role"] == "user")
        return question, said, tokens + ["<turn>"] * AROUND + PIECES.findall(said)

    def _cached(self, prompt: list[str]) -> int:
        longest = 0
        for other in self._resident:
            same = next((i for i, (a, b) in enumerate(zip(prompt, other, strict=False)) if a != b), None)
            longest = max(longest, min(len(prompt), len(other)) if same is None else same)
        self._resident = [*self._resident[-63:], prompt]
        return min(longest, len(prompt) - 1)

    def _write(self, body: Json, question: str, said: str, index: int) -> tuple[list[tuple[str, float]], str, str]:
        """Tokens with log-probabilities, why it ends, and the stop string that ended it."""
        seed = body.get("seed", 0) + index if self.seeds else self._random.getrandbits(32)
        rng = random.Random(seed)
        temperature = body.get("temperature", 1.0)
        if "Repeat this line exactly: " in question:
            line = question.partition("exactly: ")[2]
            text, logprob = (line[len(said) :] if line.startswith(said) else line), -0.1
        elif "random English words" in question:
            text, logprob = " ".join(rng.choice(WORDS) for _ in range(10)), -2.0
        else:
            sampling = Sampling(temperature=temperature)
            text, logprob = arithmetic(question, said, rng, sampling)
            text = ("\n\n" if self.trims and said and not said.endswith("\n\n") else "") + text
        stop = ""
        if self.kind == "vllm":
            ends = [(text.find(each), each) for each in body.get("stop", []) if each in text]
            if ends:
                at, stop = min(ends)
                text = text[: at + len(stop)] if body.get("include_stop_str_in_output") else text[:at]
        pieces = [(piece, logprob - 0.01 * i % 0.3) for i, piece in enumerate(PIECES.findall(text))]
        limit = body.get("max_tokens", 16)
        if len(pieces) > limit or (len(pieces) == limit and not stop):
            return pieces[:limit], "length", ""
        return pieces, "stop", stop

    def _choice(
        self, body: Json, chat: bool, index: int, pieces: list[tuple[str, float]], end: str | None, stop: str
    ) -> Json:
        text = "".join(piece for piece, _ in pieces)
        made: Json = {"index": index, "finish_reason": end}
        if self.kind == "vllm":
            made["stop_reason"] = stop or None
        if chat:
            made["delta" if body.get("stream") else "message"] = {"content": text}
        else:
            made["text"] = text
        if body.get("logprobs"):
            likely = [[(piece, lp), ("no", -3.0)] for piece, lp in pieces]
            if chat:
                tops = [[{"token": t, "logprob": lp} for t, lp in each] for each in likely]
                made["logprobs"] = {
                    "content": [
                        {"token": piece, "logprob": lp, "top_logprobs": top}
                        for (piece, lp), top in zip(pieces, tops, strict=True)
                    ]
                }
            else:
                made["logprobs"] = {
                    "tokens": [piece for piece, _ in pieces],
                    "token_logprobs": [lp for _, lp in pieces],
                    "top_logprobs": [dict(each) for each in likely],
                }
        return made

    def _usage(self, call: Call) -> Json:
        return {
            "prompt_tokens": call.prompt_tokens,
            "completion_tokens": call.generated_tokens,
            "total_tokens": call.prompt_tokens + call.generated_tokens,
            "prompt_tokens_details": {"cached_tokens": call.cached_tokens},
        }

    async def _stream(
        self,
        writer: asyncio.StreamWriter,
        call: Call,
        chat: bool,
        several: list[tuple[list[tuple[str, float]], str, str]],
    ) -> bool:
        body = call.body
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n")
        writer.write(b"Content-Encoding: gzip\r\n\r\n" if call.fault == "gzip" else b"\r\n")
        always = self.kind == "vllm" and body.get("stream_options", {}).get("continuous_usage_stats")

        async def send(content: bytes) -> None:
            writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            await writer.drain()

        async def event(choices: list[Json], counted: bool = False) -> None:
            made: Json = {"object": "chunk", "choices": choices}
            if always or counted:
                made["usage"] = self._usage(call)
            await send(f"data: {json.dumps(made)}\n\n".encode())

        await send(b": hello\n\n")
        if call.fault in STREAMS:
            return bool(await STREAMS[call.fault](send, chat))
        if call.fault == "empty":
            several = [([], "stop", "")]
        for number in range(max(len(pieces) for pieces, _, _ in several) + 1):
            for index, (pieces, end, stop) in enumerate(several):
                if call.fault == "truncated" and number == len(pieces) // 2:
                    return False
                if call.fault == "stall" and number == 2:
                    await asyncio.sleep(3600)
                if number < len(pieces):
                    call.generated_tokens += 1
                    await event([self._choice(body, chat, index, [pieces[number]], None, "")])
                    if self.pace:
                        await asyncio.sleep(self.pace)
                elif number == len(pieces):
                    call.generated_tokens += end == "stop" and not stop
                    await event([self._choice(body, chat, index, [], end, stop)])
        if body.get("stream_options", {}).get("include_usage"):
            await event([], counted=True)
        self._ended(call)
        await send(b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def drawing(body: Json) -> bool:
    """Whether a request draws text for somebody, rather than to see what the server can do."""
    return bool(body.get("stream")) and PROBED not in json.dumps(body)


async def _gone(reader: asyncio.StreamReader) -> None:
    """Until the client has closed its side; reading would take the next request's first byte."""
    while not reader.at_eof():
        await asyncio.sleep(0.004)


Send = Callable[[bytes], Any]


def _data(chat: bool, text: str, **more: object) -> bytes:
    choice: Json = {"index": 0, "finish_reason": None, **more}
    choice |= {"delta": {"content": text}} if chat else {"text": text}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


async def _endless(send: Send, chat: bool) -> bool:
    while True:
        await send(_data(chat, " again and again and again" * 40))


async def _long_line(send: Send, chat: bool) -> bool:
    await send(b'data: {"choices": [{"index": 0, "delta": {"content": "')
    for _ in range(50 * 16):
        await send(b"x" * (1 << 16))
    return False


async def _not_a_number(send: Send, chat: bool) -> bool:
    entry = {"token": "x", "logprob": float("nan"), "top_logprobs": []}
    await send(_data(chat, "x", logprobs={"content": [entry]}))
    return False


async def _nonsense(send: Send, chat: bool) -> bool:
    await send(b"data: { nonsense\n\n")
    return False


async def _not_text(send: Send, chat: bool) -> bool:
    await send(_data(chat, "x").replace(b"x", b"\xff\xfe"))
    return False


async def _comments(send: Send, chat: bool) -> bool:
    while True:
        await send(b": still here\n\n")
        await asyncio.sleep(0.01)


async def _idle_events(send: Send, chat: bool) -> bool:
    while True:
        await send(_data(chat, ""))


async def _wrong_counts(send: Send, chat: bool) -> bool:
    await send(_data(chat, "\\boxed{7}."))
    usage = {"prompt_tokens": 10**12, "completion_tokens": -5}
    await send(f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode())
    await send(_data(chat, "", finish_reason="stop"))
    await send(b"data: [DONE]\n\n")
    return False


def _thought(word: str) -> bytes:
    """A piece of hidden reasoning, with its token among the log-probabilities as vLLM has it."""
    delta = {"content": None, "reasoning_content": word}
    listed = {"content": [{"token": word, "logprob": -0.5, "top_logprobs": []}]}
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': delta, 'logprobs': listed}]})}\n\n".encode()


def _ending(reason: str, generated: int) -> list[bytes]:
    """The last pieces of an answer: why it ends, and the count."""
    usage = {"prompt_tokens": 12, "completion_tokens": generated}
    return [
        _data(True, "", finish_reason=reason),
        f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n".encode(),
        b"data: [DONE]\n\n",
    ]


HOLLOW = b'data: {"choices": []}\n\n'


async def _thinking(send: Send, chat: bool) -> bool:
    """A hundred tokens of reasoning, ten of the answer."""
    for part in [*[_thought("hm")] * 100, *[_data(True, "7 ")] * 10, *_ending("stop", 110)]:
        await send(part)
    return False


async def _lost_in_thought(send: Send, chat: bool) -> bool:
    """Cut off before the first word of the answer."""
    for part in [*[_thought("hm")] * 5, *_ending("length", 5)]:
        await send(part)
    return False


async def _hollow(send: Send, chat: bool) -> bool:
    """A thought, then nothing but events."""
    await send(_thought("hm"))
    while True:
        await send(HOLLOW)


async def _noise(send: Send, chat: bool) -> bool:
    """A whole answer, and no end of events behind it."""
    await send(_data(chat, "It is 7."))
    await send(_data(chat, "", finish_reason="stop"))
    while True:
        await send(HOLLOW)


async def _no_end(send: Send, chat: bool) -> bool:
    """A whole answer, and silence behind it."""
    await send(_data(chat, "It is 7."))
    await send(_data(chat, "", finish_reason="stop"))
    await asyncio.sleep(3600)
    return False


async def _bad_end(send: Send, chat: bool) -> bool:
    """A whole answer, and nonsense behind it."""
    await send(_data(chat, "It is 7."))
    await send(_data(chat, "", finish_reason="stop"))
    return bool(await _nonsense(send, chat))


async def _slow_start(send: Send, chat: bool) -> bool:
    """Comments for most of a second, then an answer."""
    for _ in range(16):
        await send(b": still here\n\n")
        await asyncio.sleep(0.05)
    for part in (_data(chat, "It is 7."), *_ending("stop", 4)):
        await send(part)
    return False


STREAMS: dict[str, Callable[[Send, bool], Any]] = {
    "endless": _endless,
    "longline": _long_line,
    "nan": _not_a_number,
    "badjson": _nonsense,
    "utf8": _not_text,
    "comments": _comments,
    "idle": _idle_events,
    "counts": _wrong_counts,
    "thinking": _thinking,
    "lost in thought": _lost_in_thought,
    "hollow": _hollow,
    "noise": _noise,
    "no end": _no_end,
    "bad end": _bad_end,
    "slow start": _slow_start,
}
