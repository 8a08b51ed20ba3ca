"""Benchmarks spread over workers on many machines, on record in one store.

coordinator.py  who searches which question, whatever happens to workers
searcher.py     a worker's side: questions searched in its own process, what came of each as a parcel
spread.py       the driver's side: `bench.execute` with the searches made elsewhere
on_ray.py       workers as actors of a Ray cluster

The coordinator knows nothing of Ray: anything that takes a question and returns a future can be a worker.
"""

from __future__ import annotations

from flyweight.distributed.coordinator import Coordinator, Done, Lost, Worker
from flyweight.distributed.searcher import Order, Searcher, Status
from flyweight.distributed.spread import Cluster, Hand, summaries

__all__ = ["Cluster", "Coordinator", "Done", "Hand", "Lost", "Order", "Searcher", "Status", "Worker", "summaries"]
