"""The order in which waiting requests are served: the oldest problem first."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict

from flyweight.protocols import Request
from flyweight.types import Node

__all__ = ["Queue"]

KNOWN = 4096
"""Problems whose place in the order is remembered, those that asked last."""


class Queue:
    """Requests in order of their problem's first arrival, then of their own.

    A problem is everything that continues one root, and the prompts asked for its sake. What it asks for later goes
    before whatever younger problems wait for. So the oldest searches run to their end while those of the youngest are
    not even begun, and the paths in use at any time are few.

    What holds: no request is overtaken by one of a younger problem, and a slot is never left idle while anyone waits. A
    problem waits until its elders want less than all slots together: at longest the work of the problems that came
    before it, however many samples they ask for. Nothing that comes later adds to that.
    """

    def __init__(self) -> None:
        self._order: list[tuple[int, int, int]] = []
        """Heap of (rank of the problem, arrival, id). What has been removed is skipped when its turn comes."""
        self._waiting: dict[int, Request] = {}
        self._ranks: OrderedDict[Node, int] = OrderedDict()
        self._roots: dict[int, Node] = {}
        """The problem of every request that has not been answered, waiting or not."""
        self._open: Counter[Node] = Counter()
        """How many those are, per problem."""
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, request: Request) -> bool:
        """File a request behind what its problem already waits for; whether it is the problem's only one unanswered."""
        root = self._roots[request.id] = request.problem or request.node.root
        self._open[root] += 1
        self.put(request)
        return self._open[root] == 1

    def put(self, request: Request) -> None:
        """File a request that has been taken out before."""
        root = self._roots[request.id]
        rank = self._ranks.setdefault(root, self._arrivals)
        self._ranks.move_to_end(root)
        if len(self._ranks) > KNOWN:
            self._ranks.popitem(last=False)
        heapq.heappush(self._order, (rank, self._arrivals, request.id))
        self._waiting[request.id] = request
        self._arrivals += 1

    def pop(self) -> Request:
        """Take out the first request."""
        while True:
            request = self._waiting.pop(heapq.heappop(self._order)[2], None)
            if request is not None:
                return request

    def remove(self, id: int) -> bool:
        """Take out a request; whether it was waiting."""
        return self._waiting.pop(id, None) is not None

    def answered(self, id: int) -> None:
        """A request's response has gone out."""
        root = self._roots.pop(id)
        self._open[root] -= 1
        if not self._open[root]:
            del self._open[root]

    def clear(self) -> None:
        """Drop everything."""
        self._order.clear()
        self._waiting.clear()
        self._roots.clear()
        self._open.clear()
