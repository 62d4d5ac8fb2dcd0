"""How much memory a server takes: idle, and when more actors were touched than fit."""

from __future__ import annotations

import asyncio
import os

from tests.support.client import Client
from tests.support.server import resident_bytes, until

MIB = 1024 * 1024
FRONT_IDLE, WORKER_IDLE = 60 * MIB, 70 * MIB
INSTANCES = int(os.environ.get("ACTORD_TEST_INSTANCES", "20000"))
ROOM = 16 * MIB  # over an idle worker's own memory: less than the instances need
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


async def touch(port: int, first: int, last: int) -> None:
    async def client(number: int) -> None:
        connection = Client(port)
        for name in range(first + number, last, CONNECTIONS):
            reply = await connection.call("Probe", f"instance {name}", "put", "value", "x" * 200)
            assert reply.status == 200
        connection.close()

    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))


def test_more_instances_than_fit_leave_the_worker_within_its_target(serve, tmp_path):
    probe = serve("probe.py", settings={"server.workers": 1}, data_dir=tmp_path / "other")
    probe.result("Probe", "a", "add", 1)
    target = resident_bytes(probe.worker_of(0)) + ROOM
    probe.stop()

    settings = {"server.workers": 1, "runtime.memory_target": target, "runtime.idle_after": 3600}
    server = serve("probe.py", settings=settings | {"storage.page_cache": MIB})
    worker = server.worker_of(0)
    asyncio.run(touch(server.port, 0, INSTANCES))
    until(lambda: resident_bytes(worker) <= target, "the worker to get within its memory target")
    alive = server.result("Probe", "witness", "live")
    assert alive < INSTANCES, "nothing was evicted: the target was never reached"
    for name in (0, INSTANCES // 2, INSTANCES - 1):  # what left memory comes back
        assert server.result("Probe", f"instance {name}", "get", "value") == "x" * 200
    assert server.worker_of(0) == worker
