"""The choices as a picture: how often right against how long, the frontier among them (`flyweight[plots]`)."""

from __future__ import annotations

import io
from collections.abc import Sequence

from flyweight.errors import ConfigError
from flyweight.optimal.planner import Choice
from flyweight.optimal.verdict import Verdict
from flyweight.report import plots

__all__ = ["drawn"]

SIZE = (8.2, 4.6)
COLOURS = ("#3b82c8", "#c9771e", "#2f9e62", "#a866cc", "#d4554d", "#1f99a8", "#9a8a1c", "#cf5f92")


def drawn(verdict: Verdict, choices: Sequence[Choice], kind: str, title: str) -> bytes:
    """The picture as "svg" or "png". ConfigError without matplotlib."""
    if not plots.available():
        raise ConfigError(f"pictures need matplotlib: {plots.MISSING}")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    file = io.BytesIO()
    with plots.settings():
        figure = Figure(figsize=SIZE, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        models = sorted({choice.model for choice in choices})
        for place, model in enumerate(models):
            mine = [choice for choice in choices if choice.model == model]
            axes.scatter(
                [choice.seconds for choice in mine],
                [100 * choice.accuracy for choice in mine],
                # An area in proportion to the memory: what is behind an interface is a dot.
                s=[8 + 40 * choice.memory / 1e9 for choice in mine],
                color=COLOURS[place % len(COLOURS)],
                alpha=0.55,
                linewidths=0,
                label=model,
            )
        steps = sorted(verdict.frontier, key=lambda choice: choice.seconds)
        best = 0.0
        rising = [choice for choice in steps if choice.accuracy > best and (best := choice.accuracy)]
        axes.plot(
            [choice.seconds for choice in rising],
            [100 * choice.accuracy for choice in rising],
            color=plots.INK,
            linewidth=0.8,
            drawstyle="steps-post",
        )
        chosen = verdict.recommendation
        low, value, high = (100 * part for part in chosen.evidence.accuracy)
        axes.errorbar(
            [chosen.seconds],
            [value],
            yerr=[[value - low], [high - value]],
            fmt="D",
            color="#d4554d",
            markersize=5,
            capsize=3,
            label=f"recommended: {chosen.label}",
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("seconds for one question on this machine")
        axes.set_ylabel("right, %")
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=9)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7, loc="lower right", frameon=False, markerscale=0.8)
        metadata = {"svg": {"Date": None}, "png": {"Software": None}}[kind]
        figure.savefig(file, format=kind, metadata=metadata, transparent=kind == "svg")
    return file.getvalue()
