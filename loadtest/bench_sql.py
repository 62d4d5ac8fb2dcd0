"""Durable SQL inserts by primary key in 10,000 actors: actord beside FastAPI + PostgreSQL and one SQLite file an actor.

``python -m actord.loadtest.bench_sql``. Every round runs each system in turn on 64 connections; only ratios within one
run count. At the end the rows of each system are counted: at least those answered, at most those under way on top.
Needs wrk and PostgreSQL's server. Exit status: 0; 1 when rows are missing, a call failed, or (with ``--strict``) a
ratio is below 5; 69 when a system did not come up; 78 when the data would be kept in memory.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from actord.loadtest import machine, systems
from actord.loadtest.audit import CLIENTS, NAMES, Ledger
from actord.loadtest.durability import flush_rate
from actord.loadtest.measure import MeasureError, Sample, measure, run_wrk
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE, SETTLE_SECONDS, leave
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

PATH = "/actors/Entries/acct-%d/insert"
WANTED = 5.0
PROGRAM = """
from actord import StatefulActor


class Entries(StatefulActor):
    async def on_activate(self) -> None:
        self.sql = self.ctx.storage.sql
        self.sql.exec("CREATE TABLE IF NOT EXISTS entry (id INTEGER PRIMARY KEY, amount INTEGER)")

    async def insert(self, amount: int) -> dict:
        return self.sql.exec("INSERT INTO entry (amount) VALUES (?) RETURNING id", amount).one()

    async def count(self) -> int:
        return self.sql.exec("SELECT count(*) AS n FROM entry").one()["n"]
"""


@dataclass(slots=True)
class Peer:
    """A running system, its ledger of inserts, and how to count all of its rows."""

    name: str
    port: int
    roots: list[int]
    count: Callable[[], int]
    ledger: Ledger


@contextmanager
def actord(directory: Path, command: Sequence[str]) -> Iterator[Peer]:
    port, log, program = systems.free_port(), directory / "actord.log", directory / "entries.py"
    program.write_text(PROGRAM)
    data = str(directory / "actord-data")
    with systems.process([*command, "serve", str(program), "--port", str(port), "--data-dir", data], log) as pid:
        systems.wait_until(lambda: answers(port), pid, log, "actord")
        yield Peer("actord", port, [pid], lambda: each_name(port, "count", ""), Ledger())


@contextmanager
def fastapi(directory: Path) -> Iterator[Peer]:
    with systems.postgres(directory / "postgres") as (database, dsn, _):

        def psql(statement: str) -> str:
            command = [str(systems.postgres_programs() / "psql"), "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", dsn]
            return subprocess.run([*command, "-c", statement], capture_output=True, text=True, check=True).stdout

        psql("CREATE TABLE entry (name text, id bigserial, amount bigint, PRIMARY KEY (name, id))")
        port, log = systems.free_port(), directory / "fastapi.log"
        command = [sys.executable, "-m", "uvicorn", "actord.loadtest.peers.fastapi_pg_insert:app", "--workers", "2"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning"]
        with systems.process(command, log, DSN=dsn) as pid:
            systems.wait_until(lambda: answers(port), pid, log, "FastAPI")
            yield Peer("fastapi+postgres", port, [pid, database], lambda: count_pg(psql), Ledger())


def count_pg(psql: Callable[[str], str]) -> int:
    return int(psql("SELECT count(*) FROM entry WHERE name LIKE 'acct-%'"))


@contextmanager
def files(directory: Path) -> Iterator[Peer]:
    """A file for each name, made beforehand; two processes share the port."""
    where = directory / "files"
    where.mkdir()
    template = where / "nobody.db"
    with closing(sqlite3.connect(template)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE entry (id INTEGER PRIMARY KEY, amount INTEGER)")
        connection.commit()
    names = [where / f"acct-{number}.db" for number in range(1, NAMES + 1)]
    for name in names:
        shutil.copyfile(template, name)
    port, log = systems.free_port(), directory / "files.log"
    command = [sys.executable, "-m", "actord.loadtest.peers.sqlite_files", str(port), str(where)]
    with systems.process(command, log) as first, systems.process(command, directory / "files-2.log") as second:
        systems.wait_until(lambda: answers(port), first, log, "the files")
        yield Peer("sqlite-files", port, [first, second], lambda: sum(map(count_file, names)), Ledger())


def count_file(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM entry").fetchone()[0])


def each_name(port: int, method: str, body: str) -> int:
    """Call every name once; the sum of the answers."""

    def share(first: int) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            return sum(post(connection, f"acct-{i}", method, body) for i in range(first, NAMES + 1, CLIENTS))

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(share, range(1, CLIENTS + 1)))


def post(connection: http.client.HTTPConnection, name: str, method: str, body: str) -> int:
    connection.request("POST", f"/actors/Entries/{name}/{method}", body, {"Content-Type": "application/json"})
    reply = connection.getresponse()
    value = json.loads(reply.read())
    if reply.status != 200:
        raise MeasureError(f"{method} was answered {reply.status}: {value}")
    return int(value["id"] if isinstance(value, dict) else value)


def answers(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=2)) as connection:
            return post(connection, "nobody", "insert", '{"amount":1}') > 0
    except (OSError, MeasureError, ValueError, http.client.HTTPException):
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_sql", description="Durable SQL inserts a second in 10,000 actors.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of one run of wrk (5)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--out", type=Path, help="also write the samples to this JSON file")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the systems keep their data (/var/tmp)")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    parser.add_argument("--strict", action="store_true", help="exit status 1 also when a ratio is below 5")
    options = parser.parse_args(arguments)
    console = Console(width=200, highlight=False)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        directory.chmod(0o711)  # PostgreSQL runs as another user when this runs as root
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        signal.signal(signal.SIGTERM, leave)
        console.print(f"{flush_rate(directory)['per_second']:,.0f} flushes/s of a file by itself")
        try:
            peers = [
                stack.enter_context(start)
                for start in (files(directory), fastapi(directory), actord(directory, shlex.split(options.actord)))
            ]
            samples = rounds(options, peers)
            sound = audit(peers, console)
        except (systems.SystemFailed, MeasureError, OSError) as error:
            console.print(f"bench_sql: {error}", markup=False)
            return EX_UNAVAILABLE
    ratios = print_table(samples, peers, console)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps([sample.to_json() for sample in samples], indent=1) + "\n")
    failed = any(sum(sample.wrk.errors.values()) for sample in samples)
    return 0 if sound and not failed and not (options.strict and min(ratios) < WANTED) else 1


def rounds(options: argparse.Namespace, peers: Sequence[Peer]) -> list[Sample]:
    samples = []
    for peer in peers:  # every database is open, and code is loaded, before the clock starts
        each_name(peer.port, "insert", '{"amount":1}')
        peer.ledger.answered += NAMES
        peer.ledger.add(run_wrk(peer.port, connections=64, names=NAMES, seconds=1, path=PATH), 64)
    for number in range(options.rounds):
        for peer in [*peers[number % len(peers) :], *peers[: number % len(peers)]]:
            time.sleep(SETTLE_SECONDS)
            sample = measure(
                peer.name,
                peer.port,
                peer.roots,
                spread="uniform",
                connections=options.connections,
                names=NAMES,
                seconds=options.seconds,
                round=number,
                path=PATH,
            )
            peer.ledger.add(sample.wrk, options.connections)
            samples.append(sample)
    return samples


def audit(peers: Sequence[Peer], console: Console) -> bool:
    """Is every answered insert there?"""
    sound = True
    for peer in peers:
        rows, ledger = peer.count(), peer.ledger
        holds = ledger.answered <= rows <= ledger.answered + ledger.uncertain
        sound = sound and holds
        console.print(f"{peer.name}: {rows:,} rows, {ledger.answered:,} answered: {'ok' if holds else 'AUDIT FAILED'}")
    return sound


def print_table(samples: Sequence[Sample], peers: Sequence[Peer], console: Console) -> list[float]:
    """Medians over the rounds, as Markdown. Returns actord's rate over each other system's."""
    grid = Table("server", "inserts/s", "min-max", "p50 ms", "p99 ms", "CPU µs/call", "actord /", box=MARKDOWN)
    rates = {peer.name: median(sample.rate for sample in samples if sample.system == peer.name) for peer in peers}
    for name, rate in rates.items():
        own = [sample for sample in samples if sample.system == name]
        grid.add_row(
            name,
            f"{rate:,.0f}",
            f"{min(sample.rate for sample in own):,.0f}-{max(sample.rate for sample in own):,.0f}",
            f"{median(sample.wrk.p50_ms for sample in own):.2f}",
            f"{median(sample.wrk.p99_ms for sample in own):.2f}",
            f"{median(sample.cpu_us for sample in own):.1f}",
            f"{rates['actord'] / rate:.1f}",
        )
    console.print(grid)
    return [rates["actord"] / rate for name, rate in rates.items() if name != "actord"]


if __name__ == "__main__":
    sys.exit(main())
