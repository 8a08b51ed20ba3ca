"""`Transformers`: a policy on torch, many requests at once, KV of shared beginnings computed once."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyweight import huggingface, models
from flyweight.errors import BackendError, ConfigError
from flyweight.policies.llamacpp.admission import admit, leave
from flyweight.policies.llamacpp.drawing import Outcome, Place, draw
from flyweight.policies.llamacpp.prefill import Part, packs
from flyweight.policies.llamacpp.row import Row, reason
from flyweight.policies.llamacpp.sampler import Drawn, Rows, Scratch
from flyweight.policies.llamacpp.tokens import Tokens
from flyweight.policies.transformers.network import Batch, Network
from flyweight.policies.transformers.resident import KV, Resident, size
from flyweight.policies.transformers.vocabulary import HuggingFace
from flyweight.protocols import Counters, Request, Response
from flyweight.types import Finish, digest

__all__ = ["Transformers"]

PREFILL_FLOP = {"cpu": 0.55e12, "cuda": 50e12}
"""Work of one step's prefill: below a second. Fixed, so that batch shapes do not depend on timing."""


class Transformers:
    """A causal language model of transformers as a policy: the numerical reference of the embedded engine.

    A step gives free slots to what waits in order, computes prompts up to a fixed amount of work, then one token for
    every row. Paths that were computed stay resident up to `cache_mb`, least recently used dropped first, and requests
    for the same path that arrive together compute it once. Prompts, sampling and stop strings are the embedded
    engine's own code: with the same weights in float32 both draw the same tokens for the same seeds.

    A model whose memory cannot be kept and continued (recurrent ones) is found out when it is loaded; every token then
    costs its whole path, counted as recomputed, one row after the other.

    Hidden states are those of the engine's layers. Grammars are refused: they constrain llama.cpp's vocabulary.
    """

    def __init__(
        self,
        model: str,
        *,
        precision: str = "auto",
        slots: int = 32,
        context: int = 2048,
        cache_mb: int = 1024,
        boundary: tuple[str, ...] = ("\n\n",),
    ) -> None:
        """Load a folder, or `org/repo[@revision]` from the hub.

        precision: of the weights, "auto" as in their file. slots: rows decoded together. context: tokens of a whole
        path, at most what the model was trained for. cache_mb: KV kept beside that of the rows. Raises ConfigError for
        values outside these, ModelError for a model that cannot be used.
        """
        if slots < 1:
            raise ConfigError(f"slots={slots}: must be at least 1")
        if context < 16:
            raise ConfigError(f"context={context}: must be at least 16 tokens")
        if cache_mb < 0:
            raise ConfigError(f"cache_mb={cache_mb}: must be 0 or more")
        if not all(boundary):
            raise ConfigError("boundary holds an empty string: give the strings that end a step")
        local = Path(model).expanduser()
        self._folder = huggingface.folder(model if local.is_dir() or model.startswith("hf:") else f"hf:{model}")
        self.params = huggingface.parameters(self._folder, head=True)
        self._network = Network(self._folder, precision)
        if self._network.longest is not None and context > self._network.longest:
            raise ConfigError(f"context={context}: {model} was trained for {self._network.longest} tokens at most")
        dtype = str(self._network.model.dtype).removeprefix("torch.")
        self.name = f"{local.name if local.is_dir() else model} {dtype} {self.sha256[:8]}"
        """With the weights' hash: what is drawn is filed under it, and a folder may change."""
        self.boundary = tuple(boundary)
        self._vocabulary = HuggingFace(self._network.tokenizer, size=self._network.n_vocab, ends=self._network.ends)
        self._tokens = Tokens(self._vocabulary, self.name)
        self._scratch = Scratch(self._network.n_vocab)
        self._slots, self._length = slots, context
        affordable = int(PREFILL_FLOP[self._network.device.type] / (2 * self.params))
        self._chunk = max(32, min(8192, affordable))
        self._resident = Resident(cache_mb << 20)
        self._queue: list[Request] = []
        self._rows: list[Row] = []
        """Requests in slots, twins included, in order of admission."""
        self._kv: dict[Row, KV] = {}
        """Of rows that have one and are not in the batch."""
        self._batch: Batch | None = None
        self._seated: list[Row] = []
        """The batch's rows."""
        self._finished: list[Response] = []
        self._token_bytes = 0
        self._totals = Counters()
        self._closed = False

    # The Policy protocol -------------------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """Queue a request."""
        self._queue.append(request)

    def step(self) -> list[Response]:
        """Admit, prefill within a bound, draw one token for every row that is ready; return what finished."""
        if self._closed:
            raise BackendError(f"policy {self.name!r} is closed")
        self._admit()
        self._prefill()
        self._decode()
        computed = sum(row.done for row in self._rows if row.leader is None) if self._network.forks else 0
        held = self._resident.bytes + computed * self._token_bytes
        peak = max(held, self._totals.peak_kv_bytes)
        self._totals = self._totals._replace(kv_bytes=held, peak_kv_bytes=peak)
        finished, self._finished = self._finished, []
        return finished

    def cancel(self, id: int) -> Response:
        """Drop a request: what it had drawn and cost so far. An id that is not in flight is a BackendError."""
        for request in self._queue:
            if request.id == id:
                self._queue.remove(request)
                return Response(id, finish=Finish.CUT)
        for row in self._rows:
            if row.request.id == id:
                self._leave(row)
                return row.response(Finish.CUT)
        raise BackendError(f"request {id} is not in flight")

    @functools.cached_property
    def sha256(self) -> str:
        """Of the hashes of the weights' files."""
        return digest(*(models.digest(file) for file in sorted(self._folder.glob("*.safetensors"))))

    @property
    def counters(self) -> Counters:
        """Totals so far; they equal the sums over all responses."""
        return self._totals

    def close(self) -> None:
        """Release the model. Requests in flight are dropped."""
        self._closed = True
        self._rows.clear()
        self._queue.clear()
        self._kv.clear()
        self._resident.clear()
        self._batch = None
        self._network.model = None

    # Admission -----------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Give free slots to the queue, in order."""
        waiting = (self._queue.pop(0) for _ in range(len(self._queue)))
        forks = self._network.forks
        self._finished += admit(
            waiting, self._rows, self._slots, model=None, tokens=self._tokens, context=self._length, twins=forks
        )
        for row in self._rows if not forks else ():
            if not row.started and row.reread is None:  # there is nothing that could be computed ahead
                row.started, row.done = True, len(row.path) - 1

    def _leave(self, row: Row) -> None:
        """Free a row's slot; what was computed for it stays."""
        self._queue[:0] = leave(row, self._rows)
        kv = self._kv.pop(row, None)
        if self._batch is not None and row in self._seated:
            kv = self._batch.kv(self._seated.index(row))
        if kv:
            self._resident.keep([*row.path, *row.tokens][: row.done], kv)

    def _finish(self, row: Row, finish: Finish, *, choices: tuple[float, ...] = (), error: str | None = None) -> None:
        self._leave(row)
        self._finished.append(row.response(finish, choices=choices, error=error))

    # Prefill -------------------------------------------------------------------------------------------------

    def _prefill(self) -> None:
        """Compute paths, `_chunk` tokens a step at most."""
        for parts in packs(self._rows, self._chunk, start=self._start, resident=self._known):
            self._compute(parts)

    def _known(self, row: Row) -> int:
        return self._resident.length(row.path, row.reusable)

    def _start(self, row: Row) -> None:
        """Take what is resident of its path."""
        found = self._resident.find(row.path, row.reusable if self._network.forks else 0)
        row.started = True
        row.done = row.cached_tokens = found.length
        if found.kv is not None:
            self._kv[row] = found.kv
        self._count(cached_tokens=found.length, recomputed_tokens=found.evicted)

    def _compute(self, parts: list[Part]) -> None:
        """One pass over the next tokens of several paths."""
        rows = [row for row, _ in parts]
        reread = any(row.reread is not None for row in rows)
        try:
            if self._network.forks:
                batch = Batch(self._network, [self._kv.get(row) for row in rows])
                states = self._network.extend(batch, [tokens for _, tokens in parts], states=reread).states
            else:
                batch = None
                paths = [(row.done, row.path[: row.done + len(tokens)]) for row, tokens in parts]
                states = [self._network.alone(path, states=True).states[0][done:] for done, path in paths]
        except Exception as error:  # out of memory, and whatever else a model of somebody else's raises
            self._fail(rows, error)
            return
        for index, (row, tokens) in enumerate(parts):
            if row.reread is not None:
                row.hidden.append(states[index][max(0, row.reread.start - row.done) :])
            row.done += len(tokens)
            row.prompt_tokens += len(tokens)
            if batch is not None:
                self._kv[row] = batch.kv(index)
                self._token_bytes = size(self._kv[row]) // row.done
                if not row.left:  # what waits for it goes on from here
                    self._resident.keep(row.path[: row.done], self._kv[row])
            if row.reread is not None and not row.left:
                self._finish(row, Finish.CUT)
        self._count(prompt_tokens=sum(len(tokens) for _, tokens in parts))

    # One token for every row ---------------------------------------------------------------------------------

    def _decode(self) -> None:
        rows = [row for row in self._rows if row.leader is None and row.ready]
        if not rows:
            self._batch, self._seated = None, []
            return
        hidden = any(member.request.hidden for row in rows for member in (row, *row.twins))
        try:
            logits_of, states = self._computed(rows, hidden)
        except Exception as error:
            self._fail(rows, error)
            return
        for row in rows:
            row.done += 1
            if not row.tokens:
                row.prompt_tokens += 1
                self._count(prompt_tokens=1)
        places = [Place(member, at) for at, row in enumerate(rows) for member in (row, *self._join(row))]
        for (row, at, _), outcome in zip(places, draw(places, logits_of), strict=True):
            if hidden and row.request.hidden:
                row.hidden.append(states[at])
            if row.request.alternatives:
                row.alternatives.append(logits_of.likeliest(at, row.request.alternatives))
            try:
                self._write(row, outcome)
            except Exception as error:  # an `until` predicate may raise anything; it fails its own request only
                self._finish(row, Finish.CUT, error=reason(error))

    def _computed(self, rows: list[Row], hidden: bool) -> tuple[Rows, list[NDArray[np.float16]]]:
        """Logits behind every row's next token, and the states at it where they are wanted."""
        if not self._network.forks:
            said = []
            for row in rows:
                again = row.done  # all of its path that is not this step's token
                row.prompt_tokens += again
                self._count(prompt_tokens=again, recomputed_tokens=again if row.tokens else 0)
                said.append(self._network.alone([*row.path, *row.tokens], states=hidden))
            states = [each.states[0][-1:] for each in said] if hidden else []
            return Rows(np.concatenate([each.logits for each in said]), self._scratch), states
        if self._batch is None or self._seated != rows:
            held = dict(self._kv)
            if self._batch is not None:
                held |= {row: self._batch.kv(index) for index, row in enumerate(self._seated)}
            self._batch = Batch(self._network, [held.get(row) for row in rows])
            self._seated = rows
            for row in rows:
                self._kv.pop(row, None)
        output = self._network.extend(self._batch, [[row.next_token] for row in rows], states=hidden)
        return Rows(output.logits, self._scratch), output.states

    def _join(self, leader: Row) -> list[Row]:
        """Twins whose path has just been computed: each goes on from it."""
        twins, leader.twins = leader.twins, []
        for twin in twins:
            twin.leader = None
            twin.started = True
            twin.done = twin.cached_tokens = leader.done
            if not twin.choices and self._batch is not None:  # choices are read off the leader's logits
                self._kv[twin] = self._batch.kv(self._seated.index(leader))
        self._count(cached_tokens=leader.done * len(twins))
        return twins

    def _write(self, row: Row, drawn: Outcome) -> None:
        """Add to a row what was drawn for it, and finish it if that was the last."""
        if isinstance(drawn, Exception):
            raise drawn
        if not isinstance(drawn, Drawn):
            self._finish(row, Finish.END, choices=drawn)
            return
        row.generated_tokens += 1
        self._count(generated_tokens=1)
        if self._vocabulary.ends(drawn.token):
            self._finish(row, Finish.END)
            return
        finish = row.write(drawn, self._tokens.piece(drawn.token), self._length)
        if finish is not None:
            self._finish(row, finish)

    def _fail(self, rows: list[Row], error: Exception) -> None:
        """End the requests of a pass that could not be computed."""
        self._batch, self._seated = None, []
        for row in rows:
            self._kv.pop(row, None)
            for member in [*row.twins, row]:
                self._finish(member, Finish.CUT, error=reason(error))

    def _count(self, **more: int) -> None:
        self._totals = self._totals._replace(**{k: getattr(self._totals, k) + v for k, v in more.items()})
