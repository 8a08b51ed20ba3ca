"""Runs many searches at once: batching, seeds, budgets, events. No torch, no asyncio, no threads.

Every strategy is a coroutine that yields what it wants from the models. The runner collects the wants of all live
searches of all problems, feeds them to the policies, and resumes whoever got everything it asked for. Continuous
batching falls out: a policy always sees every continuation any search is waiting for, whoever submitted it and when.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import replace
from typing import Any

from flyweight.abstain import ConfidenceMap
from flyweight.calls import Branch, Draw, Fork, Outside
from flyweight.errors import BackendError, BudgetSpent, FlyweightError
from flyweight.live import Live
from flyweight.protocols import Answers, Policy, Response, Strategy, Verifier
from flyweight.setting import Setting
from flyweight.types import Budget, Event, Node, Problem, Result, Sampling, Stopped
from flyweight.vocabulary import Vocabulary

__all__ = ["Runner"]

PROGRESS_EVERY = 0.1
"""Seconds between progress events."""
PATIENCE = 0.05
"""Seconds a step waits for work done elsewhere when the policies have nothing to do."""


class Runner:
    """Policies and verifiers kept warm, and the loop that drives searches over them.

    `run` searches a list of problems. Whoever gets problems one by one uses `submit`, `step` and `cancel` instead: a
    search may be added at any time and is batched with those under way.

    Budgets. A continuation is handed to its policy only when the tokens spent, plus the most that those in flight may
    still generate, plus its own `max_tokens` fit the token budget; the last one's `max_tokens` is cut to what is left.
    So the budget is never exceeded. Which continuations are drawn does not depend on how fast they come back, save
    where branches of a `parallel` share the budget: whoever asks first is served first.
    Seconds are checked between two steps of a policy.
    """

    def __init__(
        self,
        policies: Mapping[str, Policy] | Policy,
        verifiers: Mapping[str, Verifier] | None = None,
        *,
        answers: Answers,
        sampling: Sampling | None = None,
        seed: int = 0,
        hidden: bool = False,
        on_event: Callable[[Event], None] | None = None,
        maps: Sequence[ConfidenceMap] = (),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`policies` and `verifiers` by name, the first of each being the default.

        `hidden` keeps hidden states on every drawn node; a verifier that reads them has them kept until the search
        ends. `on_event` sees everything that happens. `maps` are confidence maps of the default policy and the kind of
        answers: one that holds for a strategy is used.
        """
        named = policies if isinstance(policies, Mapping) else {policies.name: policies}
        if not named:
            raise BackendError("a runner needs at least one policy")
        self.seed = seed
        self.on_event = on_event
        self._born = clock()
        self._clock = clock
        self._interrupted = False
        self._progressed = 0.0
        self._owners: dict[int, Live] = {}
        """Request id -> whose it is, for every request a policy holds."""
        self._live: list[Live] = []
        """Every search under way, in the order submitted."""
        self.setting = Setting(
            policies=named,
            verifiers=verifiers or {},
            answers=answers,
            sampling=sampling or Sampling(),
            seed=seed,
            hidden=hidden or any(getattr(each, "reads_states", False) for each in (verifiers or {}).values()),
            emit=self._emit,
            maps=maps,
            clock=clock,
            keeps_states=hidden,
        )

    def solve(self, problem: Problem, strategy: Strategy, budget: Budget | None = None) -> Result:
        """Search one problem."""
        return next(iter(self.run([problem], strategy, budget)))

    def run(
        self, problems: Iterable[Problem], strategy: Strategy, budget: Budget | None = None, *, in_flight: int = 64
    ) -> Iterator[Result]:
        """Results as they are ready, one per problem, in order of completion.

        As `run_each`, with one strategy for all.
        """
        return self.run_each(((problem, strategy) for problem in problems), budget, in_flight=in_flight)

    def run_each(
        self, asked: Iterable[tuple[Problem, Strategy]], budget: Budget | None = None, *, in_flight: int = 64
    ) -> Iterator[Result]:
        """The results of problems that have a strategy each, in order of completion.

        Problems are taken from the iterable only when fewer than `in_flight` are being searched. Nothing is raised
        for a failing problem (see `Result.error`), save SandboxError: a sandbox that broke fails every other problem
        alike, and what is done by then comes first. Closing the iterator cancels what is under way.
        """
        waiting = iter(asked)
        live: list[Live] = []
        self._interrupted = False
        exhausted = False
        try:
            while True:
                while not exhausted and not self._interrupted and len(live) < in_flight:
                    following = next(waiting, None)
                    if following is None:
                        exhausted = True
                    else:
                        live.append(self.submit(*following, budget))
                if not live:
                    return
                self.step()
                done = [search for search in live if search.result is not None]
                live = [search for search in live if search.result is None]
                yield from (search.result for search in done if search.result is not None and search.broken is None)
                for search in done:
                    if search.broken is not None:
                        raise search.broken
        finally:
            for search in live:
                self.cancel(search)

    def submit(
        self, problem: Problem, strategy: Strategy, budget: Budget | None = None, setting: Setting | None = None
    ) -> Live:
        """Begin a search; `step` drives it until its `result` is there.

        `setting` is `Runner.setting` with whatever this search has otherwise. Raises SandboxError where the answers to
        the problem cannot be told apart without a sandbox, ConfigError for a strategy or a budget that is none.
        """
        search = Live(problem, strategy, budget or Budget(), setting or self.setting)
        search.begin(Vocabulary(search))
        self._live.append(search)
        self._resume(search, search.main, None)
        return search

    def step(self) -> list[Live]:
        """Let every search go on as far as it can, then do one bounded piece of work; those that have ended since.

        Each is returned once. Where some have ended before any work was done, none is.
        """
        for search in self._live:
            self._guard(search)
            self._return(search)
        done = self._ended()
        if done or not self._live:
            return done
        for search in self._live:
            self._admit(search)
        self._work()
        return self._ended()

    def cancel(self, search: Live) -> None:
        """End a search at once, without a result; `Live.usage` is what it has cost. Nothing if it has ended."""
        if search in self._live:
            self._live.remove(search)
        if search.result is None:
            self._cancel(search, search.main)

    def interrupt(self) -> None:
        """Stop every search at the next step; their results come back with what is known so far."""
        self._interrupted = True

    def close(self) -> None:
        """Release the policies."""
        for policy in self.setting.policies.values():
            policy.close()

    # A search's life -----------------------------------------------------------------------------------------

    def _resume(self, search: Live, branch: Branch, value: object, error: FlyweightError | None = None) -> None:
        """Let a coroutine run to its next await, and file what it asks for."""
        search.branch = branch
        branch.waiting = None
        try:
            call = branch.coroutine.throw(error) if error is not None else branch.coroutine.send(value)
        except StopIteration as stop:
            self._returned(search, branch, stop.value)
        except Exception as failure:
            self._failed(search, branch, failure)
        else:
            self._file(search, branch, call)

    def _file(self, search: Live, branch: Branch, call: object) -> None:
        if isinstance(call, Draw):
            branch.waiting = call
            search.queue.extend((branch, call, index) for index in range(len(call.requests)))
        elif isinstance(call, Fork):
            branch.waiting = call
            call.results = [None] * len(call.coroutines)
            call.open = len(call.coroutines)
            for index, coroutine in enumerate(call.coroutines):
                place = (*branch.place, branch.forks, index)
                call.branches.append(Branch(coroutine, search.random(place), place, branch))
            branch.forks += 1
            for child in call.branches:
                if search.result is None and branch.waiting is call:
                    self._resume(search, child, None)
        elif isinstance(call, Outside):
            branch.waiting = call
            search.outside.append((branch, call))
        else:
            error = BackendError(f"a strategy may only await the verbs of Search, not {type(call).__name__}")
            self._failed(search, branch, error)

    def _returned(self, search: Live, branch: Branch, value: object) -> None:
        parent = branch.parent
        if parent is None:
            if value is not None and not isinstance(value, Node):
                kind = type(value).__name__
                self._end(search, None, Stopped.ERROR, f"the strategy returned {kind}, not a Node")
            else:
                self._end(search, value, Stopped.BUDGET if search.refused else Stopped.DONE)
            return
        fork = parent.waiting
        if isinstance(fork, Fork):
            fork.results[fork.branches.index(branch)] = value
            fork.open -= 1
            if fork.open == 0:
                self._resume(search, parent, list(fork.results))

    def _failed(self, search: Live, branch: Branch, failure: Exception) -> None:
        parent = branch.parent
        if parent is not None and isinstance(parent.waiting, Fork):
            for sibling in parent.waiting.branches:
                if sibling is not branch:
                    self._cancel(search, sibling)
            wrapped = failure if isinstance(failure, FlyweightError) else BackendError(_describe(failure))
            self._resume(search, parent, None, wrapped)
        elif isinstance(failure, BudgetSpent):
            search.refused = True
            self._end(search, None, Stopped.BUDGET)
        else:
            self._broke(search, failure)

    def _end(self, search: Live, best: Node | None, stopped: Stopped, error: str | None = None) -> None:
        self._cancel(search, search.main)
        try:
            search.finish(best, stopped, error)
        except Exception as failure:
            search.candidates.clear()
            search.blame(failure)
            search.finish(None, Stopped.ERROR, _describe(failure))

    def _broke(self, search: Live, failure: Exception) -> None:
        """End a search with what went wrong."""
        search.blame(failure)
        self._end(search, None, Stopped.ERROR, _describe(failure))

    def _cancel(self, search: Live, branch: Branch) -> None:
        """Stop a branch and those it has started; what they were drawing is dropped but charged."""
        waiting = branch.waiting
        branch.waiting = None
        if isinstance(waiting, Fork):
            for child in waiting.branches:
                self._cancel(search, child)
        if isinstance(waiting, Draw):
            self._drop(search, waiting)
        if isinstance(waiting, Outside):
            search.outside.remove((branch, waiting))
            waiting.future.cancel()
        branch.coroutine.close()

    def _return(self, search: Live) -> None:
        """Resume what was waiting for work done elsewhere and has it now."""
        for branch, call in list(search.outside):
            if not call.future.done() or (branch, call) not in search.outside:
                continue
            search.outside.remove((branch, call))
            failure = CancelledError() if call.future.cancelled() else call.future.exception()
            if failure is None:
                self._resume(search, branch, call.future.result())
            else:
                error = failure if isinstance(failure, FlyweightError) else BackendError(_describe(failure))
                self._resume(search, branch, None, error)

    def _ended(self) -> list[Live]:
        """Take out the searches that have ended."""
        done = [search for search in self._live if search.result is not None]
        self._live = [search for search in self._live if search.result is None]
        return done

    # Feeding the policies ------------------------------------------------------------------------------------

    def _guard(self, search: Live) -> None:
        """End a search that is interrupted or late."""
        if search.result is not None:
            return
        if self._interrupted:
            self._end(search, None, Stopped.INTERRUPTED)
        elif search.late():
            self._end(search, None, Stopped.DEADLINE)

    def _admit(self, search: Live) -> None:
        """Hand over what the token budget allows, in the order asked; refuse the rest once it is spent."""
        while search.queue and search.result is None:
            branch, draw, index = search.queue[0]
            request = draw.requests[index]
            left = search.tokens_left(draw)
            if left is not None and request.sampling.max_tokens > left:
                if search.reserved > 0:
                    return
                if left <= 0:
                    self._refuse(search)
                    continue
                request = replace(request, sampling=replace(request.sampling, max_tokens=left))
                draw.requests[index] = request
            search.queue.popleft()
            search.flying[request.id] = (branch, draw, index)
            self._owners[request.id] = search
            search.reserved += draw.reserved(index)
            draw.policy.add(request)

    def _refuse(self, search: Live) -> None:
        """Turn away the first waiting draw: it gets what it has, or BudgetSpent if that is nothing."""
        branch, draw, _ = search.queue[0]
        search.refused = True
        for index in self._unqueue(search, draw):
            draw.nodes[index] = None
            draw.open -= 1
        if draw.open == 0:
            if any(node is not None for node in draw.nodes):
                self._resume(search, branch, None)
            else:
                self._resume(search, branch, None, BudgetSpent(f"all {search.budget.tokens} tokens are spent"))

    def _work(self) -> None:
        """One bounded piece of work of every policy that has any, and its consequences."""
        busy = [(name, policy) for name, policy in self.setting.policies.items() if self._served_by(policy)]
        polls = [getattr(policy, "poll", None) for _, policy in busy]
        patient = all(polls)
        for (name, policy), poll in zip(busy, polls, strict=True):
            # Whoever only waits for another machine keeps nobody else from working: the last waits, if all do.
            work = policy.step if poll is None or (patient and policy is busy[-1][1]) else poll
            try:
                responses = [(self._owners[response.id], response) for response in work()]
            except Exception as failure:
                for search in self._served_by(policy):
                    self._end(search, None, Stopped.ERROR, f"policy {name} failed: {_describe(failure)}")
                continue
            patient = patient and not responses
            self._deliver(responses)
            kv_bytes = policy.counters.kv_bytes
            for search in self._live:
                search.seen(kv_bytes)
        elsewhere: list[Future[Any]] = [call.future for search in self._live for _, call in search.outside]
        if elsewhere and not busy:
            wait(elsewhere, timeout=PATIENCE, return_when=FIRST_COMPLETED)
        now = self._clock()
        if now - self._progressed >= PROGRESS_EVERY:
            self._progressed = now
            for search in self._live:
                if search.result is None:
                    search.progress()

    def _served_by(self, policy: Policy) -> list[Live]:
        """The searches that have something in flight at a policy."""
        return [s for s in self._live if any(draw.policy is policy for _, draw, _ in s.flying.values())]

    def _deliver(self, responses: list[tuple[Live, Response]]) -> None:
        """Book everything that came back together, then resume whoever got all it asked for."""
        touched: dict[Draw, tuple[Live, Branch]] = {}
        for search, response in responses:
            del self._owners[response.id]
            branch, draw, index = search.flying.pop(response.id)
            search.reserved -= draw.reserved(index)
            search.arrived(draw, index, response)
            touched[draw] = (search, branch)
        for draw, (search, branch) in touched.items():
            if branch.waiting is not draw:
                continue
            if draw.error is not None:
                self._drop(search, draw)
                self._resume(search, branch, None, BackendError(draw.error))
            elif draw.open == 0:
                self._resume(search, branch, None)
            self._stop_if_sure(search)

    def _stop_if_sure(self, search: Live) -> None:
        try:
            if search.result is None and search.sure():
                self._end(search, None, Stopped.CONFIDENT)
        except Exception as failure:  # comparing answers may fail, and then fails this search alone
            self._broke(search, failure)

    def _drop(self, search: Live, draw: Draw) -> None:
        """Forget what is left of a draw; what it has cost is charged."""
        self._unqueue(search, draw)
        for id, (_, other, index) in list(search.flying.items()):
            if other is draw:
                del search.flying[id], self._owners[id]
                search.reserved -= draw.reserved(index)
                try:
                    search.charge(draw, draw.policy.cancel(id))
                except FlyweightError:
                    # A policy that has just failed may have lost the request, and with it what it cost.
                    search.note(lost_request=id)

    def _unqueue(self, search: Live, draw: Draw) -> list[int]:
        """Take a draw's waiting requests out of the queue; their indices."""
        mine = [index for _, other, index in search.queue if other is draw]
        search.queue = deque(entry for entry in search.queue if entry[1] is not draw)
        return mine

    def _emit(self, event: Event) -> None:
        if self.on_event is not None:
            self.on_event(replace(event, at=event.at - self._born))


def _describe(failure: BaseException) -> str:
    """One line: Flyweight's own errors speak for themselves, others are named."""
    text = " ".join(str(failure).split())
    return text if isinstance(failure, FlyweightError) else f"{type(failure).__name__}: {text}"
