"""The comparison with other systems, from the stored results of a run: a table and a plot. Measures nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from actord.loadtest.measure import Sample
from actord.loadtest.report import Cell, Figure, Key, cells, ratio

# What each is called, in the order of the table; what is measured through the same client stands together.
TITLES = {
    "hello": "uvloop + httptools, hello world",
    "actord": "actord",
    "actord-compiled": "actord (compiled)",
    "fastapi-update": "FastAPI + PostgreSQL, one UPDATE",
    "fastapi": "FastAPI + PostgreSQL, row lock",
    "workerd": "workerd, Durable Objects on disk",
    "restate": "Restate, virtual object",
    "redis": "Redis, appendfsync always, Lua",
    "pgbench": "PostgreSQL, pgbench, one UPDATE",
}
CPU_CELL = ("uniform", 64)
Results = Mapping[str, Any]


def table_of(results: Results) -> dict[Key, Cell]:
    """The medians, from the samples of the systems that took part to the end."""
    samples = [Sample.from_json(stored) for stored in results["samples"]]
    return cells([sample for sample in samples if sample.system in results["systems"]])


OWN = ("actord", "actord-compiled")


def figures(table: Mapping[Key, Cell], ours: str = "actord") -> list[Figure]:
    """The figures to reach, each a ratio of medians of one cell of this run, but for the CPU."""
    found = []
    for connections in (64, 256):
        for peer, words, limit in (
            ("fastapi", "times FastAPI + PostgreSQL with row locks", 15),
            ("workerd", "times workerd", 20),
            ("hello", "of hello world", 0.35),
            ("redis", "of Redis, which speaks no HTTP", 0.8),
        ):
            value = ratio(table, peer, "uniform", connections, ours)
            found.append(Figure(f"uniform names, {connections} connections: {words}", value, True, limit))
    for peer, words, limit in (("fastapi", "FastAPI + PostgreSQL with row locks", 30), ("workerd", "workerd", 20)):
        value = ratio(table, peer, "hot", 64, ours)
        found.append(Figure(f"hot name, 64 connections: times {words}", value, True, limit))
    value = ratio(table, "hello", "read", 64, ours)
    found.append(Figure("read-only, 64 connections: of hello world", value, True, 0.45))
    own = table.get((ours, *CPU_CELL))
    found.append(Figure("uniform names, 64 connections: CPU µs a call", own.cpu_us if own else None, False, 30))
    return found


def markdown(results: Results) -> str:
    """The page: what ran, the table, the ratios, how each keeps a debit and what strace saw, what was left out."""
    table = table_of(results)
    shown = [name for name in TITLES if name in results["systems"]]
    kinds = list(dict.fromkeys((spread, connections) for _, spread, connections in table))
    facts, options = results["machine"], results["options"]
    lines = [
        "# Beside other systems",
        "",
        "Written by `make bench-peers` from the results of one run; see [performance.md](../performance.md).",
        "",
        *textwrap.wrap(
            f"{facts['cores_allowed']} cores ({facts['cpu']}), Linux {facts['kernel']}, Python {facts['python']}, "
            f"{facts['file_system']}, {facts['flush_before']['per_second']:,.0f} appends with a sync a second. Medians "
            f"of {options['rounds']} interleaved rounds of {options['seconds']} s, {results['started'][:10]}.",
            width=120,
        ),
        "",
        "Durable debits a second (p50 / p99 in ms). The client runs on the same cores.",
        "",
        *_rows(["system", *map(_cell_title, kinds), "CPU µs a call"], _measured(table, shown, kinds)),
        "",
        "![Durable debits a second](peers.svg)",
        "",
        *_times_others(table, shown, kinds, "actord"),
        *_times_others(table, shown, kinds, "actord-compiled"),
        "How a debit is kept, and what strace saw of 200 calls made one by one:",
        "",
        *_rows(["system", "client", "names", "kept in", "seen by strace"], _kept(results, shown)),
    ]
    if results["skipped"]:
        lines += ["", "Left out:", ""]
        for name, reason in results["skipped"].items():
            lines += textwrap.wrap(f"* {TITLES[name]}: {reason}", width=120, subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def _measured(table: Mapping[Key, Cell], shown: Sequence[str], kinds: Sequence[tuple[str, int]]) -> list[list[str]]:
    rows = []
    for name in shown:
        row = [TITLES[name]]
        for kind in kinds:
            cell = table.get((name, *kind))
            row.append(f"{cell.rate:,.0f} ({_ms(cell.p50_ms)} / {_ms(cell.p99_ms)})" if cell else "")
        cell = table.get((name, *CPU_CELL))
        rows.append([*row, f"{cell.cpu_us:,.0f}" if cell else ""])
    return rows


def _times_others(
    table: Mapping[Key, Cell], shown: Sequence[str], kinds: Sequence[tuple[str, int]], ours: str
) -> list[str]:
    if ours not in shown:
        return []
    rows = _ratios(table, shown, kinds, ours)
    return [f"{TITLES[ours]} is so many times:", "", *_rows(["system", *map(_cell_title, kinds)], rows), ""]


def _ratios(
    table: Mapping[Key, Cell], shown: Sequence[str], kinds: Sequence[tuple[str, int]], ours: str
) -> list[list[str]]:
    rows = []
    for name in [name for name in shown if name not in OWN]:
        values = [ratio(table, name, *kind, ours) for kind in kinds]
        rows.append([TITLES[name], *("" if value is None else _times(value) for value in values)])
    return rows


def _kept(results: Results, shown: Sequence[str]) -> list[list[str]]:
    rows = []
    for name in shown:
        system = results["systems"][name]
        rows.append([TITLES[name], system["speaks"], f"{system['names']:,}", system["keeps"], seen(system)])
    return rows


def seen(system: Mapping[str, Any]) -> str:
    """What strace saw of a system, in a few words."""
    proof = system["durability"]
    if proof is None:
        return "–"
    if "not_measured" in proof:
        return f"not measured: {' '.join(proof['not_measured'].split())}"
    single = proof["single_connection"]
    ordered, flushes = single["answers_after_write_and_flush"], single["flushes"]
    verdict = "write, sync, then reply" if proof["each_answer_had_its_flush"] else "NOT DURABLE"
    return f"{verdict}: {ordered} of {single['answers']} replies; {flushes} syncs"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _cell_title(kind: tuple[str, int]) -> str:
    words = {"uniform": "{} connections", "hot": "one hot name, {}", "read": "read-only, {}"}[kind[0]]
    return (words.removesuffix("s") if kind == ("uniform", 1) else words).format(kind[1])


def _times(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def plot(results: Results, path: Path) -> None:
    """The rates as dots on a log axis, one line for each system. Raises ImportError without matplotlib."""
    from actord.loadtest import plots

    table = table_of(results)
    durable = [name for name in TITLES if name in results["systems"]]
    durable.sort(key=lambda name: table[name, *CPU_CELL].rate if (name, *CPU_CELL) in table else 0)
    series = {
        _cell_title(kind): [cell.rate if (cell := table.get((name, *kind))) else None for name in durable]
        for kind in dict.fromkeys((spread, connections) for _, spread, connections in table)
        if kind[0] != "read"
    }
    labels = [TITLES[name] + ("" if "no HTTP" not in results["systems"][name]["speaks"] else " *") for name in durable]
    note = "* its own protocol, no HTTP" if any(label.endswith("*") for label in labels) else ""
    plots.dots(path, labels, series, "durable debits a second", strong=TITLES["actord"], note=note)
