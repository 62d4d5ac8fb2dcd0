"""The comparison's table, ratios and plot, from stored samples."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import actord.loadtest
import pytest
from actord.loadtest import bench_peers, peers_report
from actord.loadtest.measure import ERROR_KINDS, Sample, WrkResult
from rich.console import Console

RATES = {"actord": 40_000, "hello": 100_000, "fastapi": 2_000, "redis": 50_000}
PROOF = {
    "single_connection": {"answers": 200, "flushes": 203, "answers_after_write_and_flush": 200},
    "each_answer_had_its_flush": True,
}


def sample(system: str, spread: str, connections: int, rate: float, number: int = 0) -> Sample:
    p90 = None if system == "redis" else 2.0
    wrk = WrkResult(round(rate * 2), 2.0, dict.fromkeys(ERROR_KINDS, 0), 0.25, p90, 30.4, 40.0)
    return Sample(system, spread, connections, number, wrk, 2.0, 0.5, 0.0)


def stored() -> dict[str, Any]:
    """What the JSON file of a run holds, as it is read again."""
    samples = [
        sample(system, spread, connections, rate * (1 + number), number)
        for number in (0, 2, 1)
        for system, rate in RATES.items()
        for spread, connections in bench_peers.CELLS
        if spread != "read" or system in ("actord", "hello")
    ]
    # It fell out in the middle of the run: what it had measured until then counts for nothing.
    samples.append(sample("workerd", "uniform", 64, 1_000_000))
    systems = {
        name: {
            "speaks": "redis-benchmark, no HTTP" if name == "redis" else "wrk, HTTP",
            "keeps": "a log",
            "names": 10_000,
            "durability": None if name == "hello" else {"not_measured": "no\nstrace"} if name == "redis" else PROOF,
        }
        for name in RATES
    }
    results = {
        "started": "2026-01-02T03:04:05+00:00",
        "machine": {
            "cores_allowed": 2,
            "cpu": "EPYC",
            "kernel": "6",
            "python": "3.11",
            "file_system": "ext4",
            "flush_before": {"per_second": 4000},
        },
        "options": {"rounds": 3, "seconds": 2},
        "systems": systems,
        "skipped": {"workerd": "its log ends with:\ntoo many files", "restate": "no node"},
        "samples": [one.to_json() for one in samples],
    }
    return json.loads(json.dumps(results))


def rows(text: str) -> dict[str, list[list[str]]]:
    """The cells of the page's table rows, by their first one."""
    found: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("| "):
            first, *rest = (part.strip() for part in line.strip("|").split("|"))
            found.setdefault(first, []).append(rest)
    return found


def test_a_sample_comes_back_from_the_file_as_it_was() -> None:
    for one in (sample("redis", "hot", 64, 3), sample("actord", "uniform", 1, 5)):
        assert Sample.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_the_page_shows_medians_ratios_and_what_strace_saw() -> None:
    found = rows(peers_report.markdown(stored()))
    measured, kept = found["actord"]
    assert measured == [*["80,000 (0.25 / 30)"] * 5, "12"]
    assert kept[-1] == "write, sync, then reply: 200 of 200 replies; 203 syncs"
    measured, times, kept = found["FastAPI + PostgreSQL, row lock"]
    assert measured[:4] == ["4,000 (0.25 / 30)"] * 4
    assert measured[4] == ""
    assert times == ["20", "20", "20", "20", ""]
    _, times, kept = found["Redis, appendfsync always, Lua"]
    assert times == ["0.8"] * 4 + [""]
    assert (kept[0], kept[-1]) == ("redis-benchmark, no HTTP", "not measured: no strace")
    assert found["uvloop + httptools, hello world"][1] == ["0.4"] * 5


def test_a_compiled_actord_stands_beside_the_other_with_ratios_and_figures_of_its_own() -> None:
    results = stored()
    results["systems"]["actord-compiled"] = results["systems"]["actord"]
    compiled = [sample("actord-compiled", *cell, RATES["actord"] * 4).to_json() for cell in bench_peers.CELLS]
    results["samples"] += compiled
    text = peers_report.markdown(results)
    assert text.index("\nactord is so many times:") < text.index("\nactord (compiled) is so many times:")
    _, pure, faster, _ = rows(text)["FastAPI + PostgreSQL, row lock"]
    assert (pure[:4], faster[:4]) == (["20"] * 4, ["40"] * 4)
    table = peers_report.table_of(results)
    ours, theirs = peers_report.figures(table), peers_report.figures(table, "actord-compiled")
    assert [figure.value for figure in theirs][:4:2] == [40, 0.8]
    assert [figure.value for figure in ours][:4:2] == [20, 0.4]


def test_what_was_left_out_is_named_with_its_reason_and_is_in_no_table() -> None:
    text = peers_report.markdown(stored())
    assert "* workerd, Durable Objects on disk: its log ends with: too many files\n" in text
    assert "* Restate, virtual object: no node\n" in text
    assert "workerd, Durable Objects on disk" not in rows(text)
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 120


def test_a_server_whose_reply_came_before_its_sync_is_called_that() -> None:
    results = stored()
    proof = results["systems"]["fastapi"]["durability"]
    proof["each_answer_had_its_flush"] = False
    proof["single_connection"]["answers_after_write_and_flush"] = 3
    kept = rows(peers_report.markdown(results))["FastAPI + PostgreSQL, row lock"][-1]
    assert kept[-1] == "NOT DURABLE: 3 of 200 replies; 203 syncs"


def test_the_figures_are_ratios_of_this_run_and_a_missing_peer_leaves_its_own_open() -> None:
    found = {figure.name: figure for figure in peers_report.figures(peers_report.table_of(stored()))}
    row_locks = found["uniform names, 64 connections: times FastAPI + PostgreSQL with row locks"]
    assert (row_locks.value, row_locks.limit, row_locks.reached) == (20, 15, True)
    assert found["hot name, 64 connections: times FastAPI + PostgreSQL with row locks"].reached is False
    assert found["uniform names, 256 connections: of Redis, which speaks no HTTP"].reached is True
    assert found["read-only, 64 connections: of hello world"].reached is False
    assert found["uniform names, 64 connections: times workerd"].reached is None
    assert found["uniform names, 64 connections: CPU µs a call"].value == 12.5


def test_page_and_plot_of_a_stored_run_are_written_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "run.json"
    file.write_text(json.dumps(stored()))
    assert bench_peers.main(["--from", str(file)]) == 0
    text = file.with_suffix(".md").read_text()
    assert text in capsys.readouterr().out.replace("(peers.svg)", "(run.svg)")
    assert "(run.svg)" in text
    first = file.with_suffix(".svg").read_bytes()
    assert b"<svg" in first
    peers_report.plot(stored(), file.with_suffix(".svg"))
    assert file.with_suffix(".svg").read_bytes() == first


def test_without_matplotlib_there_is_a_page_and_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "actord.loadtest.plots", None)
    monkeypatch.delattr(actord.loadtest, "plots", raising=False)
    console = Console(record=True, width=200)
    bench_peers.write(stored(), tmp_path / "run.json", False, console)
    assert (tmp_path / "run.md").exists()
    assert not (tmp_path / "run.svg").exists()
    assert "matplotlib is not installed" in console.export_text()
