"""Stands between a peer and the server: passes requests on, notes what came of them.

It changes two things, so that everybody draws from the same distribution: what a request leaves open is drawn from
the whole distribution, and temperature 1, which optillm writes into its code, becomes the run's. Other temperatures
(its judge asks at 0.1) stay.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

from benchmarks.peers.account import Served
from benchmarks.peers.vllm_shim import post

__all__ = ["Exchange", "Recorder", "rewritten"]

OPEN = {"top_k": 0, "min_p": 0.0, "top_p": 1.0}


class Exchange(NamedTuple):
    path: str
    request: Mapping[str, Any]
    response: Mapping[str, Any]


def rewritten(request: Mapping[str, Any], temperature: float) -> dict[str, Any]:
    """The request as the server gets it."""
    changed = {**OPEN, **request}
    if changed.get("temperature", 1) == 1:
        changed["temperature"] = temperature
    return changed


class Recorder:
    """A proxy for the length of its `with` block; `exchanges` holds what was answered, in order of arrival."""

    def __init__(self, upstream: str, *, temperature: float, slots: int) -> None:
        self._upstream = upstream
        self._temperature = temperature
        # As many as the server has workers: it drops connections beyond its short queue, and each costs a second.
        self._room = threading.BoundedSemaphore(slots + 4)
        self._noted: dict[int, Exchange] = {}
        self._arrived = 0
        self._lock = threading.Lock()

    @property
    def exchanges(self) -> list[Exchange]:
        with self._lock:
            return [self._noted[number] for number in sorted(self._noted)]

    def pass_on(self, path: str, data: bytes) -> tuple[int, bytes]:
        """Status and body of the server's answer; a refusal is passed on and not noted."""
        with self._lock:
            self._arrived += 1
            number = self._arrived
        request = json.loads(data)
        draws = path.endswith("completion") or path.endswith("completions")
        if draws:
            request = rewritten(request, self._temperature)
        try:
            with self._room:
                response = post(self._upstream + path, request)
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        if draws:
            with self._lock:
                self._noted[number] = Exchange(path, request, response)
        return 200, json.dumps(response).encode()

    def served(self) -> list[Served]:
        """The exchanges with their texts tokenised; asks the server, so not while a clock runs."""
        known: dict[str, list[int]] = {}

        def tokens(text: str) -> list[int]:
            if text not in known:
                asked = {"content": text, "add_special": True, "parse_special": True}
                known[text] = post(f"{self._upstream}/tokenize", asked)["tokens"]
            return known[text]

        result = []
        for _, request, response in self.exchanges:
            if "messages" in request:
                asked = {"messages": request["messages"]}
                prompt = str(post(f"{self._upstream}/apply-template", asked)["prompt"])
                texts = [choice["message"]["content"] or "" for choice in response["choices"]]
            else:
                prompt = request["prompt"]
                texts = [response["content"] + response["stopping_word"]]
            outputs = [tokens(prompt + text) for text in texts]
            result.append(Served(tokens(prompt), response["timings"]["prompt_n"], outputs))
        return result

    def __enter__(self) -> Self:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, content = recorder.pass_on(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            request_queue_size = 512
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a peer that was ended at its limit hangs up on its requests

        self._listener = Listener(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._listener.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
