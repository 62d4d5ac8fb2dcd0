"""Plots as SVG: one style for all reports. Loads matplotlib, which takes half a second: import it where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

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
        drawing.savefig(target, format="svg", metadata={"Date": None})
