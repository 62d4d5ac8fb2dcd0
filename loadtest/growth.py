"""What a call costs while names, values, keys, the database and its log grow: tables, plots, and every bend named.

``python -m actord.loadtest.growth`` (or ``make bench-growth``): eight minutes at most, of which two fill a database of
10 GiB; half as much again has to be free on the disk, else that curve ends sooner. ``--from FILE`` writes tables and
plots of a run anew. Needs wrk. Exit status: 0; 1 when (with ``--strict``) a curve bends upwards where its work does
not; 69 when actord did not come up or a call failed; 78 when the data would be kept in memory.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from actord.loadtest import growth_report, growth_runs, growth_server, machine, systems
from actord.loadtest.growth_server import Point
from actord.loadtest.measure import MeasureError
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE, leave
from rich.console import Console

PUBLISHED = Path("docs/performance/growth.md")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if options.stored:
        write(json.loads(options.stored.read_text()), options.stored, options.publish, console)
        return 0
    pace = growth_runs.QUICK if options.quick else growth_runs.FULL
    if options.minutes:
        pace = replace(pace, minutes=options.minutes)
    points: list[Point] = []
    cut: list[str] = []

    def say(point: Point) -> None:
        points.append(point)
        console.print(
            f"{point.curve:11} {point.x:14,.0f} {point.cpu_us:9,.1f} µs CPU/call  p50 {point.p50_ms:7.2f} ms  "
            f"p99 {point.p99_ms:7.2f} ms  {point.written:10,.0f} bytes written/call"
        )

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        if machine.file_system(folder) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        signal.signal(signal.SIGTERM, leave)  # so that the stack ends the servers
        facts, started = machine.facts(folder), datetime.now(UTC).isoformat(timespec="seconds")
        try:
            for name in options.only:
                if not growth_runs.carry_out(name, folder, options.actord, pace, say):
                    cut.append(name)
                    console.print(f"TIME IS UP: {name} ends here")
        except (systems.SystemFailed, MeasureError, OSError) as error:
            console.print(f"growth: {error}", markup=False)
            return EX_UNAVAILABLE
    results = {
        "started": started,
        "machine": facts,
        "rounds": pace.rounds,
        "seconds": pace.seconds,
        "connections": growth_server.CONNECTIONS,
        "value_connections": growth_runs.VALUE_CONNECTIONS,
        "cut": cut,
        "points": [point.to_json() for point in points],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    console.print(f"written: {options.out}", markup=False)
    write(results, options.out, options.publish, console)
    return 1 if options.strict and growth_report.bends(points) else 0


def write(results: Mapping[str, Any], stored: Path, publish: bool, console: Console) -> None:
    """Print the page; write it and its plots beside the results, or into the documentation."""
    text = growth_report.markdown(results)
    print(text)
    page = PUBLISHED if publish else stored.with_suffix(".md")
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text.replace("(growth-", f"({page.stem}-"))
    console.print(f"written: {page}", markup=False)
    try:
        written = growth_report.plot([Point(**point) for point in results["points"]], page.with_suffix(""))
    except ImportError:
        console.print("no plots: matplotlib is not installed (the extra `bench` has it)", markup=False)
    else:
        console.print(f"written: {', '.join(map(str, written))}", markup=False)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="growth", description="What a call costs while things grow.")
    known = list(growth_runs.RUNS)
    parser.add_argument("--only", nargs="+", choices=known, default=known, help="some of the runs")
    parser.add_argument("--quick", action="store_true", help="few points, small: a check, not a measurement")
    parser.add_argument("--minutes", type=float, help="the longest that all runs may take (8): the rest is left out")
    parser.add_argument("--out", type=Path, help="JSON file (bench-results/growth-TIME.json)")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the data is kept (/var/tmp)")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    parser.add_argument("--strict", action="store_true", help="exit status 1 when a curve bends upwards")
    parser.add_argument("--publish", action="store_true", help=f"write {PUBLISHED} and its plots")
    parser.add_argument("--from", dest="stored", type=Path, metavar="FILE", help="no run: the results of this one")
    options = parser.parse_args(arguments)
    options.out = options.out or Path("bench-results", f"growth-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    options.actord = shlex.split(options.actord)
    return options


if __name__ == "__main__":
    sys.exit(main())
