"""Plots as SVG: one style for all reports. Loads matplotlib, which takes half a second: import it where it is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "actord",  # the same figures make the same file
}

# Colours that also the colour-blind tell apart (Okabe and Ito), each with a marker of its own.
SERIES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))


def figure(*, rows: int = 1, columns: int = 1) -> tuple[Figure, Any]:
    """A drawing and its axes: one, or an array of them."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(8 * columns, 3 * rows), layout="constrained")
        return drawing, drawing.subplots(rows, columns)


def save(drawing: Figure, target: Path) -> None:
    """Write it as SVG, with a legend wherever something has a label."""
    with mpl.rc_context(STYLE):
        for axes in drawing.axes:
            axes.set_ylim(bottom=0)
            if axes.get_legend_handles_labels()[0]:
                axes.legend(loc="best")
    _write(drawing, target)


def _write(drawing: Figure, target: Path) -> None:
    with mpl.rc_context(STYLE):
        drawing.savefig(target, format="svg", metadata={"Date": None})


def dots(
    target: Path,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    axis: str,
    *,
    strong: str = "",
    note: str = "",
) -> None:
    """One line for each label, from below, with a dot for each series on a log axis; ``strong``: the label in bold."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(9, 1.3 + 0.42 * len(labels)), layout="constrained")
        axes = drawing.subplots()
        for (name, values), (colour, marker) in zip(series.items(), SERIES, strict=False):
            known = [(value, row) for row, value in enumerate(values) if value]
            axes.plot(*zip(*known, strict=True), marker, color=colour, label=name, markersize=7, alpha=0.9)
        axes.set_xscale("log")
        axes.set_ylim(-0.6, len(labels) - 0.4)
        axes.set_yticks(range(len(labels)), labels)
        for text, label in zip(axes.get_yticklabels(), labels, strict=True):
            text.set_fontweight("bold" if label == strong else "normal")
        axes.tick_params(axis="y", length=0)
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{axis} (log scale){f'; {note}' if note else ''}")
        drawing.legend(loc="outside upper center", ncols=len(series))
    _write(drawing, target)


def short(value: float, _: object = None) -> str:
    """A number for an axis: ``10``, ``1 k``, ``2.5 M``."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def lines(target: Path, panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]], axis: str) -> None:
    """Panels side by side over one log axis, each with its lines on a log axis; what is 0 is not drawn."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
        for axes, (title, series) in zip(drawing.subplots(1, len(panels)), panels.items(), strict=True):
            for (name, points), (colour, marker) in zip(series.items(), SERIES, strict=False):
                known = [(x, y) for x, y in points if y > 0]
                columns = list(zip(*known, strict=True)) or [(), ()]
                axes.plot(*columns, color=colour, marker=marker, markersize=5, label=name)
            axes.set_xscale("log")
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            if high < 10 * low:  # a flat curve looks flat
                middle = (low * high) ** 0.5
                axes.set_ylim(middle / 10**0.5, middle * 10**0.5)
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 1_000 * low else (1,)))
            for side in (axes.xaxis, axes.yaxis):
                side.set_major_formatter(FuncFormatter(short))
                side.set_minor_formatter(NullFormatter())
            axes.set_title(title)
            axes.set_xlabel(axis)
        handles, labels = drawing.axes[0].get_legend_handles_labels()
        if len(labels) > 1:
            drawing.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    _write(drawing, target)
