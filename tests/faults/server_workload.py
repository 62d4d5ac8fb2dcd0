"""A program for the power-cut replay: a whole server of two workers, driven over HTTP, traced with all of its children.

    server_workload.py DATA SETTINGS

Deposits into ledgers of ``books.py`` (keys, SQL, alarm) from several clients while small checkpoints run and idle
instances are evicted; then a worker is killed, then everything; each time the successor serves and says what it holds.
``SETTINGS`` is JSON: ``seed``, ``phase`` (deposits between two faults), ``variant``, and the server's ``settings``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.history.recorder import History, deposits  # noqa: E402
from tests.support.server import Server, until  # noqa: E402

SHARDS = 2
LEDGERS = [f"ledger-{number}" for number in range(6)]
CLIENTS = 5
CHECKPOINT_BYTES = 65_536
SERVER_SETTINGS = {
    "server.workers": SHARDS,
    "server.restart_delay_max": 0.05,
    "storage.shards": SHARDS,
    "storage.checkpoint_wal": CHECKPOINT_BYTES,
    "storage.ballast": 0,
    "runtime.idle_after": 0.1,
    "runtime.sql_connections": 2,
}


async def load(server: Server, client: int, phase: int, pauses: bool) -> None:
    """So many deposits; in the middle a pause in which every instance is evicted."""
    history = History()
    stop = asyncio.Event()
    tasks = [asyncio.create_task(deposits(history, server.port, LEDGERS, client + n, stop)) for n in range(CLIENTS)]
    await history.successes(phase)
    stop.set()
    await asyncio.gather(*tasks)
    if pauses:
        await asyncio.sleep(0.3)  # idle for longer than idle_after: no event tells of an eviction
    assert history.surprises == []


def statements(server: Server) -> None:
    for name in LEDGERS:
        until(lambda name=name: server.call("Ledger", name, "statement").status == 200, "a statement")


def kill_worker(server: Server, shard: int) -> None:
    """It may just be on its way out by itself, where syncs fail."""
    server.wait_ready()
    with contextlib.suppress(AssertionError, ProcessLookupError):
        server.kill_child(server.worker_of(shard))


def main() -> None:
    data, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    rng = random.Random(options["seed"])
    variants = ["fast-sweeps", *([options["variant"]] if options["variant"] else [])]
    server = Server("books.py", data, settings=SERVER_SETTINGS | options["settings"], variant=",".join(variants))
    try:
        server.start()
        asyncio.run(load(server, 100, options["phase"], True))
        kill_worker(server, rng.randrange(SHARDS))
        asyncio.run(load(server, 200, options["phase"], False))
        statements(server)
        for pid in [server.pid, *(child.pid for child in server.children())]:
            os.kill(pid, signal.SIGKILL)
        server.wait()
        server.start()
        statements(server)
        asyncio.run(load(server, 300, options["phase"] // 2, True))
        code = server.stop()
    finally:
        server.close()
    sys.exit(code)


if __name__ == "__main__":
    main()
