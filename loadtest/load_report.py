"""From the files that locust leaves to a judgement: totals, a table of types and methods, thresholds, a plot.

Only arithmetic and words: nothing here starts or measures anything.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from actord.loadtest.swarm.audit import Verdict
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

# With more of a core than this for its busiest process, a figure is about locust, not about the server.
LOCUST_FULL = 0.9


@dataclass(frozen=True, slots=True)
class Line:
    """One type and method. Times in milliseconds, as locust keeps them: to two digits above 100."""

    kind: str
    name: str
    requests: int
    failures: int
    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class Result:
    """A run. ``server_cores`` is None for a server that was not started here."""

    lines: list[Line]
    total: Line
    failures: dict[str, int]
    audit: Verdict
    server_cores: float | None
    locust_core: float

    @property
    def rate(self) -> float:
        return self.total.rate

    @property
    def error_ratio(self) -> float:
        return self.total.failures / self.total.requests if self.total.requests else 1.0


def read(folder: Path, audit: Verdict, *, server_cores: float | None, locust_core: float) -> Result:
    """What locust wrote into ``folder``."""
    rows = json.loads((folder / "run.json").read_text())
    lines = [line(row["method"], row["name"], [row]) for row in rows]
    with (folder / "run_failures.csv").open(newline="") as file:
        failures = {
            f"{row['Method']} {row['Name']}: {row['Error']}": int(row["Occurrences"]) for row in csv.DictReader(file)
        }
    return Result(lines, line("", "all", rows), failures, audit, server_cores, locust_core)


def line(kind: str, name: str, rows: Sequence[Mapping[str, Any]]) -> Line:
    """The sum of locust's entries. A rate counts from the first request of them all to the last."""
    times: dict[float, int] = {}
    for row in rows:
        for value, count in row["response_times"].items():
            times[float(value)] = times.get(float(value), 0) + count
    requests = sum(row["num_requests"] for row in rows)
    began = min((row["start_time"] for row in rows), default=0.0)
    ended = max((row["last_request_timestamp"] or 0.0 for row in rows), default=0.0)
    return Line(
        kind,
        name,
        requests,
        sum(row["num_failures"] for row in rows),
        requests / (ended - began) if ended > began else 0.0,
        percentile(times, 0.5),
        percentile(times, 0.95),
        percentile(times, 0.99),
        max((row["max_response_time"] for row in rows), default=0.0),
    )


def percentile(times: Mapping[float, int], share: float) -> float:
    """The least value that ``share`` of the counted values do not exceed; 0 without any."""
    left = sum(times.values()) * share
    for value in sorted(times):
        left -= times[value]
        if left <= 1e-9:
            return value
    return 0.0


def missed(result: Result, *, max_error_ratio: float, max_p99_ms: float, min_rate: float) -> list[str]:
    """What fails the run, in words; empty: nothing."""
    found = []
    if result.error_ratio > max_error_ratio:
        found.append(f"{result.error_ratio:.2%} of the requests failed, and {max_error_ratio:.2%} may")
    if result.total.p99_ms > max_p99_ms:
        found.append(f"p99 is {result.total.p99_ms:g} ms, and {max_p99_ms:g} ms is the most")
    if result.rate < min_rate:
        found.append(f"{result.rate:,.0f} requests a second, and {min_rate:,.0f} is the least")
    if not result.audit.holds:
        found.append(f"audit: {result.audit}")
    return found


def write(folder: Path, result: Result, missed: Sequence[str]) -> None:
    """``summary.json`` and ``plot.svg``, beside what locust has written."""
    summary = asdict(result) | {"error_ratio": result.error_ratio, "missed": list(missed)}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    plot(folder / "run_stats_history.csv", folder / "plot.svg")


def show(console: Console, result: Result, missed: Sequence[str]) -> None:
    """The table as Markdown, and the judgement."""
    grid = Table(box=MARKDOWN)
    grid.add_column("request")
    for title in ("requests", "failures", "per s", "p50 ms", "p95 ms", "p99 ms", "max ms"):
        grid.add_column(title, justify="right")
    for row in (*result.lines, result.total):
        times = (f"{value:,.0f}" for value in (row.p50_ms, row.p95_ms, row.p99_ms, row.max_ms))
        counts = f"{row.requests:,}", f"{row.failures:,}", f"{row.rate:,.0f}"
        grid.add_row(f"{row.kind} {row.name}".strip(), *counts, *times)
    console.print(grid)
    for words, count in sorted(result.failures.items(), key=lambda item: -item[1])[:10]:
        console.print(f"failed {count:,} times: {words}", markup=False)
    console.print(f"audit: {result.audit}", markup=False)
    if result.server_cores is not None:
        console.print(f"the server used {result.server_cores:.2f} cores")
    if result.locust_core > LOCUST_FULL:
        console.print(
            f"locust used {result.locust_core:.2f} of a core: the rate is its own limit. More --processes, or wrk: "
            "make bench"
        )
    for words in missed:
        console.print(f"MISSED: {words}", markup=False)


def plot(history: Path, target: Path) -> None:
    """Rate, failures and percentiles over time, of all requests together."""
    # It costs half a second to load: only here.
    from actord.loadtest.plots import figure, save

    with history.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Name"] == "Aggregated"]
    began = float(rows[0]["Timestamp"]) if rows else 0.0
    seconds = [float(row["Timestamp"]) - began for row in rows]
    drawing, (rate, times) = figure(rows=2)
    # From the counts: locust's own rate is an average over ten seconds, and two seconds late.
    rate.plot(seconds, _slope(seconds, _column(rows, "Total Request Count")), label="requests/s")
    rate.plot(seconds, _slope(seconds, _column(rows, "Total Failure Count")), label="failures/s")
    for share in ("50%", "95%", "99%"):
        times.plot(seconds, _column(rows, share), label=f"p{share[:-1]}")
    rate.set_ylabel("per second")
    times.set_ylabel("ms")
    times.set_xlabel("seconds")
    save(drawing, target)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> list[float]:
    return [float(row[name]) if row[name] != "N/A" else 0.0 for row in rows]


def _slope(seconds: Sequence[float], counts: Sequence[float]) -> list[float]:
    """Growth per second since the row before; the first has none."""
    pairs = zip(zip(seconds, counts, strict=True), zip(seconds[1:], counts[1:], strict=True), strict=False)
    return [0.0, *((more - less) / (until - since or 1) for (since, less), (until, more) in pairs)][: len(counts)]
