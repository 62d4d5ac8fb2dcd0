"""Medians, ratios and verdicts of the report."""

from __future__ import annotations

import dataclasses
import io

import pytest
from actord.loadtest.measure import ERROR_KINDS, Sample, WrkResult
from actord.loadtest.report import cells, figures, print_report, ratio
from rich.console import Console

MEMORY = [{"role": "front", "rss_mb": 41.5}, {"role": "worker", "rss_mb": 55.0}, {"role": "worker", "rss_mb": 71.0}]


def sample(
    system: str, rate: int, *, spread: str = "uniform", conns: int = 64, cpu: float = 0.4, **errors: int
) -> Sample:
    kinds = dict.fromkeys(ERROR_KINDS, 0) | errors
    return Sample(system, spread, conns, 0, WrkResult(rate * 2, 2.0, kinds, 1.0, 2.0, 3.0, 4.0), cpu, 0.2, 0.0)


def run(ours: int = 30_000, **more: int) -> list[Sample]:
    found = []
    for spread, conns in (("uniform", 64), ("hot", 64), ("uniform", 1)):
        for system, rate in (("actord", ours), ("fastapi", 2_000), ("hello", 100_000)):
            found.append(
                sample(system, rate, spread=spread, conns=conns, cpu=2.4 if system == "actord" else 1.0, **more)
            )
    return found


def test_a_cell_is_the_median_of_its_rounds_and_sums_their_errors() -> None:
    table = cells([sample("actord", 100), sample("actord", 900, status=5), sample("actord", 200), sample("hello", 7)])
    cell = table["actord", "uniform", 64]
    assert (cell.runs, cell.rate, cell.rate_min, cell.rate_max) == (3, 200, 100, 897.5)
    assert (cell.p50_ms, cell.p90_ms, cell.p99_ms) == (1, 2, 3)
    assert (cell.server_cores, cell.client_cores) == (0.2, 0.1)
    assert cell.errors["status"] == 5
    assert list(table) == [("actord", "uniform", 64), ("hello", "uniform", 64)]


def test_a_ratio_is_of_medians_of_the_same_cell() -> None:
    table = cells(
        [sample("actord", 300), sample("fastapi", 20), sample("fastapi", 30), sample("fastapi", 1000, conns=1)]
    )
    assert ratio(table, "fastapi", "uniform", 64) == 12
    assert ratio(table, "fastapi", "uniform", 1) is None
    assert ratio(table, "hello", "uniform", 64) is None


def test_nothing_answered_is_no_ratio() -> None:
    table = cells([sample("actord", 300), sample("fastapi", 0)])
    assert ratio(table, "fastapi", "uniform", 64) is None


def test_figures_say_which_are_reached() -> None:
    reached = {figure.name: (figure.value, figure.reached) for figure in figures(cells(run()), MEMORY)}
    assert reached == {
        "uniform, 64 connections: times FastAPI + PostgreSQL": (15, True),
        "uniform, 64 connections: share of hello world": (0.3, True),
        "hot name, 64 connections: times FastAPI + PostgreSQL": (15, False),
        "uniform, 1 connection: times FastAPI + PostgreSQL": (15, True),
        "uniform, 64 connections: CPU µs a call, all processes": (pytest.approx(40), True),
        "idle memory of the front, MB": (41.5, True),
        "idle memory of the largest worker, MB": (71.0, False),
    }


def test_a_figure_exactly_at_its_limit_is_reached() -> None:
    at_limit = {
        figure.name: figure.reached for figure in figures(cells(run(20_000)), [{"role": "worker", "rss_mb": 70.0}])
    }
    assert at_limit["uniform, 64 connections: times FastAPI + PostgreSQL"] is True
    assert at_limit["uniform, 64 connections: share of hello world"] is True
    assert at_limit["idle memory of the largest worker, MB"] is True


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert {figure.reached for figure in figures({}, [])} == {None}


def test_the_table_shows_errors_and_missed_figures() -> None:
    table = cells(run(30_000, status=3, timeout=2))
    words = io.StringIO()
    print_report(Console(file=words, width=220), table, figures(table, MEMORY))
    lines = [[part.strip() for part in line.split("|")[1:-1]] for line in words.getvalue().splitlines() if "|" in line]
    head = next(line for line in lines if line[0] == "server")
    ours = dict(zip(head, next(line for line in lines if line[:3] == ["actord", "uniform", "64"]), strict=True))
    assert ours["errors"] == "3 status, 2 timeout"
    assert (ours["calls/s"], ours["/ fastapi"], ours["/ hello"]) == ("29,998", "15.01", "0.30")
    assert ["idle memory of the largest worker, MB", "71.00", "≤ 70", "NO"] in lines


def test_a_busy_neighbour_is_said() -> None:
    def words(other: float) -> str:
        disturbed = dataclasses.replace(sample("actord", 100), other_cores=other)
        written = io.StringIO()
        print_report(Console(file=written, width=220), cells([disturbed]), [])
        return written.getvalue()

    assert "in 1 cells something else took up to 0.70 cores" in words(0.7)
    assert "Not a quiet machine" not in words(0.05)
