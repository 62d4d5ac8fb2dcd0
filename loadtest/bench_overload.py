"""What a server does when more comes than it can carry: an open loop at 50 to 200 % of its capacity.

``python -m actord.loadtest.bench_overload`` (or ``make bench-overload``). The server has all cores but the last, and
the generator the last: what the one uses is not taken from the other. The capacity is what wrk gets in a closed loop.
Then, in each round, every share of it is offered by a Poisson process (loadtest/openloop.py), whose latencies count
from the instant at which a call was due; and one hot name is offered twice what it can take, beside a few calls to
others. At the end all counts are compared with all answers. Needs wrk and two cores.
Exit status: 0; 1 when a call is missing or failed, or (with ``--strict``) a figure was missed; 69 when something did
not come up; 78 when the data would be kept in memory.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from actord.loadtest import machine, overload_report, systems
from actord.loadtest.measure import MeasureError, WrkResult, run_wrk
from actord.loadtest.openloop import Outcome, Plan, Stream, from_json, merge
from actord.loadtest.overload_report import Offered
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE, leave
from rich.console import Console

SHARES = (50, 80, 100, 150, 200)
NAMES = 10_000
# Beside the hot name: so many calls a second go to others, as a share of the capacity.
OTHERS = 0.1
MOST_CONNECTIONS = 8_000
# A run of wrk for the capacity; enough to keep the server busy, few enough to wait for nothing.
CLOSED_CONNECTIONS = 256
METHODS = {"work": "a durable call that computes for about 0.2 ms", "debit": "the cheapest durable call"}
PROGRAM = """
from actord import StatefulActor


class Account(StatefulActor):
    async def debit(self, amount: int) -> int:
        count = await self.ctx.storage.get("count", 0) + amount
        await self.ctx.storage.put("count", count)
        return count

    async def work(self, amount: int) -> int:
        sum(number * number for number in range(4_000))
        return await self.debit(amount)

    async def total(self) -> int:
        return await self.ctx.storage.get("count", 0)
"""


@dataclass(slots=True)
class Book:
    """Calls that were answered on all names, and those of which nobody knows."""

    answered: int = 0
    uncertain: int = 0

    def add(self, outcome: Outcome) -> None:
        for seen in outcome.streams.values():
            self.answered += seen.applied
            self.uncertain += seen.uncertain

    def add_wrk(self, result: WrkResult, connections: int) -> None:
        self.answered += result.answered
        self.uncertain += connections + sum(result.errors.values())


class Bench:
    """One server, its cores, and what was asked of it."""

    def __init__(self, options: argparse.Namespace, port: int, cores: list[int], console: Console) -> None:
        self.book = Book()
        self._options = options
        self._port = port
        self._cores = cores  # the generator's
        self._console = console
        self._seed = 0

    def capacity(self, path: str, names: int) -> float:
        """Calls a second in a closed loop."""
        with on_cores(self._cores):
            result = run_wrk(
                self._port, connections=CLOSED_CONNECTIONS, names=names, seconds=self._options.seconds, path=path
            )
        self.book.add_wrk(result, CLOSED_CONNECTIONS)
        return result.answered / result.seconds

    def offer(self, streams: Sequence[Stream]) -> Outcome:
        """Make the calls of an open loop."""
        self._seed += 1
        outcome = generate(self._port, streams, self._cores, self._options.seconds + 1, self._seed)
        self.book.add(outcome)
        time.sleep(0.5)
        return outcome

    def audit(self) -> int:
        """How many calls the actors hold."""
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            return sum(_total(connection, name) for name in ("hot1", *(f"a{number}" for number in range(1, NAMES + 1))))


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) <= options.client_cores:
        console.print(
            f"{len(cores)} cores are too few: {options.client_cores} for the generator, and one for the server"
        )
        return EX_UNAVAILABLE
    server, client = cores[: -options.client_cores], cores[-options.client_cores :]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        signal.signal(signal.SIGTERM, leave)
        try:
            ceiling = generator_ceiling(directory, server, client)
            console.print(f"{len(server)} cores for the server; the generator makes {ceiling:,.0f} calls/s at most")
            port = stack.enter_context(started(options, directory, server))
            bench = Bench(options, port, client, console)
            results = {method: measure(bench, options, method, ceiling, console) for method in options.methods}
            found = bench.audit()
        except (systems.SystemFailed, MeasureError, OSError, subprocess.SubprocessError) as error:
            console.print(f"bench_overload: {error}", markup=False)
            return EX_UNAVAILABLE
    book = bench.book
    sound = book.answered <= found <= book.answered + book.uncertain
    report = Console(width=160, highlight=False)
    missed = overload_report.show(report, results)
    report.print(
        f"audit: {found:,} calls are there, {book.answered:,} were answered, {book.uncertain:,} are uncertain"
        + ("" if sound else ": CALLS ARE MISSING OR TOO MANY")
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    facts = machine.facts(Path(options.dir)) | {"server_cores": server, "client_cores": client, "ceiling": ceiling}
    content = {"machine": facts, "methods": {name: asdict(result) for name, result in results.items()}}
    options.out.write_text(json.dumps(content, indent=1) + "\n")
    overload_report.plot(results, options.plot or options.out.with_suffix(".svg"))
    console.print(f"written: {options.out} and its plot", markup=False)
    failed = any(result.faults for result in results.values())
    return 0 if sound and not failed and not (missed and options.strict) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench_overload", description="Goodput, refusals and latency under overload.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=5, help="length of one run; another second warms up (5)")
    parser.add_argument("--methods", type=_methods, default="work", help=f"of {','.join(METHODS)} (work)")
    parser.add_argument("--client-cores", type=int, default=1, help="the last ones are the generator's (1)")
    parser.add_argument("--strict", action="store_true", help="exit status 1 also when a figure is missed")
    parser.add_argument("--quick", action="store_true", help="one round of 2 seconds each: a check, not a measurement")
    parser.add_argument("--out", type=Path, help="JSON file (bench-results/overload-TIME.json)")
    parser.add_argument("--plot", type=Path, help="SVG file (beside the JSON file)")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the data is kept (/var/tmp)")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds = 1, 2
    if min(options.rounds, options.seconds, options.client_cores) < 1:
        parser.error("rounds, seconds and client cores are at least 1")
    options.out = options.out or Path("bench-results", f"overload-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json")
    return options


def measure(
    bench: Bench, options: argparse.Namespace, method: str, ceiling: float, console: Console
) -> overload_report.Result:
    """All shares of one method's capacity, and its hot name, in rounds."""
    path, hot_path = f"/actors/Account/a%d/{method}", f"/actors/Account/hot%d/{method}"
    bench.capacity(path, NAMES)  # loads code, touches names
    result = overload_report.Result(METHODS[method], bench.capacity(path, NAMES), bench.capacity(hot_path, 1))
    console.print(f"{method}: {result.capacity:,.0f} calls/s in a closed loop, {result.hot_capacity:,.0f} on one name")
    if 2 * max(result.capacity, result.hot_capacity) > 0.9 * ceiling:
        console.print("the generator can't make twice as many: what is called 200 % is less", style="bold")
    for number in range(options.rounds):
        for share in SHARES:
            rate = result.capacity * share / 100
            outcome = bench.offer([Stream("all", rate, path, NAMES)])
            result.offered.append(Offered.of(share, outcome, "all"))
            console.print(f"round {number + 1}/{options.rounds} {method} {result.offered[-1].words()}")
        others = Stream("others", result.capacity * OTHERS, path, NAMES)
        hot = Stream("hot", result.hot_capacity * 2, hot_path)
        result.alone.append(Offered.of(0, bench.offer([others]), "others"))
        outcome = bench.offer([others, hot])
        result.beside.append(Offered.of(0, outcome, "others"))
        result.hot.append(Offered.of(200, outcome, "hot"))
        console.print(f"  others alone {result.alone[-1].words()}")
        console.print(f"  beside a hot name {result.beside[-1].words()}")
        console.print(f"  the hot name {result.hot[-1].words()}")
    return result


def generate(port: int, streams: Sequence[Stream], cores: Sequence[int], seconds: float, seed: int) -> Outcome:
    """Run one generator on each of the cores, each with its part of the rate. Raises SubprocessError."""
    parts = len(cores)
    rate = sum(stream.rate for stream in streams)
    connections = min(MOST_CONNECTIONS, 200 + int(rate / 2)) // parts
    running = []
    for number, core in enumerate(cores):
        part = [Stream(s.label, s.rate / parts, s.path, s.names, s.body) for s in streams]
        plan = Plan(port, seconds, part, connections, seed=seed * 100 + number)
        with on_cores([core]):
            child = subprocess.Popen(
                [sys.executable, "-m", "actord.loadtest.openloop"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert child.stdin is not None
        child.stdin.write(json.dumps(asdict(plan)))
        child.stdin.close()
        running.append(child)
    outcomes = []
    for child in running:
        assert child.stdout is not None
        text = child.stdout.read()
        if child.wait():
            raise subprocess.SubprocessError(f"a generator ended with {child.returncode}")
        outcomes.append(from_json(text))
    return merge(outcomes)


def generator_ceiling(directory: Path, server: Sequence[int], client: Sequence[int]) -> float:
    """Calls a second that the generator makes against the hello server, which may be what limits it."""
    with on_cores(server), systems.hello(directory) as system:
        stream = Stream("hello", 150_000 * len(client), "/actors/Account/a%d/debit", NAMES)
        outcome = generate(system.port, [stream], client, 2.0, 0)
    return outcome.sent / outcome.took


@contextmanager
def started(options: argparse.Namespace, directory: Path, cores: Sequence[int]) -> Iterator[int]:
    """actord on those cores; hands out its port."""
    program, port, log = directory / "overload.py", systems.free_port(), directory / "actord.log"
    program.write_text(PROGRAM)
    command = [*shlex.split(options.actord), "serve", str(program), "--port", str(port)]
    command += ["--data-dir", str(directory / "data")]
    with on_cores(cores):
        process = systems.process(command, log, ACTORD_HTTP_CONNECTIONS=str(2 * MOST_CONNECTIONS))
        pid = process.__enter__()
    try:
        systems.wait_until(lambda: _answers(port), pid, log, "actord")
        yield port
    finally:
        process.__exit__(None, None, None)


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """What is started here runs on these cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _answers(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            return _total(connection, "nobody") == 0
    except (OSError, ValueError, http.client.HTTPException):
        return False


def _total(connection: http.client.HTTPConnection, name: str) -> int:
    connection.request("POST", f"/actors/Account/{name}/total")
    return int(json.loads(connection.getresponse().read()))


def _methods(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known are {', '.join(METHODS)}")
    return names


if __name__ == "__main__":
    sys.exit(main())
