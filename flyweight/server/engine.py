"""The one thread that drives the runner. Requests come in through a queue; what becomes of them is told to the loop."""

from __future__ import annotations

import asyncio
import queue
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from flyweight import api
from flyweight.errors import FlyweightError, SandboxError
from flyweight.live import Live
from flyweight.protocols import Policy, Strategy, Verifier
from flyweight.server import reply
from flyweight.server.errors import ApiError, failed, stopping
from flyweight.server.job import Delta, Failed, Finished, Job, Piece, Plan, Started
from flyweight.server.passing import passing
from flyweight.server.tokens import Pieces
from flyweight.server.watch import Room, Watch
from flyweight.setting import Setting
from flyweight.types import Message, Node, Result, Usage

__all__ = ["Engine"]


@dataclass(eq=False)
class Work:
    """A job on the engine's side."""

    job: Job
    plan: Plan
    searches: list[Live] = field(default_factory=list)
    drawn: list[dict[int, Node]] = field(default_factory=list)
    """Per search the choices of a request that selects nothing, by their numbers."""
    room: Room = field(default_factory=Room)
    """For the events of all its searches."""


class Engine:
    """A session behind a thread: any number of requests, batched together.

    `start`, `submit`, `cancel` and `stop` are for the event loop; the rest happens on the thread.
    """

    def __init__(
        self,
        session: api.Session,
        verifiers: Mapping[str, Verifier] | None = None,
        *,
        log: Callable[[str], None] = lambda line: None,
        spent: Callable[[Usage], None] = lambda usage: None,
    ) -> None:
        """`verifiers` by the name requests ask for them, the default one first. `log` gets lines for the operator,
        `spent` what each search has cost, whether it came to its end or not."""
        self.session = session
        self.verifiers = dict(verifiers or {session.verifier.name: session.verifier})
        self.log = log
        self.spent = spent
        self.steps = 0
        """Rounds of work so far."""
        self._commands: queue.SimpleQueue[tuple[str, Job | None]] = queue.SimpleQueue()
        self._works: dict[Job, Work] = {}
        self._owners: dict[Live, Work] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flyweight-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def policy(self) -> Policy:
        """The model that writes."""
        return self.session.policy

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def context(self) -> int:
        """Most tokens of a prompt and its answer; where the model does not say, what no request reaches."""
        return int(getattr(self.policy, "context", 1 << 20))

    def start(self) -> None:
        """Begin to work; pieces are told to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Begin a job."""
        self._commands.put(("submit", job))

    def cancel(self, job: Job) -> None:
        """Drop a job; its rows are free after the step under way."""
        self._commands.put(("cancel", job))

    def stop(self) -> None:
        """End the thread; jobs that are left fail. Returns once it has ended, after the step under way."""
        self._stop.set()
        self._commands.put(("wake", None))
        if self._thread.is_alive():
            self._thread.join()

    # On the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        runner = self.session.runner
        while not self._stop.is_set():
            self._obey()
            try:
                ended = runner.step()
            except Exception:
                self._broke()
                continue
            self.steps += 1
            for search in ended:
                self._ended(search)
        for work in list(self._works.values()):
            self._fail(work, stopping())

    def _obey(self) -> None:
        """Carry out what has been asked for; wait for it if there is nothing else to do."""
        block = not self._works
        while True:
            try:
                what, job = self._commands.get(block=block)
            except queue.Empty:
                return
            block = False
            if what == "submit" and job is not None:
                self._begin(job)
            elif what == "cancel" and job in self._works:
                self._drop(self._works[job])

    def _begin(self, job: Job) -> None:
        work = self._works[job] = Work(job, job.plan)
        try:
            self._check(job.plan)
            for number, problem in enumerate(job.plan.problems):
                drawn: dict[int, Node] = {}
                strategy = job.plan.strategy or self._passing(work, number, drawn)
                setting = self._setting(work, number)
                work.drawn.append(drawn)
                search = self.session.runner.submit(problem, strategy, job.plan.budget, setting)
                work.searches.append(search)
                self._owners[search] = work
        except ApiError as error:
            self._fail(work, error)
        except SandboxError:
            self._fail(work, ApiError(503, "answers that are code need a sandbox; this server has none"))
        except Exception:
            self._log(job, traceback.format_exc())
            self._fail(work, failed(job.id))
        else:
            # What a strategy refuses, it refuses at once: the client then gets a status rather than a broken stream.
            if not any(search.failure for search in work.searches):
                self._tell(job, Started())

    def _check(self, plan: Plan) -> None:
        """ApiError 400 for a prompt that does not fit."""
        length: Callable[[tuple[Message, ...]], int] | None = getattr(self.policy, "length", None)
        if length is None:
            return
        for problem in plan.problems:
            try:
                tokens = length(problem.conversation)
            except FlyweightError as error:
                raise ApiError(400, f"the messages do not fit the chat template: {error}", param="messages") from None
            if tokens >= self.context:
                raise ApiError(
                    400,
                    f"the prompt has {tokens} tokens, and prompt and answer together may have {self.context}",
                    param="messages" if plan.chat else "prompt",
                    code="context_length_exceeded",
                )

    def _setting(self, work: Work, number: int) -> Setting:
        plan, usual = work.plan, self.session.runner.setting
        judges = {plan.verifier: self.verifiers[plan.verifier], **self.verifiers} if plan.verifier else {}
        same_answers = plan.answers is usual.answers
        return replace(
            usual,
            verifiers=judges,
            answers=plan.answers,
            sampling=plan.sampling,
            seed=plan.seed,
            hidden=usual.hidden and any(getattr(judge, "reads_states", False) for judge in judges.values()),
            emit=Watch(
                lambda piece: self._tell(work.job, piece),
                plan.answers,
                number=number,
                thoughts=plan.progress,
                room=work.room,
            ),
            maps=usual.maps if same_answers else (),
            whole=plan.whole,
            longest=plan.sampling.max_tokens,
            alternatives=plan.top_logprobs,
        )

    def _passing(self, work: Work, number: int, drawn: dict[int, Node]) -> Strategy:
        plan = work.plan
        first = number * plan.n
        # Calls are known once they are whole, and the likeliest tokens once an answer is.
        live = plan.stream and not plan.tools and not plan.top_logprobs

        def tell(delta: Delta) -> None:
            self._tell(work.job, replace(delta, index=first + delta.index))

        sampling = plan.sampling
        told = tell if live else None
        pieces = Pieces(self.policy) if plan.logprobs else None
        return passing(plan.n, sampling.temperature, sampling.stop, drawn, told, pieces)

    def _ended(self, search: Live) -> None:
        work = self._owners.pop(search, None)
        if work is None:
            return  # its job failed in the same step
        self.spent(search.usage)
        assert search.result is not None
        error = reply.trouble(work.job.id, work.plan, search.result, search.failure)
        if error is not None:
            self._log(work.job, search.result.error or "")
            self._fail(work, error)
            return
        if all(each.result is not None for each in work.searches) and len(work.searches) == len(work.plan.problems):
            self._finish(work)

    def _finish(self, work: Work) -> None:
        results: Sequence[Result] = [search.result for search in work.searches if search.result is not None]
        del self._works[work.job]
        try:
            end: Piece = Finished(reply.reply(work.job.id, work.plan, results, work.drawn, Pieces(self.policy)))
        except ApiError as error:
            end = Failed(error)
        except Exception:
            self._log(work.job, traceback.format_exc())
            end = Failed(failed(work.job.id))
        self._tell(work.job, end)

    def _drop(self, work: Work) -> None:
        """Cancel what is left of a job."""
        del self._works[work.job]
        for search in work.searches:
            if self._owners.pop(search, None) is not None:
                self.session.runner.cancel(search)
                self.spent(search.usage)

    def _fail(self, work: Work, error: ApiError) -> None:
        if work.job in self._works:
            self._drop(work)
            self._tell(work.job, Failed(error))

    def _broke(self) -> None:
        """A step raised what no step should: every job fails, the server goes on."""
        trace = traceback.format_exc()
        for work in list(self._works.values()):
            self._log(work.job, trace)
            self._fail(work, failed(work.job.id))

    def _tell(self, job: Job, piece: Piece) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(job.tell, piece)

    def _log(self, job: Job, text: str) -> None:
        self.log(f"run {job.id}: {text.strip()}")
