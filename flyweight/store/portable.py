"""A store as one file of compressed JSON lines, to keep in version control or to carry elsewhere, and back.

The first line says what the file is, the last how many rows it has; between them stand models, runs, units, searches
and contents, each row an object whose first name says which. Every table has an order of its own making, so equal
stores give equal bytes. Texts are readable, token ids are numbers; log-probabilities and certainties are base64 of
little-endian floats, first the high bytes of all of them, then the low ones, which packs better. With precision "none"
a text keeps the mean of its log-probabilities alone, which breaks ties, and the units by which draws and scores are
found again stay behind: the file is to read. Checksums of rows are made anew; a content is named by the sum over what
the file holds of it, and everything refers to it by that name.
"""

from __future__ import annotations

import gzip
import json
import lzma
import math
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, get_args

from flyweight.errors import ConfigError, unknown
from flyweight.store.database import FAILURES, Batch, Database
from flyweight.store.files import replacing
from flyweight.store.runs import AGAIN, KEEP
from flyweight.store.searches import pack_record, read_record, unpack_record
from flyweight.store.units import TOGETHER, Content, Units, mark, pack, unpack
from flyweight.store.values import (
    LARGEST,
    Json,
    Precision,
    floats_bytes,
    floats_value,
    json_line,
    moment,
    name_bytes,
    number_value,
    numbers_bytes,
    string,
    text_bytes,
    text_value,
    whole,
)
from flyweight.types import Stopped, digest

__all__ = ["dump", "load"]

FORMAT = 1
XZ = b"\xfd7zXZ"
"""How a file starts that is not gzipped."""
MAX_LINE = 1 << 28
"""Bytes: a longer line is no search that anybody ran."""
BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, struct.error)
"""What a row that is not one raises when it is read."""


def dump(database: Database, path: Path, precision: Precision) -> dict[str, int]:
    """Write everything in the store to the file; how many rows of each table. See `Store.dump`."""
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    with (
        replacing(path, packed="xz" if path.suffix == ".xz" else "gz", store=database.path) as file,
        _snapshot(database),
    ):
        counts: Counter[str] = Counter()
        file.write(json_line({"flyweight": "store", "format": FORMAT, "precision": precision}))
        for table, row in _Dump(database, precision).rows():
            counts[table] += 1
            file.write(json_line(row))
        file.write(json_line({"end": counts.total()}))
    return dict(counts)


@contextmanager
def _snapshot(database: Database) -> Iterator[None]:
    """All that is read within is of one moment, whoever writes meanwhile."""
    database.one("SELECT 1")  # an old failure or a closed store says so here
    database.connection.execute("BEGIN")
    try:
        yield
    finally:
        with suppress(*FAILURES):
            database.connection.execute("ROLLBACK")


class _Dump:
    """The rows of a store as they are written."""

    def __init__(self, database: Database, precision: Precision) -> None:
        self._database = database
        self._precision = precision
        self._names: dict[bytes, bytes] = {}
        """Sum of a content that something refers to -> its sum once rounded."""

    def rows(self) -> Iterator[tuple[str, Json]]:
        """(table, row) of everything, contents last: by then it is known which are referred to."""
        for *row, check in self._table("models", "model, name, params, boundary, mark", "model"):
            self._check(row, check, f"model {row[0]}")
            model, name, params, boundary = row
            yield "models", {"model": model, "name": name, "params": params, "boundary": json.loads(boundary)}
        columns = "run, configuration, models, versions, started, finished, problems, mark"
        for *row, check in self._table("runs", columns, "started, run"):
            self._check(row, check, f"run {row[0]}")
            run, configuration, models, versions, started, finished, problems = row
            yield (
                "runs",
                {
                    "run": run,
                    "configuration": json.loads(configuration),
                    "models": json.loads(models),
                    "versions": json.loads(versions),
                    "started": started,
                    "finished": finished,
                    "problems": problems,
                },
            )
        columns = "key, kind, moment, label, prompt_tokens, cached_tokens, generated_tokens, content, numbers, mark"
        for *row, check in self._table("units", columns, "kind, key"):
            self._check(row, check, "a unit")
            # What asks again is found by what it asks about, log-probabilities included.
            if self._precision != "none" or row[1] == "grade":
                yield "units", self._unit(*row)
        for *row, check in self._table("searches", "run, problem, stopped, record, mark", "run, problem"):
            self._check(row, check, "a search")
            run, problem, stopped, record = row
            whole = unpack_record(record)
            for node in whole["nodes"].values():
                if "content" in node:
                    node["content"] = self._name(bytes.fromhex(node["content"])).hex()
            yield "searches", {"search": run, "problem": text_value(problem), "stopped": stopped, "record": whole}
        yield from self._contents()

    def _unit(
        self,
        key: bytes,
        kind: str,
        moment: int,
        label: str,
        prompt: int,
        cached: int,
        generated: int,
        content: bytes,
        numbers: bytes,
    ) -> Json:
        row: Json = {"unit": key.hex(), "kind": kind, "moment": moment, "label": label}
        row["cost"] = [prompt, cached, generated]
        if content:
            row["content"] = self._name(content).hex()
        if numbers:
            row["numbers"] = [*map(number_value, unpack("i" if kind == "generation" else "d", numbers))]
        return row

    def _contents(self) -> Iterator[tuple[str, Json]]:
        # In the order of the texts, alike ones lie together, where the packing finds them.
        found = self._table("contents", "text, tokens, sum, logprobs, certainty", "text, tokens")
        for _, group in groupby(found, key=lambda row: row[:2]):
            rounded = {}
            for text, tokens, sum, logprobs, certainty in group:
                if sum in self._names:
                    rounded[self._names[sum]] = self._rounded(Content(text, tokens, logprobs, certainty))
            for name, content in sorted(rounded.items()):
                row: Json = {"content": name.hex(), "text": text_value(content.text)}
                if content.tokens:
                    row["tokens"] = unpack("i", content.tokens)
                if self._precision == "none":
                    if content.logprobs:
                        row["mean"] = float(f"{unpack('f', content.logprobs)[0]:.9g}")  # all that a float32 holds
                    yield "contents", row
                    continue
                for column in ("logprobs", "certainty"):
                    if floats := getattr(content, column):
                        row[column] = floats_value(floats, self._precision)
                yield "contents", row

    def _name(self, sum: bytes) -> bytes:
        """What the content of that sum is called in the file."""
        if sum not in self._names:
            columns = self._database.one("SELECT text, tokens, logprobs, certainty FROM contents WHERE sum = ?", (sum,))
            content = Content.intact(sum, columns or ())
            if content is None:
                raise self._database.damaged("a text")
            self._names[sum] = self._rounded(content).sum
        return self._names[sum]

    def _rounded(self, content: Content) -> Content:
        """The content with its floats as they will be read."""
        if self._precision == "float32":
            return content
        if self._precision == "none":
            return Content(content.text, content.tokens, _level(content), b"")
        floats = (floats_bytes(floats_value(data, "float16")) for data in (content.logprobs, content.certainty))
        return Content(content.text, content.tokens, *floats)

    def _table(self, table: str, columns: str, order: str) -> Iterator[tuple[Any, ...]]:
        return self._database.read(f"SELECT {columns} FROM {table} ORDER BY {order}")

    def _check(self, row: list[Any], check: bytes, what: str) -> None:
        if mark(*row) != check:
            raise self._database.damaged(what)


def _level(content: Content) -> bytes:
    """A log-probability for each token, the mean of all; none where not every token has one."""
    values = unpack("f", content.logprobs)
    if not values or len(content.logprobs) != len(content.tokens):
        return b""
    return pack("f", [math.fsum(values) / len(values)] * len(values))


# Loading -------------------------------------------------------------------------------------------------------


def load(database: Database, units: Units, path: Path) -> dict[str, int]:
    """Take what the file holds into the store; how many rows of each table were new. See `Store.load`."""
    loading = _Load(database, units, path)
    database.write(loading.batches())
    units.refresh()
    return dict(loading.new)


class _Load:
    """A file being taken in, within one transaction."""

    def __init__(self, database: Database, units: Units, path: Path) -> None:
        self.new: Counter[str] = Counter()
        self._database = database
        self._units = units
        self._path = path
        self._wanted: set[bytes] = set()
        """Contents that new rows refer to."""
        self._searches: list[tuple[str, bytes]] = []
        self._read: Mapping[str, Callable[[Json], Iterator[Batch]]] = {
            "model": self._model,
            "run": self._run,
            "unit": self._unit,
            "search": self._search,
            "content": self._content,
        }

    def batches(self) -> Iterator[Batch]:
        """What is to be written. Raises ConfigError, after which nothing may be kept, for a file that is not right."""
        rows = 0
        ended = False
        for number, line in self._lines():
            try:
                row = json.loads(line)
                kind = next(iter(row))
                if ended:
                    raise ValueError("something after the end")
                if number == 1:
                    self._header(row)
                elif kind == "end":
                    if row["end"] != rows:
                        raise ValueError(f"{rows} rows came before it")
                    ended = True
                else:
                    rows += 1
                    yield from self._read[kind](row)
            except (*BROKEN, StopIteration) as error:
                said = f"{type(error).__name__}: {error}"
                raise ConfigError(f"{self._path}, line {number}: not a line of a packed store ({said})") from error
        if not ended:
            raise ConfigError(f"{self._path} is cut short: it has no last line")
        self._verify()

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        try:
            with self._path.open("rb") as start:
                opened = lzma.open if start.read(len(XZ)) == XZ else gzip.open
            with opened(self._path) as file:
                number = 0
                while line := file.readline(MAX_LINE + 1):
                    number += 1
                    if len(line) > MAX_LINE:
                        raise ConfigError(f"{self._path}, line {number}: over {MAX_LINE >> 20} MB")
                    yield number, line
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"cannot read {self._path}: {reason}") from error

    def _header(self, row: Json) -> None:
        if row.get("flyweight") != "store":
            raise ValueError("not the first line of one")
        if row["format"] != FORMAT:
            raise ConfigError(f"{self._path} has format {row['format']}, this Flyweight knows {FORMAT}: upgrade")

    def _model(self, row: Json) -> Iterator[Batch]:
        boundary = json.dumps([string(part) for part in row["boundary"]])
        values = (string(row["model"]), string(row["name"]), whole(row["params"]), boundary)
        known = self._database.one("SELECT params FROM models WHERE model = ?", values[:1])
        if known is None:
            yield self._insert("models", "model, name, params, boundary, mark", (*values, mark(*values)))
        elif known != (row["params"],):
            raise ConfigError(
                f"{self._path} has {row['params']} parameters for the model {row['model']!r}, the store {known[0]}"
            )

    def _run(self, row: Json) -> Iterator[Batch]:
        run, configuration, models = string(row["run"]), row["configuration"], row["models"]
        if not isinstance(configuration, dict) or not isinstance(models, dict) or not isinstance(row["versions"], list):
            raise TypeError("not what a run is made of")
        written = [json.dumps(part, sort_keys=True) for part in (configuration, models, row["versions"])]
        if digest("run", written[0])[:16] != run:
            raise ValueError("the run's id is not that of its configuration")
        finished, problems = row["finished"], row["problems"]
        values = (
            run,
            *written,
            moment(row["started"]),
            None if finished is None else moment(finished),
            None if problems is None else whole(problems),
        )
        known = self._database.one("SELECT models FROM runs WHERE run = ?", (run,))
        if known is None:
            columns = "run, configuration, models, versions, started, finished, problems, mark"
            yield self._insert("runs", columns, (*values, mark(*values)))
        elif json.loads(known[0]) != models:
            raise ConfigError(f"run {run} in {self._path} was made with the models {models}, not {known[0]}")

    def _unit(self, row: Json) -> Iterator[Batch]:
        key, kind, label = name_bytes(row["unit"], 32), row["kind"], string(row["label"])
        sum = name_bytes(row["content"], 16) if "content" in row else b""
        numbers = numbers_bytes(kind, label, row.get("numbers", ()))
        if bool(sum) != (kind in ("generation", "grade")):
            raise ValueError(f"a {kind} with or without a text")
        cost = tuple(map(whole, row["cost"]))
        if len(cost) != 3:
            raise ValueError("a cost is three counts")
        values = (key, kind, whole(row["moment"], LARGEST // 2), label, *cost, sum, numbers)
        if self._database.one("SELECT 1 FROM units WHERE key = ?", (key,)) is None:
            columns = "key, kind, moment, label, prompt_tokens, cached_tokens, generated_tokens, content, numbers, mark"
            yield self._insert("units", columns, (*values, mark(*values)))
            self._wanted |= {sum} - {b""}

    def _search(self, row: Json) -> Iterator[Batch]:
        run, problem, stopped = string(row["search"]), text_bytes(row["problem"]), Stopped(row["stopped"])
        if self._database.one("SELECT 1 FROM runs WHERE run = ?", (run,)) is None:
            raise ValueError(f"a search of run {run}, which is not there")
        known = self._database.one("SELECT stopped FROM searches WHERE run = ? AND problem = ?", (run, problem))
        if known is None or (known[0] in AGAIN and stopped not in AGAIN):
            for node in row["record"]["nodes"].values():
                if "content" in node:
                    self._wanted.add(name_bytes(node["content"], 16))
            values = (run, problem, stopped.value, pack_record(row["record"]))
            self.new["searches"] += 1
            self._searches.append((run, problem))
            yield KEEP, [(*values, mark(*values))]

    def _content(self, row: Json) -> Iterator[Batch]:
        sum = name_bytes(row["content"], 16)
        tokens = row.get("tokens", ())
        logprobs, certainty = (
            floats_bytes(row[column]) if column in row else b"" for column in ("logprobs", "certainty")
        )
        if "mean" in row:
            logprobs = pack("f", [row["mean"]] * len(tokens))
        content = Content(text_bytes(row["text"]), pack("i", tokens), logprobs, certainty)
        if content.sum != sum:
            raise ValueError("the text is not what its sum says")
        content.string  # noqa: B018 (UnicodeDecodeError, a ValueError, if it is no text)
        there = self._database.one("SELECT 1 FROM contents WHERE sum = ?", (sum,))
        if sum in self._wanted and there is None:
            yield self._insert("contents", "sum, text, tokens, logprobs, certainty", (sum, *content))

    def _insert(self, table: str, columns: str, row: tuple[object, ...]) -> Batch:
        self.new[table] += 1
        return f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(row))})", [row]

    def _verify(self) -> None:
        """Read back what was written: every text, every search."""
        wanted = sorted(self._wanted)
        for start in range(0, len(wanted), TOGETHER):
            some = wanted[start : start + TOGETHER]
            if len(self._units.contents(some)) < len(some):
                raise ConfigError(f"{self._path} refers to texts that are not in it")
        for run, problem in self._searches:
            row = self._database.one("SELECT record FROM searches WHERE run = ? AND problem = ?", (run, problem))
            try:
                search = None if row is None else read_record(self._units, row[0])
                # JSON, in which the search is kept, has one form for a character and its two halves.
                id = json.loads(json.dumps(problem.decode("utf-8", "surrogatepass")))
                if search is None or search.result.problem.id != id:
                    raise ValueError("of another problem")
                _ = [*search.samples], search.tree, search.events
            except BROKEN as error:
                said = f"{type(error).__name__}: {error}"
                raise ConfigError(f"{self._path}: a search of run {run} cannot be read ({said})") from error
