"""How much memory a server takes: idle, and when more actors were touched than fit."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.support.client import Client
from tests.support.prometheus import scrape
from tests.support.server import resident_bytes, until

MIB = 1024 * 1024
FRONT_IDLE, WORKER_IDLE = 60 * MIB, 70 * MIB
INSTANCES = int(os.environ.get("ACTORD_TEST_INSTANCES", "40000"))
# Over an idle worker's own memory: less than the instances need.
ROOM = 24 * MIB
KEPT_PER_MIB = 300  # instances; about 1,000 fit
CONNECTIONS = 32


def test_an_idle_server_takes_little_memory(serve):
    server = serve("probe.py", settings={"server.workers": 2})
    for number in range(50):
        server.result("Probe", f"n{number}", "add", 1)
    for child in server.children("front"):
        assert resident_bytes(child.pid) <= FRONT_IDLE
    workers = server.children("worker")
    assert len(workers) == 2
    for child in workers:
        assert resident_bytes(child.pid) <= WORKER_IDLE


async def touch(port: int, type_: str, method: str, count: int) -> None:
    async def client(number: int) -> None:
        connection = Client(port)
        for name in range(number, count, CONNECTIONS):
            reply = await connection.call(type_, f"instance {name}", method, name)
            assert reply.status == 200
        connection.close()

    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))


def highest_bytes(pid: int) -> int:
    """The most resident memory that a process ever had."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def test_more_instances_than_fit_leave_the_worker_within_its_target(serve, tmp_path):
    own = serve("ledger.py", settings={"server.workers": 1}, data_dir=tmp_path / "other")
    own.result("Register", "a", "write", 1)
    target = resident_bytes(own.worker_of(0)) + ROOM
    own.stop()

    settings = {"server.workers": 1, "runtime.memory_target": target, "runtime.idle_after": 3600}
    server = serve("ledger.py", settings=settings | {"storage.page_cache": MIB})
    worker = server.worker_of(0)
    asyncio.run(touch(server.port, "Register", "write", INSTANCES))
    until(lambda: resident_bytes(worker) <= target, "the worker to get within its memory target")
    assert highest_bytes(worker) <= target * 1.05
    figures = scrape(server)
    evicted = figures.value("actord_evictions_total", reason="memory")
    kept = figures.value("actord_instances", type="Register")
    assert evicted + kept == INSTANCES
    assert evicted > 0, "all of them fit: this proves nothing"
    assert kept >= ROOM / MIB * KEPT_PER_MIB, "more were evicted than had to be"
    for name in (0, INSTANCES // 2, INSTANCES - 1):  # what left memory comes back
        assert server.result("Register", f"instance {name}", "read") == name
    assert server.worker_of(0) == worker


def test_instances_that_idle_leave_memory_and_nothing_else(serve):
    server = serve("probe.py", settings={"server.workers": 1, "runtime.idle_after": 1})
    worker = server.worker_of(0)
    asyncio.run(touch(server.port, "Probe", "add", 2_000))
    until(lambda: server.result("Probe", "witness", "live") == 1, "all instances but the witness to leave memory")
    assert server.result("Probe", "instance 7", "get", "sum") == 7
    assert server.worker_of(0) == worker
