"""A thin layer over llama.cpp's C API: a model, and a context of separate KV streams.

Nothing here knows about requests. Failures become one-line ModelError (while loading) or BackendError (while working);
llama.cpp's own log is kept in memory and only its last error line is ever shown.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flyweight.errors import BackendError, ConfigError, ModelError
from flyweight.policies.llamacpp.buffers import Buffers
from flyweight.policies.llamacpp.machine import free_memory

# Threads wait for each other several hundred times in a step. GNU's OpenMP lets them spin for milliseconds, which is
# bad beside another busy process: the one that is waited for has no CPU. Some 30 microseconds keep the speed on a quiet
# machine and raise it by a third to a half on a busy one (docs/performance.md). It is read when the library loads.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

try:
    import llama_cpp as llama
except ImportError as missing:
    raise ConfigError("the embedded engine needs llama-cpp-python: pip install 'flyweight[local]'") from missing
except (OSError, RuntimeError, FileNotFoundError) as broken:
    raise ConfigError(
        f"llama-cpp-python is installed but does not load ({broken}): "
        "reinstall it with pip install --force-reinstall llama-cpp-python"
    ) from broken

from flyweight.policies.llamacpp.kernels import Kernels, kernels
from flyweight.policies.llamacpp.taps import Taps, tapped

__all__ = ["KV_TYPES", "Batch", "Blob", "Context", "Floats", "Model", "States", "log_errors"]

Floats = NDArray[np.float32]
States = NDArray[np.float16]
Blob = NDArray[np.uint8]

KV_TYPES = {"f32": (0, 4.0), "f16": (1, 2.0), "bf16": (30, 2.0), "q8_0": (8, 34 / 32)}
"""KV encoding: (ggml type, bytes per number)."""

OUTPUTS = 4
"""Rows of logits there is always room for."""
SPARE = 16 << 20
"""Bytes of buffers for copies kept beyond those in use."""
LARGEST = float(np.finfo(np.float16).max)
_ERROR = 3
"""GGML_LOG_LEVEL_ERROR."""
_errors: deque[str] = deque(maxlen=20)


def _collect(level: int, text: bytes, _: object) -> None:
    if level == _ERROR:
        _errors.append(text.decode("utf-8", "replace").strip())


# llama.cpp keeps the pointer for the life of the process, so the callback object must live as long.
_callback = llama.llama_log_callback(_collect)


def _quiet() -> None:
    llama.llama_log_set(_callback, ctypes.c_void_p(0))


def log_errors() -> str:
    """llama.cpp's error lines since the last call, on one line; empty if there were none."""
    said = "; ".join(line for line in _errors if line)
    _errors.clear()
    return said


class Model:
    """Weights and vocabulary of one GGUF file."""

    def __init__(self, path: Path, *, packed: bool = False) -> None:
        """Load `path`, with `packed` its weights repacked for our own kernels.

        A missing, foreign or broken file, or an architecture without plain KV, is a ModelError.
        """
        if not path.is_file():
            raise ModelError(f"no model file at {path}: give a .gguf path, or pull one with `flyweight models pull`")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{path} is not a GGUF file")
        _quiet()
        log_errors()
        llama.llama_backend_init()
        if isinstance(ours := kernels(), Kernels):
            ours.pack_weights(packed)
        params = llama.llama_model_default_params()
        if packed:  # read, not mapped: the pages of the file would stay beside what they are unpacked to
            params.load_mode = llama.LLAMA_LOAD_MODE_NONE
        pointer = llama.llama_model_load_from_file(os.fsencode(path), params)
        if not pointer:
            raise ModelError(f"llama.cpp cannot load {path}: {log_errors() or 'no reason given'}")
        self.path = path
        self.pointer = pointer
        self._open = True
        if any(
            check(pointer)
            for check in (
                llama.llama_model_is_recurrent,
                llama.llama_model_is_hybrid,
                llama.llama_model_is_diffusion,
                llama.llama_model_has_encoder,
            )
        ):
            self.close()
            raise ModelError(f"{path} is not a plain decoder-only transformer, the only kind the embedded engine runs")
        vocab = llama.llama_model_get_vocab(pointer)
        if vocab is None:
            self.close()
            raise ModelError(f"{path} has no vocabulary")
        self.vocab = vocab
        self.n_vocab = llama.llama_vocab_n_tokens(self.vocab)
        self.width = llama.llama_model_n_embd(pointer)
        self.layers = llama.llama_model_n_layer(pointer)
        self.trained_context = llama.llama_model_n_ctx_train(pointer)
        self.spm = llama.llama_vocab_type(self.vocab) == llama.LLAMA_VOCAB_TYPE_SPM
        self.add_bos = bool(llama.llama_vocab_get_add_bos(self.vocab))
        self.bos = llama.llama_vocab_bos(self.vocab)
        self.eos = llama.llama_vocab_eos(self.vocab)
        self.params = llama.llama_model_n_params(pointer)
        if _has_tensor(path, b"output.weight") and _has_tensor(path, b"token_embd.weight"):
            # With a separate output head the embedding table is only looked up: it multiplies nothing.
            self.params -= self.n_vocab * self.width

    def kv_bytes(self, kv_type: str) -> int:
        """Bytes of KV per token: keys and values of every layer."""
        arch = self.meta("general.architecture")
        heads = llama.llama_model_n_head(self.pointer)
        key = int(self.meta(f"{arch}.attention.key_length") or self.width // heads)
        value = int(self.meta(f"{arch}.attention.value_length") or self.width // heads)
        numbers = self.layers * llama.llama_model_n_head_kv(self.pointer) * (key + value)
        return int(numbers * KV_TYPES[kv_type][1])

    def meta(self, key: str) -> str:
        """A metadata value as text, empty if absent."""
        size = llama.llama_model_meta_val_str(self.pointer, key.encode(), cast(Any, None), 0)
        if size < 0:
            return ""
        text = ctypes.create_string_buffer(size + 1)
        llama.llama_model_meta_val_str(self.pointer, key.encode(), cast(Any, text), size + 1)
        return text.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str:
        """The Jinja source in the file, empty if there is none."""
        template = llama.llama_model_chat_template(self.pointer, cast(Any, None))
        return template.decode("utf-8", "replace") if template else ""

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`, nothing added. Special-token strings become those tokens only if `special`."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        while True:
            out = (llama.llama_token * room)()
            n = llama.llama_tokenize(self.vocab, data, len(data), out, room, False, special)
            if n >= 0:
                return list(out[:n])
            room = -n

    def piece(self, token: int) -> bytes:
        """Bytes a token stands for; control tokens stand for none."""
        out = ctypes.create_string_buffer(64)
        n = llama.llama_token_to_piece(self.vocab, token, cast(Any, out), 64, 0, False)
        if n < 0:
            out = ctypes.create_string_buffer(-n)
            n = llama.llama_token_to_piece(self.vocab, token, cast(Any, out), -n, 0, False)
        return out.raw[:n]

    def spelling(self, token: int) -> str:
        """How the vocabulary writes a token, special ones included."""
        text = llama.llama_vocab_get_text(self.vocab, token)
        return text.decode("utf-8", "replace") if text else ""

    def ends(self, token: int) -> bool:
        """Whether a token ends the generation."""
        return bool(llama.llama_vocab_is_eog(self.vocab, token))

    def is_control(self, token: int) -> bool:
        """Whether a token is a control token, which text must never be able to forge."""
        return bool(llama.llama_vocab_is_control(self.vocab, token))

    def close(self) -> None:
        """Release the weights."""
        if self._open:
            self._open = False
            llama.llama_model_free(self.pointer)


def _has_tensor(path: Path, name: bytes) -> bool:
    """Whether the GGUF header lists a tensor: strings there are a 64-bit length and the bytes."""
    with path.open("rb") as file:
        header = file.read(32 << 20)
    return struct.pack("<Q", len(name)) + name in header


class Batch:
    """Preallocated arguments of one llama_decode, filled through numpy arrays instead of item by item."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.tokens = np.zeros(size, np.int32)
        self.positions = np.zeros(size, np.int32)
        self.streams = np.zeros(size, np.int32)
        self.wanted = np.zeros(size, np.int8)
        self._ones = np.ones(size, np.int32)
        base = self.streams.ctypes.data
        self._pointers = np.arange(base, base + 4 * size, 4, dtype=np.uint64)

        def at(array: NDArray[Any], kind: Any) -> Any:
            return ctypes.cast(array.ctypes.data, kind)

        fields: dict[str, Any] = {field[0]: field[1] for field in llama.llama_batch._fields_}
        self.struct = llama.llama_batch()
        self.struct.token = at(self.tokens, fields["token"])
        self.struct.pos = at(self.positions, fields["pos"])
        self.struct.n_seq_id = at(self._ones, fields["n_seq_id"])
        self.struct.seq_id = at(self._pointers, fields["seq_id"])
        self.struct.logits = at(self.wanted, fields["logits"])


class Context:
    """`streams` separate KV sequences of `length` tokens each, and the buffers of their next decode."""

    def __init__(
        self,
        model: Model,
        *,
        streams: int,
        length: int,
        threads: int,
        kv_type: str,
        flash_attention: bool,
        batch: int = 512,
    ) -> None:
        log_errors()
        self.model = model
        self.streams = streams
        self.length = length
        # Touched now, or with our kernels as streams fill: better a line than the kernel's out-of-memory killer.
        need, free = streams * length * model.kv_bytes(kv_type), free_memory()
        if need > free:
            raise ConfigError(
                f"{streams} slots x {length} tokens of context take {need / 1e9:.1f} GB of KV, {free / 1e9:.1f} GB "
                "are free: lower slots or context"
            )
        params = llama.llama_context_default_params()
        params.n_ctx = length * streams
        params.n_batch = params.n_ubatch = max(batch, streams)
        params.n_seq_max = streams
        # Logits are wanted for the last token of each stream, or for drafts: 600 kB per output at a 150k vocabulary.
        params.n_outputs_max = max(streams, OUTPUTS)
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = KV_TYPES[kv_type][0]
        params.flash_attn_type = int(flash_attention)
        params.kv_unified = False
        params.no_perf = True
        self.taps = Taps(tapped(model.layers), width=model.width, room=params.n_batch)
        params.cb_eval, params.cb_eval_user_data = self.taps.callback, self.taps.data
        pointer = llama.llama_init_from_model(model.pointer, params)
        if not pointer:
            raise BackendError(
                f"llama.cpp cannot make a context of {streams} x {length} tokens ({need / 1e9:.1f} GB of KV): "
                f"{log_errors() or 'out of memory?'}"
            )
        self.pointer = pointer
        self._open = True
        self._memory = llama.llama_get_memory(pointer)
        self._buffers = Buffers(SPARE)
        self._batch = Batch(params.n_batch)
        self._tokens = self._rows = 0

    def decode(
        self, tokens: Sequence[int], positions: Sequence[int], streams: Sequence[int], *, outputs: bool, hidden: bool
    ) -> None:
        """Run the model over one token per entry; logits for every entry if `outputs`, inner states if `hidden`.

        Streams must be ascending and contiguous or llama.cpp works through them piece by piece.
        """
        n = len(tokens)
        batch = self._batch
        batch.tokens[:n] = tokens
        batch.positions[:n] = positions
        batch.streams[:n] = streams
        batch.wanted[:n] = outputs
        batch.struct.n_tokens = n
        self.taps.open(hidden)
        self._tokens, self._rows = n, n if outputs else 0
        code = llama.llama_decode(self.pointer, batch.struct)
        if code != 0:
            raise BackendError(f"llama_decode failed with code {code}: {log_errors() or 'no reason given'}")

    def logits(self) -> Floats:
        """Logits of the last decode's rows, float32 [rows, vocab]: a view that lives until the next decode."""
        pointer = llama.llama_get_logits(self.pointer)
        if not pointer:
            raise BackendError("llama.cpp returned no output for the last decode")
        size = self._rows * self.model.n_vocab
        array = np.ctypeslib.as_array(pointer, shape=(size,)).reshape(self._rows, self.model.n_vocab)
        return cast(Floats, array)

    def hidden(self) -> States:
        """What the tapped layers handed on for its tokens, [tokens, layers, width]."""
        return np.clip(self.taps.taken(self._tokens), -LARGEST, LARGEST).astype(np.float16)

    # Streams: the operations of streams.Memory ---------------------------------------------------------------

    def save(self, stream: int) -> Blob:
        """A copy of a stream's KV in host memory, of the size in use (a whole-stream llama_memory_seq_cp is slower)."""
        size = llama.llama_state_seq_get_size(self.pointer, stream)
        blob = self._buffers.take(size)
        if llama.llama_state_seq_get_data(self.pointer, _bytes(blob), size, stream) != size:
            raise BackendError(f"llama.cpp could not copy stream {stream}: {log_errors()}")
        return blob

    def load(self, stream: int, blob: Blob) -> None:
        """Replace a stream's KV by a saved copy."""
        if llama.llama_state_seq_set_data(self.pointer, _bytes(blob), blob.size, stream) != blob.size:
            raise BackendError(f"llama.cpp could not restore stream {stream}: {log_errors()}")

    def truncate(self, stream: int, length: int) -> None:
        """Forget a stream's tokens from `length` on."""
        llama.llama_memory_seq_rm(self._memory, stream, length, -1)

    def close(self) -> None:
        """Release the KV and the buffers."""
        if self._open:
            self._open = False
            llama.llama_free(self.pointer)


def _bytes(blob: Blob) -> Any:
    return ctypes.cast(blob.ctypes.data, ctypes.POINTER(ctypes.c_uint8))
