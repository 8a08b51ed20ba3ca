"""Pictures for the docs: SVG that comes out the same for the same figures (`pip install 'flyweight[plots]'`)."""

from __future__ import annotations

from typing import Any

from benchmarks.rig import ROOT

__all__ = ["figure", "save"]


def figure(rows: int = 1, columns: int = 1, *, size: tuple[float, float]) -> tuple[Any, Any]:
    """A matplotlib figure and its axes: one, or an array [rows, columns]. `size` in inches."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "flyweight"
    from matplotlib import pyplot

    made: tuple[Any, Any] = pyplot.subplots(rows, columns, figsize=size, layout="constrained")
    return made


def save(figure: Any, name: str) -> None:
    """Write docs/`name`."""
    figure.savefig(ROOT / "docs" / name, metadata={"Date": None})
