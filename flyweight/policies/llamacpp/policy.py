"""`LlamaCpp`: the policy that runs a small model in this process and serves many requests at once."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flyweight import models
from flyweight.errors import BackendError, ConfigError, FlyweightError, unknown
from flyweight.policies.llamacpp.admission import admit, leave
from flyweight.policies.llamacpp.context import KV_TYPES, Blob, Context, Model
from flyweight.policies.llamacpp.drawing import Outcome, Place, drafts, draw
from flyweight.policies.llamacpp.kernels import Kernels, kernels
from flyweight.policies.llamacpp.machine import default_threads
from flyweight.policies.llamacpp.prefill import Part, packs
from flyweight.policies.llamacpp.profile import Profile
from flyweight.policies.llamacpp.row import Row, reason
from flyweight.policies.llamacpp.sampler import Drawn, Rows, Scratch
from flyweight.policies.llamacpp.schedule import Queue
from flyweight.policies.llamacpp.seats import arrange, beside, dense
from flyweight.policies.llamacpp.streams import Streams
from flyweight.policies.llamacpp.tokens import Tokens
from flyweight.policies.llamacpp.weights import WEIGHTS, encoded
from flyweight.protocols import Counters, Request, Response
from flyweight.types import Finish, Message

__all__ = ["LlamaCpp"]

SLOTS_MAX = 256
"""llama.cpp's LLAMA_MAX_SEQ."""
PREFILL_FLOP = 0.55e12
"""Work of one step's prefill: about a second on a small machine. Fixed, so that batch shapes don't depend on timing."""


class LlamaCpp:
    """A GGUF model as a policy: continuous batching over separate KV streams, prefixes shared on their own.

    A step (`add` requests, `step` until they return) gives free slots to what waits, the oldest problem first
    (`schedule.Queue`), computes at most about a second of prompts, then one token for every row. Requests for the same
    path that arrive together compute it once. Finished paths stay resident until room is needed, least recently used
    first.

    Where at most two rows run, tokens that are likely to follow are computed along with the last one (`lookup`), and
    kept as far as they are what is then drawn: fewer steps, the same texts. Only with packed weights, whose logits do
    not depend on what is computed together. `Usage` counts tokens drawn, not those drafted in vain; `Profile` has both.

    Memory is the weights, `slots` x `context` tokens of KV, taken as slots come into use, and up to `parked_mb` for
    paths put aside; a token takes 12,288 bytes for Qwen2.5 0.5B at f16.

    The token that ends an answer counts as generated, but is not among `tokens`, `logprobs` and `certainty`. Hidden
    states (`Node.hidden`) are what three inner layers hand on, 5/8, 6/8 and 7/8 of the way up (`taps`).
    """

    grammars = True
    """`Sampling.grammar` binds what it draws."""

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        slots: int = 32,
        context: int = 2048,
        boundary: tuple[str, ...] = ("\n\n",),
        weights: str = "auto",
        threads: int | None = None,
        kv_type: str = "f16",
        flash_attention: bool = True,
        parked_mb: int = 288,
        drafting: bool = True,
        cache_dir: Path | None = None,
    ) -> None:
        """Load a model.

        name: what it goes by, else the file's. slots: rows decoded together, 1 to 256. context: tokens of a whole path.
        boundary: texts that end a step. weights: "file" as stored, "packed" unpacked for our kernels, "bf16"
        re-encoded; "auto" the file, or "packed" where our kernels run and "bf16" elsewhere: the faster, measured once.
        threads: by default all CPUs this process may use. kv_type: encoding of the KV. flash_attention: off, with
        kv_type "f32", is exact. parked_mb: host memory for paths put aside. drafting: whether tokens that are likely to
        follow are computed along where one or two rows run on "packed" weights; changes no text. cache_dir: where
        re-encoded weights and measurements are kept.

        Raises ConfigError for values outside these, and ModelError for a file that cannot be used.
        """
        if not 1 <= slots <= SLOTS_MAX:
            raise ConfigError(f"slots={slots}: must be between 1 and {SLOTS_MAX}")
        if context < 16:
            raise ConfigError(f"context={context}: must be at least 16 tokens")
        if threads is not None and threads < 1:
            raise ConfigError(f"threads={threads}: must be at least 1")
        if parked_mb < 0:
            raise ConfigError(f"parked_mb={parked_mb}: must be 0 or more")
        if kv_type not in KV_TYPES:
            raise unknown("kv_type", kv_type, KV_TYPES)
        if weights not in WEIGHTS:
            raise unknown("weights", weights, WEIGHTS)
        if not all(boundary):
            raise ConfigError("boundary holds an empty string: give the strings that end a step")
        path = self._file = Path(path)
        self.name = name if name is not None else path.stem
        self.boundary = tuple(boundary)
        self._threads = threads or default_threads()
        self.weights = encoded(path, weights, slots=slots, threads=self._threads, cache_dir=cache_dir)
        """Which encoding runs, and the file that holds it."""
        self._model = Model(self.weights.path, packed=self.weights.kind == "packed")
        try:
            if context > self._model.trained_context:
                raise ConfigError(
                    f"context={context}: {self.name} was trained for {self._model.trained_context} tokens at most"
                )
            self.params = self._model.params
            self._tokens = Tokens(self._model, self.name)
            self._context = Context(
                self._model,
                streams=slots,
                length=context,
                threads=self._threads,
                kv_type=kv_type,
                flash_attention=flash_attention,
            )
        except FlyweightError:
            self._model.close()
            raise
        self._scratch = Scratch(self._model.n_vocab)
        ours = kernels()
        self._kernels = ours if isinstance(ours, Kernels) else None
        self._drafting = drafting and self.weights.kind == "packed"
        self._slots = slots
        self._length = context
        token_bytes = self._model.kv_bytes(kv_type)
        self._streams: Streams[Blob] = Streams(
            slots, self._context, token_bytes=token_bytes, parked_bytes=parked_mb << 20
        )
        affordable = int(PREFILL_FLOP / (2 * self.params))
        self._chunk = max(32, min(512, 1 << affordable.bit_length() - 1))
        self._queue = Queue()
        self._rows: list[Row] = []
        """Requests in slots, twins included, in order of admission."""
        self._finished: list[Response] = []
        self._generated = 0
        self._totals = Counters()
        self._profile = Profile()
        self._closed = False

    # The Policy protocol -------------------------------------------------------------------------------------

    def add(self, request: Request) -> None:
        """Queue a request."""
        first = self._queue.add(request)
        if self._closed:
            return  # `step` says so; the tokenizer has gone with the model
        with suppress(Exception):  # what is wrong with its path is said when it is admitted
            if first and not (
                request.choices or request.reread
            ):  # a new round of drawing: it asks for what it still needs of earlier ones
                self._streams.retire(self._tokens.prompt(request.node.root.messages))
            self._streams.expect(self._tokens.path(request.node))

    def step(self) -> list[Response]:
        """Admit, prefill within a bound, draw one token for every row that is ready; return what finished."""
        if self._closed:
            raise BackendError(f"policy {self.name!r} is closed")
        began = time.perf_counter()
        self._admit()
        self._prefill()
        self._decode()
        held = self._streams.bytes
        peak = max(held, self._totals.peak_kv_bytes)
        self._totals = self._totals._replace(generated_tokens=self._generated, kv_bytes=held, peak_kv_bytes=peak)
        finished, self._finished = self._finished, []
        for response in finished:
            self._queue.answered(response.id)
        self._clock(step_seconds=time.perf_counter() - began)
        return finished

    def cancel(self, id: int) -> Response:
        """Drop a request: what it had drawn and cost so far. An id that is not in flight is a BackendError."""
        if self._queue.remove(id):
            self._queue.answered(id)
            return Response(id, finish=Finish.CUT)
        for row in self._rows:
            if row.request.id == id:
                self._leave(row)
                self._queue.answered(id)
                return row.response(Finish.CUT)
        raise BackendError(f"request {id} is not in flight")

    @functools.cached_property
    def sha256(self) -> str:
        """Of the model's file."""
        return models.digest(self._file)

    @property
    def counters(self) -> Counters:
        """Totals so far; they equal the sums over all responses."""
        return self._totals

    def length(self, messages: tuple[Message, ...]) -> int:
        """Tokens of a prompt. ModelError where the chat template refuses it."""
        return len(self._tokens.prompt(messages))

    def piece(self, token: int) -> bytes:
        """The bytes a token stands for."""
        return self._tokens.piece(token)

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its answer."""
        return self._length

    @property
    def profile(self) -> Profile:
        """Where the time has gone so far."""
        return self._profile

    def close(self) -> None:
        """Release the model. Requests in flight are dropped."""
        self._closed = True
        for row in self._rows:
            row.close()
        self._rows.clear()
        self._queue.clear()
        self._context.close()
        self._model.close()

    # Admission -----------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Give free slots to the queue, and every row its stream."""
        waiting = (self._queue.pop() for _ in range(len(self._queue)))
        self._finished += admit(
            waiting, self._rows, self._slots, model=self._model, tokens=self._tokens, context=self._length
        )
        seated = self._seated()
        if seated and not dense(seated):
            for row, origin in arrange(seated, self._streams):
                try:
                    self._streams.move(origin, row.stream)
                except BackendError as error:
                    self._fail([row], error)

    def _seated(self) -> list[Row]:
        """Rows that have a stream or are about to; twins get theirs when they join."""
        return [row for row in self._rows if row.leader is None]

    def _leave(self, row: Row) -> None:
        for request in leave(row, self._rows):
            self._queue.put(request)

    def _finish(self, row: Row, finish: Finish, *, choices: Iterable[float] = (), error: str | None = None) -> None:
        self._leave(row)
        self._finished.append(row.response(finish, choices=tuple(choices), error=error))

    # Prefill -------------------------------------------------------------------------------------------------

    def _prefill(self) -> None:
        """Compute paths, `_chunk` tokens a step at most."""
        for parts in packs(self._rows, self._chunk, start=self._start, resident=self._resident, alone=True):
            self._compute(parts)

    def _resident(self, row: Row) -> int:
        return self._streams.find(row.path, row.reusable)[0]

    def _start(self, row: Row) -> None:
        try:
            taken = self._streams.take(row.stream, row.path, row.reusable)
        except BackendError as error:
            self._fail([row], error)
            return
        row.started = True
        row.done = row.cached_tokens = taken.cached
        self._count(cached_tokens=taken.cached, recomputed_tokens=taken.evicted)

    def _compute(self, parts: list[Part]) -> None:
        """One decode over the next tokens of several paths."""
        first = parts[0][0]
        began = time.perf_counter()
        try:
            self._context.decode(
                [token for _, tokens in parts for token in tokens],
                [row.done + ahead for row, tokens in parts for ahead in range(len(tokens))],
                [row.stream for row, tokens in parts for _ in tokens],
                outputs=False,
                hidden=first.reread is not None,
            )
            if first.reread is not None:  # it is alone: only then are the states in order of the tokens
                first.hidden.append(self._context.hidden()[max(0, first.reread.start - first.done) :])
        except BackendError as error:
            self._fail([row for row, _ in parts], error)
            return
        for row, tokens in parts:
            self._streams.held[row.stream] += tokens
            row.done += len(tokens)
            row.prompt_tokens += len(tokens)
            if row.reread is not None and not row.left:
                self._finish(row, Finish.CUT)
        self._count(prompt_tokens=sum(len(tokens) for _, tokens in parts))
        self._clock(prefill_seconds=time.perf_counter() - began)

    # One token for every row ---------------------------------------------------------------------------------

    def _decode(self) -> None:
        rows = sorted((row for row in self._rows if row.leader is None and row.ready), key=lambda row: row.stream)
        if not rows:
            return
        hidden = any(member.request.hidden for row in rows for member in (row, *row.twins))
        guesses = drafts(rows, self._length) if self._drafting else [[] for _ in rows]
        computed = [[row.next_token, *guess] for row, guess in zip(rows, guesses, strict=True)]
        width = len(computed[0])
        began = time.perf_counter()
        try:
            self._context.decode(
                [token for tokens in computed for token in tokens],
                [row.done + ahead for row in rows for ahead in range(width)],
                [row.stream for row in rows for _ in range(width)],
                outputs=True,
                hidden=hidden,
            )
            decoded = time.perf_counter()
            logits = Rows(self._context.logits(), self._scratch, kernels=self._kernels, threads=self._threads)
            states = self._context.hidden() if hidden else None
        except BackendError as error:
            self._fail(rows, error)
            return
        sampling = time.perf_counter() - decoded
        prompts = 0
        for row, tokens in zip(rows, computed, strict=True):
            self._streams.held[row.stream] += tokens
            row.done += 1
            if not row.tokens:
                row.prompt_tokens += 1
                prompts += 1
        self._count(prompt_tokens=prompts)
        places = [
            Place(member, index * width + ahead, ahead)
            for index, row in enumerate(rows)
            for ahead in range(width)
            for member in (row, *(self._join(row) if ahead == 0 else ()))
        ]
        drawing = time.perf_counter()
        drawn = draw(places, logits)
        sampling += time.perf_counter() - drawing
        kept = 0
        for (row, at, ahead), outcome in zip(places, drawn, strict=True):
            if ahead:
                # This was computed for the case that the row goes on with the draft.
                if row not in self._rows or row.next_token != self._streams.held[row.stream][row.done]:
                    continue
                row.done += 1
                kept += 1
            if states is not None and row.request.hidden:
                row.hidden.append(states[at : at + 1])
            if row.request.alternatives:
                row.alternatives.append(logits.likeliest(at, row.request.alternatives))
            try:
                self._write(row, outcome)
            except Exception as error:  # an `until` predicate may raise anything; it fails its own request only
                self._finish(row, Finish.CUT, error=reason(error))
        for row in rows if width > 1 else ():
            self._streams.rewind(row.stream, row.done)
        self._clock(
            steps=1,
            row_steps=len(rows),
            decode_seconds=decoded - began,
            sampling_seconds=sampling,
            drafted=(width - 1) * len(rows),
            kept=kept,
        )

    def _join(self, leader: Row) -> list[Row]:
        """Twins whose path has just been computed, each on a copy of it, next to the streams in use."""
        twins = leader.twins
        if not twins:
            return []
        idle = iter(beside(self._seated(), self._slots))
        leader.twins = []
        for twin in twins:
            twin.leader = None
            # Choices are read off the leader's logits: such a twin needs no KV of its own.
            if not twin.choices:
                twin.stream = next(idle)
        try:
            self._streams.fork(leader.stream, [twin.stream for twin in twins if twin.stream >= 0])
        except BackendError as error:
            self._fail(twins, error)
            return []
        for twin in twins:
            twin.started = True
            twin.done = twin.cached_tokens = leader.done
        self._count(cached_tokens=leader.done * len(twins))
        return twins

    def _write(self, row: Row, drawn: Outcome) -> None:
        """Add to a row what was drawn for it, and finish it if that was the last."""
        if isinstance(drawn, Exception):
            raise drawn
        if not isinstance(drawn, Drawn):
            node = row.request.node
            if row.stream >= 0 and node.parent is not None and node.finish is Finish.FORCED:
                # Nobody goes on from a question: what is worth keeping is the path it was asked about.
                self._streams.trim(row.stream, len(self._tokens.path(node.parent)))
            self._finish(row, Finish.END, choices=drawn)
            return
        row.generated_tokens += 1
        self._generated += 1
        if self._model.ends(drawn.token):
            self._finish(row, Finish.END)
            return
        if row.grammar is not None:
            row.grammar.accept(drawn.token)
        finish = row.write(drawn, self._tokens.piece(drawn.token), self._length)
        if finish is not None:
            self._finish(row, finish)

    def _fail(self, rows: list[Row], error: Exception) -> None:
        """End the requests of a batch that could not be computed; what their streams hold is no longer certain."""
        for row in rows:
            for member in [*row.twins, row]:
                self._finish(member, Finish.CUT, error=reason(error))
            if row.stream >= 0:
                self._streams.forget(row.stream)

    def _count(self, **more: int) -> None:
        self._totals = self._totals._replace(**{k: getattr(self._totals, k) + v for k, v in more.items()})

    def _clock(self, **more: float) -> None:
        self._profile = self._profile._replace(**{k: getattr(self._profile, k) + v for k, v in more.items()})
