"""A policy that remembers: what has been drawn once is replayed, so tables regenerate without a model.

A draw is identified by the policy's name, its seed (which stands for run, problem, path and draw index) and how it was
sampled; a reading by the path and what was asked. Cost comes back as it was recorded. Responses are appended as they
arrive, so an interrupted recording goes on where it stopped.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from flyweight.errors import BackendError
from flyweight.protocols import Counters, Policy, Request, Response
from flyweight.types import Finish, digest


class Cassette:
    """Recorded responses in a JSONL file packed with xz, one line each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, object]] = {}
        self.recorded = 0
        if path.exists():
            try:
                with lzma.open(path, "rt", encoding="utf-8") as lines:
                    for line in lines:
                        row = json.loads(line)
                        self.rows[row["key"]] = row
            except (EOFError, lzma.LZMAError, json.JSONDecodeError):
                pass  # the tail of an interrupted recording; everything before it counts

    def save(self, key: str, response: Response) -> None:
        row = {name: value for name, value in asdict(response).items() if value and name not in ("id", "hidden")}
        for name in ("logprobs", "certainty", "choices"):
            if name in row:
                row[name] = [round(value, 3) for value in row[name]]
        self.rows[key] = {"key": key, **row}
        self.recorded += 1
        if self.recorded % 100 == 0:
            self.flush()

    def flush(self) -> None:
        """Write everything, in an order that does not depend on when it was drawn."""
        if not self.recorded:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        with lzma.open(partial, "wb", preset=9) as packed:
            for key in sorted(self.rows):
                packed.write((json.dumps(self.rows[key], ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
        partial.replace(self.path)

    def load(self, key: str, id: int) -> Response | None:
        row = self.rows.get(key)
        if row is None:
            return None
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
        del fields["key"]
        finish = Finish(str(fields.pop("finish")))
        return Response(id=id, finish=finish, **fields)  # type: ignore[arg-type]


class Recorded:
    """A policy behind a cassette. The model is only loaded if something is missing from it."""

    def __init__(self, name: str, params: int, cassette: Cassette, make: Callable[[], Policy] | None = None) -> None:
        self.name = name
        self.params = params
        self.boundary: tuple[str, ...] = ("\n\n",)
        self._cassette = cassette
        self._make = make
        self._policy: Policy | None = None
        self._ready: list[Response] = []
        self._keys: dict[int, str] = {}

    def add(self, request: Request) -> None:
        key = self._key(request)
        known = self._cassette.load(key, request.id)
        if known is not None:
            self._ready.append(known)
            return
        if self._policy is None:
            if self._make is None:
                raise BackendError(f"{self._cassette.path.name} lacks a response: run with --record")
            self._policy = self._make()
        self._keys[request.id] = key
        self._policy.add(request)

    def step(self) -> list[Response]:
        ready, self._ready = self._ready, []
        if ready or self._policy is None:
            return ready
        finished = []
        for response in self._policy.step():
            key = self._keys.pop(response.id)
            if response.error is None:
                self._cassette.save(key, response)
            # As it will be replayed, rounding included, so that recording and replay choose alike.
            finished.append(self._cassette.load(key, response.id) or response)
        return finished

    def cancel(self, id: int) -> Response:
        self._ready = [response for response in self._ready if response.id != id]
        if id in self._keys and self._policy is not None:
            del self._keys[id]
            return self._policy.cancel(id)
        return Response(id, finish=Finish.CUT)

    @property
    def counters(self) -> Counters:
        return self._policy.counters if self._policy is not None else Counters()

    def close(self) -> None:
        self._cassette.flush()
        if self._policy is not None:
            self._policy.close()

    def _key(self, request: Request) -> str:
        path = request.node.key if request.choices else ""
        return digest(self.name, request.seed, path, request.sampling, request.choices)[:24]
