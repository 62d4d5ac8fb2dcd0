"""Tables, plots and a verdict on what grows, from the points of a run. Measures nothing.

A curve bends where a call costs more than its work explains. The work that grows by itself is stated for each curve,
and it is bytes: those of the value, else those that a call had written to files. A call is expected to cost ``base +
bytes x price``: the base is the cheapest of the points before it, the bytes those beyond the first point's. One over
that by more than TOLERANCE is named.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actord.loadtest.growth_server import Point
from actord.loadtest.report import QUIET_CORES

# Runs of one second on a shared machine differ by as much.
TOLERANCE = 1.35
# µs of a byte that is written: encoded, added to the log with checksums, folded into the database; and of one that is
# copied once or twice. Of a core of about 2020.
WRITTEN_BYTE, COPIED_BYTE = 0.006, 0.001


@dataclass(frozen=True, slots=True)
class Curve:
    """What is said of a curve. ``by_value``: the bytes of its work are x. ``price``: µs that a byte may cost."""

    title: str
    call: str
    work: str
    by_value: bool = False
    price: float = WRITTEN_BYTE


VALUES = "its bytes, written to log and database; beyond storage.page_cache the pages of the old value are read as well"
CURVES = {
    "names": Curve(
        "all names, by chance",
        "get and put a number, every name in memory",
        "from one name to several, two workers commit and not one; with more names, fewer calls of a commit "
        "share a page of the log",
    ),
    "names-few": Curve(
        "1,000 of so many names",
        "get and put a number",
        "none: the same names, among more and more others",
    ),
    "names-cold": Curve(
        "names not in memory",
        "the first call of a name after a start",
        "a row to look up in a larger tree, and a page of the log for each call",
    ),
    "values": Curve("write a value", "put of so many bytes", VALUES, True),
    "values-read": Curve("read a value", "get of so many bytes, in memory", "a copy of the bytes", True, COPIED_BYTE),
    "keys": Curve(
        "keys of an actor",
        "get and put one of them, by chance; 20 actors",
        "with more keys, fewer calls of one commit share a page of the log",
    ),
    "database": Curve("database", "get and put a number, 1,000 names", "none: other actors' data lies beside it"),
    "log": Curve(
        "limit of the log",
        "get and put a number, 10,000 names",
        "it falls: a longer log is folded into the database less often",
    ),
}
# One plot each: file, curves in it, axis.
PLOTS = {
    "names": (("names", "names-few", "names-cold"), "names"),
    "values": (("values", "values-read"), "bytes of the value"),
    "keys": (("keys",), "keys of an actor"),
    "database": (("database",), "bytes of the database"),
    "log": (("log",), "bytes: storage.checkpoint_wal"),
}


@dataclass(frozen=True, slots=True)
class Bend:
    """A point that costs ``times`` what its work explains."""

    point: Point
    times: float


def curves(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each curve, by x."""
    found: dict[str, list[Point]] = {name: [] for name in CURVES}
    for point in points:
        found[point.curve].append(point)
    return {name: sorted(own, key=lambda point: point.x) for name, own in found.items() if own}


def bends(points: Sequence[Point]) -> list[Bend]:
    """The points that cost more than their work explains; see above."""
    found = []
    for name, own in curves(points).items():
        for index, point in enumerate(own[1:], 1):
            bytes_more = max(0.0, _bytes(name, point) - _bytes(name, own[0]))
            expected = min(one.cpu_us for one in own[:index]) + bytes_more * CURVES[name].price
            if point.cpu_us > TOLERANCE * expected:
                found.append(Bend(point, point.cpu_us / expected))
    return found


def _bytes(name: str, point: Point) -> float:
    return point.x if CURVES[name].by_value else point.written


def markdown(results: Mapping[str, Any]) -> str:
    """A page with a table for each curve, the plots, and the verdict."""
    points = [Point(**stored) for stored in results["points"]]
    facts = results["machine"]
    lines = [
        "# While it grows",
        "",
        "Written by `make bench-growth` from the results of one run; see [performance.md](../performance.md).",
        "",
        f"{facts['cores_allowed']} cores ({facts['cpu']}), Linux {facts['kernel']}, {facts['file_system']}, "
        f"{results['started'][:10]}.",
        f"Each figure is the median of {results['rounds']} runs of {results['seconds']} s on {results['connections']} "
        f"connections; those of values on {results['value_connections']}.",
        "",
        "CPU is that of all processes of the server; *written* is what they had the kernel write to files.",
    ]
    by_curve = curves(points)
    for plot, (names, axis) in PLOTS.items():
        for name in [name for name in names if name in by_curve]:
            curve = CURVES[name]
            lines += ["", f"## {curve.title[0].upper()}{curve.title[1:]}", "", f"The call: {curve.call}."]
            lines += [*textwrap.wrap(f"Work of a call that grows by itself: {curve.work}.", 118), ""]
            lines += [f"| {axis} | CPU µs a call | p50 ms | p99 ms | bytes written a call | calls/s |"]
            lines += ["| --- | --- | --- | --- | --- | --- |"]
            lines += [_row(point) for point in by_curve[name]]
        if any(name in by_curve for name in names):
            lines += ["", f"![CPU and p50 of a call by {axis}](growth-{plot}.svg)"]
    if results["cut"]:
        lines += ["", f"Cut short, since their time was up: {', '.join(results['cut'])}."]
    disturbed = [point.other_cores for point in points if point.other_cores > QUIET_CORES]
    lines += ["", "## Bends", "", *verdict(points)]
    if disturbed:
        lines += [
            "",
            f"Not a quiet machine: at {len(disturbed)} of {len(points)} points something else took up to "
            f"{max(disturbed):.2f} cores.",
            "What is said of bends means little then.",
        ]
    return "\n".join(lines) + "\n"


def verdict(points: Sequence[Point]) -> list[str]:
    """A line for each bend, or one that there is none."""
    found = bends(points)
    if not found:
        return [f"None: no point costs more than {TOLERANCE:g} times what its work explains."]
    return [
        f"* {CURVES[bend.point.curve].title}, {bend.point.x:,.0f}: {bend.point.cpu_us:,.0f} µs, {bend.times:.1f} times "
        "what its work explains"
        for bend in found
    ]


def _row(point: Point) -> str:
    return (
        f"| {point.x:,.0f} | {point.cpu_us:,.0f} | {point.p50_ms:.2f} | {point.p99_ms:.2f} | {point.written:,.0f} "
        f"| {point.rate:,.0f} |"
    )


def plot(points: Sequence[Point], stem: Path) -> list[Path]:
    """Write ``STEM-names.svg`` and so on. Raises ImportError without matplotlib."""
    from actord.loadtest import plots

    by_curve, written = curves(points), []
    for name, (members, axis) in PLOTS.items():
        shown = {CURVES[one].title: by_curve[one] for one in members if one in by_curve}
        if not shown:
            continue
        target = stem.with_name(f"{stem.name}-{name}.svg")
        series = {
            "CPU µs a call": {title: [(one.x, one.cpu_us) for one in own] for title, own in shown.items()},
            "p50 ms": {title: [(one.x, one.p50_ms) for one in own] for title, own in shown.items()},
            "bytes written a call": {title: [(one.x, one.written) for one in own] for title, own in shown.items()},
        }
        plots.lines(target, series, axis)
        written.append(target)
    return written
