"""Models in Hugging Face folders: where they are, how big, and loading them: safetensors only, none of their own code.

Imports torch and transformers only when a model is loaded.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from flyweight.errors import ConfigError, FlyweightError, ModelError

__all__ = ["Loaded", "folder", "is_reference", "libraries", "load", "parameters", "tensor"]

FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What is fetched of a repository: no pickles and no code."""


def is_reference(model: str) -> bool:
    """Whether `model` names a Hugging Face folder or repository rather than a GGUF file."""
    return not model.endswith(".gguf") and (Path(model).expanduser().is_dir() or _repository(model) is not None)


def folder(model: str) -> Path:
    """The folder of a local path or of `hf:org/repo[@revision]`, which is fetched unless it is there.

    ModelError where there is no model in it, or none in safetensors: other formats can run code when they are loaded.
    """
    repository = _repository(model)
    path = Path(model).expanduser() if repository is None else _fetched(*repository)
    if not (path / "config.json").is_file():
        raise ModelError(f"{model} holds no model: there is no config.json")
    if not any(path.glob("*.safetensors")):
        raise ModelError(f"{model} has no .safetensors weights, and no others are loaded: pickled ones can run code")
    return path


def parameters(path: Path, *, head: bool) -> int:
    """Parameters that work on every token, read from the headers of the weights: all but an embedding table that is
    only looked up. `head`: whether scores are read from the vocabulary's own head."""
    shapes = {name: shape for file in sorted(path.glob("*.safetensors")) for name, shape in _shapes(file).items()}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    tied = head and not any(name.endswith("lm_head.weight") for name in sizes)
    unused = [] if tied else [name for name in sizes if name.endswith("embed_tokens.weight")]
    if not head:
        unused += [name for name in sizes if name.endswith("lm_head.weight")]
    return sum(sizes.values()) - sum(sizes[name] for name in unused)


class Loaded(NamedTuple):
    """A model's parts."""

    model: Any
    tokenizer: Any
    device: Any


def load(path: Path, kind: str, dtype: str = "auto") -> Loaded:
    """The model in a folder as transformers' `kind` (AutoModel, ...), on the GPU if there is one.

    `dtype`: a precision of torch's by name; "auto" is that of the file. ModelError in one line for a model that cannot
    be used; none of its own code ever runs.
    """
    torch, transformers = libraries()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    safely = {"trust_remote_code": False, "local_files_only": True}
    said: Any
    try:
        with _quietly(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(path, **safely)
            model, said = getattr(transformers, kind).from_pretrained(
                path, use_safetensors=True, dtype=dtype, output_loading_info=True, **safely
            )
    except Exception as error:  # transformers raises whatever its parts do
        raise ModelError(f"{path} cannot be loaded: {_line(error)}") from error
    if said["missing_keys"]:
        missing = sorted(said["missing_keys"])
        raise ModelError(f"{path} lacks {len(missing)} of the model's weights: {missing[0]} ...")
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{path} has no tokenizer.json, the only kind of tokenizer that is read")
    return Loaded(model.eval().to(device), tokenizer, device)


@contextmanager
def _quietly(transformers: Any) -> Iterator[None]:
    """No progress bars, and no complaints about weights of heads that we read ourselves."""
    told = transformers.utils.logging
    level, bars = told.get_verbosity(), told.is_progress_bar_enabled()
    told.set_verbosity_error()
    told.disable_progress_bar()
    try:
        yield
    finally:
        told.set_verbosity(level)
        if bars:
            told.enable_progress_bar()


def libraries() -> tuple[Any, Any]:
    """torch and transformers; ConfigError, on one line, where they are missing."""
    # transformers says so on stderr when it finds no GPU library or wants to tell of its news.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        import torch
        import transformers
    except ImportError as missing:
        raise ConfigError("models in folders need torch and transformers: pip install 'flyweight[hf]'") from missing
    return torch, transformers


def _repository(model: str) -> tuple[str, str] | None:
    """Repository and revision of `hf:org/repo[@revision]`."""
    match = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", model)
    return (match[1], match[2] or "main") if match else None


def _fetched(repository: str, revision: str) -> Path:
    libraries()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the network's errors, the hub's and the disk's
        raise ModelError(f"cannot fetch hf:{repository}@{revision}: {_line(error)}") from error


def _shapes(file: Path) -> dict[str, Sequence[int]]:
    libraries()
    from safetensors import safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors has an error class of its own, and files raise OSError
        raise ModelError(f"{file} is not a safetensors file: {_line(error)}") from error


def tensor(path: Path, name: str) -> Any:
    """A tensor of the folder's weights; None if there is none of that name."""
    from safetensors import safe_open

    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            if name in tensors.keys():  # noqa: SIM118
                return tensors.get_tensor(name)
    return None


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] if isinstance(error, FlyweightError) else f"{type(error).__name__}: {text[:300]}"
