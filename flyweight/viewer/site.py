"""Paths to answers: the page, its files, what a store says, and searches to watch; the same for every server.

Everything is read: no path leads to a file, names are looked up in what the store holds, and only questions are taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from flyweight import __version__
from flyweight.errors import ConfigError, FlyweightError, StoreError
from flyweight.store import Store
from flyweight.viewer.asking import Asking, Busy
from flyweight.viewer.page import ASSETS, POLICY, asset, dumps, shell
from flyweight.viewer.records import Kept, Records

__all__ = ["Reply", "Site"]

Json = dict[str, Any]

JSON = "application/json"
LARGEST = 64_000
"""Bytes of a question's body."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ID = "[0-9a-f]{16}"


class Reply(NamedTuple):
    """What a server sends back. A body that is an iterator is sent part by part as it comes."""

    status: int
    type: str
    body: bytes | Iterator[bytes]

    @property
    def headers(self) -> dict[str, str]:
        """Sent with every answer."""
        return {"Content-Type": self.type, **HEADERS}


class Site:
    """The viewer of one store, or of none. Safe to use from several threads."""

    def __init__(
        self,
        store: Path | None,
        *,
        asking: Asking | None = None,
        plan: Mapping[str, Any] | None = None,
        start: str = "",
    ) -> None:
        """`plan` is what `flyweight plan --json` printed, `start` the place to open first, such as `/run/ID`."""
        self._path = store
        self._asking = asking
        self._plan = plan
        self._start = start
        self._kept: Kept = {}
        self._gets: list[tuple[re.Pattern[str], Callable[..., Reply]]] = [
            (re.compile(pattern), found)
            for pattern, found in (
                ("", lambda: Reply(200, "text/html; charset=utf-8", shell().encode())),
                (f"assets/({'|'.join(map(re.escape, ASSETS))})", _asset),
                ("api/index", self._index),
                ("api/plan", lambda: _json(self._plan) if self._plan is not None else _error(404, "no plan was given")),
                (f"api/run/({ID})", lambda id: self._read(lambda records: records.run(id))),
                (f"api/run/({ID})/report", lambda id: self._read(lambda records: records.report(id))),
                (
                    f"api/run/({ID})/question/({ID})",
                    lambda id, key: self._read(lambda records: records.question(id, key)),
                ),
                (f"api/diff/({ID})/({ID})", lambda a, b: self._read(lambda records: records.difference(a, b))),
                (f"api/ask/({ID})/events", self._events),
            )
        ]

    def get(self, path: str) -> Reply:
        """The answer to a GET of a path without its leading slash, not decoded; 404 for everything unknown."""
        for pattern, found in self._gets:
            if match := pattern.fullmatch(path):
                return found(*match.groups())
        return _error(404, "there is nothing here")

    def post(self, path: str, body: bytes) -> Reply:
        """The answer to a POST of JSON. The server has checked that it comes from the page itself."""
        if self._asking is None:
            return _error(404, "this viewer only reads: flyweight serve --ui, or view --model, answer questions")
        if match := re.fullmatch(f"api/ask/({ID})/stop", path):
            return self._stop(self._asking, match[1])
        if path != "api/ask":
            return _error(404, "there is nothing here")
        if len(body) > LARGEST:
            return _error(413, f"a question may have {LARGEST:,} bytes")
        try:
            return _json({"id": self._asking.ask(json.loads(body))})
        except Busy as error:
            return _error(429, str(error))
        except FlyweightError as error:
            return _error(400, str(error))
        except (ValueError, RecursionError):
            return _error(400, "the body is not JSON")

    def index(self) -> Json:
        """What there is."""
        return {
            "version": __version__,
            "runs": self._runs(),
            "ask": None if self._asking is None else self._asking.menu,
            "plan": self._plan is not None,
            "start": self._start,
        }

    def _runs(self) -> list[Json]:
        if self._path is None or not self._path.is_file():
            return []
        try:
            with closing(Store(self._path, readonly=True)) as store:
                return Records(store).runs()
        except ConfigError:
            return []  # a store in which nothing has been written yet

    def _read(self, what: Callable[[Records], Json]) -> Reply:
        """Ask the store, opened for this one answer: any thread may, and a run that goes on is seen as it is."""
        if self._path is None or not self._path.is_file():
            return _error(404, "nothing is recorded")
        try:
            with closing(Store(self._path, readonly=True)) as store:
                return _json(what(Records(store, self._kept)))
        except ConfigError as error:
            return _error(404, str(error).replace(str(self._path), "the store"))
        except Exception:
            # Whatever a store of unknown origin holds ends this answer, not the server.
            return _error(500, "that record cannot be read: flyweight bench show says why")

    def _index(self) -> Reply:
        try:
            return _json(self.index())
        except StoreError:
            return _error(500, "the store cannot be read: flyweight bench ls says why")

    def _events(self, id: str) -> Reply:
        try:
            found = None if self._asking is None else self._asking.events(id)
        except KeyError:
            found = None
        return _gone() if found is None else Reply(200, "text/event-stream", found)

    def _stop(self, asking: Asking, id: str) -> Reply:
        try:
            asking.stop(id)
        except KeyError:
            return _gone()
        return _json({})


def _gone() -> Reply:
    return _error(404, "that search is no longer there")


def _asset(name: str) -> Reply:
    return Reply(200, ASSETS[name], asset(name).encode())


def _json(value: object) -> Reply:
    return Reply(200, JSON, dumps(value).encode())


def _error(status: int, message: str) -> Reply:
    return Reply(status, JSON, dumps({"error": {"message": message}}).encode())
