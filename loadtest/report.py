"""From samples to a table: medians over the rounds, ratios within the run, and whether each figure is reached.

Only arithmetic and words: nothing here starts or measures anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from actord.loadtest.measure import ERROR_KINDS, Sample
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

Key = tuple[str, str, int]

# More CPU than this for neither server nor wrk, in the median run of a cell, and its figures are another program's too.
QUIET_CORES = 0.2

FRONT_MB = 60.0
WORKER_MB = 70.0


@dataclass(frozen=True, slots=True)
class Cell:
    """Medians of one system, spread of names and number of connections, over the rounds. Errors are summed."""

    system: str
    spread: str
    connections: int
    runs: int
    rate: float
    rate_min: float
    rate_max: float
    p50_ms: float
    p90_ms: float | None
    p99_ms: float
    cpu_us: float
    server_cores: float
    client_cores: float
    other_cores: float
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure to reach: ``value`` at least (or at most) ``limit``. A value of None: it was not measured."""

    name: str
    value: float | None
    at_least: bool
    limit: float

    @property
    def reached(self) -> bool | None:
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def to_json(self) -> dict[str, object]:
        return asdict(self) | {"reached": self.reached}


def cells(samples: Sequence[Sample]) -> dict[Key, Cell]:
    """Group samples by system, spread and connections, in the order in which they first occur."""
    groups: dict[Key, list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.system, sample.spread, sample.connections), []).append(sample)
    return {key: _cell(key, group) for key, group in groups.items()}


def _cell(key: Key, group: Sequence[Sample]) -> Cell:
    rates = [sample.rate for sample in group]
    return Cell(
        *key,
        runs=len(group),
        rate=median(rates),
        rate_min=min(rates),
        rate_max=max(rates),
        p50_ms=median(sample.wrk.p50_ms for sample in group),
        p90_ms=median(known) if (known := [s.wrk.p90_ms for s in group if s.wrk.p90_ms is not None]) else None,
        p99_ms=median(sample.wrk.p99_ms for sample in group),
        cpu_us=median(sample.cpu_us for sample in group),
        server_cores=median(sample.server_cpu_s / sample.wrk.seconds for sample in group),
        client_cores=median(sample.client_cpu_s / sample.wrk.seconds for sample in group),
        other_cores=median(sample.other_cores for sample in group),
        errors={kind: sum(sample.wrk.errors[kind] for sample in group) for kind in ERROR_KINDS},
    )


def ratio(table: Mapping[Key, Cell], over: str, spread: str, connections: int, ours: str = "actord") -> float | None:
    """actord's median rate over another system's in the same cell; None when either is missing or answered nothing."""
    own, theirs = table.get((ours, spread, connections)), table.get((over, spread, connections))
    return own.rate / theirs.rate if own and theirs and theirs.rate else None


def figures(table: Mapping[Key, Cell], idle_memory: Sequence[Mapping[str, object]]) -> list[Figure]:
    """The figures that a release has to reach. ``idle_memory``: actord's processes before the first call, by role."""
    durable = table.get(("actord", "uniform", 64))

    def rss(role: str) -> float | None:
        found = [float(str(row["rss_mb"])) for row in idle_memory if row["role"] == role]
        return max(found, default=None)

    return [
        Figure("uniform, 64 connections: times FastAPI + PostgreSQL", ratio(table, "fastapi", "uniform", 64), True, 10),
        Figure("uniform, 64 connections: share of hello world", ratio(table, "hello", "uniform", 64), True, 0.20),
        Figure("hot name, 64 connections: times FastAPI + PostgreSQL", ratio(table, "fastapi", "hot", 64), True, 20),
        Figure("uniform, 1 connection: times FastAPI + PostgreSQL", ratio(table, "fastapi", "uniform", 1), True, 2),
        Figure("uniform, 64 connections: CPU µs a call, all processes", durable.cpu_us if durable else None, False, 45),
        Figure("idle memory of the front, MB", rss("front"), False, FRONT_MB),
        Figure("idle memory of the largest worker, MB", rss("worker"), False, WORKER_MB),
    ]


def print_report(console: Console, table: Mapping[Key, Cell], reach: Sequence[Figure]) -> None:
    """The two tables, as Markdown, so that they can be pasted."""
    console.print(_measured(table))
    console.print(reached_table(reach))
    print_disturbed(console, table)


def print_disturbed(console: Console, table: Mapping[Key, Cell]) -> None:
    """Say it when something else used the machine."""
    disturbed = [cell for cell in table.values() if cell.other_cores > QUIET_CORES]
    if disturbed:
        most = max(cell.other_cores for cell in disturbed)
        console.print(f"Not a quiet machine: in {len(disturbed)} cells something else took up to {most:.2f} cores.")


def _measured(table: Mapping[Key, Cell]) -> Table:
    grid = Table(box=MARKDOWN)
    for title in ("server", "names", "conns", "calls/s", "min-max", "p50 ms", "p99 ms", "CPU µs/call", "cores", "wrk"):
        grid.add_column(title, justify="left" if title in ("server", "names") else "right", no_wrap=True)
    for title in ("others", "/ fastapi", "/ hello", "runs", "errors"):
        grid.add_column(title, justify="right", no_wrap=True)
    for (system, spread, connections), cell in sorted(
        table.items(), key=lambda item: (item[0][1] == "hot", item[0][2])
    ):
        ours = system == "actord"
        grid.add_row(
            system,
            spread,
            str(connections),
            f"{cell.rate:,.0f}",
            f"{cell.rate_min:,.0f}-{cell.rate_max:,.0f}",
            f"{cell.p50_ms:.2f}",
            f"{cell.p99_ms:.2f}",
            f"{cell.cpu_us:.1f}",
            f"{cell.server_cores:.2f}",
            f"{cell.client_cores:.2f}",
            f"{cell.other_cores:.2f}",
            _number(ratio(table, "fastapi", spread, connections)) if ours else "",
            _number(ratio(table, "hello", spread, connections)) if ours else "",
            str(cell.runs),
            ", ".join(f"{count} {kind}" for kind, count in cell.errors.items() if count) or "0",
        )
    return grid


def reached_table(reach: Sequence[Figure]) -> Table:
    """The figures to reach, with what was measured."""
    grid = Table(box=MARKDOWN)
    for title in ("figure", "measured", "wanted", "reached"):
        grid.add_column(title, justify="left" if title == "figure" else "right", no_wrap=True)
    words = {None: "not measured", True: "yes", False: "NO"}
    for figure in reach:
        wanted = f"{'≥' if figure.at_least else '≤'} {figure.limit:g}"
        grid.add_row(figure.name, _number(figure.value), wanted, words[figure.reached])
    return grid


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
