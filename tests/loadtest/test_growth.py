"""Growth: what is measured on a real server, and which curves are said to bend."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from actord.loadtest import growth, growth_report, growth_runs, growth_server
from actord.loadtest.growth_server import Point
from actord.loadtest.measure import run_wrk

needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")


def point(curve: str, x: float, cpu: float, written: float = 1_000) -> Point:
    return Point(curve, x, cpu, 0.5, 2.0, written, 10_000)


@pytest.mark.parametrize(
    ("points", "bent"),
    [
        ([point("names-few", 1, 40), point("names-few", 10, 45), point("names-few", 100, 41)], []),
        ([point("names-few", 1, 40), point("names-few", 10, 60), point("names-few", 100, 41)], [10]),
        ([point("names-few", 1, 40), point("names-few", 100, 52), point("names-few", 1000, 57)], [1000]),
        ([point("names", 1, 40, 1_000), point("names", 10, 60, 5_000)], []),
        ([point("names", 1, 40, 1_000), point("names", 10, 100, 5_000)], [10]),
        ([point("values", 10, 40), point("values", 10**6, 5_000)], []),
        ([point("values", 10, 40), point("values", 10**6, 50_000)], [10**6]),
        ([point("values-read", 10, 10), point("values-read", 10**6, 5_000)], [10**6]),
        ([point("database", 10**9, 80), point("database", 10**6, 40)], [10**9]),
        ([point("log", 10**6, 90), point("log", 10**9, 40)], []),
    ],
    ids=[
        "flat",
        "a hump",
        "slowly more",
        "more pages",
        "more than the pages explain",
        "more bytes",
        "more than the bytes explain",
        "a read is a copy, and cheaper",
        "in the order of x",
        "falling",
    ],
)
def test_a_curve_bends_where_a_call_costs_more_than_its_work_explains(points: list[Point], bent: list[float]) -> None:
    assert [bend.point.x for bend in growth_report.bends(points)] == bent


def stored(bent: bool) -> dict[str, Any]:
    points = [point(name, x, 40) for name in growth_report.CURVES for x in (10, 1000)]
    if bent:
        points.append(point("database", 10**9, 400))
    points.append(dataclasses.replace(point("values-read", 100, 40), written=0))
    return {
        "started": "2026-01-02T03:04:05+00:00",
        "machine": {"cores_allowed": 2, "cpu": "EPYC", "kernel": "6", "file_system": "ext4"},
        "rounds": 3,
        "seconds": 1,
        "connections": 64,
        "value_connections": 16,
        "cut": ["log"] if bent else [],
        "points": json.loads(json.dumps([one.to_json() for one in points])),
    }


def test_the_page_has_a_table_for_each_curve_the_work_and_the_verdict() -> None:
    text = growth_report.markdown(stored(False))
    for curve in growth_report.CURVES.values():
        assert f"Work of a call that grows by itself: {curve.work}." in " ".join(text.split())
    assert text.count("| 1,000 | 40 | 0.50 | 2.00 | 1,000 | 10,000 |") == len(growth_report.CURVES)
    assert "None: no point costs more" in text
    bent = growth_report.markdown(stored(True))
    assert "* database, 1,000,000,000: 400 µs, 10.0 times what its work explains" in bent
    assert "None: no point" not in bent
    assert "Cut short, since their time was up: log." in bent
    assert "Cut short" not in text
    assert "Not a quiet machine" not in bent


def test_a_busy_neighbour_is_said() -> None:
    results = stored(False)
    results["points"][3]["other_cores"] = 0.7
    text = growth_report.markdown(results)
    assert f"at 1 of {len(results['points'])} points something else took up to 0.70 cores" in text


def test_every_curve_is_in_a_plot_and_every_run_has_its_curves() -> None:
    assert [name for names, _ in growth_report.PLOTS.values() for name in names] == list(growth_report.CURVES)
    assert set(growth_report.PLOTS) == set(growth_runs.RUNS)


def test_page_and_plots_of_a_stored_run_are_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "run.json"
    results = stored(True)
    results["points"] = [one for one in results["points"] if one["curve"] in ("names", "names-few", "database")]
    file.write_text(json.dumps(results))
    assert growth.main(["--from", str(file)]) == 0
    capsys.readouterr()
    assert "(run-names.svg)" in file.with_suffix(".md").read_text()
    plots = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert plots == ["run-database.svg", "run-names.svg"]


@needs_wrk
def test_a_walk_calls_each_name_in_turn_and_then_begins_again(bank: Any) -> None:
    run_wrk(bank.port, connections=1, names=5, seconds=1, walk=(4, 3))
    numbers = [int(call[1].split("-")[1].split("/")[0]) for call in bank.seen]
    assert numbers[:6] == [4, 2, 5, 3, 1, 4]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="actord-test-", dir="/var/tmp") as name:
        yield Path(name)


@needs_wrk
def test_points_are_measured_on_a_real_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also that what fills writes, and that a disk without room ends the curve of the database."""
    command = growth.parse([]).actord
    if not Path(command[0]).exists():
        pytest.skip("actord is not installed as a command")
    pace = dataclasses.replace(growth_runs.QUICK, database=(4 * growth_server.MIB, 2**60))
    points: list[Point] = []
    assert growth_runs.carry_out("database", folder, command, pace, points.append)
    assert [(one.curve, one.x) for one in points] == [("database", 4 * growth_server.MIB)]
    assert all(one.cpu_us > 0 and one.rate > 0 and one.p50_ms > 0 and one.written > 0 for one in points)
    assert list(folder.iterdir()) == []


def test_a_run_whose_time_is_up_ends_with_what_it_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = []

    def work(run: growth_server.Run) -> None:
        server = growth_server.Server(1, 1, run.pace, points.append, run.end)
        run.say(point("keys", 1, 40))
        server.point("keys", 10, "one_of", names=1)

    monkeypatch.setitem(growth_runs.RUNS, "keys", (work, 0.0))
    assert growth_runs.carry_out("keys", folder, ["never"], growth_runs.QUICK, points.append) is False
    assert [one.x for one in points] == [1]
    assert list(folder.iterdir()) == []
