"""What a call from one actor to another costs: CPU of all processes, beside that of a call from a client.

``python -m actord.loadtest.bench_calls``. Each round runs, in turn, a durable debit called by the client; one that an
actor of the same worker makes for the client; and one that an actor of the other worker makes. What the inner call
costs is the difference to the direct one. Needs wrk. Exit status: 0; 1 when a call failed or a debit is missing; 69
when the server did not come up; 78 when the data would be kept in memory.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median

from actord.loadtest import machine, systems
from actord.loadtest.measure import MeasureError, Sample, measure, run_wrk
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE, leave
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

NAMES = 1_000
KINDS = {"a client": "Account", "an actor of its worker": "Near", "an actor of the other worker": "Far"}
PROGRAM = """
from actord import StatefulActor
from actord.shards.slots import shard_of_slot, slot_of


class Account(StatefulActor):
    async def debit(self, amount: int) -> int:
        total = await self.ctx.storage.get("n", 0) + amount
        await self.ctx.storage.put("n", total)
        return total

    async def total(self) -> int:
        return await self.ctx.storage.get("n", 0)


class Near(StatefulActor):
    same = True

    async def on_activate(self):
        mine = shard_of_slot(self.ctx.fence[0], 2)
        names = (f"{self.ctx.id}-{type(self).__name__}-{n}" for n in range(1000))
        name = next(n for n in names if (shard_of_slot(slot_of("Account", n), 2) == mine) is self.same)
        self.account = self.env.get(Account, name)

    async def debit(self, amount: int) -> int:
        return await self.account.debit(amount)

    async def total(self) -> int:
        return await self.account.total()


class Far(Near):
    same = False
"""


def answers(port: int) -> bool:
    try:
        return total(port, "Far", "nobody") == 0
    except (OSError, ValueError, http.client.HTTPException):
        return False


def total(port: int, type_: str, name: str) -> int:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("POST", f"/actors/{type_}/{name}/total")
        return int(json.loads(connection.getresponse().read()))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_calls", description="What a call from actor to actor costs.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="length of one run of wrk (4)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the data is kept (/var/tmp)")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    options = parser.parse_args(arguments)
    console = Console(width=200, highlight=False)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        signal.signal(signal.SIGTERM, leave)
        program, port, log = directory / "calls.py", systems.free_port(), directory / "actord.log"
        program.write_text(PROGRAM)
        command = [*shlex.split(options.actord), "serve", str(program), "--port", str(port), "--workers", "2"]
        command += ["--data-dir", str(directory / "data")]
        try:
            pid = stack.enter_context(systems.process(command, log))
            systems.wait_until(lambda: answers(port), pid, log, "actord")
            samples, sound = rounds(options, port, pid)
        except (systems.SystemFailed, MeasureError, OSError) as error:
            console.print(f"bench_calls: {error}", markup=False)
            return EX_UNAVAILABLE
    print_table(samples, console)
    console.print("every debit is there" if sound else "DEBITS ARE MISSING")
    return 0 if sound and not any(sum(sample.wrk.errors.values()) for sample in samples) else 1


def rounds(options: argparse.Namespace, port: int, pid: int) -> tuple[list[Sample], bool]:
    samples = []
    answered = dict.fromkeys(KINDS, 0)
    for kind, type_ in KINDS.items():
        path = f"/actors/{type_}/n%d/debit"
        warm = run_wrk(port, connections=options.connections, names=NAMES, seconds=2, path=path)
        answered[kind] += warm.answered
    for number in range(options.rounds):
        for kind, type_ in KINDS.items():
            sample = measure(
                kind,
                port,
                [pid],
                spread="uniform",
                connections=options.connections,
                names=NAMES,
                seconds=options.seconds,
                round=number,
                path=f"/actors/{type_}/n%d/debit",
            )
            answered[kind] += sample.wrk.answered
            samples.append(sample)
    sound = all(
        sum(total(port, type_, f"n{n}") for n in range(1, NAMES + 1)) >= answered[kind] for kind, type_ in KINDS.items()
    )
    return samples, sound


def print_table(samples: Sequence[Sample], console: Console) -> None:
    grid = Table("debit called by", "debits/s", "p50 ms", "CPU µs", "of that the inner call", "/ direct", box=MARKDOWN)
    cpu = {kind: median(sample.cpu_us for sample in samples if sample.system == kind) for kind in KINDS}
    direct = cpu["a client"]
    for kind in KINDS:
        own = [sample for sample in samples if sample.system == kind]
        inner = cpu[kind] - direct
        grid.add_row(
            kind,
            f"{median(sample.rate for sample in own):,.0f}",
            f"{median(sample.wrk.p50_ms for sample in own):.2f}",
            f"{cpu[kind]:.1f}",
            f"{inner:.1f}" if inner else "",
            f"{inner / direct:.2f}" if inner else "",
        )
    console.print(grid)


if __name__ == "__main__":
    sys.exit(main())
