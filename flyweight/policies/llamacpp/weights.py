"""Which form of the weights runs: the file as it is, unpacked to bytes for our kernels, or re-encoded as bf16.

Batched generation is bound by arithmetic, and unpacking 4- and 5-bit blocks anew for every product costs most of it.
Where our kernels run, "packed" does that once, while loading, and exactly; elsewhere a bf16 copy, made by llama.cpp's
own quantizer, helps a CPU that has instructions for it. A sequence alone is bound by bytes, and the smallest form wins.
So "auto" measures the file against the other form once per machine, model and width, and remembers.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

import llama_cpp as llama

from flyweight.errors import FlyweightError
from flyweight.policies.llamacpp.context import Context, Model, log_errors
from flyweight.policies.llamacpp.kernels import Kernels, kernels
from flyweight.policies.llamacpp.machine import cache_folder, cpu_name, free_memory, locked

__all__ = ["WEIGHTS", "Encoded", "encoded"]

WEIGHTS = ("auto", "file", "packed", "bf16")
BF16 = 32
"""LLAMA_FTYPE_MOSTLY_BF16."""
UNPACKED = (0, 1, BF16)
"""File types f32, f16 and bf16: nothing to unpack, nothing to gain."""
TRIAL_SECONDS = 4.0
"""Time spent decoding, over all encodings."""
TRIAL_LENGTH = 256
log = logging.getLogger("flyweight")


class Encoded(NamedTuple):
    """The file to load, and how."""

    kind: str
    """"file", "packed" or "bf16"."""
    path: Path
    note: str = ""
    """Why it is not what was asked for, on one line."""


def encoded(path: Path, weights: str, *, slots: int, threads: int, cache_dir: Path | None) -> Encoded:
    """The form to run `path` in. Falls back to the file itself, with a note, when another cannot be had."""
    if weights == "file" or not path.is_file():
        return Encoded("file", path)
    ours = kernels()
    if weights == "packed":
        return Encoded("packed", path) if isinstance(ours, Kernels) else _as_stored(path, f"no packed kernels ({ours})")
    folder = cache_dir if cache_dir is not None else cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            kind = "packed" if weights == "auto" and isinstance(ours, Kernels) else "bf16"
            key = _key(path, kind, slots, threads)
            known = _recall(folder, key) if weights == "auto" else None
            if known == "file":
                return Encoded("file", path)
            if known == kind == "packed":  # then it is quantised, which would take loading it to see
                _room(path)
                return Encoded("packed", path)
            other = _packed(path) if kind == "packed" else _bf16(path, folder, threads)
            if other is None:
                return Encoded("file", path)
            if weights == "bf16" or known == other.kind:
                return other
            forms = {form.kind: form for form in (Encoded("file", path), other)}
            speeds = _speeds(forms.values(), slots, threads)
            best = max(speeds, key=lambda kind: speeds[kind])
            _remember(folder, key, best, speeds)
            return forms[best]
    except (OSError, FlyweightError) as error:
        return _as_stored(path, f"no other form ({' '.join(str(error).split())})")


def _as_stored(path: Path, why: str) -> Encoded:
    note = f"running the weights as stored: {why}"
    log.warning("%s", note)
    return Encoded("file", path, note)


def _fingerprint(path: Path) -> str:
    """Hash of a file's size and of 64 samples spread over it: reading all of it would cost more than it is worth."""
    size = path.stat().st_size
    h = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for sample in range(64):
            file.seek(sample * max(0, size - (1 << 16)) // 63)
            h.update(file.read(1 << 16))
    return h.hexdigest()[:16]


def _is_quantised(path: Path) -> bool:
    model = Model(path)
    unpacked = llama.llama_model_ftype(model.pointer) in UNPACKED
    model.close()
    return not unpacked


def _packed(path: Path) -> Encoded | None:
    """The file for our kernels; None where nothing is quantised. OSError where there is no memory to unpack it."""
    _room(path)
    return Encoded("packed", path) if _is_quantised(path) else None


def _room(path: Path) -> None:
    """OSError where there is no memory to unpack the file."""
    need = 2 * path.stat().st_size  # 4-bit blocks take hardly more room unpacked, 5-bit blocks up to 1.6 times as much
    if (memory := free_memory()) < need:
        raise OSError(f"{need / 1e9:.1f} GB of memory needed, {memory / 1e9:.1f} GB free")


def _bf16(path: Path, folder: Path, threads: int) -> Encoded | None:
    """The re-encoded copy, made if need be; None where nothing is quantised. OSError or ModelError if it fails."""
    target = folder / f"{path.stem}-{_fingerprint(path)}.bf16.gguf"
    if target.is_file():
        return Encoded("bf16", target)
    if not _is_quantised(path):
        return None
    model = Model(path)
    need = int(llama.llama_model_n_params(model.pointer) * 2.02) + (64 << 20)
    model.close()
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
    return Encoded("bf16", target)


class _Trial:
    """One form, loaded and timed: seconds of its fastest decode with every slot busy."""

    def __init__(self, form: Encoded, slots: int, threads: int) -> None:
        self.model = Model(form.path, packed=form.kind == "packed")
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


def _speeds(forms: Iterable[Encoded], slots: int, threads: int) -> dict[str, float]:
    """Tokens per second of each. Rounds alternate and the fastest counts: other processes disturb both alike."""
    trials: dict[str, _Trial] = {}
    try:
        for form in forms:
            trials[form.kind] = _Trial(form, slots, threads)
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


def _key(path: Path, kind: str, slots: int, threads: int) -> str:
    """What a measurement depends on: model, the form compared with the file, CPU, llama.cpp build, width, threads."""
    where = [cpu_name(), llama.__version__, f"{slots} rows", f"{threads} threads"]
    return " | ".join([_fingerprint(path), kind, *where])


def _recall(folder: Path, key: str) -> str | None:
    """The choice measured earlier under `key`; None if there is none or the record cannot be read."""
    choice = _table(folder).get(key, {}).get("choice")
    return choice if isinstance(choice, str) and choice in WEIGHTS else None


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
