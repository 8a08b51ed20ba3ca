"""One measured configuration, its file, and the table of all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from flyweight import stats

__all__ = ["Row", "load", "ratio", "save", "table"]

OURS = "flyweight"


@dataclass(frozen=True)
class Row:
    """What one system did with all questions under one strategy."""

    system: str
    strategy: str
    n: int
    width: int
    """0 for strategies without."""
    settings: Mapping[str, object]
    """Everything else that must be equal for two rows to be compared."""
    questions: int
    answered: int
    right: int
    seconds: float
    """Wall time of all questions; models loaded before, grading after."""
    computed: int
    cached: int
    recomputed: int
    """As defined in account.py."""
    generated: int
    cut: bool = False
    """Ended at the time limit: every number is a lower bound."""
    errors: tuple[str, ...] = ()
    """Questions that failed, or why the whole run did."""
    build: str = ""
    """The instructions the peers' server is built for, in its own words."""

    @property
    def name(self) -> str:
        width = f"-w{self.width}" if self.width else ""
        return f"{self.system}-{self.strategy}-n{self.n}{width}".replace(" ", "-").replace(",", "")

    def same_work(self, other: Row) -> bool:
        return (self.strategy, self.n, self.width) == (other.strategy, other.n, other.width)


def save(row: Row, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{row.name}.json").write_text(json.dumps(asdict(row), indent=1) + "\n")


def load(wanted: Row, directory: Path) -> Row | None:
    """The row on file, if it was measured with the settings of `wanted`."""
    file = directory / f"{wanted.name}.json"
    if not file.exists():
        return None
    data = json.loads(file.read_text())
    row = Row(**{**data, "errors": tuple(data["errors"])})
    return row if (row.settings, row.questions) == (wanted.settings, wanted.questions) else None


def ratio(peer: float, ours: float, *, bound: bool = False) -> str:
    """How many times more than ours; `bound` when the peer was cut, so that it is at least that."""
    if not ours:
        return "-" if not peer else "∞"
    value = peer / ours
    return ("≥ " if bound else "") + (f"{value:.0f}" if value >= 100 else f"{value:.1f}")


def table(rows: Sequence[Row]) -> str:
    """Markdown. Ratios are against Flyweight with all questions in flight, same strategy, n and width."""
    lines = [
        "| system | strategy | n | wall, s | × | computed | cached | recomputed | × | generated | right [95 %] |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    notes = []
    for row in rows:
        ours = next((r for r in rows if r.system == OURS and r.same_work(row)), None)
        times = again = "-"
        if ours is not None and row is not ours:
            times = ratio(row.seconds, ours.seconds, bound=row.cut)
            again = ratio(row.recomputed, ours.recomputed, bound=row.cut)
        low, _, high = stats.wilson(row.right, row.questions)
        strategy = f"{row.strategy} width={row.width}" if row.width else row.strategy
        cells = [
            row.system, strategy, str(row.n), f"{row.seconds:.1f}{' (cut)' if row.cut else ''}", times,
            f"{row.computed:,}", f"{row.cached:,}", f"{row.recomputed:,}", again, f"{row.generated:,}",
            f"{row.right}/{row.questions} [{100 * low:.0f}, {100 * high:.0f}]",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
        name = f"{row.system}, {strategy}, n={row.n}"
        if row.cut:
            notes.append(f"- {name}: cut at {row.seconds:.0f} s with {row.answered} of {row.questions} answered")
        notes += [f"- {name}: {error}" for error in row.errors]
    notes += sorted({f"- the peers' server: {row.build}" for row in rows if row.build})
    return "\n".join(lines + (["", *notes] if notes else []))
