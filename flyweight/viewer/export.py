"""A store as one file that needs nothing else: the page with everything a server would answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from flyweight import __version__
from flyweight.errors import ConfigError
from flyweight.store import Store
from flyweight.viewer.page import standalone
from flyweight.viewer.records import Records

__all__ = ["export"]


def export(store: Store, run_ids: Sequence[str]) -> Iterator[str]:
    """The page holding these runs with every search, in parts, one search in memory at a time.

    Grades are those on record. ConfigError for an unknown run, StoreError for a damaged one.
    """
    return standalone(_data(Records(store), run_ids))


def _data(records: Records, run_ids: Sequence[str]) -> Iterator[tuple[str, Any]]:
    runs = [run for run in records.runs() if run["id"] in run_ids]
    start = f"/run/{runs[0]['id']}" if len(runs) == 1 else ""
    yield "index", {"version": __version__, "runs": runs, "ask": None, "plan": False, "start": start}
    for run in runs:
        id = run["id"]
        yield f"run/{id}", records.run(id)
        yield f"run/{id}/report", records.report(id)
        for key in records.keys(id):
            yield f"run/{id}/question/{key}", records.question(id, key)
    for a, b in itertools.combinations(runs, 2):
        try:
            yield f"diff/{a['id']}/{b['id']}", records.difference(a["id"], b["id"])
        except ConfigError:
            continue  # no problem in common, or grades are missing
