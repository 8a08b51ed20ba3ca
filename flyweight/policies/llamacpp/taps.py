"""Hidden states: what some inner layers hand on, copied while llama.cpp computes a batch.

llama.cpp's evaluation callback is asked about every tensor of a batch. Ours is compiled where there are kernels, Python
elsewhere: the latter costs a millisecond a batch.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, cast

import llama_cpp as llama
import numpy as np
from llama_cpp._ctypes_extensions import load_shared_library
from numpy.typing import NDArray

from flyweight.errors import BackendError
from flyweight.policies.llamacpp.depths import tapped
from flyweight.policies.llamacpp.kernels import Kernels, kernels

__all__ = ["Taps", "tapped"]


class _Struct(ctypes.Structure):
    """kernels/taps.hpp's Taps."""

    _fields_ = [
        ("open", ctypes.c_int32),
        ("count", ctypes.c_int32),
        ("width", ctypes.c_int64),
        ("room", ctypes.c_int64),
        ("names", ctypes.POINTER(ctypes.c_char_p)),
        ("rows", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
    ]


class Taps:
    """Room for the outputs of `layers` over one batch of at most `room` tokens."""

    def __init__(self, layers: tuple[int, ...], *, width: int, room: int) -> None:
        self.layers = layers
        self._names = [f"l_out-{layer}".encode() for layer in layers]
        self._rows = np.zeros(len(layers), np.int64)
        self._out = np.zeros((room, len(layers), width), np.float32)
        self._spellings = (ctypes.c_char_p * len(layers))(*self._names)
        self._struct = _Struct(
            0, len(layers), width, room, self._spellings, self._rows.ctypes.data, self._out.ctypes.data
        )
        ours = kernels()
        if isinstance(ours, Kernels):
            self.callback = llama.ggml_backend_sched_eval_callback(ours.tap)
        else:
            self.callback = llama.ggml_backend_sched_eval_callback(self._python())
        self.data = ctypes.cast(ctypes.pointer(self._struct), ctypes.c_void_p)

    def open(self, wanted: bool) -> None:
        """Begin a batch, of which the states are `wanted` or not."""
        self._struct.open = int(wanted)
        self._rows[:] = 0

    def taken(self, rows: int) -> NDArray[np.float32]:
        """The states of the batch's first `rows` tokens, float32 [rows, layers, width]: a view until the next batch.

        In the order of the batch, if its streams were contiguous and all of them had the same number of tokens.
        """
        if not len(self.layers) or not (self._rows == rows).all():
            raise BackendError(f"llama.cpp gave no hidden states for {rows} tokens")
        return self._out[:rows]

    def _python(self) -> Any:
        try:  # its name depends on the system, which llama-cpp-python knows
            base = load_shared_library("ggml-base", Path(llama.__file__).parent / "lib")
        except (OSError, RuntimeError):
            return lambda tensor, ask, _: not ask  # no states, and `taken` says so; all else works
        name, data, size = base.ggml_get_name, base.ggml_get_data, base.ggml_nelements
        name.restype, data.restype, size.restype = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64
        name.argtypes = data.argtypes = size.argtypes = [ctypes.c_void_p]
        width = self._out.shape[2]

        def tap(tensor: int, ask: bool, _: object) -> bool:
            if not self._struct.open or name(tensor) not in self._names:
                return not ask
            if not ask:
                at = self._names.index(name(tensor))
                numbers = ctypes.cast(data(tensor), ctypes.POINTER(ctypes.c_float))
                states = np.ctypeslib.as_array(numbers, shape=(size(tensor) // width, width))
                done = int(self._rows[at])
                part = self._out[done : done + len(states), at]
                part[:] = states[: len(part)]
                self._rows[at] += len(part)
            return True

        return cast(Any, tap)
