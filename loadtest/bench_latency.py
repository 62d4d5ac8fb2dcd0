"""How long one durable call takes on an idle server, beside what the disk alone takes for it.

``python -m actord.loadtest.bench_latency`` (or ``make bench-latency``). Each round appends 4 KiB and fdatasyncs again
and again, then calls on one connection, and then calls a server that does nothing, each as soon as the one before has
returned. All are timed alike. wrk would not do: it corrects its percentiles for calls that it did not make during a
pause (coordinated omission), which nobody does for the disk. Exit status: 0; 1 when a call failed or (with
``--strict``) a ratio is above 1.6; 69 when a server did not come up; 78 when the data would be kept in memory.
"""

from __future__ import annotations

import argparse
import random
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles

from actord.loadtest import machine, systems
from actord.loadtest.audit import NAMES, AuditError
from actord.loadtest.durability import flush_rate
from actord.loadtest.measure import DEBIT_BODY, DEBIT_PATH
from actord.loadtest.openloop import Stream, requests_of
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE, SETTLE_SECONDS
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

WANTED = 1.6
DISK, CALL, HELLO = "append and fdatasync", "durable call, 1 connection", "hello world, 1 connection"

# (p50, p99) in milliseconds, a round each
Found = dict[str, list[tuple[float, float]]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_latency", description="One durable call beside one fdatasync.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3, help="length of one run (3)")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the data is kept (/var/tmp)")
    parser.add_argument("--app", default="examples/account.py", help="the program that actord serves")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    parser.add_argument("--strict", action="store_true", help=f"exit status 1 also when a ratio is above {WANTED}")
    options = parser.parse_args(arguments)
    console = Console(width=120, highlight=False)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        try:
            ours = stack.enter_context(systems.actord(directory, shlex.split(options.actord), options.app))
            hello = stack.enter_context(systems.hello(directory))
            assert ours.accounts is not None
            ours.accounts.open()
            found, failed = rounds(options, directory, ours, hello)
        except (systems.SystemFailed, AuditError, OSError) as error:
            console.print(f"bench_latency: {error}", markup=False)
            return EX_UNAVAILABLE
    ratios = report(found, console)
    return 1 if failed or (options.strict and max(ratios) > WANTED) else 0


def rounds(
    options: argparse.Namespace, directory: Path, ours: systems.System, hello: systems.System
) -> tuple[Found, int]:
    """Every round's figures, and how many calls failed."""
    found: Found = {DISK: [], CALL: [], HELLO: []}
    failed = 0
    for _ in range(options.rounds):
        disk = flush_rate(directory, options.seconds)
        found[DISK].append((disk["p50_ms"], disk["p99_ms"]))
        for name, system in ((CALL, ours), (HELLO, hello)):
            time.sleep(SETTLE_SECONDS)
            took, wrong = one_by_one(system.port, options.seconds)
            failed += wrong
            found[name].append((median(took), quantiles(took, n=100)[-1]))
    return found, failed


def one_by_one(port: int, seconds: float) -> tuple[list[float], int]:
    """Debit accounts by chance on one connection, for ``seconds``: what each call took in ms, and how many failed."""
    requests = requests_of(Stream("debit", 0.0, DEBIT_PATH, NAMES, DEBIT_BODY))
    took, failed = [], 0
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            sock.sendall(random.choice(requests))
            answer = _answer(sock)
            took.append((time.perf_counter() - start) * 1e3)
            failed += not answer.startswith(b"HTTP/1.1 200 ")
    return took, failed


def _answer(sock: socket.socket) -> bytes:
    """One whole answer. Raises ``ConnectionError``."""
    answer = b""
    while True:
        data = sock.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        answer += data
        head, end, body = answer.partition(b"\r\n\r\n")
        if end and len(body) >= int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0):
            return answer


def report(found: Found, console: Console) -> list[float]:
    """Print the medians. The ratios of a call to the disk: p50 and p99."""
    medians = {
        name: [median(sample[place] for sample in samples) for place in (0, 1)] for name, samples in found.items()
    }
    table = Table(box=MARKDOWN)
    table.add_column("")
    for column in ("p50 ms", "p99 ms", "p50, times the disk's", "p99, times the disk's"):
        table.add_column(column, justify="right")
    ratios = [ours / disk for ours, disk in zip(medians[CALL], medians[DISK], strict=True)]
    for name, values in medians.items():
        shown = [f"{value:.2f}" for value in values]
        table.add_row(name, *shown, *([f"{ratio:.2f}" for ratio in ratios] if name == CALL else ["", ""]))
    console.print(table)
    return ratios


if __name__ == "__main__":
    sys.exit(main())
