"""A disk that takes long over each fsync: calls get slower and nothing else; what waits is bounded, and other shards
do not notice. The delay is injected by strace into the worker's own fdatasync."""

from __future__ import annotations

import asyncio
import shutil
import statistics
from time import monotonic

import pytest
from actord.shards.slots import shard_of_slot, slot_of

from tests.faults.test_fsync import strace
from tests.history.audit import audit_server
from tests.history.recorder import History, deposits
from tests.support.client import Client
from tests.support.lots import LONG
from tests.support.server import Server

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

MAILBOX = 20
SETTINGS = {
    "server.workers": 2,
    "storage.shards": 2,
    "storage.flush": "thread",
    "runtime.mailbox": MAILBOX,
}
CLIENTS = 8


def names_on(shard: int, count: int) -> list[str]:
    return [name for name in map(str, range(1000)) if shard_of_slot(slot_of("Ledger", name), 2) == shard][:count]


async def timed(port: int, key: str, count: int, history: History, client: int) -> list[float]:
    """So many deposits one after the other, and what each took."""
    connection, took = Client(port), []
    try:
        for number in range(count):
            began = monotonic()
            await history.call(client, connection, "Ledger", key, "deposit", f"{client}-{number}", 1)
            took.append(monotonic() - began)
    finally:
        connection.close()
    return took


@pytest.mark.parametrize("delay", [0.05, 0.5, *([5.0] if LONG else [])])
def test_a_slow_disk_slows_its_own_calls_and_no_others(delay, serve):
    server: Server = serve(settings=SETTINGS)
    slow, quick = names_on(0, 4), names_on(1, 2)
    history = History()

    async def run() -> tuple[list[float], list[float]]:
        stop = asyncio.Event()
        load = [asyncio.create_task(deposits(history, server.port, slow, n, stop)) for n in range(CLIENTS)]
        probes = asyncio.create_task(timed(server.port, slow[0], 2 if delay < 0.1 else 1, history, 100))
        others = await timed(server.port, quick[0], 30, history, 101)
        took = await probes
        stop.set()
        await asyncio.gather(*load)
        return took, others

    inject = ("-e", "trace=fdatasync", "-e", f"inject=fdatasync:delay_exit={int(delay * 1e6)}")
    with strace(server.worker_of(0), *inject):
        took, others = asyncio.run(run())
    assert min(took) >= delay * 0.9, "a reply left before its fsync returned"
    assert max(took) < delay * 4 + 3, "a call waited for more than the commit before its own and its own"
    assert statistics.median(others) < delay / 2, "the other worker's calls wait for this one's disk"
    assert history.surprises == []
    assert [op for op in history.operations if op.outcome != "ok"] == [], "slow is not failing"
    assert audit_server(history, server, slow + quick) == []
    assert server.unexpected() == []


def test_a_burst_for_one_actor_shares_the_few_fsyncs_that_a_slow_disk_makes(serve):
    """400 calls at once while each fsync takes 0.1 s: one after the other they would take 40 s."""
    server: Server = serve(settings=SETTINGS)
    (key,) = names_on(0, 1)
    history = History()

    async def run() -> float:
        began = monotonic()
        await asyncio.gather(*(timed(server.port, key, 1, history, client) for client in range(400)))
        return monotonic() - began

    with strace(server.worker_of(0), "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_exit=100000"):
        took = asyncio.run(run())
    assert took < 400 * 0.1 / 4
    assert {op.outcome for op in history.operations} <= {"ok", "no"}, "refused for want of room, or done"
    assert history.count >= MAILBOX
    assert audit_server(history, server, [key]) == []
