"""Reports of recorded runs: accuracy with intervals, cost, differences, curves, warnings, provenance.

```python
with Store("runs/flyweight.db") as store:
    report = Report.of(store, [run.id for run in store.runs()])
    Path("report.md").write_text(report.markdown(), "utf-8")
```

A pure function of what the runs recorded: the same runs give the same bytes in every format. See docs/report.md.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from flyweight import tasks
from flyweight.bench.graded import Grades, graded_by, identity, read
from flyweight.errors import ConfigError
from flyweight.protocols import Task
from flyweight.report import html, page, plots, records, text, warnings
from flyweight.report.numbers import Section, sections
from flyweight.report.pools import Pool
from flyweight.store import Grader, RunInfo, Store
from flyweight.types import Grade, Node, Problem

__all__ = ["ASKED", "Report", "grader"]

ASKED = {"task", "model", "strategy"}
"""What a run's configuration must hold to be reported on."""


@dataclass(frozen=True)
class Report:
    """What recorded runs say."""

    sections: tuple[Section, ...]
    """Runs on the same problems together."""
    runs: tuple[records.Recorded, ...]
    """By id."""

    @classmethod
    def of(
        cls,
        store: Store,
        run_ids: Iterable[str],
        grader_of: Callable[[Store, RunInfo], Grades] | None = None,
        *,
        baseline: str | None = None,
    ) -> Self:
        """The report of these runs, whatever their order.

        `grader_of` grades the solutions of a run, by default as its task does. `baseline` is the run that the others
        on its problems are compared with; by default greedy of the same model. ConfigError for an id the store lacks;
        StoreError and what grading raises (SandboxError) pass through.
        """
        known = {info.id: info for info in store.runs()}
        wanted = sorted({*run_ids, *([baseline] if baseline is not None else [])})
        for id in wanted:
            if id not in known:
                raise ConfigError(f"the store holds no run {id!r}")
            if missing := sorted(ASKED - known[id].configuration.keys()):
                raise ConfigError(f"run {id} is no benchmark: its configuration lacks {', '.join(missing)}")
        infos = [known[id] for id in wanted]
        benches = [info for info in known.values() if info.configuration.keys() >= ASKED]
        called = records.names(infos)
        make = grader_of or grader
        return cls.made(
            (
                records.recorded(info, called[records.identity(info)], read(store, info.id, make(store, info)), benches)
                for info in infos
            ),
            baseline=baseline,
        )

    @classmethod
    def made(cls, runs: Iterable[records.Recorded], *, baseline: str | None = None) -> Self:
        """The report of runs that were read already."""
        ordered = tuple(sorted(runs, key=lambda run: run.id))
        return cls(tuple(sections(ordered, baseline)), ordered)

    def markdown(self) -> str:
        """GitHub's Markdown, without pictures."""
        return text.markdown(self._blocks())

    def terminal(self, width: int = 100) -> str:
        """Plain text for a terminal of `width` columns."""
        return text.terminal(self._blocks(), width)

    def html(self) -> str:
        """One file with its pictures; without matplotlib, how to get them stands in their place."""

        def picture(block: page.Picture) -> str:
            if not plots.available():
                return f"<p>Pictures need matplotlib: <code>{plots.MISSING}</code></p>"
            section = self.sections[block.section]
            return plots.svg([(section, section.pools[block.pool])], inline=f"s{block.section}p{block.pool}")

        return html.html(self._blocks(), picture)

    def svg(self) -> str:
        """The pictures, below each other. ConfigError without matplotlib, or when there is nothing to draw."""
        return plots.svg(self._drawn())

    def png(self) -> bytes:
        """The same on white; errors as of `svg`."""
        return plots.png(self._drawn())

    def as_dict(self) -> dict[str, Any]:
        """Everything computed, as JSON types: shares in [0, 1], numbers rounded to nine digits."""
        return {
            "sections": [
                {
                    **_plain(asdict(section)),
                    "warnings": [asdict(warned) for warned in warnings.about(section)],
                }
                for section in self.sections
            ],
            "warnings": [asdict(warned) for warned in warnings.across(self.sections)],
            "runs": [
                {
                    "id": run.id,
                    "configuration": page.configuration(run),
                    "models": {records.file(name): what for name, what in sorted(run.info.models.items())},
                    "versions": sorted((dict(sorted(each.items())) for each in run.info.versions), key=str),
                    "problems": len(run.outcomes),
                    "finished": run.finished,
                    "repeat": f"flyweight bench resume {run.id}",
                }
                for run in self.runs
            ],
        }

    def json(self) -> str:
        """`as_dict` as one line of JSON, in ASCII."""
        return json.dumps(self.as_dict(), sort_keys=True, allow_nan=False) + "\n"

    def _drawn(self) -> list[tuple[Section, Pool]]:
        return [(section, pool) for section in self.sections for pool in section.pools]

    def _blocks(self) -> list[page.Block]:
        empty = [run.id for run in self.runs if not run.outcomes]
        return list(page.blocks(self.sections, self.runs, empty))


def grader(store: Store, info: RunInfo, *, keep: bool = True) -> Grades:
    """Grades a run as its task does; the task is loaded only for what has no grade yet.

    Grades are kept in the store, unless `keep` says that it is not to be written.
    """
    asked = info.configuration

    @functools.cache
    def task() -> Task:
        data = asked.get("data")
        try:
            return tasks.load(
                asked["task"], Path(data) if data else None, asked.get("split"), **asked.get("settings", {})
            )
        except ConfigError as error:
            raise ConfigError(f"run {info.id} has no grades yet, and its task is needed for them: {error}") from error

    def grade(problem: Problem, solution: str) -> Grade:
        return graded_by(task(), problem, solution)

    kept = store.grader(grade, identity(asked))
    return kept if keep else _Unkept(kept, grade)


class _Unkept:
    """The grades on record, and those that are missing made anew every time."""

    def __init__(self, kept: Grader, grade: Callable[[Problem, str], Grade]) -> None:
        self._kept = kept
        self._grade = grade

    def grades(self, problem: Problem, nodes: Sequence[Node]) -> list[Grade]:
        """The grade of every path, in order."""
        known = self._kept.known(problem, nodes)
        return [found or self._grade(problem, node.solution) for found, node in zip(known, nodes, strict=True)]


def _plain(value: Any) -> Any:
    """JSON's types; floats rounded so that the order of a sum does not show."""
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key != "values"}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
