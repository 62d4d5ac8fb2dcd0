"""The transfer: the sum of all accounts stays what it was, and each transfer arrives once, under kills of any process.

ACTORD_TEST_LONG=1 makes it 200 kills.
"""

from __future__ import annotations

import asyncio
import os
import random

from actord.server.admin import AdminClient

from tests.examples.running import EXAMPLES
from tests.faults import test_kill
from tests.support.client import Client, Lost, NotSent
from tests.support.fixtures import Serve
from tests.support.server import Server, until

LONG = bool(os.environ.get("ACTORD_TEST_LONG"))
KILLS = 200 if LONG else 4
ACCOUNTS = [f"acct-{number}" for number in range(12)]
OPENED = 1_000
CLIENTS = 8
BETWEEN = 30  # transfers between two kills
SETTINGS = {"server.workers": 2, "storage.shards": 2, "server.restart_delay_max": 0.05, "runtime.idle_after": 1}


class Transfers:
    """Clients that move money about. What was answered 200 is ``done``; what has no answer may have happened."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.done: set[str] = set()
        self.asked: set[str] = set()
        self.stop = False
        self._more = asyncio.Event()

    async def client(self, seed: int) -> None:
        rng = random.Random(seed)
        client = Client(self.port)
        number = 0
        while not self.stop:
            number += 1
            id_, (giver, taker) = f"t-{seed}-{number}", rng.sample(ACCOUNTS, 2)
            self.asked.add(id_)
            while not self.stop:
                try:
                    reply = await client.call("Account", giver, "transfer", taker, rng.randint(1, 50), id_)
                except NotSent:
                    await asyncio.sleep(0.01)
                    continue
                except Lost:
                    continue  # the same transfer again: its id keeps it from happening twice
                if reply.status == 200:
                    self.done.add(id_)
                    self._more.set()
                elif reply.status == 503:
                    await asyncio.sleep(0.01)
                    continue
                else:
                    assert reply.status == 409, reply
                break
        client.close()

    async def successes(self, count: int) -> None:
        wanted = len(self.done) + count
        async with asyncio.timeout(60):
            while len(self.done) < wanted:
                self._more.clear()
                await self._more.wait()


async def under_kills(server: Server, seed: int, kills: int) -> Transfers:
    rng = random.Random(seed)
    faults = [test_kill.kill_worker] * 3 + [test_kill.kill_children, test_kill.kill_group]
    transfers = Transfers(server.port)
    clients = [asyncio.create_task(transfers.client(seed * 100 + n)) for n in range(CLIENTS)]
    try:
        for _ in range(kills):
            await transfers.successes(BETWEEN)
            await asyncio.to_thread(rng.choice(faults), server)
        await transfers.successes(BETWEEN)
    finally:
        transfers.stop = True
        await asyncio.gather(*clients)
    return transfers


def under_way(server: Server) -> list[object]:
    """What `actord outbox ls` lists."""
    with AdminClient(str(server.data_dir)) as client:
        return [message for value in client.ask("outbox.list") for message in value["messages"]]


def audit(server: Server, transfers: Transfers) -> None:
    until(lambda: under_way(server) == [], "every message to have arrived")
    statements = {name: server.result("Account", name, "statement") for name in ACCOUNTS}
    balances = {name: server.result("Account", name, "balance") for name in ACCOUNTS}
    sent = {id_ for statement in statements.values() for id_ in statement["out"]}
    came = [(id_, times) for statement in statements.values() for id_, times in statement["in"].items()]
    assert sum(balances.values()) == OPENED * len(ACCOUNTS), "money was made or lost"
    assert all(times == 1 for _, times in came), "a message has taken effect twice"
    assert sorted(id_ for id_, _ in came) == sorted(sent), "sent and received differ"
    assert transfers.done <= sent <= transfers.asked
    assert min(balances.values()) >= 0


def test_money_is_neither_made_nor_lost_under_kills(serve: Serve) -> None:
    server = serve(EXAMPLES / "transfer.py", settings=SETTINGS)
    for name in ACCOUNTS:
        assert server.result("Account", name, "open", OPENED) == OPENED
    transfers = asyncio.run(under_kills(server, 7, KILLS))
    audit(server, transfers)
    assert len(transfers.done) >= (KILLS + 1) * BETWEEN
    assert server.unexpected(*test_kill.EXPECTED) == []
    assert server.stop() == 0
    server.start()
    audit(server, transfers)


def test_a_transfer_is_refused_when_the_money_is_not_there_and_happens_once_for_its_id(serve: Serve) -> None:
    server = serve(EXAMPLES / "transfer.py", settings={"server.workers": 1})
    server.result("Account", "alice", "open", 100)
    refused = server.call("Account", "alice", "transfer", to="bob", amount=101, id="t-1")
    assert (refused.status, refused.json()["code"]) == (409, "insufficient")
    assert server.call("Account", "alice", "transfer", to="alice", amount=1, id="t-2").status == 400
    for _ in range(3):
        assert server.result("Account", "alice", "transfer", to="bob", amount=30, id="t-3") == 70
    until(lambda: server.result("Account", "bob", "balance") == 30, "the transfer to arrive")
    until(lambda: under_way(server) == [], "the message to be removed")
