"""The dispenser: a number that somebody has got is never given again, whatever is killed meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from examples.dispenser import Dispenser
from tests.examples.running import EXAMPLES, ONE_WORKER
from tests.support.client import Client, Lost, NotSent
from tests.support.fixtures import Serve
from tests.support.harness import Core
from tests.support.server import PATIENCE_SECONDS, Server

CLIENTS = 16
EACH = 40  # numbers that each client gets between two kills


async def test_numbers_come_in_order_without_gaps() -> None:
    core = Core(Dispenser)
    assert await core.value("a", "next") == [1]
    assert await core.value("a", "next", 3) == [2, 3, 4]
    assert await core.value("b", "next") == [1]
    assert await core.value("a", "last") == 4
    assert (await core.call("a", "next", 0)).name == "ActorArgumentError"
    assert (await core.call("a", "next", 1001)).name == "ActorArgumentError"


async def test_a_document_keeps_its_number() -> None:
    core = Core(Dispenser)
    assert await core.value("a", "number_for", "invoice of ana") == 1
    assert await core.value("a", "number_for", "invoice of bob") == 2
    assert await core.value("a", "number_for", "invoice of ana") == 1
    assert await core.value("a", "next") == [3]
    assert (await core.call("a", "number_for", "x" * 201)).name == "ActorArgumentError"


async def ask_until_answered(client: Client, *call: str) -> Any:
    """The result of a call that is made again for as long as the server is away."""
    while True:
        try:
            reply = await client.call("Dispenser", *call)
        except (Lost, NotSent):
            await asyncio.sleep(0.01)  # before the next attempt
            continue
        if reply.status == 200:
            return reply.json()
        assert reply.status == 503, reply


async def draw_under_kills(server: Server, kills: int) -> list[list[int]]:
    drawn: list[list[int]] = [[] for _ in range(CLIENTS)]
    progress = asyncio.Semaphore(0)

    async def draw(mine: list[int]) -> None:
        client = Client(server.port)
        while len(mine) < (kills + 1) * EACH:
            mine += await ask_until_answered(client, "tickets", "next")
            progress.release()
        client.close()

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for mine in drawn:
            group.create_task(draw(mine))
        for kill in range(kills):
            for _ in range(EACH * CLIENTS // 2):
                await progress.acquire()
            if kill % 2:
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            else:
                [worker] = server.children("worker")
                await asyncio.to_thread(server.kill_child, worker.pid)
    return drawn


def test_no_number_is_given_twice_while_worker_and_server_are_killed(serve: Serve) -> None:
    server = serve(EXAMPLES / "dispenser.py", settings=ONE_WORKER)
    drawn = asyncio.run(draw_under_kills(server, kills=3))
    numbers = [number for mine in drawn for number in mine]
    assert len(numbers) == 4 * EACH * CLIENTS
    assert len(set(numbers)) == len(numbers)
    assert all(mine == sorted(mine) for mine in drawn), "a client's numbers grow"
    assert server.result("Dispenser", "tickets", "last") >= max(numbers)


async def number_all(server: Server, documents: int) -> dict[str, int]:
    """A number for each document, with the worker killed on the way."""
    numbers: dict[str, int] = {}
    progress = asyncio.Semaphore(0)

    async def ask(mine: int) -> None:
        client = Client(server.port)
        for i in range(mine, documents, CLIENTS):
            numbers[f"d{i}"] = await ask_until_answered(client, "invoices", "number_for", f"d{i}")
            progress.release()
        client.close()

    async with asyncio.timeout(PATIENCE_SECONDS), asyncio.TaskGroup() as group:
        for mine in range(CLIENTS):
            group.create_task(ask(mine))
        for _ in range(documents // 3):
            await progress.acquire()
        [worker] = server.children("worker")
        await asyncio.to_thread(server.kill_child, worker.pid)
    return numbers


def test_asking_again_for_a_document_leaves_no_gap_after_a_kill(serve: Serve) -> None:
    server = serve(EXAMPLES / "dispenser.py", settings=ONE_WORKER)
    numbers = asyncio.run(number_all(server, 640))
    assert sorted(numbers.values()) == list(range(1, 641))
