"""The engine's own CPU kernels: compiled once for this machine, tried in a process of their own, then loaded.

formats.hpp, matmul.hpp   quantised weights, unpacked to bytes exactly and multiplied with AVX-512 VNNI
attention.hpp             attention over f16 KV, the query heads of a KV head together
logits.hpp                from logits to draws
clock.hpp                 where the time goes
taps.hpp                  copies of what inner layers hand on
plugin.cpp                how llama.cpp comes to use them; ggml_private.hpp, what that relies on
check.hpp                 whether it works

They need Linux, a processor with AVX-512 VNNI and a C++ compiler with OpenMP. Without, or with FLYWEIGHT_KERNELS=off,
llama.cpp's own kernels run: slower, with the same weights.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from flyweight.policies.llamacpp.machine import cache_folder, cpu_flags, cpu_name, locked

__all__ = ["Draws", "Kernels", "Unavailable", "check", "kernels", "outlook"]

SOURCES = Path(__file__).parent
NEEDED = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC")
COMPILERS = ("c++", "g++", "clang++")
SECONDS = 120
"""For compiling, which takes about 6, and for trying."""
log = logging.getLogger("flyweight")


class Unavailable(Exception):
    """Why there are no kernels, in one line."""


class Draws(NamedTuple):
    """Rows of logits, float32 [rows, vocab], and what was drawn from them."""

    peak: NDArray[np.float32]
    """[rows] the largest logit; NaN if any is."""
    mean: NDArray[np.float32]
    """[rows]"""
    log_total: NDArray[np.float64]
    """[rows] log of the sum of exponentials."""
    token: NDArray[np.int64]
    """[draws]"""
    logit: NDArray[np.float32]
    """[draws] the drawn token's."""


class Kernels:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(os.fspath(path))
        self._library.flyweight_draw.restype = None
        self._library.flyweight_register()
        self._library.flyweight_attention(1)

    def pack_weights(self, on: bool) -> None:
        """Whether models loaded from now on get their weights repacked for our products."""
        self._library.flyweight_weights(int(on))

    def take_attention(self, on: bool) -> None:
        """Whether attention is ours where it can be, from now on and in every model. It is unless this says no."""
        self._library.flyweight_attention(int(on))

    @property
    def tap(self) -> int:
        """Address of the evaluation callback that `taps.Taps` describes."""
        address = ctypes.cast(self._library.flyweight_tap, ctypes.c_void_p).value
        assert address is not None
        return address

    def seconds(self) -> tuple[float, float]:
        """Time spent so far in products and in attention, in all models of the process."""
        spent = np.zeros(2, np.float64)
        self._library.flyweight_clock(ctypes.c_void_p(spent.ctypes.data))
        return float(spent[0]), float(spent[1])

    def draw(
        self,
        logits: NDArray[np.float32],
        counts: list[int],
        temperatures: list[float],
        uniforms: list[float],
        threads: int,
    ) -> Draws:
        """`counts[r]` tokens from row `r`: by inverting the cumulative distribution, ids ascending, at each uniform."""
        rows, vocab = logits.shape
        starts = np.zeros(rows + 1, np.int64)
        np.cumsum(counts, out=starts[1:])
        temperature, uniform = np.array(temperatures, np.float32), np.array(uniforms, np.float64)
        peak, mean, log_total = np.empty(rows, np.float32), np.empty(rows, np.float32), np.empty(rows, np.float64)
        token, logit = np.zeros(starts[-1], np.int64), np.zeros(starts[-1], np.float32)
        arrays = (starts, temperature, uniform, peak, mean, log_total, token, logit)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
        size = (ctypes.c_int64(rows), ctypes.c_int64(vocab))
        self._library.flyweight_draw(ctypes.c_void_p(logits.ctypes.data), *size, *pointers, ctypes.c_int(threads))
        return Draws(peak, mean, log_total, token, logit)


@functools.cache
def kernels() -> Kernels | Unavailable:
    """The kernels, built if need be, or why there are none. To be called before the process loads a first model."""
    try:
        return Kernels(_built(cache_folder()))
    except Unavailable as reason:
        return reason
    except OSError as error:
        return Unavailable(f"they cannot be kept or loaded: {' '.join(str(error).split())}")


def check(path: Path) -> str:
    """Compare a build with plain loops inside this process's llama.cpp; what is wrong, empty if nothing is."""
    library = ctypes.CDLL(os.fspath(path))
    library.flyweight_register()
    message = ctypes.create_string_buffer(500)
    library.flyweight_check(message, ctypes.c_size_t(500))
    return message.value.decode()


def outlook() -> tuple[bool, str]:
    """Whether this machine has or gets kernels, and more about it in a line. Compiles nothing."""
    try:
        path, _, _ = _place(cache_folder())
        if path.is_file():
            return True, "built for this processor"
        if (verdict := path.with_suffix(".json")).is_file():
            raise Unavailable(json.loads(verdict.read_text())["unavailable"])
        return True, f"{Path(_compiler()).name} builds them at the first use, in about 10 seconds"
    except Unavailable as reason:
        return False, str(reason)


def _built(folder: Path) -> Path:
    """The library, made and tried once."""
    path, headers, libraries = _place(folder)
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "kernels.lock"):
        verdict = path.with_suffix(".json")
        if not path.is_file() and not verdict.is_file():
            problem = _build(path, headers, libraries)
            if problem:  # remembered: neither a compiler error nor a crash is worth waiting for twice
                verdict.write_text(json.dumps({"unavailable": problem}))
        if not path.is_file():
            raise Unavailable(json.loads(verdict.read_text())["unavailable"])
    return path


def _place(folder: Path) -> tuple[Path, Path, Path]:
    """Where the library for this processor, llama.cpp and source is or will be; llama.cpp's headers and libraries."""
    if os.environ.get("FLYWEIGHT_KERNELS") == "off":
        raise Unavailable("FLYWEIGHT_KERNELS=off")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise Unavailable("they are only made for Linux on x86-64")
    if missing := NEEDED - cpu_flags():
        raise Unavailable(f"the processor has no {', '.join(sorted(missing))}")
    root = Path(llama_cpp.__file__).parent
    headers, libraries = root.parent / "include", root / "lib"
    if not (headers / "ggml-cpu.h").is_file() or not (libraries / "libggml-cpu.so").is_file():
        raise Unavailable("llama-cpp-python came without its headers")
    parts = [source.read_bytes() for source in sorted(SOURCES.glob("*.?pp"))]
    parts.append((libraries / "libggml-cpu.so").read_bytes())
    parts.append(" ".join([cpu_name(), *sorted(cpu_flags())]).encode())
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()
    return folder / f"kernels-{digest[:16]}.so", headers, libraries


def _compiler() -> str:
    found = os.environ.get("CXX") or next(filter(None, map(shutil.which, COMPILERS)), None)
    if found is None:
        raise Unavailable("there is no C++ compiler (Debian, Ubuntu: apt install g++)")
    return found


def _build(path: Path, headers: Path, libraries: Path) -> str:
    """Compile and try; what went wrong, empty if nothing did. Raises Unavailable for what may be different tomorrow."""
    compiler = _compiler()
    partial = path.with_suffix(f".{os.getpid()}.partial")
    link = [f"-L{libraries}", "-lggml-cpu", "-lggml-base", "-lggml", f"-Wl,-rpath,{libraries}"]
    command = [compiler, *FLAGS, f"-I{headers}", str(SOURCES / "plugin.cpp"), *link, "-o", str(partial)]
    log.info("compiling the engine's kernels for this processor")
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        if made.returncode:
            lines = [line for line in made.stderr.splitlines() if "error" in line] or ["no reason given"]
            return f"{compiler} cannot compile them: {lines[0].strip()[:200]}"
        tried = subprocess.run(
            [sys.executable, "-m", __name__, str(partial)], capture_output=True, text=True, timeout=SECONDS
        )
        if tried.returncode:
            said = tried.stdout.strip() or f"exit code {tried.returncode}"
            return f"they do not work with llama-cpp-python {llama_cpp.__version__}: {said[:200]}"
        os.replace(partial, path)
        return ""
    except subprocess.TimeoutExpired as slow:
        return f"{Path(slow.cmd[0]).name} took over {SECONDS} seconds"
    finally:
        partial.unlink(missing_ok=True)
