"""What an idempotency key costs: durable deposits with a new key each beside the same without, on one server.

``python -m actord.loadtest.bench_keys`` (or ``make bench-keys``). Both kinds run in turn in every round; the figure is
the ratio of their CPU, of all the server's processes, for one answered call. At the end the deposits are counted: at
least those answered, at most those under way on top. Needs wrk. Exit status: 0; 1 when deposits are missing, a call
failed, or (with ``--strict``) the ratio is above 1.5; 69 when the server did not come up; 78 when the data would be
kept in memory.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from actord.loadtest import machine, systems
from actord.loadtest.audit import NAMES, Ledger
from actord.loadtest.bench_sql import answers, each_name
from actord.loadtest.measure import MeasureError, Sample, measure, run_wrk
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE, SETTLE_SECONDS, leave
from rich.console import Console

PATH = "/actors/Entries/acct-%d/insert"
KINDS = {"plain": False, "keyed": True}
WANTED = 1.5
PROGRAM = """
from actord import StatefulActor


class Entries(StatefulActor):
    async def insert(self, amount: int) -> int:
        count = await self.ctx.storage.get("count", 0) + amount
        await self.ctx.storage.put("count", count)
        return count

    async def count(self) -> int:
        return await self.ctx.storage.get("count", 0)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_keys", description="The CPU of a call with an idempotency key.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of one run of wrk (5)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the data is kept (/var/tmp)")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    parser.add_argument("--strict", action="store_true", help="exit status 1 also when the ratio is above 1.5")
    options = parser.parse_args(arguments)
    console = Console(width=200, highlight=False)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        signal.signal(signal.SIGTERM, leave)
        program, port = directory / "entries.py", systems.free_port()
        program.write_text(PROGRAM)
        command = [*shlex.split(options.actord), "serve", str(program), "--port", str(port)]
        log = directory / "actord.log"
        try:
            pid = stack.enter_context(systems.process([*command, "--data-dir", str(directory / "data")], log))
            systems.wait_until(lambda: answers(port), pid, log, "actord")
            ledger, samples = Ledger(), []
            each_name(port, "insert", '{"amount":1}')  # every instance is in memory before the clock starts
            ledger.answered += NAMES
            # ... and most of them know which keys they have, which is read once for an activation
            ledger.add(run_wrk(port, connections=64, names=NAMES, seconds=5, path=PATH, keys=True), 64)
            for number in range(options.rounds):
                for kind in list(KINDS) if number % 2 else reversed(KINDS):
                    time.sleep(SETTLE_SECONDS)
                    sample = run(kind, port, pid, options, number)
                    ledger.add(sample.wrk, options.connections)
                    samples.append(sample)
            found = each_name(port, "count", "")
        except (systems.SystemFailed, MeasureError, OSError) as error:
            console.print(f"bench_keys: {error}", markup=False)
            return EX_UNAVAILABLE
    ratio = report(samples, console)
    sound = ledger.answered <= found <= ledger.answered + ledger.uncertain
    console.print(f"deposits: {ledger.answered:,} answered, {found:,} found{'' if sound else ': WRONG'}")
    failed = any(sum(sample.wrk.errors.values()) for sample in samples)
    return 0 if sound and not failed and not (options.strict and ratio > WANTED) else 1


def run(kind: str, port: int, pid: int, options: argparse.Namespace, number: int) -> Sample:
    return measure(
        kind,
        port,
        [pid],
        spread="uniform",
        connections=options.connections,
        names=NAMES,
        seconds=options.seconds,
        round=number,
        path=PATH,
        keys=KINDS[kind],
    )


def report(samples: Sequence[Sample], console: Console) -> float:
    """Print the medians; the ratio of the CPU for a call."""
    cpu = {}
    for kind in KINDS:
        own = [sample for sample in samples if sample.system == kind]
        cpu[kind] = median(sample.cpu_us for sample in own)
        each = " ".join(f"{sample.cpu_us:.1f}" for sample in own)
        console.print(f"{kind}: {cpu[kind]:.1f} us of CPU a call ({each}); {median(s.rate for s in own):,.0f} calls/s")
    ratio = cpu["keyed"] / cpu["plain"]
    console.print(f"a call with a new key costs {ratio:.2f} times a plain one")
    return ratio


if __name__ == "__main__":
    sys.exit(main())
