"""How `actord top` looks, on a terminal and as plain text."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from actord.server.commands.running import actor
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

Found = dict[str, Any]

_PLAIN_WIDTH = 100


class Screen:
    """The whole terminal, given back at the end."""

    def __init__(self) -> None:
        self._live = Live(screen=True, auto_refresh=False)

    def show(self, found: Found | None, words: str) -> None:
        what = Text(words, style="yellow") if found is None else render(found)
        self._live.update(what, refresh=True)

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)


def text(found: Found) -> str:
    """The same without colours, for a file or a pipe."""
    console = Console(width=_PLAIN_WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(render(found))
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def render(found: Found) -> RenderableType:
    return Group(_summary(found), _workers(found), _others(found), _methods(found), _hottest(found))


def _summary(found: Found) -> RenderableType:
    calls = found["calls"]
    rates = Text.assemble(
        (f"{_count(calls['per_second'])} calls/s", "bold"),
        f"  refused {_count(calls['refused_per_second'])}/s",
        (f"  failed {_count(calls['failed_per_second'])}/s", "red" if calls["failed_per_second"] else ""),
        f"  turned away {_count(calls['turned_away_per_second'])}/s",
        f"  slow {_count(calls['slow_per_second'])}/s",
    )
    table = _table("ms", "call", "queue", "run", "commit wait")
    for part in ("p50", "p99"):
        table.add_row(part, *(_ms(calls[f"{prefix}{part}_ms"]) for prefix in ("", "queue_", "run_", "commit_")))
    return Group(rates, table)


def _workers(found: Found) -> RenderableType:
    load = _table(
        "worker", "cpu", "memory", "calls/s", "queued", "awaiting", "mailbox", "instances", "lag p99", "restarts"
    )
    commits = _table("worker", "batches/s", "calls/batch", "fsync p50", "fsync p99", "log", "data")
    for one in found["processes"]:
        if "wal_bytes" not in one:
            continue
        style = None if one["up"] else "red"
        load.add_row(
            one["process"],
            *_load(one),
            _count(one["calls_per_second"]),
            _count(one["queued"]),
            _count(one["suspended"]),
            _count(one["mailbox"]),
            _count(one["instances"]),
            _ms(one["loop_lag_p99_ms"]),
            str(one["restarts"]),
            style=style,
        )
        commits.add_row(
            one["process"],
            _count(one["batches_per_second"]),
            "-" if one["calls_per_batch"] is None else f"{one['calls_per_batch']:.1f}",
            _ms(one["fsync_p50_ms"]),
            _ms(one["fsync_p99_ms"]),
            _bytes(one["wal_bytes"]),
            _bytes(one["database_bytes"]),
            style=style,
        )
    return Group(load, commits)


def _others(found: Found) -> RenderableType:
    table = _table(
        "process", "cpu", "memory", "connections", "sockets", "under way", "in/s", "out/s", "lag p99", "restarts"
    )
    for one in found["processes"]:
        if "wal_bytes" not in one:
            front = "connections" in one
            table.add_row(
                one["process"],
                *_load(one),
                *(
                    (
                        _count(one["connections"]),
                        _count(one["sockets"]),
                        _count(one["calls_under_way"]),
                        _bytes(one["received_bytes_per_second"]),
                        _bytes(one["sent_bytes_per_second"]),
                        _ms(one["loop_lag_p99_ms"]),
                        str(one["restarts"]),
                    )
                    if front
                    else ()
                ),
                style=None if one["up"] else "red",
            )
    return table


def _methods(found: Found) -> RenderableType:
    table = _table("method", "calls/s", "failed/s", "run p50", "run p99", "busy")
    for one in found["methods"]:
        table.add_row(
            f"{one['type']}.{one['method']}",
            _count(one["per_second"]),
            _count(one["failed_per_second"]),
            _ms(one["run_p50_ms"]),
            _ms(one["run_p99_ms"]),
            f"{one['busy']:.0%}",
        )
    return table


def _hottest(found: Found) -> RenderableType:
    table = _table("busiest actors", "calls/s", "busy")
    for one in found["hottest"]:
        if one["over"] > one["per_second"] / 2:  # it may well have inherited most of that from another one
            continue
        table.add_row(actor(one["type"], one["actor"]), _count(one["per_second"]), f"{one['busy']:.0%}")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold cyan")
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="right" if number else "left", no_wrap=True, overflow="ellipsis" if number == 0 else "fold"
        )
    return table


def _load(one: Found) -> tuple[str, str]:
    return (
        ("away", "-")
        if not one["up"] and not one["memory_bytes"]
        else (f"{one['cpu']:.0%}", _bytes(one["memory_bytes"]))
    )


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _bytes(value: float) -> str:
    for unit in ("B", "K", "M", "G"):
        if value < 1000:
            return f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.1f}T"
