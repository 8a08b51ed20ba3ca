"""The upper layers of a model as a model of their own: states in, numbers out.

llama.cpp runs a file's layers from the first to the last. So the wanted ones are copied to a file of their own, whose
"vocabulary" is the rows of a small head, and whose "tokens" are states that a batch brings along as embeddings.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import gguf
import llama_cpp as llama
import numpy as np
from numpy.typing import NDArray

from flyweight.errors import BackendError, ModelError
from flyweight.policies.llamacpp.context import Batch, Floats, Model, log_errors

__all__ = ["Layers", "cut"]

ROWS = 32
"""Of the head: a block's worth, those beyond its own zero."""
BATCH = 512


def cut(source: Path, target: Path, *, first: int, head: Floats) -> None:
    """Write the layers from `first` on, with `head` [numbers, width] as what is read off a state; errors of reading."""
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    partial = target.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, architecture)
    blocks = f"{architecture}.block_count"
    for field in reader.fields.values():
        if field.name.startswith(f"{architecture}.") and field.name != blocks:
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, inner)
    writer.add_uint32(blocks, int(reader.fields[blocks].contents()) - first)
    writer.add_uint32(f"{architecture}.vocab_size", ROWS)
    writer.add_string("tokenizer.ggml.model", "none")
    rows = np.zeros((ROWS, head.shape[1]), np.float32)
    writer.add_tensor("token_embd.weight", rows)
    writer.add_tensor("output.weight", np.concatenate([head, rows[len(head) :]]))
    for tensor in reader.tensors:
        name = str(tensor.name)
        if name.startswith("blk."):
            _, layer, rest = name.split(".", 2)
            name = f"blk.{int(layer) - first}.{rest}"
            if int(layer) < first:
                continue
        elif name != "output_norm.weight":
            continue
        writer.add_tensor(name, np.asarray(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, target)


class Layers:
    """Layers with an adapter, over `sequences` that share the states they have in common."""

    def __init__(self, path: Path, adapter: Path, *, packed: bool, sequences: int, length: int, threads: int) -> None:
        """`length`: states of all sequences together, those they share counted once. ModelError or BackendError."""
        self.model = Model(path, packed=packed)
        self.params = self.model.params
        self.length = length
        self.sequences = sequences
        params = llama.llama_context_default_params()
        params.n_ctx = length
        params.n_batch = params.n_ubatch = BATCH
        params.n_seq_max = sequences
        params.n_outputs_max = BATCH
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = 1
        params.kv_unified = True
        params.no_perf = True
        pointer = llama.llama_init_from_model(self.model.pointer, params)
        if not pointer:
            self.model.close()
            raise BackendError(
                f"llama.cpp cannot make a context of {length} states: {log_errors() or 'out of memory?'}"
            )
        self.pointer = pointer
        log_errors()
        self._adapter = llama.llama_adapter_lora_init(self.model.pointer, os.fsencode(adapter))
        if not self._adapter:
            raise ModelError(f"llama.cpp cannot load the adapter {adapter}: {log_errors() or 'no reason given'}")
        pointers = (llama.llama_adapter_lora_p_ctypes * 1)(self._adapter)
        scales = (ctypes.c_float * 1)(1.0)
        if llama.llama_set_adapters_lora(pointer, pointers, 1, scales) != 0:
            raise ModelError(f"llama.cpp cannot apply the adapter {adapter}: {log_errors() or 'no reason given'}")
        self._memory = llama.llama_get_memory(pointer)
        self._batch = Batch(BATCH)
        self._states = np.zeros((BATCH, self.model.width), np.float32)
        fields: dict[str, Any] = {field[0]: field[1] for field in llama.llama_batch._fields_}
        cast(Any, self._batch.struct).token = None
        self._batch.struct.embd = ctypes.cast(self._states.ctypes.data, fields["embd"])

    def read(
        self, states: Floats, positions: Sequence[int], sequences: Sequence[int], wanted: NDArray[np.bool_]
    ) -> Floats:
        """Append states to their sequences; what the head's rows read off each wanted one, [wanted, ROWS], in order."""
        found = []
        for start in range(0, len(states), BATCH):
            part = slice(start, start + BATCH)
            n = len(states[part])
            self._states[:n] = states[part]
            batch = self._batch
            batch.positions[:n] = positions[part]
            batch.streams[:n] = sequences[part]
            batch.wanted[:n] = wanted[part]
            batch.struct.n_tokens = n
            code = llama.llama_decode(self.pointer, batch.struct)
            if code != 0:
                raise BackendError(f"llama_decode failed with code {code}: {log_errors() or 'no reason given'}")
            outputs = int(wanted[part].sum())
            if outputs:
                logits = llama.llama_get_logits(self.pointer)
                array = np.ctypeslib.as_array(logits, shape=(outputs * self.model.n_vocab,))
                found.append(array.reshape(outputs, -1).copy())
        return cast(Floats, np.concatenate(found)) if found else np.zeros((0, ROWS), np.float32)

    def share(self, source: int, target: int, length: int) -> None:
        """Let `target` begin with the first `length` states of `source`."""
        llama.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def forget(self, sequence: int) -> None:
        """Drop what only this sequence holds."""
        llama.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def close(self) -> None:
        """Release everything."""
        llama.llama_free(self.pointer)
        llama.llama_adapter_lora_free(self._adapter)
        self.model.close()
