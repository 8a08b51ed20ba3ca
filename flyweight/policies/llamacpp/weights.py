"""Which encoding of the weights runs: the file as it is, or the same weights re-encoded as bf16.

Batched generation is bound by arithmetic, and unpacking 4-bit blocks costs more of it than bf16 products do where the
CPU has instructions for those; alone, a sequence is bound by bytes, and the smaller file wins. So "auto" measures both
once per machine, model and width, and remembers. The re-encoding is llama.cpp's own quantizer's.
"""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import logging
import math
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import llama_cpp as llama

from flyweight.errors import FlyweightError
from flyweight.policies.llamacpp.context import Context, Model, free_memory, log_errors

__all__ = ["WEIGHTS", "Encoded", "encoded"]

WEIGHTS = ("auto", "file", "bf16")
BF16 = 32
"""LLAMA_FTYPE_MOSTLY_BF16."""
UNPACKED = (0, 1, BF16)
"""File types f32, f16 and bf16: nothing to unpack, nothing to gain."""
TRIAL_SECONDS = 4.0
"""Time spent decoding, over all encodings."""
TRIAL_LENGTH = 256
log = logging.getLogger("flyweight")


class Encoded(NamedTuple):
    """The file to load."""

    kind: str
    """"file" or "bf16"."""
    path: Path
    note: str = ""
    """Why it is not what was asked for, on one line."""


def encoded(path: Path, weights: str, *, slots: int, threads: int, cache_dir: Path | None) -> Encoded:
    """The encoding to run `path` with. Falls back to the file itself, with a note, when bf16 cannot be had."""
    if weights == "file" or not path.is_file():
        return Encoded("file", path)
    folder = cache_dir if cache_dir is not None else _cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / "lock"):
            if weights == "auto" and (known := _recall(folder, _key(path, slots, threads))) == "file":
                return Encoded("file", path)
            other = _bf16(path, folder, threads)
            if other is None:
                return Encoded("file", path)
            if weights == "bf16" or known == "bf16":
                return Encoded("bf16", other)
            speeds = _speeds({"file": path, "bf16": other}, slots, threads)
            best = max(speeds, key=lambda kind: speeds[kind])
            _remember(folder, _key(path, slots, threads), best, speeds)
            return Encoded(best, other if best == "bf16" else path)
    except (OSError, FlyweightError) as error:
        note = f"running the weights as stored: no bf16 copy ({' '.join(str(error).split())})"
        log.warning("%s", note)
        return Encoded("file", path, note)


def _cache_dir() -> Path:
    """$FLYWEIGHT_HOME/derived, else flyweight/derived in the user's cache folder."""
    if home := os.environ.get("FLYWEIGHT_HOME"):
        return Path(home) / "derived"
    cache_home = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache_home) if cache_home else Path("~/.cache").expanduser()) / "flyweight" / "derived"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time re-encodes or measures; the kernel drops the lock of one that dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fingerprint(path: Path) -> str:
    """Hash of a file's size and of 64 samples spread over it: reading all of it would cost more than it is worth."""
    size = path.stat().st_size
    h = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for sample in range(64):
            file.seek(sample * max(0, size - (1 << 16)) // 63)
            h.update(file.read(1 << 16))
    return h.hexdigest()[:16]


def _bf16(path: Path, folder: Path, threads: int) -> Path | None:
    """The re-encoded copy, made if need be; None where the file is not packed. OSError or ModelError if it fails."""
    target = folder / f"{path.stem}-{_fingerprint(path)}.bf16.gguf"
    if target.is_file():
        return target
    model = Model(path)
    packed = llama.llama_model_ftype(model.pointer) not in UNPACKED
    need = int(llama.llama_model_n_params(model.pointer) * 2.02) + (64 << 20)
    model.close()
    if not packed:
        return None
    if (free := shutil.disk_usage(folder).free) < need:
        raise OSError(f"{need / 1e9:.1f} GB needed in {folder}, {free / 1e9:.1f} GB free")
    if (memory := free_memory()) < 2 * need:
        raise OSError(f"{2 * need / 1e9:.1f} GB of memory needed, {memory / 1e9:.1f} GB free")
    partial = target.with_suffix(".partial")
    try:
        params = llama.llama_model_quantize_default_params()
        params.nthread = threads
        params.ftype = BF16
        params.allow_requantize = True
        log_errors()
        code = llama.llama_model_quantize(os.fsencode(path), os.fsencode(partial), ctypes.byref(params))
        if code != 0:
            raise OSError(log_errors() or f"llama_model_quantize failed with code {code}")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        Model(partial).close()  # a file cut short by a full disk does not load
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target


class _Trial:
    """One encoding, loaded and timed: seconds of its fastest decode with every slot busy."""

    def __init__(self, path: Path, slots: int, threads: int) -> None:
        self.model = Model(path)
        self.context = Context(
            self.model, streams=slots, length=TRIAL_LENGTH, threads=threads, kv_type="f16", flash_attention=True
        )
        self.slots = slots
        self.best = math.inf

    def round(self, position: int) -> None:
        """Decode one token per slot. The first round only touches the weights and does not count."""
        started = time.perf_counter()
        self.context.decode(
            [1 + position] * self.slots, [position] * self.slots, range(self.slots), outputs=True, hidden=False
        )
        if position > 0:
            self.best = min(self.best, time.perf_counter() - started)

    def close(self) -> None:
        self.context.close()
        self.model.close()


def _speeds(paths: dict[str, Path], slots: int, threads: int) -> dict[str, float]:
    """Tokens per second of each file. Rounds alternate and the fastest counts: other processes disturb both alike."""
    trials: dict[str, _Trial] = {}
    try:
        for kind, path in paths.items():
            trials[kind] = _Trial(path, slots, threads)
        started = time.perf_counter()
        for position in range(TRIAL_LENGTH):
            for trial in trials.values():
                trial.round(position)
            if position > 1 and time.perf_counter() - started > TRIAL_SECONDS:
                break
        return {kind: slots / trial.best for kind, trial in trials.items()}
    finally:
        for trial in trials.values():
            trial.close()


def _key(path: Path, slots: int, threads: int) -> str:
    """What a measurement depends on: model, CPU, llama.cpp build, width, threads."""
    return " | ".join([_fingerprint(path), _cpu(), llama.__version__, f"{slots} rows", f"{threads} threads"])


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _recall(folder: Path, key: str) -> str | None:
    """The choice measured earlier under `key`; None if there is none or the record cannot be read."""
    choice = _table(folder).get(key, {}).get("choice")
    return choice if choice in ("file", "bf16") else None


def _remember(folder: Path, key: str, choice: str, speeds: dict[str, float]) -> None:
    table = _table(folder)
    table[key] = {"choice": choice, "tokens_per_second": {kind: round(speed, 1) for kind, speed in speeds.items()}}
    partial = folder / "weights.json.partial"
    partial.write_text(json.dumps(table, indent=1, sort_keys=True))
    os.replace(partial, folder / "weights.json")


def _table(folder: Path) -> dict[str, dict[str, object]]:
    try:
        table = json.loads((folder / "weights.json").read_text())
    except (OSError, ValueError):
        return {}
    rows = table.items() if isinstance(table, dict) else ()
    return {key: cast("dict[str, object]", row) for key, row in rows if isinstance(row, dict)}
