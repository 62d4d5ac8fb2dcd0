"""What a client gains that calls workers without a front: calls a second and CPU, both ways in turn on one server.

``python -m actord.loadtest.bench_direct`` (or ``make bench-direct``). Durable calls from 64 callers over 10,000 names:
``wrk`` through the front beside a client of the workers that costs as little; and the Python client through the front
beside the same directly, in one process and in two. At the end all calls are counted. Needs wrk. Exit status: 0; 1 when
calls are missing or failed; 69 when the server did not come up; 78 when the data would be kept in memory.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from actord.loadtest import frames, machine, systems
from actord.loadtest.audit import NAMES, Ledger
from actord.loadtest.bench_keys import PATH, PROGRAM
from actord.loadtest.bench_sql import answers
from actord.loadtest.measure import MeasureError, WrkResult, run_wrk
from actord.loadtest.roles import RoleSample, children_cpu, measured, medians, run_clients
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE, SETTLE_SECONDS, leave
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

Run = Callable[[], tuple[WrkResult, float]]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(width=200, highlight=False)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        signal.signal(signal.SIGTERM, leave)
        try:
            port, pid = start(options, directory, stack, workers=options.workers)
            ledger = Ledger()
            frames.each(port, NAMES, "insert", frames.BODY)  # every instance is in memory before the clock starts
            ledger.answered += NAMES
            samples = rounds(options, port, pid, ledger, console)
            found = frames.each(port, NAMES, "count")
        except (systems.SystemFailed, MeasureError, OSError) as error:
            console.print(f"bench_direct: {error}", markup=False)
            return EX_UNAVAILABLE
    print_table(samples, console)
    sound = ledger.answered <= found <= ledger.answered + ledger.uncertain
    console.print(f"calls: {ledger.answered:,} answered, {found:,} found{'' if sound else ': WRONG'}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine.facts(options.dir), "samples": [sample.to_json() for sample in samples]}
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if sound and not any(sum(sample.result.errors.values()) for sample in samples) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_direct", description="Calls through the front and without it.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of one run (5)")
    parser.add_argument("--connections", type=int, default=64, help="calls at a time (64)")
    parser.add_argument("--workers", type=int, default=1, help="of the server (1)")
    parser.add_argument("--quick", action="store_true", help="one round, runs of 1 second: a check, not a measurement")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the data is kept (/var/tmp)")
    parser.add_argument("--out", type=Path, help="JSON file (bench-results/direct-TIME.json)")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 1
    options.out = options.out or Path("bench-results", f"direct-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    return options


def start(
    options: argparse.Namespace, directory: Path, stack: ExitStack, *, workers: int, fronts: int = 1
) -> tuple[int, int]:
    """A server that allows direct calls: its port, and the pid of its supervisor."""
    folder, port = directory / f"{workers}-{fronts}", systems.free_port()
    folder.mkdir()
    program, log = folder / "entries.py", folder / "actord.log"
    program.write_text(PROGRAM)
    command = [*shlex.split(options.actord), "serve", str(program), "--port", str(port), "--workers", str(workers)]
    command += ["--data-dir", str(folder / "data")]
    pid = stack.enter_context(
        systems.process(command, log, ACTORD_SERVER_DIRECT="true", ACTORD_SERVER_FRONTS=str(fronts))
    )
    systems.wait_until(lambda: answers(port), pid, log, "actord")
    return port, pid


def wrk(port: int, connections: int, seconds: int) -> Run:
    def run() -> tuple[WrkResult, float]:
        before = children_cpu()
        return run_wrk(port, connections=connections, names=NAMES, seconds=seconds, path=PATH), children_cpu() - before

    return run


def bare(port: int, connections: int, seconds: int) -> Run:
    command = ["-m", "actord.loadtest.frames", str(port), str(connections), str(seconds), str(NAMES)]
    return lambda: run_clients([command], seconds)


def clients(port: int, connections: int, seconds: int, way: str, count: int) -> Run:
    words = [f"http://127.0.0.1:{port}", str(connections // count), str(seconds), str(NAMES), way]
    return lambda: run_clients([["-m", "actord.loadtest.client_users", *words]] * count, seconds)


def rounds(options: argparse.Namespace, port: int, pid: int, ledger: Ledger, console: Console) -> list[RoleSample]:
    at = (port, options.connections, options.seconds)
    kinds: dict[str, Run] = {"wrk, through the front": wrk(*at), "bare frames, directly": bare(*at)}
    for count in (1, 2):
        many = "1 process" if count == 1 else f"{count} processes"
        kinds[f"AsyncClient, through the front, {many}"] = clients(*at, "front", count)
        kinds[f"AsyncClient, directly, {many}"] = clients(*at, "direct", count)
    samples = []
    order = list(kinds)
    for number in range(options.rounds):
        for index in range(len(order)):
            kind = order[(index + number) % len(order)]
            time.sleep(SETTLE_SECONDS)
            sample = measured(kind, [pid], kinds[kind], connections=options.connections, round=number)
            ledger.add(sample.result, options.connections)
            samples.append(sample)
            console.print(f"round {number + 1}: {kind}: {sample.rate:,.0f} calls/s", markup=False)
    return samples


def print_table(samples: Sequence[RoleSample], console: Console) -> None:
    columns = ("client", "calls/s", "p50 / p99 ms", "front µs", "worker µs", "server µs", "client µs", "client's cores")
    grid = Table(*columns, box=MARKDOWN)
    for kind in dict.fromkeys(sample.system for sample in samples):
        own = [sample for sample in samples if sample.system == kind]
        grid.add_row(
            kind,
            f"{medians(own, lambda s: s.rate):,.0f}",
            f"{medians(own, lambda s: s.result.p50_ms):.1f} / {medians(own, lambda s: s.result.p99_ms):.1f}",
            f"{medians(own, lambda s: s.us('front')):.1f}",
            f"{medians(own, lambda s: s.us('worker')):.1f}",
            f"{medians(own, lambda s: s.server_us):.1f}",
            f"{medians(own, lambda s: s.us('client')):.1f}",
            f"{medians(own, lambda s: s.busy('client')):.2f}",
        )
    console.print(grid)
    console.print("Where the client's cores come near the number of its processes, the client is the bottleneck.")


if __name__ == "__main__":
    sys.exit(main())
