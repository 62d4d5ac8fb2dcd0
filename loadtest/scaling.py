"""How throughput grows with cores: CPU per call of front and worker, a model out of it, and the model's check.

``python -m actord.loadtest.scaling`` (or ``make bench-scaling``). Servers with 1 and 2 workers and 1 and 2 fronts run
durable calls of wrk in turn.

The model. A call costs ``f`` of a front, ``w`` of a worker and, where the client runs on the same machine, ``c``. A
process can use one core, so W workers give at most W / w calls a second, F fronts F / f, and C cores C / (f + w + c).
The least of the three is the bound; who sets it saturates first. A closed loop reaches a share of it (the *yield*:
it waits for the disk in between). Costs fall with the number of calls that share a read, a write or a commit, so those
of a process are taken at its own number of callers: with two workers at 64, what one worker needs at 32.

The model is fitted with one worker and one front alone (at all callers and at half of them) and then predicts the other
three cells, whose measurement stands beside it. Exit status: 0; 1 when calls are missing or failed, or (with
``--strict``) a prediction is off by more than 20 %; 69 and 78 as the other benchmarks.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from actord.loadtest import frames, machine, systems
from actord.loadtest.audit import NAMES, Ledger
from actord.loadtest.bench_direct import Run, bare, start, wrk
from actord.loadtest.measure import MeasureError
from actord.loadtest.roles import RoleSample, measured, medians
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE, SETTLE_SECONDS, leave
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

CELLS = [(1, 1), (2, 1), (1, 2), (2, 2)]  # workers, fronts
STRICT = 0.2
NEIGHBOURS = 0.2  # cores: beyond that the figures say little


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU microseconds of a call."""

    front: float
    worker: float
    client: float = 0.0
    kernel: float = 0.0  # its threads run the syncs

    def bounds(self, cores: float, workers: int, fronts: int) -> dict[str, float]:
        """Calls a second that each limit allows."""
        together = self.front + self.worker + self.client + self.kernel
        found = {"the workers": workers * 1e6 / self.worker, "all cores": cores * 1e6 / together}
        if self.front:
            found["the fronts"] = fronts * 1e6 / self.front
        return found

    def bound(self, cores: float, workers: int, fronts: int) -> tuple[str, float]:
        """Who saturates first, and at how many calls a second."""
        return min(self.bounds(cores, workers, fronts).items(), key=lambda item: item[1])


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
            samples, sound = run(options, directory, stack, console)
        except (systems.SystemFailed, MeasureError, OSError) as error:
            console.print(f"scaling: {error}", markup=False)
            return EX_UNAVAILABLE
    worst = report(samples, options, console)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine.facts(options.dir), "samples": [sample.to_json() for sample in samples]}
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    failed = any(sum(sample.result.errors.values()) for sample in samples)
    return 1 if failed or not sound or (options.strict and worst > STRICT) else 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scaling", description="CPU of a call by role, a model, and its check.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of one run (5)")
    parser.add_argument("--connections", type=int, default=64, help="an even number (64)")
    parser.add_argument("--quick", action="store_true", help="one round, runs of 1 second: a check, not a measurement")
    parser.add_argument("--strict", action="store_true", help="exit status 1 also when a prediction is far off")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the data is kept (/var/tmp)")
    parser.add_argument("--out", type=Path, help="JSON file (bench-results/scaling-TIME.json)")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    options = parser.parse_args(arguments)
    if options.connections < 2 or options.connections % 2:
        parser.error("--connections is an even number")
    if options.quick:
        options.rounds, options.seconds = 1, 1
    options.out = options.out or Path("bench-results", f"scaling-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    return options


def cell(workers: int, fronts: int) -> str:
    return f"{workers} worker{'s' * (workers > 1)}, {fronts} front{'s' * (fronts > 1)}"


HALF, DIRECT = "half", "direct"


def run(
    options: argparse.Namespace, directory: Path, stack: ExitStack, console: Console
) -> tuple[list[RoleSample], bool]:
    """All rounds, interleaved. Out: the samples, and whether every answered call was found."""
    full, half = options.connections, options.connections // 2
    roots: dict[str, int] = {}
    runs: dict[str, tuple[int, str, Run]] = {}  # connections, the server's cell, what to run
    ledgers: dict[str, tuple[int, Ledger]] = {}
    for workers, fronts in CELLS:
        name = cell(workers, fronts)
        port, roots[name] = start(options, directory, stack, workers=workers, fronts=fronts)
        ledger = Ledger()
        frames.each(port, NAMES, "insert", frames.BODY)
        ledger.answered += NAMES
        ledgers[name] = port, ledger
        runs[name] = full, name, wrk(port, full, options.seconds)
        if (workers, fronts) == (1, 1):
            runs[HALF] = half, name, wrk(port, half, options.seconds)
            runs[DIRECT] = full, name, bare(port, full, options.seconds)
    samples = []
    order = list(runs)
    for number in range(options.rounds):
        for index in range(len(order)):
            kind = order[(index + number) % len(order)]
            connections, name, one = runs[kind]
            time.sleep(SETTLE_SECONDS)
            sample = measured(kind, [roots[name]], one, connections=connections, round=number)
            ledgers[name][1].add(sample.result, connections)
            samples.append(sample)
            console.print(f"round {number + 1}: {kind}, {connections} at a time: {sample.rate:,.0f} calls/s")
    sound = True
    for name, (port, ledger) in ledgers.items():
        found = frames.each(port, NAMES, "count")
        if not ledger.answered <= found <= ledger.answered + ledger.uncertain:
            console.print(f"{name}: {ledger.answered:,} answered, {found:,} found: WRONG")
            sound = False
    return samples, sound


def of(samples: Sequence[RoleSample], kind: str) -> list[RoleSample]:
    return [sample for sample in samples if sample.system == kind]


def costs(samples: Sequence[RoleSample]) -> Costs:
    """Medians of what a call cost."""
    return Costs(
        medians(samples, lambda sample: sample.us("front")),
        medians(samples, lambda sample: sample.us("worker")),
        medians(samples, lambda sample: sample.us("client")),
        medians(samples, lambda sample: sample.us("kernel")),
    )


def predicted(full: Costs, half: Costs, workers: int, fronts: int) -> Costs:
    """What a call costs in a cell: of each process at its own number of callers."""
    return Costs((half if fronts > 1 else full).front, (half if workers > 1 else full).worker, full.client, full.kernel)


def report(samples: Sequence[RoleSample], options: argparse.Namespace, console: Console) -> float:
    """Print what was measured and predicted; out: the largest error of a prediction."""
    cores = len(os.sched_getaffinity(0))
    base = of(samples, cell(1, 1))
    full, half = costs(base), costs(of(samples, HALF))
    share = rate(base) / full.bound(free(base, cores), 1, 1)[1]
    columns = ("front µs", "worker µs", "wrk µs", "kernel µs", "calls/s", "predicted", "error", "bound by")
    grid = Table("server", *columns, "cores of neighbours", box=MARKDOWN)
    worst = 0.0
    for workers, fronts in CELLS:
        own = of(samples, cell(workers, fronts))
        who, bound = predicted(full, half, workers, fronts).bound(free(own, cores), workers, fronts)
        error = bound * share / rate(own) - 1
        if (workers, fronts) == (1, 1):
            add_row(grid, own, cell(workers, fronts), "fitted", "", who)
            continue
        worst = max(worst, abs(error))
        add_row(grid, own, cell(workers, fronts), f"{bound * share:,.0f}", f"{error:+.0%}", who)
    add_row(grid, of(samples, HALF), f"{cell(1, 1)}, {options.connections // 2} at a time")
    add_row(grid, of(samples, DIRECT), f"{cell(1, 1)}, direct calls")
    console.print(grid)
    console.print(f"{cores} cores, {options.connections} callers, yield {share:.2f}")
    if any(sample.busy("neighbours") > NEIGHBOURS for sample in samples):
        console.print("Something else used the machine meanwhile: the figures say little.")
    print_model(full, costs(of(samples, DIRECT)), console)
    return worst


def rate(samples: Sequence[RoleSample]) -> float:
    return medians(samples, lambda sample: sample.rate)


def free(samples: Sequence[RoleSample], cores: int) -> float:
    """The cores that neighbours left."""
    return cores - medians(samples, lambda sample: sample.busy("neighbours"))


def add_row(grid: Table, samples: Sequence[RoleSample], name: str, *words: str) -> None:
    found = costs(samples)
    shown = [f"{each:.1f}" for each in (found.front, found.worker, found.client, found.kernel)]
    words = (*words, "", "", "")[:3]
    neighbours = medians(samples, lambda sample: sample.busy("neighbours"))
    grid.add_row(name, *shown, f"{rate(samples):,.0f}", *words, f"{neighbours:.2f}")


def print_model(through: Costs, direct: Costs, console: Console) -> None:
    """Bounds of machines with more cores, the client elsewhere (through the front) or not counted (direct)."""
    console.print(
        f"\nmodel: calls/s <= min(workers / {through.worker:.1f} µs, fronts / {through.front:.1f} µs, "
        f"cores / {through.front + through.worker + through.kernel:.1f} µs), the client on another machine"
    )
    columns = ("cores", "workers", "fronts", "calls/s at most", "saturates first", "direct, calls/s at most")
    grid = Table(*columns, box=MARKDOWN)
    for cores in (2, 4, 8, 16, 32):
        workers, fronts = best(through, cores)
        bare = Costs(through.front, through.worker, 0.0, through.kernel)
        who, bound = bare.bound(cores, workers, fronts)
        alone = Costs(0.0, direct.worker, 0.0, direct.kernel).bound(cores, cores, 0)[1]
        grid.add_row(str(cores), str(workers), str(fronts), f"{bound:,.0f}", who, f"{alone:,.0f}")
    console.print(grid)
    console.print(
        f"One front is the wall from {int(through.worker / through.front) + 1} workers on; "
        f"a front for every {through.worker / through.front:.1f} workers keeps it away."
    )


def best(through: Costs, cores: int) -> tuple[int, int]:
    """Workers and fronts that carry the most: a worker for each core, and fronts enough for what they get done."""
    calls = cores * 1e6 / (through.front + through.worker + through.kernel)
    return cores, max(1, math.ceil(calls * through.front / 1e6))


if __name__ == "__main__":
    sys.exit(main())
