"""The clients of stores that speak no HTTP: redis-benchmark and pgbench, giving what wrk gives.

Promises:
1. ``requests`` and ``seconds`` are those that the client states; a client that reports any failed call or refuses to
   run raises MeasureError, so that what is returned has no errors.
2. One thread, as wrk has; every connection sends its next call when the one before it was answered.
"""

from __future__ import annotations

import csv
import re
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory

from actord.loadtest.audit import NAMES
from actord.loadtest.measure import ERROR_KINDS, MeasureError, WrkResult

NO_ERRORS = dict.fromkeys(ERROR_KINDS, 0)
# Until a cell's rate is known it is taken for this many calls a second.
FIRST_RATE = 3_000
LONGEST_SECONDS = 600
FEW_CALLS = 200


class Counted(ABC):
    """A client that runs a number of calls. Remembers each cell's rate, so that it can run for about a given time."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, int], float] = {}

    def __call__(self, spread: str, connections: int, seconds: int) -> WrkResult:
        rate = self._rates.get((spread, connections), FIRST_RATE)
        found = self.run(spread, connections, max(FEW_CALLS, connections, round(rate * seconds)))
        self._rates[spread, connections] = found.requests / found.seconds
        return found

    @abstractmethod
    def run(self, spread: str, connections: int, calls: int) -> WrkResult:
        """So many debits."""


class RedisBenchmark(Counted):
    """``redis-benchmark`` with one Lua script by its digest."""

    def __init__(self, port: int, digest: str) -> None:
        super().__init__()
        self._port = port
        self._digest = digest

    def run(self, spread: str, connections: int, calls: int) -> WrkResult:
        # redis-benchmark writes a random number with twelve digits for `__rand_int__`.
        name = "acct-000000000001" if spread == "hot" else "acct-__rand_int__"
        command = ["redis-benchmark", "-p", str(self._port), "-e", "--csv", "-n", str(calls), "-c", str(connections)]
        command += ["-r", str(NAMES), "EVALSHA", self._digest, "1", name, "1"]
        return parse_redis(_run(command, LONGEST_SECONDS), calls)


def parse_redis(output: str, calls: int) -> WrkResult:
    """The figures in the CSV of redis-benchmark 7, which has no p90. Raises MeasureError when they are missing."""
    rows = list(csv.reader(output.splitlines()))
    head = next((index for index, row in enumerate(rows) if row and row[0] == "test"), None)
    if head is None or head + 1 >= len(rows) or "Error from server" in output:
        raise MeasureError(f"no figures of redis-benchmark: {output.strip()[-500:] or 'nothing'}")
    try:
        figures = dict(zip(rows[head], rows[head + 1], strict=True))
        rate = float(figures["rps"])
        p50, p99, most = (float(figures[f"{name}_latency_ms"]) for name in ("p50", "p99", "max"))
        return WrkResult(calls, calls / rate, dict(NO_ERRORS), p50, None, p99, most)
    except (ValueError, KeyError, ZeroDivisionError) as error:
        raise MeasureError(f"damaged figures of redis-benchmark: {output.strip()[-500:]}") from error


class Pgbench(Counted):
    """``pgbench`` with a prepared statement, over TCP. The time that it takes to connect is not in its rate."""

    def __init__(self, program: Path, port: int, statement: Path) -> None:
        super().__init__()
        self._program = program
        self._port = port
        self._statement = statement.read_text()

    def run(self, spread: str, connections: int, calls: int) -> WrkResult:
        number = "1" if spread == "hot" else f"random(1, {NAMES})"
        with TemporaryDirectory(prefix="actord-pgbench-") as folder:
            script, log = Path(folder, "script"), Path(folder, "log")
            script.write_text(f"\\set number {number}\n{self._statement}")
            command = [str(self._program), "-h", "127.0.0.1", "-p", str(self._port), "-U", "postgres", "-n"]
            command += ["-M", "prepared", "-f", str(script), "-c", str(connections), "-j", "1"]
            command += ["-t", str(calls // connections), "-l", f"--log-prefix={log}", "postgres"]
            output = _run(command, LONGEST_SECONDS)
            # One line a call: client, its call, microseconds, ...
            took = [int(line.split()[2]) / 1e3 for file in Path(folder).glob("log.*") for line in file.open()]
        return parse_pgbench(output, took)


def parse_pgbench(output: str, took_ms: Sequence[float]) -> WrkResult:
    """The figures in pgbench's words and log. Raises MeasureError when they are missing, or a call failed."""
    calls = re.search(r"number of transactions actually processed: (\d+)", output)
    failed = re.search(r"number of failed transactions: (\d+)", output)
    rate = re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)
    if not calls or not rate or len(took_ms) < 2 or not float(rate[1]) or (failed and int(failed[1])):
        raise MeasureError(f"no figures of pgbench, or calls that failed: {output.strip()[-500:] or 'nothing'}")
    number, cuts = int(calls[1]), quantiles(took_ms, n=100)
    return WrkResult(number, number / float(rate[1]), dict(NO_ERRORS), cuts[49], cuts[89], cuts[98], max(took_ms))


def _run(command: Sequence[str], seconds: int) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeasureError(f"{command[0]} did not run: {error}") from error
    if done.returncode:
        raise MeasureError(f"{command[0]} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
