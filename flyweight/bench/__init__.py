"""Benchmarks: tasks run by strategies, on record and graded.

```python
from flyweight import bench
from flyweight.store import Store

plans = bench.grid(bench.Plan("gsm8k", limit="50"), ["greedy", "best_of_n"], ["arithmetic"], [4, 16])
with Store("runs/flyweight.db") as store:
    for summary in bench.execute(store, plans):
        print(summary.job.label, summary.tally.accuracy, summary.calls)
```

plan.py      what is to be run, checked before a model is loaded
engine.py    the model: which file in which encoding, loaded when something is missing
execute.py   running it: resume, count, stop
grading.py   grades made beside the engine
tally.py     what is counted meanwhile
estimate.py  what it would take
graded.py    a run read back with its grades
counted.py   how many were right, beside random choice, coverage and another run
"""

from flyweight.bench.engine import Load
from flyweight.bench.execute import execute, regrade, summaries
from flyweight.bench.graded import GradedSample, GradedSearch, identity, read
from flyweight.bench.plan import Job, Plan, check, grid, plan_of
from flyweight.bench.tally import Limits, Progress, Summary, Tally

__all__ = [
    "GradedSample",
    "GradedSearch",
    "Job",
    "Limits",
    "Load",
    "Plan",
    "Progress",
    "Summary",
    "Tally",
    "check",
    "execute",
    "grid",
    "identity",
    "plan_of",
    "read",
    "regrade",
    "summaries",
]
